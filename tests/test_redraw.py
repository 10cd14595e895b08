"""Published figures are redrawn from the published records, and what is drawn is what was published.

Here the notebooks that draw from records alone; `./check.sh --figures` does all of them, live trainings included. The
figures of the study on several bases are published once, when the runs of its headline are.
"""

import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from helpers import runner
from helpers.files import read_json
from helpers.show import keep
from helpers.stats import apart
from helpers.study import cells
from helpers.study.published import records_digest

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "figures"
MANIFEST = read_json(FIGURES / "manifest.json")
ON_BASES, IN_STAGES, APART = "11_fair_bases", "12_one_after_another", "13_taken_apart"
FROM_RECORDS = ("05_who_forgets", "08_sft_on_rollouts", "09_data_or_update", ON_BASES, IN_STAGES, APART)
DRAWN = {entry["notebook"] for entry in MANIFEST.values()}
NOTEBOOKS = sorted(DRAWN) if os.environ.get("REDRAW") else [name for name in FROM_RECORDS if name in DRAWN]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_figure_of_a_notebook_comes_out_of_the_published_records_again(name: str, tmp_path: Path) -> None:
    task = runner.Task(ROOT / "notebooks" / f"{name}.ipynb", ROOT, "cpu", False)
    words = [str(tmp_path / "copy.ipynb") if word == str(task.copy) else word for word in runner.command(task)]
    words = [str(tmp_path) if word == "figures" else word for word in words]
    environment = runner.environment(task) | {"JIGSAW_PUBLISH": "0"}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ids = [id for id, entry in MANIFEST.items() if entry["notebook"] == name]
    assert ids and all((tmp_path / f"{id}.csv").exists() for id in ids)
    for id in ids:
        published, drawn = (keep.read_csv((folder / f"{id}.csv").read_text()) for folder in (FIGURES, tmp_path))
        assert keep.same_data(published, drawn, id), id
        assert keep.same_words(MANIFEST[id]["alt"], read_json(tmp_path / f"{id}.json")["alt"]), id


def test_published_figures_name_the_records_that_lie_beside_them() -> None:
    known = {read_json(FIGURES / f"{id}.json").get("records", "") for id in MANIFEST}
    assert known <= {"", records_digest("cpu"), records_digest("fair")} and len(known) > 1


def test_only_a_study_that_is_not_whole_has_no_published_figures() -> None:
    second = [name for name, cell in cells.CELLS.items() if cell.after]
    pairs = set(apart.compared())
    parts = {ON_BASES: cells.specs(cells.REPORTED, cells.HEADLINE), IN_STAGES: cells.specs(cells.TWINS, second)}
    parts[APART] = cells.specs(cells.TWINS, pairs)
    lacking = {name for name, specs in parts.items() if not all(map(cells.is_published, specs))}
    assert set(FROM_RECORDS) - DRAWN == lacking


def test_a_record_that_moved_would_be_noticed(tmp_path: Path) -> None:
    id = next(id for id, entry in MANIFEST.items() if entry["notebook"] == FROM_RECORDS[0])
    table = keep.read_csv((FIGURES / f"{id}.csv").read_text())
    column = next(name for name in table.columns if pd.api.types.is_float_dtype(table[name]))
    assert not keep.same_data(table, table.assign(**{column: table[column] + 1e-3}), id)
