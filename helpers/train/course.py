"""Which board, or which sample of a corpus, a run meets at which step where it is taught in stages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.errors import UserError
from helpers.study.spec import RunSpec


@dataclass(frozen=True)
class Course(Sequence[int]):
    """The number of the sample in every row of a run's data, which is read from its first row to its last.

    `starts`: the first row of each stage. `sizes`: how many samples each has, numbered through; within their stage they
    come again. Raises UserError where a stage has none.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    rows: int

    def __post_init__(self) -> None:
        if not all(self.sizes):
            raise UserError("A stage of the curriculum has no completion: sample more boards, or leave the stage out.")

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> int:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")  # ends an iteration
        stage = bisect_right(self.starts, row) - 1
        return sum(self.sizes[:stage]) + (row - self.starts[stage]) % self.sizes[stage]


def course(spec: RunSpec, sizes: Sequence[int], steps: int) -> Course | None:
    """The course of a run that takes at most `steps` steps, its stages having `sizes` samples; None without stages.

    A batch of every step is of one stage.
    """
    if not spec.easier:
        return None
    at_once = int(spec.settings.get("steps_per_generation", 1))
    rows = -(-steps // at_once) * at_once * spec.batch_size  # TRL leaves out what no longer fills what is drawn at once
    return Course(tuple(start * spec.batch_size for start in spec.starts), tuple(sizes), rows)
