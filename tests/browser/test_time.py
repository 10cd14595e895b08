"""The time machine in a browser: every frame shows what was recorded there, by mouse, keys and the play button."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from helpers.play import runs
from helpers.play.page import Json, View
from helpers.play.plane import time_machine
from helpers.stats.curves import crossings
from helpers.study.cells import SOURCE_RATE
from tests.browser.conftest import boxes, check_latency, labelled, shoot

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

Show = Callable[[View], "Frame"]


@pytest.fixture(scope="module")
def view(payload: dict[str, Json]) -> View:
    return time_machine(payload)


def record(studies: tuple[runs.Study, runs.Study], arm: str) -> runs.Record:
    """The run of an arm that the view shows at first."""
    return next(own for own in studies[1].records if own.arm == arm and own.spec.learning_rate == SOURCE_RATE)


def test_every_frame_shows_what_was_recorded(show: Show, page: Page, view: View, studies) -> None:
    frame, own = show(view), record(studies, "sft-answer direct")
    frame.get_by_label("beside it", exact=True).select_option("none")
    frame.get_by_label("the training", exact=True).focus()
    before, tasks = boxes(frame), list(view.data["studies"][1]["tasks"])
    changes, spoken = runs.flips(own, tasks), runs.said(own)
    marks = {(row.task, row.step): row.right for row in own.outcomes.itertuples()}
    for place, row in enumerate(own.exact.itertuples()):
        said = frame.locator(".sentence").inner_text()
        assert f"accuracy {row.value:.2f}" in said
        shown = frame.locator(".said .words").evaluate_all("(nodes) => nodes.map((node) => node.title)")
        assert shown == [spoken[task, 0][place] for task in tasks]
        cells = frame.locator(".said > span")
        verdicts = cells.evaluate_all("(nodes) => nodes.map((node) => node.textContent.slice(2))")
        was = [bool(marks[task, own.exact["step"].iloc[max(place - 1, 0)]][0]) for task in tasks]
        now = [bool(marks[task, row.step][0]) for task in tasks]
        words = {(True, True): "right", (False, True): "learned", (True, False): "forgot", (False, False): "wrong"}
        assert verdicts == [words[pair] for pair in zip(was, now, strict=True)]
        if place:
            lost, gained = sum(changes[place][:-2:2]), sum(changes[place][1:-2:2])
            assert f"▼ {lost} forgotten" in said and f"▲ {gained} learned" in said
        page.keyboard.press("ArrowRight")
    assert "(its end)" in frame.locator(".sentence").inner_text()
    assert boxes(frame) == before
    print(check_latency(frame, 10))


def test_two_runs_in_step_by_accuracy(show: Show, page: Page, view: View, studies) -> None:
    frame = show(view)
    frame.get_by_label("in step by").select_option("accuracy")
    bar = frame.get_by_label("the training", exact=True)
    bar.focus()
    for _ in range(13):
        page.keyboard.press("ArrowRight")
    assert bar.get_attribute("aria-valuetext") == "accuracy 0.70"
    said = frame.locator(".sentence").inner_text()
    for arm in ("sft-answer direct", "rft direct"):
        own = record(studies, arm)
        step = crossings(own.evaluations, 0.7, monotone=True)["after"].iloc[0]
        there = own.exact.set_index("step").loc[step]
        assert f"{arm}, {int(there['samples']):,} boards" in said and f"accuracy {there['value']:.2f}" in said
    assert frame.locator(".board canvas").count() == 12
    assert frame.locator(".flip").count() > 0
    shoot(page, "time")
    labelled(frame)


def test_by_mouse_and_it_plays_to_its_end_and_stops(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    before = boxes(frame)
    frame.locator("h3").first.click()  # so that keys go to the view
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    frame.get_by_role("button", name="play the training").click()
    frame.wait_for_function("document.querySelector('.sentence').textContent.includes('(its end)')")
    frame.get_by_role("button", name="play the training").wait_for()
    asked = frame.locator(".asked").inner_text()
    frame.get_by_role("button", name="other question of each").click()
    assert frame.locator(".asked").inner_text() != asked
    assert boxes(frame) == before


def test_a_training_that_plays_stops_when_another_is_chosen(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    frame.get_by_role("button", name="play the training").click()
    frame.get_by_label("beside it", exact=True).select_option("none")
    frame.get_by_role("button", name="play the training").wait_for()
    said = frame.locator(".sentence").inner_text()
    page.wait_for_timeout(1600)  # more than two frames' time
    assert frame.locator(".sentence").inner_text() == said


def test_keys_scroll_the_questions_while_these_have_the_focus(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    said = frame.locator(".sentence").inner_text()
    frame.locator(".questions").focus()
    for key in ("ArrowDown", "ArrowRight", "End"):
        page.keyboard.press(key)
    frame.wait_for_function("document.querySelector('.questions').scrollTop > 0")
    assert frame.locator(".sentence").inner_text() == said
    frame.get_by_role("button", name="other question of each").focus()
    page.keyboard.press("ArrowRight")
    assert frame.locator(".sentence").inner_text() != said


def test_chance_and_how_accuracies_are_read_are_said(show: Show, view: View, studies) -> None:
    frame = show(view)
    assert frame.locator(".curves .chance text").inner_html() == "chance"
    heights = """(lines) => lines.map((line) => [line.y1.baseVal.value, line.y2.baseVal.value])
        .filter(([one, other]) => one === other).map(([one]) => one)"""
    levels, (at,) = (frame.eval_on_selector_all(f".curves {name}", heights) for name in (".grid", ".chance line"))
    puzzle = studies[1].records[0].spec.puzzle
    assert (max(levels) - at) / (max(levels) - min(levels)) == pytest.approx(puzzle.chance_exact)
    words = frame.inner_text("main")
    assert "“several bases” by the rising curve" in words
    assert "“one form, one base” by the evaluations themselves" in words


def test_the_old_study_shows_scores_and_says_that_no_answers_were_recorded(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    frame.get_by_label("study").select_option("one form, one base")
    frame.get_by_label("run", exact=True).select_option("sft-expert")
    assert "sft-expert, at its start: accuracy 0.0" in frame.locator(".sentence").inner_text()
    assert "No answers were recorded in this study" in frame.locator(".pictures").inner_text()
    page.keyboard.press("ArrowRight")
    assert "forgotten" not in frame.locator(".sentence").inner_text()
    labelled(frame)
    shoot(page, "time_one_base")
