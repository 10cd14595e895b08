"""What one run works with: its settings, its base model, and its marks along the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import ProcessorMixin

from helpers.model import build
from helpers.model.evaluate import score_battery, score_puzzles
from helpers.model.flops import Tally
from helpers.model.forward import Model
from helpers.model.processor import BASES
from helpers.study.profiles import Profile
from helpers.study.records import Run
from helpers.study.spec import RunSpec
from helpers.world import puzzles
from helpers.world.boards import Boards, Corpus, held_out_boards


@dataclass(frozen=True)
class Settings:
    """How a run is evaluated and executed; nothing here changes what it learns.

    `puzzle_tests` held-out boards and `battery` samples per prior task at each checkpoint; `final_tests` and
    `final_battery` at the last one and for the base model. `fast` packs forward passes and shares prefixes.
    `groups_at_once`: groups of completions whose gradients are taken together, all of a step's where it is 0; with a
    vocabulary of 150,000 the logits of a whole step do not fit.
    """

    puzzle_tests: int = 250
    final_tests: int = 500
    battery: int = 20
    final_battery: int = 200
    fast: bool = True
    per_octave: int = 2
    groups_at_once: int = 0


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
    boards: Boards | None = field(default=None, repr=False)
    corpus: Corpus | None = field(default=None, repr=False)
    tally: Tally = field(default_factory=Tally, repr=False)
    writing: Tally = field(default_factory=Tally, repr=False)
    done: int = 0


def puzzle_spec(spec: RunSpec) -> puzzles.PuzzleSpec:
    """The puzzles of a run."""
    return puzzles.PuzzleSpec(rows=spec.rows, cols=spec.cols, size=spec.size)


def evaluate(engine: Engine, step: int, full: bool) -> list[dict[str, Any]]:
    """Rows of the evaluations table for the model as it is: the puzzle, then every prior task."""
    spec, settings = engine.spec, engine.settings
    engine.model.eval()
    boards, n = (settings.final_tests, settings.final_battery) if full else (settings.puzzle_tests, settings.battery)
    tests = held_out_boards(puzzle_spec(spec), boards)
    solved = score_puzzles(engine.model, engine.processor, tests, spec.max_completion_length)
    marks = [("puzzle", measure, value, boards) for measure, value in solved.items()]
    for task, result in score_battery(engine.model, engine.processor, n).items():
        marks += [(task, measure, value, n) for measure, value in result.items()]
    engine.model.train()
    common = identity_columns(spec, step)
    return [common | {"task": t, "measure": m, "value": v, "n": c} for t, m, v, c in marks]


def identity_columns(spec: RunSpec, step: int) -> dict[str, Any]:
    """The columns that say which run and step a row belongs to; `samples` counts boards seen."""
    return {"run": spec.name, "arm": spec.arm, "seed": spec.seed, "step": step, "samples": step * spec.batch_size}


def update_norm(model: Model, base: dict[str, torch.Tensor]) -> float:
    """L2 norm of the change of all weights since the base model; with LoRA that of the products B A it adds."""
    lora = [m.get_delta_weight(name) for m in model.modules() if hasattr(m, "lora_A") for name in m.lora_A]
    parameters = {n: p.detach() for n, p in model.named_parameters() if n in base and "lora_" not in n}
    squares = [((p - base[n]) ** 2).sum() for n, p in parameters.items()] + [(d.detach() ** 2).sum() for d in lora]
    return float(sum(squares)) ** 0.5


def load_base(spec: RunSpec) -> build.Loaded:
    """The base that a run starts from."""
    return build.load(spec.base, dtype(spec))


def dtype(spec: RunSpec) -> str:
    """Name of the number format a run computes in: float32 unless its profile says otherwise."""
    return str(spec.settings.get("dtype", "float32"))


def settings(profile: Profile) -> Settings:
    """Evaluation settings of a profile: the same prior items at every step, or drops would be offset."""
    items = profile.battery_per_task
    groups = 0 if profile.model in BASES else 1
    return Settings(profile.puzzle_test_size // 4, profile.puzzle_test_size, items, items, groups_at_once=groups)
