"""What SFT arms learn to write, for training boards that are the same for every arm with that seed.

The boards (drawn scenes, cut and shuffled) are fixed by the run's seed; corpora differ in nothing but the completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from helpers.errors import UserError
from helpers.model.build import Loaded
from helpers.model.flops import Tally
from helpers.model.generate import Sampling
from helpers.model.score import complete, completion_logps
from helpers.world import answers, seeds
from helpers.world.boards import Boards
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
    seen = land or ("sky", "sky", "ground", "ground")  # where a quarter is too even to call
    bright = [("left", "right")[(place - 1) % 2] == light for place in placement]
    think = look_at_each(
        f"The {quarter} shows {seen[place - 1]} and is {'bright' if lit else 'dark'}, so it belongs at {place}."
        for quarter, place, lit in zip(QUARTERS, placement, bright, strict=True)
    )
    return f"<think>{think}</think>{answer(placement)}"


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
            kept[i] = next((text for text in row if answers.score(text, truth).correct), None)
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
