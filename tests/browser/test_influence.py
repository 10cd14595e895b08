"""The influence map in a browser: cells open by mouse and by keyboard, and the numbers are the rows' own."""

from __future__ import annotations

import pytest
from test_play_influence import BEFORE, LEARNED, PROBED, measured

from browser.conftest import check_latency, labelled, shoot
from helpers.play.influence import influence_pairs
from helpers.play.page import View


@pytest.fixture(scope="module")
def view() -> View:
    return influence_pairs(measured(), LEARNED, PROBED, BEFORE)


def numbers(frame, name: str) -> list[float]:
    cells = frame.locator("table >> nth=1").get_by_role("row").filter(has_text=name).locator("td").all_inner_texts()
    return [float(text) for text in cells[1:]]


def test_the_most_lowered_cell_is_open_and_another_opens_by_click(show, view, page) -> None:
    frame = show(view)
    assert "sft-answer on colour" in frame.inner_text("main") or "sft-answer on puzzle bare" in frame.inner_text("main")
    frame.get_by_role("button", name="rft on colour").click()
    mean = (0.03 / 4 + 0.06 / 4) / 2
    assert numbers(frame, "all 2") == pytest.approx([-1.0, mean, -1.0 + mean], abs=6e-5)
    assert numbers(frame, "this one") == pytest.approx([-0.5, 0.0075, -0.4925], abs=6e-5)
    words = frame.inner_text("main")
    assert "about colour?" in words and "good" in words and "advantage +1.5" in words and "undecided" in words
    frame.get_by_role("button", name="asked: colour, the next one").click()
    assert numbers(frame, "this one") == pytest.approx([-1.5, 0.015, -1.485], abs=6e-5)
    page.keyboard.press("Enter")  # the button keeps the focus
    assert numbers(frame, "this one")[0] == -0.5
    shoot(page, "influence")


def test_a_state_that_cannot_be_drawn_gives_way_and_keys_walk_as_ever(show, view, page) -> None:
    frame = show(view)
    # A probe is drawn last, after the keys are bound.
    frame.evaluate("kit.remember('state', { ...kit.recall('state'), probe: 99 })")
    frame = show(view)
    assert frame.get_by_role("alert").count() == 0
    frame.get_by_role("button", name="sft-answer on colour").click()
    page.keyboard.press("ArrowRight")
    first = frame.evaluate("document.activeElement.dataset.kind")
    page.keyboard.press("ArrowLeft")
    assert frame.evaluate("document.activeElement.dataset.kind") == "colour" != first


def test_arrows_walk_and_enter_opens_and_nothing_moves(show, view, page) -> None:
    frame = show(view)
    frame.get_by_role("button", name="rft on colour").click()
    spots = [frame.locator(name).first.bounding_box() for name in ("table", "table >> nth=1", "img", "h3 >> nth=2")]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert "rft on colour" in frame.inner_text("[role=status]")
    page.keyboard.press("Enter")
    assert frame.inner_text("[role=status]").startswith("sft-answer on puzzle bare: ")
    assert numbers(frame, "the probe") == pytest.approx([-2.0, -0.01125, -2.01125], abs=6e-5)
    for _ in range(4):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
    now = [frame.locator(name).first.bounding_box() for name in ("table", "table >> nth=1", "img", "h3 >> nth=2")]
    assert [(box["x"], box["y"]) for box in now] == [(box["x"], box["y"]) for box in spots]
    labelled(frame)
    check_latency(frame, 11)
