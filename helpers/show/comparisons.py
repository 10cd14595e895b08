"""Figures that set arms side by side: live points, panels of measures, corpora under the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from helpers.errors import UserError
from helpers.show.plots import learning_curves
from helpers.show.save import record
from helpers.show.style import (
    GREY,
    MEASURE_LABEL,
    add_note,
    log_x,
    new_axes,
    new_figure,
    seed_note,
    use_style,
    visible,
    wrap_words,
)
from helpers.stats.curves import ALL, PRIOR_MEASURES, battery_mean, seed_summary
from helpers.study.arms import ARM_STYLE, arm_style

PRIOR = "mean of the prior tasks"


TOKEN_COLUMNS = 76  # characters in a line of `token_panels`


# Probes of a corpus have the colour of the arm that learns from it; the rest are told apart by line style too.
PROBE_LOOK: Mapping[str, dict] = MappingProxyType(
    {
        "answer": {"color": "#A84300", "linestyle": "--", "marker": "^"},
        "expert": {"color": "#C58900", "linestyle": "-.", "marker": "v"},
        "rollout": {"color": "#007A59", "linestyle": (0, (7, 2)), "marker": "D"},
        "base-right": {"color": "#8A4FA3", "linestyle": (0, (5, 1)), "marker": "X"},
        "wrong": {"color": "#000000", "linestyle": ":", "marker": "x"},
        "shuffled": {"color": "#7A7A7A", "linestyle": (0, (1, 1)), "marker": "."},
        "prior-gold": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
        "prior-model": {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
    }
)


@use_style()
def prior_curves(evaluations: pd.DataFrame, measure: str, x: str = "step", ax: Axes | None = None) -> Figure:
    """`figures.learning_curves` of the mean over the prior tasks: score, likelihood or format_failure."""
    mean = battery_mean(evaluations).assign(task=PRIOR)
    ax = ax if ax is not None else new_axes()
    tops = seed_summary(mean[mean["measure"] == measure], ["arm", x])["high"]
    # Scores compare by height only from zero; the room below keeps markers at 0 whole. Before drawing: labels
    # are placed by these limits.
    ax.set_ylim(-0.02, max(0.1, min(1.03, 1.06 * tops.max())))
    return learning_curves(mean, PRIOR, measure, x=x, ax=ax)


@use_style()
def measure_panels(evaluations: pd.DataFrame, arms: Sequence[str], measures: Sequence[str] = ()) -> Figure:
    """Prior score, likelihood score and format failures against step, a panel each: was it knowledge or format?

    Means over the prior tasks for `arms`. Drawn columns as in `figures.learning_curves`.
    """
    names = tuple(measures) or tuple(PRIOR_MEASURES.values())
    chosen = evaluations[evaluations["arm"].isin(arms)]
    fig = new_figure(7.0, 2.3 * len(names))
    for place, measure in enumerate(names, start=1):
        ax = fig.add_subplot(len(names), 1, place)
        prior_curves(chosen, measure, ax=ax)
        ax.set(title=MEASURE_LABEL[measure], xlabel="step (log scale)" if place == len(names) else "")
    return fig


@use_style()
def add_live(fig: Figure, live: pd.DataFrame, task: str, measure: str, x: str = "step") -> Figure:
    """Lay the points of a live run over `learning_curves`: large open markers, named in the legend.

    `live`: its evaluations; task "all" (or `PRIOR`) is the mean over the prior tasks.
    """
    rows = battery_mean(live) if task in (ALL, PRIOR) else live[live["task"] == task]
    rows = rows[rows["measure"] == measure].sort_values(x)
    if rows.empty:
        raise UserError(f"The live run has no {measure} of {task}: choose a measure that it was evaluated on.")
    ax, style = fig.axes[0], arm_style(rows["arm"].iloc[0])
    look = {"mfc": "none", "mec": style.colour, "ms": 11, "mew": 1.8, "ls": "none", "zorder": 5}
    label = f"{rows['arm'].iloc[0]}, live"
    (points,) = ax.plot(rows[x], rows["value"], marker=style.marker, label=label, clip_on=False, **look)
    ax.set_xlim(right=max(ax.get_xlim()[1], rows[x].max() * 1.12))
    ax.legend(handles=[points], loc="best")
    drawn = {"task": task if task != ALL else PRIOR, "measure": measure, "arm": rows["arm"] + " (live)", x: rows[x]}
    values = {name: rows["value"] for name in ("mean", "low", "high")}
    frame = pd.DataFrame(drawn | values | {"seeds": 1})
    known = fig.jigsaw_drawn[0]
    if "chance" in known.columns:
        frame["chance"] = known["chance"].iloc[0]
    return record(fig, frame[list(known.columns)])


@use_style()
def knowledge_or_format(evaluations: pd.DataFrame) -> Figure:
    """Score, likelihood score and format failures of every arm at its last step, on one scale.

    Filled: what the model answers; open: what it would choose among given answers; cross: answers in no valid
    form. Drawn columns: arm, measure, mean, low, high, seeds.
    """
    last = battery_mean(evaluations)
    last = last[last["step"] == last.groupby("run")["step"].transform("max")]
    summary = seed_summary(last, ["arm", "measure"])
    arms = [arm for arm in ARM_STYLE if arm in set(summary["arm"])]
    ax = new_axes(7.0, 1.4 + 0.5 * len(arms))
    looks = {
        "score": ("answers right (score)", {"marker": "o"}),
        "likelihood": ("ranks the right answer first (likelihood score)", {"marker": "o", "mfc": "white"}),
        "format_failure": ("answers in no valid form", {"marker": "x", "mew": 2}),
    }
    for offset, (measure, (label, look)) in zip((0.16, 0.0, -0.16), looks.items(), strict=True):
        _measure_dots(ax, summary[summary["measure"] == measure], arms, offset, look)
        ax.plot([], [], ls="none", color=GREY, label=label, ms=7, **look)
    ax.set_yticks(range(len(arms)), arms)
    ax.set(xlim=(-0.04, 1.04), ylim=(len(arms) - 0.5, -0.5), xlabel="share of prior-task samples")
    ax.set_title("At the end: is the knowledge gone, or only the format?")
    ax.figure.legend(loc="outside upper left", ncols=1)
    add_note(ax.figure, seed_note(summary["seeds"]))
    return record(ax.figure, summary)


def _measure_dots(ax: Axes, rows: pd.DataFrame, arms: Sequence[str], offset: float, look: Mapping) -> None:
    for row in rows.itertuples():
        error = [[row.mean - row.low], [row.high - row.mean]]
        place = arms.index(row.arm) + offset
        colour = arm_style(row.arm).colour
        ax.errorbar(row.mean, place, xerr=error, color=colour, ms=7, capsize=2, elinewidth=1.2, **look)


@use_style()
def early_rollouts(completions: pd.DataFrame) -> Figure:
    """Base log-prob of correct and of wrong rollouts, as shares per bin, with the medians marked.

    `completions`: columns logp_base (nats, summed), exact. Drawn columns: kind, low, high (bin ends), share, n.
    """
    values = completions.dropna(subset="logp_base")
    if values.empty:
        raise UserError("None of these completions has a base log-prob: take the first steps of a run.")
    lowest, highest = values["logp_base"].quantile(0.01) - 0.5, min(0.5, values["logp_base"].max() + 0.5)
    values = values.assign(logp_base=values["logp_base"].clip(lower=lowest))  # stragglers count in the first bin
    edges = np.linspace(lowest, highest, 25)
    ax, frames = new_axes(7.0, 3.6), []
    kinds = (("correct", values["exact"] == 1, "#0072B2", "-"), ("wrong", values["exact"] < 1, "#A84300", "--"))
    for kind, keep, colour, dash in kinds:
        logps = values.loc[keep, "logp_base"]
        if len(logps):
            share = np.histogram(logps, edges)[0] / len(logps)
            look = {"color": colour, "linestyle": dash, "label": f"{kind} ({len(logps)})"}
            ax.stairs(share, edges, linewidth=2, fill=False, **look)
            ax.axvline(logps.median(), color=colour, linestyle=dash, linewidth=0.9)
            rows = {"kind": kind, "low": edges[:-1], "high": edges[1:], "share": share, "n": len(logps)}
            frames.append(pd.DataFrame(rows))
    ax.set(xlabel="base log-prob of the completion (nats; right: more probable)", ylabel="share of rollouts")
    ax.set_title("How probable early rollouts are under the base model (thin line: median)")
    ax.legend(loc="upper left")
    return record(ax.figure, pd.concat(frames))


@use_style()
def corpus_strips(logps: pd.DataFrame, perplexity: pd.DataFrame) -> Figure:
    """Base log-prob per token of each completion of each corpus, a row of points per corpus; its perplexity beside.

    `logps` as from `live.base_logps`, `perplexity` as from `live.perplexities`. Drawn columns: corpus, item,
    tokens, logp, per_token.
    """
    arms = [arm for arm in ARM_STYLE if arm in set(logps["corpus"])]
    ax, rng = new_axes(7.4, 1.2 + 0.62 * len(arms)), np.random.default_rng(0)
    for place, arm in enumerate(arms):
        style, rows = arm_style(arm), logps[logps["corpus"] == arm]
        heights = place + rng.uniform(-0.25, 0.25, len(rows))
        ax.plot(rows["per_token"], heights, ls="", marker=style.marker, color=style.colour, ms=4, alpha=0.55, mew=0)
        middle = rows["logp"].sum() / rows["tokens"].sum()
        ax.plot([middle, middle], [place - 0.38, place + 0.38], color="black", lw=2)
        found = perplexity.set_index("corpus").loc[arm]
        text = f"perplexity {found['perplexity']:,.3g}\n{found['tokens']:.0f} tokens, {found['logp']:.0f} nats"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5)
    ax.set_yticks(range(len(arms)), arms)
    ax.set(ylim=(len(arms) - 0.5, -0.5), xlabel="base log-prob per token (nats; right: more probable)")
    ax.set_title("What the base model thinks of each corpus (bar: mean over tokens)")
    return record(ax.figure, logps[["corpus", "item", "tokens", "logp", "per_token"]])


@use_style()
def drop_vs_perplexity(points: pd.DataFrame, ylabel: str) -> Figure:
    """Drop in prior score against corpus perplexity under the base model, one point per arm (log x).

    `points`: columns arm, perplexity, drop, low, high, seeds, which are also what is drawn.
    """
    ax = new_axes(6.4, 3.8)
    for row in points.itertuples():
        style = arm_style(row.arm)
        error = [[row.drop - row.low], [row.high - row.drop]]
        ax.errorbar(
            row.perplexity, row.drop, yerr=error, capsize=3, **style.line() | {"linestyle": "none", "markersize": 9}
        )
        offset = {"xytext": (9, 5), "textcoords": "offset points"}
        ax.annotate(row.arm, (row.perplexity, row.drop), color=style.colour, **offset)
    ax.set_xscale("log")
    ax.margins(x=0.22, y=0.15)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.axhline(0, color=GREY, linewidth=1, zorder=1)
    ax.set(xlabel="corpus perplexity under the base model (log scale)", ylabel=ylabel)
    ax.set_title("Does an improbable corpus cost more?")
    add_note(ax.figure, seed_note(points["seeds"]))
    return record(ax.figure, points[["arm", "perplexity", "drop", "low", "high", "seeds"]])


@use_style()
def probability_strips(rows: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Base log-prob of completions, whole (left) and per token (right): points per corpus in the order of `table`.

    `rows`: columns corpus, logp, tokens, per_token; `table`: columns corpus, logp, perplexity, low, high (its 95%
    interval). Drawn columns: those of `rows`.
    """
    fig, rng = new_figure(10.0, 1.3 + 0.5 * len(table)), np.random.default_rng(0)
    whole = fig.add_subplot(1, 2, 1)
    each = fig.add_subplot(1, 2, 2, sharey=whole)
    for place, found in enumerate(table.itertuples()):
        part = rows[rows["corpus"] == found.corpus]
        heights = place + rng.uniform(-0.25, 0.25, len(part))
        look = {"color": "#0072B2", "ms": 3.5, "alpha": 0.4, "mew": 0}
        for ax, column, middle in ((whole, "logp", found.logp), (each, "per_token", -np.log(found.perplexity))):
            ax.plot(part[column], heights, "o", **look)
            ax.plot([middle, middle], [place - 0.38, place + 0.38], color="black", lw=2)
        middle, low, high = (f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in (found.perplexity, found.low, found.high))
        text = f"{middle}\n({low} to {high})"
        each.text(1.02, place, text, transform=each.get_yaxis_transform(), va="center", fontsize=8.5)
    whole.set_yticks(range(len(table)), list(table["corpus"]))
    each.tick_params(labelleft=False)
    _surprise_axis(whole, 1.0, rows["logp"].min())
    _surprise_axis(each, 0.1, rows["per_token"].min())
    whole.set(ylim=(len(table) - 0.5, -0.5), xlabel="nats per completion (bar: mean)", title="Base log-prob, whole")
    each.set(xlabel="nats per token (bar: mean over tokens)", title="Base log-prob, per token")
    each.text(1.02, 1.02, "perplexity", transform=each.transAxes, fontsize=8.5)
    return record(fig, rows[["corpus", "logp", "tokens", "per_token"]])


def _surprise_axis(ax: Axes, near: float, lowest: float) -> None:
    """Negative x from `lowest` up to 0: logarithmic, and linear from -near to 0, as log-probs spread over decades."""
    ax.set_xscale("symlog", linthresh=near, linscale=0.4)
    ticks = [-near * unit * 10**power for power in range(4) for unit in (1, 2, 5)]
    ax.set_xlim(1.2 * min(lowest, -near), 0)
    ax.set_xticks([*(tick for tick in ticks if tick >= 1.2 * lowest), 0])
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


@use_style()
def token_panels(names: Sequence[str], views: Sequence[tuple[Sequence[str], Sequence[float]]]) -> Figure:
    """Completions token by token, a panel each, boxes coloured by log-prob on one scale (nats; dark: surprising).

    `views`: (tokens, log-probs) of each name, as from `live.token_view`. Drawn columns: completion, position, token,
    logp.
    """
    lowest = min(-1.0, *(min(logps) for _, logps in views))
    scale = ScalarMappable(Normalize(lowest, 0.0), "cividis")
    layouts = [_token_rows(tokens) for tokens, _ in views]
    lines = [1 + spots[-1][1] for _, spots in layouts]
    fig = new_figure(8.4, 0.9 + 0.3 * sum(lines) + 0.35 * len(lines))
    grid, frames = fig.add_gridspec(len(names), 1, height_ratios=[n + 0.6 for n in lines]), []
    for place, (name, (tokens, logps), (texts, spots)) in enumerate(zip(names, views, layouts, strict=True)):
        ax = fig.add_subplot(grid[place])
        ax.set(xlim=(0, TOKEN_COLUMNS), ylim=(lines[place], 0), title=f"{name}: {sum(logps):.1f} nats")
        ax.set_axis_off()
        _token_row_boxes(ax, texts, spots, [scale.to_rgba(value) for value in logps])
        rows = {"position": range(1, len(tokens) + 1), "token": list(tokens), "logp": list(logps)}
        frames.append(pd.DataFrame({"completion": name} | rows))
    bar = fig.colorbar(scale, ax=fig.axes, location="bottom", fraction=0.05, aspect=60, pad=0.02)
    bar.set_label("base log-prob of the token (nats)")
    return record(fig, pd.concat(frames, ignore_index=True))


def _token_rows(tokens: Sequence[str]) -> tuple[list[str], list[tuple[int, int]]]:
    """The tokens as drawn, and the (column, row) where each begins, in characters."""
    texts = [visible(token) for token in tokens]
    return texts, wrap_words([len(text) for text in texts], TOKEN_COLUMNS)


def _token_row_boxes(ax: Axes, texts: Sequence[str], spots: Sequence[tuple[int, int]], colours: Sequence) -> None:
    """A coloured box per token, its text in the ink that can be read on it."""
    for text, (column, row), colour in zip(texts, spots, colours, strict=True):
        ink = "black" if 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] > 0.45 else "white"
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.8}
        ax.add_patch(Rectangle((column, row + 0.06), len(text), 0.88, **look))
        font = {"family": "DejaVu Sans Mono", "parse_math": False, "fontsize": 8.5}
        ax.text(column + len(text) / 2, row + 0.5, text, color=ink, ha="center", va="center", **font)


@use_style()
def reach(found: pd.DataFrame, ranks: pd.DataFrame | None, chance: float) -> Figure:
    """Left: probability of a correct completion per board, exact likelihood against counting. Right: rank of the truth.

    `found` as from `landscape.reachability` (bars: its 95% Wilson intervals; dashed: chance; thin: where both agree),
    `ranks` as from `landscape.placement_ranks` for the same boards (dashed: all ranks equally often), or None. Drawn
    columns: board, samples, right, counted, low, high, likelihood, chance, and rank, empty for a board without a think.
    """
    fig = new_figure(9.4 if ranks is not None else 4.8, 4.3)
    _reach_points(fig.add_subplot(1, 1 if ranks is None else 2, 1), found, chance)
    if ranks is None:
        return record(fig, found.assign(chance=chance))
    ax = fig.add_subplot(1, 2, 2)
    every = int(ranks["placements"].iloc[0])
    width = max(1, every // 6)
    ax.hist(ranks["rank"], bins=range(1, every + width + 1, width), color="#0072B2", alpha=0.7, edgecolor="white")
    ax.axhline(len(ranks) * width / every, color="black", linestyle="--", linewidth=1)
    ax.set(xlabel=f"rank of the true placement among {every} (1: most probable)", ylabel="boards")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title("Where the true placement stands")
    drawn = found.assign(chance=chance).merge(ranks[["board", "rank"]], on="board", how="left")
    return record(fig, drawn.assign(rank=drawn["rank"].astype(object).where(drawn["rank"].notna(), "")))


def _reach_points(ax: Axes, found: pd.DataFrame, chance: float) -> None:
    """Counting with its interval against likelihood, a point per board."""
    error = [found["counted"] - found["low"], found["high"] - found["counted"]]
    ax.errorbar(found["likelihood"], found["counted"], error, fmt="o", color="#0072B2", alpha=0.45, elinewidth=0.8)
    right = 1.08 * max(found["likelihood"].max(), chance)
    top = 1.05 * max(found["high"].max(), right)
    ax.plot([0, right], [0, right], color=GREY, linewidth=0.8)
    for line in (ax.axhline, ax.axvline):
        line(chance, color="black", linestyle="--", linewidth=1)
    ax.set(xlim=(-0.03 * right, right), ylim=(-0.03 * top, top))
    ax.set(xlabel="by likelihood of the answer behind own thinks", ylabel="by counting correct samples")
    ax.set_title("Probability of a correct completion, per board")


@use_style()
def shift_panels(shifted: pd.DataFrame, value: str = "per_token") -> Figure:
    """Shift of each kind of probe against step, a panel per arm (log x; y linear up to 0.1, then logarithmic).

    `shifted` as from `landscape.shifts`; `value`: its column to draw. Drawn columns: arm, probe, step, mean, low, high,
    seeds.
    """
    trained = shifted[shifted["arm"] != "base"]
    if trained.empty:
        raise UserError("None of these runs was trained, so nothing has shifted: score the probes of another arm.")
    summary = seed_summary(trained, ["arm", "probe", "step"], value)
    arms = [arm for arm in ARM_STYLE if arm in set(summary["arm"])]
    lines = -(-len(arms) // 2)
    fig = new_figure(9.4, 0.9 + 2.7 * lines)
    for place, arm in enumerate(arms, start=1):
        ax = fig.add_subplot(lines, 2, place)
        handles = _probe_lines(ax, summary[summary["arm"] == arm])
        low = place + 2 > len(arms)
        ax.set(title=arm, xlabel="step (log scale)" if low else "", ylabel="nats per token" if place % 2 else "")
    fig.legend(handles=handles, loc="outside upper center", ncols=8, columnspacing=1.2)
    add_note(fig, seed_note(summary["seeds"]))
    return record(fig, summary)


def _probe_lines(ax: Axes, rows: pd.DataFrame) -> list:
    """Lines and bands of one panel of `shift_panels`; returns the lines for a legend."""
    handles = []
    ax.axhline(0, color=GREY, linewidth=0.8)
    for kind, look in PROBE_LOOK.items():
        part = rows[rows["probe"] == kind].sort_values("step")
        handles += ax.plot(part["step"], part["mean"], label=kind, ms=3.5, lw=1.4, **look)
        ax.fill_between(part["step"], part["low"], part["high"], color=look["color"], alpha=0.08, linewidth=0)
    if rows[["low", "high"]].abs().max(axis=None) > 0.1:
        ax.set_yscale("symlog", linthresh=0.1)
        low, high = ax.get_ylim()
        ax.set_yticks([tick for tick in (-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100) if low <= tick <= high])
        ax.set_yticks([], minor=True)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.3g}" if value else "0")
    log_x(ax, rows["step"])
    return handles


@use_style()
def seed_points(points: pd.DataFrame, ylabel: str) -> Figure:
    """Drop against perplexity of what was learned from, a point per arm, seed and learning rate (log x).

    Where an arm was trained at several rates, larger markers are higher rates. `points`: columns arm, seed,
    learning_rate, perplexity, drop, which are also what is drawn.
    """
    ax, rates = new_axes(7.4, 4.0), sorted(points["learning_rate"].unique())
    sizes = {rate: 8.0 if len(rates) == 1 else 4.0 + 9.0 * place / (len(rates) - 1) for place, rate in enumerate(rates)}
    for arm in [arm for arm in ARM_STYLE if arm in set(points["arm"])]:
        look = arm_style(arm).line() | {"linestyle": "none", "alpha": 0.75, "mew": 0}
        ax.plot([], [], label=arm, markersize=8, **look)
        for rate, rows in points[points["arm"] == arm].groupby("learning_rate"):
            ax.plot(rows["perplexity"], rows["drop"], markersize=sizes[rate], **look)
    for rate in rates if len(rates) > 1 else ():
        ax.plot([], [], "o", color=GREY, alpha=0.75, mew=0, markersize=sizes[rate], label=f"rate {rate:g}")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.06, y=0.1)
    ax.axhline(0, color=GREY, linewidth=1, zorder=1)
    ax.set(xlabel="perplexity of what the arm learned from, under the base (log scale)", ylabel=ylabel)
    ax.set_title("Forgetting against perplexity, one point per run")
    ax.figure.legend(loc="outside right upper")
    return record(ax.figure, points[["arm", "seed", "learning_rate", "perplexity", "drop"]])
