"""Questions about the pictures of the package easy-vqa, in the suite's own words."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import easy_vqa
import numpy as np
from PIL import Image

from helpers.world.questions import EASY_VQA, PriorSample, Question, with_instruction


@lru_cache(maxsize=2)
def read_split(split: str) -> tuple[np.ndarray, tuple[tuple[str, str, int], ...]]:
    """All pictures (N, 64, 64, 3) uint8 of a split and its (question, answer, picture index) triples."""
    train = split == "train"
    questions = easy_vqa.get_train_questions() if train else easy_vqa.get_test_questions()
    paths = easy_vqa.get_train_image_paths() if train else easy_vqa.get_test_image_paths()
    pictures = np.stack([np.asarray(Image.open(Path(paths[k])).convert("RGB")) for k in sorted(paths)])
    return pictures, tuple(zip(*questions, strict=True))


@lru_cache(maxsize=2)
def _easy_vqa_facts(split: str) -> dict[int, tuple[str, str]]:
    """(colour, shape) per picture, read off the questions whose answer names them."""
    facts: dict[int, dict[str, str]] = {}
    shapes, colours = EASY_VQA.values()
    for text, answer, index in read_split(split)[1]:
        if answer in shapes:
            facts.setdefault(index, {})["shape"] = answer
        elif answer not in ("yes", "no"):
            facts.setdefault(index, {})["colour"] = answer
        elif (answer == "yes") != bool(re.search(r" not? ", text)):
            word = re.findall("|".join(shapes + colours), text)[0]
            facts.setdefault(index, {})["shape" if word in shapes else "colour"] = word
    return {k: (v["colour"], v["shape"]) for k, v in facts.items() if len(v) == 2}


def easy_vqa_question(split: str, position: int) -> tuple[np.ndarray, Question]:
    """Question number `position` of a split of easy-VQA (Zhou 2019, PyPI `easy-vqa`) in the battery's voice."""
    pictures, triples = read_split(split)
    text, answer, index = triples[position]
    facts = _easy_vqa_facts(split).get(index)
    kind = "yes or no" if answer in ("yes", "no") else "word"
    think = " ".join(facts) if facts else "shape"
    return pictures[index], Question("easy_vqa", text.capitalize(), answer, think, kind)


def easy_vqa_samples(split: str, n: int, seed: int) -> list[PriorSample]:
    """`n` questions of a split, drawn without replacement; the whole split where `n` exceeds it."""
    total = len(read_split(split)[1])
    chosen = np.sort(np.random.default_rng((seed, 77)).permutation(total)[:n])
    samples = []
    for position in chosen:
        pixels, question = easy_vqa_question(split, int(position))
        rng = np.random.default_rng((seed, int(position), 78))
        samples.append(PriorSample(pixels, with_instruction(question, rng)))
    return samples
