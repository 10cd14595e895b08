"""Every published spec keeps its canonical JSON, and so its hash and its name, whatever moves in the code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from helpers.study.spec import RunSpec

LISTS = sorted(Path("figures/records").rglob("specs.json"))
GOLDEN = json.loads(Path("tests/golden/specs.json").read_text())


def published(path: Path) -> dict[str, RunSpec]:
    """The specs of one list, by the name under which they were published."""
    runs = json.loads(path.read_text())["runs"]
    return {name: RunSpec.from_json(json.dumps(entry["spec"])) for name, entry in runs.items()}


@pytest.mark.parametrize("path", LISTS, ids=str)
def test_every_published_spec_has_the_name_it_was_published_under(path: Path) -> None:
    specs = published(path)
    assert {name: spec.name for name, spec in specs.items()} == {name: name for name in specs}


def test_the_canonical_json_of_every_published_spec_is_unchanged() -> None:
    digests = {
        spec.name: hashlib.sha256(spec.to_json().encode()).hexdigest()
        for path in LISTS
        for spec in published(path).values()
    }
    assert GOLDEN.items() <= digests.items()
    assert len(GOLDEN) == 131


def test_a_changed_setting_changes_the_hash() -> None:
    spec = next(iter(published(LISTS[0]).values()))
    other = json.loads(spec.to_json()) | {"seed": spec.seed + 1}
    assert RunSpec.from_json(json.dumps(other)).hash != spec.hash
