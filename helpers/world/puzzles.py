"""Jigsaw puzzles: how they are shuffled, drawn and asked about (`answers` reads and scores what is written).

Two readings of one permutation, both 1-based and both in reading order:

- placement[s]: the true place of the tile shown in board slot s. This is the answer a model must give.
- order[p]: the slot that shows the tile belonging to place p. The inverse; only `invert` converts.

A second kind of puzzle leaves four tiles where they are and turns them (`PuzzleSpec.turned`). Its answer has the form
of a placement, and is called so: placement[s] says how the tile in slot s stands, 1 upright, 2 on its right side (a
quarter turn clockwise), 3 upside down, 4 on its left side; each occurs once. So it is read, scored and rewarded alike,
and chance is the same; 1 2 3 4, the solved board of a jigsaw, is left out here too, so that the two puzzles have the
same 23 answers.

Another kind of puzzle needs its own spec, `shuffle`, `draw_boards` and `prompt_text`, and a reading in `answers`; what
trains and measures knows boards, their text and their placements only.
"""

from __future__ import annotations

import math
import operator
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from helpers.errors import UserError
from helpers.world.pictures import centred

Placement = tuple[int, ...]
TURNS = ("upright", "on its right side", "upside down", "on its left side")  # turned tiles: 1, 2, 3, 4
_GRID = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)@([1-9][0-9]*)", re.ASCII)
MODEL_MULTIPLE = 16  # pixels: vision patch 8, merged 2 x 2, so one language token is 16 x 16 pixels


@dataclass(frozen=True)
class PuzzleSpec:
    """How puzzles are made: a grid of rows x cols tiles, a size, a seed.

    size: the side, in pixels, of the square that the board must fit in; its width is `size` rounded down to a multiple
    of `cols`, its height to one of `rows` (`board_size`), so that all tiles are equal. The solved board is left out
    unless `solved_allowed`. `turned`: four square tiles, turned and not shuffled. Raises UserError for rows, cols or
    size < 1, one tile, empty tiles, a negative seed, or tiles that cannot be turned.
    """

    rows: int = 2
    cols: int = 2
    size: int = 64
    seed: int = 0
    solved_allowed: bool = False
    turned: bool = False

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "size", "seed"):
            whole = _check_whole(name, getattr(self, name), 0 if name == "seed" else 1)
            object.__setattr__(self, name, whole)  # a NumPy integer would overflow where n! is computed
        if not isinstance(self.solved_allowed, bool):
            raise UserError(f"solved_allowed is {self.solved_allowed!r}: it must be True or False.")
        if self.rows * self.cols < 2:
            raise UserError("A puzzle needs at least two tiles: raise rows or cols above 1.")
        if self.size < max(self.rows, self.cols):
            grid = f"{self.rows} x {self.cols}"
            raise UserError(f"A board of {self.size} pixels has no {grid} tiles: raise size or use fewer tiles.")
        if self.turned and (self.tiles != len(TURNS) or self.tile_size[0] != self.tile_size[1]):
            raise UserError("Turned tiles must be four and square, one for each way to stand: use 2 rows and 2 cols.")

    @property
    def tiles(self) -> int:
        """Number of tiles, n = rows * cols."""
        return self.rows * self.cols

    @property
    def tile_size(self) -> tuple[int, int]:
        """(width, height) of one tile in pixels."""
        return self.size // self.cols, self.size // self.rows

    @property
    def board_size(self) -> tuple[int, int]:
        """(width, height) of the board in pixels: the largest multiples of cols and rows within `size`."""
        width, height = self.tile_size
        return width * self.cols, height * self.rows

    @property
    def fits_model(self) -> bool:
        """Whether the small model sees the board as it is: both sides are multiples of 16 pixels."""
        return all(side % MODEL_MULTIPLE == 0 for side in self.board_size)

    @property
    def n_placements(self) -> int:
        """Number of placements that can occur: n!, or n! - 1 without the solved board."""
        return math.factorial(self.tiles) - (not self.solved_allowed)

    @property
    def chance_hit(self) -> float:
        """Expected hit rate of a guess drawn uniformly from the placements that can occur.

        With the solved board allowed this is 1/n, whatever the truth. Without it a guess gains a little: all n! guesses
        have n! hits, of which the solved one had as many as the truth t has fixed points, f(t). The others hit
        (n! - f(t)) / (n (n! - 1)) of the slots, and the mean of f(t) over the truths that occur is
        (n! - n) / (n! - 1). For 2 x 2: 0.2514; for two tiles: 1, since one placement is left.
        """
        if self.solved_allowed:
            return 1 / self.tiles
        every = math.factorial(self.tiles)
        fixed = Fraction(every - self.tiles, every - 1)
        return float((every - fixed) / (self.tiles * (every - 1)))

    @property
    def chance_exact(self) -> float:
        """Chance that a guess from the placements that can occur is right: 1/n!, or 1/(n! - 1)."""
        return 1 / self.n_placements


def read_grid(text: str) -> PuzzleSpec:
    """The puzzles that "2x3@96" stands for: rows, columns and pixels. Raises UserError for any other text."""
    found = _GRID.fullmatch(text)
    if not found:
        raise UserError(f"{text!r} names no puzzles: write rows, columns and pixels as in 2x3@96.")
    rows, cols, size = map(int, found.groups())
    return PuzzleSpec(rows, cols, size)


def _check_whole(name: str, value: Any, least: int) -> int:
    """`value` as int; UserError unless it is a whole number of at least `least`."""
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise UserError(f"{name} is {value!r}: it must be a whole number, {least} or more.")
    return number


def check_placement(placement: Sequence[int], n: int | None = None) -> Placement:
    """`placement` as a tuple of ints; UserError unless it holds each of 1..n once."""
    n = len(placement) if n is None else n
    try:
        checked = tuple(operator.index(place) for place in placement)
    except TypeError:
        checked = ()
    if sorted(checked) != list(range(1, n + 1)):
        raise UserError(f"{list(placement)} is no placement: it must hold each number from 1 to {n} once.")
    return checked


def invert(placement: Sequence[int]) -> Placement:
    """The order of a placement, and the placement of an order: each is the other's inverse.

    Raises UserError unless the input holds each number from 1 to its length once.
    """
    return tuple(int(slot) + 1 for slot in np.argsort(check_placement(placement)))


def shuffle(spec: PuzzleSpec, index: int) -> Placement:
    """The placement of puzzle number `index`: uniform over those that can occur.

    It depends on (spec.seed, index) and the number of tiles only: the generator is local, so neither the order of calls
    nor anybody else's random numbers matter. Raises UserError when index is not a whole number of at least 0.
    """
    # Seeding with a string hashes it (SHA-512): neighbouring seeds and indices share nothing.
    kind = "turned" if spec.turned else "jigsaw"
    rng = random.Random(f"{kind} {spec.seed} {_check_whole('index', index, 0)}")
    solved = list(range(1, spec.tiles + 1))
    placement = solved.copy()
    rng.shuffle(placement)
    # To redraw the solved board keeps the others exactly equally likely.
    while placement == solved and not spec.solved_allowed:
        rng.shuffle(placement)
    return tuple(placement)


def fit_picture(image: Image.Image, spec: PuzzleSpec) -> Image.Image:
    """The picture as it is cut: RGB, centre-cropped to the board's shape and resized (Lanczos) to its size.

    A picture that already has `spec.board_size` keeps every pixel. Raises UserError when the picture has fewer pixels
    than the grid has tiles in either direction.
    """
    if image.width < spec.cols or image.height < spec.rows:
        smaller = f"{image.width} x {image.height} pixels is smaller than the grid of {spec.rows} x {spec.cols} tiles"
        raise UserError(f"A picture of {smaller}: take a bigger picture or fewer tiles.")
    return centred(image.convert("RGB"), spec.board_size)


def make_board(image: Image.Image, spec: PuzzleSpec, placement: Sequence[int]) -> Image.Image:
    """The board: slot s shows the tile that belongs to place placement[s], or its own so turned. RGB, `board_size`.

    Raises UserError for a bad placement or a picture smaller than the grid.
    """
    pixels, checked = np.asarray(fit_picture(image, spec)), np.array(check_placement(placement, spec.tiles))
    return Image.fromarray(draw_boards(pixels[None], spec, checked[None])[0])


def restore(board: Image.Image, spec: PuzzleSpec, placement: Sequence[int]) -> Image.Image:
    """The picture put together again by a placement: pixel for pixel the cut picture if it is the true one.

    A guessed placement is welcome too: the result shows what the guess would look like. Raises UserError for a bad
    placement or a board that is not `spec.board_size`.
    """
    if board.size != spec.board_size:
        raise UserError(f"The board is {board.size} pixels, this puzzle's are {spec.board_size}: use its own spec.")
    return make_board(board, spec, undo(spec, placement))


def undo(spec: PuzzleSpec, placement: Sequence[int]) -> Placement:
    """The placement that, applied to a board, gives back the picture: the inverse, or every tile turned back.

    Raises UserError unless the input holds each number from 1 to the number of tiles once.
    """
    checked = check_placement(placement, spec.tiles)
    return tuple((1 - how) % len(TURNS) + 1 for how in checked) if spec.turned else invert(checked)


def draw_boards(images: np.ndarray, spec: PuzzleSpec, placements: np.ndarray) -> np.ndarray:
    """Many boards at once: images (N, H, W, 3) and placements (N, n) to boards (N, H, W, 3), same dtype.

    (W, H) must be `spec.board_size`: nothing is resized here. With undone placements (`undo`) it restores. Raises
    UserError when a shape is wrong or a row of placements does not hold each of 1..n once.
    """
    images, placements = np.asarray(images), np.asarray(placements)
    wanted = (len(images), *spec.board_size[::-1], 3), (len(images), spec.tiles)
    if (images.shape, placements.shape) != wanted:
        given = f"images {images.shape} and placements {placements.shape}"
        raise UserError(f"Cannot draw boards from {given}: this puzzle takes {wanted[0]} and {wanted[1]}.")
    if not (np.sort(placements, 1) == np.arange(1, spec.tiles + 1)).all():
        raise UserError(f"Every row of placements must hold each number from 1 to {spec.tiles} once.")
    (width, height), (rows, cols) = spec.tile_size, (spec.rows, spec.cols)
    # (N, rows, cols, tile height, tile width, 3): a view, so pixels are copied only by the two steps below.
    tiles = images.reshape(-1, rows, height, cols, width, 3).swapaxes(2, 3)
    place = placements.astype(np.intp).reshape(-1, rows, cols) - 1
    if spec.turned:
        mixed = np.empty_like(tiles)
        for quarters in range(len(TURNS)):
            mixed[place == quarters] = np.rot90(tiles[place == quarters], -quarters, axes=(1, 2))  # clockwise
    else:
        mixed = tiles[np.arange(len(images))[:, None, None], place // cols, place % cols]
    return mixed.swapaxes(2, 3).reshape(images.shape)


@dataclass(frozen=True)
class Puzzle:
    """One puzzle. board: what the model sees; picture: the fitted picture it was cut from (both RGB)."""

    spec: PuzzleSpec
    index: int
    board: Image.Image
    picture: Image.Image
    placement: Placement

    @property
    def order(self) -> Placement:
        """order[p]: the slot (1..n) that shows the tile belonging to place p."""
        return invert(self.placement)


def make_puzzle(image: Image.Image, spec: PuzzleSpec, index: int) -> Puzzle:
    """Puzzle number `index` of a picture. Raises UserError when it is smaller than the grid or the index is bad."""
    picture, placement = fit_picture(image, spec), shuffle(spec, index)
    return Puzzle(spec, operator.index(index), make_board(picture, spec, placement), picture, placement)


def prompt_text(spec: PuzzleSpec) -> str:
    """What the model is asked, beside the board."""
    what, asked = ("turned", "How does each stand?") if spec.turned else ("mixed", "Where is each from?")
    tiles = f"{spec.rows} x {spec.cols} tiles of the picture are {what}."
    return f"{tiles} {asked} Use each number from 1 to {spec.tiles} once."
