"""Hostile completions against the scorer: `python -m tests.fuzz --count 1000000`.

A second reader of completions stands here, written from the rules and not from the first one's code: it walks through
the text once, tag by tag. No text may crash the scorer, and none may earn what the second reader does not give.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

from helpers.world.answers import score

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PIECES = (
    *TAGS, *TAGS, "<answer>", "</answer>", "2 1 4 3", "3 1 4 2", "2 1 4", "2 1 4 3 1", "2, 1, 4, 3", "2,1,4,3",
    "2 1,,4 3", "0", "1", "2", "3", "4", "5", "-1", "1e0", "+2", "02", "2.0", "٢ ١ ٤ ٣", "２ １ ４ ３", "²", "一", " ",
    "\n", "\t", "\x0b", "\x00", "\u00a0", "\u2003", "\u200b", "\ufffd", "\ud800", "🧩", ",", ";", "/", "|",
    "[2, 1, 4, 3]", "<answer", "answer>", "< answer>", "<ANSWER>", "</ answer>", "<<answer>>", "<answer/>",
    "&lt;answer&gt;", "the answer is", "2 1 4 3\n3 1 4 2", "<|im_end|>", "<|image_pad|>", "\\boxed{2 1 4 3}",
    "9" * 5000, "reward=1", "exact", "1 2 3 4 " * 20,
)  # fmt: skip
TRUTH = (2, 1, 4, 3)


def second_opinion(text: str, truth: Sequence[int]) -> tuple[bool, bool]:
    """(may earn hits, may earn the format reward), by walking through the text tag by tag."""
    parts, rest = [], text
    while rest:
        place, tag = min(((rest.find(tag), tag) for tag in TAGS if tag in rest), default=(len(rest), ""))
        parts += [("text", rest[:place]), ("tag", tag)]
        rest = rest[place + len(tag) :]
    tags = [what for kind, what in parts if kind == "tag" and what]
    single = tags.count("<answer>") == tags.count("</answer>") == 1
    if not single or tags.index("<answer>") > tags.index("</answer>"):
        return False, False
    opened = parts.index(("tag", "<answer>"))
    inside = parts[opened + 1 :]
    inside = inside[: inside.index(("tag", "</answer>"))]
    thinks = [what for kind, what in parts[:opened] if "think>" in what and kind == "tag"]
    open_think = bool(thinks) and (thinks[-1] == "<think>" or thinks.count("<think>") > thinks.count("</think>"))
    credited = not open_think and all(kind == "text" for kind, _ in inside) and _numbers(inside[0][1], truth)
    outside = "".join(what for kind, what in [*parts[:opened], *parts[opened + len(inside) + 2 :]] if kind == "text")
    thought = parts[1 : opened - 1] if tags[:2] == ["<think>", "</think>"] else []
    outside = outside.replace(thought[1][1], "", 1) if len(thought) > 1 else outside
    formed = tags == list(TAGS) and not outside.strip()
    return credited, formed


def _numbers(body: str, truth: Sequence[int]) -> bool:
    """Whether a body lists each number once, parted by ASCII white space with at most one comma in it."""
    numbers, number, gap = [], "", ","  # a list starts as if behind a comma: none may stand there
    for sign in body.strip(" \t\n\r\x0b\f") + " ":
        if sign in "0123456789":
            if not number and numbers and gap == "":
                return False
            number += sign
        elif sign in " \t\n\r\x0b\f,":
            if number:
                numbers, number, gap = [*numbers, number], "", ""
            if sign == "," and "," in gap:
                return False
            gap += sign
        else:
            return False
    if "," in gap or any(len(n) > 3 or n.startswith("0") for n in numbers):
        return False
    return sorted(map(int, numbers)) == list(range(1, len(truth) + 1))


def check(text: str, truth: Sequence[int] = TRUTH) -> None:
    """Score a text; raises AssertionError where it earns what it should not."""
    earned = score(text, truth)
    hits, form = second_opinion(text, truth)
    assert 0 <= earned.exact <= earned.hit <= 1 and earned.format in (0, 1), repr(text)
    assert hits or earned.hit == 0, f"hits for {text!r}"
    assert form or earned.format == 0, f"format for {text!r}"


def hostile(generator: random.Random) -> str:
    """A text of up to a dozen pieces, sometimes near a right one."""
    if generator.random() < 0.3:
        text = list("<think>sky</think><answer>2 1 4 3</answer>")
        for _ in range(generator.randrange(3)):
            place = generator.randrange(len(text))
            text[place : place + generator.randrange(2)] = [generator.choice(PIECES)]
        return "".join(text)
    return "".join(generator.choices(PIECES, k=generator.randrange(13)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10**6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    for _ in range(options.count):
        check(hostile(generator))
    print(f"{options.count:,} texts: no crash, no credit that the second reader does not give")


if __name__ == "__main__":
    main()
