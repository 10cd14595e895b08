"""Shows that a long cell is at work: one line with a bar in a notebook, a line for the runner in a batch.

What the line says is counted by `helpers.progress`; a cell that ends within a moment has none. Nothing of it is among
what is computed or saved: in a batch it goes to a file beside the log.
"""

from __future__ import annotations

import contextvars
import html
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from IPython.display import HTML, DisplayHandle

from helpers import progress
from helpers.files import write_file

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell

PATIENCE = 1.2  # seconds after which a cell says that it works
PAUSE = 0.5  # seconds between two looks
PULSE = "JIGSAW_PULSE"  # the file that tells the runner where a notebook is; set by the runner
_QUIET = "color:#595959;font-size:12.5px;font-variant-numeric:tabular-nums;white-space:nowrap"

Line = Callable[[float, bool], None]
"""Shows a cell at work: called with the seconds it has taken, and whether it has ended."""


def in_a_batch() -> bool:
    """Whether nobody looks on: JIGSAW_STATIC or PAPERMILL is set."""
    return any(os.environ.get(name, "") not in ("", "0") for name in ("JIGSAW_STATIC", "PAPERMILL"))


class Watch:
    """Looks at each cell of a shell, from a thread of its own. `begin` makes the `Line` of a cell from its text."""

    def __init__(self, shell: InteractiveShell, begin: Callable[[str], Line]) -> None:
        self.shell, self.begin, self.ended, self.looking = shell, begin, Event(), Thread()

    def start(self) -> None:
        """Look at every cell from the next one on."""
        self.shell.events.register("pre_run_cell", self._cell_begins)
        self.shell.events.register("post_run_cell", self._cell_ends)

    def stop(self) -> None:
        """Look no more."""
        self.ended.set()
        self.shell.events.unregister("pre_run_cell", self._cell_begins)
        self.shell.events.unregister("post_run_cell", self._cell_ends)

    def _cell_begins(self, info: ExecutionInfo) -> None:
        self.ended = Event()
        # A display finds its cell by the context that it is made in, which a new thread would not have.
        context = contextvars.copy_context()
        told = (self._look, self.ended, str(info.raw_cell))
        self.looking = Thread(target=context.run, args=told, daemon=True)
        self.looking.start()

    def _cell_ends(self, _: object) -> None:
        self.ended.set()
        if self.looking.is_alive():
            self.looking.join(timeout=1)  # its last line belongs to this cell

    def _look(self, ended: Event, cell: str) -> None:
        began = time.monotonic()
        if ended.wait(PATIENCE):
            return
        line = self.begin(cell)
        while not ended.is_set():
            line(time.monotonic() - began, False)
            ended.wait(PAUSE)
        line(time.monotonic() - began, True)


def bar(_: str) -> Line:
    """A bar with words below the cell, which becomes one plain line when the cell ends."""
    handle = DisplayHandle()
    shown: list[HTML] = []

    def line(seconds: float, ended: bool) -> None:
        now = HTML(_plain(seconds) if ended else _bar(seconds))
        handle.update(now) if shown else handle.display(now)
        shown[:] = [now]

    return line


def _plain(seconds: float) -> str:
    return f'<div style="{_QUIET}">This cell took {progress.span(seconds)}.</div>'


def _bar(seconds: float) -> str:
    known = progress.now()
    share = "" if known is None else f' max="1" value="{known.share:.3f}"'
    words = html.escape(progress.told(seconds))
    width = "width:160px;margin-right:8px;vertical-align:middle"
    return f'<div style="{_QUIET}"><progress aria-label="this cell"{share} style="{width}"></progress>{words}</div>'


def pulse(file: Path) -> Callable[[str], Line]:
    """Lines that are written to a file, each in place of the one before; none is left when the cell ends."""

    def begin(cell: str) -> Line:
        """The line of a cell with this code."""
        first = next((line.strip() for line in cell.splitlines() if line.strip()), "")

        def line(seconds: float, ended: bool) -> None:
            said = "" if ended else f"`{first[:60]}`: {progress.told(seconds)}"
            write_file(file, said)

        return line

    return begin


def watch(shell: InteractiveShell) -> Watch | None:
    """Begin to look at a shell's cells; None where nobody would see it, as in a page that voila serves."""
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return None
    file = os.environ.get(PULSE)
    if in_a_batch() and not file:
        return None
    looking = Watch(shell, pulse(Path(file)) if file else bar)
    looking.start()
    return looking
