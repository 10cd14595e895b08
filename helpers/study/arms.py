"""The registry of arms: one entry says all that the suite needs to know of one way of training, but how it is done.

How an arm is trained stands in `helpers.train.recipes`, how long in the tables of `helpers.study.profiles`. Nothing
else names an arm to treat it otherwise: whoever needs to tell arms apart asks for what an entry says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from helpers.errors import UserError
from helpers.world.answers import room

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


@dataclass(frozen=True)
class Arm:
    """One way of training. Its name is its label in figures and tables.

    `family`: which trainer ("sft", "rft", or "none" for the base). `data`: what it learns from: a "corpus" that is
    fixed before the run begins, "replay" (a corpus with prior-task samples among it), its "own" samples at every step,
    "drawn" (its own correct samples, drawn every few steps), or "source": what another run drew, step by step.
    `source`: the arm of the run that feeds it. `differs_from`: the arm that it differs from in one respect,
    `differs_in`; controls get that arm's steps, rate and batch. `kl`: whether beta must be above 0
    ("needed"), may be, or must be 0 ("none"); `lora`: whether it can be trained by adapters.

    `stand_in`: what samples of it are where no model is loaded to write them: what its recipe writes by "rules" alone,
    or of the completions that RFT recorded the first "groups" with a signal, "late" or "early" correct ones, or
    "thinks" with the true placement. `reference`: whether the runs of its seed are rescaled to its update's length, and
    (of RFT) joined with its end by a line; `recovered`: whether it is measured how what it forgot comes back.
    `written`: the form of what it learns to write: what the prompt asks for ("asked"), the answer alone ("direct"), a
    model's own think ("think") or the teacher's voice ("sentences"). `spoken`: what it is called beside a reader, where
    its name alone would say little.
    """

    name: str
    description: str
    family: Literal["none", "sft", "rft"]
    data: Literal["", "corpus", "replay", "own", "drawn", "source"]
    look: ArmStyle = field(repr=False)
    source: str = ""
    differs_from: str = ""
    differs_in: str = ""
    in_study: bool = False
    kl: Literal["needed", "may be", "none"] = "may be"
    lora: bool = True
    stand_in: Literal["", "rules", "groups", "late", "early", "thinks"] = ""
    reference: bool = False
    recovered: bool = False
    written: Literal["asked", "direct", "think", "sentences"] = "asked"
    spoken: str = ""

    @property
    def trains(self) -> bool:
        """Whether it changes any weight: all but the base do."""
        return self.family != "none"

    @property
    def streamed(self) -> bool:
        """Whether what it learns from at each step stands in a table of completions, its own or its source's."""
        return self.data in ("own", "source")


# fmt: off
# Okabe-Ito hues; the lighter ones are darkened until they reach 3:1 contrast on white.
_ENTRIES = (
    Arm("base", "the base model, trained on nothing: the start", "none", "", ArmStyle("#333333", "o", ":"),
        in_study=True),
    Arm("rft", "GRPO on hit rate + exact match + format, with a KL term to the base model: the paper's RFT",
        "rft", "own", ArmStyle("#0072B2", "s", "-"), in_study=True, stand_in="groups", reference=True,
        spoken="RFT"),
    Arm("sft-answer", "SFT on the bare true placement", "sft", "corpus", ArmStyle("#A84300", "^", "--"),
        written="direct", in_study=True, stand_in="rules", reference=True, recovered=True,
        spoken="SFT on bare answers"),
    Arm("sft-expert", "SFT on the true placement with an outside teacher's reasoning, in its own voice",
        "sft", "corpus", ArmStyle("#C58900", "v", "-."), in_study=True, written="sentences", stand_in="rules",
        differs_from="sft-answer", differs_in="a teacher's reasoning before the placement"),
    Arm("sft-rollout", "SFT on correct rollouts of the RFT model: the decisive arm",
        "sft", "corpus", ArmStyle("#007A59", "D", (0, (7, 2))), source="rft", in_study=True, stand_in="late",
        differs_from="sft-expert", differs_in="the writer: the RFT model instead of a teacher",
        spoken="SFT on RFT's rollouts"),
    Arm("sft-self", "SFT on reasoning from a model after a short RFT, with the true placement",
        "sft", "corpus", ArmStyle("#CC79A7", "P", (0, (3, 1, 1, 1, 1, 1))), source="rft", in_study=True,
        written="think", stand_in="thinks", differs_from="sft-rollout",
        differs_in="the writer: a model that RFT has hardly trained"),
    Arm("self-sft", "SFT on the base model's own correct samples",
        "sft", "corpus", ArmStyle("#8A4FA3", "X", (0, (5, 1))), stand_in="early", differs_from="sft-rollout",
        differs_in="the source: correct samples of the base instead of a teacher's or RFT's"),
    Arm("iterative-sft", "SFT on correct samples regenerated from the current model every few steps",
        "sft", "drawn", ArmStyle("#4F5BD5", "*", (0, (2, 1))), differs_from="sft-rollout",
        differs_in="on-policy data under SFT's loss: samples of the current model"),
    Arm("reinforce-1-0", "REINFORCE on correct samples only: reward 0 or 1, no baseline",
        "rft", "own", ArmStyle("#2A8FBD", "p", (0, (9, 2, 2, 2))), differs_from="rft",
        differs_in="negative gradients: taken away (reward 0 or 1, no baseline)"),
    Arm("rft-no-kl", "RFT without the KL term", "rft", "own", ArmStyle("#003E73", "h", (0, (4, 2, 1, 2))), kl="none",
        differs_from="rft", differs_in="RFT's own KL term: taken away"),
    Arm("sft-kl", "SFT on the bare true placement with a KL term to the base model",
        "sft", "corpus", ArmStyle("#E0503C", "<", (0, (1, 1))), kl="needed", differs_from="sft-answer",
        written="direct", differs_in="regularisation instead of data: bare answers with a KL term to the base"),
    Arm("sft-replay", "SFT on the bare true placement mixed with prior-task samples",
        "sft", "replay", ArmStyle("#7D6608", ">", (0, (6, 1, 1, 1))), written="direct", differs_from="sft-answer",
        differs_in="the usual remedy: bare answers with prior-task samples among them"),
    Arm("distill", "on-policy distillation: the RFT model's probabilities on the model's own samples, no reward",
        "rft", "own", ArmStyle("#7A7A7A", "d", (0, (3, 3))), source="rft", kl="needed", lora=False, differs_from="rft",
        differs_in="a teacher's probabilities instead of rewards, on the model's own samples"),
    Arm("sft-stream", "SFT on the very correct rollouts that RFT drew, step by step in its order",
        "sft", "source", ArmStyle("#3B8754", "H", (0, (8, 1, 2, 1))), source="rft", differs_from="rft",
        differs_in="the loss: RFT's own correct rollouts, in RFT's order, under SFT's loss"),
    Arm("sft-voice", "SFT on the base model's own think with the true placement behind it",
        "sft", "corpus", ArmStyle("#B0568F", "8", (0, (2, 2))), written="think", differs_from="sft-self",
        differs_in="the words: the true placement behind the base's own think"),
    Arm("sft-oracle", "SFT on the correct completion that is most probable under the base, of many",
        "sft", "corpus", ArmStyle("#6B3FA0", "$o$", (0, (5, 2, 1, 2, 1, 2))), written="think", differs_from="sft-self",
        differs_in="probability: the correct completions that the base finds most probable"),
    Arm("rft-stale", "RFT on rollouts that are drawn for several steps at a time",
        "rft", "own", ArmStyle("#5B7A99", "$+$", (0, (10, 3))), differs_from="rft",
        differs_in="freshness: rollouts drawn for several steps at a time"),
    Arm("distill-degraded", "on-policy distillation from a model that SFT on bare answers made, and made forget",
        "rft", "own", ArmStyle("#8C564B", "$d$", (0, (3, 1, 1, 3))), source="sft-answer", kl="needed", lora=False,
        differs_from="distill", differs_in="the teacher: a model that has forgotten, on the model's own samples"),
    Arm("sft-dream", "SFT on the bare true placement with a KL term to the base at text that the base itself wrote",
        "sft", "corpus", ArmStyle("#1F8A8A", "$z$", (0, (1, 2))), kl="needed", written="direct",
        differs_from="sft-answer", differs_in="a KL term to the base at the base's own answers to prior prompts"),
    Arm("sft-dft", "SFT on the bare true placement, each token's loss times its own probability",
        "sft", "corpus", ArmStyle("#B0800A", "$f$", (0, (4, 1, 4, 3))), written="direct", kl="none",
        differs_from="sft-answer", differs_in="the loss: improbable tokens count for less (Dynamic Fine-Tuning)"),
    Arm("rft-entropy", "RFT with an entropy bonus in the place of the KL term",
        "rft", "own", ArmStyle("#2E5E2E", "$e$", (0, (7, 1, 1, 1, 1, 1))), kl="none", differs_from="rft-no-kl",
        differs_in="an entropy bonus, where RFT has its KL term"),
    Arm("rft-random", "RFT with a reward that means nothing, without the KL term",
        "rft", "own", ArmStyle("#6A6A9A", "$?$", (0, (2, 4))), kl="none", differs_from="rft-no-kl",
        differs_in="the reward: drawn at random, whatever is written"),
)
# fmt: on

REGISTRY: Mapping[str, Arm] = MappingProxyType({arm.name: arm for arm in _ENTRIES})
"""Every arm by name, in the design's order: a source comes before the arms it feeds."""


ARMS: tuple[str, ...] = tuple(REGISTRY)
SOURCE_ARM = next(arm.source for arm in _ENTRIES if arm.source)  # RFT, whose runs feed others and write the probes
RFT_ARMS: tuple[str, ...] = tuple(arm.name for arm in _ENTRIES if arm.family == "rft")
SFT_ARMS: tuple[str, ...] = tuple(arm.name for arm in _ENTRIES if arm.family == "sft")
STUDY_ARMS: tuple[str, ...] = tuple(arm.name for arm in _ENTRIES if arm.in_study)
ARM_DESCRIPTIONS: Mapping[str, str] = MappingProxyType({arm.name: arm.description for arm in _ENTRIES})
ARM_STYLE: Mapping[str, ArmStyle] = MappingProxyType({arm.name: arm.look for arm in _ENTRIES})


def get_arm(name: object) -> Arm:
    """The entry of an arm. Raises UserError for a name that is no arm."""
    if not isinstance(name, str) or name not in REGISTRY:
        raise UserError(f"there is no arm {name!r}: choose one of {', '.join(REGISTRY)}.")
    return REGISTRY[name]


def room_of(arm: str, asked: str, tiles: int) -> int:
    """Tokens that a completion of an arm may take; a model that is asked for full sentences needs a teacher's room."""
    return room(tiles, outside="sentences" in (get_arm(arm).written, asked))


def arm_style(arm: str) -> ArmStyle:
    """The look of `arm`. Raises UserError for a name that is no arm."""
    return get_arm(arm).look
