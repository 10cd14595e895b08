"""Rows of the suite's tables for tests, written once."""

from __future__ import annotations

import re
from typing import Any


def evaluation(name: str, /, step: int, task: str, measure: str, value: float, **more: Any) -> dict[str, Any]:
    """One row of the evaluations of a run called `<arm>-<seed>` or `<arm>-<seed>-<hash>`; `more` changes columns."""
    arm, seed = re.fullmatch(r"(.+?)-(\d+)(?:-\w+)?", name).groups()
    row = {"run": name, "arm": arm, "seed": int(seed), "step": step, "samples": step, "task": task}
    return row | {"measure": measure, "value": value, "n": 10} | more
