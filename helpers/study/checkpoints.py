"""Where the checkpoints of a run lie, which is the last, and at which steps a run is evaluated."""

from __future__ import annotations

from pathlib import Path

from helpers.errors import UserError
from helpers.study.profiles import checkpoint_steps


def checkpoint_at(folder: Path, step: int | None = None) -> Path:
    """The checkpoint of a run at `step` (the nearest one), or its last. Raises UserError where there is none."""
    steps = checkpoint_numbers(folder)
    if not steps:
        raise UserError(f"{folder} holds no checkpoint; train the source run first (--retrain makes every run).")
    return folder / f"checkpoint-{steps[-1] if step is None else min(steps, key=lambda s: abs(s - step))}"


def checkpoint_numbers(folder: Path) -> list[int]:
    """Steps of the saved checkpoints in a folder, ascending."""
    return sorted(int(p.name.split("-")[1]) for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit())


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that holds a full training state, or None."""
    paths = [folder / f"checkpoint-{number}" for number in checkpoint_numbers(folder)]
    # Both are written after the weights, so a kill in between leaves none; old optimisers are forgotten on purpose.
    whole = [p for p in paths if (p / "trainer_state.json").exists() and (p / "optimizer.pt").exists()]
    return whole[-1] if whole else None


def evaluation_steps(total: int, per_octave: int) -> tuple[int, ...]:
    """When a run is evaluated and saved: every doubling at first, `per_octave` times a doubling from step 64 on.

    Runs of more than 16 steps begin with step 8: while the rate warms up little moves.
    """
    early = [s for s in checkpoint_steps(total, 1) if s <= 64 and (s == 0 or s >= 8 or total <= 16)]
    return tuple(sorted({*early, *(s for s in checkpoint_steps(total, per_octave) if s >= 64 or s == total)}))


def forget_old_optimisers(folder: Path, step: int) -> None:
    """Keep the weights of every checkpoint but the optimiser state of the last only."""
    for number in checkpoint_numbers(folder):
        if number < step:
            (folder / f"checkpoint-{number}" / "optimizer.pt").unlink(missing_ok=True)
