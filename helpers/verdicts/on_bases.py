"""The statistics that decide claims over bases: how two cells of a study differ, base by base.

A cell is an arm, an asked form and a kind of base, as "rft direct". Each statistic takes the evidence's fronts
(stats/fronts.py) and gives a value per base, from which a claim's test takes its p value (claims.py); None where a cell
was not run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from helpers.stats.fronts import arrived, chosen, least_flops, ran
from helpers.stats.intervals import seed_interval
from helpers.verdicts.statistics import Estimate, Evidence


@dataclass(frozen=True)
class OnBases(Estimate):
    """An estimate over bases: mean and 95% t interval over `seeds` bases, of `ran` on which its cells were run.

    `differences`: first cell minus second (or one cell's values), a number per base that has all, by name of the base.
    `logs`: they are natural logarithms, and value, low and high are ratios (a geometric mean and its interval).
    `doubts`: why nothing can be decided, in sentences; `late`: where a cell did not arrive, of which a claim's rule
    says what follows. `cells`: those that were compared.
    """

    differences: tuple[float, ...] = ()
    logs: bool = False
    doubts: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()


def difference_of_cells(evidence: Evidence, first: str, second: str) -> OnBases | None:
    """Drop at 0.7 of one cell minus another's, each at the rate that is best on the other bases, base by base."""
    return _at_choices(evidence, "drop", first, second)


def drop_of_cell(evidence: Evidence, cell: str) -> OnBases | None:
    """Drop at 0.7 of one cell at the rate that is best on the other bases: a value per base, compared with nothing."""
    return _at_choices(evidence, "drop", cell)


def cost_at_choice(evidence: Evidence, first: str, second: str) -> OnBases | None:
    """FLOPs to 0.7 of one cell over another's, each at the rate that is best on the other bases, as `cost_ratio`."""
    found = _at_choices(evidence, "flops", first, second)
    return found and _as_ratio(found)


def cost_ratio(evidence: Evidence, first: str, second: str, of_sources: str = "") -> OnBases | None:
    """Fewest FLOPs to 0.7 over a cell's front, over another's: the geometric mean of the ratio over bases.

    `differences` are the ratio's natural logarithms, so that first over second and second over first decide the same.
    `of_sources`, where it says "counted": with what the run cost that feeds a cell.
    """
    if not _were_run(evidence, first, second):
        return None
    fronts = evidence.fronts
    if of_sources == "counted":
        fronts = fronts.assign(flops=fronts["flops"] + fronts["source_flops"])
    spent = {cell: np.log(least_flops(fronts, cell)) for cell in (first, second)}
    late = [
        line for cell, logs in spent.items() for line in _said("{cell} never reached 0.7 on {bases}", cell, logs.isna())
    ]
    return replace(_as_ratio(_paired(evidence, spent)), late=tuple(late))


def equal_cells(
    evidence: Evidence, first: str, second: str, fallback_first: str, fallback_second: str
) -> OnBases | None:
    """`difference_of_cells` of first and second, or of the fallbacks where a base reached 0.7 at no rate of either.

    `cells` of the estimate tells which were compared. A cell that was not yet run on a base calls for no fallback.
    """
    if not _were_run(evidence, first, second):
        return None
    all_arrived = all(arrived(evidence.fronts, cell).all() for cell in (first, second))
    return difference_of_cells(evidence, *((first, second) if all_arrived else (fallback_first, fallback_second)))


def _at_choices(evidence: Evidence, column: str, *cells: str) -> OnBases | None:
    """A column of `fronts.chosen` of one cell, or of the first minus the second; of FLOPs the logarithm."""
    if not _were_run(evidence, *cells):
        return None
    choices = {cell: chosen(evidence.fronts, cell).set_index("base") for cell in cells}
    values = {cell: rows[column] if column == "drop" else np.log(rows[column]) for cell, rows in choices.items()}
    found = _paired(evidence, values)
    doubts, late = list(found.doubts), []
    for cell, rows in choices.items():
        none, lost = rows["rate"].isna(), rows["rate"].notna() & rows[column].isna()
        doubts += _said("the rate chosen for {cell} lies at the edge of its front on {bases}", cell, rows["at_edge"])
        late += _said("no rate of {cell} reached 0.7 on every base but {bases}", cell, none)
        late += _said("{cell} did not reach 0.7 at the rate chosen for {bases}", cell, lost)
    return replace(found, doubts=tuple(doubts), late=tuple(late))


def _as_ratio(found: OnBases) -> OnBases:
    """An estimate of differences of logarithms as one of ratios."""
    value, low, high = map(math.exp, (found.value, found.low, found.high))
    return replace(found, value=value, low=low, high=high, logs=True)


def _were_run(evidence: Evidence, *cells: str) -> bool:
    return set(cells) <= set(evidence.fronts[ran(evidence.fronts)]["cell"])


def _paired(evidence: Evidence, values: Mapping[str, pd.Series]) -> OnBases:
    """The first cell's values, minus the second's if there is one (each by base), with a doubt for each that lacks."""
    bases = pd.Index(sorted(evidence.fronts["base"].unique()))
    doubts = [
        line
        for cell, known in values.items()
        for line in _said("{cell} was not run on {bases}", cell, pd.Series(~bases.isin(known.index), bases))
    ]
    doubts += [line for cell in values for line in _unfinished(evidence, cell)]
    first, *second = (known.reindex(bases) for known in values.values())
    apart = (first - second[0] if second else first).dropna()
    both = len(set.intersection(*(set(known.index) for known in values.values())))
    interval = seed_interval(apart) if len(apart) else (math.nan,) * 3
    return OnBases(*interval, len(apart), both, tuple(apart), doubts=tuple(doubts), cells=tuple(values))


def _unfinished(evidence: Evidence, cell: str) -> list[str]:
    """A doubt where a cell's front is not finished on some bases: which rate is best there is not known yet."""
    own = evidence.fronts[evidence.fronts["cell"] == cell]
    made = ran(own).groupby(own["base"])
    return _said("{cell} was not run at every rate on {bases}", cell, made.any() & ~made.all())


def _said(form: str, cell: str, where: pd.Series) -> list[str]:
    """A sentence that names the cell and the bases where something is so; none where it is so nowhere."""
    bases = ", ".join(map(str, where.index[where.to_numpy(bool)]))
    return [form.format(cell=cell, bases=bases)] if bases else []


STATISTICS: Mapping[str, Callable[..., OnBases | None]] = {
    function.__name__: function
    for function in (difference_of_cells, drop_of_cell, cost_ratio, cost_at_choice, equal_cells)
}
"""What `statistic` in `claims.toml` may name where bases are counted."""
RATIOS = frozenset({"cost_ratio", "cost_at_choice"})
"""The statistics among them whose values are ratios."""
