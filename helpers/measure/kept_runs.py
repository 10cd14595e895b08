"""The models that readers play with: the ends of four runs of the study on several bases.

Each is a folder that `build.load` takes, its weights rounded to 16 bits. Which runs is fixed before they are made; they
are four, because a binary stays in the history for ever (3 MB each).
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
from helpers.study.records import RunStore, is_finished
from helpers.study.spec import RunSpec

KEPT = Path("helpers/checkpoints")
STEM = 5
CELLS = ("sft-answer direct", "rft direct", "rft think", "sft-rollout think")
"""The cells whose runs at `SOURCE_RATE` on the base of `STEM` are kept."""


def chosen() -> list[RunSpec]:
    """The runs whose ends are kept."""
    return [cells.get_cell(name).at(STEM, SOURCE_RATE) for name in CELLS]


def keep_checkpoints(specs: Iterable[RunSpec] = (), place: Path = KEPT, runs: RunStore | None = None) -> list[Path]:
    """Keep the end of each run (`chosen()` where none are named) that is finished here; the folders written.

    A kept one never changes. Raises UserError where a finished run has lost its checkpoints.
    """
    made, written = runs or store(FAIR), []
    for spec in specs or chosen():
        folder = place / spec.name
        if is_finished(made.folder(spec)) and not folder.exists():
            written.append(stage_rounded(checkpoint_at(made.checkpoints(spec)), folder).rename(folder))
    return written


def kept(place: Path = KEPT) -> dict[str, tuple[RunSpec, Path]]:
    """Of the chosen runs those whose end is kept, by the name of their cell: the spec and the folder."""
    there = zip(CELLS, chosen(), strict=True)
    return {cell: (spec, place / spec.name) for cell, spec in there if (place / spec.name).is_dir()}
