"""What the learning rate does: drops and perplexities of an arm over its rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from helpers.measure import analyses, perplexity, shared
from helpers.measure.learned_from import corpus_of
from helpers.measure.probes import PUBLISHED
from helpers.model.build import Loaded
from helpers.stats import curves, summary
from helpers.stats.fits import rank_luck
from helpers.study import published
from helpers.study.arms import get_arm
from helpers.study.profiles import Profile, specs
from helpers.study.published import published_specs
from helpers.study.schema import is_correct
from helpers.study.spec import RunSpec


def every_run(profile: Profile, name: str) -> pd.DataFrame:
    """A table (evaluations, metrics or completions) of the study's runs and of its controls, other rates included.

    Completions are the study's alone: those of controls are not published, and a figure should be the same wherever
    it is drawn. Raises UserError where there are no records of the study.
    """
    own = published.table(profile.name, name)
    if name == "completions":
        return own
    more = getattr(analyses.load(profile), name)
    more = more[~more["run"].isin(set(own["run"]))]
    return pd.concat([own, more], ignore_index=True) if len(more) else own


def study_rows(profile: Profile, table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of an arm's runs in the study, without those at other learning rates.

    All the arm's rows where no run has the name that this version of the study gives it.
    """
    rows = table[table["run"].str.match(rf"{arm}-\d+-")]
    own = rows[rows["run"].isin({spec.name for spec in specs(profile, [arm])})]
    return own if len(own) else rows


def rate_runs(profile: Profile) -> dict[str, RunSpec]:
    """Specs, by name, of the recorded runs that differ from the study's in the learning rate only (or not at all).

    Steps and the source may differ too: a lower rate needs more steps, and its source is another run. One run per arm,
    seed and rate: the study's own, else the one with most steps.
    """
    store, known = published.store(profile), {}
    for folder in (PUBLISHED, shared.PUBLISHED):
        known |= published_specs(folder) if (folder / "specs.json").exists() else {}
    known |= {spec.name: spec for spec in store.finished()} if store.root.is_dir() else {}
    own = {(spec.arm, spec.seed): spec for spec in specs(profile, [line.arm for line in profile.budgets])}
    alike = [spec for spec in known.values() if _alike(spec, own.get((spec.arm, spec.seed)))]
    ranked = sorted(alike, key=lambda spec: (spec == own[spec.arm, spec.seed], spec.steps, spec.name))
    best = {(spec.arm, spec.seed, spec.learning_rate): spec for spec in ranked}  # the last of equals stays
    return {spec.name: spec for spec in best.values()}


def _alike(spec: RunSpec, own: RunSpec | None) -> bool:
    """Whether a run is one of the study's but for its learning rate, steps and source."""
    if own is None:
        return False
    return replace(spec, learning_rate=own.learning_rate, steps=own.steps, source=own.source) == own


def rate_drops(tables: Mapping[str, pd.DataFrame], runs: Mapping[str, RunSpec], quantity: str) -> pd.DataFrame:
    """Drop in mean prior score of each run: columns arm, seed, learning_rate, drop.

    `tables`: evaluations and metrics of every run; `quantity`: one of `summary.per_seed`'s, such as drop_at_0.5. A run
    that never gets there has no row.
    """
    rates = {name: spec.learning_rate for name, spec in runs.items()}
    rows = summary.per_seed(tables["evaluations"], tables["metrics"])
    rows = rows[(rows["task"] == curves.ALL) & (rows["quantity"] == quantity) & rows["run"].isin(rates)]
    rows = rows.assign(learning_rate=rows["run"].map(rates), drop=rows["value"])
    return rows[["arm", "seed", "learning_rate", "drop"]].sort_values("learning_rate", kind="stable", ignore_index=True)


def rate_perplexities(
    base: Loaded, profile: Profile, completions: pd.DataFrame, n: int, runs: Mapping[str, RunSpec]
) -> pd.DataFrame:
    """Perplexity under the base of what each run learned from: columns arm, seed, learning_rate, perplexity.

    SFT on a corpus: up to `n` of its completions; arms that learn from rollouts as they are drawn (`streamed`): the
    correct ones (`stepwise_perplexity`). Where the records cannot tell what a run learned from, its perplexity is the
    one measured beside its checkpoints (`analyses.measured_predictors`), if there is one.
    """
    beside = analyses.load(profile)["predictors"]
    measured = dict(zip(beside["run"], beside["perplexity"], strict=True)) if len(beside) else {}
    known: dict[tuple, float | None] = {}
    rows = []
    for spec in runs.values():
        arm = get_arm(spec.arm)
        sampler = spec.name if arm.data == "own" else spec.source  # the run that wrote what this one learned from
        key, rollouts = (spec.arm, spec.seed, sampler), completions[completions["run"] == sampler]
        if key not in known and arm.streamed:
            known[key] = stepwise_perplexity(rollouts)
        elif key not in known:
            corpus = corpus_of(profile, spec, rollouts, n)
            scored = None if corpus is None else perplexity.perplexities(perplexity.base_logps(base, corpus))
            known[key] = None if scored is None else float(scored["perplexity"].iloc[0])
        value = measured.get(spec.name) if known[key] is None else known[key]
        rows.append((spec.arm, spec.seed, spec.learning_rate, value))
    table = pd.DataFrame(rows, columns=["arm", "seed", "learning_rate", "perplexity"]).dropna(subset="perplexity")
    return table.drop_duplicates(["arm", "seed", "learning_rate"], ignore_index=True)


def stepwise_perplexity(completions: pd.DataFrame) -> float | None:
    """Perplexity under the base of the correct rollouts of a whole RFT run, of which some steps are recorded.

    The first steps are recorded densely, so each step counts for the steps around it (half the way to its neighbours)
    and each of its groups for the groups left out: exp(-sum(w logp) / sum(w tokens)). None where no correct rollout was
    scored.
    """
    scored = completions[completions["logp_base"].notna()]
    right = scored[is_correct(scored)]
    if right.empty:
        return None
    groups = scored.groupby("step")["puzzle_id"].nunique()
    steps = groups.index.to_numpy(float)
    widths = np.gradient(steps) if len(steps) > 1 else np.ones(1)  # half the way to each neighbour
    weights = right["step"].map(dict(zip(groups.index, widths / groups.to_numpy(), strict=True))).to_numpy()
    return float(np.exp(-(weights @ right["logp_base"].to_numpy()) / (weights @ right["tokens"].to_numpy())))


def at_own_rate(profile: Profile, points: pd.DataFrame) -> pd.DataFrame:
    """The points of the study's own learning rates."""
    rates = {line.arm: line.learning_rate for line in profile.budgets}
    return points[points["learning_rate"] == points["arm"].map(rates)].reset_index(drop=True)


def rank_sentence(points: pd.DataFrame) -> str:
    """Spearman's correlation of perplexity and drop over the arms' means, in words, with what luck alone would give.

    `points`: columns arm, perplexity, drop. Seeds of one arm are not independent, so arms are what is counted.
    """
    means = points.groupby("arm")[["perplexity", "drop"]].mean()
    rank = rank_luck(means["perplexity"], means["drop"])
    if rank is None:
        return "No rank correlation: it needs at least two arms that differ both in perplexity and in drop."
    rho, luck = rank
    return (
        f"Rank correlation over {len(means)} arms: {rho:.2f}; by luck alone at least that in {luck:.1%} of all orders."
    )
