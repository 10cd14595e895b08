"""The page of the straight lines: every run as it was measured, and as long as RFT's where that was measured too."""

from __future__ import annotations

import statistics

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.play.between import on_the_line
from helpers.world.battery import battery_tasks, chance


def line(arm: str, seed: int, points: list[tuple[float, float, float]], start: str = "base") -> pd.DataFrame:
    """A line: (share, exact, score) of each measured place."""
    rows = [(f"{arm}-{seed}", arm, seed, start, *point) for point in points]
    return pd.DataFrame(rows, columns=["run", "arm", "seed", "start", "share", "exact", "score"])


LINES = pd.concat([
    line("sft-answer", 0, [(1.0, 0.9, 0.2), (0.0, 0.1, 1.0), (0.5, 0.2, 0.4)]),
    line("rft", 0, [(0.0, 0.1, 1.0), (0.5, 0.6, 0.95), (1.0, 0.8, 0.8)]),
    line("sft-answer", 0, [(0.0, 0.8, 0.8), (1.0, 0.9, 0.2)], start="rft"),
])  # fmt: skip
MATCHED = pd.DataFrame(
    [("sft-answer-0", "rft", 6.0, 8.0, 0.5, 0.3), ("sft-answer-0", "sft-answer", 8.0, 8.0, 0.9, 0.2)],
    columns=["run", "norm_of", "norm", "own_norm", "exact", "score"],
)


def test_only_lines_from_the_base_are_drawn_in_the_order_of_their_shares() -> None:
    data = on_the_line(LINES, MATCHED, 1 / 23).data
    assert data["shares"] == [0.0, 0.5, 1.0] and list(data["arms"]) == list(data["runs"]) == ["rft", "sft-answer"]
    (run,) = data["runs"]["sft-answer"]
    assert (run["seed"], run["exact"], run["score"]) == (0, [0.1, 0.2, 0.9], [1.0, 0.4, 0.2])


def test_at_rfts_length_stands_what_was_measured_there_at_its_share_of_the_way() -> None:
    runs = on_the_line(LINES, MATCHED, 1 / 23).data["runs"]
    assert runs["sft-answer"][0]["length"] == [0.75, 0.5, 0.3] and runs["rft"][0]["length"] is None
    assert on_the_line(LINES, MATCHED[:0], 1 / 23).data["runs"]["sft-answer"][0]["length"] is None
    assert on_the_line(LINES, pd.DataFrame(), 1 / 23).data["runs"]["sft-answer"][0]["length"] is None


def test_chance_is_the_puzzles_and_the_batterys_mean() -> None:
    levels = on_the_line(LINES, MATCHED, 1 / 23).data["chance"]
    assert levels == {"exact": 1 / 23, "score": statistics.fmean(chance(task) for task in battery_tasks())}


def test_lines_that_do_not_compare_are_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="No line from the base was measured"):
        on_the_line(LINES[LINES["start"] == "rft"], MATCHED, 1 / 23)
    with pytest.raises(UserError, match="at different shares of the way"):
        on_the_line(LINES.drop(LINES.index[1])[:5], MATCHED, 1 / 23)
