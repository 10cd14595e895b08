"""Tables and drawings of notebook A1: how the base model was made."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import UserError
from helpers.show import marks, style
from helpers.train import pretrain
from helpers.train.pretrain import Recipe, eye_names, pretraining_sample
from helpers.world import questions

TRAINING_LOG = Path(__file__).parents[1] / "base_model" / "training_log.csv"
LOG_COLUMNS = ["step", "loss", "grad_norm", "seconds"]


def phases(recipe: Recipe) -> pd.DataFrame:
    """The phases of a pretraining: columns phase, first (its first step), steps, pictures, questions (in all)."""
    lengths = {"eyes": recipe.eye_steps, "words": recipe.steps, "practice": recipe.practice}
    table = pd.DataFrame({"phase": list(lengths), "steps": list(lengths.values())})
    table.insert(1, "first", table["steps"].cumsum() - table["steps"])
    table["pictures"] = table["steps"] * [recipe.eye_pictures, recipe.pictures, recipe.pictures]
    return table.assign(questions=table["pictures"] * [0, recipe.questions, recipe.questions])


def pretraining_prompts(recipe: Recipe, n: int, steps: range) -> list[questions.Question]:
    """The questions of `n` pictures, evenly spread over `steps` of the language model (its first is step 0)."""
    places = [(steps[k * len(steps) // n], k % recipe.pictures) for k in range(n)]
    return [q for step, slot in places for q in pretraining_sample(recipe, step, slot)[1]]


def cell_table(known: dict[str, np.ndarray], questions: Sequence[str]) -> pd.DataFrame:
    """What the eyes are to name in each cell of a picture; rows and columns lie as the cells do, counted from 1.

    `known`: labels as from `pretrain.eye_sample`. Answers to `questions` are joined; "nothing of the sort" is left out.
    """
    names = {name: eye_names()[name] for name in questions if name in known}
    shape = next(iter(known.values())).shape
    cells = np.empty(shape, dtype=object)
    for place in np.ndindex(shape):
        indices = {name: int(known[name][place]) for name in names}
        cells[place] = " ".join(filter(None, (names[name][k] for name, k in indices.items() if k >= 0)))
    return pd.DataFrame(cells, range(1, shape[0] + 1), range(1, shape[1] + 1))


def share_with(texts: Sequence[str], wanted: str) -> float:
    """Share of texts that contain `wanted`, in any case."""
    return sum(wanted.lower() in text.lower() for text in texts) / len(texts)


def imports_of(files: Iterable[str | Path]) -> set[str]:
    """Names of the helper modules that Python files import, wherever in the file the import stands."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers"):
                below = node.module.removeprefix("helpers").lstrip(".")
                found |= {below} | {f"{below}.{alias.name}".lstrip(".") for alias in node.names}
    return found


def rebuild(recipe: Recipe, steps: int, eyes: Any = None) -> pd.DataFrame:
    """The first steps of a pretraining, from random weights: columns step, loss, grad_norm, seconds.

    With `eyes`, a pretrained model, its vision tower is taken over and the language model's first steps follow.
    """
    learner, rows = pretrain.new_learner(recipe), []
    if eyes is not None:
        learner.model.model.visual.load_state_dict(eyes.model.visual.state_dict())
    first = 0 if eyes is None else recipe.eye_steps
    for step in range(first, first + steps):
        begin = time.perf_counter()
        loss, norm = pretrain.train_step(learner, step)
        rows.append((step, loss, norm, time.perf_counter() - begin))
    return pd.DataFrame(rows, columns=LOG_COLUMNS)


def last_losses(recipe: Recipe, steps: int, finished: tuple[Any, Any]) -> pd.DataFrame:
    """Loss of a finished (model, processor) on what the last `steps` steps asked: columns step, loss.

    The rate ends near zero, so these weights and those that took the steps are nearly the same.
    """
    (model, processor), end, rows = finished, recipe.steps + recipe.practice, []
    for step in range(end - steps, end):
        with torch.no_grad():
            loss, tokens = pretrain.text_loss(model, pretrain.batch(processor.tokenizer, recipe, step))
        rows.append((recipe.eye_steps + step, float(loss) / tokens))
    return pd.DataFrame(rows, columns=["step", "loss"])


def training_log(path: str | Path = TRAINING_LOG) -> pd.DataFrame | None:
    """The log of the shipped pretraining (columns step, loss, grad_norm, seconds), or None without one.

    Raises UserError when a column is missing or there are no rows.
    """
    if not Path(path).is_file():
        return None
    table = pd.read_csv(path)
    if table.empty or not set(LOG_COLUMNS) <= set(table.columns):
        raise UserError(f"{path} must have the columns {', '.join(LOG_COLUMNS)} and rows: restore it.")
    return table[LOG_COLUMNS]


@style.use_style()
def loss_curves(live: pd.DataFrame, shipped: pd.DataFrame | None, recipe: Recipe) -> Figure:
    """Training loss (log) against step, the eyes on the left (per picture), the language model on the right.

    The shipped run is a line, what was computed now are points. Drawn columns: source, phase, step, loss.
    """
    tables = {"shipped": shipped, "computed now": live}
    drawn = pd.concat([t[["step", "loss"]].assign(source=name) for name, t in tables.items() if t is not None])
    spans = phases(recipe)
    drawn["phase"] = spans["phase"].to_numpy()[spans["first"].searchsorted(drawn["step"], side="right") - 1]
    fig, eyes = style.new_figure(9.0, 3.6), drawn["phase"] == "eyes"
    left, right = fig.add_subplot(1, 2, 1), fig.add_subplot(1, 2, 2)
    _loss_panel(left, drawn[eyes])
    left.set(title="Eyes: what does each cell show?", ylabel="loss (nats per picture, all questions)")
    _loss_panel(right, drawn[~eyes])
    right.set(title="Language model, eyes frozen", ylabel="loss (nats per token)")
    for step, name in ((recipe.eye_steps + recipe.naming, "naming ends"), (spans["first"].iloc[2], "practice begins")):
        right.axvline(step, color=style.GREY, linestyle=":", linewidth=1.2)
        place = {"transform": right.get_xaxis_transform(), "rotation": 90, "ha": "right", "va": "top"}
        right.text(step, 0.98, name, fontsize=8, **place)
    left.legend()
    first = drawn.drop_duplicates(["source", "phase"])
    words = ", ".join(f"{r.phase} ({r.source}) {r.loss:.2f}" for r in first.itertuples())
    alt = "Training loss against step on a log scale, left the eyes, right the language model. It begins at:"
    return marks.record(fig, drawn[["source", "phase", "step", "loss"]], f"{alt} {words}.")


def _loss_panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one panel of `loss_curves`: steps are counted from 0 through all phases."""
    looks = {
        "shipped": {"color": "#1A4E73", "linewidth": 0.5},
        "computed now": {"color": "#A84300", "marker": "o", "linestyle": "", "markersize": 5},
    }
    for name, part in rows.groupby("source", sort=False):
        ax.plot(part["step"], part["loss"], label=name, zorder=2 + (name != "shipped"), **looks[name])
    ax.set(yscale="log", xlabel="step")
    for axis in (ax.xaxis.set_major_formatter, ax.yaxis.set_major_formatter):
        axis(lambda value, _: f"{value:,.10g}")
