"""One task after another: what a run that learned mixed tiles and then turned ones could do before, between and after.

A second run begins where the first one ended (`RunSpec.after`), with the same arm, form and rate. Three stages, and
three things that are known at each: the prior tasks, the jigsaw and turned tiles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pandas as pd

from helpers.stats.curves import ALL, battery_mean, rows_of, seed_summary
from helpers.stats.front_table import Planned
from helpers.stats.fronts import ran
from helpers.stats.intervals import bases_in_words
from helpers.study.cells import SOURCE_RATE, get_cell
from helpers.study.fixed import rules
from helpers.study.spec import RunSpec

STAGES = ("base", "after the jigsaw", "after turned tiles")
PRIOR, JIGSAW, TURNED = KNOWN = ("prior tasks", "jigsaw", "turned tiles")
_COLUMNS = ["cell", "seed", "stage", "known", "value"]
_MIXED = "puzzle 2x2"  # the jigsaw, where a run's own puzzle is another one


def stage_scores(evaluations: pd.DataFrame, planned: Planned) -> pd.DataFrame:
    """What each arm's runs knew at each stage: columns cell, seed (the stem), stage, known, value (a share, 0 to 1).

    The prior tasks' mean score and the exact match of boards, as the run asks. A stage begins where the one before it
    ended, at the last step. What was not run by now is left out.
    """
    if evaluations.empty:
        return pd.DataFrame(columns=_COLUMNS)
    exact = rows_of(evaluations, "exact")
    mean = battery_mean(rows_of(evaluations, "score")).assign(task=ALL)
    there = set(evaluations["run"])
    value = pd.concat([exact, mean]).set_index(["run", "task", "step"])["value"].sort_index()
    rows = [
        (f"{cell.arm} {cell.asked}", spec.seed, *row)
        for cell, spec in planned.values()
        if spec.after in there  # never so of a first run, which comes after ""
        for row in _stages(value, spec, _from_base(planned, spec, there))
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _from_base(planned: Planned, after: RunSpec, there: Collection[str]) -> str:
    """A run, of those that are there, that learned turned tiles from the base, asked in the same form.

    Whatever its arm: it says at its start what the base makes of them. "" where there is none.
    """
    own = (after.base, after.asked, after.turned)
    alike = [name for name, (_, s) in planned.items() if not s.after and (s.base, s.asked, s.turned) == own]
    return next((name for name in alike if name in there), "")


def _stages(value: pd.Series, second: RunSpec, from_base: str) -> Iterator[tuple[str, str, float]]:
    """(stage, known, value) of one second run, as far as is known; `value` by run, task and step."""
    base, between, after = STAGES
    spots = (
        (base, PRIOR, second.after, ALL, 0),
        (base, JIGSAW, second.after, "puzzle", 0),
        (base, TURNED, from_base, "puzzle", 0),
        (between, PRIOR, second.after, ALL, -1),
        (between, JIGSAW, second.after, "puzzle", -1),
        (between, TURNED, second.name, "puzzle", 0),
        (after, PRIOR, second.name, ALL, -1),
        (after, JIGSAW, second.name, _MIXED, -1),
        (after, TURNED, second.name, "puzzle", -1),
    )
    for stage, known, run, task, place in spots:
        if (run, task) in value.index:
            yield stage, known, float(value.loc[run, task].iloc[place])  # by step: the first or the last one


def stage_summary(scores: pd.DataFrame) -> pd.DataFrame:
    """`stage_scores` over bases, in order: columns cell, known, stage, mean, low, high, seeds.

    Of each arm only the bases count on which most is known: a row is read from left to right.
    """
    count = scores.groupby(["cell", "seed"])["value"].transform("size")
    most = count.groupby(scores["cell"]).transform("max")
    summary = seed_summary(scores[count == most], ["cell", "known", "stage"])
    order = {name: place for place, name in enumerate((*KNOWN, *STAGES))}
    return summary.sort_values(["known", "stage"], key=lambda own: own.map(order), kind="stable", ignore_index=True)


def lost_again(scores: pd.DataFrame) -> list[str]:
    """A sentence per arm: what the second task cost the first one, and the prior tasks beyond what the first had cost.

    Means with their intervals over the bases on which turned tiles were learned to exact match 0.7 or more; the others
    are counted, and say nothing of a cost: what is not learned need not cost anything.
    """
    wide = scores.pivot(index=["cell", "seed"], columns=["known", "stage"], values="value")
    wide = wide.reindex(columns=pd.MultiIndex.from_product([KNOWN, STAGES]))
    said = []
    for cell, rows in wide.groupby("cell"):
        end = rows[(TURNED, STAGES[2])].dropna()
        own = rows.loc[end.index[end >= rules().at]]
        lost = f"turned tiles were not learned on {len(end) - len(own)} of {len(end)} bases"
        late = len(own) < len(end)
        if len(own):
            first, more = (own[(PRIOR, STAGES[k])] - own[(PRIOR, STAGES[k + 1])] for k in (0, 1))
            jigsaw = own[(JIGSAW, STAGES[1])] - own[(JIGSAW, STAGES[2])]
            said.append(
                f"{cell}: of the prior score the jigsaw cost {bases_in_words(first)} and turned tiles "
                f"{bases_in_words(more)} more; of the jigsaw they cost {bases_in_words(jigsaw)}{f'; {lost}' * late}."
            )
        elif len(end):
            said.append(f"{cell}: {lost}.")
    return said or ["No arm was taught both tasks yet."]


def second_task(front: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Drops at 0.7 of two cells at `SOURCE_RATE` on each task, from the base: a row per task and base.

    Columns task, base, first, second, difference (first minus second); NaN where a run did not arrive. `front` as from
    `front_table`; only bases on which both cells were run on both tasks, so that the tasks can be compared.
    """
    tasks = {"jigsaw": "", "turned tiles": ", turned"}
    drops = {
        (t, c): _at_source_rate(front, get_cell(c + more).name) for t, more in tasks.items() for c in (first, second)
    }
    bases = sorted(set.intersection(*map(set, drops.values())), key=int)
    rows = [(task, base, drops[task, first][base], drops[task, second][base]) for task in tasks for base in bases]
    table = pd.DataFrame(rows, columns=["task", "base", first, second])
    return table.assign(difference=table[first] - table[second])


def _at_source_rate(front: pd.DataFrame, cell: str) -> dict[str, float]:
    """A cell's drop at that rate, by base."""
    own = front[(front["cell"] == cell) & (front["rate"] == SOURCE_RATE) & ran(front)]
    return dict(zip(own["base"], own["drop"].astype(float), strict=True))


def second_task_words(table: pd.DataFrame) -> list[str]:
    """A sentence per task of `second_task`, and how far the tasks are apart: means with their intervals over bases."""
    first, second = table.columns[2:4]
    wide = table.pivot(index="base", columns="task", values="difference")
    said = [
        f"{task}: drop of {first} minus that of {second}: {bases_in_words(wide[task].dropna())}."
        for task in wide.columns
        if wide[task].notna().any()
    ]
    if len(wide.columns) < 2 or not len(wide.dropna()):
        return [*said, "No base has both arms at 0.7 on both tasks yet."]
    apart = bases_in_words((wide["turned tiles"] - wide["jigsaw"]).dropna())
    return [*said, f"The difference on turned tiles minus that on the jigsaw: {apart}."]


def second_curves(evaluations: pd.DataFrame, planned: Planned) -> pd.DataFrame:
    """Both puzzles along each second run: columns cell, seed, step, jigsaw and turned (exact match, 0 to 1)."""
    second = {name: f"{cell.arm} {cell.asked}" for name, (cell, spec) in planned.items() if spec.after}
    rows = evaluations[evaluations["run"].isin(second) & (evaluations["measure"] == "exact")]
    wide = rows.pivot(index=["run", "seed", "step"], columns="task", values="value").reset_index()
    wide = wide.reindex(columns=["run", "seed", "step", _MIXED, "puzzle"])
    named = wide.rename(columns={_MIXED: "jigsaw", "puzzle": "turned"}).rename_axis(columns=None)
    return named.assign(cell=named["run"].map(second))[["cell", "seed", "step", "jigsaw", "turned"]]
