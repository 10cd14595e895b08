"""The groups' page begins with the shares as they were measured, and with the study's reward and group."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.play.variety import drawn_groups
from helpers.show import lessons
from helpers.train.recorder import EPSILON


def test_shares_go_in_as_they_were_measured() -> None:
    texts = ["<answer>2 1 4 3</answer>"] * 3 + ["<answer>1 2 3 4</answer>", "no answer"]
    data = drawn_groups(lessons.placement_shares(lessons.answers(texts))).data
    assert data["placements"][:2] == [[2, 1, 4, 3], [1, 2, 3, 4]] and len(data["placements"]) == 24
    assert data["shares"] == [0.6, 0.2] + [0.0] * 22
    assert (data["weights"], data["epsilon"]) == ([1, 1, 1], EPSILON)
    assert data["begin"] == {"size": 8, "temperature": 1.0}


def test_the_slider_of_sharpness_holds_the_measured_one() -> None:
    data = drawn_groups(pd.DataFrame({"placement": ["2 1", "1 2"], "share": [0.5, 0.25]})).data
    heats = data["temperatures"]
    assert 1.0 in heats and (heats[0], heats[-1]) == (0.02, 5.01) and heats == sorted(set(heats))


def test_without_a_valid_placement_there_is_nothing_to_draw() -> None:
    nothing = lessons.placement_shares(lessons.answers(["no answer"] * 4))
    with pytest.raises(UserError, match="No completion gave a valid placement"):
        drawn_groups(nothing)


def test_the_page_is_small() -> None:
    assert len(drawn_groups(lessons.placement_shares(lessons.answers(["<answer>2 1 4 3</answer>"]))).page()) < 70_000
