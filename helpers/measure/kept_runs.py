"""Checkpoints of a few runs of the study on several bases that readers may look into: where 0.7 was reached, and ends.

Each is a folder that `build.load` takes, its weights rounded to 16 bits. Which runs is fixed before they are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from helpers.measure.kept import stage_rounded
from helpers.study import cells
from helpers.study.cells import SOURCE_RATE
from helpers.study.checkpoints import checkpoint_at
from helpers.study.profiles import FAIR
from helpers.study.published import store
from helpers.study.records import RunStore, is_finished, own_table
from helpers.study.spec import RunSpec

KEPT = Path("helpers/checkpoints")
STEM = 5
CELLS = ("sft-answer direct", "rft direct", "sft-answer plain", "rft think", "sft-voice think", "sft-expert sentences")
"""The cells whose runs at `SOURCE_RATE` on the base of `STEM` are kept."""


def chosen() -> list[RunSpec]:
    """The runs whose checkpoints are kept."""
    return [cells.get_cell(name).at(STEM, SOURCE_RATE) for name in CELLS]


def keep_checkpoints(specs: Iterable[RunSpec] = (), place: Path = KEPT, runs: RunStore | None = None) -> list[Path]:
    """Keep the `shown_steps` of each run (`chosen()` where none are named) that is finished here; the folders written.

    A kept one never changes. Raises UserError where a finished run has lost its checkpoints.
    """
    made, written = runs or store(FAIR), []
    for spec in specs or chosen():
        if is_finished(made.folder(spec)):
            places = [(step, place / spec.name / f"step-{step}") for step in shown_steps(made.folder(spec), spec)]
            written += [_keep(made.checkpoints(spec), step, folder) for step, folder in places if not folder.exists()]
    return written


def shown_steps(folder: Path, spec: RunSpec) -> list[int]:
    """The evaluation at which a finished run first reached its mark, if it did, and its last step."""
    table = own_table(folder, "evaluations").to_pandas().query("task == 'puzzle' and measure == 'exact' and step > 0")
    there = table.loc[table["value"] >= spec.mark, "step"]
    return sorted({*there.iloc[:1].tolist(), int(table["step"].max())})


def _keep(checkpoints: Path, step: int, folder: Path) -> Path:
    """Round one checkpoint and move it into its place, whole."""
    return stage_rounded(checkpoint_at(checkpoints, step), folder).rename(folder)
