"""Curves over training: the battery's mean, gain and drop, and where a puzzle accuracy is first reached.

There is one definition of "at an accuracy": the point where the straight line between the last evaluated step below it
and the first one that reaches it crosses it (`crossings`). Every drop "at exact match 0.5" is read off there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from scipy.optimize import isotonic_regression

from helpers.errors import UserError
from helpers.stats.intervals import seed_interval
from helpers.study.schema import is_prior

THRESHOLDS = (0.5, 0.7)
ALL = "all"
"""The task of rows that are means over the whole prior battery."""
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
_STEP = [*RUN, "step", "samples"]
EVALUATIONS = (*_STEP, "task", "measure", "value", "n")


def require_columns(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise UserError where a table lacks a column."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"The table lacks the column(s) {', '.join(missing)}: pass the table as recorded.")


def rows_of(evaluations: pd.DataFrame, measure: str, task: str | None = None) -> pd.DataFrame:
    """The rows of one measure (and task). Raises UserError where there are none, and says what there is."""
    require_columns(evaluations, EVALUATIONS)
    rows = evaluations[evaluations["measure"] == measure]
    rows = rows if task is None else rows[rows["task"] == task]
    if rows.empty:
        seen = sorted({f"{t}/{m}" for t, m in zip(evaluations["task"], evaluations["measure"], strict=True)})
        wanted = f"{task or 'any task'}/{measure}"
        raise UserError(f"No evaluation of {wanted}: there are {', '.join(seen) or 'none'}.")
    return rows


def last_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows at the last step of each run."""
    return rows[rows["step"] == rows.groupby("run")["step"].transform("max")]


def seed_summary(frame: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """One row per group of `by`: mean, low, high over seeds (see `seed_interval`) and the number of seeds.

    Raises UserError when a seed appears twice in a group, as when runs with other settings are mixed in.
    """
    twice = frame[frame.duplicated([*by, "seed"])]
    if len(twice):
        where = ", ".join(f"{name}={twice[name].iloc[0]}" for name in by)
        raise UserError(f"One seed has several values at {where}: keep the rows of one setting only.")
    return over_seeds(frame, by, value, sort=True)


def over_seeds(rows: pd.DataFrame, by: Sequence[str], value: str, sort: bool = False) -> pd.DataFrame:
    """`seed_interval` of `value` in each group, in order of appearance or sorted: columns `by`, mean, low, high, seeds.

    Nobody checks here that a seed has one value only: `value` may stand for other things that are drawn, as batches.
    """
    groups = rows.groupby(list(by), sort=sort)[value]
    table = [(*names, *seed_interval(part), len(part)) for names, part in groups]
    return pd.DataFrame(table, columns=[*by, "mean", "low", "high", "seeds"])


def battery_mean(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Mean over the prior tasks at every evaluated step, as rows of task "all"; equal weight per task.

    Columns as in the evaluations table; `n` is the number of items of all tasks together. Raises UserError when
    the steps of a measure do not hold the same tasks, so that their means would not compare.
    """
    require_columns(evaluations, EVALUATIONS)
    prior = evaluations[is_prior(evaluations) & evaluations["measure"].isin(PRIOR_MEASURES.values())]
    if prior.empty:
        raise UserError("These evaluations hold no prior task: run the prior battery first.")
    tasks = prior.groupby([*_STEP, "measure"])["task"].agg(lambda names: tuple(sorted(names)))
    for measure, sets in tasks.groupby("measure"):
        if sets.nunique() > 1 or len(set(sets.iloc[0])) < len(sets.iloc[0]):
            raise UserError(f"Steps differ in the prior tasks with a {measure}: score all tasks at each step.")
    mean = prior.groupby([*_STEP, "measure"], as_index=False).agg(value=("value", "mean"), n=("n", "sum"))
    return mean.assign(task=ALL)[list(EVALUATIONS)]


def _below_base(rows: pd.DataFrame, values: pd.DataFrame) -> pd.Series:
    """The base's value of each task minus `values` (columns task, value), in their order: above 0 where lost.

    `rows`: evaluations of one measure; their base is the `base` arm, else step 0 (means where there are several).
    Raises UserError where a task has no base.
    """
    base = rows[rows["arm"] == "base"]
    level = (base if len(base) else rows[rows["step"] == 0]).groupby("task")["value"].mean()
    missing = sorted(set(values["task"]) - set(level.index))
    if missing:
        raise UserError(f"There is no base to compare {', '.join(missing)} with: evaluate the `base` arm or step 0.")
    return values["task"].map(level) - values["value"]


def gain_and_drop(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Gain and drop of every run at every evaluated step: columns run, arm, seed, step, samples, gain, drop.

    Gain: rise of puzzle exact match over base. Drop: fall of the mean prior score (equal weight per task)
    below base. Base is the `base` arm, else step 0. Raises UserError if parts lack or task sets differ.
    """
    puzzle, mean = rows_of(evaluations, "exact", "puzzle"), battery_mean(rows_of(evaluations, "score"))
    gain = puzzle.assign(gain=-_below_base(puzzle, puzzle))[[*_STEP, "gain"]]
    drop = mean.assign(drop=_below_base(mean, mean))[[*_STEP, "drop"]]
    return gain.merge(drop, on=_STEP).sort_values(["run", "step"]).reset_index(drop=True)


def task_drops(evaluations: pd.DataFrame, accuracy: float | None = None) -> pd.DataFrame:
    """Fall below base of each prior task in each run: columns run, arm, seed, step, task, value.

    At each run's last step, or where its puzzle exact match first reaches `accuracy` (see `crossings`; the step is
    then interpolated). Raises UserError when no trained run gets there.
    """
    rows = rows_of(evaluations, "score")
    prior = rows[is_prior(rows)]
    marks = last_steps(prior) if accuracy is None else crossings(evaluations, accuracy)
    if not set(marks["run"]) & set(prior["run"]):
        raise UserError("No trained run has prior scores there: lower the accuracy or evaluate more.")
    drops = drops_at(prior, marks).merge(marks[["run", "step"]], on="run")
    return drops[[*RUN, "step", "task", "value"]]


def last_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """The last evaluated step of each trained run, in the form of `crossings`."""
    last = rows[rows["arm"] != "base"].groupby(RUN, as_index=False)["step"].max()
    return last.assign(before=last["step"], after=last["step"], share=1.0)


def crossings(evaluations: pd.DataFrame, accuracy: float, monotone: bool = False) -> pd.DataFrame:
    """Where each run's puzzle exact match first reaches `accuracy`: a row per run that gets there.

    Columns run, arm, seed, before and after (the evaluated steps around the crossing, equal where the first step
    is there already), share (how far between them, 0..1), step, samples (interpolated linearly) and n.

    `monotone`: read it off the non-decreasing curve nearest to the run's (`rising`), so that one lucky evaluation
    after which the run falls below again is no crossing.
    """
    require_columns(evaluations, EVALUATIONS)
    exact = evaluations[(evaluations["task"] == "puzzle") & (evaluations["measure"] == "exact")]
    trained = exact[exact["arm"] != "base"].sort_values("step")
    rows = [_crossing(rising(run) if monotone else run, accuracy) for _, run in trained.groupby(RUN)]
    columns = [*RUN, "before", "after", "share", "step", "samples", "n"]
    return pd.DataFrame([row for row in rows if row], columns=columns)


def rising(run: pd.DataFrame) -> pd.DataFrame:
    """One run's rows (by step) with their isotonic regression over steps, each value weighing its number of items.

    Where values fall, they and their neighbours become their weighted mean (pool adjacent violators).
    """
    fitted = isotonic_regression(run["value"], weights=run["n"]).x
    # A mean of equal numbers may miss them, and with them an accuracy that they reach exactly, by a rounding.
    return run.assign(value=fitted.round(12))


def _crossing(run: pd.DataFrame, accuracy: float) -> tuple | None:
    """The crossing of one run's rows (by step), or None where it never gets there."""
    if run["step"].duplicated().any():
        raise UserError("A run has several values at one step: pass the evaluations of each run once.")
    there = [place for place, value in enumerate(run["value"]) if value >= accuracy]
    if not there:
        return None
    # The first step that reaches it and the step before: what comes later may fall below again and does not count.
    after, before = run.iloc[there[0]], run.iloc[max(there[0] - 1, 0)]
    rise = after["value"] - before["value"]
    share = (accuracy - before["value"]) / rise if rise > 0 else 1.0
    step, samples = (before[c] + share * (after[c] - before[c]) for c in ("step", "samples"))
    return (*(after[c] for c in RUN), before["step"], after["step"], share, step, samples, after["n"])


def drops_at(rows: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    """Fall below base of each task of one measure at marks as from `crossings`: columns run, arm, seed, task, value, n.

    `rows`: evaluations of one measure. Raises UserError where a task has no base.
    """
    there = values_at(rows, marks, [*RUN, "task"])
    return there.assign(value=_below_base(rows, there))


def values_at(rows: pd.DataFrame, marks: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Values of `rows` at the marks, linear between the evaluated steps around them; columns keys, value, n."""
    rows = rows.assign(n=rows["n"] if "n" in rows.columns else 0)[[*keys, "step", "value", "n"]]
    at = rows.merge(marks[[*RUN, "before", "after", "share"]], on=RUN)
    first = at[at["step"] == at["before"]].set_index(list(keys))
    last = at[at["step"] == at["after"]].set_index(list(keys))
    value = first["value"] + last["share"] * (last["value"] - first["value"])
    n = first["n"].combine(last["n"], min)
    return value.rename("value").to_frame().assign(n=n).dropna().reset_index()
