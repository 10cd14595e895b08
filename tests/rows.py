"""Rows of the suite's tables for tests, written once."""

from __future__ import annotations

import math
import re
from typing import Any


def evaluation(name: str, /, step: int, task: str, measure: str, value: float, **more: Any) -> dict[str, Any]:
    """One row of the evaluations of a run called `<arm>-<seed>` or `<arm>-<seed>-<hash>`; `more` changes columns."""
    arm, seed = re.fullmatch(r"(.+?)-(\d+)(?:-\w+)?", name).groups()
    row = {"run": name, "arm": arm, "seed": int(seed), "step": step, "samples": step, "task": task}
    return row | {"measure": measure, "value": value, "n": 10} | more


def front_run(cell: str, base: str, rate: float, first: float, **more: Any) -> dict[str, Any]:
    """One row of a front, whose second half of items loses .01 more than its first; no drop: it did not arrive."""
    there = not math.isnan(first)
    drops = {"drop_first": first, "drop_second": first + 0.01, "drop": first + 0.005}
    spent = {"flops": 1e9 / rate if there else math.nan, "arrived": there, "capped": False}
    return {"base": base, "cell": cell, "rate": rate} | drops | spent | more
