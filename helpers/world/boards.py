"""Boards in quantity: what runs train on, what they are tested on, and a picture with what is asked about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from helpers.world import puzzles
from helpers.world.scenes import puzzle_scene

TRAIN_SEED = 100  # training boards of run seed s come from scenes of seed 100 + s; held-out ones from seed 9


@dataclass(frozen=True)
class Boards:
    """Training boards: pixels (N, H, W, 3) uint8, true placements (N, tiles), facts of the uncut scenes."""

    spec: puzzles.PuzzleSpec
    pixels: np.ndarray
    placements: np.ndarray
    lights: tuple[str, ...]
    lands: tuple[tuple[str, ...] | None, ...]

    @property
    def text(self) -> str:
        """The prompt that all boards share."""
        return puzzles.prompt_text(self.spec)

    def __len__(self) -> int:
        return len(self.pixels)

    def only(self, numbers: Sequence[int]) -> Boards:
        """Some of the boards, renumbered from 0."""
        lights, lands = tuple(self.lights[i] for i in numbers), tuple(self.lands[i] for i in numbers)
        return Boards(self.spec, self.pixels[numbers], self.placements[numbers], lights, lands)


@lru_cache(maxsize=4)
def training_boards(spec: puzzles.PuzzleSpec, n: int, seed: int) -> Boards:
    """The first `n` training boards of a run seed; the same for every arm with that seed."""
    width, height = spec.board_size
    scenes = [puzzle_scene(TRAIN_SEED + seed, i, max(width, height)) for i in range(n)]
    pictures = np.stack([s.pixels[:height, :width] for s in scenes])
    placements = np.array([puzzles.shuffle(spec, (TRAIN_SEED + seed) * 10**7 + i) for i in range(n)])
    boards = puzzles.make_boards(pictures, spec, placements)
    return Boards(spec, boards, placements, tuple(s.light for s in scenes), tuple(s.land for s in scenes))


@dataclass(frozen=True)
class Prompted:
    """A picture (H, W, 3) uint8 and the text asked about it."""

    pixels: np.ndarray
    text: str


@dataclass(frozen=True)
class TestBoards:
    """Held-out puzzles: boards (N, H, W, 3) uint8, their true placements, and the prompt all share."""

    boards: np.ndarray
    placements: tuple[tuple[int, ...], ...]
    text: str

    def prompted(self) -> list[Prompted]:
        """The boards with their prompt."""
        return [Prompted(board, self.text) for board in self.boards]


@lru_cache(maxsize=8)
def held_out_boards(spec: puzzles.PuzzleSpec, n: int, seed: int = 9) -> TestBoards:
    """`n` puzzles cut from scenes that no training puzzle uses (training scenes have other seeds)."""
    return make_boards(spec, range(n), seed)


def make_boards(spec: puzzles.PuzzleSpec, indices: Sequence[int], seed: int) -> TestBoards:
    """Puzzles number `indices` cut from drawn scenes of a seed."""
    width, height = spec.board_size
    pictures = np.stack([puzzle_scene(seed, i, max(width, height)).pixels[:height, :width] for i in indices])
    placements = tuple(puzzles.shuffle(spec, seed * 10**7 + i) for i in indices)
    boards = puzzles.make_boards(pictures, spec, np.array(placements))
    return TestBoards(boards, placements, puzzles.prompt_text(spec))
