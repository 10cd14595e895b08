"""The published runs that an own run is most like: their curves to lay it over, and what a step of them took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import pandas as pd

from helpers.errors import UserError
from helpers.stats.curves import battery_mean, rows_of
from helpers.study import cells
from helpers.study.arms import get_arm
from helpers.study.profiles import GRIDS, get_profile, specs
from helpers.study.published import PUBLISHED, load_published, published_specs, table
from helpers.study.spec import RunSpec
from helpers.world.puzzles import PuzzleSpec

COLUMNS = ("step", "exact", "prior")


@dataclass(frozen=True)
class Alike:
    """Published runs of one arm. `curve`: columns step, exact, prior (means over the runs); `runs`: their specs.

    `seconds`: what a training step of them took. Empty, and NaN, where nothing is known.
    """

    said: str
    curve: pd.DataFrame = field(repr=False)
    runs: tuple[RunSpec, ...] = field(default=(), repr=False)
    seconds: float = math.nan

    def steps_to(self, accuracy: float) -> float:
        """Steps to the first evaluation that reaches an exact match; infinity where none does."""
        there = self.curve[(self.curve["exact"] >= accuracy) & (self.curve["step"] > 0)]
        return float(there["step"].iloc[0]) if len(there) else math.inf


NOTHING = Alike("nothing is published of this arm, asked so on such boards", pd.DataFrame(columns=list(COLUMNS)))


@lru_cache(maxsize=64)
def alike(arm: str, asked: str, base: str, rate: float, puzzle: PuzzleSpec = GRIDS["2x2"]) -> Alike:
    """The published runs of an arm that are most like one at a rate: on its base or another one, at the nearest rate.

    On the base of the first study all seeds of one rate, else one run of the study on several bases that asks for the
    same form. `NOTHING` where there is none whose boards are like those of `puzzle`.
    """
    try:
        found = _shipped(arm, puzzle) if base == "shipped" else _on_bases(arm, asked, base, puzzle)
        return _alike(found, rate) if found else NOTHING
    except UserError:  # records that are damaged, or not there: an own run goes without them
        return NOTHING


def _alike(found: Sequence[RunSpec], rate: float) -> Alike:
    nearest = min({spec.learning_rate for spec in found}, key=lambda own: abs(math.log(own / rate)))
    runs = tuple(spec for spec in found if spec.learning_rate == nearest)
    runs = runs if runs[0].base == "shipped" else runs[:1]
    evaluations, metrics = _tables(runs)
    seeds = f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
    weight = f", KL {runs[0].beta:g}" if runs[0].beta else ""
    words = f"{runs[0].arm} on {runs[0].base}, rate {nearest:g}{weight}{seeds}"
    seconds = float(metrics.loc[metrics["name"] == "seconds", "value"].mean())
    return Alike(words, curve(evaluations), runs, seconds)


def alike_of(spec: RunSpec) -> Alike:
    """`alike` for a run."""
    return alike(spec.arm, spec.asked, spec.base, spec.learning_rate, spec.puzzle)


def curve(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Exact match and mean prior score at each step, means over runs: columns step, exact, prior. Empty for no rows."""
    try:
        exact = rows_of(evaluations, "exact", "puzzle").groupby("step")["value"].mean()
        prior = battery_mean(rows_of(evaluations, "score")).groupby("step")["value"].mean()
    except UserError:  # nothing is evaluated yet
        return pd.DataFrame({name: pd.Series(dtype=float) for name in COLUMNS})
    return pd.DataFrame({"exact": exact, "prior": prior}).dropna().rename_axis("step").reset_index()


def _shipped(arm: str, puzzle: PuzzleSpec) -> list[RunSpec]:
    """Every published run of an arm in the study on one base, at its budget but for the rate."""
    profile = get_profile("cpu")
    if profile.puzzle != puzzle:
        return []
    study = specs(profile, [arm]) if arm in profile.study_arms else []
    controls = published_specs(PUBLISHED / "controls").values()
    plain = [spec for spec in controls if spec.arm == arm and not spec.lora_rank]
    rates = pd.Series([spec.learning_rate for spec in plain], dtype=float).value_counts()
    return study + [spec for spec in plain if rates[spec.learning_rate] > 1]  # a rate that one seed tried is left out


def _on_bases(arm: str, asked: str, base: str, puzzle: PuzzleSpec) -> list[RunSpec]:
    """Published runs of an arm on other bases, those on `base` first, else those of the first base that has some."""
    named = [c for c in cells.CELLS.values() if (c.arm, c.asked, GRIDS[c.grid]) == (arm, asked, puzzle)]
    plain = [cell for cell in named if not (cell.label or cell.after) and cell.kind == "two-form"]
    found = [s for cell in plain for stem in cell.stems for s in cell.specs(stem) if cells.is_published(s)]
    first = base if any(spec.base == base for spec in found) else found[0].base if found else ""
    return [spec for spec in found if spec.base == first]


def _tables(runs: tuple[RunSpec, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluations and metrics of published runs."""
    if runs[0].base != "shipped":
        found = cells.tables_of(runs, ("evaluations", "metrics"))
        return found["evaluations"], found["metrics"]
    names, arm = [spec.name for spec in runs], runs[0].arm
    of_study = get_arm(arm).in_study and runs[0] in specs(get_profile("cpu"), [arm])
    evaluations, metrics = (_rows(name, of_study) for name in ("evaluations", "metrics"))
    return evaluations[evaluations["run"].isin(names)], metrics[metrics["run"].isin(names)]


@lru_cache(maxsize=4)
def _rows(name: str, of_study: bool) -> pd.DataFrame:
    """A table of the study on one base, or of its controls."""
    return table("cpu", name) if of_study else load_published(PUBLISHED / "controls", name)
