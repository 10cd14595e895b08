"""Figures of notebook 07: influence, forecasts of changes, bounds, directions, the kernel, predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from helpers.measure.influence import ema
from helpers.measure.linear import PRIOR
from helpers.show import marks
from helpers.show.marks import in_order, record, said
from helpers.show.style import GREY, Label, add_note, direct_labels, new_axes, new_figure, use_style
from helpers.stats.intervals import Interval, in_words, seed_interval
from helpers.study.arms import arm_style
from helpers.verdicts.forecasts import BASELINE

CELL = 1e-3  # the unit of the influence map's cells, nats per token


@use_style()
def influence_map(cells: pd.DataFrame) -> Figure:
    """Change of the log-prob of each probe type after one update on each corpus, a panel per update rule.

    `cells`: columns step, corpus, kind, mean, low, high (nats per token), which are also what is drawn; in brackets
    where the interval holds 0.
    """
    steps, corpora = list(cells["step"].unique()), in_order(cells["corpus"])
    kinds = list(cells["kind"].unique())
    fig = new_figure(2.4 + 0.52 * len(kinds), 1.5 + len(steps) * (0.9 + 0.3 * len(corpora)))
    for place, step in enumerate(steps, start=1):
        ax = fig.add_subplot(len(steps), 1, place)
        part = cells[cells["step"] == step].set_index(["corpus", "kind"])
        image = _heat(ax, part, corpora, kinds)
        ax.set_title(f"{step}: change in thousandths of a nat per token")
        ax.set_xticks([k + 0.5 for k in range(len(kinds))], kinds if place == len(steps) else [""] * len(kinds))
        ax.tick_params(axis="x", labelrotation=40)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        fig.colorbar(image, ax=ax, pad=0.01, ticks=_decades(image.norm.vmax), format=_short).minorticks_off()
    add_note(fig, "purple: more probable, orange: less (logarithmic); in brackets: the interval over batches holds 0")
    last = cells[cells["step"] == steps[-1]]
    worst = last.loc[last.groupby("corpus", sort=False)["mean"].idxmin()].set_index("corpus")
    words = ", ".join(f"{arm} {worst.kind[arm]} {marks.plain(worst['mean'][arm] / CELL)}" for arm in corpora)
    alt = f"Change of log-prob per token, corpora by probe types, a panel per rule. Lowest under {steps[-1]}, in 1e-3"
    return record(fig, cells, f"{alt} nats: {words}.")


def _heat(ax: Axes, part: pd.DataFrame, corpora: Sequence[str], kinds: Sequence[str]) -> ScalarMappable:
    """One panel: colours and numbers; returns what its colour bar needs."""
    table = (part["mean"] / CELL).unstack("kind").loc[list(corpora), list(kinds)]
    unsure = ((part["low"] <= 0) & (part["high"] >= 0)).unstack("kind").loc[list(corpora), list(kinds)]
    texts = table.map(_short).where(~unsure, "(" + table.map(_short) + ")")
    top = max(float(table.abs().to_numpy().max()), 1e-9)
    norm = SymLogNorm(linthresh=top / 300, vmin=-top, vmax=top)
    return marks.heat(ax, table, texts.to_numpy(), cmap="PuOr", norm=norm)


def _short(value: float, _: Any = None) -> str:
    """Two digits, and nothing below a hundredth."""
    return "0" if abs(value) < 0.01 else f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


@use_style()
def forecast_scatter(rows: pd.DataFrame) -> Figure:
    """Measured change of each probe against the first-order prediction, a panel per step (symmetric log axes).

    `rows` of `influence` with predictions. Filled: first order; open: linear logits, exact softmax. Drawn columns:
    step, corpus, item, kind, change, first order, linear logits.
    """
    steps = list(rows["step"].unique())
    fig = new_figure(3.3 * len(steps), 3.9)
    for place, step in enumerate(steps, start=1):
        ax, part = fig.add_subplot(1, len(steps), place), rows[rows["step"] == step]
        top = 1.3 * float(part[["change", "first order", "linear logits"]].abs().to_numpy().max())
        ax.plot([-top, top], [-top, top], color=GREY, linewidth=0.8, zorder=1)
        for corpus in in_order(part["corpus"]):
            mine, style = part[part["corpus"] == corpus], arm_style(corpus)
            look = {"linestyle": "none", "marker": style.marker, "ms": 3.5, "color": style.colour, "alpha": 0.6}
            ax.plot(mine["linear logits"], mine["change"], mfc="none", mew=0.7, **look)
            ax.plot(mine["first order"], mine["change"], label=corpus, mew=0, **look)
        _symmetric_log(ax, top)
        ax.set(title=step, xlabel="predicted (nats)", ylabel="measured (nats)" if place == 1 else "")
    _corpus_legend(fig)
    add_note(fig, "filled: first order; open: linear logits with an exact softmax; line: prediction = measurement")
    fits = {s: rows[rows["step"] == s][["change", "first order", "linear logits"]].corr()["change"] for s in steps}
    words = "; ".join(f"{s}: {said(found.drop('change'), '.2f')}" for s, found in fits.items())
    alt = f"Measured against predicted change of prior samples, a panel per step. Correlations, {words}."
    return record(fig, rows[["step", "corpus", "item", "kind", "change", "first order", "linear logits"]], alt)


def _corpus_legend(fig: Figure) -> None:
    """One legend above all panels."""
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), columnspacing=1.2, handletextpad=0.5)


def _decades(top: float) -> list[float]:
    """0, the highest power of ten up to `top`, and a hundredth of it, both signs."""
    highest = 10.0 ** math.floor(math.log10(top))
    return [-highest, -highest / 100, 0.0, highest / 100, highest]


def _symmetric_log(ax: Axes, top: float) -> None:
    """Equal symmetric log axes up to `top`, linear in the innermost thousandth."""
    ticks = _decades(top)
    for scale, ticker in ((ax.set_xscale, ax.set_xticks), (ax.set_yscale, ax.set_yticks)):
        scale("symlog", linthresh=top / 1000, linscale=0.5)
        ticker(ticks, ["0" if tick == 0 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks], fontsize=8)
        ticker([], minor=True)
    ax.set(xlim=(-top, top), ylim=(-top, top))


RUNGS: Mapping[str, tuple[str, dict]] = MappingProxyType(
    {
        "kernel": ("||K||, exact", {"marker": "s"}),
        "gradient": ("||K G|| / ||G||", {"marker": "D", "mfc": "none"}),
        "words": ("||A K G|| / (||A|| ||G||): all words", {"marker": "o"}),
        "target": ("the same for the target word only", {"marker": "v", "mfc": "none"}),
        "measured": ("the target word after a real step", {"marker": "x"}),
        "lbk": ("LBK of that step, over the rate", {"marker": "+"}),
    }
)


@use_style()
def ladder_dots(rows: pd.DataFrame) -> Figure:
    """The rungs of `ladder` from the exact kernel norm down to the bounds, a row per corpus and observed token (log x).

    `rows`: as from `ladder`, with a column `observed`. Drawn columns: those of `rows`.
    """
    ax = new_axes(8.0, 1.7 + 0.3 * len(rows))
    for label, marker in RUNGS.values():
        marks.key(ax, label, mew=1.6, **marker)
    for place, row in enumerate(rows.itertuples()):
        for rung, (_, marker) in RUNGS.items():
            ax.plot(getattr(row, rung), place, color=arm_style(row.kind).colour, mew=1.6, ms=7, **marker)
    ax.hlines(range(len(rows)), rows["target"], rows["kernel"], color="#BBBBBB", linewidth=0.8, zorder=1)
    ax.set_xscale("log")
    marks.row_axis(ax, [f"{row.kind}  →  {row.observed}" for row in rows.itertuples()], 0.4)
    ax.set(xlabel="size per unit of rate (log scale)")
    ax.set_title("How much of the kernel's norm each bound sees")
    ax.figure.legend(loc="outside lower left", ncols=2, fontsize=8.5)
    loose = {name: rows["kernel"] / rows[name] for name in ("words", "target", "lbk")}
    words = ", ".join(f"{n} {marks.plain(v.min())} to {marks.plain(v.max())} times" for n, v in loose.items())
    alt = f"Exact kernel norm and the bounds below it, a row per corpus and observed task. Below it by: {words}."
    return record(ax.figure, rows, alt)


@use_style()
def training_bounds(rows: pd.DataFrame, probe: str = PRIOR) -> Figure:
    """LBK and SignDelta on one probe type along training, a line per corpus; bars: their sums over the steps.

    `rows` of `walk`. Thick: EMA (0.9), faint: per step; the bars' whiskers are the variance over the steps, as in the
    authors' figures. Drawn columns: corpus, step, measure, value, smooth.
    """
    rows, frames = rows[rows["probe"] == probe], []
    fig = new_figure(9.0, 5.6)
    grid = fig.add_gridspec(2, 2, width_ratios=(2.2, 1))
    for line, (measure, title) in enumerate({"lbk": "LBK", "sign_delta": "SignDelta"}.items()):
        left, right = fig.add_subplot(grid[line, 0]), fig.add_subplot(grid[line, 1])
        labels = []
        for corpus in in_order(rows["corpus"]):
            part, style = rows[rows["corpus"] == corpus], arm_style(corpus)
            smooth = ema(part[measure].tolist())
            left.plot(part["step"], part[measure], color=style.colour, alpha=0.3, linewidth=0.8)
            left.plot(part["step"], smooth, color=style.colour, linestyle=style.linestyle)
            labels.append(Label(float(part["step"].iloc[-1]), smooth[-1], corpus, style.colour))
            frames.append(part[["corpus", "step"]].assign(measure=measure, value=part[measure], smooth=smooth))
        left.set(title=f"{title} on the {probe}", xlabel="update" if line else "")
        left.axhline(0, color=GREY, linewidth=0.8)
        direct_labels(left, labels)
        _sum_bars(right, rows, measure)
        right.set(title=f"sum of {title}")
    add_note(
        fig,
        "thick: moving average (0.9), faint: each step; whiskers: variance over the steps, as in the framework's code",
    )
    sums = rows.groupby("corpus")[["lbk", "sign_delta"]].sum()
    words = "; ".join(f"{name}: {said(sums[name], '.2g')}" for name in sums.columns).replace("_", " ")
    alt = f"LBK and SignDelta on the {probe} against update, with bars of their sums: {words}."
    return record(fig, pd.concat(frames, ignore_index=True), alt)


def _sum_bars(ax: Axes, rows: pd.DataFrame, measure: str) -> None:
    corpora = in_order(rows["corpus"])
    for place, corpus in enumerate(corpora):
        values = rows.loc[rows["corpus"] == corpus, measure]
        ax.barh(place, values.sum(), xerr=values.var() if len(values) > 1 else None, height=0.6,
                color=arm_style(corpus).colour, ecolor="black", capsize=3)  # fmt: skip
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_yticks(range(len(corpora)), corpora)
    ax.yaxis.tick_right()
    ax.set_ylim(len(corpora) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


@use_style()
def cosine_lines(rows: pd.DataFrame) -> Figure:
    """Cosine of each corpus's gradient with the prior tasks' by part of the model, with 95% t intervals over batches.

    Below: each part's share of the whole cosine. `rows` of `directions`. Drawn columns: measure, corpus, part, mean,
    low, high.
    """
    parts, corpora = list(rows["part"].unique()), in_order(rows["corpus"])
    parts = ["all", *(part for part in parts if part != "all")]
    fig, frames = new_figure(8.4, 6.2), []
    titles = {"cosine": "Cosine within each part of the model", "share": "Share of each part in the whole cosine"}
    for place, (measure, title) in enumerate(titles.items(), start=1):
        ax = fig.add_subplot(2, 1, place)
        for rank, corpus in enumerate(corpora):
            mine = rows[rows["corpus"] == corpus]
            found = [seed_interval(mine.loc[mine["part"] == part, measure]) for part in parts]
            table = pd.DataFrame(found, columns=["mean", "low", "high"])
            spots = [i + 0.1 * (rank - (len(corpora) - 1) / 2) for i in range(len(parts))]
            look = marks.point_look(corpus) | {"elinewidth": 1, "capsize": 0}
            marks.dots(ax, table, spots, upright=True, label=corpus, **look)
            frames.append(pd.DataFrame({"measure": measure, "corpus": corpus, "part": parts}).join(table))
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(parts)), parts)
        ax.set_title(title)
    _corpus_legend(fig)
    add_note(fig, "95% t intervals over batches")
    drawn = pd.concat(frames, ignore_index=True)
    whole = drawn[(drawn["measure"] == "cosine") & (drawn["part"] == "all")].set_index("corpus")["mean"]
    alt = "Cosine of each corpus's gradient with the prior tasks', by part of the model. In the whole model:"
    return record(fig, drawn, f"{alt} {said(whole)}.")


@use_style()
def symmetry_scatter(pairs: pd.DataFrame) -> Figure:
    """v|u against u|v, a panel per update rule (symmetric log axes). `pairs` of `symmetry`, which is what is drawn."""
    steps = list(pairs["step"].unique())
    fig = new_figure(3.9 * len(steps), 4.2)
    for place, step in enumerate(steps, start=1):
        ax, part = fig.add_subplot(1, len(steps), place), pairs[pairs["step"] == step]
        top = 1.3 * float(part[["forward", "backward"]].abs().to_numpy().max())
        ax.plot([-top, top], [-top, top], color=GREY, linewidth=0.8, zorder=1)
        for corpus in in_order(part["corpus"]):
            mine = part[part["corpus"] == corpus]
            look = {"markersize": 4, "alpha": 0.6, "mew": 0}
            marks.scatter(ax, mine, "backward", "forward", "corpus", label=corpus, **look)
        _symmetric_log(ax, top)
        ax.set(title=step, xlabel="u|v (nats per token)", ylabel="v|u (nats per token)" if place == 1 else "")
    _corpus_legend(fig)
    note = "v|u: change of a prior sample after a step on a corpus sample; u|v: the other way round; line: symmetry"
    add_note(fig, note)
    fits = {step: part["forward"].corr(part["backward"]) for step, part in pairs.groupby("step", sort=False)}
    alt = "Change of prior samples after a step on corpus samples against the reverse, a panel per rule. Correlations:"
    return record(fig, pairs, f"{alt} {said(fits)}.")


@use_style()
def kernel_panels(rows: pd.DataFrame) -> Figure:
    """Norm of the kernel and its alignment with its start along training, a line per corpus with intervals.

    `rows` of `constancy`, which is also what is drawn.
    """
    titles = {
        "norm": "||K|| per pair of tokens",
        "size": "||K|| over its start",
        "alignment": "alignment of K with its start",
    }
    fig = new_figure(10.0, 3.9)
    for place, (quantity, title) in enumerate(titles.items(), start=1):
        ax, part = fig.add_subplot(1, 3, place), rows[rows["quantity"] == quantity]
        marks.lines(ax, part, "step", "corpus", band=0.12)
        if quantity != "norm":
            ax.axhline(1, color=GREY, linewidth=0.8)
        ax.set(title=title, xlabel="update")
    _corpus_legend(fig)
    add_note(fig, "bands: 95% jackknife intervals over random directions; 1: no change")
    last = said(marks.ends(rows[rows["quantity"] == "alignment"], "step", "corpus"))
    alt = "Norm of the kernel, its size over its start, and its alignment with its start. Alignment at the end:"
    return record(fig, rows, f"{alt} {last}.")


@use_style()
def prediction_panels(quantities: pd.DataFrame, drops: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Final drop against each quantity measured at the base model, a panel each, with the line through all arms.

    Crosses: 95% t intervals over batches and seeds (smallest to largest below three). Drawn columns: quantity, arm,
    value, value_low, value_high, drop, drop_low, drop_high.
    """
    names = [name for name in errors["quantity"] if name != BASELINE]
    lines = -(-len(names) // 3)
    fig, frames = new_figure(9.4, 0.6 + 2.9 * lines), []
    height = {arm: seed_interval(part["value"]) for arm, part in drops.groupby("arm")}
    for place, name in enumerate(names, start=1):
        ax, mine = fig.add_subplot(lines, 3, place), quantities[quantities["quantity"] == name]
        points = {arm: seed_interval(part["value"]) for arm, part in mine.groupby("arm") if arm in height}
        for arm in in_order(points):
            _cross(ax, arm, points[arm], height[arm])
            frames.append((name, arm, *points[arm], *height[arm]))
        error = errors.set_index("quantity").loc[name]
        ax.set(xlabel=name, ylabel="final drop" if place % 3 == 1 else "")
        ax.locator_params(axis="x", nbins=5)
        ax.set_title(f"left-out error {in_words(error[['error', 'low', 'high']])}", fontsize=9)
    _corpus_legend(fig)
    names = ["quantity", "arm", "value", "value_low", "value_high", "drop", "drop_low", "drop_high"]
    alt = "Final drop against each quantity measured at the base, a point per arm. Left-out error:"
    words = said(errors.set_index("quantity")["error"])
    return record(fig, pd.DataFrame(frames, columns=names), f"{alt} {words}.")


def _cross(ax: Axes, arm: str, x: Interval, y: Interval) -> None:
    """One arm's point with both intervals."""
    xerr, yerr = ([[i.mean - i.low], [i.high - i.mean]] for i in (x, y))
    look = arm_style(arm).line() | {"linestyle": "none", "markersize": 7}
    ax.errorbar(x.mean, y.mean, yerr=yerr, xerr=xerr, label=arm, elinewidth=1, **look)


@use_style()
def error_dots(errors: pd.DataFrame) -> Figure:
    """Left-out error of each predictor with its interval over arms; dashed: predicting the mean. Drawn: `errors`."""
    ax = new_axes(7.4, 1.3 + 0.4 * len(errors))
    places = range(len(errors))
    marks.dots(ax, errors, places, value="error", marker="o", color="#1A4E73", capsize=3, elinewidth=None)
    ax.axvline(float(errors.loc[errors["quantity"] == BASELINE, "error"].iloc[0]), color=GREY, linestyle="--")
    for place, row in zip(places, errors.itertuples(), strict=True):
        text = "" if row.quantity == BASELINE else f"luck {row.luck:.0%}, slope {row.slope}"
        marks.row_text(ax, place, text)
    marks.row_axis(ax, list(errors["quantity"]))
    ax.set_xlabel("absolute error of the drop of the arm left out (mean and 95% t interval)")
    ax.set_title("Predicting an arm's drop from the other arms (dashed: their mean)")
    alt = "Mean absolute error of the drop of the arm left out, a row per predictor with interval:"
    return record(ax.figure, errors, f"{alt} {said(errors.set_index('quantity')['error'])}.")
