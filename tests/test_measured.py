"""Tables of 07 that are published because they take long: of these records, and what is measured anew."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.measure import learned_from, linear, walks
from helpers.model import build
from helpers.study import published
from helpers.study.profiles import get_profile
from helpers.world import battery

NAMES = ("ladders", "walks", "constancy")


@pytest.mark.parametrize("name", NAMES)
def test_a_published_table_was_measured_on_the_published_records(name: str) -> None:
    assert published.find_measured(name, published.records_digest("cpu")) is not None


def test_a_ladder_that_is_climbed_anew_is_the_published_one() -> None:
    profile, base = get_profile("cpu"), build.load("shipped")
    items = learned_from.corpus_samples(profile, published.table("cpu", "completions"), boards=1)
    weights = linear.weights_of(base.model)
    taught = next(item for item in items["sft-answer"] if item.weight > 0)
    observed = next(
        item for item in learned_from.gold_samples(battery.battery_tasks(), range(1)) if item.kind == "colour"
    )
    u = linear.Linearised(linear.scored(base, [taught]), weights)
    found = walks.ladders(base, [observed], u, linear.head_of(base.model, weights), weights)
    both = found.merge(
        pd.read_csv(published.MEASURED / "ladders.csv"), on=["observed", "kind"], suffixes=("", " known")
    )
    for name in found.columns.drop(["observed", "kind"]):
        assert both[name].tolist() == pytest.approx(both[f"{name} known"].tolist(), rel=2e-3), name
    assert len(both) == 1
