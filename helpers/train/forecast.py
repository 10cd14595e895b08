"""How long runs will take: what they are, said before they start, with the minutes of those that were published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from helpers.errors import UserError
from helpers.progress import about
from helpers.study.arms import get_arm
from helpers.study.published import PUBLISHED, load_published, published_specs
from helpers.study.spec import RunSpec

START = 0.5  # minutes that a run takes besides its steps: to start, and to be evaluated once
PLACES = (PUBLISHED, PUBLISHED / "controls")


@lru_cache(maxsize=1)
def minutes_per_step() -> dict[tuple[str, str], float]:
    """Minutes of training that a step took by arm and base, the median over published runs; others are absent."""
    found: dict[tuple[str, str], list[float]] = {}
    for place in PLACES:
        try:
            metrics, specs = load_published(place, "metrics"), published_specs(place)
        except UserError:  # no records here: then nothing is known, which is no reason not to train
            continue
        for row in metrics[metrics["name"] == "minutes"].itertuples():
            if row.run in specs:
                spec = specs[row.run]
                found.setdefault((spec.arm, spec.base), []).append(row.value / spec.steps)
    return {key: sorted(values)[len(values) // 2] for key, values in found.items()}


def minutes(wanted: Sequence[RunSpec], jobs: int) -> float | None:
    """Minutes that runs take `jobs` at a time, none of them shorter than the longest; None where they are unknown."""
    known = minutes_per_step()
    if any(get_arm(spec.arm).trains and (spec.arm, spec.base) not in known for spec in wanted):
        return None
    each = [START + known.get((spec.arm, spec.base), 0.0) * spec.steps for spec in wanted]
    return max(sum(each) / jobs, max(each, default=0.0))


def sentence(wanted: Sequence[RunSpec], jobs: int) -> str:
    """What will be trained and about how long it takes; empty where there is nothing to train."""
    if not wanted:
        return ""
    arms = ", ".join(f"{arm} ({n})" if n > 1 else arm for arm, n in Counter(spec.arm for spec in wanted).items())
    runs = f"{len(wanted)} runs" if len(wanted) > 1 else "1 run"
    found = minutes(wanted, jobs)
    long = "how long is not known" if found is None else f"about {about(60 * found)}, going by published runs"
    return f"Training {runs}, {jobs} at a time: {arms}. Time: {long}. What is finished stays if you stop."
