"""The gain-drop plane and the time machine: what runs learned and lost, and what they said on the way.

Both show the same `runs.payload`, which takes seconds to collect: a notebook makes it once.
"""

from __future__ import annotations

from collections.abc import Mapping

from helpers.play.page import Json, View


def plane(payload: Mapping[str, Json]) -> View:
    """Every run in the plane of puzzle accuracy and prior score lost."""
    return View("plane", "Puzzle accuracy against prior score lost", 869, payload)


def time_machine(payload: Mapping[str, Json]) -> View:
    """One run or two, evaluation by evaluation."""
    return View("time", "A training, evaluation by evaluation", 766, payload)
