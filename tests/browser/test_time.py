"""The time machine in a browser: every frame shows what was recorded there, by mouse, keys and the play button."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from helpers.play import runs
from helpers.play.page import Json, View
from helpers.play.plane import time_machine
from helpers.stats.curves import crossings
from tests.browser.conftest import boxes, check_latency, labelled, shoot
from tests.browser.narrow import WIDTHS, faults

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

ORDER = {"learned": 0, "forgot": 0, "wrong": 1, "right": 2}
Show = Callable[[View], "Frame"]


@pytest.fixture(scope="module")
def view(payload: dict[str, Json]) -> View:
    return time_machine(payload)


@pytest.fixture(scope="module")
def forms() -> dict[str, Json]:
    """Direct and plain SFT and RFT that thinks, on one base."""
    names = ["sft-answer direct", "rft direct", "sft-answer plain", "rft think"]
    return runs.payload([runs.several_bases([5], names)])


def record(studies: tuple[runs.Study, runs.Study], arm: str) -> runs.Record:
    """The run of an arm that the view shows at first."""
    opened = runs.opening(studies[1])
    return next(own for own in studies[1].records if own.arm == arm and own.spec.name in opened)


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
        cells = frame.locator(".said > span")
        verdicts = cells.evaluate_all("(nodes) => nodes.map((node) => node.textContent.slice(2))")
        was = [bool(marks[task, own.exact["step"].iloc[max(place - 1, 0)]][0]) for task in tasks]
        now = [bool(marks[task, row.step][0]) for task in tasks]
        words = {(True, True): "right", (False, True): "learned", (True, False): "forgot", (False, False): "wrong"}
        found = [words[pair] for pair in zip(was, now, strict=True)]
        order = sorted(range(len(tasks)), key=lambda i: ORDER[found[i]])  # what changed, then what is wrong
        assert verdicts == [found[i] for i in order]
        assert shown == [spoken[tasks[i], 0][place] for i in order]
        if place:
            lost, gained = sum(changes[place][:-2:2]), sum(changes[place][1:-2:2])
            assert f"▼ {lost} forgotten" in said and f"▲ {gained} learned" in said
        page.keyboard.press("ArrowRight")
    assert "(its end)" in frame.locator(".sentence").inner_text()
    assert boxes(frame) == before
    print(check_latency(frame, 10))


def test_it_opens_with_the_pair_whose_drops_differ_most(show: Show, page: Page, forms) -> None:
    frame = show(time_machine(forms))
    menus = [frame.get_by_label(label, exact=True) for label in ("run", "beside it")]
    arms = [menu.locator("option:checked").inner_text() for menu in menus]
    assert arms == ["sft-answer plain", "rft think"]
    differ = frame.locator(".differ").inner_text()
    assert "form asked plain | think" in differ and "KL weight 0 | 0.36" in differ and "seed" not in differ
    bar = frame.get_by_label("the training", exact=True)
    bar.focus()
    before, line = boxes(frame), frame.locator(".sentence").bounding_box()
    for _ in range(int(bar.get_attribute("max"))):
        page.keyboard.press("ArrowRight")
        assert frame.evaluate("document.querySelector('.sentence').scrollHeight") <= line["height"]
    told = {run["arm"]: sum(run["start"]) / len(run["start"]) - sum(run["prior"][-1]) / len(run["prior"][-1])
            for run in forms["studies"][0]["runs"]}  # fmt: skip
    said = frame.locator(".sentence").inner_text()
    assert f"sft-answer plain has lost {told['sft-answer plain']:.2f}, rft think {told['rft think']:.2f}" in said
    assert boxes(frame) == before
    shoot(page, "time_forms")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_at_any_width(show: Show, page: Page, forms, width: int) -> None:
    page.set_viewport_size({"width": width + 16, "height": 900})
    frame = show(time_machine(forms))
    assert faults(frame) == []
    menus = frame.locator(".side").evaluate_all("(all) => all.map((side) => side.getBoundingClientRect().height)")
    assert max(menus) < 40  # an arm and which of its runs stand in one line
    page.keyboard.press("End")
    assert faults(frame) == []


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
