"""The live run's panel: what its controls mean, what it refuses, what it shows and that it shows nothing twice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.play import live_picture, live_run
from helpers.play.live_picture import Shown, picture
from helpers.play.live_run import Panel
from helpers.stats.alike import COLUMNS, NOTHING, Alike
from helpers.study import own
from helpers.study.profiles import LIVE
from helpers.study.published import store
from helpers.study.spec import RunSpec
from helpers.train.child import Progress
from helpers.world import seeds

SPEC = RunSpec("rft", 99, 100, 1e-4, 16, base="two-form-5", asked="direct")


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Panel:
    """A panel in a folder without runs or published records; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live_run, "Child", Fake)
    live_run.alike_of.__globals__["alike"].cache_clear()
    yield Panel()
    live_run.alike_of.__globals__["alike"].cache_clear()


class Fake:
    """A run under way that does nothing."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec, self.state, self.elapsed, self.left, self.words = spec, "training", 60.0, 30.0, "out of memory"

    def stop(self) -> None:
        self.state: Literal["stopped", "training"] = "stopped"


def choose(panel: Panel, **values: object) -> None:
    for name, value in values.items():
        panel._settings[name].value = value


def test_the_defaults_are_a_run_that_shows_learning_and_forgetting(panel: Panel) -> None:
    spec = panel.spec()
    assert (spec.arm, spec.asked, spec.base, spec.learning_rate) == ("sft-answer", "direct", "two-form-5", 2e-4)
    assert spec.settings == {"until": 0.5} and spec.seed == seeds.LIVE and not spec.pictures


def test_what_is_chosen_is_what_is_trained(panel: Panel) -> None:
    choose(panel, arm="rft", form="think", rate=6e-5, beta=1.0, hit=0.0, exact=2.0, steps=80, until=0.0)
    spec = panel.spec()
    assert (spec.arm, spec.asked, spec.learning_rate, spec.beta, spec.steps) == ("rft", "think", 6e-5, 1.0, 80)
    assert spec.reward_weights == (0.0, 2.0, 1.0) and spec.batch_size == 16 and not spec.settings


@pytest.mark.parametrize("arm", own.arms())
@pytest.mark.parametrize("base", ["two-form-5", "shipped"])
def test_every_arm_on_offer_can_be_trained_as_it_is_first_offered(panel: Panel, arm: str, base: str) -> None:
    choose(panel, base=base, arm=arm)
    assert panel.spec().arm == arm and not panel._start.disabled and panel._note.value.startswith("About")


def test_forms_are_those_of_the_base_and_reward_weights_are_for_rft(panel: Panel) -> None:
    choose(panel, base="shipped")
    assert [form for _, form in panel._settings["form"].options] == ["plain"]
    assert panel._settings["hit"].disabled
    choose(panel, base="two-form-5", arm="rft")
    assert len(panel._settings["form"].options) == 4 and not panel._settings["hit"].disabled
    assert panel._settings["beta"].value == 0.36  # the study's


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"arm": "rft-no-kl", "beta": 0.36}, "has no KL term"),
        ({"arm": "sft-kl", "beta": 0.0}, "beta above 0"),
        ({"arm": "rft", "hit": 0.0, "exact": 0.0, "format": 0.0}, "no completion could earn"),
        ({"arm": "sft-voice", "form": "direct"}, "ask for a think"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_the_specs_own_sentence(panel: Panel, values, said: str) -> None:
    choose(panel, **values)
    assert said in panel._note.value and panel._start.disabled
    choose(panel, arm="sft-answer")
    assert panel._note.value.startswith("About") and not panel._start.disabled


def test_a_run_starts_stops_and_can_be_gone_on_from(panel: Panel) -> None:
    panel.start()
    assert panel.busy and panel._start.disabled and not panel._stop.disabled
    assert ">Training: step 0 of at most 240" in panel._status.value and "30 s left" in panel._status.value
    panel.start()  # one at a time
    assert len(panel.runs) == 1
    panel.remove(panel.runs[0])  # not while it goes on
    assert len(panel.runs) == 1
    panel.stop()
    panel._thread.join(5)
    assert not panel.busy and panel._stop.disabled and not panel._start.disabled
    assert "Stopped at step 0" in panel._status.value
    record(panel.runs[0], 3)
    choose(panel, steps=248)
    choose(panel, steps=240)
    assert panel._start.description == "Continue" and "stopped at step 3" in panel._note.value


def record(spec: RunSpec, steps: int) -> None:
    run = store(LIVE).start(spec)
    rows = [{"step": k, "samples": k, "name": "seconds", "value": 1.0} for k in range(1, steps + 1)]
    run.append("metrics", rows)
    run.flush("metrics")


def test_earlier_runs_are_listed_and_can_be_shown_hidden_and_removed(panel: Panel) -> None:
    for rate in (1e-4, 2e-4):
        record(replace(SPEC, learning_rate=rate), 5)
    record(replace(SPEC, pictures="0123456789"), 5)  # those on own pictures are notebook 14's
    again = Panel()
    assert len(again.runs) == 2 and len(again.hidden) == 2
    first, _ = (row.children[0] for row in again._listed.children)
    first.value = True
    assert "1: rft direct" in again._picture.value and "2: rft direct" not in again._picture.value
    again._listed.children[0].children[1].click()
    assert len(again.runs) == 1 and "1: rft direct" not in again._picture.value
    assert (store(LIVE).root / replace(SPEC, learning_rate=1e-4).name).is_dir()


def test_nothing_is_sent_where_nothing_has_changed(panel: Panel) -> None:
    sent: list[str] = []
    panel._picture.observe(lambda change: sent.append(change["new"]), "value")
    panel.draw()
    panel.draw()
    assert sent == []


def test_every_control_says_what_it_is(panel: Panel) -> None:
    assert all(control.description for control in panel._settings.values())
    assert panel._start.tooltip and panel._stop.tooltip


def test_an_unknown_base_is_told_in_a_sentence() -> None:
    with pytest.raises(UserError, match="There is no base nothing: choose one of shipped"):
        Panel("nothing")


def test_without_a_front_end_one_line_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("helpers.play.panel.display", shown.append)
    live_run.live_run()
    assert len(shown) == 1 and "needs a kernel" in shown[0].data


# ---- the picture


def progress(marks: list[tuple[int, float, float]]) -> Progress:
    trace = pd.DataFrame({"step": [1, 2], "value": [0.4, 2.6]})
    return Progress(2, 100, 3.0, pd.DataFrame(marks, columns=list(COLUMNS)), trace)


def test_the_picture_shows_runs_over_what_is_published() -> None:
    known = Alike("x < y, rate 1", pd.DataFrame([(0, 0.0, 1.0), (900, 1.0, 0.5)], columns=list(COLUMNS)), (SPEC,), 1.0)
    runs = [Shown(k, SPEC, progress([(0, 0.0, 1.0), (8, 0.5, 0.5)])) for k in (1, 2)]
    drawn = picture(runs, known, 60, 'a "title" <b>')
    assert "1: rft direct" in drawn and "2: rft direct" in drawn and "reward of a step" in drawn and "x &lt; y" in drawn
    assert 'aria-label="a &quot;title&quot; &lt;b&gt;"' in drawn and ">64<" in drawn  # the axis: the next nice number
    # exact match 0.5 at step 8 of 64, between the axes' ends: 46 + 354 / 8, and 236 - 202 / 2
    assert 'cx="90.2" cy="135.0"' in drawn
    assert {float(size) for size in re.findall(r'font-size="([\d.]+)"', drawn)} == {13.0}


def test_the_picture_of_nothing_has_the_same_size() -> None:
    empty = picture([], NOTHING, 64, "nothing yet")
    full = picture([Shown(1, SPEC, progress([(0, 0.1, 0.9)]))], NOTHING, 64, "one")
    size = f'width="{live_picture.WIDTH}" height="{live_picture.HEIGHT}"'
    assert size in empty and size in full and "nothing is published of this arm" in empty
