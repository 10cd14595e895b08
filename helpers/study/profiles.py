"""What to run: the arms, one frozen `RunSpec` per run, and the three sizes of the study.

The numbers live in the `Budget` tables below, one line per arm: edit a line and the hashes of the runs it
describes change with it, so no old record can be mistaken for a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from helpers.errors import UserError
from helpers.study.arms import REGISTRY, Arm, get_arm
from helpers.study.spec import Extra, RunSpec, whole_number
from helpers.world import seeds
from helpers.world.answers import room
from helpers.world.puzzles import PuzzleSpec


class Budget(NamedTuple):
    """One line of a profile's table: how much one arm trains (`batch_size` as in `RunSpec`)."""

    arm: str
    steps: int
    batch_size: int
    learning_rate: float
    beta: float = 0.0
    extra: Extra = ()


@dataclass(frozen=True)
class Profile:
    """One size of the whole study.

    `puzzle_test_size` counts held-out puzzles, `battery_per_task` items per prior task, `size` pixels;
    `budgets` holds one line per arm that trains. `ways`: whether outcomes are kept item by item, in several ways of
    asking, and evaluations come often where the puzzle moves.
    """

    name: str
    seeds: tuple[int, ...]
    puzzle_test_size: int
    battery_per_task: int
    group_size: int
    budgets: tuple[Budget, ...]
    model: str = "shipped"
    dtype: str = "float32"
    rows: int = 2
    cols: int = 2
    size: int = 64
    max_completion_length: int = 0  # 0: what the grid needs
    ways: bool = False

    def __post_init__(self) -> None:
        """Derive the room for a completion from the grid, unless it is given."""
        object.__setattr__(self, "max_completion_length", self.max_completion_length or room(self.rows * self.cols))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that this profile plans: those with a line in its table, and the base."""
        planned = {line.arm for line in self.budgets}
        return tuple(name for name, arm in REGISTRY.items() if name in planned or not arm.trains)

    @property
    def study_arms(self) -> tuple[str, ...]:
        """Those of them that belong to the study."""
        return tuple(name for name in self.arms if REGISTRY[name].in_study)

    @property
    def puzzle(self) -> PuzzleSpec:
        """The puzzles of this profile's runs."""
        return PuzzleSpec(rows=self.rows, cols=self.cols, size=self.size)

    def budget(self, arm: str) -> Budget:
        """The table's line for `arm`. Raises `UserError` for an unknown arm or one without a line."""
        if not get_arm(arm).trains:
            return Budget(arm, 0, 1, 0.0)
        lines = {line.arm: line for line in self.budgets}
        if arm not in lines:
            raise UserError(f"profile {self.name} has no budget for arm {arm}: add a line to its table in profiles.py.")
        return lines[arm]


# fmt: off
#         arm             steps  batch  learning rate
_SMOKE_BUDGETS = (
    Budget("rft",              4,     2, 1e-3, beta=0.04),
    Budget("sft-answer",       2,     4, 1e-3),
    Budget("sft-expert",       2,     4, 1e-3),
    Budget("sft-rollout",      2,     4, 1e-3),
    Budget("sft-self",         2,     4, 1e-3, extra=(("source_step", 2),)),
    Budget("self-sft",         2,     4, 1e-3),
    Budget("iterative-sft",    4,     4, 1e-3, extra=(("refresh_every", 2),)),
    Budget("reinforce-1-0",    2,     2, 1e-3),
    Budget("rft-no-kl",        2,     2, 1e-3),
    Budget("sft-kl",           2,     4, 1e-3, beta=0.1),
    Budget("sft-replay",       2,     4, 1e-3, extra=(("replay_share", 0.5),)),
    Budget("distill",          2,     2, 1e-3, beta=1.0),
    Budget("sft-stream",       4,     2, 1e-3),
    Budget("sft-voice",        2,     4, 1e-3),
    Budget("sft-oracle",       2,     4, 1e-3, extra=(("thinks", 2),)),
    Budget("rft-stale",        4,     2, 1e-3, beta=0.04, extra=(("steps_per_generation", 2),)),
)


_CPU_BUDGETS = (
    Budget("rft",           576,    16, 2e-4, beta=0.12),
    Budget("sft-answer",    640,    32, 2e-4),
    Budget("sft-expert",    288,    32, 2e-4),
    Budget("sft-rollout",   384,    32, 2e-4),
    Budget("sft-self",      512,    32, 2e-4, extra=(("source_step", 64),)),
    Budget("self-sft",      384,    32, 2e-4),
    Budget("iterative-sft", 384,    32, 2e-4, extra=(("refresh_every", 64),)),
    Budget("reinforce-1-0", 576,    16, 2e-4),
    Budget("rft-no-kl",     576,    16, 2e-4),
    Budget("sft-kl",        640,    32, 2e-4, beta=0.1),
    Budget("sft-replay",    640,    32, 2e-4, extra=(("replay_share", 0.5),)),
    Budget("distill",       576,    16, 2e-4, beta=1.0),
    Budget("sft-stream",    576,    16, 2e-4),
    Budget("sft-voice",     512,    32, 2e-4),
    Budget("sft-oracle",    512,    32, 2e-4, extra=(("thinks", 8),)),
    Budget("rft-stale",     576,    16, 2e-4, beta=0.12, extra=(("steps_per_generation", 8),)),
)


_GPU_BUDGETS = (
    Budget("rft",           2000,    16, 1e-6, beta=0.04),
    Budget("sft-answer",    1000,    32, 1e-6),
    Budget("sft-expert",    1000,    32, 1e-6),
    Budget("sft-rollout",   1000,    32, 1e-6),
    Budget("sft-self",      1000,    32, 1e-6, extra=(("source_step", 128),)),
    Budget("self-sft",      1000,    32, 1e-6),
    Budget("iterative-sft", 1000,    32, 1e-6, extra=(("refresh_every", 50),)),
    Budget("reinforce-1-0", 2000,    16, 1e-6),
    Budget("rft-no-kl",     2000,    16, 1e-6),
    Budget("sft-kl",        1000,    32, 1e-6, beta=0.1),
    Budget("sft-replay",    1000,    32, 1e-6, extra=(("replay_share", 0.5),)),
    Budget("distill",       2000,    16, 1e-6, beta=1.0),
    Budget("sft-stream",    2000,    16, 1e-6),
    Budget("sft-voice",     1000,    32, 1e-6),
    Budget("sft-oracle",    1000,    32, 1e-6, extra=(("thinks", 8),)),
    Budget("rft-stale",     2000,    16, 1e-6, beta=0.04, extra=(("steps_per_generation", 8),)),
)


# fmt: on

_SIZES = (
    Profile("smoke", seeds=(0,), puzzle_test_size=16, battery_per_task=4, group_size=4, budgets=_SMOKE_BUDGETS),
    Profile(
        "cpu", seeds=(0, 1, 2, 3, 4), puzzle_test_size=500, battery_per_task=40, group_size=8, budgets=_CPU_BUDGETS
    ),
    # The model merges 2 x 2 patches of 14 pixels, so a side of 252 = 3 x 84 has whole patches per tile.
    Profile(
        "gpu",
        model="Qwen/Qwen2.5-VL-3B-Instruct",
        dtype="bfloat16",
        seeds=(0, 1, 2),
        rows=3,
        cols=3,
        size=252,
        puzzle_test_size=1000,
        battery_per_task=500,
        group_size=8,
        max_completion_length=512,  # a large instruct model thinks at length
        budgets=_GPU_BUDGETS,
    ),
)


FAIR = Profile(
    "fair", seeds=tuple(range(1, 9)), puzzle_test_size=500, battery_per_task=100, group_size=8, budgets=(), ways=True
)
"""How the study on several bases is evaluated; its seeds are stems, and what it runs on them stands in `cells`."""


LIVE = Profile(
    "live", seeds=(seeds.LIVE,), puzzle_test_size=64, battery_per_task=8, group_size=8, budgets=(), ways=True
)
"""How a run is evaluated that a reader trains and waits for: on few boards and items, as often as those of `FAIR`."""


GRIDS: Mapping[str, PuzzleSpec] = MappingProxyType(
    {"2x2": FAIR.puzzle, "3x3": PuzzleSpec(rows=3, cols=3, size=96), "turned": replace(FAIR.puzzle, turned=True)}
)
"""The puzzles of that study by name. Their tiles are equal: 32 pixels, two tokens of the small model a side."""


PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _SIZES})


def get_profile(name: str) -> Profile:
    """The profile called `name`, `FAIR` and `LIVE` among them. Raises `UserError` for any name that has none."""
    for profile in (FAIR, LIVE):
        if name == profile.name:
            return profile
    if not isinstance(name, str) or name not in PROFILES:
        raise UserError(f"there is no profile {name!r}: choose one of {', '.join(PROFILES)}.")
    return PROFILES[name]


def specs(profile: Profile, arms: Iterable[str] | None = None) -> list[RunSpec]:
    """The runs of `arms` (None: all that it plans) under `profile`, seed by seed, each seed in design order.

    Going seed by seed completes one seed of every arm first; design order puts a source run before those it
    feeds (a source that was not asked for is named, not added). The base model is the same for every seed, so
    it gets one run. Raises `UserError` for an unknown arm or one without a budget.
    """
    asked = [arms] if isinstance(arms, str) else list(profile.arms if arms is None else arms)
    for arm in asked:
        profile.budget(arm)
    ordered = [arm for name, arm in REGISTRY.items() if name in asked]
    first = profile.seeds[0]
    return [_spec(profile, arm, seed) for seed in profile.seeds for arm in ordered if arm.trains or seed == first]


def _spec(profile: Profile, arm: Arm, seed: int) -> RunSpec:
    """The spec of one arm and seed, its source named by the same profile and seed."""
    line = profile.budget(arm.name)
    # float32 is the rule and stays unsaid; another precision changes the run, so it must change the hash.
    dtype = () if profile.dtype == "float32" else (("dtype", profile.dtype),)
    return RunSpec(
        arm=arm.name,
        seed=seed,
        steps=line.steps,
        learning_rate=line.learning_rate,
        batch_size=line.batch_size,
        group_size=profile.group_size,
        rows=profile.rows,
        cols=profile.cols,
        size=profile.size,
        beta=line.beta,
        max_completion_length=profile.max_completion_length,
        base=profile.model,
        source=_spec(profile, REGISTRY[arm.source], seed).name if arm.source else "",
        extra=line.extra + dtype,
    )


def checkpoint_steps(total: int, per_octave: int = 2) -> tuple[int, ...]:
    """Steps at which to look at a run of `total` steps: 0, then log-spaced, always ending in `total`.

    Forgetting happens early, so the schedule is dense at the start: `per_octave` steps per doubling, so that
    100 gives 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 100. Raises `UserError` for a negative or
    fractional argument.
    """
    total = whole_number("total", total, 0)
    per_octave = whole_number("per_octave", per_octave, 1)
    octaves = total.bit_length()
    spaced = {round(2 ** (k / per_octave)) for k in range(octaves * per_octave + 1)}
    return tuple(sorted({0, total} | {step for step in spaced if step < total}))
