"""What the first notebooks show: counts and shares by hand, and checks that can fail."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from swapping import swap

from helpers.errors import UserError
from helpers.model import build, evaluate, score
from helpers.show import lessons, making
from helpers.stats.intervals import wilson
from helpers.train import pretrain
from helpers.train.pretrain import Recipe
from helpers.world import battery, puzzles
from helpers.world.pictures import Picture
from helpers.world.questions import PriorSample, Question


def test_chance_by_counting_agrees_with_the_formula():
    for rows, cols in [(1, 2), (1, 3), (2, 2)]:
        for solved in (True, False):
            spec = puzzles.PuzzleSpec(rows, cols, solved_allowed=solved)
            hit, exact = lessons.count_chance(spec)
            assert math.isclose(hit, spec.chance_hit) and math.isclose(exact, spec.chance_exact)


def test_chance_table_does_not_count_what_is_too_much():
    table = lessons.chance_table([(2, 2), (3, 3)]).set_index("shape")
    assert table.loc["2 x 2", "hit rate, counted"] == "0.2514"
    assert table.loc["3 x 3", "hit rate, counted"] == "too many"


def test_reward_landscape_of_four_tiles():
    table = lessons.reward_table((2, 1, 4, 3))
    assert table["hit"].value_counts().to_dict() == {0.0: 9, 0.25: 8, 0.5: 6, 1.0: 1}
    assert table.loc[table["answer"] == "2 1 4 3", "total"].item() == 3.0
    figure = lessons.reward_landscape(table)
    assert sum(frame["placements"].sum() for frame in figure.jigsaw_drawn) == 48


def test_boards_come_with_their_answers_row_by_row():
    picture = Picture(Image.radial_gradient("L").convert("RGB"), "rings")
    images, titles = lessons.boards([picture], [(2, 3)], size=48)
    truth = puzzles.shuffle(puzzles.PuzzleSpec(2, 3, size=48), 0)
    assert images[0].size == (48, 48)
    assert titles == [f"rings, 2 x 3\n{' '.join(map(str, truth[:3]))} / {' '.join(map(str, truth[3:]))}"]
    assert lessons.is_lossless([picture], [(2, 3)], 48)["restored exactly"].item() == 3


def test_shares_count_invalid_answers_in_the_denominator():
    texts = ["<think>a</think><answer>2 1</answer>"] * 3 + ["2 1"]
    found = lessons.answers(texts, n=2)
    assert found["reason"].tolist() == ["ok"] * 3 + ["no answer"] and found["think"].tolist() == ["a"] * 3 + [""]
    shares = lessons.placement_shares(found, n=2)
    assert shares.to_dict("list") == {"placement": ["2 1", "1 2"], "share": [0.75, 0.0]}


def battery_rows(score: float) -> pd.DataFrame:
    rows = [(task, "score", score, 10) for task in battery.battery_tasks()]
    return pd.DataFrame(rows, columns=["task", "measure", "value", "n"])


def test_verdicts_follow_the_numbers(monkeypatch):
    swap(monkeypatch, evaluate, "likelihood_chance", lambda task: 0.25)
    swap(monkeypatch, battery, "LEFT_OUT", ())  # all kinds learned
    names = [f"{k}" for k in range(24)]
    shares = pd.DataFrame({"placement": names, "share": [0.05] * 12 + [0.01] * 12})
    kinds, chance = pd.DataFrame({"kind": ["all"], "score": [0.9]}), wilson(2, 46)
    good = lessons.verdicts(lessons.battery_table(battery_rows(0.9)), kinds, chance, shares)
    assert good["verdict"].tolist() == ["met", "not met", "met", "met", "met", "met"]
    poor = lessons.battery_table(battery_rows(0.5))
    bad = lessons.verdicts(poor, kinds.assign(score=0.8), wilson(30, 46), shares.assign(share=0.02))
    assert bad["verdict"].tolist() == ["not met"] * 5 + ["met"]


def test_kinds_of_easy_vqa_are_scored_beside_their_majority(monkeypatch):
    truth = ["yes", "yes", "no", "circle", "red", "red"]
    samples = [
        PriorSample(np.zeros((2, 2, 3)), Question("easy_vqa", "?" * k, a, "", "word")) for k, a in enumerate(truth)
    ]
    said = ["yes", "no", "no", "circle", "red", "blue"]
    texts = [[f"<think>x</think><answer>{answer}</answer>"] for answer in said]
    swap(monkeypatch, score, "complete", lambda model, processor, prompts: texts)
    table = lessons.kind_table(None, None, samples).set_index("kind")
    assert table["questions"].to_dict() == {"all": 6, "yes or no": 3, "shape": 1, "colour": 2}
    assert table["score"].to_dict() == {"all": 4 / 6, "yes or no": 2 / 3, "shape": 1.0, "colour": 0.5}
    assert table.loc["yes or no", ["majority answer", "majority score"]].tolist() == ["yes", 2 / 3]
    assert table.loc["colour", "high"] == wilson(1, 2).high


def test_battery_table_refuses_a_missing_task():
    with pytest.raises(UserError, match="easy_vqa"):
        lessons.battery_table(battery_rows(0.5).query("task != 'easy_vqa'"))


def test_imports_are_found_inside_functions(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "from helpers.show import style\ndef f():\n    from helpers.world.puzzles import cut\n    import json\n"
    )
    assert making.imports_of([file]) == {"show", "show.style", "world.puzzles", "world.puzzles.cut"}


SHORT = Recipe(eye_steps=2, eye_pictures=4, steps=4, practice=2, pictures=3, questions=2, naming=1, warmup=2)


def test_phases_by_hand():
    assert making.phases(SHORT).to_dict("list") == {
        "phase": ["eyes", "words", "practice"],
        "first": [0, 2, 6],
        "steps": [2, 4, 2],
        "pictures": [8, 12, 6],
        "questions": [0, 24, 12],
    }


def test_the_rate_starts_anew_where_a_phase_begins():
    recipe = Recipe()
    for phase in making.phases(recipe).itertuples():
        rates = [pretrain.rate_at(recipe, phase.first + k) for k in range(recipe.warmup)]
        assert rates == sorted(rates) and rates[0] == pytest.approx(recipe.learning_rate / recipe.warmup)
        assert pretrain.rate_at(recipe, phase.first + phase.steps // 2) == recipe.learning_rate
        assert pretrain.rate_at(recipe, phase.first + phase.steps // 2 + 1) < recipe.learning_rate


def test_prompts_are_spread_over_the_steps_asked_for():
    found = making.pretraining_prompts(SHORT, 4, range(1, 5))
    places = [(1, 0), (2, 1), (3, 2), (4, 0)]
    assert found == [q for step, slot in places for q in pretrain.pretraining_sample(SHORT, step, slot)[1]]
    recipe = Recipe(pictures=3)  # more pictures than steps: other pictures of the same step
    found = making.pretraining_prompts(recipe, 6, range(2))
    assert found == [q for k in range(6) for q in pretrain.pretraining_sample(recipe, k // 3, k % 3)[1]]
    assert {q.task for q in found} <= {*pretrain.NAMING_TASKS, "easy_vqa"}


def test_cells_are_named_as_they_lie():
    known = {"colour": np.zeros((4, 4), int), "shape": np.zeros((4, 4), int), "land": np.full((4, 4), 2)}
    known["colour"][0, 1], known["shape"][0, 1] = 1, 4  # the first is "nothing of the sort"
    known["land"][3, 0] = -100
    table = making.cell_table(known, ("colour", "shape", "land", "digit"))
    assert table.shape == (4, 4) and table.loc[1, 2] == "red cross ground" and table.loc[4, 1] == ""
    assert (table.drop(index=[1, 4]) == "ground").all(axis=None)


@pytest.fixture
def pretrained(tiny, monkeypatch, tmp_path: Path) -> Path:
    """A short pretraining of the tiny model, at a rate that hardly changes anything after the eyes."""
    swap(monkeypatch, pretrain, "new_model", lambda recipe: tiny.load())
    stock = pretrain.rate_at
    swap(monkeypatch, pretrain, "rate_at", lambda recipe, k: stock(recipe, k) * (1 if k < recipe.eye_steps else 1e-6))
    pretrain.pretrain(SHORT, tmp_path)
    return tmp_path


def test_a_rebuild_takes_the_logged_steps(pretrained):
    log = making.training_log(pretrained / "training_log.csv")
    finished = build.load(pretrained / "model")
    live = pd.concat([making.rebuild(SHORT, 2), making.rebuild(SHORT, 2, finished[0])])
    assert live["step"].tolist() == [0, 1, 2, 3] and list(live.columns) == making.LOG_COLUMNS
    for name in ("loss", "grad_norm"):
        assert live[name].tolist() == pytest.approx(log[name][:4].tolist(), rel=1e-4), name
    last = making.last_losses(SHORT, 3, finished)
    assert last["step"].tolist() == [5, 6, 7]
    assert last["loss"].tolist() == pytest.approx(log["loss"][5:].tolist(), rel=1e-3)


def test_the_shipped_log_is_of_this_recipe():
    recipe, log = Recipe(), making.training_log()
    assert log["step"].tolist() == list(range(recipe.eye_steps + recipe.steps + recipe.practice))


def test_the_shipped_weights_are_those_that_the_log_ends_with():
    recipe, log = Recipe(), making.training_log()
    last = making.last_losses(recipe, 1, build.load()).merge(log, on="step", suffixes=("", "_logged"))
    assert len(last) == 1 and last["loss"].tolist() == pytest.approx(last["loss_logged"].tolist(), rel=1e-2)


@pytest.mark.parametrize("source", ["shipped", "computed now"])
def test_losses_are_drawn_by_phase(source):
    log = pd.DataFrame({"step": range(8), "loss": [16.0, 15.0, 12.0, 11.0, 1.0, 0.5, 0.7, 0.4]})
    live = log if source == "computed now" else log[:1]
    fig = making.loss_curves(live, log if source == "shipped" else None, SHORT)
    drawn = pd.concat(fig.jigsaw_drawn)
    assert list(drawn.columns) == ["source", "phase", "step", "loss"]
    part = drawn[drawn["source"] == source]
    assert part["phase"].tolist() == ["eyes"] * 2 + ["words"] * 4 + ["practice"] * 2
    assert part["loss"].tolist() == log["loss"].tolist()
    lines = [{ln.get_label(): ln for ln in ax.get_lines()}[source].get_xydata().tolist() for ax in fig.axes]
    assert lines == [log[:2].to_numpy().tolist(), log[2:].to_numpy().tolist()]


def test_training_log_is_optional_but_must_be_whole(tmp_path):
    path = tmp_path / "log.csv"
    assert making.training_log(path) is None
    path.write_text("step,loss\n0,6.5\n")
    with pytest.raises(UserError, match="grad_norm"):
        making.training_log(path)
    path.write_text("step,loss,grad_norm,seconds,more\n0,6.5,1,0.3,x\n")
    assert making.training_log(path).to_dict("list") == {
        "step": [0],
        "loss": [6.5],
        "grad_norm": [1],
        "seconds": [0.3],
    }


def test_map_lists_the_numbered_notebooks_with_their_headings_and_times(tmp_path):
    cell = {"cells": [{"source": "# Why <so>?\n\n**Time and cost.** Ten minutes\nto read. No network."}]}
    for name in ("00_why", "A1_how", "index"):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(cell))
    rows = lessons.notebook_map(tmp_path).data.split("<tr>")[2:]
    assert ['href="00_why.ipynb"' in rows[0], 'href="A1_how.ipynb"' in rows[1], len(rows)] == [True, True, 2]
    assert all("Why &lt;so&gt;?" in row and ">Ten minutes to read<" in row for row in rows)


def test_every_numbered_notebook_says_its_time():
    rows = lessons.notebook_map().data.split("<tr>")[2:]
    assert rows and all(re.search(r">[A-Z][^<]+ to read[^<]*</td></tr>", row) for row in rows)
