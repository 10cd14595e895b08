"""Figures of notebook 09: learning rates, controls at equal accuracy, sizes and paths of updates, predictors, recovery.

Their tables are made in `stats.tables`. A figure of an empty table cannot be drawn: `Lab.present` says so instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from helpers.show import marks
from helpers.show.marks import record, said
from helpers.show.style import GREY, add_note, new_figure, seed_note, use_style
from helpers.stats.curves import over_seeds
from helpers.stats.intervals import in_words
from helpers.stats.tables import HALF, PREDICTORS, part_shares, seed_rows
from helpers.study.arms import arm_style

# A learning rate as a share of the study's: dark to light, and a line style each.
RATE_LOOK: Mapping[float, tuple[str, Any]] = MappingProxyType(
    {
        0.1: ("#30123B", ":"),
        0.3: ("#3E6DB5", (0, (4, 1.5))),
        1.0: ("#1A8C6B", "-"),
        3.0: ("#B8860B", (0, (7, 2, 1, 2))),
        10.0: ("#B5281E", "--"),
    }
)


@use_style()
def rate_fronts(paths: pd.DataFrame) -> Figure:
    """The plane of gain and drop, a panel per arm, a path per learning rate; drawn columns: those of `rate_paths`."""
    arms = marks.in_order(paths["arm"])
    fig = new_figure(max(4.6, 3.3 * len(arms)), 3.9)
    first, handles = None, {}
    for place, arm in enumerate(arms, start=1):
        ax = first = fig.add_subplot(1, len(arms), place, sharex=first, sharey=first)
        for factor, rows in paths[paths["arm"] == arm].groupby("factor"):
            colour, dash = RATE_LOOK.get(factor, (GREY, "-"))
            (line,) = ax.plot(rows["gain"], rows["drop"], color=colour, linestyle=dash, lw=1.8)
            ax.plot(rows["gain"].iloc[-1], rows["drop"].iloc[-1], "o", color=colour, ms=7)
            handles[factor] = line
        ax.axhline(0, color=GREY, lw=0.8)
        ax.plot(0, 0, "o", color="black", ms=5)
        ax.set(title=arm, xlabel="gain in puzzle exact match")
        ax.set_ylabel("drop in prior score (up: forgets more)" if place == 1 else "")
    names = [f"x {factor:g}" + (" (the study)" if factor == 1 else "") for factor in sorted(handles)]
    order = [handles[factor] for factor in sorted(handles)]
    fig.legend(order, names, loc="outside upper center", ncols=5, title="learning rate, as a multiple of the study's")
    add_note(fig, _mean_note(paths["seeds"]))
    found = paths.groupby(["arm", "factor"], sort=False)[["gain", "drop"]].last()
    last = "; ".join(f"{arm} x {f:g}: gain {r.gain:.2f}, drop {r['drop']:.2f}" for (arm, f), r in found.iterrows())
    alt = f"Gain against drop along training, a panel per arm and a path per learning rate. Ends: {last}."
    return record(fig, paths[["arm", "factor", "step", "gain", "drop", "seeds"]], alt)


def _mean_note(seeds: Sequence[int]) -> str:
    counts = sorted({int(n) for n in seeds})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"means over {span} seed{'s' * (counts[-1] > 1)}; dot: end of a run; black: the base"


@use_style()
def controls_at_equal(quantities: pd.DataFrame) -> Figure:
    """Drop at puzzle exact match 0.5 of every arm and control: by score (filled) and by likelihood (open).

    Labels that never get there are named. Drawn columns: label, arm, group, quantity, mean, low, high, seeds.
    """
    summary = seed_rows(quantities, [HALF, f"{HALF}_likelihood"])
    labels = [label for label in dict.fromkeys(quantities["label"]) if label != "base"]
    fig = new_figure(8.2, 1.5 + 0.3 * len(labels))
    ax = fig.add_subplot()
    for (label, arm, quantity), rows in summary.groupby(["label", "arm", "quantity"], sort=False):
        face, shift = (None, 0.14) if quantity == HALF else ("white", -0.14)
        look = marks.point_look(arm) | {"ms": 8, "elinewidth": 1.3, "mfc": face}
        marks.dots(ax, rows, [labels.index(label) + shift], **look)
    for place, label in enumerate(labels):
        if label not in set(summary["label"]):
            marks.row_text(ax, place, "never reaches 0.5", x=0.01, color=GREY, fontsize=9.5)
    study = [i for i, label in enumerate(labels) if label in set(quantities.query("group == 'study'")["label"])]
    if len(study) < len(labels):
        ax.axhline(max(study) + 0.5, color=GREY, lw=0.8, ls=":")
    marks.key(ax, "by score", marker="o")
    marks.key(ax, "by likelihood", marker="o", mfc="white")
    ax.axvline(0, color=GREY, lw=0.8)
    marks.row_axis(ax, labels, 0.4)
    ax.set(xlabel="drop in mean prior score where puzzle exact match reaches 0.5")
    ax.set_title("Every arm and control at equal puzzle accuracy")
    fig.legend(loc="outside upper right", ncols=2)
    add_note(fig, seed_note(summary["seeds"]))
    lowest = summary[summary["quantity"] == HALF].sort_values("mean")
    words = ", ".join(f"{row.label} {row.mean:.2f}" for row in lowest.itertuples())
    alt = "Drop in mean prior score at puzzle exact match 0.5 of every arm and control, lowest first:"
    return record(fig, summary, f"{alt} {words}.")


@use_style()
def drop_vs_norm(points: pd.DataFrame) -> Figure:
    """Drop against the L2 norm of the update, a point per run; left at exact match 0.5, right at the end of the runs.

    `points` as from `norm_points`, which is also what is drawn. Open markers: controls that share an arm's name.
    """
    fig, places = new_figure(9.6, 4.2), [at for at in ("0.5", "end") if at in set(points["at"])]
    first = None
    for place, at in enumerate(places, start=1):
        ax = first = fig.add_subplot(1, len(places), place, sharey=first)
        marks.scatter(ax, points[points["at"] == at], "norm", "drop")
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set(xlabel="L2 norm of the update", title="at exact match 0.5" if at == "0.5" else "at the end")
        ax.set_ylabel("drop in mean prior score" if place == 1 else "")
    marks.arm_key(fig, points)
    means = points[points["at"] == places[-1]].groupby("label", sort=False)[["norm", "drop"]].mean()
    words = ", ".join(f"{label} norm {row.norm:.1f}, drop {row['drop']:.2f}" for label, row in means.iterrows())
    alt = f"Drop against the L2 norm of the update, a point per run. Means in the last panel: {words}."
    return record(fig, points, alt)


@use_style()
def change_by_part(weights: pd.DataFrame) -> Figure:
    """Where in the model the update is: share of its squared length per part, a row per arm or control.

    Drawn columns: label, arm, part, share.
    """
    shares = part_shares(weights)
    table = shares.pivot(index="label", columns="part", values="share")
    table = table.loc[list(dict.fromkeys(shares["label"])), list(dict.fromkeys(shares["part"]))]
    fig = new_figure(8.6, 1.3 + 0.32 * len(table))
    ax = fig.add_subplot()
    image = marks.heat(ax, table, cmap="cividis", vmin=0)
    ax.set_xticks(ax.get_xticks(), table.columns, rotation=30, ha="right")
    ax.set_title("Share of the update's squared length in each part")
    fig.colorbar(image, ax=ax, fraction=0.03, pad=0.02)
    tops = shares.loc[shares.groupby("label", sort=False)["share"].idxmax()]
    tops = tops[tops["label"] == tops["arm"]]  # the sentence is long enough without the other rates
    words = ", ".join(f"{row.label}: {row.part} {row.share:.2f}" for row in tops.itertuples())
    alt = f"Share of the update's squared length in each part of the model, a row per arm. Largest: {words}."
    return record(fig, shares, alt)


@use_style()
def sparsity_and_rank(weights: pd.DataFrame) -> Figure:
    """Left: share of weights that are unchanged, in fp32 (open) and bf16 (filled). Right: effective rank over the
    largest possible, mean over matrices. Points per run. Drawn columns: label, arm, seed, same_fp32, same_bf16, rank.
    """
    whole = weights[weights["part"] == "all"]
    rows = whole.assign(rank=whole["rank"] / whole["full"])[["label", "arm", "seed", "same_fp32", "same_bf16", "rank"]]
    labels = list(dict.fromkeys(rows["label"]))
    fig = new_figure(9.0, 1.6 + 0.28 * len(labels))
    left = fig.add_subplot(1, 2, 1)
    right = fig.add_subplot(1, 2, 2, sharey=left)
    for row in rows.itertuples():
        place, look = labels.index(row.label), marks.point_look(row.arm) | {"ms": 7, "alpha": 0.85}
        left.plot(row.same_fp32, place - 0.12, mfc="white", **look)
        left.plot(row.same_bf16, place + 0.12, **look)
        right.plot(row.rank, place, **look)
    marks.key(left, "fp32", marker="o", mfc="white", markersize=5)
    marks.key(left, "bf16", marker="o", markersize=5)
    marks.row_axis(left, labels, 0.4)
    left.set(xlim=(-0.03, 1.03), xlabel="share of weights unchanged")
    right.tick_params(labelleft=False)
    right.set(xlim=(-0.03, 1.03), xlabel="effective rank / full rank")
    left.set_title("How sparse the update is")
    right.set_title("How many directions it uses")
    fig.legend(loc="outside upper right", ncols=2)
    alt = "Shares of weights unchanged in fp32 and in bf16, and effective rank, a point per run. In bf16:"
    return record(fig, rows, f"{alt} {said(rows.groupby('label', sort=False)['same_bf16'].mean())}.")


@use_style()
def norm_matched(matched: pd.DataFrame) -> Figure:
    """Each arm's update at its own length and at the length of RFT's and of answer SFT's: drop (left), puzzle (right).

    Drawn columns: arm, norm_of, mean, low, high, seeds, panel.
    """
    rows = matched.assign(drop=matched["base_score"] - matched["score"])
    arms, frames = marks.in_order(rows["arm"]), []
    rows["norm_of"] = rows["norm_of"].where(rows["norm_of"] != rows["arm"], "own")
    fig = new_figure(9.2, 1.7 + 0.5 * len(arms))
    first = None
    for place, (value, title) in enumerate((("drop", "drop in mean prior score"), ("exact", "puzzle exact match")), 1):
        ax = first = fig.add_subplot(1, 2, place, sharey=first)
        found = over_seeds(rows, ["arm", "norm_of"], value)
        _norm_dots(ax, found, arms)
        ax.set_xlabel(title)
        ax.axvline(0, color=GREY, lw=0.8)
        ax.tick_params(labelleft=place == 1)
        frames.append(found.assign(panel=title))
    marks.row_axis(first, arms, 0.4)
    looks = {"own": "its own length", "rft": "length of rft's", "sft-answer": "length of sft-answer's"}
    for norm_of, text in looks.items():
        marks.key(first, text, marker=NORM_MARK[norm_of], mfc=None if norm_of == "own" else "white")
    fig.legend(loc="outside upper center", ncols=3)
    drawn = pd.concat(frames, ignore_index=True)
    add_note(fig, seed_note(drawn["seeds"]))
    at_rft = drawn[(drawn["norm_of"] == "rft") & (drawn["panel"] == drawn["panel"].iloc[0])].set_index("arm")["mean"]
    alt = "Drop and puzzle exact match of each arm's update at its own length, RFT's and answer SFT's. Drop at RFT's:"
    return record(fig, drawn, f"{alt} {said(at_rft)}.")


NORM_MARK: Mapping[str, str] = MappingProxyType({"own": "o", "rft": "s", "sft-answer": "^"})


def _norm_dots(ax: Axes, found: pd.DataFrame, arms: Sequence[str]) -> None:
    offsets = {"own": 0.0, "rft": 0.2, "sft-answer": -0.2}
    for (arm, norm_of), rows in found.groupby(["arm", "norm_of"], sort=False):
        colour = arm_style(arm).colour
        look = {"color": colour, "mfc": colour if norm_of == "own" else "white", "ms": 7, "marker": NORM_MARK[norm_of]}
        marks.dots(ax, rows, [arms.index(arm) + offsets[norm_of]], **look)


@use_style()
def line_panels(lines: pd.DataFrame) -> Figure:
    """Puzzle exact match and prior score on the straight line to each arm: from the base, and from RFT (second row).

    Drawn columns: start, arm, share, measure, mean, low, high, seeds.
    """
    starts = [start for start in ("base", "rft") if start in set(lines["start"])]
    fig, frames = new_figure(8.6, 0.7 + 2.6 * len(starts)), []
    measures = {"exact": "puzzle exact match", "score": "mean prior score"}
    for number, (start, measure) in enumerate([(s, m) for s in starts for m in measures], start=1):
        ax = fig.add_subplot(len(starts), 2, number)
        found = over_seeds(lines[lines["start"] == start].sort_values(["arm", "share"]), ["arm", "share"], measure)
        marks.lines(ax, found, "share", band=0.12)
        ax.set(ylim=(-0.03, 1.03), title=f"{measures[measure]}, from {start}")
        ax.set_xlabel(f"share of the way from {start} to the arm" if number > 2 * len(starts) - 2 else "")
        frames.append(found.assign(start=start, measure=measure))
    fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside right upper")
    drawn = pd.concat(frames, ignore_index=True)
    add_note(fig, seed_note(drawn["seeds"]))
    half = drawn[(drawn["start"] == starts[0]) & (drawn["share"] == 0.5) & (drawn["measure"] == "score")]
    alt = (
        f"Puzzle exact match and prior score on straight lines from {' and '.join(starts)} to each arm. Score half way:"
    )
    columns = ["start", "arm", "share", "measure", "mean", "low", "high", "seeds"]
    return record(fig, drawn[columns], f"{alt} {said(half.set_index('arm')['mean'])}.")


@use_style()
def predictor_panels(rows: pd.DataFrame) -> Figure:
    """Drop against each predictor (log x), a point per run. Drawn columns: predictor, arm, label, seed, value, drop.

    `rows`: `predictors` at one mark. Open markers: controls that share an arm's name.
    """
    names = [name for name in PREDICTORS if (rows[name] > 0).any()]
    lines = -(-len(names) // 3)
    fig, frames, first = new_figure(9.6, 0.6 + 2.5 * lines), [], None
    for place, name in enumerate(names, start=1):
        ax = first = fig.add_subplot(lines, 3, place, sharey=first)
        known = rows[rows[name] > 0]
        marks.scatter(ax, known, name, "drop", markersize=6)
        ax.set_xscale("log")
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xlabel(PREDICTORS[name], fontsize=8.5)
        ax.set_ylabel("drop" if place % 3 == 1 else "")
        _few_log_ticks(ax)
        frames.append(known[["arm", "label", "seed", "drop"]].assign(predictor=name, value=known[name]))
    marks.arm_key(fig, rows)
    alt = f"Drop against each of {len(names)} candidate predictors, a panel each, a point per run ({len(rows)} runs)."
    return record(fig, pd.concat(frames)[["predictor", "arm", "label", "seed", "value", "drop"]], alt)


def _few_log_ticks(ax: Axes) -> None:
    """At most a handful of ticks, written as plain numbers, however narrow or wide the range."""
    low, high = ax.get_xlim()
    subs = (1, 2, 5) if high / low < 30 else (1,)
    wide = LogLocator(subs=subs, numticks=5 if high / low > 30 else 8)
    # within less than a decade the logarithmic ticks are too few or far too many
    ax.xaxis.set_major_locator(wide if high / low > 8 else MaxNLocator(3))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


@use_style()
def predictor_fits(fits: pd.DataFrame) -> Figure:
    """R^2 of each predictor with its bootstrap interval, within all runs (filled) and for arms left out (open).

    A left-out value below -1 is drawn at the left edge. Drawn columns: those of `fits_table` without empty cells.
    """
    fig = new_figure(7.4, 1.5 + 0.42 * len(fits))
    ax = fig.add_subplot()
    kinds = (("r2", "low", "high", 0.13, "#0072B2"), ("left_out", "out_low", "out_high", -0.13, "white"))
    for value, low, high, shift, face in kinds:
        known = fits[[value, low, high]].astype(float).clip(lower=-1.0).set_axis(["mean", "low", "high"], axis=1)
        places = (pd.Series(range(len(fits)), index=fits.index) + shift)[known["mean"].notna()]
        look = {"color": "#0072B2", "marker": "o", "mfc": face, "ms": 8, "capsize": 3, "elinewidth": 1.4}
        marks.dots(ax, known.dropna(subset="mean"), places, **look)
    marks.key(ax, "all runs", color="#0072B2", marker="o")
    marks.key(ax, "each arm predicted from the others", color="#0072B2", marker="o", mfc="white")
    ax.axvline(0, color=GREY, lw=0.8)
    marks.row_axis(ax, [PREDICTORS[name] for name in fits["predictor"]], 0.4)
    ax.set(xlim=(-1.08, 1.04), xlabel="R^2 of the drop on the predictor's logarithm")
    ax.set_title("What predicts forgetting")
    fig.legend(loc="outside upper right", ncols=2)
    runs = sorted({int(n) for n in fits["runs"]})
    add_note(fig, f"{runs[0]} to {runs[-1]} runs; 95% bootstrap intervals over arms" if len(runs) > 1 else
          f"{runs[0]} runs; 95% bootstrap intervals over arms")  # fmt: skip
    words = ", ".join(f"{row.predictor} {in_words((row.r2, row.low, row.high))}" for row in fits.itertuples())
    alt = f"R squared of the drop on each predictor with bootstrap intervals, best first: {words}."
    return record(fig, fits.astype(object).where(fits.notna(), ""), alt)


@use_style()
def recovery_lines(recovery: pd.DataFrame) -> Figure:
    """Score (left) and likelihood score (right) after few prior samples, for tasks shown again and for the others.

    Dotted: the base. Drawn columns: arm, half, measure, samples, mean, low, high, seeds.
    """
    fig, frames = new_figure(9.0, 3.9), []
    counts = sorted(recovery["samples"].unique())
    first, titles = None, {"score": "mean prior score", "likelihood": "likelihood score"}
    for place, (measure, title) in enumerate(titles.items(), start=1):
        ax = first = fig.add_subplot(1, 2, place, sharey=first)
        for (arm, half), rows in recovery.groupby(["arm", "half"], sort=False):
            found = over_seeds(rows.sort_values("samples"), ["arm", "samples"], measure)
            x = [counts.index(n) for n in found["samples"]]
            style, face = arm_style(arm), arm_style(arm).colour if half == "shown" else "white"
            look = {"color": style.colour, "marker": style.marker, "mfc": face, "ms": 7}
            ax.plot(x, found["mean"], "-" if half == "shown" else "--", label=f"{arm}, {half}", **look)
            ax.fill_between(x, found["low"], found["high"], color=style.colour, alpha=0.12, lw=0)
            frames.append(found.assign(half=half, measure=measure))
        ax.axhline(recovery[f"base_{measure}"].mean(), color="black", lw=1, ls=":")
        ax.set_xticks(range(len(counts)), [f"{n:g}" for n in counts])
        ax.set(ylim=(-0.03, 1.03), xlabel="prior samples learned again", title=title)
    fig.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    drawn = pd.concat(frames, ignore_index=True)
    add_note(fig, seed_note(drawn["seeds"]) + "; filled: tasks that were shown again, open: tasks that were not")
    unshown = drawn[(drawn["half"] == "unshown") & (drawn["measure"] == "score")].groupby("samples")["mean"].mean()
    words = ", ".join(f"{n} samples {score:.2f}" for n, score in unshown.items())
    alt = f"Scores after learning again from few prior samples. Tasks not shown again, mean over arms: {words}."
    return record(fig, drawn[["arm", "half", "measure", "samples", "mean", "low", "high", "seeds"]], alt)


FLIP_LOOK: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "kept": ("#7FB2D6", "right before and after"),
        "lost": ("#A84300", "right, then wrong"),
        "gained": ("#1A8C6B", "wrong, then right"),
        "never": ("#C9C9C9", "wrong both times"),
    }
)


@use_style()
def flip_bars(flips: pd.DataFrame) -> Figure:
    """Shares of prior-task samples by what became of them, a bar per arm; drawn columns: arm, kind, share, seeds."""
    means = flips.groupby(["arm", "seed"])[list(FLIP_LOOK)].mean().reset_index()
    seeds = means.groupby("arm")["seed"].nunique()
    found = means.groupby("arm")[list(FLIP_LOOK)].mean()
    arms = marks.in_order(found.index)
    fig = new_figure(7.6, 1.5 + 0.42 * len(arms))
    ax, rows = fig.add_subplot(), []
    for place, arm in enumerate(arms):
        left = 0.0
        for kind, (colour, _) in FLIP_LOOK.items():
            share = float(found.loc[arm, kind])
            ax.barh(place, share, left=left, color=colour, height=0.68, edgecolor="white")
            if share > 0.045:
                ink = "white" if kind in ("lost", "gained") else "black"
                ax.text(left + share / 2, place, f"{share:.2f}", ha="center", va="center", color=ink, fontsize=8.5)
            left += share
            rows.append((arm, kind, share, int(seeds[arm])))
    for colour, text in FLIP_LOOK.values():
        ax.barh(0, 0, color=colour, label=text)  # an empty list of bars would lose the colour
    marks.row_axis(ax, arms)
    ax.grid(visible=False)
    ax.set(xlim=(0, 1), xlabel="share of prior-task samples")
    fig.legend(loc="outside upper center", ncols=4)
    add_note(fig, _mean_note(seeds).split(";")[0])
    words = ", ".join(f"{arm} lost {found.loc[arm, 'lost']:.2f}, gained {found.loc[arm, 'gained']:.2f}" for arm in arms)
    alt = f"What became of single prior-task samples, from right or wrong before to right or wrong after: {words}."
    return record(fig, pd.DataFrame(rows, columns=["arm", "kind", "share", "seeds"]), alt)
