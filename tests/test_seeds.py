"""The table of seeds: no two uses of a stream share any, and the suite draws from the table alone."""

import ast
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from helpers.study.profiles import PROFILES
from helpers.train.pretrain import Recipe
from helpers.world import seeds
from helpers.world.boards import held_out_boards, training_boards
from helpers.world.puzzles import PuzzleSpec

SPEC = PuzzleSpec()


def overlap(first: range, second: range) -> bool:
    return max(first.start, second.start) < min(first.stop, second.stop)


@pytest.mark.parametrize("stream", seeds.TABLE)
def test_no_two_uses_of_a_stream_share_a_seed(stream: str) -> None:
    uses = seeds.TABLE[stream].items()
    assert all(len(own) and own.step == 1 for _, own in uses)
    shared = [(a, b) for (a, first), (b, second) in combinations(uses, 2) if overlap(first, second)]
    assert not shared


def test_overlaps_are_seen() -> None:
    assert overlap(range(3), range(2, 5)) and overlap(range(9), range(4, 5))
    assert not overlap(range(3), range(3, 5))


def test_rounds_and_phases_do_not_run_into_each_other() -> None:
    assert all(own.stop <= seeds.ROUND for name in seeds.TABLE if name.startswith("completions")
               for own in seeds.TABLE[name].values())  # fmt: skip
    assert max(seeds.LIVE, seeds.RUNS.stop) < seeds.PHASE  # a run's seed stands on top of its phase's


def test_profiles_and_recipes_keep_to_the_table() -> None:
    assert all(seed in seeds.RUNS for profile in PROFILES.values() for seed in profile.seeds)
    assert Recipe().seed in seeds.BASES


def test_probe_and_live_and_test_boards_are_others_than_those_of_runs() -> None:
    uses = (*PROFILES["cpu"].seeds, seeds.LIVE, seeds.PROBES, seeds.INFLUENCE_PROBES, seeds.BENCHMARK)
    drawn = [training_boards(SPEC, 20, use).pixels for use in uses] + [held_out_boards(SPEC, 20).pixels]
    assert len({board.tobytes() for board in np.concatenate(drawn)}) == 20 * len(drawn)


def test_no_other_module_sets_a_seed() -> None:
    """Constants named after seeds stand in the table, wherever they are used."""
    found = []
    for path in Path("helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
            found += [(path.name, name) for name in names if name.endswith("_SEED")]
    assert not found
