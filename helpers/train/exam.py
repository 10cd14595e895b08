"""The marks of a model along a run: the puzzle and every prior task, as the run asks for them and in other ways."""

from __future__ import annotations

from typing import Any

from helpers.model.build import Loaded
from helpers.model.evaluate import score_battery, score_puzzles, solve
from helpers.model.examine import Outcomes, examine
from helpers.study.arms import get_arm
from helpers.study.profiles import GRIDS
from helpers.study.spec import RunSpec
from helpers.train.engine import Engine, identity_columns
from helpers.train.few import SHOWN, recovered
from helpers.world import answers, seeds
from helpers.world.battery import SIDE
from helpers.world.boards import LEARNED, Boards, held_out_boards, learned_boards
from helpers.world.forms import HELD_OUT, Asked
from helpers.world.puzzles import PuzzleSpec
from helpers.world.ways import Way

Rows = dict[str, list[dict[str, Any]]]
"""Rows to append to a record, by table."""
SIZES = (SIDE, 96)  # pixels of the prior pictures that bases are taught on
FORMS: tuple[Asked, ...] = ("plain", "think", "direct")
SAID_BOARDS, SAID_ITEMS = 12, 2  # whose completions are kept: of the boards, and of each prior task


def evaluate(engine: Engine, step: int, full: bool) -> Rows:
    """Rows of evaluations for the model as it is, and of outcomes where the settings ask for other ways.

    `full`: with all boards and items and, of the other ways, every one; else, and where the settings are brief, only
    the way in which the run asks.
    """
    engine.model.eval()
    rows = _in_ways(engine, step, full) if engine.settings.ways else {"evaluations": _plainly(engine, step, full)}
    engine.model.train()
    return rows


def _plainly(engine: Engine, step: int, full: bool) -> list[dict[str, Any]]:
    """The puzzle, then every prior task, both in the one plain way."""
    spec, settings = engine.spec, engine.settings
    boards, n = (settings.final_tests, settings.final_battery) if full else (settings.puzzle_tests, settings.battery)
    tests = held_out_boards(spec.puzzle, boards, pictures=spec.pictures).asking(spec.asked, seeds.HELD_OUT)
    solved = score_puzzles(engine.model, engine.processor, tests, spec.max_completion_length)
    marks = {"puzzle": (solved, boards)}
    marks |= {task: (own, n) for task, own in score_battery(engine.model, engine.processor, n).items()}
    return _mean_rows(spec, step, marks)


def _mean_rows(spec: RunSpec, step: int, marks: dict[str, tuple[dict[str, float], int]]) -> list[dict[str, Any]]:
    common = identity_columns(spec, step)
    return [
        common | {"task": task, "measure": measure, "value": value, "n": n}
        for task, (means, n) in marks.items()
        for measure, value in means.items()
    ]


def own_way(spec: RunSpec) -> Way:
    """The way in which a run's prior tasks are asked: for the run's form, on pictures as large as its boards."""
    return Way(spec.asked, size=spec.size if spec.size in SIZES else SIDE)


def other_ways(spec: RunSpec) -> list[Way]:
    """Every other way: the other forms, held-out wordings, the other size, and with the answer begun for the model."""
    own = own_way(spec)
    ways = [Way(asked, size=own.size) for asked in FORMS if asked != spec.asked]
    ways += [Way(spec.asked, True, own.size)] if spec.asked in HELD_OUT else []
    ways += [Way(spec.asked, size=size) for size in SIZES if size != own.size]
    return ways + [Way(spec.asked, size=own.size, opening=opening) for opening in ("<think>", "<answer>")]


def transfers(spec: RunSpec) -> dict[str, PuzzleSpec]:
    """Puzzles of the study that a run was not taught and has room to answer, by the name that they have as a task.

    Mixed tiles only: what is asked of a run on turned ones is what becomes, or would come, of the jigsaw.
    """
    room = spec.puzzle.tiles + spec.turned
    return {f"puzzle {name}": other for name, other in GRIDS.items() if not other.turned and other.tiles < room}


def _in_ways(engine: Engine, step: int, full: bool) -> Rows:
    spec, settings, loaded = engine.spec, engine.settings, Loaded(engine.model, engine.processor)
    own, n = own_way(spec), settings.battery
    prior = examine(*loaded, own, n, choose=full)
    full = full and not settings.brief
    exact, boards = _solved(engine, step, spec.asked)
    means = {"puzzle": (exact, settings.puzzle_tests)} | {task: (marks.means, n) for task, marks in prior.items()}
    outcomes = [boards, *_item_rows(step, own, prior)]
    for task in (*(transfers(spec) if full or spec.after else ()), *([LEARNED] if spec.pictures else [])):
        found, boards = _solved(engine, step, spec.asked, task)
        means[task], outcomes = (found, settings.puzzle_tests), [*outcomes, boards]
    if full:
        for way in other_ways(spec):
            # the forms are compared by likelihood too; the rest is about writing
            choose = not way.opening and not way.held_out and way.size == own.size
            outcomes += _item_rows(step, way, examine(*loaded, way, n, choose=choose))
        outcomes += [_solved(engine, step, asked)[1] for asked in FORMS if asked != spec.asked]
        for shown in SHOWN if get_arm(spec.arm).trains else ():  # else there is nothing to bring back
            with recovered(loaded, shown, spec.asked):
                outcomes += _item_rows(step, own, examine(*loaded, own, n), shown)
    return {"evaluations": _mean_rows(spec, step, means), "outcomes": outcomes}


def _tests(spec: RunSpec, task: str, n: int) -> Boards:
    """The boards behind a task: held-out ones, of the run's puzzle or another, or the learned pictures cut anew."""
    if task == LEARNED:
        return learned_boards(spec.puzzle, n, spec.pictures)
    return held_out_boards(transfers(spec).get(task, spec.puzzle), n, pictures=spec.pictures)


def _solved(engine: Engine, step: int, asked: Asked, task: str = "puzzle") -> tuple[dict[str, float], dict[str, Any]]:
    """Means over held-out boards that ask for a form, and their row of outcomes. `task`: or of `transfers`."""
    spec, n = engine.spec, engine.settings.puzzle_tests
    tests = _tests(spec, task, n).asking(asked, seeds.HELD_OUT)
    texts, scores = zip(*solve(engine.model, engine.processor, tests, spec.max_completion_length), strict=True)
    right, kept = [s.exact == 1.0 for s in scores], [s.format == 1.0 for s in scores]
    means = {
        "exact": sum(right) / n,
        "hit": sum(s.hit for s in scores) / n,
        "kept": sum(kept) / n,
        "format_failure": sum(s.reason != answers.REASONS[0] for s in scores) / n,
    }
    way = Way(asked, size=tests.spec.size).columns
    marks = {"right": right, "kept": kept, "likely": None, "said": list(texts[:SAID_BOARDS])}
    return means, {"step": step, "task": task, "regained": 0} | way | marks


def _item_rows(step: int, way: Way, prior: dict[str, Outcomes], shown: int = 0) -> list[dict[str, Any]]:
    return [
        {"step": step, "task": task, "regained": shown, **way.columns}
        | {"right": list(marks.right), "kept": list(marks.kept), "likely": list(marks.likely) or None}
        | {"said": list(marks.said[:SAID_ITEMS])}
        for task, marks in prior.items()
    ]
