"""The paper's numbers beside ours, its order of the arms, and the README's table of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.errors import UserError
from helpers.files import write_file
from helpers.stats.curves import ALL
from helpers.stats.intervals import seed_interval
from helpers.stats.summary import arms, look_up

PAPER_ORDER = ("rft", "sft-rollout", "sft-expert", "sft-answer")
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
            found, base = (look_up(summary, "prior_score", a, task) for a in (arm, "base"))
            row[name] = getattr(found, "value", math.nan)
            row[f"{name} change"] = row[name] - getattr(base, "value", math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def order_check(rows: pd.DataFrame, quantity: str, order: Sequence[str] = PAPER_ORDER) -> pd.DataFrame:
    """Does each arm of `order` keep more than the next? A row per pair of neighbours.

    `rows`: as `per_seed` gives them; `quantity`: a drop, or anything of which less is better. Differences are
    taken seed by seed (a seed's boards are the same for both arms). Columns more, less, difference (`less` minus
    `more`), low, high, seeds and verdict: "holds" or "fails" where the 95% interval is clear of 0, else "undecided"
    (always below 3 seeds; without a seed of both arms the numbers are NaN).
    """
    chosen = rows[(rows["quantity"] == quantity) & rows["task"].isin([ALL, "puzzle"])]
    drops = {arm: group.set_index("seed")["value"] for arm, group in chosen.groupby("arm")}
    found = []
    for more, less in zip(order, order[1:], strict=False):
        both = more in drops and less in drops
        difference = (drops[less] - drops[more]).dropna() if both else []
        interval = seed_interval(difference) if len(difference) else (math.nan,) * 3
        found.append((more, less, *interval, len(difference), _verdict(interval, len(difference))))
    return pd.DataFrame(found, columns=["more", "less", "difference", "low", "high", "seeds", "verdict"])


def _verdict(interval: Sequence[float], seeds: int) -> str:
    if seeds < 3 or interval[1] <= 0 <= interval[2]:
        return "undecided"
    return "holds" if interval[1] > 0 else "fails"


def order_sentence(check: pd.DataFrame, where: str) -> str:
    """What `order_check` found, in words; `where`: "at the end", "at puzzle accuracy 0.5"."""
    verdicts = set(check["verdict"])
    whole = "fails" if "fails" in verdicts else "holds" if verdicts == {"holds"} else "is undecided"
    pairs = "; ".join(_pair_text(row) for row in check.itertuples(index=False))
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
    return [_answer(text, order_check(rows, which, pair).iloc[0], digits) for text, which, pair, digits in questions]


def _answer(claim: str, row: Any, digits: int) -> str:
    seeds = int(row["seeds"])
    if not seeds:
        return f"{claim}: not reached by both"
    span = f" ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})" if seeds > 1 else ""
    difference = f"{row['difference']:+.{digits}f}{span}"
    return f"{claim}: {row['verdict']}, difference {difference}, {seeds} seed{'s' * (seeds > 1)}"


def _pair_text(row: Any) -> str:
    if not row.seeds:
        return f"{row.more} > {row.less}: no seed of both got there"
    span = f"{row.difference:+.3f}"
    if row.seeds > 1:
        span += f" ({row.low:+.3f} to {row.high:+.3f})"
    return f"{row.more} > {row.less}: {row.verdict}, kept more by {span}, {row.seeds} seed{'s' * (row.seeds > 1)}"


SECOND_HAND = "second-hand: a third party's notes quote it"


TWO_NOTES = "second-hand: two independent notes agree"


_PAPER_CHANGES: Mapping[str, tuple[float, ...]] = {
    "RefCOCO val": (-0.6, -57.2, -37.5, -8.6),
    "DocVQA": (0.0, -27.4, -2.3, -0.9),
    "MME": (-8, -1854, -249, -126),
    "MMStar": (1.7, -62.8, -3.7, -2.4),
    "POPE": (-0.2, -69.9, -12.1, -3.1),
    "MMMU": (-1.3, -28.9, -5.2, -2.5),
}


_PAPER_PUZZLE: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "3B": ((0, 66, 53, 70, 70), (0, 27360, 200, 4100, 2670)),
    "7B": ((0, 75, 80, 78, 81), (0, 27360, 400, 4100, 3000)),
}


def paper_numbers() -> pd.DataFrame:
    """The paper's published numbers: columns model, arm, quantity, benchmark, value, unit, certainty.

    Qwen2.5-VL-3B and 7B on 3 x 3 boards: another model and another scale than this study's, so directions and
    orders compare, sizes do not. Prior changes are known for 7B only. Arms carry this study's names.
    """
    rows: list[tuple] = []
    names = ("base", "rft", "sft-answer", "sft-expert", "sft-rollout")
    for model, (accuracies, steps) in _PAPER_PUZZLE.items():
        for arm, accuracy, count in zip(names, accuracies, steps, strict=True):
            twice = arm == "base" or (model == "7B" and arm in ("rft", "sft-answer"))
            tag = TWO_NOTES if twice else SECOND_HAND
            rows.append((model, arm, "puzzle accuracy", "jigsaw 3 x 3", accuracy, "%", tag))
            rows.append((model, arm, "steps", "jigsaw 3 x 3", count, "steps", SECOND_HAND))
    for benchmark, changes in _PAPER_CHANGES.items():
        unit = "points of MME" if benchmark == "MME" else "percentage points"
        for arm, change in zip(names[1:], changes, strict=True):
            rows.append(("7B", arm, "prior change", benchmark, change, unit, SECOND_HAND))
    columns = ["model", "arm", "quantity", "benchmark", "value", "unit", "certainty"]
    return pd.DataFrame(rows, columns=columns).astype({"value": float})


def beside_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """Our changes next to the paper's 7B changes, a row per arm of both: in percentage points (MME: its points).

    The paper's columns carry "paper 7B" in their names: different model and scale.
    """
    ours = paper_table(summary).set_index("arm")
    paper = paper_numbers().query("model == '7B' and arm != 'base'")
    change = paper[paper["quantity"] == "prior change"].pivot(index="arm", columns="benchmark", values="value")
    puzzle, steps = (
        paper[paper["quantity"] == quantity].set_index("arm")["value"] for quantity in ("puzzle accuracy", "steps")
    )
    rows = []
    for arm in [a for a in PAPER_ORDER if a in ours.index]:
        row = {"arm": arm, "ours: steps": ours.loc[arm, "steps"], "paper 7B: steps": steps[arm]}
        row |= {"ours: puzzle": 100 * ours.loc[arm, "puzzle accuracy"], "paper 7B: puzzle": puzzle[arm]}
        row["ours: prior mean change"] = 100 * ours.loc[arm, "prior mean change"]
        rows.append(row | {f"paper 7B: {b}": change.loc[arm, b] for b in _PAPER_CHANGES})
    return pd.DataFrame(rows)


README_COLUMNS: Mapping[str, str] = {
    "puzzle_exact": "puzzle exact match",
    "prior_score": "prior score",
    "prior_score_likelihood": "by likelihood",
    "format_failure": "format failures",
    "samples_to_0.5": "boards to 0.5",
    "drop_at_0.5": "drop at 0.5",
    "update_norm": "update norm",
    "minutes": "minutes",
}


SHARES = ("puzzle_exact", "prior_score", "prior_score_likelihood", "format_failure")
"""Quantities between 0 and 1, where a t interval over few seeds may reach beyond what is possible; it is cut there."""


README_MARKS = ("<!-- results -->", "<!-- /results -->")


def readme_table(summary: pd.DataFrame) -> str:
    """The README's table of results in Markdown: an arm a row, mean over seeds with its interval where it has one."""
    lines = ["| arm | seeds | " + " | ".join(README_COLUMNS.values()) + " |", "|---" * (len(README_COLUMNS) + 2) + "|"]
    for arm in arms(summary):
        rows = [
            look_up(summary, q, arm, ALL if q.startswith(("prior", "drop", "format")) else "puzzle")
            for q in README_COLUMNS
        ]
        seeds = max((int(r.seeds) for r in rows if r is not None), default=0)
        lines.append(f"| `{arm}` | {seeds} | " + " | ".join(map(_readme_cell, rows)) + " |")
    return "\n".join(lines)


def _readme_cell(row: Any) -> str:
    """One number with its interval; a dash where an arm never got there."""
    if row is None:
        return "–"
    digits = 0 if row.quantity.startswith(("samples", "steps")) else 1 if row.quantity == "minutes" else 2
    text = f"{row.value:.{digits}f}"
    if row.seeds < 2 or not math.isfinite(row.low) or row.low == row.high:
        return text
    low, high = (min(max(v, 0.0), 1.0) if row.quantity in SHARES else v for v in (row.low, row.high))
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def write_readme(summary: Path = Path("figures/summary.csv"), readme: Path = Path("README.md")) -> None:
    """Put the table of results between the README's marks. Raises UserError where the marks are missing."""
    put_between(readme, README_MARKS, readme_table(pd.read_csv(summary)))


def put_between(readme: Path, marks: tuple[str, str], content: str) -> None:
    """Replace what stands between two marks of a text file. Raises UserError where the marks are missing."""
    text = readme.read_text(encoding="utf-8")
    if any(text.count(mark) != 1 for mark in marks):
        raise UserError(f"{readme} needs {marks[0]} and {marks[1]} once each; put them back.")
    head, rest = text.split(marks[0])
    tail = rest.split(marks[1])[1]
    write_file(readme, f"{head}{marks[0]}\n{content}\n{marks[1]}{tail}")
