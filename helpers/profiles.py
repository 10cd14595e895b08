"""What to run: the arms, one frozen `RunSpec` per run, and the three sizes of the study.

The numbers live in the `Budget` tables below, one line per arm: edit a line and the hashes of the runs it
describes change with it, so no old record can be mistaken for a new one.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import NamedTuple

from helpers.errors import UserError

Extra = tuple[tuple[str, float | int | str], ...]

ARM_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "base": "the base model, trained on nothing: the start",
        "rft": "GRPO on hit rate + exact match + format, with a KL term to the base model: the paper's RFT",
        "sft-answer": "SFT on the bare true placement",
        "sft-expert": "SFT on the true placement with an outside teacher's reasoning, in its own voice",
        "sft-rollout": "SFT on correct rollouts of the RFT model: the decisive arm",
        "sft-self": "SFT on reasoning from a model after a short RFT, with the true placement",
        "self-sft": "SFT on the base model's own correct samples",
        "iterative-sft": "SFT on correct samples regenerated from the current model every few steps",
        "reinforce-1-0": "REINFORCE on correct samples only: reward 0 or 1, no baseline",
        "rft-no-kl": "RFT without the KL term",
        "sft-kl": "SFT on the bare true placement with a KL term to the base model",
        "sft-replay": "SFT on the bare true placement mixed with prior-task samples",
        "distill": "on-policy distillation: the RFT model's probabilities on the model's own samples, no reward",
        "sft-stream": "SFT on the very correct rollouts that RFT drew, step by step in its order",
        "sft-voice": "SFT on the base model's own think with the true placement behind it",
        "sft-oracle": "SFT on the correct completion that is most probable under the base, of many",
        "rft-stale": "RFT on rollouts that are drawn for several steps at a time",
    }
)
ARMS: tuple[str, ...] = tuple(ARM_DESCRIPTIONS)
RFT_ARMS = ("rft", "rft-no-kl", "rft-stale", "reinforce-1-0", "distill")
"""Arms that learn from what they sample; all others but `base` learn from a corpus."""
SFT_ARMS: tuple[str, ...] = tuple(arm for arm in ARMS if arm not in ("base", *RFT_ARMS))

SOURCE_ARMS: Mapping[str, str] = MappingProxyType(
    {"sft-rollout": "rft", "sft-self": "rft", "distill": "rft", "sft-stream": "rft"}
)
"""Arms fed by another run, and the arm of that run in the profiles."""

# Above this a float no longer tells neighbouring whole numbers apart, so JSON readers may disagree.
LARGEST_WHOLE = 2**53

_WHOLE_FIELDS = (
    ("seed", 0),
    ("steps", 0),
    ("batch_size", 1),
    ("group_size", 1),
    ("rows", 1),
    ("cols", 1),
    ("size", 1),
    ("lora_rank", 0),
    ("max_completion_length", 1),
)
_REAL_FIELDS = ("learning_rate", "beta", "weight_decay", "temperature")
_RUN_NAME = re.compile(rf"(?:{'|'.join(map(re.escape, ARMS))})-\d+-[0-9a-f]{{10}}")


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides what one run does; its hash is the run's identity.

    `batch_size` counts prompts per step for arms that sample (each prompt gets `group_size` completions) and
    samples per step for arms that learn from a corpus. `size` is the board's side in pixels, `beta` the
    weight of the KL term to the base model, `reward_weights` those of (hit, exact, format). `source` names
    the run whose rollouts or model feed this one. `extra` holds (name, value) settings of single arms.

    Numbers are brought to one form, so that specs that compare equal have equal hashes. Raises `UserError`
    for a value that cannot be run.
    """

    arm: str
    seed: int
    steps: int
    learning_rate: float
    batch_size: int
    group_size: int = 8
    rows: int = 2
    cols: int = 2
    size: int = 64
    beta: float = 0.0
    weight_decay: float = 0.0
    lora_rank: int = 0
    freeze_vision: bool = False
    reward_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    temperature: float = 1.0
    max_completion_length: int = 32
    base: str = "shipped"
    source: str = ""
    extra: Extra = ()

    def __post_init__(self) -> None:
        """Bring every field to its one form, then check the fields against each other."""
        _check_arm(self.arm)
        for name, least in _WHOLE_FIELDS:
            self._settle(name, _whole(name, getattr(self, name), least))
        for name in _REAL_FIELDS:
            self._settle(name, _real(name, getattr(self, name)))
        self._settle("reward_weights", _weights(self.reward_weights))
        self._settle("extra", _extra(self.extra))
        _check_texts(self)
        _check_geometry(self)
        _check_arm_rules(self)

    def _settle(self, name: str, value: object) -> None:
        """Set one field of a frozen instance while it is being made."""
        object.__setattr__(self, name, value)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII only, shortest form of every number."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """Read `to_json`'s text back; fields left out take their defaults.

        Raises `UserError` for text that is not a JSON object, unknown or missing keys, impossible values.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"this run spec is not valid JSON ({error}): restore the file or delete it.") from error
        if not isinstance(values, dict):
            raise UserError("a run spec must be a JSON object with one key per setting, such as 'arm' and 'seed'.")
        _check_keys(values)
        return cls(**values)

    @property
    def hash(self) -> str:
        """First 10 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()[:10]

    @property
    def name(self) -> str:
        """`<arm>-<seed>-<hash>`: the run's folder, and its name in every table."""
        return f"{self.arm}-{self.seed}-{self.hash}"

    @property
    def settings(self) -> dict[str, float | int | str]:
        """`extra` as a dictionary."""
        return dict(self.extra)


def _check_arm(arm: object) -> None:
    """Refuse a name that is no arm."""
    if not isinstance(arm, str) or arm not in ARM_DESCRIPTIONS:
        raise UserError(f"there is no arm {arm!r}: choose one of {', '.join(ARMS)}.")


def _whole(name: str, value: object, least: int) -> int:
    """`value` as an int of at least `least`; accepts NumPy integers, refuses booleans and floats."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{name} must be a whole number, not {value!r}: write it without a decimal point.")
    if not least <= int(value) <= LARGEST_WHOLE:
        raise UserError(f"{name} is {value}: choose a whole number from {least} to {LARGEST_WHOLE}.")
    return int(value)


def to_float(value: Real) -> float:
    """`value` as a float; a whole number too large for one becomes infinity instead of an `OverflowError`.

    Convert before comparing: a NumPy float32 turns the other side into a float32, limits included.
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _real(name: str, value: object) -> float:
    """`value` as a finite float >= 0; the sum with 0.0 turns -0.0 into 0.0, which would hash differently."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{name} must be a number, not {value!r}.")
    if not 0 <= to_float(value) < math.inf:
        raise UserError(f"{name} is {value}: choose a finite number that is not negative.")
    return float(value) + 0.0


def _weights(values: object) -> tuple[float, float, float]:
    """Three finite weights >= 0, for (hit, exact, format), at least one of them above 0."""
    if not isinstance(values, tuple | list) or len(values) != 3:
        raise UserError(f"reward_weights must be three numbers (hit, exact, format), not {values!r}.")
    hit, exact, form = (_real("each of reward_weights", value) for value in values)
    if hit + exact + form == 0:
        raise UserError("reward_weights are all 0, so no completion could earn anything: raise at least one.")
    return hit, exact, form


def _extra(pairs: object) -> Extra:
    """The extra settings sorted by name, each name once."""
    if not isinstance(pairs, tuple | list) or not all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs):
        raise UserError(f"extra must be a tuple of (name, value) pairs, not {pairs!r}.")
    names = [name for name, _ in pairs]
    if not all(isinstance(name, str) and name for name in names):
        raise UserError(f"every name in extra must be a non-empty text, not {names!r}.")
    if len(set(names)) < len(names):
        raise UserError(f"extra names a setting twice ({', '.join(sorted(names))}): keep one of each.")
    return tuple(sorted((name, _extra_value(name, value)) for name, value in pairs))


def _extra_value(name: str, value: object) -> float | int | str:
    """One extra value; 2.0 becomes 2, because the two compare equal and so must hash equal."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"the extra setting {name!r} must be a number or a text, not {value!r}.")
    number = int(value) if isinstance(value, Integral) else to_float(value)
    if not abs(number) <= LARGEST_WHOLE:
        raise UserError(f"the extra setting {name!r} is {value}: choose a number of at most {LARGEST_WHOLE}.")
    return int(number) if number == int(number) else number


def _check_texts(spec: RunSpec) -> None:
    """Check the fields that are not numbers."""
    if not isinstance(spec.freeze_vision, bool):
        raise UserError(f"freeze_vision must be True or False, not {spec.freeze_vision!r}.")
    if not isinstance(spec.base, str) or not spec.base:
        raise UserError(f"base must name the model to start from, such as 'shipped', not {spec.base!r}.")
    if spec.source != "" and not (isinstance(spec.source, str) and _RUN_NAME.fullmatch(spec.source)):
        raise UserError(f"source must be a run's name, <arm>-<seed>-<10 hex digits>, not {spec.source!r}.")


def _check_geometry(spec: RunSpec) -> None:
    """A puzzle needs two tiles, each at least one pixel wide and high."""
    if spec.rows * spec.cols < 2:
        raise UserError("a puzzle of 1 x 1 has one tile and nothing to solve: raise rows or cols.")
    if spec.size < max(spec.rows, spec.cols):
        raise UserError(f"size {spec.size} is too small for {spec.rows} x {spec.cols} tiles: use more pixels.")


def _check_arm_rules(spec: RunSpec) -> None:
    """Refuse settings under which the named arm would not be what its name says."""
    if spec.temperature == 0:
        raise UserError("temperature is 0: sampling needs a temperature above 0, usually 1.")
    if spec.arm == "base":
        if spec.steps:
            raise UserError(f"the base arm trains on nothing, but steps is {spec.steps}: set steps to 0.")
        return
    if spec.steps == 0 or spec.learning_rate == 0:
        raise UserError(f"arm {spec.arm} trains: steps and learning_rate must both be above 0.")
    if spec.arm in RFT_ARMS and spec.group_size < 2:
        raise UserError("a group of 1 has no spread, so every advantage is 0: set group_size to 2 or more.")
    if spec.arm in ("sft-kl", "distill") and spec.beta == 0:
        raise UserError(f"arm {spec.arm} has a KL term, but beta is 0: set beta above 0.")
    if spec.arm == "distill" and spec.lora_rank:
        raise UserError("distill has no LoRA variant, whose reference model is its own base: set lora_rank to 0.")
    if spec.arm == "rft-no-kl" and spec.beta > 0:
        raise UserError(f"arm {spec.arm} has no KL term, but beta is {spec.beta}: set beta to 0, or the arm to rft.")
    if spec.arm in SOURCE_ARMS and not spec.source:
        raise UserError(f"arm {spec.arm} learns from another run: give that run's name as source.")


def _check_keys(values: Mapping[str, object]) -> None:
    """Refuse keys that no field has, and absent fields that have no default."""
    known = {field.name for field in fields(RunSpec)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(f"a run spec has no setting {', '.join(unknown)}: remove it or update this project.")
    required = {field.name for field in fields(RunSpec) if field.default is MISSING}
    missing = sorted(required - set(values))
    if missing:
        raise UserError(f"this run spec lacks {', '.join(missing)}: add the missing settings.")


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
    `budgets` holds one line per arm that trains.
    """

    name: str
    model: str
    dtype: str
    seeds: tuple[int, ...]
    rows: int
    cols: int
    size: int
    puzzle_test_size: int
    battery_per_task: int
    group_size: int
    max_completion_length: int
    budgets: tuple[Budget, ...]

    def budget(self, arm: str) -> Budget:
        """The table's line for `arm`. Raises `UserError` for an unknown arm or one without a line."""
        _check_arm(arm)
        if arm == "base":
            return Budget("base", 0, 1, 0.0)
        for line in self.budgets:
            if line.arm == arm:
                return line
        raise UserError(f"profile {self.name} has no budget for arm {arm}: add a line to its table in profiles.py.")


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

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "smoke": Profile(
            name="smoke",
            model="shipped",
            dtype="float32",
            seeds=(0,),
            rows=2,
            cols=2,
            size=64,
            puzzle_test_size=16,
            battery_per_task=4,
            group_size=4,
            max_completion_length=32,
            budgets=_SMOKE_BUDGETS,
        ),
        "cpu": Profile(
            name="cpu",
            model="shipped",
            dtype="float32",
            seeds=(0, 1, 2, 3, 4),
            rows=2,
            cols=2,
            size=64,
            puzzle_test_size=500,
            battery_per_task=40,
            group_size=8,
            max_completion_length=32,
            budgets=_CPU_BUDGETS,
        ),
        # The model merges 2 x 2 patches of 14 pixels, so a side of 252 = 3 x 84 has whole patches per tile.
        "gpu": Profile(
            name="gpu",
            model="Qwen/Qwen2.5-VL-3B-Instruct",
            dtype="bfloat16",
            seeds=(0, 1, 2),
            rows=3,
            cols=3,
            size=252,
            puzzle_test_size=1000,
            battery_per_task=500,
            group_size=8,
            max_completion_length=512,
            budgets=_GPU_BUDGETS,
        ),
    }
)


def get_profile(name: str) -> Profile:
    """The profile called `name`. Raises `UserError` for any name but smoke, cpu and gpu."""
    if not isinstance(name, str) or name not in PROFILES:
        raise UserError(f"there is no profile {name!r}: choose one of {', '.join(PROFILES)}.")
    return PROFILES[name]


def specs(profile: Profile, arms: Iterable[str] = ARMS) -> list[RunSpec]:
    """The runs of `arms` under `profile`, seed by seed, each seed in design order.

    Going seed by seed completes one seed of every arm first; design order puts a source run before those it
    feeds (a source that was not asked for is named, not added). The base model is the same for every seed, so
    it gets one run. Raises `UserError` for an unknown arm or one without a budget.
    """
    asked = [arms] if isinstance(arms, str) else list(arms)
    for arm in asked:
        profile.budget(arm)
    ordered = [arm for arm in ARMS if arm in asked]
    first = profile.seeds[0]
    return [_spec(profile, arm, seed) for seed in profile.seeds for arm in ordered if arm != "base" or seed == first]


def _spec(profile: Profile, arm: str, seed: int) -> RunSpec:
    """The spec of one arm and seed, its source named by the same profile and seed."""
    line = profile.budget(arm)
    # float32 is the rule and stays unsaid; another precision changes the run, so it must change the hash.
    dtype = () if profile.dtype == "float32" else (("dtype", profile.dtype),)
    return RunSpec(
        arm=arm,
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
        source=_spec(profile, SOURCE_ARMS[arm], seed).name if arm in SOURCE_ARMS else "",
        extra=line.extra + dtype,
    )


def checkpoint_steps(total: int, per_octave: int = 2) -> tuple[int, ...]:
    """Steps at which to look at a run of `total` steps: 0, then log-spaced, always ending in `total`.

    Forgetting happens early, so the schedule is dense at the start: `per_octave` steps per doubling, so that
    100 gives 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 100. Raises `UserError` for a negative or
    fractional argument.
    """
    total = _whole("total", total, 0)
    per_octave = _whole("per_octave", per_octave, 1)
    octaves = total.bit_length()
    spaced = {round(2 ** (k / per_octave)) for k in range(octaves * per_octave + 1)}
    return tuple(sorted({0, total} | {step for step in spaced if step < total}))
