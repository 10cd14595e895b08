"""The probability landscape: the probe set, its log-probs, reachability, and the statistics drawn from them."""

import math
import os
import pickle
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rows import evaluation
from scipy.stats import percentileofscore, rankdata
from swapping import swap

from helpers import __main__ as command_line
from helpers.errors import UserError
from helpers.measure import analyses, reach
from helpers.measure import probes as probes_module
from helpers.measure.probes import (
    PROBES,
    ProbeStore,
    ensure,
    make_probes,
    misplace,
    movement,
    probe_boards,
    probe_tables,
    prompts_of,
    publish_probes,
    read_probes,
    score_probes,
    score_run,
    score_study,
    shifts,
    shuffle_tokens,
)
from helpers.model import build
from helpers.model.generate import Sampling
from helpers.model.score import complete
from helpers.processes import end_with
from helpers.show import comparisons
from helpers.stats import fits, intervals
from helpers.study import checkpoints, controls, published
from helpers.study.profiles import PROFILES, Profile, get_profile, specs
from helpers.study.published import publish
from helpers.study.records import RunStore
from helpers.train import corpora
from helpers.verdicts import rates
from helpers.world import answers, battery, seeds
from helpers.world.boards import Boards, Prompted, held_out_boards, training_boards
from helpers.world.puzzles import PuzzleSpec

BOARDS = 10  # of the probe set: the tests' model knows two placements, so that it solves about one board in twelve
TASKS = ("lists", "colour")
ARMS = ("base", "rft", "sft-answer")
MARKED = ("run", "arm", "seed", "step", "probe", "item", "logp", "tokens")
numbers = st.floats(-50, 50, allow_nan=False)


# --------------------------------------------------------------------------- a small study on disk


@dataclass(frozen=True)
class Study:
    """Runs of a profile whose base is the tests' model: RFT with two checkpoints (the first unmoved), SFT with one."""

    root: Path
    profile: Profile
    base: tuple[Any, Any]
    probes: pd.DataFrame

    def folder(self, arm: str) -> Path:
        return self.root / "runs" / "smoke" / specs(self.profile, [arm])[0].name


@pytest.fixture(scope="module")
def few_tasks() -> Iterator[None]:
    """Two prior tasks: what the battery holds is not the matter here."""
    with pytest.MonkeyPatch.context() as patch:
        swap(patch, battery, "battery_tasks", lambda: TASKS)
        yield


@pytest.fixture(scope="module")
def study(puzzler: Any, few_tasks: None, tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("study")
    profile = replace(get_profile("smoke"), model=str(puzzler.folder))
    base = puzzler.load()
    store = RunStore(root / "runs" / "smoke")
    for spec in specs(profile, ARMS):
        store.start(spec).finish()
    for arm, step, noise in (("rft", 1, 0.0), ("rft", 4, 0.01), ("sft-answer", 2, 0.02)):
        moved, processor = puzzler.load()
        torch.manual_seed(step)
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
        found = Study(root, profile, base, pd.DataFrame())
        kept = found.folder(arm) / "checkpoints"
        build.save(moved, processor, kept / checkpoints.STAGED / f"checkpoint-{step}")
        checkpoints.settle(kept, step)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        score_study(profile, ARMS, BOARDS, jobs=1)
    torch.set_flush_denormal(False)
    return Study(root, profile, base, read_probes(next((root / "runs").rglob("probe_set.csv"))))


@pytest.fixture
def here(study: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study, with its root as the working folder."""
    monkeypatch.chdir(study.root)
    return study


@pytest.fixture
def elsewhere(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study's profile in an empty folder, named `cpu`, so that published probes count."""
    monkeypatch.chdir(tmp_path)
    return replace(study, root=tmp_path, profile=replace(study.profile, name="cpu"))


def stock_logps(base: tuple[Any, Any], prompt: Prompted, completion: str) -> torch.Tensor:
    """Log-prob of each completion token and of the end token: one forward pass of the stock model."""
    model, processor = base
    content = [{"type": "image"}, {"type": "text", "text": prompt.text}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ask = lambda t: processor(text=[t], images=[[Image.fromarray(prompt.pixels)]], return_tensors="pt")  # noqa: E731
    inputs, start = ask(f"{text}{completion}<|im_end|>"), ask(text)["input_ids"].shape[1]
    with torch.no_grad():
        logps = torch.log_softmax(model(**inputs).logits[0], -1)
    ids = inputs["input_ids"][0]
    return torch.stack([logps[t - 1, ids[t]] for t in range(start, len(ids))])


# ------------------------------------------------------------------------------------ the probe set


def test_probe_boards_are_no_training_and_no_test_boards() -> None:
    profile = get_profile("cpu")
    probes = {b.tobytes() for b in probe_boards(profile, 40).pixels}
    spec = profile.puzzle
    runs = {s for p in PROFILES.values() for s in p.seeds} | {seeds.LIVE, seeds.BENCHMARK}
    trained = {b.tobytes() for s in runs for b in training_boards(spec, 40, s).pixels}
    tested = {b.tobytes() for b in held_out_boards(spec, 40).pixels}
    assert len(probes) == 40 and not probes & (trained | tested)


def test_more_probe_boards_begin_with_the_same_ones() -> None:
    few, many = (probe_boards(get_profile("smoke"), n) for n in (5, 12))
    assert np.array_equal(few.pixels, many.pixels[:5]) and np.array_equal(few.placements, many.placements[:5])


def test_the_probe_set_is_the_same_each_time(here: Study) -> None:
    found = make_probes(here.profile, here.base, here.base[0], BOARDS)
    again = make_probes(here.profile, here.base, here.base[0], BOARDS)
    assert found.equals(again)
    stored = here.probes[~here.probes["probe"].isin(("rollout", "wrong", "shuffled"))]  # those are by another model
    own = found[~found["probe"].isin(("rollout", "wrong", "shuffled"))]
    assert own.reset_index(drop=True).equals(stored.reset_index(drop=True))


def test_every_kind_of_probe_is_what_its_name_says(here: Study) -> None:
    boards = probe_boards(here.profile, BOARDS)
    assert (
        set(here.probes["probe"]) == set(PROBES)
        and (here.probes["item"] == here.probes["number"])[here.probes["task"] == "puzzle"].all()
    )
    for row in here.probes[here.probes["task"] == "puzzle"].itertuples():
        exact = answers.score(row.completion, boards.placements[row.number].tolist()).exact
        assert exact == (0 if row.probe in ("wrong", "shuffled") else 1), row
    assert (here.probes["probe"] == "answer").sum() == (here.probes["probe"] == "expert").sum() == BOARDS
    assert 1 <= (here.probes["probe"] == "rollout").sum() < BOARDS


def test_a_wrong_probe_differs_from_the_right_one_behind_the_answer_tag_only(here: Study) -> None:
    texts = here.probes.pivot(index=["task", "item"], columns="probe", values="completion").dropna(subset="rollout")
    assert len(texts)
    for row in texts.itertuples():
        head, _, right = row.rollout.partition("<answer>")
        other, _, wrong = row.wrong.partition("<answer>")
        assert head == other and right != wrong and Counter(right) == Counter(wrong)


@given(st.permutations(range(1, 5)).filter(lambda p: p != [1, 2, 3, 4]))
def test_a_misplaced_answer_is_another_placement_and_never_the_solved_board(placement: list[int]) -> None:
    found = misplace(f"<think>sky</think>{corpora.answer(placement)}", placement)
    parsed = answers.parse(found, 4).placement
    assert parsed is not None and parsed not in (tuple(placement), (1, 2, 3, 4))


def test_a_shuffled_probe_has_the_same_tokens_in_another_order(here: Study) -> None:
    tokenizer = here.base[1].tokenizer
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    texts = here.probes.pivot(index=["task", "item"], columns="probe", values="completion").dropna(subset="shuffled")
    assert len(texts)
    for row in texts.itertuples():
        assert Counter(ids(row.shuffled)) == Counter(ids(row.rollout)) and row.shuffled != row.rollout
    text = "<think>The top left shows sky.</think><answer>2 1 4 3</answer>"
    found = [shuffle_tokens(tokenizer, text, item) for item in range(20)]
    assert found == [shuffle_tokens(tokenizer, text, item) for item in range(20)]
    assert len(set(found)) == 20 and all(Counter(ids(t)) == Counter(ids(text)) for t in found)
    assert shuffle_tokens(tokenizer, "<think>", 0) is None  # one token has no other order


def test_prior_probes_are_gold_and_the_models_own_greedy_answers(here: Study) -> None:
    prior = here.probes[here.probes["task"] != "puzzle"]
    each = BOARDS // len(TASKS)
    assert prior.groupby(["probe", "task"]).size().to_dict() == {
        (kind, task): each for kind in ("prior-gold", "prior-model") for task in TASKS
    }
    for task in TASKS:
        samples = battery.battery_samples(task, each)
        rows = prior[prior["task"] == task]
        assert rows[rows["probe"] == "prior-gold"]["completion"].tolist() == [s.question.completion for s in samples]
        own = complete(*here.base, [Prompted(s.pixels, s.question.text) for s in samples])
        assert rows[rows["probe"] == "prior-model"]["completion"].tolist() == [text for (text,) in own]


def test_prompts_are_the_pictures_and_questions_of_their_task(here: Study) -> None:
    boards, found = probe_boards(here.profile, BOARDS), prompts_of(here.profile, here.probes)
    for row, prompt in zip(here.probes.itertuples(), found, strict=True):
        if row.task == "puzzle":
            assert np.array_equal(prompt.pixels, boards.pixels[row.number]) and prompt.text == boards.prompted()[0].text
        else:
            sample = battery.battery(row.task, row.number + 1)[row.number]
            assert np.array_equal(prompt.pixels, sample.pixels) and prompt.text == sample.question.text


def test_probe_log_probs_equal_separate_stock_passes(here: Study) -> None:
    some = here.probes.groupby("probe", sort=False).head(3).sample(frac=1, random_state=1)
    found = score_probes(*here.base, here.profile, some)
    for prompt, text, logps in zip(prompts_of(here.profile, some), some["completion"], found, strict=True):
        assert logps.tolist() == pytest.approx(stock_logps(here.base, prompt, text).tolist(), abs=5e-5)


# ------------------------------------------------------------------------- scores along training


def test_an_unmoved_checkpoint_has_no_shift_and_a_moved_one_the_difference_of_stock_passes(here: Study) -> None:
    probes, scored = probe_tables(here.profile, ARMS)
    assert scored.groupby("arm")["step"].unique().map(sorted).to_dict() == {
        "base": [0], "rft": [0, 1, 4], "sft-answer": [0, 2],
    }  # fmt: skip
    shifted = shifts(scored)
    assert (shifted[shifted["step"] == 0]["value"] == 0).all()
    assert (shifted[(shifted["arm"] == "rft") & (shifted["step"] == 1)]["value"] == 0).all()
    moved = build.load(here.folder("sft-answer") / "checkpoints" / "checkpoint-2")
    kind = probes[probes["probe"] == "base-right"]
    prompts = prompts_of(here.profile, kind)
    pairs = list(zip(prompts, kind["completion"], strict=True))
    apart = [stock_logps(moved, p, t) - stock_logps(here.base, p, t) for p, t in pairs]
    row = shifted[(shifted["arm"] == "sft-answer") & (shifted["step"] == 2) & (shifted["probe"] == "base-right")]
    assert abs(row["value"].item()) > 0.05
    assert row["value"].item() == pytest.approx(statistics.fmean(float(a.sum()) for a in apart), abs=1e-3)
    assert row["per_token"].item() == pytest.approx(float(torch.cat(apart).mean()), abs=1e-4)


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), numbers, numbers, st.integers(1, 9)), min_size=1)
)
def test_shifts_equal_differences_by_hand(drawn: list) -> None:
    rows, expected = [], {}
    for item, (run, probe, start, end, tokens) in enumerate(drawn):
        mark = (run, run, 0)
        rows += [(*mark, 0, probe, item, start, tokens), (*mark, 7, probe, item, end, tokens)]
        expected.setdefault((run, probe), []).append((end - start, tokens))
    random.Random(0).shuffle(rows)
    found = shifts(pd.DataFrame(rows, columns=MARKED))
    assert (found[found["step"] == 0][["value", "per_token"]] == 0).all(axis=None)
    late = found[found["step"] == 7].set_index(["run", "probe"])
    assert set(late.index) == set(expected)
    for key, pairs in expected.items():
        total = sum(shift for shift, _ in pairs)
        assert late.loc[key, "value"] == pytest.approx(total / len(pairs), abs=1e-9)
        assert late.loc[key, "per_token"] == pytest.approx(total / sum(t for _, t in pairs), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "words"),
    [((1.0, 1.2, 1.1), "rose: +1.10"), ((-3, -3.3, -2.7), "fell: -3.00"), ((-1, 1, 0.5), "is not seen to move"),
     ((5.0, 5.0), "too few seeds (2)")],
)  # fmt: skip
def test_movement_needs_three_seeds_and_an_interval_without_zero(values: tuple, words: str) -> None:
    rows = pd.DataFrame({"arm": "rft", "probe": "wrong", "value": values})
    other = pd.DataFrame({"arm": ["base", "rft"], "probe": ["wrong", "answer"], "value": [90.0, 90.0]})
    assert words in movement(pd.concat([rows, other]), "rft", "wrong")


def test_a_second_scoring_changes_nothing(here: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, probes_module, "score_probes", lambda *_: pytest.fail("scored again"))
    ensure(here.profile, False, ARMS, BOARDS)


def test_processes_side_by_side_find_the_same(here: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scored anew by a stand-in pool that keeps the order: what each process gets is a profile, a spec and a number."""

    class Pool:
        def __init__(self, jobs: int, context: Any, begin: Any, given: tuple) -> None:
            assert jobs == 2 and context.get_start_method() == "spawn"
            assert (begin, given) == (end_with, (os.getpid(),))  # a process ends with the one that started it

        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def submit(self, work: Any, *given: Any) -> Any:
            work, given = pickle.loads(pickle.dumps((work, given)))
            asked.append((work, given[1].name))
            return SimpleNamespace(result=lambda: work(*given))

    asked: list = []
    monkeypatch.setattr(probes_module, "ProcessPoolExecutor", Pool)
    score_study(here.profile, ARMS, BOARDS, jobs=2)
    assert asked == [(score_run, spec.name) for spec in specs(here.profile, ARMS)]


# ---------------------------------------------------------------------------- records of the probes


def test_published_probes_are_read_back_as_they_were(here: Study, tmp_path: Path, monkeypatch: Any) -> None:
    probes, scored = probe_tables(here.profile, ARMS)
    published = publish_both(here, tmp_path / "figures" / "records")
    monkeypatch.chdir(tmp_path)
    cpu = replace(here.profile, name="cpu")
    ensure(cpu, False, ARMS, BOARDS)  # nothing to do, and nothing trained here
    found, rows = probe_tables(cpu, ARMS)
    assert found.equals(probes)
    order = list(MARKED)
    assert rows.sort_values(order, ignore_index=True).equals(scored.sort_values(order, ignore_index=True))
    first = published.read_bytes()
    monkeypatch.chdir(here.root)
    assert publish_both(here, tmp_path / "again").read_bytes() == first


def publish_both(study: Study, folder: Path) -> Path:
    """Publish the study's runs and probes; returns the file of log-probs."""
    publish(RunStore(study.root / "runs" / "smoke"), folder)
    publish_probes(study.profile, ARMS, folder)
    return folder / "probes.parquet"


def test_a_fresh_clone_without_probes_is_told_in_one_sentence(elsewhere: Study) -> None:
    for act in (
        lambda: ensure(elsewhere.profile, False, ARMS, 4),
        lambda: ensure(elsewhere.profile, True, ARMS, 4),
    ):
        with pytest.raises(UserError, match=r"which 3 runs lack here \(base-0-.*python -m helpers train --profile cpu"):
            act()
    with pytest.raises(UserError, match="There are no probes of cpu: python -m helpers score --profile cpu"):
        probe_tables(elsewhere.profile, ARMS)
    with pytest.raises(UserError, match="Not all runs are scored"):
        publish_probes(elsewhere.profile, ARMS)
    assert not list(elsewhere.root.rglob("*.parquet"))


def test_records_published_anew_without_probes_count_as_none(here: Study, elsewhere: Study) -> None:
    """Publishing a study writes an empty table of probes: what was scored belongs to runs that are gone."""
    folder = elsewhere.root / "figures" / "records"
    publish(RunStore(here.root / "runs" / "smoke"), folder)
    (folder / "probe_set.csv").write_text(here.probes.to_csv(index=False))
    with pytest.raises(UserError, match="There are no probes of cpu"):
        probe_tables(elsewhere.profile, ARMS)


DAMAGE = {
    "half a set": ("probe_set.csv", lambda data: data[: len(data) // 2], "probe_set.csv"),
    "a set of one column": ("probe_set.csv", lambda data: b"probe\nanswer\n", "must have the columns probe, item"),
    "an empty set": ("probe_set.csv", lambda data: b"", "probe_set.csv is damaged"),
    "no text": ("probe_set.csv", lambda data: b"\xff\xfe" + data, "probe_set.csv is damaged"),
    "a missing number": ("probe_set.csv", lambda data: data + b"answer,,puzzle,,x\n", "lacks a value"),
    "one probe more": ("probe_set.csv", lambda data: data + b"answer,999,puzzle,0,x\n", "is not the probe set that"),
    "half a table": ("probes.parquet", lambda data: data[: len(data) // 2], "probes.parquet is missing or cut short"),
    "another study": (
        "specs.json",
        lambda data: data.replace(b"sft-answer-0-", b"sft-answer-1-"),
        "spec of another run",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_published_files_are_named(here: Study, tmp_path: Path, monkeypatch: Any, name: str) -> None:
    file, spoil, words = DAMAGE[name]
    folder = publish_both(here, tmp_path / "figures" / "records").parent
    monkeypatch.chdir(tmp_path)
    (folder / file).write_bytes(spoil((folder / file).read_bytes()))
    with pytest.raises(UserError, match=words):
        probe_tables(replace(here.profile, name="cpu"), ARMS)


def test_probes_of_another_rft_run_are_not_taken_for_this_ones(here: Study) -> None:
    budgets = tuple(b._replace(steps=b.steps + 1) if b.arm == "rft" else b for b in here.profile.budgets)
    other = replace(here.profile, budgets=budgets)
    assert ProbeStore(here.profile).table(ARMS) is not None
    assert ProbeStore(other).table(ARMS) is None
    assert ProbeStore(other).set_file != ProbeStore(here.profile).set_file


def test_scores_of_some_runs_are_not_taken_for_those_of_all(here: Study) -> None:
    assert ProbeStore(here.profile).table((*ARMS, "sft-expert")) is None
    with pytest.raises(UserError, match="There are no probes of smoke"):
        probe_tables(here.profile, (*ARMS, "sft-expert"))
    few = ProbeStore(here.profile).table(("base", "rft"))
    assert set(few["arm"]) == {"base", "rft"}


def test_a_run_whose_checkpoints_are_gone_is_named(elsewhere: Study) -> None:
    store = RunStore(elsewhere.root / "runs" / "cpu")
    spec = specs(elsewhere.profile, ["sft-answer"])[0]
    store.start(spec).finish()
    ProbeStore(elsewhere.profile).set_file.parent.mkdir(parents=True)
    ProbeStore(elsewhere.profile).set_file.write_text(elsewhere.probes.to_csv(index=False))
    with pytest.raises(UserError, match="holds no checkpoint"):
        score_run(elsewhere.profile, spec, 4)


# ------------------------------------------------------------------------------------- perplexity


def test_perplexity_intervals_in_closed_cases() -> None:
    third = math.log(1 / 3)
    assert intervals.perplexity_interval([7 * third], [7]) == pytest.approx((3, 3, 3))
    assert intervals.perplexity_interval([2 * third, 5 * third, third], [2, 5, 1]) == pytest.approx((3, 3, 3))
    # of two completions, each pair is drawn with chance 1/4, 1/2, 1/4: the 95% interval spans both alone
    value, low, high = intervals.perplexity_interval([math.log(1 / 2), 3 * math.log(1 / 5)], [1, 3])
    assert (value, low, high) == pytest.approx((math.exp((math.log(2) + 3 * math.log(5)) / 4), 2, 5))
    with pytest.raises(UserError, match="at least one completion"):
        intervals.perplexity_interval([], [])


def test_perplexity_intervals_equal_those_of_all_draws_with_tokens_pooled() -> None:
    tokens, logps = (1, 2, 1, 30, 20), (-3.0, -5.0, -2.5, -6.0, -3.0)
    draws = product(range(5), repeat=5)
    every = [math.exp(-sum(logps[i] for i in draw) / sum(tokens[i] for i in draw)) for draw in draws]
    _, low, high = intervals.perplexity_interval(logps, tokens, 20_000)
    assert (low, high) == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))), rel=0.03)


def test_perplexity_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(3), 0
    for _ in range(150):
        tokens = rng.integers(5, 15, 40)
        logps = np.array([rng.normal(-0.5, 0.3, n).sum() for n in tokens])
        _, low, high = intervals.perplexity_interval(logps, tokens, 400)
        covered += low <= math.exp(0.5) <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_a_corpus_is_summed_up_in_its_order() -> None:
    rows = pd.DataFrame({"corpus": ["z", "z", "a"], "logp": [-1.0, -3.0, -6.0], "tokens": [1, 1, 3]})
    table = reach.corpus_summary(rows)
    assert table["corpus"].tolist() == ["z", "a"] and table["completions"].tolist() == [2, 1]
    assert table["logp"].tolist() == [-2, -6] and table["tokens"].tolist() == [1, 3]
    assert table["perplexity"].tolist() == pytest.approx([math.exp(2)] * 2)


def test_rollouts_by_phase_are_the_right_and_scored_ones() -> None:
    rows = pd.DataFrame(
        [(1, 1, 1, -4.0, 2), (1, 1, 0, -5.0, 2), (2, 0, 1, -5.0, 2), (3, 1, 1, -9.0, 3), (4, 1, 1, None, 3)],
        columns=["step", "exact", "format", "logp_base", "tokens"],
    )
    found = reach.phase_rows(rows, {"early": (1, 2), "late": (3, 4), "never": (5, 9)})
    assert found.to_dict("list") == {"corpus": ["early", "late"], "logp": [-4, -9], "tokens": [2, 3],
                                     "per_token": [-2, -3]}  # fmt: skip


@settings(max_examples=50)
@given(st.lists(numbers, min_size=1, max_size=8), st.lists(numbers, min_size=1, max_size=30), st.booleans())
def test_percentiles_equal_scipys(asked: list[float], own: list[float], rounded: bool) -> None:
    if rounded:  # many ties
        asked, own = ([float(round(x / 20)) for x in values] for values in (asked, own))
    found = reach.percentiles(asked, own)
    assert found.tolist() == pytest.approx([percentileofscore(own, x, "mean") / 100 for x in asked])


def test_surprise_is_split_by_the_sort_of_the_token(here: Study) -> None:
    assert [reach.token_sort(t) for t in ("<think>", "<|im_end|>", " ", "3", " 3", "sky", " sky", ".", "<")] == [
        "form", "form", "form", "numbers", "numbers", "words", "words", "words", "words",
    ]  # fmt: skip
    tokenizer = here.base[1].tokenizer
    text = "<answer>2 1 4 3</answer>"
    ids = tokenizer(text + "<|im_end|>", add_special_tokens=False)["input_ids"]
    tokens = [tokenizer.decode([i]) for i in ids]
    logps = -np.arange(1.0, len(ids) + 1)
    probes = pd.DataFrame({"probe": ["answer", "wrong", "answer"], "completion": [text] * 3})
    table = reach.surprise_table(here.base[1], probes, [logps, 100 * logps, 3 * logps])
    (row,) = table.to_dict("records")
    digits = sum(v for t, v in zip(tokens, logps, strict=True) if t.strip() in "1234" and t.strip())
    assert row == {"probe": "answer", "form": pytest.approx(2 * (logps.sum() - digits)), "first": -2.0,
                   "numbers": pytest.approx(2 * digits), "words": 0.0, "completions": 2}  # fmt: skip


# -------------------------------------------------------------------------------- rank and reach


@pytest.fixture(scope="module")
def samples(study: Study) -> tuple[Boards, pd.DataFrame]:
    """Boards that all have the placement which the tests' model writes most, and many of its completions of each."""
    own = reach.own_samples(study.base, study.profile, 4, 150)
    held = replace(probe_boards(study.profile, 4), placements=np.array([(2, 1, 4, 3)] * 4))
    score = [answers.score(text, (2, 1, 4, 3)) for text in own["completion"]]
    return held, own.assign(exact=[s.exact for s in score], format=[s.format for s in score])


def test_own_samples_carry_their_scores_and_log_probs(study: Study) -> None:
    own = reach.own_samples(study.base, study.profile, 3, 4)
    assert own["board"].tolist() == [i for i in range(3) for _ in range(4)]
    assert own.equals(reach.own_samples(study.base, study.profile, 3, 4))
    held = probe_boards(study.profile, 3)
    for row in own.itertuples():
        logps = stock_logps(study.base, held.prompted()[row.board], row.completion)
        score = answers.score(row.completion, held.placements[row.board])
        assert (row.exact, row.format, row.tokens) == (score.exact, score.format, len(logps))
        assert row.logp == pytest.approx(float(logps.sum()), abs=1e-3)
        assert row.per_token == pytest.approx(row.logp / row.tokens)


def test_counting_and_likelihood_agree_within_sampling_error(study: Study, samples: tuple) -> None:
    held, own = samples
    found = reach.reachability(study.base, held, own)
    assert found["samples"].tolist() == [150] * 4
    for row in found.itertuples():
        assert row.counted == row.right / 150 and row.low < row.counted < row.high
        spread = math.sqrt(row.likelihood * (1 - row.likelihood) / 150)
        assert 0.05 < row.likelihood < 0.7
        assert abs(row.counted - row.likelihood) < 3.5 * spread
    total = float((found["samples"] * found["likelihood"]).sum())
    assert abs(found["right"].sum() - total) < 3 * math.sqrt(total)
    wrong = replace(held, placements=np.array(((1, 4, 2, 3),) * 4))  # a placement that the model does not write
    never = reach.reachability(study.base, wrong, own.assign(exact=0.0))
    assert never["likelihood"].max() < 0.2 * found["likelihood"].min()


def test_likelihood_is_the_mean_chance_behind_the_thinks_by_stock_passes(study: Study) -> None:
    held = replace(probe_boards(study.profile, 1), placements=np.array([(2, 1, 4, 3)]))  # one that the model writes
    texts = ["<think>sky</think><answer>1 2</answer>", "<answer>2 1 4 3</answer>", "<think>land</think>",
             "<think>sky</think>", "<think>never closed"]  # fmt: skip
    written = pd.DataFrame({"board": 0, "completion": texts, "exact": 0.0, "format": 0.0})
    answer = corpora.answer(held.placements[0].tolist())
    chances = []
    for think in ("<think>sky</think>", "<think>land</think>", "<think>sky</think>"):
        whole = stock_logps(study.base, held.prompted()[0], think + answer)
        given = len(stock_logps(study.base, held.prompted()[0], think)) - 1  # without its end token
        chances.append(math.exp(float(whole[given:].sum())))
    found = reach.reachability(study.base, held, written)
    assert max(chances) > 0.1
    assert found["likelihood"].item() == pytest.approx(sum(chances) / 5, rel=1e-3)
    assert (found["right"].item(), found["counted"].item(), found["low"].item()) == (0, 0, 0)
    silent = reach.reachability(study.base, held, written.iloc[[1]])
    assert silent["likelihood"].item() == 0


def test_chances_come_in_the_order_of_the_thinks_and_placements(study: Study) -> None:
    prompt = probe_boards(study.profile, 1).prompted()[0]
    first, second = "<think>sky</think>", "<think>land</think>"
    asked = [(2, 1, 4, 3), (3, 1, 4, 2)]
    both = reach.answer_chances(study.base, prompt, [first, second, first], asked)
    assert both[0] == both[2] != both[1] and len(both[0]) == 2
    turned = reach.answer_chances(study.base, prompt, [second], asked[::-1])
    assert turned[0][::-1] == pytest.approx(both[1], rel=1e-4)
    assert reach.answer_chances(study.base, prompt, [], asked) == []


def test_ranks_equal_a_sort_of_all_placements(study: Study) -> None:
    held = probe_boards(study.profile, 2)
    thinks = ["<think>sky</think>", "<think>land</think>", "<think>sky</think>", "no think"]
    written = pd.DataFrame({"board": [0] * 4 + [1], "completion": [*thinks, "nothing"]})
    found = reach.placement_ranks(study.base, held, written)
    assert found["board"].tolist() == [0] and found["placements"].tolist() == [24]  # no think, no rank
    given = reach.thinks(thinks)
    mean = {
        p: sum(c for (c,) in reach.answer_chances(study.base, held.prompted()[0], given, [p])) / 4
        for p in permutations((1, 2, 3, 4))
    }
    order = sorted(mean, key=mean.get, reverse=True)
    assert found["rank"].item() == 1 + order.index(tuple(held.placements[0].tolist()))
    assert found["chance"].item() == pytest.approx(mean[tuple(held.placements[0].tolist())], rel=1e-3)
    assert found["valid"].item() == pytest.approx(sum(mean.values()), rel=1e-3) and found["valid"].item() < 1


def test_equal_chances_share_their_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Boards(PuzzleSpec(), np.zeros((1, 2, 2, 3), np.uint8), np.array([(2, 1, 4, 3)]))
    written = pd.DataFrame({"board": [0], "completion": ["<think>a</think>"]})
    swap(monkeypatch, reach, "answer_chances", lambda base, prompt, given, every: [[0.02] * len(every)])
    found = reach.placement_ranks((None, None), held, written)
    assert found["rank"].item() == 12.5 and found["valid"].item() == pytest.approx(0.48)
    large = replace(held, placements=np.arange(1, 10)[None])
    with pytest.raises(UserError, match="9 tiles has too many placements"):
        reach.placement_ranks((None, None), large, written)


def test_reach_within_a_group_in_closed_cases_and_by_drawing() -> None:
    assert reach.reach_within([0.5], 2) == 0.75
    assert reach.reach_within([0.0, 1.0], 8) == 0.5
    assert reach.reach_within([0.3, 0.6], 1) == pytest.approx(0.45)
    drawn = np.random.default_rng(0).random((40_000, 8)) < 0.04
    assert reach.reach_within([0.04], 8) == pytest.approx(drawn.any(1).mean(), abs=0.01)


def rft_rows(study: Study, seed: int, ids: list[int], each: int) -> pd.DataFrame:
    """Completions of training boards by the tests' model, as the records have them."""
    boards = training_boards(study.profile.puzzle, max(ids) + 1, seed)
    asked = [boards.prompted()[i] for i in ids]
    texts = complete(*study.base, asked, Sampling(each, 1.0, 32, 5))
    rows = []
    for i, row in zip(ids, texts, strict=True):
        for text in row:
            score = answers.score(text, boards.placements[i].tolist())
            rows.append((seed, 1 + i % 3, i, text, score.exact, score.format))
    return pd.DataFrame(rows, columns=["seed", "step", "puzzle_id", "completion", "exact", "format"])


def test_early_reach_asks_about_the_boards_that_rft_met(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.concat([rft_rows(study, 0, [5, 1, 9], 2), rft_rows(study, 2, [4], 2)])
    seen, stock = [], reach.reachability

    def listen(base: Any, held: Boards, written: pd.DataFrame) -> pd.DataFrame:
        seen.append((held, written))
        return stock(base, held, written)

    swap(monkeypatch, reach, "reachability", listen)
    found = reach.early_reach(study.base, study.profile, rows, last=2)
    assert found["seed"].tolist() == [0, 0, 2] and found["samples"].tolist() == [2] * 3  # board 5 came in step 3
    for (held, written), (seed, ids) in zip(seen, ((0, [1, 9]), (2, [4])), strict=True):
        boards = training_boards(study.profile.puzzle, 10, seed)
        for place, i in enumerate(ids):
            assert np.array_equal(held.pixels[place], boards.pixels[i])
            assert held.placements[place].tolist() == boards.placements[i].tolist()
            assert (written[written["puzzle_id"] == i]["board"] == place).all()
    with pytest.raises(UserError, match="no RFT completion of the first 0 steps"):
        reach.early_reach(study.base, study.profile, rows, last=0)


def test_the_base_foretells_its_own_hits(study: Study) -> None:
    boards = training_boards(study.profile.puzzle, 80, 0)
    known = [i for i, p in enumerate(boards.placements.tolist()) if p in ([2, 1, 4, 3], [3, 1, 4, 2])]
    assert len(known) >= 3
    found = reach.early_reach(study.base, study.profile, rft_rows(study, 0, known[:4], 40), last=3)
    assert "; as many as the base's likelihood foretells" in reach.early_sentence(found)


def test_early_hits_in_words() -> None:
    found = pd.DataFrame({"likelihood": [0.5, 0.1, 0.1], "samples": [8, 8, 8], "right": [4, 1, 0]})
    words = reach.early_sentence(found)
    assert "5 of 24; as many as the base's likelihood foretells (5.6, 95% from 2 to 9)" in words
    assert "in 75% of pairs" in words  # 0.5 stands above 0.1, and 0.1 ties with 0.1
    assert "not the number" in reach.early_sentence(found.assign(right=[8, 8, 8]))
    assert "pairs" not in reach.early_sentence(found.assign(right=[8, 8, 8]))


# ------------------------------------------------------------------------ perplexity and forgetting


def rollouts(steps: list[tuple[int, int, float, int]]) -> pd.DataFrame:
    """Completions from (step, puzzle, logp, tokens): correct where the log-prob is above -100."""
    rows = [(s, i, float(logp > -100), 1.0, logp, tokens) for s, i, logp, tokens in steps]
    return pd.DataFrame(rows, columns=["step", "puzzle_id", "exact", "format", "logp_base", "tokens"])


def test_a_steps_rollouts_stand_for_the_steps_around_it() -> None:
    # step 1 stands for 1 step, 2 for 1.5 (half of 1 to 4), 4 for 4 (half of 2 to 10), 10 for 6
    found = rates.stepwise_perplexity(
        rollouts([(1, 0, -2.0, 2), (2, 1, -3.0, 3), (4, 2, -999.0, 3), (10, 3, -8.0, 4), (10, 4, -4.0, 4)])
    )
    weights = {1: 1.0, 2: np.gradient([1, 2, 4, 10.0])[1], 10: 6 / 2}
    nats = weights[1] * 2 + weights[2] * 3 + weights[10] * 12
    tokens = weights[1] * 2 + weights[2] * 3 + weights[10] * 8
    assert found == pytest.approx(math.exp(nats / tokens))
    assert rates.stepwise_perplexity(rollouts([(1, 0, -999.0, 2)])) is None
    assert rates.stepwise_perplexity(rollouts([(3, 0, -4.0, 2)])) == pytest.approx(math.exp(2))


def test_thinning_the_groups_of_a_step_leaves_its_weight_alone() -> None:
    whole = [(step, i, -2.0 * step, 4) for step in (1, 2, 3) for i in range(6)]
    thinned = [row for row in whole if row[0] != 2 or row[1] == 0]
    full = rates.stepwise_perplexity(rollouts(whole))
    assert full == pytest.approx(math.exp(sum(2 * s for s in (1, 2, 3)) / 12))
    assert rates.stepwise_perplexity(rollouts(thinned)) == pytest.approx(full)


def evaluations(runs: dict[str, tuple[str, int, list[tuple[int, float, float]]]]) -> pd.DataFrame:
    """Evaluations from run: (arm, seed, [(step, exact, prior score)])."""
    rows = []
    for run, (arm, seed, points) in runs.items():
        for step, exact, prior in points:
            marks = [("puzzle", "exact", exact), ("puzzle", "hit", exact), ("puzzle", "format_failure", 0.0)]
            marks += [("lists", m, prior) for m in ("score", "likelihood", "format_failure")]
            rows += [evaluation(f"{arm}-{seed}", step, *mark, run=run) for mark in marks]
    return pd.DataFrame(rows)


NO_METRICS = pd.DataFrame(columns=["run", "arm", "seed", "step", "name", "value"])


def test_drops_are_one_per_run_and_rate() -> None:
    sft, low = specs(get_profile("smoke"), ["sft-answer"])[0], None
    low = replace(sft, learning_rate=1e-4)
    runs = {spec.name: spec for spec in (sft, low, replace(sft, seed=1))}
    table = evaluations(
        {
            "base-0-x": ("base", 0, [(0, 0.0, 0.9)]),
            sft.name: ("sft-answer", 0, [(0, 0.0, 0.9), (10, 1.0, 0.4)]),
            low.name: ("sft-answer", 0, [(0, 0.0, 0.9), (10, 0.3, 0.8)]),
            "sft-answer-7-other": ("sft-answer", 7, [(0, 0.0, 0.9), (10, 1.0, 0.1)]),  # not among the runs
        }
    )
    tables = {"evaluations": table, "metrics": NO_METRICS}
    final = rates.rate_drops(tables, runs, "drop_final").set_index("learning_rate")
    assert final["drop"].to_dict() == pytest.approx({1e-3: 0.5, 1e-4: 0.1}) and set(final["seed"]) == {0}
    halfway = rates.rate_drops(tables, runs, "drop_at_0.5")
    assert halfway[["arm", "learning_rate"]].values.tolist() == [["sft-answer", 1e-3]]  # the other never gets there
    assert halfway["drop"].item() == pytest.approx(0.25)
    assert rates.rate_drops(tables, {}, "drop_final").empty
    points = pd.concat([final.reset_index(), halfway]).assign(perplexity=1.0)
    assert set(rates.at_own_rate(get_profile("smoke"), points)["learning_rate"]) == {1e-3}


def test_runs_that_differ_in_the_rate_only_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    profile = get_profile("smoke")
    own, source = specs(profile, ["sft-rollout"])[0], "rft-0-0123456789"
    kept = [own, replace(own, learning_rate=1e-4, source=source, steps=9)]
    left = [replace(own, lora_rank=2, learning_rate=5e-4), replace(own, seed=5), replace(own, batch_size=8)]
    left += [replace(own, steps=50), replace(own, learning_rate=1e-4, steps=8)]  # of an earlier version of the study
    store = RunStore(tmp_path / "runs" / "smoke")
    for spec in (*kept, *left):
        store.start(spec).finish()
    assert rates.rate_runs(profile) == {spec.name: spec for spec in kept}


def test_every_recorded_run_is_the_study_and_its_controls(here: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, unknown = (replace(specs(here.profile, ["sft-answer"])[0], learning_rate=rate) for rate in (1e-4, 7e-7))
    assert slow.name in {control.spec.name for control in controls.control_specs(here.profile)}
    for spec in (slow, unknown):
        run = RunStore(here.root / "runs" / "smoke").start(spec)
        row = {"step": 0, "samples": 0, "task": "puzzle", "measure": "exact", "value": 0.5, "n": 1}
        run.append("evaluations", [row])
        run.finish()
    whole = pd.DataFrame({"run": sorted(spec.name for spec in specs(here.profile, ARMS))})
    swap(monkeypatch, published, "table", lambda profile, name: whole)
    found = rates.every_run(here.profile, "evaluations")
    assert sorted(found["run"]) == sorted([*whole["run"], slow.name])
    assert rates.every_run(here.profile, "completions") is whole


def test_study_rows_are_those_of_the_studys_own_runs() -> None:
    profile = get_profile("smoke")
    own = specs(profile, ["rft"])[0].name
    table = pd.DataFrame({"run": [own, "rft-0-aaaaaaaaaa", "rft-no-kl-0-bbbbbbbbbb", "sft-answer-0-cccccccccc"]})
    assert rates.study_rows(profile, table, "rft")["run"].tolist() == [own]
    assert rates.study_rows(profile, table.iloc[1:], "rft")["run"].tolist() == ["rft-0-aaaaaaaaaa"]


def test_each_run_has_the_perplexity_of_what_it_learned_from(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.root)  # not among whatever was trained where the tests are started
    profile = get_profile("smoke")
    arms = ("rft", "reinforce-1-0", "sft-answer", "sft-rollout", "distill", "sft-stream", "sft-replay")
    rft, reinforce, answer, rollout, distill, stream, replay = (specs(profile, [a])[0] for a in arms)
    slow = replace(answer, learning_rate=1e-5)
    boards = training_boards(profile.puzzle, 3, 0)
    right = [f"<think>sky</think>{corpora.answer(p)}" for p in boards.placements.tolist()]
    common = {"run": rft.name, "step": 4, "exact": 1.0, "format": 1.0, "tokens": 5}
    records = pd.DataFrame({"puzzle_id": range(3), "completion": right, "logp_base": [-5.0, -10.0, -15.0]})
    records = records.assign(**common)
    others = [records.assign(run=s.name, logp_base=p) for s, p in ((reinforce, -20.0), (distill, -25.0))]
    records = pd.concat([records, *others], ignore_index=True)
    runs = {spec.name: spec for spec in (rft, reinforce, answer, slow, rollout, distill, stream, replay)}
    found = rates.rate_perplexities(study.base, profile, records, 3, runs)
    values = found.set_index(["arm", "learning_rate"])["perplexity"]
    assert values["rft", 1e-3] == pytest.approx(math.exp(2))
    assert values["reinforce-1-0", 1e-3] == pytest.approx(math.exp(4))
    assert values["distill", 1e-3] == pytest.approx(math.exp(5))  # from its own samples, not from its teacher's
    assert values["sft-stream", 1e-3] == values["rft", 1e-3]
    asked = boards.prompted()
    for arm, texts in (("sft-answer", corpora.answer_completions(boards)), ("sft-rollout", right)):
        logps = torch.cat([stock_logps(study.base, a, t) for a, t in zip(asked, texts, strict=True)])
        assert values[arm, 1e-3] == pytest.approx(math.exp(-float(logps.mean())), rel=1e-3)
    assert values["sft-answer", 1e-5] == values["sft-answer", 1e-3]  # the rate does not change the corpus
    assert set(found["arm"]) == set(arms[:6])  # what sft-replay saw is not in the records
    measured = pd.DataFrame({"run": [replay.name, answer.name], "perplexity": [7.0, 8.0]})
    swap(monkeypatch, analyses, "load", lambda _: {"predictors": measured})
    again = rates.rate_perplexities(study.base, profile, records, 3, runs)
    assert again.set_index("arm")["perplexity"]["sft-replay"] == 7.0 and set(again["arm"]) == set(arms)
    pd.testing.assert_frame_equal(again[again["arm"] != "sft-replay"].reset_index(drop=True), found)


arm_points = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(1, 6), st.integers(0, 6)), min_size=2, max_size=12
)


@settings(max_examples=40)
@given(arm_points)
def test_luck_is_a_count_of_all_orders(drawn: list) -> None:
    means = pd.DataFrame(drawn, columns=["arm", "perplexity", "drop"]).groupby("arm").mean()
    rank = fits.rank_luck(means["perplexity"], means["drop"])
    if means["perplexity"].nunique() < 2 or means["drop"].nunique() < 2:
        assert rank is None
        return
    x, y = rankdata(means["perplexity"]).tolist(), rankdata(means["drop"]).tolist()
    assert rank[0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    score = lambda order: sum(a * b for a, b in zip(x, order, strict=True))  # noqa: E731 -- the ranks' means are fixed
    orders = list(permutations(y))
    assert rank[1] == pytest.approx(sum(score(o) >= score(y) - 1e-9 for o in orders) / len(orders))


def test_luck_of_many_arms_is_estimated() -> None:
    ranks = [3, 0, 5, 1, 8, 2, 4, 7, 6]
    rho, luck = fits.rank_luck(pd.Series(range(9)), pd.Series(ranks))
    assert rho == pytest.approx(1 - 6 * sum((i - r) ** 2 for i, r in enumerate(ranks)) / (9 * 80))
    every = np.array(list(permutations(range(9)))) @ np.arange(9)
    exact = (every >= np.dot(ranks, range(9))).mean()
    assert exact > 0.005 and luck == pytest.approx(exact, rel=0.25)


def test_rank_correlation_over_arms_in_words() -> None:
    points = pd.DataFrame({"arm": ["a", "b", "c"], "perplexity": [1, 2, 3], "drop": [0.1, 0.2, 0.3]})
    assert rates.rank_sentence(points) == (
        "Rank correlation over 3 arms: 1.00; by luck alone at least that in 16.7% of all orders."
    )
    assert "No rank correlation" in rates.rank_sentence(points.assign(drop=0.0))
    assert "No rank correlation" in rates.rank_sentence(points.iloc[:1])


def test_one_board_is_the_first_with_most_kinds(here: Study) -> None:
    kinds, corpus = reach.one_board(here.profile, here.probes)
    right = here.probes[here.probes["probe"].isin(("answer", "expert", "rollout", "base-right"))]
    number = right.groupby("number").size().pipe(lambda counts: counts[counts == counts.max()].index.min())
    assert len(kinds) == right.groupby("number").size().max()
    boards = probe_boards(here.profile, BOARDS)
    assert all(np.array_equal(p, boards.pixels[number]) for p in (prompt.pixels for prompt in corpus.prompts))
    assert all(answers.score(t, boards.placements[number].tolist()).exact == 1 for t in corpus.completions)


# ----------------------------------------------------------------------------------------- figures


def test_probability_strips_draw_every_completion_twice() -> None:
    rows = pd.DataFrame(
        {
            "corpus": ["a", "a", "b"],
            "logp": [-4.0, -6.0, -300.0],
            "tokens": [2, 2, 3],
            "per_token": [-2.0, -3.0, -100.0],
        }
    )
    table = reach.corpus_summary(rows)
    fig = comparisons.probability_strips(rows, table)
    assert fig.jigsaw_drawn[0].equals(rows)
    for ax, column in zip(fig.axes, ("logp", "per_token"), strict=True):
        drawn = sorted(float(x) for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata())
        low, high = ax.get_xlim()
        assert drawn == sorted(rows[column]) and low < min(drawn) and high == 0
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["a", "b"]


def test_token_panels_colour_all_completions_on_one_scale() -> None:
    views = [(["<answer>", "2"], [-8.0, 0.0]), (["sky"] * 40, [-0.5] * 40)]
    fig = comparisons.token_panels(["first", "second"], views)
    drawn = fig.jigsaw_drawn[0]
    assert drawn["completion"].tolist() == ["first"] * 2 + ["second"] * 40 and drawn["logp"].sum() == -28
    first, second = fig.axes[:2]
    assert [len(ax.patches) for ax in (first, second)] == [2, 40]
    assert first.get_title(loc="left") == "first: -8.0 nats"
    assert first.patches[0].get_facecolor() != first.patches[1].get_facecolor() != second.patches[0].get_facecolor()


def test_reach_draws_intervals_and_ranks_and_does_without_ranks() -> None:
    counts = {"board": [0, 1], "samples": [8, 8], "right": [0, 2], "counted": [0.0, 0.25]}
    found = pd.DataFrame(counts | {"low": [0.0, 0.1], "high": [0.3, 0.6], "likelihood": [0.02, 0.06]})
    ranks = pd.DataFrame({"board": [1], "chance": [0.06], "rank": [3.0], "valid": [1.0], "placements": [24]})
    fig = comparisons.reach(found, ranks, 1 / 23)
    assert len(fig.axes) == 2 and fig.jigsaw_drawn[0]["rank"].tolist() == ["", 3.0]
    assert sum(patch.get_height() for patch in fig.axes[1].patches) == 1
    alone = comparisons.reach(found, None, 1 / 23)
    assert len(alone.axes) == 1 and "rank" not in alone.jigsaw_drawn[0]


def test_shift_panels_draw_trained_arms_only(here: Study) -> None:
    _, scored = probe_tables(here.profile, ARMS)
    shifted = shifts(scored)
    fig = comparisons.shift_panels(shifted)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["rft", "sft-answer"]
    drawn = fig.jigsaw_drawn[0]
    assert set(drawn["arm"]) == {"rft", "sft-answer"} and set(drawn["probe"]) == set(PROBES)
    assert set(comparisons.PROBE_LOOK) == set(PROBES)
    with pytest.raises(UserError, match="None of these runs was trained"):
        comparisons.shift_panels(shifted[shifted["arm"] == "base"])


def test_seed_points_draw_every_run_and_larger_markers_for_higher_rates() -> None:
    runs = {"arm": ["rft", "sft-answer", "sft-answer"], "seed": [0, 0, 0], "learning_rate": [1e-4, 1e-4, 1e-3]}
    points = pd.DataFrame(runs | {"perplexity": [1.3, 200.0, 200.0], "drop": [0.0, 0.2, 0.8]})
    fig = comparisons.seed_points(points, "drop")
    assert fig.jigsaw_drawn[0].shape == (3, 5)
    sizes = {line.get_ydata()[0]: line.get_markersize() for line in fig.axes[0].lines if len(line.get_ydata()) == 1}
    assert sizes[0.8] > sizes[0.2] == sizes[0.0]
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == ["rft", "sft-answer", "rate 0.0001", "rate 0.001"]
    one = comparisons.seed_points(points.iloc[:2], "drop")
    assert [text.get_text() for text in one.legends[0].get_texts()] == ["rft", "sft-answer"]


def test_seeds_without_the_one_that_gives_the_probe_set_are_refused() -> None:
    with pytest.raises(UserError, match="first seed: name it"):
        command_line.score(command_line.parser().parse_args(["score", "--seeds", "1", "2"]))
