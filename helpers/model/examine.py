"""The prior battery put in several ways: which items a model gets right, in which form, by writing and by choice.

The items are the same in every way, and so are the right answers; what differs is the form that is asked for, the
wording, the size of the picture and how the answer begins. `evaluate` has the means of the one plain way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from transformers import ProcessorMixin

from helpers.errors import UserError
from helpers.model.evaluate import answered
from helpers.model.forward import Model
from helpers.model.score import complete
from helpers.world import answers, battery
from helpers.world.boards import Prompted
from helpers.world.forms import written_as
from helpers.world.questions import Question
from helpers.world.ways import Way, items


@dataclass(frozen=True)
class Outcomes:
    """What became of the items of one task: right, in the form asked for, chosen among a few, and what was said.

    `likely` is empty where nothing was chosen; a `failed` answer is of no kind that the instruction asks for. `parts`:
    how much of an answer is right; `as_many`: whether it has as many parts as it should (`answers.score_parts`).
    """

    right: tuple[bool, ...]
    kept: tuple[bool, ...]
    failed: tuple[bool, ...]
    likely: tuple[bool, ...]
    said: tuple[str, ...]
    parts: tuple[float, ...] = ()
    as_many: tuple[bool, ...] = ()

    @property
    def means(self) -> dict[str, float]:
        """Means by measure, as the table of evaluations names them."""
        shares = {"score": self.right, "kept": self.kept, "format_failure": self.failed, "likelihood": self.likely}
        shares |= {"parts": self.parts, "as_many": self.as_many}
        return {name: float(np.mean(marks)) for name, marks in shares.items() if marks}


def examine(model: Model, processor: ProcessorMixin, way: Way, n: int, choose: bool = False) -> dict[str, Outcomes]:
    """Outcomes of each prior task's first `n` items, answered greedily; with `choose` by likelihood too.

    Chosen among the gold answer and up to three wrong ones, all behind the gold think where the form has one: its
    tokens count alike for all, so that the answer's own decide. Raises UserError for a choice behind an opening.
    """
    if choose and way.opening:
        raise UserError("What is written already cannot be chosen again: leave the opening out, or choose nothing.")
    put = [(task, i, *item) for task in battery.battery_tasks() for i, item in enumerate(items(way, task, n))]
    put.sort(key=lambda item: len(item[2].text))  # prompts of a length keep a batch busy
    texts, likely = _answers(model, processor, put, choose)
    rows: dict[str, dict[int, tuple]] = {}
    for (task, i, _, question), text, choice in zip(put, texts, likely, strict=True):
        kept, failed = answers.in_form(text, written_as(way.asked)), answers.is_format_failure(text, question)
        marks = (answers.score_answer(text, question) == 1.0, kept, failed, choice, text)
        rows.setdefault(task, {})[i] = (*marks, *answers.score_parts(text, question))
    return {task: _outcomes([rows[task][i] for i in range(n)]) for task in battery.battery_tasks()}


def _answers(
    model: Model, processor: ProcessorMixin, put: Sequence[tuple[str, int, Prompted, Question]], choose: bool
) -> tuple[list[str], Sequence[bool | None]]:
    """Greedy texts of items that are put, and whether the gold answer was chosen (None where nothing was)."""
    prompts = [prompt for *_, prompt, _ in put]
    if prompts[0].opening:
        return [text for (text,) in complete(model, processor, prompts)], [None] * len(put)
    candidates = [_candidates(question, i) if choose else [question.completion] for _, i, _, question in put]
    texts, likely = answered(model, processor, prompts, candidates)
    return texts, likely if choose else [None] * len(put)


def _outcomes(rows: Sequence[tuple[bool, bool, bool, bool | None, str, float, bool]]) -> Outcomes:
    right, kept, failed, likely, said, parts, as_many = zip(*rows, strict=True)
    return Outcomes(right, kept, failed, () if None in likely else likely, said, parts, as_many)


@lru_cache(maxsize=16384)
def _candidates(question: Question, index: int) -> list[str]:
    """The gold completion first, then wrong answers (fixed by the item's number) behind the same think."""
    wrong = battery.alternatives(question, np.random.default_rng((index, 5)))
    return [question.completion, *(replace(question, answer=other.answer).completion for other in wrong)]
