"""The theory's statements on runs: against values by hand, and against the same taken in another way."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from swapping import swap

from helpers.measure import influence, learned_from, linear, reach, theory
from helpers.measure import shared as shared_module
from helpers.measure.shared import Amount
from helpers.measure.theory import Subject
from helpers.model import score
from helpers.study import records
from helpers.world import battery
from helpers.world.boards import Corpus, Prompted, make_boards
from helpers.world.puzzles import PuzzleSpec

SMALL = Amount(boards=2, batches=2, draws=4, pairs=2, samples=2, gold=1)
SPEC = SimpleNamespace(arm="sft-answer", seed=1, learning_rate=1e-3, name="sft-answer-1")


@dataclass(frozen=True)
class FakeShared:
    """A base, and one run with checkpoints at steps 8, 64 and 90: the base's weights plus a share of `change`."""

    base: tuple[Any, Any] = field(repr=False)
    change: float = 0.0
    profile: Any = field(default_factory=lambda: SimpleNamespace(name="cpu"))

    def weights(self, spec: Any, share: float = 1.0) -> dict[str, torch.Tensor]:
        """The base's for None."""
        generator, found = torch.Generator().manual_seed(0), linear.weights_of(self.base[0])
        if spec is None:
            return found
        return {n: w + share * self.change * torch.randn(w.shape, generator=generator) for n, w in found.items()}

    def model(self, spec: Any, step: int) -> tuple[Any, Any]:
        """What `linear.weights_of` reads: named parameters."""
        weights = self.weights(spec, step / 90)
        return SimpleNamespace(named_parameters=weights.items), self.base[1]


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A battery of two tasks, a corpus of four bare answers, and the run's folder."""
    boards = make_boards(PuzzleSpec(), range(4), 3)
    texts = [f"<answer>{order}</answer>" for order in ("2 1 4 3", "3 4 1 2", "4 1 2 3", "1 3 2 4")]
    pairs = list(zip(boards.prompted(), texts, strict=True))
    swap(monkeypatch, battery, "battery_tasks", lambda: ("lists", "colour"))
    swap(monkeypatch, learned_from, "corpus_of_run", lambda shared, spec, n: made(pairs[:n]))
    run = SimpleNamespace(folder=lambda spec: tmp_path, checkpoints=lambda spec: tmp_path / "checkpoints")
    swap(monkeypatch, shared_module, "store", lambda profile: run)
    for step in (8, 64, 90):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)


def made(pairs: list) -> Corpus:
    return Corpus(SPEC.arm, [prompt for prompt, _ in pairs], [text for _, text in pairs])


def subject(loaded: tuple[Any, Any], change: float = 0.0, amount: Amount = SMALL) -> Subject:
    shared = FakeShared(loaded, change)
    return Subject(shared, SPEC, list(learned_from.corpus_of_run(shared, SPEC, amount.boards * amount.batches)), amount)


def gold_logps(model: Any, processor: Any) -> tuple[float, int]:
    """Sum of the log-probs of the gold answers that seed 1 observes, by the scorer, and their number of tokens."""
    gold = [battery.battery_samples(task, 2)[1] for task in ("lists", "colour")]
    asked = [Prompted(s.pixels, s.question.text) for s in gold]
    found = score.completion_logps(model, processor, asked, [[s.question.completion] for s in gold])
    return sum(float(row[0].sum()) for row in found), sum(len(row[0]) for row in found)


# --- the base's region ------------------------------------------------------------------------------------


def test_the_base_s_own_samples_fill_their_region_but_for_a_twentieth() -> None:
    own = np.arange(100.0)
    assert theory.share_in_region(own, own) == pytest.approx(0.95)
    assert theory.share_in_region([4.0, 5.0, 1e9, -1e9], own) == pytest.approx(0.5)  # percentiles 4.5, 5.5, 100, 0
    assert math.isnan(theory.share_in_region([], own))


def test_only_rft_has_a_region_and_only_its_last_third_counts(tmp_path, monkeypatch) -> None:
    own = pd.DataFrame({"logp": np.linspace(-5, 0, 100)})
    swap(monkeypatch, reach, "own_samples", lambda base, profile, boards, samples: own)
    shared = SimpleNamespace(base=None, profile=None)
    rft = Subject(shared, SimpleNamespace(arm="rft"), [], SMALL)
    assert math.isnan(theory.region(rft))  # no rollouts here
    rows = pd.DataFrame({"step": [1, 6, 7, 8, 9], "exact": [1, 1, 1, 1, 0], "format": 1, "tokens": 3,
                         "logp_base": [-90.0, -90.0, -1.0, -90.0, -90.0]})  # fmt: skip
    table = SimpleNamespace(to_pandas=lambda: rows)
    swap(monkeypatch, records, "is_finished", lambda folder: True)
    swap(monkeypatch, records, "own_table", lambda folder, name: table)
    assert theory.region(rft) == 0.5  # steps 7 and 8; 9 is wrong
    assert math.isnan(theory.region(replace(rft, spec=SPEC)))


# --- the kernel -------------------------------------------------------------------------------------------


def test_the_relative_change_of_a_kernel_by_hand() -> None:
    before = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert theory.relative_change(before, before) == 0 and theory.relative_change(before, 3 * before) == 2.0
    assert theory.relative_change(before, before + torch.tensor([[0.0, 1.0], [0.0, 0.0]])) == pytest.approx(0.2)


def test_the_kernel_is_followed_from_the_base_and_from_a_few_dozen_steps(tiny) -> None:
    still = theory.kernel_changes(subject(tiny.load()))
    assert still == {"kernel_change": 0.0, "kernel_late": 0.0}
    moved = theory.kernel_changes(subject(tiny.load(), 0.03))
    assert moved["kernel_change"] > moved["kernel_late"] > 0.01  # two thirds of the way are behind it at step 64


def test_checkpoints_of_the_first_dozens_of_steps(tiny, tmp_path) -> None:
    found = subject(tiny.load())
    assert theory.early_checkpoints(found) == [8, 64]
    for step in (8, 64):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").rmdir()
    assert theory.early_checkpoints(found) == [90]


# --- influence --------------------------------------------------------------------------------------------


def test_influence_is_what_a_step_of_torch_does_to_gold_answers(tiny) -> None:
    found, changes = theory.influences(subject(tiny.load())), {"sgd": [], "adamw": []}
    for rule, make in (("sgd", lambda p: torch.optim.SGD(p, lr=theory.SGD_STEP)),
                       ("adamw", lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.0))):  # fmt: skip
        for first in (0, 2):  # two batches of two boards
            model, processor = tiny.load()
            before, tokens = gold_logps(model, processor)
            corpus = subject((model, processor)).corpus[first : first + 2]
            packed, pictures = score.pack_completions(processor, [(i.prompt, [i.completion]) for i in corpus])
            (-score.token_logps(model, packed, pictures).mean()).backward()
            make(model.parameters()).step()
            changes[rule].append(1e3 * (gold_logps(model, processor)[0] - before) / tokens)
    for rule, values in changes.items():
        assert abs(np.mean(values)) > 0.1
        assert found[f"influence_{rule}"] == pytest.approx(np.mean(values), rel=0.01)


def test_sgd_acts_both_ways_alike_and_adamw_does_not(tiny, monkeypatch) -> None:
    swap(monkeypatch, theory, "SMALL_STEP", 1e-4)  # this model is much sharper than the study's
    found = theory.asymmetries(subject(tiny.load()))
    assert 0 <= found["asymmetry_sgd"] < 0.1 < found["asymmetry_adamw"] <= 2


def test_lbk_adds_up_over_checkpoints_with_the_normalisers_of_the_one_before(tiny) -> None:
    chosen = subject(tiny.load(), 0.02)
    assert theory.early_lbk(subject(tiny.load())) == 0
    base, shared = chosen.shared.base, chosen.shared
    probes, learned = (linear.scored(base, items) for items in (chosen.observed(), chosen.corpus))
    path = [shared.weights(None), *(shared.weights(SPEC, step / 90) for step in (8, 64))]
    total = 0.0
    for before, after in zip(path, path[1:], strict=False):
        change = influence.logps_at(probes, after) - influence.logps_at(probes, before)
        p, q = (influence.logits_at(batch, before).softmax(-1) for batch in (probes, learned))
        words = p.shape[-1]
        bars = [float(p[probes.owner == i].norm(dim=-1).mean()) for i in range(2)]
        a = np.mean([math.sqrt(words * bar**2 + words - 2) for bar in bars])
        residual = (q - torch.nn.functional.one_hot(learned.target, words)).norm(dim=-1)
        g = np.mean([float(residual[learned.owner == i].mean()) for i in range(4)])
        total += float(change.norm()) / (math.sqrt(a) * g)
    assert theory.early_lbk(chosen) == pytest.approx(total, rel=1e-4)


# --- the whole row ----------------------------------------------------------------------------------------


def test_a_row_leaves_the_base_as_it_was_and_says_what_the_run_did(tiny) -> None:
    loaded = tiny.load()
    before, (start, tokens) = linear.weights_of(loaded[0]), gold_logps(*loaded)
    shared, small = FakeShared(loaded, 0.02, SimpleNamespace(name="smoke")), Amount(2, 1, 2, 1, 2, 1)
    row = theory.measured_theory(shared, SPEC).iloc[0]
    assert all(torch.equal(w, before[n]) for n, w in linear.weights_of(loaded[0]).items())
    corpus = subject(loaded, amount=small).corpus
    logps = score.completion_logps(*loaded, [i.prompt for i in corpus], [[i.completion] for i in corpus])
    pooled = torch.cat([part[0] for part in logps])
    assert len(corpus) == 2 and row["perplexity"] == pytest.approx(math.exp(-float(pooled.mean())), rel=1e-3)
    with torch.no_grad():
        for name, weight in shared.weights(SPEC).items():
            loaded[0].get_parameter(name).copy_(weight)
    assert row["gold_shift"] == pytest.approx((gold_logps(*loaded)[0] - start) / tokens, rel=1e-3)
    assert row.notna().sum() == len(row) - 1 and math.isnan(row["region"])


def test_another_seed_observes_other_samples() -> None:
    zero, one = (Subject(None, SimpleNamespace(seed=s), [], SMALL).observed(2) for s in (0, 1))
    expected = [s.question.completion for task in ("lists", "colour") for s in battery.battery_samples(task, 4)[2:]]
    assert [i.completion for i in one] == expected and [i.kind for i in one] == ["lists"] * 2 + ["colour"] * 2
    assert not any(np.array_equal(a.prompt.pixels, b.prompt.pixels) for a, b in zip(zero[2:], one[2:], strict=True))


@pytest.mark.parametrize(("size", "chosen"), [(8, [0, 4]), (5, [0, 2]), (2, [0, 1]), (1, [0]), (0, [])])
def test_samples_to_compare_are_spread_evenly(size: int, chosen: list[int]) -> None:
    assert Subject(None, SPEC, list(range(size)), SMALL).some == chosen


def test_a_run_whose_corpus_is_gone_has_what_is_left_and_no_error(tiny, monkeypatch) -> None:
    swap(monkeypatch, learned_from, "corpus_of_run", lambda shared, spec, n: made([]))
    row = theory.measured_theory(FakeShared(tiny.load()), SPEC).iloc[0]
    assert row["gold_shift"] == 0 and list(row.index) == ["gold_shift", "region"]
