"""The table of claims: what the paper, its relatives and this suite say, each with a test fixed beforehand.

A claim stands in `claims.toml` with its statistic (a function of `statistics.py`), a threshold and a direction. It
**holds** where the whole interval lies on its side of the threshold and **fails** where it lies on the other; it is
**undecided** where the interval straddles the threshold, where there are fewer than five seeds, or where the runs are
missing. Nothing here looks at a verdict before computing it, and a claim that fails stays in the table.

A claim on bases (a statistic of `on_bases.py`) is decided by its test instead: it holds where the p value of its test
is below alpha, and fails where that of the opposite test is, each after Holm's correction where it is a primary claim:
it is as hard to fail as to hold.
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
from helpers.stats.paired import equivalence, holm, no_test, one_sided
from helpers.study.fixed import claims_text, rules
from helpers.verdicts import on_bases
from helpers.verdicts.on_bases import OnBases
from helpers.verdicts.statistics import FORMULAS, LEAST_SEEDS, STATISTICS, Estimate, Evidence

_STATISTICS = {**STATISTICS, **on_bases.STATISTICS}
PRIMARY = "primary"
NO_VALUE = "not run"
STRADDLES = "the interval straddles the threshold"
COLUMNS = (
    "claim", "source", "statement", "statistic", "direction", "threshold", "value", "low", "high", "seeds", "verdict",
    "reason", "notebook", "figure",
)  # fmt: skip
_BAR = "\\|"  # a bar that does not end a cell in Markdown


class Claim(BaseModel):
    """A statement with the statistic that decides it. `direction`: ">" or "<", the side on which it is true.

    `statistic` is the name of a function and `arguments` what it is given; `measured` says the same in words.

    On bases only: `test`, superiority (beyond the threshold in that direction) or equivalence (within plus or minus the
    threshold); `rule`, whether bases that do not arrive leave the claim undecided or are left out; `family`, primary
    (its claims share Holm's correction) or exploratory. `revise` says which verdict would change our mind.
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
    test: Literal["", "superiority", "equivalence"] = ""
    rule: Literal["", "undecided", "left out"] = ""
    family: Literal["", "primary", "exploratory"] = ""
    revise: str = ""

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        """Refuse a statistic that does not exist, or arguments that it does not take."""
        if self.statistic not in _STATISTICS:
            raise ValueError(f"there is no statistic {self.statistic}: choose among {', '.join(_STATISTICS)}")
        formula = self.arguments.get("formula", "value")
        if formula not in FORMULAS:
            raise ValueError(f"there is no formula {formula}: choose among {', '.join(FORMULAS)}")
        try:
            inspect.signature(_STATISTICS[self.statistic]).bind(None, **self.arguments)
        except TypeError as error:
            raise ValueError(f"{self.statistic}: {error}") from error
        return self

    @model_validator(mode="after")
    def _can_be_tested(self) -> Self:
        """Refuse a claim on bases without a test and its rule, and a test, rule or family of any other claim."""
        on = self.statistic in on_bases.STATISTICS
        if bool(self.test) != on or bool(self.rule) != on or (self.family and not on):
            raise ValueError("a claim on bases needs a test and a rule; no other has them, or a family")
        if self.test == "equivalence" and self.direction != "<":
            raise ValueError('an equivalence has the direction "<": its difference lies within the threshold')
        # A ratio is tested by its logarithm, and an equivalence needs room on both sides.
        ratio, equal = self.statistic in on_bases.RATIOS, self.test == "equivalence"
        if (ratio or equal) and self.threshold <= (1 if ratio and equal else 0):
            raise ValueError(f"threshold: {self.threshold:g} is too small for this test")
        return self

    def estimate(self, evidence: Evidence) -> Estimate | None:
        """The statistic's value and interval, None where nothing was run."""
        return _STATISTICS[self.statistic](evidence, **self.arguments)


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
def all_claims(family: str = "") -> tuple[Claim, ...]:
    """Every claim of one family, from `claims.toml`: those of none (""), the "primary" or the "exploratory" ones."""
    return tuple(claim for claim in read_claims(claims_text()) if claim.family == family)


class Verdict(NamedTuple):
    """holds, fails or undecided, and why it is undecided."""

    verdict: str
    reason: str


class Decisive(NamedTuple):
    """p values of a claim's test and of the opposite one; NaN where there is no test or it is undecided without one."""

    claim: float
    against: float


def decide(claim: Claim, estimate: Estimate | None, p: Decisive | None = None) -> Verdict:
    """The verdict on a claim, from its threshold and its interval and nothing else, or from its tests.

    `p`: of a claim with a test, its adjusted p values; its own (`tested`) where it is None.
    """
    if estimate is None:
        return Verdict("undecided", NO_VALUE)
    if isinstance(estimate, OnBases):
        return _decide_by_test(claim, estimate, tested(claim, estimate) if p is None else p)
    seeds, ran = estimate.seeds, estimate.ran
    if seeds < LEAST_SEEDS:
        reached = f"reached by {seeds or 'none'} of {ran} seeds that were run; " * (ran > seeds)
        return Verdict("undecided", f"{reached}{seeds} seed{'s' * (seeds != 1)} of at least {LEAST_SEEDS}")
    low, high = estimate.low, estimate.high
    if not all(map(math.isfinite, (low, high))) or low <= claim.threshold <= high:
        return Verdict("undecided", STRADDLES)
    above = low > claim.threshold
    return Verdict("holds" if above == (claim.direction == ">") else "fails", "")


def tested(claim: Claim, estimate: Estimate | None) -> Decisive:
    """The p values of a claim's tests, before any correction.

    Against an equivalence speaks the smaller p value of a mean beyond either margin: beyond both it cannot lie.
    """
    if not isinstance(estimate, OnBases) or _doubt(claim, estimate):
        return Decisive(math.nan, math.nan)
    margin, up = _margin(claim, estimate), estimate.differences
    down = [-value for value in up]
    if claim.test == "equivalence":
        return Decisive(equivalence(up, margin), min(one_sided(up, margin), one_sided(down, margin)))
    above, below = one_sided(up, margin), one_sided(down, -margin)
    return Decisive(above, below) if claim.direction == ">" else Decisive(below, above)


def _margin(claim: Claim, estimate: OnBases) -> float:
    """The threshold in the units of the differences."""
    return math.log(claim.threshold) if estimate.logs else claim.threshold


def _doubt(claim: Claim, estimate: OnBases) -> str:
    """Why a claim on bases is undecided whatever its values are, or nothing."""
    late = estimate.late if claim.rule == "undecided" else ()
    return "; ".join([*estimate.doubts, *late]) or no_test(estimate.differences)


def _decide_by_test(claim: Claim, estimate: OnBases, p: Decisive) -> Verdict:
    doubt, alpha = _doubt(claim, estimate), rules().alpha
    if doubt:
        return Verdict("undecided", doubt)
    if min(p) < alpha:
        return Verdict("holds" if p.claim < alpha else "fails", "")
    return Verdict("undecided", f"the test gives p = {p.claim:.2f}{', after Holm' * (claim.family == PRIMARY)}")


def p_values(evidence: Evidence, claims: Sequence[Claim]) -> pd.DataFrame:
    """The p values of each claim that has a test: columns claim, family, p, adjusted (`holm`), against (adjusted too).

    NaN where a claim is undecided without one. Raises UserError where only a part of the primary family is given.
    """
    found = [tested(claim, claim.estimate(evidence)) for claim in claims]
    rows = zip(claims, found, _adjusted(claims, found), strict=True)
    table = [(claim.id, claim.family, p.claim, *adjusted) for claim, p, adjusted in rows if claim.test]
    return pd.DataFrame(table, columns=["claim", "family", "p", "adjusted", "against"])


def _adjusted(claims: Sequence[Claim], found: Sequence[Decisive]) -> list[Decisive]:
    """The p values with Holm's correction over the primary claims, for and against each; the others as they are."""
    primary = {claim.id: p for claim, p in zip(claims, found, strict=True) if claim.family == PRIMARY}
    whole = {claim.id for claim in all_claims(PRIMARY)}
    if whole & primary.keys() and whole - primary.keys():
        raise UserError(f"Holm's correction needs the whole family: give {', '.join(sorted(whole - primary.keys()))}.")
    tests = zip(*primary.values(), strict=True)
    ours, against = (holm(dict(zip(primary, values, strict=True))) for values in tests) if primary else ({}, {})
    corrected = {name: Decisive(ours[name], against[name]) for name in primary}
    return [corrected.get(claim.id, p) for claim, p in zip(claims, found, strict=True)]


def table(evidence: Evidence, claims: Sequence[Claim] | None = None) -> pd.DataFrame:
    """Every claim with its value, interval and verdict: columns `COLUMNS`; numbers are empty where nothing was run.

    `claims`: `all_claims` of no family where it is None. On bases the column seeds counts bases. Raises UserError where
    only a part of the primary family is given.
    """
    claims = all_claims() if claims is None else claims
    estimates = [claim.estimate(evidence) for claim in claims]
    adjusted = _adjusted(claims, list(map(tested, claims, estimates)))
    rows = []
    for claim, estimate, p in zip(claims, estimates, adjusted, strict=True):
        numbers = (estimate.value, estimate.low, estimate.high, estimate.seeds) if estimate else (None, None, None, 0)
        fixed = (claim.id, claim.source, claim.statement, claim.measured, claim.direction, claim.threshold)
        rows.append((*fixed, *numbers, *decide(claim, estimate, p), claim.notebook, claim.figure))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def markdown(rows: pd.DataFrame, unit: str = "seeds") -> str:
    """The table as Markdown, a claim a line: statement, statistic with its threshold, value, verdict, where to look.

    `unit`: what was counted, as the column says it.
    """
    head = ["", "claim", "says", "test", "value (95% interval)", unit, "verdict", "figure"]
    lines = [" | ".join(["", *head, ""]).strip(), "|---" * len(head) + "|"]
    for number, row in enumerate(rows.itertuples(index=False), start=1):
        test = f"{row.statistic} {row.direction} {row.threshold:g}"
        mark = f"**{row.verdict}**" if row.verdict != "undecided" else f"undecided: {row.reason}"
        where = f"{row.notebook}, `{row.figure}`" if row.figure else "–"
        value = _value_text((row.value, row.low, row.high), row.seeds)
        cells = [str(number), row.statement, row.source, test, value, str(row.seeds), mark, where]
        lines.append(f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |")
    return "\n".join(lines)


def statements(claims: Sequence[Claim]) -> str:
    """What some claims say, before anything is measured, as Markdown: statement, what decides it, the notebook."""
    lines = ["| | claim | holds if | tested in |", "|---|---|---|---|"]
    for number, claim in enumerate(claims, start=1):
        test = f"{claim.measured} {claim.direction} {claim.threshold:g}".replace("|", _BAR)
        lines.append(f"| {number} | {claim.statement} | {test} | `{claim.notebook}` |")
    return "\n".join(lines)


def minds(claims: Sequence[Claim]) -> str:
    """Which verdict on some claims would change our mind, as a Markdown list, by their id."""
    return "\n".join(f"* `{claim.id}`: {claim.revise}" for claim in claims if claim.revise)


def known_before(claims: Sequence[Claim]) -> str:
    """What was known when some claims were fixed, as a Markdown list: a note, and the claims that it stands with."""
    names: dict[str, list[str]] = {}
    for claim in claims:
        names.setdefault(" ".join(claim.notes.split()), []).append(f"`{claim.id}`")
    return "\n".join(f"* {', '.join(ids)}: {note}" for note, ids in names.items() if note)


def _value_text(interval: tuple[float, float, float], seeds: int) -> str:
    if pd.isna(interval[0]):
        return "–"
    return f"{interval[0]:.2f}" if seeds < 2 else in_words(interval)


def count_on_bases(rows: pd.DataFrame) -> str:
    """How many claims on bases hold, fail and are undecided, in words."""
    counts, missing = rows["verdict"].value_counts(), int((rows["reason"].fillna("") == NO_VALUE).sum())
    undecided = int(counts.get("undecided", 0))
    return (
        f"Of {len(rows)} claims {counts.get('holds', 0)} hold, {counts.get('fails', 0)} fail and {undecided} are "
        f"undecided: {missing} were not run, {undecided - missing} could not be tested or their tests show nothing."
    )


def count_sentence(rows: pd.DataFrame) -> str:
    """How many claims hold, fail and are undecided, in words."""
    counts, reasons = rows["verdict"].value_counts(), rows["reason"].fillna("")
    missing, across = int((reasons == NO_VALUE).sum()), int((reasons == STRADDLES).sum())
    few, short = (int(reasons.str.contains(part).sum()) for part in ("seeds? of at least", "reached by"))
    undecided = int(counts.get("undecided", 0))
    tested = undecided - missing - across - few
    return (
        f"Of {len(rows)} claims {counts.get('holds', 0)} hold, {counts.get('fails', 0)} fail and {undecided} are "
        f"undecided: {across} have an interval across the threshold, {few} have values of fewer than {LEAST_SEEDS} "
        f"seeds ({short} because runs never reached the accuracy) and {missing} were not run."
        + f" The other {tested} are on bases and could not be tested, or their tests show nothing."
        * bool(tested)
    )
