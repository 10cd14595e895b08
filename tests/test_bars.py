"""What a base must be able to do: marks by hand on stand-ins that write and see what the test says."""

import numpy as np
import pandas as pd
import pytest
import torch
from swapping import swap

from helpers.measure import bars
from helpers.model import score
from helpers.world import battery
from helpers.world.boards import Boards
from helpers.world.puzzles import PuzzleSpec

SPEC = PuzzleSpec(2, 2, size=64)


def writes(monkeypatch: pytest.MonkeyPatch, text) -> None:
    """A model that writes `text(prompt, number)`."""
    swap(
        monkeypatch,
        score,
        "complete",
        lambda model, processor, prompts, *_: [[text(p, i)] for i, p in enumerate(prompts)],
    )


def test_the_form_is_read_off_the_first_tag() -> None:
    think, direct = "<think>a</think><answer>b</answer>", "<answer>b</answer>"
    assert bars.in_form(think, "think") and bars.in_form(direct, "direct")
    assert not bars.in_form(think, "direct") and not bars.in_form(direct, "think")


def test_marks_on_the_battery_count_right_answers_and_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, battery, "battery_tasks", lambda: ("light", "facts"))
    gold = {s.question.text: s.question.answer for t in ("light", "facts") for s in battery.battery_samples(t, 4)}

    def text(prompt, number: int) -> str:
        answer = next(a for asked, a in gold.items() if asked in prompt.text)
        return (
            f"<answer>{answer if number else 'nothing'}</answer>"
            if number < 3
            else "<think>x</think><answer>y</answer>"
        )

    writes(monkeypatch, text)
    marks = bars.prior_marks(("model", "processor"), "direct", 4)
    assert marks["task"].tolist() == ["light", "facts"] and (marks["n"] == 4).all()
    assert marks["score"].tolist() == [0.5, 0.5] and marks["kept"].tolist() == [0.75, 0.75]


def test_marks_on_boards_count_what_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = ("1 2 4 3", "2 1 4 3", "no", "2 1 3 4")
    writes(monkeypatch, lambda prompt, number: f"<answer>{orders[number % 4]}</answer>")
    marks = bars.board_marks(("model", "processor"), SPEC, "direct", 8, 200)
    assert (marks["valid"], marks["distinct"], marks["above 1 %"]) == (0.75, 3, 3)
    assert 0 <= marks["exact"] <= marks["hit"] < 1


@pytest.mark.parametrize("seen, exact", [(1.0, 1.0), (0.0, None)])
def test_a_linear_map_finds_what_is_in_the_tokens_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, seen, exact
) -> None:
    def tokens(base, boards: Boards) -> torch.Tensor:
        rng = np.random.default_rng(0)
        places = np.eye(4)[boards.placements - 1].reshape(len(boards), -1)
        return torch.from_numpy(seen * places + 0.1 * rng.standard_normal(places.shape)).float()

    swap(monkeypatch, bars, "visual_tokens", tokens)
    marks = bars.eye_marks(("model", "processor"), SPEC, 500)
    assert marks["exact"] == exact if exact else marks["exact"] < 0.15 and marks["hit"] < 0.4


def test_every_mark_has_its_bar_or_says_what_chance_is(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"task": ["easy_vqa"], "score": [0.9], "kept": [1.0]})
    swap(monkeypatch, bars, "prior_marks", lambda *_, **__: table)
    swap(monkeypatch, bars, "board_marks", lambda *_: {"exact": 0.0, "valid": 1.0, "distinct": 1.0, "above 1 %": 1.0})
    swap(monkeypatch, bars, "eye_marks", lambda *_: {"exact": 1.0, "hit": 1.0})
    marks = bars.all_marks(("model", "processor"), 4)
    assert set(bars.BARS) <= set(marks["mark"])
    assert marks[marks["bar"].isna()]["mark"].str.startswith("exact, chance").all()
