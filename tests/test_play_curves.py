"""The learning curves' page: means and intervals are those over seeds, and only what is recorded is offered."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.play.curves import learning_curves
from helpers.stats.intervals import seed_interval


def table(values: dict[tuple[str, int], list[float]], task: str = "puzzle", measure: str = "exact") -> pd.DataFrame:
    """Evaluations: (arm, step) -> the values of seeds 0, 1, ...; ten boards a step."""
    rows = [
        (f"{arm}-{seed}-x", arm, seed, step, 10 * step, task, measure, value, 4)
        for (arm, step), every in values.items()
        for seed, value in enumerate(every)
    ]
    columns = ["run", "arm", "seed", "step", "samples", "task", "measure", "value", "n"]
    return pd.DataFrame(rows, columns=columns)


PUZZLE = table({("base", 0): [0.04], ("rft", 0): [0.1, 0.2, 0.3], ("rft", 8): [0.5, 0.6, 0.9]})


def test_points_are_means_with_intervals_over_seeds() -> None:
    data = learning_curves(PUZZLE, {"exact match": 1 / 23}).data
    assert data["chance"] == {"exact match": 1 / 23} and list(data["arms"]) == ["base", "rft"]
    mean, low, high = seed_interval(pd.Series([0.5, 0.6, 0.9]))
    first, last = data["measures"]["exact match"]["rft"]
    assert first[:3] == [0, 0, 0.2] and last == pytest.approx([8, 80, mean, low, high, 3], rel=1e-4)
    assert data["measures"]["exact match"]["base"][0][2] == 0.04
    assert list(data["measures"]) == ["exact match"]


def test_the_prior_score_weighs_every_task_alike() -> None:
    tasks = [table({("rft", 0): [v, v]}, task, "score") for task, v in (("colour", 1.0), ("shape", 0.5), ("hill", 0.0))]
    data = learning_curves(pd.concat([PUZZLE, *tasks])).data
    assert data["measures"]["prior score"]["rft"][0][2] == 0.5 and data["chance"] == {}


def test_what_cannot_be_drawn_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError, match="There are no evaluations to draw"):
        learning_curves(PUZZLE.iloc[:0])
    with pytest.raises(UserError, match="several values"):
        learning_curves(pd.concat([PUZZLE, PUZZLE]))
