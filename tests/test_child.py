"""A run that somebody waits for: what is read of it, what it will take, and that it stops and goes on."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.errors import UserError
from helpers.show import own as show
from helpers.stats import alike
from helpers.stats.alike import NOTHING, Alike
from helpers.study.profiles import LIVE, get_profile
from helpers.study.published import store
from helpers.study.records import is_finished
from helpers.study.spec import RunSpec
from helpers.train import child
from helpers.train.child import Child
from helpers.train.settings import settings
from helpers.world.forms import ASKED

SPEC = RunSpec("sft-answer", 99, 200, 2e-4, 32, base="two-form-5", asked="direct", extra=(("until", 0.5),))
TASKS = ("caption", "colour")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without runs or published records."""
    monkeypatch.chdir(tmp_path)
    alike.alike.cache_clear()
    yield tmp_path
    alike.alike.cache_clear()


def write(spec: RunSpec, marks: dict[int, tuple[float, float]], steps: int, seconds: float = 2.0) -> None:
    """A record as a run leaves it while it goes on: evaluations (exact, prior) by step, and metrics of each step."""
    run = store(LIVE).start(spec)
    for step, (exact, prior) in marks.items():
        rows = [("puzzle", "exact", exact), *((task, "score", prior) for task in TASKS)]
        common = {"step": step, "samples": 32 * step, "n": 8}
        run.append("evaluations", [common | {"task": t, "measure": m, "value": v} for t, m, v in rows])
    names = {"seconds": seconds, "loss": 1.5}
    for step in range(1, steps + 1):
        run.append("metrics", [{"step": step, "samples": 0, "name": n, "value": v} for n, v in names.items()])
    run.flush("evaluations", "metrics")


def known_run(monkeypatch: pytest.MonkeyPatch, marks: dict[int, tuple[float, float]], seconds: float) -> None:
    """Publish a run that every run is like."""
    rows = [(step, *pair) for step, pair in marks.items()]
    one = Alike("a run", alike.pd.DataFrame(rows, columns=list(alike.COLUMNS)), (SPEC,), seconds)
    monkeypatch.setattr(child, "alike_of", lambda spec: one)


def test_only_the_tables_that_are_named_are_flushed(here: Path) -> None:
    run = store(LIVE).start(SPEC)
    run.append("metrics", [{"step": 1, "samples": 32, "name": "loss", "value": 1.0}])
    run.flush("evaluations")
    assert not (run.folder / "metrics.parquet").exists()
    run.flush()
    assert (run.folder / "metrics.parquet").exists()


def test_nothing_is_known_of_a_run_that_has_not_begun(here: Path) -> None:
    now = child.progress(SPEC)
    assert (now.step, now.end, now.seconds, len(now.curve)) == (0, 200, 0.0, 0) and math.isnan(now.exact)
    assert child.earlier() == [] and child.speed(SPEC) == 1.0


def test_progress_is_what_the_tables_say_and_follows_them(here: Path) -> None:
    write(SPEC, {0: (0.0, 1.0), 8: (0.25, 0.75)}, steps=9)
    now = child.progress(SPEC)
    assert (now.step, now.end, now.seconds, now.exact, now.prior) == (9, 200, 18.0, 0.25, 0.75)
    assert list(now.trace["value"]) == [1.5] * 9 and child.progress(SPEC) is now
    time.sleep(0.02)
    write(SPEC, {40: (0.5, 0.5)}, steps=0)  # there it has reached what it goes until: a quarter as many steps follow
    assert (child.progress(SPEC).end, child.progress(SPEC).exact) == (50, 0.5)
    assert child.earlier() == [SPEC]


def test_a_forecast_counts_the_steps_and_seconds_of_the_run_that_is_most_like(here: Path, monkeypatch) -> None:
    known_run(monkeypatch, {0: (0.0, 1.0), 64: (0.3, 0.9), 100: (0.6, 0.8)}, seconds=0.5)
    told = child.forecast(SPEC)
    marks = sum(
        step <= 125 for step in child.Pace(SPEC, settings(LIVE)).sparse | child.Pace(SPEC, settings(LIVE)).dense
    )
    assert (told.steps, told.most, told.source) == (125, 250, "on an idle core")
    assert told.seconds == pytest.approx(child.START + 0.5 * 125 + child.MARKS * marks)
    assert child.forecast(replace(SPEC, extra=())).steps == 200
    write(SPEC, {0: (0.0, 1.0)}, steps=10, seconds=2.0)  # four times as slow as the published one
    assert child.speed(SPEC) == pytest.approx(4.0)
    assert child.forecast(SPEC).seconds == pytest.approx(4 * told.seconds)
    said = child.expectation(SPEC)
    assert "stopped at step 10 and goes on from step 0." in said and "your last run" in said
    other = replace(SPEC, rows=3, cols=3, size=96)  # a run on other boards says nothing of how fast these are
    assert child.speed(other) == 1.0 == child.speed(replace(SPEC, batch_size=8))


def test_of_a_model_that_is_not_the_suites_no_published_run_foretells_the_minutes(here: Path, monkeypatch) -> None:
    known_run(monkeypatch, {0: (0.0, 1.0), 64: (0.6, 0.9)}, seconds=0.5)
    assert child.forecast(replace(SPEC, base="/a/folder")).source == "a guess, since no run like it is published"


def test_a_forgotten_run_is_gone(here: Path) -> None:
    write(SPEC, {0: (0.0, 1.0)}, steps=1)
    child.forget(SPEC)
    assert not child.folder(SPEC).exists() and child.progress(SPEC).step == 0


def test_the_brief_settings_are_those_of_the_live_profile_alone() -> None:
    assert settings(LIVE).brief and settings(LIVE).ways and settings(LIVE).dense
    assert get_profile("live") == LIVE
    assert not any(settings(get_profile(name)).brief for name in ("smoke", "cpu", "gpu", "fair"))


# ---- what is published


def test_a_run_is_laid_over_its_own_arm_base_and_nearest_rate() -> None:
    one = alike.alike("sft-answer", "direct", "two-form-5", 1.9e-4)
    assert [(s.arm, s.asked, s.base, s.learning_rate) for s in one.runs] == [
        ("sft-answer", "direct", "two-form-5", 2e-4)
    ]
    assert one.curve["step"].iloc[0] == 0 and one.curve["exact"].iloc[0] < 0.2 < 0.9 < one.curve["prior"].iloc[0]
    assert one.seconds > 0 and one.steps_to(0.5) < one.steps_to(0.9) < math.inf == one.steps_to(1.01)


def test_on_the_shipped_base_all_seeds_stand_together_and_controls_too() -> None:
    assert len(alike.alike("rft", "plain", "shipped", 2e-4).runs) == 5
    control = alike.alike("sft-voice", "plain", "shipped", 2e-4)
    assert {s.arm for s in control.runs} == {"sft-voice"} and len(control.curve) > 3
    assert {s.learning_rate for s in alike.alike("rft", "plain", "shipped", 1.9e-3).runs} == {6e-4}


def test_a_run_on_other_boards_is_laid_over_no_published_one() -> None:
    like = replace(SPEC, learning_rate=2e-4)
    assert alike.alike_of(like).runs
    for other in (replace(like, rows=3, cols=3, size=96), replace(like, turned=True), replace(like, base="shipped")):
        assert all(run.puzzle == other.puzzle for run in alike.alike_of(other).runs)
    assert alike.alike_of(replace(like, rows=2, cols=3, size=96)) is NOTHING


@pytest.mark.parametrize("asked", ASKED)
def test_an_arm_without_a_published_run_is_like_none(asked: str) -> None:
    assert alike.alike("iterative-sft", asked, "two-form-5", 2e-4) is NOTHING


# ---- a process of its own


def waits(one: Child, *states: str, seconds: float = 500) -> str:
    limit = time.monotonic() + seconds
    while one.state not in states and time.monotonic() < limit:
        time.sleep(0.3)
    return one.state


def test_a_run_stops_when_asked_and_goes_on_from_where_it_was(here: Path) -> None:
    spec = replace(SPEC, steps=18, extra=(), batch_size=4)
    first = Child(spec)
    limit = time.monotonic() + 500
    while child.progress(spec).step < 9 and first.state in ("starting", "training") and time.monotonic() < limit:
        time.sleep(0.2)
    assert "step " in child.status(first)
    first.stop()
    assert waits(first, "stopped") == "stopped" and not is_finished(child.folder(spec))
    assert "goes on from its last evaluation, at step 8" in child.status(first)
    again = Child(spec)  # what the first one left is no step of this one
    assert again.state == "starting" and again.taken == 0
    again.end()
    came = show.follow(spec)
    assert is_finished(child.folder(spec)) and came.step == 18 and list(came.curve["step"]) == [0, 8, 11, 16, 18]
    assert list(came.trace["step"]) == list(range(1, 19))
    assert show.follow(spec).step == 18  # at once: nothing is trained twice


def test_whatever_goes_wrong_while_a_run_is_followed_none_goes_on_alone(here: Path, monkeypatch) -> None:
    started = []

    def broken(one: Child) -> str:
        started.append(one)
        raise ValueError("no page to write on")

    monkeypatch.setattr(child, "status", broken)
    with pytest.raises(ValueError, match="no page"):
        show.follow(replace(SPEC, steps=18, extra=(), batch_size=4))
    assert started[0].process.poll() is not None


def test_a_run_that_fails_says_why(here: Path) -> None:
    with pytest.raises(UserError, match=r"ended before its time: .*not a model folder"):
        show.follow(replace(SPEC, base="/nowhere"))
