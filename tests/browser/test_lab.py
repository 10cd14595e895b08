"""The page to play on as a reader meets it: live in JupyterLab, after save and reload, exported, and in voila."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.browser.conftest import shoot
from tests.browser.servers import MINUTES, RAN, ROOT, copied, opened, run_all, serving, surroundings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

NOTEBOOK = "play.ipynb"
VOILA = ("voila", f"notebooks/{NOTEBOOK}", "--ServerApp.token=")

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository, with a copy of the notebook."""
    folder = tmp_path_factory.mktemp("lab")
    copied(NOTEBOOK, folder)
    return folder


@pytest.fixture(scope="module")
def saved(browser: Browser, place: Path) -> Iterator[Page]:
    """JupyterLab with the notebook run and saved, as a reader does it."""
    with opened(browser, place, NOTEBOOK) as tab:
        run_all(tab)
        tab.wait_for_function(RAN, timeout=4 * MINUTES)
        tab.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        yield tab


def cells(tab: Page) -> int:
    """How many cells the open notebook has."""
    return tab.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length")


def frames(tab: Page) -> dict[str, Frame]:
    """The views of the open notebook by title, each brought on screen and drawn."""
    found = {}
    for place in range(cells(tab)):
        tab.evaluate("(n) => jupyterapp.shell.currentWidget.content.scrollToItem(n)", place)
        tab.wait_for_timeout(150)
        found |= drawn(tab)
    return found


def drawn(tab: Page) -> dict[str, Frame]:
    """The views that are on the page, by title."""
    there = {}
    for frame in [frame for frame in tab.frames if frame.parent_frame and not frame.is_detached()]:
        element = frame.frame_element()
        if element.get_attribute("srcdoc"):
            # The notebook may have hidden its cell by now: frames above have taken the height that they need.
            frame.wait_for_selector("#view[data-ready=yes]", state="attached", timeout=MINUTES)
            there[element.get_attribute("title")] = frame
    return there


def views_of_source() -> int:
    """How many views the notebook is to show: that many cells end in one."""
    notebook = nbformat.read(ROOT / "notebooks" / NOTEBOOK, as_version=4)
    return sum("view" in cell.metadata.get("tags", []) for cell in notebook.cells)


def test_every_view_is_drawn_live_and_no_cell_failed(saved: Page) -> None:
    assert len(frames(saved)) == views_of_source() > 0
    assert saved.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    shoot(saved, "lab_live")


def test_keys_in_a_view_are_not_the_notebooks(saved: Page) -> None:
    before = cells(saved)
    for frame in list(frames(saved).values())[:1]:
        frame.frame_element().scroll_into_view_if_needed()
        frame.locator("button").first.focus()
        for key in ("x", "d", "d", "a", "b"):
            saved.keyboard.press(key)
    assert cells(saved) == before


def test_after_reload_every_view_is_there_without_a_kernel_having_run(saved: Page) -> None:
    titles = set(frames(saved))
    saved.reload()
    saved.wait_for_function(RAN, timeout=2 * MINUTES)
    assert set(frames(saved)) == titles
    shoot(saved, "lab_reloaded")


def test_exported_html_lives_with_the_network_off(saved: Page, browser: Browser, place: Path) -> None:
    words = [sys.executable, "-m", "nbconvert", "--to", "html", NOTEBOOK, "--output", "exported.html"]
    subprocess.run(words, cwd=place / "notebooks", env=surroundings(place), check=True, capture_output=True)
    tab = browser.new_page(viewport={"width": 1100, "height": 900})
    tab.context.set_offline(True)
    tab.goto((place / "notebooks" / "exported.html").as_uri(), wait_until="domcontentloaded")
    assert set(drawn(tab)) == set(frames(saved))
    shoot(tab, "exported")
    tab.close()


def test_voila_serves_the_same_views(browser: Browser, place: Path) -> None:
    with serving(VOILA, place) as address:
        tab = browser.new_page(viewport={"width": 1100, "height": 900})
        tab.goto(address, timeout=4 * MINUTES)
        tab.wait_for_selector("iframe[srcdoc]", timeout=4 * MINUTES)
        assert len(drawn(tab)) == views_of_source()
        shoot(tab, "voila")
        tab.close()
