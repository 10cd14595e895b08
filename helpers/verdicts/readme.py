"""The README's tables and counts, written from the published CSVs between marks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from helpers.errors import UserError
from helpers.files import write_file
from helpers.stats import front_table
from helpers.stats.curves import ALL
from helpers.stats.summary import SummaryRow, arms, look_up
from helpers.stats.whole_summary import on_shipped
from helpers.verdicts import claims, told, told_bases

_COLUMNS: Mapping[str, str] = {
    "puzzle_exact": "puzzle exact match",
    "prior_score": "prior score",
    "prior_score_likelihood": "by likelihood",
    "format_failure": "format failures",
    "samples_to_0.5": "boards to 0.5",
    "drop_at_0.5": "drop at 0.5",
    "update_norm": "update norm",
    "minutes": "minutes",
}


_SHARES = ("puzzle_exact", "prior_score", "prior_score_likelihood", "format_failure")
"""Quantities between 0 and 1, where a t interval over few seeds may reach beyond what is possible; it is cut there."""


_RESULTS = ("<!-- results -->", "<!-- /results -->")
_CLAIMS = ("<!-- claims -->", "<!-- /claims -->")
_ANSWER = ("<!-- answer -->", "<!-- /answer -->")
_BUILT_IN = ("<!-- built-in -->", "<!-- /built-in -->")


def results_table(summary: pd.DataFrame) -> str:
    """The README's table of results in Markdown: an arm a row, mean over seeds with its interval where it has one."""
    lines = ["| arm | seeds | " + " | ".join(_COLUMNS.values()) + " |", "|---" * (len(_COLUMNS) + 2) + "|"]
    for arm in arms(summary):
        rows = [
            look_up(summary, q, arm, ALL if q.startswith(("prior", "drop", "format")) else "puzzle") for q in _COLUMNS
        ]
        seeds = max((int(r.seeds) for r in rows if r is not None), default=0)
        lines.append(f"| `{arm}` | {seeds} | " + " | ".join(map(_cell, rows)) + " |")
    return "\n".join(lines)


def _cell(row: SummaryRow | None) -> str:
    """One number with its interval; a dash where an arm never got there."""
    if row is None:
        return "–"
    digits = 0 if row.quantity.startswith(("samples", "steps")) else 1 if row.quantity == "minutes" else 2
    text = f"{row.value:.{digits}f}"
    if row.seeds < 2 or not math.isfinite(row.low) or row.low == row.high:
        return text
    low, high = (min(max(v, 0.0), 1.0) if row.quantity in _SHARES else v for v in (row.low, row.high))
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def answers(figures: Path = Path("figures")) -> list[str]:
    """The answer in three sentences. Raises UserError where summary.csv is missing."""
    return list(told_bases.three_sentences(on_shipped(_table(figures / "summary.csv")), front_table.reported()))


def answer(figures: Path = Path("figures")) -> str:
    """The answer in three sentences, as a list in Markdown. Raises UserError as `answers`."""
    return "\n".join(f"* {sentence}" for sentence in answers(figures))


def written(text: str, figures: Path) -> str:
    """A README's text with its results and its count of claims as `figures` (summary.csv, claims.csv) has them.

    The answer in three sentences and the box "What we built in" are written anew as well.

    Raises UserError where a table or a mark is missing.
    """
    summary, verdicts = (_table(figures / name) for name in ("summary.csv", "claims.csv"))
    text = put_between(text, _ANSWER, answer(figures))
    text = put_between(text, _RESULTS, results_table(on_shipped(summary)))
    text = put_between(text, _BUILT_IN, told.built_in())
    return put_between(text, _CLAIMS, claims.count_sentence(verdicts))


def write_readme(readme: Path = Path("README.md"), figures: Path = Path("figures")) -> None:
    """Write the README's results, its box and its count of claims anew. Raises UserError as `written`."""
    write_file(readme, written(readme.read_text(encoding="utf-8"), figures))


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise UserError(f"{path} is missing: ./run_all.sh writes it.")
    return pd.read_csv(path)


def put_between(text: str, marks: tuple[str, str], content: str) -> str:
    """A text with `content` between two marks. Raises UserError where a mark is not there exactly once."""
    if any(text.count(mark) != 1 for mark in marks):
        raise UserError(f"The README needs {marks[0]} and {marks[1]} once each; put them back.")
    head, rest = text.split(marks[0])
    tail = rest.split(marks[1])[1]
    return f"{head}{marks[0]}\n{content}\n{marks[1]}{tail}"
