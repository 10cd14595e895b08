"""What the paper's theory rests on, measured on the study's runs: one row per run, so that intervals are over seeds.

Notebook 07 takes the theory apart on one draw of samples. Here its statements are put to the test: does the kernel stay
constant over a training, is influence symmetric, whom does one update on a corpus harm, do RFT's correct rollouts stay
in the base's probable region? `claims.toml` holds the thresholds. They were fixed after notebooks 06 and 07 had been
seen, and several statistics were mended by a review of a first measurement of three seeds: these rows repeat, on other
samples and on a second training of the study's runs, what is known, and are no test of something unknown.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch

from helpers.measure import influence, learned_from, linear, reach, walks
from helpers.measure.reach import percentiles
from helpers.measure.shared import Amount, Shared, store
from helpers.study import checkpoints
from helpers.study.arms import get_arm
from helpers.study.records import is_finished, own_table
from helpers.study.spec import RunSpec
from helpers.world import battery
from helpers.world.boards import Sample

REGION_EDGE = 0.05  # the base's own samples below this percentile lie outside its probable region
EARLY_STEP = 64  # "a few dozen steps", after which the paper finds its curves settled; a checkpoint of every arm
SMALL_STEP, SGD_STEP = 1e-3, 0.01  # SGD where the first order is all there is, and where it learns (notebook 07)


@dataclass(frozen=True)
class Subject:
    """A run with what it learned from (`corpus`) and how much of it is measured."""

    shared: Shared
    spec: RunSpec
    corpus: Sequence[Sample]
    amount: Amount

    @cached_property
    def start(self) -> Mapping[str, torch.Tensor]:
        """The base's weights."""
        return self.shared.weights(None)

    @cached_property
    def end(self) -> Mapping[str, torch.Tensor]:
        """The run's final weights."""
        return self.shared.weights(self.spec)

    @cached_property
    def early(self) -> list[Mapping[str, torch.Tensor]]:
        """The weights at the checkpoints up to step `EARLY_STEP`."""
        return [linear.weights_of(self.shared.model(self.spec, step)[0]) for step in early_checkpoints(self)]

    @property
    def some(self) -> list[Sample]:
        """`amount.pairs` samples of the corpus, evenly chosen."""
        return list(self.corpus[:: max(1, len(self.corpus) // self.amount.pairs)][: self.amount.pairs])

    def observed(self, number: int = 1) -> list[Sample]:
        """Gold answers of every prior task, `number` each; other battery samples for another seed."""
        first = number * self.spec.seed
        return learned_from.gold_samples(battery.battery_tasks(), range(first, first + number))


def measured_theory(shared: Shared, spec: RunSpec) -> pd.DataFrame:
    """One row with everything below; NaN where a run has no such thing (no corpus, no rollouts).

    `perplexity` of the corpus under the base, `gold_shift`, `region`, `lbk`; `kernel_change` from the base and
    `kernel_late` from step `EARLY_STEP` to the end; `asymmetry_sgd`, `asymmetry_adamw`, `influence_sgd` and
    `influence_adamw`, which belong to base and corpus and not to the training.
    """
    amount = Amount(2, 1, 2, 1, 2, 1) if shared.profile.name == "smoke" else Amount()
    corpus = learned_from.corpus_of_run(shared, spec, amount.boards * amount.batches)
    subject = Subject(shared, spec, list(corpus), amount)
    row = {"gold_shift": gold_shift(subject), "region": region(subject)}
    if subject.corpus:
        row |= {"perplexity": perplexity(subject), "lbk": early_lbk(subject)}
        row |= kernel_changes(subject) | asymmetries(subject) | influences(subject)
    return pd.DataFrame([row])


def perplexity(subject: Subject) -> float:
    """exp of minus the mean base log-prob per token of the corpus."""
    batch = linear.scored(subject.shared.base, subject.corpus)
    logps = influence.logps_at(batch, subject.start)
    return math.exp(-float(logps.sum() / batch.tokens.sum()))


def gold_shift(subject: Subject) -> float:
    """Log-prob of prior tasks' gold answers at a run's end minus at the base, nats per token."""
    probes = linear.scored(subject.shared.base, subject.observed(subject.amount.gold))
    before, after = (influence.logps_at(probes, weights) for weights in (subject.start, subject.end))
    return float((after - before).sum() / probes.tokens.sum())


def kernel_changes(subject: Subject) -> dict[str, float]:
    """How much K(prior, corpus) changes from the base, and from step `EARLY_STEP`, to a run's end."""
    v, u = (linear.scored(subject.shared.base, items) for items in (subject.observed()[::2], subject.some))
    # The kernel is far too large to hold. Every sketch has the same random directions, so that the difference of two is
    # a sketch of the kernels' difference.
    start, early, end = (
        linear.sketch(linear.Linearised(v, weights), linear.Linearised(u, weights), subject.amount.draws)
        for weights in (subject.start, subject.early[-1], subject.end)
    )
    return {"kernel_change": relative_change(start, end), "kernel_late": relative_change(early, end)}


def early_checkpoints(subject: Subject) -> list[int]:
    """A run's checkpoints up to step `EARLY_STEP`; its first one where there is none."""
    numbers = checkpoints.checkpoint_numbers(store(subject.shared.profile).checkpoints(subject.spec))
    return [n for n in numbers if n <= EARLY_STEP] or numbers[:1]


def relative_change(before: torch.Tensor, after: torch.Tensor) -> float:
    """||K' - K||_F / ||K||_F from products of both with the same random directions; 0 where nothing changed."""
    return float((after.double() - before.double()).norm() / before.double().norm())


def asymmetries(subject: Subject) -> dict[str, float]:
    """Asymmetry of influence between prior tasks and corpus at the base (`walks.asymmetry_index`), from 0 to 2.

    For SGD at a small rate, where theorem 5.2 holds by construction, and for the first step of AdamW at a tenth of the
    run's rate.
    """
    base, prior, some = subject.shared.base, subject.observed(), subject.some
    groups = {linear.PRIOR: linear.singles(base, prior), subject.spec.arm: linear.singles(base, some)}
    together, indices = linear.scored(base, [*prior, *some]), {}
    for step in (influence.Step("sgd", SMALL_STEP), influence.Step("adamw", subject.spec.learning_rate / 10)):
        pairs = walks.symmetry(groups, together, subject.start, step)
        indices[f"asymmetry_{step.rule}"] = walks.asymmetry_index(pairs)
    return indices


def influences(subject: Subject) -> dict[str, float]:
    """What one update from the base does to prior gold answers, in 1e-3 nats per token.

    Mean over batches of the corpus; SGD, and the first step of AdamW at the run's full rate (warm-up begins lower).
    """
    base, amount = subject.shared.base, subject.amount
    parts = [linear.scored(base, part) for part in linear.batches(subject.corpus, amount.boards, amount.batches)]
    learned = influence.batch_gradients({subject.spec.arm: parts}, subject.start)
    probes = linear.scored(base, subject.observed(amount.gold))
    steps = (influence.Step("sgd", SGD_STEP), influence.Step("adamw", subject.spec.learning_rate))
    rows = influence.influence(learned, probes, subject.start, steps)
    change = influence.per_token(rows, ["step"]).set_index("step")["value"]
    return {f"influence_{step.rule}": 1e3 * float(change[step.label]) for step in steps}


def early_lbk(subject: Subject) -> float:
    """LBK of the prior tasks' gold answers, summed over a run's checkpoints up to step `EARLY_STEP` (paper, section 5).

    Each term has the normalisers of the checkpoint before it: of the probes, and of the samples learned from.
    """
    base, path = subject.shared.base, [subject.start, *subject.early]
    probes, learned = (linear.scored(base, items) for items in (subject.observed(), subject.corpus))
    return math.fsum(influence.lbk_between(probes, learned, *pair) for pair in itertools.pairwise(path))


def region(subject: Subject) -> float:
    """Share of RFT's correct rollouts of its last third in the base's probable region; NaN for other arms.

    Of the rollouts at steps that were scored under the base while training. See `share_in_region`.
    """
    shared, samples = subject.shared, subject.amount.samples
    folder = store(shared.profile).folder(subject.spec)
    if get_arm(subject.spec.arm).data != "own" or not is_finished(folder):
        return math.nan
    rows = own_table(folder, "completions").to_pandas()
    last = int(rows["step"].max())
    late = reach.phase_rows(rows, {"late": (2 * last // 3 + 1, last)})["logp"]
    own = reach.own_samples(shared.base, shared.profile, 3 * samples, samples)["logp"]
    return share_in_region(late.tolist(), own.tolist())


def share_in_region(logps: Sequence[float], own: Sequence[float]) -> float:
    """Share of completions that are more probable than the least probable twentieth of the base's own samples.

    Both are base log-probs of whole completions, nats; ties count half (`reach.percentiles`). The base's own
    samples give 0.95 by definition; NaN without completions.
    """
    return float((percentiles(logps, own) >= REGION_EDGE).mean()) if len(logps) else math.nan
