"""Choosing a learning rate honestly: on other bases than the one that is reported, and by other items.

A front has a row per run: columns base, cell (arm, asked form and kind of base, as "rft direct"), rate (learning rate),
drop_first and drop_second (fall of the mean prior score below the base where exact match reaches 0.7, over the first
and over the second half of every task's items), drop (the same over all items), flops (spent up to there), arrived
(whether it got there) and capped (whether the next slower rate would have spent more than any run may). What did not
arrive has no drops and no FLOPs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from helpers.errors import UserError
from helpers.stats.curves import require_columns

COLUMNS = ("base", "cell", "rate", "drop_first", "drop_second", "drop", "flops", "arrived", "capped")
EDGE_GAIN = 0.02
"""Drop that the slowest rate must save over the next one for the front to be called too short (prior score, 0..1)."""


class Choice(NamedTuple):
    """What one base reports of a cell: the rate chosen on the others, its own drop there, and whether it is an edge."""

    base: str
    rate: float
    drop: float
    at_edge: bool


def chosen(front: pd.DataFrame, cell: str) -> pd.DataFrame:
    """The rate of a cell that is best on the other bases, for each base: columns base, rate, drop, at_edge.

    Best: least mean `drop_first` over the other bases, among the rates that arrived on all of those that ran them (the
    larger rate, where two are equal); NaN where there is none. `drop` is the base's own `drop_second` at that rate, NaN
    where it did not arrive there or was not run. `at_edge`: whether a rate beyond the front might have been better:
    always at the fastest rate; at the slowest unless its mean `drop_first` is less than `EDGE_GAIN` below that of the
    next one, or it is capped on every base that ran it. Sorted by base. Raises UserError where a run stands twice.
    """
    rows = _of_cell(front, cell)
    made = [_choice(base, rows) for base in sorted(rows["base"].unique())]
    return pd.DataFrame(made, columns=list(Choice._fields)).astype({"rate": float, "drop": float, "at_edge": bool})


def least_flops(front: pd.DataFrame, cell: str) -> pd.Series:
    """The fewest FLOPs that a run of the cell spent to reach 0.7, over its rates: by base, NaN where none arrived."""
    rows = _of_cell(front, cell)
    return rows["flops"].where(rows["arrived"]).groupby(rows["base"]).min().rename("flops")


def arrived(front: pd.DataFrame, cell: str) -> pd.Series:
    """Whether any run of the cell reached 0.7, by base."""
    rows = _of_cell(front, cell)
    return rows.groupby("base")["arrived"].any()


def _of_cell(front: pd.DataFrame, cell: str) -> pd.DataFrame:
    """A cell's rows, by rate."""
    require_columns(front, COLUMNS)
    rows = front[front["cell"] == cell].astype({"arrived": bool, "capped": bool})
    twice = rows[rows.duplicated(["base", "rate"])]
    if len(twice):
        raise UserError(f"{cell} has two runs on {twice['base'].iloc[0]} at one rate: keep one row per run.")
    return rows.sort_values("rate")


def _choice(base: str, rows: pd.DataFrame) -> Choice:
    """One base's rate, from a cell's rows by rate."""
    means = _means(rows[rows["base"] != base])
    if means.empty:
        return Choice(base, math.nan, math.nan, False)
    best = float(means[means == means.min()].index.max())
    there = rows[(rows["base"] == base) & (rows["rate"] == best) & rows["arrived"]]["drop_second"]
    return Choice(base, best, float(there.iloc[0]) if len(there) else math.nan, _at_edge(best, means, rows))


def _means(others: pd.DataFrame) -> pd.Series:
    """Mean `drop_first` by rate, of the rates that arrived on every base that ran them."""
    by_rate = others.groupby("rate")
    # Rounded, so that means that are equal but for a rounding are a tie.
    return by_rate["drop_first"].mean()[by_rate["arrived"].all()].round(12)


def _at_edge(best: float, means: pd.Series, rows: pd.DataFrame) -> bool:
    """Whether the chosen rate is the fastest of the front, or a slowest one beyond which more may be saved."""
    rates = sorted(rows["rate"].unique())
    if best == rates[-1]:
        return True
    if best > rates[0] or rows.loc[rows["rate"] == best, "capped"].all():
        return False
    # Where the next rate did not arrive, what the slowest saves is unknown (NaN), and it counts as an edge.
    saved = round(means.get(rates[1], math.nan) - means[best], 12)
    return not saved < EDGE_GAIN
