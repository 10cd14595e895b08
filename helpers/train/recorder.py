"""What a run writes down while it trains: every completion, its metrics, its evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from helpers.model.forward import Model
from helpers.model.score import completion_logps, stock_logps
from helpers.study.checkpoints import settle
from helpers.study.profiles import checkpoint_steps
from helpers.study.records import Run
from helpers.study.schema import read_table
from helpers.study.spec import RunSpec
from helpers.train.engine import Engine, dtype, identity_columns, load_start, update_norm
from helpers.train.exam import evaluate
from helpers.train.pace import EARLY, Pace
from helpers.world import answers
from helpers.world.boards import Boards

Advantages = Callable[[RunSpec, Sequence[answers.Score], int], list[float]]
"""Advantages of the completions of a step, from the run, their scores and the step."""

EPSILON = 1e-4  # what TRL adds to the standard deviation of a group's rewards


SHOWN_EVERY = 0.8  # seconds


class Recorder:
    """A reward function of weight zero that writes every completion of every step into the run's record.

    `advantages` says what the arm's trainer makes of a batch's scores; `used` are those of the newest batch.
    """

    __name__ = "record"

    def __init__(self, engine: Engine, advantages: Advantages) -> None:
        """Loads the model that the run starts from, which scores some steps' completions."""
        self.engine, self.advantages = engine, advantages
        self.base = load_start(engine.spec, engine.run.folder.parent).model
        # scoring each step would cost a third of the run
        self.scored_steps = {*range(1, 11), *checkpoint_steps(engine.spec.steps, per_octave=6)}
        self.used: list[float] = []

    def __call__(
        self, completions, completion_ids, puzzle_id, placement, written, trainer_state, logp_policy=None, **_
    ) -> list[float]:
        """Zeros, after the batch is written down. The arguments are TRL's: columns of the data and of rollouts.

        TRL's own generation hands on no log-probs: those of the policy are then taken here.
        """
        spec, boards = self.engine.spec, self.engine.boards.only(puzzle_id[:: self.engine.spec.group_size])
        texts = [c[0]["content"] for c in completions]
        scores = [answers.score(*own) for own in zip(texts, placement, written, strict=True)]
        step = trainer_state.global_step + 1  # the batch is drawn before the step is counted
        logp_base: list[float | None] = [None] * len(texts)
        if step in self.scored_steps:
            logp_base = self._logps(self.base, boards, completion_ids)
        if logp_policy is None:
            logp_policy = self._logps(self.engine.model, boards, completion_ids, spec.temperature)
        self.used = self.advantages(spec, scores, step)
        prompts = [prompt.text for prompt in boards.prompted() for _ in range(spec.group_size)]
        rows = zip(puzzle_id, prompts, texts, completion_ids, scores, self.used, logp_policy, logp_base, strict=True)
        self.engine.run.append("completions", [
            {"run": spec.name, "seed": spec.seed, "step": step, "puzzle_id": i,
             "prompt": prompt, "completion": text, "tokens": len(ids), "hit": s.hit, "exact": s.exact,
             "format": s.format, "advantage": a, "logp_policy": p, "logp_base": b,
             "temperature": spec.temperature, "dtype": dtype(spec), "ids": ids}
            for i, prompt, text, ids, s, a, p, b in rows
        ])  # fmt: skip
        return [0.0] * len(texts)

    def _logps(
        self, model: Model, boards: Boards, ids: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[float]:
        """Log-prob of each group's completions, of the very ids that were sampled; `boards`: one per group."""
        size, judge = self.engine.spec.group_size, completion_logps if self.engine.settings.fast else stock_logps
        groups = [ids[i : i + size] for i in range(0, len(ids), size)]
        more = {} if temperature == 1 else {"temperature": temperature}
        scored = judge(model, self.engine.processor, boards.prompted(), groups, **more)
        return [float(logps.sum()) for row in scored for logps in row]


def reward_scale(spec: RunSpec) -> str:
    """What GRPO divides a group's centred rewards by: its standard deviation ("group") or nothing ("none")."""
    return str(spec.settings.get("scale_rewards", "group"))


def group_advantages(spec: RunSpec, scores: Sequence[answers.Score], step: int) -> list[float]:
    """GRPO's advantages of the weighted sum of hit, exact and format, at whatever step."""
    hit, exact, form = spec.reward_weights
    return _in_groups(spec, [hit * s.hit + exact * s.exact + form * s.format for s in scores])


def random_advantages(spec: RunSpec, scores: Sequence[answers.Score], step: int) -> list[float]:
    """GRPO's advantages of rewards that mean nothing, whatever the scores."""
    return _in_groups(spec, answers.random_rewards(spec.seed, step, len(scores)))


def _in_groups(spec: RunSpec, rewards: Sequence[float]) -> list[float]:
    """GRPO advantages as TRL computes them: reward - group mean, over (group standard deviation + 1e-4) if scaled."""
    groups = torch.tensor(rewards).reshape(-1, spec.group_size)
    spread = groups.std(1, keepdim=True) + EPSILON if reward_scale(spec) == "group" else 1.0
    return ((groups - groups.mean(1, keepdim=True)) / spread).flatten().tolist()


def training_minutes(run: Run) -> float:
    """Minutes a run spent in training steps, without evaluations, over all its resumes."""
    metrics = read_table(run.folder, "metrics").to_pandas()
    return float(metrics.loc[metrics["name"] == "seconds", "value"].sum()) / 60


def evaluated(run: Run) -> list[tuple[int, float]]:
    """(step, exact match) of a run's evaluations so far."""
    known = read_table(run.folder, "evaluations").to_pandas()
    known = known[(known["task"] == "puzzle") & (known["measure"] == "exact")]
    return list(zip(known["step"], known["value"], strict=True))


class StudyCallback(TrainerCallback):
    """Evaluates and saves on the log-spaced schedule, and keeps the run's tables in step with its checkpoints."""

    def __init__(self, engine: Engine) -> None:
        """The model's weights now are those of the base, from which its change is measured."""
        self.engine, self.run, self.begin = engine, engine.run, 0.0
        self.pace = Pace(engine.spec, engine.settings)
        self.base = {n: p.detach().clone() for n, p in engine.model.named_parameters()}
        self.next_flush = 0.0  # on the clock of `time.monotonic`

    def _note(self, step: int, /, **values: float) -> None:
        """Append metrics by name."""
        self.run.append("metrics", [metric_row(self.engine.spec, step, *pair) for pair in values.items()])

    def on_step_begin(self, args, state, control, **kwargs):
        """Start the step's clock."""
        self.begin = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        """Evaluate the base, and say what writing the corpus cost; a resumed run has done so."""
        if state.global_step == 0:
            self._evaluate(0)
            self._note(0, **_corpus_costs(self.engine))
            self._show()

    def _evaluate(self, step: int) -> None:
        """Evaluate the model as it is; what it reached decides whether in every way, and how long the run goes on."""
        rows = evaluate(self.engine, step, full=step == self.pace.end)
        exact = next(r["value"] for r in rows["evaluations"] if (r["task"], r["measure"]) == ("puzzle", "exact"))
        ended = step == self.pace.end
        if self.pace.note(step, exact) and not ended and self.engine.settings.ways and not self.engine.settings.brief:
            rows = evaluate(self.engine, step, full=True)
        for table, found in rows.items():
            self.run.append(table, found)

    def _show(self) -> None:
        """Put what there is on disk, where somebody waits for it, once in `SHOWN_EVERY` seconds."""
        # The tables of completions and outcomes grow large, and each flush writes a table whole: they can wait.
        if self.engine.settings.brief and time.monotonic() >= self.next_flush:
            self.run.flush("evaluations", "metrics")
            self.next_flush = time.monotonic() + SHOWN_EVERY

    def on_step_end(self, args, state, control, **kwargs):
        """Say what the step cost; evaluate and ask for a checkpoint where the schedule says so."""
        step = state.global_step
        self._note(step, seconds=time.perf_counter() - self.begin, **self.engine.tally.take())
        control.should_save = self.pace.due(step)
        if control.should_save:
            self._evaluate(step)
            self._note(step, update_norm=update_norm(self.engine.model, self.base))
        control.should_training_stop |= step >= self.pace.end

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Append the trainer's numbers to the record, but for its closing summary, which repeats the last step's."""
        if "train_runtime" in (logs or {}):
            return
        for name, value in (logs or {}).items():
            if isinstance(value, int | float) and value == value:
                self._note(state.global_step, **{name: value})
        if control.should_save:  # before the checkpoint is written: what a resume drops is never needed again
            self.run.flush()
        else:
            self._show()

    def on_save(self, args, state, control, **kwargs):
        """Take the checkpoint, written whole by now, among the run's own."""
        # Of the many of a run that goes until something only two are looked at again, beside its end.
        kept = {EARLY, self.pace.examined} if self.pace.until else None
        kept = set() if self.engine.settings.brief else kept
        settle(self.run.checkpoints, state.global_step, kept)


def _corpus_costs(engine: Engine) -> dict[str, float]:
    """What it cost a model to write the corpus, as metrics; nothing where none wrote it."""
    spent = engine.writing
    written = {"flops": spent.flops, "completions": spent.completions, "tokens": spent.generated_tokens}
    return {f"corpus_{name}": value for name, value in written.items()} if spent.completions else {}


def metric_row(spec: RunSpec, step: int, name: str, value: float) -> dict[str, Any]:
    return identity_columns(spec, step) | {"name": name, "value": float(value)}
