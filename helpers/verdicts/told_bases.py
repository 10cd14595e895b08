"""What the tables of the study on several bases say, in sentences, as `told` does for the study on one.

What was not run by now is named, and nothing is said of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.stats.front_table import Planned
from helpers.stats.fronts import chosen, ran
from helpers.stats.intervals import (
    bases_in_words,
    in_words,
)
from helpers.stats.paired import bases_needed, power_of_equivalence
from helpers.stats.summary import look_up
from helpers.stats.ways import ALL_TASKS, CHOSE, OWN, REGAINED
from helpers.study.cells import SOURCE_RATE
from helpers.study.fixed import rules
from helpers.world.easy_vqa import by_wording

DIRECT = ("sft-answer direct", "rft direct")


def _numbers(values: Iterable[object]) -> str:
    """ "1, 2 and 3"."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def three_sentences(summary: pd.DataFrame, front: pd.DataFrame) -> list[str]:
    """The answer to the suite's question in three sentences, one base first and then several.

    `summary`: the rows of figures/summary.csv on the shipped base; `front`: as from `front_table.reported`. On several
    bases each is read at the rate that is best on the others.
    """
    arms = ("sft-answer", "rft", "sft-rollout", "sft-expert")
    answer, rft, rollout, expert = (look_up(summary, "drop_at_0.5", arm) for arm in arms)
    if not all((answer, rft, rollout, expert)):
        return ["The study on one base has no drops to tell of yet."]
    return [
        "On a base that always thinks before it answers, SFT on bare answers has lost "
        f"{answer.value:.2f} of its prior score when it solves half of the boards, and RFT {rft.value:.2f}.",
        f"There the words decide: SFT on RFT's own rollouts loses {rollout.value:.2f}, SFT on an outside teacher's "
        f"sentences {expert.value:.2f}, though all of them learn the same true placements.",
        _on_fair_bases(front, answer.value - rft.value),
    ]


def _on_fair_bases(front: pd.DataFrame, before: float) -> str:
    """The third of `three_sentences`; `before`: what SFT lost more than RFT on the one base."""
    sft, rft = (chosen(front, name).set_index("base")["drop"].dropna() for name in DIRECT)
    bases = sft.index.intersection(rft.index)
    if bases.empty:
        return "On bases that write bare answers too it is not yet known."
    gap, planned = (sft - rft)[bases].mean(), front.loc[front["cell"] == DIRECT[0], "base"].nunique()
    what = "nearly all of that gap was the base's form" if abs(gap) < before / 5 else f"a gap of {gap:.2f} remains"
    far = "" if len(bases) == planned else f" (so far {len(bases)} of {planned} bases, too few for a verdict)"
    return (
        "On bases that write bare answers too when they are asked to, answer SFT has lost "
        f"{sft[bases].mean():.2f} and RFT {rft[bases].mean():.2f} when they solve 0.7 of the boards: {what}{far}."
    )


def power(n: int, claims: int, margin: float = 0.05, spreads: Sequence[float] = (0.02, 0.03, 0.05)) -> list[str]:
    """What an equality over `n` bases can show, at some spreads of the differences, alone and under Holm's strictest.

    `claims`: how many share the correction. Units and errors as `paired.power_of_equivalence`.
    """
    said = [
        f"Two cells that are equal are found equal within ±{margin:g} on {n} bases with the probability below, where "
        f"their differences spread over bases (standard deviation) by {_numbers(spreads)}."
    ]
    for alpha, when in (
        (rules().alpha, "Tested alone"),
        (rules().alpha / claims, f"At Holm's strictest step, one of {claims}"),
    ):
        found = [f"{power_of_equivalence(n, spread, margin, alpha):.2f}" for spread in spreads]
        least = [bases_needed(spread, margin, alpha=alpha) or "more than 50" for spread in spreads]
        said.append(f"{when} (p below {alpha:.2g}): {_numbers(found)}; 0.8 takes {_numbers(least)} bases.")
    return said


def so_far(front: pd.DataFrame, names: Sequence[str]) -> str:
    """How many of the planned runs of some cells are there, and on which bases; `front` as from `front_table`."""
    own = front[front["cell"].isin(names)]
    there = own[ran(own)]
    bases = ", ".join(sorted(there["base"].unique(), key=int)) or "none"
    of = f"{len(own)} planned runs of {len(names)} cell{'s' * (len(names) != 1)}"
    return f"Of {of} {len(there)} are there, on the bases of stems: {bases}."


def best_rates(front: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """For each cell the rate that was chosen on the other bases, how often, and what each base lost at it."""
    return [f"{name}: {_best_rate(chosen(front, name))}." for name in names]


def _best_rate(rows: pd.DataFrame) -> str:
    """One cell's line of `best_rates`, of its choices as from `fronts.chosen`."""
    if len(rows) < 2:
        return "run on one base, so that no rate can be chosen on the others" if len(rows) else "not run"
    rates, drops = rows["rate"].dropna(), rows["drop"].dropna()
    if rates.empty:
        return "no rate reached the mark on every base"
    often = [f"{rate:.0e} for {count}" for rate, count in rates.value_counts().sort_index(ascending=False).items()]
    lost = f"lost there {bases_in_words(drops)}" if len(drops) else "and none of them reached the mark there"
    edge = "; a chosen rate lies at the edge of the front" * bool(rows["at_edge"].any())
    return f"of {len(rows)} bases, chosen {', '.join(often)}; {lost}{edge}"


def rates_read(picked: Planned, front: pd.DataFrame, names: Sequence[str]) -> str:
    """At which rates some cells are read: those chosen on the other bases, or the one of runs that feed others.

    `picked`: as from `ways.read_runs`.
    """
    known = front[ran(front)]
    bases = known.groupby("cell")["base"].nunique()
    read = set(known.loc[known["run"].isin(picked), "cell"])
    early = f"Read at {SOURCE_RATE:.0e}, because fewer than two bases ran it"
    groups = {
        "Read at the rate that is best on the other bases": [n for n in names if n in read and bases[n] > 1],
        early: [n for n in names if n in read and bases[n] < 2],
        "Read at no rate yet": [n for n in names if n in bases.index and n not in read],
        "Not run": [n for n in names if n not in bases.index],
    }
    said = [f"{how}: {'; '.join(cells)}" for how, cells in groups.items() if cells]
    return f"{'. '.join(said)}."


def form_or_knowledge(scores: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """What each cell lost in three ways: as asked, by likelihood, and on watched tasks before and after a reminder.

    `scores`: as from `ways.way_scores`; losses are base minus trained, base by base.
    """
    wide = scores.pivot(index=["cell", "seed", "way"], columns="who", values="value")
    lost = (wide["base"] - wide["trained"]).dropna() if len(wide) else pd.Series(dtype=float)
    found: dict[tuple[str, str], list[float]] = {}
    for (cell, _, way), value in lost.items():
        found.setdefault((cell, way), []).append(value)
    ways = {"as asked": OWN, "by likelihood": CHOSE[0]}
    again = {"before": REGAINED[0], f"{REGAINED[-1]}": REGAINED[-1]}
    said = []
    for name in [n for n in names if (n, OWN) in found]:
        parts = [f"{bases_in_words(found[name, way])} {how}" for how, way in ways.items() if (name, way) in found]
        back = [f"{bases_in_words(found[name, way])} {how}" for how, way in again.items() if (name, way) in found]
        said.append(f"{name} lost {', '.join(parts)}{'; on tasks not shown again ' * bool(back)}{', '.join(back)}.")
    return said or ["None of these cells has a run that reached its mark."]


def carried_on_bases(summary: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """For each cell the two tasks that fell most, their share of all that is lost, and the mean without any one task.

    `summary`: as from `ways.fall_summary`. No share is told of a mean drop below .01, which is next to nothing.
    """
    said = []
    for cell in [name for name in names if name in set(summary["cell"])]:
        own = summary[summary["cell"] == cell].set_index("task")
        mean, tasks = own.loc[ALL_TASKS, "mean"], own.drop(ALL_TASKS)
        worst, without = tasks["mean"].nlargest(2), tasks["without"]
        share = f"{worst.sum() / tasks['mean'].sum():.2f} of it" if mean >= 0.01 else "too little for a share"
        said.append(
            f"{cell}: mean drop {mean:.2f}, {share} on {_numbers(worst.index)}; "
            f"without any one task {without.min():.2f} to {without.max():.2f}."
        )
    return said or ["None of these cells has a run that reached its mark."]


def easy_vqa_by_wording(split: str = "test") -> str:
    """What easy-VQA gives to whoever does not look at the pictures."""
    alone, besides = by_wording(split)
    return (
        f"easy-VQA's {split} split: of its yes-or-no questions {alone:.2f} are answered right by wording alone (yes to "
        f"those that deny, no to the others); with every question for a word right besides, the score is {besides:.2f}."
    )


def apart(summary: pd.DataFrame) -> list[str]:
    """What stands out among pairs of cells, those whose interval leaves out 0: a sentence per question, and a warning.

    `summary`: as from `stats.apart.summary`. Below three bases an interval is no test, and nothing stands out.
    """
    said = []
    for question, rows in summary.groupby("question", sort=False):
        known = rows[rows["bases"] > 2]
        words = [_pair_words(row) for row in known.itertuples() if row.low > 0 or row.high < 0]
        counts = {"undecided": len(known) - len(words), "without three bases": len(rows) - len(known)}
        rest = [f"{count} of {len(rows)} {kind}" for kind, count in counts.items() if count]
        said.append(f"{question}: {'; '.join([*words, *rest])}.")
    known = summary[summary["bases"] > 2]
    if known.empty:
        return said
    width = ((known["high"] - known["low"]) / 2).median()
    return [
        *said,
        f"Of {len(known)} pairs that differ in nothing {len(known) * rules().alpha:.1f} would stand out by chance. "
        f"Half an interval is {width:.2f} in the median: what is smaller cannot be seen here.",
    ]


def _pair_words(row: Any) -> str:
    """A pair's difference, turned so that it is above 0: "rft direct loses 0.10 (...) more than rft think"."""
    first, second, sign = (row.first, row.second, 1) if row.mean > 0 else (row.second, row.first, -1)
    ends = sorted((sign * row.low, sign * row.high))
    value = in_words((sign * row.mean, *ends), seeds=row.bases, of="base")
    return f"{first} loses {value} more than {second}"


def words_and_drops(table: pd.DataFrame) -> list[str]:
    """How probable each cell's texts are under its bases, and what was lost; then whether the two go together.

    `table`: as from `measure.own_words.beside_drops`. The rank correlation is over the means of cells, and is said from
    four cells with a drop on.
    """
    said, means = [], []
    for (cell, kind), rows in table.groupby(["cell", "kind"], sort=False):
        value, drops = float(np.exp(np.log(rows["perplexity"]).mean())), rows["drop"].dropna()
        lost = f"; lost {bases_in_words(drops)}" if len(drops) else ""
        said.append(f"{cell}, {kind}: perplexity {value:.2f}{lost}.")
        both = np.log(rows.loc[rows["drop"].notna(), "perplexity"]).mean()
        means += [(both, drops.mean())] if len(drops) else []
    if len(means) < 4:
        return [*said, "Too few cells have a drop to say whether the two go together."]
    rho = pd.DataFrame(means).rank().corr().iloc[0, 1]
    known = "none, all are alike" if math.isnan(rho) else f"{rho:.2f}"
    return [*said, f"Rank correlation of perplexity and drop over {len(means)} cells: {known}."]


def one_step_words(rows: pd.DataFrame) -> list[str]:
    """For each rule, which texts' first update clearly lowers or raises gold answers, by the form that is asked for.

    `rows`: as from `measure.own_words.one_step`; clearly: the interval over batches leaves out 0.
    """
    said = []
    for step, part in rows.groupby("step", sort=False):
        clear = {"lowered": part[part["high"] < 0], "raised": part[part["low"] > 0]}
        words = [f"{kind} by {_by_corpus(own)}" for kind, own in clear.items() if len(own)]
        undecided = len(part) - sum(map(len, clear.values()))
        said.append(f"{step}: {'; '.join([*words, f'{undecided} of {len(part)} undecided'])}.")
    return said


def _by_corpus(rows: pd.DataFrame) -> str:
    """ "sft-answer plain (asked: direct, asked: think)"."""
    groups = rows.groupby("corpus", sort=False)["kind"].agg(", ".join)
    return " and ".join(f"{corpus} ({kinds})" for corpus, kinds in groups.items())


def wrong_in_parts(table: pd.DataFrame, names: Sequence[str], least: float = 0.2) -> list[str]:
    """Of the tasks of some cells that fell by `least` or more: how much of an answer is right, and if its length is.

    `table`: as from `ways.in_parts`.
    """
    own = table[table["cell"].isin(names)]
    if own.empty:
        return ["No run says yet how wrong its answers are."]
    fell = own[own["start"] - own["score"] >= least]
    return [
        f"{row.cell}, {row.task}: {row.score:.2f} right as a whole, {row.parts:.2f} of their parts, {row.as_many:.2f} "
        f"with as many parts as they should have ({row.seeds} base{'s' * (row.seeds != 1)})."
        for row in fell.itertuples()
    ] or [f"No task fell by {least:g} or more."]
