"""The plot grammar: six marks that draw a tidy table into axes, and what a figure knows of itself.

`lines`, `dots`, `scatter`, `heat`, `strips` and `tokens` draw; `record` gives a figure the table that it shows and its
alt text, made of numbers of that table, so that a file or a notebook needs nothing else. A figure of a chapter is a
short function: a table, `panels` of marks, a `legend`, `record`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from helpers.show.style import GREY, Label, add_note, new_figure, visible, wrap_words
from helpers.study.arms import ARM_STYLE, arm_style

Name = TypeVar("Name", bound=Hashable)
Look = Mapping[str, Any]
"""Keyword arguments of `Axes.plot`: colour, marker, line style."""


# --- what a figure knows of itself ------------------------------------------------------------------------


def record(fig: Figure, frame: pd.DataFrame, alt: str = "", note: str = "") -> Figure:
    """Keep with `fig` the table that a panel shows, what the figure says in words (the last text holds), and write
    `note` under it."""
    fig.jigsaw_drawn = [*getattr(fig, "jigsaw_drawn", []), frame.reset_index(drop=True)]
    if note:
        add_note(fig, note)
    return describe(fig, alt) if alt else fig


def describe(fig: Figure, alt: str) -> Figure:
    """Set the alt text of `fig`."""
    fig.jigsaw_alt = " ".join(alt.split())
    return fig


def said(values: Mapping[str, float] | pd.Series, form: str = ".2f") -> str:
    """ "rft 0.65, sft-answer 0.20": numbers by name for an alt text, arms in the registry's order."""
    return ", ".join(f"{name} {plain(values[name], form)}" for name in in_order(values.keys())) or "none"


def plain(value: float, form: str = ".2g") -> str:
    """A rounded number without a power of ten where it is large: "220", not "2.2e+02"."""
    text = f"{value:{form}}"
    return f"{float(text):,.0f}" if "e+" in text else text


def ends(rows: pd.DataFrame, x: str, by: str = "arm", value: str = "mean") -> pd.Series:
    """The value at the last `x` of each name."""
    return rows.sort_values(x).groupby(by, sort=False)[value].last()


# --- names, looks, levels ---------------------------------------------------------------------------------


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once: arms in the registry's order, then the others as they come."""
    there = dict.fromkeys(names)
    return [arm for arm in ARM_STYLE if arm in there] + [name for name in there if name not in ARM_STYLE]


def arm_look(arm: str) -> dict[str, Any]:
    """An arm's colour, marker and line style."""
    return arm_style(arm).line()


def point_look(arm: str) -> dict[str, Any]:
    """An arm's colour and marker, without a line."""
    return arm_look(arm) | {"linestyle": "none"}


def level(ax: Axes, y: float, text: str, colour: str = GREY, dash: Any = (0, (1, 3))) -> Label:
    """A horizontal line across the axes (chance, the base), and the label for its end."""
    ax.axhline(y, color=colour, linestyle=dash, linewidth=1.2)
    return Label(math.inf, y, text, colour)


def key(ax: Axes, label: str, **look: Any) -> None:
    """An entry of the legend that stands for no single point."""
    ax.plot([], [], label=label, **{"color": GREY, "linestyle": "none", "markersize": 7} | look)


# --- panels, legends, axes --------------------------------------------------------------------------------


def panels(
    names: Iterable[Name] | Mapping[Name, str],
    width: float,
    height: float,
    columns: int = 0,
    room: float = 0.0,
    share: str = "",
    **labels: str,
) -> tuple[Figure, dict[Name, Axes]]:
    """A figure with a panel per name, titled by it (or by its value in a mapping): the figure, and axes by name.

    `columns` panels a line; 0: one line. In inches: `width` of the figure, `height` of each line of panels, `room` for
    what stands above and below them. `share`: "x", "y" or "xy", the axes that all panels have in common. `labels`:
    xlabel, for the lowest panel of each column, and ylabel, for the first of each line.
    """
    titles = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    columns = columns or len(titles)
    lines, axes = math.ceil(len(titles) / columns), {}
    fig = new_figure(width, room + height * lines)
    for place, (name, title) in enumerate(titles.items()):
        first = next(iter(axes.values()), None)
        axes[name] = fig.add_subplot(lines, columns, place + 1, **{f"share{axis}": first for axis in share})
        axes[name].set_title(title)
        axes[name].set_xlabel(labels.get("xlabel", "") if place + columns >= len(titles) else "")
        axes[name].set_ylabel(labels.get("ylabel", "") if place % columns == 0 else "")
    return fig, axes


def legend(fig: Figure, place: str = "upper center", handles: Sequence[Artist] = (), **look: Any) -> None:
    """One legend outside all panels, its entries in one line: `handles`, or what is labelled, each label once."""
    known = {handle.get_label(): handle for handle in handles}
    for ax in () if handles else fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    fig.legend(list(known.values()), list(known), loc=f"outside {place}", **{"ncols": len(known)} | look)


def ticks(ax: Axes, which: str, places: Iterable[float], form: Callable[[float], str] = "{:g}".format) -> None:
    """Ticks of the axis `which` ("x" or "y") at those of `places` that are in view, and nowhere else."""
    axis = {"x": ax.xaxis, "y": ax.yaxis}[which]
    low, high = sorted(axis.get_view_interval())
    seen = [place for place in places if low <= place <= high]
    axis.set_ticks(seen, [form(place) for place in seen])
    axis.set_ticks([], minor=True)


def row_axis(ax: Axes, names: Sequence[str], room: float = 0.5) -> None:
    """A row per name, the first at the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - room, room - 1)


def row_text(ax: Axes, place: float, text: str, x: float = 1.02, **look: Any) -> None:
    """Words beside a row: `x` in shares of the axes' width."""
    ax.text(x, place, text, transform=ax.get_yaxis_transform(), va="center", **{"fontsize": 8.5} | look)


def log_numbers(ax: Axes, numticks: int | None = None) -> None:
    """Log x with plain numbers at 1, 2 and 5."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=numticks))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


# --- the six marks ----------------------------------------------------------------------------------------


def lines(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    by: str = "arm",
    look: Callable[[str], Look] = arm_look,
    band: float = 0.15,
    **more: Any,
) -> list[Label]:
    """A curve of `mean` over `x` per name in column `by`, with a band from `low` to `high`; a label for each end.

    `look`: of a name. `band`: its opacity (0: none, and columns `low` and `high` are not needed); a name with one row
    gets whiskers, as a band of no width is not seen. `more`: options of `Axes.plot`.
    """
    labels = []
    for name in in_order(rows[by]):
        part, style = rows[rows[by] == name].sort_values(x), look(name)
        ax.plot(part[x], part["mean"], **{"label": name, **style, **more})
        if band and len(part) == 1:
            ax.errorbar(part[x], part["mean"], yerr=whiskers(part), color=style["color"], capsize=3)
        if band:
            ax.fill_between(part[x], part["low"], part["high"], color=style["color"], alpha=band, linewidth=0)
        x_end, y_end = part[[x, "mean"]].iloc[-1].astype(float)
        labels.append(Label(x_end, y_end, more.get("label", name), style["color"]))
    return labels


def whiskers(rows: pd.DataFrame, value: str = "mean", low: str = "low", high: str = "high") -> list[pd.Series]:
    """Lengths below and above, as `Axes.errorbar` wants them; never negative."""
    return [(rows[value] - rows[low]).clip(lower=0), (rows[high] - rows[value]).clip(lower=0)]


def dots(
    ax: Axes, rows: pd.DataFrame, places: Sequence[float], *, value: str = "mean", upright: bool = False, **look: Any
) -> None:
    """Values with whiskers from `low` to `high` at `places` along y (upright: along x)."""
    error = whiskers(rows, value)
    look = {"linestyle": "none", "capsize": 2, "elinewidth": 1.2} | look
    if upright:
        ax.errorbar(places, rows[value], yerr=error, **look)
    else:
        ax.errorbar(rows[value], places, xerr=error, **look)


def crosses(ax: Axes, rows: pd.DataFrame, x: str, y: str, **look: Any) -> None:
    """Points at columns `x` and `y` with both intervals: from `x`_low to `x`_high, and the same for `y`."""
    xerr, yerr = (whiskers(rows, name, f"{name}_low", f"{name}_high") for name in (x, y))
    ax.errorbar(rows[x], rows[y], xerr=xerr, yerr=yerr, **{"linestyle": "none", "elinewidth": 1} | look)


def scatter(ax: Axes, rows: pd.DataFrame, x: str, y: str, by: str = "arm", **more: Any) -> None:
    """A point per row in its arm's colour and marker; open where column `label` names a variant of the arm."""
    names = rows["label"] if "label" in rows.columns else rows[by]
    for arm, name in dict.fromkeys(zip(rows[by], names, strict=True)):
        part, look = rows[(rows[by] == arm) & (names == name)], point_look(arm)
        face = look["color"] if name == arm else "white"
        ax.plot(part[x], part[y], **look | {"mfc": face, "markersize": 7, "alpha": 0.85} | more)


def arm_key(fig: Figure, points: pd.DataFrame) -> None:
    """The legend of `scatter`: the arms among the points, and open markers where there are any."""
    for arm in in_order(points["arm"]):
        key(fig.axes[-1], arm, **point_look(arm))
    if (points["label"] != points["arm"]).any():
        key(fig.axes[-1], "other rate or LoRA", marker="o", mfc="white")
    fig.legend(loc="outside right upper")


def heat(ax: Axes, table: pd.DataFrame, texts: np.ndarray | None = None, **colours: Any) -> ScalarMappable:
    """A matrix as coloured cells with a text each (two decimals unless given); returns what a colour bar needs.

    Where a value is missing the cell is left empty. `colours`: cmap, norm, vmin or vmax, as in `seaborn.heatmap`.
    """
    texts = table.map("{:.2f}".format) if texts is None else texts
    seaborn.heatmap(table, ax=ax, annot=texts, fmt="", cbar=False, annot_kws={"fontsize": 7.5}, **colours)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", labelrotation=0)
    ax.grid(visible=False)
    cells = ax.collections[0]
    known = table.notna().to_numpy().ravel()  # an empty cell has a face, and no text
    for text, colour in zip(ax.texts, cells.get_facecolors()[known], strict=True):
        text.set_color(_ink(colour))  # seaborn's own choice is white up to a middle grey: too pale on olive
    return cells


def _ink(colour: Sequence[float]) -> str:
    """Black or white, whichever can be read on a colour (red, green, blue in [0, 1])."""
    return "black" if 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] > 0.45 else "white"


def strips(
    ax: Axes,
    rows: pd.DataFrame,
    value: str,
    middles: Mapping[str, float],
    by: str = "corpus",
    look: Callable[[str], Look] = point_look,
) -> None:
    """All values of each name as a row of points, with a black bar at its middle; rows in the order of `middles`.

    Heights within a row are drawn by a generator of their own: the same points in every panel and on every run.
    """
    rng = np.random.default_rng(0)
    for place, (name, middle) in enumerate(middles.items()):
        values = rows.loc[rows[by] == name, value]
        heights = place + rng.uniform(-0.25, 0.25, len(values))
        ax.plot(values, heights, **{"markersize": 4, "alpha": 0.55, "mew": 0} | dict(look(name)))
        ax.plot([middle, middle], [place - 0.38, place + 0.38], color="black", lw=2)
    row_axis(ax, list(middles))


def token_lines(words: Sequence[str], columns: int) -> int:
    """How many lines of `columns` characters tokens need."""
    return 1 + wrap_words([len(visible(word)) for word in words], columns)[-1][1]


def tokens(ax: Axes, words: Sequence[str], logps: Sequence[float], scale: ScalarMappable, columns: int) -> None:
    """A box per token coloured by its log-prob, its text in the ink that can be read on it."""
    texts = [visible(word) for word in words]
    spots = wrap_words([len(text) for text in texts], columns)
    ax.set(xlim=(0, columns), ylim=(1 + spots[-1][1], 0))
    ax.set_axis_off()
    box = {"edgecolor": "white", "linewidth": 0.8}
    font = {"family": "DejaVu Sans Mono", "parse_math": False, "fontsize": 8.5, "ha": "center", "va": "center"}
    for text, (column, row), logp in zip(texts, spots, logps, strict=True):
        colour = scale.to_rgba(logp)
        ax.add_patch(Rectangle((column, row + 0.06), len(text), 0.88, facecolor=colour, **box))
        ax.text(column + len(text) / 2, row + 0.5, text, color=_ink(colour), **font)
