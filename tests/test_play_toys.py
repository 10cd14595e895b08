"""What the pages of the toys begin with: the constants of helpers.toys, and lessons and settings that there are."""

from __future__ import annotations

import pytest

from helpers.errors import UserError
from helpers.play import toys
from helpers.toys import mixture, softmax


def test_every_lesson_is_one_that_the_softmax_can_be_taught() -> None:
    view = toys.squeeze("word 15 up", prompts=3)
    assert (view.data["begin"]["lesson"], view.data["begin"]["prompts"]) == ("word 15 up", 3)
    for pairs in view.data["lessons"].values():
        softmax.Lesson(tuple(map(tuple, pairs))).vector(view.data["words"])
    assert sum(advantage for _, advantage in toys.LESSONS["a group: 3 up, 8, 12 and 15 down"]) == 0


@pytest.mark.parametrize(("lesson", "prompts"), [("word 21 down", 1), ("word 15 up", 2)])
def test_a_beginning_that_there_is_not_is_refused(lesson, prompts) -> None:
    with pytest.raises(UserError, match="begins with 1 or 3 prompts and one of word 15 down"):
        toys.squeeze(lesson, prompts)


def test_the_mixture_begins_as_the_notebook_does() -> None:
    data = toys.mixture(mixture.Effort(samples=100)).data
    assert (data["gain"], data["steps"], data["samples"]) == (0.9, 3000, 100)
    assert data["begin"] == {"slow": 0.005, "sft": 0.15, "reinforce": 0.01, "place": 3.5, "modes": 2}
    assert data["slows"][0] == mixture.SLOW and data["slows"][-1] == 1 and data["slows"] == sorted(set(data["slows"]))
    assert data["grid"] == [mixture.grid()[0], mixture.grid()[-1], len(mixture.grid())]


def test_both_pages_are_small() -> None:
    assert all(len(view.page()) < 60_000 for view in (toys.squeeze(), toys.mixture()))
