"""A run that is taught in stages: which boards it meets at which step, how they are judged, and what is refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from swapping import swap
from torch.utils.data import SequentialSampler

from helpers.errors import UserError
from helpers.measure import learned_from
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train import recipes, rows
from helpers.train.corpora import answer
from helpers.train.course import course
from helpers.train.run import make_trainer, prepare, train
from helpers.train.settings import Settings
from helpers.world import answers, battery
from helpers.world.boards import Graded, training_boards
from helpers.world.puzzles import PuzzleSpec, prompt_text

QUICK = Settings(puzzle_tests=3, final_tests=3, battery=2, final_battery=2, per_octave=1)
SMALL = (("curriculum", "1x2@32 1x3@48"), ("stage_share", 0.25))


@pytest.fixture(autouse=True)
def one_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A single prior task: what the battery holds is not the matter here."""
    swap(monkeypatch, battery, "battery_tasks", lambda: ("lists",))
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    training_boards.cache_clear()
    yield
    training_boards.cache_clear()


def taught(arm: str, steps: int = 8, base: object = "shipped", extra: tuple = SMALL, **more: object) -> RunSpec:
    own = dict(batch_size=2, group_size=4, size=32, max_completion_length=26, base=str(base))
    return RunSpec(arm, 1, steps, 3e-3, extra=extra, **(own | more))


def metric(run: pd.DataFrame, name: str) -> list[float]:
    return run[run["name"] == name].sort_values("step")["value"].tolist()


def test_easier_stages_take_equal_shares_of_the_steps_and_the_runs_own_grid_is_the_last() -> None:
    spec = RunSpec("rft", 0, 800, 1e-3, 2, rows=3, cols=3, size=96, extra=(("curriculum", "2x2@96 2x3@96"),))
    assert spec.starts == (0, 100, 200) and spec.easier == (PuzzleSpec(2, 2, 96), PuzzleSpec(2, 3, 96))
    assert replace(spec, steps=2400).starts == (0, 300, 600)  # a slower run may take more steps: so may its stages
    assert replace(spec, extra=()).starts == (0,) and replace(spec, extra=()).easier == ()
    stale = replace(spec, arm="rft-stale", beta=0.1, extra=(*spec.extra, ("steps_per_generation", 8)))
    assert stale.starts == (0, 96, 192)  # twelve and a half draws of eight steps are twelve


def test_completions_have_room_for_the_largest_grid() -> None:
    plain, larger = (RunSpec("rft", 0, 80, 1e-3, 2, extra=extra) for extra in ((), (("curriculum", "3x3@96"),)))
    assert plain.max_completion_length == answers.room(4) < larger.max_completion_length == answers.room(9)
    with pytest.raises(UserError, match="max_completion_length is 20, but an answer for 3 x 3 tiles takes 22 tokens"):
        replace(larger, max_completion_length=20)


@pytest.mark.parametrize(
    ("arm", "extra", "said"),
    [
        ("rft", (("curriculum", "2x2"),), "'2x2' names no puzzles: write rows, columns and pixels as in 2x3@96"),
        ("rft", (("curriculum", "1x1@32"),), "at least two tiles"),
        ("rft", (("curriculum", " "),), "the curriculum names no puzzles"),
        ("rft", (("stage_share", 0.5),), "the curriculum names no puzzles"),
        ("rft", (("curriculum", "1x2@32"), ("stage_share", 0)), "stage_share is 0: choose a share"),
        ("rft", (("curriculum", "1x2@32"), ("stage_share", "half")), "stage_share is 'half': choose a share"),
        ("rft", (("curriculum", "1x2@32 1x3@48"), ("stage_share", 0.5)), "the easier stages take 8 steps of 8"),
        ("iterative-sft", SMALL, "iterative-sft cannot be taught in stages"),
        ("sft-replay", SMALL, "sft-replay cannot be taught in stages"),
    ],
)
def test_a_curriculum_that_cannot_be_run_is_refused(arm: str, extra: tuple, said: str) -> None:
    with pytest.raises(UserError, match=said):
        taught(arm, extra=extra)


@given(
    st.integers(4, 90), st.integers(1, 5), st.sampled_from([1, 4]), st.tuples(*[st.integers(1, 30)] * 3)
)  # fmt: skip
def test_each_step_is_of_one_stage_and_each_stage_shows_its_samples_in_turn(
    steps: int, batch: int, at_once: int, sizes: tuple[int, int, int]
) -> None:
    extra = (("curriculum", "1x2@32 1x3@48"), ("steps_per_generation", at_once))
    try:
        spec = RunSpec("rft-stale", 0, steps, 1e-3, batch, extra=extra)
    except UserError:
        assert 2 * at_once >= steps  # stages of at least one draw leave nothing of so few steps
        return
    order = course(spec, sizes, steps)
    assert len(order) % (batch * at_once) == 0 and len(order) >= steps * batch
    first = np.cumsum([0, *sizes])
    stage_of = [int(np.searchsorted(first, number, side="right")) - 1 for number in order]
    for start in range(0, len(order), batch * at_once):
        assert len(set(stage_of[start : start + batch * at_once])) == 1
    for stage in range(3):
        begun = sum(spec.starts[stage] > step for step in range(len(order) // batch)) and spec.starts[stage] * batch
        shown = [n for n, s in zip(order, stage_of, strict=True) if s == stage]
        assert stage_of[begun] == stage
        assert shown == [first[stage] + i % sizes[stage] for i in range(len(shown))]


def test_boards_are_asked_and_rewarded_by_their_own_grid() -> None:
    spec = taught("rft", asked="direct")
    boards, none = recipes.make_corpus(spec, RunStore(Path("nowhere")), None)
    assert none is None and isinstance(boards, Graded) and boards.stages == (4, 4, 8)
    data = rows.board_rows(boards, course(spec, boards.stages, spec.steps))
    assert len(data) == 16 and [len(data[i]["placement"]) for i in (0, 3, 4, 7, 8, 15)] == [2, 2, 3, 3, 4, 4]
    for i in range(16):
        row = data[i]
        puzzle = (*spec.easier, spec.puzzle)[(row["puzzle_id"] >= 4) + (row["puzzle_id"] >= 8)]
        assert row["prompt"][0]["content"].startswith(prompt_text(puzzle))
        assert row["images"][0].size == puzzle.board_size
        right, form = [answer(row["placement"])], {"placement": [row["placement"]], "written": [row["written"]]}
        assert [reward(right, **form) for reward in answers.REWARDS] == [[1.0]] * 3
        other = [answer(range(1, 6 - len(row["placement"])))]  # a fair answer, to another grid
        if len(row["placement"]) != 3:
            assert [reward(other, **form) for reward in answers.REWARDS] == [[0.0], [0.0], [1.0]]


def test_boards_that_are_drawn_for_at_once_must_be_of_one_stage() -> None:
    boards, _ = recipes.make_corpus(taught("rft"), RunStore(Path("nowhere")), None)
    some = boards.only([9, 8])
    assert some.placements.tolist() == [boards.placements[9].tolist(), boards.placements[8].tolist()]
    with pytest.raises(UserError, match=r"Boards \[3, 4\] are not of one stage"):
        boards.only([4, 3])


def test_rft_writes_down_its_stages_and_is_rewarded_by_what_it_writes_down(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), taught("rft", base=puzzler.folder)
    run = train(spec, store, QUICK)
    written = pd.read_parquet(run.folder / "completions.parquet")
    boards, _ = recipes.make_corpus(spec, store, None)
    grids = written.groupby("step")["prompt"].agg(lambda texts: {text[:5] for text in texts})
    assert grids.tolist() == [{"1 x 2"}] * 2 + [{"1 x 3"}] * 2 + [{"2 x 2"}] * 4
    for row in written.itertuples():
        score = answers.score(row.completion, boards.placements[row.puzzle_id].tolist())
        assert (row.hit, row.exact, row.format) == (score.hit, score.exact, score.format)
    metrics = pd.read_parquet(run.folder / "metrics.parquet")
    for name in ("hit", "exact", "format"):
        logged = metric(metrics, f"rewards/{name}_reward/mean")
        assert logged == pytest.approx(written.groupby("step")[name].mean().tolist(), abs=1e-6)
    assert written["hit"].max() > 0


def test_sft_learns_stage_by_stage_in_the_order_of_the_rows(tiny, tmp_path: Path) -> None:
    spec, store = taught("sft-answer", base=tiny.folder), RunStore(tmp_path)
    engine = prepare(spec, store, store.start(spec), QUICK)
    trainer = make_trainer(engine)
    assert isinstance(trainer._get_train_sampler(trainer.train_dataset), SequentialSampler)
    texts = [trainer.train_dataset[i]["completion"][0]["content"] for i in range(len(trainer.train_dataset))]
    # a corpus has no fewer than 64 boards, but a stage no more than it has samples
    assert texts == [answer(p.tolist()) for p in engine.boards.placements] and engine.corpus.stages == (4, 4, 8)
    assert train(spec, store, QUICK).done


def test_a_stage_without_a_single_completion_is_named() -> None:
    with pytest.raises(UserError, match="A stage of the curriculum has no completion"):
        course(taught("sft-answer"), (4, 0, 8), 8)


def test_a_run_in_stages_feeds_no_other_boards(puzzler, tmp_path: Path) -> None:
    store, source = RunStore(tmp_path), taught("rft", base=puzzler.folder)
    train(source, store, QUICK)
    spec = taught("sft-stream", base=puzzler.folder, extra=(), source=source.name)
    with pytest.raises(UserError, match="drew for boards of several grids"):
        train(spec, store, QUICK)


def test_what_a_run_in_stages_learned_from_is_not_guessed() -> None:
    assert len(learned_from.corpus_of_run(None, taught("sft-answer"), 8)) == 0
