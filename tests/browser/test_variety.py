"""Groups drawn from habits, in a browser: what they hold is what a sum over every group says."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from browser.conftest import check_latency, labelled, shoot
from browser.narrow import spilled, spots
from helpers.play.page import View
from helpers.play.variety import SHARPNESS, drawn_groups
from helpers.show import lessons
from helpers.train import live
from helpers.world import answers

FIGURES = Path(__file__).parents[2] / "figures"
CLOSE = {"rel": 1e-6, "abs": 1e-9}
REWARDS = ("hit + exact + format", "exact match alone")


@pytest.fixture(scope="module")
def view() -> View:
    return drawn_groups(pd.read_csv(FIGURES / "base_placements.csv"))


def small(shares: dict[str, float]) -> View:
    """A page about a base that gives only these placements."""
    return drawn_groups(pd.DataFrame(shares.items(), columns=["placement", "share"]))


def earned(guess: list[int], truth: list[int], reward: str) -> float:
    """What a placement in form earns, by the scorer."""
    score = answers.score(f"<think>sky</think><answer>{' '.join(map(str, guess))}</answer>", truth)
    return score.exact if reward == REWARDS[1] else score.hit + score.exact + score.format


def over_every_group(view: View, heat: float, size: int, truth: int, reward: str) -> dict[str, float]:
    """Chances by summing over all groups of `size` answers, one by one."""
    raised = np.array(view.data["shares"]) ** (1 / heat)
    shares, placements = raised / raised.sum(), view.data["placements"]
    earns = [earned(guess, placements[truth], reward) for guess in placements]
    sums = {"found": 0.0, "silent": 0.0, "both": 0.0}
    for group in itertools.product(range(len(placements)), repeat=size):
        chance, differs = math.prod(shares[k] for k in group), len({earns[k] for k in group}) > 1
        sums["found"] += chance * (truth in group)
        sums["silent"] += chance * (not differs)
        sums["both"] += chance * (truth in group and differs)
    return sums


def slide(frame, label: str, place: int) -> None:
    frame.get_by_role("slider", name=label, exact=True).fill(str(place))


def held(frame, what: str) -> float:
    return float(frame.locator(f'td[data-what="{what}"]').get_attribute("data-value"))


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize(("heat", "size", "truth"), [(1.0, 2, "3 2 4 1"), (0.0501, 3, "3 1 2 4"), (5.01, 3, "4 2 3 1")])
def test_what_groups_hold_is_the_sum_over_every_group(show, view, heat, size, truth, reward) -> None:
    frame = show(view)
    slide(frame, "temperature", SHARPNESS.index(heat))
    slide(frame, "answers in a group", size - 2)
    frame.get_by_label("true placement").select_option(truth)
    frame.get_by_label("reward").select_option(reward)
    place = view.data["placements"].index([int(tile) for tile in truth.split()])
    for what, chance in over_every_group(view, heat, size, place, reward).items():
        assert held(frame, what) == pytest.approx(chance, **CLOSE)
    raised = np.array(view.data["shares"]) ** (1 / heat)
    drawn = [float(x) for x in frame.eval_on_selector_all("[data-share]", "all => all.map((n) => n.dataset.share)")]
    assert drawn == pytest.approx(raised / raised.sum(), **CLOSE)


def test_two_answers_are_computed_by_hand(show) -> None:
    """Shares 1/5 and 4/5; at T = 1/2 their squares, 1/17 and 16/17."""
    frame = show(small({"2 1": 0.1, "1 2": 0.4}))
    slide(frame, "answers in a group", 0)
    assert held(frame, "found") == pytest.approx(1 - 0.8**2) and held(frame, "silent") == pytest.approx(0.04 + 0.64)
    assert held(frame, "both") == pytest.approx(2 * 0.2 * 0.8) and held(frame, "found on average") == pytest.approx(
        0.36
    )
    slide(frame, "temperature", SHARPNESS.index(0.501))
    drawn = frame.eval_on_selector_all("[data-share]", "all => all.map((node) => Number(node.dataset.share))")
    odds = 4 ** (1 / 0.501)
    assert drawn == pytest.approx([1 / (1 + odds), odds / (1 + odds)]) and drawn[0] == pytest.approx(1 / 17, abs=5e-4)
    assert "Left out: 50.0 % of completions" in frame.inner_text("main")


def test_a_placement_that_was_never_given_is_never_found(show, view, page) -> None:
    shares = lessons.placement_shares(lessons.answers(["<answer>2 1 4 3</answer>"] * 8))
    frame = show(drawn_groups(shares))
    frame.get_by_label("true placement").select_option("4 3 2 1")
    assert (held(frame, "found"), held(frame, "silent")) == (0, 1)
    assert "Too sharp: 100.0 % of answers are 2 1 4 3" in frame.inner_text(".said")
    assert "None is right, and all 8 earn" in frame.inner_text(".lesson")
    frame.get_by_label("true placement").select_option("2 1 4 3")
    assert "Too sharp, on the right answer" in frame.inner_text(".said")


def test_rewards_and_advantages_of_a_group_are_pythons_and_another_seed_draws_another(show, view, page) -> None:
    frame = show(view)
    seen = set()
    for reward in (*REWARDS, *REWARDS):
        frame.get_by_label("reward").select_option(reward)
        truth = [int(tile) for tile in frame.get_by_label("true placement").input_value().split()]
        group = [[int(tile) for tile in text.split()] for text in frame.locator(".answer b").all_inner_texts()]
        told = frame.eval_on_selector_all(".answer", "all => all.map((n) => [n.dataset.reward, n.dataset.advantage])")
        rewards = [earned(guess, truth, reward) for guess in group]
        assert len(group) == 8 and [float(value) for value, _ in told] == pytest.approx(rewards)
        assert [float(gain) for _, gain in told] == pytest.approx(live.advantages(rewards), **CLOSE)
        seen.add(str(group))
        frame.get_by_role("button", name="draw again").click()
    assert len(seen) == 4


def test_too_sharp_has_no_signal_and_too_rare_nothing_right(show, view, page) -> None:
    frame = show(view)
    slide(frame, "temperature", 0)
    assert "Too sharp: > 99.9 % of answers are 3 1 2 4" in frame.inner_text(".said") and held(frame, "silent") > 0.8
    shoot(page, "variety-sharp")
    slide(frame, "temperature", len(SHARPNESS) - 1)
    frame.get_by_label("reward").select_option(REWARDS[1])
    assert "Too rare. Most groups hold only wrong answers that earn alike" in frame.inner_text(".said")
    slide(frame, "answers in a group", 30)
    assert "Most groups hold a right answer beside others" in frame.inner_text(".said")
    assert frame.locator(".answer").count() == 32
    shoot(page, "variety-flat")


def test_by_keyboard_and_by_a_click_on_a_bar(show, view, page) -> None:
    frame = show(view)
    frame.locator(".note").last.click()
    page.keyboard.press("ArrowLeft")
    heat = frame.get_by_role("slider", name="temperature")
    assert heat.get_attribute("aria-valuetext") == "0.891"
    first = frame.locator(".answer b").all_inner_texts()
    page.keyboard.press("d")
    assert frame.locator(".answer b").all_inner_texts() != first
    truth = frame.get_by_label("true placement")
    frame.locator("[data-share]").first.click()
    assert truth.input_value() == "3 1 2 4"
    frame.locator("[data-share]").nth(1).click()  # the solved board, which is never true
    assert truth.input_value() == "3 1 2 4"
    truth.focus()
    page.keyboard.press("ArrowDown")
    assert truth.input_value() == "3 2 1 4"
    frame.get_by_label("curves over").select_option("group size")
    assert "over group size" in frame.locator("svg[role=img]").nth(1).get_attribute("aria-label")
    assert frame.inner_text("[role=status]").startswith(frame.inner_text(".said"))


@pytest.mark.parametrize("width", [1000, 720, 533])
def test_nothing_moves_nothing_is_cut_off_and_it_is_quick(show, view, page, width) -> None:
    page.set_viewport_size({"width": width, "height": 1300})
    frame = show(view)
    fixed = "button, select, input, table, .said, .group, .lesson, .note"
    before = spots(frame, fixed)
    tight = """all => all.filter((n) => n.scrollHeight > n.clientHeight + 1 || n.scrollWidth > n.clientWidth + 1)
        .map((n) => n.className + ": " + n.textContent)"""
    for size in (0, 6, 30):
        slide(frame, "answers in a group", size)
        for heat in (0, 10, 34, 48):
            for reward in REWARDS:
                slide(frame, "temperature", heat)
                frame.get_by_label("reward").select_option(reward)
                assert spots(frame, fixed) == before
                assert frame.eval_on_selector_all(".said, .lesson, .group, .answer, th, td, h3", tight) == []
    assert spilled(frame) == [0, 0]
    labelled(frame)
    shoot(page, f"variety-{width}")
    check_latency(frame, 12)


def test_what_was_set_is_there_when_the_page_comes_back(show, view) -> None:
    frame = show(view)
    slide(frame, "temperature", 3)
    before = held(frame, "silent")
    assert held(show(view), "silent") == before
