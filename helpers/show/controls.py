"""Figures of notebook 09: learning rates, controls at equal accuracy, sizes and paths of updates, predictors, recovery.

Their tables are made in `stats.tables`. A figure of an empty table cannot be drawn: `Lab.present` says so instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from helpers.show import marks
from helpers.show.marks import record, said
from helpers.show.style import GREY, from_to, new_axes, seed_note, use_style
from helpers.stats.curves import over_seeds
from helpers.stats.intervals import in_words
from helpers.stats.tables import HALF, PREDICTORS, part_shares, seed_rows
from helpers.study.arms import arm_style


@use_style()
def rate_fronts(paths: pd.DataFrame) -> Figure:
    """The plane of gain and drop, a panel per arm, a path per learning rate; drawn columns: those of `rate_paths`."""
    looks = {  # of a rate as a share of the study's: dark to light, and a line style each
        0.1: ("#30123B", ":"),
        0.3: ("#3E6DB5", (0, (4, 1.5))),
        1.0: ("#1A8C6B", "-"),
        3.0: ("#B8860B", (0, (7, 2, 1, 2))),
        10.0: ("#B5281E", "--"),
    }
    arms, handles = marks.in_order(paths["arm"]), {}
    labels = {"xlabel": "gain in puzzle exact match", "ylabel": "drop in prior score (up: forgets more)"}
    fig, axes = marks.panels(arms, max(4.6, 3.3 * len(arms)), 3.9, share="xy", **labels)
    for (factor, arm), rows in paths.groupby(["factor", "arm"]):
        colour, dash = looks.get(factor, (GREY, "-"))
        look = {"color": colour, "linestyle": dash, "label": f"x {factor:g}" + " (the study)" * (factor == 1)}
        # The legend is in the order of the rates, which the first panel alone may not have all.
        (handles[factor],) = axes[arm].plot(rows["gain"], rows["drop"], lw=1.8, **look)
        axes[arm].plot(*rows[["gain", "drop"]].iloc[-1], "o", color=colour, ms=7)
    for ax in axes.values():
        ax.axhline(0, color=GREY, lw=0.8)
        ax.plot(0, 0, "o", color="black", ms=5)
    marks.legend(fig, handles=list(handles.values()), ncols=5, title="learning rate, as a multiple of the study's")
    ends = paths.groupby(["arm", "factor"], sort=False)[["gain", "drop"]].last()
    last = "; ".join(f"{arm} x {f:g}: gain {gain:.2f}, drop {drop:.2f}" for (arm, f), (gain, drop) in ends.iterrows())
    alt = f"Gain against drop along training, a panel per arm and a path per learning rate. Ends: {last}."
    note = f"{_means_over(paths['seeds'])}; dot: end of a run; black: the base"
    return record(fig, paths[["arm", "factor", "step", "gain", "drop", "seeds"]], alt, note)


def _means_over(seeds: Collection[int]) -> str:
    return f"means over {from_to(seeds)} seed{'s' * (max(seeds) > 1)}"


@use_style()
def controls_at_equal(quantities: pd.DataFrame) -> Figure:
    """Drop at puzzle exact match 0.5 of every arm and control: by score (filled) and by likelihood (open).

    Labels that never get there are named. Drawn columns: label, arm, group, quantity, mean, low, high, seeds.
    """
    summary = seed_rows(quantities, [HALF, f"{HALF}_likelihood"])
    labels = [label for label in dict.fromkeys(quantities["label"]) if label != "base"]
    ax = new_axes(8.2, 1.5 + 0.3 * len(labels))
    for (label, arm, quantity), rows in summary.groupby(["label", "arm", "quantity"], sort=False):
        face, shift = (None, 0.14) if quantity == HALF else ("white", -0.14)
        look = marks.point_look(arm) | {"ms": 8, "elinewidth": 1.3, "mfc": face}
        marks.dots(ax, rows, [labels.index(label) + shift], **look)
    for label in [label for label in labels if label not in set(summary["label"])]:
        marks.row_text(ax, labels.index(label), "never reaches 0.5", x=0.01, color=GREY, fontsize=9.5)
    study = set(quantities.loc[quantities["group"] == "study", "label"])
    if not study.issuperset(labels):
        ax.axhline(max(map(labels.index, study - {"base"})) + 0.5, color=GREY, lw=0.8, ls=":")
    marks.key(ax, "by score", marker="o")
    marks.key(ax, "by likelihood", marker="o", mfc="white")
    ax.axvline(0, color=GREY, lw=0.8)
    marks.row_axis(ax, labels, 0.4)
    ax.set_xlabel("drop in mean prior score where puzzle exact match reaches 0.5")
    ax.set_title("Every arm and control at equal puzzle accuracy")
    marks.legend(ax.figure, "upper right")
    lowest = summary[summary["quantity"] == HALF].sort_values("mean")
    words = ", ".join(f"{row.label} {row.mean:.2f}" for row in lowest.itertuples())
    alt = "Drop in mean prior score at puzzle exact match 0.5 of every arm and control, lowest first:"
    return record(ax.figure, summary, f"{alt} {words}.", seed_note(summary["seeds"]))


@use_style()
def drop_vs_norm(points: pd.DataFrame) -> Figure:
    """Drop against the L2 norm of the update, a point per run; left at exact match 0.5, right at the end of the runs.

    `points` as from `norm_points`, which is also what is drawn. Open markers: controls that share an arm's name.
    """
    titles = {"0.5": "at exact match 0.5", "end": "at the end"}
    titles = {at: title for at, title in titles.items() if at in set(points["at"])}
    labels = {"xlabel": "L2 norm of the update", "ylabel": "drop in mean prior score"}
    fig, axes = marks.panels(titles, 9.6, 4.2, share="y", **labels)
    for at, ax in axes.items():
        marks.scatter(ax, points[points["at"] == at], "norm", "drop")
        ax.axhline(0, color=GREY, lw=0.8)
    marks.arm_key(fig, points)
    means = points[points["at"] == list(axes)[-1]].groupby("label", sort=False)[["norm", "drop"]].mean()
    words = ", ".join(f"{label} norm {norm:.1f}, drop {drop:.2f}" for label, (norm, drop) in means.iterrows())
    alt = f"Drop against the L2 norm of the update, a point per run. Means in the last panel: {words}."
    return record(fig, points, alt)


@use_style()
def change_by_part(weights: pd.DataFrame) -> Figure:
    """Where in the model the update is: share of its squared length per part, a row per arm or control.

    Drawn columns: label, arm, part, share.
    """
    shares = part_shares(weights)
    table = shares.pivot(index="label", columns="part", values="share")
    table = table.loc[shares["label"].unique(), shares["part"].unique()]
    ax = new_axes(8.6, 1.3 + 0.32 * len(table))
    image = marks.heat(ax, table, cmap="cividis", vmin=0)
    ax.set_xticks(ax.get_xticks(), table.columns, rotation=30, ha="right")
    ax.set_title("Share of the update's squared length in each part")
    ax.figure.colorbar(image, ax=ax, fraction=0.03, pad=0.02)
    tops = shares.loc[shares.groupby("label", sort=False)["share"].idxmax()]
    tops = tops[tops["label"] == tops["arm"]]  # the sentence is long enough without the other rates
    words = ", ".join(f"{row.label}: {row.part} {row.share:.2f}" for row in tops.itertuples())
    alt = f"Share of the update's squared length in each part of the model, a row per arm. Largest: {words}."
    return record(ax.figure, shares, alt)


@use_style()
def sparsity_and_rank(weights: pd.DataFrame) -> Figure:
    """Left: share of weights that are unchanged, in fp32 (open) and bf16 (filled). Right: effective rank over the
    largest possible, mean over matrices. Points per run. Drawn columns: label, arm, seed, same_fp32, same_bf16, rank.
    """
    whole = weights[weights["part"] == "all"]
    rows = whole.assign(rank=whole["rank"] / whole["full"])[["label", "arm", "seed", "same_fp32", "same_bf16", "rank"]]
    labels = list(rows["label"].unique())
    titles = {"same": "How sparse the update is", "rank": "How many directions it uses"}
    fig, axes = marks.panels(titles, 9.0, 1.6 + 0.28 * len(labels), share="y")
    left, right = axes.values()
    for row in rows.itertuples():
        place, look = labels.index(row.label), marks.point_look(row.arm) | {"ms": 7, "alpha": 0.85}
        left.plot(row.same_fp32, place - 0.12, mfc="white", **look)
        left.plot(row.same_bf16, place + 0.12, **look)
        right.plot(row.rank, place, **look)
    marks.key(left, "fp32", marker="o", mfc="white", markersize=5)
    marks.key(left, "bf16", marker="o", markersize=5)
    marks.row_axis(left, labels, 0.4)
    left.set(xlim=(-0.03, 1.03), xlabel="share of weights unchanged")
    right.set(xlim=(-0.03, 1.03), xlabel="effective rank / full rank")
    right.tick_params(labelleft=False)
    marks.legend(fig, "upper right")
    alt = "Shares of weights unchanged in fp32 and in bf16, and effective rank, a point per run. In bf16:"
    return record(fig, rows, f"{alt} {said(rows.groupby('label', sort=False)['same_bf16'].mean())}.")


def _each_over_seeds(rows: pd.DataFrame, by: list[str], measures: Iterable[str]) -> pd.DataFrame:
    """`over_seeds` of several columns, one after the other: columns measure, `by`, mean, low, high, seeds."""
    return over_seeds(rows.melt(by, list(measures), "measure"), ["measure", *by], "value")


@use_style()
def norm_matched(matched: pd.DataFrame) -> Figure:
    """Each arm's update at its own length and at the length of RFT's and of answer SFT's: drop (left), puzzle (right).

    Drawn columns: arm, norm_of, mean, low, high, seeds, panel.
    """
    looks = {
        "own": (0.0, {"marker": "o"}, "its own length"),
        "rft": (0.2, {"marker": "s", "mfc": "white"}, "length of rft's"),
        "sft-answer": (-0.2, {"marker": "^", "mfc": "white"}, "length of sft-answer's"),
    }
    titles, arms = {"drop": "drop in mean prior score", "exact": "puzzle exact match"}, marks.in_order(matched["arm"])
    norms = matched["norm_of"].where(matched["norm_of"] != matched["arm"], "own")
    rows = matched.assign(drop=matched["base_score"] - matched["score"], norm_of=norms)
    drawn = _each_over_seeds(rows, ["arm", "norm_of"], titles)
    fig, axes = marks.panels(dict.fromkeys(titles, ""), 9.2, 1.7 + 0.5 * len(arms), share="y")
    for (measure, arm, norm_of), part in drawn.groupby(["measure", "arm", "norm_of"], sort=False):
        offset, look, _ = looks[norm_of]
        marks.dots(axes[measure], part, [arms.index(arm) + offset], color=arm_style(arm).colour, ms=7, **look)
    for measure, ax in axes.items():
        ax.set_xlabel(titles[measure])
        ax.axvline(0, color=GREY, lw=0.8)
        ax.tick_params(labelleft=measure == "drop")
    marks.row_axis(ax, arms, 0.4)
    for _, look, text in looks.values():
        marks.key(ax, text, **look)
    marks.legend(fig)
    at_rft = drawn[(drawn["norm_of"] == "rft") & (drawn["measure"] == "drop")].set_index("arm")["mean"]
    alt = "Drop and puzzle exact match of each arm's update at its own length, RFT's and answer SFT's. Drop at RFT's:"
    drawn["panel"] = drawn.pop("measure").map(titles)
    return record(fig, drawn, f"{alt} {said(at_rft)}.", seed_note(drawn["seeds"]))


@use_style()
def line_panels(lines: pd.DataFrame) -> Figure:
    """Puzzle exact match and prior score on the straight line to each arm: from the base, and from RFT (second row).

    Drawn columns: start, arm, share, measure, mean, low, high, seeds.
    """
    measures, by = {"exact": "puzzle exact match", "score": "mean prior score"}, ["start", "arm", "share"]
    drawn = _each_over_seeds(lines.sort_values(by), by, measures).sort_values("start", kind="stable")
    starts, parts = drawn["start"].unique(), dict(list(drawn.groupby(["start", "measure"])))
    titles = {(start, measure): f"{measures[measure]}, from {start}" for start, measure in parts}
    axis = f"share of the way from {starts[-1]} to the arm"
    fig, axes = marks.panels(titles, 8.6, 2.6, columns=2, room=0.7, xlabel=axis)
    for panel, ax in axes.items():
        marks.lines(ax, parts[panel], "share", band=0.12)
        ax.set_ylim(-0.03, 1.03)
    marks.legend(fig, "right upper", ncols=1)
    half = drawn[(drawn["start"] == starts[0]) & (drawn["share"] == 0.5) & (drawn["measure"] == "score")]
    alt = f"""Puzzle exact match and prior score on straight lines from {" and ".join(starts)} to each arm.
        Score half way: {said(half.set_index("arm")["mean"])}."""
    columns = [*by, "measure", "mean", "low", "high", "seeds"]
    return record(fig, drawn[columns], alt, seed_note(drawn["seeds"]))


@use_style()
def predictor_panels(rows: pd.DataFrame) -> Figure:
    """Drop against each predictor (log x), a point per run. Drawn columns: predictor, arm, label, seed, value, drop.

    `rows`: `predictors` at one mark. Open markers: controls that share an arm's name.
    """
    drawn = rows.melt(["arm", "label", "seed", "drop"], list(PREDICTORS), "predictor").query("value > 0")
    names = dict.fromkeys(drawn["predictor"], "")
    fig, axes = marks.panels(names, 9.6, 2.5, columns=3, room=0.6, share="y", ylabel="drop")
    for name, ax in axes.items():
        marks.scatter(ax, drawn[drawn["predictor"] == name], "value", "drop", markersize=6)
        ax.set_xscale("log")
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xlabel(PREDICTORS[name], fontsize=8.5)
        _few_log_ticks(ax)
    marks.arm_key(fig, rows)
    alt = f"Drop against each of {len(names)} candidate predictors, a panel each, a point per run ({len(rows)} runs)."
    return record(fig, drawn[["predictor", "arm", "label", "seed", "value", "drop"]], alt)


def _few_log_ticks(ax: Axes) -> None:
    """At most a handful of ticks, written as plain numbers, however narrow or wide the range."""
    low, high = ax.get_xlim()
    wide = LogLocator(subs=(1,), numticks=5) if high / low > 30 else LogLocator(subs=(1, 2, 5), numticks=8)
    # within less than a decade the logarithmic ticks are too few or far too many
    ax.xaxis.set_major_locator(wide if high / low > 8 else MaxNLocator(3))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


@use_style()
def predictor_fits(fits: pd.DataFrame) -> Figure:
    """R^2 of each predictor with its bootstrap interval, within all runs (filled) and for arms left out (open).

    A left-out value below -1 is drawn at the left edge. Drawn columns: those of `fits_table` without empty cells.
    """
    ax, blue = new_axes(7.4, 1.5 + 0.42 * len(fits)), {"color": "#0072B2", "marker": "o"}
    kinds = {
        "all runs": (["r2", "low", "high"], 0.13, {}),
        "each arm predicted from the others": (["left_out", "out_low", "out_high"], -0.13, {"mfc": "white"}),
    }
    for text, (columns, shift, face) in kinds.items():
        values = fits[columns].astype(float).clip(lower=-1.0).set_axis(["mean", "low", "high"], axis=1)
        values = values.assign(place=np.arange(len(fits)) + shift).dropna(subset="mean")
        marks.dots(ax, values, values["place"], ms=8, capsize=3, elinewidth=1.4, **blue | face)
        marks.key(ax, text, **blue | face)
    ax.axvline(0, color=GREY, lw=0.8)
    marks.row_axis(ax, [PREDICTORS[name] for name in fits["predictor"]], 0.4)
    ax.set(xlim=(-1.08, 1.04), xlabel="R^2 of the drop on the predictor's logarithm")
    ax.set_title("What predicts forgetting")
    marks.legend(ax.figure, "upper right")
    words = ", ".join(f"{row.predictor} {in_words((row.r2, row.low, row.high))}" for row in fits.itertuples())
    alt = f"R squared of the drop on each predictor with bootstrap intervals, best first: {words}."
    note = f"{from_to(fits['runs'])} runs; 95% bootstrap intervals over arms"
    return record(ax.figure, fits.astype(object).where(fits.notna(), ""), alt, note)


@use_style()
def recovery_lines(recovery: pd.DataFrame) -> Figure:
    """Score (left) and likelihood score (right) after few prior samples, for tasks shown again and for the others.

    Dotted: the base. Drawn columns: arm, half, measure, samples, mean, low, high, seeds.
    """
    titles, by = {"score": "mean prior score", "likelihood": "likelihood score"}, ["arm", "half", "samples"]
    drawn = _each_over_seeds(recovery.sort_values(by, kind="stable"), by, titles)
    counts = sorted(drawn["samples"].unique())  # evenly spaced on the axis, which has a 0 and would else be a log
    curves = drawn.assign(place=drawn["samples"].map(counts.index), name=drawn["arm"] + ", " + drawn["half"])
    fig, axes = marks.panels(titles, 9.0, 3.9, share="y", xlabel="prior samples learned again")
    for measure, ax in axes.items():
        marks.lines(ax, curves[curves["measure"] == measure], "place", "name", _recovery_look, 0.12, ms=7)
        ax.axhline(recovery[f"base_{measure}"].mean(), color="black", lw=1, ls=":")
        ax.set_xticks(range(len(counts)), [f"{n:g}" for n in counts])
        ax.set_ylim(-0.03, 1.03)
    marks.legend(fig, ncols=4)
    unshown = drawn[(drawn["half"] == "unshown") & (drawn["measure"] == "score")].groupby("samples")["mean"].mean()
    words = ", ".join(f"{n} samples {score:.2f}" for n, score in unshown.items())
    alt = f"Scores after learning again from few prior samples. Tasks not shown again, mean over arms: {words}."
    note = f"{seed_note(drawn['seeds'])}; filled: tasks that were shown again, open: tasks that were not"
    return record(fig, drawn[["arm", "half", "measure", "samples", "mean", "low", "high", "seeds"]], alt, note)


def _recovery_look(name: str) -> marks.Look:
    """Of "arm, half": open and dashed for tasks that were not shown again."""
    arm, half = name.split(", ")
    dash = {"linestyle": "-"} if half == "shown" else {"linestyle": "--", "mfc": "white"}
    return marks.arm_look(arm) | dash


@use_style()
def flip_bars(flips: pd.DataFrame) -> Figure:
    """Shares of prior-task samples by what became of them, a bar per arm; drawn columns: arm, kind, share, seeds."""
    looks = {
        "kept": ("#7FB2D6", "black", "right before and after"),
        "lost": ("#A84300", "white", "right, then wrong"),
        "gained": ("#1A8C6B", "white", "wrong, then right"),
        "never": ("#C9C9C9", "black", "wrong both times"),
    }
    arms, means = marks.in_order(flips["arm"]), flips.groupby(["arm", "seed"])[list(looks)].mean()
    shares, seeds = means.groupby("arm").mean().loc[arms], means.groupby("arm").size()
    ax, left = new_axes(7.6, 1.5 + 0.42 * len(arms)), shares.cumsum(axis=1) - shares
    for kind, (colour, ink, text) in looks.items():
        bars = ax.barh(range(len(arms)), shares[kind], 0.68, left[kind], color=colour, edgecolor="white", label=text)
        numbers = [f"{share:.2f}" if share > 0.045 else "" for share in shares[kind]]
        ax.bar_label(bars, numbers, label_type="center", color=ink, fontsize=8.5)
    marks.row_axis(ax, arms)
    ax.grid(visible=False)
    ax.set(xlim=(0, 1), xlabel="share of prior-task samples")
    marks.legend(ax.figure)
    words = ", ".join(f"{row.Index} lost {row.lost:.2f}, gained {row.gained:.2f}" for row in shares.itertuples())
    alt = f"What became of single prior-task samples, from right or wrong before to right or wrong after: {words}."
    drawn = shares.rename_axis(columns="kind").stack().reset_index(name="share")
    return record(ax.figure, drawn.assign(seeds=drawn["arm"].map(seeds)), alt, _means_over(seeds))
