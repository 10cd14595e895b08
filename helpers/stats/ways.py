"""What a model still knows where it first reaches 0.7, asked in every way: is it the form, the knowledge or a mask?

At that evaluation a run is examined in all ways (`train.exam`). Functions here take the table of outcomes and `picked`,
the runs to read: of those planned (`cells.planned`) one a cell and base, as `chosen_runs` or `source_rate_runs` picks
them. What of them was not run by now is left out. A `seed` is a base's stem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import pandas as pd

from helpers.stats.curves import seed_summary
from helpers.stats.front_table import Planned, own_outcomes
from helpers.stats.fronts import chosen, ran
from helpers.study.arms import get_arm
from helpers.study.cells import SOURCE_RATE, Cell, get_cell
from helpers.study.schema import is_prior
from helpers.study.spec import RunSpec

OWN = "as the run asks"
ALL_TASKS = "all tasks"
FORM_WORDS: Mapping[str, str] = MappingProxyType(
    {"think": "asked to think", "direct": "asked to answer directly", "plain": "asked for no form"}
)
_AGAIN = (0, 8, 32, 128)  # samples of other tasks that are shown again


def _likely(way: str) -> str:
    return f"likelihood ({way})"


def _after(shown: int) -> str:
    return f"after {shown} samples of other tasks"


WROTE = (
    OWN, *FORM_WORDS.values(), "in held-out wordings", "on pictures of another size", "begun with <think>",
    "begun with <answer>",
)  # fmt: skip
CHOSE = tuple(map(_likely, (OWN, *FORM_WORDS.values())))
REGAINED = tuple(map(_after, _AGAIN))
WAYS = (*WROTE, *CHOSE, *REGAINED)
"""Every way: what is written, what is chosen among a few, and what is written after samples were shown again."""


# --- which runs -------------------------------------------------------------------------------------------


def source_rate_runs(planned: Planned) -> dict[str, tuple[Cell, RunSpec]]:
    """Of each cell and base the run at `SOURCE_RATE`, or at the one rate of a cell that has no other; the base arm."""
    return {
        name: (cell, spec)
        for name, (cell, spec) in planned.items()
        if spec.learning_rate == SOURCE_RATE or len(cell.rates) == 1
    }


def chosen_runs(planned: Planned, front: pd.DataFrame) -> dict[str, tuple[Cell, RunSpec]]:
    """Of each cell and base the run at the rate that is best on the other bases (`fronts.chosen`), and the base arm.

    A cell with one rate has nothing to choose: it is read at that one. A cell that has no such rate on a base has no
    run on it here.
    """
    fronts = [name for name in front["cell"].unique() if len(get_cell(name).rates) > 1]
    rates = {name: chosen(front, name).set_index("base")["rate"].to_dict() for name in fronts}
    alone = {name for name in front.loc[ran(front), "cell"] if len(get_cell(name).rates) == 1}
    return {
        name: (cell, spec)
        for name, (cell, spec) in planned.items()
        if not _trains(cell) or cell.name in alone or rates.get(cell.name, {}).get(str(spec.seed)) == spec.learning_rate
    }


def read_runs(planned: Planned, front: pd.DataFrame) -> dict[str, tuple[Cell, RunSpec]]:
    """`chosen_runs`; of a cell that ran on fewer than two bases, where no rate can be chosen, `source_rate_runs`."""
    bases = front[ran(front)].groupby("cell")["base"].nunique()
    early = {name: made for name, made in source_rate_runs(planned).items() if bases.get(made[0].name, 0) < 2}
    return chosen_runs(planned, front) | early


def _trains(cell: Cell) -> bool:
    return get_arm(cell.arm).trains


def reached(outcomes: pd.DataFrame, picked: Planned) -> pd.Series:
    """The step of the first evaluation at the run's mark (0.7), asked as the run asks: by run that got there."""
    asked = outcomes["run"].map({name: spec.asked for name, (_, spec) in picked.items()})
    boards = outcomes[(outcomes["task"] == "puzzle") & (outcomes["asked"] == asked) & (outcomes["step"] > 0)]
    marks = boards["run"].map({name: spec.mark for name, (_, spec) in picked.items()}).astype(float)
    there = boards[_shares(boards["right"]) >= marks]
    return there.groupby("run")["step"].min()


def counts(outcomes: pd.DataFrame, planned: Planned, picked: Planned) -> pd.DataFrame:
    """Numbers of bases of each cell that trains: columns planned, ran, picked and arrived, by cell in planned order.

    `ran`: at any rate; `picked`: at the one that is read; `arrived`: there, and with 0.7 reached.
    """
    there, known = set(reached(outcomes, picked).index), set(outcomes["run"])
    rows = [
        (cell.name, spec.seed, True, name in known, name in known and name in picked, name in there)
        for name, (cell, spec) in planned.items()
        if _trains(cell)
    ]
    table = pd.DataFrame(rows, columns=["cell", "seed", "planned", "ran", "picked", "arrived"])
    return table.groupby(["cell", "seed"], sort=False).any().groupby("cell", sort=False).sum()


# --- ways -------------------------------------------------------------------------------------------------


def way_scores(outcomes: pd.DataFrame, picked: Planned, watched: Collection[str]) -> pd.DataFrame:
    """Mean prior score in every way of each run where it first reached 0.7, and of its base: see the columns.

    Columns run, cell, seed, way (of `WAYS`), who ("trained" or "base") and value: equal weight per task, over
    `watched`, the tasks whose samples were not shown, in the ways of `REGAINED`. A base is the base arm's run on it
    that is asked as the run, else the run at step 0, which is known in the run's own way only. It is shown nothing
    again: it stands as it is beside every way of `REGAINED`.
    """
    there = reached(outcomes, picked)
    bases = _references(there.index, picked, set(outcomes["run"]))
    spots = {*there.items(), *((base, 0) for base in bases.values())}
    means = _means(_named(_at(outcomes, spots), outcomes, picked), watched)
    rows = [
        (run, picked[run][0].name, picked[run][1].seed, way, who, value)
        for run, step in there.items()
        for who, values in (("trained", means[run, step]), ("base", _unshown(means[bases[run], 0])))
        for way, value in values.items()
    ]
    return pd.DataFrame(rows, columns=["run", "cell", "seed", "way", "who", "value"])


def _references(runs: Iterable[str], picked: Planned, known: Collection[str]) -> dict[str, str]:
    """The run that stands for each run's base: the base arm's in the same form, else the run itself."""
    arms = {(s.base, s.asked): name for name, (cell, s) in picked.items() if not _trains(cell) and name in known}
    return {run: arms.get((picked[run][1].base, picked[run][1].asked), run) for run in runs}


def _at(outcomes: pd.DataFrame, spots: Collection[tuple[str, int]]) -> pd.DataFrame:
    """The prior tasks' rows of runs at steps."""
    prior = outcomes[is_prior(outcomes)]
    here = [spot in spots for spot in zip(prior["run"], prior["step"], strict=True)]
    return prior[pd.Series(here, prior.index, dtype=bool)]


def _shares(marks: pd.Series) -> pd.Series:
    """The share of each row's marks that are right."""
    return pd.Series([sum(each) / len(each) for each in marks], marks.index, dtype=float)


def _named(rows: pd.DataFrame, outcomes: pd.DataFrame, picked: Planned) -> pd.DataFrame:
    """Rows with their way's name in column `way`."""
    sizes = own_outcomes(outcomes, picked).groupby("run")["size"].first()
    named = [_name(row, picked[row.run][1].asked, sizes[row.run]) for row in rows.itertuples()]
    return rows.assign(way=pd.Series(named, rows.index, dtype=object))


def _name(row: Any, asked: str, size: int) -> str:
    """The way of a row of outcomes, as one of `WAYS`, of a run that asks for a form on pictures of a size."""
    if row.regained:
        return _after(row.regained)
    if row.opening:
        return f"begun with {row.opening}"
    if row.wording != "taught":
        return "in held-out wordings"
    if row.size != size:
        return "on pictures of another size"
    return OWN if row.asked == asked else FORM_WORDS[row.asked]


def _means(rows: pd.DataFrame, watched: Collection[str]) -> dict[tuple[str, int], dict[str, float]]:
    """Mean score over tasks by way, for each run and step among the rows."""
    again = rows["way"].isin(REGAINED)
    chosen_among = rows[rows["likely"].notna()]
    unseen = rows[rows["task"].isin(watched) & (again | (rows["way"] == OWN))]
    parts = (
        rows[~again].assign(marks=rows["right"]),
        chosen_among.assign(marks=chosen_among["likely"], way=chosen_among["way"].map(_likely)),
        unseen.assign(marks=unseen["right"], way=unseen["way"].replace(OWN, REGAINED[0])),
    )
    every = pd.concat(parts, ignore_index=True)
    found = every.assign(value=_shares(every["marks"])).groupby(["run", "step", "way"])["value"].mean()
    return {spot: part.droplevel(["run", "step"]).to_dict() for spot, part in found.groupby(["run", "step"])}


def _unshown(values: Mapping[str, float]) -> dict[str, float]:
    """A base's values, those that nothing is shown for repeated for every number of samples."""
    return {**values, **{way: values[REGAINED[0]] for way in REGAINED if REGAINED[0] in values}}


def way_summary(scores: pd.DataFrame) -> pd.DataFrame:
    """`way_scores` over bases, in the order of `WAYS`: columns cell, way, who, mean, low, high, seeds.

    Raises UserError where a cell has two runs on a base.
    """
    summary = seed_summary(scores, ["cell", "way", "who"])
    return summary.sort_values("way", key=lambda ways: ways.map(WAYS.index), kind="stable", ignore_index=True)


# --- tasks ------------------------------------------------------------------------------------------------


def task_falls(outcomes: pd.DataFrame, picked: Planned) -> pd.DataFrame:
    """Fall of each prior task from a run's own start to where it first reached 0.7, asked as the run asks.

    Columns run, cell, seed, task, value, and without: the mean fall over all other tasks. Task `ALL_TASKS` is the mean
    over all of them, with nothing left out. A run of one task alone has no other, and is left out.
    """
    own, there = own_outcomes(outcomes, picked), reached(outcomes, picked)
    score = own.assign(value=_shares(own["right"]))
    wide = score.pivot(index=["run", "step"], columns="task", values="value")
    rows = []
    for run, step in there.items():
        falls = (wide.loc[(run, 0)] - wide.loc[(run, step)]).dropna()
        names = (run, picked[run][0].name, picked[run][1].seed)
        mean, others = falls.mean(), len(falls) - 1
        rows += [(*names, task, fall, (falls.sum() - fall) / others) for task, fall in falls.items() if others]
        rows += [(*names, ALL_TASKS, mean, mean)] if others else []
    return pd.DataFrame(rows, columns=["run", "cell", "seed", "task", "value", "without"])


def in_parts(evaluations: pd.DataFrame, outcomes: pd.DataFrame, picked: Planned) -> pd.DataFrame:
    """How wrong answers are where a run first reached its mark (`reached`): means over those of `picked` that say so.

    Columns cell, task, start and score (whole answers right, at the run's start and there), parts (share of their parts
    that is right), as_many (answers with as many parts as they should have), seeds. Runs of before these were measured
    do not say.
    """
    there, own = reached(outcomes, picked), evaluations[is_prior(evaluations)]
    spots = own["step"] == own["run"].map(there)
    wide = own[spots].pivot_table("value", ["run", "seed", "task"], "measure")
    wide = wide.reindex(columns=["score", "parts", "as_many"]).dropna().reset_index()
    begun = own[(own["step"] == 0) & (own["measure"] == "score")].set_index(["run", "task"])["value"]
    keys = pd.MultiIndex.from_frame(wide[["run", "task"]])
    named = wide.assign(
        cell=wide["run"].map({name: cell.name for name, (cell, _) in picked.items()}),
        start=begun.reindex(keys).to_numpy(),
    )
    groups = named.groupby(["cell", "task"], sort=False)
    means = groups[["start", "score", "parts", "as_many"]].mean()
    return means.assign(seeds=groups.size()).reset_index()


def fall_summary(falls: pd.DataFrame) -> pd.DataFrame:
    """`task_falls` over bases: columns cell, task, mean, low, high, without, without_low, without_high, seeds.

    Raises UserError where a cell has two runs on a base.
    """
    own, rest = (seed_summary(falls, ["cell", "task"], name) for name in ("value", "without"))
    names = {"mean": "without", "low": "without_low", "high": "without_high"}
    return own.drop(columns="seeds").merge(rest.rename(columns=names), on=["cell", "task"])
