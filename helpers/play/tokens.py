"""Token by token: how probable the base and what became of it find texts that cells learn from, and old answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from helpers.measure import own_words
from helpers.measure.kept_runs import STEM, kept
from helpers.measure.perplexity import token_views
from helpers.model.build import Loaded
from helpers.play.models import loaded
from helpers.play.page import Json, Pictures, View, numbers
from helpers.show.marks import visible
from helpers.show.style import colour_steps
from helpers.study import cells
from helpers.study.schema import is_correct
from helpers.world import seeds
from helpers.world.battery import battery_tasks
from helpers.world.boards import Corpus, Prompted, Sample, make_boards

WRITTEN: Mapping[str, str] = MappingProxyType(
    {
        "sft-answer direct": "bare answers, asked for",
        "sft-answer plain": "bare answers, nothing asked for",
        "sft-expert sentences": "the teacher's sentences, asked for",
        "sft-voice think": "the base's own thinks, asked for",
    }
)
"""Cells whose texts are shown, and what they are called."""
OLD: Mapping[str, str] = MappingProxyType(
    {
        "asked: direct": "old questions, bare answers",
        "asked: think": "old questions, own thinks",
        "asked: sentences": "old questions, sentences",
    }
)
"""What gold answers in each form are called, by their kind."""


def token_heat(each: int = 3, models: Mapping[str, Loaded] | None = None) -> View:
    """Texts as rows of coloured tokens under the base of `STEM` and the runs that are kept of it (or `models`).

    `each`: how many texts of every kind that boards have; of old questions there is one of every task in each form.
    The first of `models` is what the others are compared with. Scoring takes a few seconds.
    """
    base, samples = _texts(each)
    scoring = models or {"base": base, **{cell: loaded(str(folder)) for cell, (_, folder) in kept().items()}}
    corpus = Corpus("shown", [s.prompt for s in samples], [s.completion for s in samples])
    views = {name: token_views(model, corpus) for name, model in scoring.items()}
    pictures = Pictures()
    texts: list[Json] = [_row(sample, i, pictures(sample.prompt.pixels), views) for i, sample in enumerate(samples)]
    scales: dict[str, Json] = {"logp": list(colour_steps("cividis", 33)), "change": list(colour_steps("PuOr", 33))}
    data: dict[str, Json] = {"models": list(scoring), "texts": texts, "pictures": pictures.shown, "scales": scales}
    return View(
        "tokens", "Token by token: how probable is it, and what did training move?", 510 + 24 * len(scoring), data
    )


def _texts(each: int) -> tuple[Loaded, list[Sample]]:
    """The base, and what is shown, with its kind in words."""
    base, corpora = own_words.texts_of("two-form", STEM, each)
    samples = [
        Sample(own.prompt, own.completion, words) for cell, words in WRITTEN.items() for own in list(corpora[cell])
    ]
    samples += [sample for cell in own_words.RFT for sample in correct_rollouts(cell, each)]
    gold = own_words.gold_in_forms(battery_tasks(), [0])
    return base, samples + [Sample(own.prompt, own.completion, OLD[own.kind]) for own in gold]


def correct_rollouts(cell: str, n: int) -> list[Sample]:
    """The first `n` correct completions, on boards of their own, of the last third of a cell's run on the base.

    Nothing where that run is neither published nor finished here.
    """
    spec = cells.get_cell(cell).at(STEM, cells.SOURCE_RATE)
    rows = cells.tables_of([spec], ["completions"])["completions"]
    if rows.empty:
        return []
    late = rows[is_correct(rows) & (rows["step"] > rows["step"].max() * 2 / 3)]
    chosen = _spread(late.drop_duplicates("puzzle_id"), n)
    boards = make_boards(spec.puzzle, chosen["puzzle_id"].tolist(), seeds.training(spec.seed))
    pairs = zip(boards.pixels, chosen["prompt"], chosen["completion"], strict=True)
    return [Sample(Prompted(pixels, prompt), text, f"correct rollouts of {cell}") for pixels, prompt, text in pairs]


def _spread(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """Up to `n` rows from the whole length of a table."""
    return rows.iloc[:: max(1, len(rows) // n)].head(n)


def _row(sample: Sample, i: int, picture: int, views: Mapping[str, list[tuple[list[str], list[float]]]]) -> Json:
    """One text: what it is, what is asked and shown, its tokens, and their log-probs under each model."""
    tokens = next(iter(views.values()))[i][0]
    logps: list[Json] = [numbers(own[i][1], 5) for own in views.values()]
    words: list[Json] = [visible(token) for token in tokens]
    return {"kind": sample.kind, "asked": sample.prompt.text, "picture": picture, "tokens": words, "logps": logps}
