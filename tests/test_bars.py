"""What a base must be able to do: marks by hand on stand-ins that write and see what the test says."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import binom
from swapping import swap

from helpers.errors import UserError
from helpers.measure import bars
from helpers.measure.kept import ITEMS
from helpers.model import examine, score
from helpers.model.examine import Outcomes
from helpers.study.bases import BASES
from helpers.study.cells import REPORTED
from helpers.train import pretrain
from helpers.world.boards import Boards
from helpers.world.puzzles import PuzzleSpec
from helpers.world.ways import Way

SPEC = PuzzleSpec(2, 2, size=64)


def writes(monkeypatch: pytest.MonkeyPatch, text) -> None:
    """A model that writes `text(prompt, number)`."""
    swap(
        monkeypatch,
        score,
        "complete",
        lambda model, processor, prompts, *_: [[text(p, i)] for i, p in enumerate(prompts)],
    )


def test_marks_on_the_battery_count_right_answers_and_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def examined(model, processor, way, n):
        asked.append((way, n))
        half, most = (True, True, False, False), (True, True, True, False)
        return {"light": Outcomes(half, most, half, (), ("",) * 4), "facts": Outcomes(most, half, half, (), ("",) * 4)}

    swap(monkeypatch, examine, "examine", examined)
    marks = bars.prior_marks(("model", "processor"), "direct", 4, held_out=True)
    assert asked == [(Way("direct", held_out=True), 4)] and marks["task"].tolist() == ["light", "facts"]
    assert marks["score"].tolist() == [0.5, 0.75] and marks["kept"].tolist() == [0.75, 0.5]


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
        places = np.eye(4)[boards.placements - 1]  # a token a tile
        return torch.from_numpy(seen * places + 0.1 * rng.standard_normal(places.shape)).float()

    swap(monkeypatch, bars, "visual_tokens", tokens)
    marks = bars.eye_marks(("model", "processor"), SPEC, 500)
    assert marks["exact"] == exact if exact else marks["exact"] < 0.15 and marks["hit"] < 0.4


def test_the_tokens_of_a_tile_are_those_that_lie_on_it() -> None:
    tokens = torch.arange(16.0).reshape(1, 16, 1).repeat(1, 1, 2)  # a board of 4 x 4 tokens in reading order
    tiles = bars.tile_tokens(tokens, SPEC)
    assert tiles[0, :, ::2].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    with pytest.raises(UserError, match="16 tokens of a board cannot be shared out among 3 x 3 tiles"):
        bars.tile_tokens(tokens, PuzzleSpec(3, 3, size=96))


def test_every_mark_has_its_bar_or_says_what_chance_is(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"task": ["easy_vqa"], "score": [0.9], "kept": [1.0]})
    swap(monkeypatch, bars, "prior_marks", lambda *_, **__: table)
    swap(monkeypatch, bars, "board_marks", lambda *_: {"exact": 0.0, "valid": 1.0, "distinct": 1.0, "above 1 %": 1.0})
    swap(monkeypatch, bars, "eye_marks", lambda *_: {"exact": 1.0, "hit": 1.0})
    marks = bars.all_marks(("model", "processor"), 4)
    assert set(bars.BARS) <= set(marks["mark"])
    assert marks[marks["bar"].isna()]["mark"].str.contains("exact, chance|mean score besides").all()


KEPT = [name for name in BASES if name != "shipped" and int(name.rsplit("-", 1)[1]) in REPORTED]


LONGER = {3, 4}  # stems whose branches practise for half as many steps more (`pretrain.branch`)
VARIETY = ("3 x 3: distinct orders", "direct")
WORDS = {(mark, form) for mark in ("kinds at .80", "easy_vqa") for form in ("think", "direct")}
MISSED = {  # what was missed all the same
    "two-form-3": {VARIETY},
    "two-form-4": {VARIETY} | WORDS,  # easy-VQA, the eleventh of its kinds, after half as many steps more too
    "two-form-6": {VARIETY},
}


@pytest.mark.parametrize("name", KEPT)
def test_every_kept_base_clears_its_bars_and_knows_no_board(name: str) -> None:
    marks = pd.read_csv(BASES[name] / "marks.csv")
    assert set(bars.BARS) <= set(marks["mark"])
    missed = marks[marks["value"] < marks["bar"]]
    assert set(missed[["mark", "form"]].itertuples(index=False, name=None)) == MISSED.get(name, set())
    for row in marks[marks["mark"].str.startswith("exact, chance")].itertuples():
        chance = float(row.mark.rsplit(" ", 1)[1])
        # 500 boards: no more right than chance gives once in a thousand times
        assert row.value * ITEMS <= binom.ppf(0.999, ITEMS, chance)


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_base_is_stored_in_16_bits_and_says_how_it_was_made(name: str) -> None:
    weights = load_file(BASES[name] / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"float16"}
    recipe = json.loads((BASES[name] / "made.json").read_text())["recipe"]
    kind, stem = name.rsplit("-", 1)
    planned = replace(pretrain.branch(int(stem), kind, ""), start=recipe["start"])
    # made again where its two-form base missed a bar; what that one misses it was kept with
    longer = replace(planned, practice=planned.practice * 3 // 2)
    assert recipe == asdict(longer if int(stem) in LONGER else planned)


def test_only_a_base_that_was_made_again_may_miss_more_than_variety() -> None:
    assert {int(name.rsplit("-", 1)[1]) for name, missed in MISSED.items() if missed != {VARIETY}} <= LONGER
    assert set(MISSED) <= set(KEPT)


def test_the_branch_that_practised_longest_is_the_least_varied_of_the_first_three() -> None:
    found = {}
    for name in ("two-form-3", "two-form-5", "two-form-6"):
        marks = pd.read_csv(BASES[name] / "marks.csv").set_index(["mark", "form"])["value"]
        practice = json.loads((BASES[name] / "made.json").read_text())["recipe"]["practice"]
        found[practice, float(marks[VARIETY])] = name
    assert found[max(found)[0], min(orders for _, orders in found)] == "two-form-3"
