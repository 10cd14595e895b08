"""The notebooks' first line: working folder, paths, sizes by profile, messages."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.lab import check, start
from helpers.show import plots
from helpers.study import published
from helpers.study.arms import STUDY_ARMS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """`start` changes the process; put everything back."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = os.getcwd()
    yield
    os.chdir(before)


def test_start_makes_the_root_the_working_folder(tmp_path):
    os.chdir(tmp_path)
    sys.path.insert(0, "..")
    start("smoke")
    assert Path.cwd() == ROOT
    assert sys.path[0] == str(ROOT) and ".." not in sys.path and sys.path.count(str(ROOT)) == 1


def test_figures_count_from_the_root_unless_absolute(tmp_path):
    assert start("smoke", False, "out/x").figures == ROOT / "out/x"
    assert start("smoke", False, tmp_path).figures == tmp_path


@pytest.mark.parametrize("asked", ["figures", "./figures/", "notebooks/../figures", ROOT / "figures", "figures/mine"])
@pytest.mark.parametrize(("profile", "runner"), [("cpu", None), ("cpu", "0"), ("smoke", "1"), ("gpu", "1")])
def test_published_figures_are_closed_to_everybody_but_the_runner(profile, runner, asked, capsys):
    os.environ.pop("JIGSAW_PUBLISH", None)
    os.environ.update({"JIGSAW_PUBLISH": runner} if runner else {})
    lab = start(profile, False, asked)
    assert lab.figures == ROOT / "out/figures"
    assert "Figures go to out/figures/. Published figures stay as they are." in capsys.readouterr().out


def test_the_runners_run_at_the_default_profile_writes_the_published_figures(capsys):
    os.environ["JIGSAW_PUBLISH"] = "1"
    assert start("cpu", False, "figures").figures == ROOT / "figures"
    assert "Figures go to figures/.\n" in capsys.readouterr().out


def test_what_is_the_readers_own_never_goes_to_the_published_figures(monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.lab.HERE", tmp_path / "here")
    monkeypatch.setattr("helpers.lab.PUBLISHED", tmp_path / "published")
    lab = replace(start("smoke", quiet=True), figures=tmp_path / "published")
    tokens = plots.heat_tokens(["a", "b"], [-1.0, -2.0])
    assert lab.save(tokens, "two", alt="Two tokens.", own=True).path == tmp_path / "here" / "two.png"
    assert not (tmp_path / "published").exists()
    elsewhere = replace(lab, figures=tmp_path / "mine")
    assert elsewhere.save(tokens, "two", alt="Two tokens.", own=True).path == tmp_path / "mine" / "two.png"


def test_an_empty_table_gives_one_line_instead_of_a_figure(tmp_path):
    lab = start("smoke", False, tmp_path / "f")
    shown = lab.present(lambda rows: pytest.fail("drawn"), pd.DataFrame({"x": []}), "nothing")
    assert "nothing to draw for `nothing`" in shown.data and not (tmp_path / "f").exists()


def test_the_study_object_holds_what_the_records_hold():
    study = start("cpu", quiet=True).study("rft")
    assert set(study.evaluations["arm"]) == {"base", "rft"} and set(study.metrics["arm"]) <= {"base", "rft"}
    assert set(study.completions["run"].str.rsplit("-", n=2).str[0]) == {"rft"}
    assert study.hashes == sorted({run.rsplit("-", 1)[1] for run in study.evaluations["run"]})
    assert study.puzzle.chance_exact == 1 / 23
    assert set(start("cpu", quiet=True).study().evaluations["arm"]) == set(STUDY_ARMS)


@pytest.mark.parametrize(("profile", "offline"), [("smoke", "1"), ("cpu", "1"), ("gpu", None)])
def test_only_gpu_may_use_the_network(profile, offline):
    os.environ.pop("HF_HUB_OFFLINE", None)
    start(profile)
    assert os.environ.get("HF_HUB_OFFLINE") == offline


def test_settings_of_the_user_stay():
    os.environ["OMP_NUM_THREADS"] = "7"
    start("cpu")
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_pick_takes_the_profiles_value_and_gpu_falls_back():
    assert [start(p).pick(1, 2, 3) for p in ("smoke", "cpu", "gpu")] == [1, 2, 3]
    assert start("gpu").pick(1, 2) == 2
    assert start("gpu").pick(1, 2, 0) == 0


def test_greeting_names_profile_and_folder(capsys):
    start("cpu", True, "out/figures")
    said = capsys.readouterr().out
    assert "Profile cpu" in said and "trained anew" in said and "figures/" in said
    start("cpu", quiet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("profile", "retrain"), [("tiny", False), ("cpu", "False"), ("cpu", 1)])
def test_bad_parameters_are_refused_in_a_sentence(profile, retrain):
    with pytest.raises(UserError):
        start(profile, retrain)


def test_save_writes_into_the_profiles_folder(tmp_path):
    lab = start("smoke", False, tmp_path / "f")
    saved = lab.save(plots.heat_tokens(["a", "b"], [-1.0, -2.0]), "two", alt="Two tokens.")
    assert saved.path == tmp_path / "f" / "two.png"
    assert {p.suffix for p in (tmp_path / "f").glob("two.*")} == {".png", ".svg", ".csv", ".txt", ".json"}


@pytest.mark.parametrize("run", ["rft-0-abc123", "abc123"])
def test_a_figure_knows_its_runs_by_name_or_hash(run, tmp_path):
    lab = start("smoke", False, tmp_path / "f")
    lab.save(plots.heat_tokens(["a", "b"], [-1.0, -2.0]), "two", alt="Two tokens.", specs=[run])
    assert json.loads((tmp_path / "f" / "two.json").read_text())["specs"] == ["abc123"]


@pytest.mark.parametrize(
    ("answer", "said"), [(None, "Not answered yet"), (4, "Right."), (3, "Not yet. Think."), ("x", "Not yet.")]
)
def test_check_marks_an_answer(answer, said, capsys):
    check(answer, lambda a: 8 / a == 2, "Think.")
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize(
    ("answer", "said"), [((None, None), "Not answered yet"), ((1, None), "Not answered yet"), ((1, 2), "Right.")]
)
def test_a_pair_is_marked_once_both_parts_are_given(answer, said, capsys):
    check(answer, lambda a: a == (1, 2), "Think.")
    assert capsys.readouterr().out.startswith(said)


def test_what_takes_long_is_measured_once_and_again_where_its_records_change(tmp_path, monkeypatch, capsys):
    """Published by the runner's own run alone, read to the last bit, measured here where a reader asks for it."""
    lab, made, records = start("cpu", False, tmp_path, quiet=True), [], {"cpu": "one", "smoke": "one"}
    monkeypatch.setattr(published, "records_digest", records.get)
    monkeypatch.setattr(published, "MEASURED", tmp_path)

    def make() -> pd.DataFrame:
        made.append(1)
        return pd.DataFrame({"arm": ["rft"], "value": [1 / 3]})

    lab.measured("drift", make)
    assert len(made) == 1 and not list(tmp_path.glob("*.csv"))
    runner = replace(lab, figures=ROOT / "figures")
    kept = runner.measured("drift", make)
    again = lab.measured("drift", make)
    assert len(made) == 2 and again["value"].tolist() == kept["value"].tolist() == [1 / 3]
    assert "drift: as published" in capsys.readouterr().out
    lab.measured("drift", make, again=True)
    replace(lab, profile=start("smoke", quiet=True).profile).measured("drift", make)
    assert len(made) == 4
    records["cpu"] = "two"
    lab.measured("drift", make)
    assert len(made) == 5
    records["cpu"] = "one"
    (tmp_path / "drift.csv").write_text("arm,value\nrft,0.5\n")
    with pytest.raises(UserError, match="drift.csv is missing or not what was published"):
        lab.measured("drift", make)
