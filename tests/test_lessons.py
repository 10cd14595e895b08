"""What the first notebooks show: counts and shares by hand, and checks that can fail."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from PIL import Image

from helpers import lessons, prior_tasks, puzzles
from helpers.errors import UserError
from helpers.pictures import Picture


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
    rows = [(task, "score", score, 10) for task in prior_tasks.battery_tasks()]
    return pd.DataFrame(rows, columns=["task", "measure", "value", "n"])


def test_verdicts_follow_the_numbers(monkeypatch):
    monkeypatch.setattr("helpers.scoring.likelihood_chance", lambda task: 0.25)
    monkeypatch.setattr("helpers.prior_tasks.LEFT_OUT", ())  # all kinds learned
    names = [f"{k}" for k in range(24)]
    shares = pd.DataFrame({"placement": names, "share": [0.05] * 12 + [0.01] * 12})
    good = lessons.verdicts(lessons.battery_table(battery_rows(0.9)), shares)
    assert good["verdict"].tolist() == ["met", "not met", "met", "met", "met"]
    bad = lessons.verdicts(lessons.battery_table(battery_rows(0.5)), shares.assign(share=0.02))
    assert bad["verdict"].tolist() == ["not met"] * 4 + ["met"]


def test_battery_table_refuses_a_missing_task():
    with pytest.raises(UserError, match="easy_vqa"):
        lessons.battery_table(battery_rows(0.5).query("task != 'easy_vqa'"))


def test_imports_are_found_inside_functions(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from helpers import figures\ndef f():\n    from helpers.puzzles import cut\n    import json\n")
    assert lessons.imports_of([file]) == {"figures", "puzzles"}


def test_training_log_is_optional_but_must_be_whole(tmp_path):
    path = tmp_path / "log.csv"
    assert lessons.training_log(path) is None
    path.write_text("step,loss\n0,6.5\n")
    with pytest.raises(UserError, match="grad_norm"):
        lessons.training_log(path)
    path.write_text("step,loss,grad_norm,seconds,more\n0,6.5,1,0.3,x\n")
    assert lessons.training_log(path).to_dict("list") == {
        "step": [0],
        "loss": [6.5],
        "grad_norm": [1],
        "seconds": [0.3],
    }


def test_map_lists_notebooks_with_their_headings():
    shown = lessons.notebook_map().data
    assert 'href="00_the_question.ipynb"' in shown and "The question" in shown
