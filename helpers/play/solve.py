"""Solve it yourself: boards to put right by hand, beside what the models said to the same ones (`web/solve.js`).

No board starts with a placement that is its own inverse, so that placement and order differ on each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.errors import UserError
from helpers.play import tries
from helpers.play.page import Json, View, look, numbers, webp
from helpers.play.tries import DRAWN, ROUNDS, Attempt, Solver, photographs, published, solvers, telling_boards
from helpers.world import puzzles
from helpers.world.boards import Boards
from helpers.world.pictures import Picture, centred
from helpers.world.puzzles import PuzzleSpec

HEIGHT = 721
GRIDS = {"2x2": PuzzleSpec(), "2x3": PuzzleSpec(2, 3, 96), "3x3": PuzzleSpec(3, 3, 96)}
_SIDE = 216  # pixels of a photograph in the page: a multiple of every grid's rows and columns


def game(boards: int = DRAWN) -> View:
    """The view, with so many drawn boards of 2 x 2 tiles (1 to 100) and a third as many of each other grid.

    On boards of 2 x 2 the models have their say (`tries.published`). Raises UserError for another number.
    """
    if not 1 <= boards <= 100:
        raise UserError(f"{boards} boards cannot be shown: choose 1 to 100.")
    players = solvers()
    data = {
        "grids": {name: _facts(spec) for name, spec in GRIDS.items()},
        "solvers": [_about(player) for player in players],
        "sources": [_drawn(boards, players), _photographs(players)],
    }
    return View("solve", "Solve it yourself: a jigsaw puzzle, and what the models say to it", HEIGHT, data)


def _facts(spec: PuzzleSpec) -> dict[str, Json]:
    return {
        "rows": spec.rows,
        "cols": spec.cols,
        "placements": spec.n_placements,
        "hit": spec.chance_hit,
        "exact": spec.chance_exact,
    }


def _about(solver: Solver) -> dict[str, Json]:
    return {"name": solver.name, "asked": solver.asked, **look(solver.arm)}


def _drawn(n: int, players: Sequence[Solver]) -> dict[str, Json]:
    """Drawn scenes: the boards that runs are tested on, their pictures put together again."""
    found = {name: telling_boards(spec, n if name == "2x2" else max(1, n // 3)) for name, spec in GRIDS.items()}
    shown: list[Json] = []
    lists: dict[str, Json] = {}
    for name, boards in found.items():
        made = [published(player, "drawn", boards) for player in players] if name == "2x2" else []
        lists[name] = _listed(range(len(shown), len(shown) + len(boards)), boards.placements, made)
        shown += [{"image": webp(whole), "words": "a drawn scene", "sharp": True} for whole in whole_pictures(boards)]
    return {"name": "drawn scenes", "pictures": shown, "boards": lists}


def whole_pictures(boards: Boards) -> np.ndarray:
    """The pictures that boards were cut from (N, H, W, 3)."""
    order = [puzzles.undo(boards.spec, placement) for placement in boards.placements.tolist()]
    return puzzles.draw_boards(boards.pixels, boards.spec, np.array(order))


def _photographs(players: Sequence[Solver]) -> dict[str, Json]:
    """Packaged photographs whose licence is known, with boards of 2 x 2 tiles; the page shuffles the other grids."""
    photos, boards = photographs(), tries.photograph_boards()
    made = [published(player, "photographs", boards) for player in players]
    listed = _listed([*range(len(photos))] * ROUNDS, boards.placements, made)
    return {"name": "photographs", "pictures": [_photo(photo) for photo in photos], "boards": {"2x2": listed}}


def _photo(photo: Picture) -> dict[str, Json]:
    facts = photo.facts
    words = f"{facts['shows']} ({facts['credit']}, {facts['licence']})"
    return {"image": webp(np.asarray(centred(photo.image, (_SIDE, _SIDE))), 80), "words": words, "sharp": False}


def _listed(pictures: Sequence[int], placements: np.ndarray, made: Sequence[Sequence[Attempt]]) -> list[Json]:
    """Boards for the page: number of the picture, placement, and each model's attempt where there is one."""
    by_board = zip(*made, strict=True) if made else [()] * len(placements)
    rows = zip(pictures, placements.tolist(), by_board, strict=True)
    return [{"picture": i, "placement": p, "tries": [_attempt(one) for one in own]} for i, p, own in rows]


def _attempt(one: Attempt) -> dict[str, Json]:
    score = one.score
    return {"said": one.said, "terms": [score.hit, score.exact, score.format], "logp": numbers([one.logp])[0]}
