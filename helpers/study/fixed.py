"""Claims as they were fixed: a hash of what decides each, to be recorded with a run, and what changed since.

A hash covers the statistic's name, its arguments, direction, threshold, test, rule and family as they stand in
`claims.toml`, and of a claim on bases the rules of its study too; neither prose, notebook and figure, nor the code of
the statistic. A claim that had to change after runs has an amendment there, which names the hash it had and the reason.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from helpers.errors import UserError

HASHED = ("statistic", "arguments", "direction", "threshold", "test", "rule", "family")
_FILE = Path(__file__).with_name("claims.toml")


class Rules(NamedTuple):
    """What every claim on bases shares.

    `at`: exact match at which drops and costs are read; `until`: up to which a run keeps its rate, `until_slow` where
    it is slower than that of the runs that feed others, which only the front at `at` needs; `edge_gain`: drop that an
    end of a front must save over the rate beside it for the front to be called too short; `flops_cap`: that a run may
    spend to reach `at`: a front goes no further than to the slowest rate that stays below; `alpha`: of tests; `stems`:
    whose bases are reported.
    """

    at: float
    until: float
    until_slow: float
    edge_gain: float
    flops_cap: float
    alpha: float
    stems: tuple[int, ...]


class Amendment(NamedTuple):
    """A claim that was changed on purpose: its id, the hash it had before, and why."""

    claim: str
    was: str
    reason: str


@cache
def claims_text() -> str:
    """The text of `claims.toml`."""
    return _FILE.read_text(encoding="utf-8")


@cache
def rules() -> Rules:
    """The rules of the study on several bases, from the table `study` of `claims.toml`."""
    study = tomllib.loads(claims_text())["study"]
    return Rules(**study | {"stems": tuple(study["stems"])})


def claim_hashes(text: str) -> dict[str, str]:
    """The first 12 hex digits of SHA-256 over what decides a claim (`HASHED`, as canonical JSON), by claim.

    The table `study` of the text belongs to what decides a claim that has a family.
    """
    whole = tomllib.loads(text)
    study = whole.get("study", {})
    return {row["id"]: _hash(row, study if row.get("family") else {}) for row in whole.get("claim", [])}


def _hash(row: Mapping[str, Any], study: Mapping[str, Any]) -> str:
    # What a claim does not say is empty, and 1 and 1.0 are one threshold.
    decides = {name: row.get(name, "") for name in HASHED} | {"threshold": float(row["threshold"])}
    decides |= {"study": study} if study else {}
    canonical = json.dumps(decides, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]


def current_hashes(family: str | None = None) -> dict[str, str]:
    """`claim_hashes` of the claims as they stand now; of one family where it is given."""
    rows = tomllib.loads(claims_text()).get("claim", [])
    hashes = claim_hashes(claims_text())
    return {row["id"]: hashes[row["id"]] for row in rows if family in (None, row.get("family", ""))}


def amendments(text: str) -> tuple[Amendment, ...]:
    """The amendments of a text. Raises UserError where one lacks a field, has another one, or has no reason."""
    found = []
    for row in tomllib.loads(text).get("amendment", []):
        if set(row) != set(Amendment._fields) or not all(row.values()):
            raise UserError(f"An amendment says {', '.join(Amendment._fields)} and nothing else, unlike {row}.")
        found.append(Amendment(**row))
    return tuple(found)


def changed(recorded: Mapping[str, str], text: str | None = None) -> list[str]:
    """A sentence for each claim that is not as it was recorded with a run and that no amendment covers.

    `recorded`: hashes by claim, as `current_hashes` gave them then; `text`: the claims to compare with, those of
    `claims.toml` where it is None. A claim that is new since is no change.
    """
    text = claims_text() if text is None else text
    now, covered = claim_hashes(text), {(made.claim, made.was) for made in amendments(text)}
    moved = [(name, was) for name, was in recorded.items() if now.get(name) != was and (name, was) not in covered]
    return [
        f"Claim {name} {f'is {now[name]} now' if name in now else 'is gone'}, and was {was} when the run was made: "
        "put it back, or write an amendment that says why."
        for name, was in moved
    ]
