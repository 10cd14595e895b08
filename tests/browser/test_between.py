"""The straight lines in a browser: what is read on them is what Python reads, and nothing moves while one walks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from browser.conftest import check_latency, labelled, shoot
from browser.narrow import spilled, spots
from helpers.play.between import on_the_line
from helpers.play.page import View
from helpers.world.puzzles import PuzzleSpec

CONTROLS = Path(__file__).parents[2] / "figures" / "records" / "controls"
ARMS = ("rft", "sft-answer", "sft-expert", "sft-rollout", "sft-self")
MODES = ("an equal share of the way", "equal exact match", "the length of RFT's update")


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_csv(CONTROLS / "lines.csv"), pd.read_csv(CONTROLS / "matched.csv")


@pytest.fixture(scope="module")
def view(tables) -> View:
    return on_the_line(*tables, PuzzleSpec().chance_exact)


def by_hand() -> View:
    """Two runs of an arm that loses 0.6 before it gains, one of an arm that gains first; lengths of the first alone."""
    rows = [
        ("a-0", "sft-answer", 0, (0.0, 0.2, 1.0), (1.0, 0.4, 0.4)),
        ("a-1", "sft-answer", 1, (0.0, 0.0, 0.8), (1.0, 0.2, 0.2)),
        ("r-0", "rft", 0, (0.1, 0.7, 0.9), (1.0, 0.98, 0.9)),
    ]
    lines = pd.DataFrame(
        [
            (run, arm, seed, "base", share, exact[k], score[k])
            for run, arm, seed, exact, score in rows
            for k, share in enumerate((0.0, 0.5, 1.0))
        ],
        columns=["run", "arm", "seed", "start", "share", "exact", "score"],
    )
    matched = pd.DataFrame(
        [("a-0", "rft", 6.0, 8.0, 0.6, 0.5)], columns=["run", "norm_of", "norm", "own_norm", "exact", "score"]
    )
    return on_the_line(lines, matched, 1 / 23)


def told(frame, arm: str) -> list[str]:
    return frame.locator(f"tr[data-arm='{arm}'] td").all_inner_texts()[1:]


def slide(frame, label: str, place: int) -> None:
    frame.get_by_role("slider", name=label, exact=True).fill(str(place))


def at(frame, mode: str) -> None:
    frame.get_by_label("compare at").select_option(mode)


def test_lines_are_read_by_hand(show) -> None:
    frame = show(by_hand())
    assert told(frame, "sft-answer") == ["0.50", "0.100", "0.300", "0.700", "2 of 2", "2 of 2", "end"]
    assert told(frame, "rft") == ["0.50", "0.700", "0.980", "0.020", "1 of 1", "0 of 1", "end"]
    slide(frame, "share of the way", 15)
    assert told(frame, "sft-answer")[:4] == ["0.75", "0.500", "0.300", "0.700"]
    at(frame, MODES[1])
    slide(frame, "exact match", 17)  # 0.95: one seed gets there, at 0.5 + 0.5 * 0.75 / 0.8
    assert told(frame, "sft-answer")[:5] == ["0.97", "0.950", "0.400", "0.600", "1 of 2"]
    assert told(frame, "rft")[:5] == ["–", "–", "–", "–", "0 of 1"]
    assert "Not every seed gets there: sft-answer." in frame.inner_text(".said")
    at(frame, MODES[2])
    assert told(frame, "sft-answer")[:5] == ["0.75", "0.600", "0.500", "0.500", "1 of 2"]


def test_the_best_place_depends_on_what_prior_score_is_worth(show) -> None:
    frame = show(by_hand())
    best = lambda: [told(frame, arm)[-1] for arm in ("sft-answer", "rft")]  # noqa: E731 -- read twice
    slide(frame, "a point of prior score is worth", 0)
    assert best() == ["end", "end"]
    slide(frame, "a point of prior score is worth", 8)  # 4: 4.0, 1.3, 2.1 and 4.1, 4.62, 4.5
    assert best() == ["base", "0.5"]
    told_so = "worth 4 of exact match, the best model stands on the way for rft; at the base for sft-answer."
    assert told_so in frame.inner_text(".said")


def expected(tables, mode: str, value: float) -> dict[str, tuple[float, ...]]:
    """Per arm: share, exact match, prior score and drop, means over the seeds that can be read."""
    lines, matched = tables
    found: dict[str, list[tuple[float, ...]]] = {}
    for (arm, run), rows in lines[lines["start"] == "base"].groupby(["arm", "run"]):
        shares, exact, score = (rows.sort_values("share")[name].to_numpy() for name in ("share", "exact", "score"))
        own = matched[(matched["run"] == run) & (matched["norm_of"] == "rft")].iloc[0]
        fine = np.linspace(0, 1, 400_001)
        share = value if mode == MODES[0] else own["norm"] / own["own_norm"]
        if mode == MODES[1]:
            share = fine[np.argmax(np.interp(fine, shares, exact) >= value)]
        spot = [np.interp(share, shares, exact), np.interp(share, shares, score)]
        spot = [own["exact"], own["score"]] if mode == MODES[2] else spot
        found.setdefault(arm, []).append((share, *spot, score[0] - spot[1]))
    return {arm: tuple(np.mean(spots, axis=0)) for arm, spots in found.items()}


@pytest.mark.parametrize(("mode", "value"), [(MODES[0], 0.25), (MODES[0], 0.65), (MODES[1], 0.5), (MODES[2], 1.0)])
def test_the_records_are_read_as_numpy_reads_them(show, view, tables, page, mode, value) -> None:
    frame = show(view)
    at(frame, mode)
    if mode != MODES[2]:
        label, stop = ("share of the way", value / 0.05) if mode == MODES[0] else ("exact match", (value - 0.1) / 0.05)
        slide(frame, label, round(stop))
    wanted = expected(tables, mode, value)
    for arm in ARMS:
        assert [float(word) for word in told(frame, arm)[:4]] == pytest.approx(wanted[arm], abs=6e-3)
        assert [float(word) for word in told(frame, arm)[1:4]] == pytest.approx(wanted[arm][1:], abs=6e-4)
    order = sorted(ARMS, key=lambda arm: wanted[arm][3])
    said = frame.inner_text(".said")
    assert re.search(rf"{order[0]} \(drop .* has lost least, {order[-1]} \(drop .* most", said)
    hollow = frame.locator("[data-at=rft]").first.get_attribute("fill") == "#fff"
    assert hollow == (value not in (0.25, 1.0))
    shoot(page, f"between-{MODES.index(mode)}")


def test_by_keyboard_and_arms_go_and_come(show, view, page) -> None:
    frame = show(view)
    frame.locator("p.quiet").click()
    page.keyboard.press("ArrowRight")
    assert frame.get_by_role("slider", name="share of the way").get_attribute("aria-valuetext") == "0.55"
    box = frame.get_by_role("checkbox", name="sft-self")
    box.focus()
    page.keyboard.press("Space")
    assert told(frame, "sft-self") == ["–"] * 7 and frame.locator("[data-at=sft-self]").count() == 0
    assert "sft-self" not in frame.inner_text("[role=status]")
    page.keyboard.press("Space")
    assert frame.locator("[data-at=sft-self]").count() == 2
    menu = frame.get_by_label("compare at")
    menu.focus()
    page.keyboard.press("ArrowDown")
    assert menu.input_value() == MODES[1] and frame.get_by_role("slider", name="share of the way").is_disabled()
    frame.locator("p.quiet").click()
    page.keyboard.press("ArrowLeft")
    assert "Where exact match reaches 0.45" in frame.inner_text("[role=status]")


@pytest.mark.parametrize("width", [1000, 720, 533])
def test_nothing_moves_nothing_is_cut_off_and_it_is_quick(show, view, page, width) -> None:
    page.set_viewport_size({"width": width, "height": 1300})
    frame = show(view)
    fixed = "select, input, table, td, .said, p.quiet, .pictures"
    before = spots(frame, fixed)
    for worth in (0, 4, 16):
        slide(frame, "a point of prior score is worth", worth)
        for mode, label in zip(MODES, ("share of the way", "exact match", None), strict=True):
            at(frame, mode)
            for stop in (0, 9, 17) if label else ():
                slide(frame, label, stop)
                assert spots(frame, fixed) == before
                assert frame.evaluate("(({ scrollHeight, clientHeight }) => scrollHeight <= clientHeight)"
                                      "(document.querySelector('.said'))"), frame.inner_text(".said")  # fmt: skip
    assert spilled(frame) == [0, 0]
    labelled(frame)
    shoot(page, f"between-{width}")
    check_latency(frame, 12)


def test_what_was_set_is_there_when_the_page_comes_back(show, view) -> None:
    frame = show(view)
    at(frame, MODES[2])
    before = told(frame, "sft-self")
    assert told(show(view), "sft-self") == before


def test_without_lengths_they_are_not_offered(show, tables) -> None:
    frame = show(on_the_line(tables[0], tables[1][:0], 1 / 23))
    assert frame.get_by_label("compare at").locator("option").all_inner_texts() == list(MODES[:2])
