"""What is left where 0.7 is first reached, way by way and task by task, from outcomes whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from rows import evaluation, front_run
from test_front_table import outcome

from helpers.errors import UserError
from helpers.stats import ways
from helpers.study import cells
from helpers.study.spec import RunSpec
from helpers.verdicts import told_bases

CELL = cells.get_cell("sft-answer direct")
RUN, OTHER = (CELL.at(stem, cells.SOURCE_RATE) for stem in (3, 4))
BASE = cells.get_cell("base direct").specs(3)[0]
PLANNED = cells.planned([3, 4])
PICKED = ways.source_rate_runs(PLANNED)
WATCHED = ("hill",)
THERE = 20  # the step at which `examined` has 7 of 10 boards right


def boards(spec: RunSpec, step: int, right: int, **more: Any) -> dict[str, Any]:
    return outcome(spec, step, "1" * right + "0" * (10 - right), task="puzzle", **more)


def examined(spec: RunSpec) -> list[dict[str, Any]]:
    """A run that starts with all right and is examined at step 20; what comes later does not count."""
    start = [boards(spec, 0, 9), *(outcome(spec, 0, "1111", task=task) for task in ("light", "hill"))]
    curve = [boards(spec, 10, 6), boards(spec, 10, 10, asked="think"), boards(spec, 20, 7), boards(spec, 30, 10)]
    own = [outcome(spec, 20, "1100", task="light", likely=[True] * 4), outcome(spec, 20, "1000", task="hill")]
    other = [
        outcome(spec, 20, "1110", asked="think", likely=[True, True, False, False]),
        outcome(spec, 20, "1111", asked="plain"),
        outcome(spec, 20, "1000", wording="held out"),
        outcome(spec, 20, "0000", size=96),
        outcome(spec, 20, "1110", opening="<think>"),
        outcome(spec, 20, "1100", opening="<answer>"),
    ]
    again = [outcome(spec, 20, "1111", regained=8), outcome(spec, 20, "1110", task="hill", regained=8)]
    late = [outcome(spec, 30, "0000", task=task) for task in ("light", "hill")]
    return [*start, *curve, *own, *other, *again, *late]


def base_rows() -> list[dict[str, Any]]:
    """The base arm in two ways: it loses a quarter of one task when asked to think."""
    rows = [outcome(BASE, 0, "1111", task=task) for task in ("light", "hill")]
    return [boards(BASE, 0, 9), *rows, outcome(BASE, 0, "1110", asked="think", likely=[True] * 4)]


def scores(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    found = ways.way_scores(pd.DataFrame(rows), PICKED, WATCHED)
    return {(row.who, row.way): row.value for row in found.itertuples()}


def test_a_run_is_read_where_it_first_has_seven_tenths_in_its_own_form() -> None:
    never = [boards(OTHER, 0, 10), boards(OTHER, 10, 6)]
    known = pd.DataFrame([*examined(RUN), *never, *base_rows()])
    assert ways.reached(known, PICKED).to_dict() == {RUN.name: THERE}


def test_counts_tell_what_was_run_from_what_is_read_and_what_arrived() -> None:
    fast = CELL.specs(5)[0]  # not at the rate that is read, and it would have arrived
    planned = cells.planned([3, 4, 5, 6])
    never = [boards(OTHER, 0, 10), boards(OTHER, 10, 6)]
    known = pd.DataFrame([*examined(RUN), *never, *examined(fast), *base_rows()])
    found = ways.counts(known, planned, ways.source_rate_runs(planned))
    assert found.loc[CELL.name].to_dict() == {"planned": 4, "ran": 3, "picked": 2, "arrived": 1}
    assert found.loc["sft-expert plain"].to_dict() == {"planned": 3, "ran": 0, "picked": 0, "arrived": 0}  # no twin: 6
    assert list(found.index) == [name for name, own in cells.CELLS.items() if own.arm != "base"]


def test_scores_of_every_way_by_hand() -> None:
    found = {way: value for (who, way), value in scores(examined(RUN)).items() if who == "trained"}
    assert found == pytest.approx(
        {
            ways.OWN: (0.5 + 0.25) / 2,  # light and hill weigh alike
            "asked to think": 0.75,
            "asked for no form": 1.0,
            "in held-out wordings": 0.25,
            "on pictures of another size": 0.0,
            "begun with <think>": 0.75,
            "begun with <answer>": 0.5,
            "likelihood (as the run asks)": 1.0,
            "likelihood (asked to think)": 0.5,
            "after 0 samples of other tasks": 0.25,  # hill alone: samples of light were shown
            "after 8 samples of other tasks": 0.75,
        }
    )
    assert set(found) <= set(ways.WAYS)


def test_the_base_is_the_base_arm_and_else_the_start_of_the_run() -> None:
    alone = {way: value for (who, way), value in scores(examined(RUN)).items() if who == "base"}
    assert alone == dict.fromkeys((ways.OWN, *ways.REGAINED), 1.0)
    armed = {way: value for (who, way), value in scores(examined(RUN) + base_rows()).items() if who == "base"}
    assert armed == alone | {"asked to think": 0.75, "likelihood (asked to think)": 1.0}


def test_ways_over_bases_by_hand() -> None:
    second = [row | {"right": [True] * 4} if row["opening"] else row for row in examined(OTHER)]
    summary = ways.way_summary(ways.way_scores(pd.DataFrame([*examined(RUN), *second]), PICKED, WATCHED))
    (row,) = summary[(summary["way"] == "begun with <answer>")].to_dict("records")
    assert (row["mean"], row["low"], row["high"], row["seeds"]) == (0.75, 0.5, 1.0, 2)  # of .5 and 1: smallest, largest
    assert list(dict.fromkeys(summary["way"])) == [way for way in ways.WAYS if way in set(summary["way"])]


def test_falls_of_tasks_and_the_headline_without_each_by_hand() -> None:
    hidden = [outcome(RUN, 0, "1111", task="reading"), outcome(RUN, 20, "1111", task="reading")]
    found = ways.task_falls(pd.DataFrame(examined(RUN) + hidden), PICKED).set_index("task")
    assert found["value"].to_dict() == pytest.approx(
        {"hill": 0.75, "light": 0.5, "reading": 0.0, ways.ALL_TASKS: 1.25 / 3}
    )
    assert found["without"].to_dict() == pytest.approx(
        {"hill": 0.25, "light": 0.375, "reading": 0.625, ways.ALL_TASKS: 1.25 / 3}
    )
    summary = ways.fall_summary(found.reset_index()).set_index("task")
    assert summary.loc["hill", ["mean", "without", "without_high", "seeds"]].tolist() == [0.75, 0.25, 0.25, 1]


def test_one_task_alone_has_no_headline_without_it() -> None:
    rows = [row for row in examined(RUN) if row["task"] != "hill"]
    assert ways.task_falls(pd.DataFrame(rows), PICKED).empty


def test_two_runs_of_a_cell_on_one_base_are_refused() -> None:
    planned = cells.planned([3])
    known = pd.DataFrame([*examined(CELL.specs(3)[0]), *examined(RUN)])
    with pytest.raises(UserError, match="several values"):
        ways.way_summary(ways.way_scores(known, planned, WATCHED))
    with pytest.raises(UserError, match="several values"):
        ways.fall_summary(ways.task_falls(known, planned))


def test_runs_at_the_rate_of_sources_or_at_the_only_one() -> None:
    found = list(ways.source_rate_runs(PLANNED).values())
    assert len(found) == len({(cell.name, spec.seed) for cell, spec in found}) == 2 * len(cells.CELLS)
    others = [cell for cell, spec in found if spec.learning_rate != cells.SOURCE_RATE]
    assert {"base", "LoRA"} < {cell.label or cell.arm for cell in others}
    assert {len(cell.rates) for cell in others} == {1}


def test_the_rate_chosen_on_other_bases() -> None:
    fast, middle, *slower = CELL.rates
    best = {"3": middle, "4": slower[0]}  # so that each base takes the other's
    drops = [(base, rate, 0.1 if rate == best[base] else 0.5) for base in best for rate in CELL.rates]
    front = pd.DataFrame([front_run(CELL.name, *drop) for drop in drops])
    found = {(c.name, s.seed): s.learning_rate for c, s in ways.chosen_runs(PLANNED, front).values()}
    assert found[CELL.name, 3] == slower[0] and found[CELL.name, 4] == middle and fast not in found.values()
    assert {name for name, _ in found} == {CELL.name, *(f"base {asked}" for asked in cells.ASKED)}


def test_a_cell_with_one_rate_is_read_at_it_wherever_it_was_run_whether_it_arrived_or_not() -> None:
    name, bases = "sft-dft direct", ("3", "4")
    rows = [front_run(name, base, 6e-5, drop, ran=True) for base, drop in zip(bases, (0.1, math.nan), strict=True)]
    found = ways.read_runs(PLANNED, pd.DataFrame(rows))
    assert sorted(spec.seed for cell, spec in found.values() if cell.name == name) == [3, 4]


def test_no_rate_is_chosen_where_no_other_base_was_run() -> None:
    rows = [front_run(CELL.name, "3", rate, 0.1, ran=True) for rate in CELL.rates]
    rows += [front_run(CELL.name, "4", rate, math.nan, ran=False) for rate in CELL.rates]
    found = {cell.name for cell, _ in ways.chosen_runs(PLANNED, pd.DataFrame(rows)).values()}
    assert found == {f"base {asked}" for asked in cells.ASKED}


def test_a_cell_is_read_at_one_rate_until_one_can_be_chosen() -> None:
    name, (fast, slow) = CELL.name, CELL.rates[:2]
    alone = pd.DataFrame([front_run(name, "3", fast, 0.1), front_run(name, "4", slow, 0.2, ran=False)])
    alone["ran"] = [True, False]
    assert set(ways.read_runs(PLANNED, alone)) == set(PICKED)
    both = pd.DataFrame([front_run(name, base, rate, 0.1 + rate) for base in "34" for rate in (fast, slow)])
    own = {run for run, (cell, _) in ways.read_runs(PLANNED, both).items() if cell == CELL}
    assert own == {CELL.at(stem, slow).name for stem in (3, 4)}
    lost = pd.DataFrame([front_run(name, base, fast, math.nan) for base in "34"])
    assert not [run for run, (cell, _) in ways.read_runs(PLANNED, lost).items() if cell == CELL]


def test_how_wrong_answers_are_is_read_where_the_run_first_reached_seven_tenths() -> None:
    marks = {"score": (0.9, 0.2), "parts": (0.95, 0.8), "as_many": (1.0, 0.3)}
    rows = [
        evaluation(RUN.name, step, "caption", measure, value, run=RUN.name)
        for measure, (start, there) in marks.items()
        for step, value in ((0, start), (10, start), (20, there), (30, 0.0))
    ]
    old = [evaluation(OTHER.name, step, "caption", "score", 0.5, run=OTHER.name) for step in (0, THERE)]
    seen = pd.DataFrame([*examined(RUN), *examined(OTHER)])
    (found,) = ways.in_parts(pd.DataFrame([*rows, *old]), seen, PICKED).to_dict("records")
    expected = {"start": 0.9, "score": 0.2, "parts": 0.8, "as_many": 0.3, "seeds": 1}
    assert found == {"cell": CELL.name, "task": "caption"} | expected
    (said,) = told_bases.wrong_in_parts(pd.DataFrame([found]), [CELL.name])
    assert said == (
        "sft-answer direct, caption: 0.20 right as a whole, 0.80 of their parts, 0.30 with as many parts as they should"
        " have (1 base)."
    )
    kept = pd.DataFrame([found | {"score": 0.8}])
    assert told_bases.wrong_in_parts(kept, [CELL.name]) == ["No task fell by 0.2 or more."]
    nothing = ["No run says yet how wrong its answers are."]
    assert told_bases.wrong_in_parts(kept, ["rft direct"]) == nothing
    assert told_bases.wrong_in_parts(ways.in_parts(pd.DataFrame(old), seen, PICKED), [CELL.name]) == nothing
