"""How far long work has come, for whoever looks on: loops count here, a notebook or the batch asks `now`.

Counting costs nothing that could be measured and prints nothing, so what is computed and saved never depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(eq=False)  # a count is itself, whatever another has come to
class Count:
    """So many of `total` are done since `began`."""

    what: str
    total: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def step(self) -> None:
        """One more is done."""
        self.done += 1


@dataclass(frozen=True)
class Now:
    """What is being counted: words such as "12 of 32 updates", the share that is done, and the seconds left.

    `left` is None as long as nothing can be told.
    """

    words: str
    share: float
    left: float | None


_RUNNING: list[Count] = []
"""Counts under way, the outermost first."""


@contextmanager
def counting(total: int, what: str) -> Iterator[Count]:
    """A count of `total` pieces of work that the block steps through."""
    count = Count(what, total)
    _RUNNING.append(count)
    try:
        yield count
    finally:
        _RUNNING.remove(count)


def counted(items: Collection[Item], what: str) -> Iterator[Item]:
    """The items, counted as they are worked through; `what` they are: "updates"."""
    with counting(len(items), what) as count:
        for item in items:
            yield item
            count.step()


def now() -> Now | None:
    """How far the outermost count has come, with what is done of those inside it; None where nothing is counted."""
    running = [count for count in _RUNNING if count.total > 0]
    if not running:
        return None
    share = 0.0
    for count in reversed(running):
        share = min(1.0, (count.done + min(share, 1.0)) / count.total)
    outer = running[0]
    spent = time.monotonic() - outer.began
    left = spent * (1 - share) / share if share > 0.02 else None
    return Now(f"{outer.done} of {outer.total} {outer.what}", share, left)


def span(seconds: float) -> str:
    """Seconds as a reader says them: "8 s", "2 min 10 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    big, small, one, two = whole // 60, whole % 60, "min", "s"
    if whole >= 3600:
        big, small, one, two = whole // 3600, whole % 3600 // 60, "h", "min"
    return f"{big} {one} {small} {two}" if small else f"{big} {one}"


def about(seconds: float) -> str:
    """Seconds as far as a forecast knows them: whole minutes, seconds where they are few."""
    return span(seconds if seconds < 90 else 60 * round(seconds / 60))


def told(seconds: float) -> str:
    """A line on work that has taken so many seconds: how far it is, and how long it may still take."""
    found = now()
    if found is None:
        return f"working, {span(seconds)} so far"
    left = "" if found.left is None else f", about {span(found.left)} to go"
    return f"{found.words}{left}, {span(seconds)} so far"
