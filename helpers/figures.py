"""Figures: one style, one look per arm, and `savefig`, which keeps what is needed to check a figure later.

Plot functions take tidy tables (see `records`), return a matplotlib `Figure` and remember the numbers they
drew; `savefig` writes those numbers beside the picture. None of them touches pyplot, so no figure is shown
twice or leaks.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LineStyle = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class ArmStyle:
    """How one arm looks in every figure: colour, marker and line style each tell it apart on their own."""

    colour: str
    marker: str
    linestyle: LineStyle

    def line(self) -> dict[str, Any]:
        """Keyword arguments for `Axes.plot` and `Axes.errorbar`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.linestyle}


# Okabe-Ito hues; the lighter ones are darkened until they reach 3:1 contrast on white.
ARM_STYLE: Mapping[str, ArmStyle] = MappingProxyType(
    {
        "base": ArmStyle("#333333", "o", ":"),
        "rft": ArmStyle("#0072B2", "s", "-"),
        "sft-answer": ArmStyle("#A84300", "^", "--"),
        "sft-expert": ArmStyle("#C58900", "v", "-."),
        "sft-rollout": ArmStyle("#007A59", "D", (0, (7, 2))),
        "sft-self": ArmStyle("#CC79A7", "P", (0, (3, 1, 1, 1, 1, 1))),
        "self-sft": ArmStyle("#8A4FA3", "X", (0, (5, 1))),
        "iterative-sft": ArmStyle("#4F5BD5", "*", (0, (2, 1))),
        "reinforce-1-0": ArmStyle("#2A8FBD", "p", (0, (9, 2, 2, 2))),
        "rft-no-kl": ArmStyle("#003E73", "h", (0, (4, 2, 1, 2))),
        "sft-kl": ArmStyle("#E0503C", "<", (0, (1, 1))),
        "sft-replay": ArmStyle("#7D6608", ">", (0, (6, 1, 1, 1))),
        "distill": ArmStyle("#7A7A7A", "d", (0, (3, 3))),
        "sft-stream": ArmStyle("#3B8754", "H", (0, (8, 1, 2, 1))),
        "sft-voice": ArmStyle("#B0568F", "8", (0, (2, 2))),
        "sft-oracle": ArmStyle("#6B3FA0", "$o$", (0, (5, 2, 1, 2, 1, 2))),
        "rft-stale": ArmStyle("#5B7A99", "$+$", (0, (10, 3))),
    }
)

# Metric names as the trainer logs them, one panel a line: title, unit on the axis, names drawn.
RFT_PANELS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Reward parts": (
            "mean reward",
            ("rewards/hit_reward/mean", "rewards/exact_reward/mean", "rewards/format_reward/mean"),
        ),
        "Entropy": ("nats per token", ("entropy",)),
        "Completion length": ("tokens", ("completions/mean_length",)),
        "Groups without a signal": ("share with equal rewards", ("frac_reward_zero_std",)),
    }
)

MEASURE_LABEL: Mapping[str, str] = MappingProxyType(
    {
        "exact": "exact match",
        "hit": "hit rate",
        "score": "score",
        "likelihood": "likelihood score",
        "format_failure": "format failures",
    }
)

GREY = "#666666"
LIBRARIES = ("matplotlib", "numpy", "pandas", "torch", "transformers", "trl")
SUFFIXES = ("csv", "json", "png", "svg", "txt")
MANIFEST = "manifest.json"
EVALUATION_COLUMNS = ("run", "arm", "seed", "step", "samples", "task", "measure", "value")


# --- style -----------------------------------------------------------------------------------------------


@contextmanager
def use_style() -> Iterator[None]:
    """The suite's rcParams, for a `with` block or as a decorator (`@use_style()`)."""
    import matplotlib

    with matplotlib.rc_context(_style()):
        yield


def _style() -> dict[str, Any]:
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "grid.linewidth": 0.8,
        "lines.markersize": 5,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "figure.dpi": 110,
        "savefig.dpi": "figure",
        "svg.hashsalt": "jigsaw",  # element ids in the SVG are hashed with it: fixed, so the bytes repeat
    }


def arm_style(arm: str) -> ArmStyle:
    """The look of `arm`. Raises UserError for an arm without one."""
    if arm not in ARM_STYLE:
        raise UserError(f"The arm {arm!r} has no style: use one of {', '.join(ARM_STYLE)}.")
    return ARM_STYLE[arm]


# --- statistics ------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A centre and the interval around it, in the units of the values."""

    mean: float
    low: float
    high: float


def seed_interval(values: Iterable[float]) -> Interval:
    """Mean over seeds with its 95% t interval, or with the smallest and largest value below three seeds.

    Raises UserError if there are no values or one is not finite.
    """
    numbers = [float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UserError("An interval over seeds needs at least one value, all of them finite.")
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) < 3:
        return Interval(mean, min(numbers), max(numbers))
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)
    half = _t_quantile(len(numbers) - 1) * math.sqrt(variance / len(numbers))
    return Interval(mean, mean - half, mean + half)


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit  # a tenth of the import time of scipy.stats

    return float(stdtrit(degrees, 0.975))


def wilson(k: int, n: int) -> Interval:
    """Share k/n with its 95% Wilson interval: k successes of n trials.

    Raises UserError unless 0 <= k <= n and n > 0.
    """
    if not (n > 0 and 0 <= k <= n):
        raise UserError(f"A Wilson interval needs 0 <= k <= n and n > 0, not k={k}, n={n}.")
    z, share = 1.959963984540054, k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At k = 0 and k = n an end equals the share exactly; rounding must not push it past.
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def seed_summary(frame: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """One row per group of `by`: mean, low, high over seeds (see `seed_interval`) and the number of seeds.

    Raises UserError when a seed appears twice in a group, as when runs with other settings are mixed in.
    """
    import pandas as pd

    rows = []
    for keys, group in frame.groupby(list(by)):
        if group["seed"].duplicated().any():
            where = ", ".join(f"{name}={key}" for name, key in zip(by, keys, strict=True))
            raise UserError(f"One seed has several values at {where}: keep the rows of one setting only.")
        rows.append((*keys, *seed_interval(group[value]), len(group)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def first_reach(df: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The first row (by step) of each run with value >= `threshold`; runs that never get there have none.

    `df`: rows of one task and one measure, with columns run, step, value.
    Raises UserError if a step repeats in a run.
    """
    _require(df, ("run", "step", "value"))
    if df.duplicated(["run", "step"]).any():
        raise UserError("A run has several values at one step: keep one task and one measure first.")
    ordered = df[df["value"] >= threshold].sort_values(["run", "step"])
    return ordered.drop_duplicates("run").reset_index(drop=True)


def gain_and_drop(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Gain and drop of every run at every evaluated step: columns run, arm, seed, step, samples, gain, drop.

    Gain: rise of puzzle exact match over base. Drop: fall of the mean prior score (equal weight per task)
    below base. Base is the `base` arm, else step 0. Raises UserError if parts lack or task sets differ.
    """
    keys = ["run", "arm", "seed", "step", "samples"]
    puzzle, prior = _rows(evaluations, "exact", "puzzle"), _prior(evaluations)
    per_step = prior.groupby(keys)["task"].agg(["size", "nunique"])
    if per_step["size"].nunique() > 1 or (per_step["size"] != per_step["nunique"]).any():
        raise UserError("Steps differ in the prior tasks scored, so their means do not compare: score all tasks.")
    mean = prior.groupby(keys, as_index=False)["value"].mean()
    gain = puzzle.assign(gain=puzzle["value"] - _base_value(puzzle))[[*keys, "gain"]]
    drop = mean.assign(drop=_base_value(mean) - mean["value"])[[*keys, "drop"]]
    return gain.merge(drop, on=keys).sort_values(["run", "step"]).reset_index(drop=True)


def task_drops(evaluations: pd.DataFrame, accuracy: float | None = None) -> pd.DataFrame:
    """Fall below base of each prior task in each run: columns run, arm, seed, step, task, value.

    At each run's last step, or at the first step where its puzzle exact match reaches `accuracy`.
    Raises UserError when no trained run gets there.
    """
    prior = _prior(evaluations)
    base = {task: _base_value(rows) for task, rows in prior.groupby("task")}
    trained = prior[prior["arm"] != "base"]
    if accuracy is None:
        marks = trained.groupby("run", as_index=False)["step"].max()
    else:
        marks = first_reach(_rows(evaluations, "exact", "puzzle"), accuracy)[["run", "step"]]
    chosen = trained.merge(marks, on=["run", "step"])
    if chosen.empty:
        raise UserError("No trained run has prior scores there: lower the accuracy or evaluate more.")
    chosen = chosen.assign(value=chosen["task"].map(base) - chosen["value"])
    return chosen[["run", "arm", "seed", "step", "task", "value"]].reset_index(drop=True)


def _base_value(rows: pd.DataFrame) -> float:
    base = rows[rows["arm"] == "base"]
    base = base if len(base) else rows[rows["step"] == 0]
    if base.empty:
        raise UserError("There is no base to compare with: add evaluations of the `base` arm or of step 0.")
    return float(base["value"].mean())


def _prior(evaluations: pd.DataFrame) -> pd.DataFrame:
    scores = _rows(evaluations, "score")
    prior = scores[scores["task"] != "puzzle"]
    if prior.empty:
        raise UserError("These evaluations hold no prior-task score: run the prior battery first.")
    return prior


def _rows(evaluations: pd.DataFrame, measure: str, task: str | None = None) -> pd.DataFrame:
    _require(evaluations, EVALUATION_COLUMNS)
    rows = evaluations[evaluations["measure"] == measure]
    rows = rows if task is None else rows[rows["task"] == task]
    if rows.empty:
        seen = sorted({f"{t}/{m}" for t, m in zip(evaluations["task"], evaluations["measure"], strict=True)})
        wanted = f"{task or 'any task'}/{measure}"
        raise UserError(f"No evaluation of {wanted}: there are {', '.join(seen) or 'none'}.")
    return rows


def _require(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"The table lacks the column(s) {', '.join(missing)}: pass the table as recorded.")


# --- saving ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk; in a notebook it displays itself with its alt text."""

    id: str
    path: Path
    alt: str

    def _repr_html_(self) -> str:
        return _figure_html(self.path.read_bytes(), self.alt)


def savefig(
    fig: Figure,
    id: str,
    *,
    alt: str,
    data: pd.DataFrame | None = None,
    specs: Iterable[Any] = (),
    folder: str | Path = "figures",
) -> SavedFigure:
    """Write `<id>.png|.svg|.csv|.txt|.json` into `folder` and list it in the manifest; bytes repeat.

    `data`: what is drawn (default: what the plot function recorded). `specs`: run specs or hashes behind it.
    The source notebook comes from the environment variable JIGSAW_NOTEBOOK, set by the runner.
    Raises UserError on an empty alt text, a bad id, or missing, empty or non-finite data.
    """
    alt, frame, folder = _checked_alt(alt), _checked_data(drawn(fig) if data is None else data), Path(folder)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", id) or id == "manifest":
        raise UserError(f"The figure id {id!r} will not do: use lower-case letters, digits, - and _.")
    contents = {
        "png": _png(fig),
        "svg": _svg(fig, id, alt),
        "csv": frame.to_csv(index=False, float_format="%.10g", lineterminator="\n").encode(),
        "txt": (textwrap.fill(alt, 110) + "\n").encode(),
    }
    contents["json"] = _json(_provenance(id, alt, specs, folder))
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in contents.items():
        _write(folder / f"{id}.{suffix}", content)
    _write(folder / MANIFEST, _json(_manifest(folder)))
    return SavedFigure(id, folder / f"{id}.png", alt)


def show(figure: SavedFigure | Figure, alt: str = "") -> HTML:
    """An HTML figure with embedded PNG and alt text. An unsaved figure needs `alt` (else UserError)."""
    from IPython.display import HTML

    if isinstance(figure, SavedFigure):
        return HTML(figure._repr_html_())
    return HTML(_figure_html(_png(figure), _checked_alt(alt)))


def drawn(fig: Figure) -> pd.DataFrame:
    """The numbers a plot function of this module drew on `fig`. Raises UserError if it recorded none."""
    import pandas as pd

    frames = getattr(fig, "jigsaw_drawn", [])
    if not frames:
        raise UserError("This figure does not know its numbers: pass data=, a table of what is drawn.")
    if any(list(frame.columns) != list(frames[0].columns) for frame in frames):
        raise UserError("The panels of this figure draw different tables: pass data=, one table.")
    return pd.concat(frames, ignore_index=True)


def _record(fig: Any, frame: pd.DataFrame) -> Figure:
    fig.jigsaw_drawn = [*getattr(fig, "jigsaw_drawn", []), frame.reset_index(drop=True)]
    return fig


def _checked_alt(alt: str) -> str:
    if not isinstance(alt, str) or not alt.strip():
        raise UserError("A figure needs alt text: say in a sentence what it shows.")
    return " ".join(alt.split())


def _checked_data(data: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    if not isinstance(data, pd.DataFrame) or data.empty:
        raise UserError("A figure needs its data: pass a table with the numbers that are drawn.")
    numbers = data.select_dtypes("number").to_numpy(dtype=float)
    if data.isna().to_numpy().any() or not np.isfinite(numbers).all():
        raise UserError("The data of a figure holds NaN or infinity: drop those rows or say what they mean.")
    return data


def _png(fig: Figure) -> bytes:
    return _render(fig, "png", {"Software": None})


def _svg(fig: Figure, id: str, alt: str) -> bytes:
    return _render(fig, "svg", {"Date": None, "Creator": None, "Title": id, "Description": alt})


def _render(fig: Figure, kind: str, info: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with use_style():
        _settle(fig)
        fig.savefig(buffer, format=kind, metadata=info)
    return buffer.getvalue()


def _settle(fig: Figure) -> None:
    """Lay out once, then keep it: each further pass of the engine shifts things and so changes the bytes."""
    if fig.get_layout_engine() is not None:
        fig.draw_without_rendering()
        fig.set_layout_engine("none")


def _figure_html(png: bytes, alt: str) -> str:
    source = base64.b64encode(png).decode()
    image = f'<img alt="{html.escape(alt)}" style="max-width:100%" src="data:image/png;base64,{source}">'
    return f'<figure style="margin:0">{image}</figure>'


def _provenance(id: str, alt: str, specs: Iterable[Any], folder: Path) -> dict[str, Any]:
    hashes = sorted({spec if isinstance(spec, str) else str(spec.hash) for spec in specs})
    return {
        "figure": id,
        "alt": alt,
        "files": [f"{id}.{suffix}" for suffix in SUFFIXES],
        "notebook": os.environ.get("JIGSAW_NOTEBOOK") or _known_notebook(folder / f"{id}.json"),
        "specs": hashes,
        "versions": _versions(),
    }


def _known_notebook(path: Path) -> str | None:
    """Redrawing a figure by hand must not forget which notebook it belongs to."""
    return _read_json(path).get("notebook") if path.exists() else None


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    """Rebuilt from the figures' own files each time, so parallel notebooks keep each other's entries."""
    entries = {}
    for path in sorted(folder.glob("*.json")):
        about = {} if path.name == MANIFEST else _read_json(path)
        if "figure" in about:
            entries[about["figure"]] = {key: about[key] for key in ("alt", "files", "notebook", "specs")}
    return entries


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and redraw the figure.") from error
    return content if isinstance(content, dict) else {}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


# --- small parts shared by the plots ---------------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """Text at the right edge for a line that ends at (x, y) in data units (x infinite: at the edge)."""

    x: float
    y: float
    text: str
    colour: str


def _new_axes(width: float = 7.0, height: float = 4.2) -> Axes:
    return _new_figure(width, height).add_subplot()


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _arms(frame: pd.DataFrame) -> list[str]:
    """The arms of a table in palette order; unknown ones are refused."""
    for arm in frame["arm"].unique():
        arm_style(arm)
    return [arm for arm in ARM_STYLE if (frame["arm"] == arm).any()]


def _seed_note(seeds: Iterable[int]) -> str:
    """What the band is, in words, for the number(s) of seeds behind the points."""
    counts = sorted({int(count) for count in seeds})
    kinds = {1: "single seed: no interval", 2: "2 seeds: mean, min to max"}
    many = [count for count in counts if count > 2]
    words = [kinds[count] for count in counts if count in kinds]
    if many:
        span = f"{many[0]}" if len(many) == 1 else f"{many[0]} to {many[-1]}"
        words.append(f"{span} seeds: mean, 95% t interval")
    return "; ".join(words)


def _note(fig: Any, text: str) -> None:
    fig.supxlabel(text, x=0.01, ha="left", fontsize=8, color=GREY)


def _spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions in [0, 1] as little as possible (least squares) until neighbours are `gap` apart."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    pools: list[list[float]] = []  # pool-adjacent-violators on position minus its share of the gaps
    for rank, i in enumerate(order):
        pools.append([positions[i] - rank * gap])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    room = max(0.0, 1.0 - (len(positions) - 1) * gap)
    flat = [min(max(_mean(pool), 0.0), room) for pool in pools for _ in pool]
    moved = [0.0] * len(positions)
    for rank, i in enumerate(order):
        moved[i] = flat[rank] + rank * gap
    return moved


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _direct_labels(ax: Axes, labels: Sequence[Label]) -> None:
    """Name each line at the right edge, joined to its end by a hairline; names keep apart."""
    bottom, top = ax.get_ylim()
    height = 72 * ax.figure.get_size_inches()[1] * ax.get_position().height
    shares = [(label.y - bottom) / (top - bottom) for label in labels]
    for label, share in zip(labels, _spread(shares, 13 / height), strict=True):
        ax.annotate(
            label.text,
            xy=(min(label.x, ax.get_xlim()[1]), label.y),
            xytext=(1.025, share),
            textcoords="axes fraction",
            va="center",
            color=label.colour,
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": label.colour, "lw": 0.6, "relpos": (0, 0.5)},
        )


def _log_x(ax: Axes, values: Iterable[float]) -> None:
    """Log x that keeps step 0: linear from 0 (left edge) to the first positive value, then log."""
    points = sorted({float(value) for value in values})
    positive = [point for point in points if point > 0]
    if not positive:
        ax.set_xticks(points)
        return
    ax.set_xscale("symlog", linthresh=positive[0], linscale=0.35)
    low = 0.0 if points[0] <= 0 else positive[0] * 0.9
    ax.set_xlim(low, positive[-1] * 1.12)
    ax.set_xticks(_apart({point: math.log10(max(point / positive[0], 10**-0.35)) for point in points}))
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _apart(spots: Mapping[float, float], share: float = 1 / 9) -> list[float]:
    """Keys to tick: the last, and from the left those at least `share` of the width apart."""
    last = max(spots, key=lambda point: spots[point])
    gap = share * (spots[last] - min(spots.values()))
    kept: list[float] = []
    for point in sorted(spots):
        free = spots[last] - spots[point] >= gap and (not kept or spots[point] - spots[kept[-1]] >= gap)
        if free and point != last:
            kept.append(point)
    return [*kept, last]


# --- plots -----------------------------------------------------------------------------------------------


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
    summary = seed_summary(_rows(evaluations, measure, task), ["arm", x])
    axes = ax if ax is not None else _new_axes()
    labels = [_curve(axes, arm, summary[summary["arm"] == arm], x) for arm in _arms(summary)]
    if chance is not None:
        labels.append(_chance_line(axes, chance))
        summary["chance"] = chance
    _log_x(axes, summary[x])
    _direct_labels(axes, labels)
    axes.set(xlabel=f"{x} (log scale)", ylabel=MEASURE_LABEL.get(measure, measure), title=task)
    _note(axes.figure, _seed_note(summary["seeds"]))
    summary.insert(0, "task", task)
    summary.insert(1, "measure", measure)
    return _record(axes.figure, summary)


def _curve(ax: Axes, arm: str, rows: pd.DataFrame, x: str) -> Label:
    """Line and band of one arm; the untrained base, known at one point only, is a level across the axes."""
    style, last = arm_style(arm), rows.iloc[-1]
    if arm == "base" and len(rows) == 1:
        ax.axhline(last["mean"], color=style.colour, linestyle=style.linestyle, linewidth=1.2)
        return Label(math.inf, last["mean"], arm, style.colour)
    ax.plot(rows[x], rows["mean"], label=arm, clip_on=False, **style.line())
    if len(rows) == 1:
        error = [[last["mean"] - last["low"]], [last["high"] - last["mean"]]]
        ax.errorbar(rows[x], rows["mean"], yerr=error, color=style.colour, capsize=3)
    ax.fill_between(rows[x], rows["low"], rows["high"], color=style.colour, alpha=0.15, linewidth=0)
    return Label(float(last[x]), float(last["mean"]), arm, style.colour)


def _chance_line(ax: Axes, chance: float) -> Label:
    ax.axhline(chance, color=GREY, linestyle=(0, (1, 3)), linewidth=1.2)
    return Label(math.inf, chance, f"chance {chance:.3g}", GREY)


@use_style()
def per_task_drop(evaluations: pd.DataFrame, accuracy: float | None = None) -> Figure:
    """Drop below base per prior task and arm, with intervals over seeds; worst-hit tasks at the top.

    At the last step, or where puzzle exact match first reaches `accuracy` (see `task_drops`).
    Drawn columns: task, arm, mean, low, high, seeds.
    """
    summary = seed_summary(task_drops(evaluations, accuracy), ["task", "arm"])
    tasks = list(summary.groupby("task")["mean"].mean().sort_values().index)
    arms = _arms(summary)
    ax = _new_axes(7.0, 1.5 + len(tasks) * max(0.34, 0.13 * len(arms)))
    for rank, arm in enumerate(arms):
        offset = 0.7 * ((len(arms) - 1) / 2 - rank) / len(arms)
        _dots(ax, summary[summary["arm"] == arm], tasks, offset)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(-0.6, len(tasks) - 0.4)
    when = "at the last step" if accuracy is None else f"on reaching puzzle exact match {accuracy:g}"
    ax.set(title=f"Drop per prior task, {when}", xlabel="drop below base (right: forgets more)")
    ax.figure.legend(loc="outside right upper")
    _note(ax.figure, _seed_note(summary["seeds"]) + _absentees(evaluations, arms))
    return _record(ax.figure, summary)


def _dots(ax: Axes, rows: pd.DataFrame, tasks: Sequence[str], offset: float) -> None:
    arm = rows["arm"].iloc[0]
    heights = [tasks.index(task) + offset for task in rows["task"]]
    error = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    look = arm_style(arm).line() | {"linestyle": "none"}
    ax.errorbar(rows["mean"], heights, xerr=error, capsize=2, elinewidth=1.2, label=arm, **look)


def _absentees(evaluations: pd.DataFrame, arms: Sequence[str]) -> str:
    missing = [arm for arm in _arms(evaluations) if arm not in arms and arm != "base"]
    return f". Never there: {', '.join(missing)}" if missing else ""


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
    summary, ax = _plane_summary(changes), _new_axes(7.0, 4.6)
    for arm in _arms(summary):
        _path(ax, changes[changes["arm"] == arm], summary[summary["arm"] == arm])
    ax.axhline(0, color=GREY, linewidth=1, zorder=1)
    ax.plot(0, 0, label="base", **arm_style("base").line() | {"linestyle": "none", "markersize": 8})
    ax.set(xlabel="gain in puzzle exact match", ylabel="drop in mean prior score (up: forgets more)")
    ax.set_title("What is gained, and what it costs")
    ax.figure.legend(loc="outside right upper")
    _note(ax.figure, _seed_note(summary["seeds"]))
    return _record(ax.figure, summary)


def _plane_summary(changes: pd.DataFrame) -> pd.DataFrame:
    gain = seed_summary(changes, ["arm", "step"], "gain")
    drop = seed_summary(changes, ["arm", "step"], "drop").drop(columns="seeds")
    gain = gain.rename(columns={"mean": "gain", "low": "gain_low", "high": "gain_high"})
    drop = drop.rename(columns={"mean": "drop", "low": "drop_low", "high": "drop_high"})
    merged = gain.merge(drop, on=["arm", "step"])
    return merged[[name for name in merged.columns if name != "seeds"] + ["seeds"]]


def _path(ax: Axes, runs: pd.DataFrame, mean: pd.DataFrame) -> None:
    style, end = arm_style(mean["arm"].iloc[0]), mean.iloc[-1]
    if mean["seeds"].max() > 1:
        for _, run in runs.groupby("run"):
            ax.plot(run["gain"], run["drop"], color=style.colour, alpha=0.3, linewidth=0.8)
    ax.plot(mean["gain"], mean["drop"], label=mean["arm"].iloc[0], **style.line() | {"markevery": [-1]})
    ax.plot(mean["gain"], mean["drop"], color=style.colour, marker=".", markersize=3, linestyle="none")
    ax.errorbar(
        end["gain"],
        end["drop"],
        xerr=[[end["gain"] - end["gain_low"]], [end["gain_high"] - end["gain"]]],
        yerr=[[end["drop"] - end["drop_low"]], [end["drop_high"] - end["drop"]]],
        color=style.colour,
        elinewidth=1,
    )


@use_style()
def rft_diagnostics(metrics: pd.DataFrame, panels: Mapping[str, tuple[str, tuple[str, ...]]] = RFT_PANELS) -> Figure:
    """Four looks at RFT against step: reward parts, entropy, completion length, groups without a signal.

    `metrics`: columns run, arm, seed, step, name, value. `panels`: title -> (axis label, metric names); a
    panel without records says so. Drawn columns: panel, name, arm, step, mean, low, high, seeds.
    """
    import pandas as pd

    _require(metrics, ("arm", "seed", "step", "name", "value"))
    rows = math.ceil(len(panels) / 2)
    fig = _new_figure(8.0, 0.6 + 2.5 * rows)
    frames = []
    for place, (title, (unit, names)) in enumerate(panels.items(), start=1):
        ax = fig.add_subplot(rows, min(2, len(panels)), place)
        frames.append(_metric_panel(ax, metrics, names).assign(panel=title))
        ax.set(title=title, ylabel=unit, xlabel="step")
    summary = pd.concat(frames, ignore_index=True)
    if summary.empty:
        raise UserError("None of these metrics was recorded: pass panels= with names in the table.")
    _note(fig, _seed_note(summary["seeds"]))
    return _record(fig, summary[["panel", *(name for name in summary.columns if name != "panel")]])


def _metric_panel(ax: Axes, metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Colour tells the arm and line style the metric: here the arm's own line style would say nothing new."""
    summary = seed_summary(metrics[metrics["name"].isin(names)], ["name", "arm", "step"])
    dashes: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
    several, labels = summary["arm"].nunique() > 1, []
    for (name, arm), rows in summary.groupby(["name", "arm"]):
        style, dash = arm_style(arm), dashes[list(names).index(name) % len(dashes)]
        mark = "" if len(rows) > 1 else style.marker
        ax.plot(rows["step"], rows["mean"], linestyle=dash, color=style.colour, marker=mark)
        ax.fill_between(rows["step"], rows["low"], rows["high"], color=style.colour, alpha=0.15, linewidth=0)
        text = " ".join([arm] * several + [_short(name)] * (len(names) > 1))
        labels.append(Label(rows["step"].iloc[-1], rows["mean"].iloc[-1], text or arm, style.colour))
    if summary.empty:
        ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color=GREY)
        ax.set(xticks=[], yticks=[])
    _direct_labels(ax, labels)
    return summary


def _short(name: str) -> str:
    return re.sub(r"^rewards?/|(_reward)?(/mean)?$", "", name).replace("_", " ")


@use_style()
def battery_bars(df: pd.DataFrame) -> Figure:
    """Score per prior task as bars with intervals and a tick at chance; `df`: task, value, low, high, chance.

    All in [0, 1]; tasks are drawn from the top in the order given. Drawn data: `df`.
    """
    columns = ["task", "value", "low", "high", "chance"]
    _require(df, columns)
    table = _checked_data(df[columns])
    ax, places = _new_axes(7.0, 1.1 + 0.34 * len(table)), range(len(table))
    error = [table["value"] - table["low"], table["high"] - table["value"]]
    ax.barh(places, table["value"], color="#8FB8D4", height=0.66)
    ax.errorbar(table["value"], places, xerr=error, fmt="none", color="#1A4E73", capsize=3, elinewidth=1.4)
    ax.vlines(table["chance"], [p - 0.42 for p in places], [p + 0.42 for p in places], color="black", lw=1.8)
    for place, value in enumerate(table["value"]):
        ax.text(1.02, place, f"{value:.2f}", va="center", transform=ax.get_yaxis_transform())
    ax.set_yticks(places, table["task"])
    ax.grid(axis="y", visible=False)
    ax.set(xlim=(0, 1), ylim=(len(table) - 0.4, -0.6), xlabel="score")
    ax.set_title("Prior battery (black tick: chance; whisker: interval)")
    return _record(ax.figure, table)


@use_style()
def board_gallery(images: Sequence[Any], titles: Sequence[str], columns: int = 4) -> Figure:
    """Images (PIL or arrays) in a grid with a title each, pixels kept sharp. Drawn columns: position, title.

    Raises UserError when there are no images or the titles do not match them.
    """
    import pandas as pd

    if not images or len(images) != len(titles) or columns < 1:
        raise UserError(f"A gallery needs images and one title each: got {len(images)} and {len(titles)}.")
    wide = min(columns, len(images))
    rows = math.ceil(len(images) / wide)
    lines = 1 + max(title.count("\n") for title in titles)
    fig = _new_figure(max(2.2 * wide, 3.0), (1.95 + 0.2 * lines) * rows)
    for place, (image, title) in enumerate(zip(images, titles, strict=True), start=1):
        ax = fig.add_subplot(rows, wide, place)
        ax.imshow(image, interpolation="nearest")
        ax.set_title(title, parse_math=False, fontsize=9, loc="center")
        ax.set_axis_off()
    return _record(fig, pd.DataFrame({"position": range(1, len(titles) + 1), "title": list(titles)}))


@use_style()
def heat_tokens(tokens: Sequence[str], logps: Sequence[float]) -> Figure:
    """The tokens of a completion, each on a box coloured by its log-probability (nats; dark: surprising).

    Drawn columns: position, token, logp. Raises UserError on no tokens, other lengths or non-finite values.
    """
    import pandas as pd

    if not tokens or len(tokens) != len(logps):
        raise UserError(f"Every token needs a log-probability: {len(tokens)} tokens, {len(logps)} values.")
    frame = {"position": range(1, len(tokens) + 1), "token": list(tokens), "logp": list(map(float, logps))}
    table = _checked_data(pd.DataFrame(frame))
    texts = [_visible(token) for token in tokens]
    spots = _wrap([len(text) for text in texts], 72)
    rows = 1 + spots[-1][1]
    ax = _new_axes(7.6, 0.55 + 0.3 * rows)
    ax.set(xlim=(0, 72), ylim=(rows, 0))
    ax.set_axis_off()
    _token_boxes(ax, texts, spots, table["logp"])
    return _record(ax.figure, table)


def _visible(token: str) -> str:
    """White space drawn as signs, so that every token has something to colour."""
    return token.replace("\n", "↵").replace("\t", "→").replace(" ", "·") or "∅"


def _wrap(widths: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """(column, row) of each token in characters; a token that would pass `limit` starts a new row."""
    spots, column, row = [], 0, 0
    for width in widths:
        if column and column + width > limit:
            column, row = 0, row + 1
        spots.append((column, row))
        column += width
    return spots


def _token_boxes(ax: Axes, texts: Sequence[str], spots: Sequence[tuple[int, int]], logps: pd.Series) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    scale = ScalarMappable(Normalize(min(min(logps), -1.0), 0.0), colormaps["cividis"])
    for text, (column, row), logp in zip(texts, spots, logps, strict=True):
        colour = scale.to_rgba(logp)
        ink = "black" if 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] > 0.45 else "white"
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.8}
        ax.add_patch(Rectangle((column, row + 0.06), len(text), 0.88, **look))
        place = (column + len(text) / 2, row + 0.5)
        font = {"family": "DejaVu Sans Mono", "parse_math": False}
        ax.text(*place, text, color=ink, ha="center", va="center", **font)
    bar = ax.figure.colorbar(scale, ax=ax, location="bottom", fraction=0.08, aspect=50, pad=0.02)
    bar.set_label("log-probability (nats)")
