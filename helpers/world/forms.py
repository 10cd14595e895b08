"""Forms of an answer: behind a think, or directly; and the phrases by which a prompt asks for one.

A prompt *asks* for a form (`asked`: plain, think, direct, sentences), a completion is *written* in one (`written`:
think or direct; sentences are a think in the teacher's voice).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from helpers.errors import UserError
from helpers.world.questions import FULL_SENTENCES, Question, pick

Asked = Literal["plain", "think", "direct", "sentences"]
Written = Literal["think", "direct"]
ASKED: tuple[Asked, ...] = get_args(Asked)

PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "direct": (
            "Answer directly.", "No thinking.", "Just the answer.", "Straight away, please.", "Only the answer.",
            "Skip the thinking.", "Answer at once.", "The answer alone, please.", "Do not think, answer.",
            "Give the answer right away.", "Please answer directly.", "Answer without a think.",
            "Without thinking, please.", "Give only the answer.", "Please, only the answer.", "Just answer.",
            "Please do not think.", "No think, please.", "Say only the answer.", "Please give the answer at once.",
            "Reply directly, without thinking.", "The answer and nothing else.",
        ),
        "think": (
            "Think first.", "Think before you answer.", "First think, then answer.", "Take a moment to think.",
            "Think it over.", "Please think first.", "Show how you think.", "Think, then give the answer.",
            "Do think before the answer.", "Let us think first.", "Please think it over.", "Think and then answer.",
            "Answer with a think.", "Think, please.", "First think it over, then reply.",
            "Answer, but not without a think.", "Give a think and the answer.", "Please show how you think.",
            "Think a moment first.", "Do think, please.", "Think before you reply.",
            "Say what you think, then answer.",
        ),
    }
)  # fmt: skip
"""Wordings that a base is taught and that puzzle prompts draw from."""

HELD_OUT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "direct": ("Answer without thinking.", "Please give only the answer."),
        "think": ("Please think before the answer.", "Answer, but think first."),
    }
)
"""Wordings that no base is taught."""


def wordings(asked: Asked, held_out: bool = False) -> tuple[str, ...]:
    """The phrases that ask for a form; none where nothing is asked for. UserError for what is no form to ask for."""
    known = {"plain": (), "sentences": FULL_SENTENCES} | (HELD_OUT if held_out else PHRASES)
    if asked not in known:
        raise UserError(f"a prompt cannot ask for {asked!r}: choose one of {', '.join(ASKED)}.")
    return known[asked]


def ask_for(question: Question, asked: Asked, rng: np.random.Generator, held_out: bool = False) -> Question:
    """A question whose prompt asks for a form, behind the question or (seldom) before it; `plain` asks for none.

    What is written stays as it was: `write` says in which form.
    """
    return replace(question, text=ask_text(question.text, asked, rng, held_out))


def ask_text(text: str, asked: Asked, rng: np.random.Generator, held_out: bool = False) -> str:
    """A prompt that asks for a form besides."""
    phrases = wordings(asked, held_out)
    if not phrases:
        return text
    phrase = pick(rng, phrases)
    return " ".join([text, phrase] if rng.random() < 0.8 else [phrase, text])


def written_as(asked: Asked) -> Written:
    """The form that a prompt's answer is due in: the answer alone where that is asked for, else behind a think."""
    return "direct" if asked == "direct" else "think"


def write(question: Question, written: Written) -> Question:
    """A question whose gold completion is written in a form."""
    return replace(question, written=written)


def due(question: Question, asked: Asked) -> Question:
    """A question whose gold completion is what was asked for: in its form, and in the teacher's voice for sentences."""
    own = replace(question, think=question.teacher) if asked == "sentences" and question.teacher else question
    return write(own, written_as(asked))
