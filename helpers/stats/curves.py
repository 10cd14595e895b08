"""Curves over training: the battery's mean, gain and drop, and where an accuracy is first reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from helpers.errors import UserError
from helpers.stats.intervals import seed_interval

EVALUATION_COLUMNS = ("run", "arm", "seed", "step", "samples", "task", "measure", "value")


def seed_summary(frame: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """One row per group of `by`: mean, low, high over seeds (see `seed_interval`) and the number of seeds.

    Raises UserError when a seed appears twice in a group, as when runs with other settings are mixed in.
    """
    rows = []
    for keys, group in frame.groupby(list(by)):
        if group["seed"].duplicated().any():
            where = ", ".join(f"{name}={key}" for name, key in zip(by, keys, strict=True))
            raise UserError(f"One seed has several values at {where}: keep the rows of one setting only.")
        rows.append((*keys, *seed_interval(group[value]), len(group)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def first_reach(df: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The first row (by step) of each run with value >= `threshold`; runs that never get there have none.

    `df`: rows of one task and one measure, with columns run, step, value.
    Raises UserError if a step repeats in a run.
    """
    require(df, ("run", "step", "value"))
    if df.duplicated(["run", "step"]).any():
        raise UserError("A run has several values at one step: keep one task and one measure first.")
    ordered = df[df["value"] >= threshold].sort_values(["run", "step"])
    return ordered.drop_duplicates("run").reset_index(drop=True)


def gain_and_drop(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Gain and drop of every run at every evaluated step: columns run, arm, seed, step, samples, gain, drop.

    Gain: rise of puzzle exact match over base. Drop: fall of the mean prior score (equal weight per task)
    below base. Base is the `base` arm, else step 0. Raises UserError if parts lack or task sets differ.
    """
    keys = ["run", "arm", "seed", "step", "samples"]
    puzzle, prior = rows_of(evaluations, "exact", "puzzle"), _prior(evaluations)
    per_step = prior.groupby(keys)["task"].agg(["size", "nunique"])
    if per_step["size"].nunique() > 1 or (per_step["size"] != per_step["nunique"]).any():
        raise UserError("Steps differ in the prior tasks scored, so their means do not compare: score all tasks.")
    mean = prior.groupby(keys, as_index=False)["value"].mean()
    gain = puzzle.assign(gain=puzzle["value"] - _base_value(puzzle))[[*keys, "gain"]]
    drop = mean.assign(drop=_base_value(mean) - mean["value"])[[*keys, "drop"]]
    return gain.merge(drop, on=keys).sort_values(["run", "step"]).reset_index(drop=True)


def task_drops(evaluations: pd.DataFrame, accuracy: float | None = None) -> pd.DataFrame:
    """Fall below base of each prior task in each run: columns run, arm, seed, step, task, value.

    At each run's last step, or at the first step where its puzzle exact match reaches `accuracy`.
    Raises UserError when no trained run gets there.
    """
    prior = _prior(evaluations)
    base = {task: _base_value(rows) for task, rows in prior.groupby("task")}
    trained = prior[prior["arm"] != "base"]
    if accuracy is None:
        marks = trained.groupby("run", as_index=False)["step"].max()
    else:
        marks = first_reach(rows_of(evaluations, "exact", "puzzle"), accuracy)[["run", "step"]]
    chosen = trained.merge(marks, on=["run", "step"])
    if chosen.empty:
        raise UserError("No trained run has prior scores there: lower the accuracy or evaluate more.")
    chosen = chosen.assign(value=chosen["task"].map(base) - chosen["value"])
    return chosen[["run", "arm", "seed", "step", "task", "value"]].reset_index(drop=True)


def _base_value(rows: pd.DataFrame) -> float:
    base = rows[rows["arm"] == "base"]
    base = base if len(base) else rows[rows["step"] == 0]
    if base.empty:
        raise UserError("There is no base to compare with: add evaluations of the `base` arm or of step 0.")
    return float(base["value"].mean())


def _prior(evaluations: pd.DataFrame) -> pd.DataFrame:
    scores = rows_of(evaluations, "score")
    prior = scores[scores["task"] != "puzzle"]
    if prior.empty:
        raise UserError("These evaluations hold no prior-task score: run the prior battery first.")
    return prior


def rows_of(evaluations: pd.DataFrame, measure: str, task: str | None = None) -> pd.DataFrame:
    require(evaluations, EVALUATION_COLUMNS)
    rows = evaluations[evaluations["measure"] == measure]
    rows = rows if task is None else rows[rows["task"] == task]
    if rows.empty:
        seen = sorted({f"{t}/{m}" for t, m in zip(evaluations["task"], evaluations["measure"], strict=True)})
        wanted = f"{task or 'any task'}/{measure}"
        raise UserError(f"No evaluation of {wanted}: there are {', '.join(seen) or 'none'}.")
    return rows


def require(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"The table lacks the column(s) {', '.join(missing)}: pass the table as recorded.")


THRESHOLDS = (0.5, 0.7)


ALL = "all"


PRIOR_MEASURES: Mapping[str, str] = {
    "prior_score": "score",
    "prior_score_likelihood": "likelihood",
    "format_failure": "format_failure",
}


PUZZLE_MEASURES: Mapping[str, str] = {
    "puzzle_exact": "exact",
    "puzzle_hit": "hit",
    "format_failure": "format_failure",
}


RUN = ["run", "arm", "seed"]


STEP = [*RUN, "step", "samples"]


EVALUATIONS = (*STEP, "task", "measure", "value", "n")


def battery_mean(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Mean over the prior tasks at every evaluated step, as rows of task "all"; equal weight per task.

    Columns as in the evaluations table; `n` is the number of items of all tasks together. Raises UserError when
    the steps of a measure do not hold the same tasks, so that their means would not compare.
    """
    require_columns(evaluations, EVALUATIONS)
    prior = evaluations[(evaluations["task"] != "puzzle") & evaluations["measure"].isin(PRIOR_MEASURES.values())]
    if prior.empty:
        raise UserError("These evaluations hold no prior task: run the prior battery first.")
    tasks = prior.groupby([*STEP, "measure"])["task"].agg(lambda names: tuple(sorted(names)))
    for measure, sets in tasks.groupby("measure"):
        if sets.nunique() > 1 or len(set(sets.iloc[0])) < len(sets.iloc[0]):
            raise UserError(f"Steps differ in the prior tasks with a {measure}: score all tasks at each step.")
    mean = prior.groupby([*STEP, "measure"], as_index=False).agg(value=("value", "mean"), n=("n", "sum"))
    return mean.assign(task=ALL)[list(EVALUATIONS)]


def crossings(evaluations: pd.DataFrame, accuracy: float) -> pd.DataFrame:
    """Where each run's puzzle exact match first reaches `accuracy`: a row per run that gets there.

    Columns run, arm, seed, before and after (the evaluated steps around the crossing, equal where the first step
    is there already), share (how far between them, 0..1), step, samples (interpolated linearly) and n.
    """
    require_columns(evaluations, EVALUATIONS)
    exact = evaluations[(evaluations["task"] == "puzzle") & (evaluations["measure"] == "exact")]
    trained = exact[exact["arm"] != "base"].sort_values("step")
    found = [_crossing(run, accuracy) for _, run in trained.groupby(RUN)]
    columns = [*RUN, "before", "after", "share", "step", "samples", "n"]
    return pd.DataFrame([row for row in found if row], columns=columns)


def _crossing(run: pd.DataFrame, accuracy: float) -> tuple | None:
    """The crossing of one run's rows (by step), or None where it never gets there."""
    if run["step"].duplicated().any():
        raise UserError("A run has several values at one step: pass the evaluations of each run once.")
    there = [place for place, value in enumerate(run["value"]) if value >= accuracy]
    if not there:
        return None
    last = run.iloc[there[0]]
    first = run.iloc[max(there[0] - 1, 0)]
    rise = last["value"] - first["value"]
    share = (accuracy - first["value"]) / rise if rise > 0 else 1.0
    step, samples = (first[c] + share * (last[c] - first[c]) for c in ("step", "samples"))
    return (*(last[c] for c in RUN), first["step"], last["step"], share, step, samples, last["n"])


def require_columns(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"The table lacks the column(s) {', '.join(missing)}: pass the table as recorded.")
