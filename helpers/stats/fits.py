"""Fits of forgetting on one predictor, with the arm as the unit that is resampled and left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Fit:
    """How well one predictor explains drops: R^2 with a 95% bootstrap interval, within and left out by arm."""

    predictor: str
    runs: int
    arms: int
    r2: tuple[float, float, float]
    left_out: tuple[float, float, float] | None = field(default=None)


def r_squared(x: Any, y: Any, weights: Any = 1.0) -> Any:
    """Share of the variance of y that a straight line in x explains: the squared correlation along the last axis.

    `weights` (..., n): how often each point counts. 0 where x is constant, NaN where y is. A number for two lists, an
    array (...,) for weights (..., n).
    """
    x, y, w = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float), np.asarray(weights, float))
    dx, dy = (v - (w * v).sum(-1, keepdims=True) / w.sum(-1, keepdims=True) for v in (x, y))
    dx, dy = (np.where(np.abs(d) > 1e-12 * np.abs(v).max(initial=1e-300), d, 0) for d, v in ((dx, x), (dy, y)))
    shared, sizes = (w * dx * dy).sum(-1) ** 2, (w * dx**2).sum(-1) * (w * dy**2).sum(-1)
    found = np.where(sizes > 0, shared / np.where(sizes > 0, sizes, 1), 0.0)
    return np.where((w * dy**2).sum(-1) > 0, found, np.nan)[()]


def left_out_r_squared(x: Any, y: Any, groups: Any, weights: Any = 1.0) -> Any:
    """1 - SSE / SST with each group's y predicted by the line through the other groups' points; may be negative.

    `x`, `y`, `groups`: (n,); `weights` (..., n): how often each point counts. SST is about the mean of the other
    groups' y, so that 0 is as good as knowing no x. NaN below two groups. A number, or an array (...,).
    """
    x, y, groups = np.asarray(x, float), np.asarray(y, float), np.asarray(groups)
    weights = np.broadcast_to(np.asarray(weights, float), np.broadcast_shapes(np.shape(weights), x.shape))
    errors, totals, present = (np.zeros(weights.shape[:-1]) for _ in range(3))
    for group in sorted(set(groups.tolist())):
        out = groups == group
        inside, others = weights * out, weights * ~out
        known = np.where(others.sum(-1, keepdims=True) > 0, others.sum(-1, keepdims=True), 1)
        mean_x, mean_y = ((others * v).sum(-1, keepdims=True) / known for v in (x, y))
        size = (others * (x - mean_x) ** 2).sum(-1, keepdims=True)
        slope = (others * (x - mean_x) * y).sum(-1, keepdims=True) / np.where(size > 0, size, 1)
        errors += (inside * (y - mean_y - slope * (x - mean_x)) ** 2).sum(-1)
        totals += (inside * (y - mean_y) ** 2).sum(-1)
        present += inside.sum(-1) > 0
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
    names, place = np.unique(rows["arm"].to_numpy(str), return_inverse=True)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, place].astype(float)


def rank_correlation(x: pd.Series, y: pd.Series, draws: int = 2000) -> tuple[float, float, float] | None:
    """Spearman's correlation of two quantities (n,), with the middle 95% of its bootstrap draws over the n pairs.

    None below four pairs or where one of the two does not vary. Draws in which one does not vary are left out.
    """
    if len(x) < 4 or x.nunique() < 2 or y.nunique() < 2:
        return None
    pairs = np.stack([x.to_numpy(float), y.to_numpy(float)])
    drawn = pairs[:, np.random.default_rng(0).integers(len(x), size=(draws, len(x)))]  # (2, draws, n)
    return percentile_interval(float(_spearman(pairs[:, None])[0]), _spearman(drawn))


def _spearman(pairs: np.ndarray) -> np.ndarray:
    """Correlations (draws,) of the ranks of (2, draws, n) values, ties sharing theirs; NaN where one does not vary."""
    less, same = (relation(pairs[..., None, :], pairs[..., None]).sum(-1) for relation in (np.less, np.equal))
    ranks = less + (same + 1) / 2
    first, second = ranks - ranks.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(-1) / np.sqrt((first**2).sum(-1) * (second**2).sum(-1))


def percentile_interval(value: float, draws: np.ndarray) -> tuple[float, float, float]:
    """(value, low, high): the middle 95% of bootstrap draws, those without a value left out."""
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, (0.025, 0.975)) if len(finite) else (math.nan, math.nan)
    return float(value), float(low), float(high)
