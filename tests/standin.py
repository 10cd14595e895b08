"""A clone of the repository that installs nothing: what `run_all.sh` needs, and a stand-in for Python."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAND_IN = f"""#!/usr/bin/env bash
make() {{
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    printf '#!%s/.venv/bin/python\\n' "$PWD" > .venv/bin/jupyter
}}
install() {{
    trap 'kill $!; exit 143' TERM
    echo "$$" > pip.pid
    env > pip.env
    echo x >> pip.count
    echo "Collecting torch>=2.0"
    sleep "${{PIP_SECONDS:-0}}" &
    wait $!
    echo "Installing collected packages: torch"
    [ -z "${{PIP_ERROR:-}}" ] && return
    echo "ERROR: $PIP_ERROR"
    exit 1
}}
case "$*" in
    *"-m venv"*) make ;;
    *"-m pip install"*) install ;;
    *"-m pip"*) ;;
    "-m helpers run"*) echo "started in $PWD with $*" ;;
    *) exec {sys.executable} -S "$@" ;;
esac
"""


def make_clone(folder: Path) -> Path:
    """Such a clone in a folder that does not exist yet."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "run_all.sh", folder)
    (folder / "requirements.txt").write_text("torch\n")
    for name in ("__init__", "errors", "files", "processes", "runner"):
        (folder / "helpers").mkdir(exist_ok=True)
        shutil.copy(ROOT / "helpers" / f"{name}.py", folder / "helpers")
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "00_start.ipynb").write_text('{"cells": []}')
    (folder / "python").write_text(STAND_IN)
    (folder / "python").chmod(0o755)
    return folder
