"""Short runs here and now, for notebooks: nothing is kept on disk."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from transformers import ProcessorMixin, TrainerCallback
from transformers.utils import logging

from helpers.errors import UserError
from helpers.model.forward import Model
from helpers.progress import Count, counting
from helpers.study.arms import get_arm
from helpers.study.profiles import Profile, specs
from helpers.study.records import RunStore, load_table
from helpers.study.schema import TABLES
from helpers.train.recorder import EPSILON
from helpers.train.run import make_trainer, prepare
from helpers.train.settings import Settings
from helpers.world import seeds
from helpers.world.boards import Corpus


@dataclass(frozen=True)
class Live:
    """A short run: its tables, and the model as it is afterwards."""

    evaluations: pd.DataFrame
    metrics: pd.DataFrame
    completions: pd.DataFrame
    model: Model = field(repr=False)
    processor: ProcessorMixin = field(repr=False)


def run(profile: Profile, arm: str, steps: int, corpus: Corpus | None = None) -> Live:
    """Train the first `steps` steps of an arm on new boards (or on `corpus`) and keep nothing on disk.

    Evaluated on few puzzles and a few samples per prior task, so its points are noisier than the published ones.
    Raises UserError for an arm that learns from another run where no corpus is given, and for a corpus where the arm
    makes its own as it goes.
    """
    entry = get_arm(arm)
    fixed = entry.data in ("corpus", "replay")
    if corpus is not None and not fixed:
        raise UserError(f"The arm {arm} does not learn from a corpus that is fixed in advance: leave it out.")
    if entry.source and corpus is None:
        advice = "pass the corpus it should train on" if fixed else "choose one that needs none"
        raise UserError(f"The arm {arm} learns from another run: {advice}.")
    spec = replace(specs(profile, [arm])[0], steps=steps, seed=seeds.LIVE)
    tests = min(100, profile.puzzle_test_size)
    battery = min(12, profile.battery_per_task)
    settings = Settings(puzzle_tests=tests, final_tests=tests, battery=battery, final_battery=battery, per_octave=1)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        store = RunStore(Path(folder))
        engine = prepare(spec, store, store.start(spec), settings, corpus)
        trainer = make_trainer(engine)
        with counting(steps, "steps of training") as count:
            trainer.add_callback(_Counting(count))
            trainer.train()
        engine.run.finish()
        tables = {name: load_table(folder, name) for name in TABLES}
    engine.model.eval()
    kept = {name: tables[name] for name in ("evaluations", "metrics", "completions")}
    return Live(**kept, model=engine.model, processor=engine.processor)


class _Counting(TrainerCallback):
    """Counts the steps of a training."""

    def __init__(self, count: Count) -> None:
        self.count = count

    def on_step_end(self, *_: object, **__: object) -> None:
        """One more is done."""
        self.count.step()


def _quiet() -> warnings.catch_warnings:
    """Deprecation warnings of the trainers' own code are noise in a notebook."""
    logging.disable_progress_bar()
    return warnings.catch_warnings(action="ignore")


def advantages(rewards: Sequence[float]) -> list[float]:
    """GRPO's advantages of one group: (reward - mean) / (standard deviation + 1e-4), the latter over n - 1."""
    mean, spread = statistics.fmean(rewards), statistics.stdev(rewards)
    return [(reward - mean) / (spread + EPSILON) for reward in rewards]
