"""What one update on one corpus does to everything else: its gradients, their influence, and the bounds LBK."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from helpers.errors import UserError
from helpers.measure import linear
from helpers.measure.linear import PRIOR, RULES, Linearised, Scored, Weights, apply_a, pair_gradient, token_logps
from helpers.progress import counted, counting
from helpers.stats.curves import over_seeds
from helpers.stats.intervals import Interval, in_words


@dataclass(frozen=True)
class Step:
    """One update: torch's SGD or AdamW (fresh state, no decay) at a rate. Raises UserError for another rule."""

    rule: str
    rate: float

    def __post_init__(self) -> None:
        if self.rule not in RULES or not self.rate > 0:
            raise UserError(f"A step needs a rule of {', '.join(RULES)} and a rate above 0, not {self}.")

    @property
    def label(self) -> str:
        """ "SGD, rate 0.01"."""
        return f"{ {'sgd': 'SGD', 'adamw': 'AdamW'}[self.rule] }, rate {self.rate:g}"


def optimizer(leaves: Mapping[str, torch.Tensor], step: Step) -> torch.optim.Optimizer:
    """The step's optimizer over some tensors."""
    made = torch.optim.SGD if step.rule == "sgd" else torch.optim.AdamW
    return made(list(leaves.values()), lr=step.rate, weight_decay=0.0)


def update(weights: Weights, slope: Weights, step: Step) -> dict[str, torch.Tensor]:
    """The change of the weights after one step on a gradient.

    AdamW's first step is rate x g / (|g| + eps): nearly the sign, so its length hardly depends on the gradient's.
    """
    # torch's own optimizer takes the step, on copies: a rule written here could differ from the one that trains.
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    for name, leaf in leaves.items():
        leaf.grad = slope[name].detach().clone()
    optimizer(leaves, step).step()
    return {name: leaf.detach() - weights[name] for name, leaf in leaves.items()}


def moved(weights: Weights, direction: Weights, share: float = 1.0) -> dict[str, torch.Tensor]:
    """theta + share x direction."""
    return {name: weight + share * direction[name] for name, weight in weights.items()}


def logits_at(batch: Scored, weights: Weights) -> torch.Tensor:
    """Logits (M, V) at some weights."""
    with torch.no_grad():
        return batch.logits(weights)


def logps_at(batch: Scored, weights: Weights) -> torch.Tensor:
    """Log-prob of each item (n,) at some weights, nats."""
    return batch.logps(logits_at(batch, weights))


def predicted(line: Linearised, direction: Weights) -> dict[str, torch.Tensor]:
    """Two predictions of each item's change of log-prob (n,) from J alone.

    `first order`: -sum(G * J d), which for SGD is -eta A K G at the target word (Theorem 5.1). `linear logits`: the
    logits move by J d, the softmax is exact; what it misses is the change of J itself.
    """
    change, batch = line.push(direction), line.batch
    first = apply_a(line.logits, change).gather(-1, batch.target[:, None])[:, 0]
    # Subtracted token by token: a sum over many tokens would lose the small change to rounding.
    after = token_logps(line.logits + change, batch.target) - token_logps(line.logits, batch.target)
    return {"first order": batch.per_item(first), "linear logits": batch.per_item(after)}


class BatchGradient(NamedTuple):
    """A batch, the gradient of its loss at some weights, and the logits (M, V) there."""

    batch: Scored
    slope: Weights
    logits: torch.Tensor


BatchGradients = Mapping[str, Sequence[BatchGradient]]  # by corpus


def batch_gradients(corpora: Mapping[str, Sequence[Scored]], weights: Weights) -> dict[str, list[BatchGradient]]:
    """The gradients of all batches of all corpora, taken once."""
    with counting(sum(map(len, corpora.values())), "gradients") as count:

        def gradient(batch: Scored) -> BatchGradient:
            made = BatchGradient(batch, *pair_gradient(batch, weights))
            count.step()
            return made

        return {arm: [gradient(batch) for batch in parts] for arm, parts in corpora.items()}


def influence(
    learned: BatchGradients, probes: Scored, weights: Weights, steps: Sequence[Step], line: Linearised | None = None
) -> pd.DataFrame:
    """Change of each probe's log-prob after one real update on each batch of each corpus: a row per combination.

    Columns corpus, batch, step (its label), item, kind, tokens, change (nats), a (the probe's A_norm) and g (mean
    ||p - e||_2 of the batch), for LBK; with `line`, the probes' `Linearised`, also the predictions of `predicted`.
    """
    frames, logits = [], logits_at(probes, weights)
    before = probes.logps(logits)
    common = {"item": range(len(probes.kinds)), "kind": probes.kinds, "tokens": probes.tokens.tolist()}
    common["a"] = item_a_norm(logits, probes).tolist()
    for corpus, number, one in counted(list(each_gradient(learned)), "updates"):
        g = float(item_g_norm(one.logits, one.batch).mean())
        for step in steps:
            direction = update(weights, one.slope, step)
            changes = {"change": logps_at(probes, moved(weights, direction)) - before}
            changes |= predicted(line, direction) if line else {}
            named = {"corpus": corpus, "batch": number, "step": step.label, "g": g}
            frames.append(pd.DataFrame(common | {name: values.tolist() for name, values in changes.items()} | named))
    return pd.concat(frames, ignore_index=True)


def each_gradient(learned: BatchGradients) -> Iterator[tuple[str, int, BatchGradient]]:
    """(corpus, number of the batch, one) of all."""
    for corpus, parts in learned.items():
        for number, one in enumerate(parts):
            yield corpus, number, one


def per_token(rows: pd.DataFrame, by: Sequence[str], value: str = "change") -> pd.DataFrame:
    """Change per token (nats, tokens pooled) of the rows of `influence`, per group: columns `by`, value."""
    sums = rows.groupby(list(by), sort=False)[[value, "tokens"]].sum()
    return (sums[value] / sums["tokens"]).rename("value").reset_index()


def over_batches(rows: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean and 95% t interval over the batches of each group: columns `by`, mean, low, high."""
    return over_seeds(rows, by, value).drop(columns="seeds")


def span(interval: Interval, digits: int = 2, scale: float = 1.0) -> str:
    """ "+0.12 (+0.08 to +0.16)" of anything with mean, low and high."""
    return in_words((scale * value for value in (interval.mean, interval.low, interval.high)), f"+.{digits}f")


def sign_words(interval: Interval, below: str, above: str) -> str:
    """Which side of 0 an interval lies on, in the words given, or "undecided"."""
    return below if interval.high < 0 else above if interval.low > 0 else "undecided"


def mutual(alone: Sequence[Scored], together: Scored, weights: Weights, step: Step) -> np.ndarray:
    """Entry (i, j): change of the mean log-prob per token of item j after one step up that of item i (n, n).

    `alone` hold one item each, `together` all of them in the same order. Theorem 5.2 says that for SGD the matrix is
    symmetric to first order.
    """
    before, rows = logps_at(together, weights), []
    for single in counted(alone, "updates"):
        direction = update(weights, pair_gradient(single, weights)[0], step)
        rows.append(((logps_at(together, moved(weights, direction)) - before) / together.tokens).tolist())
    return np.array(rows)


def item_a_norm(logits: torch.Tensor, batch: Scored) -> torch.Tensor:
    """The paper's A_norm of each probe (n,): sqrt(V pbar^2 + V - 2), pbar the mean over its tokens of ||p||_2."""
    # With the mean norm of p in place of p's own: not the mean of ||A||_F over tokens (`linear.a_norm`), but theirs.
    words = logits.shape[-1]
    mean = batch.per_item(logits.softmax(-1).norm(dim=-1)) / batch.tokens
    return (words * mean.square() + words - 2).sqrt()


def item_g_norm(logits: torch.Tensor, batch: Scored) -> torch.Tensor:
    """||p - e||_2 of each training sample (n,), as the mean over its tokens of ||softmax - onehot||_2."""
    return batch.per_item(linear.residual(logits, batch.target).norm(dim=-1)) / batch.tokens


def lbk(change: Sequence[float], a: Sequence[float], g: float) -> float:
    """||change of log-prob||_2 over probes of a type / sqrt(mean A_norm) / mean ||p - e||_2 (paper, section 5, 2.).

    As the authors of the framework compute it: not divided by the rate, and by the *root* of A_norm, which is already
    a norm. The bound on ||K||_F divides by ||A||_F itself (see `ladder`).
    """
    return math.sqrt(math.fsum(value * value for value in change)) / _scale(a, g)


def lbk_between(probes: Scored, learned: Scored, before: Weights, after: Weights) -> float:
    """LBK of probes from one checkpoint to a later one, with the normalisers of the first.

    `learned`: samples of what was trained on in between.
    """
    logits = logits_at(probes, before)
    change = logps_at(probes, after) - probes.logps(logits)
    g = float(item_g_norm(logits_at(learned, before), learned).mean())
    return lbk(change.tolist(), item_a_norm(logits, probes).tolist(), g)


def sign_delta(change: Sequence[float], a: Sequence[float], g: float) -> float:
    """Mean change of log-prob over probes of a type, with the same normalisers: LBK's signed twin."""
    return math.fsum(change) / len(change) / _scale(a, g)


def _scale(a: Sequence[float], g: float) -> float:
    return math.sqrt(math.fsum(a) / len(a)) * g


def probe_types(kinds: Sequence[str]) -> dict[str, list[int]]:
    """Numbers of the items of each probe type: all prior tasks together, each of them, and each kind of puzzle."""
    prior = [i for i, kind in enumerate(kinds) if not kind.startswith("puzzle")]
    types = {PRIOR: prior} if prior else {}
    for i, kind in enumerate(kinds):
        types.setdefault(kind, []).append(i)
    return types


def bounds(rows: pd.DataFrame) -> pd.DataFrame:
    """LBK and SignDelta of the rows of `influence`: columns corpus, batch, step, probe, lbk, sign_delta."""
    table = []
    for key, part in rows.groupby(["corpus", "batch", "step"], sort=False):
        change, a, g = part["change"].to_numpy(), part["a"].to_numpy(), part["g"].iloc[0]
        for probe, keep in probe_types(part["kind"].tolist()).items():
            table.append((*key, probe, lbk(change[keep], a[keep], g), sign_delta(change[keep], a[keep], g)))
    return pd.DataFrame(table, columns=["corpus", "batch", "step", "probe", "lbk", "sign_delta"])


def ema(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Exponential moving average: s_0 = x_0, s_t = keep s_(t-1) + (1 - keep) x_t."""
    return list(itertools.accumulate(values, lambda s, x: keep * s + (1 - keep) * x))
