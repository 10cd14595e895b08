"""The gain-drop plane in a browser: losses are the suite's own, markers go by mouse and keys, a pin tells all."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from helpers.play import runs
from helpers.play.page import Json, View
from helpers.play.plane import plane
from helpers.stats.curves import crossings, drops_at, rows_of
from helpers.study.cells import SOURCE_RATE
from helpers.study.published import table
from tests.browser.conftest import boxes, check_latency, labelled, shoot
from tests.browser.narrow import WIDTHS, faults

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

Show = Callable[[View], "Frame"]
STUDIES = ("one form, one base", "several bases")


@pytest.fixture(scope="module")
def view(payload: dict[str, Json]) -> View:
    return plane(payload)


def at_accuracy(frame: Frame, accuracy: float) -> None:
    frame.evaluate(
        """(place) => { const bar = document.querySelector("input[type=range]"); bar.value = place;
        bar.dispatchEvent(new Event("input", { bubbles: true })); }""",
        round(accuracy * 100) - 5,
    )


def losses(frame: Frame) -> dict[str, float]:
    """What each marker on the line says that its run has lost."""
    there = frame.locator("g[data-there=true]")
    marks = there.evaluate_all("(nodes) => nodes.map((g) => [g.dataset.run, g.dataset.drop])")
    return {name: float(drop) for name, drop in marks}


def ordered(frame: Frame) -> list[str]:
    """The runs by what they lost, most first."""
    marks = frame.locator("g[data-run]").evaluate_all("(nodes) => nodes.map((g) => [-g.dataset.drop, g.dataset.run])")
    return [name for _, name in sorted(marks)]


def suites_own(study: runs.Study, accuracy: float) -> dict[str, float]:
    """Mean fall of the prior tasks where each run first reaches an accuracy, as the suite's tables have it."""
    rows = table("cpu", "evaluations") if study.start is not None else None
    found = {}
    for own in study.records:
        known = own.evaluations if rows is None else pd.concat([own.evaluations, rows[rows["arm"] == "base"]])
        marks = crossings(known, accuracy, monotone=study.monotone)
        if len(marks):
            found[own.spec.name] = drops_at(rows_of(known, "score"), marks)["value"].mean()
    return found


@pytest.mark.parametrize("place", [0, 1])
def test_losses_are_the_suites_at_every_accuracy(show: Show, view: View, studies, place: int) -> None:
    frame = show(view)
    frame.get_by_label("study").select_option(STUDIES[place])
    if place:
        frame.get_by_label("rate", exact=True).select_option("all")
    for accuracy in (0.05, 0.2, 0.37, 0.5, 0.7, 0.83, 0.9, 0.97, 1.0):
        at_accuracy(frame, accuracy)
        assert losses(frame) == pytest.approx(suites_own(studies[place], accuracy), abs=1e-9), accuracy


def test_by_mouse(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    before, sentence = boxes(frame), frame.locator(".sentence").inner_text()
    assert sentence.startswith("At accuracy 0.70, ") and "rft direct" in sentence and "% of it in" in sentence
    marker = frame.locator("g[data-run^=rft]").first
    marker.hover()
    assert frame.locator(".readout").inner_text().startswith("rft direct, two-form-5, rate 6e-5: reaches 0.70 after")
    marker.click()
    assert "(pinned)" in frame.locator("h3").first.inner_text()
    settings = frame.locator(".settings").inner_text()
    assert all(words in settings for words in ("two-form-5", "form asked", "form written", "0.36", "6e-5", "batch"))
    assert frame.locator(".card").count() == 6 and frame.locator(".card canvas").count() == 3
    shoot(page, "plane")
    asked = frame.locator(".cards").inner_text()
    frame.get_by_role("button", name="other items").click()
    assert frame.locator(".cards").inner_text() != asked
    frame.locator("button.arm", has_text="rft direct").click()
    assert frame.locator("g[data-run^=rft]").count() == 0
    assert frame.locator(".sentence").inner_text().startswith("At accuracy 0.70, sft-answer direct has lost 0.")
    frame.locator("button.arm", has_text="sft-answer direct").click()
    assert frame.locator(".sentence").inner_text().startswith("No run is shown")
    assert boxes(frame) == before
    frame.get_by_role("button", name="sft-answer direct: ").click()
    frame.get_by_role("button", name="rft direct: ").click()
    assert "on 1 base, two-form-5, " in frame.locator(".sentence").inner_text()
    frame.get_by_label("rate", exact=True).select_option("all")  # of which the two have not run the same: 3 of 4
    assert "on 3 pairs of base and rate, " in frame.locator(".sentence").inner_text()
    labelled(frame)
    print(check_latency(frame, 5))


def test_by_keyboard(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    before = boxes(frame)
    frame.get_by_label("rate", exact=True).select_option("all")
    order = ordered(frame)
    frame.locator("g[tabindex='0']").focus()
    for name in order[:3]:
        assert frame.evaluate("document.activeElement.dataset.run") == name
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert "(pinned)" in frame.locator("h3").first.inner_text()
    assert frame.evaluate("document.activeElement.dataset.run") == order[2]
    page.keyboard.press("ArrowRight")
    assert frame.locator(".sentence").inner_text().startswith("At accuracy 0.71")
    assert frame.evaluate("document.activeElement.dataset.run") == order[2]  # wherever it stands now
    assert frame.locator(".readout").inner_text()
    assert boxes(frame) == before


def test_answers_are_those_of_the_moment(show: Show, view: View, studies) -> None:
    frame = show(view)
    own = next(one for one in studies[1].records if one.arm == "rft direct" and one.spec.learning_rate == SOURCE_RATE)
    boards = own.outcomes[own.outcomes["task"] == "puzzle"].set_index("step")
    frame.locator(f"g[data-run='{own.spec.name}']").click()
    cards = frame.locator(".card:has(canvas)")
    for accuracy in (0.1, 0.7):
        at_accuracy(frame, accuracy)
        step = crossings(own.evaluations, accuracy, monotone=True)["after"].iloc[0]
        assert f"step {step:,}" in frame.locator(".said h3").inner_text()
        said = cards.locator(".words[title]").evaluate_all("(nodes) => nodes.map((node) => node.title)")
        assert said == list(boards.loc[step, "said"][:3])
        marked = cards.locator("> p:first-of-type").evaluate_all("(nodes) => nodes.map((node) => node.className)")
        assert marked == [f"verdict {'right' if right else 'wrong'}" for right in boards.loc[step, "right"][:3]]


def test_what_was_chosen_for_the_reader_is_said(show: Show, view: View) -> None:
    frame = show(view)
    assert "those first that most runs end wrong on" in frame.locator(".said .order").inner_text()
    assert "(lost most of those at 0.70)" in frame.locator("h3").first.inner_text()
    at_accuracy(frame, 1.0)
    assert "(none at 1.00: lost most at its end)" in frame.locator("h3").first.inner_text()
    words = frame.inner_text("main")
    assert "“several bases” by the rising curve" in words
    assert "“one form, one base” by the evaluations themselves" in words
    frame.get_by_label("task", exact=True).select_option("hill")  # both its questions: none was chosen
    assert frame.locator(".said .order").inner_text() == ""


def test_only_runs_of_the_same_bases_and_rate_are_compared(show: Show, page: Page) -> None:
    study = runs.several_bases([4, 5], ["sft-answer direct", "rft direct", "rft think"])
    frame = show(plane(runs.payload([study])))
    for arm in study.shown:
        button = frame.locator("button.arm", has_text=arm)
        if button.get_attribute("aria-pressed") != "true":
            button.click()
    fell = suites_own(study, 0.7)
    rated = [own for own in study.records if own.spec.learning_rate == SOURCE_RATE and own.spec.name in fell]

    def lost(arm: str, places: set[str]) -> str:
        own = [fell[one.spec.name] for one in rated if one.arm == arm and one.place in places]
        return f"{arm} {sum(own) / len(own):.2f}"

    said, both = frame.locator(".sentence").inner_text().replace("has lost ", ""), {"two-form-4", "two-form-5"}
    assert "on 2 bases, " in said and "On 1 base, two-form-5, " in said and "e-" not in said
    assert lost("sft-answer direct", both) in said and lost("rft direct", both) in said
    assert lost("rft think", {"two-form-5"}) in said
    assert re.findall(r"\d\.\d+", said) == re.findall(r"\d\.\d\d(?!\d)", said)  # two decimals


def test_a_second_click_on_markers_that_lie_on_each_other_takes_the_next(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    frame.get_by_label("rate", exact=True).select_option("all")
    at_accuracy(frame, 0.7)
    marks = frame.locator("g[data-run]").evaluate_all("(all) => all.map((g) => g.getBoundingClientRect().toJSON())")
    pile = {i: [o for o in marks if abs(o["x"] - m["x"]) + abs(o["y"] - m["y"]) < 5] for i, m in enumerate(marks)}
    box = frame.locator("g[data-run]").nth(max(pile, key=lambda i: len(pile[i]))).bounding_box()
    pinned = []
    for _ in range(2):
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        pinned.append(frame.locator("h3").first.inner_text() + frame.locator(".settings").inner_text())
    assert len(set(pinned)) == 2
    assert "markers here: click again for the next" in frame.locator(".readout").inner_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_at_any_width(show: Show, page: Page, view: View, width: int) -> None:
    page.set_viewport_size({"width": width + 16, "height": 900})
    frame = show(view)
    assert faults(frame) == []
    frame.locator("g[data-run^=rft]").first.click()
    frame.get_by_role("button", name="other items").click()
    assert faults(frame) == []
    card = frame.locator(".card:not(:has(canvas))").first
    tops = [card.locator(part).bounding_box()["y"] for part in ("img", ".says", ".truth", ".ask")]
    assert tops == sorted(tops)  # picture, what was said, truth, then the question


def test_chance_is_a_line_at_what_guesses_get_right(show: Show, view: View, studies) -> None:
    frame = show(view)
    left, right = (float(frame.locator(".fixed .grid").nth(place).get_attribute("x1")) for place in (0, 5))
    for study in STUDIES:
        frame.get_by_label("study").select_option(study)
        line = frame.locator(".fixed > svg > g > .chance line").first
        share = (float(line.get_attribute("x1")) - left) / (right - left)
        assert share == pytest.approx(studies[STUDIES.index(study)].records[0].spec.puzzle.chance_exact)
    assert frame.locator(".panel .chance").count() == 1


def test_the_old_study_says_that_no_answers_were_recorded(show: Show, page: Page, view: View) -> None:
    frame = show(view)
    frame.get_by_label("study").select_option("one form, one base")
    assert frame.locator("g[data-run]").count() == 25
    assert "No answers were recorded in this study" in frame.locator(".said").inner_text()
    frame.get_by_label("task", exact=True).select_option("hill")
    assert "in hill" in frame.locator(".sentence").inner_text()
    frame.get_by_label("seed", exact=True).select_option("seed 2")
    assert frame.locator("g[data-run]").count() == 5
    shoot(page, "plane_one_base")
