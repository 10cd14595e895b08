"""A real browser for the views: Chromium, driven by Playwright, with the network off.

`./check.sh --browser` installs what is missing where it can; without it these tests are skipped with a sentence.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.play import runs
from helpers.play.page import Json, View

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

SHOTS = Path(__file__).resolve().parents[2] / "out" / "browser" / "shots"
CLIENT = 100  # milliseconds from input to picture that a view in the page may take; thrice that fails a test
KERNEL = 200
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The browser: CHROMIUM, or the first of its usual names on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def missing() -> str:
    """What these tests lack, in a sentence; nothing where they can run."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: ./check.sh --browser installs it."
    return (
        ""
        if chromium()
        else "No Chromium was found: install it (Debian: apt install chromium), or name it in CHROMIUM."
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests with the sentence of what is missing."""
    if said := missing():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=said))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def studies() -> tuple[runs.Study, runs.Study]:
    """The study on one base, and the direct runs on one of several."""
    return runs.one_base(), runs.several_bases([5], ["sft-answer direct", "rft direct"])


@pytest.fixture(scope="session")
def payload(studies: tuple[runs.Study, runs.Study]) -> dict[str, Json]:
    """What the views of runs are made of."""
    return runs.payload(studies)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab without a network; an error in the page fails the test."""
    tab = browser.new_page(viewport={"width": 1100, "height": 900})
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    tab.close()
    assert not errors, errors


@pytest.fixture
def show(page: Page, tmp_path: Path) -> Callable[[View], Frame]:
    """Opens a view as exported HTML does: in its frame, from a file, with the network off; returns the frame."""

    def opened(view: View) -> Frame:
        file = tmp_path / f"{view.name}.html"
        file.write_text(f"<!doctype html><meta charset=utf-8><body>{view._repr_html_()}<p>below</p>", "utf-8")
        page.context.set_offline(True)
        page.goto(file.as_uri())
        frame = page.frames[1]
        frame.wait_for_selector("#view[data-ready=yes]")
        return frame

    return opened


def shoot(page: Page, name: str) -> Path:
    """A picture of the tab in out/browser/shots, to be looked at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")
    return SHOTS / f"{name}.png"


def check_latency(frame: Frame, least: int, bound: float = CLIENT) -> float:
    """The median of the page's input-to-picture times; fails above thrice the bound, or where fewer were taken."""
    frame.wait_for_function(f"window.latencies.length >= {least}")
    median = statistics.median(frame.evaluate("window.latencies"))
    assert median <= 3 * bound, f"{median:.0f} ms from input to picture"
    return median


def boxes(frame: Frame) -> list[dict[str, float]]:
    """Where the parts of a view lie: they must not move when values change."""
    parts = frame.locator("main > div, .columns > div")
    return parts.evaluate_all("(nodes) => nodes.map((node) => node.getBoundingClientRect().toJSON())")


def labelled(frame: Frame) -> None:
    """Every control says what it is: a text of its own, a label around it, or an aria-label."""
    unnamed = frame.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, [tabindex='0']")]
        .filter((node) => !(node.ariaLabel || node.textContent.trim() || node.closest("label")))
        .map((node) => node.outerHTML)"""
    )
    assert not unnamed, unnamed
