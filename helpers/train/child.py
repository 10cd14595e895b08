"""A run that somebody waits for: trained in a process of its own while this one stays free, and looked at on the way.

What it came to is read from its tables on disk: a run that goes on, a stopped one and one that ended look alike.
"""

from __future__ import annotations

import math
import shutil
import signal
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pandas as pd

from helpers.errors import UserError
from helpers.processes import GRACE_SECONDS, stop
from helpers.progress import about
from helpers.stats.alike import NOTHING, Alike, alike_of, curve
from helpers.stats.intervals import luck_words
from helpers.study.arms import get_arm
from helpers.study.bases import BASES
from helpers.study.profiles import LIVE
from helpers.study.published import store
from helpers.study.records import is_finished, read_spec
from helpers.study.schema import read_table, table_file, to_arrow
from helpers.study.spec import RunSpec
from helpers.train import jobs
from helpers.train.pace import Pace
from helpers.train.settings import settings

State = Literal["starting", "training", "stopping", "stopped", "failed", "finished"]
START = 14.0  # seconds until the first step: libraries, model, boards, the base's marks
MARKS = 1.3  # seconds of one evaluation


@dataclass(frozen=True)
class Progress:
    """What a run has come to: steps taken and seconds they took, its curve (step, exact, prior), and a trace.

    `trace`: columns step, value; an RFT arm's reward, an SFT arm's loss. `end`: its last step, as far as is known.
    """

    step: int
    end: int
    seconds: float
    curve: pd.DataFrame = field(repr=False)
    trace: pd.DataFrame = field(repr=False)

    @property
    def kept(self) -> int:
        """The newest evaluated step, behind which nothing is repeated when the run goes on."""
        return int(self.curve["step"].iloc[-1]) if len(self.curve) else 0

    @property
    def exact(self) -> float:
        """Exact match at the newest evaluation; NaN before the first."""
        return float(self.curve["exact"].iloc[-1]) if len(self.curve) else math.nan

    @property
    def prior(self) -> float:
        """Mean prior score at the newest evaluation; NaN before the first."""
        return float(self.curve["prior"].iloc[-1]) if len(self.curve) else math.nan


def traced(spec: RunSpec) -> tuple[str, str]:
    """What is drawn of every step of a run: the metric's name, and what it is called."""
    return ("reward", "reward of a step") if get_arm(spec.arm).family == "rft" else ("loss", "loss of a step")


def folder(spec: RunSpec) -> Path:
    """Where the record of a run is kept that a reader trains."""
    return store(LIVE).folder(spec)


def progress(spec: RunSpec) -> Progress:
    """What the tables on disk say of a run; read anew only where they have changed."""
    place = folder(spec).resolve()
    return _read(spec, place, tuple(_written(table_file(place, name)) for name in ("evaluations", "metrics")))


def _written(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


@lru_cache(maxsize=32)
def _read(spec: RunSpec, place: Path, written: tuple[float, ...]) -> Progress:
    """What was on disk when its tables were last `written`; the same object as long as they are what they were."""
    evaluations, metrics = (_table(place, name) for name in ("evaluations", "metrics"))
    known = curve(evaluations)
    name, _ = traced(spec)
    trace = metrics.loc[metrics["name"] == name, ["step", "value"]].reset_index(drop=True)
    took = metrics.loc[metrics["name"] == "seconds"]
    pace = Pace(spec, settings(LIVE))
    pace.replay(zip(known["step"].astype(int), known["exact"], strict=True))
    return Progress(int(took["step"].max()) if len(took) else 0, pace.end, float(took["value"].sum()), known, trace)


def _table(place: Path, name: str) -> pd.DataFrame:
    there = table_file(place, name).exists()
    return (read_table(place, name) if there else to_arrow(name, [])).to_pandas()


def earlier() -> list[RunSpec]:
    """The runs that readers trained here before, finished or stopped, the oldest first; damaged ones are left out."""
    root, found = store(LIVE).root, []
    for place in sorted(root.glob("[!.]*/spec.json"), key=_written):
        try:
            found.append(read_spec(place.parent))
        except UserError:
            continue
    return [spec for spec in found if folder(spec).name == spec.name]


def forget(spec: RunSpec) -> None:
    """Delete the record of a run, so that it is trained anew. Raises `Busy` while a process is at work on it."""
    with store(LIVE).owned(spec.name, wait=False):
        shutil.rmtree(folder(spec), ignore_errors=True)


def speed(spec: RunSpec) -> float:
    """How many times as long as a published run's a step takes here, by the newest such run made here; 1 where none is.

    Such a run has boards and a batch like those of `spec`.
    """
    for other in reversed(earlier()):
        if (other.puzzle, other.batch_size) == (spec.puzzle, spec.batch_size):
            known, theirs = progress(other), _published(other).seconds
            if known.step >= 8 and theirs > 0:
                return known.seconds / known.step / theirs
    return 1.0


def _published(spec: RunSpec) -> Alike:
    """The published run whose steps foretell those of `spec`; nothing is known of a model that is not the suite's."""
    return alike_of(spec) if spec.base in BASES else NOTHING


@dataclass(frozen=True)
class Forecast:
    """What a run will take: expected and most steps, and seconds for them; what it is known from, in words."""

    steps: int
    most: int
    seconds: float
    most_seconds: float
    source: str


def forecast(spec: RunSpec) -> Forecast:
    """Steps and minutes that a run will take, from the steps of published runs like it, and from runs made here."""
    pace, known, factor = Pace(spec, settings(LIVE)), _published(spec), speed(spec)
    arm = get_arm(spec.arm)
    each = known.seconds if known.seconds > 0 else (0.7 if arm.family == "rft" else 0.35)
    each *= spec.batch_size / (known.runs[0].batch_size if known.runs else 16 if arm.family == "rft" else 32)
    steps = spec.steps
    if pace.until and known.steps_to(pace.until) < spec.steps:
        steps = round(known.steps_to(pace.until) * 1.25)

    def needed(n: int) -> float:
        marks = sum(step <= n for step in pace.sparse | pace.dense)
        return factor * (START + each * n + MARKS * marks)

    guess = "on an idle core" if known.runs else "a guess, since no run like it is published"
    source = "at the speed of your last run" if factor != 1.0 else guess
    return Forecast(steps, pace.most, needed(steps), needed(pace.most), source)


class Child:
    """A run in a process of its own; it ends when this process does. A finished run is started in vain."""

    def __init__(self, spec: RunSpec) -> None:
        """Start it, or go on where it was stopped."""
        self.spec, self.began, self.asked, self.before = spec, time.monotonic(), 0.0, progress(spec)
        self.process = jobs.launch(LIVE, spec, apart=True)

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def stop(self) -> None:
        """Ask it to end; returns at once. It keeps what it has, and can be gone on from."""
        if self.process.poll() is None and not self.asked:
            self.asked = time.monotonic()
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Stop it and wait until it is gone."""
        self.stop()
        stop([self.process])

    @property
    def state(self) -> State:
        """What becomes of it. One that was asked to end and does not is ended after some seconds."""
        code = self.process.poll()
        if code is not None:
            return "finished" if code == 0 and is_finished(folder(self.spec)) else "stopped" if self.asked else "failed"
        if self.asked:
            if time.monotonic() > self.asked + GRACE_SECONDS:
                self.process.kill()
            return "stopping"
        return "training" if self.taken > 0 else "starting"

    @property
    def taken(self) -> int:
        """Steps taken behind the newest evaluation that was there when it started; none before its first."""
        now = progress(self.spec)
        return 0 if now is self.before else now.step - self.before.kept

    @property
    def left(self) -> float:
        """Seconds until its end at the speed so far; NaN before it can be told."""
        now, taken = progress(self.spec), self.taken
        return max(now.end - now.step, 0) * max(self.elapsed - START, 0.0) / taken if taken > 3 else math.nan

    @property
    def words(self) -> str:
        """The last thing that a failed one said."""
        return jobs.last_words(self.process)


def status(one: Child | None) -> str:
    """What the newest run is at, in one line."""
    if one is None:
        return "Choose, then press Start: the curves grow while the run goes on."
    now, state = progress(one.spec), one.state
    most = "at most " if "until" in one.spec.settings and now.end >= one.spec.steps else ""
    at, marks = f"step {now.step} of {most}{now.end}", f"exact {now.exact:.2f}, prior {now.prior:.2f}"
    left = "" if math.isnan(one.left) else f", {about(one.left)} left"
    return {
        "starting": f"Starting (libraries, boards, the base's marks: some {START:.0f} s), {about(one.elapsed)} so far.",
        "training": f"Training: {at}, {marks}; {about(one.elapsed)} so far{left}.",
        "stopping": f"Stopping at {at} ...",
        "stopped": f"Stopped at {at}: started again, it goes on from its last evaluation, at step {now.kept}.",
        "failed": f"The run ended before its time: {one.words if state == 'failed' else ''}",
        "finished": f"Finished at step {now.step}: {marks}; kept in {folder(one.spec)}.",
    }[state]


def title(spec: RunSpec) -> str:
    """A run in words: what it is, and how far it came."""
    now = progress(spec)
    came = f"exact {now.exact:.2f}, prior {now.prior:.2f} at step {now.step}" if now.step else "not begun"
    more = f", KL {spec.beta:g}" if spec.beta else ""
    return f"{spec.arm} {spec.asked}, {spec.base}, rate {spec.learning_rate:g}{more}; {came}"


def evaluation_words() -> str:
    """On how much a run is evaluated that somebody waits for, and what luck makes of that."""
    boards, each = LIVE.puzzle_test_size, LIVE.battery_per_task
    return f"Evaluated on {boards} boards and {each} questions of each prior task. {luck_words(boards)}"


def expectation(spec: RunSpec) -> str:
    """How many steps and minutes a run will take, and where that is known from; what is there of it already."""
    known, left = forecast(spec), progress(spec)
    if is_finished(folder(spec)):
        return f"This very run is finished: exact {left.exact:.2f}, prior {left.prior:.2f}."
    most = f" (at most {about(known.most_seconds)})" if known.most > known.steps else ""
    begun = f" It was stopped at step {left.step} and goes on from step {left.kept}." if left.step else ""
    return f"About {known.steps} steps, {about(known.seconds)}{most}, {known.source}.{begun}"
