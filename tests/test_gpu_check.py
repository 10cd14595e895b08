"""The check for a GPU, walked on the CPU with a tiny configuration: what it would compare and time there is there."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.gpu import check


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Both tables of one walk."""
    return {"parity": check.parity(), "speed": check.speed(True, 5)}


def test_on_the_cpu_every_quantity_equals_itself_and_stock_trls(tables: dict[str, pd.DataFrame]) -> None:
    parity = tables["parity"]
    assert len(parity) == 10 and parity["holds"].all() and (parity["largest"] > 0).all()
    same = parity[parity["comparison"] == "this device against the CPU"]
    assert (same["difference"] == 0).all()
    gradients = parity[parity["quantity"].str.endswith("gradient")]
    assert (gradients["values"] > 10**6).all()


def test_a_difference_is_noticed() -> None:
    names = ("SFT loss", "SFT gradient", "RFT loss", "RFT gradient", "log-probs")
    ours, theirs = ({f"{name} x": torch.tensor([1.0, value]) for name in names} for value in (2.0, 2.001))
    rows = check.differences("a against b", ours, theirs)
    assert not any(row["holds"] for row in rows) and rows[0]["difference"] == pytest.approx(0.001 / 2.001, rel=1e-3)


def test_both_arms_take_steps_with_both_trainers(tables: dict[str, pd.DataFrame]) -> None:
    speed = tables["speed"]
    assert list(zip(speed["arm"], speed["trainer"], strict=True)) == [
        ("sft-answer", "this suite"), ("rft", "this suite"), ("sft-answer", "stock TRL"), ("rft", "stock TRL")
    ]  # fmt: skip
    assert (speed["trouble"] == "").all() and (speed["seconds"] > 0).all() and (speed["tokens per second"] > 0).all()


def test_no_time_left_is_told_and_not_hidden() -> None:
    assert check.speed(True, -1)["trouble"].tolist() == ["no time was left"] * 4


def test_the_readme_says_whether_it_ever_ran() -> None:
    ran = Path("figures/gpu/parity.csv").exists()
    assert ("has never run on a GPU" in Path("README.md").read_text()) != ran
