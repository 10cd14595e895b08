"""Short runs here and now, for notebooks: nothing is kept on disk."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers.utils import logging

from helpers.errors import UserError
from helpers.study.arms import SOURCE_ARMS
from helpers.study.profiles import Profile, specs
from helpers.study.records import RunStore, load_table
from helpers.study.schema import TABLES
from helpers.train.engine import Settings, puzzle_spec
from helpers.train.run import make_trainer, prepare
from helpers.world import seeds
from helpers.world.boards import Boards, Corpus


@dataclass(frozen=True)
class Live:
    """A short run: its tables, and the model as it is afterwards."""

    evaluations: pd.DataFrame
    metrics: pd.DataFrame
    completions: pd.DataFrame
    model: Any = field(repr=False)
    processor: Any = field(repr=False)


def run(profile: Profile, arm: str, steps: int, corpus: Corpus | None = None) -> Live:
    """Train the first `steps` steps of an arm on new boards (or on `corpus`) and keep nothing on disk.

    Evaluated on few puzzles and a few samples per prior task, so its points are noisier than the published ones.
    Raises UserError for an arm that learns from another run where no corpus is given.
    """
    if arm in SOURCE_ARMS and corpus is None:
        raise UserError(f"The arm {arm} learns from another run: pass the corpus it should train on.")
    spec = replace(specs(profile, [arm])[0], steps=steps, seed=seeds.LIVE)
    tests = min(100, profile.puzzle_test_size)
    battery = min(12, profile.battery_per_task)
    settings = Settings(puzzle_tests=tests, final_tests=tests, battery=battery, final_battery=battery, per_octave=1)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        store = RunStore(Path(folder))
        own = None if corpus is None else _as_boards(corpus, puzzle_spec(spec))
        engine = prepare(spec, store, store.start(spec), settings, own)
        make_trainer(engine).train()
        engine.run.finish()
        found = {name: load_table(folder, name) for name in TABLES}
    engine.model.eval()
    tables = {name: found[name] for name in ("evaluations", "metrics", "completions")}
    return Live(**tables, model=engine.model, processor=engine.processor)


def _quiet() -> Any:
    """Deprecation warnings of the trainers' own code are noise in a notebook."""
    logging.disable_progress_bar()
    return warnings.catch_warnings(action="ignore")


def _as_boards(corpus: Corpus, spec: Any) -> tuple[Boards, list[str]]:
    pixels, unknown = np.stack([prompt.pixels for prompt in corpus.prompts]), np.zeros((len(corpus), spec.tiles), int)
    return Boards(spec, pixels, unknown), list(corpus.completions)  # an SFT trainer never looks at the placements


def advantages(rewards: Sequence[float]) -> list[float]:
    """GRPO's advantages of one group: (reward - mean) / (standard deviation + 1e-4), the latter over n - 1."""
    mean, spread = statistics.fmean(rewards), statistics.stdev(rewards)
    return [(reward - mean) / (spread + 1e-4) for reward in rewards]
