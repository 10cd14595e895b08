"""The look of every figure: style, labels, axes, and the notes under them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Metric names as the trainer logs them, one panel a line: title, unit on the axis, names drawn.
RFT_PANELS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Reward parts": (
            "mean reward",
            ("rewards/hit_reward/mean", "rewards/exact_reward/mean", "rewards/format_reward/mean"),
        ),
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


@contextmanager
def use_style() -> Iterator[None]:
    """The suite's rcParams, for a `with` block or as a decorator (`@use_style()`).

    They start from matplotlib's own defaults: a reader's matplotlibrc (usetex, white text) does not leak in.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_style())
        yield


def _style() -> dict[str, Any]:
    return {
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


def seed_note(seeds: Iterable[int]) -> str:
    """What the band is, in words, for the number(s) of seeds behind the points."""
    counts = sorted({int(count) for count in seeds})
    kinds = {1: "single seed: no interval", 2: "2 seeds: mean, min to max"}
    many = [count for count in counts if count > 2]
    words = [kinds[count] for count in counts if count in kinds]
    if many:
        span = f"{many[0]}" if len(many) == 1 else f"{many[0]} to {many[-1]}"
        words.append(f"{span} seeds: mean, 95% t interval")
    return "; ".join(words)


def add_note(fig: Any, text: str) -> None:
    fig.supxlabel(text, x=0.01, ha="left", fontsize=8, color=GREY)


def _spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions in [0, 1] as little as possible (least squares) until neighbours are `gap` apart."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    pools: list[list[float]] = []  # pool-adjacent-violators on position minus its share of the gaps
    for rank, i in enumerate(order):
        pools.append([positions[i] - rank * gap])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    room = max(0.0, 1.0 - (len(positions) - 1) * gap)
    flat = [min(max(_mean(pool), 0.0), room) for pool in pools for _ in pool]
    moved = [0.0] * len(positions)
    for rank, i in enumerate(order):
        moved[i] = flat[rank] + rank * gap
    return moved


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def direct_labels(ax: Axes, labels: Sequence[Label]) -> None:
    """Name each line at the right edge, joined to its end by a hairline; names keep apart."""
    bottom, top = ax.get_ylim()
    height = 72 * ax.figure.get_size_inches()[1] * ax.get_position().height
    shares = [(label.y - bottom) / (top - bottom) for label in labels]
    for label, share in zip(labels, _spread(shares, 13 / height), strict=True):
        ax.annotate(
            label.text,
            xy=(min(label.x, ax.get_xlim()[1]), label.y),
            xytext=(1.025, share),
            textcoords="axes fraction",
            va="center",
            color=label.colour,
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": label.colour, "lw": 0.6, "relpos": (0, 0.5)},
        )


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
    last = max(spots, key=lambda point: spots[point])
    gap = share * (spots[last] - min(spots.values()))
    kept: list[float] = []
    for point in sorted(spots):
        free = spots[last] - spots[point] >= gap and (not kept or spots[point] - spots[kept[-1]] >= gap)
        if free and point != last:
            kept.append(point)
    return [*kept, last]


def short_number(name: str) -> str:
    return re.sub(r"^rewards?/|(_reward)?(/mean)?$", "", name).replace("_", " ").replace("/", " ")


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
