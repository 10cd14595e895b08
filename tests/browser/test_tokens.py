"""The token view in a browser: numbers, keys and choices, with nothing that moves."""

from __future__ import annotations

import pytest

from browser.conftest import check_latency, labelled, shoot
from helpers.play.page import View
from helpers.play.tokens import token_heat


@pytest.fixture(scope="module")
def view() -> View:
    return token_heat(2)


def cell(frame, model: str, place: int) -> str:
    return frame.locator(f"tr[data-model='{model}'] td").nth(place).inner_text()


def test_a_text_is_shown_with_sum_and_mean_under_each_model(show, view, page) -> None:
    frame, text = show(view), view.data["texts"][0]
    boxes = frame.get_by_role("group", name="tokens").get_by_role("button")
    assert boxes.count() == len(text["tokens"]) and boxes.first.inner_text().startswith("<answer>")
    for model, logps in zip(view.data["models"], text["logps"], strict=True):
        name = cell(frame, model, 0).removesuffix(" ◀")
        assert name == model
        assert float(cell(frame, model, 1)) == pytest.approx(sum(logps), rel=5e-3)
        assert float(cell(frame, model, 2)) == pytest.approx(sum(logps) / len(logps), rel=5e-3)
    boxes.nth(1).hover()
    assert float(cell(frame, "base", 4)) == pytest.approx(text["logps"][0][1], rel=5e-3)
    assert "token 2 of 10" in frame.inner_text("[role=status]")


def test_the_difference_is_checkpoint_minus_base(show, view, page) -> None:
    frame = show(view)
    frame.get_by_label("show", exact=True).select_option("rft direct minus base")
    frame.get_by_label("text", exact=True).select_option("old questions, sentences")
    text = next(text for text in view.data["texts"] if text["kind"] == "old questions, sentences")
    own, base = text["logps"][view.data["models"].index("rft direct")], text["logps"][0]
    drawn = frame.eval_on_selector_all("[role=group] button", "nodes => nodes.map(n => Number(n.dataset.value))")
    assert drawn == pytest.approx([a - b for a, b in zip(own, base, strict=True)], abs=1e-9)
    shoot(page, "tokens")


def test_keys_walk_along_tokens_and_texts_and_nothing_moves(show, view, page) -> None:
    frame = show(view)
    places = [frame.locator(name).first.bounding_box() for name in ("table", "img", "[role=group]", "p.quiet >> nth=1")]
    frame.locator("[role=group] button").first.click()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert "token 4 of" in frame.inner_text("[role=status]")
    assert frame.evaluate("document.activeElement.dataset.value !== undefined")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    assert frame.get_by_label("text", exact=True).input_value() == view.data["texts"][5]["kind"]
    page.keyboard.press("ArrowUp")
    frame.get_by_role("button", name="text after").click()
    assert "2 of 2" in frame.inner_text("main")
    now = [frame.locator(name).first.bounding_box() for name in ("table", "img", "[role=group]", "p.quiet >> nth=1")]
    assert now == places
    labelled(frame)
    check_latency(frame, 9)
