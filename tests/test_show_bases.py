"""Figures of the study on several bases: the numbers drawn and said, and that all of it stands on the paper."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from rows import front_run
from test_claims import evidence
from test_front_table import outcome
from test_on_bases import HIGH, LOW, cell, given
from test_ways import BASE, CELL, OTHER, PICKED, PLANNED, RUN, base_rows, boards, examined

from helpers.errors import UserError
from helpers.show import bases
from helpers.show.save import checked_data, drawn, savefig
from helpers.stats import front_table, ways
from helpers.study import cells
from helpers.study.schema import to_arrow
from helpers.train.few import halves
from helpers.verdicts import claims
from helpers.world.battery import battery_tasks

SFT, RFT = "sft-answer direct", "rft direct"
HEADLINE = [name for name, own in cells.CELLS.items() if own.headline and own.arm != "base"]


def front(*rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(sum(rows, []))


def points(fig: Figure, panel: int = 0) -> set[tuple[float, float]]:
    """Everything that stands as a point in a panel."""
    lines = [line for line in fig.axes[panel].lines if line.get_marker() not in ("", "None", "|", None)]
    return {(round(float(x), 6), round(float(y), 6)) for line in lines for x, y in line.get_xydata()}


def legend_of(fig: Figure) -> list[str]:
    return [text.get_text() for legend in fig.legends for text in legend.get_texts()]


def notes_of(fig: Figure) -> list[str]:
    return fig.get_supxlabel().split("\n")


def within(place: float, ends: tuple[float, float]) -> bool:
    return min(ends) <= place <= max(ends)


def assert_all_on_the_paper(fig: Figure) -> None:
    """Every text lies within the figure, and the table can be written."""
    fig.draw_without_rendering()
    whole = fig.bbox
    texts = [text for ax in fig.axes for text in (*ax.texts, ax.title)]
    texts += [text for ax in fig.axes for text in ax.get_yticklabels() if within(text.get_position()[1], ax.get_ylim())]
    texts += [text for ax in fig.axes for text in ax.get_xticklabels() if within(text.get_position()[0], ax.get_xlim())]
    texts += [text for legend in fig.legends for text in legend.get_texts()]
    texts += [fig._supxlabel]
    for text in texts:
        box = text.get_window_extent()
        if text.get_visible() and text.get_text() and box.width:
            assert box.x0 >= -1 and box.x1 <= whole.x1 + 1, text.get_text()
            assert box.y0 >= -1 and box.y1 <= whole.y1 + 1, text.get_text()
    checked_data(drawn(fig))


# --- fronts -----------------------------------------------------------------------------------------------


def test_a_front_draws_every_run_and_the_mean_at_each_rate() -> None:
    rows = [front_run(RFT, "3", 2e-4, 0.31, flops=1e12), front_run(RFT, "4", 2e-4, 0.10, flops=4e12),
            front_run(RFT, "3", 6e-5, 0.05, flops=9e12), front_run(RFT, "4", 6e-5, math.nan)]  # fmt: skip
    fig = bases.fronts(front(rows), [RFT])
    table = drawn(fig)
    means = table[table["base"] == "mean"].set_index("rate")
    assert means.loc[2e-4, ["flops", "drop", "arrived", "runs"]].tolist() == pytest.approx([2e12, 0.21, 2, 2])
    assert means.loc[6e-5, ["flops", "drop", "arrived", "runs"]].tolist() == pytest.approx([9e12, 0.055, 1, 2])
    (lost,) = table[table["arrived"] == 0].to_dict("records")
    assert (lost["base"], lost["rate"], lost["flops"], lost["drop"]) == ("4", 6e-5, "", "")
    arrived = table[table["arrived"] > 0]
    shown = {(round(float(x), 6), round(float(y), 6)) for x, y in zip(arrived["flops"], arrived["drop"], strict=True)}
    assert points(fig) == shown and fig.axes[0].get_xscale() == "log"
    assert "by rate: rft direct 2e-04: 0.21 at 2.0e+12, 6e-05: 0.06 at 9.0e+12. Did not reach" in fig.jigsaw_alt
    assert "did not reach 0.7: rft direct (1 of 4 runs)" in notes_of(fig)
    assert_all_on_the_paper(fig)


def test_a_front_leaves_out_the_base_and_can_be_of_some_cells() -> None:
    base = [front_run("base direct", "3", 0.0, math.nan)]
    three = front(base, [front_run(RFT, "3", 6e-5, 0.1)], [front_run(SFT, "3", 6e-5, 0.2)])
    every = bases.fronts(three)
    assert list(drawn(every)["cell"].unique()) == HEADLINE
    assert legend_of(every) == [SFT, RFT, "rate 6e-05"]
    some = bases.fronts(three, [SFT])
    assert list(drawn(some)["cell"].unique()) == [SFT] and legend_of(some) == [SFT, "rate 6e-05"]


def test_runs_that_are_only_planned_are_counted_and_not_drawn() -> None:
    rows = [front_run(RFT, "3", 2e-4, 0.3, ran=True), front_run(RFT, "4", 2e-4, math.nan, ran=False),
            front_run(RFT, "3", 6e-5, math.nan, ran=True), front_run(SFT, "3", 6e-5, math.nan, ran=False)]  # fmt: skip
    fig = bases.fronts(front(rows), [RFT, SFT])
    table = drawn(fig)
    counts = table[table["base"] == "mean"].set_index(["cell", "rate"])[["arrived", "runs", "planned"]]
    assert counts.T.to_dict("list") == {(RFT, 2e-4): [1, 1, 2], (RFT, 6e-5): [0, 1, 1], (SFT, 6e-5): [0, 0, 1]}
    assert list(table[table["base"] != "mean"]["base"]) == ["3", "3"] and legend_of(fig) == [RFT, "rate 2e-04"]
    lacks = ["did not reach 0.7: rft direct (1 of 2 runs)", "run so far: rft direct (2 of 3 runs)", f"not run: {SFT}"]
    assert notes_of(fig)[1:] == lacks
    assert fig.jigsaw_alt.endswith(f"Did not reach 0.7: {lacks[0][19:]}. Run so far: {lacks[1][12:]}. Not run: {SFT}.")
    assert_all_on_the_paper(fig)


def test_a_run_whose_cost_is_unknown_is_named_and_does_not_move_the_mean() -> None:
    rows = [front_run(RFT, "3", 2e-4, 0.31, flops=1e12), front_run(RFT, "4", 2e-4, 0.10, flops=math.nan)]
    fig = bases.fronts(front(rows), [RFT])
    assert {(round(x / 1e12, 6), y) for x, y in points(fig)} == {(1, 0.315)}
    assert "FLOPs unknown: rft direct 2e-04 on base 4" in notes_of(fig)
    assert_all_on_the_paper(fig)


def test_a_cell_that_another_run_feeds_says_that_its_cost_leaves_that_out() -> None:
    fed = "sft-rollout think"
    assert f"without the FLOPs of the run that feeds it: {fed}" in notes_of(bases.fronts(front(cell(fed, LOW))))
    assert "without" not in bases.fronts(front(cell(SFT, LOW))).get_supxlabel()


@pytest.mark.parametrize("planned", [{}, PLANNED], ids=["nothing planned", "nothing run"])
def test_a_front_of_nothing_says_so(planned: front_table.Planned) -> None:
    nothing = {name: to_arrow(name, []).to_pandas() for name in cells.NAMES}
    fig = bases.fronts(front_table.front_table(nothing, planned))
    assert [text.get_text() for text in fig.axes[0].texts] == [bases.NOBODY] and not points(fig)
    assert fig.axes[0].get_xlabel() and fig.axes[0].get_title(loc="left")
    assert " ".join(notes_of(fig)) == f"not run: {'; '.join(HEADLINE)}"
    assert set(drawn(fig)["runs"]) == {0} and set(drawn(fig)["drop"]) == {""}
    assert_all_on_the_paper(fig)


def test_all_cells_of_the_headline_fit_into_a_front() -> None:
    fig = bases.fronts(front(*(cell(name, HIGH) for name in HEADLINE)))
    assert legend_of(fig)[: len(HEADLINE)] == HEADLINE
    looks = [str(sorted(bases.cell_look(name).items(), key=str)) for name in HEADLINE]
    assert len(set(looks)) == len(HEADLINE)
    assert_all_on_the_paper(fig)


# --- the primary claims -----------------------------------------------------------------------------------


def test_the_claims_stand_there_before_anything_was_run() -> None:
    fig = bases.paired(evidence())
    table = drawn(fig)
    family = [claim for claim in claims.all_claims("primary") if claim.statistic != "cost_ratio"]
    assert list(table["claim"]) == [claim.id for claim in family] and set(table["value"]) == {""}
    assert {text.get_text() for text in fig.axes[0].texts} == {"not run"}
    assert fig.jigsaw_alt.count("not run") == len(family) == 5
    assert_all_on_the_paper(fig)


def test_each_bases_difference_is_drawn_with_the_mean_and_the_verdict() -> None:
    near = tuple(v + d for v, d in zip(LOW, (0.01, -0.01, 0.01, 0.0), strict=True))
    rows = [cell(SFT, HIGH), cell(RFT, LOW), cell("rft think", LOW), cell("sft-rollout think", near)]
    known = given(*rows)
    fig = bases.paired(known)
    table = drawn(fig).set_index("claim")
    keeps, alike = table.loc["form-direct-rft-keeps"], table.loc["rollouts-as-rft"]
    assert keeps["value"].tolist() == pytest.approx([0.20, 0.18, 0.22, 0.20, 0.20])
    assert keeps["what"].tolist() == ["base"] * 4 + ["mean"] and set(keeps["bases"]) == {4}
    verdicts = claims.table(known, claims.all_claims("primary")).set_index("claim")
    mean = keeps.iloc[-1]
    expected = verdicts.loc["form-direct-rft-keeps"]
    assert mean[["low", "high", "verdict"]].tolist() == [expected["low"], expected["high"], expected["verdict"]]
    assert alike["value"].iloc[-1] == pytest.approx(0.0025) and set(alike["test"]) == {"equivalence"}
    shown = {x for x, _ in points(fig)}
    assert {round(float(x), 6) for x in [*keeps["value"], *alike["value"]]} <= shown
    assert f"{SFT} minus {RFT} 0.20 (0.17 to 0.23, 4 bases), to be > 0.1: {expected['verdict']}" in fig.jigsaw_alt
    filled = [found for found in fig.axes[0].collections if isinstance(found, PolyCollection)]
    bands = [band.get_datalim(fig.axes[0].transData) for band in filled]
    assert [(band.x0, band.x1) for band in bands] == [(-0.05, 0.05)] * 2
    assert_all_on_the_paper(fig)


def test_a_claim_whose_cells_were_run_on_some_bases_names_the_others() -> None:
    later = [front_run(name, "e", 1e-5, math.nan, ran=False) for name in (SFT, RFT)]
    fig = bases.paired(given([row | {"ran": True} for row in [*cell(SFT, HIGH), *cell(RFT, LOW)]], later))
    rows = drawn(fig).set_index("claim").loc["form-direct-rft-keeps"]
    assert set(rows["bases"]) == {4} and rows["value"].iloc[-1] == pytest.approx(0.2)
    assert f"{SFT} was not run on e" in rows["reason"].iloc[-1]
    assert "not run on e" in fig.axes[0].texts[0].get_text().replace("\n", " ")
    assert "4 bases: mean, 95% t interval" in fig.get_supxlabel()
    assert_all_on_the_paper(fig)


def test_a_claim_that_fell_back_names_the_cells_that_were_compared() -> None:
    lost = cell("rft-no-kl direct", (math.nan, *HIGH[1:]), math.nan, math.nan)
    fig = bases.paired(given(cell(SFT, LOW), lost, cell("sft-kl direct", HIGH), cell(RFT, LOW)))
    row = drawn(fig).set_index("claim").loc["algorithm-equal"].iloc[-1]
    assert (row["first"], row["second"]) == ("sft-kl direct", RFT)
    assert "sft-kl direct\nminus rft direct" in [label.get_text() for label in fig.axes[0].get_yticklabels()]


# --- ways and tasks ---------------------------------------------------------------------------------------


LACKING = {"cell": RFT, "seeds": 0, "state": "not run"}


def known_outcomes() -> pd.DataFrame:
    """Two bases, of which one never arrives, and the base arm of the other; another cell was not run."""
    never = [boards(OTHER, 0, 1), boards(OTHER, 10, 6)]
    return pd.DataFrame([*examined(RUN), *never, *base_rows()])


def test_ways_draw_the_trained_and_the_base_in_every_way() -> None:
    fig = bases.ways(known_outcomes(), PLANNED, PICKED, [CELL.name, RFT])
    table = drawn(fig)
    expected = ways.way_summary(ways.way_scores(known_outcomes(), PICKED, halves(battery_tasks())[1]))
    known = table[table["state"] == ""]
    pd.testing.assert_frame_equal(known.drop(columns="state").astype(expected.dtypes), expected)
    assert table[table["state"] != ""].to_dict("records") == [dict.fromkeys(table, "") | LACKING]
    assert {round(v, 6) for v in known["mean"]} == {x for x, _ in points(fig)}
    assert [text.get_text() for text in fig.axes[1].texts] == ["not run"]
    assert "asked for no form 1.00" in fig.jigsaw_alt and "its base: as the run asks 1.00" in fig.jigsaw_alt
    lacks = [f"did not reach 0.7: {CELL.name} (1 of 2 bases)", f"not run: {RFT}"]
    assert notes_of(fig)[-3:] == ["single base: no interval", *lacks]
    assert fig.jigsaw_alt.endswith(f" Did not reach 0.7: {CELL.name} (1 of 2 bases). Not run: {RFT}.")
    assert_all_on_the_paper(fig)


def test_regained_is_drawn_of_the_tasks_that_were_not_shown() -> None:
    shown, watched = halves(battery_tasks())
    again = {"regained": 32}
    more = [outcome(RUN, 20, "1111", task=shown[0], **again), outcome(RUN, 20, "1000", task=watched[0], **again)]
    table = drawn(bases.ways(pd.concat([known_outcomes(), pd.DataFrame(more)]), PLANNED, PICKED, [CELL.name]))
    found = table[(table["way"] == "after 32 samples of other tasks") & (table["who"] == "trained")]
    assert found["mean"].tolist() == [0.25]


@pytest.mark.parametrize("known", [known_outcomes(), to_arrow("outcomes", []).to_pandas()], ids=["others", "none"])
def test_ways_and_tasks_of_nothing_say_so(known: pd.DataFrame) -> None:
    asked, put = bases.ways(known, PLANNED, PICKED, [RFT]), bases.tasks(known, PLANNED, PICKED, [RFT])
    assert [text.get_text() for text in asked.axes[0].texts] == ["not run"]
    assert [label.get_text() for label in asked.axes[0].get_yticklabels()] == list(ways.WAYS)
    assert [[text.get_text() for text in ax.texts] for ax in put.axes] == [[bases.NOBODY]] * 2
    for fig in (asked, put):
        assert drawn(fig)[["cell", "seeds", "state"]].to_dict("records") == [LACKING]
        assert notes_of(fig)[-1] == f"not run: {RFT}" and f"{bases.NOBODY} Not run: {RFT}." in fig.jigsaw_alt
        assert "base:" not in fig.get_supxlabel()
        assert_all_on_the_paper(fig)


@pytest.mark.parametrize(
    ("at", "right", "state", "line"),
    [
        (2e-4, 7, "no run at a chosen rate", "no run at a chosen rate: rft direct (1 of 1 base)"),
        (6e-5, 6, "never reached 0.7", "did not reach 0.7: rft direct (1 of 1 base)"),
    ],
)
def test_a_panel_tells_why_it_is_empty(at: float, right: int, state: str, line: str) -> None:
    spec = cells.get_cell(RFT).at(3, at)
    known = pd.DataFrame([*examined(RUN), boards(spec, 0, 0), boards(spec, 20, right)])
    fig = bases.ways(known, PLANNED, PICKED, [CELL.name, RFT])
    assert [text.get_text() for text in fig.axes[1].texts] == [state] and line in notes_of(fig)
    assert drawn(fig)["state"].iloc[-1] == state
    assert f"run so far: {CELL.name} (1 of 2 bases); {RFT} (1 of 2 bases)" in notes_of(fig)


def test_many_cells_that_lack_stay_whole_and_on_the_paper() -> None:
    fig = bases.tasks(known_outcomes(), PLANNED, PICKED)
    missing = [name for name, own in cells.CELLS.items() if own.arm != "base" and name != CELL.name]
    lines = notes_of(fig)
    start = next(place for place, line in enumerate(lines) if line.startswith("not run: "))
    assert len(lines) > start + 1 and " ".join(lines[start:]) == f"not run: {'; '.join(missing)}"
    assert all(line.endswith(";") for line in lines[start:-1])
    assert_all_on_the_paper(fig)


def test_tasks_draw_every_drop_and_the_headline_without_it() -> None:
    fig = bases.tasks(known_outcomes(), PLANNED, PICKED)
    table = drawn(fig)
    table = table[table["state"] == ""].set_index("task")
    assert table["mean"].to_dict() == pytest.approx({"hill": 0.75, "light": 0.5, ways.ALL_TASKS: 0.625})
    texts = [[text.get_text() for text in ax.texts] for ax in fig.axes]
    assert texts == [["0.75", "0.50", "0.62"], ["0.50", "0.75", "0.62"]]
    assert [label.get_text() for label in fig.axes[1].get_xticklabels()] == ["hill", "light", ways.ALL_TASKS]
    assert f"{CELL.name} 0.62, most hill 0.75, without one task 0.50 to 0.75. Did not reach" in fig.jigsaw_alt
    assert_all_on_the_paper(fig)


def test_a_drop_whose_interval_holds_nothing_stands_in_brackets() -> None:
    third = CELL.at(5, cells.SOURCE_RATE)
    runs = [examined(spec) for spec in (RUN, OTHER, third)]
    for row in runs[0]:
        row["right"] = [True] * 4 if row["task"] == "light" else row["right"]  # falls by 0, .5 and .5: -.38 to 1.05
    fig = bases.tasks(
        pd.DataFrame(sum(runs, [])), cells.planned([3, 4, 5]), PICKED | {third.name: (CELL, third)}, [CELL.name]
    )
    assert [text.get_text() for text in fig.axes[0].texts][:2] == ["0.75", "(0.33)"]
    assert "3 bases: mean, 95% t interval" in fig.get_supxlabel()


def test_other_cells_may_stand_at_several_rates() -> None:
    other = cells.get_cell(RFT)
    known = pd.DataFrame([*examined(RUN), *examined(other.specs(3)[0]), *examined(other.specs(3)[1])])
    planned = cells.planned([3])
    assert set(drawn(bases.tasks(known, planned, planned, [CELL.name]))["cell"]) == {CELL.name}
    assert set(drawn(bases.ways(known, planned, planned, [CELL.name]))["cell"]) == {CELL.name}
    with pytest.raises(UserError, match="several values"):
        bases.tasks(known, planned, planned)


def test_figures_on_bases_can_be_saved(tmp_path) -> None:
    figures = {
        "fronts": bases.fronts(front(cell(RFT, HIGH))),
        "paired": bases.paired(evidence()),
        "ways": bases.ways(known_outcomes(), PLANNED, PICKED, [CELL.name]),
        "tasks": bases.tasks(known_outcomes(), PLANNED, PICKED),
    }
    assert BASE.name in PLANNED
    for name, fig in figures.items():
        assert savefig(fig, name, folder=tmp_path).alt == fig.jigsaw_alt
