"""Keeping a base: rounded before any use, marked as it is stored, once, and only when it is finished."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from swapping import swap

from helpers.errors import UserError
from helpers.measure import bars, kept, kept_runs
from helpers.model import build
from helpers.study.checkpoints import checkpoint_at
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train import pretrain
from helpers.train.run import train
from helpers.train.settings import Settings


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What was marked: the weights' dtype on disk, the items and the forms."""
    seen: list[tuple] = []

    def all_marks(base, n, forms=bars.FORMS) -> pd.DataFrame:
        seen.append((base, n, forms))
        return pd.DataFrame([("mean score", "think", 0.9, 0.92)], columns=["mark", "form", "value", "bar"])

    swap(monkeypatch, bars, "all_marks", all_marks)
    return seen


def branch(tiny, root: Path, name: str, forms: str, left: int = 0) -> Path:
    """A branch as pretraining leaves it, `left` steps before its end."""
    folder = root / name
    shutil.copytree(tiny.folder, folder / "model")
    recipe = pretrain.branch(3, forms, "elsewhere/stem-3/model")
    torch.save({"recipe": asdict(recipe), "step": recipe.practice - left}, folder / "state.pt")
    (folder / "training_log.csv").write_text("step,loss\n0,1.0\n")
    return folder


def test_a_finished_branch_is_rounded_marked_and_kept_once(tiny, tmp_path: Path, marked: list) -> None:
    made, bases = tmp_path / "stems", tmp_path / "bases"
    bases.mkdir()
    branch(tiny, made, "two-form-3", "two-form")
    branch(tiny, made, "one-form-3", "one-form")
    branch(tiny, made, "two-form-4", "two-form", left=1)
    (made / "stem-3").mkdir()
    assert kept.keep_bases(made, bases, 7) == [bases / "one-form-3", bases / "two-form-3"]
    assert [(n, forms) for _, n, forms in marked] == [(7, ("think",)), (7, ("think", "direct"))]
    assert kept.keep_bases(made, bases, 7) == [] and sorted(p.name for p in bases.iterdir()) == [
        "one-form-3", "two-form-3",
    ]  # fmt: skip
    place = bases / "two-form-3"
    stored = build.load(place).model.state_dict()
    full = build.load(made / "two-form-3" / "model").model.state_dict()
    assert all(torch.equal(stored[name], full[name].half().float()) for name in full)
    assert any(not torch.equal(stored[name], full[name]) for name in full)
    # what was marked is what is stored
    assert all(torch.equal(v, stored[name]) for name, v in marked[1][0].model.state_dict().items())
    recipe = json.loads((place / "made.json").read_text())["recipe"]
    assert (recipe["forms"], recipe["start"]) == ("two-form", "stem-3")
    assert (place / "marks.csv").exists() and (place / "training_log.csv").exists()


def test_a_kill_while_marking_leaves_no_base(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, bases = tmp_path / "stems", tmp_path / "bases"
    bases.mkdir()
    branch(tiny, made, "two-form-3", "two-form")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        swap(patch, bars, "all_marks", killed)
        with pytest.raises(KeyboardInterrupt):
            kept.keep_bases(made, bases)
    assert not (bases / "two-form-3").exists()


def test_without_any_branch_the_way_to_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make a stem and its branches first"):
        kept.keep_bases(tmp_path / "nowhere", tmp_path)


def marks_of(place: Path, *rows: tuple[str, str, float]) -> None:
    place.mkdir(parents=True)
    pd.DataFrame(rows, columns=["mark", "form", "value"]).to_csv(place / "marks.csv", index=False)


def test_marks_of_bases_stand_side_by_side_and_those_that_are_missed_are_told(tmp_path: Path) -> None:
    boards = "exact, chance 0.043"
    both = [("mean score", "think", 0.95), ("mean score", "direct", 0.91)]
    marks_of(tmp_path / "two-form-3", *both, (boards, "think, 2 x 2", 0.052))
    marks_of(tmp_path / "one-form-3", both[0], (boards, "think, 2 x 2", 0.09))
    table = kept.marks_table(tmp_path)
    assert list(table.columns) == ["bar", "one-form-3", "two-form-3"]
    assert table.loc[("mean score", "direct")].fillna(-1).tolist() == [0.92, -1, 0.91]
    assert kept.missed_marks(table, 500) == [
        "one-form-3 solves boards before it is taught to (think, 2 x 2): 0.09, chance 0.043.",
        "two-form-3 misses mean score (direct): 0.91, and the bar is 0.92.",
    ]
    assert kept.missed_marks(table, 20)[0].startswith("two-form-3")  # of 20 boards two are nothing unusual
    assert kept.marks_table(tmp_path / "nowhere").empty and kept.missed_marks(kept.marks_table(tmp_path / "no")) == []


def test_the_end_of_a_finished_run_is_kept_once_and_rounded(puzzler, tmp_path: Path) -> None:
    own = dict(batch_size=2, size=32, max_completion_length=26, base=str(puzzler.folder), asked="direct")
    spec = RunSpec("sft-answer", 1, 4, 1e-3, extra=(("until", 0.999),), **own)
    runs, place = RunStore(tmp_path / "runs"), tmp_path / "kept"
    assert kept_runs.keep_checkpoints([spec], place, runs) == []  # not finished
    train(spec, runs, Settings(puzzle_tests=2, final_tests=2, battery=1, final_battery=1, per_octave=1))
    assert kept_runs.keep_checkpoints([spec], place, runs) == [place / spec.name]
    assert kept_runs.keep_checkpoints([spec], place, runs) == []
    ends = place / spec.name, checkpoint_at(runs.checkpoints(spec))
    stored, full = (build.load(path).model.state_dict() for path in ends)
    assert all(torch.equal(stored[name], full[name].half().float()) for name in full)
    assert [p.name for p in place.iterdir()] == [spec.name]


def test_four_runs_on_one_base_are_kept_and_found_by_their_cells(tmp_path: Path) -> None:
    specs = kept_runs.chosen()
    assert len({spec.name for spec in specs}) == 4 and {spec.base for spec in specs} == {"two-form-5"}
    assert kept_runs.kept(tmp_path) == {}
    (tmp_path / specs[1].name).mkdir()
    assert kept_runs.kept(tmp_path) == {"rft direct": (specs[1], tmp_path / specs[1].name)}
