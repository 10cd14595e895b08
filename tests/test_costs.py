"""Costs of runs: summed up to each step, read off where an accuracy is reached, absent where they are unknown."""

from typing import Any

import pandas as pd
import pytest
from rows import evaluation

from helpers.errors import UserError
from helpers.stats.costs import AXES, cost_at, cumulative
from helpers.stats.curves import crossings


def metric(run: str, step: int, name: str, value: float) -> dict[str, Any]:
    arm, seed = run.rsplit("-", 1)
    return {"run": run, "arm": arm, "seed": int(seed), "step": step, "samples": 8 * step, "name": name, "value": value}


def recorded(run: str, steps: int = 4) -> list[dict[str, Any]]:
    """A run whose step k costs k FLOPs, k seconds, and so on."""
    return [metric(run, k, name, float(k)) for k in range(1, steps + 1) for name in ("loss", *AXES[1:])]


def test_costs_add_up_from_what_the_corpus_cost() -> None:
    written = [("corpus_flops", 100.0), ("corpus_tokens", 50.0), ("corpus_completions", 5.0)]
    rows = [*recorded("self-sft-1"), *(metric("self-sft-1", 0, *pair) for pair in written), *recorded("rft-1", 2)]
    found = cumulative(pd.DataFrame(rows)).set_index(["run", "step"])
    assert found.loc["self-sft-1", "flops"].tolist() == [100, 101, 103, 106, 110]
    assert found.loc["self-sft-1", "generated_tokens"].tolist() == [50, 51, 53, 56, 60]
    assert found.loc["self-sft-1", "completions"].tolist() == [5, 6, 8, 11, 15]
    assert found.loc["self-sft-1", "trained_tokens"].tolist() == [0, 1, 3, 6, 10]
    assert found.loc["rft-1", "seconds"].tolist() == [0, 1, 3]
    assert found.loc["rft-1", "samples"].tolist() == [0, 8, 16]


def test_an_older_record_has_no_costs_but_its_seconds() -> None:
    rows = [metric("rft-1", k, name, 2.0) for k in (1, 2, 3) for name in ("loss", "seconds")]
    found = cumulative(pd.DataFrame(rows))
    assert found["seconds"].tolist() == [0, 2, 4, 6] and found["samples"].tolist() == [0, 8, 16, 24]
    assert found.loc[found["step"] > 0, ["flops", "trained_tokens", "completions"]].isna().all(axis=None)


@pytest.mark.parametrize("lost", ["the metric", "the step"])
def test_behind_a_gap_costs_are_unknown(lost: str) -> None:
    rows = pd.DataFrame(recorded("rft-1"))
    gap = (rows["step"] == 2) & ((rows["name"] == "flops") | (lost == "the step"))
    found = cumulative(rows[~gap])
    assert found["flops"].isna().tolist() == [False, False, True, True, True]


def test_without_metrics_there_are_no_costs() -> None:
    rows = pd.DataFrame(recorded("rft-1"))
    assert list(cumulative(rows[:0]).columns) == ["run", "arm", "seed", "step", *AXES]
    with pytest.raises(UserError, match="lacks the column"):
        cumulative(rows.drop(columns="value"))


def test_costs_are_read_off_where_the_accuracy_is_crossed() -> None:
    reached = [evaluation("rft-1", s, "puzzle", "exact", v, samples=8 * s) for s, v in ((0, 0.1), (2, 0.4), (4, 0.8))]
    never = [evaluation("rft-2", s, "puzzle", "exact", 0.1) for s in (0, 2, 4)]
    old = [evaluation("rft-3", s, "puzzle", "exact", s / 4) for s in (0, 2, 4)]
    marks = crossings(pd.DataFrame([*reached, *never, *old]), 0.5)
    metrics = pd.DataFrame([*recorded("rft-1"), *recorded("rft-2"), metric("rft-3", 2, "loss", 1.0)])
    found = cost_at(cumulative(metrics), marks).set_index("run")
    assert list(found.index) == ["rft-1", "rft-3"]
    assert found.loc["rft-1", "step"] == pytest.approx(2.5)
    assert found.loc["rft-1", "samples"] == pytest.approx(20)
    assert found.loc["rft-1", "flops"] == pytest.approx(3 + (10 - 3) / 4)  # a quarter of the way from step 2 to step 4
    assert found.loc["rft-3", list(AXES[1:])].isna().all()
