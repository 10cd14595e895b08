"""Figures of the study on several bases: fronts, the primary claims base by base, and what is left in every way.

They can be drawn at any time: what was not run by now is named, never drawn as a number, and a figure of which nothing
is known yet keeps its titles and says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.show import marks
from helpers.show.marks import record, said
from helpers.show.style import FORM_DASHES, GREY, new_axes, seed_note, use_style
from helpers.stats import ways as stats
from helpers.stats.front_table import Planned
from helpers.stats.fronts import ran
from helpers.stats.intervals import in_words
from helpers.study.cells import HEADLINE, get_cell
from helpers.train.few import halves
from helpers.verdicts import claims, on_bases
from helpers.verdicts.claims import Claim
from helpers.verdicts.on_bases import OnBases
from helpers.verdicts.statistics import Evidence
from helpers.world.battery import battery_tasks

PALE = "#8A8A8A"
TERA = 1e12
NOBODY = "None of these cells has a run that reached exact match 0.7."
NOT_READ = "no run at a chosen rate"
NEVER = "never reached 0.7"
_FIRM = "\N{NO-BREAK SPACE}"


def cell_look(name: str) -> dict[str, Any]:
    """A cell's colour and marker are its arm's; dash and fill are those of the form that it asks for."""
    cell = get_cell(name)
    look = marks.arm_look(cell.arm) | {"linestyle": FORM_DASHES[cell.asked]}
    return look | {"mfc": look["color"] if cell.asked == "direct" else "white"}


def _line_look(name: str) -> dict[str, Any]:
    """A cell's line, without its markers."""
    return cell_look(name) | {"marker": ""}


def base_note(bases: Iterable[int]) -> str:
    """What an interval is, in words, for the number(s) of bases behind it."""
    return seed_note(bases).replace("seed", "base")


# --- what is not there yet --------------------------------------------------------------------------------


def _so_far(counts: pd.DataFrame, unit: str) -> list[str]:
    """What cells lack, a line a kind: "did not reach 0.7: rft direct (1 of 3 bases)", "not run: rft think; rft plain".

    `counts` by cell, as from `stats.counts`, in numbers of a unit ("base").
    """
    kinds = {
        "did not reach 0.7": _shares(counts["picked"] - counts["arrived"], counts["picked"], unit),
        NOT_READ: _shares(counts["ran"] - counts["picked"], counts["ran"], unit),
        "run so far": _shares(counts["ran"].where(counts["ran"] < counts["planned"], 0), counts["planned"], unit),
        claims.NO_VALUE: list(counts.index[counts["ran"] == 0]),
    }
    # Names of cells hold commas.
    return [f"{kind}: {'; '.join(cells)}" for kind, cells in kinds.items() if cells]


def _shares(part: pd.Series, whole: pd.Series, unit: str) -> list[str]:
    """ "rft direct (1 of 3 bases)", where the part is not 0."""
    there = [(cell, int(n), int(whole[cell])) for cell, n in part.items() if n]
    return [f"{cell} ({n} of {all_of} {unit}{'s' * (all_of > 1)})" for cell, n, all_of in there]


def _state(count: pd.Series) -> str:
    """Why a cell has no values, or nothing where it has."""
    reasons = {"ran": claims.NO_VALUE, "picked": NOT_READ, "arrived": NEVER}
    return next((reason for name, reason in reasons.items() if not count[name]), "")


def _say(ax: Axes, text: str, height: float = 0.5) -> None:
    """Words in a panel, in place of what it has not got; `height` in shares of the panel's."""
    ax.text(0.5, height, text, transform=ax.transAxes, ha="center", va="center", color=GREY, backgroundcolor="white")


def _say_nothing_is_known(ax: Axes) -> None:
    """A panel without a value: `NOBODY`, and no scale that would stand for numbers."""
    _say(ax, NOBODY)
    ax.set(xticks=[], yticks=[])


def _under(fig: Figure, *notes: str) -> str:
    """Notes as lines that are no wider than the figure, broken behind a semicolon: not within a cell's name."""
    width = int(18 * fig.get_size_inches()[0])  # characters of a note's size in that many inches
    whole = ("; ".join(part.replace(" ", _FIRM) for part in note.split("; ")) for note in notes)
    lines = (textwrap.fill(note, width, break_on_hyphens=False, break_long_words=False) for note in whole)
    return "\n".join(lines).replace(_FIRM, " ")


def _with_states(summary: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    """A summary and its column `state` (empty), then a row with that alone for every cell that has no values."""
    states, empty = counts.apply(_state, axis=1), dict.fromkeys(summary.columns, "")
    rows = [empty | {"cell": cell, "seeds": 0, "state": state} for cell, state in states.items() if state]
    known = summary.assign(state="").to_dict("records")
    return pd.DataFrame([*known, *rows], columns=[*summary.columns, "state"])


# --- fronts -----------------------------------------------------------------------------------------------


@use_style()
def fronts(front: pd.DataFrame, cells: Sequence[str] = ()) -> Figure:
    """Drop at exact match 0.7 against the FLOPs that it took, a small point per base and rate, a line per cell.

    The line joins a cell's means over the bases that arrived at a rate (of FLOPs the geometric one). `front` as from
    `front_table`; `cells`: those to draw, the headline's where there are none. Drawn columns: cell, rate, base ("mean":
    over bases), flops, drop (both empty where nothing arrived with a known cost), arrived, runs and planned (numbers).
    """
    table = _front_rows(front, cells)
    lacks = [*_so_far(_front_counts(table), "run"), *_without_cost(table)]
    ax = new_axes(9.4, 5.2)
    known = table[table["flops"] != ""].astype({"flops": float, "drop": float})
    if known.empty:
        _say_nothing_is_known(ax)
    else:
        _draw_fronts(ax, known)
    ax.set(xlabel="FLOPs to exact match 0.7 (in 1e12, log scale)", ylabel="drop in prior score (up: forgets more)")
    ax.set_title("What reaching exact match 0.7 costs, and what is forgotten on the way")
    notes = [*_front_notes(known), *lacks]
    return record(ax.figure, table, _front_words(table, lacks), _under(ax.figure, *notes))


def _front_notes(known: pd.DataFrame) -> list[str]:
    """How to read the points of `fronts`, where there are any, and what their FLOPs leave out."""
    note = "large: mean over the bases that arrived at a rate; small: one base; filled: asked to answer directly"
    fed = "; ".join(name for name in known["cell"].unique() if get_cell(name).source)
    lines = {note: not known.empty, f"without the FLOPs of the run that feeds it: {fed}": bool(fed)}
    return [line for line, holds in lines.items() if holds]


def _draw_fronts(ax: Axes, known: pd.DataFrame) -> None:
    """The points and lines of `fronts`, of rows that arrived."""
    marks.log_numbers(ax)
    ax.set_xlim(known["flops"].min() / 1.3, known["flops"].max() * 1.3)  # a first run alone gives an axis no width
    is_mean = known["base"] == "mean"
    marks.lines(ax, known[is_mean].rename(columns={"drop": "mean"}), "flops", "cell", _line_look, band=0)
    rates = sorted(known["rate"].unique())
    sizes = dict(zip(rates, np.linspace(6, 12, len(rates)), strict=True))
    for (name, rate), rows in known.groupby(["cell", "rate"], sort=False):
        look, mean = cell_look(name) | {"linestyle": "none"}, rows["base"] == "mean"
        ax.plot(rows[~mean]["flops"], rows[~mean]["drop"], **look | {"markersize": 3.5, "alpha": 0.6})
        ax.plot(rows[mean]["flops"], rows[mean]["drop"], **look | {"markersize": sizes[rate]})
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / TERA:,.4g}")
    ax.axhline(0, color=GREY, lw=1, zorder=1)
    ax.margins(y=0.12)
    _front_legend(ax.figure, known["cell"].unique(), sizes)


def _front_legend(fig: Figure, cells: Iterable[str], sizes: Mapping[float, float]) -> None:
    """The look of every cell and the size of every rate.

    Cells are not named at the ends of their lines: these lie anywhere, and hairlines to them would cross all others.
    """
    ring = {"color": GREY, "marker": "o", "mfc": "white", "linestyle": "none"}
    names = [Line2D([], [], **cell_look(name), label=name) for name in cells]
    rates = [Line2D([], [], **ring, markersize=size, label=f"rate {rate:.0e}") for rate, size in sizes.items()]
    marks.legend(fig, "right center", [*names, *rates], ncols=1, handlelength=3.5)


def _front_rows(front: pd.DataFrame, cells: Sequence[str]) -> pd.DataFrame:
    """The table of `fronts`: every run that there is, then the mean at every rate of every cell."""
    names = list(cells or HEADLINE)
    front = front.assign(runs=ran(front).astype(int), planned=1)
    own = front[front["cell"].isin(names)].astype({"flops": float, "drop": float, "arrived": int})
    own["drop"] = own["drop"].where(own["flops"].notna())  # means of both are over the same runs
    runs = own[own["runs"] > 0].sort_values(["rate", "base"], ascending=[False, True])
    every = pd.DataFrame([*runs.to_dict("records"), *_front_means(own, names)])
    every = every.sort_values("cell", key=lambda own: own.map(names.index), kind="stable", ignore_index=True)
    numbers = every[["flops", "drop"]].astype(object).mask(every["flops"].isna(), "")
    return every.assign(**numbers)[["cell", "rate", "base", "flops", "drop", "arrived", "runs", "planned"]]


def _front_means(own: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows over bases, the fastest rate of a cell first; of a cell that the front lacks as well, one a rate."""
    known = dict.fromkeys(zip(own["cell"], own["rate"], strict=True))
    lacking = [(name, rate) for name in names if name not in set(own["cell"]) for rate in get_cell(name).rates]
    rows = []
    for cell, rate in sorted([*known, *lacking], key=lambda spot: -spot[1]):
        here = own[(own["cell"] == cell) & (own["rate"] == rate)]
        means = {"flops": np.exp(np.log(here["flops"]).mean()), "drop": here["drop"].mean()}
        sums = here[["arrived", "runs", "planned"]].sum().to_dict()
        rows.append({"cell": cell, "rate": rate, "base": "mean"} | means | sums)
    return rows


def _front_counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many runs of each cell are planned, there (each of them is read) and arrived, by cell."""
    means = table[table["base"] == "mean"].rename(columns={"runs": "ran"})
    return means.assign(picked=means["ran"]).groupby("cell", sort=False)[["planned", "ran", "picked", "arrived"]].sum()


def _without_cost(table: pd.DataFrame) -> list[str]:
    """A line that names the runs that arrived and are not drawn, since a step of theirs was not counted; or none."""
    lost = table[(table["arrived"] > 0) & (table["flops"] == "") & (table["base"] != "mean")]
    names = [f"{row.cell} {row.rate:.0e} on base {row.base}" for row in lost.itertuples()]
    return [f"FLOPs unknown: {'; '.join(names)}"] * bool(names)


def _front_words(table: pd.DataFrame, lacks: Sequence[str]) -> str:
    """Alt text: means of each cell by rate, and what there is not."""
    words, known = [], table[table["flops"] != ""]
    for cell, rows in known[known["base"] == "mean"].groupby("cell", sort=False):
        words.append(f"{cell} {', '.join(f'{r.rate:.0e}: {r.drop:.2f} at {r.flops:.1e}' for r in rows.itertuples())}")
    start = "Drop in prior score against FLOPs to exact match 0.7, a line per cell."
    means = f"Means over bases, by rate: {'. '.join(words)}." if words else NOBODY
    return _sentences(start, means, lacks)


def _sentences(start: str, numbers: str, lacks: Sequence[str]) -> str:
    """Alt text of a start, what the numbers are and what there is not."""
    return " ".join([start, numbers, *(f"{line[0].upper()}{line[1:]}." for line in lacks)])


# --- the primary claims -----------------------------------------------------------------------------------


@use_style()
def paired(evidence: Evidence) -> Figure:
    """The primary claims on differences of drops: each base's difference, the mean with its interval, the verdict.

    A dashed line at the threshold that a difference must pass; for an equivalence the band that it must lie in. Drawn
    columns: claim, first, second, what ("base", or "mean"), value, low, high (all empty where there is none), bases,
    threshold, test, verdict, reason.
    """
    family = claims.all_claims("primary")
    verdicts = claims.table(evidence, family).set_index("claim")
    shown = [claim for claim in family if claim.statistic != on_bases.cost_ratio.__name__]
    found = {claim.id: claim.estimate(evidence) for claim in shown}
    words = [_verdict_words(verdicts.loc[claim.id]) for claim in shown]
    ax, cells = new_axes(10.8, 1.2 + 0.62 * len(shown)), [_cells(claim, found[claim.id]) for claim in shown]
    for place, claim in enumerate(shown):
        _claim_row(ax, place, claim, found[claim.id])
        marks.row_text(ax, place, textwrap.fill(words[place], 60, max_lines=4, placeholder=" ..."))
    marks.row_axis(ax, [f"{first}\nminus {second}" for first, second in cells])
    ax.axvline(0, color=GREY, lw=1, zorder=1)
    ax.margins(x=0.08)
    ax.set_xlabel("difference of drops in prior score at exact match 0.7 (right: the first forgets more)")
    ax.set_title("Two cells on the same base, each at the rate that is best on the other bases")
    table = pd.concat([_claim_rows(*row, verdicts) for row in zip(shown, cells, found.values(), strict=True)])
    behind = base_note({estimate.seeds for estimate in found.values() if estimate and estimate.seeds})
    note = f"dot: a base; diamond: {behind or 'their mean'}; dashed: threshold; band: alike"
    return record(ax.figure, table, _claims_words(shown, found, words), _under(ax.figure, note))


def _cells(claim: Claim, estimate: OnBases | None) -> Sequence[str]:
    """The two cells that were, or are to be, compared."""
    return estimate.cells if estimate else (str(claim.arguments["first"]), str(claim.arguments["second"]))


def _verdict_words(row: pd.Series) -> str:
    return claims.NO_VALUE if row["reason"] == claims.NO_VALUE else ": ".join(filter(None, row[["verdict", "reason"]]))


def _claim_row(ax: Axes, place: int, claim: Claim, estimate: OnBases | None) -> None:
    """One row of `paired`: threshold or band, and above it the bases and their mean where there are any."""
    span = [place - 0.36, place + 0.36]
    if claim.test == "equivalence":
        ax.fill_betweenx(span, -claim.threshold, claim.threshold, color="#DDE7EF", lw=0, zorder=0.5)
    else:
        ax.plot([claim.threshold] * 2, span, color="black", ls=(0, (4, 2)), lw=1.2)
    if estimate and estimate.seeds:
        heights = [place - 0.14] * estimate.seeds
        ax.plot(estimate.differences, heights, "o", color="#0072B2", alpha=0.6, mew=0, ms=6)
        mean = pd.DataFrame({"mean": [estimate.value], "low": [estimate.low], "high": [estimate.high]})
        marks.dots(ax, mean, [place + 0.14], color="black", marker="D", ms=6, capsize=3)


def _claim_rows(claim: Claim, cells: Sequence[str], estimate: OnBases | None, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The numbers of one row: a line per base, and one for the mean."""
    known, row = bool(estimate and estimate.seeds), verdicts.loc[claim.id]
    mean = (estimate.value, estimate.low, estimate.high) if known else ("",) * 3
    lines = [("base", *[value] * 3) for value in (estimate.differences if known else ())] + [("mean", *mean)]
    table = pd.DataFrame(lines, columns=["what", "value", "low", "high"]).astype(object)
    fixed = {"claim": claim.id, "first": cells[0], "second": cells[1]}
    behind = {"bases": int(row["seeds"]), "threshold": claim.threshold, "test": claim.test}
    names = [*fixed, *table.columns, *behind, "verdict", "reason"]
    return table.assign(**fixed, **behind, verdict=row["verdict"], reason=row["reason"])[names]


def _claims_words(shown: Sequence[Claim], found: Mapping[str, OnBases | None], words: Sequence[str]) -> str:
    """Alt text: the mean, the threshold and the verdict of each claim."""
    texts = []
    for claim, verdict in zip(shown, words, strict=True):
        estimate, sign = found[claim.id], "within ±" if claim.test == "equivalence" else f"{claim.direction} "
        first, second = _cells(claim, estimate)
        value = ""
        if estimate and estimate.seeds:
            interval = (estimate.value, estimate.low, estimate.high)
            value = f" {in_words(interval, seeds=estimate.seeds, of='base')},"
        texts.append(f"{first} minus {second}{value} to be {sign}{claim.threshold:g}: {verdict}")
    return f"Differences of drops at exact match 0.7 between two cells, base by base. {'. '.join(texts)}."


# --- ways and tasks ---------------------------------------------------------------------------------------


@use_style()
def ways(outcomes: pd.DataFrame, planned: Planned, picked: Planned, cells: Sequence[str]) -> Figure:
    """Mean prior score where 0.7 was first reached, in every way of asking, a panel per cell; pale: the base.

    `outcomes` of finished runs; `picked`: the runs that are read, one a cell and base of those planned (`stats.ways`).
    Drawn columns: cell, way, who, mean, low, high, seeds, state (why a cell has no values; all else is empty then).
    Raises UserError where a cell has two runs on a base.
    """
    watched = halves(battery_tasks())[1]
    scores = stats.way_scores(outcomes, picked, watched)
    summary = _in_order(stats.way_summary(scores[scores["cell"].isin(cells)]), cells)
    rows = [way for way in stats.WAYS if summary.empty or way in set(summary["way"])]
    counts = stats.counts(outcomes, planned, picked).reindex(cells, fill_value=0)
    fig, axes = marks.panels(cells, 2.3 + 2.2 * len(cells), 0.25 * len(rows), room=1.5, share="xy")
    for cell, ax in axes.items():
        _way_panel(ax, summary[summary["cell"] == cell], rows, cell)
        if state := _state(counts.loc[cell]):
            _say(ax, state, 0.75)  # clear of the lines between groups
        ax.tick_params(labelleft=cell == cells[0])
    _way_keys(axes[cells[0]])
    marks.legend(fig, "upper left")
    note = f"score: share of prior-task samples; last rows: only the {len(watched)} tasks whose samples were not shown"
    lacks = _so_far(counts, "base")
    notes = _under(fig, note, *[base_note(summary["seeds"])] * len(summary[:1]), *lacks)
    return record(fig, _with_states(summary, counts), _way_words(summary, lacks), notes)


def _way_panel(ax: Axes, summary: pd.DataFrame, rows: Sequence[str], cell: str) -> None:
    """One panel of `ways`; thin lines part what is written, chosen and regained."""
    for who, shift, look in (("base", 0.12, _pale()), ("trained", -0.12, _strong(cell))):
        part = summary[summary["who"] == who]
        marks.dots(ax, part, [rows.index(way) + shift for way in part["way"]], **look)
    for place, (above, below) in enumerate(pairwise(map(_group, rows))):
        if above != below:
            ax.axhline(place + 0.5, color=GREY, lw=0.8)
    marks.row_axis(ax, rows)
    ax.set(xlim=(0, 1.03), xlabel="score")
    ax.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))  # short: those of the next panel begin where these end


def _group(way: str) -> int:
    return [way in group for group in (stats.WROTE, stats.CHOSE, stats.REGAINED)].index(True)


def _pale() -> dict[str, Any]:
    return {"color": PALE, "marker": "o", "mfc": "white", "markersize": 5.5}


def _strong(cell: str) -> dict[str, Any]:
    return marks.point_look(get_cell(cell).arm) | {"markersize": 6.5}


def _way_keys(ax: Axes) -> None:
    marks.key(ax, "where exact match 0.7 was first reached", marker="s", color="black", markersize=6.5)
    marks.key(ax, "its base", **_pale())


def _in_order(summary: pd.DataFrame, cells: Sequence[str]) -> pd.DataFrame:
    """The rows of some cells, in their order."""
    rows = summary[summary["cell"].isin(cells)]
    return rows.sort_values("cell", key=lambda own: own.map(list(cells).index), kind="stable", ignore_index=True)


def _way_words(summary: pd.DataFrame, lacks: Sequence[str]) -> str:
    """Alt text: each cell's score in every way, and its base's."""
    words = []
    for cell, rows in summary.groupby("cell", sort=False):
        sides = {who: part.set_index("way")["mean"] for who, part in rows.groupby("who")}
        base = sides["base"].drop(list(stats.REGAINED[1:]), errors="ignore")  # a base is shown nothing
        words.append(f"{cell}: {said(sides['trained'])}; its base: {said(base)}.")
    start = "Mean prior score where exact match 0.7 was first reached, by way of asking, a panel per cell."
    return _sentences(start, " ".join(words) or NOBODY, lacks)


@use_style()
def tasks(outcomes: pd.DataFrame, planned: Planned, picked: Planned, cells: Sequence[str] = ()) -> Figure:
    """Drop of every prior task where 0.7 was first reached, a row per cell; below, the mean drop without that task.

    Arguments as of `ways`; all cells where none are named. Tasks stand by their mean drop, the largest first. That
    evaluation may lie beyond 0.7, so that a drop here may be larger than the front's, which is read off at 0.7. Drawn
    columns: cell, task, mean, low, high, without, without_low, without_high, seeds, state (as in `ways`).
    """
    counts = stats.counts(outcomes, planned, picked)
    counts = counts.reindex(cells or counts.index, fill_value=0)
    names = list(counts.index[counts["arrived"] > 0])
    falls = stats.task_falls(outcomes, picked)
    summary = _in_order(stats.fall_summary(falls[falls["cell"].isin(names)]), names)
    order = summary.groupby("task")["mean"].mean().sort_values(ascending=False).index
    order = [*order.drop(stats.ALL_TASKS, errors="ignore"), stats.ALL_TASKS]
    titles = {"mean": "Drop of each task", "without": "Mean drop without that task: what the headline would be"}
    wide = max(8.0, 2.6 + 0.56 * len(order))
    fig, axes = marks.panels(titles, wide, 0.5 + 0.34 * max(1, len(names)), columns=1, room=1.3)
    top = max([0.05, *summary["mean"].abs()])
    for value, ax in axes.items():
        if summary.empty:
            _say_nothing_is_known(ax)
        else:
            _drop_map(ax, summary, value, (names, order), TwoSlopeNorm(0, -top, top))
    axes["mean"].tick_params(labelbottom=False)
    lacks = _so_far(counts, "base")
    known = [f"orange: lost; in brackets: the interval holds 0; {base_note(summary['seeds'])}"] * len(summary[:1])
    return record(fig, _with_states(summary, counts), _task_words(summary, lacks), _under(fig, *known, *lacks))


def _drop_map(
    ax: Axes, summary: pd.DataFrame, value: str, axes: tuple[Sequence[str], Sequence[str]], norm: TwoSlopeNorm
) -> None:
    """One panel of `tasks`."""
    ends = ("low", "high") if value == "mean" else (f"{value}_low", f"{value}_high")
    mean, low, high = (summary.pivot(index="cell", columns="task", values=n).loc[axes] for n in (value, *ends))
    bare = mean.map("{:z.2f}".format)
    texts = bare.where((low > 0) | (high < 0) | (low == high), "(" + bare + ")")
    marks.heat(ax, mean, texts.to_numpy(), cmap="PuOr_r", norm=norm)
    ax.set_xticks(ax.get_xticks(), axes[1], rotation=40, ha="right", rotation_mode="anchor")
    ax.axvline(len(axes[1]) - 1, color="black", lw=1.2)


def _task_words(summary: pd.DataFrame, lacks: Sequence[str]) -> str:
    """Alt text: each cell's mean drop, its worst task, and how far leaving one out moves the mean."""
    words = []
    for cell, own in summary.groupby("cell", sort=False):
        rows = own.set_index("task")
        mean, each = rows.loc[stats.ALL_TASKS, "mean"], rows.drop(stats.ALL_TASKS)
        worst, rest = each["mean"].idxmax(), each["without"]
        words.append(
            f"{cell} {mean:.2f}, most {worst} {each.loc[worst, 'mean']:.2f}, "
            f"without one task {rest.min():.2f} to {rest.max():.2f}"
        )
    start = "Drop of each prior task where exact match 0.7 was first reached, and the mean drop without it."
    return _sentences(start, f"Means: {'; '.join(words)}." if words else NOBODY, lacks)
