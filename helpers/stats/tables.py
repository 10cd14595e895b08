"""Tables behind the figures of notebook 09: rates, controls at equal accuracy, sizes of updates, fits of predictors.

`quantities` is `analyses.quantities`; `weights`, `runs` and the others are tables of `analyses.load`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from helpers.stats.curves import gain_and_drop, over_seeds
from helpers.stats.fits import fit

PREDICTORS: Mapping[str, str] = MappingProxyType(
    {
        "kl_forward": "KL(base || run), puzzle prompts",
        "kl_reverse": "KL(run || base), puzzle prompts",
        "kl_prior": "KL(base || run), prior prompts",
        "perplexity": "perplexity of the corpus",
        "lbk": "LBK of the first steps",
        "l2": "L2 norm of the update",
        "l1": "L1 norm of the update",
        "fisher": "Fisher-weighted distance",
        "drift": "activation drift",
    }
)


HALF = "drop_at_0.5"


def rate_paths(evaluations: pd.DataFrame, runs: pd.DataFrame, rates: Mapping[str, float]) -> pd.DataFrame:
    """Gain and drop along training for every learning rate: columns arm, factor, step, gain, drop, seeds.

    `evaluations`: the study's and the controls' together; `runs`: the controls' run rows; `rates`: the study's rate of
    each arm. Means over seeds. Only arms with at least one other rate than the study's; empty where there is none.
    Controls of a swept arm that differ in something else (LoRA) are left out.
    """
    inside = runs["group"].isin(["sft-rates", "rft-rates"])
    swept, others = runs[inside], set(runs.loc[~inside, "run"])
    if swept.empty:
        return evaluations.iloc[:0].assign(factor=[])
    points = gain_and_drop(evaluations)
    points = points[points["arm"].isin(set(swept["arm"])) & ~points["run"].isin(others)]
    own = points["arm"].map(rates)
    rate = points["run"].map(swept.set_index("run")["learning_rate"]).fillna(own)
    grouped = points.assign(factor=(rate / own).round(2)).groupby(["arm", "factor", "step"], as_index=False)
    return grouped.agg(gain=("gain", "mean"), drop=("drop", "mean"), seeds=("seed", "nunique"))


def seed_rows(quantities: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Quantities over all prior tasks by label: columns label, arm, group, quantity, mean, low, high, seeds."""
    chosen = quantities[quantities["quantity"].isin(names) & quantities["task"].isin(["all", "puzzle"])]
    return over_seeds(chosen, ["label", "arm", "group", "quantity"], "value")


def norm_points(quantities: pd.DataFrame) -> pd.DataFrame:
    """Drop and update norm of each run, at 0.5 and at the end: columns at, label, arm, seed, norm, drop."""
    parts = []
    whole = quantities[quantities["task"].isin(["all", "puzzle"])].set_index(["label", "arm", "seed"])
    for at, norm, drop in (("0.5", "update_norm_at_0.5", HALF), ("end", "update_norm", "drop_final")):
        columns = {name: whole.loc[whole["quantity"] == q, "value"] for name, q in (("norm", norm), ("drop", drop))}
        parts.append(pd.DataFrame(columns).dropna().reset_index().assign(at=at))
    return pd.concat(parts, ignore_index=True)[["at", "label", "arm", "seed", "norm", "drop"]]


def part_table(weights: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """L1 norm, share of weights unchanged in bf16, mean effective rank: a row per part, columns (quantity, label).

    `weights`: columns label, seed, part, weights (their number), l1, same_bf16, rank, a row per part and kind of
    weight. Means over seeds.
    """
    known = weights[weights["label"].isin(labels)]
    runs = known.assign(kept=known["same_bf16"] * known["weights"]).groupby(["part", "label", "seed"], sort=False)
    total = runs[["l1", "kept", "weights"]].sum()
    columns = {"L1 norm": total["l1"], "unchanged in bf16": total["kept"] / total["weights"]}
    each = pd.DataFrame(columns | {"effective rank": runs["rank"].mean()})
    return each.groupby(["part", "label"], sort=False).mean().unstack("label", sort=False)


def part_shares(weights: pd.DataFrame) -> pd.DataFrame:
    """Share of the squared L2 norm in each part of the model: columns label, arm, part, share (means over seeds)."""
    parts = weights[weights["part"] != "all"].reset_index(drop=True)
    parts["square"] = parts["l2"] ** 2
    sums = parts.groupby(["run", "label", "arm", "part"], sort=False, as_index=False)["square"].sum()
    sums["share"] = sums["square"] / sums.groupby("run")["square"].transform("sum")
    return sums.groupby(["label", "arm", "part"], sort=False, as_index=False)["share"].mean()


def fits_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`fits.fit` of every predictor: columns predictor, runs, arms, r2, low, high, left_out, out_low, out_high.

    Left out: predicted from the other arms; empty below three arms. Best first.
    """
    fits = [made for name in PREDICTORS if (made := fit(rows, name)) is not None]
    lines = [(made.predictor, made.runs, made.arms, *made.r2, *(made.left_out or [None] * 3)) for made in fits]
    columns = ["predictor", "runs", "arms", "r2", "low", "high", "left_out", "out_low", "out_high"]
    return pd.DataFrame(lines, columns=columns).sort_values("r2", ascending=False)
