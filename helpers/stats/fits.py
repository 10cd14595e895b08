"""Fits of forgetting on one predictor, with the arm as the unit that is resampled and left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import pearsonr, permutation_test, rankdata, spearmanr

from helpers.stats.intervals import Interval

_EXACT_ORDERS = 8  # 40,320 orders; the next would be 362,880


@dataclass(frozen=True)
class Fit:
    """How well one predictor explains drops: R^2 with a 95% bootstrap interval, within and left out by arm."""

    predictor: str
    runs: int
    arms: int
    r2: Interval
    left_out: Interval | None = None


def r_squared(x: ArrayLike, y: ArrayLike, weights: ArrayLike = 1.0) -> float | np.ndarray:
    """Share of the variance of y that a straight line in x explains: the squared correlation along the last axis.

    `weights` (..., n): how often each point counts. 0 where x is constant, NaN where y is. A number for two lists, an
    array (...,) for weights (..., n).
    """
    x, y, w = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float), np.asarray(weights, float))
    dx, dy = (v - (w * v).sum(-1, keepdims=True) / w.sum(-1, keepdims=True) for v in (x, y))
    # What is left of a constant after its mean is taken is rounding, not variation.
    dx, dy = (np.where(np.abs(d) > 1e-12 * np.abs(v).max(initial=1e-300), d, 0) for d, v in ((dx, x), (dy, y)))
    shared, sizes = (w * dx * dy).sum(-1) ** 2, (w * dx**2).sum(-1) * (w * dy**2).sum(-1)
    share = np.where(sizes > 0, shared / np.where(sizes > 0, sizes, 1), 0.0)
    return np.where((w * dy**2).sum(-1) > 0, share, np.nan)[()]


def left_out_predictions(
    x: ArrayLike, y: ArrayLike, groups: ArrayLike, weights: ArrayLike = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Each y predicted from the other groups' points, (..., n): by the line through them, and by their mean.

    `x`, `groups`: (n,); `y`, `weights` (..., n), the latter how often each point counts. The line is flat where the
    others' x are all equal; what has no others is predicted as 0.
    """
    x, groups = np.asarray(x, float), np.asarray(groups)
    # All bootstrap draws at once, along the leading axes of `weights`.
    y, weights = np.broadcast_arrays(np.asarray(y, float), np.asarray(weights, float))
    line, mean, points = np.zeros(y.shape), np.zeros(y.shape), np.broadcast_to(x, y.shape)
    for group in set(groups.tolist()):
        # The whole group stays out: a seed of an arm is no test for a line through that arm's other seeds.
        out = groups == group
        others = weights * ~out
        known = np.maximum(others.sum(-1, keepdims=True), 1)
        mean_x, mean_y = ((others * v).sum(-1, keepdims=True) / known for v in (x, y))
        size = (others * (x - mean_x) ** 2).sum(-1, keepdims=True)
        # The mean of equal numbers may miss them by a rounding, which would make a steep line of nothing.
        inside = {"axis": -1, "keepdims": True, "where": others > 0}
        flat = np.max(points, initial=-np.inf, **inside) <= np.min(points, initial=np.inf, **inside)
        size = np.where(flat, 0, size)
        slope = (others * (x - mean_x) * y).sum(-1, keepdims=True) / np.where(size > 0, size, np.inf)
        mean[..., out], line[..., out] = mean_y, mean_y + slope * (x - mean_x)[..., out]
    return line, mean


def left_out_r_squared(x: ArrayLike, y: ArrayLike, groups: ArrayLike, weights: ArrayLike = 1.0) -> float | np.ndarray:
    """1 - SSE / SST with each group's y predicted by the line through the other groups' points; may be negative.

    `x`, `y`, `groups`: (n,); `weights` (..., n): how often each point counts. SST is about the mean of the other
    groups' y, so that 0 is as good as knowing no x. NaN below two groups. A number, or an array (...,).
    """
    weights = np.broadcast_to(weights, np.broadcast_shapes(np.shape(weights), np.shape(x)))
    errors, totals = ((weights * (y - guess) ** 2).sum(-1) for guess in left_out_predictions(x, y, groups, weights))
    # In a bootstrap draw an arm may be missing: count the groups that have any weight, per draw.
    _, place = np.unique(groups, return_inverse=True)
    present = (weights @ np.eye(place.max() + 1)[place] > 0).sum(-1)
    return np.where((present > 1) & (totals > 0), 1 - errors / np.where(totals > 0, totals, 1), np.nan)[()]


def fit(rows: pd.DataFrame, predictor: str, draws: int = 2000) -> Fit | None:
    """R^2 of drop on the logarithm of a predictor, over runs; None below four runs.

    `rows`: columns arm, drop and the predictor (rows where it is missing or not above 0 are left out), and label where
    an arm has variants. The logarithm, because all predictors are positive and some span decades.
    """
    known = rows[rows[predictor].notna() & (rows[predictor] > 0)]
    if len(known) < 4:
        return None
    x, y, arms = np.log(known[predictor].to_numpy(float)), known["drop"].to_numpy(float), known["arm"].to_numpy(str)
    counts = resampled_fits(known, draws)
    inside = percentile_interval(r_squared(x, y), r_squared(x, y, counts))
    outside = None
    if len(set(arms)) >= 3:
        outside = percentile_interval(left_out_r_squared(x, y, arms), left_out_r_squared(x, y, arms, counts))
    return Fit(predictor, len(known), len(set(arms)), inside, outside)


def resampled_fits(rows: pd.DataFrame, draws: int) -> np.ndarray:
    """How often each row counts in each bootstrap draw, (draws, n): whole arms are drawn with replacement.

    Seeds and learning rates of one arm are no independent evidence on what separates arms, so they stay together.
    """
    # k arms drawn from k with replacement: how often each was drawn is multinomial, and counts for all of its rows.
    names, place = np.unique(rows["arm"].to_numpy(str), return_inverse=True)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, place].astype(float)


def spearman(x: pd.Series, y: pd.Series, draws: int = 2000) -> Interval | None:
    """Spearman's correlation of two quantities (n,), with the middle 95% of its bootstrap draws over the n pairs.

    None below four pairs or where one of the two does not vary. Draws in which one does not vary are left out.
    """
    if len(x) < 4 or x.nunique() < 2 or y.nunique() < 2:
        return None
    again = np.random.default_rng(0).integers(len(x), size=(draws, len(x)))
    first, second = (rankdata(values.to_numpy(float)[again], axis=-1) for values in (x, y))  # (draws, n)
    varies = (np.ptp(first, axis=-1) > 0) & (np.ptp(second, axis=-1) > 0)
    drawn = pearsonr(first[varies], second[varies], axis=-1).statistic
    return percentile_interval(float(spearmanr(x, y).statistic), drawn)


def rank_luck(x: pd.Series, y: pd.Series) -> tuple[float, float] | None:
    """(rho, luck): Spearman's correlation of two quantities (n,), and the share of all orders of y that reach it.

    One-sided. Up to `_EXACT_ORDERS` values every order is tried, beyond that 20,000 random ones. None where one of the
    two does not vary.
    """
    if x.nunique() < 2 or y.nunique() < 2:
        return None
    first, second = rankdata(x), rankdata(y)
    how = {"permutation_type": "pairings", "alternative": "greater", "rng": 0}
    n = math.factorial(len(x)) if len(x) <= _EXACT_ORDERS else 20_000
    # The sum of products orders pairings as rho does: the means and lengths of the ranks are the same in all of them.
    tried = permutation_test(
        (second,), lambda order, axis=-1: (first * order).sum(axis), vectorized=True, n_resamples=n, **how
    )
    return float(spearmanr(x, y).statistic), float(tried.pvalue)


def percentile_interval(value: float, draws: np.ndarray) -> Interval:
    """A value with the middle 95% of its bootstrap draws, those that have no value left out."""
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, (0.025, 0.975)) if len(finite) else (math.nan, math.nan)
    return Interval(float(value), float(low), float(high))
