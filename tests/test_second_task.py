"""A second task after the first: turned tiles, and runs that go on from the end of another."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from swapping import swap

from helpers.errors import UserError
from helpers.study import cells
from helpers.study.profiles import GRIDS
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train import exam, jobs
from helpers.train.engine import load_base, load_start
from helpers.train.run import train
from helpers.train.settings import Settings
from helpers.world import battery, puzzles
from helpers.world.boards import held_out_boards, training_boards
from helpers.world.puzzles import PuzzleSpec

TURNED = PuzzleSpec(size=64, turned=True)
QUICK = Settings(puzzle_tests=6, final_tests=6, battery=2, final_battery=2, per_octave=1, dense=2, ways=True)
BY_PILLOW = {1: None, 2: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.ROTATE_90}


@pytest.fixture(autouse=True)
def one_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A single prior task: what the battery holds is not the matter here."""
    swap(monkeypatch, battery, "battery_tasks", lambda: ("lists",))
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    training_boards.cache_clear()
    held_out_boards.cache_clear()
    yield
    training_boards.cache_clear()
    held_out_boards.cache_clear()


def noise(side: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def marks(store: RunStore, spec: RunSpec, step: int) -> dict[str, dict[str, float]]:
    """What a run's record says of a step, by task and measure."""
    table = pd.read_parquet(store.folder(spec) / "evaluations.parquet").query(f"step == {step}")
    return {task: dict(zip(own["measure"], own["value"], strict=True)) for task, own in table.groupby("task")}


@given(st.permutations([1, 2, 3, 4]), st.integers(0, 99), st.sampled_from([8, 64]))
@settings(max_examples=40, deadline=None)
def test_every_tile_stays_in_its_place_and_stands_as_the_answer_says(turns: list[int], seed: int, size: int) -> None:
    spec, picture, half = replace(TURNED, size=size), noise(size, seed), size // 2
    board = puzzles.make_board(picture, spec, turns)
    for slot, how in enumerate(turns):
        box = (slot % 2 * half, slot // 2 * half, slot % 2 * half + half, slot // 2 * half + half)
        tile = picture.crop(box)
        turned = tile.transpose(BY_PILLOW[how]) if BY_PILLOW[how] is not None else tile  # Pillow turns the other way
        assert board.crop(box).tobytes() == turned.tobytes()
    assert puzzles.restore(board, spec, turns).tobytes() == picture.tobytes()


def test_two_is_a_quarter_turn_clockwise() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[2, 2] = 255  # the top left pixel of the last tile
    board = np.asarray(puzzles.make_board(Image.fromarray(picture), replace(TURNED, size=4), (1, 3, 4, 2)))
    assert np.argwhere(board[..., 0]).tolist() == [[2, 3]]  # now the top right one: the tile lies on its right side


def test_both_puzzles_have_the_same_answers_each_as_often_and_chance_is_the_same() -> None:
    mixed, every = replace(TURNED, turned=False), set(permutations((1, 2, 3, 4))) - {(1, 2, 3, 4)}
    drawn = Counter(puzzles.shuffle(TURNED, i) for i in range(4600))
    assert drawn.keys() == every and 140 < min(drawn.values()) <= max(drawn.values()) < 270
    assert (TURNED.chance_exact, TURNED.chance_hit) == (mixed.chance_exact, mixed.chance_hit)
    assert TURNED.chance_exact == 1 / 23


def test_the_two_puzzles_of_one_picture_have_answers_that_say_nothing_of_each_other() -> None:
    both = [(puzzles.shuffle(TURNED, i), puzzles.shuffle(replace(TURNED, turned=False), i)) for i in range(2000)]
    assert 1 / 46 < np.mean([one == other for one, other in both]) < 1 / 15
    assert puzzles.prompt_text(TURNED) != puzzles.prompt_text(replace(TURNED, turned=False))


@pytest.mark.parametrize("grid", [dict(rows=3, cols=3, size=96), dict(rows=1, cols=4), dict(size=64, cols=1)])
def test_tiles_that_cannot_be_turned_are_refused(grid: dict[str, int]) -> None:
    with pytest.raises(UserError, match="Turned tiles must be four and square"):
        PuzzleSpec(turned=True, **grid)
    with pytest.raises(UserError, match="Turned tiles must be four and square"):
        RunSpec("rft", 1, 8, 1e-3, 2, turned=True, **grid)


def test_a_run_on_turned_tiles_says_so_and_others_keep_their_name() -> None:
    plain = RunSpec("sft-answer", 1, 8, 1e-3, 2)
    turned = replace(plain, turned=True)
    assert "turned" not in plain.to_json() and turned.hash != plain.hash
    assert RunSpec.from_json(turned.to_json()) == turned and turned.puzzle == TURNED
    assert (plain.grid, turned.grid) == ("2 x 2", "2 x 2, turned")


@pytest.mark.parametrize(
    ("arm", "more", "said"),
    [
        ("sft-expert", dict(turned=True), "sft-expert has no words for tiles that are turned"),
        ("sft-answer", dict(turned=1), "turned must be True or False, not 1"),
        ("sft-answer", dict(extra=(("after", "the first"),)), "after must be a run's name, .* not 'the first'"),
        ("sft-answer", dict(extra=(("after", 3),)), "after must be a run's name, .* not 3"),
    ],
)
def test_what_cannot_be_run_is_refused(arm: str, more: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        RunSpec(arm, 1, 8, 1e-3, 2, **more)


def test_a_run_goes_on_from_the_end_of_the_one_before_and_is_held_to_it(puzzler, tmp_path: Path) -> None:
    own = dict(batch_size=2, size=32, max_completion_length=26, base=str(puzzler.folder), asked="direct")
    first = RunSpec("sft-answer", 1, 6, 3e-3, **own)
    second = RunSpec(
        "rft", 1, 2, 3e-3, group_size=4, beta=0.1, turned=True, extra=(("after", first.name),), **own
    )  # fmt: skip
    store = RunStore(tmp_path)
    assert first.needs == frozenset() and second.needs == {first.name}
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_start(second, store.root)
    for spec in (first, second):
        train(spec, store, QUICK)
    begun, base = (dict(load.model.named_parameters()) for load in (load_start(second, tmp_path), load_base(second)))
    assert any((begun[name] != base[name]).any() for name in begun)
    ended, started = (marks(store, spec, step) for spec, step in ((first, 6), (second, 0)))
    assert started["lists"]["score"] == ended["lists"]["score"] and {"exact", "hit"} <= started["puzzle 2x2"].keys()
    metrics = pd.read_parquet(store.folder(second) / "metrics.parquet")
    kl = metrics.loc[(metrics["name"] == "kl") & (metrics["step"] == 1), "value"]
    assert kl.abs().max() < 1e-6  # the term's reference is the model that the run starts from


def test_the_first_task_is_examined_at_every_evaluation_of_a_run_that_comes_after_it() -> None:
    first, turned = (cells.get_cell(f"sft-answer direct{more}").at(3, 6e-5) for more in ("", ", turned"))
    assert exam.transfers(first) == {} and exam.transfers(turned) == {"puzzle 2x2": GRIDS["2x2"]}


def test_each_arm_goes_on_from_its_own_first_task() -> None:
    second = [cell for cell in cells.CELLS.values() if cell.after]
    assert {f"{cell.arm} {cell.asked}" for cell in second} == {
        "rft direct",
        "sft-answer direct",
        "sft-rollout think",
        "rft-no-kl direct",
        "rft think",
    }
    planned = {spec.name: spec for spec in cells.specs([3])}
    for cell in second:
        (spec,) = cell.specs(3)
        before = planned[spec.after]
        assert spec.turned and not before.turned and list(planned).index(spec.after) < list(planned).index(spec.name)
        assert (before.arm, before.asked, before.base, before.learning_rate) == (
            spec.arm,
            spec.asked,
            spec.base,
            spec.learning_rate,
        )


def test_a_run_whose_first_task_is_not_learned_yet_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    swap(monkeypatch, jobs, "run_all", lambda *_: [])
    swap(monkeypatch, jobs, "store", lambda profile: RunStore(tmp_path))
    (spec,) = cells.get_cell("rft direct, turned, after the jigsaw").specs(3)
    (said,) = jobs.run_missing(jobs.FAIR, [spec], keep_going=True)
    assert said == f"{spec.name} was left out: it needs {spec.after}, not finished."
