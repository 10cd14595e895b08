"""`figures/summary.csv` with everything in it: the study on the shipped base, and the cells of the study on bases.

Four columns say what a row is about: `base` (the base's name; "two-form" or "one-form" for several of a kind), the form
that was `asked` for, the form that was `written`, and the `grid`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from helpers.stats.curves import seed_summary
from helpers.stats.front_table import Planned, front_table
from helpers.stats.summary import COLUMNS, per_seed
from helpers.stats.ways import read_runs
from helpers.study import cells
from helpers.study.arms import ARM_STYLE, get_arm
from helpers.study.cells import Cell
from helpers.study.spec import RunSpec

ABOUT = ("base", "asked", "written", "grid")
WHOLE = (*ABOUT, *COLUMNS)


def described(summary: pd.DataFrame, specs: Iterable[RunSpec]) -> pd.DataFrame:
    """A summary whose arms were run as `specs` say, with the columns of `ABOUT` before its own.

    Seeds of an arm differ in none of them.
    """
    about = {spec.arm: (spec.base, *_about(spec)) for spec in specs}
    columns = pd.DataFrame([about[arm] for arm in summary["arm"]], columns=list(ABOUT), index=summary.index)
    return pd.concat([columns, summary], axis=1)[list(WHOLE)]


def _about(spec: RunSpec) -> tuple[str, str, str]:
    return spec.asked, spec.written, spec.grid


def of_bases(tables: Mapping[str, pd.DataFrame], picked: Planned) -> pd.DataFrame:
    """Every quantity of `summary` for runs on several bases (`picked`, one a cell and base): a row a cell and task.

    `seeds` counts bases; a drop is counted from each run's own start. An arm with a label is called by both. Runs that
    come after another are left out, whose start is no base, and likelihoods. `tables`: evaluations and metrics.
    """
    # Likelihoods are known only where a run was asked in every way, not at its start: notebook 11 has the base's.
    known = tables["evaluations"][tables["evaluations"]["measure"] != "likelihood"]
    parts = {"evaluations": dict(list(known.groupby("run"))), "metrics": dict(list(tables["metrics"].groupby("run")))}
    rows = [
        per_seed(parts["evaluations"][run], parts["metrics"][run]).assign(**_names(cell, spec))
        for run, (cell, spec) in picked.items()
        if run in parts["evaluations"] and get_arm(spec.arm).trains and not spec.after
    ]
    if not rows:
        return pd.DataFrame(columns=list(WHOLE))
    whole, keys = pd.concat(rows, ignore_index=True), [*ABOUT, "quantity", "arm", "task"]
    frame = seed_summary(whole, keys).rename(columns={"mean": "value"})
    return frame.assign(n=whole.groupby(keys)["n"].min().to_numpy(int))[list(WHOLE)]


def _names(cell: Cell, spec: RunSpec) -> dict[str, str]:
    arm = ", ".join(filter(None, (cell.arm, cell.label)))
    return dict(zip(ABOUT, (cell.kind, *_about(spec)), strict=True)) | {"arm": arm}


def whole(summary: pd.DataFrame, specs: Iterable[RunSpec], bases: bool = True) -> pd.DataFrame:
    """`described`, and below it (where `bases`) the cells on the reported bases, once their headline is published.

    A cell is read at the rate that is best on the other bases, or at the one of runs that feed others (`read_runs`).
    """
    own = described(summary, specs)
    if not (bases and all(map(cells.is_published, cells.specs(cells.REPORTED, cells.HEADLINE)))):
        return own
    tables, planned = cells.tables(cells.REPORTED), cells.planned(cells.REPORTED)
    found = of_bases(tables, read_runs(planned, front_table(tables, planned)))
    order = {arm: place for place, arm in enumerate(ARM_STYLE)}
    places = found.assign(place=found["arm"].str.split(",").str[0].map(order))
    below = found.loc[places.sort_values([*ABOUT, "quantity", "place", "arm", "task"]).index]
    return pd.concat([own, below], ignore_index=True) if len(below) else own


def on_shipped(whole: pd.DataFrame) -> pd.DataFrame:
    """The rows of the study on one base and one form, without what says so: the summary of that study."""
    kinds = {cell.kind for cell in cells.CELLS.values()}
    return whole.loc[~whole["base"].isin(kinds), list(COLUMNS)].reset_index(drop=True)
