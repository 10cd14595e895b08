"""Figures that set arms side by side: live points, panels of measures, corpora under the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.errors import UserError
from helpers.show import marks
from helpers.show.marks import record, said
from helpers.show.plots import learning_curves, token_figure, token_rows
from helpers.show.style import GREY, MEASURE_LABEL, log_x, new_axes, seed_note, use_style
from helpers.stats.curves import ALL, PRIOR_MEASURES, battery_mean, last_rows, seed_summary
from helpers.study.arms import arm_style

PRIOR = "mean of the prior tasks"

# Probes of a corpus have the colour of the arm that learns from it; the rest are told apart by line style too.
PROBE_LOOK: Mapping[str, marks.Look] = {
    "answer": {"color": "#A84300", "linestyle": "--", "marker": "^"},
    "expert": {"color": "#C58900", "linestyle": "-.", "marker": "v"},
    "rollout": {"color": "#007A59", "linestyle": (0, (7, 2)), "marker": "D"},
    "base-right": {"color": "#8A4FA3", "linestyle": (0, (5, 1)), "marker": "X"},
    "wrong": {"color": "#000000", "linestyle": ":", "marker": "x"},
    "shuffled": {"color": "#7A7A7A", "linestyle": (0, (1, 1)), "marker": "."},
    "prior-gold": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "prior-model": {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
}


@use_style()
def prior_curves(evaluations: pd.DataFrame, measure: str, x: str = "step", ax: Axes | None = None) -> Figure:
    """`plots.learning_curves` of the mean over the prior tasks: score, likelihood or format_failure."""
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

    Means over the prior tasks for `arms`. Drawn columns as in `plots.learning_curves`.
    """
    fig, axes = marks.panels(measures or PRIOR_MEASURES.values(), 7.0, 2.3, columns=1)
    for measure, ax in axes.items():
        prior_curves(evaluations[evaluations["arm"].isin(arms)], measure, ax=ax)
        ax.set(title=MEASURE_LABEL[measure], xlabel="step (log scale)" if ax is fig.axes[-1] else "")
    parts = [f"{rows['measure'].iloc[0]}: {said(marks.ends(rows, 'step'))}" for rows in fig.jigsaw_drawn]
    alt = "Means over the prior tasks against step, a panel per measure. At the end:"
    return marks.describe(fig, f"{alt} {'; '.join(parts).replace('_', ' ')}.")


@use_style()
def add_live(fig: Figure, live: pd.DataFrame, task: str, measure: str, x: str = "step") -> Figure:
    """Lay the points of a live run over `learning_curves`: large open markers, named in the legend.

    `live`: its evaluations; task "all" (or `PRIOR`) is the mean over the prior tasks.
    """
    rows = battery_mean(live) if task in (ALL, PRIOR) else live[live["task"] == task]
    rows = rows[rows["measure"] == measure].sort_values(x)
    if rows.empty:
        raise UserError(f"The live run has no {measure} of {task}: choose a measure that it was evaluated on.")
    ax, arm, known = fig.axes[0], rows["arm"].iloc[0], fig.jigsaw_drawn[0]
    look = marks.point_look(arm) | {"mfc": "none", "markersize": 11, "mew": 1.8, "zorder": 5}
    (points,) = ax.plot(rows[x], rows["value"], label=f"{arm}, live", clip_on=False, **look)
    ax.set_xlim(right=max(ax.get_xlim()[1], rows[x].max() * 1.12))
    ax.legend(handles=[points], loc="best")
    values = {name: rows["value"] for name in ("mean", "low", "high")}
    frame = rows.assign(task=PRIOR if task == ALL else task, arm=f"{arm} (live)", seeds=1, **values)
    if "chance" in known.columns:
        frame["chance"] = known["chance"].iloc[0]
    alt = f"{fig.jigsaw_alt} Open markers: a live run of {arm}, at its end {rows['value'].iloc[-1]:.2f}."
    return record(fig, frame[list(known.columns)], alt)


@use_style()
def knowledge_or_format(evaluations: pd.DataFrame) -> Figure:
    """Score, likelihood score and format failures of every arm at its last step, on one scale.

    Filled: what the model answers; open: what it would choose among given answers; cross: answers in no valid
    form. Drawn columns: arm, measure, mean, low, high, seeds.
    """
    summary = seed_summary(last_rows(battery_mean(evaluations)), ["arm", "measure"])
    arms, words = marks.in_order(summary["arm"]), []
    ax = new_axes(7.0, 1.4 + 0.5 * len(arms))
    looks = {
        "score": ("answers right (score)", {"marker": "o"}),
        "likelihood": ("ranks the right answer first (likelihood score)", {"marker": "o", "mfc": "white"}),
        "format_failure": ("answers in no valid form", {"marker": "x", "mew": 2}),
    }
    for offset, (measure, (label, look)) in zip((0.16, 0.0, -0.16), looks.items(), strict=True):
        part = summary[summary["measure"] == measure]
        for arm, rows in part.groupby("arm"):
            marks.dots(ax, rows, [arms.index(arm) + offset], color=arm_style(arm).colour, ms=7, **look)
        marks.key(ax, label, **look)
        words.append(f"{MEASURE_LABEL[measure]}: {said(part.set_index('arm')['mean'])}")
    marks.row_axis(ax, arms)
    title = "At the end: is the knowledge gone, or only the format?"
    ax.set(xlim=(-0.04, 1.04), xlabel="share of prior-task samples", title=title)
    marks.legend(ax.figure, "upper left", ncols=1)
    alt = f"Prior tasks by arm at the last step, a dot per measure: {'; '.join(words)}."
    return record(ax.figure, summary, alt, seed_note(summary["seeds"]))


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
    looks = {"correct": {"color": "#0072B2", "linestyle": "-"}, "wrong": {"color": "#A84300", "linestyle": "--"}}
    kinds = values.groupby(np.where(values["exact"] == 1, "correct", "wrong"))["logp_base"]
    for kind, logps in kinds:
        share = np.histogram(logps, edges)[0] / len(logps)
        ax.stairs(share, edges, linewidth=2, label=f"{kind} ({len(logps)})", **looks[kind])
        ax.axvline(logps.median(), linewidth=0.9, **looks[kind])
        rows = {"kind": kind, "low": edges[:-1], "high": edges[1:], "share": share, "n": len(logps)}
        frames.append(pd.DataFrame(rows))
    ax.set(xlabel="base log-prob of the completion (nats; right: more probable)", ylabel="share of rollouts")
    ax.set_title("How probable early rollouts are under the base model (thin line: median)")
    ax.legend(loc="upper left")
    alt = "Histograms of the base log-prob of early rollouts, correct against wrong. Medians in nats:"
    return record(ax.figure, pd.concat(frames), f"{alt} {said(kinds.median(), '.1f')}.")


@use_style()
def corpus_strips(logps: pd.DataFrame, perplexity: pd.DataFrame) -> Figure:
    """Base log-prob per token of each completion of each corpus, a row of points per corpus; its perplexity beside.

    `logps` as from `perplexity.base_logps`, `perplexity` as from `perplexity.perplexities`. Drawn columns: corpus,
    item, tokens, logp, per_token.
    """
    arms = marks.in_order(logps["corpus"])
    ax, by_corpus = new_axes(7.4, 1.2 + 0.62 * len(arms)), perplexity.set_index("corpus")
    sums = logps.groupby("corpus")[["logp", "tokens"]].sum().loc[arms]
    marks.strips(ax, logps, "per_token", (sums["logp"] / sums["tokens"]).to_dict())
    for place, row in enumerate(by_corpus.loc[arms].itertuples()):
        text = f"perplexity {row.perplexity:,.3g}\n{row.tokens:.0f} tokens, {row.logp:.0f} nats"
        marks.row_text(ax, place, text)
    ax.set_xlabel("base log-prob per token (nats; right: more probable)")
    ax.set_title("What the base model thinks of each corpus (bar: mean over tokens)")
    alt = "Base log-prob per token of each completion, a row of points per corpus. Perplexities:"
    frame = logps[["corpus", "item", "tokens", "logp", "per_token"]]
    return record(ax.figure, frame, f"{alt} {said(by_corpus['perplexity'], '.2g')}.")


@use_style()
def drop_vs_perplexity(points: pd.DataFrame, ylabel: str) -> Figure:
    """Drop in prior score against corpus perplexity under the base model, one point per arm (log x).

    `points`: columns arm, perplexity, drop, low, high, seeds, which are also what is drawn.
    """
    ax = new_axes(6.4, 3.8)
    for arm, row in points.groupby("arm", sort=False):
        look = marks.point_look(arm) | {"markersize": 9, "capsize": 3, "elinewidth": None}
        marks.dots(ax, row, row["perplexity"], value="drop", upright=True, **look)
        spot = row[["perplexity", "drop"]].iloc[0]
        ax.annotate(arm, spot, (9, 5), textcoords="offset points", color=look["color"])
    marks.log_numbers(ax)
    ax.margins(x=0.22, y=0.15)
    ax.axhline(0, color=GREY, linewidth=1, zorder=1)
    ax.set(xlabel="corpus perplexity under the base model (log scale)", ylabel=ylabel)
    ax.set_title("Does an improbable corpus cost more?")
    frame = points[["arm", "perplexity", "drop", "low", "high", "seeds"]]
    return record(ax.figure, frame, _costs(points, ylabel), seed_note(points["seeds"]))


def _costs(points: pd.DataFrame, ylabel: str) -> str:
    """Alt text: perplexity and drop of each arm, means over its points."""
    means = points.groupby("arm")[["perplexity", "drop"]].mean()
    pairs = [f"{a} ({marks.plain(means.perplexity[a])}, {means['drop'][a]:.2f})" for a in marks.in_order(means.index)]
    return f"{ylabel.capitalize()} against perplexity under the base; perplexity and drop per arm: {', '.join(pairs)}."


@use_style()
def probability_strips(rows: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Base log-prob of completions, whole (left) and per token (right): points per corpus in the order of `table`.

    `rows`: columns corpus, logp, tokens, per_token; `table`: columns corpus, logp, perplexity, low, high (its 95%
    interval). Drawn columns: those of `rows`.
    """
    titles = {"logp": "Base log-prob, whole", "per_token": "Base log-prob, per token"}
    fig, axes = marks.panels(titles, 10.0, 0.5 * len(table), room=1.3, share="y")
    middles = {"logp": table["logp"], "per_token": -np.log(table["perplexity"])}
    for (value, ax), near in zip(axes.items(), (1.0, 0.1), strict=True):
        marks.strips(ax, rows, value, dict(zip(table["corpus"], middles[value], strict=True)), look=_one_look)
        # From 0 linear down to -near and logarithmic from there, as log-probs spread over decades.
        ax.set_xlim(1.2 * min(rows[value].min(), -near), 0)
        ax.set_xscale("symlog", linthresh=near, linscale=0.4)
        marks.ticks(ax, "x", [*(-near * unit * 10**power for power in range(4) for unit in (1, 2, 5)), 0])
    for place, row in enumerate(table.itertuples()):
        middle, low, high = (f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in (row.perplexity, row.low, row.high))
        marks.row_text(ax, place, f"{middle}\n({low} to {high})")
    ax.tick_params(labelleft=False)
    ax.text(1.02, 1.02, "perplexity", transform=ax.transAxes, fontsize=8.5)
    axes["logp"].set_xlabel("nats per completion (bar: mean)")
    ax.set_xlabel("nats per token (bar: mean over tokens)")
    alt = "Base log-prob of completions, whole and per token, a row of points per corpus. Perplexities:"
    words = said(table.set_index("corpus")["perplexity"], ".2g")
    return record(fig, rows[["corpus", "logp", "tokens", "per_token"]], f"{alt} {words}.")


def _one_look(corpus: str) -> marks.Look:
    """Corpora here are no arms: all in one colour."""
    return {"color": "#0072B2", "marker": "o", "linestyle": "none", "markersize": 3.5, "alpha": 0.4}


@use_style()
def token_panels(names: Sequence[str], views: Sequence[tuple[Sequence[str], Sequence[float]]]) -> Figure:
    """Completions token by token, a panel each, boxes coloured by log-prob on one scale (nats; dark: surprising).

    `views`: (tokens, log-probs) of each name, as from `perplexity.token_view`. Drawn columns: completion, position,
    token, logp.
    """
    views = dict(zip(names, views, strict=True))
    titles = {f"{name}: {sum(logps):.1f} nats": (tokens, logps) for name, (tokens, logps) in views.items()}
    fig = token_figure(titles, "base log-prob of the token (nats)")
    tables = {name: token_rows(*view) for name, view in views.items()}
    drawn = pd.concat(tables, names=["completion", None]).reset_index("completion")
    sums = said({name: table["logp"].sum() for name, table in tables.items()}, ".1f")
    return record(fig, drawn, f"Completions token by token, coloured by base log-prob. In all, in nats: {sums}.")


@use_style()
def reach(boards: pd.DataFrame, ranks: pd.DataFrame | None, chance: float) -> Figure:
    """Left: probability of a correct completion per board, exact likelihood against counting. Right: rank of the truth.

    `boards` as from `reach.reachability` (bars: its 95% Wilson intervals; dashed: chance; thin: where both agree),
    `ranks` as from `reach.placement_ranks` for the same boards (dashed: all ranks equally often), or None. Drawn
    columns: board, samples, right, counted, low, high, likelihood, chance, and rank, empty for a board without a think.
    """
    titles = ["Probability of a correct completion, per board", "Where the true placement stands"]
    fig, _ = marks.panels(titles[:1], 4.8, 4.3) if ranks is None else marks.panels(titles, 9.4, 4.3)
    _counted_points(fig.axes[0], boards, chance)
    means, drawn = said(boards[["counted", "likelihood"]].mean()), boards.assign(chance=chance)
    alt = f"Probability of a correct completion per board, two estimates. Means: {means}; chance {chance:.2g}."
    if ranks is None:
        return record(fig, drawn, alt)
    every = int(ranks["placements"].iloc[0])
    ax, width = fig.axes[1], max(1, every // 6)
    ax.hist(ranks["rank"], bins=range(1, every + width + 1, width), color="#0072B2", alpha=0.7, edgecolor="white")
    ax.axhline(len(ranks) * width / every, color="black", linestyle="--", linewidth=1)
    ax.set(xlabel=f"rank of the true placement among {every} (1: most probable)", ylabel="boards")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = drawn.merge(ranks[["board", "rank"]], on="board", how="left")
    alt += f" Right: histogram of the rank of the true placement, median {ranks['rank'].median():.0f} of {every}."
    return record(fig, drawn.assign(rank=drawn["rank"].astype(object).where(drawn["rank"].notna(), "")), alt)


def _counted_points(ax: Axes, boards: pd.DataFrame, chance: float) -> None:
    """Counting with its interval against likelihood, a point per board."""
    look = {"marker": "o", "color": "#0072B2", "alpha": 0.45, "elinewidth": 0.8, "capsize": 0}
    marks.dots(ax, boards, boards["likelihood"], value="counted", upright=True, **look)
    right = 1.08 * max(boards["likelihood"].max(), chance)
    top = 1.05 * max(boards["high"].max(), right)
    ax.plot([0, right], [0, right], color=GREY, linewidth=0.8)
    for line in (ax.axhline, ax.axvline):
        line(chance, color="black", linestyle="--", linewidth=1)
    ax.set(xlim=(-0.03 * right, right), ylim=(-0.03 * top, top))
    ax.set(xlabel="by likelihood of the answer behind own thinks", ylabel="by counting correct samples")


@use_style()
def shift_panels(shifted: pd.DataFrame, value: str = "per_token") -> Figure:
    """Shift of each kind of probe against step, a panel per arm (log x; y linear up to 0.1, then logarithmic).

    `shifted` as from `probes.shifts`; `value`: its column to draw. Drawn columns: arm, probe, step, mean, low, high,
    seeds.
    """
    trained = shifted[shifted["arm"] != "base"]
    if trained.empty:
        raise UserError("None of these runs was trained, so nothing has shifted: score the probes of another arm.")
    summary = seed_summary(trained, ["arm", "probe", "step"], value)
    labels = {"xlabel": "step (log scale)", "ylabel": "nats per token"}
    fig, axes = marks.panels(marks.in_order(summary["arm"]), 9.4, 2.7, columns=2, room=0.9, **labels)
    for arm, ax in axes.items():
        _probe_lines(ax, summary[summary["arm"] == arm])
    for kind, look in PROBE_LOOK.items():
        marks.key(fig.axes[-1], kind, **look | {"markersize": 3.5, "linewidth": 1.4})
    marks.legend(fig, columnspacing=1.2)
    gold = said(marks.ends(summary[summary["probe"] == "prior-gold"], "step"))
    alt = "Shift of log-prob per token of each kind of probe, a panel per arm. Gold answers of prior tasks at the end:"
    return record(fig, summary, f"{alt} {gold}.", seed_note(summary["seeds"]))


def _probe_lines(ax: Axes, rows: pd.DataFrame) -> None:
    """Lines and bands of one panel of `shift_panels`."""
    ax.axhline(0, color=GREY, linewidth=0.8)
    known = pd.concat([rows[rows["probe"] == kind] for kind in PROBE_LOOK])  # the later, the further in front
    marks.lines(ax, known, "step", "probe", PROBE_LOOK.__getitem__, band=0.08, ms=3.5, lw=1.4, label="_")
    if rows[["low", "high"]].abs().max(axis=None) > 0.1:
        ax.set_yscale("symlog", linthresh=0.1)
        marks.ticks(ax, "y", (-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.3g}" if value else "0")
    log_x(ax, rows["step"])


@use_style()
def seed_points(points: pd.DataFrame, ylabel: str) -> Figure:
    """Drop against perplexity of what was learned from, a point per arm, seed and learning rate (log x).

    Where an arm was trained at several rates, larger markers are higher rates. `points`: columns arm, seed,
    learning_rate, perplexity, drop, which are also what is drawn.
    """
    ax, rates = new_axes(7.4, 4.0), sorted(points["learning_rate"].unique())
    sizes = dict(zip(rates, np.linspace(4, 13, len(rates)) if len(rates) > 1 else [8.0], strict=True))
    for arm in marks.in_order(points["arm"]):
        marks.key(ax, arm, **marks.point_look(arm) | {"markersize": 8, "alpha": 0.75, "mew": 0})
    for rate, rows in points.groupby("learning_rate"):
        marks.scatter(ax, rows, "perplexity", "drop", markersize=sizes[rate], alpha=0.75, mew=0)
    for rate in rates if len(rates) > 1 else ():
        marks.key(ax, f"rate {rate:g}", marker="o", alpha=0.75, mew=0, markersize=sizes[rate])
    marks.log_numbers(ax, numticks=20)
    ax.margins(x=0.06, y=0.1)
    ax.axhline(0, color=GREY, linewidth=1, zorder=1)
    ax.set(xlabel="perplexity of what the arm learned from, under the base (log scale)", ylabel=ylabel)
    ax.set_title("Forgetting against perplexity, one point per run")
    ax.figure.legend(loc="outside right upper")
    return record(ax.figure, points[["arm", "seed", "learning_rate", "perplexity", "drop"]], _costs(points, ylabel))
