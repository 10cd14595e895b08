"""Where the checkpoints of a run lie, which of them are whole, and at which steps a run is evaluated.

A checkpoint is written in the folder `staged`, then sealed (size and digest of each of its files, and whose it is) and
renamed into its place. So one that stands there was complete once, and a file that changed since is noticed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from helpers.errors import UserError
from helpers.files import DamagedFile, fingerprint, json_bytes, read_json, write_file
from helpers.study.profiles import checkpoint_steps

STAGED = ".staged"
SEAL = "whole.json"
OPTIMISER = "optimizer.pt"
KEPT_STATES = 2  # a broken last checkpoint must leave one to go on from


def checkpoint_at(folder: Path, step: int | None = None) -> Path:
    """The checkpoint of a run at `step`, or at its end.

    Raises UserError where there is none (an earlier one never stands in for the end), `DamagedFile` where it is no
    longer what was saved.
    """
    steps = checkpoint_numbers(folder)
    if not steps:
        raise UserError(f"{folder} holds no checkpoint; train the source run first (--retrain makes every run).")
    if step is None:
        step = _end(folder) or steps[-1]
    if step not in steps:
        raise UserError(f"{folder} holds no checkpoint of step {step}; delete the run's folder and train it again.")
    check_whole(folder / f"checkpoint-{step}")
    return folder / f"checkpoint-{step}"


def _end(folder: Path) -> int:
    """The last step of the run whose checkpoints lie in `folder`; 0 where no spec says so.

    A run that goes until something ends where it ends: its last checkpoint is the end once the run is done.
    """
    path = folder.parent / "spec.json"
    spec = read_json(path, "restore it") if path.exists() else {}
    open_ended = "until" in dict(spec.get("extra", ())) and (folder.parent / "DONE").exists()
    return 0 if open_ended else int(spec.get("steps", 0))


def checkpoint_numbers(folder: Path) -> list[int]:
    """Steps of the saved checkpoints in a folder, ascending."""
    return sorted(int(p.name.split("-")[1]) for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit())


def settle(folder: Path, step: int, kept: Collection[int] | None = None) -> None:
    """Seal the staged checkpoint of `step` and rename it into its place; only the newest ones keep their optimiser.

    The optimiser is twice as large as the weights, and only a resume reads it. Where `kept` is given, the newest ones
    and those of these steps are all that stays.
    """
    staged, place = folder / STAGED / f"checkpoint-{step}", folder / f"checkpoint-{step}"
    files = {name: fingerprint(staged / name) for name in _files(staged)}
    seal = {"run": folder.parent.name, "step": step, "files": files}
    write_file(staged / SEAL, json_bytes(seal))
    shutil.rmtree(place, ignore_errors=True)  # of an earlier try at the same step
    os.replace(staged, place)
    for number in checkpoint_numbers(folder)[:-KEPT_STATES]:
        old = folder / f"checkpoint-{number}"
        if kept is None or number in kept:
            (old / OPTIMISER).unlink(missing_ok=True)
        else:
            shutil.rmtree(old)


def _files(checkpoint: Path) -> list[str]:
    return sorted(str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file() and p.name != SEAL)


def check_whole(checkpoint: Path) -> None:
    """Raise `DamagedFile` unless every file of a checkpoint is as it was saved, by the run whose folder it lies in.

    A forgotten optimiser is no damage.
    """
    remedy = "delete that checkpoint and train the run again"
    seal = read_json(checkpoint / SEAL, remedy)
    owner, files = checkpoint.parent.parent.name, dict(seal.get("files", {}))
    if seal.get("run") != owner:
        raise DamagedFile(f"{checkpoint} was saved by {seal.get('run')} and not by {owner}: {remedy}.")
    if f"checkpoint-{seal.get('step')}" != checkpoint.name:
        raise DamagedFile(f"{checkpoint} is the checkpoint of step {seal.get('step')}: {remedy}.")
    if strangers := [name for name in _files(checkpoint) if name not in files]:
        raise DamagedFile(f"{checkpoint / strangers[0]} was not saved with it: {remedy}.")
    for name, sealed in files.items():
        path = checkpoint / name
        if not path.exists() and name == OPTIMISER:
            continue
        if not path.is_file() or fingerprint(path) != sealed:
            raise DamagedFile(f"{path} is missing or not what was saved: {remedy}.")


def last_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """The last whole checkpoint with its full training state, and a sentence on those that were broken, if any.

    Broken ones, and all behind the one that is used, are set aside, because a resume makes them again; what a stopped
    process left staged is deleted.
    """
    shutil.rmtree(folder / STAGED, ignore_errors=True)
    found, broken = None, []
    for number in reversed(checkpoint_numbers(folder)):
        path = folder / f"checkpoint-{number}"
        try:
            check_whole(path)
        except DamagedFile as error:
            broken.append(str(error))
        else:
            if (path / OPTIMISER).exists():
                found = path
                break
        shutil.rmtree(folder / f"broken-{path.name}", ignore_errors=True)
        path.rename(folder / f"broken-{path.name}")
    goes_on = f"{found.name} is used instead" if found else "the run begins anew"
    return found, f"{len(broken)} broken and set aside, {goes_on}: {' '.join(broken)}" if broken else ""


def evaluation_steps(total: int, per_octave: int, every: int = 1) -> tuple[int, ...]:
    """When a run is evaluated and saved: every doubling at first, `per_octave` times a doubling from step 64 on.

    Runs of more than 16 steps begin with step 8: while the rate warms up little moves. All but the last are multiples
    of `every`: a run that draws for several steps at a time can only go on where it draws anew.
    """
    early = [s for s in checkpoint_steps(total, 1) if s <= 64 and (s == 0 or s >= 8 or total <= 16)]
    steps = {*early, *(s for s in checkpoint_steps(total, per_octave) if s >= 64 or s == total)}
    return tuple(sorted({min(total, -(-step // every) * every) for step in steps}))
