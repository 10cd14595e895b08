"""How a run is evaluated and executed, as a profile fixes it; no torch, for whoever only waits for a run."""

from __future__ import annotations

from dataclasses import dataclass

from helpers.study.profiles import LIVE, Profile


@dataclass(frozen=True)
class Settings:
    """How a run is evaluated and executed; a profile fixes it.

    Nothing here changes what a run learns in a number of steps. One that goes `until` an exact match ends by what its
    evaluations say: how often, and on how many boards, it is evaluated decides its length.
    `puzzle_tests` held-out boards and `battery` samples per prior task at each checkpoint; `final_tests` and
    `final_battery` at the last one and for the base model. `fast` packs forward passes and shares prefixes.
    `groups_at_once`: groups of completions whose gradients are taken together, all of a step's where it is 0; with a
    vocabulary of 150,000 the logits of a whole step do not fit. `per_octave`: evaluations per doubling of the steps,
    `dense` of them once the puzzle moves (0: no more). `ways`: outcomes are kept item by item, and at the run's
    mark and at its end the battery is put in every other way too. `brief`: not so; nor are checkpoints kept but the
    last ones, and what a step came to is on disk a second later, for a reader who waits.
    """

    puzzle_tests: int = 250
    final_tests: int = 500
    battery: int = 20
    final_battery: int = 200
    fast: bool = True
    per_octave: int = 2
    groups_at_once: int = 0
    dense: int = 0
    ways: bool = False
    brief: bool = False


def settings(profile: Profile) -> Settings:
    """Evaluation settings of a profile: the same prior items at every step, or drops would be offset."""
    items = profile.battery_per_task
    groups = 0 if profile.model == Profile.model else 1  # a large model's logits of a whole step do not fit
    boards = profile.puzzle_test_size
    if profile.ways:
        brief = profile == LIVE
        return Settings(boards, boards, items, items, groups_at_once=groups, dense=6, ways=True, brief=brief)
    return Settings(boards // 4, boards, items, items, groups_at_once=groups)
