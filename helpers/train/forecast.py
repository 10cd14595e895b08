"""How long runs will take: what they are, said before they start, with the minutes of those that were published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from helpers.errors import UserError
from helpers.progress import span
from helpers.study.arms import get_arm
from helpers.study.published import PUBLISHED, load_published, published_specs
from helpers.study.spec import RunSpec

START = 0.5  # minutes that a run takes besides its steps: to start, and to be evaluated once
PLACES = (PUBLISHED, PUBLISHED / "controls")


@lru_cache(maxsize=1)
def minutes_per_step() -> dict[str, float]:
    """Minutes of training that a step of each arm took, the median over its published runs; arms without are absent."""
    found: dict[str, list[float]] = {}
    for place in PLACES:
        try:
            metrics, specs = load_published(place, "metrics"), published_specs(place)
        except UserError:  # no records here: then nothing is known, which is no reason not to train
            continue
        for row in metrics[metrics["name"] == "minutes"].itertuples():
            if row.run in specs:
                found.setdefault(row.arm, []).append(row.value / specs[row.run].steps)
    return {arm: sorted(values)[len(values) // 2] for arm, values in found.items()}


def minutes(wanted: Sequence[RunSpec], jobs: int) -> float | None:
    """Minutes that runs take `jobs` at a time, none of them shorter than the longest; None where an arm is unknown."""
    known = minutes_per_step()
    if any(get_arm(spec.arm).trains and spec.arm not in known for spec in wanted):
        return None
    each = [START + known.get(spec.arm, 0.0) * spec.steps for spec in wanted]
    return max(sum(each) / jobs, max(each, default=0.0))


def sentence(wanted: Sequence[RunSpec], jobs: int) -> str:
    """What will be trained and about how long it takes; empty where there is nothing to train."""
    if not wanted:
        return ""
    arms = ", ".join(f"{arm} ({n})" if n > 1 else arm for arm, n in Counter(spec.arm for spec in wanted).items())
    runs = f"{len(wanted)} runs" if len(wanted) > 1 else "1 run"
    found = minutes(wanted, jobs)
    long = (
        "how long is not known"
        if found is None
        else f"about {span(60 * max(1, round(found)))}, going by published runs"
    )
    return f"Training {runs}, {jobs} at a time: {arms}. Time: {long}. What is finished stays if you stop."
