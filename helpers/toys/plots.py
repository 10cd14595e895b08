"""The pictures of the toys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from helpers.errors import UserError
from helpers.show import marks
from helpers.show.marks import record, said
from helpers.show.style import GREY, direct_labels, new_axes, new_figure, seed_note, use_style
from helpers.stats.curves import seed_summary
from helpers.toys.mixture import OLD_MODE, Effort, Method, Runs, World, grid, log_normal, mode_logs, train

BEFORE, AFTER = "#666666", "#0072B2"
UP, DOWN = "#0072B2", "#A84300"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)))


@use_style()
def squeeze_panels(rows: pd.DataFrame, steps: int) -> Figure:
    """Probabilities and log-probs of all words before and after `steps` steps, and one step against A K G.

    `rows` as from `squeeze_table` or `shared_table`, a column of panels per `panel`; they are also what is drawn.
    """
    names = list(rows["panel"].unique())
    fig = new_figure(max(6.0, 3.0 * len(names)), 7.4)
    axes = fig.subplots(3, len(names), sharex=True, sharey="row", squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        part = rows[rows["panel"] == name]
        _word_panel(column, part)
        column[0].set_title(name)
        column[2].set(xlabel="word", xticks=[1, 5, 10, 15, 20] if len(part) == 20 else [1, len(part)])
    for ax, label in zip(axes[:, 0], ("probability", "log-prob (nats)", "change in one step (nats)"), strict=True):
        ax.set_ylabel(label)
    handles = [
        Line2D([], [], color=BEFORE, marker="o", mfc="white", lw=1, label="before"),
        Line2D([], [], color=AFTER, marker="s", lw=1, label=f"after {steps} step{'s' * (steps > 1)}"),
        Patch(color=UP, label="one step: rises"),
        Patch(color=DOWN, label="one step: falls"),
        Line2D([], [], color="black", marker="x", ls="none", label="predicted by A K G"),
    ]
    marks.legend(fig, handles=handles)
    most = rows.loc[(rows["after"] - rows["before"]).groupby(rows["panel"], sort=False).idxmax()]
    words = "; ".join(f"{r.panel}: word {r.word} from {r.before:.2f} to {r.after:.2f}" for r in most.itertuples())
    alt = "Probabilities and log-probs of all words before and after, and one step against A K G. Gains most:"
    return record(fig, rows, f"{alt} {words}.")


def _word_panel(axes: Sequence[Axes], part: pd.DataFrame) -> None:
    """One column: probability, log-prob, change of one step."""
    word = part["word"]
    for ax, change in ((axes[0], lambda p: p), (axes[1], np.log)):
        ax.plot(word, change(part["before"]), "o-", color=BEFORE, mfc="white", lw=1, ms=4)
        ax.plot(word, change(part["after"]), "s-", color=AFTER, lw=1, ms=3.5)
    axes[2].bar(word, part["one_step"], color=np.where(part["one_step"] > 0, UP, DOWN), width=0.7)
    axes[2].plot(word, part["predicted"], "x", color="black", ms=5, mew=1.2)
    axes[2].axhline(0, color=GREY, lw=0.8)


@use_style()
def squeeze_sweep_panels(rows: pd.DataFrame, steps: int) -> Figure:
    """Against the peak of the start, a line per pushed word: what the winner gains, what the bystanders lose.

    `rows` as from `squeeze_sweep`. Drawn columns: peak, word, winner, winner_gain, bystander_shift.
    """
    titles = {"winner_gain": "The most probable other word", "bystander_shift": "All remaining words"}
    fig, axes = marks.panels(titles, 9.4, 3.9)
    words, looks = sorted(rows["word"].unique()), {}
    for place, word in enumerate(words):  # from dark to light with rank; markers and dashes need no colour
        look = {"marker": "osD^v"[place % 5], "linestyle": DASHES[place % 5], "markersize": 4}
        looks[f"word {word}"] = look | {"color": colormaps["cividis"](0.85 * place / max(1, len(words) - 1))}
    named = rows.sort_values("word").assign(name="word " + rows["word"].astype(str))
    for value, ax in axes.items():
        marks.lines(ax, named.assign(mean=rows[value]), "peak", "name", looks.get, band=0)
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xlabel("peak of the start (0: uniform)")
    axes["winner_gain"].set_ylabel("gain in probability")
    axes["bystander_shift"].set_ylabel("mean shift (nats)")
    marks.legend(fig, "right center", title="pushed down", ncols=1)
    most = rows[rows["word"] != 1].nlargest(1, "winner_gain").iloc[0]
    words = f"word {most['word']:.0f} down, word {most['winner']:.0f} up by {most['winner_gain']:.2f}"
    alt = "Gain of the most probable other word, and mean shift of the rest, against the peak of the start. Most:"
    drawn = rows[["peak", "word", "winner", "winner_gain", "bystander_shift"]]
    note = f"{steps} negative steps on one word; words are named by their rank at the start"
    return record(fig, drawn, f"{alt} {words}, peak {most['peak']:g}.", note)


# Looks are borrowed from arms: browns learn from given data, blues from their own samples.
BORROWED: Mapping[str, str] = {
    "SFT, rate 0.15": "sft-answer",
    "SFT, rate 0.01": "sft-expert",
    "SFT, one mode": "sft-answer",
    "REINFORCE, new mode": "rft",
    "REINFORCE, new mode, centred": "reinforce-1-0",
    "REINFORCE, whole": "rft-no-kl",
    "REINFORCE, one mode": "rft-no-kl",
}
MOMENTS = {"start": 0.0, "half way": 0.5, "end": 1.0}


def learner_look(name: str) -> marks.Look:
    """The look of a learner: its own, or that of its kind."""
    return marks.arm_look(BORROWED.get(name, "sft-answer" if name.startswith("SFT") else "rft"))


def density_rows(learners: Mapping[str, Method], world: World, effort: Effort) -> pd.DataFrame:
    """Densities of seed 0 at the start, half way and at the end of every run, for `mixture_panels`.

    Columns learner, slow, moment, step, x, density, kept, gain (accuracy on the old mode and gain at that step).
    """
    frames = []
    for name, learner in learners.items():
        runs = train(learner, world, replace(effort, seeds=1))
        for place, slow in enumerate(effort.slows):
            end = runs.stopped[place, 0] if runs.stopped[place, 0] >= 0 else len(runs.policies) - 1
            for moment, share in MOMENTS.items():
                about = {"learner": name, "slow": slow, "moment": moment, "step": round(share * end)}
                frames.append(_density(runs, place, about))
    return pd.concat(frames, ignore_index=True)


def _density(runs: Runs, place: int, about: dict) -> pd.DataFrame:
    x = grid()[60:-60:3]  # -9 to 9, as fine as the eye
    scores, first = runs.accuracies[about["step"], place, 0], runs.accuracies[0, place, 0]
    density = np.exp(np.logaddexp(*mode_logs(x, runs.policies[about["step"], place, 0])))
    return pd.DataFrame(about | {"x": x, "density": density, "kept": scores[0], "gain": scores[1] - first[1]})


@use_style()
def mixture_panels(rows: pd.DataFrame, world: World) -> Figure:
    """The policy's density before, half way and at equal gain, a row per slow factor and a column per learner.

    `rows` as from `density_rows`, which are also what is drawn. Dashed: the two modes to hold.
    """
    names, slows = list(rows["learner"].unique()), sorted(rows["slow"].unique())
    titles = {(slow, name): name if slow == slows[0] else "" for slow in slows for name in names}
    size = {"width": max(6.4, 3.0 * len(names)), "height": 2.5, "room": 1.0, "columns": len(names)}
    fig, axes = marks.panels(titles, **size, share="xy", xlabel="x", ylabel="density")
    for (slow, name), ax in axes.items():
        _density_panel(ax, rows[(rows["learner"] == name) & (rows["slow"] == slow)], world)
        ax.set(xlim=(-7.5, max(7.0, world.place + 2)), ylim=(0, 0.72), xticks=(-6, -3, 0, 3, 6))
        if name == names[0] and world.modes == 2:
            ax.set_ylabel(f"slow factor {slow:g}\ndensity")
        ax.label_outer()
    handles = [
        Line2D([], [], color="black", ls="--", lw=1, label="the two modes"),
        Line2D([], [], color=GREY, ls=":", label="policy at the start"),
        Line2D([], [], color=GREY, alpha=0.5, lw=1.2, label="half way"),
        Line2D([], [], color=GREY, lw=2, label="where the run stops"),
    ]
    marks.legend(fig, handles=handles, ncols=4 if len(names) > 2 else 2)
    last = rows[rows["moment"] == "end"].drop_duplicates(["learner", "slow"])
    words = "; ".join(f"{r.learner} at slow factor {r.slow:g} keeps {r.kept:.2f}" for r in last.itertuples())
    alt = "Density of the policy at the start, half way and at equal gain, per learner and slow factor, seed 0."
    return record(fig, rows, f"{alt} {words}.")


def _density_panel(ax: Axes, part: pd.DataFrame, world: World) -> None:
    colour = learner_look(part["learner"].iloc[0])["color"]
    for weight, mean, sd in (OLD_MODE, world.new_mode):
        ax.plot(grid(), weight * np.exp(log_normal(grid(), mean, sd)), color="black", ls="--", lw=1)
    looks = {"start": {"color": GREY, "ls": ":"}, "half way": {"color": colour, "alpha": 0.4, "lw": 1.2}}
    for moment, rows in part.groupby("moment", sort=False):
        ax.plot(rows["x"], rows["density"], **looks.get(moment, {"color": colour, "lw": 2}))
    first, last = part[part["moment"] == "start"].iloc[0], part[part["moment"] == "end"].iloc[0]
    text = f"old kept {first['kept']:.2f} to {last['kept']:.2f}\nnew gained {last['gain']:.2f}, step {last['step']}"
    ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=8.5)


@use_style()
def slow_curves(rows: pd.DataFrame, start: float) -> Figure:
    """Accuracy kept on the old mode at equal gain against the slow factor (log x), a line per learner.

    `rows` as from `outcomes`; `start`: that accuracy before training. Runs that never reached the gain are left out.
    Drawn columns: learner, slow, mean, low, high, seeds, start.
    """
    summary = _kept(rows, ["learner", "slow"])
    ax = new_axes(8.4, 4.4)
    labels = marks.lines(ax, summary, "slow", "learner", learner_look)
    labels.append(marks.level(ax, start, f"before training {start:.2f}", dash=":"))
    ax.set_xscale("log")
    marks.ticks(ax, "x", sorted(summary["slow"].unique()))
    ax.set(ylim=(-0.02, 0.9), xlabel="slow factor on the old mode's gradients (log scale; 1: no slowing)")
    ax.set(ylabel="accuracy kept on the old mode", title="What is kept at equal gain")
    direct_labels(ax, labels)
    alt = "Accuracy kept on the old mode at equal gain against the slow factor, a line and band per learner."
    words = f"{alt} {_from_to(summary, 'slow')}; before training {start:.2f}."
    return record(ax.figure, summary.assign(start=start), words, seed_note(summary["seeds"]))


def _kept(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`seed_summary` of the accuracy kept by the runs that reached the gain. Raises UserError where none did."""
    there = rows[rows["reached"] == 1]
    if there.empty:
        raise UserError("No run reached the gain, so nothing compares: give more steps or ask for a smaller gain.")
    return seed_summary(there, by, "kept")


def _from_to(summary: pd.DataFrame, x: str) -> str:
    """Where each learner's line begins and ends."""
    rising, falling = (summary.sort_values(x, ascending=up).groupby("learner", sort=False) for up in (True, False))
    first, last = said(rising["mean"].first()), said(falling["mean"].first())
    return f"At {x} {summary[x].min():g}: {first}; at {summary[x].max():g}: {last}"


@use_style()
def distance_panels(rows: pd.DataFrame) -> Figure:
    """Accuracy kept on the old mode at equal gain against the place of the new mode, a panel per slow factor.

    `rows`: `outcomes` of several worlds with a column place. Drawn columns: learner, slow, place, mean, low, high,
    seeds.
    """
    summary = _kept(rows, ["learner", "slow", "place"])
    slows = sorted(summary["slow"].unique())
    titles = {slow: f"slow factor {slow:g}" for slow in slows}
    labels = {"xlabel": "mean of the new mode", "ylabel": "accuracy kept on the old mode"}
    fig, axes = marks.panels(titles, 1.8 + 3.6 * len(slows), 3.9, share="y", **labels)
    for slow, ax in axes.items():
        marks.lines(ax, summary[summary["slow"] == slow], "place", "learner", learner_look)
        ax.set(ylim=(-0.02, 0.9), xticks=sorted(summary["place"].unique()))
        ax.label_outer()
    marks.legend(fig, "right center", ncols=1)
    alt = "Accuracy kept at equal gain against the place of the new mode, a panel per slow factor."
    slowest = _from_to(summary[summary["slow"] == slows[0]], "place")
    return record(fig, summary, f"{alt} Slow factor {slows[0]:g}. {slowest}.", seed_note(summary["seeds"]))
