"""Intervals: t over seeds, Wilson for shares, the jackknife."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from helpers.errors import UserError


class Interval(NamedTuple):
    """A centre and the interval around it, in the units of the values."""

    mean: float
    low: float
    high: float


def seed_interval(values: Iterable[float]) -> Interval:
    """Mean over seeds with its 95% t interval, or with the smallest and largest value below three seeds.

    Raises UserError if there are no values or one is not finite.
    """
    numbers = [float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UserError("An interval over seeds needs at least one value, all of them finite.")
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) < 3:
        return Interval(mean, min(numbers), max(numbers))
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)
    half = _t_quantile(len(numbers) - 1) * math.sqrt(variance / len(numbers))
    return Interval(mean, mean - half, mean + half)


def _t_quantile(degrees: int) -> float:
    return float(stdtrit(degrees, 0.975))


def wilson(k: int, n: int) -> Interval:
    """Share k/n with its 95% Wilson interval: k successes of n trials.

    Raises UserError unless 0 <= k <= n and n > 0.
    """
    if not (n > 0 and 0 <= k <= n):
        raise UserError(f"A Wilson interval needs 0 <= k <= n and n > 0, not k={k}, n={n}.")
    z, share = 1.959963984540054, k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At k = 0 and k = n an end equals the share exactly; rounding must not push it past.
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def jackknife(estimate: Callable[[list[int]], float], n: int) -> Interval:
    """An estimate from all of n draws, with a 95% t interval from leaving each out once (the value itself for n < 3).

    Pseudo-values n f(all) - (n - 1) f(all but i): their mean is f without its first-order bias (Tukey, 1958).
    """
    everything = list(range(n))
    whole = estimate(everything)
    if n < 3:
        return Interval(whole, whole, whole)
    rest = [estimate(everything[:i] + everything[i + 1 :]) for i in everything]
    return seed_interval([n * whole - (n - 1) * value for value in rest])


def perplexity_interval(logps: Sequence[float], tokens: Sequence[int], draws: int = 2000) -> tuple[float, float, float]:
    """Perplexity of a corpus with its 95% bootstrap interval over completions: (value, low, high).

    exp(-sum of log-probs / number of tokens), tokens pooled; completions are drawn again with replacement.
    """
    logps, tokens = np.asarray(logps, float), np.asarray(tokens, float)
    if not len(logps):
        raise UserError("A perplexity needs at least one completion.")
    again = np.random.default_rng(0).integers(len(logps), size=(draws, len(logps)))
    spread = np.exp(-logps[again].sum(1) / tokens[again].sum(1))
    return float(np.exp(-logps.sum() / tokens.sum())), *np.quantile(spread, (0.025, 0.975)).tolist()
