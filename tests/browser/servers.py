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

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("helpers", "figures")
NO_NEWS = '{"fetchNews": "false"}'  # the question whether to fetch news would lie over the notebook


def copied(notebook: str, place: Path) -> Path:
    """A copy of a notebook in a folder that looks like the repository, so that a save changes nothing of ours."""
    folder = place / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (place / name).symlink_to(ROOT / name)
    return Path(shutil.copy(ROOT / "notebooks" / notebook, folder))


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
        process = subprocess.Popen(command, env=surroundings(place), stdout=log, stderr=log, cwd=place / "notebooks")
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait(port: int, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise RuntimeError(f"{process.args[2]} does not answer; its log stands beside the notebook's folder.")
