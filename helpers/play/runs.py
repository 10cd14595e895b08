"""Runs of the two studies as views read them: settings, curves, and what was said to a fixed dozen of each task.

The old study is one base, asked plainly, five seeds an arm; the new one has several bases and a cell in the place of
an arm. Both are read as their figures read them. In the old one a run's accuracy is what its evaluations say and its
base is the base arm; in the new one it is the rising curve nearest to them, and a run falls below its own start.
Boards are those of the jigsaw of 2 x 2: accuracies on other puzzles do not compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from helpers.errors import UserError
from helpers.play.page import Json, Pictures, dashes, jpeg, look, numbers
from helpers.show.style import FORM_DASHES
from helpers.stats.curves import rising, rows_of
from helpers.stats.front_table import own_outcomes
from helpers.study import cells
from helpers.study.arms import get_arm
from helpers.study.cells import HEADLINE, REPORTED, SOURCE_RATE, Cell, get_cell
from helpers.study.profiles import get_profile, specs
from helpers.study.published import table
from helpers.study.schema import is_prior
from helpers.study.spec import RunSpec
from helpers.world import answers, seeds
from helpers.world.battery import battery_tasks
from helpers.world.boards import Prompted, held_out_boards
from helpers.world.forms import Asked, written_as
from helpers.world.questions import Question
from helpers.world.ways import Way, items

EASY = "easy_vqa"
PUZZLE = "puzzle"


@dataclass(frozen=True)
class Record:
    """One finished run: `arm` is its cell in the new study, `place` the seed or the base that tells its twins apart.

    `outcomes`: its rows in its own way (`own_outcomes`, and the boards), by step; empty where none were recorded.
    """

    arm: str
    place: str
    spec: RunSpec
    evaluations: pd.DataFrame = field(repr=False)
    outcomes: pd.DataFrame = field(repr=False)

    @cached_property
    def exact(self) -> pd.DataFrame:
        """Exact match at every evaluated step."""
        return rows_of(self.evaluations, "exact", PUZZLE).sort_values("step")

    @cached_property
    def risen(self) -> pd.DataFrame:
        """The nearest curve to `exact` that only rises."""
        return rising(self.exact)

    @cached_property
    def prior(self) -> pd.DataFrame:
        """Score of each prior task (columns) at every evaluated step (rows)."""
        rows = rows_of(self.evaluations, "score")
        return rows[is_prior(rows)].pivot(index="step", columns="task", values="value").sort_index()


@dataclass(frozen=True)
class Study:
    """Runs that compare. `monotone`: whether an accuracy counts where the nearest rising curve reaches it.

    `start`: the base's score of each prior task; None where each run falls below its own step 0. `shown`: the arms
    that a view shows at first; `rate`: the learning rate, where there are several.
    """

    name: str
    place: str
    monotone: bool
    records: tuple[Record, ...] = field(repr=False)
    start: Mapping[str, float] | None = field(default=None, repr=False)
    shown: tuple[str, ...] = ()
    rate: float | None = None


# --- reading ------------------------------------------------------------------------------------------------


def one_base() -> Study:
    """The old study: one base, five arms of five seeds each, at the profile `cpu`. UserError without records."""
    rows, profile = table("cpu", "evaluations"), get_profile("cpu")
    known = {spec.name: spec for spec in specs(profile, profile.study_arms) if get_arm(spec.arm).trains}
    nothing = pd.DataFrame(columns=["step", "task"])
    records = [Record(s.arm, f"seed {s.seed}", s, rows[rows["run"] == name], nothing) for name, s in known.items()]
    base = rows[(rows["arm"] == "base") & (rows["measure"] == "score") & is_prior(rows)]
    there = tuple(record for record in records if len(record.evaluations))
    return Study("one form, one base", "seed", False, there, base.groupby("task")["value"].mean().to_dict())


def several_bases(stems: Iterable[int] = REPORTED, names: Iterable[str] = ()) -> Study:
    """The study on several bases: the runs that are there by now of cells (`names`; none: of all that compare).

    UserError for a name that is no cell.
    """
    chosen = {get_cell(name).name for name in names} or set(cells.CELLS)
    planned = {
        name: (cell, spec)
        for name, (cell, spec) in cells.planned(stems).items()
        if cell.name in chosen and _compares(cell, spec)
    }
    found = cells.tables_of((spec for _, spec in planned.values()), ("evaluations", "outcomes"))
    own, boards = own_outcomes(found["outcomes"], planned), _own_boards(found["outcomes"], planned)
    rows = {name: dict(iter(part.groupby("run"))) for name, part in (*found.items(), ("own", pd.concat([own, boards])))}
    records = tuple(
        Record(cell.name, spec.base, spec, rows["evaluations"][name], rows["own"].get(name, own[:0]))
        for name, (cell, spec) in planned.items()
        if name in rows["evaluations"]
    )
    shown = tuple(name for name in HEADLINE if any(record.arm == name for record in records))
    return Study("several bases", "base", True, records, None, shown, SOURCE_RATE)


def _compares(cell: Cell, spec: RunSpec) -> bool:
    """Whether a run trains on the jigsaw of 2 x 2, from its base."""
    return get_arm(cell.arm).trains and spec.grid == "2 x 2" and not spec.after


def _own_boards(outcomes: pd.DataFrame, planned: Mapping[str, tuple[Cell, RunSpec]]) -> pd.DataFrame:
    """The puzzle's rows, asked as each run asks."""
    boards = outcomes[outcomes["task"] == PUZZLE]
    return boards[boards["asked"] == boards["run"].map({name: spec.asked for name, (_, spec) in planned.items()})]


# --- items --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """A board or a prior question of those whose answers are kept: number `index` of its task, and its right answer."""

    task: str
    index: int
    prompt: Prompted
    question: Question | None = None
    placement: tuple[int, ...] = ()

    @property
    def truth(self) -> str:
        """The right answer, as it would stand in the answer tag."""
        return self.question.answer if self.question else " ".join(map(str, self.placement))

    def is_right(self, text: str, asked: Asked) -> bool:
        """Whether a completion answers it, as the run's own evaluation marked it."""
        if self.question:
            return answers.score_answer(text, self.question) == 1.0
        return answers.score(text, self.placement, written_as(asked)).exact == 1.0


def kept_items(record: Record) -> list[Item]:
    """The boards, then two questions of each prior task, to which a run's answers are kept, drawn again.

    Empty where none were kept.
    """
    first = record.outcomes[record.outcomes["step"] == 0].set_index("task")
    found = _boards(record.spec, len(first.at[PUZZLE, "said"])) if PUZZLE in first.index else []
    for task in (task for task in battery_tasks() if task in first.index):
        row = first.loc[task]
        way, kept = Way(row["asked"], size=int(row["size"])), len(row["said"])
        # Easy-VQA's are sorted as they are drawn: which come first hangs on how many there are.
        drawn = items(way, task, len(row["right"]) if task == EASY else kept)[:kept]
        found += [Item(task, index, prompt, question) for index, (prompt, question) in enumerate(drawn)]
    return found


def _boards(spec: RunSpec, n: int) -> list[Item]:
    boards = held_out_boards(spec.puzzle, n).asking(spec.asked, seeds.HELD_OUT)
    pairs = zip(boards.prompted(), boards.placements.tolist(), strict=True)
    return [Item(PUZZLE, i, prompt, placement=tuple(truth)) for i, (prompt, truth) in enumerate(pairs)]


def said(record: Record) -> dict[tuple[str, int], list[str]]:
    """What a run said to each of its `kept_items`, evaluation by evaluation, by task and number."""
    if record.outcomes.empty:
        return {}
    tasks = record.outcomes.sort_values("step").groupby("task")["said"]
    return {
        (str(task), index): [str(texts[index]) for texts in rows]
        for task, rows in tasks
        for index in range(len(rows.iloc[0]))
    }


# --- for pages ----------------------------------------------------------------------------------------------


class _Shared:
    """What the runs of a page have in common, each once: pictures, texts, and the items of each form."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}
        self.pictures = Pictures(jpeg)
        self.blocks: dict[Asked, list[dict[str, Json]]] = {}
        self.right: dict[tuple[Asked, int], set[int]] = {}

    def of(self, record: Record) -> list[list[Json]]:
        """The answers to each item: evaluation and text (its number) wherever it is another than before."""
        own, asked, spoken = kept_items(record), record.spec.asked, said(record)
        if own and asked not in self.blocks:
            self.blocks[asked] = [self._item(item) for item in own]
        pairs = ((item, spoken[item.task, item.index]) for item in own)
        return [self._changes(place, *pair, asked) for place, pair in enumerate(pairs)]

    def _item(self, item: Item) -> dict[str, Json]:
        picture = self.pictures(item.prompt.pixels)
        return {"task": item.task, "text": item.prompt.text, "picture": picture, "truth": item.truth}

    def _changes(self, place: int, item: Item, texts: Sequence[str], asked: Asked) -> list[Json]:
        changes: list[Json] = []
        for frame, text in enumerate(texts):
            number = self.texts.setdefault(text, len(self.texts))
            if not changes or changes[-1] != number:
                changes += [frame, number]
            if item.is_right(text, asked):
                self.right.setdefault((asked, place), set()).add(number)
        return changes

    def items(self) -> dict[str, Json]:
        """The items by form, each with the numbers of the texts that are right."""
        return {
            asked: [item | {"right": sorted(self.right.get((asked, place), ()))} for place, item in enumerate(block)]
            for asked, block in self.blocks.items()
        }


def payload(studies: Sequence[Study]) -> dict[str, Json]:
    """What a page of runs is made of. Raises UserError where no study has a run."""
    if not any(study.records for study in studies):
        raise UserError("There is no finished run to show: restore figures/records, or train some.")
    shared = _Shared()
    told = [_study(study, shared) for study in studies if study.records]
    return {
        "studies": told,
        "items": shared.items(),
        "texts": list(shared.texts),
        "pictures": shared.pictures.shown,
    }


def opening(study: Study) -> list[str]:
    """The two runs that a view opens with, by name: RFT and SFT on answers whose drops differ most at equal accuracy.

    Both are of one base (or seed) and one rate; the accuracy is the highest that both reach. Empty where none are.
    """
    known = [(get_arm(own.spec.arm), own) for own in study.records]
    answers_alone = [own for arm, own in known if arm.in_study and (arm.family, arm.written) == ("sft", "direct")]
    reinforced = [own for arm, own in known if arm.in_study and arm.family == "rft"]
    pairs = [
        (abs(_gap(study, one, other)), [one.spec.name, other.spec.name])
        for one, other in product(answers_alone, reinforced)
        if (one.place, one.spec.learning_rate) == (other.place, other.spec.learning_rate)
    ]
    return max(pairs, key=lambda pair: pair[0], default=(0.0, []))[1]


def _gap(study: Study, one: Record, other: Record) -> float:
    """How much more of the prior score one run has lost than another, where both reach the accuracy that both reach."""
    accuracy = min(_reached(study, own)["value"].max() for own in (one, other))
    return _lost(study, one, accuracy) - _lost(study, other, accuracy)


def _lost(study: Study, record: Record, accuracy: float) -> float:
    curve, start = _reached(study, record), study.start or record.prior.iloc[0].to_dict()
    step = curve.loc[curve["value"] >= accuracy, "step"].min()
    return float(np.mean([start[task] - score for task, score in record.prior.loc[step].items()]))


def _reached(study: Study, record: Record) -> pd.DataFrame:
    """The accuracies by which a run has reached one."""
    return record.risen if study.monotone else record.exact


def _study(study: Study, shared: _Shared) -> dict[str, Json]:
    names = dict.fromkeys(record.arm for record in study.records)
    tasks = [task for task in battery_tasks() if task in study.records[0].prior.columns]
    return {
        "name": study.name,
        "place": study.place,
        "monotone": study.monotone,
        "tasks": list(tasks),
        "rate": study.rate,
        "opening": opening(study),
        "arms": {name: arm_look(name) | {"shown": not study.shown or name in study.shown} for name in names},
        "runs": [_run(record, study, tasks, shared) for record in study.records],
    }


def arm_look(name: str) -> dict[str, Json]:
    """An arm's or a cell's look and what it is: a cell has its arm's colour and marker, its form's dash and fill."""
    if name not in cells.CELLS:
        return look(name) | {"hollow": False, "words": get_arm(name).description}
    cell = get_cell(name)
    own = {"dash": dashes(FORM_DASHES[cell.asked]), "hollow": cell.asked != "direct"}
    return look(cell.arm) | own | {"words": get_arm(cell.arm).description}


def _run(record: Record, study: Study, tasks: Sequence[str], shared: _Shared) -> dict[str, Json]:
    exact, prior = record.exact, record.prior[list(tasks)]
    curve = _reached(study, record)
    start = prior.loc[0].to_dict() if study.start is None else study.start
    return {
        "name": record.spec.name,
        "arm": record.arm,
        "place": record.place,
        "rate": record.spec.learning_rate,
        "set": _settings(record.spec),
        "step": exact["step"].tolist(),
        "samples": exact["samples"].tolist(),
        "exact": numbers(exact["value"]),
        "chance": record.spec.puzzle.chance_exact,
        "reach": [] if not study.monotone else numbers(curve["value"], 12),
        "start": numbers([start[task] for task in tasks], 12),
        "prior": [numbers(row) for row in prior.loc[exact["step"]].to_numpy()],
        "asked": record.spec.asked,
        "said": shared.of(record),
        "flips": flips(record, tasks),
    }


def _settings(spec: RunSpec) -> dict[str, Json]:
    """The settings of a run that a reader asks for, by name."""
    taken = {"LoRA rank": spec.lora_rank, "eyes": "frozen" if spec.freeze_vision else 0, "learns from": spec.source}
    return {
        "base": spec.base,
        "seed": spec.seed,
        "form asked": spec.asked,
        "form written": spec.written,
        "rate": spec.learning_rate,
        "KL weight": spec.beta,
        "steps at most": spec.steps,
        "batch": spec.batch_size,
        **{name: value for name, value in taken.items() if value},
    }


def flips(record: Record, tasks: Sequence[str]) -> list[list[Json]]:
    """Items that changed since the evaluation before: for each, lost and gained of each task, then of the boards.

    Lost: right before and wrong now. Nothing changes at the first evaluation; empty where items were not recorded.
    """
    marks = record.outcomes.sort_values("step").groupby("task")["right"] if len(record.outcomes) else {}
    known = {task: np.array([list(right) for right in rows]) for task, rows in marks}
    if not known:
        return []
    # lost, gained of one task: two columns, a row per evaluation
    each = [_changes(known[task]) for task in (*tasks, PUZZLE)]
    return np.concatenate(each, axis=1).tolist()


def _changes(right: np.ndarray) -> np.ndarray:
    """(evaluations, items) marks to (evaluations, 2): how many were lost and gained since the row before."""
    before, now = right[:-1], right[1:]
    counts = np.stack([(before & ~now).sum(1), (~before & now).sum(1)], axis=1)
    return np.concatenate([np.zeros((1, 2), int), counts])
