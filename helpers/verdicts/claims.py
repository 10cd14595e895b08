"""The table of claims: what the paper, its relatives and this suite say, each with a test fixed beforehand.

A claim stands in `claims.toml` with its statistic (a function of `statistics.py`), a threshold and a direction. It
**holds** where the whole interval lies on its side of the threshold and **fails** where it lies on the other; it is
**undecided** where the interval straddles the threshold, where there are fewer than five seeds, or where the runs are
missing. Nothing here looks at a verdict before computing it, and a claim that fails stays in the table.
"""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator

from helpers.errors import UserError
from helpers.stats.intervals import in_words
from helpers.study.fixed import claims_text
from helpers.verdicts.statistics import FORMULAS, LEAST_SEEDS, STATISTICS, Estimate, Evidence

NO_VALUE = "not run"
COLUMNS = (
    "claim", "source", "statement", "statistic", "direction", "threshold", "value", "low", "high", "seeds", "verdict",
    "reason", "notebook", "figure",
)  # fmt: skip
_BAR = "\\|"  # a bar that does not end a cell in Markdown


class Claim(BaseModel):
    """A statement with the statistic that decides it. `direction`: ">" or "<", the side on which it is true.

    `statistic` is the name of a function and `arguments` what it is given; `measured` says the same in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str
    source: str
    statement: str
    measured: str
    statistic: str
    arguments: Mapping[str, str | int | float | list[str]]
    direction: Literal["<", ">"]
    threshold: FiniteFloat
    units: str
    notebook: str
    figure: str
    notes: str = ""

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        """Refuse a statistic that does not exist, or arguments that it does not take."""
        if self.statistic not in STATISTICS:
            raise ValueError(f"there is no statistic {self.statistic}: choose among {', '.join(STATISTICS)}")
        formula = self.arguments.get("formula", "value")
        if formula not in FORMULAS:
            raise ValueError(f"there is no formula {formula}: choose among {', '.join(FORMULAS)}")
        try:
            inspect.signature(STATISTICS[self.statistic]).bind(None, **self.arguments)
        except TypeError as error:
            raise ValueError(f"{self.statistic}: {error}") from error
        return self

    def estimate(self, evidence: Evidence) -> Estimate | None:
        """The statistic's value and interval, None where nothing was run."""
        return STATISTICS[self.statistic](evidence, **self.arguments)


def read_claims(text: str) -> tuple[Claim, ...]:
    """The claims of a TOML text, in its order. Raises UserError that names the claim and the field that is wrong."""
    claims = []
    for row in tomllib.loads(text)["claim"]:
        try:
            claims.append(Claim(**row))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "statistic"
            raise UserError(f"Claim {row.get('id')} is no claim: {where}: {first['msg']}.") from error
    return tuple(claims)


@cache
def all_claims() -> tuple[Claim, ...]:
    """Every claim of this suite, from `claims.toml`."""
    return read_claims(claims_text())


class Verdict(NamedTuple):
    """holds, fails or undecided, and why it is undecided."""

    verdict: str
    reason: str


def decide(claim: Claim, estimate: Estimate | None) -> Verdict:
    """The verdict on a claim, from its threshold and its interval and nothing else."""
    if estimate is None:
        return Verdict("undecided", NO_VALUE)
    seeds, ran = estimate.seeds, estimate.ran
    if seeds < LEAST_SEEDS:
        reached = f"reached by {seeds or 'none'} of {ran} seeds that were run; " * (ran > seeds)
        return Verdict("undecided", f"{reached}{seeds} seed{'s' * (seeds != 1)} of at least {LEAST_SEEDS}")
    low, high = estimate.low, estimate.high
    if not all(map(math.isfinite, (low, high))) or low <= claim.threshold <= high:
        return Verdict("undecided", "the interval straddles the threshold")
    above = low > claim.threshold
    return Verdict("holds" if above == (claim.direction == ">") else "fails", "")


def table(evidence: Evidence, claims: Sequence[Claim] | None = None) -> pd.DataFrame:
    """Every claim with its value, interval and verdict: columns `COLUMNS`; numbers are empty where nothing was run."""
    rows = []
    for claim in all_claims() if claims is None else claims:
        estimate = claim.estimate(evidence)
        numbers = (estimate.value, estimate.low, estimate.high, estimate.seeds) if estimate else (None, None, None, 0)
        fixed = (claim.id, claim.source, claim.statement, claim.measured, claim.direction, claim.threshold)
        rows.append((*fixed, *numbers, *decide(claim, estimate), claim.notebook, claim.figure))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def markdown(rows: pd.DataFrame) -> str:
    """The table as Markdown, a claim a line: statement, statistic with its threshold, value, verdict, where to look."""
    head = ["", "claim", "says", "test", "value (95% interval)", "seeds", "verdict", "figure"]
    lines = [" | ".join(["", *head, ""]).strip(), "|---" * len(head) + "|"]
    for number, row in enumerate(rows.itertuples(index=False), start=1):
        test = f"{row.statistic} {row.direction} {row.threshold:g}"
        mark = f"**{row.verdict}**" if row.verdict != "undecided" else f"undecided: {row.reason}"
        where = f"{row.notebook}, `{row.figure}`"
        value = _value_text((row.value, row.low, row.high), row.seeds)
        cells = [str(number), row.statement, row.source, test, value, str(row.seeds), mark, where]
        lines.append(f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |")
    return "\n".join(lines)


def _value_text(interval: tuple[float, float, float], seeds: int) -> str:
    if pd.isna(interval[0]):
        return "–"
    return f"{interval[0]:.2f}" if seeds < 2 else in_words(interval)


def count_sentence(rows: pd.DataFrame) -> str:
    """How many claims hold, fail and are undecided, in words."""
    counts, reasons = rows["verdict"].value_counts(), rows["reason"].fillna("")
    missing, few = int((reasons == NO_VALUE).sum()), int(reasons.str.contains("of at least").sum())
    undecided, short = int(counts.get("undecided", 0)), int(reasons.str.contains("reached by").sum())
    return (
        f"Of {len(rows)} claims {counts.get('holds', 0)} hold, {counts.get('fails', 0)} fail and {undecided} are "
        f"undecided: {undecided - missing - few} have an interval across the threshold, {few} have values of fewer "
        f"than {LEAST_SEEDS} seeds ({short} because runs never reached the accuracy) and {missing} were not run."
    )
