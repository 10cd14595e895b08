"""The learning curves in a browser: read off by pointing, by slider and by keys; arms go and come; nothing moves."""

from __future__ import annotations

import pytest

from browser.conftest import check_latency, labelled, shoot
from helpers.play.curves import learning_curves
from helpers.play.page import View
from helpers.study.profiles import get_profile
from helpers.study.published import Study


@pytest.fixture(scope="module")
def view() -> View:
    profile = get_profile("cpu")
    study = Study(profile, profile.study_arms)
    return learning_curves(study.evaluations, {"exact match": study.puzzle.chance_exact})


def cells(frame, arm: str) -> list[str]:
    return frame.locator(f"tr[data-arm='{arm}'] td").all_inner_texts()[1:]


def test_the_table_reads_what_the_records_hold(show, view, page) -> None:
    frame = show(view)
    point = view.data["measures"]["exact match"]["rft"][-1]
    at, mean, interval, seeds = cells(frame, "rft")
    assert (at, seeds) == ("9,216", "5") and float(mean) == pytest.approx(point[2], abs=5e-4)
    assert [float(part) for part in interval.split(" to ")] == pytest.approx(point[3:5], abs=5e-4)
    assert cells(frame, "base")[1] == "0.038" and cells(frame, "chance")[1] == "0.0435"
    frame.get_by_label("measure", exact=True).select_option("prior score")
    assert cells(frame, "chance")[1] == "–" and cells(frame, "base")[1] == "0.98"
    assert "prior score at 20,480 boards seen" in frame.inner_text("[role=status]")
    shoot(page, "curves")


def test_pointing_and_keys_move_the_cursor_and_nothing_else(show, view, page) -> None:
    frame = show(view)
    before = [frame.locator(name).first.bounding_box() for name in ("table", "svg", "p.quiet")]
    frame.locator("body").click(position={"x": 5, "y": 420})
    page.keyboard.press("ArrowLeft")
    assert cells(frame, "sft-answer")[0] == "16,384" and cells(frame, "rft")[0] == "9,216"
    picture = frame.locator("svg[role=img]").bounding_box()
    for share in (0.2, 0.4, 0.6, 0.3, 0.5, 0.7, 0.11):
        page.mouse.move(picture["x"] + share * picture["width"], picture["y"] + 100)
    assert cells(frame, "rft")[:2] == ["0", "0.04"]
    slider = frame.get_by_role("slider", name="read at boards seen")
    assert slider.get_attribute("aria-valuetext") == "0"
    slider.focus()
    page.keyboard.press("End")
    assert cells(frame, "sft-answer")[0] == "20,480"
    frame.get_by_label("against", exact=True).select_option("steps")
    assert cells(frame, "sft-answer")[0] == "640"
    assert [frame.locator(name).first.bounding_box() for name in ("table", "svg", "p.quiet")] == before
    labelled(frame)
    check_latency(frame, 8)


def test_only_pointing_that_changes_something_is_timed_and_few_times_are_kept(show, view) -> None:
    frame = show(view)
    move = """(times) => new Promise((done) => { const node = document.querySelector("svg[role=img]");
        const left = node.getBoundingClientRect().left, at = (k) => left + (times > 9 && k % 2 ? 420 : 90);
        for (let k = 0; k < times; k++) document.querySelector("svg[role=img]").dispatchEvent(
            new PointerEvent("pointermove", { clientX: at(k), bubbles: true }));
        setTimeout(() => done(latencies.length), 1500); })"""
    assert frame.evaluate(move, 9) == 1  # nine times to the same place
    assert 100 < frame.evaluate(move, 1000) <= 400


def test_arms_go_and_come_by_mouse_and_by_keyboard(show, view, page) -> None:
    frame = show(view)
    lines = frame.locator("svg[role=img] path[fill=none]")
    drawn, box = lines.count(), frame.get_by_role("checkbox", name="sft-self")
    box.click()
    assert lines.count() == drawn - 1 and cells(frame, "sft-self") == ["–"] * 4
    assert "sft-self" not in frame.inner_text("[role=status]")
    page.keyboard.press("Space")  # the box has kept the focus
    assert box.is_checked() and lines.count() == drawn
