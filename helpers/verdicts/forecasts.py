"""Forecasts of forgetting: from quantities of the base model alone, the final drop of each arm.

Each quantity is measured for every batch of every corpus before anything is trained; an arm's drop is predicted by a
straight line through the other arms (leave one arm out), and must beat their mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from helpers.errors import UserError
from helpers.measure.influence import BatchGradients, bounds, each_gradient, per_token
from helpers.measure.linear import PRIOR, token_logps
from helpers.stats.fits import left_out_predictions
from helpers.stats.intervals import seed_interval

BASELINE = "mean of the other arms"


# What is measured at the base model, and whether the drop should rise (1) or fall (-1) with it.
EXPECTED: Mapping[str, int] = MappingProxyType(
    {
        "log perplexity": 1,
        "log gradient norm": 1,
        "cosine": -1,
        "log LBK, SGD": 1,
        "log LBK, AdamW": 1,
        "influence, SGD (1e-3 nats)": -1,
        "influence, AdamW (1e-3 nats)": -1,
        "log ||K||": 1,
        "trial: log sum of LBK": 1,
    }
)


def base_quantities(learned: BatchGradients, rows: pd.DataFrame, cosine: pd.DataFrame) -> pd.DataFrame:
    """What a look at the base model gives for each batch of each corpus: columns quantity, arm, batch, value.

    `rows` of `influence` (one step per rule), `cosine` of `directions`. Quantities as in `EXPECTED`, up to influence,
    which is the measured change of the prior tasks' log-prob per token; sizes as logarithms.
    """
    whole, known = cosine[cosine["part"] == "all"], bounds(rows)
    parts = {
        "log perplexity": _log_perplexity(learned),
        "log gradient norm": whole.assign(value=np.log(whole["norm"])),
        "cosine": whole.assign(value=whole["cosine"]),
    }
    prior = per_token(rows[~rows["kind"].str.startswith("puzzle")], ["corpus", "batch", "step"])
    for rule in ("SGD", "AdamW"):
        mine = known[(known["probe"] == PRIOR) & known["step"].str.startswith(rule)]
        parts[f"log LBK, {rule}"] = mine.assign(value=np.log(mine["lbk"]))
        change = prior[prior["step"].str.startswith(rule)]
        parts[f"influence, {rule} (1e-3 nats)"] = change.assign(value=change["value"] * 1e3)
    frames = [part.assign(quantity=name, arm=part["corpus"]) for name, part in parts.items()]
    return pd.concat(frames, ignore_index=True)[["quantity", "arm", "batch", "value"]]


def _log_perplexity(learned: BatchGradients) -> pd.DataFrame:
    """Minus the log-prob per token of each batch (nats, tokens pooled): columns corpus, batch, value."""
    rows = [
        (corpus, number, -float(token_logps(one.logits, one.batch.target).mean()))
        for corpus, number, one in each_gradient(learned)
    ]
    return pd.DataFrame(rows, columns=["corpus", "batch", "value"])


def leave_one_out(quantities: pd.DataFrame, drops: pd.DataFrame) -> pd.DataFrame:
    """Each arm's drop predicted from the other arms by a straight line in one quantity, and by their mean drop.

    `quantities`: columns quantity, arm, value (batches are averaged); `drops`: arm, value (seeds are averaged). Columns
    quantity, arm, drop, predicted, error (absolute). Raises UserError below four arms: two points always fit a line.
    """
    drop = drops.groupby("arm")["value"].mean()
    means = quantities[quantities["arm"].isin(drop.index)].groupby(["quantity", "arm"], sort=False)["value"].mean()
    rows = []
    for quantity, values in means.groupby(level=0, sort=False):
        x = values.droplevel(0)
        y = drop[x.index]
        if len(x) < 4:
            raise UserError(f"Only {len(x)} arms have both a drop and {quantity}: leaving one out needs 4 or more.")
        rows += [(quantity, *row) for row in zip(x.index, y, left_out(x.tolist(), y.tolist()), strict=True)]
    arms = drop[means.index.get_level_values(1).unique()]
    rows += [(BASELINE, arm, y, (arms.sum() - y) / (len(arms) - 1)) for arm, y in arms.items()]
    frame = pd.DataFrame(rows, columns=["quantity", "arm", "drop", "predicted"])
    return frame.assign(error=(frame["drop"] - frame["predicted"]).abs())


def left_out(x: Sequence[float], y: ArrayLike) -> np.ndarray:
    """Least-squares prediction of each y (..., n) from the other points (their mean where their x are all equal)."""
    return left_out_predictions(x, y, range(len(x)))[0]


def prediction_errors(predictions: pd.DataFrame, quantities: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute error of each predictor of `leave_one_out`, with 95% t intervals over the arms left out.

    Columns quantity, error, low, high, gain, gain_low, gain_high, luck, slope. `gain`: the baseline's error minus the
    predictor's, arm by arm. `luck`: share of all ways to deal the arms' drops out anew for which the error is no larger
    (exact permutation test; 1 for the baseline). `slope`: "as expected" where the line through all arms tilts as
    `EXPECTED` says, else "against"; "none" for the baseline.
    """
    means = quantities.groupby(["quantity", "arm"])["value"].mean()
    errors = predictions.pivot(index="arm", columns="quantity", values="error")
    rows = []
    for quantity, part in predictions.groupby("quantity", sort=False):
        gain, verdict = seed_interval(errors[BASELINE] - errors[quantity]), (1.0, "none")
        if quantity != BASELINE:
            x, y = means[quantity][part["arm"]].tolist(), part["drop"].tolist()
            verdict = _luck(x, y), _slope(x, y, EXPECTED.get(quantity, 1))
        rows.append((quantity, *seed_interval(errors[quantity]), *gain, *verdict))
    names = ["quantity", "error", "low", "high", "gain", "gain_low", "gain_high", "luck", "slope"]
    return pd.DataFrame(rows, columns=names)


def _slope(x: Sequence[float], y: Sequence[float], expected: int) -> str:
    """Whether the line through all points tilts as expected."""
    return "as expected" if np.cov(x, y)[0, 1] * expected > 0 else "against"


def _luck(x: Sequence[float], y: Sequence[float]) -> float:
    """Share of all orders of y whose left-out errors add up to no more than the present order's."""
    orders = np.array(list(itertools.permutations(y)))  # the first of them is y itself
    errors = np.abs(orders - left_out(x, orders)).sum(axis=1)
    # Orders that swap equal drops tie with the present one, up to a rounding.
    return float((errors <= errors[0] * (1 + 1e-9) + 1e-12).mean())
