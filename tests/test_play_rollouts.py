"""The data of the rollout browser: boards drawn again are those that were answered, and groups are whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.model import build
from helpers.play import page, rollouts
from helpers.study.profiles import get_profile
from helpers.train import live
from helpers.world import answers, seeds
from helpers.world.boards import held_out_boards
from helpers.world.puzzles import PuzzleSpec


@pytest.fixture(scope="module")
def recorded() -> list[rollouts.Writer]:
    """The published runs: those of the old study, and those on the base of stem 5."""
    return [*rollouts.study_writers(get_profile("cpu")), *rollouts.base_writers()]


@pytest.fixture(scope="module")
def data(recorded) -> dict:
    return dict(rollouts.view(recorded).data)


def written(steps: list[int], boards: int = 3, **columns: object) -> rollouts.Writer:
    """A run with `boards` groups of two completions at each step, whose boards are numbered through."""
    row = {"prompt": "?", "hit": 0.0, "exact": 0.0, "format": 1.0, "advantage": 0.0, "tokens": 3,
           "logp_policy": -1.0, "logp_base": -2.0, "completion": "<answer>1 2 3 4</answer>"} | columns  # fmt: skip
    keys = [(step, place * boards + k) for place, step in enumerate(steps) for k in range(boards) for _ in range(2)]
    rows = pd.DataFrame([{**row, "step": step, "puzzle_id": number} for step, number in keys])
    return rollouts.Writer("a run", PuzzleSpec(), seeds.training(0), "direct", rows)


def rows_of(data: dict):
    """(run, board, text, numbers) of every completion in a page."""
    for run, _, board, _, said in data["groups"]:
        for text, *numbers in said:
            yield data["runs"][run], data["boards"][board], data["texts"][text], numbers


def test_what_was_recorded_comes_out_again_on_the_boards_that_are_drawn(data) -> None:
    checked = 0
    for run, board, text, (hit, exact, form, reward, *_) in rows_of(data):
        score = answers.score(text, board["truth"], run["written"])
        assert (score.hit, score.exact, score.format) == (hit, exact, form)
        assert reward == pytest.approx(np.dot(run["weights"], (hit, exact, form)), rel=1e-3)
        checked += 1
    assert checked >= 8 * 100


def test_recorded_advantages_are_those_of_the_rewards_that_the_page_shows(data) -> None:
    for _, _, _, _, said in data["groups"]:
        rewards, gained = [row[4] for row in said], [row[5] for row in said]
        assert gained == pytest.approx(live.advantages(rewards), abs=5e-3)


def test_runs_of_one_seed_stand_beside_each_other_on_boards_that_they_share(data) -> None:
    met = Counter()
    for board in {(run, board) for run, _, board, *_ in data["groups"]}:
        met[board[1]] += 1
    assert max(met.values()) == len(rollouts.base_writers())


def test_the_page_stays_small(recorded) -> None:
    assert len(rollouts.view(recorded)._repr_html_()) < 1_000_000


def test_a_page_holds_two_groups_at_steps_that_double_and_at_the_last() -> None:
    writer = written([1, 2, 3, 4, 5, 6, 7, 8, 9, 13])
    chosen = rollouts.chosen(writer, Counter(writer.keys))
    groups = chosen.groupby("step")["puzzle_id"].agg(lambda ids: sorted(set(ids))).to_dict()
    assert groups == {1: [0, 1], 2: [3, 4], 4: [9, 10], 8: [21, 22], 13: [27, 28]}
    assert all(len(rows) == 2 for _, rows in chosen.groupby(["step", "puzzle_id"]))


def test_boards_that_another_writer_met_come_first() -> None:
    writer = written([1])
    assert set(rollouts.chosen(writer, Counter({writer.key(2): 2, writer.key(0): 1}))["puzzle_id"]) == {0, 2}


def test_the_first_malformed_group_is_kept_whatever_its_step() -> None:
    writer = written([1, 2, 3, 4])
    rows = writer.rows.copy()
    rows.loc[rows["puzzle_id"] == 8, "format"] = 0.0  # the third board of step 3
    chosen = rollouts.chosen(replace(writer, rows=rows), Counter())
    assert set(chosen.loc[chosen["step"] == 3, "puzzle_id"]) == {8}


def test_a_base_log_prob_that_was_not_recorded_is_missing() -> None:
    said = rollouts.view([written([1], logp_base=float("nan"))]).data["groups"][0][4]
    assert [row[7] for row in said] == [None, None]


def test_without_any_completion_it_says_what_to_do() -> None:
    writer = written([1])
    with pytest.raises(UserError, match="no completions to browse: train RFT first"):
        rollouts.view([replace(writer, rows=writer.rows.iloc[:0])])


def test_models_are_asked_about_the_same_boards_and_draw_the_same_each_time(puzzler) -> None:
    model, boards = build.load(puzzler.folder), held_out_boards(PuzzleSpec(size=32), 2)
    first, again = (rollouts.drawn(model, model, boards, 4) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert first.groupby("puzzle_id").size().to_dict() == {0: 4, 1: 4}
    assert first["logp_policy"].tolist() == pytest.approx(first["logp_base"].tolist())
    for number, rows in first.groupby("puzzle_id"):
        scores = [answers.score(text, boards.placements[number].tolist()) for text in rows["completion"]]
        assert rows["hit"].tolist() == [score.hit for score in scores]
        rewards = [score.hit + score.exact + score.format for score in scores]
        assert rows["advantage"].tolist() == pytest.approx(live.advantages(rewards))


def test_kept_models_and_their_base_each_have_a_group_on_every_board() -> None:
    writers = rollouts.model_writers(2, ("direct",))
    assert writers[0].label == "Base two-form-5, asked direct" and len(writers) >= 3
    assert len({frozenset(writer.keys) for writer in writers}) == 1
    assert all(writer.rows.groupby("step").size().to_dict() == {1: 8, 2: 8} for writer in writers)
    assert not {key for writer in rollouts.base_writers() for key in writer.keys} & writers[0].keys


def test_boards_in_a_page_are_nearly_what_the_model_sees(data) -> None:
    import base64
    import io

    from PIL import Image

    board = data["boards"][0]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(board["image"].split(",")[1]))), dtype=float)
    (true,) = rollouts.make_boards(PuzzleSpec(), [board["number"]], seeds.training(0)).pixels
    assert shown.shape == true.shape and np.abs(shown - true).mean() < 6
    assert page.jpeg(true) == board["image"]
