"""The two toys as pages that train while one looks: the squeeze of a softmax, and two modes that one policy holds.

The scripts compute what `helpers.toys` computes; every constant comes from there.
"""

from __future__ import annotations

import numpy as np

from helpers.errors import UserError
from helpers.play.page import Json, View, look, numbers
from helpers.toys import mixture as modes
from helpers.toys import softmax
from helpers.toys.plots import AFTER, BEFORE, DOWN, UP

LESSONS: dict[str, list[tuple[int, int]]] = {
    "word 15 down": [(15, -1)],
    "word 15 up": [(15, 1)],
    "word 1 down": [(1, -1)],
    "15 down and 5 up": [(15, -1), (5, 1)],
    "a group: 3 up, 8, 12 and 15 down": [(3, 3), (8, -1), (12, -1), (15, -1)],
}


def squeeze(lesson: str = "word 15 down", prompts: int = 1) -> View:
    """Words pushed up and down on one softmax, or on one of three prompts that share a layer, step by step.

    `lesson`: one of `LESSONS`, to begin with. `prompts`: 1 or 3, to begin with. Raises UserError for others.
    """
    if lesson not in LESSONS or prompts not in (1, 3):
        raise UserError(
            f"The squeeze begins with 1 or 3 prompts and one of {', '.join(LESSONS)}, not {lesson}, {prompts}."
        )
    data: dict[str, Json] = {
        "words": softmax.WORDS,
        "lessons": {name: [list(pair) for pair in pairs] for name, pairs in LESSONS.items()},
        "begin": {"lesson": lesson, "prompts": prompts, "rate": 0.5, "peak": 1.5, "cosine": 0.8, "step": 10},
        "steps": 50,
        "roll": 7,  # places between the favourites of two prompts, as in `softmax.shared_layer`
        "colours": {"before": BEFORE, "after": AFTER, "up": UP, "down": DOWN},
    }
    return View("squeeze", "The squeeze: what a step on one word does to the others", 700, data)


def mixture(effort: modes.Effort | None = None) -> View:
    """SFT and REINFORCE learn a new mode; what is left of the old one, step by step, for settings of the reader.

    `effort`: the default number of draws, the most steps and the gain at which a run stops.
    """
    effort, world = effort or modes.Effort(), modes.World()
    points = modes.grid()
    data: dict[str, Json] = {
        "old": list(modes.OLD_MODE),
        "new": [modes.NEW_WEIGHT, modes.NEW_SD],
        "start": list(modes.START),
        "limits": [*modes.WEIGHT_LIMITS, modes.LEAST_SD],
        "grid": [float(points[0]), float(points[-1]), len(points)],
        "beta": modes.Method("reinforce", 0.01).beta,
        "gain": effort.gain,
        "steps": effort.steps,
        "samples": effort.samples,
        "slows": numbers(np.unique([float(f"{slow:.2g}") for slow in np.geomspace(modes.SLOW, 1.0, 47)])),
        "begin": {"slow": modes.SLOW, "sft": 0.15, "reinforce": 0.01, "place": world.place, "modes": world.modes},
        "looks": {"SFT": look("sft-answer"), "REINFORCE": look("rft")},
    }
    return View("mixture", "Two modes, two learners: who leaves the old one?", 680, data)
