"""The reward designer in a browser: its numbers are Python's, by mouse and by keyboard."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from helpers.play import reward
from helpers.play.page import View
from helpers.train import live
from helpers.world import answers
from helpers.world.puzzles import PuzzleSpec
from tests.browser.conftest import check_latency, labelled, shoot
from tests.browser.narrow import WIDTHS, faults

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

Show = Callable[[View], "Frame"]
PLACEMENTS = list(itertools.permutations(range(1, 5)))
NONE = 24  # the last entry of each answer's menu: no valid placement
SHAPES: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], float]] = {
    "hit rate": lambda guess, truth: answers.score_placement(guess, truth)[0],
    "hit rate squared": lambda guess, truth: answers.score_placement(guess, truth)[0] ** 2,
    "all or nothing": lambda guess, truth: answers.score_placement(guess, truth)[1],
    "neighbours": lambda guess, truth: answers.neighbour_score(guess, truth, PuzzleSpec()),
}


@pytest.fixture(scope="module")
def view() -> View:
    return reward.study_view()


def expected(text: str, truth: tuple[int, ...], weights: tuple[float, ...], shape: str) -> float:
    """A text's reward by Python: hit and exact by the scorer, the hit term reshaped."""
    score, said = answers.score(text, truth), answers.parse(text, 4).placement
    hit = SHAPES[shape](said, truth) if said else 0.0
    assert shape != "hit rate" or hit == score.hit
    return weights[0] * hit + weights[1] * score.exact + weights[2] * score.format


def written(place: int, form: bool) -> str:
    """What an entry of an answer's menu stands for, in form or not."""
    body = "1 1 1 1" if place == NONE else " ".join(map(str, PLACEMENTS[place]))
    return f"{'<think>sky</think>' if form else ''}<answer>{body}</answer>"


def set_up(frame: Frame, truth: tuple[int, ...], weights: tuple[float, ...], shape: str) -> None:
    for name, weight in zip(("hit", "exact", "format"), weights, strict=True):
        frame.get_by_label(name, exact=True).fill(str(weight))
    frame.get_by_label("Hit term").select_option(shape)
    frame.locator(f'.card[aria-label^="{" ".join(map(str, truth))},"]').click()


def told(frame: Frame, selector: str, field: str) -> list[float]:
    return [float(n) for n in frame.eval_on_selector_all(selector, f"all => all.map((one) => one.dataset.{field})")]


CASES = [
    ((2, 1, 4, 3), (1.0, 1.0, 1.0), "hit rate"),
    ((4, 3, 2, 1), (2.5, 0.0, 0.25), "hit rate squared"),
    ((2, 3, 4, 1), (0.0, 3.0, 0.0), "all or nothing"),
    ((3, 1, 4, 2), (1.25, 0.5, 1.0), "neighbours"),
]
GROUPS = [
    [(7, True), (7, True), (0, True), (NONE, True), (NONE, False), (7, False), (23, True), (9, True)],
    [(5, True)] * 8,
    [(k, k % 2 == 0) for k in (23, 16, 9, 7, 13, 1, 2, 3)],
]


@pytest.mark.parametrize(("truth", "weights", "shape"), CASES, ids=[case[2] for case in CASES])
def test_rewards_and_advantages_are_pythons(show: Show, view: View, truth, weights, shape) -> None:
    frame = show(view)
    set_up(frame, truth, weights, shape)
    cards = frame.eval_on_selector_all(".card", "all => all.map((one) => [one.ariaLabel, Number(one.dataset.reward)])")
    assert len(cards) == 24
    for label, value in cards:
        guess = [int(digit) for digit in label.split(",")[0].split()]
        assert value == pytest.approx(expected(written(PLACEMENTS.index(tuple(guess)), True), truth, weights, shape))
    for group in GROUPS:
        for number, (place, form) in enumerate(group, 1):
            frame.get_by_label(f"answer {number}", exact=True).select_option(index=place)
            toggle = frame.get_by_label(f"answer {number} in form")
            if (toggle.get_attribute("aria-pressed") == "true") != form:
                toggle.click()
        rewards = [expected(written(*one), truth, weights, shape) for one in group]
        assert told(frame, ".answer", "reward") == pytest.approx(rewards)
        assert told(frame, ".answer", "advantage") == pytest.approx(live.advantages(rewards), abs=1e-9)
        mean, spread = re.findall(r"\d\.\d{3}", frame.locator(".numbers").inner_text())
        assert float(mean) == pytest.approx(statistics.fmean(rewards), abs=6e-4)
        assert float(spread) == pytest.approx(statistics.stdev(rewards), abs=6e-4)
    frame.get_by_label("divide by the spread").uncheck()
    assert told(frame, ".answer", "advantage") == pytest.approx([r - statistics.fmean(rewards) for r in rewards])


def test_signals_of_blind_and_recorded_groups_are_counted_as_python_counts(show: Show, view: View) -> None:
    frame, weights = show(view), (0.0, 1.0, 0.0)
    set_up(frame, (2, 1, 4, 3), weights, "hit rate")
    assert frame.locator(".blind").inner_text() == f"{100 * (1 - (1 / 24) ** 8 - (23 / 24) ** 8):.1f} %"
    some = [{tuple(said or ()) == tuple(group["truth"]) for said in group["said"]} for group in view.data["groups"]]
    assert frame.locator(".base").inner_text() == str(sum(len(kinds) == 2 for kinds in some))


def test_presets_say_what_a_group_teaches(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    lesson = frame.locator(".told")
    frame.get_by_role("button", name="all equally wrong").click()
    assert lesson.inner_text() == (
        "None is right, and all 8 earn 1: every advantage is 0, and nothing is learned from this board."
    )
    frame.get_by_role("button", name="one right").click()
    assert "1 is above it and made more probable, 7 are made less probable. Only what is right" in lesson.inner_text()
    shoot(page, "reward-one-right")
    frame.get_by_role("button", name="all right", exact=True).click()
    assert lesson.inner_text().startswith("All are right, and all 8 earn 3: every advantage is 0")
    frame.get_by_role("button", name="half right").click()
    assert lesson.inner_text().startswith("The mean is") and frame.locator(".answer").count() == 8
    frame.get_by_role("button", name="as the base wrote").click()
    group = view.data["groups"][1]
    assert " ".join(map(str, group["truth"])) == frame.locator(".beside b").first.inner_text()
    rewards = [expected(written(PLACEMENTS.index(tuple(said)), True), tuple(group["truth"]), (1, 1, 1), "hit rate")
               for said in group["said"]]  # fmt: skip
    assert told(frame, ".answer", "advantage") == pytest.approx(live.advantages(rewards))
    shoot(page, "reward-base")


def test_by_keyboard_alone(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    frame.get_by_label("exact", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert max(told(frame, ".card", "reward")) == pytest.approx(3.25)
    frame.locator('.card[aria-pressed="true"]').focus()
    page.keyboard.press("ArrowRight")
    label = frame.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Enter")
    assert frame.locator(".beside b").first.inner_text() == label.split(",")[0]
    assert frame.evaluate("document.activeElement.ariaLabel").endswith("the true one")
    frame.get_by_label("answer 1", exact=True).focus()
    page.keyboard.press("End")
    assert frame.get_by_label("answer 1", exact=True).evaluate("menu => menu.selectedIndex") == NONE
    frame.get_by_label("answer 2 in form").focus()
    page.keyboard.press("Space")
    assert frame.get_by_label("answer 2 in form").inner_text() == "form ✗"
    frame.get_by_role("button", name="as in the study").focus()
    page.keyboard.press("Enter")
    assert max(told(frame, ".card", "reward")) == pytest.approx(3)


def test_nothing_moves_every_control_is_named_and_it_is_quick(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    places = "all => all.map((node) => { const box = node.getBoundingClientRect(); return [box.x, box.y, box.width]; })"
    fixed = "button:not(.card), select, input, .told, .rule, .numbers, .beside canvas"
    for width in (1000, 740):
        page.set_viewport_size({"width": width, "height": 900})
        before = frame.eval_on_selector_all(fixed, places)
        set_up(frame, (4, 3, 2, 1), (2.75, 0.25, 3.0), "neighbours")
        for name in ("one right", "all right", "as the base wrote"):
            frame.get_by_role("button", name=re.compile(f"^{name}")).click()
        frame.get_by_label("divide by the spread").click()
        assert frame.eval_on_selector_all(fixed, places) == before
        shoot(page, f"reward-{width}")
    labelled(frame)
    check_latency(frame, 10)


def test_what_was_set_is_there_when_the_page_comes_back(show: Show, view: View) -> None:
    frame = show(view)
    set_up(frame, (4, 3, 2, 1), (2.0, 1.0, 0.0), "hit rate squared")
    before = told(frame, ".answer", "reward")
    again = show(view)
    assert told(again, ".answer", "reward") == before
    assert again.locator(".beside b").first.inner_text() == "4 3 2 1"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_at_any_width(show: Show, view: View, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width + 16, "height": 900})
    frame = show(view)
    for name in ("half right", "as the base wrote"):
        frame.get_by_role("button", name=name).click()
        assert faults(frame) == []
    assert "Answers with the right layout" in frame.locator(".facts").inner_text()
    shoot(page, f"reward-{width}")
