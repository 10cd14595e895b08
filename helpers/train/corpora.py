"""What each arm trains on, as `datasets.Dataset` rows in the conversational format that TRL takes.

A corpus is a set of training boards (drawn scenes, cut and shuffled; fixed by the run's seed) with one completion
each. Corpora differ in nothing but the completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.errors import UserError
from helpers.model.generate import Sampling
from helpers.model.score import complete
from helpers.world import answers, seeds
from helpers.world.boards import Boards
from helpers.world.scenes import QUARTERS


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
        drawn = _sample(model, processor, boards.only(open_), seed + seeds.ROUND * turn, tries)
        for i, row in zip(open_, drawn, strict=True):
            right = [t for t in row if _is_correct(t, boards.placements[i].tolist())]
            found[i] = right[0] if right else None
    return found


def _is_correct(text: str, placement: Sequence[int]) -> bool:
    score = answers.score(text, placement)
    return score.exact == 1.0 and score.format == 1.0


def _sample(model: Any, processor: Any, boards: Boards, seed: int, tries: int) -> list[list[str]]:
    return complete(model, processor, boards.prompted(), Sampling(tries, 1.0, 32, seed), chunk=32)


def self_completions(model: Any, processor: Any, boards: Boards, seed: int) -> list[str | None]:
    """`sft-self`: the think that a barely trained model writes, with the true placement behind it."""
    found: list[str | None] = []
    for (text,), placement in zip(_sample(model, processor, boards, seed, 1), boards.placements.tolist(), strict=True):
        think = text.split("</think>")[0] if text.startswith("<think>") and "</think>" in text else None
        found.append(None if think is None else f"{think}</think>{answer(placement)}")
    return found
