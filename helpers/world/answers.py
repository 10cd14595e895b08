"""What a completion answers: reading it strictly, scoring a placement, and the three rewards of RFT.

A well-formed completion is `<think>...</think><answer>...</answer>` and nothing else, for prior tasks too; where the
prompt asks for the answer alone it is `<answer>...</answer>`.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.world import seeds
from helpers.world.forms import Written
from helpers.world.puzzles import Placement, PuzzleSpec, check_placement, invert
from helpers.world.questions import Question

REASONS = (
    "ok", "no answer", "two answers", "not numbers", "wrong length", "out of range", "repeated", "text outside the tags"
)  # fmt: skip
_OK, _NO_ANSWER, _TWO_ANSWERS, _NOT_NUMBERS, _WRONG_LENGTH, _OUT_OF_RANGE, _REPEATED, _TEXT_OUTSIDE = REASONS
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BODY = r"(?:(?!</?(?:think|answer)>).)*"  # any text that holds none of the four tags
_THINK, _ANSWER = rf"<think>{_BODY}</think>", rf"<answer>{_BODY}</answer>"
_FORMS: Mapping[Written, re.Pattern[str]] = {
    "think": re.compile(rf"\s*{_THINK}\s*{_ANSWER}\s*", re.DOTALL),
    "direct": re.compile(rf"\s*{_ANSWER}\s*", re.DOTALL),
}
_THINK_OPTIONAL = re.compile(rf"\s*(?:{_THINK})?\s*{_ANSWER}\s*", re.DOTALL)
_NUMBERS = re.compile(r"\s*[0-9]+(?:(?:\s*,\s*|\s+)[0-9]+)*\s*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Parsed:
    """What a completion says. placement: None unless a valid one was given; reason: one of REASONS."""

    placement: Placement | None
    reason: str


def parse(text: str, n: int) -> Parsed:
    """Read the placement of n tiles out of a completion. Strict: what is not clearly given is not credited.

    A placement is read only from the text's single pair `<answer>...</answer>`:

    - no pair, or the pair stands inside a think, closed after it or never: "no answer";
    - a second opening or closing answer tag anywhere, the think included: "two answers";
    - anything but ASCII numbers parted by white space and/or one comma: "not numbers";
    - then "wrong length", "out of range" (leading zeros too) and "repeated", in this order.

    These give placement None. A valid placement is "ok" if besides it the text holds at most one closed
    think before it, and "text outside the tags" otherwise: the placement then still counts, the format
    reward does not. (The format reward also demands the think, which "ok" does not.)
    """
    body, reason = single_answer(text)
    parsed = Parsed(None, reason) if body is None else _read_numbers(body, n)
    if parsed.placement is not None and not _THINK_OPTIONAL.fullmatch(text):
        return Parsed(parsed.placement, _TEXT_OUTSIDE)
    return parsed


def single_answer(text: str) -> tuple[str | None, str]:
    """What stands in the text's single answer tag, and "ok"; None and the reason where there is no such tag.

    The one reading for puzzles and prior tasks: a second tag, or a think that is still open, leaves no answer.
    """
    opens, closes = text.count("<answer>"), text.count("</answer>")
    before, _, rest = text.partition("<answer>")
    body, closed, _ = rest.partition("</answer>")
    if opens and closes and opens + closes > 2:
        return None, _TWO_ANSWERS
    if not closed or _inside_think(before):
        return None, _NO_ANSWER
    return body, _OK


def _inside_think(before: str) -> bool:
    """Whether a think is still open at the end of `before`."""
    unclosed = before.count("<think>") > before.count("</think>")
    return unclosed or before.rfind("<think>") > before.rfind("</think>")


def _read_numbers(body: str, n: int) -> Parsed:
    """What is written between the answer tags."""
    words = _NUMBER.findall(body)
    # Looked up, not converted: Python refuses to convert numbers of thousands of digits.
    values = {str(value): value for value in range(1, n + 1)}
    if not _NUMBERS.fullmatch(body):
        return Parsed(None, _NOT_NUMBERS)
    if len(words) != n:
        return Parsed(None, _WRONG_LENGTH)
    if not values.keys() >= set(words):
        return Parsed(None, _OUT_OF_RANGE)
    if len(set(words)) != n:
        return Parsed(None, _REPEATED)
    return Parsed(tuple(values[word] for word in words), _OK)


def shortest(tiles: int) -> int:
    """Tokens of the shortest right answer to a board: digits, spaces between numbers, tags of think and answer, end.

    Digits and the four tags are tokens of their own for the shipped tokenizer; others take more for the tags.
    """
    return sum(len(str(place)) for place in range(1, tiles + 1)) + (tiles - 1) + len(_TAGS) + 1


def room(tiles: int, outside: bool = False) -> int:
    """Tokens that a completion may take: 8 a tile in the model's own words, 32 a tile in an outside teacher's.

    Of more tiles than quarters that teacher tells row and column, which takes him 40.
    """
    return ((40 if tiles > 4 else 32) if outside else 8) * tiles


@dataclass(frozen=True)
class Score:
    """hit: share of slots placed right; exact: all of them; format: 0 or 1; reason: see `parse`.

    hit and exact are 0 when no valid placement was given.
    """

    hit: float
    exact: float
    format: float
    reason: str

    @property
    def correct(self) -> bool:
        """Right and well formed: what SFT may learn from."""
        return self.exact == 1.0 and self.format == 1.0


def in_form(text: str, written: Written = "think") -> bool:
    """Whether a whole text is one think and one answer ("think") or the answer alone ("direct").

    Nothing but white space may stand around and between, and no further tag inside; what it says does not matter.
    """
    return bool(_FORMS[written].fullmatch(text))


def score(text: str, placement: Sequence[int], written: Written = "think") -> Score:
    """Score a completion against the true placement; format is 1.0 only in the form that is due (`in_form`).

    Raises UserError when the true placement is none.
    """
    parsed = parse(text, len(placement))
    well_formed = float(in_form(text, written))
    if parsed.placement is None:
        return Score(0.0, 0.0, well_formed, parsed.reason)
    return Score(*score_placement(parsed.placement, placement), well_formed, parsed.reason)


def score_placement(guess: Sequence[int], placement: Sequence[int]) -> tuple[float, float]:
    """(hit, exact) of a guessed placement: share of slots placed right, and 1.0 if that is all of them.

    Raises UserError unless both are placements of the same length.
    """
    truth = check_placement(placement)
    right = sum(map(operator.eq, check_placement(guess, len(truth)), truth))
    return right / len(truth), float(right == len(truth))


def neighbour_score(guess: Sequence[int], placement: Sequence[int], spec: PuzzleSpec) -> float:
    """Share of neighbour connections that are right once the board is put together by the guess (Jigsaw-R1).

    Of the 2 * rows * cols - rows - cols pairs of places side by side or one above the other, those count whose two
    tiles are also neighbours, in this direction, in the picture. A guess that moves the whole picture by one column
    keeps most of them, while its hit rate is 0. Raises UserError unless both are placements of spec.tiles tiles.
    """
    truth = check_placement(placement, spec.tiles)
    slots = np.array(invert(check_placement(guess, spec.tiles)))
    shown = np.array(truth)[slots - 1].reshape(spec.rows, spec.cols) - 1  # true place, by guessed place
    beside = (shown[:, 1:] == shown[:, :-1] + 1) & (shown[:, 1:] % spec.cols != 0)
    below = shown[1:] == shown[:-1] + spec.cols
    return int(beside.sum() + below.sum()) / (beside.size + below.size)


Completion = str | Sequence[dict[str, Any]]  # as TRL passes it: a text, or a chat whose last message is the model's


def completion_text(completion: Completion) -> str:
    """The text of one completion: a string, or a chat whose last message holds a string or text blocks."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if len(completion) else None
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content or ())


def _reward(name: str, value: Callable[[Score], float]) -> Callable[..., list[float]]:
    """A reward for TRL, which logs it as `name`: a value of each completion's score.

    `placement` and `written` (the form that is due; a think where the column lacks) are columns of the data.
    """

    def reward(
        completions: Sequence[Completion],
        placement: Sequence[Sequence[int]],
        written: Sequence[Written] | None = None,
        **_: Any,
    ) -> list[float]:
        given = zip(map(completion_text, completions), placement, written or ["think"] * len(completions), strict=True)
        return [float(value(score(*own))) for own in given]

    reward.__name__ = name
    return reward


hit_reward = _reward("hit_reward", lambda s: s.hit)  # 0 without a valid answer
exact_reward = _reward("exact_reward", lambda s: s.exact)  # 1 where the whole placement is right
format_reward = _reward("format_reward", lambda s: s.format)  # 1 for exactly the form that is due
correct_reward = _reward("correct_reward", lambda s: s.correct)  # 1 for what is right and well formed
REWARDS = (hit_reward, exact_reward, format_reward)  # in the order of `RunSpec.reward_weights`; a new one comes last


def random_rewards(seed: int, step: int, n: int) -> list[float]:
    """Rewards of the `n` completions that a run draws at a step, in their order: uniform in [0, 1), whatever they say.

    They hang on nothing but the run's seed, the step and the place in the batch. One that hung on the text would give
    the same answer the same reward every time: a target, if an odd one, that can be learned.
    """
    return np.random.default_rng((seeds.NOISE, seed, step)).random(n).tolist()


def extract(text: str) -> str | None:
    """The content of the one answer tag, with single spaces; None where `single_answer` finds none."""
    body, _ = single_answer(text)
    return None if body is None else " ".join(body.split())


def score_answer(text: str, question: Question) -> float:
    """1.0 where the extracted answer equals the gold answer (captions: as sets of things), else 0.0."""
    answer = extract(text)
    if answer is None:
        return 0.0
    said, gold = (sorted(t.split(", ")) if _names_things(question) else t for t in (answer, question.answer))
    return float(said == gold)


def score_parts(text: str, question: Question) -> tuple[float, bool]:
    """Share of the gold answer's parts that are given, and whether there are as many parts as it has.

    Parts are things in any order, or words (numbers) each in its place. (0, False) without an answer. A whole answer is
    right only where all is: this says how wrong the others are.
    """
    answer = extract(text)
    if not answer:
        return 0.0, False
    if _names_things(question):
        said, gold = answer.split(", "), question.answer.split(", ")
        right = (Counter(gold) & Counter(said)).total()
    else:
        said, gold = answer.split(), question.answer.split()
        right = sum(map(operator.eq, said, gold))
    return right / len(gold), len(said) == len(gold)


def _names_things(question: Question) -> bool:
    """Whether an answer names things, which may be named in any order."""
    return question.task == "caption"


def is_format_failure(text: str, question: Question) -> bool:
    """True where there is no single answer of the kind that the instruction asked for, right or wrong."""
    answer = extract(text)
    if answer is None:
        return True
    words, n = answer.split(), question.n
    numerals = sum(bool(re.fullmatch(_NUMBER, w)) for w in words)
    numbers = numerals == len(words)
    valid = {
        "yes or no": answer in ("yes", "no"),
        "word": len(words) == 1 and not numbers,
        "number": len(words) == 1 and numbers,
        "cell": len(words) == 2 and numbers,
        "numbers": len(words) == n and numbers,
        "words": len(words) == n and not numerals,
        "order": sorted(words) == sorted(map(str, range(1, n + 1))),
        "things": all(len(part.split()) == 2 for part in answer.split(", ")),
    }
    return not valid[question.kind]
