"""The token view: each text under each model, token by token, as it is scored one by one."""

from __future__ import annotations

import pytest

from helpers.measure.kept_runs import STEM, kept
from helpers.measure.perplexity import token_view
from helpers.model import build
from helpers.play import tokens
from helpers.play.page import View
from helpers.study import cells
from helpers.study.cells import base_name
from helpers.study.spec import RunSpec
from helpers.train.corpora import answer
from helpers.world import seeds
from helpers.world.boards import Corpus, make_boards


@pytest.fixture(scope="module")
def view() -> View:
    return tokens.token_heat(1)


def test_every_kept_run_stands_beside_the_base(view) -> None:
    assert view.data["models"] == ["base", *kept()]
    for text in view.data["texts"]:
        assert {len(logps) for logps in text["logps"]} == {len(text["tokens"])} and max(map(max, text["logps"])) <= 0
    assert len(view.page()) < 500_000


def test_numbers_are_those_of_a_text_scored_by_itself(view) -> None:
    base, samples = tokens._texts(1)
    spec, folder = kept()["rft direct"]
    assert spec.base == base_name("two-form", STEM)
    for i in (0, 2, len(samples) - 1):
        only = Corpus("one", [samples[i].prompt], [samples[i].completion])
        for name, model in {"base": base, "rft direct": build.load(str(folder))}.items():
            _, logps = token_view(model, only, 0)
            own = view.data["texts"][i]["logps"][view.data["models"].index(name)]
            assert own == pytest.approx(logps, rel=1e-3, abs=1e-4)


def test_kinds_are_texts_that_cells_learn_from_and_old_answers_in_each_form(view) -> None:
    kinds = [text["kind"] for text in view.data["texts"]]
    assert list(dict.fromkeys(kinds))[:4] == list(tokens.WRITTEN.values())
    assert set(tokens.OLD.values()) <= set(kinds) and "correct rollouts of rft direct" in kinds
    pictures = {text["picture"] for text in view.data["texts"]}
    assert pictures == set(range(len(view.data["pictures"]))) and len(set(view.data["pictures"])) == len(pictures)


def test_rollouts_are_correct_and_late_and_on_boards_of_their_own() -> None:
    found = tokens.correct_rollouts("rft direct", 4)
    assert len({own.prompt.pixels.tobytes() for own in found}) == 4
    spec = cells.get_cell("rft direct").at(STEM, cells.SOURCE_RATE)
    rows = cells.tables_of([spec], ["completions"])["completions"]
    late = rows[rows["step"] > rows["step"].max() * 2 / 3]["puzzle_id"].drop_duplicates()
    boards = make_boards(spec.puzzle, late.tolist(), seeds.training(spec.seed))
    true = dict(zip([pixels.tobytes() for pixels in boards.pixels], boards.placements.tolist(), strict=True))
    assert [own.completion for own in found] == [answer(true[own.prompt.pixels.tobytes()]) for own in found]
    unrun = next(name for name, cell in cells.CELLS.items() if STEM in cell.stems and not cells.is_published(at(name)))
    assert tokens.correct_rollouts(unrun, 4) == []


def at(cell: str) -> RunSpec:
    """The run of a cell that the view reads."""
    return cells.get_cell(cell).at(STEM, cells.SOURCE_RATE)
