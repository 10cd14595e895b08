"""Notebook 14 by the command that it names: from a folder with one bad file to a plotted result, at smoke."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = Path("notebooks/14_your_own_run.ipynb")


def told() -> list[str]:
    """The words of the command that the notebook tells its reader."""
    texts = [cell.source for cell in nbformat.read(ROOT / NOTEBOOK, as_version=4).cells]
    (block,) = [block for text in texts for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    return block.replace("\\\n", " ").split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of noise, and a file that is none."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 255, (80, 120, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_the_command_in_the_notebook_and_the_one_in_the_readme_name_real_parameters() -> None:
    words = told()
    named = {words[k + 1] for k, word in enumerate(words) if word in ("-r", "-p")}
    source = nbformat.read(ROOT / NOTEBOOK, as_version=4).cells[1].source
    assert named and named <= {line.split(" = ")[0] for line in source.splitlines()}
    assert str(NOTEBOOK) in " ".join(words) and str(NOTEBOOK) in (ROOT / "README.md").read_text("utf-8")


def test_from_a_folder_to_a_plotted_result_by_one_command(photos: Path, tmp_path: Path) -> None:
    given = {"PROFILE": "smoke", "PICTURES": photos, "ARM": "rft", "REWARD_WEIGHTS": "1 2 0.5", "FIGURES": tmp_path}
    words = [word for name, value in given.items() for word in ("-r", name, str(value))]
    out = tmp_path / "mine.ipynb"
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(out), "-k", "python3", "--no-progress-bar"]
    command += ["--log-output", *words, "-p", "RATE", "1e-4", "-p", "SEED", "1", "-p", "RETRAIN", "True"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"JIGSAW_STATIC": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "broken.jpg" in done.stderr and "4 pictures to learn from, 2 held out" in done.stderr
    assert "Starting" in done.stderr and re.search(r"After 4 steps it solves 0\.\d\d", done.stderr)
    assert (tmp_path / "own_run.png").is_file() and (tmp_path / "own_boards.png").is_file()
