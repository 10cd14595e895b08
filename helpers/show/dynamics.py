"""Figures of notebook 07: influence, forecasts of changes, bounds, directions, the kernel, predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from helpers.measure.influence import ema, over_batches
from helpers.measure.linear import PRIOR
from helpers.show import marks
from helpers.show.marks import in_order, record, said
from helpers.show.style import GREY, direct_labels, new_axes, new_figure, use_style
from helpers.stats.intervals import in_words
from helpers.study.arms import arm_style
from helpers.verdicts.forecasts import BASELINE

CELL = 1e-3  # the unit of the influence map's cells, nats per token
TIGHT = {"columnspacing": 1.2, "handletextpad": 0.5}  # a legend of many corpora in one line


@use_style()
def influence_map(cells: pd.DataFrame) -> Figure:
    """Change of the log-prob of each probe type after one update on each corpus, a panel per update rule.

    `cells`: columns step, corpus, kind, mean, low, high (nats per token), which are also what is drawn; in brackets
    where the interval holds 0.
    """
    corpora, kinds = in_order(cells["corpus"]), list(cells["kind"].unique())
    titles = {step: f"{step}: change in thousandths of a nat per token" for step in cells["step"].unique()}
    fig, axes = marks.panels(titles, 2.4 + 0.52 * len(kinds), 0.9 + 0.3 * len(corpora), columns=1, room=1.5)
    for step, ax in axes.items():
        part = cells[cells["step"] == step].set_index(["corpus", "kind"])[["mean", "low", "high"]] / CELL
        mean, low, high = (part[name].unstack("kind").loc[corpora, kinds] for name in part.columns)
        texts = mean.map(_short).where((low > 0) | (high < 0), "(" + mean.map(_short) + ")")
        top = max(float(mean.abs().to_numpy().max()), 1e-9)
        norm = SymLogNorm(linthresh=top / 300, vmin=-top, vmax=top)
        image = marks.heat(ax, mean, texts.to_numpy(), cmap="PuOr", norm=norm)
        names = kinds if step == list(axes)[-1] else [""] * len(kinds)
        ax.set_xticks(ax.get_xticks(), names, rotation=40, ha="right", rotation_mode="anchor")
        fig.colorbar(image, ax=ax, pad=0.01, ticks=_decades(top), format=_short).minorticks_off()
    last = cells[cells["step"] == step]
    worst = last.loc[last.groupby("corpus", sort=False)["mean"].idxmin()].set_index("corpus")
    words = ", ".join(f"{arm} {worst.kind[arm]} {marks.plain(worst['mean'][arm] / CELL)}" for arm in corpora)
    alt = f"Change of log-prob per token, corpora by probe types, a panel per rule. Lowest under {step}, in 1e-3"
    note = "purple: more probable, orange: less (logarithmic); in brackets: the interval over batches holds 0"
    return record(fig, cells, f"{alt} nats: {words}.", note)


def _short(value: float, _: Any = None) -> str:
    """Two digits, and nothing below a hundredth."""
    return "0" if abs(value) < 0.01 else f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


@use_style()
def forecast_scatter(rows: pd.DataFrame) -> Figure:
    """Measured change of each probe against the first-order prediction, a panel per step (symmetric log axes).

    `rows` of `influence` with predictions. Filled: first order; open: linear logits, exact softmax. Drawn columns:
    step, corpus, item, kind, change, first order, linear logits.
    """
    values = ["change", "first order", "linear logits"]
    fig, parts = _diagonals(rows, values, 3.3, 3.9, xlabel="predicted (nats)", ylabel="measured (nats)")
    for ax, corpus, part in parts:
        look = marks.point_look(corpus) | {"ms": 3.5, "alpha": 0.6}
        ax.plot(part["linear logits"], part["change"], mfc="none", mew=0.7, **look)
        ax.plot(part["first order"], part["change"], label=corpus, mew=0, **look)
    marks.legend(fig, **TIGHT)
    fits = {step: part[values].corr()["change"].drop("change") for step, part in rows.groupby("step", sort=False)}
    words = "; ".join(f"{step}: {said(fit)}" for step, fit in fits.items())
    alt = f"Measured against predicted change of prior samples, a panel per step. Correlations, {words}."
    note = "filled: first order; open: linear logits with an exact softmax; line: prediction = measurement"
    return record(fig, rows[["step", "corpus", "item", "kind", *values]], alt, note)


def _diagonals(
    rows: pd.DataFrame, values: list[str], width: float, height: float, **labels: str
) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]]]:
    """A panel per `step` with its diagonal, on equal symmetric log axes that hold all `values`.

    Returns the figure, and for each panel and corpus its axes, its name and its rows.
    """
    steps, parts = rows["step"].unique(), []
    fig, axes = marks.panels(steps, width * len(steps), height, **labels)
    for step, ax in axes.items():
        panel = rows[rows["step"] == step]
        top = 1.3 * float(panel[values].abs().to_numpy().max())
        ax.plot([-top, top], [-top, top], color=GREY, linewidth=0.8, zorder=1)
        ax.set(xlim=(-top, top), ylim=(-top, top))  # before the ticks: those out of view are left out
        for which, scale in {"x": ax.set_xscale, "y": ax.set_yscale}.items():
            scale("symlog", linthresh=top / 1000, linscale=0.5)
            marks.ticks(ax, which, _decades(top), lambda tick: f"{tick:.0e}".replace("e-0", "e-") if tick else "0")
        ax.tick_params(labelsize=8)
        parts += [(ax, corpus, panel[panel["corpus"] == corpus]) for corpus in in_order(panel["corpus"])]
    return fig, parts


def _decades(top: float) -> list[float]:
    """0, the highest power of ten up to `top`, and a hundredth of it, both signs."""
    highest = 10.0 ** math.floor(math.log10(top))
    return [-highest, -highest / 100, 0.0, highest / 100, highest]


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
    drawn = _ordered(rows[rows["probe"] == probe]).melt(["corpus", "step"], ["lbk", "sign_delta"], "measure")
    drawn["smooth"] = drawn.groupby(["measure", "corpus"])["value"].transform(lambda values: np.array(ema(values)))
    fig, titles = new_figure(9.0, 5.6), {"lbk": "LBK", "sign_delta": "SignDelta"}
    grid = fig.subplots(2, 2, width_ratios=(2.2, 1))
    for (left, right), (measure, title) in zip(grid, titles.items(), strict=True):
        part = drawn[drawn["measure"] == measure]
        faint = {"linestyle": "-", "alpha": 0.3, "linewidth": 0.8}
        marks.lines(left, part.assign(mean=part["value"]), "step", "corpus", band=0, marker="", **faint)
        labels = marks.lines(left, part.assign(mean=part["smooth"]), "step", "corpus", band=0, marker="")
        left.set_title(f"{title} on the {probe}")
        left.axhline(0, color=GREY, linewidth=0.8)
        direct_labels(left, labels)
        sums = part.groupby("corpus", sort=False)["value"].agg(["sum", "var"])
        look = {"color": [arm_style(corpus).colour for corpus in sums.index], "ecolor": "black", "capsize": 3}
        right.barh(range(len(sums)), sums["sum"], xerr=sums["var"], height=0.6, **look)
        right.axvline(0, color=GREY, linewidth=0.8)
        marks.row_axis(right, sums.index)
        right.yaxis.tick_right()
        right.grid(axis="y", visible=False)
        right.set_title(f"sum of {title}")
    left.set_xlabel("update")
    totals = drawn.groupby(["measure", "corpus"])["value"].sum()
    words = "; ".join(f"{name}: {said(totals[name], '.2g')}" for name in titles).replace("_", " ")
    alt = f"LBK and SignDelta on the {probe} against update, with bars of their sums: {words}."
    note = (
        "thick: moving average (0.9), faint: each step; whiskers: variance over the steps, as in the framework's code"
    )
    return record(fig, drawn, alt, note)


def _ordered(rows: pd.DataFrame, by: str = "corpus") -> pd.DataFrame:
    """Rows with the names in column `by` in the registry's order."""
    return rows.sort_values(by, key=lambda names: names.map(in_order(names).index), kind="stable")


@use_style()
def cosine_lines(rows: pd.DataFrame) -> Figure:
    """Cosine of each corpus's gradient with the prior tasks' by part of the model, with 95% t intervals over batches.

    Below: each part's share of the whole cosine. `rows` of `directions`. Drawn columns: measure, corpus, part, mean,
    low, high.
    """
    titles = {"cosine": "Cosine within each part of the model", "share": "Share of each part in the whole cosine"}
    rows = _ordered(rows.sort_values("part", key=lambda part: part != "all", kind="stable"))  # the whole comes first
    tables = [over_batches(rows, ["corpus", "part"], measure).assign(measure=measure) for measure in titles]
    drawn = pd.concat(tables, ignore_index=True)[["measure", "corpus", "part", "mean", "low", "high"]]
    parts, corpora = drawn["part"].unique(), list(drawn["corpus"].unique())
    fig, axes = marks.panels(titles, 8.4, 3.1, columns=1)
    for (measure, corpus), table in drawn.groupby(["measure", "corpus"], sort=False):
        shift = 0.1 * (corpora.index(corpus) - (len(corpora) - 1) / 2)
        look = marks.point_look(corpus) | {"elinewidth": 1, "capsize": 0}
        marks.dots(axes[measure], table, np.arange(len(parts)) + shift, upright=True, label=corpus, **look)
    for ax in axes.values():
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(parts)), parts)
    marks.legend(fig, **TIGHT)
    whole = drawn[(drawn["measure"] == "cosine") & (drawn["part"] == "all")].set_index("corpus")["mean"]
    alt = "Cosine of each corpus's gradient with the prior tasks', by part of the model. In the whole model:"
    return record(fig, drawn, f"{alt} {said(whole)}.", "95% t intervals over batches")


@use_style()
def symmetry_scatter(pairs: pd.DataFrame) -> Figure:
    """v|u against u|v, a panel per update rule (symmetric log axes). `pairs` of `symmetry`, which is what is drawn."""
    labels = {"xlabel": "u|v (nats per token)", "ylabel": "v|u (nats per token)"}
    fig, parts = _diagonals(pairs, ["forward", "backward"], 3.9, 4.2, **labels)
    for ax, corpus, part in parts:
        look = marks.point_look(corpus) | {"ms": 4, "alpha": 0.6, "mew": 0}
        ax.plot(part["backward"], part["forward"], label=corpus, **look)
    marks.legend(fig, **TIGHT)
    fits = {step: part["forward"].corr(part["backward"]) for step, part in pairs.groupby("step", sort=False)}
    alt = "Change of prior samples after a step on corpus samples against the reverse, a panel per rule. Correlations:"
    note = "v|u: change of a prior sample after a step on a corpus sample; u|v: the other way round; line: symmetry"
    return record(fig, pairs, f"{alt} {said(fits)}.", note)


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
    fig, axes = marks.panels(titles, 10.0, 3.9, xlabel="update")
    for quantity, ax in axes.items():
        marks.lines(ax, rows[rows["quantity"] == quantity], "step", "corpus", band=0.12)
        if quantity != "norm":
            ax.axhline(1, color=GREY, linewidth=0.8)
    marks.legend(fig, **TIGHT)
    last = said(marks.ends(rows[rows["quantity"] == "alignment"], "step", "corpus"))
    alt = "Norm of the kernel, its size over its start, and its alignment with its start. Alignment at the end:"
    note = "bands: 95% jackknife intervals over random directions; 1: no change"
    return record(fig, rows, f"{alt} {last}.", note)


@use_style()
def prediction_panels(quantities: pd.DataFrame, drops: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Final drop against each quantity measured at the base model, a panel each and a point per arm.

    Crosses: 95% t intervals over batches and seeds (smallest to largest below three). Drawn columns: quantity, arm,
    value, value_low, value_high, drop, drop_low, drop_high.
    """
    known = errors[errors["quantity"] != BASELINE].set_index("quantity")[["error", "low", "high"]]
    value, drop = ({"mean": name, "low": f"{name}_low", "high": f"{name}_high"} for name in ("value", "drop"))
    measured = _ordered(over_batches(quantities, ["quantity", "arm"]), "arm").rename(columns=value)
    heights = over_batches(drops, ["arm"]).rename(columns=drop)
    drawn = pd.DataFrame({"quantity": known.index}).merge(measured, on="quantity").merge(heights, on="arm")
    titles = {name: f"left-out error {in_words(row)}" for name, row in known.iterrows()}
    fig, axes = marks.panels(titles, 9.4, 2.9, columns=3, room=0.6, ylabel="final drop")
    for (name, arm), part in drawn.groupby(["quantity", "arm"], sort=False):
        marks.crosses(axes[name], part, "value", "drop", label=arm, **marks.point_look(arm) | {"markersize": 7})
    for name, ax in axes.items():
        ax.set_xlabel(name)
        ax.title.set_fontsize(9)
        ax.locator_params(axis="x", nbins=5)
    marks.legend(fig, **TIGHT)
    alt = "Final drop against each quantity measured at the base, a point per arm. Left-out error:"
    return record(fig, drawn, f"{alt} {said(errors.set_index('quantity')['error'])}.")


@use_style()
def error_dots(errors: pd.DataFrame) -> Figure:
    """Left-out error of each predictor with its interval over arms; dashed: predicting the mean. Drawn: `errors`."""
    ax = new_axes(7.4, 1.3 + 0.4 * len(errors))
    marks.dots(ax, errors, range(len(errors)), value="error", marker="o", color="#1A4E73", capsize=3, elinewidth=None)
    ax.axvline(float(errors.loc[errors["quantity"] == BASELINE, "error"].iloc[0]), color=GREY, linestyle="--")
    for place, row in enumerate(errors.itertuples()):
        if row.quantity != BASELINE:
            marks.row_text(ax, place, f"luck {row.luck:.0%}, slope {row.slope}")
    marks.row_axis(ax, list(errors["quantity"]))
    ax.set_xlabel("absolute error of the drop of the arm left out (mean and 95% t interval)")
    ax.set_title("Predicting an arm's drop from the other arms (dashed: their mean)")
    alt = "Mean absolute error of the drop of the arm left out, a row per predictor with interval:"
    return record(ax.figure, errors, f"{alt} {said(errors.set_index('quantity')['error'])}.")
