"""The cells of the study on several bases: what they run, under which names, and what is published of them once."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rows import evaluation
from swapping import swap

from helpers.errors import UserError
from helpers.measure import kept
from helpers.model.processor import load_processor
from helpers.study import cells, published
from helpers.study.arms import get_arm
from helpers.study.fixed import claims_text
from helpers.study.profiles import FAIR
from helpers.study.records import Run, RunStore
from helpers.study.spec import RunSpec
from helpers.train.corpora import expert_completions
from helpers.verdicts import claims
from helpers.world.boards import training_boards
from helpers.world.puzzles import PuzzleSpec


def test_pilots_are_never_reported_and_twins_are_among_the_reported() -> None:
    assert not set(cells.PILOTS) & set(cells.REPORTED) and len(cells.REPORTED) >= 6
    assert set(cells.TWINS) < set(cells.REPORTED) and len(cells.TWINS) == 3


@pytest.mark.parametrize("name", cells.CELLS)
def test_a_cell_differs_between_bases_in_nothing_but_base_seed_and_source(name: str) -> None:
    cell = cells.get_cell(name)
    first, second = cell.specs(3), cell.specs(4)
    for one, other in zip(first, second, strict=True):
        apart = {k for k, v in one.to_dict().items() if other.to_dict()[k] != v}
        assert apart == {"base", "seed"} | ({"source"} if one.source else set()) | ({"extra"} if one.after else set())
        assert (one.base, one.seed) == (f"{cell.kind}-3", 3) and one.asked == cell.asked
    assert [spec.learning_rate for spec in first] == list(cell.rates) == sorted(cell.rates, reverse=True)


def test_slower_runs_may_take_as_many_more_steps_as_they_are_slower() -> None:
    for cell in cells.CELLS.values():
        given = [spec.steps * spec.learning_rate for spec in cell.specs(3)]
        assert all(value == pytest.approx(given[0], rel=0.01) for value in given)


def test_a_rate_that_is_added_to_a_front_changes_no_run_and_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {spec.name for spec in cells.specs([3])}
    longer = {
        name: replace(cell, rates=(1e-3, *cell.rates, 1e-6)) if len(cell.rates) > 1 else cell
        for name, cell in cells.CELLS.items()
    }
    monkeypatch.setattr(cells, "CELLS", longer)
    assert before < {spec.name for spec in cells.specs([3])}


def test_a_cell_is_run_where_it_is_meant_to_be() -> None:
    last = cells.REPORTED[-1]
    assert {spec.base for spec in cells.specs([last])} == {f"two-form-{last}"}
    run = {cell.name for cell, _ in cells.planned([last]).values()}
    assert run == {name for name, cell in cells.CELLS.items() if cell.headline}
    assert {cell.name for cell, _ in cells.planned([cells.TWINS[0]]).values()} == set(cells.CELLS)


def test_sources_come_before_what_they_feed_and_every_run_has_its_own_name() -> None:
    planned = list(cells.specs([3, 4]))
    names = [spec.name for spec in planned]
    assert len(set(names)) == len(names)
    for place, spec in enumerate(planned):
        assert bool(spec.source) == bool(get_arm(spec.arm).source)
        if spec.source:
            source = planned[names.index(spec.source)]
            assert names.index(spec.source) < place and (source.seed, source.asked) == (spec.seed, spec.asked)
            taught_by_the_twin = spec.arm == "distill-degraded"
            assert source.base == (f"one-form-{spec.seed}" if taught_by_the_twin else spec.base)


def test_the_runs_that_claims_compare_are_what_they_were_when_the_first_of_them_was_reported() -> None:
    """Rates, weights, boards and steps decide a claim as its threshold does: a change is to be told beside the claims.

    `UPDATE_GOLDEN=1` stores them anew.
    """
    now = {name: [spec.name for spec in cells.get_cell(name).specs(3)] for name in cells.HEADLINE}
    path = Path(__file__).parent / "golden" / "headline_runs.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(now, indent=1) + "\n")
    assert json.loads(path.read_text()) == now


def test_a_harder_puzzle_has_its_own_boards_goal_and_levers() -> None:
    harder = {name: cell.specs(3)[0] for name, cell in cells.CELLS.items() if cell.grid == "3x3"}
    assert {"sft-answer direct, 3x3", "rft direct, 3x3", "rft direct, 3x3, curriculum"} < set(harder)
    for name, spec in harder.items():
        assert (spec.rows, spec.cols, spec.size) == (3, 3, 96) and "3x3" in name and cells.get_cell(name).stems[2:]
        assert spec.settings["until"] == spec.mark == 0.5
    plain, staged = (harder[name] for name in ("rft direct, 3x3", "rft direct, 3x3, curriculum"))
    assert plain.easier == () and {**plain.settings, "curriculum": "2x2@96 2x3@96"} == staged.settings
    assert (staged.group_size, cells.get_cell("rft direct").at(3, 2e-4).group_size) == (32, FAIR.group_size)
    others = [spec for spec in cells.specs([3]) if spec.name not in {s.name for s in harder.values()}]
    assert {(s.rows, s.cols, s.size) for s in others if s.mark == 0.7} == {(2, 2, 64)}


def test_what_a_teacher_says_of_nine_tiles_fits_the_room_of_its_run() -> None:
    spec, tokenizer = cells.get_cell("sft-expert sentences, 3x3").specs(3)[0], load_processor().tokenizer
    texts = expert_completions(training_boards(PuzzleSpec(spec.rows, spec.cols, spec.size), 40, 3))
    # the tokens of a base of the study are a few more than those of the shipped one
    assert 1.1 * max(len(tokenizer(text)["input_ids"]) for text in texts) < spec.max_completion_length


def test_an_unknown_cell_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="there is no cell 'rft loudly': choose one of base plain"):
        list(cells.specs([3], ["rft loudly"]))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """Runs of the study and their published records, in a folder of the test's own."""
    made = RunStore(tmp_path / "runs")
    swap(monkeypatch, published, "store", lambda profile: made)
    monkeypatch.setattr(cells, "PUBLISHED", tmp_path / "records")
    return made


def note(store: RunStore, spec: RunSpec) -> Run:
    """A run with one evaluation, unfinished."""
    run = store.start(spec)
    run.append("evaluations", [evaluation(spec.name, 1, "puzzle", "exact", 0.5)])
    return run


def test_a_run_is_published_once_and_read_from_there_where_nothing_was_trained(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = cells.get_cell("sft-answer direct").specs(3)[:2]
    for spec in (first, second):
        note(store, spec).finish()
    made = cells.tables([3])["evaluations"]
    place = cells.publish_run(first)
    assert place == tmp_path / "records/bases/two-form-3" / first.name
    assert set(published.published_specs(place)) == {first.name} and cells.publish_run(first) is None
    cells.publish_run(second)
    swap(monkeypatch, published, "store", lambda profile: RunStore(tmp_path / "nothing"))
    again = cells.tables([3, 4])
    pd.testing.assert_frame_equal(again["evaluations"], made)
    assert len(made) == 2 and again["outcomes"].empty and "right" in again["outcomes"]


def test_pilots_are_known_by_cell_whatever_their_weight_and_kept_beside_older_ones(
    store: RunStore, tmp_path: Path
) -> None:
    strong = replace(cells.get_cell("rft direct"), beta=0.9)
    specs = [strong.at(2, 6e-5), cells.get_cell("rft direct").at(3, 6e-5), cells.get_cell("rft direct").at(2, 6e-5)]
    runs = [note(store, spec) for spec in specs]
    for run in runs[:2]:
        run.finish()
    assert cells.tuning() == {specs[0].name: (strong, specs[0])}
    path = tmp_path / "pilots.csv"
    kept.keep_tuned(path)
    pd.DataFrame([{"run": "rft-1-older", "base": "1", "beta": 0.1}, *pd.read_csv(path).to_dict("records")]).to_csv(path)
    kept.keep_tuned(path)
    found = pd.read_csv(path)
    assert found["run"].tolist() == ["rft-1-older", specs[0].name] and found["beta"].tolist() == [0.1, 0.9]


def test_the_base_is_asked_in_every_form() -> None:
    bases = [spec for spec in cells.specs([3]) if spec.arm == "base"]
    assert [spec.asked for spec in bases] == ["plain", "think", "direct", "sentences"]
    assert all(spec.steps == 0 and not spec.settings for spec in bases) and FAIR.ways


def test_what_is_said_of_the_pilots_is_what_they_gave() -> None:
    front, text = pd.read_csv(kept.TUNED), " ".join(claims_text().replace("\n# ", " ").split())
    assert set(front["base"]) == set(cells.PILOTS) and front["arrived"].all()
    assert "at one rate, SFT lost about 0.03 more than RFT with its KL term on both" in text
    assert "three weights of the term were tried: the middle one, 0.36, kept most for RFT and for SFT, if by" in text
    assert "and SFT with it lost no more than RFT" in text
    once = front[front["rate"] == cells.SOURCE_RATE].set_index("base")
    by_cell = {name: rows[["beta", "drop"]] for name, rows in once.groupby("cell")}
    rft, weight = by_cell["rft direct"], cells.get_cell("rft direct").beta
    apart = by_cell["sft-answer direct"]["drop"] - rft[rft["beta"] == weight]["drop"]
    assert len(apart) == 2 and apart.between(0.025, 0.04).all()
    for name in ("rft direct", "sft-kl direct"):
        drops = by_cell[name].loc[2].set_index("beta")["drop"]
        assert sorted(drops.index) == [0.12, 0.36, 1.0] and drops.idxmin() == cells.get_cell(name).beta
        assert drops.max() - drops.min() < 0.03  # by little
    known = {"rft think": 0.02, "sft-voice think": 0.03, "sft-answer plain": 0.28, "sft-expert sentences": 0.36}
    assert {name: round(by_cell[name]["drop"].loc[2].mean(), 2) for name in known} == known
    assert "rft think lost 0.02, sft-voice think 0.03, sft-answer plain 0.28, sft-expert sentences 0.36." in text
    notes = {claim.id: claim.notes for claim in claims.all_claims("primary")}
    pairs = {"paper-pairing-rft-keeps": ("sft-answer plain", "rft think")}
    pairs |= {"outside-words-cost": ("sft-expert sentences", "sft-voice think")}
    for claim, (first, second) in pairs.items():
        gave = by_cell[first]["drop"].loc[2] - by_cell[second]["drop"].loc[2]
        assert f"on one base gave {gave:.2f} at one rate" in " ".join(notes[claim].split())
    best = [by_cell[name].loc[2].set_index("beta")["drop"].min() for name in ("sft-kl direct", "rft direct")]
    assert best[0] <= best[1]
