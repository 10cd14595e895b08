"""The picture of runs that go on: curves over steps, a trace below, and the plane of what was gained and what was kept.

A text of SVG, made anew whenever a table on disk has changed; every part has its fixed place, so nothing moves.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from helpers.play.page import look
from helpers.stats.alike import Alike
from helpers.study.spec import RunSpec
from helpers.train.child import Progress, traced

WIDTH, HEIGHT = 680, 440
SMOOTH = 7  # steps whose mean is drawn
PALE, GREY, INK = "#8a8a8a", "#5a5a5a", "#222222"
_STEPS = (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)


@dataclass(frozen=True)
class Shown:
    """One run in the picture: its number in the session, its spec, what it came to."""

    number: int
    spec: RunSpec
    now: Progress


@dataclass(frozen=True)
class _Box:
    """A pair of axes: its place in the picture and what its sides stand for."""

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point; what lies outside is drawn at the edge."""
        across = min(max((x - self.x[0]) / (self.x[1] - self.x[0]), 0), 1)
        up = min(max((y - self.y[0]) / (self.y[1] - self.y[0]), 0), 1)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def picture(runs: Sequence[Shown], known: Alike, expected: int, title: str) -> str:
    """The picture of some runs over the published one that the newest is like.

    `expected`: steps that the newest is expected to take; `title` says in words what is seen, to a screen reader too.
    """
    last = max([expected, *(run.now.step for run in runs)])
    steps = next((s for s in _STEPS if s >= last), last)
    curves = _Box(46, 34, 400, 236, (0, steps), (0, 1))
    below = _Box(46, 302, 400, 402, (0, steps), _range(runs))
    plane = _Box(470, 34, 664, 236, (0, 1), (0, 1))
    parts = [*_curves(curves, runs, known), *_trace(below, runs), *_plane(plane, runs, known), *_key(runs, known)]
    about = f'role="img" aria-label="{html.escape(title)}"'
    style = 'font-family="system-ui, sans-serif" font-size="13"'
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    frame = "max-width:100%;height:auto;background:#fff;display:block"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style} style="{frame}" {about}>{"".join(parts)}</svg>'


def _curves(box: _Box, runs: Sequence[Shown], known: Alike) -> Iterable[str]:
    yield from _axes(box, "step", "", _whole_ticks(box.x[1]), (0, 0.25, 0.5, 0.75, 1))
    yield from _chance(box, runs, across=True)
    yield _text(box.left, 16, "exact match (line) and prior score (dashes)", weight="bold")
    for column, dash in (("exact", ""), ("prior", "5 3")):
        yield _line(box, known.curve["step"], known.curve[column], PALE, dash, 1.1)
    for run in runs:
        colour = str(look(run.spec.arm)["colour"])
        for column, dash in (("exact", ""), ("prior", "5 3")):
            yield _line(box, run.now.curve["step"], run.now.curve[column], colour, dash, 2)
            yield from (
                _dot(*box.at(*point), colour, hollow=bool(dash)) for point in _pairs(run.now.curve, "step", column)
            )
        yield from _numbered(box, run, run.now.curve["step"], ("exact", "prior"))


def _chance(box: _Box, runs: Sequence[Shown], across: bool) -> Iterable[str]:
    """What guessing gives, for each kind of board in the picture: across the curves, or upright in the plane."""
    for chance in sorted({run.spec.puzzle.chance_exact for run in runs}):
        x, y = box.at(box.x[0], chance) if across else box.at(chance, box.y[0])
        line = f"M{box.left} {y:.1f}H{box.right}" if across else f"M{x:.1f} {box.top}V{box.bottom}"
        yield f'<path d="{line}" fill="none" stroke="{GREY}" stroke-dasharray="1 3"/>'
        place = (box.right - 2, y - 3, "chance", "end") if across else (x + 3, box.top + 12, "chance")
        yield _text(*place, fill=GREY)


def _trace(box: _Box, runs: Sequence[Shown]) -> Iterable[str]:
    low, high = box.y
    yield from _axes(box, "step", "", _whole_ticks(box.x[1]), (low, (low + high) / 2, high))
    what = " / ".join(dict.fromkeys(_what(run) for run in runs)) or "reward or loss of a step"
    yield _text(box.left, 290, f"{what} (mean of {SMOOTH})", weight="bold")
    for run in runs:
        trace = run.now.trace
        smooth = trace["value"].rolling(SMOOTH, min_periods=1, center=True).mean()
        yield _line(box, trace["step"], smooth, str(look(run.spec.arm)["colour"]), "", 1.4)


def _plane(box: _Box, runs: Sequence[Shown], known: Alike) -> Iterable[str]:
    ticks = (0, 0.25, 0.5, 0.75, 1)
    yield from _axes(box, "exact match", "prior score", ticks, ticks)
    yield from _chance(box, runs, across=False)
    yield _text(box.left, 16, "learned and kept", weight="bold")
    yield _line(box, known.curve["exact"], known.curve["prior"], PALE, "3 3", 1.1)
    yield from (_dot(*box.at(*point), PALE, 2) for point in _pairs(known.curve, "exact", "prior"))
    for run in runs:
        colour, own = str(look(run.spec.arm)["colour"]), run.now.curve
        yield _line(box, own["exact"], own["prior"], colour, "", 1.8)
        yield from (_dot(*box.at(*point), colour, 2.5) for point in _pairs(own, "exact", "prior"))
        yield from _numbered(box, run, own["exact"], ("prior",))


def _key(runs: Sequence[Shown], known: Alike) -> Iterable[str]:
    """What the colours stand for, under the plane: the published run and the newest six."""
    yield _text(432, 290, "grey: published" if len(known.curve) else f"({known.said})", fill=GREY)
    yield from (
        _text(432, 306 + 16 * i, part, fill=GREY) for i, part in enumerate(known.said.split(", ")) if known.runs
    )
    for line, run in enumerate(runs[-6:]):
        y = 348 + 16 * line
        yield f'<rect x="432" y="{y - 9}" width="14" height="10" fill="{look(run.spec.arm)["colour"]}"/>'
        yield _text(452, y, f"{run.number}: {run.spec.arm} {run.spec.asked}")


def _what(run: Shown) -> str:
    return traced(run.spec)[1]


def _range(runs: Sequence[Shown]) -> tuple[float, float]:
    """Sides of the trace that stay as they are while it grows: whole numbers around it."""
    values = [value for run in runs for value in run.now.trace["value"]]
    return (float(min(0, math.floor(min(values)))), float(max(1, math.ceil(max(values))))) if values else (0.0, 1.0)


def _pairs(curve: pd.DataFrame, x: str, y: str) -> Iterable[tuple[float, float]]:
    return zip(curve[x], curve[y], strict=True)


def _numbered(box: _Box, run: Shown, x: pd.Series, columns: Sequence[str]) -> Iterable[str]:
    """The run's number behind the ends of its curves."""
    if len(x):
        for column in columns:
            across, up = box.at(float(x.iloc[-1]), float(run.now.curve[column].iloc[-1]))
            yield _text(across + 6, up + 4, str(run.number), fill=str(look(run.spec.arm)["colour"]), weight="bold")


def _axes(box: _Box, x: str, y: str, across: Sequence[float], up: Sequence[float]) -> Iterable[str]:
    for value in up:
        _, at = box.at(box.x[0], value)
        yield f'<path d="M{box.left} {at:.1f}H{box.right}" stroke="#e3e3e3"/>'
        yield _text(box.left - 6, at + 4, f"{value:g}", "end")
    for value in across:
        at, _ = box.at(value, box.y[0])
        yield _text(at, box.bottom + 15, f"{value:g}", "middle")
    yield f'<path d="M{box.left} {box.top}V{box.bottom}H{box.right}" fill="none" stroke="#555"/>'
    yield _text((box.left + box.right) / 2, box.bottom + 30, x, "middle")
    if y:
        middle = (box.top + box.bottom) / 2
        place = f'transform="translate({box.left - 38} {middle}) rotate(-90)"'
        yield f'<text {place} text-anchor="middle" fill="{INK}">{html.escape(y)}</text>'


def _whole_ticks(end: float) -> list[float]:
    return [round(end * part / 4) for part in range(5)]


def _line(box: _Box, x: pd.Series, y: pd.Series, colour: str, dash: str, width: float) -> str:
    inside = ((float(a), float(b)) for a, b in zip(x, y, strict=True) if a <= box.x[1] and not math.isnan(b))
    places = [box.at(*pair) for pair in inside]
    path = "L".join(f"{across:.1f} {up:.1f}" for across, up in places)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>' if places else ""


def _dot(x: float, y: float, colour: str, radius: float = 2.6, hollow: bool = False) -> str:
    fill = "#fff" if hollow else colour
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", fill: str = INK, weight: str = "normal") -> str:
    look_of = f'text-anchor="{anchor}" fill="{fill}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look_of}>{html.escape(words)}</text>'
