"""The data of the view `reward`: all 24 answers to a board of four tiles, and groups that a base wrote.

The page computes rewards and advantages itself; tests hold it to `answers.score` and `live.advantages`.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd

from helpers.errors import UserError
from helpers.play import page
from helpers.play.page import Json, View
from helpers.study.arms import get_arm
from helpers.study.published import PUBLISHED, load_published, published_specs
from helpers.study.spec import RunSpec
from helpers.train.recorder import EPSILON
from helpers.world import answers, seeds
from helpers.world.boards import Boards, make_boards
from helpers.world.puzzles import PuzzleSpec, draw_boards, undo

PICTURES = 12  # recorded groups that stand in the page with their picture; of the others only the scores count
PUZZLE = PuzzleSpec()


def study_view() -> View:
    """The designer, with the groups that the published runs of RFT drew in their first step, when each was the base."""
    rows, known = load_published(PUBLISHED, "completions"), published_specs(PUBLISHED)
    own = {name: spec for name, spec in known.items() if get_arm(spec.arm).data == "own"}
    return view(rows[rows["step"] == 1], own)


def view(rows: pd.DataFrame, known: dict[str, RunSpec]) -> View:
    """The designer, with recorded groups: `rows` of the table of completions, and the specs of their runs by name.

    Raises UserError where no group is on a board of 2 x 2 tiles of the usual size.
    """
    taken = rows[rows["run"].isin([name for name, spec in known.items() if spec.puzzle == PUZZLE])]
    if taken.empty:
        raise UserError("There are no recorded groups on 2 x 2 boards: publish runs of RFT, or choose others.")
    groups = [_group(known[run], number, own) for (run, number), own in taken.groupby(["run", "puzzle_id"])]
    groups = _in_turn(groups)
    pictures = [_uncut(known[str(group["run"])], int(group["number"])) for group in groups[:PICTURES]]
    return View("reward", "Reward and advantage: what a group of answers teaches", 732, {
        "placements": [list(placement) for placement in permutations(range(1, PUZZLE.tiles + 1))],
        "rows": PUZZLE.rows, "cols": PUZZLE.cols, "epsilon": EPSILON, "pictures": pictures, "groups": groups,
        "weights": list(known[str(groups[0]["run"])].reward_weights),
    })  # fmt: skip


def _group(spec: RunSpec, number: int, rows: pd.DataFrame) -> dict[str, Json]:
    """One recorded group: its board's number and truth, what each completion answers (or null), and whether in form."""
    (truth,) = _board(spec, number).placements.tolist()
    read = [answers.parse(text, len(truth)).placement for text in rows["completion"]]
    form = [int(value) for value in rows["format"]]
    return {"run": spec.name, "seed": spec.seed, "number": int(number), "truth": truth, "form": form,
            "said": [placement and list(placement) for placement in read]}  # fmt: skip


def _in_turn(groups: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """The first group of each run, then the second of each, and so on."""
    runs = [group["run"] for group in groups]
    turn = {i: runs[:i].count(run) for i, run in enumerate(runs)}
    return [groups[i] for i in sorted(turn, key=turn.__getitem__)]


def _board(spec: RunSpec, number: int) -> Boards:
    return make_boards(spec.puzzle, [number], seeds.training(spec.seed))


def _uncut(spec: RunSpec, number: int) -> str:
    """The picture that a board was cut from."""
    board = _board(spec, number)
    back = np.array([undo(spec.puzzle, placement) for placement in board.placements.tolist()])
    return page.jpeg(draw_boards(board.pixels, spec.puzzle, back)[0], quality=92)
