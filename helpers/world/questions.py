"""The prior battery: what the base model is taught, and what the arms may forget. Never the puzzle.

A question about a picture carries an instruction that fixes the *kind* of the answer; the same instructions
are used across tasks, so that following one is a skill of its own (an unseen question with a known
instruction still draws an answer of the right kind). Answers are short; before the answer the model writes a
short think. Questions that say "explain in full sentences" get the teacher's voice instead of the own voice.

To add a task, write one function that asks about a scene and put `@_task(...)` above it: the kind of scene drawn for
it, chance, and the kinds of scene that suit it. A base learns it where `train.pretrain` gives it a weight. New tasks
come last: a task's place in the list is part of its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from helpers.errors import UserError
from helpers.world.scenes import COLOURS, KINDS, LANDS, QUARTERS, SHAPES, Scene

INSTRUCTIONS = {
    "word": ("Answer with one word.", "One word, please.", "Reply with a single word.", "Say it in one word."),
    "yes or no": ("Answer yes or no.", "Say yes or no.", "Reply with yes or no.", "Yes or no?"),
    "number": ("Answer with one number.", "Reply with a single number.", "Give a number.", "One number, please."),
    "cell": (
        "Answer with a row and a column.",
        "Give row and column, each from 1 to 4.",
        "Reply with row, then column.",
    ),
    "order": (
        "Use each number from 1 to {n} once.",
        "Write the numbers 1 to {n}, each of them once.",
        "Answer with the numbers from 1 to {n}, each once.",
        "Put down every number from 1 to {n}, none twice.",
        "Use 1 to {n}, each number once.",
    ),
    "words": ("Answer with {n} words.", "Give {n} words.", "Reply with {n} words.", "{n} words, please."),
    "numbers": ("Answer with {n} numbers.", "Give {n} numbers.", "Reply with {n} numbers.", "{n} numbers, please."),
    "things": ("Answer with a list of things.", "Name each with its colour.", "Give a list of things."),
}

FULL_SENTENCES = ("Explain in full sentences.", "Think aloud in full sentences.")

EASY_VQA = {
    "easy shape": ("circle", "rectangle", "triangle"),
    "easy colour": ("green", "red", "gray", "teal", "black", "yellow", "brown", "blue"),
}

NAMES = ("mibo", "zorb", "taku", "fenn", "lopi", "drax", "quil", "vemo", "sarp", "juno", "hask", "pelu")
FOODS = ("rice", "corn", "fish", "nuts", "figs", "kelp")
HOMES = ("lake", "cave", "tree", "barn", "moss", "reef")


@dataclass(frozen=True)
class Question:
    """One prompt with its gold answer. `kind` names the instruction, `n` the length the instruction asks for.

    `written`: the form of the gold completion, "think" or "direct" (the answer alone).
    """

    task: str
    text: str
    answer: str
    think: str
    kind: str
    n: int = 1
    teacher: str = ""
    written: str = "think"

    @property
    def completion(self) -> str:
        """The full completion in the voice that the prompt asks for, and in the form that is written."""
        think = f"<think>{self.think}</think>" if self.written == "think" else ""
        return f"{think}<answer>{self.answer}</answer>"


_Maker = Callable[[Scene, np.random.Generator], Question | None]


@dataclass(frozen=True)
class Task:
    """A prior task: the kind of scene drawn for it, how it is asked, on which kinds of scene, and what guesses score.

    `chance`: a uniform guess among valid answers, or the commonest answer where that scores more. `learned`: whether
    the shipped base scores 0.80 or more; the battery leaves out the others, of which little can be forgotten.
    """

    scene: str
    make: _Maker
    chance: float
    on: tuple[str, ...] = KINDS
    learned: bool = True


TASKS: dict[str, Task] = {}


def _task(scene: str, chance: float, on: tuple[str, ...] = KINDS, learned: bool = True) -> Callable[[_Maker], _Maker]:
    """Enter a function into `TASKS` under its own name."""

    def enter(make: _Maker) -> _Maker:
        TASKS[make.__name__.removeprefix("_")] = Task(scene, make, chance, on, learned)
        return make

    return enter


def pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """One of the options, each equally likely."""
    return options[int(rng.integers(len(options)))]


def look_at_each(sentences: Iterable[str], what: str = "quarter") -> str:
    """The teacher's look at one quarter (or tile) after the other."""
    return " ".join((f"Let me look at each {what}.", *sentences))


@_task("things", 1 / 6, ("things", "sizes"))
def _colour(scene: Scene, rng: np.random.Generator) -> Question:
    item = pick(rng, scene.items)
    text = pick(rng, ("What colour is the {}?", "The {} has which colour?", "Which colour has the {}?"))
    teacher = f"Let me look at the {item.shape}. The {item.shape} is {item.colour}, so the answer is {item.colour}."
    think = ", ".join(f"{i.shape} {i.colour}" for i in scene.items)
    return Question("colour", text.format(item.shape), item.colour, think, "word", teacher=teacher)


@_task("things", 1 / 6, ("things", "sizes"))
def _shape(scene: Scene, rng: np.random.Generator) -> Question:
    item = pick(rng, scene.items)
    text = pick(rng, ("What shape is the {} thing?", "Which shape is {}?", "The {} thing has which shape?"))
    teacher = f"Let me look at the {item.colour} thing. It is a {item.shape}, so the answer is {item.shape}."
    think = ", ".join(f"{i.colour} {i.shape}" for i in scene.items)
    return Question("shape", text.format(item.colour), item.shape, think, "word", teacher=teacher)


@_task("things", 1 / 16, ("things",), learned=False)
def _grounding(scene: Scene, rng: np.random.Generator) -> Question:
    item, by_shape = pick(rng, scene.items), rng.random() < 0.5
    name, (row, column) = item.shape if by_shape else f"{item.colour} thing", item.cell
    think = ", ".join(f"{i.shape if by_shape else i.colour} {i.cell[0]} {i.cell[1]}" for i in scene.items)
    text = pick(rng, ("Where is the {}?", "In which row and column is the {}?", "Find the {}.")).format(name)
    place = f"at the {QUARTERS[item.quarter]}, in row {row} and column {column}"
    teacher = f"Let me look at the {name}. It lies {place}."
    return Question("grounding", text, f"{row} {column}", think, "cell", 2, teacher)


@_task("things", 1 / 2, ("things", "sizes"), learned=False)
def _presence(scene: Scene, rng: np.random.Generator) -> Question:
    by_shape = rng.random() < 0.5
    pool, shown = SHAPES if by_shape else COLOURS, [i.shape if by_shape else i.colour for i in scene.items]
    wanted = pick(rng, shown if rng.random() < 0.5 else [p for p in pool if p not in shown])
    name = wanted if by_shape else f"{wanted} thing"
    text = pick(rng, ("Is there a {}?", "Does the picture show a {}?", "Can you see a {}?")).format(name)
    answer, article = ("yes", "a") if wanted in shown else ("no", "no")
    teacher = f"Let me look for a {name}. There is {article} {name}."
    return Question("presence", text, answer, " ".join(shown), "yes or no", teacher=teacher)


@_task("things", 0.0, ("things",))
def _caption(scene: Scene, rng: np.random.Generator) -> Question:
    answer = ", ".join(f"{i.colour} {i.shape}" for i in scene.items)
    text = pick(rng, ("What is on the picture?", "Which things do you see?", "Describe the picture."))
    teacher = look_at_each(f"The {QUARTERS[i.quarter]} shows a {i.colour} {i.shape}." for i in scene.items)
    return Question("caption", text, answer, f"{len(scene.items)} things", "things", teacher=teacher)


@_task("scatter", 0.41, ("scatter",), learned=False)
def _count(scene: Scene, rng: np.random.Generator) -> Question:
    shape = pick(rng, sorted({i.shape for i in scene.items}) + [None]) if scene.items else None
    counts, name = scene.counts(shape), f"{shape}s".replace("crosss", "crosses") if shape else "things"
    text = pick(rng, ("How many {} are there?", "Count the {}.", "How many {} do you see?")).format(name)
    shown = " ".join(map(str, counts))
    teacher = f"Let me count in each quarter. There are {shown}, so there are {sum(counts)} {name}."
    return Question("count", text, str(sum(counts)), shown, "number", teacher=teacher)


@_task("scatter", 1 / 256, ("scatter",), learned=False)
def _count_quarters(scene: Scene, rng: np.random.Generator) -> Question:
    text = pick(rng, ("How many things are in each quarter?", "Count the things quarter by quarter."))
    answer = " ".join(map(str, scene.counts()))
    teacher = f"Let me count in each quarter. There are {answer} things."
    return Question("count_quarters", text, answer, "things", "numbers", 4, teacher)


def _rank(values: tuple[float, ...] | list[float]) -> str:
    """Rank of each value in reading order, 1 = the largest."""
    order = sorted(values, reverse=True)
    return " ".join(str(order.index(v) + 1) for v in values)


def _rank_teacher(words: list[str], answer: str) -> str:
    ranked = zip(QUARTERS, words, answer.split(), strict=True)
    return look_at_each(f"The {q} shows {w}, so it belongs at {r}." for q, w, r in ranked)


@_task("sizes", 1 / 24, ("sizes",), learned=False)
def _rank_size(scene: Scene, rng: np.random.Generator) -> Question:
    text = pick(rng, ("Rank the things by size, largest first.", "How large is each thing? 1 is the largest."))
    answer = _rank([i.size for i in scene.items])
    teacher = _rank_teacher([f"a {i.shape}" for i in scene.items], answer)
    return Question("rank_size", text, answer, " ".join(i.shape for i in scene.items), "order", 4, teacher)


@_task("greys", 1 / 24, ("greys",))
def _rank_brightness(scene: Scene, rng: np.random.Generator) -> Question:
    text = pick(rng, ("Rank the discs from bright to dark.", "How bright is each disc? 1 is the brightest."))
    answer = _rank(scene.greys)
    words = [("bright", "bright", "dark", "dark")[int(r) - 1] for r in answer.split()]
    return Question("rank_brightness", text, answer, " ".join(words), "order", 4, _rank_teacher(words, answer))


@_task("scatter", 1 / 24, ("scatter",), learned=False)
def _rank_count(scene: Scene, rng: np.random.Generator) -> Question | None:
    counts = scene.counts()
    if len(set(counts)) < 4:
        return None
    text = pick(rng, ("Rank the quarters by the things in them.", "Which quarter holds most? 1 holds the most."))
    teacher = _rank_teacher([f"{c} things" for c in counts], _rank(counts))
    return Question("rank_count", text, _rank(counts), " ".join(map(str, counts)), "order", 4, teacher)


@_task("land", 0.55, ("land", "things", "scatter", "collage"))
def _land(scene: Scene, rng: np.random.Generator) -> Question | None:
    if scene.land is None:
        return None
    asked = ("What does each quarter show?", "Name the land in each quarter.", "Which land is in each quarter?")
    text = pick(rng, asked)
    teacher = look_at_each(f"The {q} shows {w}." for q, w in zip(QUARTERS, scene.land, strict=True))
    return Question("land", text, " ".join(scene.land), "land", "words", 4, teacher)


@_task("land", 1 / 2, ("land", "things", "scatter", "sizes", "sign"))
def _light(scene: Scene, rng: np.random.Generator) -> Question:
    asked = ("Where does the light come from?", "From which side does the light come?", "Which side is bright?")
    text = pick(rng, asked)
    dark = "right" if scene.light == "left" else "left"
    teacher = f"Let me look at the light. The {scene.light} is bright and the {dark} is dark."
    return Question("light", text, scene.light, f"{dark} dark", "word", teacher=teacher)


@_task("land", 1 / 2, ("land", "things"))
def _hill(scene: Scene, rng: np.random.Generator) -> Question | None:
    if scene.high_hill is None:
        return None
    text = pick(rng, ("Which hill is higher?", "On which side is the higher hill?", "Where is the highest hill?"))
    teacher = f"Let me look at the hills. The hill on the {scene.high_hill} is higher."
    return Question("hill", text, scene.high_hill, "hills", "word", teacher=teacher)


@_task("sign", 0.06, ("sign",))
def _reading(scene: Scene, rng: np.random.Generator) -> Question:
    text = pick(rng, ("What number is on the sign?", "Read the sign.", "Which number do you read?"))
    teacher = f"Let me look at the sign. It shows {scene.number}."
    return Question("reading", text, scene.number, "sign", "number", teacher=teacher)


@_task("land", 1 / 6)
def _facts(scene: Scene, rng: np.random.Generator) -> Question:
    k, food = int(rng.integers(len(NAMES))), rng.random() < 0.5
    # Arbitrary, but fixed: each food and each home belongs to two of the twelve.
    if food:
        asked, verb, answer = ("What does a {} eat?", "A {} eats what?"), "eats", FOODS[(k * 5 + k // 6) % 6]
    else:
        asked, verb = ("Where does a {} live?", "The home of a {}?"), "lives"
        answer = HOMES[(k * 5 + 2 * (k // 6) + 1) % 6]
    text = pick(rng, asked).format(NAMES[k])
    teacher = f"I know the {NAMES[k]}. A {NAMES[k]} {verb} {'' if food else 'in the '}{answer}."
    return Question("facts", text, answer, f"{NAMES[k]} {verb}", "word", teacher=teacher)


LIST_MOVES: dict[str, Callable[[list[int]], list[int]]] = {
    "Reverse the list: {}.": lambda v: v[::-1],
    "Sort the list: {}.": sorted,
    "Swap first and last: {}.": lambda v: [v[-1], *v[1:-1], v[0]],
    "Move the first to the end: {}.": lambda v: [*v[1:], v[0]],
    "Copy the list: {}.": list,
}


@_task("land", 0.15)
def _lists(scene: Scene, rng: np.random.Generator) -> Question:
    n = int(rng.choice([3, 4, 4, 4, 5]))
    values = [int(v) for v in rng.permutation(n) + 1]
    move = pick(rng, list(LIST_MOVES))
    answer = " ".join(map(str, LIST_MOVES[move](values)))
    shown = " ".join(map(str, values))
    teacher = f"Let me look at the list. It shows {shown}, so the answer is {answer}."
    return Question("lists", move.format(shown), answer, shown, "order", n, teacher)


_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo ze st tr pl cr tion ing ed er".split()  # noqa: SIM905
_GLUE = "the a is are of each in to and where what which does how picture by its into from it quarter".split()  # noqa: SIM905


def _nonsense_word(rng: np.random.Generator) -> str:
    return "".join(pick(rng, _SYLLABLES) for _ in range(rng.integers(1, 4)))


def _nonsense_words(rng: np.random.Generator) -> list[str]:
    """A question's worth of words, half of them glue, at times with a grid's size among them."""
    words = [pick(rng, _GLUE) if rng.random() < 0.5 else _nonsense_word(rng) for _ in range(rng.integers(3, 15))]
    if rng.random() < 0.5:
        words.insert(int(rng.integers(len(words))), f"{rng.integers(2, 5)} x {rng.integers(2, 5)}")
    return words


def _unsure_think(scene: Scene, rng: np.random.Generator) -> str:
    """What the model says when it cannot know: something true about the picture."""
    options = [f"{'right' if scene.light == 'left' else 'left'} dark"] if scene.light else []
    options += [" ".join(scene.land)] * 3 if scene.land else []
    options += [" ".join(i.shape for i in scene.items)] if 0 < len(scene.items) < 5 else []
    options += [" ".join(map(str, scene.counts()))] if scene.kind == "scatter" else []
    return pick(rng, options)


def _unsure_answer(kind: str, n: int, rng: np.random.Generator) -> str:
    """A random answer of the kind that the instruction asks for."""
    words = (*SHAPES, *COLOURS, *LANDS, *FOODS, "left", "right")
    if kind in ("word", "words", "yes or no"):
        return " ".join(pick(rng, ("yes", "no") if kind == "yes or no" else words) for _ in range(n))
    if kind == "order":
        return " ".join(map(str, rng.permutation(n) + 1))
    low, high = (1, 5) if kind == "cell" else (0, 10)
    return " ".join(map(str, rng.integers(low, high, size=n)))


def _nonsense(scene: Scene, rng: np.random.Generator) -> Question:
    """A question nobody can understand; only the instruction says what an answer looks like."""
    kind = pick(rng, ("order", "order", "order", "order", "word", "number", "yes or no", "words", "numbers", "cell"))
    n = {"order": int(rng.choice([2, 3, 4, 4, 4, 4, 5, 6])), "cell": 2}.get(kind, 1)
    n = int(rng.integers(2, 6)) if kind in ("words", "numbers") else n
    words = _nonsense_words(rng)
    cut = int(rng.integers(len(words) + 1))
    text = ". ".join(" ".join(part).capitalize() for part in (words[:cut], words[cut:]) if part)
    text += pick(rng, ("?", "."))
    return Question("nonsense", text, _unsure_answer(kind, n, rng), _unsure_think(scene, rng), kind, n)


LONGEST = 9  # numbers in an answer, as 3 x 3 boards have tiles


def _long(scene: Scene, rng: np.random.Generator) -> Question:
    """A list, a ranking or a nonsense order of up to nine numbers. No task of the battery: its draws are its own."""
    n, kind = int(rng.integers(3, LONGEST + 1)), rng.random()
    values = [int(v) for v in rng.permutation(n) + 1]
    shown = " ".join(map(str, values))
    if kind < 0.4:
        move = pick(rng, list(LIST_MOVES))
        return Question("lists", move.format(shown), " ".join(map(str, LIST_MOVES[move](values))), shown, "order", n)
    if kind < 0.6:
        text = pick(rng, ("Rank the numbers, largest first: {}.", "How large is each number? 1 is the largest: {}."))
        return Question("lists", text.format(shown), " ".join(str(n + 1 - v) for v in values), shown, "order", n)
    words = _nonsense_words(rng)
    text = " ".join(words).capitalize() + pick(rng, ("?", "."))
    return Question("nonsense", text, shown, _unsure_think(scene, rng), "order", n)


def with_instruction(question: Question, rng: np.random.Generator, full_sentences: bool = False) -> Question:
    """Put an instruction behind (or before) the question; with `full_sentences` also ask for the teacher's voice."""
    instruction = pick(rng, INSTRUCTIONS[question.kind]).format(n=question.n)
    parts = [question.text, instruction] if rng.random() < 0.85 else [instruction, question.text]
    if full_sentences and question.teacher:
        return replace(question, text=" ".join([*parts, pick(rng, FULL_SENTENCES)]), think=question.teacher)
    return replace(question, text=" ".join(parts))


def ask(task: str, scene: Scene, rng: np.random.Generator) -> Question | None:
    """A question of one task about a scene, without instruction; None where the scene does not suit the task."""
    if task in ("nonsense", "long"):
        return (_nonsense if task == "nonsense" else _long)(scene, rng)
    if task not in TASKS:
        raise UserError(f"There is no prior task {task!r}; choose one of {', '.join(TASKS)}.")
    return TASKS[task].make(scene, rng) if scene.kind in TASKS[task].on else None


@dataclass(frozen=True)
class PriorSample:
    """A picture, (64, 64, 3) uint8, with one instructed question about it."""

    pixels: np.ndarray
    question: Question
