"""Cells taken apart at one rate: what one of two lost more than the other, base by base, question by question.

Every cell here has a run at the rate at which runs feed others (`SOURCE_RATE`), or at its one rate (LoRA needs a higher
one). What a claim says is decided elsewhere, at best rates; here is all that has no front of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from helpers.stats.curves import battery_mean, crossings, last_rows, rows_of
from helpers.stats.front_table import Planned
from helpers.stats.fronts import ran
from helpers.stats.intervals import bases_in_words, seed_interval
from helpers.study.cells import REPORTED, SOURCE_RATE, get_cell
from helpers.study.fixed import rules
from helpers.study.spec import RunSpec

Pair = tuple[str, str]
_SFT, _RFT = "sft-answer direct", "rft direct"
QUESTIONS: Mapping[str, Sequence[Pair]] = MappingProxyType(
    {
        "algorithm": (
            (_SFT, "rft-no-kl direct"),
            ("sft-kl direct", _RFT),
            ("sft-rollout think", "rft think"),
            ("sft-stream think", "rft think"),
        ),
        "words": (
            ("sft-rollout think", "sft-voice think"),
            ("sft-self think", "sft-voice think"),
            ("sft-expert sentences", "sft-voice think"),
        ),
        "form, SFT": (
            ("sft-answer plain", _SFT),
            ("sft-expert plain", "sft-expert sentences"),
            ("sft-answer direct, one-form", _SFT),
            ("sft-answer plain, one-form", "sft-answer plain"),
        ),
        "form, RFT": (
            (_RFT, "rft think"),
            ("rft think, one-form", "rft think"),
            ("rft direct, one-form", _RFT),
        ),
        "length": (
            ("sft-answer think, filler fixed", "sft-answer think, filler empty"),
            ("sft-answer think, filler fixed", "sft-voice think"),
            ("sft-answer think, filler empty", _SFT),
        ),
        "KL term": (("rft-no-kl direct", _RFT), (_SFT, "sft-kl direct")),
        "control": (("sft-rollout direct", _SFT),),
        "eyes": (
            ("sft-answer direct, eyes frozen", _SFT),
            ("rft direct, eyes frozen", _RFT),
            ("sft-voice think, eyes frozen", "sft-voice think"),
        ),
        "batch": ((_SFT, "sft-answer direct, large batch"),),
        "remedies": (
            ("sft-replay direct", _SFT),
            ("rft-stale direct", _RFT),
            ("sft-answer direct, LoRA", _SFT),
            ("rft direct, LoRA", _RFT),
        ),
        "causes": (
            ("distill direct", _RFT),
            ("distill-degraded direct", "distill direct"),
            ("sft-dream direct", _SFT),
            ("sft-dft direct", _SFT),
            ("rft-entropy direct", "rft-no-kl direct"),
            ("rft-random direct", "rft-no-kl direct"),
        ),
    }
)
"""Pairs of cells that are compared, by what is asked; the second one is what the first is compared with."""
_SAME = frozenset({"seed", "steps", "source", "extra"})  # of a spec: what every base, or every arm, has of its own


def differs(first: str, second: str) -> list[str]:
    """In which settings the runs of two cells differ on the same stem, as their specs say; the arm comes first.

    `boards`: how many there are to learn from. Sources, steps and the settings of single arms are left out.
    """
    one, other = (cell.at(cell.stems[-1], one_rate(cell.rates)) for cell in map(get_cell, (first, second)))
    own, its = (
        asdict(spec) | {"boards": spec.settings.get("boards"), "filler": spec.settings.get("filler")}
        for spec in (one, replace(other, seed=one.seed))
    )
    same_stem = {"base": own["base"].split("-")[0] == its["base"].split("-")[0]}
    names = [n for n in own if n not in _SAME and not same_stem.get(n, own[n] == its.get(n))]
    return sorted(names, key=lambda name: (name != "arm", name))


EQUAL: Mapping[str, str] = MappingProxyType(
    {
        "exact": "what the first came to, at its last step",
        "lost": "what it had lost there",
        "as_able": "what the second had lost where it first came as far",
        "reference": "what the second had lost at its mark",
        "at_steps": "what the first had lost after as many steps",
        "at_norm": "what the first had lost where its update first was as long",
    }
)
"""What `at_equal` compares; NaN where a run never came so far."""


def of_one_rate(front: pd.DataFrame) -> pd.DataFrame:
    """The rows of a front at the rate at which its cell is read here: one a cell and base that ran.

    `front`: as from `front_table`.
    """
    known = front[ran(front)]
    read = {cell: one_rate(get_cell(cell).rates) for cell in known["cell"].unique()}
    return known[known["rate"] == known["cell"].map(read)]


def one_rate(rates: Sequence[float]) -> float:
    """The rate at which a cell with these rates is read: `SOURCE_RATE`, or its only one."""
    return SOURCE_RATE if SOURCE_RATE in rates else rates[0]


def differences(front: pd.DataFrame) -> pd.DataFrame:
    """What the first cell of each pair lost more than the second, on every base where both reached their mark.

    Columns question, first, second, base, value. A pair without such a base has no row.
    """
    read = of_one_rate(front)
    drops = {cell: rows.set_index("base")["drop"].dropna() for cell, rows in read.groupby("cell")}
    none = pd.Series(dtype=float)
    rows = [
        (question, first, second, base, float(value))
        for question, pairs in QUESTIONS.items()
        for first, second in pairs
        for base, value in (drops.get(first, none) - drops.get(second, none)).dropna().items()
    ]
    return pd.DataFrame(rows, columns=["question", "first", "second", "base", "value"])


def summary(front: pd.DataFrame) -> pd.DataFrame:
    """`differences` over bases, a row for every pair.

    Columns question, first, second, differs (in which settings), mean, low, high (NaN where no base has both), bases
    and lacks: on which of the bases where both are planned one was not run, or did not arrive.
    """
    apart = differences(front)
    found = {pair: rows["value"] for pair, rows in apart.groupby(["first", "second"])}
    rows = []
    for question, pairs in QUESTIONS.items():
        for first, second in pairs:
            values = found.get((first, second), pd.Series(dtype=float))
            interval = seed_interval(values) if len(values) else (math.nan,) * 3
            planned = sorted(set(get_cell(first).stems) & set(get_cell(second).stems) & set(REPORTED))
            lacks = "; ".join(filter(None, (_lacks(front, cell, planned) for cell in (first, second))))
            apart_in = ", ".join(differs(first, second))
            rows.append((question, first, second, apart_in, *interval, len(values), lacks))
    columns = ["question", "first", "second", "differs", "mean", "low", "high", "bases", "lacks"]
    return pd.DataFrame(rows, columns=columns)


def compared() -> list[str]:
    """The cells that `QUESTIONS` compares, each once, in the order of their questions."""
    return list(dict.fromkeys(name for pairs in QUESTIONS.values() for pair in pairs for name in pair))


def is_whole(front: pd.DataFrame) -> bool:
    """Whether every cell of `QUESTIONS` was run, at the rate at which it is read, on every base where it is planned."""
    named = compared()
    wanted = {(name, str(stem)) for name in named for stem in get_cell(name).stems if stem in REPORTED}
    return wanted <= set(of_one_rate(front)[["cell", "base"]].itertuples(index=False, name=None))


def _state(arrived: pd.Series, base: str) -> bool | None:
    return bool(arrived[base]) if base in arrived.index else None


def _lacks(front: pd.DataFrame, cell: str, stems: Sequence[int]) -> str:
    """On which bases of some stems a cell was not run, or did not arrive."""
    arrived = of_one_rate(front).query("cell == @cell").set_index("base")["arrived"].astype(bool)
    known = {stem: _state(arrived, str(stem)) for stem in stems}
    if all(there is None for there in known.values()):
        return f"{cell} not run"
    kinds = {"not run": None, "did not arrive": False}
    where = {kind: [str(stem) for stem, there in known.items() if there is state] for kind, state in kinds.items()}
    said = [f"{kind} on {', '.join(bases)}" for kind, bases in where.items() if bases]
    return f"{cell} {', '.join(said)}" if said else ""


def at_equal(tables: Mapping[str, pd.DataFrame], planned: Planned, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Two cells where the second one reached its mark: at equal steps, at an equal norm of the update, equally able.

    For arms that never reach the mark themselves. A row per pair and base: columns first, second, base and `EQUAL`.
    Drops are of the mean prior score, from each run's own start. `tables`: evaluations and metrics.
    """
    runs = {(cell.name, spec.seed): name for name, (cell, spec) in planned.items() if _is_read(cell.rates, spec)}
    rows = []
    for first, second in pairs:
        for (cell, seed), run in runs.items():
            other = runs.get((second, seed))
            if cell == first and other is not None and (found := _compared(tables, run, other)):
                rows.append({"first": first, "second": second, "base": str(seed)} | found)
    return pd.DataFrame(rows, columns=["first", "second", "base", *EQUAL])


def _is_read(rates: Sequence[float], spec: RunSpec) -> bool:
    return spec.learning_rate > 0 and spec.learning_rate == one_rate(rates)


def _compared(tables: Mapping[str, pd.DataFrame], run: str, other: str) -> dict[str, float] | None:
    """The columns of `EQUAL`; None where one of the runs is not there, or the reference never reached its mark."""
    own, reference = (_of_run(tables["evaluations"], name) for name in (run, other))
    marks = crossings(reference, rules().at, monotone=True) if len(reference) else reference
    if own.empty or marks.empty:
        return None
    step = float(marks["step"].iloc[0])
    (norms, lost), (norms_there, lost_there) = (
        (_norms(tables["metrics"], name), _lost(rows)) for name, rows in ((run, own), (other, reference))
    )
    as_long = _at(pd.Series(norms.index, norms.cummax()), _at(norms_there, step))
    exact = float(last_rows(rows_of(own, "exact", "puzzle"))["value"].iloc[0])
    able = crossings(reference, exact, monotone=True)["step"]
    return {
        "exact": exact,
        "lost": float(lost.iloc[-1]),
        "as_able": _at(lost_there, float(able.iloc[0])) if len(able) else math.nan,
        "reference": _at(lost_there, step),
        "at_steps": _at(lost, step),
        "at_norm": _at(lost, as_long),
    }


def _of_run(table: pd.DataFrame, run: str) -> pd.DataFrame:
    """The rows of one run."""
    return table[table["run"] == run]


def _norms(metrics: pd.DataFrame, run: str) -> pd.Series:
    """Norm of a run's update by step, 0 at its start."""
    own = _of_run(metrics, run)
    own = own[own["name"] == "update_norm"].set_index("step")["value"].sort_index()
    return pd.concat([pd.Series({0: 0.0}), own])


def _lost(evaluations: pd.DataFrame) -> pd.Series:
    """Fall of the mean prior score below a run's own start, by step."""
    mean = battery_mean(rows_of(evaluations, "score")).set_index("step")["value"].sort_index()
    return mean.iloc[0] - mean


def _at(curve: pd.Series, place: float) -> float:
    """A curve's value at a place along its index, linear in between; NaN beyond its end."""
    return float(np.interp(place, curve.index, curve)) if place <= curve.index[-1] else math.nan


def equal_words(table: pd.DataFrame) -> list[str]:
    """A sentence per pair of `at_equal`: means over bases with their intervals."""
    said = []
    for (first, second), rows in table.groupby(["first", "second"], sort=False):
        values = {name: rows[name].dropna() for name in EQUAL}
        words = {name: bases_in_words(own) if len(own) else "not known" for name, own in values.items()}
        said.append(
            f"{first} ended at exact match {words['exact']} and had lost {words['lost']}; where {second} first came as "
            f"far it had lost {words['as_able']}. Where {second} reached {rules().at:g} and had lost "
            f"{words['reference']}, {first} had lost after as many steps {words['at_steps']}, and with an update as "
            f"long {words['at_norm']}."
        )
    return said or ["None of these cells has a run beside one that reached the mark."]
