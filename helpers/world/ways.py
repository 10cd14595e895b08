"""Ways in which the prior battery's items are put: the form asked for, the wording, the picture's size, an opening."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from helpers.world import battery, seeds
from helpers.world.boards import Prompted
from helpers.world.forms import Asked, ask_for, due
from helpers.world.questions import Question


@dataclass(frozen=True)
class Way:
    """How items are put: the form that is asked for, whether in held-out wordings, on pictures of `size` pixels a side.

    `opening`: how the answer begins, written already; nothing where it is empty.
    """

    asked: Asked = "plain"
    held_out: bool = False
    size: int = 64
    opening: str = ""

    @property
    def columns(self) -> dict[str, str | int]:
        """The way in the columns of the table of outcomes."""
        wording = "held out" if self.held_out else "taught"
        return {"asked": self.asked, "wording": wording, "size": self.size, "opening": self.opening}


@lru_cache(maxsize=64)
def items(way: Way, task: str, n: int) -> tuple[tuple[Prompted, Question], ...]:
    """The first `n` held-out items of a task, put in a way: prompts, and questions whose gold completion is due."""
    rng = np.random.default_rng((seeds.WORDINGS, seeds.BATTERY, len(task), way.held_out))
    put = []
    for sample in battery.battery_samples(task, n, way.size):
        question = due(ask_for(sample.question, way.asked, rng, way.held_out), way.asked)
        put.append((Prompted(sample.pixels, question.text, way.opening), question))
    return tuple(put)
