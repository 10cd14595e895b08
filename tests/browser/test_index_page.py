"""The landing page as the README's command opens it: every picture in it is drawn, before any cell has run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.conftest import shoot
from tests.browser.servers import MINUTES, ROOT, copied, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DRAWN = """() => {
    const there = [...document.querySelectorAll('.jp-RenderedMarkdown img')];
    return there.length > 0 && there.every((image) => image.complete && image.naturalWidth > 0);
}"""


def test_the_landing_pages_pictures_are_drawn(browser: Browser, tmp_path: Path) -> None:
    copied("index.ipynb", tmp_path)
    (tmp_path / "figures").unlink()  # no server shows what lies behind a link that leads out of its folder
    shutil.copytree(ROOT / "figures", tmp_path / "figures", ignore=shutil.ignore_patterns("records"))
    with opened(browser, tmp_path, "index.ipynb", (1280, 4000)) as tab:
        tab.wait_for_function(DRAWN, timeout=MINUTES)
        shoot(tab, "index")
