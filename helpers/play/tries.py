"""The models that there are try boards: what each says, whether it is right, how probable it finds the true answer.

What they said to the boards of `play.solve` is published (`tries.csv`, made by `python -m helpers publish tries`): a
page is there at once. Of a model or board that is not in it, the tries are made on the spot, half a second a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.errors import UserError
from helpers.measure.kept_runs import kept
from helpers.model.build import Loaded
from helpers.model.evaluate import solve
from helpers.model.score import completion_logps
from helpers.play.models import BASE, loaded
from helpers.show.style import spaced
from helpers.study.arms import get_arm
from helpers.world import answers, puzzles, seeds
from helpers.world.boards import Boards, held_out_boards
from helpers.world.forms import Asked, written_as
from helpers.world.pictures import Picture, packaged_photos
from helpers.world.puzzles import PuzzleSpec

PUZZLE = PuzzleSpec()  # what the kept models were taught
TRIES = Path(__file__).parent / "tries.csv"
COLUMNS = ["model", "asked", "boards", "number", "placement", "said", "logp"]
DRAWN, ROUNDS = 24, 2  # drawn boards that are published, and how often each photograph is shuffled
_MANY = 200  # held-out boards that are looked through for those that can be shown
_STRIDE = 100  # between the numbers of one photograph's shuffle and the next one's


@dataclass(frozen=True)
class Solver:
    """A model and the form that it is asked in, as it was in its training. `source`: what `build.load` takes."""

    arm: str
    asked: Asked
    source: str

    @property
    def name(self) -> str:
        """How a reader knows it: "RFT"."""
        return get_arm(self.arm).spoken or self.arm

    @property
    def model(self) -> str:
        """The folder of its weights, which says which model it is wherever that lies."""
        return Path(self.source).name


@dataclass(frozen=True)
class Attempt:
    """A greedy completion with its score, and the log-prob (nats) of the true answer behind the same think."""

    said: str
    score: answers.Score
    logp: float

    @property
    def reward(self) -> float:
        """Hit rate + exact match + format, 0 to 3."""
        return self.score.hit + self.score.exact + self.score.format


def solvers() -> list[Solver]:
    """The kept ends of runs, each behind its base, form by form; a form that none is asked in is left out."""
    ends = [Solver(spec.arm, spec.asked, str(folder)) for spec, folder in kept().values()]
    forms = dict.fromkeys(end.asked for end in ends) or {"direct": None}
    bases = {asked: Solver("base", asked, BASE) for asked in forms}
    return [solver for asked in forms for solver in (bases[asked], *(end for end in ends if end.asked == asked))]


def attempts(solver: Solver, boards: Boards) -> list[Attempt]:
    """What one model makes of boards (2 x 2, 64 pixels), asked in its own form."""
    asking = boards.asking(solver.asked, seeds.HELD_OUT)
    model = loaded(solver.source)
    solved = solve(*model, asking)
    logps = _true_logps(model, asking, [said for said, _ in solved])
    return [Attempt(said, score, logp) for (said, score), logp in zip(solved, logps, strict=True)]


def _true_logps(model: Loaded, boards: Boards, said: Sequence[str]) -> list[float]:
    """Log-prob of each board's true answer, end token included, behind what was thought before the answer."""
    true = [f"<answer>{spaced(placement)}</answer>" for placement in boards.placements]
    thoughts = [text.partition("<answer>")[0] for text in said]
    pairs = [[answer, thought + answer] for answer, thought in zip(true, thoughts, strict=True)]
    rows = completion_logps(*model, boards.prompted(), pairs)
    # A tag is a token of its own, so the answer is as many tokens behind a think as alone.
    return [float(behind[-len(alone) :].sum()) for alone, behind in rows]


def telling(spec: PuzzleSpec, start: int = 0) -> puzzles.Placement:
    """The first shuffle from number `start` on that is not its own inverse: placement and order differ there.

    Raises UserError for two tiles, which have no such placement.
    """
    if spec.tiles == 2:
        raise UserError("Two tiles have one placement, which is its own inverse: take more tiles.")
    return next(found for i in count(start) if is_telling(found := puzzles.shuffle(spec, i)))


def is_telling(placement: Sequence[int]) -> bool:
    """Whether placement and order differ."""
    return puzzles.invert(placement) != tuple(placement)


def cut(images: Sequence[Image.Image], placements: Sequence[puzzles.Placement]) -> Boards:
    """Boards of 2 x 2 tiles as the models know them, one of each picture; UserError for one that is too small."""
    boards = [puzzles.make_board(*pair) for pair in ((i, PUZZLE, p) for i, p in zip(images, placements, strict=True))]
    return Boards(PUZZLE, np.stack([np.asarray(board) for board in boards]), np.array(placements))


def telling_boards(spec: PuzzleSpec, n: int) -> Boards:
    """The first `n` held-out boards of a spec whose placement is not its own inverse (fewer where there are fewer)."""
    looked = held_out_boards(spec, min(_MANY, 3 * n))
    chosen = [i for i, placement in enumerate(looked.placements.tolist()) if is_telling(placement)]
    return looked.only(chosen[:n])


def photographs() -> list[Picture]:
    """The packaged photographs whose licence is known."""
    return [photo for photo in packaged_photos() if photo.facts["licence"] != "not stated"]


def photograph_boards() -> Boards:
    """`ROUNDS` boards of each of `photographs`, 2 x 2 tiles: all photographs once, then all again."""
    images = [photo.image for photo in photographs()] * ROUNDS
    return cut(images, [telling(PUZZLE, _STRIDE * i) for i in range(len(images))])


def published(solver: Solver, name: str, boards: Boards) -> list[Attempt]:
    """What a model made of the boards called `name`: as published where all of them are, else tried on the spot."""
    table = _published()
    keys = [(solver.model, solver.asked, name, i, spaced(p)) for i, p in enumerate(boards.placements)]
    if not all(key in table for key in keys):
        return attempts(solver, boards)
    placements = boards.placements.tolist()
    written = written_as(solver.asked)
    found = [(answers.score(table[key][0], p, written), *table[key]) for key, p in zip(keys, placements, strict=True)]
    return [Attempt(said, score, logp) for score, said, logp in found]


@lru_cache(maxsize=1)
def _published() -> Mapping[tuple, tuple[str, float]]:
    rows = pd.read_csv(TRIES) if TRIES.is_file() else pd.DataFrame(columns=COLUMNS)
    return {tuple(row[:5]): (row[5], row[6]) for row in rows[COLUMNS].itertuples(index=False, name=None)}


def publish_tries(file: Path = TRIES) -> int:
    """Let every model there is try the drawn boards and photographs, and write down what each says; rows written."""
    sets = {"drawn": telling_boards(PUZZLE, DRAWN), "photographs": photograph_boards()}
    rows = [
        (solver.model, solver.asked, name, i, spaced(placement), one.said, float(f"{one.logp:.4g}"))
        for solver in solvers()
        for name, boards in sets.items()
        for i, (placement, one) in enumerate(zip(boards.placements, attempts(solver, boards), strict=True))
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(file, index=False)
    return len(rows)
