"""Where the checkpoints of a run lie, which of them are whole, and at which steps a run is evaluated.

A checkpoint is written in the folder `staged`, then sealed (size and digest of each of its files, and whose it is) and
renamed into its place. So one that stands there was complete once, and a file that changed since is noticed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from helpers.errors import UserError
from helpers.files import DamagedFile, json_bytes, read_json, write_file
from helpers.study.profiles import checkpoint_steps

STAGED = ".staged"
SEAL = "whole.json"
OPTIMISER = "optimizer.pt"
KEPT_STATES = 2  # a broken last checkpoint must leave one to go on from


def checkpoint_at(folder: Path, step: int | None = None) -> Path:
    """The checkpoint of a run at `step` (the nearest one), or its last.

    Raises UserError where there is none, `DamagedFile` where it is no longer what was saved.
    """
    steps = checkpoint_numbers(folder)
    if not steps:
        raise UserError(f"{folder} holds no checkpoint; train the source run first (--retrain makes every run).")
    path = folder / f"checkpoint-{steps[-1] if step is None else min(steps, key=lambda s: abs(s - step))}"
    check_whole(path)
    return path


def checkpoint_numbers(folder: Path) -> list[int]:
    """Steps of the saved checkpoints in a folder, ascending."""
    return sorted(int(p.name.split("-")[1]) for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit())


def settle(folder: Path, step: int) -> None:
    """Seal the staged checkpoint of `step` and rename it into its place; only the newest ones keep their optimiser.

    The optimiser is twice as large as the weights, and only a resume reads it.
    """
    staged, place = folder / STAGED / f"checkpoint-{step}", folder / f"checkpoint-{step}"
    seal = {"run": folder.parent.name, "files": {name: _seal(staged / name) for name in _files(staged)}}
    write_file(staged / SEAL, json_bytes(seal))
    shutil.rmtree(place, ignore_errors=True)  # of an earlier try at the same step
    os.replace(staged, place)
    for number in checkpoint_numbers(folder)[:-KEPT_STATES]:
        (folder / f"checkpoint-{number}" / OPTIMISER).unlink(missing_ok=True)


def _files(checkpoint: Path) -> list[str]:
    return sorted(str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file() and p.name != SEAL)


def _seal(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def check_whole(checkpoint: Path) -> None:
    """Raise `DamagedFile` unless every file of a checkpoint is as it was saved, by the run whose folder it lies in.

    A forgotten optimiser is no damage.
    """
    remedy = "delete that checkpoint and train the run again"
    seal = read_json(checkpoint / SEAL, remedy)
    owner = checkpoint.parent.parent.name
    if seal.get("run") != owner:
        raise DamagedFile(f"{checkpoint} was saved by {seal.get('run')} and not by {owner}: {remedy}.")
    for name, sealed in dict(seal.get("files", {})).items():
        path = checkpoint / name
        if not path.exists() and name == OPTIMISER:
            continue
        if not path.is_file() or _seal(path) != sealed:
            raise DamagedFile(f"{path} is missing or not what was saved: {remedy}.")


def last_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """The last whole checkpoint with its full training state, and a sentence on those that were broken, if any.

    Broken ones, and what a stopped process left staged, are set aside or deleted: a resume makes them again.
    """
    shutil.rmtree(folder / STAGED, ignore_errors=True)
    notes = []
    for number in reversed(checkpoint_numbers(folder)):
        path = folder / f"checkpoint-{number}"
        try:
            check_whole(path)
        except DamagedFile as error:
            notes.append(f"{path.name} was set aside and the one before it is used: {error}")
            shutil.rmtree(folder / f"broken-{path.name}", ignore_errors=True)
            path.rename(folder / f"broken-{path.name}")
            continue
        if (path / OPTIMISER).exists():
            return path, " ".join(notes)
    return None, " ".join(notes)


def evaluation_steps(total: int, per_octave: int) -> tuple[int, ...]:
    """When a run is evaluated and saved: every doubling at first, `per_octave` times a doubling from step 64 on.

    Runs of more than 16 steps begin with step 8: while the rate warms up little moves.
    """
    early = [s for s in checkpoint_steps(total, 1) if s <= 64 and (s == 0 or s >= 8 or total <= 16)]
    return tuple(sorted({*early, *(s for s in checkpoint_steps(total, per_octave) if s >= 64 or s == total)}))
