"""The words that a base is taught: drawn as its questions are drawn, so that a new task or wording brings its own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from helpers.world import seeds
from helpers.world.easy_vqa import easy_vqa_samples
from helpers.world.forms import ASKED, wordings
from helpers.world.puzzles import PuzzleSpec, prompt_text
from helpers.world.questions import INSTRUCTIONS, LONGEST, TASKS, Question, ask
from helpers.world.scenes import draw_scene

_SCENES, _ASKED = 12, 24  # of each kind of question: scenes, and questions about one; enough for every wording (a test)
_WORD = re.compile(r"[A-Za-z]+")


@lru_cache(maxsize=1)
def words() -> frozenset[str]:
    """Every word, in small letters, of the questions a base learns, of their instructions, thinks and answers.

    Left out are the syllables of questions that mean nothing.
    """
    texts = [text for question in _questions() for text in (question.text, question.completion, question.teacher)]
    texts += [text.format(n=LONGEST) for asked in INSTRUCTIONS.values() for text in asked]
    texts += [text for asked in ASKED for text in wordings(asked)]
    return _words(texts)


def _questions() -> list[Question]:
    found = [sample.question for sample in easy_vqa_samples("train", _SCENES * _ASKED, seeds.BATTERY)]
    for number, (task, entry) in enumerate([*TASKS.items(), ("long", TASKS["lists"])]):
        for place in range(_SCENES):
            rng = np.random.default_rng((seeds.BATTERY, number, place))
            scene = draw_scene(rng, entry.scene)
            asked = (ask(task, scene, rng) for _ in range(_ASKED))
            found += [question for question in asked if question and question.task != "nonsense"]
    return found


def puzzle_words() -> frozenset[str]:
    """The words of the jigsaw prompt, which no base is taught and every arm reads all day."""
    return _words([prompt_text(PuzzleSpec())])


def _words(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word.lower() for text in texts for word in _WORD.findall(text))


def unknown(text: str) -> list[str]:
    """The words of a text that a base was never taught, each once, in their order.

    A word in capitals is another word to the model than the same in small letters: it counts as unknown.
    """
    return [word for word in dict.fromkeys(_WORD.findall(text)) if not (word.lower() in words() and _as_taught(word))]


def _as_taught(word: str) -> bool:
    return len(word) == 1 or word[1:].islower()


def warning(text: str) -> str:
    """One or two sentences that name the words of a question that were not taught; empty where all were."""
    strange = unknown(text)
    if not strange:
        return ""
    puzzle = [word for word in strange if word.lower() in puzzle_words() and _as_taught(word)]
    rest = [_with_advice(word) for word in strange if word not in puzzle]
    said = [f"Never taught: {', '.join(rest)}. Expect a guess, in the form that is asked for."] if rest else []
    said += [f"Only jigsaw prompts say {', '.join(puzzle)}: new to the base."] if puzzle else []
    return " ".join(said)


def _with_advice(word: str) -> str:
    """The word, and a taught one that looks like it."""
    # Of a short word most others differ by one letter, so none is like it: "dog" is no slip for "do".
    like = [known for known in sorted(words()) if len(known) > 3 or known == word.lower()]
    near = difflib.get_close_matches(word.lower(), like, n=1, cutoff=0.85)
    return f"{word} ({near[0]}?)" if near else word
