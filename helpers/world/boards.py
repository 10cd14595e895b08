"""The three nouns of the suite: many boards, one picture with what is asked about it, and what is learned from.

`Boards` are puzzles in quantity, to train on and to test on alike. `Prompted` is what a model sees. A `Corpus` is what
an SFT arm trains on or a measurement looks at: prompts with a completion each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from helpers.errors import UserError
from helpers.world import puzzles, seeds
from helpers.world.album import cut, load_album
from helpers.world.forms import Asked, Written, ask_text, written_as
from helpers.world.pictures import Picture
from helpers.world.scenes import Scene, puzzle_scene, tile_lands

LEARNED = "puzzle of learned pictures"
"""The task of boards that are cut anew from own pictures that a run learns from; no prior task, as its name tells."""


@dataclass(frozen=True)
class Prompted:
    """A picture (H, W, 3) uint8 and the text asked about it. `opening`: how the answer begins, written already."""

    pixels: np.ndarray = field(repr=False)
    text: str
    opening: str = ""


@dataclass(frozen=True)
class Boards:
    """Puzzles: pixels (N, H, W, 3) uint8, true placements (N, tiles), and facts of the uncut scenes where known.

    `lights`: the bright side of each scene; `lands`: what its tiles show, or None (see `_lands`).
    `asked`: the form that the prompts ask for, in the wordings of `texts` (one a board; none where none is asked for).
    """

    spec: puzzles.PuzzleSpec
    pixels: np.ndarray = field(repr=False)
    placements: np.ndarray = field(repr=False)
    lights: tuple[str, ...] = field(default=(), repr=False)
    lands: tuple[tuple[str, ...] | None, ...] = field(default=(), repr=False)
    asked: Asked = "plain"
    texts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def written(self) -> Written:
        """The form in which an answer is due."""
        return written_as(self.asked)

    def asking(self, asked: Asked, seed: int) -> Boards:
        """The boards with prompts that ask for a form; a board's wording hangs on its number and the seed alone."""
        plain = puzzles.prompt_text(self.spec)
        drawn = (np.random.default_rng((seeds.WORDINGS, seed, i)) for i in range(len(self)))
        texts = () if asked == "plain" else tuple(ask_text(plain, asked, rng) for rng in drawn)
        return replace(self, asked=asked, texts=texts)

    def __len__(self) -> int:
        return len(self.pixels)

    def only(self, numbers: Sequence[int]) -> Boards:
        """Some of the boards, renumbered from 0."""
        numbers = list(numbers)
        facts = {"lights": self.lights, "lands": self.lands, "texts": self.texts}
        kept = {name: tuple(known[i] for i in numbers) if known else () for name, known in facts.items()}
        return replace(self, pixels=self.pixels[numbers], placements=self.placements[numbers], **kept)

    def prompted(self) -> list[Prompted]:
        """The boards with their prompts."""
        texts = self.texts or [puzzles.prompt_text(self.spec)] * len(self)
        return list(map(Prompted, self.pixels, texts))

    def corpus(self, kind: str, completions: Sequence[str | None]) -> Corpus:
        """The boards with a completion each; those that have none (None) are left out."""
        pairs = zip(self.prompted(), completions, strict=True)
        kept = [(prompt, text) for prompt, text in pairs if text is not None]
        return Corpus(kind, [prompt for prompt, _ in kept], [text for _, text in kept])


@dataclass(frozen=True)
class Sample:
    """One row of a corpus. `kind` names its arm or probe type, `weight` its share in a loss.

    The weight is 1 in SFT, and the advantage where the completion is a rollout of RFT.
    """

    prompt: Prompted = field(repr=False)
    completion: str
    kind: str
    weight: float = 1.0


@dataclass(frozen=True)
class Corpus:
    """What an SFT arm trains on, or what is measured: a completion for each prompt. Iterates over its samples.

    `kind`: the arm or probe type; `weights`: each sample's share in a loss, 1 unless given. Completions are texts, or
    token ids where they are what a model drew and only measured. `stages`: how many samples each stage of a curriculum
    has, in their order; nothing where there is none.
    """

    kind: str
    prompts: Sequence[Prompted] = field(repr=False)
    completions: Sequence[str | Sequence[int]] = field(repr=False)
    weights: Sequence[float] = field(default=(), repr=False)
    stages: Sequence[int] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.completions)

    def pairs(self) -> list[tuple[Prompted, list[str | Sequence[int]]]]:
        """(prompt, [completion]) pairs, as they are packed."""
        return [(prompt, [text]) for prompt, text in zip(self.prompts, self.completions, strict=True)]

    def __iter__(self) -> Iterator[Sample]:
        weights = self.weights or [1.0] * len(self)
        for prompt, completion, weight in zip(self.prompts, self.completions, weights, strict=True):
            yield Sample(prompt, completion, self.kind, weight)


@dataclass(frozen=True)
class Graded:
    """The boards of a curriculum: those of each stage have a grid of their own. They are numbered through."""

    parts: tuple[Boards, ...]

    def __len__(self) -> int:
        return sum(self.stages)

    @property
    def stages(self) -> tuple[int, ...]:
        """How many boards each stage has."""
        return tuple(map(len, self.parts))

    @property
    def written(self) -> Written:
        """The form in which an answer is due."""
        return self.parts[0].written

    @property
    def placements(self) -> list[np.ndarray]:
        """True placements, each as long as its board has tiles."""
        return [placement for part in self.parts for placement in part.placements]

    def prompted(self) -> list[Prompted]:
        """The boards with their prompts, which tell the grid."""
        return [prompt for part in self.parts for prompt in part.prompted()]

    def only(self, numbers: Sequence[int]) -> Boards:
        """Some boards of one stage, renumbered from 0. Raises UserError where they are of several."""
        before = 0
        for part in self.parts:
            if all(before <= i < before + len(part) for i in numbers):
                return part.only([i - before for i in numbers])
            before += len(part)
        raise UserError(f"Boards {sorted(numbers)} are not of one stage: what is drawn at once must be.")


def make_boards(spec: puzzles.PuzzleSpec, indices: Sequence[int], seed: int) -> Boards:
    """Puzzles number `indices` cut from drawn scenes of a seed; a number is the same puzzle whatever stands beside."""
    width, height = spec.board_size
    scenes = [puzzle_scene(seed, i, max(width, height)) for i in indices]
    placements = np.array([puzzles.shuffle(spec, seed * seeds.SHUFFLES + i) for i in indices])
    pixels = puzzles.draw_boards(np.stack([s.pixels[:height, :width] for s in scenes]), spec, placements)
    return Boards(spec, pixels, placements, tuple(s.light for s in scenes), tuple(_lands(s, spec) for s in scenes))


def _lands(scene: Scene, spec: puzzles.PuzzleSpec) -> tuple[str, ...] | None:
    """What each tile of the uncut picture shows; None where a quarter of four is too even to call."""
    width, height = spec.board_size
    quarters = (spec.rows, spec.cols) == (2, 2)
    return scene.land if quarters else tile_lands(scene.mask[:height, :width], spec.rows, spec.cols)


def photo_boards(spec: puzzles.PuzzleSpec, indices: Sequence[int], seed: int, pictures: Sequence[Picture]) -> Boards:
    """Puzzles number `indices` cut from pictures, each from a part of one, the pictures in turn; see `make_boards`."""
    drawn = (np.random.default_rng((seeds.CROPS, seed, i)) for i in indices)
    parts = [cut(pictures[i % len(pictures)], spec.board_size, rng) for i, rng in zip(indices, drawn, strict=True)]
    placements = np.array([puzzles.shuffle(spec, seed * seeds.SHUFFLES + i) for i in indices])
    return Boards(spec, puzzles.draw_boards(np.stack(parts), spec, placements), placements)


@lru_cache(maxsize=4)
def training_boards(spec: puzzles.PuzzleSpec, n: int, seed: int, pictures: str = "") -> Boards:
    """The first `n` training boards of a run seed; the same for every arm with that seed.

    `pictures`: the name of the album that they are cut from; drawn scenes where it is empty.
    """
    own = load_album(pictures).training if pictures else ()
    scenes = seeds.training(seed)
    return photo_boards(spec, range(n), scenes, own) if own else make_boards(spec, range(n), scenes)


@lru_cache(maxsize=8)
def held_out_boards(spec: puzzles.PuzzleSpec, n: int, seed: int = seeds.HELD_OUT, pictures: str = "") -> Boards:
    """`n` puzzles cut from scenes that no training puzzle uses (training scenes have other seeds).

    `pictures`: the name of an album, from whose held-out pictures they are cut.
    """
    own = load_album(pictures).held_out if pictures else ()
    return photo_boards(spec, range(n), seed, own) if own else make_boards(spec, range(n), seed)


@lru_cache(maxsize=4)
def learned_boards(spec: puzzles.PuzzleSpec, n: int, pictures: str) -> Boards:
    """`n` puzzles cut anew from the very pictures of an album that are learned from."""
    return photo_boards(spec, range(n), seeds.HELD_OUT, load_album(pictures).training)
