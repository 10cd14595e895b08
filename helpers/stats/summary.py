"""The study in one table: `figures/summary.csv`, computed from the records and never by hand.

A row is one quantity of one arm (and prior task): mean over seeds with its 95% t interval. Beside it stand the
paper's own numbers, which come from another model and another scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from helpers.errors import UserError
from helpers.stats import curves
from helpers.stats.curves import ALL, EVALUATIONS, RUN, seed_summary
from helpers.stats.intervals import in_words
from helpers.study.arms import ARM_STYLE, REGISTRY
from helpers.study.schema import is_prior

_METRICS = (*RUN, "step", "name", "value")


class SummaryRow(NamedTuple):
    """One quantity of one arm and task: mean over `seeds` seeds with its interval; `n`: items scored for one seed."""

    quantity: str
    arm: str
    task: str
    value: float
    low: float
    high: float
    seeds: int
    n: int


COLUMNS = SummaryRow._fields


def per_seed(
    evaluations: pd.DataFrame, metrics: pd.DataFrame, accuracies: Sequence[float] = curves.THRESHOLDS
) -> pd.DataFrame:
    """Every quantity of every run: columns quantity, run, arm, seed, task, value, n.

    `n`: items scored for one seed's value, 0 where nothing is scored. A quantity "at" an accuracy has rows only
    for seeds that reach it.
    """
    curves.require_columns(evaluations, EVALUATIONS)
    curves.require_columns(metrics, _METRICS)
    prior = evaluations[is_prior(evaluations)]
    tasks = pd.concat([curves.battery_mean(evaluations), prior[list(EVALUATIONS)]], ignore_index=True)
    parts = [*_final(evaluations, tasks), *_run_lengths(evaluations), *_metric_rows(metrics)]
    parts += _drops(tasks, curves.last_steps(tasks), "drop_final")
    for accuracy in accuracies:
        parts += _at_accuracy(evaluations, tasks, metrics, accuracy)
    columns = ["quantity", *RUN, "task", "value", "n"]
    return pd.concat([part.reindex(columns=columns) for part in parts if len(part)], ignore_index=True)


def summarise(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The summary, columns `COLUMNS`, from the tables `evaluations` and `metrics`.

    `value` is the mean over seeds; `low` and `high` bound its 95% t interval, or are the smallest and largest
    value below three seeds. Sorted by quantity, arm (palette order) and task, so equal records give equal rows.
    """
    missing = [name for name in ("evaluations", "metrics") if name not in tables]
    if missing:
        raise UserError(f"The summary needs the table(s) {', '.join(missing)}: pass evaluations and metrics.")
    rows, keys = per_seed(tables["evaluations"], tables["metrics"]), ["quantity", "arm", "task"]
    frame = seed_summary(rows, keys).rename(columns={"mean": "value"})
    frame["n"] = rows.groupby(keys)["n"].min().to_numpy(int)
    order = {arm: place for place, arm in enumerate(ARM_STYLE)}
    places = frame[keys].assign(arm=frame["arm"].map(order))
    return frame.loc[places.sort_values(keys).index].reset_index(drop=True)


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV; 10 significant digits, so equal numbers give equal bytes."""
    return frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def _final(evaluations: pd.DataFrame, tasks: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Scores at the last step of each run, the base among them."""
    puzzle = evaluations[evaluations["task"] == "puzzle"]
    for rows, measures in ((tasks, curves.PRIOR_MEASURES), (puzzle, curves.PUZZLE_MEASURES)):
        last = curves.last_rows(rows)
        for quantity, measure in measures.items():
            yield last[last["measure"] == measure].assign(quantity=quantity)


def _run_lengths(evaluations: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """How long each run trained, in steps and in samples."""
    last = evaluations.groupby(RUN, as_index=False)[["step", "samples"]].max()
    for quantity, column in (("steps", "step"), ("samples", "samples")):
        yield last.assign(quantity=quantity, task="puzzle", value=last[column].astype(float), n=0)


def _at_accuracy(
    evaluations: pd.DataFrame, tasks: pd.DataFrame, metrics: pd.DataFrame, accuracy: float
) -> Iterator[pd.DataFrame]:
    """What it took and cost to reach one puzzle accuracy."""
    marks = curves.crossings(evaluations, accuracy)
    for quantity, column in ((f"steps_to_{accuracy:g}", "step"), (f"samples_to_{accuracy:g}", "samples")):
        yield marks.assign(quantity=quantity, task="puzzle", value=marks[column].astype(float))
    yield from _drops(tasks, marks, f"drop_at_{accuracy:g}")
    norms = metrics[metrics["name"] == "update_norm"]
    if len(norms) and len(marks):
        yield curves.values_at(_with_start(norms), marks, RUN).assign(
            quantity=f"update_norm_at_{accuracy:g}", task="puzzle", n=0
        )


def _with_start(norms: pd.DataFrame) -> pd.DataFrame:
    """Norms with a zero at step 0, where nothing has moved yet and nothing is recorded."""
    start = norms[RUN].drop_duplicates().assign(step=0, value=0.0)
    return pd.concat([start, norms[[*RUN, "step", "value"]]]).drop_duplicates([*RUN, "step"])


def _drops(tasks: pd.DataFrame, marks: pd.DataFrame, name: str) -> Iterator[pd.DataFrame]:
    """Fall below base at the marks, of each task and of their mean; by generation and by likelihood."""
    for ending, measure in (("", "score"), ("_likelihood", "likelihood")):
        rows = tasks[tasks["measure"] == measure]
        if len(rows) and len(marks):
            yield curves.drops_at(rows, marks).assign(quantity=name + ending)


def _metric_rows(metrics: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The last update norm of each run, and the minutes it trained where they were recorded."""
    for name in ("update_norm", "minutes"):
        rows = metrics[metrics["name"] == name].sort_values("step").drop_duplicates("run", keep="last")
        yield rows.assign(quantity=name, task="puzzle", n=0)


def look_up(summary: pd.DataFrame, quantity: str, arm: str, task: str = ALL) -> SummaryRow | None:
    """The row of one quantity, or None where there is none."""
    keep = (summary["quantity"] == quantity) & (summary["arm"] == arm) & (summary["task"] == task)
    return next((SummaryRow(*row) for row in summary.loc[keep, list(COLUMNS)].itertuples(index=False)), None)


def arms(summary: pd.DataFrame, base: bool = True) -> list[str]:
    """The arms of a summary in palette order."""
    there = set(summary["arm"])
    return [arm.name for arm in REGISTRY.values() if arm.name in there and (base or arm.trains)]


def interval_text(row: SummaryRow | None, digits: int = 2) -> str:
    """ "0.12 (0.08 to 0.16, 3 seeds)" of a row of the summary, or "not reached"."""
    return "not reached" if row is None else in_words((row.value, row.low, row.high), f".{digits}f", row.seeds)
