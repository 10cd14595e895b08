"""What the measurements of a finished run work on: its weights, its base, its corpus, its drops."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.errors import UserError
from helpers.measure import predictors, updates
from helpers.measure.predictors import Sizes
from helpers.model import build
from helpers.study import checkpoints
from helpers.study.arms import STUDY_ARMS, get_arm
from helpers.study.profiles import Profile, specs
from helpers.study.published import store
from helpers.study.spec import RunSpec
from helpers.train import engine, recipes, rows
from helpers.world import seeds
from helpers.world.boards import Prompted, make_boards, training_boards
from helpers.world.puzzles import PuzzleSpec

PUBLISHED = Path("figures/records/controls")


EARLY = 0.3  # exact match that runs reach which never get to 0.5


METRICS = ("update_norm", "minutes", "kl", "reward", "entropy", "frac_reward_zero_std")  # what is published of metrics


@dataclass(frozen=True)
class Bench:
    """What all measurements of one profile share: the base model and how much is measured."""

    profile: Profile
    sizes: Sizes
    base: tuple[Any, Any] = field(repr=False)
    ends: dict[str, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def fisher(self) -> Mapping[str, Any]:
        """The base's Fisher information on prior prompts."""
        return predictors.fisher(self.base, self.prior)

    @cached_property
    def prior(self) -> Any:
        """What the base writes to prior prompts."""
        return predictors.said(self.base, predictors.prior_prompts(self.sizes.prompts))

    @cached_property
    def boards(self) -> Any:
        """What the base writes to held-out boards."""
        return predictors.said(self.base, predictors.puzzle_prompts(self.puzzles, self.sizes.prompts))

    @property
    def puzzles(self) -> Any:
        """The boards' kind."""
        return PuzzleSpec(rows=self.profile.rows, cols=self.profile.cols, size=self.profile.size)

    def model(self, spec: RunSpec, step: int | None = None) -> tuple[Any, Any]:
        """(model, processor) of a run at a step, or at its end. Raises UserError where there is no checkpoint."""
        folder = checkpoints.checkpoint_at(store(self.profile).checkpoints(spec), step)
        return updates.load_tuned(folder, spec.base)

    def weights(self, spec: RunSpec | None) -> Mapping[str, Any]:
        """The final weights of a run; of the base for None."""
        return updates.weights_of((self.base if spec is None else self.model(spec))[0])

    def scores(self, model: Any) -> dict[str, float]:
        """`updates.scores` of a model as it is."""
        return predictors.scores((model, self.base[1]), self.puzzles, self.sizes)

    def end_scores(self, spec: RunSpec | None) -> dict[str, float]:
        """Scores of a run's end, or of the base for None; scored once."""
        name = spec.name if spec else "base"
        if name not in self.ends:
            self.ends[name] = self.scores((self.base if spec is None else self.model(spec))[0])
        return self.ends[name]


def bench(profile: Profile) -> Bench:
    """The base of a profile's runs, and sizes that fit the profile."""
    build.quiet_cpu()
    tiny = predictors.Sizes(boards=4, battery=1, prompts=4)
    sizes = tiny if profile.name == "smoke" else predictors.Sizes(battery=profile.battery_per_task)
    return Bench(profile, sizes, engine.load_base(specs(profile, ["sft-answer"])[0]))


def study_specs(profile: Profile) -> list[RunSpec]:
    """The study's runs that train."""
    return specs(profile, [arm for arm in STUDY_ARMS if get_arm(arm).trains])


def is_done(profile: Profile) -> set[str]:
    """Names of the runs that are finished on this machine."""
    root = store(profile)
    return {spec.name for spec in root.finished()} if root.root.is_dir() else set()


def finished(profile: Profile, wanted: Iterable[RunSpec]) -> list[RunSpec]:
    """Those of some runs that are finished on this machine with their checkpoints, in the order given."""
    root, there = store(profile), is_done(profile)
    kept = [spec for spec in wanted if spec.name in there]
    return [spec for spec in kept if checkpoints.checkpoint_numbers(root.checkpoints(spec))]


def corpus_sample(bench: Bench, spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """Up to `n` (prompt, completion) pairs of what a run learned from; RFT: correct rollouts, evenly over its steps.

    Empty where that cannot be told (no correct rollout, or a source that is not here).
    """
    seed, kind = spec.seed, engine.puzzle_spec(spec)
    if get_arm(spec.arm).streamed:
        return _recorded_sample(bench, spec, n)
    if get_arm(spec.arm).data == "drawn":
        return _drawn_sample(bench, spec, n)
    prior = _replayed(spec, n)
    boards = training_boards(kind, n - len(prior), seed)
    given = recipes.Given(spec, store(bench.profile), bench.base[1], boards)
    try:
        texts = recipes.RECIPES[spec.arm].write(given)
    except UserError:
        return []
    pairs = zip(boards.pixels, texts, strict=True)
    return [(Prompted(pixels, boards.text), text) for pixels, text in pairs if text is not None] + prior


def _replayed(spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """The prior-task samples among `n` of `sft-replay`'s; none for other arms."""
    if get_arm(spec.arm).data != "replay":
        return []
    share = float(spec.settings.get("replay_share", 0.5))
    drawn = rows.prior_samples(round(n * share), seeds.REPLAY + spec.seed)
    return [(Prompted(s.pixels, s.question.text), s.question.completion) for s in drawn]


def _recorded_sample(bench: Bench, spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """Correct rollouts of an RFT run (or of the source of `sft-stream`), every k-th so that all phases count alike."""
    name = spec.source if get_arm(spec.arm).data == "source" else spec.name
    path = store(bench.profile).root / name / "completions.parquet"
    if not path.exists():
        return []
    rows = pd.read_parquet(path)
    right = rows[(rows["exact"] == 1) & (rows["format"] == 1)]
    chosen = right.iloc[:: max(1, len(right) // n)].head(n)
    return _asked(bench, spec, list(zip(chosen["puzzle_id"], chosen["completion"], strict=True)))


def _drawn_sample(bench: Bench, spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """What `iterative-sft` drew, a share of each phase."""
    paths = sorted(store(bench.profile).checkpoints(spec).glob("drawn-*.json"))
    pairs = [pair for path in paths for pair in json.loads(path.read_text())[: max(1, n // len(paths))]]
    return _asked(bench, spec, pairs[:n])


def _asked(bench: Bench, spec: RunSpec, pairs: Sequence[Sequence[Any]]) -> list[tuple[Any, str]]:
    """Completions with the prompts of their training boards."""
    if not pairs:
        return []
    made = make_boards(bench.puzzles, [int(i) for i, _ in pairs], seeds.training(spec.seed))
    return [(prompt, text) for prompt, (_, text) in zip(made.prompted(), pairs, strict=True)]


@dataclass(frozen=True)
class Amount:
    """How much is measured of a run: `batches` of `boards`, random `draws`, `pairs`, the base's `samples`, `gold`.

    `pairs`: samples of the corpus, evenly chosen, that are held against one sample of each prior task (of every second
    one for the kernel); `gold`: gold answers per prior task, others for each seed.
    """

    boards: int = 32
    batches: int = 3
    draws: int = 8
    pairs: int = 8
    samples: int = 16
    gold: int = 20
