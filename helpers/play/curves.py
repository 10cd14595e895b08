"""Learning curves as a page: arms on and off, against steps or boards seen, read off where one points."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from helpers.errors import UserError
from helpers.play.page import Json, View, look, numbers
from helpers.show.marks import in_order
from helpers.stats.curves import ALL, battery_mean, require_columns, seed_summary
from helpers.study.schema import is_prior

MEASURES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "exact match": ("puzzle", "exact"),
        "hit rate": ("puzzle", "hit"),
        "format failures": ("puzzle", "format_failure"),
        "prior score": (ALL, "score"),
    }
)
"""What can be drawn: the words in the page, and their task and measure in the evaluations table."""
POINT = ["step", "samples", "mean", "low", "high", "seeds"]


def learning_curves(evaluations: pd.DataFrame, chance: Mapping[str, float] | None = None) -> View:
    """Curves of every arm in `evaluations` with 95% t intervals over seeds; the base is a level.

    `chance`: measure (one of `MEASURES`) -> its level for guesses. Measures that are not in the table are left out.
    Raises UserError where none is there, or where runs of one arm with other settings are mixed.
    """
    require_columns(evaluations, ["arm", "step", "samples", "seed", "task", "measure", "value"])
    data = {name: _points(evaluations, *which) for name, which in MEASURES.items()}
    data = {name: arms for name, arms in data.items() if arms}
    if not data:
        raise UserError("There are no evaluations to draw: none of the puzzle, and none of a prior task.")
    arms = in_order(arm for points in data.values() for arm in points)
    parts: dict[str, Json] = {
        "measures": data,
        "chance": {name: float(level) for name, level in (chance or {}).items()},
        "arms": {arm: look(arm) for arm in arms},
    }
    return View("curves", "Learning curves, arm by arm", 430, parts)


def _points(evaluations: pd.DataFrame, task: str, measure: str) -> dict[str, Json]:
    """For each arm its points in order: step, boards seen, mean, low, high, seeds. Empty where nothing is recorded."""
    wanted = is_prior(evaluations) if task == ALL else evaluations["task"] == task
    rows = evaluations[wanted & (evaluations["measure"] == measure)]
    if rows.empty:
        return {}
    table = seed_summary(battery_mean(rows) if task == ALL else rows, ["arm", "step", "samples"])
    return {arm: [numbers(row, 5) for row in part[POINT].to_numpy()] for arm, part in table.groupby("arm")}
