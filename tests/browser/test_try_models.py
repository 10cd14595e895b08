"""The panel that lets the models try a picture of one's own: live in JupyterLab, after reload, and exported."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nbformat.v4 import new_code_cell
from PIL import Image

from tests.browser.conftest import shoot
from tests.browser.servers import MINUTES, RAN, opened, run_all, surroundings, written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NOTEBOOK = "own.ipynb"
START = """import sys

sys.path.insert(0, "..")
from helpers.lab import start

start("cpu", quiet=True)  # which also goes to the repository's root, where the kept models are
from helpers.play import try_models

try_models.try_on()"""
KERNEL_S = 6  # seconds for six models; one to two with the machine to itself


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository, with a notebook of one cell."""
    folder = tmp_path_factory.mktemp("own")
    written(NOTEBOOK, folder, [new_code_cell(START)])
    (folder / "bad.png").write_bytes(b"no picture")
    Image.effect_mandelbrot((300, 200), (-3, -2.5, 2, 2.5), 100).save(folder / "mine.png")
    return folder


@pytest.fixture(scope="module")
def live(browser: Browser, place: Path) -> Iterator[Page]:
    """JupyterLab with the cell run."""
    with opened(browser, place, NOTEBOOK, (1280, 800)) as tab:
        run_all(tab)
        tab.get_by_role("button", name="Let the models try").wait_for(timeout=4 * MINUTES)
        yield tab


def edges(tab: Page) -> list[object]:
    """Where the panel and its buttons stand."""
    return [box.bounding_box() for box in tab.locator(".jp-OutputArea-output .widget-vbox, .widget-button").all()]


def test_the_models_try_when_asked(live: Page) -> None:
    before = edges(live)
    live.get_by_role("button", name="Let the models try").focus()
    live.keyboard.press("Enter")
    live.get_by_text("answers are right").wait_for(timeout=MINUTES)  # the first time loads the models
    assert live.locator(".widget-html code").count() >= 2
    live.get_by_role("button", name="Shuffle again").click()
    live.get_by_text("Make up your mind").wait_for()
    start = time.monotonic()
    live.get_by_role("button", name="Let the models try").click()
    live.get_by_text("answers are right").wait_for()
    took = time.monotonic() - start
    shoot(live, "try_models")
    assert took < KERNEL_S
    assert edges(live) == before


def choose(tab: Page, file: Path) -> None:
    """Give the panel a file, as its button asks for one."""
    with tab.expect_file_chooser() as asked:
        tab.get_by_role("button", name="Your picture").click()
    asked.value.set_files(file)


def test_files_are_taken_and_bad_ones_told(live: Page, place: Path) -> None:
    before = edges(live)
    choose(live, place / "bad.png")
    live.get_by_text("bad.png cannot be read as a JPEG, PNG or WebP picture").wait_for()
    choose(live, place / "mine.png")
    live.get_by_text("Make up your mind").wait_for()
    shoot(live, "try_models_own")
    assert edges(live)[1:] == before[1:]


def test_without_the_kernel_the_sentence_stands_there(live: Page, browser: Browser, place: Path) -> None:
    live.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    words = [sys.executable, "-m", "nbconvert", "--to", "html", NOTEBOOK, "--output", "exported.html"]
    live.wait_for_timeout(2000)
    subprocess.run(words, cwd=place / "notebooks", env=surroundings(place), check=True, capture_output=True)
    text = (place / "notebooks" / "exported.html").read_text("utf-8")
    assert "it needs a kernel" in text and "VBox(" not in text
    live.reload()
    live.wait_for_function(RAN, timeout=2 * MINUTES)
    live.wait_for_timeout(3000)
    shoot(live, "try_models_reloaded")
