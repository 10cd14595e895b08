"""How probable a base finds what cells learn to write, asked as they ask, and what is said and drawn of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from rows import front_run

from helpers.measure import influence, linear, own_words
from helpers.model import processor
from helpers.model.build import load
from helpers.model.score import completion_logps
from helpers.show import own_words as show
from helpers.show.save import drawn
from helpers.study import cells
from helpers.verdicts import told_bases
from helpers.world import seeds
from helpers.world.boards import training_boards

STEM = 5


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return own_words.perplexities(STEM, 6)


def test_bare_answers_are_probable_where_they_are_asked_for_and_strange_where_they_are_not(table) -> None:
    rows = table[table["kind"] == "two-form"].set_index("cell")
    asked, unasked = (rows.loc[f"sft-answer {form}", "perplexity"] for form in ("direct", "plain"))
    # a placement of four is one of 24 and nothing else is open: 1/24 over its ten tokens
    assert rows.loc["sft-answer direct", "tokens"] == 10 and asked == pytest.approx(24**0.1, rel=0.03)
    assert (
        unasked > 2 * asked and (rows["low"] <= rows["perplexity"]).all() and (rows["perplexity"] <= rows["high"]).all()
    )
    assert set(rows.index) >= set(own_words.SFT)


def test_a_perplexity_is_the_bases_own_on_the_boards_and_prompts_of_the_run(table) -> None:
    spec = cells.get_cell("sft-answer direct").at(STEM, cells.SOURCE_RATE)
    boards = training_boards(spec.puzzle, 6, STEM).asking("direct", seeds.training(STEM))
    texts = [[f"<answer>{' '.join(map(str, placement))}</answer>"] for placement in boards.placements.tolist()]
    scored = completion_logps(*load(spec.base), boards.prompted(), texts)
    expected = math.exp(-np.mean([float(own.mean()) for (own,) in scored]))
    assert table.set_index(["cell", "kind"]).loc[("sft-answer direct", "two-form"), "perplexity"] == pytest.approx(
        expected, rel=1e-5
    )


def test_a_base_that_is_not_kept_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_words, "BASES", {"shipped": processor.BASES["shipped"]})
    assert own_words.perplexities(STEM, 6).empty and not own_words.is_whole()


def test_what_is_told_is_whole_once_every_base_and_every_run_of_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_words, "BASES", {f"{kind}-{stem}": "" for kind in own_words.KINDS for stem in cells.TWINS})
    lacking = own_words.runs_read()[-1]
    for there in (True, False):
        monkeypatch.setattr(cells, "is_published", lambda spec, there=there: there or spec != lacking)
        assert own_words.is_whole() == there
    names = {name for name, cell in cells.CELLS.items() if cell.kind == "one-form" and cell.arm != "base"}
    read = {spec.name for spec in own_words.runs_read()}
    assert all(cells.get_cell(name).at(3, cells.SOURCE_RATE).name in read for name in names)


def made(**drops: float) -> pd.DataFrame:
    """Perplexities of cells, the first 2.0, the next 4.0 and so on, with drops as a front has them."""
    rows = [(c, "two-form", 3, 6, 10.0, -7.0, 2.0**k, 2.0**k, 2.0**k) for k, c in enumerate(drops, start=1)]
    front = pd.DataFrame([front_run(cell, "3", cells.SOURCE_RATE, drop - 0.005) for cell, drop in drops.items()])
    return own_words.beside_drops(pd.DataFrame(rows, columns=own_words.COLUMNS), front)


def test_drops_stand_beside_the_cell_and_the_kind_of_base_that_they_are_of() -> None:
    known = made(**{"sft-answer direct": 0.2, "rft direct": 0.1})
    assert known["drop"].tolist() == pytest.approx([0.2, 0.1])
    twin = known.assign(kind="one-form").drop(columns="drop")
    front = pd.DataFrame([front_run("sft-answer direct, one-form", "3", cells.SOURCE_RATE, 0.395)])
    assert own_words.beside_drops(twin, front)["drop"].tolist() == pytest.approx([0.4, math.nan], nan_ok=True)


def test_what_is_said_follows_from_the_numbers() -> None:
    drops = {"sft-answer direct": 0.1, "rft direct": 0.2, "sft-voice think": 0.3, "sft-answer plain": 0.4}
    said = told_bases.words_and_drops(made(**drops))
    assert said[0] == "sft-answer direct, two-form: perplexity 2.00; lost 0.10 (1 base)."
    assert said[-1] == "Rank correlation of perplexity and drop over 4 cells: 1.00."
    few = told_bases.words_and_drops(made(**{"rft direct": 0.2, "sft-voice think": math.nan}))
    assert few[1] == "sft-voice think, two-form: perplexity 4.00."
    assert few[-1] == "Too few cells have a drop to say whether the two go together."


def test_every_point_is_drawn_and_a_cell_without_a_drop_stands_at_the_left_alone() -> None:
    fig = show.perplexity_and_drop(made(**{"sft-answer direct": 0.1, "rft direct": math.nan}))
    left, right = fig.axes
    assert [round(float(line.get_xdata()[0]), 6) for line in right.lines] == [2.0]
    assert {round(float(x), 6) for line in left.lines for x in line.get_xdata() if line.get_marker() in "^s"} >= {
        2.0,
        4.0,
    }
    assert (
        drawn(fig)["drop"].tolist()[1] == "" and "sft-answer direct 2 under two-form bases, drop 0.10" in fig.jigsaw_alt
    )


def test_gold_answers_are_asked_for_and_written_in_each_form() -> None:
    samples = own_words.gold_in_forms(("colour",), (0, 1))
    opens = {"asked: direct": "<answer>", "asked: think": "<think>", "asked: sentences": "<think>"}
    assert [(sample.kind, sample.completion.startswith(opens[sample.kind])) for sample in samples] == [
        (kind, True) for kind in opens for _ in range(2)
    ]
    by_kind = {kind: [s for s in samples if s.kind == kind] for kind in opens}
    words = [len(by_kind[kind][0].completion.split()) for kind in opens]
    assert words[0] < words[1] < words[2]  # a teacher takes the most


def test_one_update_on_a_text_makes_it_more_probable_and_is_taken_for_every_cell_and_form() -> None:
    rows = own_words.one_step("two-form", STEM, 2, 2, (0,))
    assert set(rows["corpus"]) == set(own_words.SFT) and len(rows) == 2 * len(own_words.SFT) * len(own_words.FORMS)
    base, corpora = own_words.texts_of("two-form", STEM, 4)
    weights = linear.weights_of(base.model)
    part = linear.scored(base, list(corpora["sft-answer plain"]))
    learned = influence.batch_gradients({"own": [part]}, weights)
    assert influence.influence(learned, part, weights, [influence.Step("sgd", 0.01)])["change"].mean() > 0


def test_what_is_said_of_one_step_names_what_its_interval_tells_from_nothing() -> None:
    rows = [("SGD", "sft-answer plain", kind, -1.0, -2.0, high) for kind, high in (("a", -0.5), ("b", 0.5))]
    rows += [("SGD", "sft-voice think", "a", 1.0, 0.5, 2.0)]
    table = pd.DataFrame(rows, columns=["step", "corpus", "kind", "mean", "low", "high"])
    assert told_bases.one_step_words(table) == [
        "SGD: lowered by sft-answer plain (a); raised by sft-voice think (a); 1 of 3 undecided."
    ]
