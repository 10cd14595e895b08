"""What asks a kernel, as a reader meets it in JupyterLab: the panel that asks the models, a long cell, and Stop."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from helpers.lab import STOPPED
from helpers.play.ask import NEEDS_KERNEL
from tests.browser.conftest import KERNEL, shoot
from tests.browser.servers import MINUTES, RAN, opened, surroundings, written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

START = 'import sys\nsys.path.insert(0, "..")\nfrom helpers.lab import start\nlab = start("smoke", quiet=True)'
PANEL = "from helpers.play import ask\nask.show()"
LONG = 'import time\nfrom helpers.progress import counted\nfor _ in counted(range(400), "naps"): time.sleep(0.5)'
LINE = "section[aria-label]"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository, with a notebook of a panel and a long cell."""
    folder = tmp_path_factory.mktemp("ask")
    cells = [new_code_cell(START), new_code_cell(PANEL), new_markdown_cell("below"), new_code_cell(LONG)]
    written("t.ipynb", folder, cells)
    return folder


@pytest.fixture(scope="module")
def tab(browser: Browser, place: Path) -> Iterator[Page]:
    """JupyterLab with the panel open."""
    with opened(browser, place, "t.ipynb", (1300, 1000)) as page:
        page.evaluate("() => { const n = jupyterapp.shell.currentWidget.content; n.activeCellIndex = 0; }")
        for _ in range(2):
            page.evaluate("() => jupyterapp.commands.execute('notebook:run-cell-and-select-next')", None)
        page.get_by_role("button", name="Ask", exact=True).wait_for(timeout=4 * MINUTES)
        yield page


def answers(tab: Page) -> Locator:
    tab.wait_for_function(f"() => document.querySelectorAll('{LINE}').length === 2", timeout=MINUTES)
    return tab.locator(LINE)


def places(tab: Page) -> list[dict[str, float]]:
    return [tab.locator(one).first.bounding_box() for one in (".widget-textarea", ".jp-MarkdownOutput")]


def type_question(tab: Page, text: str) -> None:
    field = tab.get_by_label("Question")
    field.fill("")
    field.press_sequentially(text)


def test_by_mouse_two_models_answer_and_nothing_moves(tab: Page) -> None:
    before = places(tab)
    tab.get_by_label("Suggestion").select_option("facts 1")
    tab.get_by_role("button", name="Ask", exact=True).click()
    said = answers(tab).all_inner_texts()
    assert said[0].startswith("base: ") and said[1].startswith("trained: ")
    assert all("✓ right" in one or "✗ wrong; right is" in one for one in said)
    assert all("tokens, log-prob" in one for one in said)
    assert places(tab) == before
    shoot(tab, "ask")


def test_unknown_words_are_named_while_one_types(tab: Page) -> None:
    times = []
    for letter in ("Is", "Is it", "Is it a zebra?"):
        begin = time.monotonic()
        tab.get_by_label("Question").fill(letter)
        tab.wait_for_function("(text) => document.querySelector('[role=status]').innerText.includes(text)", arg=letter)
        times.append(1000 * (time.monotonic() - begin))
    tab.get_by_text("Never taught: zebra. Expect a guess").wait_for()
    assert statistics.median(times) <= 3 * KERNEL
    assert tab.locator(LINE).count() == 0  # answers to another question are gone


def test_by_keyboard_alone(tab: Page) -> None:
    before = places(tab)
    tab.get_by_label("Suggestion").focus()
    asked = tab.get_by_label("Question").input_value()
    tab.keyboard.press("ArrowUp")
    for _ in range(4):
        tab.keyboard.press("Tab")
    # the kernel writes the suggestion's question there, and would write it behind what is typed sooner
    tab.wait_for_function("(old) => document.querySelector('.widget-textarea textarea').value !== old", arg=asked)
    type_question(tab, "What shape is the red thing?")
    tab.keyboard.press("Enter")
    assert answers(tab).count() == 2
    assert tab.get_by_label("Question").input_value() == "What shape is the red thing?"
    for _ in range(3):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")  # on the button
    assert answers(tab).count() == 2 and places(tab) == before


def test_the_notebooks_keys_do_not_reach_the_panel(tab: Page) -> None:
    for named in (tab.get_by_label("Suggestion"), tab.get_by_role("button", name="Ask", exact=True)):
        named.focus()
        tab.keyboard.press("x")
    tab.wait_for_timeout(500)
    assert tab.get_by_label("Question").count() == 1


def test_no_question_and_a_broken_picture_get_a_sentence(tab: Page) -> None:
    tab.get_by_label("Question").fill("")
    tab.get_by_text("There is no question yet").wait_for()
    with tab.expect_file_chooser() as chosen:
        tab.get_by_role("button", name="Own picture").click()
    chosen.value.set_files({"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"})
    tab.get_by_text("broken.png cannot be read as a JPEG").wait_for()


def test_every_control_is_labelled(tab: Page) -> None:
    unnamed = tab.evaluate(
        """() => [...document.querySelectorAll(".widget-vbox :is(button, input, select, textarea)")]
        .filter((node) => !(node.ariaLabel || (node.tagName === "BUTTON" && node.textContent.trim())
            || node.labels?.[0]?.textContent)).map((node) => node.outerHTML)"""
    )
    assert not unnamed


def test_a_long_cell_shows_how_far_it_is_and_stop_is_told_in_a_sentence(tab: Page) -> None:
    tab.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 3; }")
    tab.evaluate("() => { jupyterapp.commands.execute('notebook:run-cell'); }")
    tab.get_by_text("of 400 naps, about").wait_for(timeout=MINUTES)
    shoot(tab, "progress")
    tab.evaluate("() => jupyterapp.commands.execute('notebook:interrupt-kernel')")
    tab.get_by_text(STOPPED).wait_for()
    tab.wait_for_function("() => !document.querySelector('.jp-OutputArea progress')")
    tab.get_by_text("This cell took").last.wait_for()
    shoot(tab, "stopped")


def test_an_exported_file_says_in_a_line_that_it_needs_a_kernel(tab: Page, place: Path) -> None:
    tab.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    words = [sys.executable, "-m", "nbconvert", "--to", "html", "notebooks/t.ipynb"]
    subprocess.run(words, cwd=place, env=surroundings(place), check=True, capture_output=True)
    page = (place / "notebooks" / "t.html").read_text("utf-8")
    assert page.count(NEEDS_KERNEL) == 1 and "VBox(" not in page


def test_saved_and_opened_without_its_kernel_the_panel_shows_what_it_last_showed(tab: Page) -> None:
    tab.get_by_label("Question").fill("What colour is the sky?")
    tab.get_by_role("button", name="Ask", exact=True).click()
    said = answers(tab).all_inner_texts()
    tab.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    tab.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    tab.reload()
    tab.wait_for_function(RAN, timeout=4 * MINUTES)
    tab.evaluate("() => jupyterapp.shell.currentWidget.content.scrollToItem(0)")
    tab.locator("button", has_text="Ask").wait_for(timeout=MINUTES)  # its name has a mark now: a broken link
    assert answers(tab).all_inner_texts() == said
    assert tab.get_by_text("model not found").count() == 0 and tab.get_by_text(NEEDS_KERNEL).count() == 1
    shoot(tab, "ask_without_kernel")
