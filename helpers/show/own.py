"""A run of one's own in a notebook: its progress while it is waited for, and its figure beside the published runs."""

from __future__ import annotations

import time

import pandas as pd
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import UserError
from helpers.measure.kept_runs import kept
from helpers.model.build import load, quiet_cpu, quiet_progress
from helpers.model.evaluate import score_puzzles
from helpers.show import marks, plots
from helpers.show.marks import record, said
from helpers.show.style import GREY, Label, direct_labels, new_figure, spaced, use_style
from helpers.show.widgets import front_end_present
from helpers.stats.alike import alike_of
from helpers.study.arms import arm_style
from helpers.study.profiles import GRIDS
from helpers.study.records import is_finished
from helpers.study.schema import is_prior, read_table
from helpers.study.spec import RunSpec
from helpers.train import child
from helpers.train.child import Child
from helpers.world import seeds
from helpers.world.boards import LEARNED, held_out_boards, learned_boards, training_boards

MARKS = ("learned", "held_out", "prior")
LOOK_SECONDS = 0.5
LINE_SECONDS = 15.0  # between two lines where nothing can be drawn over


def follow(spec: RunSpec) -> child.Progress:
    """Train a run, or go on with it, and say meanwhile where it is and how long it takes; nothing where it is finished.

    Interrupted, it stops cleanly. Raises UserError then, so that no later cell runs, and where the run fails.
    """
    if is_finished(child.folder(spec)):
        print(f"This very run is finished: its record is in {child.folder(spec)}.")
        return child.progress(spec)
    one, last = Child(spec), -LINE_SECONDS
    try:
        shown = display(Markdown(child.status(one)), display_id=True) if front_end_present() else None
        while one.state in ("starting", "training"):
            if shown is not None:
                shown.update(Markdown(child.status(one)))
            elif one.elapsed - last >= LINE_SECONDS:
                print(child.status(one), flush=True)
                last = one.elapsed
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        one.end()
        raise UserError(child.status(one)) from None
    finally:
        one.end()  # whatever went wrong here, no training goes on that nobody follows
    if one.state == "failed":
        raise UserError(child.status(one))
    (shown.update if shown is not None else display)(Markdown(child.status(one)))
    return child.progress(spec)


def curves(spec: RunSpec) -> pd.DataFrame:
    """What a run on own pictures came to: columns step, held_out, learned (exact match), prior (mean score)."""
    known = child.progress(spec).curve.rename(columns={"exact": "held_out"})
    rows = read_table(child.folder(spec), "evaluations").to_pandas()
    rows = rows[(rows["task"] == LEARNED) & (rows["measure"] == "exact")]
    return known.merge(rows[["step", "value"]].rename(columns={"value": "learned"}), on="step")


def tasks(spec: RunSpec) -> pd.DataFrame:
    """The prior tasks of a run before and after: columns task, before, after, drop; what lost most first."""
    rows = read_table(child.folder(spec), "evaluations").to_pandas()
    rows = rows[(rows["measure"] == "score") & is_prior(rows)]
    table = rows.pivot(index="task", columns="step", values="value").iloc[:, [0, -1]]
    table.columns = ["before", "after"]
    return table.assign(drop=table["before"] - table["after"]).sort_values("drop", ascending=False).reset_index()


def in_words(spec: RunSpec, held_out: int) -> str:
    """What a run on own pictures came to, in two sentences; `held_out`: how many pictures were."""
    rows = curves(spec)
    was, now = ({name: f"{row[name]:.2f}" for name in MARKS} for _, row in rows.iloc[[0, -1]].iterrows())
    return (
        f"After {rows['step'].iloc[-1]} steps it solves {now['learned']} of the boards cut anew from pictures that it "
        f"learned from ({was['learned']} before; chance is {spec.puzzle.chance_exact:.2f}) and {now['held_out']} of "
        f"those from {held_out} pictures that it never saw ({was['held_out']} before). Its mean prior score went from "
        f"{was['prior']} to {now['prior']}."
    )


def gallery(spec: RunSpec, each: int = 4) -> Figure:
    """Boards of a run on own pictures, `each` to learn from and as many held out, with their true placements."""
    learned = training_boards(spec.puzzle, each, spec.seed, spec.pictures)
    held_out = held_out_boards(spec.puzzle, each, pictures=spec.pictures)
    known = [(kind, part) for kind, part in (("to learn from", learned), ("held out", held_out))]
    titles = [f"{kind}\n{spaced(placement)}" for kind, part in known for placement in part.placements]
    return plots.board_gallery([*learned.pixels, *held_out.pixels], titles, columns=each)


def carried_over(spec: RunSpec, n: int = 64) -> pd.DataFrame:
    """Exact match of the kept models, which were taught drawn boards, on `n` of those and on boards of own pictures.

    Columns: model, drawn scenes, pictures to learn from, held-out pictures; empty where no model is kept.
    """
    quiet_cpu()
    quiet_progress()
    puzzle, rows = GRIDS["2x2"], []
    parts = {
        "drawn scenes": held_out_boards(puzzle, n),
        "pictures to learn from": learned_boards(puzzle, n, spec.pictures),
        "held-out pictures": held_out_boards(puzzle, n, pictures=spec.pictures),
    }
    for cell, (taught, folder) in kept().items():
        loaded = load(folder)
        asked = {name: part.asking(taught.asked, seeds.HELD_OUT) for name, part in parts.items()}
        marks_of = {name: score_puzzles(*loaded, part)["exact"] for name, part in asked.items()}
        rows.append({"model": f"{cell} on {taught.base}"} | marks_of)
    return pd.DataFrame(rows, columns=["model", *parts])


@use_style()
def own_run(spec: RunSpec) -> Figure:
    """A run on own pictures beside the published runs of its arm: curves over steps, and the plane of gain and drop.

    Drawn columns: whose ("own" or what is published), step, held_out (published: held-out scenes), learned, prior.
    """
    own, known = curves(spec), alike_of(spec)
    fig = new_figure(10.4, 4.4)
    left, right = fig.subplots(1, 2, width_ratios=(1.35, 1))
    _over_steps(left, spec, own)
    _plane(right, spec, own, known.curve)
    published = known.curve.rename(columns={"exact": "held_out"}).assign(whose=known.said, learned="")
    frame = pd.concat([own.assign(whose="own"), published] if len(published) else [own.assign(whose="own")])
    ends = own.iloc[-1][list(MARKS)].astype(float)
    alt = f"A run of {spec.arm} on own pictures, over steps and in the plane. At the end: {said(ends)}."
    note = f"grey: {known.said}, on drawn scenes" if known.runs else known.said
    return record(fig, frame[["whose", "step", "held_out", "learned", "prior"]], alt, note)


def _over_steps(ax: Axes, spec: RunSpec, own: pd.DataFrame) -> None:
    colour = arm_style(spec.arm).colour
    looks = {"learned": ("learned pictures, cut anew", "-", "s"), "held_out": ("held-out pictures", "-", "o")}
    looks["prior"] = ("prior score", "--", "^")
    labels = []
    for name, (words, dash, marker) in looks.items():
        shade = GREY if name == "prior" else colour
        face = shade if name == "learned" else "white"
        ax.plot(own["step"], own[name], color=shade, ls=dash, marker=marker, ms=4, mfc=face)
        labels.append(Label(float(own["step"].iloc[-1]), float(own[name].iloc[-1]), words, shade))
    labels.append(marks.level(ax, spec.puzzle.chance_exact, f"chance {spec.puzzle.chance_exact:.3g}"))
    ax.set(xlabel="step", ylabel="exact match, score", ylim=(-0.02, 1.02), title="Own pictures")
    direct_labels(ax, labels)


def _plane(ax: Axes, spec: RunSpec, own: pd.DataFrame, known: pd.DataFrame) -> None:
    colour = arm_style(spec.arm).colour
    if len(known):
        ax.plot(known["exact"], known["prior"], color=GREY, lw=1, ls=":", marker=".", label="published, drawn scenes")
    ax.plot(own["learned"], own["prior"], color=colour, marker="s", ms=4, label="own, learned pictures")
    ax.plot(own["held_out"], own["prior"], color=colour, marker="o", ms=4, mfc="white", ls="--", label="own, held out")
    ax.set(xlabel="exact match", ylabel="prior score", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="Learned and kept")
    ax.legend(loc="lower right", fontsize=8)
