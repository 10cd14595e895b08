"""What each arm's trainer and corpus do differently, as small extensions of TRL's two trainers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from helpers.errors import UserError
from helpers.files import write_file
from helpers.model import build
from helpers.model.forward import obstacle
from helpers.model.generate import Sampling
from helpers.model.score import complete, completion_logps
from helpers.study.arms import SFT_ARMS
from helpers.study.checkpoints import checkpoint_at
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train import corpora, rows
from helpers.train.corpora import answer, rollout_completions
from helpers.train.engine import Engine, Settings, load_base, puzzle_spec
from helpers.train.rows import lazy_rows, replay_rows, source_completions, stream_batches, stream_rows, training_row
from helpers.train.trainers import (
    CorrectReward,
    PackedCollator,
    StudyGRPOTrainer,
    StudyKLTrainer,
    StudyReinforceTrainer,
    StudySFTTrainer,
)
from helpers.world import answers, seeds
from helpers.world.boards import Boards, training_boards

DRAWN = ("iterative-sft", "sft-stream")
"""SFT arms whose completions are not fixed per board before the run begins."""


FRESH_BOARDS = 512  # boards that `iterative-sft` samples for each time


FRESH_ROUNDS = 4  # of 4 tries each


@dataclass(frozen=True)
class Parts:
    """What makes the SFT trainer of one arm: its class, rows, rows per step, whether they come in order, collator."""

    trainer: Callable[..., Any]
    rows: Dataset = field(repr=False)
    per_step: int
    in_order: bool = False
    collator: Any = None


def sft_parts(engine: Engine) -> Parts:
    """The parts of an SFT arm's trainer; those of the arms of `corpora` are TRL's with packed passes."""
    spec = engine.spec
    collator = PackedCollator(engine.processor) if engine.settings.fast else None
    if spec.arm == "sft-stream":
        batches = stream_batches(source_completions(engine.run.folder.parent, spec), spec.steps)
        return Parts(StudySFTTrainer, stream_rows(engine.boards, batches), 1, True, _flat(engine, collator))
    if spec.arm == "iterative-sft":
        fresh = Refreshed(engine)
        return Parts(StudySFTTrainer, fresh.rows(), spec.batch_size, True, collator)
    if spec.arm == "sft-replay":
        return Parts(StudySFTTrainer, replay_rows(engine), spec.batch_size, False, collator)
    trainer: Callable[..., Any] = StudySFTTrainer
    if spec.arm == "sft-kl":
        trainer = partial(StudyKLTrainer, frozen=load_base(spec)[0], beta=spec.beta)
    return Parts(trainer, rows.rows(engine.boards, engine.completions), spec.batch_size, False, collator)


def drawn_boards(spec: RunSpec, store: RunStore) -> Boards:
    """Training boards of an arm of `DRAWN`. Raises UserError where `sft-stream`'s source is not finished."""
    if spec.arm == "sft-stream":
        n = int(source_completions(store.root, spec)["puzzle_id"].max()) + 1
    else:
        n = min(4 * CORPUS_BOARDS, _phase_boards(spec) * -(-spec.steps // refresh_every(spec)))
    return training_boards(puzzle_spec(spec), n, spec.seed)


def oracle_completions(base: tuple[Any, Any], boards: Boards, seed: int, thinks: int) -> list[str | None]:
    """`sft-oracle`: of `thinks` thinks that the base writes for a board, each with the true placement behind it, the
    completion with the highest base log-prob (nats, summed); None where no think closes.
    """
    prompts = boards.prompted()
    drawn = complete(*base, prompts, Sampling(thinks, 1.0, 32, seed), chunk=32)
    options = []
    for texts, placement in zip(drawn, boards.placements.tolist(), strict=True):
        closed = [t.split("</think>")[0] for t in texts if t.startswith("<think>") and "</think>" in t]
        options.append([f"{think}</think>{answer(placement)}" for think in dict.fromkeys(closed)])
    open_ = [i for i, row in enumerate(options) if row]
    scored = completion_logps(*base, [prompts[i] for i in open_], [options[i] for i in open_])
    found: list[str | None] = [None] * len(boards)
    for i, row in zip(open_, scored, strict=True):
        found[i] = options[i][max(range(len(row)), key=lambda k: float(row[k].sum()))]
    return found


def _flat(engine: Engine, packed: Any) -> Callable[[Sequence[dict]], dict]:
    """A collator that takes rows of several samples apart; the stock one for what cannot be packed."""
    collate = packed
    if collate is None:
        collate = DataCollatorForVisionLanguageModeling(engine.processor, completion_only_loss=True)

    def flat(rows: Sequence[dict]) -> dict:
        samples = [sample for row in rows for sample in (row, *row["others"])]
        return collate([{k: s[k] for k in ("images", "prompt", "completion")} for s in samples])

    return flat


def refresh_every(spec: RunSpec) -> int:
    """Steps between two draws of `iterative-sft`. Raises UserError unless it is a whole number above 0."""
    steps = spec.settings.get("refresh_every", 50)
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"refresh_every is {steps!r}: choose a whole number of steps, 1 or more.")
    return steps


def _phase_boards(spec: RunSpec) -> int:
    """Boards sampled for at each draw: no more than the phase has samples."""
    return min(int(spec.settings.get("fresh_boards", FRESH_BOARDS)), refresh_every(spec) * spec.batch_size)


class Refreshed:
    """Rows of `iterative-sft`: row i belongs to step i // batch and is drawn when the first of its phase is read.

    The data loader reads one batch ahead, so a phase is drawn by the model one update before the phase begins. What
    was drawn is kept beside the checkpoints, so that a resumed run learns from the same samples.
    """

    def __init__(self, engine: Engine) -> None:
        """Nothing is drawn yet; `engine.model` is the model in training."""
        self.engine, self.spec = engine, engine.spec
        self.phase, self.pairs = -1, [(0, "")]

    def rows(self) -> Dataset:
        """A row for each sample of the run, in order."""
        return lazy_rows(self.spec.steps * self.spec.batch_size, self.read)

    def read(self, i: int) -> dict[str, Any]:
        """Sample `i`: the phase's correct completions in turn."""
        size = refresh_every(self.spec) * self.spec.batch_size
        if i // size != self.phase:
            self.phase, self.pairs = i // size, self._draw(i // size)
        board, text = self.pairs[i % size % len(self.pairs)]
        return training_row(self.engine.boards.pixels[board], self.engine.boards.text, text)

    def _draw(self, phase: int) -> list[tuple[int, str]]:
        """(board, completion) pairs of a phase; what an earlier start drew comes first."""
        path = self.engine.run.checkpoints / f"drawn-{phase}.json"
        if path.exists():
            return [tuple(pair) for pair in json.loads(path.read_text())]
        pairs = self._sample(phase)
        write_file(path, json.dumps(pairs).encode())
        return pairs

    def _sample(self, phase: int) -> list[tuple[int, str]]:
        """Correct completions of the model as it is, for the next boards; UserError where it wrote none at all."""
        engine, each = self.engine, _phase_boards(self.spec)
        chosen = [k % len(engine.boards) for k in range(phase * each, (phase + 1) * each)]
        seed = self.spec.seed + seeds.PHASE * (phase + 1)
        training = engine.model.training
        engine.model.eval()
        texts = rollout_completions(
            engine.model, engine.processor, engine.boards.only(chosen), seed, rounds=FRESH_ROUNDS
        )
        engine.model.train(training)
        pairs = [(board, text) for board, text in zip(chosen, texts, strict=True) if text is not None]
        if not pairs:
            raise UserError(f"{self.spec.name} found no correct sample for {each} boards: raise fresh_boards.")
        return pairs


@dataclass(frozen=True)
class RftParts:
    """What makes the RFT trainer of one arm: its class, its rewards with their weights, more of TRL's options, and the
    checkpoint whose weights the KL term's reference model gets (None: the base's).
    """

    trainer: type
    rewards: list[Any]
    weights: list[float]
    options: dict[str, Any]
    reference: Path | None = None


def rft_parts(engine: Engine) -> RftParts:
    """The parts of an RFT arm's trainer. `rft-stale` draws for several steps at once (TRL's steps_per_generation).

    `distill` has no reward, so what is left of GRPO's loss is beta times the KL term; on samples of the model in
    training its gradient is that of KL(model || reference) (`use_bias_correction_kl`, on in TRL): on-policy
    distillation (arXiv 2306.13649) from the source's last checkpoint. Raises UserError where there is none.
    """
    spec = engine.spec
    if spec.arm == "reinforce-1-0":
        return RftParts(StudyReinforceTrainer, [CorrectReward()], [1.0], {})
    rewards = [answers.hit_reward, answers.exact_reward, answers.format_reward]
    if spec.arm == "distill":
        teacher = checkpoint_at(engine.run.folder.parent / spec.source / "checkpoints")
        return RftParts(StudyGRPOTrainer, rewards, [0.0, 0.0, 0.0], {"use_bias_correction_kl": True}, teacher)
    options = {}
    if spec.arm == "rft-stale":
        options["steps_per_generation"] = int(spec.settings.get("steps_per_generation", 8))
    return RftParts(StudyGRPOTrainer, rewards, list(spec.reward_weights), options)


CORPUS_BOARDS = 2048


SftCorpus = tuple["Boards", list[str | None] | None]


def possible(settings: Settings, model: Any) -> Settings:
    """The settings, without the fast path where it would not equal the model's own passes (with one warning)."""
    reason = obstacle(model) if settings.fast else ""
    if not reason:
        return settings
    warnings.warn(f"Packed passes are switched off: {reason}. TRL's own are used, several times slower.", stacklevel=3)
    return replace(settings, fast=False)


def make_corpus(spec: RunSpec, store: RunStore, processor: Any) -> SftCorpus:
    """Training boards of a run, with completions where its arm is SFT."""
    if spec.arm in DRAWN:
        return drawn_boards(spec, store), []
    wanted = spec.steps * spec.batch_size
    n = min(CORPUS_BOARDS, max(wanted, 64)) if spec.arm in SFT_ARMS else min(4 * CORPUS_BOARDS, max(wanted, 1))
    boards = training_boards(puzzle_spec(spec), n, spec.seed)
    return boards, make_completions(spec, store, processor, boards) if spec.arm in SFT_ARMS else None


def make_completions(spec: RunSpec, store: RunStore, processor: Any, boards: Boards) -> list[str | None]:
    """The corpus of an SFT arm. Raises UserError where it needs a source run that is not finished."""
    if spec.arm in ("sft-answer", "sft-kl", "sft-replay"):
        return corpora.answer_completions(boards)
    if spec.arm == "sft-expert":
        return corpora.expert_completions(boards)
    if spec.arm == "self-sft":
        return corpora.rollout_completions(load_base(spec)[0], processor, boards, spec.seed, rounds=6)
    if spec.arm == "sft-voice":
        return corpora.self_completions(load_base(spec)[0], processor, boards, spec.seed)
    if spec.arm == "sft-oracle":
        thinks = int(spec.settings.get("thinks", 8))
        return oracle_completions((load_base(spec)[0], processor), boards, spec.seed, thinks)
    folder = store.root / spec.source / "checkpoints"
    if spec.arm == "sft-self":
        wanted = int(spec.settings["source_step"])
        model, _ = build.load(checkpoint_at(folder, wanted))
        return corpora.self_completions(model, processor, boards, spec.seed)
    model, _ = build.load(checkpoint_at(folder, None))
    return corpora.rollout_completions(model, processor, boards, spec.seed, rounds=6)
