"""The figure of whose words a cell learns: how probable they are under its base, and what was lost on the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.show import marks
from helpers.show.bases import cell_look
from helpers.show.marks import record
from helpers.show.style import use_style

KINDS = {"two-form": 0.12, "one-form": -0.12}  # where the bases of a kind stand in a row


@use_style()
def perplexity_and_drop(table: pd.DataFrame) -> Figure:
    """Perplexity of each cell's texts under its base (left), and the drop at exact match 0.7 against it (right).

    `table`: as from `measure.own_words.beside_drops`, not empty; a point per cell and base, pale where the base is of
    one form. A cell without a drop stands at the left alone. Drawn columns: the table's; no drop is an empty one.
    """
    names = list(dict.fromkeys(table["cell"]))
    titles = {"left": "Perplexity under the base", "right": "Drop at 0.7"}
    fig, axes = marks.panels(titles, 10.4, 0.42 * len(names), room=1.6)
    for place, name in enumerate(names):
        own = table[table["cell"] == name]
        for kind, shift in KINDS.items():
            _row(axes["left"], own[own["kind"] == kind], place - shift)
        _points(axes["right"], own.dropna(subset="drop"))
    marks.row_axis(axes["left"], names)
    axes["left"].set_xscale("log")
    span = axes["left"].get_xlim()
    for ax in axes.values():
        ax.set(xscale="log", xlim=span, xlabel="perplexity per token (log scale)")
        marks.ticks(ax, "x", [1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200])
    axes["right"].set(ylim=(min(0, axes["right"].get_ylim()[0]), None), ylabel="drop in prior score")
    marks.key(axes["left"], "a base that answers in two forms", marker="o", color="black")
    marks.key(axes["left"], "its twin that always thinks", marker="o", color="black", alpha=0.35)
    marks.legend(fig)
    drawn = table.assign(drop=table["drop"].astype(object).where(table["drop"].notna(), ""))
    return record(fig, drawn, _words(table, names), "whiskers: 95% bootstrap over texts; right: one point a base")


def _row(ax: Axes, rows: pd.DataFrame, place: float) -> None:
    for row in rows.to_dict("records"):
        marks.dots(ax, pd.DataFrame([row]), [place], value="perplexity", **_look(row))


def _points(ax: Axes, rows: pd.DataFrame) -> None:
    for row in rows.to_dict("records"):
        ax.plot(row["perplexity"], row["drop"], **_look(row))


def _look(row: dict) -> dict:
    pale = {"alpha": 1 if row["kind"] == "two-form" else 0.35}
    return cell_look(row["cell"]) | {"linestyle": "none", "markersize": 7} | pale


def _words(table: pd.DataFrame, names: list[str]) -> str:
    """Alt text: geometric means over bases by cell and kind, and the drops that are known."""
    said = []
    for name in names:
        own = table[table["cell"] == name]
        means = np.exp(np.log(own["perplexity"]).groupby(own["kind"]).mean())
        words = [f"{mean:.3g} under {kind} bases" for kind, mean in means.items()]
        words += [f"drop {own['drop'].mean():.2f}"] if own["drop"].notna().any() else []
        said.append(f"{name} {', '.join(words)}")
    return f"Perplexity of what each cell learns to write, means over bases: {'; '.join(said)}."
