"""The study: which runs are missing, in which order they are trained, and one sentence for every mistake."""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from swapping import swap

from helpers.__main__ import main
from helpers.errors import UserError
from helpers.study import arms, profiles, published
from helpers.study import published as published_module
from helpers.study.profiles import get_profile, specs
from helpers.study.published import load_published, published_specs
from helpers.study.records import RunStore
from helpers.train import jobs as jobs_module
from helpers.train.jobs import ensure, last_words, launch, run_all, run_missing
from helpers.train.settings import settings

ROOT = Path(__file__).parents[1]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Work in an empty folder: no runs, no published records."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smoke(arms=arms.STUDY_ARMS) -> list:
    return specs(get_profile("smoke"), arms)


def finish(store: RunStore, chosen: list) -> None:
    """Empty finished records for specs, with one evaluation each."""
    for spec in chosen:
        run = store.start(spec)
        run.append("evaluations", [{"step": 0, "samples": 0, "task": "puzzle", "measure": "hit", "value": 0.5, "n": 1}])
        run.finish()


class Fake:
    """A training process that ends after a moment; `log` notes when it started and ended."""

    def __init__(self, spec, log: list, code: int = 0, words: str = "") -> None:
        self.spec, self.log, self.returncode, self.code = spec, log, None, code
        self.end, self.words, self.stopped = time.time() + 0.25, io.StringIO(words), False
        log.append(("start", spec.arm))

    def poll(self):
        if self.returncode is None and time.time() > self.end:
            self.returncode = self.code
            self.log.append(("end", self.spec.arm))
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.returncode = -number
        self.log.append(("stopped", self.spec.arm))

    def wait(self) -> int | None:
        return self.returncode


# --------------------------------------------------------------------------------------- settings


def test_settings_follow_the_profile() -> None:
    small, whole = (settings(get_profile(n)) for n in ("smoke", "cpu"))
    assert (small.puzzle_tests, small.final_tests, small.battery, small.final_battery) == (4, 16, 4, 4)
    assert (whole.puzzle_tests, whole.final_tests, whole.per_octave) == (125, 500, 2)
    assert whole.battery == whole.final_battery == 40  # the same items at every step, or drops would be offset


def test_each_profile_has_its_store() -> None:
    assert published.store(get_profile("smoke")).root == Path("runs/smoke") != published.store(get_profile("cpu")).root


# ----------------------------------------------------------------------------------------- ensure


def test_only_missing_runs_are_trained(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    swap(monkeypatch, jobs_module, "run_all", lambda profile, wanted, *_: trained.extend(wanted) or [])
    assert ensure("smoke") == trained == smoke()
    finish(published.store(get_profile("smoke")), smoke()[:3])
    trained.clear()
    assert ensure("smoke") == trained == smoke()[3:]
    finish(published.store(get_profile("smoke")), smoke()[3:])
    trained.clear()
    assert ensure("smoke") == trained == []


def test_published_records_stand_in_at_cpu_unless_asked(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    swap(monkeypatch, jobs_module, "run_all", lambda profile, wanted, *_: trained.extend(wanted) or [])
    assert len(ensure("cpu", arms=["base"])) == 1
    published.PUBLISHED.mkdir(parents=True)
    (published.PUBLISHED / "specs.json").write_text("{}")
    assert ensure("cpu") == []
    assert len(ensure("cpu", retrain=True, arms=["base"])) == 1
    assert len(ensure("smoke", arms=["base"])) == 1


# ---------------------------------------------------------------------------------------- run_all


def test_a_run_waits_for_its_source_and_no_more_than_two_run(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list = []
    swap(monkeypatch, jobs_module, "launch", lambda profile, spec: Fake(spec, log))
    run_all(get_profile("smoke"), smoke(), jobs=2)
    assert sorted(arm for event, arm in log if event == "end") == sorted(s.arm for s in smoke())
    for arm in ("sft-rollout", "sft-self"):
        assert log.index(("end", "rft")) < log.index(("start", arm))
    alive, most = 0, 0
    for event, _ in log:
        alive += 1 if event == "start" else -1
        most = max(most, alive)
    assert most == 2


def test_a_source_that_is_done_already_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list = []
    swap(monkeypatch, jobs_module, "launch", lambda profile, spec: Fake(spec, log))
    run_all(get_profile("smoke"), smoke(["sft-rollout"]), jobs=1)
    assert log == [("start", "sft-rollout"), ("end", "sft-rollout")]


def test_a_failed_run_stops_the_others_and_is_named_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list = []

    def launch(profile, spec):
        bad = spec.arm == "sft-answer"
        process = Fake(spec, log, int(bad), "Traceback\n  line\nthe disk is full.\n\n" if bad else "")
        process.end += 0.0 if bad else 5.0
        return process

    swap(monkeypatch, jobs_module, "launch", launch)
    chosen = smoke(["sft-answer", "sft-expert"])
    with pytest.raises(UserError, match=f"{chosen[0].name} stopped: the disk is full."):
        run_all(get_profile("smoke"), chosen, jobs=2)
    assert ("stopped", "sft-expert") in log


def test_where_the_others_go_on_only_what_needs_the_failed_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list = []
    swap(
        monkeypatch,
        jobs_module,
        "launch",
        lambda profile, spec: Fake(spec, log, int(spec.arm == "rft"), "it diverged"),
    )
    chosen = {spec.arm: spec for spec in smoke(["rft", "sft-answer", "sft-rollout", "sft-self"])}
    trouble = run_all(get_profile("smoke"), list(chosen.values()), jobs=1, keep_going=True)
    assert [event for event in log if event[0] == "start"] == [("start", "rft"), ("start", "sft-answer")]
    left = [f"{chosen[arm].name} was left out: it needs {chosen['rft'].name}, not finished."
            for arm in ("sft-rollout", "sft-self")]  # fmt: skip
    assert trouble == [f"{chosen['rft'].name} stopped: it diverged", *left]


def test_seeds_are_completed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list = []
    swap(monkeypatch, jobs_module, "launch", lambda profile, spec: Fake(spec, log))
    profile = replace(get_profile("smoke"), seeds=(0, 1))
    run_all(profile, specs(profile, ["sft-rollout", "rft"]), jobs=1)
    assert [arm for event, arm in log if event == "start"] == ["rft", "sft-rollout"] * 2


def test_a_run_whose_source_is_neither_finished_nor_asked_for_is_refused(elsewhere: Path, monkeypatch) -> None:
    trained = []
    swap(monkeypatch, jobs_module, "run_all", lambda profile, wanted, *_: trained.extend(wanted) or [])
    asked = smoke(["sft-answer", "sft-rollout"])
    with pytest.raises(UserError, match=r"sft-rollout-0-.* was left out: it needs rft-0-.*, not finished. Train that"):
        run_missing(get_profile("smoke"), asked)
    (sentence,) = run_missing(get_profile("smoke"), asked, keep_going=True)
    assert "was left out" in sentence and trained == asked[:1]
    finish(published.store(get_profile("smoke")), smoke(["rft"]))
    trained.clear()
    assert run_missing(get_profile("smoke"), asked) == [] and trained == asked


def test_no_jobs_at_all_are_refused() -> None:
    with pytest.raises(UserError, match="jobs is 0"):
        run_all(get_profile("smoke"), smoke(["rft"]), jobs=0)


def test_a_process_that_says_nothing_gives_its_exit_status() -> None:
    words = io.StringIO("")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.words = words
    process.wait()
    assert last_words(process) == "exit status 3"


def test_a_talkative_process_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody reads holds 64 KiB; a run that writes more would wait for ever."""
    stock = subprocess.Popen
    code = "import sys; sys.stderr.write('x' * 300_000 + chr(10) + 'too late'); sys.exit(2)"
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: stock([sys.executable, "-c", code], **options))
    process = launch(get_profile("smoke"), smoke(["base"])[0])
    try:
        deadline = time.time() + 5
        while process.poll() is None and time.time() < deadline:
            time.sleep(0.05)
        assert process.returncode == 2
    finally:
        process.kill()
        process.wait()


# ----------------------------------------------------------------------------------------- tables


def test_a_table_needs_every_run_of_the_profile(elsewhere: Path) -> None:
    with pytest.raises(UserError, match="no records for profile smoke"):
        published.table("smoke", "evaluations")
    finish(published.store(get_profile("smoke")), smoke()[:-1])
    with pytest.raises(UserError, match="no records for profile smoke"):
        published.table("smoke", "evaluations")
    finish(published.store(get_profile("smoke")), smoke()[-1:])
    found = published.table("smoke", "evaluations")
    assert sorted(found["run"]) == sorted(s.name for s in smoke())


def test_runs_of_other_specs_are_left_out_of_a_table(elsewhere: Path) -> None:
    finish(published.store(get_profile("smoke")), [*smoke(), replace(smoke(["rft"])[0], learning_rate=0.5)])
    assert len(published.table("smoke", "evaluations")) == len(smoke())


def test_published_records_are_read_where_there_are_no_runs(elsewhere: Path) -> None:
    finish(published.store(get_profile("smoke")), smoke())
    published.publish_records("smoke", published.PUBLISHED)
    assert sorted(published.table("cpu", "evaluations")["run"]) == sorted(s.name for s in smoke())


def test_controls_and_runs_of_earlier_settings_are_not_published_with_the_study(elsewhere: Path) -> None:
    earlier = replace(smoke(["rft"])[0], learning_rate=0.5)
    finish(published.store(get_profile("smoke")), [*smoke(), *smoke(["sft-kl"]), earlier])
    published.publish_records("smoke", published.PUBLISHED)
    assert sorted(load_published(published.PUBLISHED, "evaluations")["run"]) == sorted(s.name for s in smoke())
    assert set(published_specs(published.PUBLISHED)) == {s.name for s in smoke()}


# ----------------------------------------------------------------------------------- command line


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    code = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); runpy.run_module('helpers', run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code, "train", *arguments], capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--profile", "smoke", "--arms", "sft-anser"), "there is no arm 'sft-anser'"),
        (("--profile", "smoke", "--arms", "rft", "--seeds", "7"), "Profile smoke has no seed 7: choose among 0."),
        (("--profile", "smoke", "--arms", "sft-rollout"), "Train that run first, or name its arm too."),
        (("--profile", "smoke", "--arms", "rft", "--jobs", "0"), "jobs is 0"),
        (("--profile", "smoke", "--spec", "{}"), "arm"),
        (("--profile", "smoke", "--spec", json.dumps({"arm": "base", "seed": 0, "steps": 3})), "learning_rate"),
    ],
)
def test_a_mistake_gives_one_sentence_and_no_traceback(tmp_path: Path, arguments: tuple, sentence: str) -> None:
    found = command(tmp_path, *arguments)
    assert found.returncode == 1
    assert sentence in found.stderr and "Traceback" not in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("more", [(), ("--no-training",)])
def test_an_unknown_group_of_controls_is_refused(capsys: pytest.CaptureFixture, more: tuple) -> None:
    assert main(["controls", "--profile", "smoke", "--only", "sft-lk", *more]) == 1
    assert "no group of controls sft-lk" in capsys.readouterr().err


def test_an_arm_without_a_budget_is_refused_in_one_sentence(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    smaller = replace(get_profile("smoke"), budgets=get_profile("smoke").budgets[:1])
    swap(monkeypatch, profiles, "PROFILES", {"smoke": smaller})
    assert main(["train", "--profile", "smoke", "--arms", "sft-kl"]) == 1
    assert capsys.readouterr().err.strip() == (
        "profile smoke has no budget for arm sft-kl: add a line to its table in profiles.py."
    )


def test_published_records_do_not_hide_an_arm_that_is_none(elsewhere: Path) -> None:
    published.PUBLISHED.mkdir(parents=True)
    (published.PUBLISHED / "specs.json").write_text("{}")
    with pytest.raises(UserError, match="no arm 'sft-anser'"):
        ensure("cpu", arms=["sft-anser"])


def test_a_spec_that_is_no_json_gives_one_sentence(tmp_path: Path) -> None:
    found = command(tmp_path, "--profile", "smoke", "--spec", "{broken")
    assert found.returncode == 1 and "Traceback" not in found.stderr


def test_an_unknown_profile_is_refused(tmp_path: Path) -> None:
    found = command(tmp_path, "--profile", "huge")
    assert found.returncode == 2 and "huge" in found.stderr and "Traceback" not in found.stderr
    with pytest.raises(UserError, match="no profile 'huge'"):
        ensure("huge")


def test_main_passes_its_options_on(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    swap(monkeypatch, jobs_module, "run_all", lambda profile, *how: calls.append((profile.name, *how)) or [])
    swap(monkeypatch, published_module, "publish_records", lambda *args: calls.append(args))
    assert main(["train", "--profile", "cpu", "--arms", "rft", "base", "--seeds", "1", "--jobs", "1"]) == 0
    assert main(["publish"]) == 0
    (name, wanted, jobs, _), published = calls
    assert (name, jobs, published) == ("cpu", 1, ("cpu",))
    assert [(s.arm, s.seed) for s in wanted] == [("base", 0), ("rft", 1)]
