"""The figure of cells taken apart at one rate: what differs between two cells, question by question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.show import marks
from helpers.show.bases import base_note
from helpers.show.marks import record
from helpers.show.style import GREY, new_axes, use_style
from helpers.stats.intervals import in_words
from helpers.study.cells import get_cell

LINE, GAP = 1.0, 1.3  # of a row, and more above the first row of a question, where its name stands


@use_style()
def differences(summary: pd.DataFrame, each: pd.DataFrame) -> Figure:
    """What the first cell of each pair lost more than the second: a dot a base, the mean with its interval.

    `summary` and `each`: as from `stats.apart.summary` and `differences`. A row says where a cell was not run, or never
    arrived. Drawn columns: those of the summary, with nothing where there is no number.
    """
    rows = summary.assign(place=_places(summary["question"]))
    ax = new_axes(10.4, 1.3 + 0.235 * rows["place"].iloc[-1])
    for pair in rows.to_dict("records"):
        _row(ax, pair, each[(each["first"] == pair["first"]) & (each["second"] == pair["second"])])
    for question, own in rows.groupby("question", sort=False):
        marks.row_text(ax, own["place"].iloc[0] - 1.1, question, 0, weight="bold")
    ax.set_yticks(
        rows["place"], [f"{first}  –  {second}" for first, second in zip(rows["first"], rows["second"], strict=True)]
    )
    ax.set_ylim(rows["place"].iloc[-1] + 0.8, rows["place"].iloc[0] - 1.7)
    ax.axvline(0, color=GREY, lw=1, zorder=1)
    ax.set_xlabel("difference of drops where both reached their mark (right: the first forgets more)")
    ax.set_title("Two cells on the same base, each at the rate at which it is read")
    known = rows["bases"] > 0
    if not known.any():
        ax.set_xticks([])  # no scale that would stand for numbers
    read = f"dot: a base; diamond: {base_note(rows.loc[known, 'bases'])}; " if known.any() else ""
    note = f"{read}at the right: in what the two differ, and what is lacking"
    numbers = rows[["mean", "low", "high"]].astype(object).where(known, "")
    return record(ax.figure, rows.drop(columns="place").assign(**numbers), _words(rows[known]), note)


def _places(questions: pd.Series) -> list[float]:
    """Where each row stands."""
    new = questions.ne(questions.shift()).cumsum() - 1
    return [LINE * k + GAP * more for k, more in enumerate(new)]


def _row(ax: Axes, pair: Mapping[str, Any], each: pd.DataFrame) -> None:
    """One pair: its bases above its mean; at the right in what the two differ, and what is lacking."""
    place, look = pair["place"], marks.point_look(get_cell(pair["first"]).arm)
    if pair["bases"]:
        ax.plot(each["value"], [place - 0.16] * len(each), "o", color=look["color"], alpha=0.6, mew=0, ms=5)
        marks.dots(ax, pd.DataFrame([pair]), [place + 0.16], color="black", marker="D", ms=5, capsize=2)
    says = " | ".join(filter(None, (pair["differs"].replace("_", " "), pair["lacks"])))
    marks.row_text(ax, place, says, color=GREY, fontsize=7.5)


def _words(rows: pd.DataFrame) -> str:
    """Alt text: every difference that is known, by question."""
    said = []
    for question, own in rows.groupby("question", sort=False):
        pairs = (
            f"{row.first} minus {row.second} {in_words((row.mean, row.low, row.high), seeds=row.bases, of='base')}"
            for row in own.itertuples()
        )
        said.append(f"{question}: {'; '.join(pairs)}.")
    return " ".join(
        ["Differences of drops between two cells at one rate, base by base.", *(said or ["None is known."])]
    )
