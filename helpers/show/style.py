"""The look of every figure: style, labels, axes, and the notes under them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

# Metric names as the trainer logs them, one panel a line: title, unit on the axis, names drawn.
RFT_PANELS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Reward parts": ("mean reward", tuple(f"rewards/{part}_reward/mean" for part in ("hit", "exact", "format"))),
        "Entropy": ("nats per token", ("entropy",)),
        "Completion length": ("tokens", ("completions/mean_length",)),
        "Groups without a signal": ("share with equal rewards", ("frac_reward_zero_std",)),
    }
)


MEASURE_LABEL: Mapping[str, str] = MappingProxyType(
    {
        "exact": "exact match",
        "hit": "hit rate",
        "score": "score",
        "likelihood": "likelihood score",
        "format_failure": "format failures",
    }
)


GREY = "#666666"
FORM_DASHES: Mapping[str, Any] = MappingProxyType(
    {"direct": "-", "think": (0, (5, 2)), "plain": (0, (1, 1.5)), "sentences": (0, (5, 1.5, 1, 1.5))}
)
"""Dashes of a run in the study on several bases, by the form that it asks for."""


@contextmanager
def use_style() -> Iterator[None]:
    """The suite's rcParams, for a `with` block or as a decorator (`@use_style()`).

    They start from matplotlib's own defaults: a reader's matplotlibrc (usetex, white text) does not leak in.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": "DejaVu Sans",
                "font.size": 9.5,
                "axes.titlesize": 10.5,
                "axes.titlelocation": "left",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.edgecolor": GREY,
                "axes.axisbelow": True,
                "axes.grid": True,
                "grid.color": "#E6E6E6",
                "grid.linewidth": 0.8,
                "lines.markersize": 5,
                "lines.linewidth": 1.6,
                "legend.frameon": False,
                "figure.dpi": 110,
                "savefig.dpi": "figure",
                "svg.hashsalt": "jigsaw",  # element ids in the SVG are hashed with it: fixed, so the bytes repeat
            }
        )
        yield


@dataclass(frozen=True)
class Label:
    """Text at the right edge for a line that ends at (x, y) in data units (x infinite: at the edge)."""

    x: float
    y: float
    text: str
    colour: str


def new_axes(width: float = 7.0, height: float = 4.2) -> Axes:
    return new_figure(width, height).add_subplot()


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def from_to(counts: Collection[float]) -> str:
    """The smallest and the largest of some whole numbers: "3 to 5", or "5" where they are equal."""
    low, high = (int(end) for end in (min(counts), max(counts)))
    return f"{low}" if low == high else f"{low} to {high}"


def seed_note(seeds: Iterable[int]) -> str:
    """What the band is, in words, for the number(s) of seeds behind the points."""
    counts = set(seeds)
    few = {1: "single seed: no interval", 2: "2 seeds: mean, min to max"}
    words = [text for count, text in few.items() if count in counts]
    many = counts - few.keys()
    if many:
        words.append(f"{from_to(many)} seeds: mean, 95% t interval")
    return "; ".join(words)


def add_note(fig: Any, text: str) -> None:
    fig.supxlabel(text, x=0.01, ha="left", fontsize=8, color=GREY)


def _spread(positions: Sequence[float], gap: float) -> np.ndarray:
    """Move positions in [0, 1] as little as possible (least squares) until neighbours are `gap` apart."""
    order, shares = np.argsort(positions, kind="stable"), gap * np.arange(len(positions))
    # Less their shares of the gaps, positions need only not to fall: a monotone least-squares fit.
    flat = isotonic_regression(np.asarray(positions)[order] - shares).x
    moved = np.empty(len(positions))
    moved[order] = np.clip(flat, 0.0, max(0.0, 1.0 - shares[-1])) + shares
    return moved


def direct_labels(ax: Axes, labels: Sequence[Label]) -> None:
    """Name each line at the right edge, joined to its end by a hairline; names keep apart."""
    if not labels:
        return
    bottom, top = ax.get_ylim()
    height = 72 * ax.figure.get_size_inches()[1] * ax.get_position().height
    shares = [(label.y - bottom) / (top - bottom) for label in labels]
    for label, share in zip(labels, _spread(shares, 13 / height), strict=True):
        arrow = {"arrowstyle": "-", "color": label.colour, "lw": 0.6, "relpos": (0, 0.5)}
        look = {"va": "center", "color": label.colour, "fontsize": 9, "annotation_clip": False, "arrowprops": arrow}
        end = (min(label.x, ax.get_xlim()[1]), label.y)
        ax.annotate(label.text, end, (1.025, share), textcoords="axes fraction", **look)


def log_x(ax: Axes, values: Iterable[float]) -> None:
    """Log x that keeps step 0: linear from 0 (left edge) to the first positive value, then log."""
    points = sorted({float(value) for value in values})
    positive = [point for point in points if point > 0]
    if not positive:
        ax.set_xticks(points)
        return
    ax.set_xscale("symlog", linthresh=positive[0], linscale=0.35)
    low = 0.0 if points[0] <= 0 else positive[0] * 0.9
    ax.set_xlim(low, positive[-1] * 1.12)
    ax.set_xticks(_apart({point: math.log10(max(point / positive[0], 10**-0.35)) for point in points}))
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _apart(spots: Mapping[float, float], share: float = 1 / 9) -> list[float]:
    """Keys to tick: the last, and from the left those at least `share` of the width apart."""
    *others, last = sorted(spots)
    gap, kept = share * (spots[last] - min(spots.values())), []
    for point in others:
        if spots[last] - spots[point] >= gap and (not kept or spots[point] - spots[kept[-1]] >= gap):
            kept.append(point)
    return [*kept, last]


def short_number(name: str) -> str:
    return re.sub(r"^rewards?/|(_reward)?(/mean)?$", "", name).replace("_", " ").replace("/", " ")


def spaced(numbers: Iterable[int]) -> str:
    """Numbers as an answer writes them: "2 1 4 3"."""
    return " ".join(map(str, numbers))


def visible(token: str) -> str:
    """White space drawn as signs, so that every token has something to colour."""
    return token.replace("\n", "↵").replace("\t", "→").replace(" ", "·") or "∅"


def wrap_words(widths: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """(column, row) of each token in characters; a token that would pass `limit` starts a new row."""
    spots, column, row = [], 0, 0
    for width in widths:
        if column and column + width > limit:
            column, row = 0, row + 1
        spots.append((column, row))
        column += width
    return spots


def colour_steps(name: str, steps: int) -> list[str]:
    """A colour map of matplotlib as hex colours from its low to its high end."""
    return [to_hex(matplotlib.colormaps[name](k / (steps - 1))) for k in range(steps)]
