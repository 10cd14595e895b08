"""The data of the view `between`: runs on the straight line from the base's weights to their end."""

from __future__ import annotations

import statistics

import pandas as pd

from helpers.errors import UserError
from helpers.play.page import Json, View, look, numbers
from helpers.show.marks import in_order
from helpers.world.battery import battery_tasks, chance

DIGITS = 6  # significant ones, as in the records


def on_the_line(lines: pd.DataFrame, matched: pd.DataFrame, chance_exact: float) -> View:
    """Puzzle and prior score over the share of the way to each arm's end: at equal share, exact match or length.

    `lines`, `matched`: the tables `lines` and `matched` of `measure.analyses.load`; `chance_exact`: exact match of
    guesses. Raises UserError without a line from the base, or for lines that were not measured at the same shares.
    """
    rows = lines[lines["start"] == "base"].sort_values("share")
    if rows.empty:
        raise UserError("No line from the base was measured: `python -m helpers controls` measures them.")
    shares = sorted(rows["share"].unique())
    if (rows.groupby("run")["share"].agg(list).map(len) != len(shares)).any():
        raise UserError("The lines were measured at different shares of the way: measure them anew.")
    arms, lengths = in_order(rows["arm"]), _at_rfts_length(matched)
    data: dict[str, Json] = {
        "shares": numbers(shares),
        "arms": {arm: look(arm) for arm in arms},
        "runs": {arm: [_run(part, lengths) for _, part in rows[rows["arm"] == arm].groupby("seed")] for arm in arms},
        "chance": {"exact": chance_exact, "score": statistics.fmean(map(chance, battery_tasks()))},
    }
    return View("between", "Between the base and the end of each arm", 700, data)


def _run(rows: pd.DataFrame, lengths: dict[str, list[Json]]) -> dict[str, Json]:
    """One run: its seed, both scores at every share of the way, and those at the length of RFT's update, or null."""
    scores = {name: numbers(rows[name], DIGITS) for name in ("exact", "score")}
    return {"seed": int(rows["seed"].iloc[0]), **scores, "length": lengths.get(rows["run"].iloc[0])}


def _at_rfts_length(matched: pd.DataFrame) -> dict[str, list[Json]]:
    """By run: share of its way where its update is as long as RFT's of its seed (above 1: beyond its end), scores."""
    rows = matched[matched["norm_of"] == "rft"] if len(matched) else matched
    return {
        row.run: numbers([row.norm / row.own_norm, row.exact, row.score], DIGITS)
        for row in rows.itertuples(index=False)
    }
