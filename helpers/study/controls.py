"""The control runs: which there are, like which arm of the study each is trained, and in what order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from helpers.errors import UserError
from helpers.study.arms import REGISTRY
from helpers.study.profiles import Profile, specs
from helpers.study.spec import RunSpec

_RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
_SLOW_FACTOR = 0.3  # a run at this share of the rate gets twice the steps, so that it may reach the same accuracy
_LORA_RANK, _LORA_FACTOR = 8, 5.0  # adapters start from zero and want a higher rate
_SETTINGS = {
    "sft-rates": "the size of a step: SFT at five learning rates over two decades",
    "lora": "the room for change: low-rank adapters instead of all weights",
    "rft-rates": "the size of a step: RFT at five learning rates over two decades",
}
"""Groups that change a setting of the study's arms; every other group is one arm."""


_PRIORITY = (
    "sft-rates", "sft-stream", "sft-voice", "self-sft", "lora", "sft-kl", "sft-replay", "iterative-sft", "sft-oracle",
    "rft-rates", "rft-no-kl", "distill", "reinforce-1-0", "rft-stale",
)  # fmt: skip


GROUPS: Mapping[str, str] = MappingProxyType(
    {name: _SETTINGS.get(name) or REGISTRY[name].differs_in for name in _PRIORITY}
)
"""What each group isolates, in order of priority."""


SMOKE_GROUPS = ("sft-kl",)  # what a smoke test trains of them
SMOKE_ARMS = ("rft", "sft-answer", "sft-expert", *SMOKE_GROUPS)  # and what it measures
SMOKE_ARM = ("sft-answer",)  # what it measures in ways that only the study's arms are measured in


@dataclass(frozen=True)
class Control:
    """One control run: its group (a key of `GROUPS`, which says what it isolates), a short name, and its spec."""

    group: str
    label: str
    spec: RunSpec

    @property
    def isolates(self) -> str:
        """What differs from the study, in words."""
        return GROUPS[self.group]


def control_specs(profile: Profile, groups: Iterable[str] = tuple(GROUPS)) -> list[Control]:
    """The control runs of a profile, seed by seed, each seed in order of priority.

    Every control has the learning rate, steps and batch of the arm that it differs from, unless these are what it
    varies. The study's own rate is among the sweep's five and is not listed again. Raises UserError for an unknown
    group.
    """
    asked = list(groups)
    unknown = sorted(set(asked) - set(GROUPS))
    if unknown:
        raise UserError(f"There is no group of controls {', '.join(unknown)}: choose from {', '.join(GROUPS)}.")
    found = []
    for seed in profile.seeds:
        known = {spec.arm: spec for spec in specs(replace(profile, seeds=(seed,)))}
        found += [control for group in GROUPS if group in asked for control in _group(group, known)]
    return found


def _group(group: str, known: Mapping[str, RunSpec]) -> list[Control]:
    """The controls of one group and seed; `known`: the seed's specs by arm."""
    if group == "sft-rates":
        return [c for arm in ("sft-answer", "sft-rollout") for c in _rates(group, known[arm])]
    if group == "rft-rates":
        return _rates(group, known["rft"])
    if group == "lora":
        return [_lora(group, known[arm]) for arm in ("sft-answer", "sft-rollout")]
    like = known[REGISTRY[group].differs_from]
    same = {"steps": like.steps, "learning_rate": like.learning_rate, "batch_size": like.batch_size}
    return [Control(group, group, replace(known[group], **same))]


def _rates(group: str, spec: RunSpec) -> list[Control]:
    """One arm at the other learning rates of the sweep."""
    found = []
    for factor in _RATE_FACTORS:
        rate = float(f"{spec.learning_rate * factor:.3g}")
        steps = spec.steps * (2 if factor == _SLOW_FACTOR else 1)
        if factor != 1:
            found.append(Control(group, f"{spec.arm} at {rate:g}", replace(spec, learning_rate=rate, steps=steps)))
    return found


def _lora(group: str, spec: RunSpec) -> Control:
    """One arm with adapters on the language model's linear layers."""
    rate = float(f"{spec.learning_rate * _LORA_FACTOR:.3g}")
    return Control(group, f"{spec.arm}, LoRA", replace(spec, lora_rank=_LORA_RANK, learning_rate=rate))
