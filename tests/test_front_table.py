"""The front of every cell, from records made by hand whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from rows import evaluation

from helpers.stats import front_table
from helpers.stats.fronts import COLUMNS
from helpers.study import cells
from helpers.study.fixed import rules
from helpers.study.spec import RunSpec

CELL = cells.get_cell("sft-answer direct")
FAST, SLOW = CELL.specs(3)[:2]
PLANNED = {spec.name: (CELL, spec) for spec in CELL.specs(3)}
EXACT = {0: 0.0, 10: 0.5, 20: 0.9}  # reaches 0.7 half-way between 10 and 20


def outcome(spec: RunSpec, step: int, right: str, **more: Any) -> dict[str, Any]:
    """The items of one task: 1 where right."""
    marks = [mark == "1" for mark in right]
    row = {"run": spec.name, "arm": spec.arm, "seed": spec.seed, "step": step, "task": "light", "asked": "direct"}
    way = {"wording": "taught", "size": 64, "opening": "", "regained": 0}
    return row | way | {"right": marks, "kept": marks, "likely": None, "said": []} | more


def metric(spec: RunSpec, step: int, name: str, value: float) -> dict[str, Any]:
    row = {"run": spec.name, "arm": spec.arm, "seed": spec.seed, "step": step, "samples": 32 * step}
    return row | {"name": name, "value": value}


def tables(spec: RunSpec, curve: dict[int, float], rights: dict[int, str]) -> dict[str, pd.DataFrame]:
    spent = ("flops", "trained_tokens", "generated_tokens", "completions", "seconds")
    scored = [evaluation(spec.name, s, "puzzle", "exact", v, run=spec.name, n=500) for s, v in curve.items()]
    costs = [metric(spec, step, name, 1e12) for step in range(1, max(curve) + 1) for name in spent]
    return {
        "evaluations": pd.DataFrame(scored),
        "outcomes": pd.DataFrame([outcome(spec, step, right) for step, right in rights.items()]),
        "metrics": pd.DataFrame(costs),
    }


def joined(*parts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}


def test_drops_are_read_off_half_by_half_where_the_run_reaches_seven_tenths() -> None:
    known = tables(FAST, EXACT, {0: "1111", 10: "1111", 20: "0001"})
    row, *others = front_table.front_table(known, PLANNED).to_dict("records")
    assert row["ran"] and len(others) == len(PLANNED) - 1 and not any(o["ran"] or o["arrived"] for o in others)
    # half-way to step 20 the first half has lost half of 1.0, the second half of 0.5
    assert (row["drop_first"], row["drop_second"], row["drop"]) == pytest.approx((0.5, 0.25, 0.375))
    assert (row["base"], row["cell"], row["rate"], row["step"]) == ("3", "sft-answer direct", 2e-4, 15)
    assert row["arrived"] and not row["capped"] and row["flops"] == pytest.approx(15e12)
    assert row["samples"] == 15 * 32 and row["source_flops"] == 0


def test_other_ways_of_asking_do_not_count() -> None:
    known = tables(FAST, EXACT, {0: "1111", 10: "1111", 20: "0001"})
    plain = front_table.front_table(known, PLANNED)
    others = [
        {"asked": "think"}, {"wording": "held out"}, {"size": 96}, {"opening": "<answer>"}, {"regained": 8},
        {"task": "puzzle"}, {"task": "puzzle 3x3"},
    ]  # fmt: skip
    strange = pd.DataFrame([outcome(FAST, 20, "0000", **other) for other in others])
    more = known | {"outcomes": pd.concat([known["outcomes"], strange], ignore_index=True)}
    pd.testing.assert_frame_equal(front_table.front_table(more, PLANNED), plain)


def test_tasks_weigh_alike_however_many_items_they_have() -> None:
    known = tables(FAST, EXACT, {0: "1111", 10: "1111", 20: "1111"})
    hill = [outcome(FAST, step, right, task="hill") for step, right in {0: "11", 10: "11", 20: "00"}.items()]
    more = known | {"outcomes": pd.concat([known["outcomes"], pd.DataFrame(hill)], ignore_index=True)}
    assert front_table.front_table(more, PLANNED)["drop"].dropna().item() == pytest.approx(0.25)


def test_a_run_that_does_not_arrive_has_no_drop_and_no_cost_and_others_keep_theirs() -> None:
    slow = tables(SLOW, {0: 0.0, 10: 0.69}, {0: "1111", 10: "1111"})
    table = front_table.front_table(joined(slow, tables(FAST, EXACT, {0: "11", 10: "11", 20: "10"})), PLANNED)
    by_rate = table.set_index("rate")
    assert by_rate["arrived"].sum() == 1 and by_rate.loc[2e-4, "arrived"] and by_rate["ran"].sum() == 2
    assert math.isnan(by_rate.loc[SLOW.learning_rate, "drop"]) and math.isnan(by_rate.loc[SLOW.learning_rate, "flops"])
    assert list(table)[: len(COLUMNS)] == list(COLUMNS)


def test_a_front_is_capped_where_the_next_rate_would_spend_too_much() -> None:
    known = tables(FAST, EXACT, {0: "11", 10: "11", 20: "10"})
    for whole, capped in ((30e12, True), (40e12, False)):  # 2.2 x 15 / 30 of the cap, and / 40
        dear = known["metrics"].assign(value=known["metrics"]["value"] * rules().flops_cap / whole)
        assert front_table.front_table(known | {"metrics": dear}, PLANNED)["capped"].iloc[0] == capped


def test_on_a_harder_puzzle_a_run_arrives_earlier() -> None:
    cell = cells.get_cell("sft-answer direct, 3x3")
    (fast, slow), planned = cell.specs(3), {spec.name: (cell, spec) for spec in cell.specs(3)}
    curve = {0: 0.0, 10: 0.4, 20: 0.6}  # reaches 0.5 half-way between 10 and 20
    there, not_there = (
        tables(fast, curve, {0: "11", 10: "11", 20: "01"}),
        tables(slow, {0: 0, 10: 0.4}, {0: "11", 10: "11"}),
    )
    by_rate = front_table.front_table(
        joined(there, not_there, tables(FAST, curve, {0: "11", 10: "11", 20: "01"})), planned | PLANNED
    )
    arrived = by_rate.set_index("run")["step"].dropna()
    assert arrived.to_dict() == {fast.name: 15}
    assert by_rate.set_index("run").loc[fast.name, "drop"] == pytest.approx(0.25)


def test_what_feeds_a_run_is_counted_apart_and_whole() -> None:
    cell = cells.get_cell("sft-rollout think")
    source, fed = cells.get_cell(cell.source).at(3, cells.SOURCE_RATE), cell.specs(3)[0]
    planned = cells.planned([3])
    known = joined(*(tables(spec, EXACT, {0: "11", 10: "11", 20: "10"}) for spec in (source, fed)))
    known["outcomes"]["asked"] = "think"
    by_run = front_table.front_table(known, planned).set_index("run")
    assert by_run.loc[fed.name, "source_flops"] == pytest.approx(20e12) and by_run.loc[source.name, "source_flops"] == 0


def test_the_spread_of_paired_differences() -> None:
    rows = [("1", "a", 0.2), ("1", "a", 0.3), ("1", "b", 0.1), ("2", "a", 0.4), ("2", "b", 0.1)]
    front = pd.DataFrame(rows, columns=["base", "cell", "drop"])
    assert front_table.spread_of_differences(front, "a", "b") == pytest.approx(math.sqrt(0.02))
    assert math.isnan(front_table.spread_of_differences(front[front["base"] == "1"], "a", "b"))


def test_costs_in_words_are_those_of_the_runs_that_are_read() -> None:
    known = [
        tables(spec, EXACT, {0: "11", 10: "11", 20: "10"}) for spec in (FAST, SLOW, CELL.at(4, FAST.learning_rate))
    ]
    front = front_table.front_table(joined(*known), cells.planned([3, 4]))
    both = {spec.name: (CELL, spec) for spec in (FAST, CELL.at(4, FAST.learning_rate))}
    said = front_table.cost_words(front, both, [CELL.name, "rft direct"])
    assert said.loc[CELL.name, ["bases", "steps", "boards"]].tolist() == [2, "15 (15 to 15)", "480 (480 to 480)"]
    assert said.loc[CELL.name, "FLOPs (1e12)"] == "15.0 (15.0 to 15.0)"
    assert said.loc["rft direct"].tolist() == [0, *["–"] * len(front_table.SPENT)]
    assert front_table.cost_words(front, {FAST.name: both[FAST.name]}, [CELL.name]).loc[CELL.name, "steps"] == "15"
