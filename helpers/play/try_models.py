"""A panel that lets every model try a picture of one's own; it asks the kernel.

Drawn boards and packaged photographs are tried beforehand, for the page of `play.solve`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets
import numpy as np
from PIL import Image

from helpers.errors import UserError
from helpers.play.page import png
from helpers.play.panel import own_keys, put, uploaded
from helpers.play.tries import PUZZLE, Attempt, Solver, attempts, cut, photographs, solvers, telling
from helpers.show.style import spaced
from helpers.world import puzzles

NEEDS_KERNEL = (
    "Your own picture: this panel asks the models themselves, so it needs a kernel. Drawn boards and photographs are "
    "tried in the view above without one."
)
BOARD = "the board: all that a model sees"
CELL = "text-align:left;padding:1px 9px;white-space:nowrap"
STRIDE = 1000  # between the numbers of one shuffle and the next
HEIGHT = 504  # pixels of the panel, with six rows that think


def try_on(picture: Image.Image | None = None) -> None:
    """A panel: a picture of one's own, cut and shuffled (2 x 2), and what every model says to it.

    It starts with `picture`, or with a packaged photograph. Without a kernel a sentence stands in its place.
    """
    put(lambda: Panel(picture or photographs()[2].image).box, NEEDS_KERNEL)


class Panel:
    """The controls of `try_on` and what they show: `box` is displayed."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture, self.number = picture, 0
        self.upload = ipywidgets.FileUpload(
            accept=".jpg,.jpeg,.png,.webp", description="Your picture", tooltip="Your picture: JPEG, PNG or WebP"
        )
        again = ipywidgets.Button(description="Shuffle again", tooltip="The same picture, shuffled otherwise")
        ask = ipywidgets.Button(description="Let the models try", button_style="primary", tooltip="Ask every model")
        self.said = ipywidgets.HTML(layout=ipywidgets.Layout(height="44px"))
        self.board = ipywidgets.HTML(layout=ipywidgets.Layout(height="150px"))
        self.table = ipywidgets.HTML(layout=ipywidgets.Layout(height="270px", overflow="auto"))
        self.upload.observe(lambda _: self._take(), names="value")
        again.on_click(lambda _: self._shuffle())
        ask.on_click(lambda _: self.ask())
        rows = [own_keys(), ipywidgets.HBox([self.upload, again, ask]), self.said, self.board, self.table]
        self.box = ipywidgets.VBox(rows, layout=ipywidgets.Layout(height=f"{HEIGHT}px"))
        self._show()

    def _take(self) -> None:
        """The file that was chosen last; one that is no picture, or too small, is told in a sentence."""
        if not self.upload.value:
            return
        file = self.upload.value[-1]
        try:
            image = uploaded(file["name"], bytes(file["content"]))
            puzzles.fit_picture(image, PUZZLE)
        except UserError as error:
            self._tell(f"{error} The board is still that of the picture before.", wrong=True)
            return
        self.picture = image
        self._shuffle()

    def _shuffle(self) -> None:
        self.number += 1
        self._show()

    def _show(self) -> None:
        """The board that is asked about; the picture itself stays hidden until the models have tried."""
        placement = telling(PUZZLE, self.number * STRIDE)
        self.boards = cut([self.picture], [placement])
        self.board.value = _picture(self.boards.pixels[0], BOARD)
        self.table.value = ""
        self._tell("Where does each tile belong? Make up your mind, then let the models try.")

    def ask(self) -> None:
        """Let every model try the board, and show what each says."""
        self._tell("The models look at the board ...")
        rows = [(solver, attempts(solver, self.boards)[0]) for solver in solvers()]
        placement = self.boards.placements[0]
        solved = puzzles.restore(Image.fromarray(self.boards.pixels[0]), PUZZLE, placement.tolist())
        answer = f"the picture: the answer is {spaced(placement)}"
        self.board.value = _picture(self.boards.pixels[0], BOARD) + _picture(np.asarray(solved), answer)
        self.table.value = table(rows)
        right = sum(attempt.score.exact == 1 for _, attempt in rows)
        self._tell(f"{right} of {len(rows)} answers are right. A guess is in one of {PUZZLE.n_placements}.")

    def _tell(self, words: str, wrong: bool = False) -> None:
        colour = "#a33a00" if wrong else "#222"
        style = f"color:{colour};display:block;white-space:normal;line-height:1.35"
        self.said.value = f'<span role="status" style="{style}">{html.escape(words)}</span>'


def table(rows: Sequence[tuple[Solver, Attempt]]) -> str:
    """What models said to one board, as an HTML table: a row a model."""
    heads = ("model", "says", "", "reward: hit + exact + form", "log-prob of truth")
    head = "".join(f'<th scope="col" style="{CELL}">{name}</th>' for name in heads)
    body = "".join(map(_row, rows))
    return f'<table style="line-height:1.5"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(row: tuple[Solver, Attempt]) -> str:
    solver, attempt = row
    score = attempt.score
    cells = (
        f"{html.escape(solver.name)}, {solver.asked}",
        f'<code style="white-space:normal">{html.escape(attempt.said)}</code>',
        "✓ right" if score.exact else "✗ wrong",
        f"{score.hit:g} + {score.exact:g} + {score.format:g} = {attempt.reward:g}",
        f"{attempt.logp:.3g}",
    )
    return "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in cells) + "</tr>"


def _picture(pixels: np.ndarray, words: str) -> str:
    """A small picture, enlarged pixel by pixel, above what it is."""
    image = f'<img src="{png(pixels)}" alt="{words}" style="width:120px;height:120px;image-rendering:pixelated">'
    figure = "display:inline-block;margin:0 16px 0 0;font-size:12px;line-height:1.3"
    return f'<figure style="{figure}">{image}<figcaption>{words}</figcaption></figure>'
