"""The figure of whose words a cell learns: how probable they are under its base, and what was lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.show import marks
from helpers.show.bases import cell_look
from helpers.show.marks import record
from helpers.show.style import use_style
from helpers.study.cells import Kind

SHIFTS: Mapping[Kind, float] = MappingProxyType({"two-form": 0.12, "one-form": -0.12})  # of a kind's bases in a row
ALPHA: Mapping[Kind, float] = MappingProxyType({"two-form": 1.0, "one-form": 0.35})
WHO: Mapping[Kind, str] = MappingProxyType(
    {"two-form": "a base that answers in two forms", "one-form": "its twin that always thinks"}
)


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
        for kind, shift in SHIFTS.items():
            _row(axes["left"], own[own["kind"] == kind], place - shift)
        _points(axes["right"], own.dropna(subset="drop"))
    marks.row_axis(axes["left"], names)
    axes["left"].set_xscale("log")
    span = axes["left"].get_xlim()
    for ax in axes.values():
        ax.set(xscale="log", xlim=span, xlabel="perplexity per token (log scale)")
        marks.ticks(ax, "x", [1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200])
    axes["right"].set(ylim=(min(0, axes["right"].get_ylim()[0]), None), ylabel="drop in prior score")
    for kind in (kind for kind in WHO if kind in set(table["kind"])):
        marks.key(axes["left"], WHO[kind], marker="o", color="black", alpha=ALPHA[kind])
    marks.legend(fig)
    drawn = table.assign(drop=table["drop"].astype(object).where(table["drop"].notna(), ""))
    return record(fig, drawn, _words(table, names), "whiskers: 95% bootstrap over texts; right: one point a base")


def _row(ax: Axes, rows: pd.DataFrame, place: float) -> None:
    for k in range(len(rows)):
        own = rows.iloc[[k]]
        marks.dots(ax, own, [place], value="perplexity", **_look(own["cell"].iloc[0], own["kind"].iloc[0]))


def _points(ax: Axes, rows: pd.DataFrame) -> None:
    for row in rows.itertuples():
        ax.plot(row.perplexity, row.drop, **_look(row.cell, row.kind))


def _look(cell: str, kind: Kind) -> dict[str, Any]:
    return cell_look(cell) | {"linestyle": "none", "markersize": 7, "alpha": ALPHA[kind]}


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
