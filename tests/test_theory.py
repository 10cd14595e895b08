"""The theory's statements on runs: against values by hand, and against a step taken in another way."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import controls, dynamics, landscape, prior_tasks, scoring, theory
from helpers.puzzles import PuzzleSpec

SMALL = theory.Amount(boards=2, batches=2, draws=4, pairs=2, samples=2, gold=1)
SPEC = SimpleNamespace(arm="sft-answer", seed=1, learning_rate=1e-3)


@dataclass(frozen=True)
class FakeBench:
    """A base, and one run whose weights are the base's plus `change`."""

    base: tuple[Any, Any] = field(repr=False)
    change: float = 0.0
    profile: Any = field(default_factory=lambda: SimpleNamespace(name="cpu"))

    def weights(self, spec: Any) -> dict[str, torch.Tensor]:
        """The base's for None."""
        generator, found = torch.Generator().manual_seed(0), dynamics.weights_of(self.base[0])
        return found if spec is None else {
            n: w + self.change * torch.randn(w.shape, generator=generator) for n, w in found.items()
        }  # fmt: skip


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A battery of two tasks, and a corpus of four bare answers."""
    boards = scoring.make_boards(PuzzleSpec(), range(4), 3)
    pairs = [(prompt, "<answer>2 1 4 3</answer>") for prompt in boards.prompted()]
    monkeypatch.setattr(prior_tasks, "battery_tasks", lambda: ("lists", "colour"))
    monkeypatch.setattr(controls, "corpus_sample", lambda bench, spec, n: pairs[:n])


def test_the_base_s_own_samples_fill_their_region_but_for_a_twentieth() -> None:
    own = np.arange(100.0)
    assert theory.share_in_region(own, own) == pytest.approx(0.95)
    assert theory.share_in_region([4.0, 5.0, 1e9, -1e9], own) == pytest.approx(0.5)  # percentiles 4.5, 5.5, 100, 0
    assert math.isnan(theory.share_in_region([], own))


def test_only_rft_has_a_region_and_only_its_last_third_counts(tmp_path, monkeypatch) -> None:
    rows = pd.DataFrame({"step": [1, 6, 7, 8, 9], "exact": [1, 1, 1, 1, 0], "format": 1, "tokens": 3,
                         "logp_base": [-90.0, -90.0, -1.0, -90.0, -90.0]})  # fmt: skip
    rows.to_parquet(tmp_path / "completions.parquet")
    monkeypatch.setattr(controls, "store", lambda profile: SimpleNamespace(folder=lambda spec: tmp_path))
    own = pd.DataFrame({"logp": np.linspace(-5, 0, 100)})
    monkeypatch.setattr(landscape, "own_samples", lambda base, profile, boards, samples: own)
    bench = SimpleNamespace(base=None, profile=None)
    assert theory.region(bench, SimpleNamespace(arm="rft"), SMALL) == 0.5  # steps 7 and 8; 9 is wrong
    assert math.isnan(theory.region(bench, SPEC, SMALL))


def test_a_run_that_did_not_move_has_its_kernel_and_its_knowledge(tiny) -> None:
    bench = FakeBench(tiny.load())
    row = theory.measured_theory(bench, SPEC).iloc[0]
    assert row[["alignment", "size", "gold_shift"]].tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)
    moved = theory.measured_theory(FakeBench(bench.base, 0.05), SPEC).iloc[0]
    assert moved["alignment"] < 0.99 and moved["gold_shift"] != 0
    for name in ("asymmetry_sgd", "asymmetry_adamw", "influence_sgd", "influence_adamw"):
        assert moved[name] == row[name] != 0  # measured at the base, whatever the run did


def test_influence_is_what_a_step_of_torch_does_to_gold_answers(tiny) -> None:
    model, processor = tiny.load()
    corpus = theory.corpus_items(FakeBench((model, processor)), SPEC, 2)
    found = theory._influence(FakeBench((model, processor)), SPEC, corpus, SMALL)
    gold = [scoring.battery_samples(task, 2)[1] for task in ("lists", "colour")]  # seed 1, one sample per task
    asked = [scoring.Prompted(s.pixels, s.question.text) for s in gold]
    texts = [[s.question.completion] for s in gold]

    def logps() -> tuple[float, int]:
        rows = [row[0] for row in scoring.completion_logps(model, processor, asked, texts)]
        return sum(float(row.sum()) for row in rows), sum(map(len, rows))

    before, tokens = logps()
    packed, pictures = scoring.pack_completions(processor, [(i.prompt, [i.completion]) for i in corpus])
    (-scoring.token_logps(model, packed, pictures).mean()).backward()
    torch.optim.SGD(model.parameters(), lr=theory.SGD_RATE).step()
    assert found["influence_sgd"] == pytest.approx((logps()[0] - before) / tokens, rel=2e-3, abs=1e-6)


def test_another_seed_sees_other_samples_and_a_tenth_of_its_own_rate() -> None:
    zero, one = (theory.observed(SimpleNamespace(seed=s), 2) for s in (0, 1))
    assert [i.kind for i in one] == ["lists", "lists", "colour", "colour"]
    assert not {id(i.prompt) for i in zero} & {id(i.prompt) for i in one}
    assert [i.completion for i in one[:2]] == [
        s.question.completion for s in scoring.battery_samples("lists", 4)[2:]
    ]  # fmt: skip
    assert theory.steps(SPEC, 0.1)["adamw"].rate == pytest.approx(1e-4) and theory.steps(SPEC)["sgd"].rate == 1e-3


def test_a_run_whose_corpus_is_gone_has_gaps_and_no_error(tiny, monkeypatch) -> None:
    monkeypatch.setattr(controls, "corpus_sample", lambda bench, spec, n: [])
    row = theory.measured_theory(FakeBench(tiny.load()), SPEC).iloc[0]
    assert row.drop("gold_shift").isna().all() and row["gold_shift"] == 0
