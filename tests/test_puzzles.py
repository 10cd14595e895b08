"""Puzzles: round trips, exact chance levels, strict parsing, and rewards that are the score."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.errors import UserError
from helpers.world import answers, puzzles
from helpers.world.answers import parse, score
from helpers.world.puzzles import PuzzleSpec, invert, shuffle

GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(lambda grid: grid[0] * grid[1] >= 2)
PLACEMENTS = st.integers(1, 9).flatmap(lambda n: st.permutations(range(1, n + 1)))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# ---- the spec


@pytest.mark.parametrize(
    ("rows", "cols", "size", "board", "tile", "fits"),
    [
        (2, 2, 64, (64, 64), (32, 32), True),
        (3, 3, 96, (96, 96), (32, 32), True),
        (2, 3, 96, (96, 96), (32, 48), True),
        (2, 3, 64, (63, 64), (21, 32), False),
        (3, 2, 64, (64, 63), (32, 21), False),
        (1, 4, 72, (72, 72), (18, 72), False),
    ],
)
def test_board_size_rounds_down_to_equal_tiles(rows, cols, size, board, tile, fits):
    spec = PuzzleSpec(rows=rows, cols=cols, size=size)
    assert (spec.board_size, spec.tile_size, spec.fits_model) == (board, tile, fits)
    made = puzzles.make_puzzle(noise(150, 110), spec, 0)
    assert made.board.size == made.picture.size == board


@pytest.mark.parametrize(
    "bad",
    [
        {"rows": 0},
        {"cols": -1},
        {"rows": 1, "cols": 1},
        {"size": 1},
        {"rows": 5, "size": 4},
        {"seed": -1},
        {"rows": 2.0},
        {"cols": True},
        {"size": "64"},
        {"solved_allowed": "no"},
    ],
)
def test_bad_specs_are_refused(bad):
    with pytest.raises(UserError):
        PuzzleSpec(**bad)


def test_spec_from_numpy_integers_equals_the_plain_one():
    spec = PuzzleSpec(rows=np.int64(5), cols=np.int32(5))
    assert spec == PuzzleSpec(rows=5, cols=5) and spec.n_placements == math.factorial(25) - 1


# ---- chance


def brute_chance(n: int, solved_allowed: bool, guess_any: bool) -> tuple[Fraction, Fraction]:
    """(hit, exact) by enumerating every guess against every truth."""
    every = list(itertools.permutations(range(n)))
    truths = every if solved_allowed else every[1:]  # permutations() starts with the solved one
    guesses = every if guess_any else truths
    pairs = [sum(map(int.__eq__, guess, truth)) for truth in truths for guess in guesses]
    return Fraction(sum(pairs), n * len(pairs)), Fraction(pairs.count(n), len(pairs))


@pytest.mark.parametrize(("rows", "cols"), [(2, 1), (1, 3), (2, 2), (5, 1)])
@pytest.mark.parametrize("solved_allowed", [False, True])
def test_chance_equals_enumeration(rows, cols, solved_allowed):
    spec = PuzzleSpec(rows=rows, cols=cols, solved_allowed=solved_allowed)
    hit, exact = brute_chance(spec.tiles, solved_allowed, guess_any=False)
    assert (spec.chance_hit, spec.chance_exact) == pytest.approx((float(hit), float(exact)), rel=1e-12)


def test_chance_by_hand():
    spec = PuzzleSpec()
    assert spec.n_placements == 23 and spec.chance_exact == 1 / 23
    assert spec.chance_hit == pytest.approx((24 - 20 / 23) / 92, rel=1e-12)
    assert PuzzleSpec(rows=2, cols=1).chance_hit == 1.0
    assert PuzzleSpec(solved_allowed=True).chance_exact == 1 / 24
    assert PuzzleSpec(rows=20, cols=20).chance_hit == pytest.approx(1 / 400)  # 400! is no float


# ---- shuffling


def test_two_tiles_without_the_solved_board_leave_one_placement():
    spec = PuzzleSpec(rows=2, cols=1)
    assert {shuffle(spec, index) for index in range(50)} == {(2, 1)}


@pytest.mark.parametrize(("solved_allowed", "kinds"), [(False, 23), (True, 24)])
def test_every_allowed_placement_is_equally_likely(solved_allowed, kinds):
    spec = PuzzleSpec(solved_allowed=solved_allowed)
    draws = 400 * kinds
    counts = Counter(shuffle(spec, index) for index in range(draws))
    assert len(counts) == kinds and ((1, 2, 3, 4) in counts) == solved_allowed
    chi_square = sum((count - 400) ** 2 / 400 for count in counts.values())
    assert chi_square < 52  # 99.95th percentile at 23 degrees of freedom is 50.9; deterministic here


def test_shuffle_ignores_call_order_and_global_random_state():
    spec = PuzzleSpec(rows=3, cols=3, size=96, seed=7)
    forward = [shuffle(spec, index) for index in range(20)]
    random.seed(1)
    np.random.seed(1)
    python_state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    backward = [shuffle(spec, index) for index in reversed(range(20))][::-1]
    assert forward == backward
    assert random.getstate() == python_state and (np.random.get_state()[1] == numpy_state).all()
    assert len(set(forward)) > 15 and shuffle(PuzzleSpec(rows=3, cols=3, size=96, seed=8), 0) != forward[0]
    assert shuffle(spec, np.int64(3)) == forward[3]


def test_recorded_puzzles_stay_what_they_were():
    spec = PuzzleSpec()
    assert [shuffle(spec, index) for index in range(4)] == GOLDEN


GOLDEN = [(2, 1, 4, 3), (3, 4, 2, 1), (3, 1, 4, 2), (4, 3, 2, 1)]


@pytest.mark.parametrize("index", [-1, 1.5, "0", True, None])
def test_bad_index_is_refused(index):
    with pytest.raises(UserError, match="index"):
        shuffle(PuzzleSpec(), index)


# ---- the two readings


def test_invert_by_hand():
    # Slot 1 shows the tile of place 3, so place 3 is shown in slot 1; and so on.
    assert invert((3, 1, 2)) == (2, 3, 1)
    spec = PuzzleSpec(seed=3)
    assert puzzles.make_puzzle(noise(64, 64), spec, 1).order == invert(shuffle(spec, 1))


@given(PLACEMENTS)
def test_invert_is_its_own_inverse(placement):
    order = invert(placement)
    assert invert(order) == tuple(placement)
    assert all(order[place - 1] == slot for slot, place in enumerate(placement, start=1))


@pytest.mark.parametrize("bad", [(0, 1), (1, 1), (1, 3), (1.0, 2.0), ("1", "2")])
def test_invert_refuses_what_is_no_placement(bad):
    with pytest.raises(UserError, match="no placement"):
        invert(bad)


# ---- drawing


def test_slot_shows_the_tile_its_placement_names():
    red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    picture = Image.new("RGB", (2, 2))
    for at, colour in zip([(0, 0), (1, 0), (0, 1), (1, 1)], [red, green, blue, white], strict=True):
        picture.putpixel(at, colour)
    board = puzzles.make_board(picture, PuzzleSpec(size=2), (3, 1, 4, 2))
    shown = [board.getpixel(at) for at in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    assert shown == [blue, red, white, green]


def cut(image: Image.Image, spec: PuzzleSpec) -> list[bytes]:
    """The tiles of a fitted picture in reading order, cut by Pillow."""
    width, height = spec.tile_size
    corners = [(col * width, row * height) for row in range(spec.rows) for col in range(spec.cols)]
    return [image.crop((x, y, x + width, y + height)).tobytes() for x, y in corners]


@settings(max_examples=60, deadline=None)
@given(GRIDS, st.integers(5, 40), st.integers(0, 99), st.integers(0, 99))
def test_boards_round_trip_pixel_for_pixel(grid, size, seed, index):
    spec = PuzzleSpec(rows=grid[0], cols=grid[1], size=size, seed=seed)
    puzzle = puzzles.make_puzzle(noise(57, 43, seed), spec, index)
    assert puzzles.restore(puzzle.board, spec, puzzle.placement).tobytes() == puzzle.picture.tobytes()
    tiles, shown = (cut(image, spec) for image in (puzzle.picture, puzzle.board))
    assert shown == [tiles[place - 1] for place in puzzle.placement]


@settings(max_examples=40, deadline=None)
@given(GRIDS, st.integers(5, 30), st.integers(0, 4))
def test_vectorised_boards_equal_single_ones(grid, size, count):
    spec = PuzzleSpec(rows=grid[0], cols=grid[1], size=size)
    width, height = spec.board_size
    pictures = [noise(width, height, seed) for seed in range(count)]
    images = np.array([np.asarray(p) for p in pictures], np.uint8).reshape(count, height, width, 3)
    placements = np.array([shuffle(spec, i) for i in range(count)], int).reshape(count, spec.tiles)
    boards = puzzles.draw_boards(images, spec, placements)
    assert boards.dtype == np.uint8 and boards.shape == images.shape
    for board, picture, placement in zip(boards, pictures, placements, strict=True):
        tiles = cut(picture, spec)
        assert cut(Image.fromarray(board), spec) == [tiles[place - 1] for place in placement]
        assert (board == np.asarray(puzzles.make_board(picture, spec, placement))).all()
    orders = np.array([invert(p) for p in placements], int).reshape(count, spec.tiles)
    assert (puzzles.draw_boards(boards, spec, orders) == images).all()


def test_fitting_crops_the_centre_and_keeps_fitting_pictures():
    wide = Image.new("RGB", (40, 20), "white")
    wide.paste((10, 20, 30), (10, 0, 30, 20))
    fitted = puzzles.fit_picture(wide, PuzzleSpec(size=20))
    assert fitted.size == (20, 20) and fitted.getcolors() == [(400, (10, 20, 30))]
    exact = noise(63, 64)
    assert puzzles.fit_picture(exact, PuzzleSpec(rows=2, cols=3, size=64)).tobytes() == exact.tobytes()
    assert puzzles.fit_picture(Image.new("L", (9, 9), 5), PuzzleSpec(size=4)).getpixel((0, 0)) == (5, 5, 5)


@pytest.mark.parametrize("size", [(2, 9), (9, 1)])
def test_picture_smaller_than_the_grid(size):
    with pytest.raises(UserError, match="smaller than the grid"):
        puzzles.make_puzzle(Image.new("RGB", size), PuzzleSpec(rows=2, cols=3), 0)
    small_enough = puzzles.make_puzzle(Image.new("RGB", (3, 2)), PuzzleSpec(rows=2, cols=3), 0)
    assert small_enough.board.size == (63, 64)


def test_drawing_refuses_what_does_not_fit():
    spec, images = PuzzleSpec(size=4), np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(UserError, match="Cannot draw"):
        puzzles.draw_boards(images[:, :3], spec, np.array([[1, 2, 3, 4]] * 2))
    with pytest.raises(UserError, match="Cannot draw"):
        puzzles.draw_boards(images, spec, np.array([[1, 2, 3, 4]]))
    with pytest.raises(UserError, match="each number"):
        puzzles.draw_boards(images, spec, np.array([[1, 2, 3, 4], [1, 1, 3, 4]]))
    with pytest.raises(UserError, match="no placement"):
        puzzles.make_board(noise(4, 4), spec, (1, 2))
    with pytest.raises(UserError, match="its own spec"):
        puzzles.restore(noise(5, 4), spec, (1, 2, 3, 4))


# ---- asking and parsing


def test_prompt_text():
    assert puzzles.prompt_text(PuzzleSpec()) == (
        "2 x 2 tiles of the picture are mixed. Where is each from? Use each number from 1 to 4 once."
    )
    assert "2 x 3 tiles" in (text := puzzles.prompt_text(PuzzleSpec(rows=2, cols=3))) and "1 to 6" in text


TRUE = (2, 1, 4, 3)
FULL = "<think>sky, hills, ground</think><answer>2 1 4 3</answer>"

# (text, reason, format). TRUE is read exactly when the reason is "ok" or "text outside the tags".
TABLE = [
    (FULL, "ok", 1),
    ("\n <think>sky\nhills</think> \n <answer>2 1 4 3</answer> \n", "ok", 1),
    ("<think></think><answer>2, 1 ,4,3</answer>", "ok", 1),
    ("<think>a</think><answer>\n2\t1 4 3 </answer>", "ok", 1),
    ("<answer>2 1 4 3</answer>", "ok", 0),
    ("", "no answer", 0),
    ("2 1 4 3", "no answer", 0),
    ("<think>2 1 4 3</think>", "no answer", 0),
    ("<think>a</think><answer>2 1 4 3", "no answer", 0),
    ("<think>a</think>2 1 4 3</answer>", "no answer", 0),
    ("</answer>2 1 4 3<answer>", "no answer", 0),
    ("<ANSWER>2 1 4 3</ANSWER>", "no answer", 0),
    ("<think>a<answer>2 1 4 3</answer>", "no answer", 0),
    ("<think>a<answer>2 1 4 3</answer></think>", "no answer", 0),
    ("<think><think>a</think><answer>2 1 4 3</answer>", "no answer", 0),
    ("</think><think>a<answer>2 1 4 3</answer>", "no answer", 0),
    (FULL + "<answer>2 1 4 3</answer>", "two answers", 0),
    (FULL + "<answer>", "two answers", 0),
    (FULL + "</answer>", "two answers", 0),
    ("<think>an <answer> tag</think><answer>2 1 4 3</answer>", "two answers", 0),
    ("<think><answer>1 2 3 4</answer></think><answer>2 1 4 3</answer>", "two answers", 0),
    ("<answer><answer>2 1 4 3</answer></answer>", "two answers", 0),
    ("<think>a</think><answer></answer>", "not numbers", 1),
    ("<think>a</think><answer>two one four three</answer>", "not numbers", 1),
    ("<think>a</think><answer>2 1 4 3.</answer>", "not numbers", 1),
    ("<think>a</think><answer>[2, 1, 4, 3]</answer>", "not numbers", 1),
    ("<think>a</think><answer>2,,1 4 3</answer>", "not numbers", 1),
    ("<think>a</think><answer>2 1 4 3,</answer>", "not numbers", 1),
    ("<think>a</think><answer>2 1 4 -3</answer>", "not numbers", 1),
    ("<think>a</think><answer>\uff12 1 4 3</answer>", "not numbers", 1),
    ("<think>a</think><answer>2\u00a01 4 3</answer>", "not numbers", 1),
    ("<think>a</think><answer>2 1 <think>4 3</answer>", "not numbers", 0),
    ("<think>a</think><answer>2143</answer>", "wrong length", 1),
    ("<think>a</think><answer>2 1 4</answer>", "wrong length", 1),
    ("<think>a</think><answer>2 1 4 3 1</answer>", "wrong length", 1),
    ("<think>a</think><answer>2 1 4 5</answer>", "out of range", 1),
    ("<think>a</think><answer>2 1 4 0</answer>", "out of range", 1),
    ("<think>a</think><answer>2 1 4 03</answer>", "out of range", 1),
    ("<think>a</think><answer>2 1 4 " + "9" * 9000 + "</answer>", "out of range", 1),
    ("<think>a</think><answer>2 1 4 4</answer>", "repeated", 1),
    (FULL + " that is all", "text outside the tags", 0),
    ("Well. " + FULL, "text outside the tags", 0),
    ("<think>a</think> so <answer>2 1 4 3</answer>", "text outside the tags", 0),
    ("a</think><answer>2 1 4 3</answer>", "text outside the tags", 0),
    ("<answer>2 1 4 3</answer><think>a</think>", "text outside the tags", 0),
    ("<think>a</think>" + FULL, "text outside the tags", 0),
]


@pytest.mark.parametrize(("text", "reason", "form"), TABLE)
def test_parse_table(text, reason, form):
    parsed = parse(text, 4)
    assert parsed.reason == reason
    credited = reason in ("ok", "text outside the tags")
    assert parsed.placement == (TRUE if credited else None)
    result = score(text, TRUE)
    assert (result.hit, result.exact, result.format, result.reason) == (credited, credited, form, reason)


def test_every_reason_is_tested():
    assert {reason for _, reason, _ in TABLE} == set(answers.REASONS)


TAGGED = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "2 1 4 3", "1,2", " ", "\n", "x", "5"]),
    max_size=9,
).map("".join)


@settings(max_examples=400)
@given(TAGGED)
def test_parse_never_credits_without_exactly_one_pair(text):
    parsed = parse(text, 4)
    assert parsed.reason in answers.REASONS
    if parsed.placement is not None:
        assert text.count("<answer>") == text.count("</answer>") == 1
        inside = text.split("<answer>")[1].split("</answer>")[0]
        assert tuple(int(word) for word in inside.replace(",", " ").split()) == parsed.placement
    if score(text, TRUE).format:
        assert all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))


@given(PLACEMENTS.filter(lambda p: len(p) > 1), st.sampled_from([" ", ",", ", ", " , ", "\n"]))
def test_written_placements_are_read_back(placement, separator):
    text = f"<think>x</think><answer>{separator.join(map(str, placement))}</answer>"
    assert parse(text, len(placement)) == answers.Parsed(tuple(placement), "ok")


# ---- scores and rewards


def test_scores_by_hand():
    assert answers.score_placement((2, 1, 4, 3), TRUE) == (1.0, 1.0)
    assert answers.score_placement((2, 1, 3, 4), TRUE) == (0.5, 0.0)
    assert answers.score_placement((1, 2, 3, 4), TRUE) == (0.0, 0.0)
    with pytest.raises(UserError):
        answers.score_placement((1, 2), TRUE)
    with pytest.raises(UserError):
        score(FULL, (1, 1, 2, 3))


def test_rewards_reuse_the_score():
    texts = [text for text, _, _ in TABLE] + ["<think>a</think><answer>2 1 3 4</answer>"]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    blocks = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in texts]
    column = [list(TRUE)] * len(texts)
    scores = [score(text, TRUE) for text in texts]
    rewards = {
        "hit": answers.hit_reward,
        "exact": answers.exact_reward,
        "format": answers.format_reward,
    }
    for field, reward in rewards.items():
        expected = [getattr(result, field) for result in scores]
        for completions in (texts, chats, blocks):
            given_by_trl = {"prompts": texts, "completion_ids": [[1]] * len(texts), "trainer_state": None}
            got = reward(completions=completions, placement=column, **given_by_trl)
            assert got == expected and all(isinstance(value, float) for value in got)
    assert answers.hit_reward(texts, column)[-1] == 0.5


def test_rewards_use_each_rows_own_placement_and_survive_empty_completions():
    column = [[2, 1, 4, 3], [1, 2, 4, 3], [2, 1, 4, 3]]
    completions = [FULL, [{"role": "assistant", "content": FULL}], [{"role": "assistant", "content": None}]]
    assert answers.hit_reward(completions, column) == [1.0, 0.5, 0.0]
    assert answers.exact_reward(completions, column) == [1.0, 0.0, 0.0]
    assert answers.format_reward([[], FULL], column[:2]) == [0.0, 1.0]
    with pytest.raises(ValueError):
        answers.hit_reward(completions, column[:2])


def test_neighbour_score_by_hand():
    spec = PuzzleSpec(rows=2, cols=3, size=96)
    solved = (1, 2, 3, 4, 5, 6)
    assert answers.neighbour_score(solved, solved, spec) == 1.0
    # Every tile one column to the right, the last column wrapped to the front: 2 x 1 side-by-side pairs
    # and all 3 stacked pairs survive, of 2*2*3 - 2 - 3 = 7; no tile is in its place.
    moved = (2, 3, 1, 5, 6, 4)
    assert answers.neighbour_score(moved, solved, spec) == pytest.approx(5 / 7)
    assert answers.score_placement(moved, solved)[0] == 0.0
    # 2 x 2, the two lower tiles swapped: only the upper pair is still side by side.
    assert answers.neighbour_score((1, 2, 4, 3), (1, 2, 3, 4), PuzzleSpec()) == 0.25
    # The end of one row and the start of the next are no neighbours: place 2 holds tile 3, place 3 tile 4.
    assert answers.neighbour_score((1, 4, 2, 3), (1, 2, 3, 4), PuzzleSpec()) == 0.0
    assert answers.neighbour_score((2, 1), (1, 2), PuzzleSpec(rows=2, cols=1)) == 0.0


@given(st.permutations(range(1, 7)), st.permutations(range(1, 7)))
def test_neighbour_score_equals_a_plain_count(guess, truth):
    spec = PuzzleSpec(rows=2, cols=3, size=96)
    tile_at = dict(zip(guess, truth, strict=True))  # guessed place -> true place of the tile put there
    right = [tile_at[a] in (1, 2, 4, 5) and tile_at[a + 1] == tile_at[a] + 1 for a in (1, 2, 4, 5)]
    below = [tile_at[a + 3] == tile_at[a] + 3 for a in (1, 2, 3)]
    score_ = answers.neighbour_score(guess, truth, spec)
    assert score_ == pytest.approx(sum(right + below) / 7)
    assert (score_ == 1.0) == (guess == truth)
