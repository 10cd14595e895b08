"""Learning curves, the plane of gain and drop, per-task dots, galleries of boards, and tokens by log-prob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from helpers.errors import UserError
from helpers.show import marks
from helpers.show.marks import record, said
from helpers.show.save import checked_data
from helpers.show.style import (
    GREY,
    MEASURE_LABEL,
    RFT_PANELS,
    direct_labels,
    log_x,
    new_axes,
    new_figure,
    seed_note,
    short_number,
    use_style,
)
from helpers.stats.curves import gain_and_drop, require_columns, rows_of, seed_summary, task_drops
from helpers.study.arms import LineStyle, arm_style, get_arm

TOKEN_COLUMNS = 76  # characters in a line of `token_figure`


@use_style()
def learning_curves(
    evaluations: pd.DataFrame,
    task: str,
    measure: str,
    x: str = "step",
    chance: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One task's measure against training (`x`: step or samples, log with 0 at the left), a line per arm.

    `chance`: draws a line at that level. `ax`: draw there instead of on a new figure. Drawn columns: task,
    measure, arm, step|samples, mean, low, high, seeds (and chance). Raises UserError when nothing matches.
    """
    if x not in ("step", "samples"):
        raise UserError(f"x is 'step' or 'samples', not {x!r}.")
    summary = seed_summary(rows_of(evaluations, measure, task), ["task", "measure", "arm", x])
    axes, name = ax if ax is not None else new_axes(), MEASURE_LABEL.get(measure, measure)
    trains = summary["arm"].map(lambda arm: get_arm(arm).trains)
    known = summary[~trains & ~summary["arm"].duplicated(keep=False)]
    labels = marks.lines(axes, summary.drop(known.index), x, clip_on=False)
    for row in known.itertuples():  # the untrained base, known at one point only, is a level across the axes
        style = arm_style(row.arm)
        labels.append(marks.level(axes, row.mean, row.arm, style.colour, style.linestyle))
    if chance is not None:
        labels.append(marks.level(axes, chance, f"chance {chance:.3g}"))
        summary["chance"] = chance
    log_x(axes, summary[x])
    direct_labels(axes, labels)
    axes.set(xlabel=f"{x} (log scale)", ylabel=name, title=task)
    alt = f"{name.capitalize()}, {task}, against {x}: a line and band per arm. At the end:"
    return record(axes.figure, summary, f"{alt} {said(marks.ends(summary, x))}.", seed_note(summary["seeds"]))


@use_style()
def per_task_drop(evaluations: pd.DataFrame, accuracy: float | None = None) -> Figure:
    """Drop below base per prior task and arm, with intervals over seeds; worst-hit tasks at the top.

    At the last step, or where puzzle exact match first reaches `accuracy` (see `task_drops`).
    Drawn columns: task, arm, mean, low, high, seeds.
    """
    summary = seed_summary(task_drops(evaluations, accuracy), ["task", "arm"])
    tasks, arms = list(summary.groupby("task")["mean"].mean().sort_values().index), marks.in_order(summary["arm"])
    ax = new_axes(7.0, 1.5 + len(tasks) * max(0.34, 0.13 * len(arms)))
    for rank, arm in enumerate(arms):
        rows, offset = summary[summary["arm"] == arm], 0.7 * ((len(arms) - 1) / 2 - rank) / len(arms)
        marks.dots(ax, rows, [tasks.index(task) + offset for task in rows["task"]], label=arm, **marks.point_look(arm))
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(-0.6, len(tasks) - 0.4)
    when = "at the last step" if accuracy is None else f"on reaching puzzle exact match {accuracy:g}"
    ax.set(title=f"Drop per prior task, {when}", xlabel="drop below base (right: forgets more)")
    ax.figure.legend(loc="outside right upper")
    missing = [arm for arm in marks.in_order(evaluations["arm"]) if arm not in arms and get_arm(arm).trains]
    note = seed_note(summary["seeds"]) + f". Never there: {', '.join(missing)}" * bool(missing)
    worst = summary.loc[summary["mean"].idxmax()]
    alt = f"Drop below base per prior task and arm {when}. Largest: {worst['mean']:.2f}, {worst['task']} under"
    return record(ax.figure, summary, f"{alt} {worst['arm']}.", note)


@use_style()
def gain_drop(evaluations: pd.DataFrame) -> Figure:
    """The plane of gain (puzzle exact match) and drop (mean prior score): a path per arm, faint per seed.

    The cross at the end of a path is the interval over seeds. Drawn columns: arm, step, gain,
    gain_low, gain_high, drop, drop_low, drop_high, seeds.
    """
    changes = gain_and_drop(evaluations)
    changes = changes[changes["arm"] != "base"]
    if changes.empty:
        raise UserError("Only the base was evaluated: train an arm before drawing what it gained.")
    gain, drop = _with_interval(changes, "gain"), _with_interval(changes, "drop")
    summary, ax = gain.drop(columns="seeds").merge(drop, on=["arm", "step"]), new_axes(7.0, 4.6)
    for arm in marks.in_order(summary["arm"]):
        _path(ax, changes[changes["arm"] == arm], summary[summary["arm"] == arm])
    ax.axhline(0, color=GREY, linewidth=1, zorder=1)
    ax.plot(0, 0, label="base", **marks.point_look("base") | {"markersize": 8})
    ax.set(xlabel="gain in puzzle exact match", ylabel="drop in mean prior score (up: forgets more)")
    ax.set_title("What is gained, and what it costs")
    ax.figure.legend(loc="outside right upper")
    alt = "Plane of gain in puzzle exact match and drop in mean prior score, a path per arm. At the end, gain:"
    gains, drops = (said(marks.ends(summary, "step", value=value)) for value in ("gain", "drop"))
    return record(ax.figure, summary, f"{alt} {gains}; drop: {drops}.", seed_note(summary["seeds"]))


def _with_interval(changes: pd.DataFrame, name: str) -> pd.DataFrame:
    """One side of the plane over seeds: columns arm, step, `name`, `name`_low, `name`_high, seeds."""
    columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
    return seed_summary(changes, ["arm", "step"], name).rename(columns=columns)


def _path(ax: Axes, runs: pd.DataFrame, mean: pd.DataFrame) -> None:
    """The runs of one arm, faint, and their mean with its interval at the end."""
    arm = mean["arm"].iloc[0]
    style = arm_style(arm)
    if mean["seeds"].max() > 1:
        for _, run in runs.groupby("run"):
            ax.plot(run["gain"], run["drop"], color=style.colour, alpha=0.3, linewidth=0.8)
    ax.plot(mean["gain"], mean["drop"], label=arm, **style.line() | {"markevery": [-1]})
    ax.plot(mean["gain"], mean["drop"], color=style.colour, marker=".", markersize=3, linestyle="none")
    marks.crosses(ax, mean.tail(1), "gain", "drop", color=style.colour, linestyle="-")


@use_style()
def rft_diagnostics(metrics: pd.DataFrame, panels: Mapping[str, tuple[str, tuple[str, ...]]] = RFT_PANELS) -> Figure:
    """Four looks at RFT against step: reward parts, entropy, completion length, groups without a signal.

    `metrics`: columns run, arm, seed, step, name, value. `panels`: title -> (axis label, metric names); a
    panel without records says so. Drawn columns: panel, name, arm, step, mean, low, high, seeds.
    """
    require_columns(metrics, ("arm", "seed", "step", "name", "value"))
    fig, axes = marks.panels(list(panels), 8.0, 2.5, min(2, len(panels)), room=0.6)
    frames = []
    for title, (unit, names) in panels.items():
        frames.append(_metric_panel(axes[title], metrics, names))
        frames[-1].insert(0, "panel", title)
        axes[title].set(ylabel=unit, xlabel="step")
    summary = pd.concat(frames, ignore_index=True)
    if summary.empty:
        raise UserError("None of these metrics was recorded: pass panels= with names in the table.")
    last = said(marks.ends(summary[summary["arm"] == summary["arm"].iloc[0]], "step", "name").rename(short_number))
    alt = f"{', '.join(panels)} against step, a panel each. At the end: {last}."
    return record(fig, summary, alt, seed_note(summary["seeds"]))


def _metric_panel(ax: Axes, metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Colour tells the arm and line style the metric: here the arm's own line style would say nothing new."""
    summary = seed_summary(metrics[metrics["name"].isin(names)], ["name", "arm", "step"])
    dashes: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
    several, labels = summary["arm"].nunique() > 1, []
    for (name, arm), rows in summary.groupby(["name", "arm"]):
        text = " ".join([arm] * several + [short_number(name)] * (len(names) > 1)) or arm
        look = {"linestyle": dashes[list(names).index(name) % len(dashes)]} | ({"marker": ""} if len(rows) > 1 else {})
        labels += marks.lines(ax, rows, "step", label=text, **look)
    if summary.empty:
        ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color=GREY)
        ax.set(xticks=[], yticks=[])
    direct_labels(ax, labels)
    return summary


@use_style()
def battery_bars(df: pd.DataFrame) -> Figure:
    """Score per prior task as bars with intervals and a tick at chance; `df`: task, value, low, high, chance.

    All in [0, 1]; tasks are drawn from the top in the order given. Drawn data: `df`.
    """
    columns = ["task", "value", "low", "high", "chance"]
    require_columns(df, columns)
    table = checked_data(df[columns])
    ax, places = new_axes(7.0, 1.1 + 0.34 * len(table)), np.arange(len(table))
    ax.barh(places, table["value"], color="#8FB8D4", height=0.66)
    marks.dots(ax, table, places, value="value", fmt="none", color="#1A4E73", capsize=3, elinewidth=1.4)
    ax.vlines(table["chance"], places - 0.42, places + 0.42, color="black", lw=1.8)
    for place, value in enumerate(table["value"]):
        marks.row_text(ax, place, f"{value:.2f}", fontsize=9.5)
    marks.row_axis(ax, table["task"], 0.4)
    ax.grid(axis="y", visible=False)
    ax.set(xlim=(0, 1), xlabel="score", title="Prior battery (black tick: chance; whisker: interval)")
    scores = table.set_index("task")["value"]
    alt = f"Score per prior task as bars with intervals and chance levels. {said(scores)}; mean {scores.mean():.2f}."
    return record(ax.figure, table, alt)


@use_style()
def board_gallery(images: Sequence[Any], titles: Sequence[str], columns: int = 4) -> Figure:
    """Images (PIL or arrays) in a grid with a title each, pixels kept sharp. Drawn columns: position, title.

    Raises UserError when there are no images or the titles do not match them.
    """
    if not images or len(images) != len(titles) or columns < 1:
        raise UserError(f"A gallery needs images and one title each: got {len(images)} and {len(titles)}.")
    wide = min(columns, len(images))
    height = 2.15 + 0.2 * max(title.count("\n") for title in titles)
    fig, axes = marks.panels(dict.fromkeys(range(len(titles)), ""), max(2.2 * wide, 3.0), height, wide)
    for ax, image, title in zip(axes.values(), images, titles, strict=True):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(title, parse_math=False, fontsize=9, loc="center")
        ax.set_axis_off()
    table = pd.DataFrame({"position": range(1, len(titles) + 1), "title": list(titles)})
    heads = "; ".join(title.partition("\n")[0] for title in titles)
    return record(fig, table, f"Pictures with titles: {heads}.")


@use_style()
def heat_tokens(tokens: Sequence[str], logps: Sequence[float]) -> Figure:
    """The tokens of a completion, each on a box coloured by its log-probability (nats; dark: surprising).

    Drawn columns: position, token, logp. Raises UserError on no tokens, other lengths or non-finite values.
    """
    if not tokens or len(tokens) != len(logps):
        raise UserError(f"Every token needs a log-probability: {len(tokens)} tokens, {len(logps)} values.")
    table = checked_data(token_rows(tokens, logps))
    fig = token_figure({"": (tokens, logps)}, "log-probability (nats)")
    worst = table.loc[table["logp"].idxmin()]
    alt = f"{len(table)} tokens coloured by log-prob, {table['logp'].sum():.1f} nats together; most surprising:"
    return record(fig, table, f"{alt} {worst['token']!r}, {worst['logp']:.1f} nats.")


def token_rows(tokens: Sequence[str], logps: Sequence[float]) -> pd.DataFrame:
    """A row per token: columns position (from 1), token, logp."""
    return pd.DataFrame({"position": range(1, len(tokens) + 1), "token": list(tokens), "logp": list(map(float, logps))})


@use_style()
def token_figure(views: Mapping[str, tuple[Sequence[str], Sequence[float]]], label: str) -> Figure:
    """A panel of coloured tokens for each title, on one scale of log-prob, which a bar with `label` shows."""
    lines = [marks.token_lines(tokens, TOKEN_COLUMNS) for tokens, _ in views.values()]
    fig = new_figure(8.4, 0.9 + 0.3 * sum(lines) + 0.35 * len(lines))
    axes = fig.subplots(len(lines), height_ratios=[n + 0.6 for n in lines], squeeze=False)[:, 0]
    lowest = min(-1.0, *(min(logps) for _, logps in views.values()))
    scale = ScalarMappable(Normalize(lowest, 0.0), "cividis")
    for ax, (title, (tokens, logps)) in zip(axes, views.items(), strict=True):
        ax.set_title(title)
        marks.tokens(ax, tokens, logps, scale, TOKEN_COLUMNS)
    bar = fig.colorbar(scale, ax=fig.axes, location="bottom", fraction=0.05, aspect=60, pad=0.02)
    bar.set_label(label)
    return fig
