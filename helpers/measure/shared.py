"""What all measurements of a profile's finished runs share: the base, its own words, the runs' weights and scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from helpers.measure import linear, predictors, updates
from helpers.measure.linear import Weights
from helpers.measure.predictors import Sizes
from helpers.model import build
from helpers.model.build import Loaded
from helpers.model.forward import Model
from helpers.study import checkpoints
from helpers.study.arms import get_arm
from helpers.study.profiles import Profile, specs
from helpers.study.published import load_published, store
from helpers.study.schema import SCHEMAS, table_file
from helpers.study.spec import RunSpec
from helpers.train import engine
from helpers.world.boards import Corpus

PUBLISHED = Path("figures/records/controls")
EARLY = 0.3  # exact match that runs reach which never get to 0.5
METRICS = ("update_norm", "minutes", "kl", "reward", "entropy", "frac_reward_zero_std")  # what is published of metrics


@dataclass(frozen=True)
class Shared:
    """What all measurements of one profile share: the base model and how much is measured."""

    profile: Profile
    sizes: Sizes
    base: Loaded = field(repr=False)
    ends: dict[str, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def fisher(self) -> Weights:
        """The base's Fisher information on prior prompts."""
        return predictors.fisher(self.base, self.prior)

    @cached_property
    def prior(self) -> Corpus:
        """What the base writes to prior prompts."""
        return predictors.written_by(self.base, predictors.prior_prompts(self.sizes.prompts))

    @cached_property
    def boards(self) -> Corpus:
        """What the base writes to held-out boards."""
        return predictors.written_by(self.base, predictors.puzzle_prompts(self.profile.puzzle, self.sizes.prompts))

    def model(self, spec: RunSpec, step: int | None = None) -> Loaded:
        """(model, processor) of a run at a step, or at its end. Raises UserError where there is no checkpoint."""
        folder = checkpoints.checkpoint_at(store(self.profile).checkpoints(spec), step)
        return updates.load_tuned(folder, spec.base)

    def weights(self, spec: RunSpec | None) -> Weights:
        """The final weights of a run; of the base for None."""
        return linear.weights_of((self.base if spec is None else self.model(spec))[0])

    def scores(self, model: Model) -> dict[str, float]:
        """`predictors.scores` of a model as it is."""
        return predictors.scores(Loaded(model, self.base[1]), self.profile.puzzle, self.sizes)

    def end_scores(self, spec: RunSpec | None) -> dict[str, float]:
        """Scores of a run's end, or of the base for None; scored once."""
        name = spec.name if spec else "base"
        if name not in self.ends:
            self.ends[name] = self.scores((self.base if spec is None else self.model(spec))[0])
        return self.ends[name]


def load_shared(profile: Profile) -> Shared:
    """The base of a profile's runs, and sizes that fit the profile."""
    build.quiet_cpu()
    tiny = predictors.Sizes(boards=4, battery=1, prompts=4)
    sizes = tiny if profile.name == "smoke" else predictors.Sizes(battery=profile.battery_per_task)
    return Shared(profile, sizes, engine.load_base(study_specs(profile)[0]))


def study_specs(profile: Profile) -> list[RunSpec]:
    """The study's runs that train."""
    return specs(profile, [arm for arm in profile.study_arms if get_arm(arm).trains])


def is_done(profile: Profile) -> set[str]:
    """Names of the runs that are finished on this machine."""
    root = store(profile)
    return {spec.name for spec in root.finished()} if root.root.is_dir() else set()


def finished(profile: Profile, wanted: Iterable[RunSpec]) -> list[RunSpec]:
    """Those of some runs that are finished on this machine with their checkpoints, in the order given."""
    root, there = store(profile), is_done(profile)
    kept = [spec for spec in wanted if spec.name in there]
    return [spec for spec in kept if checkpoints.checkpoint_numbers(root.checkpoints(spec))]


def empty_table(name: str) -> pd.DataFrame:
    """One of the tables that runs record, with its columns and without rows."""
    return pd.DataFrame(columns=SCHEMAS[name].names)


def published_table(source: Path, name: str) -> pd.DataFrame:
    """A published table; an empty one where it was not published."""
    return load_published(source, name) if table_file(source, name).exists() else empty_table(name)


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
