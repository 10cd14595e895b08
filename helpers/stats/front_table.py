"""The front of every cell from the records of its runs: what each run had lost, and spent, where it reached its mark.

The mark is exact match 0.7, or 0.5 on 3x3.
Read off as every drop of the suite is (`curves.crossings`, on the monotone curve), but item by item: a rate is chosen
by the first half of every task's items and reported by the second (`fronts.chosen`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from helpers.stats import costs
from helpers.stats.curves import RUN, crossings, values_at
from helpers.stats.fronts import COLUMNS
from helpers.stats.intervals import in_words, seed_interval
from helpers.study import cells
from helpers.study.arms import get_arm
from helpers.study.cells import REPORTED, Cell
from helpers.study.fixed import rules
from helpers.study.schema import is_prior
from helpers.study.spec import RunSpec

SLOWER = 2.2  # times as many FLOPs were spent to 0.7, at least, at a third of a rate (five pairs of runs: 2.2 to 2.4)
HALVES = ("drop_first", "drop_second", "drop")
SPENT: Mapping[str, tuple[str, float, str]] = MappingProxyType(
    {
        "steps": ("step", 1, ",.0f"),
        "boards": ("samples", 1, ",.0f"),
        "completions": ("completions", 1, ",.0f"),
        "generated tokens": ("generated_tokens", 1, ",.0f"),
        "trained tokens": ("trained_tokens", 1, ",.0f"),
        "FLOPs (1e12)": ("flops", 1e12, ",.1f"),
        "FLOPs of its source (1e12)": ("source_flops", 1e12, ",.1f"),
        "minutes": ("seconds", 60, ",.1f"),
    }
)
"""What `cost_words` tells: a front's column, the unit that it is told in, and how a number is written."""
Planned = Mapping[str, tuple[Cell, RunSpec]]
"""A run's cell and spec by the run's name."""


def own_outcomes(outcomes: pd.DataFrame, planned: Planned) -> pd.DataFrame:
    """The prior tasks' rows in each run's own way: as it asks, in taught wordings, nothing opened, nothing shown again.

    Of several sizes that of the run's pictures, which it is asked in at every evaluation.
    """
    asked = outcomes["run"].map({name: spec.asked for name, (_, spec) in planned.items()})
    own = (outcomes["asked"] == asked) & (outcomes["wording"] == "taught") & (outcomes["opening"] == "")
    rows = outcomes[own & (outcomes["regained"] == 0) & is_prior(outcomes)]
    first = rows[rows["step"] == 0].groupby("run")["size"].first()  # at the start nothing is asked in another way
    return rows[rows["size"] == rows["run"].map(first)]


def half_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean prior score by half of the items (equal weight per task): columns run, arm, seed, step, half, value.

    `rows`: outcomes, one a task and step. An odd item belongs to the second half.
    """
    marks = [np.asarray(right, float) for right in rows["right"]]
    parts = {
        HALVES[0]: [m[: len(m) // 2].mean() for m in marks],
        HALVES[1]: [m[len(m) // 2 :].mean() for m in marks],
        HALVES[2]: [m.mean() for m in marks],
    }
    each = rows[[*RUN, "step"]].assign(**parts).melt([*RUN, "step"], list(HALVES), var_name="half")
    return each.groupby([*RUN, "step", "half"], as_index=False)["value"].mean()


def drops_at_mark(scores: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    """Fall of `half_scores` below each run's own start at marks as from `crossings`: a column per half, by run."""
    there = values_at(scores, marks, [*RUN, "half"]).set_index(["run", "half"])["value"]
    start = scores[scores["step"] == 0].set_index(["run", "half"])["value"]
    return (start.reindex(there.index) - there).unstack("half").reindex(columns=list(HALVES))


def front_table(tables: Mapping[str, pd.DataFrame], planned: Planned) -> pd.DataFrame:
    """A row per planned run: the columns of `fronts.COLUMNS`, then run, ran, step and costs up to there.

    `tables`: evaluations, outcomes and metrics of the finished ones; the others did not run and did not arrive. `base`
    is the number of the stem. Costs hold what a model wrote for the run in advance; `source_flops` is what the run cost
    that feeds it, up to its end, 0 where none does. `capped`: the next slower rate, a third as fast, would spend more
    than a run may (`fixed.Rules`), by what slower rates have spent so far (`SLOWER`).
    """
    marks = _marks(tables["evaluations"], planned)
    drops = drops_at_mark(half_scores(own_outcomes(tables["outcomes"], planned)), marks)
    spent = costs.cumulative(tables["metrics"])
    whole = spent.sort_values("step").groupby("run")["flops"].last()
    at = costs.cost_at(spent, marks).set_index("run").drop(columns=RUN[1:])
    rows = [_row(cell, spec) for cell, spec in planned.values() if get_arm(spec.arm).trains]
    table = pd.DataFrame(rows, columns=["run", "source", "base", "cell", "rate"]).set_index("run").join(drops).join(at)
    table["arrived"] = table.index.isin(marks["run"])
    table["ran"] = table.index.isin(tables["evaluations"]["run"])
    table["source_flops"] = table["source"].map(whole).where(table["source"] != "", 0.0)
    table["capped"] = (table["flops"] * SLOWER > rules().flops_cap).fillna(value=False)
    more = [name for name in ("run", "ran", *at.columns, "source_flops") if name not in COLUMNS]
    return table.reset_index()[[*COLUMNS, *more]]


def _marks(evaluations: pd.DataFrame, planned: Planned) -> pd.DataFrame:
    """Where each run reached its own mark, as from `crossings`."""
    mark = evaluations["run"].map({name: spec.mark for name, (_, spec) in planned.items()}).fillna(rules().at)
    parts = [crossings(rows, at, monotone=True) for at, rows in evaluations.groupby(mark)]
    return pd.concat(parts, ignore_index=True) if parts else crossings(evaluations, rules().at)


def reported() -> pd.DataFrame:
    """The front of every cell on the reported bases, and on no other: whole, whatever of it was run by now."""
    return _of(cells.planned(REPORTED))


def tuned() -> pd.DataFrame:
    """The front of the finished runs on the pilots' bases, with a column beta: the weight of the KL term."""
    runs = cells.tuning()
    table = _of(runs)
    return table.assign(beta=[runs[name][1].beta for name in table["run"]])


def _of(planned: Planned) -> pd.DataFrame:
    return front_table(cells.tables_of(spec for _, spec in planned.values()), planned)


def _row(cell: Cell, spec: RunSpec) -> tuple[str, str, str, str, float]:
    return spec.name, spec.source, str(spec.seed), cell.name, spec.learning_rate


def cost_words(front: pd.DataFrame, picked: Planned, names: Iterable[str]) -> pd.DataFrame:
    """What cells (`names`) had spent at their mark in some of their runs, in words: a row per cell, a column per cost.

    Mean and interval over the bases that arrived (column bases: how many), the value alone where it is one base, and
    a dash where nothing is known. `front` as from `front_table`; `picked`: one run a cell and base.
    """
    there = front[front["run"].isin(picked) & front["arrived"].astype(bool)]
    rows = []
    for name in names:
        own = there[there["cell"] == name]
        words = {said: _in_words(own[axis] / unit, form) for said, (axis, unit, form) in SPENT.items()}
        rows.append({"cell": name, "bases": len(own)} | words)
    return pd.DataFrame(rows).set_index("cell")


def _in_words(values: pd.Series, form: str) -> str:
    known = values.astype(float).dropna()
    if len(known) < 2:
        return format(known.iloc[0], form) if len(known) else "–"
    return in_words(seed_interval(known), form)


def spread_of_differences(front: pd.DataFrame, first: str, second: str) -> float:
    """Standard deviation over bases of one cell's least drop minus another's: what a pilot can say of the power.

    NaN below two bases.
    """
    least = [front[front["cell"] == cell].groupby("base")["drop"].min() for cell in (first, second)]
    apart = (least[0] - least[1]).dropna()
    return float(apart.std()) if len(apart) > 1 else math.nan
