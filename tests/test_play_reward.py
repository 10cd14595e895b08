"""The data of the reward designer: every answer once, and recorded groups that score as they were recorded."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.play import reward
from helpers.study.published import PUBLISHED, load_published, published_specs
from helpers.study.spec import RunSpec
from helpers.world import answers


@pytest.fixture(scope="module")
def data() -> dict:
    return dict(reward.study_view().data)


def test_every_answer_is_there_once_the_solved_board_first(data) -> None:
    assert len(data["placements"]) == len({tuple(p) for p in data["placements"]}) == 24
    assert data["placements"][0] == [1, 2, 3, 4]


def test_groups_are_those_of_the_first_step_and_score_as_they_were_recorded(data) -> None:
    rows = load_published(PUBLISHED, "completions")
    rows = rows[rows["step"] == 1]
    assert len(data["groups"]) == len(rows.drop_duplicates(["run", "puzzle_id"]))
    for group in data["groups"]:
        own = rows[(rows["run"] == group["run"]) & (rows["puzzle_id"] == group["number"])]
        hits = [answers.score_placement(said, group["truth"])[0] if said else 0.0 for said in group["said"]]
        assert hits == own["hit"].tolist() and group["form"] == own["format"].tolist()


def test_pictures_stand_for_the_first_groups_which_are_of_different_runs(data) -> None:
    assert len(data["pictures"]) == reward.PICTURES
    runs = len({group["run"] for group in data["groups"]})
    assert len({group["run"] for group in data["groups"][:runs]}) == runs > 1


def test_what_gives_no_placement_is_null_and_the_form_is_kept_apart() -> None:
    spec = next(spec for spec in published_specs(PUBLISHED).values() if spec.arm == "rft")
    texts = ["<think>sky</think><answer>1 1 1 1</answer>", "<answer>2 1 4 3</answer>", "top right"]
    rows = pd.DataFrame({"run": spec.name, "puzzle_id": 3, "completion": texts, "format": [1.0, 0.0, 0.0]})
    (group,) = reward.view(rows, {spec.name: spec}).data["groups"]
    assert group["said"] == [None, [2, 1, 4, 3], None] and group["form"] == [1, 0, 0]


def test_groups_of_other_grids_alone_are_refused() -> None:
    spec = RunSpec("rft", 0, steps=2, learning_rate=1e-4, batch_size=1, rows=3, cols=3, size=96, beta=0.1)
    rows = pd.DataFrame({"run": [spec.name], "puzzle_id": [0], "completion": ["?"], "format": [0.0]})
    with pytest.raises(UserError, match="no recorded groups on 2 x 2 boards"):
        reward.view(rows, {spec.name: spec})


def test_the_page_stays_small() -> None:
    assert len(reward.study_view()._repr_html_()) < 150_000
