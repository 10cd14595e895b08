"""The paper's numbers beside ours, and its order of the arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from helpers.stats.curves import ALL
from helpers.stats.intervals import in_words, paired_interval
from helpers.stats.summary import arms, look_up

_NUMBERS = Path(__file__).with_name("paper.csv")
_PAPER_ORDER = ("rft", "sft-rollout", "sft-expert", "sft-answer")
"""The arms by what the paper finds kept, most first."""


def paper_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary in the layout of the paper's table: a row per arm, tasks as pairs of score and change.

    Columns arm, steps, puzzle accuracy, prior mean, prior mean change, then `<task>` and `<task> change`; change is
    against base, so a loss is negative. All are means over seeds in [0, 1].
    """
    scores = summary[summary["quantity"] == "prior_score"]
    tasks = [ALL, *sorted(set(scores["task"]) - {ALL})]
    rows = []
    for arm in arms(summary):
        row: dict[str, object] = {"arm": arm}
        for name, quantity in (("steps", "steps"), ("puzzle accuracy", "puzzle_exact")):
            row[name] = getattr(look_up(summary, quantity, arm, "puzzle"), "value", math.nan)
        for task in tasks:
            name = "prior mean" if task == ALL else task
            ours, base = (look_up(summary, "prior_score", a, task) for a in (arm, "base"))
            row[name] = getattr(ours, "value", math.nan)
            row[f"{name} change"] = row[name] - getattr(base, "value", math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


class _Pair(NamedTuple):
    """Two neighbours of an order: how much less `less` keeps than `more`, paired by seed."""

    more: str
    less: str
    difference: float
    low: float
    high: float
    seeds: int
    verdict: str


def order_check(rows: pd.DataFrame, quantity: str, order: Sequence[str] = _PAPER_ORDER) -> pd.DataFrame:
    """Does each arm of `order` keep more than the next? A row per pair of neighbours.

    `rows`: as `per_seed` gives them; `quantity`: a drop, or anything of which less is better. Differences are
    taken seed by seed (a seed's boards are the same for both arms). Columns more, less, difference (`less` minus
    `more`), low, high, seeds and verdict: "holds" or "fails" where the 95% interval is clear of 0, else "undecided"
    (always below 3 seeds; without a seed of both arms the numbers are NaN).
    """
    chosen = rows[(rows["quantity"] == quantity) & rows["task"].isin([ALL, "puzzle"])]
    drops = {arm: group.set_index("seed")["value"] for arm, group in chosen.groupby("arm")}
    pairs = []
    for more, less in zip(order, order[1:], strict=False):
        *interval, seeds = paired_interval(drops, less, more)
        pairs.append(_Pair(more, less, *interval, seeds, _verdict(interval, seeds)))
    return pd.DataFrame(pairs)


def _verdict(interval: Sequence[float], seeds: int) -> str:
    if seeds < 3 or interval[1] <= 0 <= interval[2]:
        return "undecided"
    return "holds" if interval[1] > 0 else "fails"


def order_sentence(check: pd.DataFrame, where: str) -> str:
    """What `order_check` found, in words; `where`: "at the end", "at puzzle accuracy 0.5"."""
    verdicts = set(check["verdict"])
    whole = "fails" if "fails" in verdicts else "holds" if verdicts == {"holds"} else "is undecided"
    pairs = "; ".join(_said(pair, f"{pair.more} > {pair.less}", 3, "no seed of both got there", "kept more by")
                      for pair in _pairs(check))  # fmt: skip
    order = " > ".join([*check["more"], check["less"].iloc[-1]])
    return f"The order {order} {whole} {where}. {pairs}."


def fast_and_keeps(rows: pd.DataFrame, arm: str, accuracy: float = 0.5) -> list[str]:
    """Three claims and their verdicts: `arm` is faster than RFT, keeps more than answer SFT, keeps less than RFT.

    At the puzzle accuracy given, decided as in `order_check`; `rows` as `per_seed` gives them.
    """
    at = f"{accuracy:g}"
    questions = (
        (f"{arm} is faster than rft (steps to {at})", f"steps_to_{at}", (arm, "rft"), 0),
        (f"{arm} keeps more than sft-answer at {at}", f"drop_at_{at}", (arm, "sft-answer"), 3),
        (f"rft keeps more than {arm} at {at}", f"drop_at_{at}", ("rft", arm), 3),
    )
    return [
        _said(_pairs(order_check(rows, quantity, pair))[0], text, digits, "not reached by both", "difference")
        for text, quantity, pair, digits in questions
    ]


def _pairs(check: pd.DataFrame) -> list[_Pair]:
    return [_Pair(*row) for row in check.itertuples(index=False)]


def _said(pair: _Pair, claim: str, digits: int, missing: str, apart: str) -> str:
    """A claim with its verdict and the difference, or with the words for `missing` where no seed has both."""
    if not pair.seeds:
        return f"{claim}: {missing}"
    apart += " " + in_words((pair.difference, pair.low, pair.high), f"+.{digits}f", pair.seeds)
    return f"{claim}: {pair.verdict}, {apart}"


def paper_numbers() -> pd.DataFrame:
    """The paper's published numbers: columns model, arm, quantity, benchmark, value, unit, certainty.

    Qwen2.5-VL-3B and 7B on 3 x 3 boards: another model and another scale than this study's, so directions and
    orders compare, sizes do not. Prior changes are known for 7B only. Arms carry this study's names.
    """
    return pd.read_csv(_NUMBERS, dtype={"value": float})


def beside_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """Our changes next to the paper's 7B changes, a row per arm of both: in percentage points (MME: its points).

    The paper's columns carry "paper 7B" in their names: different model and scale.
    """
    ours = paper_table(summary).set_index("arm")
    paper = paper_numbers().query("model == '7B' and arm != 'base'")
    change = paper[paper["quantity"] == "prior change"].pivot(index="arm", columns="benchmark", values="value")
    benchmarks = paper.loc[paper["quantity"] == "prior change", "benchmark"].unique()
    puzzle, steps = (
        paper[paper["quantity"] == quantity].set_index("arm")["value"] for quantity in ("puzzle accuracy", "steps")
    )
    rows = []
    for arm in [a for a in _PAPER_ORDER if a in ours.index]:
        row = {"arm": arm, "ours: steps": ours.loc[arm, "steps"], "paper 7B: steps": steps[arm]}
        row |= {"ours: puzzle": 100 * ours.loc[arm, "puzzle accuracy"], "paper 7B: puzzle": puzzle[arm]}
        row["ours: prior mean change"] = 100 * ours.loc[arm, "prior mean change"]
        rows.append(row | {f"paper 7B: {b}": change.loc[arm, b] for b in benchmarks})
    return pd.DataFrame(rows)
