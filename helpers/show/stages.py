"""Figures of one task after another: what is known at each stage, and how the first task goes as the second comes."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.show import marks
from helpers.show.bases import base_note, cell_look
from helpers.show.marks import record
from helpers.show.style import new_axes, use_style
from helpers.stats.stages import KNOWN, STAGES
from helpers.world.puzzles import PuzzleSpec


@use_style()
def matrix(summary: pd.DataFrame) -> Figure:
    """What each arm knew at each stage: a panel per arm, a row per thing known, a column per stage.

    `summary`: as from `stats.stages.stage_summary`, not empty. Drawn columns: its own.
    """
    names = marks.in_order(summary["cell"])
    fig, axes = marks.panels(names, 1.6 + 3.1 * len(names), 1.9, room=1.5)
    for cell, ax in axes.items():
        _panel(ax, summary[summary["cell"] == cell])
        ax.tick_params(labelleft=cell == names[0])
    note = f"prior tasks: mean score; puzzles: exact match at the stage's end; {base_note(summary['seeds'])}"
    return record(fig, summary, _matrix_words(summary), note)


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    mean, texts = (
        rows.assign(text=[_text(row) for row in rows.itertuples()])
        .pivot(index="known", columns="stage", values=value)
        .reindex(index=list(KNOWN), columns=list(STAGES))
        for value in ("mean", "text")
    )
    marks.heat(ax, mean, texts.astype(object).fillna("").to_numpy(), cmap="cividis", vmin=0, vmax=1)
    ax.set_xticks(ax.get_xticks(), [stage.replace(" ", "\n", 1) for stage in STAGES], rotation=0)


def _text(row) -> str:
    return f"{row.mean:.2f}" if row.seeds < 2 else f"{row.mean:.2f}\n{row.low:.2f} to {row.high:.2f}"


def _matrix_words(summary: pd.DataFrame) -> str:
    """Alt text: each arm's means, stage by stage."""
    words = []
    for cell, own in summary.groupby("cell", sort=False):
        mean = own.pivot(index="known", columns="stage", values="mean").reindex(index=KNOWN, columns=STAGES)
        said = mean.map("{:.2f}".format).replace("nan", "unknown")
        lines = (f"{known} {', '.join(row)}" for known, *row in said.itertuples())
        words.append(f"{cell}: {'; '.join(lines)}.")
    return f"What each arm knew at the stages {', '.join(STAGES)}, means over bases. {' '.join(words)}"


@use_style()
def paths(curves: pd.DataFrame) -> Figure:
    """How the jigsaw goes while turned tiles are learned: a path per run, from its start at the left.

    `curves`: columns cell, seed, step and, in shares of held-out boards, jigsaw and turned; not empty. Dotted: chance
    of each. Drawn columns: the same.
    """
    ax, chance = new_axes(6.4, 4.6), (PuzzleSpec().chance_exact, PuzzleSpec(turned=True).chance_exact)
    for (cell, _), own in curves.groupby(["cell", "seed"], sort=False):
        rows = own.sort_values("step")
        ax.plot(rows["turned"], rows["jigsaw"], **cell_look(cell) | {"label": cell, "ms": 4})
        ax.plot(*rows[["turned", "jigsaw"]].iloc[-1], **cell_look(cell) | {"ms": 9})
    for draw, share in ((ax.axhline, chance[0]), (ax.axvline, chance[1])):
        draw(share, color="black", ls=(0, (1, 3)), lw=1)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="turned tiles: exact match", ylabel="jigsaw: exact match")
    ax.set_title("The first task, while the second is learned")
    marks.legend(ax.figure)
    note = "a path per base, its end large; dotted: chance"
    return record(ax.figure, curves, _path_words(curves), note)


def _path_words(curves: pd.DataFrame) -> str:
    """Alt text: where each arm's paths begin and end, means over bases."""
    words = []
    for cell, own in curves.groupby("cell", sort=False):
        ends = own.sort_values("step").groupby("seed")[["turned", "jigsaw"]]
        start, end = ends.first().mean(), ends.last().mean()
        words.append(
            f"{cell}: turned {start['turned']:.2f} to {end['turned']:.2f}, "
            f"jigsaw {start['jigsaw']:.2f} to {end['jigsaw']:.2f}"
        )
    return f"Exact match on the jigsaw against turned tiles while these are learned. {'; '.join(words)}."
