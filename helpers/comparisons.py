"""Figures that set arms side by side: live points, panels of measures, corpora under the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from helpers.errors import UserError
from helpers.figures import (
    ARM_STYLE,
    GREY,
    MEASURE_LABEL,
    _new_axes,
    _new_figure,
    _note,
    _record,
    _seed_note,
    arm_style,
    learning_curves,
    seed_summary,
    use_style,
)
from helpers.summary import ALL, PRIOR_MEASURES, battery_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRIOR = "mean of the prior tasks"


@use_style()
def prior_curves(evaluations: pd.DataFrame, measure: str, x: str = "step", ax: Axes | None = None) -> Figure:
    """`figures.learning_curves` of the mean over the prior tasks: score, likelihood or format_failure."""
    mean = battery_mean(evaluations).assign(task=PRIOR)
    ax = ax if ax is not None else _new_axes()
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
    fig = _new_figure(7.0, 2.3 * len(names))
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
    import pandas as pd

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
    return _record(fig, frame[list(known.columns)])


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
    ax = _new_axes(7.0, 1.4 + 0.5 * len(arms))
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
    _note(ax.figure, _seed_note(summary["seeds"]))
    return _record(ax.figure, summary)


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
    import numpy as np
    import pandas as pd

    values = completions.dropna(subset="logp_base")
    if values.empty:
        raise UserError("None of these completions has a base log-prob: take the first steps of a run.")
    lowest, highest = values["logp_base"].quantile(0.01) - 0.5, min(0.5, values["logp_base"].max() + 0.5)
    values = values.assign(logp_base=values["logp_base"].clip(lower=lowest))  # stragglers count in the first bin
    edges = np.linspace(lowest, highest, 25)
    ax, frames = _new_axes(7.0, 3.6), []
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
    return _record(ax.figure, pd.concat(frames))


@use_style()
def corpus_strips(logps: pd.DataFrame, perplexity: pd.DataFrame) -> Figure:
    """Base log-prob per token of each completion of each corpus, a row of points per corpus; its perplexity beside.

    `logps` as from `live.base_logps`, `perplexity` as from `live.perplexities`. Drawn columns: corpus, item,
    tokens, logp, per_token.
    """
    import numpy as np

    arms = [arm for arm in ARM_STYLE if arm in set(logps["corpus"])]
    ax, rng = _new_axes(7.4, 1.2 + 0.62 * len(arms)), np.random.default_rng(0)
    for place, arm in enumerate(arms):
        style, rows = arm_style(arm), logps[logps["corpus"] == arm]
        heights = place + rng.uniform(-0.25, 0.25, len(rows))
        ax.plot(rows["per_token"], heights, style.marker, color=style.colour, ms=4, alpha=0.55, mew=0)
        middle = rows["logp"].sum() / rows["tokens"].sum()
        ax.plot([middle, middle], [place - 0.38, place + 0.38], color="black", lw=2)
        found = perplexity.set_index("corpus").loc[arm]
        text = f"perplexity {found['perplexity']:,.3g}\n{found['tokens']:.0f} tokens, {found['logp']:.0f} nats"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5)
    ax.set_yticks(range(len(arms)), arms)
    ax.set(ylim=(len(arms) - 0.5, -0.5), xlabel="base log-prob per token (nats; right: more probable)")
    ax.set_title("What the base model thinks of each corpus (bar: mean over tokens)")
    return _record(ax.figure, logps[["corpus", "item", "tokens", "logp", "per_token"]])


@use_style()
def drop_vs_perplexity(points: pd.DataFrame, ylabel: str) -> Figure:
    """Drop in prior score against corpus perplexity under the base model, one point per arm (log x).

    `points`: columns arm, perplexity, drop, low, high, seeds, which are also what is drawn.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    ax = _new_axes(6.4, 3.8)
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
    _note(ax.figure, _seed_note(points["seeds"]))
    return _record(ax.figure, points[["arm", "perplexity", "drop", "low", "high", "seeds"]])
