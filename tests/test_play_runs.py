"""Runs as pages read them: what was asked is drawn again, what is marked right was, and losses are the suite's own."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from test_front_table import outcome

from helpers.errors import UserError
from helpers.play import plane, runs
from helpers.stats.curves import crossings, drops_at, rows_of
from helpers.stats.front_table import reported
from helpers.study import cells
from helpers.study.published import table

STEM = 5
CELL = cells.get_cell("sft-answer direct")
SPEC = CELL.at(STEM, cells.SOURCE_RATE)


@pytest.fixture(scope="module")
def bases() -> runs.Study:
    return runs.several_bases([STEM], [CELL.name, "rft direct"])


@pytest.fixture(scope="module")
def old() -> runs.Study:
    return runs.one_base()


@pytest.fixture(scope="module")
def data(old: runs.Study, bases: runs.Study) -> dict[str, Any]:
    return json.loads(json.dumps(runs.payload([old, bases])))


def told(data: dict[str, Any], study: int) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for run in data["studies"][study]["runs"]}


def made(rows: list[dict[str, Any]]) -> runs.Record:
    return runs.Record(CELL.name, SPEC.base, SPEC, pd.DataFrame(), pd.DataFrame(rows))


def test_every_answer_is_marked_as_the_run_marked_it(bases: runs.Study) -> None:
    assert bases.records
    for own in bases.records:
        marks = own.outcomes.sort_values("step").groupby("task")["right"].apply(list)
        kept, spoken = runs.kept_items(own), runs.said(own)
        assert len(kept) == 12 + 2 * 11 and set(spoken) == {(item.task, item.index) for item in kept}
        for item in kept:
            found = [item.is_right(text, own.spec.asked) for text in spoken[item.task, item.index]]
            assert found == [bool(right[item.index]) for right in marks[item.task]], (own.spec.name, item)


def test_a_truth_is_what_would_be_right_and_is_asked_in_the_form_of_the_run(bases: runs.Study) -> None:
    kept = runs.kept_items(bases.records[0])
    assert all(item.is_right(f"<answer>{item.truth}</answer>", "direct") for item in kept)
    assert not any(item.is_right("<answer>5 5 5 5</answer>", "direct") for item in kept)
    assert all("2 x 2 tiles" in item.prompt.text for item in kept[:12])
    assert all(item.question.written == "direct" for item in kept[12:])


def test_flips_by_hand() -> None:
    rows = [outcome(SPEC, step, marks) for step, marks in ((0, "1110"), (8, "0111"), (16, "0110"))]
    rows += [outcome(SPEC, step, marks, task="puzzle") for step, marks in ((0, "00"), (8, "11"), (16, "10"))]
    assert runs.flips(made(rows), ["light"]) == [[0, 0, 0, 0], [1, 1, 0, 2], [1, 0, 1, 0]]


def test_flips_add_up_to_what_became_of_a_score(bases: runs.Study) -> None:
    for own in bases.records:
        tasks = list(own.prior.columns)
        counts = pd.DataFrame(runs.flips(own, tasks)).sum()
        for place, task in enumerate(tasks):
            change = 100 * (own.prior[task].iloc[-1] - own.prior[task].iloc[0])
            assert counts[2 * place + 1] - counts[2 * place] == pytest.approx(change)


def test_a_page_says_again_what_was_said_and_which_of_it_is_right(bases: runs.Study, data: dict[str, Any]) -> None:
    for own in bases.records:
        page, spoken = told(data, 1)[own.spec.name], runs.said(own)
        for place, item in enumerate(runs.kept_items(own)):
            flat, texts, shown = page["said"][place], spoken[item.task, item.index], data["items"]["direct"][place]
            changes = dict(zip(flat[::2], flat[1::2], strict=True))
            now = [changes[max(at for at in changes if at <= frame)] for frame in range(len(texts))]
            assert [data["texts"][number] for number in now] == texts
            assert [number in shown["right"] for number in now] == [item.is_right(text, "direct") for text in texts]
            assert (shown["task"], shown["truth"], shown["text"]) == (item.task, item.truth, item.prompt.text)


def test_guesses_get_one_board_in_twenty_three_right(data: dict[str, Any]) -> None:
    every = [run for study in data["studies"] for run in study["runs"]]
    assert {run["chance"] for run in every} == {1 / 23}  # 24 orders of four tiles, less the solved one


def read_off(run: dict[str, Any], accuracy: float) -> float | None:
    """The mean loss where the curve of a page first reaches an accuracy; None where it never does."""
    curve = run["reach"] or run["exact"]
    after = next((place for place, value in enumerate(curve) if value >= accuracy), None)
    if after is None:
        return None
    before = max(after - 1, 0)
    rise = curve[after] - curve[before]
    share = (accuracy - curve[before]) / rise if rise > 0 else 1.0
    around = zip(run["start"], run["prior"][before], run["prior"][after], strict=True)
    each = [start - (first + share * (last - first)) for start, first, last in around]
    return sum(each) / len(each)


def test_losses_of_the_several_bases_are_those_of_the_front(data: dict[str, Any]) -> None:
    front = reported().set_index("run")["drop"].dropna()
    found = {name: read_off(run, 0.7) for name, run in told(data, 1).items()}
    assert found == {name: pytest.approx(front[name], abs=1e-9) if name in front else None for name in found}


@pytest.mark.parametrize("accuracy", [0.05, 0.5, 0.7, 0.95])
def test_losses_of_the_one_base_are_those_of_the_summary(data: dict[str, Any], accuracy: float) -> None:
    rows = table("cpu", "evaluations")
    scores = rows_of(rows, "score")
    falls = drops_at(scores, crossings(rows, accuracy)).groupby("run")["value"].mean()
    found = {name: read_off(run, accuracy) for name, run in told(data, 0).items()}
    assert found == {name: pytest.approx(falls[name], abs=1e-9) if name in falls else None for name in found}


def test_where_nothing_was_recorded_nothing_is_made_up(old: runs.Study, data: dict[str, Any]) -> None:
    assert len(old.records) == 25 and runs.kept_items(old.records[0]) == [] and runs.said(old.records[0]) == {}
    assert all(run["said"] == [] and run["flips"] == [] for run in told(data, 0).values())


def test_a_view_opens_with_rft_and_sft_whose_drops_differ_most() -> None:
    study = runs.several_bases([STEM], ["sft-answer direct", "sft-answer plain", "rft direct", "rft think"])
    opened = [next(own for own in study.records if own.spec.name == name) for name in runs.opening(study)]
    assert [own.arm for own in opened] == ["sft-answer plain", "rft think"]
    assert len({(own.place, own.spec.learning_rate) for own in opened}) == 1
    assert runs.opening(runs.several_bases([STEM], ["rft direct"])) == []


def test_a_cell_looks_as_in_its_figures() -> None:
    direct, plain = runs.arm_look("sft-answer direct"), runs.arm_look("sft-answer plain")
    assert (direct["colour"], direct["marker"]) == (plain["colour"], plain["marker"])
    assert direct["dash"] != plain["dash"] and (direct["hollow"], plain["hollow"]) == (False, True)
    assert runs.arm_look("sft-answer")["dash"] == "6 3"


def test_only_runs_on_the_jigsaw_from_their_base_are_compared() -> None:
    harder = [cell.name for cell in cells.CELLS.values() if cell.grid != "2x2" or cell.after]
    assert harder and not runs.several_bases([STEM], harder).records


def test_what_is_not_there_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError, match="there is no cell 'nothing'"):
        runs.several_bases([STEM], ["nothing"])
    with pytest.raises(UserError, match="There is no finished run to show"):
        runs.payload([runs.several_bases([2], ["rft direct"])])


def test_pages_stay_small(old: runs.Study, bases: runs.Study) -> None:
    data = runs.payload([old, bases])
    for view in (plane.plane(data), plane.time_machine(data)):
        assert len(view.page()) < 400_000
