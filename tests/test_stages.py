"""One task after another: what is said and drawn of each stage, from records whose answers are known."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from rows import evaluation, front_run

from helpers.show import stages as show
from helpers.show.save import drawn
from helpers.stats import stages
from helpers.study import cells
from helpers.study.schema import to_arrow
from helpers.study.spec import RunSpec

NAMES = ("sft-answer direct", "rft direct")
PLANNED = cells.planned([3, 4])
EMPTY = to_arrow("evaluations", []).to_pandas()


def at(spec: RunSpec, step: int, prior: float, **exact: float) -> list[dict[str, Any]]:
    """One evaluation: both prior tasks at `prior` in the mean, and exact match by puzzle."""
    marks = [("light", "score", prior + 0.1), ("hill", "score", prior - 0.1)]
    marks += [({"own": "puzzle", "mixed": "puzzle 2x2"}[name], "exact", value) for name, value in exact.items()]
    return [evaluation(spec.name, step, *mark, run=spec.name) for mark in marks]


def both(arm: str, stem: int, off: float = 0.0) -> list[dict[str, Any]]:
    """A first run, a second one behind it, and one on turned tiles from the base."""
    first, alone, second = (
        cells.get_cell(f"{arm}{more}").at(stem, cells.SOURCE_RATE)
        for more in ("", ", turned", ", turned, after the jigsaw")
    )
    rows = at(first, 0, 0.9, own=0.04) + at(first, 8, 0.8, own=0.95) + at(alone, 0, 0.9, own=0.05)
    return rows + at(second, 0, 0.8, own=0.02, mixed=0.95) + at(second, 9, 0.6 - off, own=0.9, mixed=0.5 - off)


def scores(*rows: list[dict[str, Any]]) -> pd.DataFrame:
    return stages.stage_scores(pd.DataFrame(sum(rows, [])), PLANNED)


def test_each_stage_is_read_where_the_one_before_it_ended() -> None:
    wide = scores(both("rft direct", 3)).pivot(index="known", columns="stage", values="value")
    expected = {"prior tasks": (0.9, 0.8, 0.6), "jigsaw": (0.04, 0.95, 0.5), "turned tiles": (0.05, 0.02, 0.9)}
    for known, values in expected.items():
        assert wide.loc[known, list(stages.STAGES)].tolist() == pytest.approx(values)


def test_what_was_not_run_is_left_out_and_nothing_is_made_up() -> None:
    assert stages.stage_scores(EMPTY, PLANNED).empty
    assert stages.lost_again(scores(at(cells.get_cell("rft direct").at(3, 2e-4), 0, 0.9, own=0.04))) == [
        "No arm was taught both tasks yet."
    ]
    first = [row for row in both("rft direct", 3) if row["run"] == cells.get_cell("rft direct").at(3, 6e-5).name]
    found = scores(first)
    assert set(found["stage"]) == {"base", "after the jigsaw"} and "turned tiles" not in set(found["known"])
    fig = show.matrix(stages.stage_summary(found))
    assert "turned tiles unknown, unknown, unknown" in fig.jigsaw_alt and len(fig.axes[0].texts) == 4


def test_what_the_second_task_cost_is_a_difference_of_neighbouring_stages() -> None:
    said = stages.lost_again(scores(both("rft direct", 3), both("rft direct", 4, off=0.1)))
    assert said == [
        "rft direct: of the prior score the jigsaw cost 0.10 (0.10 to 0.10, 2 bases) and turned tiles 0.25 "
        "(0.20 to 0.30, 2 bases) more; of the jigsaw they cost 0.50 (0.45 to 0.55, 2 bases)."
    ]


def test_the_matrix_draws_every_mean_and_the_paths_every_run() -> None:
    rows = [both(name, stem, off) for name in NAMES for stem, off in ((3, 0.0), (4, 0.1))]
    summary = stages.stage_summary(scores(*rows))
    fig = show.matrix(summary)
    assert [ax.get_title("left") for ax in fig.axes] == ["rft direct", "sft-answer direct"]
    assert {text.get_text() for text in fig.axes[0].texts} >= {"0.45\n0.40 to 0.50", "0.55\n0.50 to 0.60"}
    assert len(drawn(fig)) == 2 * 9 and "jigsaw 0.04, 0.95, 0.45" in fig.jigsaw_alt
    curves = stages.second_curves(pd.DataFrame(sum(rows, [])), PLANNED)
    paths = show.paths(curves)
    ends = {tuple(line.get_xydata()[-1].round(6)) for line in paths.axes[0].lines if len(line.get_xydata()) == 1}
    assert {
        (0.9, 0.5),
        (0.9, 0.4),
    } <= ends and "rft direct: turned 0.02 to 0.90, jigsaw 0.95 to 0.45" in paths.jigsaw_alt


def test_what_was_not_learned_is_no_sign_of_keeping() -> None:
    first = cells.get_cell("rft direct").at(3, 6e-5)
    second = cells.get_cell("rft direct, turned, after the jigsaw").at(3, 6e-5)
    rows = at(first, 0, 0.9, own=0.04) + at(first, 8, 0.8, own=0.95)
    rows += at(second, 0, 0.8, own=0.02, mixed=0.95) + at(second, 9, 0.8, own=0.04, mixed=0.95)
    assert stages.lost_again(scores(rows)) == ["rft direct: turned tiles were not learned on 1 of 1 bases."]
    said = stages.lost_again(scores(rows, both("rft direct", 4)))
    assert said[0].endswith("of the jigsaw they cost 0.45 (1 base); turned tiles were not learned on 1 of 2 bases.")


def test_a_row_is_read_over_the_same_bases_at_every_stage() -> None:
    half = [row for row in both("rft direct", 4) if row["run"] == cells.get_cell("rft direct").at(4, 6e-5).name]
    summary = stages.stage_summary(scores(both("rft direct", 3), half))
    assert set(summary["seeds"]) == {1} and len(summary) == 9


def test_the_two_tasks_are_compared_on_the_same_bases_and_at_the_same_rate() -> None:
    rows = [
        front_run("sft-answer direct", "3", 6e-5, 0.3), front_run("rft direct", "3", 6e-5, 0.2),
        front_run("sft-answer direct", "3", 2e-4, 0.9), front_run("sft-answer direct", "4", 6e-5, 0.3),
        front_run("rft direct", "4", 6e-5, 0.3), front_run("sft-answer direct, turned", "3", 6e-5, 0.1),
        front_run("rft direct, turned", "3", 6e-5, 0.25),
    ]  # fmt: skip
    table = stages.second_task(pd.DataFrame(rows), *NAMES)
    assert table[["task", "base"]].to_numpy().tolist() == [["jigsaw", "3"], ["turned tiles", "3"]]
    assert table["difference"].tolist() == pytest.approx([0.1, -0.15])
    assert stages.second_task_words(table) == [
        "jigsaw: drop of sft-answer direct minus that of rft direct: 0.10 (1 base).",
        "turned tiles: drop of sft-answer direct minus that of rft direct: -0.15 (1 base).",
        "The difference on turned tiles minus that on the jigsaw: -0.25 (1 base).",
    ]
    late = table.assign(difference=table["difference"].where(table["task"] == "jigsaw"))
    assert stages.second_task_words(late)[1:] == ["No base has both arms at 0.7 on both tasks yet."]
    assert stages.second_task_words(table[:0]) == ["No base has both arms at 0.7 on both tasks yet."]
