"""A run of the study on several bases: its goal, its marks item by item and in other ways, and its resumes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from swapping import swap
from transformers import TrainerCallback

from helpers.study import cells
from helpers.study.profiles import GRIDS
from helpers.study.records import RunStore, verify
from helpers.study.schema import is_prior
from helpers.study.spec import RunSpec
from helpers.train import exam, few, pace, run
from helpers.train.settings import Settings
from helpers.world import battery, forms, puzzles
from helpers.world.boards import training_boards
from helpers.world.forms import PHRASES

SETTINGS = Settings(puzzle_tests=4, final_tests=4, battery=2, final_battery=2, per_octave=1, dense=2, ways=True)
TASKS = ("lists", "light")
STOCK_SHUFFLE = puzzles.shuffle


@pytest.fixture(autouse=True)
def two_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two prior tasks, one number of samples, and boards that `puzzler` solves at times: goals can be reached."""
    swap(monkeypatch, few, "SHOWN", (8,))
    swap(monkeypatch, battery, "battery_tasks", lambda: TASKS)
    swap(monkeypatch, puzzles, "shuffle", _shuffle)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    training_boards.cache_clear()
    exam.held_out_boards.cache_clear()
    yield
    training_boards.cache_clear()
    exam.held_out_boards.cache_clear()


def _shuffle(spec: puzzles.PuzzleSpec, index: int) -> puzzles.Placement:
    return ((2, 1, 4, 3), (3, 1, 4, 2))[index % 2] if spec.tiles == 4 else STOCK_SHUFFLE(spec, index)


def spec_of(arm: str, folder: Path, steps: int, until: float, **more: object) -> RunSpec:
    extra = (("until", until),)
    own = dict(batch_size=2, group_size=4, size=32, max_completion_length=26, base=str(folder), extra=extra)
    return RunSpec(arm, 1, steps, 3e-3, **(own | more))


def rows(root: Path, spec: RunSpec, table: str) -> pd.DataFrame:
    return pd.read_parquet(RunStore(root).folder(spec) / f"{table}.parquet")


@pytest.mark.parametrize(("arm", "asked"), [("sft-answer", "direct"), ("rft", "think"), ("rft", "direct")])
def test_a_run_until_a_goal_is_marked_item_by_item_in_the_form_that_it_asks_for(
    arm: str, asked: str, puzzler, tmp_path: Path
) -> None:
    spec = spec_of(arm, puzzler.folder, 16, 0.999, asked=asked)
    run.train(spec, RunStore(tmp_path), SETTINGS)
    outcomes, evaluations = rows(tmp_path, spec, "outcomes"), rows(tmp_path, spec, "evaluations")
    assert verify(tmp_path) == []
    own = outcomes[(outcomes["asked"] == asked) & (outcomes["wording"] == "taught") & (outcomes["opening"] == "")]
    own = own[(own["regained"] == 0) & (own["size"] != 96)]
    for row in own.itertuples():
        name = "exact" if row.task == "puzzle" else "score"
        keep = (evaluations["step"] == row.step) & (evaluations["task"] == row.task)
        means = evaluations[keep].set_index("measure")["value"]
        assert (means[name], means["kept"]) == (np.mean(row.right), np.mean(row.kept))
    assert set(own["step"]) == set(evaluations["step"])
    if arm == "rft":
        phrases = PHRASES[asked]
        written = rows(tmp_path, spec, "completions")
        assert all(any(p in text for p in phrases) for text in written["prompt"])
        well_formed = [forms.written_as(asked) == "direct"] * len(written)
        starts = written["completion"].str.startswith("<answer>")
        assert not written["format"][starts != pd.Series(well_formed)].any()


def test_at_its_end_a_run_is_asked_in_every_other_way(puzzler, tmp_path: Path) -> None:
    spec = spec_of("sft-answer", puzzler.folder, 2, 0.999, asked="direct")
    run.train(spec, RunStore(tmp_path), SETTINGS)
    last = rows(tmp_path, spec, "outcomes").query("step == 2 and task == 'lists'")
    ways = set(zip(last["asked"], last["wording"], last["size"], last["opening"], last["regained"], strict=True))
    assert ways == {
        ("direct", "taught", 64, "", 0), ("plain", "taught", 64, "", 0), ("think", "taught", 64, "", 0),
        ("direct", "held out", 64, "", 0), ("direct", "taught", 96, "", 0), ("direct", "taught", 64, "<think>", 0),
        ("direct", "taught", 64, "<answer>", 0), *(("direct", "taught", 64, "", n) for n in few.SHOWN),
    }  # fmt: skip
    chosen = last[last["likely"].notna()]
    assert sorted(chosen["asked"]) == ["direct", "plain", "think"] and set(chosen["regained"]) == {0}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_prior_pictures_are_as_large_as_the_boards_of_the_run() -> None:
    for cell, size in (("rft direct", 64), ("rft direct, 3x3, curriculum", 96)):
        spec = cells.get_cell(cell).at(3, 2e-4)
        assert exam.own_way(spec).size == size and {way.size for way in exam.other_ways(spec)} == {64, 96}


def test_a_run_on_three_by_three_is_examined_on_two_by_two(
    puzzler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = cells.get_cell("rft direct").at(3, 2e-4), cells.get_cell("rft direct, 3x3").at(3, 2e-4)
    assert [exam.transfers(spec) for spec in two] == [{}, {"puzzle 2x2": GRIDS["2x2"]}]
    known = puzzles.shuffle
    swap(monkeypatch, puzzles, "shuffle", lambda spec, i: known(spec, i) if spec.tiles == 4 else tuple(range(9, 0, -1)))
    own = dict(asked="direct", size=96, rows=3, cols=3, max_completion_length=60)
    spec = spec_of("sft-answer", puzzler.folder, 1, 0.999, **own)
    run.train(spec, RunStore(tmp_path), SETTINGS)
    (seen,) = rows(tmp_path, spec, "outcomes").query("task == 'puzzle 2x2'").to_dict("records")
    marks = rows(tmp_path, spec, "evaluations").query("task == 'puzzle 2x2'").set_index("measure")
    assert (seen["step"], seen["size"], seen["asked"], len(seen["right"])) == (1, 64, "direct", 4)
    assert set(marks["step"]) == {1} and marks.loc["exact", "value"] == np.mean(seen["right"])
    tasks = rows(tmp_path, spec, "outcomes").query("task != 'puzzle'")
    assert set(tasks[is_prior(tasks)]["task"]) == set(TASKS)


class Killed(TrainerCallback):
    """Stops a run as a kill would, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            interrupt()


END = 16  # the last step of the runs below: their record is not finished yet where they are killed after it


@pytest.mark.parametrize(
    ("arm", "killed", "boards"),
    [("sft-answer", 9, 64), ("sft-answer", 11, 8), ("sft-answer", END, 64), ("rft", 11, 64)],
)
def test_a_resumed_run_turns_and_ends_where_an_undisturbed_one_does(
    arm: str, killed: int, boards: int, puzzler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "MOVED", -1.0)
    # with 8 boards an epoch has four steps
    spec = spec_of(arm, puzzler.folder, 16, 1e-9, asked="direct", extra=(("until", 1e-9), ("boards", boards)))
    # a goal that is reached at the evaluation after step 8, whatever the model does
    real = exam.evaluate

    def evaluated(engine, step, full):
        found = real(engine, step, full)
        for row in found["evaluations"]:
            if (row["task"], row["measure"]) == ("puzzle", "exact"):
                row["value"] = 0.0 if step < 8 else 1.0
        return found

    swap(monkeypatch, exam, "evaluate", evaluated)
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    run.train(spec, RunStore(straight), SETTINGS)
    stock = run.make_trainer

    def stopped(engine):
        trainer = stock(engine)
        trainer.add_callback(Killed(killed))
        return trainer

    with monkeypatch.context() as patch:
        if killed < END:
            patch.setattr(run, "make_trainer", stopped)
        else:
            patch.setattr(run, "training_minutes", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run.train(spec, RunStore(resumed), SETTINGS)
    run.train(spec, RunStore(resumed), SETTINGS)
    for table in ("evaluations", "outcomes", "metrics"):
        one, other = rows(straight, spec, table), rows(resumed, spec, table)
        if table == "metrics":
            one, other = (
                m[~m["name"].isin(["seconds", "minutes", "step_time"])].reset_index(drop=True) for m in (one, other)
            )
        pd.testing.assert_frame_equal(one, other)
    rates = rows(straight, spec, "metrics").query("name == 'learning_rate'")["value"]
    assert rates.iloc[-1] == 0.0 or rates.iloc[-1] < rates.max()
    assert rows(straight, spec, "evaluations")["step"].max() == END


def test_what_is_shown_again_leaves_no_trace(puzzler) -> None:
    loaded = puzzler.load()
    before = [p.detach().clone() for p in loaded.model.parameters()]
    with few.recovered(loaded, 8, "direct"):
        moved = any(not torch.equal(p, b) for p, b in zip(loaded.model.parameters(), before, strict=True))
    assert moved and all(torch.equal(p, b) for p, b in zip(loaded.model.parameters(), before, strict=True))
    assert all(p.grad is None for p in loaded.model.parameters())


def test_few_samples_are_asked_and_answered_in_the_form_of_the_run(puzzler, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    stock = few.pack_completions
    swap(monkeypatch, few, "pack_completions", lambda p, part: seen.extend(part) or stock(p, part))
    with few.recovered(puzzler.load(), 8, "direct"):
        pass
    assert seen and all(text.startswith("<answer>") for _, (text,) in seen)
    assert all(any(p in prompt.text for p in PHRASES["direct"]) for prompt, _ in seen)


def test_the_base_is_asked_in_every_way_and_nothing_is_shown_to_it(puzzler, tmp_path: Path) -> None:
    spec = replace(spec_of("sft-answer", puzzler.folder, 1, 0.9), arm="base", steps=0, learning_rate=0.0, extra=())
    run.train(spec, RunStore(tmp_path), SETTINGS)
    outcomes = rows(tmp_path, spec, "outcomes")
    assert set(outcomes["asked"]) == {"plain", "think", "direct"} and set(outcomes["regained"]) == {0}
