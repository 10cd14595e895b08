"""What one run works with: its settings, its base model, its boards and its corpus."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import ProcessorMixin

from helpers.model import build
from helpers.model.flops import Tally
from helpers.model.forward import Model
from helpers.study.bases import BASES
from helpers.study.checkpoints import checkpoint_at
from helpers.study.records import Run
from helpers.study.spec import RunSpec
from helpers.train.settings import Settings
from helpers.world.boards import Boards, Corpus, Graded


@dataclass
class Engine:
    """What one run works with. `boards` are what it samples for, `corpus` is what it learns from where that is written
    before it begins; the base has neither. `tally` counts what the step that is under way has cost, `writing` what the
    corpus did; `done` are the steps that a resumed run has behind it.
    """

    spec: RunSpec
    settings: Settings
    model: Model
    processor: ProcessorMixin
    run: Run
    boards: Boards | Graded | None = field(default=None, repr=False)
    corpus: Corpus | None = field(default=None, repr=False)
    tally: Tally = field(default_factory=Tally, repr=False)
    writing: Tally = field(default_factory=Tally, repr=False)
    done: int = 0


def identity_columns(spec: RunSpec, step: int) -> dict[str, Any]:
    """The columns that say which run and step a row belongs to; `samples` counts boards seen."""
    return {"run": spec.name, "arm": spec.arm, "seed": spec.seed, "step": step, "samples": step * spec.batch_size}


def update_norm(model: Model, base: dict[str, torch.Tensor]) -> float:
    """L2 norm of the change of all weights since `base`, the run's start; with LoRA of the products B A it adds."""
    lora = [m.get_delta_weight(name) for m in model.modules() if hasattr(m, "lora_A") for name in m.lora_A]
    parameters = {n: p.detach() for n, p in model.named_parameters() if n in base and "lora_" not in n}
    squares = [((p - base[n]) ** 2).sum() for n, p in parameters.items()] + [(d.detach() ** 2).sum() for d in lora]
    return float(sum(squares)) ** 0.5


def load_base(spec: RunSpec) -> build.Loaded:
    """The base of a run."""
    return build.load(spec.base, dtype(spec))


def load_start(spec: RunSpec, root: Path) -> build.Loaded:
    """The model that a run starts from: its base, or the end of the run in `root` that it comes after.

    Raises UserError where that run has no checkpoint.
    """
    return build.load(start_of(spec, root), dtype(spec)) if spec.after else load_base(spec)


def start_of(spec: RunSpec, root: Path) -> Path:
    """The folder with the weights that a run starts from. Raises UserError as `load_start`."""
    return checkpoint_at(root / spec.after / "checkpoints") if spec.after else BASES.get(spec.base, Path(spec.base))


def dtype(spec: RunSpec) -> str:
    """Name of the number format a run computes in: float32 unless its profile says otherwise."""
    return str(spec.settings.get("dtype", "float32"))
