"""The live run's panel in JupyterLab: by keyboard and by mouse, nothing moves, its keys stay in it; and exported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nbformat.v4 import new_code_cell

from helpers.study.spec import RunSpec
from helpers.train import child
from helpers.world.seeds import LIVE
from tests.browser.conftest import KERNEL, shoot
from tests.browser.servers import MINUTES, RAN, opened, run_all, surroundings, written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CODE = 'import sys\nsys.path.insert(0, "..")\nfrom helpers.lab import start\n\nstart("cpu", quiet=True);'
SHOW = "from helpers.play.live_run import live_run\n\nlive_run()"
FREE = "print('the kernel is', 'free')"
WATCH = """() => {
  const parts = { subtree: true, childList: true, characterData: true };
  window.changed = 0; window.began = performance.now();
  window.watcher = new MutationObserver(() => { window.changed ||= performance.now(); });
  window.watcher.observe(document.querySelector(".jigsaw-live"), parts);
}"""
PLACES = """() => [...document.querySelectorAll(".jigsaw-live :is(svg, button, select, input)")].slice(0, 14)
  .map((node) => Object.values(node.getBoundingClientRect().toJSON()).map(Math.round))"""
SAYS = "(said) => document.querySelector('.jigsaw-live').innerText.includes(said)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository, with a notebook that shows the panel and goes on."""
    folder = tmp_path_factory.mktemp("live")
    written("live.ipynb", folder, [new_code_cell(code) for code in (CODE, SHOW, FREE)])
    return folder


@pytest.fixture(scope="module")
def tab(browser: Browser, place: Path) -> Iterator[Page]:
    """JupyterLab with the panel on the page."""
    with opened(browser, place, "live.ipynb", (1400, 950)) as page:
        run_all(page)
        page.wait_for_selector(".jigsaw-live svg", timeout=8 * MINUTES)
        page.wait_for_function(RAN, timeout=4 * MINUTES)
        page.wait_for_timeout(2000)  # until the panel has its own keys
        yield page


def wait(tab: Page, said: str) -> None:
    """Until the panel says something."""
    tab.wait_for_function(SAYS, arg=said, timeout=2 * MINUTES)


def answered(tab: Page, label: str, key: str) -> float:
    """Milliseconds from a key on a control to the change that it makes on the page."""
    tab.get_by_label(label, exact=True).focus()
    tab.evaluate(WATCH)
    tab.keyboard.press(key)
    tab.wait_for_function("() => window.changed > 0", timeout=MINUTES)
    return tab.evaluate("() => { window.watcher.disconnect(); return window.changed - window.began; }")


def test_a_choice_by_keyboard_is_answered_at_once_and_nothing_moves(tab: Page) -> None:
    before = tab.evaluate(PLACES)
    for key in ("ArrowUp", "ArrowDown") * 2:  # read once
        answered(tab, "arm", key)
    times = sorted(answered(tab, "arm", key) for key in ("ArrowUp", "ArrowDown") * 3)
    assert tab.evaluate(PLACES) == before
    shoot(tab, "live_run")
    assert times[len(times) // 2] <= 3 * KERNEL, f"{times} ms from key to change"


def test_a_refused_setting_is_told_in_a_sentence_and_cannot_be_started(tab: Page) -> None:
    weight = tab.get_by_label("KL weight", exact=True)
    tab.get_by_label("arm", exact=True).select_option("rft-no-kl")
    wait(tab, "RFT without the KL term")  # the kernel has set its usual weight
    weight.select_option("0.36")
    wait(tab, "has no KL term")
    assert tab.get_by_role("button", name="Start", exact=True).is_disabled()
    weight.select_option("0")
    tab.get_by_label("arm", exact=True).select_option("sft-answer")
    wait(tab, "About ")


def test_keys_in_the_panel_are_not_the_notebooks(tab: Page) -> None:
    cells = tab.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length")
    tab.get_by_label("rate", exact=True).focus()
    for key in ("x", "a", "b"):
        tab.keyboard.press(key)
    assert tab.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length") == cells


def test_a_run_starts_by_keyboard_leaves_the_kernel_free_and_stops_by_mouse(tab: Page) -> None:
    spec = RunSpec("sft-answer", LIVE, 19, 2e-4, 32, base="two-form-5", asked="direct", extra=(("until", 0.5),))
    child.forget(spec)
    tab.get_by_label("most steps", exact=True).fill(str(spec.steps))  # a run that no reader has
    tab.keyboard.press("Tab")
    start = tab.get_by_role("button", name="Start", exact=True)
    start.focus()
    tab.keyboard.press("Enter")
    wait(tab, "so far")
    tab.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 2; }")
    tab.evaluate("() => jupyterapp.commands.execute('notebook:run-cell')")
    assert "the kernel is free" in tab.locator(".jp-OutputArea-output").last.inner_text()
    tab.get_by_role("button", name="Stop", exact=True).click()
    tab.wait_for_function(
        "() => /Stopped at step/.test(document.querySelector('.jigsaw-live').innerText)", timeout=MINUTES
    )
    shoot(tab, "live_run_stopped")
    tab.get_by_role("button", name="Remove").last.click()
    tab.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    tab.evaluate("() => jupyterapp.commands.execute('notebook:run-cell')")  # the same panel again
    wait(tab, "Stopped at step")
    child.forget(spec)


def test_exported_html_says_that_it_needs_a_kernel(tab: Page, browser: Browser, place: Path) -> None:
    tab.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "live.ipynb", "--output", "exported.html"]
    subprocess.run(command, cwd=place / "notebooks", env=surroundings(place), check=True, capture_output=True)
    page = browser.new_page(viewport={"width": 1100, "height": 700})
    page.context.set_offline(True)
    page.goto((place / "notebooks" / "exported.html").as_uri(), wait_until="domcontentloaded")
    text = page.locator("body").inner_text()
    shoot(page, "live_run_exported")
    page.close()
    assert "needs a kernel" in text and "HBox" not in text and "Box(" not in text
