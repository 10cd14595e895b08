"""The update itself: its size, its sparsity, its rank, and the models between base and tuned."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel

from helpers.errors import UserError
from helpers.measure.linear import Weights
from helpers.measure.walks import layer_of
from helpers.model import build
from helpers.model.build import Loaded
from helpers.model.forward import Model

KINDS = {"attn": "attention", "mlp": "mlp", "norm": "norms", "embed": "embedding"}


def load_tuned(folder: str | Path, base: str | Path) -> Loaded:
    """(model in evaluation mode, processor) of a checkpoint; LoRA adapters are merged into the base they were made on.

    Raises UserError where the folder holds neither.
    """
    if not (Path(folder) / "adapter_config.json").is_file():
        return build.load(folder)
    model, processor = build.load(base)
    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval(), processor


def put(model: Model, weights: Weights) -> None:
    """Load weights into a model in place. Raises UserError where they are another model's."""
    own = dict(model.named_parameters())
    if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
        raise UserError("These weights belong to another model: take both from runs of one base.")
    model.load_state_dict(dict(weights), strict=False)  # not strict: a tied head has no weight of its own


def change(base: Weights, tuned: Weights) -> dict[str, torch.Tensor]:
    """theta(tuned) - theta(base), by name."""
    return {name: tuned[name] - weight for name, weight in base.items()}


def l2(delta: Weights) -> float:
    """Euclidean norm of all entries together."""
    return math.sqrt(sum(float(part.double().square().sum()) for part in delta.values()))


def l1(delta: Weights) -> float:
    """Sum of the absolute values of all entries."""
    return sum(float(part.double().abs().sum()) for part in delta.values())


def between(first: Weights, second: Weights, share: float) -> dict[str, torch.Tensor]:
    """(1 - share) first + share second, by name: a point of the straight line, its ends exactly the two models."""
    if share == 0:
        return dict(first)
    if share == 1:
        return dict(second)
    return {name: weight + share * (second[name] - weight) for name, weight in first.items()}


def matched(base: Weights, tuned: Weights, norm: float) -> dict[str, torch.Tensor]:
    """base + norm * (tuned - base) / ||tuned - base||_2: the update in its own direction at another length.

    Raises UserError where nothing has changed, since there is no direction then.
    """
    length = l2(change(base, tuned))
    if length == 0:
        raise UserError("These weights equal the base's, so their update has no direction to rescale.")
    return between(base, tuned, norm / length)


def count_equal(base: torch.Tensor, tuned: torch.Tensor, dtype: str = "float32") -> int:
    """How many weights are equal before and after, once both are rounded to a number format."""
    kind = getattr(torch, dtype)
    return int((base.to(kind) == tuned.to(kind)).sum())


def effective_rank(matrix: torch.Tensor) -> float:
    """exp of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007): 1 to min(rows, cols).

    A tensor of more than two axes is one row per first index. 0 for a matrix of zeros.
    """
    values = torch.linalg.svdvals(matrix.flatten(1).double())
    if not float(values.sum()):
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def kind_of(name: str) -> str:
    """What a weight does in its block: attention, mlp, norms or embedding (patches, words), else "merger"."""
    if "merger" in name:
        return "merger"
    return next((kind for key, kind in KINDS.items() if key in name), "other")


def change_table(base: Weights, tuned: Weights) -> pd.DataFrame:
    """The change per part and kind of weight: columns part, kind, weights, l2, l1, same_fp32, same_bf16, rank, full.

    `same_...`: shares of weights that are equal in that format; `rank`: mean effective rank of the kind's matrices,
    `full` the mean of the largest it could be (both empty where there is none). A last row, part and kind "all", holds
    the whole model.
    """
    frame = pd.DataFrame([_weight_row(name, weight, tuned[name]) for name, weight in base.items()])
    both = pd.concat([frame, frame.assign(part="all", kind="all")])
    table = both.groupby(["part", "kind"], sort=False, as_index=False).agg(
        weights=("weights", "sum"), l2=("square", lambda s: math.sqrt(s.sum())), l1=("l1", "sum"),
        same_fp32=("same_fp32", "sum"), same_bf16=("same_bf16", "sum"), rank=("rank", "mean"), full=("full", "mean"),
    )  # fmt: skip
    return table.assign(**{name: table[name] / table["weights"] for name in ("same_fp32", "same_bf16")})


def _weight_row(name: str, before: torch.Tensor, after: torch.Tensor) -> dict[str, str | float | None]:
    delta = (after - before).double()
    matrix = before.ndim > 1
    return {
        "part": layer_of(name),
        "kind": kind_of(name),
        "weights": before.numel(),
        "square": float(delta.square().sum()),
        "l1": float(delta.abs().sum()),
        "same_fp32": count_equal(before, after),
        "same_bf16": count_equal(before, after, "bfloat16"),
        "rank": effective_rank(delta) if matrix else None,
        "full": float(min(before.flatten(1).shape)) if matrix else None,
    }
