"""What SFT arms learn to write, for training boards that are the same for every arm with that seed.

The boards (drawn scenes, cut and shuffled) are fixed by the run's seed; corpora differ in nothing but the completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from helpers.errors import UserError
from helpers.model.build import Loaded
from helpers.model.flops import Tally
from helpers.model.generate import Sampling
from helpers.model.score import complete, completion_logps
from helpers.world import answers, seeds
from helpers.world.boards import Boards, Corpus, Prompted
from helpers.world.puzzles import PuzzleSpec
from helpers.world.questions import look_at_each
from helpers.world.scenes import QUARTERS

Completions = list[str | None]
"""A completion for each board, None where there is none to learn from."""


class Writer(Loaded):
    """A model that writes completions, with the tally that counts what they cost."""

    tally: Tally

    @classmethod
    def counted(cls, loaded: Loaded, tally: Tally) -> Writer:
        """A loaded model whose writing `tally` counts."""
        writer = cls(*loaded)
        writer.tally = tally
        return writer


def _counting(writer: Loaded) -> dict[str, Tally]:
    """The argument that has `score` count; none for a model whose writing nobody counts."""
    return {"tally": writer.tally} if isinstance(writer, Writer) else {}


def answer(placement: Sequence[int]) -> str:
    """A placement as an answer tag."""
    return f"<answer>{' '.join(map(str, placement))}</answer>"


def answer_completions(boards: Boards) -> list[str]:
    """`sft-answer`: the bare true placement."""
    return [answer(p) for p in boards.placements.tolist()]


def filled_completions(boards: Boards, filler: str) -> list[str]:
    """The bare true placement behind a think that says nothing: an "empty" one, or a "fixed" one of a think's length.

    The fixed one is one word a tile, as an own think has, the same for every board. UserError for another filler.
    """
    if filler not in ("empty", "fixed"):
        raise UserError(f"filler is {filler!r}: choose empty or fixed.")
    think = " ".join(["land"] * boards.spec.tiles) if filler == "fixed" else ""
    return [f"<think>{think}</think>{true}" for true in answer_completions(boards)]


def expert_completions(boards: Boards) -> list[str]:
    """`sft-expert`: true reasoning about what each slot shows and where it belongs, in the teacher's voice.

    The teacher's voice and all its words occur in the base model's pretraining, where a prompt asks for full sentences.
    """
    rows = zip(boards.placements.tolist(), boards.lights, boards.lands, strict=True)
    return [_expert(boards.spec, *facts) for facts in rows]


def _expert(spec: PuzzleSpec, placement: list[int], light: str, land: tuple[str, ...] | None) -> str:
    seen = land or ("sky", "sky", "ground", "ground")  # where a quarter is too even to call
    names = QUARTERS if (spec.rows, spec.cols) == (2, 2) else _tile_names(spec)
    think = look_at_each(
        (
            f"The {name} shows {seen[place - 1]}{_shade(spec.cols, place, light)}, so it belongs at {place}."
            for name, place in zip(names, placement, strict=True)
        ),
        "quarter" if names is QUARTERS else "tile",
    )
    return f"<think>{think}</think>{answer(placement)}"


def _tile_names(spec: PuzzleSpec) -> list[str]:
    """Names of the slots of a grid that has more than quarters, in reading order."""
    return [f"tile in row {row + 1} and column {column + 1}" for row, column in np.ndindex(spec.rows, spec.cols)]


def _shade(cols: int, place: int, light: str) -> str:
    """Whether a place lies on the bright side or the dark one; nothing of the column in the middle."""
    column = (place - 1) % cols
    if 2 * column + 1 == cols:
        return ""
    return f" and is {'bright' if ('left', 'right')[2 * column + 1 > cols] == light else 'dark'}"


def rollout_completions(
    writer: Loaded, boards: Boards, seed: int, limit: int = 0, *, tries: int = 4, rounds: int = 1
) -> Completions:
    """`sft-rollout` (and `self-sft`): a correct completion that the writer itself wrote, T = 1; None where none came.

    Each board gets `tries` completions a round, of at most `limit` tokens (0: as many as `answers.room` says), until
    one is correct and well-formed; the first such is kept.
    """
    kept: Completions = [None] * len(boards)
    for turn in range(rounds):
        open_ = [i for i, text in enumerate(kept) if text is None]
        if not open_:
            break
        drawn = _sample(writer, boards.only(open_), Sampling(tries, 1.0, limit, seed + seeds.ROUND * turn))
        for i, row in zip(open_, drawn, strict=True):
            truth = boards.placements[i].tolist()
            kept[i] = next((text for text in row if answers.score(text, truth, boards.written).correct), None)
    return kept


def _sample(writer: Loaded, boards: Boards, sampling: Sampling) -> list[list[str]]:
    limit = sampling.max_tokens or answers.room(boards.spec.tiles)
    return complete(*writer, boards.prompted(), replace(sampling, max_tokens=limit), chunk=32, **_counting(writer))


def closed_think(text: str) -> str | None:
    """The think at the start of a completion with its tags, or None where it has no closed one."""
    think, closed, _ = text.partition("</think>")
    return think + closed if closed and text.startswith("<think>") else None


def self_completions(writer: Loaded, boards: Boards, seed: int, limit: int = 0) -> Completions:
    """`sft-self`: the think that a barely trained model writes, with the true placement behind it.

    `limit`: tokens that the model may write, as for `rollout_completions`.
    """
    thinks = [closed_think(text) for (text,) in _sample(writer, boards, Sampling(1, 1.0, limit, seed))]
    return [think and think + true for think, true in zip(thinks, answer_completions(boards), strict=True)]


def oracle_completions(base: Loaded, boards: Boards, seed: int, limit: int = 0, *, thinks: int) -> Completions:
    """`sft-oracle`: of `thinks` thinks that the base writes for a board, each with the true placement behind it, the
    completion with the highest base log-prob (nats, summed); None where no think closes.
    """
    options = []
    for texts, true in zip(
        _sample(base, boards, Sampling(thinks, 1.0, limit, seed)), answer_completions(boards), strict=True
    ):
        closed = dict.fromkeys(think for text in texts if (think := closed_think(text)))
        options.append([think + true for think in closed])
    open_ = [i for i, row in enumerate(options) if row]
    prompts = boards.only(open_).prompted()
    scored = completion_logps(*base, prompts, [options[i] for i in open_], **_counting(base))
    best: Completions = [None] * len(boards)
    for i, row in zip(open_, scored, strict=True):
        best[i] = options[i][max(range(len(row)), key=lambda k: float(row[k].sum()))]
    return best


def dream_corpus(base: Loaded, prompts: Sequence[Prompted], seed: int) -> Corpus:
    """What `sft-dream` is held by: a completion that the base writes to each prompt, T = 1, of at most 128 tokens."""
    written = complete(*base, prompts, Sampling(1, 1.0, 128, seed), chunk=32, **_counting(base))
    return Corpus("dream", prompts, [text for (text,) in written])
