"""The prior battery: which tasks are asked, with which samples, what chance gives, and wrong answers to set beside."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import count

import numpy as np

from helpers.errors import UserError
from helpers.world import seeds
from helpers.world.easy_vqa import easy_vqa_samples
from helpers.world.pictures import resized
from helpers.world.questions import EASY_VQA, FOODS, HOMES, TASKS, PriorSample, Question, ask, pick, with_instruction
from helpers.world.scenes import COLOURS, LANDS, SHAPES, Scene, draw_scene

SIDE = 64  # pixels of the battery's pictures where no other size is asked for


def battery(task: str, n: int, seed: int = seeds.BATTERY, size: int = SIDE) -> list[PriorSample]:
    """`n` held-out samples of one task, fixed by (task, seed); pretraining draws from other seeds.

    Pictures have `size` pixels a side; what they show, and what is asked about them, is the same at every size.

    `task` is a key of `TASKS` or "easy_vqa" (its official test split, sampled without replacement; all of it
    with n >= 9,673). Raises UserError for another name.
    """
    if task == "easy_vqa":
        samples = easy_vqa_samples("test", n, seed)
        return [replace(s, pixels=resized(s.pixels, (size, size))) for s in samples] if size != SIDE else samples
    if task not in TASKS:
        raise UserError(f"There is no prior task {task!r}; choose one of {', '.join((*TASKS, 'easy_vqa'))}.")
    samples: list[PriorSample] = []
    for index in count():
        if len(samples) >= n:
            return samples
        place = (seed, list(TASKS).index(task), index, 991)
        scene, rng = _scene(task, place, SIDE)
        if question := ask(task, scene, rng):
            # The grain takes as many draws as there are pixels: what is asked is drawn behind the scene of one size.
            pixels = scene.pixels if size == SIDE else _scene(task, place, size)[0].pixels
            samples.append(PriorSample(pixels, with_instruction(question, rng)))


def _scene(task: str, place: tuple[int, ...], size: int) -> tuple[Scene, np.random.Generator]:
    """The scene of a task's sample, and the generator behind it."""
    rng = np.random.default_rng(place)
    return draw_scene(rng, TASKS[task].scene, plain=bool(rng.random() < 0.5), side=size), rng


LEFT_OUT = tuple(name for name, task in TASKS.items() if not task.learned)


def battery_tasks() -> tuple[str, ...]:
    """Names of the battery's tasks, easy-VQA last; those the base never learned (`LEFT_OUT`) are not among them."""
    return (*(task for task in TASKS if task not in LEFT_OUT), "easy_vqa")


def chance(task: str) -> float:
    """Expected score of a uniform guess among valid answers, or of the commonest answer where that scores more."""
    return 0.3733 if task == "easy_vqa" else TASKS[task].chance


def alternatives(question: Question, rng: np.random.Generator, n: int = 3) -> list[Question]:
    """Up to `n` wrong completions of the same form, for scoring by likelihood: what the answer could have been.

    Think and answer are changed together, so the think never gives the gold answer away.
    """
    wrong: dict[str, Question] = {}
    for _ in range(20 * n):
        changed = _vary(question, rng)
        if changed.answer != question.answer:
            wrong[changed.answer] = changed
        if len(wrong) == n:
            break
    return list(wrong.values())


_POOLS = (tuple(COLOURS), SHAPES, FOODS, HOMES, LANDS, ("left", "right"))


def _vary(question: Question, rng: np.random.Generator) -> Question:
    """One random change of a question's gold answer, and of its think where that states the answer."""
    think, answer = question.think, question.answer
    if question.kind == "yes or no":
        answer = "no" if answer == "yes" else "yes"
    elif question.kind == "order":
        answer = " ".join(str(v + 1) for v in rng.permutation(question.n))
    elif question.task == "count":
        counts = [int(v) for v in think.split()]
        place = int(rng.integers(4))
        counts[place] = max(0, counts[place] + int(rng.choice([-1, 1])))
        think, answer = " ".join(map(str, counts)), str(sum(counts))
    elif question.kind in ("number", "numbers", "cell"):
        digits = [k for k, c in enumerate(answer) if c.isdigit()]
        place = int(rng.choice(digits))
        low, high = (1, 5) if question.kind == "cell" else (0, 4 if question.kind == "numbers" else 10)
        answer = answer[:place] + str(rng.integers(low, high)) + answer[place + 1 :]
        think = think.replace(question.answer, answer)
    else:
        old = pick(rng, answer.replace(",", "").split())
        # easy-VQA knows other shapes and colours than the scenes, some under the same names
        pools = EASY_VQA.values() if question.task == "easy_vqa" else _POOLS
        new = pick(rng, next(pool for pool in pools if old in pool))
        answer, think = answer.replace(old, new, 1), _swap(think, old, new)
    return replace(question, think=think, answer=answer)


def _swap(think: str, old: str, new: str) -> str:
    """Carry a changed word over to the think ("right dark" is what the light from the left leaves)."""
    if {old, new} == {"left", "right"}:
        return " ".join({"left": "right", "right": "left"}.get(w, w) for w in think.split())
    return re.sub(rf"\b{old}\b", new, think)


@lru_cache(maxsize=64)
def battery_samples(task: str, n: int, size: int = SIDE) -> tuple[PriorSample, ...]:
    """The first `n` held-out samples of a task at a size (drawn once per process)."""
    return tuple(battery(task, n, size=size))
