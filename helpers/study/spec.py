"""One frozen `RunSpec` per run; its hash is the run's name, so no old record can be mistaken for a new one."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from numbers import Integral, Real
from types import MappingProxyType

from helpers.errors import UserError
from helpers.study.arms import REGISTRY, get_arm
from helpers.study.fixed import rules
from helpers.world.answers import room, shortest
from helpers.world.forms import ASKED, Asked, written_as
from helpers.world.puzzles import PuzzleSpec, read_grid

Extra = tuple[tuple[str, float | int | str], ...]


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
    ("max_completion_length", 0),
)


_LATER: Mapping[str, object] = MappingProxyType({"asked": "plain", "turned": False, "pictures": ""})
"""Fields that came after runs were recorded, with the value that those runs had."""
STAGE_SHARE = 0.125  # of the steps that a run may take: an easier stage of its curriculum, unless the spec says more
_REAL_FIELDS = ("learning_rate", "beta", "weight_decay", "temperature")
_ALBUM_NAME = re.compile(r"[0-9a-f]{10}|")
_RUN_NAME = re.compile(r"(?P<arm>.+)-\d+-[0-9a-f]{10}")


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides what one run does; its hash is the run's identity.

    `batch_size` counts prompts per step for arms that sample (each prompt gets `group_size` completions) and
    samples per step for arms that learn from a corpus. `size` is the board's side in pixels, `beta` the
    weight of the KL term to the base model, `reward_weights` those of (hit, exact, format). `source` names
    the run whose rollouts or model feed this one. `extra` holds (name, value) settings of single arms, or `after`: the
    name of a run from whose end this one goes on. `asked` is the form that prompts ask for, of the puzzle and of the
    prior tasks that are evaluated. `turned`: the puzzle's tiles are turned, not mixed.
    `pictures`: the name of the album that boards are cut from, to learn from and to be tested on; drawn scenes where
    it is empty.

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
    max_completion_length: int = 0
    base: str = "shipped"
    source: str = ""
    extra: Extra = ()
    asked: Asked = "plain"
    turned: bool = False
    pictures: str = ""

    def __post_init__(self) -> None:
        """Bring every field to its one form, then check the fields against each other."""
        get_arm(self.arm)
        for name, least in _WHOLE_FIELDS:
            self._settle(name, whole_number(name, getattr(self, name), least))
        for name in _REAL_FIELDS:
            self._settle(name, _real(name, getattr(self, name)))
        self._settle("reward_weights", _weights(self.reward_weights))
        self._settle("extra", _extra(self.extra))
        _check_texts(self)
        _check_geometry(self)
        if not self.max_completion_length:
            self._settle("max_completion_length", room(self.largest.tiles))
        _check_room(self)
        _check_arm_rules(self)
        _check_curriculum(self)

    def _settle(self, name: str, value: object) -> None:
        """Set one field of a frozen instance while it is being made."""
        object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, object]:
        """Every field by name, without those of `_LATER` at their default: specs from before them keep their hash."""
        return {name: value for name, value in asdict(self).items() if _LATER.get(name, ...) != value}

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII only, shortest form of every number."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
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
    def written(self) -> str:
        """The form of what the run learns to write, as its arm says: think, direct or sentences.

        Bare answers behind a `filler` (a think that says nothing) are written as a think.
        """
        own = get_arm(self.arm).written
        return "think" if "filler" in self.settings else written_as(self.asked) if own == "asked" else own

    @property
    def grid(self) -> str:
        """Rows and columns in words: "2 x 2", and whether the tiles are turned."""
        return f"{self.rows} x {self.cols}" + (", turned" if self.turned else "")

    @property
    def puzzle(self) -> PuzzleSpec:
        """The puzzles that it learns."""
        return PuzzleSpec(self.rows, self.cols, self.size, turned=self.turned)

    @property
    def after(self) -> str:
        """The run from whose end this one goes on; "" where it starts from its base."""
        return str(self.settings.get("after", ""))

    @property
    def needs(self) -> frozenset[str]:
        """The runs that must be finished before this one begins."""
        return frozenset({self.source, self.after} - {""})

    @property
    def easier(self) -> tuple[PuzzleSpec, ...]:
        """The puzzles of the stages before the run's own, in their order; none without a `curriculum`."""
        return tuple(map(read_grid, str(self.settings.get("curriculum", "")).split()))

    @property
    def largest(self) -> PuzzleSpec:
        """Those of the run's puzzles that have the most tiles: a completion must have room for their answer."""
        return max((self.puzzle, *self.easier), key=lambda puzzle: puzzle.tiles)

    @property
    def starts(self) -> tuple[int, ...]:
        """How many steps lie before each stage of the run, its own being the last; (0,) without a curriculum."""
        # A share of the steps and not a goal: which board stands in which row then hangs on the spec alone. So the rows
        # are laid out before the run begins, a resumed run reads the same ones, and a slower run, which may take more
        # steps, has longer stages. To pass on at a goal the data would have to change under TRL's loader, which reads
        # ahead, and two runs of a front would differ in what they see.
        at_once = int(self.settings.get("steps_per_generation", 1))  # what is drawn at once is of one stage
        each = max(1, round(self.steps * float(self.settings.get("stage_share", STAGE_SHARE)) / at_once)) * at_once
        return tuple(each * stage for stage in range(len(self.easier) + 1))

    @property
    def mark(self) -> float:
        """Exact match at which the run is examined in every way, and compared with others: less if it ends at less."""
        return min(rules().at, float(self.settings.get("until", 0)) or rules().at)

    @property
    def settings(self) -> dict[str, float | int | str]:
        """`extra` as a dictionary."""
        return dict(self.extra)


def whole_number(name: str, value: object, least: int) -> int:
    """`value` as an int of at least `least`; accepts NumPy integers, refuses booleans and floats."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{name} must be a whole number, not {value!r}: write it without a decimal point.")
    if not least <= int(value) <= LARGEST_WHOLE:
        raise UserError(f"{name} is {value}: choose a whole number from {least} to {LARGEST_WHOLE}.")
    return int(value)


def _to_float(value: Real) -> float:
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
    if not 0 <= _to_float(value) < math.inf:
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
    number = int(value) if isinstance(value, Integral) else _to_float(value)
    if not abs(number) <= LARGEST_WHOLE:
        raise UserError(f"the extra setting {name!r} is {value}: choose a number of at most {LARGEST_WHOLE}.")
    return int(number) if number == int(number) else number


def _check_texts(spec: RunSpec) -> None:
    """Check the fields that are not numbers."""
    for name in ("freeze_vision", "turned"):
        if not isinstance(getattr(spec, name), bool):
            raise UserError(f"{name} must be True or False, not {getattr(spec, name)!r}.")
    if not isinstance(spec.base, str) or not spec.base:
        raise UserError(f"base must name the model to start from, such as 'shipped', not {spec.base!r}.")
    if not isinstance(spec.pictures, str) or not _ALBUM_NAME.fullmatch(spec.pictures):
        raise UserError(f"pictures must be the name of kept pictures, 10 hex digits, not {spec.pictures!r}.")
    if spec.asked not in ASKED:
        raise UserError(f"asked must be one of {', '.join(ASKED)}, not {spec.asked!r}.")
    for name, run in (("source", spec.source), ("after", spec.settings.get("after", ""))):
        named = _RUN_NAME.fullmatch(run) if isinstance(run, str) else None
        if run != "" and (named is None or named["arm"] not in REGISTRY):
            raise UserError(f"{name} must be a run's name, <arm>-<seed>-<10 hex digits>, not {run!r}.")


def _check_geometry(spec: RunSpec) -> None:
    """A puzzle needs two tiles, each at least one pixel wide and high; turned ones are four, and square."""
    if spec.rows * spec.cols < 2:
        raise UserError("a puzzle of 1 x 1 has one tile and nothing to solve: raise rows or cols.")
    if spec.size < max(spec.rows, spec.cols):
        raise UserError(f"size {spec.size} is too small for {spec.rows} x {spec.cols} tiles: use more pixels.")
    _ = spec.puzzle  # says itself why tiles cannot be turned


def _check_room(spec: RunSpec) -> None:
    """An answer must fit into a completion: cut off in the midst it would earn nothing, however right it was."""
    largest = spec.largest
    if spec.max_completion_length < shortest(largest.tiles):
        raise UserError(
            f"max_completion_length is {spec.max_completion_length}, but an answer for {largest.rows} x {largest.cols} "
            f"tiles takes {shortest(largest.tiles)} tokens: raise it, or leave it out."
        )


def _check_arm_rules(spec: RunSpec) -> None:
    """Refuse settings under which the named arm would not be what its entry in the registry says."""
    arm = get_arm(spec.arm)
    if spec.temperature == 0:
        raise UserError("temperature is 0: sampling needs a temperature above 0, usually 1.")
    if not arm.trains:
        if spec.steps:
            raise UserError(f"the base arm trains on nothing, but steps is {spec.steps}: set steps to 0.")
        return
    if spec.steps == 0 or spec.learning_rate == 0:
        raise UserError(f"arm {arm.name} trains: steps and learning_rate must both be above 0.")
    if arm.data == "own" and spec.group_size < 2:
        raise UserError("a group of 1 has no spread, so every advantage is 0: set group_size to 2 or more.")
    if arm.kl == "needed" and spec.beta == 0:
        raise UserError(f"arm {arm.name} has a KL term, but beta is 0: set beta above 0.")
    if arm.kl == "none" and spec.beta > 0:
        raise UserError(f"arm {arm.name} has no KL term, but beta is {spec.beta}: set beta to 0 or change the arm.")
    if spec.lora_rank and not arm.lora:
        raise UserError(f"{arm.name} has no LoRA variant, whose reference model is its own base: set lora_rank to 0.")
    if arm.written == "think" and spec.asked == "direct":
        raise UserError(f"arm {arm.name} writes behind a model's own think: ask for a think, or ask plainly.")
    if arm.written == "sentences" and spec.turned:
        raise UserError(f"arm {arm.name} has no words for tiles that are turned: choose another arm, or mixed tiles.")
    if arm.written == "sentences" and spec.pictures:
        raise UserError(f"arm {arm.name} has no words for pictures of your own: choose another arm, or drawn scenes.")
    if arm.data == "source" and spec.pictures:
        raise UserError(f"arm {arm.name} learns from another run's boards: choose another arm for your own pictures.")
    if "filler" in spec.settings and arm.written != "direct":
        raise UserError(f"arm {arm.name} writes no bare answers that a filler could stand before: leave filler out.")
    if arm.source and not spec.source:
        raise UserError(f"arm {arm.name} learns from another run: give that run's name as source.")
    if arm.source and _RUN_NAME.fullmatch(spec.source)["arm"] != arm.source:
        raise UserError(f"arm {arm.name} learns from a run of {arm.source}, not from {spec.source}: name such a run.")


def _check_curriculum(spec: RunSpec) -> None:
    """A curriculum needs an arm whose boards are its own to choose, and steps for each of its stages."""
    share = spec.settings.get("stage_share", STAGE_SHARE)
    if not spec.easier:
        if {"curriculum", "stage_share"} & set(spec.settings):
            raise UserError("the curriculum names no puzzles: write them as in '2x2@96 2x3@96', or leave it out.")
        return
    if get_arm(spec.arm).data not in ("corpus", "own"):
        raise UserError(f"arm {spec.arm} cannot be taught in stages: leave the curriculum out.")
    if isinstance(share, str) or share <= 0:
        raise UserError(f"stage_share is {share!r}: choose a share of the steps between 0 and 1.")
    if spec.starts[-1] >= spec.steps:
        raise UserError(
            f"the easier stages take {spec.starts[-1]} steps of {spec.steps}: lower stage_share, or add some."
        )


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
