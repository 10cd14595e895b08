"""Ten kills at random moments, once in each phase and one more (`kills` runs as many as asked for)."""

from pathlib import Path

import numpy as np
from kills import PHASES, run, schedule


def test_what_comes_out_after_ten_kills_is_what_an_undisturbed_run_makes(tmp_path: Path) -> None:
    kills = run(10, 3, tmp_path, print)
    assert set(kills) == set(PHASES) and sum(kills.values()) == 10


def test_thirty_kills_fall_at_least_three_times_into_each_phase_and_on_each_kind_of_run() -> None:
    phases = schedule(30, np.random.default_rng(0))
    fallen = [phase for kind in phases.values() for phase in kind]
    assert len(fallen) == 30 and min(fallen.count(phase) for phase in PHASES) == 3
    assert all({"evaluation", "tables", "checkpoint"} <= set(phases[kind]) for kind in ("sft", "rft", "lora"))
