"""Servers for the browser tests: JupyterLab and voila on localhost, over a copy of one notebook."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("helpers", "figures")
LAB = ("jupyterlab", "--ServerApp.token=", "--LabApp.expose_app_in_browser=True", "--allow-root")
MINUTES = 60_000  # milliseconds
RAN = "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = """async () => {
    const { context, sessionContext } = jupyterapp.shell.currentWidget;
    await context.ready;
    await sessionContext.ready;
    await jupyterapp.commands.execute('notebook:run-all-cells');
}"""
NO_NEWS = '{"fetchNews": "false"}'  # the question whether to fetch news would lie over the notebook


def copied(notebook: str, place: Path) -> Path:
    """A copy of a notebook in a folder that looks like the repository, so that a save changes nothing of ours."""
    return Path(shutil.copy(ROOT / "notebooks" / notebook, _notebooks(place)))


def written(notebook: str, place: Path, cells: Sequence[NotebookNode]) -> Path:
    """A notebook of some cells in such a folder."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = _notebooks(place) / notebook  # without a kernel's name JupyterLab asks which
    nbformat.write(new_notebook(cells=list(cells), metadata=kernel), path)
    return path


def _notebooks(place: Path) -> Path:
    folder = place / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (place / name).symlink_to(ROOT / name)
    return folder


def surroundings(place: Path) -> dict[str, str]:
    """An environment in which a server neither reads nor writes a person's own settings."""
    settings = place / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text(NO_NEWS)
    own = {
        "JUPYTER_CONFIG_DIR": place / "config",
        "JUPYTER_RUNTIME_DIR": place / "runtime",
        "IPYTHONDIR": place / "ipython",
        "JUPYTERLAB_SETTINGS_DIR": place / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": place / "workspaces",
    }
    # The tests' own process is told to stay static; a reader's server is not.
    live = {"OMP_NUM_THREADS": "1", "JIGSAW_STATIC": "0"}
    return os.environ | {name: str(path) for name, path in own.items()} | live


@contextmanager
def serving(words: Sequence[str], place: Path) -> Iterator[str]:
    """`python -m WORDS` on a free port until the block ends; its address, once something answers there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", *words, f"--port={port}", "--no-browser"]
    with (place / f"{words[0]}.log").open("w") as log:
        process = subprocess.Popen(command, env=surroundings(place), stdout=log, stderr=log, cwd=place)
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def opened(browser: Browser, place: Path, notebook: str, size: tuple[int, int] = (1280, 900)) -> Iterator[Page]:
    """A tab of so many pixels with a notebook open in JupyterLab and its kernel idle."""
    with serving(LAB, place) as address:
        tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
        tab.goto(f"{address}/lab/tree/notebooks/{notebook}", timeout=4 * MINUTES)
        tab.wait_for_function(RAN, timeout=6 * MINUTES)
        yield tab
        tab.close()


def run_all(tab: Page) -> None:
    """Run all cells of the open notebook; returns when they are asked to run."""
    tab.evaluate(RUN_ALL)


def _wait(port: int, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise RuntimeError(f"{process.args[2]} does not answer; its log stands beside the notebook's folder.")
