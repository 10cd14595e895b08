"""Tests on paired differences, one per base: superiority, equivalence, its power, and Holm's correction.

All are t tests with n - 1 degrees of freedom. There is no p value (NaN) below three differences, where one is not
finite, and where all are equal; `no_test` says which. NaN stands for undecided, and `holm` counts it as 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats
from scipy.integrate import quad

from helpers.errors import UserError

LEAST_BASES = 3
_EQUAL = 1e-12  # differences that are apart by no more than this are equal but for rounding


def no_test(differences: Sequence[float]) -> str:
    """Why these differences have no p value, or nothing where they have one."""
    values = np.asarray(differences, float)
    if len(values) < LEAST_BASES:
        return f"{len(values)} base{'s' * (len(values) != 1)} of at least {LEAST_BASES}"
    if not np.isfinite(values).all():
        return "a difference is not finite"
    return "all differences are equal: there is no spread to test with" if np.ptp(values) <= _EQUAL else ""


def one_sided(differences: Sequence[float], margin: float) -> float:
    """p value of H0: mean <= margin against mean > margin, by the one-sample t test; NaN as `no_test` says.

    `differences` and `margin` in the same units. The other side: negate both.
    """
    if no_test(differences):
        return math.nan
    return float(stats.ttest_1samp(differences, margin, alternative="greater").pvalue)


def equivalence(differences: Sequence[float], margin: float) -> float:
    """p value of H0: |mean| >= margin: the larger of two one-sided t tests (TOST; Schuirmann, 1987).

    NaN as `no_test` says. Raises UserError unless the margin is above 0.
    """
    _above_zero(margin=margin)
    # max() would pass over a NaN; both are NaN or none is.
    return max(one_sided(differences, -margin), one_sided([-value for value in differences], -margin))


def power_of_equivalence(n: int, spread: float, margin: float, alpha: float = 0.05, true: float = 0.0) -> float:
    """Probability that `equivalence` of n differences comes out below alpha, where they are normal.

    `spread`: standard deviation of the differences; `true`: their mean; both in the units of `margin`. Exact, as Owen
    (1965) and Phillips (1990), by integrating over the chi distribution of the estimated spread: for an estimate s both
    tests reject where the mean lies within margin - t s / sqrt(n). Raises UserError below three differences, and
    unless spread and margin are above 0 and alpha lies between 0 and 0.5.
    """
    _above_zero(spread=spread, margin=margin)
    if n < LEAST_BASES or not 0 < alpha < 0.5:
        raise UserError(f"Power needs {LEAST_BASES} differences or more and 0 < alpha < 0.5, not {n} and {alpha}.")
    free, error = n - 1, spread / math.sqrt(n)
    t = float(stats.t.isf(alpha, free))

    def within(chi: float) -> float:
        """Density of sqrt(free) s / spread = chi, times the chance of a mean that both tests reject with that s."""
        room = margin - t * error * chi / math.sqrt(free)
        chance = stats.norm.cdf((room - true) / error) - stats.norm.cdf((-room - true) / error)
        return float(stats.chi.pdf(chi, free) * chance)

    # No room is left above the first end; above the second there is no mass to speak of, which `quad` might miss.
    end = min(margin * math.sqrt(free) / (t * error), float(stats.chi.isf(1e-12, free)))
    return min(quad(within, 0, end, epsabs=1e-9)[0], 1.0)


def bases_needed(spread: float, margin: float, power: float = 0.8, alpha: float = 0.05, most: int = 50) -> int | None:
    """Smallest number of bases with at least that power of equivalence where there is no difference.

    None where `most` are not enough. Units and errors as `power_of_equivalence`.
    """
    numbers = range(LEAST_BASES, most + 1)
    return next((n for n in numbers if power_of_equivalence(n, spread, margin, alpha) >= power), None)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for their number (Holm, 1979), by claim and in the order given.

    Step-down: the i-th smallest of m is multiplied by m - i + 1, is never below the one before it, and at most 1. NaN
    (undecided) counts as 1: what was not run still belongs to the family.
    """
    known = {name: 1.0 if math.isnan(p) else p for name, p in p_values.items()}
    largest, adjusted = 0.0, dict.fromkeys(known, 1.0)
    for place, name in enumerate(sorted(known, key=known.__getitem__)):
        largest = max(largest, min((len(known) - place) * known[name], 1.0))
        adjusted[name] = largest
    return adjusted


def _above_zero(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} is {value}: use a number above 0.")
