"""The boards that readers solve, what the models said to them, and the panel for a picture of one's own."""

from __future__ import annotations

import base64
import datetime
import io
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.errors import UserError
from helpers.measure import kept_runs
from helpers.play import solve, tries, try_models
from helpers.play.tries import PUZZLE, Attempt, Solver
from helpers.world import answers, puzzles
from helpers.world.puzzles import PuzzleSpec


def pixels(address: str) -> np.ndarray:
    """What a data address shows."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


@pytest.fixture(scope="module")
def data() -> dict:
    return dict(solve.game().data)


def test_no_board_starts_as_its_own_inverse(data) -> None:
    for source in data["sources"]:
        for name, boards in source["boards"].items():
            for board in boards:
                assert puzzles.invert(board["placement"]) != tuple(board["placement"])
                assert len(board["placement"]) == data["grids"][name]["rows"] * data["grids"][name]["cols"]


def test_drawn_boards_are_held_out_ones_in_their_order() -> None:
    boards = tries.telling_boards(PUZZLE, 3)
    whole = tries.held_out_boards(PUZZLE, 30)
    numbers = [i for i, p in enumerate(whole.placements.tolist()) if puzzles.invert(p) != tuple(p)][:3]
    assert np.array_equal(boards.pixels, whole.pixels[numbers])


@pytest.mark.parametrize("name", solve.GRIDS)
def test_a_drawn_board_cut_from_the_shown_picture_is_the_board(data, name) -> None:
    drawn, spec = data["sources"][0], solve.GRIDS[name]
    boards = tries.telling_boards(spec, len(drawn["boards"][name]))
    assert len(boards) == (24 if name == "2x2" else 8)
    listed = drawn["boards"][name][-1]
    shown = pixels(drawn["pictures"][listed["picture"]]["image"])[..., :3]
    again = puzzles.draw_boards(shown[None], spec, np.array([listed["placement"]]))[0]
    assert np.abs(again.astype(int) - boards.pixels[-1]).mean() < 6  # a page keeps pictures a little rounded


def test_chance_is_that_of_the_placements_that_can_occur(data) -> None:
    assert data["grids"]["2x2"] == {
        "rows": 2,
        "cols": 2,
        "placements": 23,
        "hit": PuzzleSpec().chance_hit,
        "exact": 1 / 23,
    }


def test_photographs_say_whose_they_are_and_all_have_a_licence(data) -> None:
    words = [picture["words"] for picture in data["sources"][1]["pictures"]]
    assert "a cat (Stefan van der Walt, CC0)" in words and not any("not stated" in said for said in words)
    assert len(data["sources"][1]["boards"]["2x2"]) == 2 * len(words)


def test_every_solver_has_an_attempt_at_every_board_of_two_by_two(data) -> None:
    for source in data["sources"]:
        assert {len(board["tries"]) for board in source["boards"]["2x2"]} == {len(data["solvers"])}
    assert len(solve.game().page()) < 400_000


def test_terms_are_those_of_what_was_said(data) -> None:
    for board in data["sources"][0]["boards"]["2x2"]:
        for solver, one in zip(data["solvers"], board["tries"], strict=True):
            score = answers.score(one["said"], board["placement"], solver["asked"])
            assert one["terms"] == [score.hit, score.exact, score.format]
            assert one["logp"] <= 0


@pytest.mark.parametrize("bad", [0, 101])
def test_a_number_of_boards_that_cannot_be_shown_is_refused(bad) -> None:
    with pytest.raises(UserError, match=f"{bad} boards cannot be shown: choose 1 to 100"):
        solve.game(bad)


def test_solvers_are_the_base_in_each_form_and_what_is_kept(monkeypatch) -> None:
    ends = {spec.asked: 0 for spec, _ in kept_runs.kept().values()}
    found = tries.solvers()
    assert [s.asked for s in found if s.arm == "base"] == list(ends)
    assert len(found) == len(ends) + len(kept_runs.kept())
    monkeypatch.setattr(tries, "kept", dict)
    assert [(s.name, s.asked) for s in tries.solvers()] == [("base", "direct")]


def test_what_is_published_is_what_the_models_say() -> None:
    boards = tries.telling_boards(PUZZLE, tries.DRAWN)
    for solver in tries.solvers():
        said = tries.published(solver, "drawn", boards)[:4]
        now = tries.attempts(solver, boards.only(range(4)))
        if solver.asked == "direct":  # a think's words hang on the board's wording alone, which `only` keeps too
            assert [one.said for one in now] == [one.said for one in said]
        assert [one.logp for one in now] == pytest.approx([one.logp for one in said], abs=1e-2)


def test_a_model_that_is_not_published_is_tried_on_the_spot(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tries, "TRIES", tmp_path / "none.csv")
    monkeypatch.setattr(tries, "_published", tries._published.__wrapped__)
    monkeypatch.setattr(tries, "attempts", lambda solver, boards: [solver.model] * len(boards))
    boards = tries.telling_boards(PUZZLE, 2)
    assert tries.published(Solver("rft", "direct", "x/rft-9"), "drawn", boards) == ["rft-9"] * 2


def test_publishing_writes_a_row_a_model_and_board(tmp_path, monkeypatch) -> None:
    score = answers.Score(1.0, 1.0, 1.0, "ok")
    monkeypatch.setattr(tries, "attempts", lambda _, boards: [Attempt("a", score, -1 / 3)] * len(boards))
    n = tries.publish_tries(tmp_path / "tries.csv")
    rows = pd.read_csv(tmp_path / "tries.csv")
    assert len(rows) == n == len(tries.solvers()) * (24 + len(tries.photograph_boards()))
    assert rows.columns.tolist() == tries.COLUMNS and set(rows["logp"]) == {-0.3333}


def test_log_prob_is_of_the_true_answer_with_its_end() -> None:
    solver = next(s for s in tries.solvers() if s.arm == "base")
    (one,) = tries.attempts(solver, tries.telling_boards(PUZZLE, 1))
    # the base solves at chance, so the truth is about as probable as any of the 23
    assert math.log(1 / 23) - 1.5 < one.logp < math.log(1 / 23) + 1.5
    assert one.reward == one.score.hit + one.score.exact + one.score.format


def test_two_tiles_have_no_telling_placement() -> None:
    with pytest.raises(UserError, match="take more tiles"):
        tries.telling(PuzzleSpec(1, 2))
    assert tries.is_telling(tries.telling(PUZZLE, 5)) and not tries.is_telling((2, 1, 4, 3))


@pytest.fixture
def panel(monkeypatch) -> try_models.Panel:
    solver, score = Solver("rft", "direct", "x"), answers.Score(0.5, 0.0, 1.0, "ok")
    monkeypatch.setattr(try_models, "solvers", lambda: [solver])
    monkeypatch.setattr(try_models, "attempts", lambda *_: [Attempt("<answer>2 1 4 3</answer>", score, -0.25)])
    return try_models.Panel(Image.new("RGB", (80, 60), "red"))


def upload(panel: try_models.Panel, content: bytes, name: str) -> None:
    now = datetime.datetime.now(tz=datetime.UTC)
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    panel.upload.value = ({**file, "last_modified": now},)


def as_png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "blue").save(stream, "PNG")
    return stream.getvalue()


def test_the_panel_shows_what_models_say_once_they_are_asked(panel) -> None:
    assert panel.table.value == "" and "the answer is" not in panel.board.value
    panel.ask()
    assert "&lt;answer&gt;2 1 4 3&lt;/answer&gt;" in panel.table.value
    assert "0.5 + 0 + 1 = 1.5" in panel.table.value and "✗ wrong" in panel.table.value and "-0.25" in panel.table.value
    assert "the answer is" in panel.board.value and "0 of 1 answers are right" in panel.said.value
    panel.ask()
    assert panel.board.value.count("<figure") == 2


def test_a_picture_of_ones_own_takes_the_place_of_the_last(panel) -> None:
    panel.ask()
    upload(panel, as_png(40, 30), "blue.png")
    assert panel.boards.pixels[0, 0, 0].tolist() == [0, 0, 255]
    assert panel.table.value == "" and "the answer is" not in panel.board.value


@pytest.mark.parametrize("content, said", [(b"no picture", "mine.txt cannot be read"), (as_png(1, 1), "take a bigger")])
def test_a_bad_file_is_told_in_one_sentence(panel, content, said) -> None:
    upload(panel, content, "mine.txt")
    assert said in panel.said.value and "#a33a00" in panel.said.value
    assert panel.boards.pixels[0, 0, 0].tolist() == [255, 0, 0]
