"""Choosing a learning rate honestly: on other bases than the one that is reported, and by other items.

A front has a row per run: columns base, cell (arm, asked form and kind of base, as "rft direct"), rate (learning rate),
drop_first and drop_second (fall of the mean prior score below the base where exact match reaches 0.7, over the first
and over the second half of every task's items), drop (the same over all items), flops (spent up to there), arrived
(whether it got there) and capped (whether the next slower rate would have spent more than any run may). What did not
arrive has no drops and no FLOPs. A column ran, where there is one, is False for a run that is only planned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from helpers.errors import UserError
from helpers.stats.curves import require_columns
from helpers.study.fixed import rules

COLUMNS = ("base", "cell", "rate", "drop_first", "drop_second", "drop", "flops", "arrived", "capped")


class Choice(NamedTuple):
    """What one base reports of a cell: the rate chosen on the others, its own drop and cost there, if it is an edge."""

    base: str
    rate: float
    drop: float
    flops: float
    at_edge: bool


def chosen(front: pd.DataFrame, cell: str) -> pd.DataFrame:
    """The rate of a cell that is best on the other bases, for each base: columns base, rate, drop, flops, at_edge.

    Best: least mean `drop_first` over the other bases, among the rates that arrived on all of those that ran them (the
    larger rate, where two are equal); NaN where there is none. `drop` is the base's own `drop_second` at that rate and
    `flops` what it cost, NaN where it did not arrive there or was not run. `at_edge`: whether a rate beyond the front
    might have been better: it is an end of the front whose mean `drop_first` over all bases lies `edge_gain`
    (`fixed.Rules`) or more below that of the rate beside it (or that is unknown), and no slowest one that is capped on
    most bases. Sorted by base. Raises UserError where a run stands twice.
    """
    rows = _of_cell(front, cell)
    made = [_choice(base, rows) for base in sorted(rows["base"].unique())]
    return pd.DataFrame(made, columns=list(Choice._fields)).astype({"at_edge": bool})


def least_flops(front: pd.DataFrame, cell: str) -> pd.Series:
    """The fewest FLOPs that a run of the cell spent to reach 0.7, over its rates: by base, NaN where none arrived."""
    rows = _of_cell(front, cell)
    return rows["flops"].where(rows["arrived"]).groupby(rows["base"]).min().rename("flops")


def arrived(front: pd.DataFrame, cell: str) -> pd.Series:
    """Whether any run of the cell reached 0.7, by base."""
    rows = _of_cell(front, cell)
    return rows.groupby("base")["arrived"].any()


def ran(front: pd.DataFrame) -> pd.Series:
    """Which rows are of runs that are there: all, where nothing says otherwise."""
    return front["ran"] if "ran" in front else pd.Series(True, front.index)


def _of_cell(front: pd.DataFrame, cell: str) -> pd.DataFrame:
    """A cell's rows, by rate."""
    require_columns(front, COLUMNS)
    rows = front[(front["cell"] == cell) & ran(front)].astype({"arrived": bool, "capped": bool})
    twice = rows[rows.duplicated(["base", "rate"])]
    if len(twice):
        raise UserError(f"{cell} has two runs on {twice['base'].iloc[0]} at one rate: keep one row per run.")
    return rows.sort_values("rate")


def _choice(base: str, rows: pd.DataFrame) -> Choice:
    """One base's rate, from a cell's rows by rate."""
    means = _means(rows[rows["base"] != base])
    if means.empty:
        return Choice(base, math.nan, math.nan, math.nan, False)
    best = float(means[means == means.min()].index.max())
    own = rows[(rows["base"] == base) & (rows["rate"] == best) & rows["arrived"]]
    drop, flops = own[["drop_second", "flops"]].iloc[0] if len(own) else (math.nan, math.nan)
    return Choice(base, best, float(drop), float(flops), _at_edge(best, rows))


def _means(others: pd.DataFrame) -> pd.Series:
    """Mean `drop_first` by rate, of the rates that arrived on every base that ran them."""
    by_rate = others.groupby("rate")
    # Rounded, so that means that are equal but for a rounding are a tie.
    return by_rate["drop_first"].mean()[by_rate["arrived"].all()].round(12)


def _at_edge(best: float, rows: pd.DataFrame) -> bool:
    """Whether the chosen rate is an end of the front beyond which more may be saved."""
    rates = sorted(rows["rate"].unique())
    capped = best == rates[0] and rows.loc[rows["rate"] == best, "capped"].mean() > 0.5
    if len(rates) == 1 or rates[0] < best < rates[-1] or capped:
        return len(rates) == 1
    beside = rates[-2:][0] if best == rates[-1] else rates[1]
    # A front is too short or not, once for all bases. Where the rate beside the end did not arrive on all of them,
    # what the end saves is unknown (NaN), and it counts as an edge.
    means = _means(rows)
    saved = round(means.get(beside, math.nan) - means.get(best, math.nan), 12)
    return not saved < rules().edge_gain
