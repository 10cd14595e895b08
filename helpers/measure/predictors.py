"""Quantities that may predict forgetting: divergences from the base, drift of activations, Fisher distance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import ProcessorMixin

from helpers.measure import influence, linear
from helpers.measure.linear import Weights
from helpers.model import evaluate
from helpers.model.build import Loaded
from helpers.model.forward import Model, hidden_states, scored_logits
from helpers.model.generate import Sampling
from helpers.model.score import draw, pack_completions, token_logps
from helpers.stats.fits import percentile_interval, r_squared, resampled_fits
from helpers.train.trainers import token_kl
from helpers.world import battery, boards, seeds
from helpers.world.boards import Corpus, Prompted
from helpers.world.puzzles import PuzzleSpec


@dataclass(frozen=True)
class Sizes:
    """How much is measured: held-out `boards`, `battery` samples per task, `prompts` of each kind."""

    boards: int = 250
    battery: int = 40
    prompts: int = 96


def scores(loaded: Loaded, spec: PuzzleSpec, sizes: Sizes) -> dict[str, float]:
    """exact (puzzle), score, likelihood and format_failure (means over the prior tasks) of a model."""
    exact = evaluate.score_puzzles(*loaded, boards.held_out_boards(spec, sizes.boards))["exact"]
    return {"exact": exact} | mean_scores(list(evaluate.score_battery(*loaded, sizes.battery).values()))


def mean_scores(tasks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the scores of some prior tasks, with equal weight per task."""
    return {m: float(np.mean([task[m] for task in tasks])) for m in ("score", "likelihood", "format_failure")}


def written_by(loaded: Loaded, prompts: Sequence[Prompted]) -> Corpus:
    """What a model writes to prompts, the ids of one completion each at T = 1; equal for equal weights."""
    rows = draw(*loaded, list(prompts), Sampling(1, 1.0, 128, seeds.DIVERGENCE))
    return Corpus("own words", list(prompts), [own.ids for (own,) in rows])


def puzzle_prompts(spec: PuzzleSpec, n: int) -> list[Prompted]:
    """`n` held-out boards with their prompt."""
    return boards.held_out_boards(spec, n).prompted()


def prior_prompts(n: int) -> list[Prompted]:
    """`n` prompts of the battery, its tasks in turn."""
    tasks = battery.battery_tasks()
    each = -(-n // len(tasks))
    rows = [battery.battery_samples(task, each) for task in tasks]
    chosen = [row[k] for k in range(each) for row in rows][:n]
    return [boards.Prompted(sample.pixels, sample.question.text) for sample in chosen]


def completion_kl(p: Model, q: Model, processor: ProcessorMixin, written: Corpus) -> np.ndarray:
    """Sum over each completion's tokens (end token included) of KL(p || q) at that token: (n,), nats.

    For completions written by p its mean estimates KL(p || q) between the distributions over whole completions, with
    less variance than the log-ratio (the expectation over the next token is exact).
    """
    pairs, sums = written.pairs(), []
    for start in range(0, len(pairs), 32):
        part = pairs[start : start + 32]
        packed, pictures = pack_completions(processor, part)
        with torch.inference_mode():
            apart = token_kl(*(scored_logits(model, packed, pictures).float() for model in (p, q)))
        sums.append(torch.zeros(len(part)).index_add(0, packed.branch, apart.cpu()))
    return torch.cat(sums).numpy()


def divergences(base: Loaded, tuned: Loaded, puzzles: Corpus, prior: Corpus) -> dict[str, float]:
    """KL in nats per completion; `puzzles` and `prior`: what the base wrote to prompts of either kind.

    kl_forward: KL(base || tuned) on puzzle prompts (RL's Razor, arXiv 2509.04259); kl_reverse: KL(tuned || base) there,
    over what the tuned model writes; kl_prior: KL(base || tuned) on prior prompts.
    """
    own = written_by(tuned, puzzles.prompts)
    ways = {"kl_forward": (base, tuned, puzzles), "kl_reverse": (tuned, base, own), "kl_prior": (base, tuned, prior)}
    return {name: float(completion_kl(p[0], q[0], base[1], texts).mean()) for name, (p, q, texts) in ways.items()}


def activation_drift(base: Loaded, tuned: Loaded, prior: Corpus) -> float:
    """Mean absolute change of the last hidden states over their mean size, at the tokens that the base wrote."""
    packed, pictures = pack_completions(base[1], prior.pairs())
    with torch.inference_mode():
        before, after = (hidden_states(m, packed, pictures, packed.source).float() for m, _ in (base, tuned))
    return float((after - before).abs().mean() / before.abs().mean())


def fisher(base: Loaded, prior: Corpus) -> dict[str, torch.Tensor]:
    """Diagonal of the base's Fisher information: mean over the completions y that it wrote of (d log pi(y | x))^2."""
    # A completion at a time: a square of summed gradients is no sum of squares, so no batch can share a backward pass.
    model, processor = base
    total = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for pair in prior.pairs():
        model.zero_grad()
        token_logps(model, *pack_completions(processor, [pair])).sum().backward()
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                total[name] += weight.grad.square() / len(prior)
    model.zero_grad()
    return total


def fisher_distance(information: Weights, delta: Weights) -> float:
    """sqrt(sum F_i delta_i^2): the length of an update as the base's answers to prior prompts feel it."""
    return math.sqrt(sum(float((information[name] * part.square()).double().sum()) for name, part in delta.items()))


def first_lbk(base: Loaded, early: Model, prior: Corpus, corpus: Corpus) -> float:
    """LBK on the base's own answers to prior prompts, from the base to a run's first checkpoint (paper, section 5).

    `early`: the model at that checkpoint; `corpus`: samples of what the run learned from.
    """
    probes, learned = (linear.scored(base, list(items)) for items in (prior, corpus))
    return influence.lbk_between(probes, learned, linear.weights_of(base[0]), linear.weights_of(early))


def advantage(rows: pd.DataFrame, first: str, second: str, draws: int = 2000) -> tuple[float, float, float] | None:
    """R^2 of one predictor minus another's on the same runs, with its 95% bootstrap interval; None as in `fit`."""
    known = rows[(rows[[first, second]] > 0).all(axis=1)]
    if len(known) < 4:
        return None
    (a, b), y = np.log(known[[first, second]].to_numpy(float)).T, known["drop"].to_numpy(float)
    counts = resampled_fits(known, draws)
    return percentile_interval(r_squared(a, y) - r_squared(b, y), r_squared(a, y, counts) - r_squared(b, y, counts))
