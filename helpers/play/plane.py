"""The gain-drop plane and the time machine: what runs learned and lost, and what they said on the way."""

from __future__ import annotations

from helpers.play.page import View
from helpers.play.runs import Study, payload


def plane(*studies: Study) -> View:
    """Every run in the plane of puzzle accuracy and prior score lost. Raises UserError where there is no run."""
    return View("plane", "Puzzle accuracy against prior score lost", 830, payload(studies))


def time_machine(*studies: Study) -> View:
    """One run or two, evaluation by evaluation. Raises UserError where there is no run."""
    return View("time", "A training, evaluation by evaluation", 740, payload(studies))
