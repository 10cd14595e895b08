"""Intervals: t over seeds, Wilson for shares, the jackknife, and how an interval reads in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

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
    # fsum is exact, so the mean does not depend on the order in which the seeds stand in a table.
    mean = math.fsum(numbers) / len(numbers)
    # Two seeds have one degree of freedom: their t interval is 12.7 standard errors wide and says nothing.
    if len(numbers) < 3:
        return Interval(mean, min(numbers), max(numbers))
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)
    # t, not the normal quantile: the spread itself is estimated from these few seeds (five: 2.78 instead of 1.96).
    half = float(stats.t.ppf(0.975, len(numbers) - 1)) * math.sqrt(variance / len(numbers))
    return Interval(mean, mean - half, mean + half)


def paired_interval(values: Mapping[str, pd.Series], first: str, second: str) -> tuple[float, float, float, int]:
    """`seed_interval` of one value minus another, seed by seed, and the seeds with both; NaN where there are none.

    `values`: by label, a value per seed (the index).
    """
    both = first in values and second in values
    apart = (values[first] - values[second]).dropna() if both else []
    return (*(seed_interval(apart) if len(apart) else (math.nan,) * 3), len(apart))


def wilson(k: int, n: int) -> Interval:
    """Share k/n with its 95% Wilson interval: k successes of n trials.

    Raises UserError unless 0 <= k <= n and n > 0.
    """
    if not (n > 0 and 0 <= k <= n):
        raise UserError(f"A Wilson interval needs 0 <= k <= n and n > 0, not k={k}, n={n}.")
    ends = stats.binomtest(int(k), int(n)).proportion_ci(method="wilson")
    return Interval(k / n, float(ends.low), float(ends.high))


def luck_words(n: int) -> str:
    """How far luck alone moves an accuracy that is counted on `n` boards, where that is most: near one half."""
    half = (wilson(n // 2, n).high - wilson(n // 2, n).low) / 2
    return (
        f"On {n} boards luck moves an accuracy near 0.5 by up to {half:.2f}, "
        f"and the difference of two runs by up to {half * math.sqrt(2):.2f} (95 %)."
    )


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


def perplexity_interval(logps: Sequence[float], tokens: Sequence[int], draws: int = 2000) -> Interval:
    """Perplexity of a corpus with its 95% bootstrap interval over completions.

    exp(-sum of log-probs / number of tokens), tokens pooled; completions are drawn again with replacement.
    """
    logps, tokens = np.asarray(logps, float), np.asarray(tokens, float)
    if not len(logps):
        raise UserError("A perplexity needs at least one completion.")
    again = np.random.default_rng(0).integers(len(logps), size=(draws, len(logps)))
    spread = np.exp(-logps[again].sum(1) / tokens[again].sum(1))
    return Interval(float(np.exp(-logps.sum() / tokens.sum())), *np.quantile(spread, (0.025, 0.975)).tolist())


def in_words(
    interval: Iterable[float], form: str = ".2f", seeds: int | None = None, unit: str = "", of: str = "seed"
) -> str:
    """(centre, low, high) as "0.12 (0.08 to 0.16)", or "-0.5 nats (-0.6 to -0.4, 5 seeds)".

    `form`: how each number is written, as in `format`; `of`: what `seeds` counts. A single one has no interval:
    "0.12 (1 seed)".
    """
    centre, low, high = (format(value, form) for value in interval)
    behind = [f"{low} to {high}"] if seeds is None or seeds > 1 else []
    behind += [f"{seeds} {of}{'s' * (seeds != 1)}"] if seeds is not None else []
    return f"{centre}{unit and ' '}{unit} ({', '.join(behind)})"


def seeds_in_words(values: Sequence[float], digits: int = 2) -> str:
    """A mean with its interval over seeds: "0.12 (0.08 to 0.16, 5 seeds)"."""
    return in_words(seed_interval(values), f".{digits}f", len(values))


def bases_in_words(values: Iterable[float], digits: int = 2) -> str:
    """A mean with its interval over bases: "0.12 (0.08 to 0.16, 5 bases)"."""
    known = list(values)
    return in_words(seed_interval(known), f".{digits}f", len(known), of="base")
