"""The arms: what each one trains on, which sample, which are fed by another run, and how each is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from helpers.errors import UserError

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


STUDY_ARMS = ("base", "rft", "sft-answer", "sft-expert", "sft-rollout", "sft-self")


LineStyle = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class ArmStyle:
    """How one arm looks in every figure: colour, marker and line style each tell it apart on their own."""

    colour: str
    marker: str
    linestyle: LineStyle

    def line(self) -> dict[str, Any]:
        """Keyword arguments for `Axes.plot` and `Axes.errorbar`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.linestyle}


# Okabe-Ito hues; the lighter ones are darkened until they reach 3:1 contrast on white.
ARM_STYLE: Mapping[str, ArmStyle] = MappingProxyType(
    {
        "base": ArmStyle("#333333", "o", ":"),
        "rft": ArmStyle("#0072B2", "s", "-"),
        "sft-answer": ArmStyle("#A84300", "^", "--"),
        "sft-expert": ArmStyle("#C58900", "v", "-."),
        "sft-rollout": ArmStyle("#007A59", "D", (0, (7, 2))),
        "sft-self": ArmStyle("#CC79A7", "P", (0, (3, 1, 1, 1, 1, 1))),
        "self-sft": ArmStyle("#8A4FA3", "X", (0, (5, 1))),
        "iterative-sft": ArmStyle("#4F5BD5", "*", (0, (2, 1))),
        "reinforce-1-0": ArmStyle("#2A8FBD", "p", (0, (9, 2, 2, 2))),
        "rft-no-kl": ArmStyle("#003E73", "h", (0, (4, 2, 1, 2))),
        "sft-kl": ArmStyle("#E0503C", "<", (0, (1, 1))),
        "sft-replay": ArmStyle("#7D6608", ">", (0, (6, 1, 1, 1))),
        "distill": ArmStyle("#7A7A7A", "d", (0, (3, 3))),
        "sft-stream": ArmStyle("#3B8754", "H", (0, (8, 1, 2, 1))),
        "sft-voice": ArmStyle("#B0568F", "8", (0, (2, 2))),
        "sft-oracle": ArmStyle("#6B3FA0", "$o$", (0, (5, 2, 1, 2, 1, 2))),
        "rft-stale": ArmStyle("#5B7A99", "$+$", (0, (10, 3))),
    }
)


def arm_style(arm: str) -> ArmStyle:
    """The look of `arm`. Raises UserError for an arm without one."""
    if arm not in ARM_STYLE:
        raise UserError(f"The arm {arm!r} has no style: use one of {', '.join(ARM_STYLE)}.")
    return ARM_STYLE[arm]
