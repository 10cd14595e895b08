"""Cells taken apart: which pairs are compared, what is paired, what is lacking, and arms that never learn the task."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from rows import evaluation, front_run

from helpers.show import apart as show
from helpers.show.save import drawn
from helpers.stats import apart
from helpers.study import cells
from helpers.verdicts import told_bases

SFT, KL, RFT = "sft-answer direct", "sft-kl direct", "rft direct"
PAIRS = [pair for pairs in apart.QUESTIONS.values() for pair in pairs]


def read(cell: str, base: str, drop: float) -> dict[str, Any]:
    """A run at the rate at which its cell is read."""
    return front_run(cell, base, apart.one_rate(cells.get_cell(cell).rates), drop)


def three(first: str, second: str, *differences: float) -> pd.DataFrame:
    """Two cells on bases 3, 4, ... whose drops lie so far apart."""
    rows = [read(second, str(3 + k), 0.1 * k) for k in range(len(differences))]
    return pd.DataFrame([*rows, *(read(first, str(3 + k), 0.1 * k + own) for k, own in enumerate(differences))])


def test_every_pair_is_of_cells_that_are_run_and_every_cell_of_one_rate_is_in_one() -> None:
    named = {name for pair in PAIRS for name in pair}
    assert len(set(PAIRS)) == len(PAIRS) and all(first != second for first, second in PAIRS)
    left = {name for name, cell in cells.CELLS.items() if cell.grid == "2x2" and cell.arm != "base"} - named
    assert left == set()


def test_in_what_two_cells_differ_is_read_off_their_specs() -> None:
    known = {
        ("sft-answer plain", SFT): ["asked"],
        ("sft-answer direct, one-form", SFT): ["base"],
        (SFT, "sft-answer direct, large batch"): ["batch_size"],
        ("sft-answer direct, LoRA", SFT): ["learning_rate", "lora_rank"],
        ("rft-random direct", "rft-no-kl direct"): ["arm"],
        ("sft-answer direct, eyes frozen", SFT): ["freeze_vision"],
        ("sft-kl direct", RFT): ["arm", "batch_size"],
        ("sft-rollout think", "rft think"): ["arm", "batch_size", "beta", "boards"],
    }
    assert {pair: apart.differs(*pair) for pair in known} == known
    assert all(apart.differs(*pair) for pair in PAIRS)


def test_the_control_compares_runs_that_learn_the_same_text_from_as_many_boards() -> None:
    ((first, second),) = apart.QUESTIONS["control"]
    one, other = (cells.get_cell(name).at(3, cells.SOURCE_RATE) for name in (first, second))
    assert apart.differs(first, second) == ["arm"] and {one.written, other.written} == {"direct"}


def test_a_part_is_a_part_until_every_cell_was_run_on_every_base_that_is_planned() -> None:
    named = {name for pair in PAIRS for name in pair}
    every = [read(n, str(stem), 0.1) for n in named for stem in cells.get_cell(n).stems if stem in cells.REPORTED]
    assert apart.is_whole(pd.DataFrame(every)) and not apart.is_whole(pd.DataFrame(every[1:]))
    front = pd.DataFrame([row for row in every if row["base"] == "3"])
    assert not apart.is_whole(front)
    lacks = apart.summary(front).set_index(["first", "second"])["lacks"]
    assert lacks[("sft-dft direct", SFT)].startswith(
        "sft-dft direct not run on 4, 5; sft-answer direct not run on 4, 5"
    )


def test_differences_are_paired_by_base_at_the_rate_at_which_a_cell_is_read() -> None:
    front = pd.concat([three(KL, RFT, 0.1, 0.2, 0.3), pd.DataFrame([front_run(KL, "3", 2e-4, 0.9)])])
    found = apart.differences(front)
    assert found["value"].tolist() == pytest.approx([0.1, 0.2, 0.3]) and found["base"].tolist() == ["3", "4", "5"]
    row = apart.summary(front).query("first == @KL and second == @RFT").iloc[0]
    assert (row["mean"], row["bases"]) == (pytest.approx(0.2), 3)
    assert row["lacks"] == "sft-kl direct not run on 6, 7, 8; rft direct not run on 6, 7, 8"
    assert row["differs"] == "arm, batch_size"


def test_what_was_not_run_or_did_not_arrive_has_no_number_and_says_so() -> None:
    front = pd.DataFrame([read(KL, "3", 0.2), read(RFT, "3", math.nan), read(RFT, "4", 0.1)])
    assert apart.differences(front).empty
    row = apart.summary(front).query("first == @KL and second == @RFT").iloc[0]
    assert math.isnan(row["mean"]) and row["lacks"].endswith("not run on 5, 6, 7, 8, did not arrive on 3")
    other = apart.summary(front).query("second == 'rft-no-kl direct'").iloc[0]
    assert other["lacks"].startswith("sft-answer direct not run; rft-no-kl direct not run")
    fig = show.differences(apart.summary(front), apart.differences(front))
    assert set(drawn(fig)["mean"]) == {""} and fig.jigsaw_alt.endswith("None is known.")
    texts = {text.get_text() for text in fig.axes[0].texts}
    assert "causes" in texts and f"arm, batch size | {row['lacks']}" in texts


def test_the_figure_draws_every_base_and_every_mean_in_its_row() -> None:
    front = three(KL, RFT, 0.1, 0.2, 0.3)
    fig = show.differences(apart.summary(front), apart.differences(front))
    (ax,) = fig.axes
    dots = next(line for line in ax.lines if line.get_marker() == "o")
    mean = next(line for line in ax.lines if line.get_marker() == "D")
    assert sorted(dots.get_xdata()) == pytest.approx([0.1, 0.2, 0.3]) and mean.get_xdata()[0] == pytest.approx(0.2)
    names = {label.get_position()[1]: label.get_text() for label in ax.get_yticklabels()}
    row = names[round(float(mean.get_ydata()[0]) - 0.16, 6)]
    assert row == f"{KL}  –  {RFT}" and len(names) == len(PAIRS)
    assert "sft-kl direct minus rft direct 0.20 (-0.05 to 0.45, 3 bases)" in fig.jigsaw_alt


def test_only_what_its_interval_tells_from_nothing_stands_out() -> None:
    front = pd.concat([three(KL, RFT, -0.2, -0.21, -0.22), three("sft-dft direct", SFT, 0.1)])
    said = dict(line.split(": ", 1) for line in told_bases.apart(apart.summary(front))[:-1])
    assert said["algorithm"] == (
        "rft direct loses 0.21 (0.19 to 0.23, 3 bases) more than sft-kl direct; 3 of 4 without three bases."
    )
    assert said["causes"] == "6 of 6 without three bases."
    unsure = told_bases.apart(apart.summary(three(KL, RFT, -0.2, 0.1, 0.2)))
    assert unsure[0] == "algorithm: 1 of 4 undecided; 3 of 4 without three bases."
    assert unsure[-1].startswith("Of 1 pairs that differ in nothing 0.1 would stand out by chance. Half an interval is")


def curve(run: str, exact: dict[int, float], score: dict[int, float], norm: dict[int, float]) -> list[list[dict]]:
    marks = [evaluation(run, step, "puzzle", "exact", value, run=run) for step, value in exact.items()]
    marks += [evaluation(run, step, "light", "score", value, run=run) for step, value in score.items()]
    own = {"run": run, "arm": run.rsplit("-", 2)[0], "seed": 3, "samples": 0, "name": "update_norm"}
    return [marks, [own | {"step": step, "value": value} for step, value in norm.items()]]


def test_an_arm_that_never_learns_is_compared_at_equal_steps_and_at_an_equal_norm() -> None:
    never, there = (cells.get_cell(name).at(3, cells.SOURCE_RATE).name for name in ("rft-random direct", RFT))
    parts = [
        curve(there, {0: 0.0, 10: 0.6, 20: 0.8}, {0: 0.9, 10: 0.9, 20: 0.7}, {10: 1.0, 20: 3.0}),
        curve(never, {0: 0.0, 40: 0.1}, {0: 0.9, 40: 0.5}, {20: 1.0, 40: 4.0}),
    ]
    marks, norms = (pd.DataFrame(sum(rows, [])) for rows in zip(*parts, strict=True))
    pairs = [("rft-random direct", RFT)]
    found = apart.at_equal({"evaluations": marks, "metrics": norms}, cells.planned([3]), pairs).to_dict("records")
    # the reference is at 0.7 after 15 steps, with a norm of 2: the other's after 20 + 20 / 3 steps
    assert len(found) == 1 and (found[0]["base"], found[0]["exact"]) == ("3", 0.1)
    assert found[0]["reference"] == pytest.approx(0.1) and found[0]["at_steps"] == pytest.approx(0.4 * 15 / 40)
    assert found[0]["at_norm"] == pytest.approx(0.4 * (20 + 20 / 3) / 40)
    # it ended at 0.1, where the reference had lost nothing yet
    assert found[0]["lost"] == pytest.approx(0.4) and found[0]["as_able"] == pytest.approx(0)
    (said,) = apart.equal_words(pd.DataFrame(found))
    assert said.startswith("rft-random direct ended at exact match 0.10 (1 base) and had lost 0.40 (1 base); where rft")
    assert apart.equal_words(pd.DataFrame(found)[:0]) == [
        "None of these cells has a run beside one that reached the mark."
    ]
