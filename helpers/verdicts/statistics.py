"""The statistics that decide claims, each found by its name from `claims.toml`.

A statistic takes the evidence and the claim's arguments, and gives an estimate with its interval, or None where nothing
was run. Most are computed seed by seed (a seed's boards are the same for every arm, so differences are paired) and have
a 95% t interval over seeds. Those over arms have bootstrap intervals that draw whole arms. Those over bases stand in
on_bases.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from helpers.measure.analyses import Tables
from helpers.measure.predictors import advantage
from helpers.model import evaluate
from helpers.stats.curves import gain_and_drop
from helpers.stats.fits import fit, spearman
from helpers.stats.fronts import COLUMNS as FRONT
from helpers.stats.intervals import seed_interval
from helpers.study.arms import SFT_ARMS
from helpers.world import battery

LEAST_SEEDS = 5


@dataclass(frozen=True)
class Evidence:
    """What claims are computed from.

    `quantities` as from `analyses.quantities`; `evaluations`: the study's; `tables`: the controls' and their results;
    `fronts`: the runs on several bases, a row per run (stats/fronts.py).
    """

    quantities: pd.DataFrame = field(repr=False)
    evaluations: pd.DataFrame = field(repr=False)
    tables: Tables = field(repr=False)
    fronts: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(FRONT)), repr=False)

    @classmethod
    def on_bases(cls, fronts: pd.DataFrame) -> Evidence:
        """The fronts alone, which is all that claims on bases are computed from."""
        nothing = pd.DataFrame()
        return cls(nothing, nothing, Tables.of(lambda _: nothing), fronts)


@dataclass(frozen=True)
class Estimate:
    """A statistic's value with its 95% interval, and the number of seeds behind it.

    `ran`: seeds that were run, where more were than have a value (an accuracy that a run never reaches).
    """

    value: float
    low: float
    high: float
    seeds: int
    ran: int = 0


_Statistic = Callable[..., Estimate | None]


def over_seeds(values: Mapping[int, float]) -> Estimate | None:
    """An estimate from one value per seed: mean and 95% t interval (the range, below three seeds); None without any."""
    finite = [value for value in values.values() if math.isfinite(value)]
    return Estimate(*seed_interval(finite), len(finite)) if finite else None


def _over_shared(function: Callable[..., float], values: Sequence[Mapping[int, float]]) -> Estimate | None:
    """A function of several values per seed, over the seeds that have them all."""
    shared = set.intersection(*map(set, values))
    return over_seeds({seed: function(*(v[seed] for v in values)) for seed in sorted(shared)})


def _safe_ratio(a: float, b: float) -> float:
    return a / b if b else math.nan  # not finite: that seed does not count


FORMULAS: Mapping[str, Callable[..., float]] = {
    "value": lambda a: a,
    "mean": lambda *values: math.fsum(values) / len(values),
    "difference": lambda a, b: a - b,
    "ratio": _safe_ratio,
    # The smallest of the first values over the last one.
    "least_over_last": lambda *values: _safe_ratio(min(values[:-1]), values[-1]),
    # The least ratio of a value to the next one: above 1 where each is larger than the one behind it.
    "least_step": lambda *values: min(map(_safe_ratio, values, values[1:])),
    # Of drops of answer SFT, SFT on rollouts and RFT. How much nearer the second lies to the third than to the first:
    "nearer": lambda answer, rollout, rft: (answer + rft) / 2 - rollout,
    # What another corpus changes under one loss, less what another loss changes on one corpus:
    "data_over_algorithm": lambda answer, rollout, rft: (answer - rollout) - abs(rollout - rft),
}
"""What `formula` in `claims.toml` may name: a function of one value per label, in their order, of one seed."""


# --- what the runs reached and lost ---------------------------------------------------------------------------


def _by_seed(evidence: Evidence, quantity: str, label: str) -> dict[int, float]:
    """One quantity of an arm or control, over all prior tasks (or of the puzzle), by seed."""
    rows = evidence.quantities
    rows = rows[(rows["quantity"] == quantity) & (rows["label"] == label) & rows["task"].isin(["all", "puzzle"])]
    return dict(zip(rows["seed"].astype(int), rows["value"].astype(float), strict=True))


def _combined(evidence: Evidence, function: Callable[..., float], *parts: tuple[str, str]) -> Estimate | None:
    """A function of several (quantity, label) values, seed by seed; None where no seed was run with all labels."""
    shared, rows = _over_shared(function, [_by_seed(evidence, *part) for part in parts]), evidence.quantities
    # A run that never reaches an accuracy has no row "at" it: count who was run, so that the reason can say so.
    ran = len(set.intersection(*(set(rows.loc[rows["label"] == label, "seed"]) for _, label in parts)))
    return replace(shared or Estimate(math.nan, math.nan, math.nan, 0), ran=ran) if ran else None


def of_runs(evidence: Evidence, formula: str, quantity: str, labels: Sequence[str]) -> Estimate | None:
    """A formula of one quantity of several arms or controls, seed by seed."""
    return _combined(evidence, FORMULAS[formula], *((quantity, label) for label in labels))


def rate_gap(evidence: Evidence, quantity: str, first: str, second: str) -> Estimate | None:
    """Smallest value of one arm over all learning rates minus the largest of another, by seed.

    Only seeds with at least two rates of both arms that have the quantity: with one there is nothing to choose.
    """
    rows = evidence.quantities
    rows = rows[(rows["quantity"] == quantity) & (rows["task"] == "all") & rows["group"].isin(["study", "sft-rates"])]
    gaps = {}
    for seed, part in rows.groupby("seed"):
        a, b = (part.loc[part["arm"] == arm, "value"] for arm in (first, second))
        if min(len(a), len(b)) >= 2:
            gaps[int(seed)] = float(a.min() - b.max())
    return over_seeds(gaps)


def knowledge_share(evidence: Evidence, quantity: str, arm: str, least: float) -> Estimate | None:
    """Drop by likelihood over drop by score, each divided by the base's distance from chance; None without a base.

    By likelihood a guesser still finds 1 / candidates, by generation it finds nothing; so the two drops have different
    ranges. Seeds that lose no more than `least` are left out.
    """
    base = [[*_by_seed(evidence, q, "base").values()] for q in ("prior_score_likelihood", "prior_score")]
    if not all(base):
        return None
    tasks = battery.battery_tasks()
    chance = sum(map(evaluate.likelihood_chance, tasks)) / len(tasks)
    room = (base[0][0] - chance) / base[1][0]
    parts = (f"{quantity}_likelihood", arm), (quantity, arm)
    return _combined(evidence, lambda a, b: a / b / room if b > least else math.nan, *parts)


def early_share(evidence: Evidence, arm: str, step: int, least: float) -> Estimate | None:
    """Share of an arm's final drop that is there at a step; seeds whose final drop is no more than `least` are out."""
    rows, shares = gain_and_drop(evidence.evaluations), {}
    for seed, part in rows[rows["arm"] == arm].groupby("seed"):
        drops = part.set_index("step")["drop"]
        if step in drops.index and drops.iloc[-1] > least:
            shares[int(seed)] = float(drops[step] / drops.iloc[-1])
    return over_seeds(shares)


# --- what predicts the drop -----------------------------------------------------------------------------------


def _predictors(evidence: Evidence, at: str) -> pd.DataFrame:
    rows = evidence.tables["predictors"]
    return rows[rows["at"].astype(str) == at] if len(rows) else rows


def rank_agreement(evidence: Evidence, predictor: str, quantity: str) -> Estimate | None:
    """Spearman's correlation over SFT arms of a predictor's and a drop's means, with a bootstrap interval over arms.

    Arms, not seeds, are what is counted: seeds of one arm say nothing new about what sets arms apart. Arms count that
    have the drop with `LEAST_SEEDS` seeds, at the study's rate. None below four of them.
    """
    rows = _predictors(evidence, "0.5")
    if rows.empty:
        return None
    rows = rows[rows["arm"].isin(SFT_ARMS) & ~rows["group"].isin(["sft-rates", "lora"]) & rows[predictor].notna()]
    # The drop beside a predictor is that of a checkpoint; the claim is about the interpolated one.
    drops = {label: _by_seed(evidence, quantity, label) for label in rows["label"].unique()}
    known = [drops[row.label].get(row.seed, math.nan) for row in rows.itertuples()]
    groups = rows.assign(drop=known).dropna(subset="drop").groupby("label")
    means = groups[[predictor, "drop"]].mean()[groups["seed"].nunique() >= LEAST_SEEDS]
    rho = spearman(means[predictor], means["drop"])
    return Estimate(*rho, int(groups["seed"].nunique().loc[means.index].min())) if rho else None


def explained(evidence: Evidence, predictor: str) -> Estimate | None:
    """R^2 of the final drop on a predictor's logarithm, over all runs, with its bootstrap interval over arms."""
    rows = _predictors(evidence, "end")
    line = fit(rows, predictor) if len(rows) else None
    return Estimate(*line.r2, rows["seed"].nunique()) if line else None


def better(evidence: Evidence, first: str, second: str) -> Estimate | None:
    """R^2 of one predictor minus that of another, over the same runs."""
    rows = _predictors(evidence, "end")
    apart = advantage(rows, first, second) if len(rows) else None
    return Estimate(*apart, rows["seed"].nunique()) if apart else None


# --- what was measured beside the runs ------------------------------------------------------------------------


def matched_excess(evidence: Evidence, arm: str, reference: str) -> Estimate | None:
    """Drop of an arm's update at the length of the reference's, minus the reference's own drop, seed by seed."""
    rows = evidence.tables["matched"]
    if rows.empty:
        return None
    rows = rows[rows["norm_of"] == reference].assign(drop=rows["base_score"] - rows["score"])
    drops = [dict(rows.loc[rows["arm"] == name, ["seed", "drop"]].dropna().to_numpy()) for name in (arm, reference)]
    return _over_shared(lambda a, b: a - b, drops)


def regained(evidence: Evidence, label: str, samples: int, least: float) -> Estimate | None:
    """Share of the loss on never-shown prior tasks that `samples` samples of other tasks bring back, seed by seed."""
    rows = evidence.tables["recovery"]
    if rows.empty:
        return None
    rows, shares = rows[(rows["label"] == label) & (rows["half"] == "unshown")], {}
    for seed, part in rows.groupby("seed"):
        scores, base = part.set_index("samples")["score"], float(part["base_score"].iloc[0])
        if {0, samples} <= set(scores.index) and base - scores[0] > least:
            shares[int(seed)] = float((scores[samples] - scores[0]) / (base - scores[0]))
    return over_seeds(shares)


def of_table(evidence: Evidence, formula: str, table: str, column: str, labels: Sequence[str]) -> Estimate | None:
    """A formula of what a table of results has for several arms' runs (whole models), over the seeds with all."""
    rows = evidence.tables[table]
    if column not in rows:
        return None
    known = (rows[rows["part"] == "all"] if "part" in rows else rows).dropna(subset=column)
    parts = [known[known["label"] == label] for label in labels]
    return _over_shared(FORMULAS[formula], [dict(zip(p["seed"], p[column], strict=True)) for p in parts])


STATISTICS: Mapping[str, _Statistic] = {
    function.__name__: function
    for function in (
        of_runs, rate_gap, knowledge_share, early_share, rank_agreement, explained, better,
        matched_excess, regained, of_table,
    )
}  # fmt: skip
"""What `statistic` in `claims.toml` may name."""
