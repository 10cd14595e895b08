"""What a reader may train: the arms that need no other run, what the studies give them, and a run on own pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import UserError
from helpers.files import digest
from helpers.study import cells
from helpers.study.arms import REGISTRY, get_arm, room_of
from helpers.study.bases import BASES
from helpers.study.profiles import GRIDS, get_profile
from helpers.study.spec import Extra, RunSpec
from helpers.world.album import Album, keep, open_album
from helpers.world.forms import ASKED, Asked
from helpers.world.puzzles import PuzzleSpec, read_grid

TILE = 32  # pixels a side, as in the studies: two tokens of the small model


def arms() -> list[str]:
    """The arms that can be trained here and now: those that learn from no other run."""
    return [name for name, arm in REGISTRY.items() if arm.trains and not arm.source]


def forms(base: str) -> tuple[Asked, ...]:
    """The forms that a base can be asked for; the shipped one was never asked for any."""
    return ("plain",) if base == "shipped" else ASKED


def usual(arm: str, base: str) -> tuple[Asked, int, float]:
    """Form, batch size and weight of the KL term that the studies give an arm on a base."""
    entry = get_arm(arm)
    otherwise = 16 if entry.family == "rft" else 32, float(entry.kl == "needed")
    if base == "shipped":
        lines = {line.arm: line for line in get_profile("cpu").budgets}
        return "plain", otherwise[0], lines[arm].beta if arm in lines else otherwise[1]
    own = [cell for cell in cells.CELLS.values() if cell.arm == arm and not (cell.label or cell.after)]
    first = next((cell for cell in own if cell.grid == "2x2" and cell.kind == "two-form"), None)
    if first is None:
        return "think" if entry.written == "think" else "direct", *otherwise
    return first.asked, first.batch_size, first.beta


def kl_weights() -> list[float]:
    """Every weight of the KL term that the studies give an arm, and 0 and 1."""
    return sorted({0.0, 1.0} | {usual(arm, base)[2] for arm in arms() for base in BASES})


@dataclass(frozen=True)
class Own:
    """A run of one's own, as notebook 14 is given it.

    `pictures`: a folder, or "" for the packaged photographs; `grid`: "2x2", "3x3", "turned", or rows and columns as in
    "2x3"; `reward_weights`: of (hit, exact, form), numbers or a text as in "1 1 1"; `base`: a base of the suite or the
    folder of a model. The weight of the KL term is what the studies give the arm.
    """

    pictures: str = ""
    grid: str = "2x2"
    form: str = "direct"
    arm: str = "sft-answer"
    rate: float = 2e-4
    seed: int = 0
    reward_weights: str | Sequence[float] = (1.0, 1.0, 1.0)
    base: str = "two-form-5"
    steps: int = 280

    def puzzle(self) -> PuzzleSpec:
        """Its puzzles. Raises UserError for a grid that is none."""
        if self.grid in GRIDS:
            return GRIDS[self.grid]
        found = re.fullmatch(r"([1-9])x([1-9])", str(self.grid))
        if not found:
            raise UserError(f"GRID is {self.grid!r}: choose 2x2, 3x3, turned, or rows and columns as in 2x3.")
        return read_grid(f"{self.grid}@{TILE * max(map(int, found.groups()))}")

    def album(self) -> Album:
        """Its pictures. Raises UserError where there are not two; what cannot be read is left out with a warning."""
        puzzle = self.puzzle()
        return open_album(self.pictures, max(puzzle.rows, puzzle.cols))

    def spec(self, album: Album, steps: int | None = None) -> RunSpec:
        """The run, its pictures kept where it will find them; `steps` in place of its own.

        Raises UserError for what cannot be trained on own pictures, one sentence each.
        """
        if self.arm not in arms():
            get_arm(self.arm)
            known = ", ".join(arms())
            raise UserError(f"ARM {self.arm} learns from another run, or not at all: choose one of {known}.")
        base, weights = self._start()
        if self.form not in forms(base):
            raise UserError(f"FORM is {self.form!r}: base {base} can be asked for {', '.join(forms(base))}.")
        puzzle, (_, batch_size, beta) = self.puzzle(), usual(self.arm, base)
        return RunSpec(
            arm=self.arm, seed=self.seed, steps=self.steps if steps is None else steps, learning_rate=self.rate,
            batch_size=batch_size, beta=beta, rows=puzzle.rows, cols=puzzle.cols, size=puzzle.size,
            turned=puzzle.turned, max_completion_length=room_of(self.arm, self.form, puzzle.tiles),
            reward_weights=self._rewards(),
            base=base, asked=self.form, extra=weights, pictures=keep(album),
        )  # fmt: skip

    def _start(self) -> tuple[str, Extra]:
        """The base; for a folder its full path, and a digest of its weights, which makes another model another run."""
        if self.base in BASES:
            return self.base, ()
        folder = Path(self.base).expanduser().resolve()
        files = sorted(folder.glob("*.safetensors"))
        if not files or not (folder / "config.json").is_file():
            known = ", ".join(BASES)
            raise UserError(f"BASE {self.base!r} is neither one of {known} nor a folder with config.json and weights.")
        return str(folder), (("weights", "-".join(digest(file)[:10] for file in files)),)

    def _rewards(self) -> tuple[float, ...]:
        given = self.reward_weights
        try:
            words = re.split(r"[\s,]+", given.strip(" ()[]")) if isinstance(given, str) else given
            return tuple(float(word) for word in words)
        except (TypeError, ValueError):
            raise UserError(f"REWARD_WEIGHTS is {given!r}: write three numbers, for hit, exact, form.") from None
