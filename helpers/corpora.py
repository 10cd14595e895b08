"""What each arm trains on, as `datasets.Dataset` rows in the conversational format that TRL takes.

A corpus is a set of training boards (drawn scenes, cut and shuffled; fixed by the run's seed) with one completion
each. Corpora differ in nothing but the completion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import puzzles
from helpers.errors import UserError
from helpers.scenes import QUARTERS, puzzle_scene

if TYPE_CHECKING:
    from datasets import Dataset

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


def answer(placement: Sequence[int]) -> str:
    """A placement as an answer tag."""
    return f"<answer>{' '.join(map(str, placement))}</answer>"


def answer_completions(boards: Boards) -> list[str]:
    """`sft-answer`: the bare true placement."""
    return [answer(p) for p in boards.placements.tolist()]


def expert_completions(boards: Boards) -> list[str]:
    """`sft-expert`: true reasoning about what each place shows and where it belongs, in the teacher's voice.

    The teacher's voice and all its words occur in the base model's pretraining (when a prompt asks for full
    sentences); the puzzle prompt does not ask for it. Defined for 2 x 2 boards (UserError otherwise).
    """
    if (boards.spec.rows, boards.spec.cols) != (2, 2):
        raise UserError("The outside teacher only explains 2 x 2 boards; use rows=2 and cols=2 for sft-expert.")
    rows = zip(boards.placements.tolist(), boards.lights, boards.lands, strict=True)
    return [_expert(placement, light, land) for placement, light, land in rows]


def _expert(placement: list[int], light: str, land: tuple[str, ...] | None) -> str:
    seen = land or ("sky", "sky", "ground", "ground")
    parts = []
    for slot, place in enumerate(placement):
        bright = "bright" if ("left", "right")[(place - 1) % 2] == light else "dark"
        parts.append(f"The {QUARTERS[slot]} shows {seen[place - 1]} and is {bright}, so it belongs at {place}.")
    return f"<think>Let me look at each quarter. {' '.join(parts)}</think>{answer(placement)}"


def rollout_completions(
    model: Any, processor: Any, boards: Boards, seed: int, tries: int = 4, rounds: int = 1
) -> list[str | None]:
    """`sft-rollout` (and `self-sft`): a correct completion that `model` itself wrote, T = 1; None where none came.

    Each board gets `tries` completions a round until one is correct and well-formed; the first such is kept.
    """
    found: list[str | None] = [None] * len(boards)
    for turn in range(rounds):
        open_ = [i for i, text in enumerate(found) if text is None]
        if not open_:
            break
        drawn = _sample(model, processor, boards.only(open_), seed + 10**6 * turn, tries)
        for i, row in zip(open_, drawn, strict=True):
            right = [t for t in row if _is_correct(t, boards.placements[i].tolist())]
            found[i] = right[0] if right else None
    return found


def _is_correct(text: str, placement: Sequence[int]) -> bool:
    score = puzzles.score(text, placement)
    return score.exact == 1.0 and score.format == 1.0


def _sample(model: Any, processor: Any, boards: Boards, seed: int, tries: int) -> list[list[str]]:
    from helpers.rollouts import Sampling
    from helpers.scoring import Prompted, complete

    prompts = [Prompted(pixels, boards.text) for pixels in boards.pixels]
    return complete(model, processor, prompts, Sampling(tries, 1.0, 32, seed), chunk=32)


def self_completions(model: Any, processor: Any, boards: Boards, seed: int) -> list[str | None]:
    """`sft-self`: the think that a barely trained model writes, with the true placement behind it."""
    found: list[str | None] = []
    for (text,), placement in zip(_sample(model, processor, boards, seed, 1), boards.placements.tolist(), strict=True):
        think = text.split("</think>")[0] if text.startswith("<think>") and "</think>" in text else None
        found.append(None if think is None else f"{think}</think>{answer(placement)}")
    return found


def rows(boards: Boards, completions: Sequence[str | None] | None = None) -> Dataset:
    """Boards (with completions, where given) as a dataset; boards without a completion are left out.

    Columns: `images` (one PIL picture), `prompt`, `placement`, `puzzle_id`, and `completion` for SFT. Pictures stay
    arrays in memory and become PIL when a row is read, so nothing is encoded or decoded.
    """
    from datasets import Dataset

    kept = [i for i in range(len(boards)) if completions is None or completions[i] is not None]
    if not kept:
        raise UserError("No board of this corpus has a completion; sample more boards or train the source longer.")
    table = Dataset.from_dict({"puzzle_id": kept})
    return table.with_transform(_reader(boards, completions))


def _reader(boards: Boards, completions: Sequence[str | None] | None) -> Callable[[dict], dict]:
    """The function that turns row numbers into rows."""
    from PIL import Image

    def read(batch: dict) -> dict:
        """Rows of a batch, each with its picture and prompt."""
        ids = batch["puzzle_id"]
        pictures = {i: Image.fromarray(boards.pixels[i]) for i in set(ids)}  # RFT asks for each board a group of times
        found = {
            "puzzle_id": ids,
            "images": [[pictures[i]] for i in ids],
            "prompt": [[{"role": "user", "content": boards.text}] for _ in ids],
            "placement": [boards.placements[i].tolist() for i in ids],
        }
        if completions is not None:
            found["completion"] = [[{"role": "assistant", "content": completions[i]}] for i in ids]
        return found

    return read
