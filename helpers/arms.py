"""Arms that change one thing about SFT or RFT: its data, their order, their age, or the loss.

| arm | what differs from which arm |
|---|---|
| `sft-kl` | `sft-answer` + beta times the KL divergence to the frozen base at the completion's tokens |
| `sft-replay` | `sft-answer`, with prior-task training samples among the boards (`replay_share` of all samples) |
| `sft-voice` | `sft-answer`, with the base's own think for the board before the true placement |
| `sft-oracle` | `sft-voice`, with the most probable of `thinks` such completions under the base |
| `sft-stream` | `rft`'s data: step t learns from the correct completions that its source drew at step t |
| `iterative-sft` | `self-sft`, its samples drawn anew from the current model every `refresh_every` steps |
| `rft-stale` | `rft`, its rollouts drawn for `steps_per_generation` steps at a time |
| `reinforce-1-0` | `rft-no-kl`, with advantage = reward = 1 for a correct, well-formed completion, else 0 |
| `distill` | `rft` without any reward, its KL term to the finished RFT model instead of the base |

TRL's trainers stay the engine. Names in `code` are the settings of `RunSpec.extra`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import puzzles
from helpers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import Dataset

    from helpers.corpora import Boards
    from helpers.profiles import RunSpec
    from helpers.records import RunStore
    from helpers.training import Engine

DRAWN = ("iterative-sft", "sft-stream")
"""SFT arms whose completions are not fixed per board before the run begins."""
REPLAY_SEED = 500  # the battery draws from seeds below 100, the base's own training from 1000 on
FRESH_BOARDS = 512  # boards that `iterative-sft` samples for each time
FRESH_ROUNDS = 4  # of 4 tries each


# --- what an SFT arm learns from, and how ----------------------------------------------------------------


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
    from helpers import corpora
    from helpers.training import PackedCollator, load_base, sft_trainer_class

    spec = engine.spec
    collator = PackedCollator(engine.processor) if engine.settings.fast else None
    if spec.arm == "sft-stream":
        batches = stream_batches(_completions(engine.run.folder.parent, spec), spec.steps)
        return Parts(sft_trainer_class(), _stream_rows(engine.boards, batches), 1, True, _flat(engine, collator))
    if spec.arm == "iterative-sft":
        fresh = Refreshed(engine)
        return Parts(sft_trainer_class(), fresh.rows(), spec.batch_size, True, collator)
    if spec.arm == "sft-replay":
        return Parts(sft_trainer_class(), _mixed_rows(engine), spec.batch_size, False, collator)
    trainer: Callable[..., Any] = sft_trainer_class()
    if spec.arm == "sft-kl":
        trainer = partial(kl_trainer_class(), frozen=load_base(spec)[0], beta=spec.beta)
    return Parts(trainer, corpora.rows(engine.boards, engine.completions), spec.batch_size, False, collator)


def drawn_boards(spec: RunSpec, store: RunStore) -> Boards:
    """Training boards of an arm of `DRAWN`. Raises UserError where `sft-stream`'s source is not finished."""
    from helpers import corpora
    from helpers.training import CORPUS_BOARDS, puzzle_spec

    if spec.arm == "sft-stream":
        n = int(_completions(store.root, spec)["puzzle_id"].max()) + 1
    else:
        n = min(4 * CORPUS_BOARDS, _phase_boards(spec) * -(-spec.steps // refresh_every(spec)))
    return corpora.training_boards(puzzle_spec(spec), n, spec.seed)


def oracle_completions(base: tuple[Any, Any], boards: Boards, seed: int, thinks: int) -> list[str | None]:
    """`sft-oracle`: of `thinks` thinks that the base writes for a board, each with the true placement behind it, the
    completion with the highest base log-prob (nats, summed); None where no think closes.
    """
    from helpers.corpora import answer
    from helpers.rollouts import Sampling
    from helpers.scoring import Prompted, complete, completion_logps

    prompts = [Prompted(pixels, boards.text) for pixels in boards.pixels]
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


# --- rows ------------------------------------------------------------------------------------------------


def _row(pixels: np.ndarray, prompt: str, completion: str) -> dict[str, Any]:
    """One training sample in TRL's conversational format."""
    from PIL import Image

    return {
        "images": [Image.fromarray(pixels)],
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def _lazy(n: int, read: Callable[[int], dict[str, Any]]) -> Dataset:
    """`n` rows that are made when they are read."""
    from datasets import Dataset

    def several(batch: dict) -> dict:
        found = [read(i) for i in batch["row"]]
        return {name: [row[name] for row in found] for name in found[0]}

    return Dataset.from_dict({"row": range(n)}).with_transform(several)


def _mixed_rows(engine: Engine) -> Dataset:
    """`sft-replay`: the boards with their bare placements, and prior-task samples behind them."""
    share = float(engine.spec.settings.get("replay_share", 0.5))
    prior = prior_samples(replay_count(len(engine.boards), share), REPLAY_SEED + engine.spec.seed)
    boards, n = engine.boards, len(engine.boards)
    side = boards.pixels.shape[1:3]

    def read(i: int) -> dict[str, Any]:
        if i < n:
            return _row(boards.pixels[i], boards.text, engine.completions[i])
        sample = prior[i - n]
        return _row(_resized(sample.pixels, side), sample.question.text, sample.question.completion)

    return _lazy(n + len(prior), read)


def replay_count(boards: int, share: float) -> int:
    """How many prior samples make `share` of a corpus with `boards` boards. UserError unless 0 < share < 1."""
    if not 0 < share < 1:
        raise UserError(f"replay_share is {share}: choose a share of prior-task samples between 0 and 1.")
    return max(1, round(boards * share / (1 - share)))


def prior_samples(n: int, seed: int, tasks: Sequence[str] = ()) -> list[Any]:
    """`n` training samples of the prior tasks (all of the battery, or `tasks`), in turn; none is in the battery.

    Drawn tasks come from a seed that the battery does not use, easy-VQA from its train split.
    """
    from helpers import prior_tasks

    if seed < 100:
        raise UserError(f"Seed {seed} could be the battery's: draw training samples from a seed of 100 or more.")
    names = list(tasks) or list(prior_tasks.battery_tasks())
    each = -(-n // len(names))
    drawn: list[list[Any]] = []
    for task in names:
        easy = task == "easy_vqa"
        drawn.append(
            prior_tasks.easy_vqa_samples("train", each, seed) if easy else prior_tasks.battery(task, each, seed)
        )
    return [row[k] for k in range(each) for row in drawn if k < len(row)][:n]


def _resized(pixels: np.ndarray, side: tuple[int, int]) -> np.ndarray:
    """A picture at the boards' height and width: one batch holds pictures of one size."""
    from PIL import Image

    if pixels.shape[:2] == side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(side[::-1], Image.Resampling.BICUBIC))


# --- sft-stream: RFT's rollouts in RFT's order ------------------------------------------------------------


def _completions(root: Path, spec: RunSpec) -> pd.DataFrame:
    """Every completion of a finished source run, in the order in which it was drawn."""
    import pandas

    folder = Path(root) / spec.source
    if not (folder / "DONE").exists():
        raise UserError(f"{folder} is not a finished run; train the source first (--retrain makes every run).")
    return pandas.read_parquet(folder / "completions.parquet")


def stream_batches(completions: pd.DataFrame, steps: int) -> list[list[tuple[int, str]]]:
    """(board, completion) pairs of steps 1 to `steps`: the correct, well-formed completions drawn at that step.

    Their order is the record's. A step without any repeats the last one that has some (the first one, at the start).
    Raises UserError where the source is shorter or nothing is correct.
    """
    if steps > completions["step"].max():
        raise UserError(f"The source drew completions for {completions['step'].max()} steps: set steps to that.")
    right = completions[(completions["exact"] == 1) & (completions["format"] == 1)]
    if right.empty:
        raise UserError("The source run has no correct completion to learn from: train it longer.")
    found: dict[int, list[tuple[int, str]]] = {}
    for row in right.itertuples():
        found.setdefault(row.step, []).append((row.puzzle_id, row.completion))
    batches, last = [], found[min(found)]
    for step in range(1, steps + 1):
        last = found.get(step, last)
        batches.append(last)
    return batches


def _stream_rows(boards: Boards, batches: Sequence[Sequence[tuple[int, str]]]) -> Dataset:
    """A row per step: its first sample as columns, the rest in `others`, since a step has any number of samples."""

    def read(i: int) -> dict[str, Any]:
        samples = [_row(boards.pixels[board], boards.text, text) for board, text in batches[i]]
        return samples[0] | {"others": samples[1:]}

    return _lazy(len(batches), read)


def _flat(engine: Engine, packed: Any) -> Callable[[Sequence[dict]], dict]:
    """A collator that takes rows of several samples apart; the stock one for what cannot be packed."""
    collate = packed
    if collate is None:
        from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

        collate = DataCollatorForVisionLanguageModeling(engine.processor, completion_only_loss=True)

    def flat(rows: Sequence[dict]) -> dict:
        samples = [sample for row in rows for sample in (row, *row["others"])]
        return collate([{k: s[k] for k in ("images", "prompt", "completion")} for s in samples])

    return flat


# --- iterative-sft: samples of the current model ----------------------------------------------------------


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
        return _lazy(self.spec.steps * self.spec.batch_size, self.read)

    def read(self, i: int) -> dict[str, Any]:
        """Sample `i`: the phase's correct completions in turn."""
        size = refresh_every(self.spec) * self.spec.batch_size
        if i // size != self.phase:
            self.phase, self.pairs = i // size, self._draw(i // size)
        board, text = self.pairs[i % size % len(self.pairs)]
        return _row(self.engine.boards.pixels[board], self.engine.boards.text, text)

    def _draw(self, phase: int) -> list[tuple[int, str]]:
        """(board, completion) pairs of a phase; what an earlier start drew comes first."""
        from helpers.records import write_file

        path = self.engine.run.checkpoints / f"drawn-{phase}.json"
        if path.exists():
            return [tuple(pair) for pair in json.loads(path.read_text())]
        pairs = self._sample(phase)
        write_file(path, json.dumps(pairs).encode())
        return pairs

    def _sample(self, phase: int) -> list[tuple[int, str]]:
        """Correct completions of the model as it is, for the next boards; UserError where it wrote none at all."""
        from helpers.corpora import rollout_completions

        engine, each = self.engine, _phase_boards(self.spec)
        chosen = [k % len(engine.boards) for k in range(phase * each, (phase + 1) * each)]
        seed = self.spec.seed + 1000 * (phase + 1)
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


# --- sft-kl ----------------------------------------------------------------------------------------------


def token_kl(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats, (M,), of the softmaxes p of `logits` and q of `other`, both (M, V): sum p (log p - log q)."""
    ours, theirs = logits.log_softmax(-1), other.log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1)


@lru_cache(maxsize=1)
def kl_trainer_class() -> type:
    """SFT whose loss is the mean over completion tokens of cross-entropy + beta KL(model || frozen base).

    The KL is exact: over the whole vocabulary, at the corpus's own tokens. Both passes are packed where SFT's are.
    """
    import torch

    from helpers.training import sft_trainer_class

    class StudyKLTrainer(sft_trainer_class()):
        def __init__(self, *args: Any, frozen: Any, beta: float, **options: Any) -> None:
            super().__init__(*args, **options)
            self.frozen, self.beta = frozen.eval().requires_grad_(False), beta

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """Cross-entropy plus beta times the KL of the model from the frozen base."""
            logits, target = _completion_logits(model, inputs)
            with torch.no_grad():
                base, _ = _completion_logits(self.frozen, inputs)
            apart = token_kl(logits, base)
            losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
            hits = (logits.detach().argmax(-1) == target).float().mean()
            for name, value in (("mean_token_accuracy", hits), ("kl", apart.detach().mean())):
                self._metrics["train"][name].append(float(value))
            tokens = len(losses) if num_items_in_batch is None else num_items_in_batch
            loss = (losses + self.beta * apart).sum() / tokens
            return (loss, {"logits": logits}) if return_outputs else loss

    return StudyKLTrainer


def _completion_logits(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 logits (M, V) and ids (M,) of a batch's completion tokens: packed, or by the model's own pass."""
    from helpers.packing import scored_logits

    if "packed" in inputs:
        logits = scored_logits(model, inputs["packed"], inputs["patches"]).float()
        return logits, inputs["packed"].target.to(logits.device)
    given = {name: value for name, value in inputs.items() if name != "labels"} | {"use_cache": False}
    logits, labels = model(**given).logits[:, :-1].float(), inputs["labels"][:, 1:]
    return logits[labels != -100], labels[labels != -100]


# --- RFT -------------------------------------------------------------------------------------------------


def correct(score: puzzles.Score) -> float:
    """1 for a correct and well-formed completion, else 0."""
    return float(score.exact == 1 and score.format == 1)


class CorrectReward:
    """The reward of `reinforce-1-0`, as a reward function of TRL; `last` keeps those of the newest batch."""

    __name__ = "correct_reward"

    def __init__(self) -> None:
        """No batch has been seen yet."""
        self.last: list[float] = []

    def __call__(self, completions: Sequence[Any], placement: Sequence[Sequence[int]], **_: Any) -> list[float]:
        texts = [puzzles.completion_text(c) for c in completions]
        self.last = [correct(puzzles.score(t, p)) for t, p in zip(texts, placement, strict=True)]
        return self.last


@lru_cache(maxsize=1)
def reinforce_trainer_class() -> type:
    """GRPO's trainer with advantage = reward: REINFORCE on correct completions, nothing pushed down."""
    from helpers.training import rft_trainer_class

    class StudyReinforceTrainer(rft_trainer_class()):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            # private, because TRL always subtracts the group's mean and has no switch for it
            found = super()._generate_and_score_completions(inputs)
            return found | {"advantages": found["advantages"].new_tensor(self.reward_funcs[0].last)}

    return StudyReinforceTrainer


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
    from helpers.training import checkpoint_at, rft_trainer_class

    spec = engine.spec
    if spec.arm == "reinforce-1-0":
        return RftParts(reinforce_trainer_class(), [CorrectReward()], [1.0], {})
    rewards = [puzzles.hit_reward, puzzles.exact_reward, puzzles.format_reward]
    if spec.arm == "distill":
        teacher = checkpoint_at(engine.run.folder.parent / spec.source / "checkpoints")
        return RftParts(rft_trainer_class(), rewards, [0.0, 0.0, 0.0], {"use_bias_correction_kl": True}, teacher)
    options = {}
    if spec.arm == "rft-stale":
        options["steps_per_generation"] = int(spec.settings.get("steps_per_generation", 8))
    return RftParts(rft_trainer_class(), rewards, list(spec.reward_weights), options)
