"""The analyses of the control runs: which there are, what is still to measure, their tables, and publishing them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from transformers.utils import logging

from helpers.errors import UserError
from helpers.files import write_file
from helpers.measure import linear, predictors, recovery, updates
from helpers.measure.learned_from import corpus_of_run
from helpers.measure.shared import (
    EARLY,
    METRICS,
    PUBLISHED,
    Shared,
    empty_table,
    finished,
    is_done,
    load_shared,
    published_table,
    store,
    study_specs,
)
from helpers.measure.theory import measured_theory
from helpers.model.score import completion_logps
from helpers.stats.curves import THRESHOLDS, battery_mean, crossings, rows_of
from helpers.stats.intervals import paired_interval
from helpers.stats.summary import per_seed
from helpers.study import checkpoints
from helpers.study.arms import get_arm
from helpers.study.controls import GROUPS, SMOKE_ARM, SMOKE_ARMS, SMOKE_GROUPS, control_specs
from helpers.study.profiles import Profile
from helpers.study.published import (
    as_published,
    check_published,
    provenance,
    published_runs,
    publishing,
    write_runs,
    write_table,
)
from helpers.study.records import is_finished
from helpers.study.schema import read_table
from helpers.study.spec import RunSpec
from helpers.train.jobs import run_missing
from helpers.train.run import train
from helpers.train.settings import settings
from helpers.world import battery


def ensure(profile: Profile, retrain: bool = False) -> list[str]:
    """Train and measure what notebook 09 needs; a sentence for each control that could not be trained.

    At `smoke` one tiny control; at the other profiles nothing, unless `retrain` asks for all of them (hours).
    """
    trouble = []
    if profile.name == "smoke":
        logging.disable_progress_bar()
        with warnings.catch_warnings(action="ignore"):  # deprecations inside the trainers' own code
            # In this process: starting another takes longer than a tiny run.
            for spec in store(profile).plan([control.spec for control in control_specs(profile, SMOKE_GROUPS)]):
                train(spec, store(profile), settings(profile))
    elif retrain:
        trouble = run_missing(profile, [control.spec for control in control_specs(profile)], keep_going=True)
    if profile.name == "smoke" or retrain:
        measure(profile)
    return trouble


def measured_predictors(shared: Shared, spec: RunSpec) -> pd.DataFrame:
    """What may predict forgetting, with the drop: a row at the end and one where exact match first reaches 0.5.

    Columns at, step, exact, drop, drop_likelihood, kl_forward, kl_reverse, kl_prior, perplexity, lbk, l2, l1, fisher,
    drift; perplexity and lbk belong to the corpus and to the first checkpoint, so they are the same in both rows.
    """
    fixed, start = _corpus_quantities(shared, spec), shared.weights(None)
    evaluations = read_table(store(shared.profile).folder(spec), "evaluations").to_pandas()
    rows: list[dict[str, Any]] = []
    for at, step in _marks(evaluations).items():
        if rows and rows[0]["step"] == step:
            rows.append(rows[0] | {"at": at})
            continue
        tuned = shared.model(spec, step)
        delta = updates.change(start, linear.weights_of(tuned[0]))
        rows.append(
            {"at": at, "step": step}
            | _drops(evaluations, step)
            | predictors.divergences(shared.base, tuned, shared.boards, shared.prior)
            | fixed
            | {"l2": updates.l2(delta), "l1": updates.l1(delta)}
            | {"fisher": predictors.fisher_distance(shared.fisher, delta)}
            | {"drift": predictors.activation_drift(shared.base, tuned, shared.prior)}
        )
    return pd.DataFrame(rows)


def _marks(evaluations: pd.DataFrame) -> dict[str, int]:
    """A run's last step, and the first evaluated one with exact match 0.5 or more, if any."""
    reached = crossings(evaluations, 0.5)
    marks = {"end": int(evaluations["step"].max())}
    return marks | ({"0.5": int(reached["after"].iloc[0])} if len(reached) else {})


def _drops(evaluations: pd.DataFrame, step: int) -> dict[str, float]:
    """Exact match and the drop below the run's own start at a step."""
    exact = rows_of(evaluations, "exact", "puzzle").set_index("step")["value"]
    means = battery_mean(evaluations).set_index(["measure", "step"])["value"]
    drops = {name: means[m, 0] - means[m, step] for name, m in (("drop", "score"), ("drop_likelihood", "likelihood"))}
    return {name: float(value) for name, value in {"exact": exact[step], **drops}.items()}


def _corpus_quantities(shared: Shared, spec: RunSpec) -> dict[str, float | None]:
    """Perplexity under the base of what a run learned from, and its first LBK on prior prompts."""
    corpus = corpus_of_run(shared, spec, shared.sizes.prompts)
    if not len(corpus):
        return {"perplexity": None, "lbk": None}
    scored = completion_logps(*shared.base, corpus.prompts, [[text] for text in corpus.completions])
    logps = np.concatenate([row[0].numpy() for row in scored])
    first = checkpoints.checkpoint_numbers(store(shared.profile).checkpoints(spec))[0]
    lbk = predictors.first_lbk(shared.base, shared.model(spec, first)[0], shared.prior, corpus)
    return {"perplexity": float(np.exp(-logps.mean())), "lbk": lbk}


def measured_recovery(shared: Shared, spec: RunSpec) -> pd.DataFrame:
    """`recovery.recovery_table` of a run's end, with the base's scores of each half in base_score, base_likelihood."""
    smoke = shared.profile.name == "smoke"
    counts, how = ((0, 8), recovery.Recovery(steps=2)) if smoke else (RECOVERY_COUNTS, recovery.Recovery())
    regained = recovery.recovery_table(shared.model(spec), shared.profile.puzzle, counts, shared.sizes, how)
    base = recovery.half_scores(shared.base, shared.sizes.battery).set_index("half")
    return regained.assign(**{f"base_{m}": regained["half"].map(base[m]) for m in ("score", "likelihood")})


def measured_matched(shared: Shared, spec: RunSpec) -> pd.DataFrame:
    """A run's update at its own length, and at those of the reference arms (RFT and answer SFT) of its seed, evaluated.

    Columns norm_of (whose length), norm, own_norm, base_score, base_likelihood, then the scores of `predictors.scores`.
    """
    start, end = shared.weights(None), shared.weights(spec)
    own, (model, _) = updates.l2(updates.change(start, end)), shared.model(spec)
    rows = [{"norm_of": spec.arm, "norm": own, "own_norm": own} | shared.end_scores(spec)]
    for other in _references(shared, spec):
        norm = updates.l2(updates.change(start, shared.weights(other)))
        updates.put(model, updates.matched(start, end, norm))
        rows.append({"norm_of": other.arm, "norm": norm, "own_norm": own} | shared.scores(model))
    base = shared.end_scores(None)
    return pd.DataFrame(rows).assign(base_score=base["score"], base_likelihood=base["likelihood"])


def _references(shared: Shared, spec: RunSpec) -> list[RunSpec]:
    """The finished runs of the study's reference arms with the seed of `spec`, without itself."""
    same = [s for s in study_specs(shared.profile) if s.seed == spec.seed and s.arm != spec.arm]
    return finished(shared.profile, [s for s in same if get_arm(s.arm).reference])


def measured_lines(shared: Shared, spec: RunSpec) -> pd.DataFrame:
    """Scores along straight lines that end in a run: from the base, and from the end of RFT of its seed.

    Columns start (base or rft), share (0 at the start, 1 at the run's end), then the scores of `predictors.scores`.
    """
    model, _ = shared.model(spec)
    end, rows = linear.weights_of(model), []
    for start in (None, *(s for s in _references(shared, spec) if get_arm(s.arm).family == "rft")):
        first, name = shared.weights(start), start.arm if start else "base"
        rows.append({"start": name, "share": 0.0} | shared.end_scores(start))
        for share in (0.5,) if shared.profile.name == "smoke" else (0.25, 0.5, 0.75):
            updates.put(model, updates.between(first, end, share))
            rows.append({"start": name, "share": share} | shared.scores(model))
        rows.append({"start": name, "share": 1.0} | shared.end_scores(spec))
    return pd.DataFrame(rows)


Measure = Callable[[Shared, RunSpec], pd.DataFrame]
ANALYSES: Mapping[str, Measure] = MappingProxyType(
    {
        "weights": lambda shared, spec: updates.change_table(shared.weights(None), shared.weights(spec)),
        "predictors": measured_predictors,
        "matched": measured_matched,
        "recovery": measured_recovery,
        "lines": measured_lines,
        "flips": lambda shared, spec: recovery.flips(
            shared.base, shared.model(spec), battery.battery_tasks(), shared.sizes.battery
        ),
        "theory": measured_theory,
    }
)
"""Each gives the table of one run; `weights` and `flips` compare its end with the base."""

EVERY_RUN = ("weights", "predictors")  # the rest is measured for the study's arms only
RECOVERY_COUNTS = (0, 8, 32, 128)


def measure(profile: Profile, names: Iterable[str] = tuple(ANALYSES), seeds: Sequence[int] | None = None) -> None:
    """Carry out the analyses of all finished runs; each run's result is kept, so that nothing is measured twice.

    Results of the matched weights and lines also depend on the other runs of the seed: a table that was made before
    those were finished lacks them, so such an analysis waits until the study has all arms of the seed.
    """
    chosen = [s for s in seeds if s in profile.seeds] if seeds is not None else list(profile.seeds)
    profile, ready = replace(profile, seeds=tuple(chosen)), None
    study = finished(profile, study_specs(profile))
    for name in names:
        controls = [c.spec for c in control_specs(profile)] if name in EVERY_RUN else []
        for spec in [*study, *finished(profile, controls)]:
            if _to_measure(profile, name, spec, study):
                ready = ready or load_shared(profile)
                with store(profile).in_use(spec.name, spec.source):
                    result = ANALYSES[name](ready, spec)
                write_file(_cache(profile, name) / f"{spec.name}.csv", result.to_csv(index=False, float_format="%.6g"))
                if profile.name != "smoke":
                    print(f"{name}: {spec.name}", flush=True)


def _to_measure(profile: Profile, name: str, spec: RunSpec, study: Sequence[RunSpec]) -> bool:
    """Whether an analysis of a run is wanted, possible and not yet there."""
    if (_cache(profile, name) / f"{spec.name}.csv").exists():
        return False
    if name == "recovery" and not get_arm(spec.arm).recovered:
        return False
    if name == "theory" and spec.source and not is_finished(store(profile).root / spec.source):
        return False
    if profile.name == "smoke" and spec.arm not in (SMOKE_ARMS if name in EVERY_RUN else SMOKE_ARM):
        return False
    there = {s.arm for s in study if s.seed == spec.seed}  # of the seed, which these two compare a run with
    return name not in ("matched", "lines") or there == {s.arm for s in study_specs(profile)}


def _cache(profile: Profile, name: str) -> Path:
    """Where the results of one analysis are kept, a file per run."""
    return Path("runs") / f"{profile.name}-controls" / name


RECORDS = ("evaluations", "metrics")  # what the controls' own runs recorded
RUN_COLUMNS = ("run", "group", "label", "arm", "seed", "learning_rate", "lora_rank", "steps")


@dataclass(frozen=True)
class Tables:
    """Everything that is known of the controls; a table of what was not run is empty.

    `runs`: columns `RUN_COLUMNS`; `evaluations`, `metrics`: the controls' own; `results`: by analysis, each with the
    run columns of the run that was measured (those of the study have the group "study").
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    metrics: pd.DataFrame
    results: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, table: Callable[[str], pd.DataFrame]) -> Tables:
        """What a function gives for "runs", each of `RECORDS` and each analysis."""
        results = MappingProxyType({name: table(name) for name in ANALYSES})
        return cls(table("runs"), *map(table, RECORDS), results)

    def __getitem__(self, name: str) -> pd.DataFrame:
        """The table of one analysis, or one of the others by its name."""
        return {**vars(self), **self.results}[name]


def load(profile: Profile) -> Tables:
    """The controls' tables: what was made on this machine, and at `cpu` what was published beside it.

    One run per label and seed: the one made here, where both have one. Rows are in the order of `run_rows`, wherever
    they come from, so that figures are the same on every machine.
    """
    tables = _joined(_local(profile), _published()) if profile.name == "cpu" else _local(profile)
    place = {name: number for number, name in enumerate(run_rows(profile)["run"])}

    def ordered(name: str) -> pd.DataFrame:
        """Rows of one run stay in their order; runs of no row come last."""
        places = tables[name]["run"].map(lambda run: place.get(run, len(place)))
        return tables[name].iloc[places.argsort(kind="stable")].reset_index(drop=True)

    return Tables.of(ordered)


def _joined(first: Tables, second: Tables) -> Tables:
    """Both, one run per label and seed: that of the first, where both have one."""
    kept = set(_one_each(first.runs, second.runs)["run"])

    def both(name: str) -> pd.DataFrame:
        rows = _one_each(first[name], second[name])
        # Records have no labels: a run that gave way to one of the same label and seed is left out by its name.
        return rows[rows["run"].isin(kept)].reset_index(drop=True) if name in RECORDS else rows

    return Tables.of(both)


def _one_each(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Rows of both tables; a run, and a label and seed where there are labels, is taken from the first that has it."""
    rest = second[~second["run"].isin(set(first["run"]))]
    if {"label", "seed"} <= set(first.columns):
        taken = set(zip(first["label"], first["seed"], strict=True))
        rest = rest[[key not in taken for key in zip(rest["label"], rest["seed"], strict=True)]]
    return pd.concat([part for part in (first, rest) if len(part)] or [first], ignore_index=True)


def run_rows(profile: Profile) -> pd.DataFrame:
    """The run columns of the study's runs and of all controls."""
    rows = [("study", spec.arm, spec) for spec in study_specs(profile)]
    rows += [(control.group, control.label, control.spec) for control in control_specs(profile)]
    table = [(s.name, group, label, s.arm, s.seed, s.learning_rate, s.lora_rank, s.steps) for group, label, s in rows]
    return pd.DataFrame(table, columns=list(RUN_COLUMNS))


def _local(profile: Profile) -> Tables:
    """What this machine has made; results have the run columns in front."""
    rows = run_rows(profile)
    runs = rows[(rows["group"] != "study") & rows["run"].isin(is_done(profile))].reset_index(drop=True)

    def table(name: str) -> pd.DataFrame:
        """One table of this machine, by its name."""
        if name == "runs":
            return runs
        if name in RECORDS:
            return as_published(store(profile), name, runs["run"]) if len(runs) else empty_table(name)
        paths = [path for path in sorted(_cache(profile, name).glob("*.csv")) if path.stem in set(rows["run"])]
        parts = [pd.read_csv(path).assign(run=path.stem) for path in paths]
        return rows.merge(pd.concat(parts, ignore_index=True), on="run") if parts else rows.iloc[:0]

    return Tables.of(table)


def _published(source: Path = PUBLISHED) -> Tables:
    """What was published; empty tables, with their columns, of what was not."""

    def table(name: str) -> pd.DataFrame:
        """One published table, by its name."""
        path = source / f"{name}.csv"
        if name in RECORDS:
            return published_table(source, name)
        if not path.exists():
            return pd.DataFrame(columns=RUN_COLUMNS)
        check_published(path)
        return pd.read_csv(path)

    return Tables.of(table)


def publish_controls(profile: Profile, destination: Path = PUBLISHED) -> list[Path]:
    """Write the finished controls' evaluations, thinned metrics, specs and all results as small tables.

    What was published before stays where it belongs to a run of the profile as it is now and was not made anew, so
    that controls can be run a few at a time, on any machine. Raises UserError where there is nothing to publish.
    """
    local, before, valid = _local(profile), _published(destination), set(run_rows(profile)["run"])
    if all(local[name].empty for name in ("runs", *ANALYSES)):
        raise UserError("There is no finished control and no result to publish: run python -m helpers controls first.")
    tables = _joined(local, Tables.of(lambda name: before[name][before[name]["run"].isin(valid)]))
    with publishing(destination):
        written = ["runs", *(name for name in ANALYSES if len(tables[name]))]
        for name in written:
            rows = tables[name].sort_values(["group", "label", "seed"], kind="stable")
            write_file(destination / f"{name}.csv", rows.to_csv(index=False, float_format="%.6g"))
        if len(tables.runs):
            write_table(destination, "metrics", tables.metrics[tables.metrics["name"].isin(METRICS)])
            write_table(destination, "evaluations", tables.evaluations)
        known = set(tables.runs["run"])
        runs = published_runs(destination) if (destination / "specs.json").exists() else {}
        runs |= {name: provenance(store(profile).root / name) for name in known & is_done(profile)}
        files = [*(f"{name}.csv" for name in written), "metrics.parquet", "evaluations.parquet"]
        write_runs(destination, {name: runs[name] for name in runs if name in known}, files)
    return sorted(path for path in destination.iterdir() if not path.name.startswith("."))


def hashes(tables: Tables) -> list[str]:
    """The specs' hashes of all control runs, for a figure's provenance."""
    return sorted({run.rsplit("-", 1)[1] for run in tables.runs["run"]})


def coverage(profile: Profile, tables: Tables) -> pd.DataFrame:
    """Which controls are there: a row per label with group, what it isolates, seeds found and wanted, and the rate."""
    rows = []
    wanted = run_rows(profile)
    for (group, label), part in wanted[wanted["group"] != "study"].groupby(["group", "label"], sort=False):
        there = tables.runs[tables.runs["label"] == label]["seed"].nunique()
        rows.append((label, GROUPS[group], there, part["seed"].nunique(), part["learning_rate"].iloc[0]))
    return pd.DataFrame(rows, columns=["control", "isolates", "seeds", "of", "learning rate"])


def quantities(evaluations: pd.DataFrame, metrics: pd.DataFrame, tables: Tables, profile: Profile) -> pd.DataFrame:
    """`summary.per_seed` of the study and of every control: its columns, and label, group and learning_rate.

    `evaluations`, `metrics`: the study's tables. A control is compared with the study's base. Beside the study's own
    accuracies stands `EARLY`, which more controls reach.
    """
    rates = {line.arm: line.learning_rate for line in profile.budgets}
    marks = (EARLY, *THRESHOLDS)
    own = per_seed(evaluations, metrics, marks)
    parts = [own.assign(label=own["arm"], group="study", learning_rate=own["arm"].map(rates).fillna(0.0))]
    base = evaluations[evaluations["arm"] == "base"]
    for label, runs in tables.runs.groupby("label", sort=False):
        mine = [frame[frame["run"].isin(set(runs["run"]))] for frame in (tables.evaluations, tables.metrics)]
        rows = per_seed(pd.concat([mine[0], base], ignore_index=True), mine[1], marks)
        more = {"label": label} | runs[["group", "learning_rate"]].iloc[0].to_dict()
        parts.append(rows[rows["arm"] != "base"].assign(**more))
    return pd.concat(parts, ignore_index=True)


def compared(rows: pd.DataFrame, reference: str = "rft", quantity: str = "drop_at_0.5") -> pd.DataFrame:
    """Every arm and control minus `reference`, seed by seed: columns label, isolates, difference, low, high, seeds.

    `rows`: as from `quantities`. A label without a shared seed has no numbers; 95% t interval from three seeds on.
    """
    chosen = rows[(rows["quantity"] == quantity) & (rows["task"] == "all")]
    values = {label: part.set_index("seed")["value"] for label, part in chosen.groupby("label")}
    groups = dict(zip(rows["label"], rows["group"], strict=True))
    others = [label for label in groups if label not in ("base", reference)]
    table = [
        (label, GROUPS.get(groups[label], "an arm of the study"), *paired_interval(values, label, reference))
        for label in others
    ]
    return pd.DataFrame(table, columns=["label", "isolates", "difference", "low", "high", "seeds"])
