"""A model's marks: on held-out puzzles, and on the prior battery by generation and by likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from transformers import ProcessorMixin

from helpers.model.forward import Model
from helpers.model.generate import Sampling
from helpers.model.score import complete, filled, judged
from helpers.world import answers, battery, questions
from helpers.world.battery import battery_samples
from helpers.world.boards import Boards, Prompted


def score_puzzles(model: Model, processor: ProcessorMixin, tests: Boards, limit: int = 0) -> dict[str, float]:
    """Mean exact match, hit rate and format failure of greedy completions of held-out boards (see `solve`)."""
    scores = [score for _, score in solve(model, processor, tests, limit)]
    return {
        "exact": float(np.mean([s.exact for s in scores])),
        "hit": float(np.mean([s.hit for s in scores])),
        "format_failure": float(np.mean([s.reason != "ok" for s in scores])),
    }


def solve(model: Model, processor: ProcessorMixin, tests: Boards, limit: int = 0) -> list[tuple[str, answers.Score]]:
    """The greedy completion of each board with its score, whose format is the form that the boards ask for.

    Completions may take `limit` tokens, and never less than an outside teacher needs (`answers.room`).
    """
    most = max(limit, answers.room(tests.spec.tiles, outside=True))
    texts = complete(model, processor, tests.prompted(), Sampling(temperature=0.0, max_tokens=most))
    return [(t, answers.score(t, p, tests.written)) for (t,), p in zip(texts, tests.placements, strict=True)]


def score_battery(
    model: Model, processor: ProcessorMixin, n: int, tasks: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Score, format-failure rate and likelihood score of each prior task over its first `n` held-out samples.

    `score` is the mean over generated greedy answers; `likelihood` the share of samples whose gold completion has a
    higher log-prob (summed, nats) than each of up to three wrong completions of the same form: knowledge without
    the format. Its chance level is `likelihood_chance`. All tasks go through the model together: large batches of
    prompts of similar length keep a small model busy.
    """
    samples = [s for task in tasks or battery.battery_tasks() for s in battery_samples(task, n)]
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].question.text))
    samples = [samples[i] for i in order]
    texts, hits = answer_battery(model, processor, samples, [i % n for i in order])
    marks: dict[str, list[tuple[float, bool, bool]]] = {}
    for question, text, hit in zip((s.question for s in samples), texts, hits, strict=True):
        mark = answers.score_answer(text, question), answers.is_format_failure(text, question), hit
        marks.setdefault(question.task, []).append(mark)
    names = ("score", "format_failure", "likelihood")
    return {t: dict(zip(names, np.mean(rows, 0).tolist(), strict=True)) for t, rows in marks.items()}


def answer_battery(
    model: Model, processor: ProcessorMixin, samples: Sequence[questions.PriorSample], numbers: Sequence[int]
) -> tuple[list[str], list[bool]]:
    """`answered` of samples whose wrong candidates are fixed by `numbers`."""
    prompts = [Prompted(s.pixels, s.question.text) for s in samples]
    return answered(
        model, processor, prompts, [_candidates(s.question, i) for s, i in zip(samples, numbers, strict=True)]
    )


def answered(
    model: Model, processor: ProcessorMixin, prompts: Sequence[Prompted], candidates: Sequence[Sequence[str]]
) -> tuple[list[str], list[bool]]:
    """Greedy completion of each prompt, and whether the first of its candidates is the most probable one.

    One pass scores the candidates and finds whose first one is the greedy one; only the rest is decoded.
    """
    rows = judged(model, processor, prompts, candidates)
    sure = [texts[0] if row[0].greedy else None for texts, row in zip(candidates, rows, strict=True)]
    hits = [int(np.argmax([float(own.logps.sum()) for own in row])) == 0 for row in rows]
    return filled(model, processor, prompts, sure), hits


@lru_cache(maxsize=8192)
def _candidates(question: questions.Question, index: int) -> list[str]:
    """The gold completion first, then the wrong ones (fixed by the sample's index)."""
    wrong = battery.alternatives(question, np.random.default_rng((index, 5)))
    return [question.completion, *(w.completion for w in wrong)]


def likelihood_chance(task: str) -> float:
    """Mean of one over the number of candidates."""
    samples = battery_samples(task, 40)
    return float(np.mean([1 / len(_candidates(s.question, i)) for i, s in enumerate(samples)]))
