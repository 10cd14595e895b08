"""Questions about the pictures of the package easy-vqa, in the suite's own words."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import easy_vqa
import numpy as np
from PIL import Image

from helpers.world.questions import EASY_VQA, PriorSample, Question, with_instruction


@lru_cache(maxsize=2)
def read_split(split: str) -> tuple[np.ndarray, tuple[tuple[str, str, int], ...]]:
    """All pictures (N, 64, 64, 3) uint8 of a split and its (question, answer, picture index) triples."""
    questions, paths = (getattr(easy_vqa, f"get_{split}_{what}")() for what in ("questions", "image_paths"))
    pictures = np.stack([np.asarray(Image.open(Path(paths[k])).convert("RGB")) for k in sorted(paths)])
    return pictures, tuple(zip(*questions, strict=True))


def question_kind(text: str, answer: str) -> str:
    """Kind of a question: "yes", "no" or "word", as answered, with "not: " before it where the question denies."""
    return "not: " * bool(re.search(r" not? ", text)) + (answer if answer in ("yes", "no") else "word")


def by_wording(split: str) -> tuple[float, float]:
    """What a split gives to whoever answers questions that deny by yes, the others by no, and never looks.

    First the share of its yes-or-no questions that are right so; then the score on the whole split where, besides,
    every question for a word is answered right.
    """
    kinds = Counter(question_kind(text, answer) for text, answer, _ in read_split(split)[1])
    words, right = kinds["word"] + kinds["not: word"], kinds["not: yes"] + kinds["no"]
    return right / (kinds.total() - words), (right + words) / kinds.total()


@lru_cache(maxsize=2)
def _easy_vqa_facts(split: str) -> dict[int, tuple[str, str]]:
    """(colour, shape) per picture, read off the questions whose answer names them."""
    facts: dict[int, dict[str, str]] = {}
    shapes, colours = EASY_VQA.values()
    for text, answer, index in read_split(split)[1]:
        if answer in ("yes", "no"):
            # "Is there no ...?" answered by no says what is there, answered by yes only what is not.
            told = (answer == "yes") != question_kind(text, answer).startswith("not: ")
            answer = re.findall("|".join(shapes + colours), text)[0] if told else ""
        if answer:
            facts.setdefault(index, {})["shape" if answer in shapes else "colour"] = answer
    return {k: (v["colour"], v["shape"]) for k, v in facts.items() if len(v) == 2}


def easy_vqa_question(split: str, position: int) -> tuple[np.ndarray, Question]:
    """Question number `position` of a split of easy-VQA (Zhou 2019, PyPI `easy-vqa`) in the battery's voice."""
    pictures, triples = read_split(split)
    text, answer, index = triples[position]
    kind = "yes or no" if answer in ("yes", "no") else "word"
    think = " ".join(_easy_vqa_facts(split).get(index, ("shape",)))
    return pictures[index], Question("easy_vqa", text.capitalize(), answer, think, kind)


def easy_vqa_samples(split: str, n: int, seed: int) -> list[PriorSample]:
    """`n` questions of a split, drawn without replacement; the whole split where `n` exceeds it."""
    order = np.random.default_rng((seed, 77)).permutation(len(read_split(split)[1]))
    samples = []
    for position in sorted(order[:n].tolist()):
        pixels, question = easy_vqa_question(split, position)
        rng = np.random.default_rng((seed, position, 78))
        samples.append(PriorSample(pixels, with_instruction(question, rng)))
    return samples
