"""Figures of notebook 09: learning rates, controls at equal accuracy, sizes and paths of updates, predictors, recovery.

`quantities` is `controls.quantities`, and the other tables are `controls.Tables`. A figure of a table that is empty
cannot be drawn: `present` says so instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from helpers.show.save import record
from helpers.show.style import GREY, add_note, new_figure, seed_note, use_style
from helpers.stats.curves import gain_and_drop
from helpers.stats.fits import Fit, fit
from helpers.stats.intervals import in_words, seed_interval
from helpers.study.arms import ARM_STYLE, arm_style

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


PREDICTORS: Mapping[str, str] = MappingProxyType(
    {
        "kl_forward": "KL(base || run), puzzle prompts",
        "kl_reverse": "KL(run || base), puzzle prompts",
        "kl_prior": "KL(base || run), prior prompts",
        "perplexity": "perplexity of the corpus",
        "lbk": "LBK of the first steps",
        "l2": "L2 norm of the update",
        "l1": "L1 norm of the update",
        "fisher": "Fisher-weighted distance",
        "drift": "activation drift",
    }
)


HALF = "drop_at_0.5"


def rate_paths(evaluations: pd.DataFrame, runs: pd.DataFrame, rates: Mapping[str, float]) -> pd.DataFrame:
    """Gain and drop along training for every learning rate: columns arm, factor, step, gain, drop, seeds.

    `evaluations`: the study's and the controls' together; `runs`: the controls' run rows; `rates`: the study's rate of
    each arm. Means over seeds. Only arms with at least one other rate than the study's; empty where there is none.
    Controls of a swept arm that differ in something else (LoRA) are left out.
    """
    inside = runs["group"].isin(["sft-rates", "rft-rates"])
    swept, others = runs[inside], set(runs.loc[~inside, "run"])
    arms, found = set(swept["arm"]), gain_and_drop(evaluations) if len(swept) else evaluations.iloc[:0]
    known = dict(zip(swept["run"], swept["learning_rate"], strict=True))
    found = found[found["arm"].isin(arms) & ~found["run"].isin(others)]
    rate = [known.get(run, rates[arm]) for run, arm in zip(found["run"], found["arm"], strict=True)]
    factor = [round(r / rates[arm], 2) for r, arm in zip(rate, found["arm"], strict=True)]
    if found.empty:
        return found.assign(factor=[])
    grouped = found.assign(factor=factor).groupby(["arm", "factor", "step"], as_index=False)
    return grouped.agg(gain=("gain", "mean"), drop=("drop", "mean"), seeds=("seed", "nunique"))


@use_style()
def rate_fronts(paths: pd.DataFrame) -> Figure:
    """The plane of gain and drop, a panel per arm, a path per learning rate; drawn columns: those of `rate_paths`."""
    arms = [arm for arm in ARM_STYLE if arm in set(paths["arm"])]
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
    return record(fig, paths[["arm", "factor", "step", "gain", "drop", "seeds"]])


def _mean_note(seeds: Sequence[int]) -> str:
    counts = sorted({int(n) for n in seeds})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"means over {span} seed{'s' * (counts[-1] > 1)}; dot: end of a run; black: the base"


def seed_rows(quantities: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Quantities over all prior tasks by label: columns label, arm, group, quantity, mean, low, high, seeds."""
    chosen = quantities[quantities["quantity"].isin(names) & quantities["task"].isin(["all", "puzzle"])]
    rows = []
    for (label, quantity), part in chosen.groupby(["label", "quantity"], sort=False):
        first = part.iloc[0]
        rows.append((label, first["arm"], first["group"], quantity, *seed_interval(part["value"]), len(part)))
    return pd.DataFrame(rows, columns=["label", "arm", "group", "quantity", "mean", "low", "high", "seeds"])


@use_style()
def controls_at_equal(quantities: pd.DataFrame) -> Figure:
    """Drop at puzzle exact match 0.5 of every arm and control: by score (filled) and by likelihood (open).

    Labels that never get there are named. Drawn columns: label, arm, group, quantity, mean, low, high, seeds.
    """
    summary = seed_rows(quantities, [HALF, f"{HALF}_likelihood"])
    labels = [label for label in dict.fromkeys(quantities["label"]) if label != "base"]
    fig = new_figure(8.2, 1.5 + 0.3 * len(labels))
    ax = fig.add_subplot()
    for row in summary.itertuples():
        by_score, place = row.quantity == HALF, labels.index(row.label)
        style, face = arm_style(row.arm), None if row.quantity == HALF else "white"
        error = [[row.mean - row.low], [row.high - row.mean]]
        look = {"color": style.colour, "marker": style.marker, "ms": 8, "elinewidth": 1.3, "capsize": 2, "mfc": face}
        ax.errorbar(row.mean, place + (0.14 if by_score else -0.14), xerr=error, ls="none", **look)
    for place, label in enumerate(labels):
        if label not in set(summary["label"]):
            ax.text(0.01, place, "never reaches 0.5", transform=ax.get_yaxis_transform(), va="center", color=GREY)
    study = [i for i, label in enumerate(labels) if label in set(quantities.query("group == 'study'")["label"])]
    if len(study) < len(labels):
        ax.axhline(max(study) + 0.5, color=GREY, lw=0.8, ls=":")
    ax.plot([], [], "o", color=GREY, ms=7, label="by score")
    ax.plot([], [], "o", color=GREY, mfc="white", ms=7, label="by likelihood")
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.4, -0.6), xlabel="drop in mean prior score where puzzle exact match reaches 0.5")
    ax.set_title("Every arm and control at equal puzzle accuracy")
    fig.legend(loc="outside upper right", ncols=2)
    add_note(fig, seed_note(summary["seeds"]))
    return record(fig, summary)


def norm_points(quantities: pd.DataFrame) -> pd.DataFrame:
    """Drop and update norm of each run, at 0.5 and at the end: columns at, label, arm, seed, norm, drop."""
    parts = []
    for at, norm, drop in (("0.5", "update_norm_at_0.5", HALF), ("end", "update_norm", "drop_final")):
        sizes = quantities[quantities["quantity"] == norm].set_index(["label", "arm", "seed"])["value"]
        drops = quantities[(quantities["quantity"] == drop) & (quantities["task"] == "all")]
        drops = drops.set_index(["label", "arm", "seed"])["value"]
        parts.append(pd.DataFrame({"norm": sizes, "drop": drops}).dropna().reset_index().assign(at=at))
    return pd.concat(parts, ignore_index=True)[["at", "label", "arm", "seed", "norm", "drop"]]


@use_style()
def drop_vs_norm(points: pd.DataFrame) -> Figure:
    """Drop against the L2 norm of the update, a point per run; left at exact match 0.5, right at the end of the runs.

    `points` as from `norm_points`, which is also what is drawn. Open markers: controls that share an arm's name.
    """
    fig, places = new_figure(9.6, 4.2), [at for at in ("0.5", "end") if at in set(points["at"])]
    first = None
    for place, at in enumerate(places, start=1):
        ax = first = fig.add_subplot(1, len(places), place, sharey=first)
        for (label, arm), rows in points[points["at"] == at].groupby(["label", "arm"], sort=False):
            style = arm_style(arm)
            face = style.colour if label == arm else "white"
            ax.plot(
                rows["norm"], rows["drop"], ls="", marker=style.marker, color=style.colour, mfc=face, ms=7, alpha=0.85
            )
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set(xlabel="L2 norm of the update", title="at exact match 0.5" if at == "0.5" else "at the end")
        ax.set_ylabel("drop in mean prior score" if place == 1 else "")
    _arm_legend(fig, points)
    return record(fig, points)


def _arm_legend(fig: Figure, points: pd.DataFrame) -> None:
    """A legend of the arms among the points (columns arm, label), and of open markers where there are any."""
    ax = fig.axes[-1]
    for arm in [arm for arm in ARM_STYLE if arm in set(points["arm"])]:
        style = arm_style(arm)
        ax.plot([], [], ls="", marker=style.marker, color=style.colour, ms=7, label=arm)
    if (points["label"] != points["arm"]).any():
        ax.plot([], [], "o", color=GREY, mfc="white", ms=7, label="other rate or LoRA")
    fig.legend(loc="outside right upper")


def part_table(weights: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """L1 norm, share of weights unchanged in bf16, mean effective rank: a row per part, columns (quantity, label).

    `weights`: columns label, seed, part, weights (their number), l1, same_bf16, rank, a row per part and kind of
    weight. Means over seeds.
    """
    known = weights[weights["label"].isin(labels)]
    runs = known.assign(kept=known["same_bf16"] * known["weights"]).groupby(["part", "label", "seed"], sort=False)
    total = runs[["l1", "kept", "weights"]].sum()
    columns = {"L1 norm": total["l1"], "unchanged in bf16": total["kept"] / total["weights"]}
    each = pd.DataFrame(columns | {"effective rank": runs["rank"].mean()})
    return each.groupby(["part", "label"], sort=False).mean().unstack("label", sort=False)


def part_shares(weights: pd.DataFrame) -> pd.DataFrame:
    """Share of the squared L2 norm in each part of the model: columns label, arm, part, share (means over seeds)."""
    parts = weights[weights["part"] != "all"].reset_index(drop=True)
    parts["square"] = parts["l2"] ** 2
    sums = parts.groupby(["run", "label", "arm", "part"], sort=False, as_index=False)["square"].sum()
    sums["share"] = sums["square"] / sums.groupby("run")["square"].transform("sum")
    return sums.groupby(["label", "arm", "part"], sort=False, as_index=False)["share"].mean()


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
    image = ax.imshow(table, cmap="cividis", vmin=0, aspect="auto")
    for (row, column), value in [((r, c), table.iloc[r, c]) for r in range(len(table)) for c in range(table.shape[1])]:
        ink = "black" if value > 0.55 * table.to_numpy().max() else "white"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=30, ha="right")
    ax.set_yticks(range(len(table)), table.index)
    ax.grid(visible=False)
    ax.set_title("Share of the update's squared length in each part")
    fig.colorbar(image, ax=ax, fraction=0.03, pad=0.02)
    return record(fig, shares)


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
        style, place = arm_style(row.arm), labels.index(row.label)
        look = {"color": style.colour, "ms": 7, "alpha": 0.85}
        left.plot(row.same_fp32, place - 0.12, ls="", marker=style.marker, mfc="white", **look)
        left.plot(row.same_bf16, place + 0.12, ls="", marker=style.marker, **look)
        right.plot(row.rank, place, ls="", marker=style.marker, **look)
    left.plot([], [], "o", color=GREY, mfc="white", label="fp32")
    left.plot([], [], "o", color=GREY, label="bf16")
    left.set_yticks(range(len(labels)), labels)
    left.set(ylim=(len(labels) - 0.4, -0.6), xlim=(-0.03, 1.03), xlabel="share of weights unchanged")
    right.tick_params(labelleft=False)
    right.set(xlim=(-0.03, 1.03), xlabel="effective rank / full rank")
    left.set_title("How sparse the update is")
    right.set_title("How many directions it uses")
    fig.legend(loc="outside upper right", ncols=2)
    return record(fig, rows)


@use_style()
def norm_matched(matched: pd.DataFrame) -> Figure:
    """Each arm's update at its own length and at the length of RFT's and of answer SFT's: drop (left), puzzle (right).

    Drawn columns: arm, norm_of, mean, low, high, seeds, panel.
    """
    rows = matched.assign(drop=matched["base_score"] - matched["score"])
    arms, frames = [arm for arm in ARM_STYLE if arm in set(rows["arm"])], []
    rows["norm_of"] = rows["norm_of"].where(rows["norm_of"] != rows["arm"], "own")
    fig = new_figure(9.2, 1.7 + 0.5 * len(arms))
    first = None
    for place, (value, title) in enumerate((("drop", "drop in mean prior score"), ("exact", "puzzle exact match")), 1):
        ax = first = fig.add_subplot(1, 2, place, sharey=first)
        found = _by_norm(rows, value)
        _norm_dots(ax, found, arms)
        ax.set(xlabel=title, ylim=(len(arms) - 0.4, -0.6))
        ax.axvline(0, color=GREY, lw=0.8)
        ax.tick_params(labelleft=place == 1)
        frames.append(found.assign(panel=title))
    first.set_yticks(range(len(arms)), arms)
    looks = {"own": "its own length", "rft": "length of rft's", "sft-answer": "length of sft-answer's"}
    for norm_of, text in looks.items():
        first.plot([], [], NORM_MARK[norm_of], color=GREY, mfc=None if norm_of == "own" else "white", label=text, ms=7)
    fig.legend(loc="outside upper center", ncols=3)
    add_note(fig, seed_note(pd.concat(frames)["seeds"]))
    return record(fig, pd.concat(frames, ignore_index=True))


NORM_MARK: Mapping[str, str] = MappingProxyType({"own": "o", "rft": "s", "sft-answer": "^"})


def _by_norm(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    found = [
        (arm, norm_of, *seed_interval(part[value]), len(part))
        for (arm, norm_of), part in rows.groupby(["arm", "norm_of"], sort=False)
    ]
    return pd.DataFrame(found, columns=["arm", "norm_of", "mean", "low", "high", "seeds"])


def _norm_dots(ax: Axes, found: pd.DataFrame, arms: Sequence[str]) -> None:
    offsets = {"own": 0.0, "rft": 0.2, "sft-answer": -0.2}
    for row in found.itertuples():
        colour = arm_style(row.arm).colour
        error = [[row.mean - row.low], [row.high - row.mean]]
        look = {"color": colour, "mfc": colour if row.norm_of == "own" else "white", "ms": 7, "elinewidth": 1.2}
        place = arms.index(row.arm) + offsets[row.norm_of]
        ax.errorbar(row.mean, place, xerr=error, fmt=NORM_MARK[row.norm_of], capsize=2, **look)


@use_style()
def line_panels(lines: pd.DataFrame) -> Figure:
    """Puzzle exact match and prior score on the straight line to each arm: from the base, and from RFT (second row).

    Drawn columns: start, arm, share, measure, mean, low, high, seeds.
    """
    starts = [start for start in ("base", "rft") if start in set(lines["start"])]
    fig, frames, handles = new_figure(8.6, 0.7 + 2.6 * len(starts)), [], {}
    measures = {"exact": "puzzle exact match", "score": "mean prior score"}
    for number, (start, measure) in enumerate([(s, m) for s in starts for m in measures], start=1):
        ax = fig.add_subplot(len(starts), 2, number)
        found = _along(lines[lines["start"] == start], measure)
        for arm in [arm for arm in ARM_STYLE if arm in set(found["arm"])]:
            rows = found[found["arm"] == arm]
            (handles[arm],) = ax.plot(rows["share"], rows["mean"], **arm_style(arm).line())
            ax.fill_between(rows["share"], rows["low"], rows["high"], color=arm_style(arm).colour, alpha=0.12, lw=0)
        ax.set(ylim=(-0.03, 1.03), title=f"{measures[measure]}, from {start}")
        ax.set_xlabel(f"share of the way from {start} to the arm" if number > 2 * len(starts) - 2 else "")
        frames.append(found.assign(start=start, measure=measure))
    fig.legend(handles.values(), handles.keys(), loc="outside right upper")
    drawn = pd.concat(frames, ignore_index=True)
    add_note(fig, seed_note(drawn["seeds"]))
    return record(fig, drawn[["start", "arm", "share", "measure", "mean", "low", "high", "seeds"]])


def _along(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    found = [
        (arm, share, *seed_interval(part[measure]), len(part)) for (arm, share), part in rows.groupby(["arm", "share"])
    ]
    return pd.DataFrame(found, columns=["arm", "share", "mean", "low", "high", "seeds"])


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
        for (label, arm), part in known.groupby(["label", "arm"], sort=False):
            style = arm_style(arm)
            face = style.colour if label == arm else "white"
            ax.plot(
                part[name], part["drop"], ls="", marker=style.marker, color=style.colour, mfc=face, ms=6, alpha=0.85
            )
        ax.set_xscale("log")
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xlabel(PREDICTORS[name], fontsize=8.5)
        ax.set_ylabel("drop" if place % 3 == 1 else "")
        _few_log_ticks(ax)
        frames.append(known[["arm", "label", "seed", "drop"]].assign(predictor=name, value=known[name]))
    _arm_legend(fig, rows)
    return record(fig, pd.concat(frames)[["predictor", "arm", "label", "seed", "value", "drop"]])


def _few_log_ticks(ax: Axes) -> None:
    """At most a handful of ticks, written as plain numbers, however narrow or wide the range."""
    low, high = ax.get_xlim()
    subs = (1, 2, 5) if high / low < 30 else (1,)
    wide = LogLocator(subs=subs, numticks=5 if high / low > 30 else 8)
    # within less than a decade the logarithmic ticks are too few or far too many
    ax.xaxis.set_major_locator(wide if high / low > 8 else MaxNLocator(3))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def fits_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`updates.fit` of every predictor: columns predictor, runs, arms, r2, low, high, left_out, out_low, out_high.

    Left out: predicted from the other arms; empty below three arms. Best first.
    """
    found = [made for name in PREDICTORS if (made := fit(rows, name)) is not None]
    columns = ["predictor", "runs", "arms", "r2", "low", "high", "left_out", "out_low", "out_high"]
    return pd.DataFrame([_fit_row(made) for made in found], columns=columns).sort_values("r2", ascending=False)


def _fit_row(made: Fit) -> tuple:
    return (made.predictor, made.runs, made.arms, *made.r2, *(made.left_out or (None, None, None)))


@use_style()
def predictor_fits(fits: pd.DataFrame) -> Figure:
    """R^2 of each predictor with its bootstrap interval, within all runs (filled) and for arms left out (open).

    A left-out value below -1 is drawn at the left edge. Drawn columns: those of `fits_table` without empty cells.
    """
    fig = new_figure(7.4, 1.5 + 0.42 * len(fits))
    ax = fig.add_subplot()
    for place, row in enumerate(fits.itertuples()):
        for shift, values, face in ((0.13, (row.r2, row.low, row.high), "#0072B2"),
                                    (-0.13, (row.left_out, row.out_low, row.out_high), "white")):  # fmt: skip
            if values[0] is None or values[0] != values[0]:
                continue
            centre, low, high = (max(-1.0, v) for v in values)
            error = [[max(0.0, centre - low)], [max(0.0, high - centre)]]
            look = {"color": "#0072B2", "mfc": face, "ms": 8, "capsize": 3, "elinewidth": 1.4}
            ax.errorbar(centre, place + shift, xerr=error, fmt="o", **look)
    ax.plot([], [], "o", color="#0072B2", ms=7, label="all runs")
    ax.plot([], [], "o", color="#0072B2", mfc="white", ms=7, label="each arm predicted from the others")
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(fits)), [PREDICTORS[name] for name in fits["predictor"]])
    ax.set(xlim=(-1.08, 1.04), ylim=(len(fits) - 0.4, -0.6), xlabel="R^2 of the drop on the predictor's logarithm")
    ax.set_title("What predicts forgetting")
    fig.legend(loc="outside upper right", ncols=2)
    runs = sorted({int(n) for n in fits["runs"]})
    add_note(fig, f"{runs[0]} to {runs[-1]} runs; 95% bootstrap intervals over arms" if len(runs) > 1 else
          f"{runs[0]} runs; 95% bootstrap intervals over arms")  # fmt: skip
    return record(fig, fits.astype(object).where(fits.notna(), ""))


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
            found = _along(rows.rename(columns={"samples": "share"}), measure).sort_values("share")
            x = [counts.index(n) for n in found["share"]]
            style, face = arm_style(arm), arm_style(arm).colour if half == "shown" else "white"
            look = {"color": style.colour, "marker": style.marker, "mfc": face, "ms": 7}
            ax.plot(x, found["mean"], "-" if half == "shown" else "--", label=f"{arm}, {half}", **look)
            ax.fill_between(x, found["low"], found["high"], color=style.colour, alpha=0.12, lw=0)
            frames.append(found.rename(columns={"share": "samples"}).assign(half=half, measure=measure))
        ax.axhline(recovery[f"base_{measure}"].mean(), color="black", lw=1, ls=":")
        ax.set_xticks(range(len(counts)), [f"{n:g}" for n in counts])
        ax.set(ylim=(-0.03, 1.03), xlabel="prior samples learned again", title=title)
    fig.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    drawn = pd.concat(frames, ignore_index=True)
    add_note(fig, seed_note(drawn["seeds"]) + "; filled: tasks that were shown again, open: tasks that were not")
    return record(fig, drawn[["arm", "half", "measure", "samples", "mean", "low", "high", "seeds"]])


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
    arms = [arm for arm in ARM_STYLE if arm in found.index]
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
    ax.set_yticks(range(len(arms)), arms)
    ax.grid(visible=False)
    ax.set(xlim=(0, 1), ylim=(len(arms) - 0.5, -0.5), xlabel="share of prior-task samples")
    fig.legend(loc="outside upper center", ncols=4)
    add_note(fig, _mean_note(seeds).split(";")[0])
    return record(fig, pd.DataFrame(rows, columns=["arm", "kind", "share", "seeds"]))


def interval_words(values: Sequence[float], digits: int = 2) -> str:
    """A mean with its interval over seeds in words: "0.12 (0.08 to 0.16, 5 seeds)"."""
    return in_words(seed_interval(values), f".{digits}f", len(values))
