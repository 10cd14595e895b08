"""Ask the model: one's own question about one's own picture, to a base and, beside it, to a model trained on jigsaws.

`show()` in a cell displays the panel, which asks a kernel; `answer` is what it asks.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import numpy as np

from helpers.errors import UserError
from helpers.measure import kept_runs
from helpers.model import generate, score
from helpers.model.build import Loaded
from helpers.play import taught
from helpers.play.models import BASE, loaded
from helpers.play.page import png
from helpers.play.panel import FORMS, menu, own_keys, put, uploaded
from helpers.show.style import spaced
from helpers.world import answers
from helpers.world.battery import SIDE, battery_samples, battery_tasks
from helpers.world.boards import held_out_boards
from helpers.world.forms import Asked, wordings
from helpers.world.pictures import centred, packaged_photos
from helpers.world.puzzles import PuzzleSpec, prompt_text
from helpers.world.questions import Question
from helpers.world.scenes import KINDS, draw_scene

MOST_LETTERS = 400  # of a question
MOST_TOKENS = 96  # of an answer: twice the longest that is taught
HEIGHT = 545
OWN = "your own"
NEEDS_KERNEL = "Ask the model: this panel asks the models themselves, so it needs a kernel."
_SCENES = {
    "land": "hills", "things": "coloured things", "scatter": "many things", "sizes": "things of four sizes",
    "greys": "grey discs", "sign": "a sign", "collage": "four lands",
}  # fmt: skip


@dataclass(frozen=True)
class Suggestion:
    """A question that is worth asking: its name, picture (64, 64, 3) uint8, text, and the right answer to it."""

    name: str
    pixels: np.ndarray
    question: Question


@dataclass(frozen=True)
class Answer:
    """What a model wrote, greedily: its tokens with each one's log-prob (nats, T = 1), and the seconds it took."""

    tokens: tuple[str, ...]
    logps: tuple[float, ...]
    seconds: float
    finished: bool

    @property
    def text(self) -> str:
        """The tokens in one piece, without the end token."""
        return "".join(self.tokens[: len(self.tokens) - self.finished])


@lru_cache(maxsize=1)
def suggestions(count: int = 12) -> tuple[Suggestion, ...]:
    """Held-out questions of the prior battery, each task in turn, and last the jigsaw puzzle itself."""
    tasks = battery_tasks()
    rounds = math.ceil((count - 1) / len(tasks))
    drawn = [(task, k, battery_samples(task, rounds)[k]) for k in range(rounds) for task in tasks][: count - 1]
    found = [Suggestion(f"{_plain(task)} {k + 1}", one.pixels, one.question) for task, k, one in drawn]
    board = held_out_boards(PuzzleSpec(), 1)
    placement = spaced(board.placements[0])
    puzzle = Question("puzzle", prompt_text(board.spec), placement, "", "order", board.spec.tiles)
    return (*found, Suggestion("a jigsaw puzzle", board.pixels[0], puzzle))


def _plain(task: str) -> str:
    return task.replace("_", " ")


def drawn_pictures() -> dict[str, np.ndarray]:
    """A scene of each kind by what it shows, (64, 64, 3) uint8."""
    return {f"drawn: {_SCENES[kind]}": draw_scene(np.random.default_rng(2), kind).pixels for kind in KINDS}


@lru_cache(maxsize=1)
def pictures() -> dict[str, np.ndarray]:
    """What can be asked about beside the suggestions' own: drawn scenes and packaged photographs, by name."""
    photos = {f"photo: {p.facts['shows']}": np.asarray(centred(p.image, (SIDE, SIDE))) for p in packaged_photos()}
    return drawn_pictures() | photos


def own_picture(name: str, content: bytes) -> np.ndarray:
    """An uploaded picture as the models see it: its centre, (64, 64, 3) uint8. Raises UserError as `uploaded`."""
    return np.asarray(centred(uploaded(name, content), (SIDE, SIDE)))


def asking(question: str, asked: Asked) -> str:
    """The prompt: a question with the phrase behind it that asks for a form. UserError where there is no question."""
    plain = " ".join(question.split())
    if not plain:
        raise UserError("There is no question yet: write one, or choose a suggestion.")
    if len(plain) > MOST_LETTERS:
        raise UserError(f"The question has {len(plain)} letters; {MOST_LETTERS} are the most.")
    return " ".join([plain, *wordings(asked)[:1]])


def answer(model: Loaded, pixels: np.ndarray, prompt: str) -> Answer:
    """What a model answers greedily to a prompt about a picture (H, W, 3) uint8."""
    begin, tokenizer = time.perf_counter(), model.processor.tokenizer
    patches = score.patches(model.processor, [pixels])
    ids = score.prompt_ids(tokenizer, prompt, patches.grid)
    sampling = generate.Sampling(temperature=0.0, max_tokens=MOST_TOKENS)
    (said,) = generate.generate(model.model, tokenizer, [ids], patches, sampling)[0]
    seconds = time.perf_counter() - begin
    return Answer(tuple(tokenizer.decode([i]) for i in said.ids), said.logps, seconds, said.finished)


def choices() -> dict[str, str]:
    """The models that can be asked, by what the panel calls them: what `build.load` takes; the base first."""
    kept = {f"trained: {cell}": str(folder) for cell, (_, folder) in kept_runs.kept().items()}
    return {f"base: {BASE}": BASE} | kept


def show() -> None:
    """Display the panel, below one line for where there is no kernel; two models are loaded first, some seconds."""
    put(lambda: Panel().box, NEEDS_KERNEL)


class Panel:
    """The controls and what they show; `box` is the widget that holds all of it. Nothing in it changes its size."""

    def __init__(self) -> None:
        self.pixels, self.own, self.sources = suggestions()[0].pixels, suggestions()[0].pixels, choices()
        self.suggestion = menu("Suggestion", [one.name for one in suggestions()])
        self.picture = menu("Picture", ["of the suggestion", *pictures(), OWN])
        self.upload = widgets.FileUpload(
            description="Own picture (up to 8 MB)", accept="image/*", layout={"width": "235px"}
        )
        self.question = widgets.Textarea(
            description="Question",
            rows=3,
            layout={"width": "auto", "height": "66px"},
            style={"description_width": "initial"},
        )
        self.form = menu("Form asked for", list(FORMS))
        names = list(self.sources)
        self.left, self.right = menu("Left answer", names), menu("Right answer", names, names[min(1, len(names) - 1)])
        self.ask = widgets.Button(description="Ask", button_style="primary", layout={"width": "90px"})
        self.shown, self.status = widgets.HTML(), widgets.HTML(layout={"height": "56px"})
        self.said = [widgets.HTML(layout={"width": "50%", "height": "262px"}) for _ in range(2)]
        for one in (self.left, self.right):
            loaded(self.sources[one.value])  # now, so that the first answer is as quick as the others
        self._suggest()
        self._listen()
        self.box = self._box()

    def _box(self) -> widgets.VBox:
        controls = widgets.VBox(
            [
                widgets.HBox([self.suggestion, self.form]),
                widgets.HBox([self.picture, self.upload]),
                self.question,
                widgets.HBox([self.left, self.right, self.ask]),
            ],
            layout={"flex": "1 1 0", "min_width": "0"},
        )
        seen = widgets.VBox([self.shown], layout={"width": "176px", "height": "190px", "flex": "none"})
        top = widgets.HBox([seen, controls], layout={"height": "196px"})
        rows = [own_keys(), top, self.status, widgets.HBox(self.said, layout={"height": "268px"})]
        return widgets.VBox(rows, layout={"height": f"{HEIGHT}px", "max_width": "1000px", "overflow": "hidden"})

    def _listen(self) -> None:
        self.suggestion.observe(lambda _: self._suggest(), "value")
        self.picture.observe(lambda _: self._picture(), "value")
        self.upload.observe(lambda _: self._uploaded(), "value")
        self.question.observe(lambda _: self._typed(), "value")
        for one in (self.form, self.left, self.right):
            one.observe(lambda _: self._ready(), "value")
        self.ask.on_click(lambda _: self.answer())

    @property
    def prompt(self) -> str:
        """What the models will read beside the picture. Raises UserError where nothing is asked."""
        return asking(self.question.value, FORMS[self.form.value])

    def _suggest(self) -> None:
        one = suggestions()[self.suggestion.index]
        self.question.value, self.picture.index = one.question.text, 0
        self._see(one.pixels, f"The picture of the suggestion: {one.name}.")

    def _picture(self) -> None:
        chosen, suggested = self.picture.value, suggestions()[self.suggestion.index].pixels
        self._see({**pictures(), OWN: self.own}.get(chosen, suggested), f"The picture: {chosen}.")
        if chosen == OWN and not self.upload.value:
            self._tell("There is no picture of yours yet: choose a file with the button beside the menu.", "wrong")

    def _uploaded(self) -> None:
        if not self.upload.value:
            return
        file = self.upload.value[0]
        try:
            self.own = own_picture(file["name"], bytes(file["content"]))
        except UserError as error:
            self._tell(html.escape(str(error)), "wrong")
            return
        self.picture.value = OWN
        self._see(self.own, f"Your picture: {file['name']}.")

    def _see(self, pixels: np.ndarray, alt: str) -> None:
        self.pixels = pixels
        style = "width:168px;height:168px;image-rendering:pixelated;display:block"
        self.shown.value = f'<img style="{style}" alt="{html.escape(alt)}" src="{png(pixels)}">'
        self._ready()

    def _typed(self) -> None:
        """A new line in the question is the key Enter: it asks."""
        if "\n" in self.question.value:
            self.question.value = " ".join(self.question.value.split())
            self.answer()
        else:
            self._ready()

    def _ready(self) -> None:
        """Show what will be asked, and which words of it were never taught; answers to another question go."""
        for one in self.said:
            one.value = ""
        try:
            self._tell(f"<b>They read:</b> {html.escape(self.prompt)}", "", taught.warning(self.prompt))
        except UserError as error:
            self._tell(html.escape(str(error)), "wrong")

    def _tell(self, line: str, kind: str, warning: str = "") -> None:
        colour = "#a33a00" if kind == "wrong" else "#222"
        note = f'<div style="color:#a33a00">⚠ {html.escape(warning)}</div>' if warning else ""
        style = f"color:{colour};line-height:1.35;height:54px;overflow:auto"
        self.status.value = f'<div role="status" style="{style}">{line}{note}</div>'

    def answer(self) -> None:
        """Ask both models and show what each says."""
        try:
            prompt = self.prompt
        except UserError as error:
            self._tell(html.escape(str(error)), "wrong")
            return
        for place, chosen in zip(self.said, (self.left, self.right), strict=True):
            try:
                said = answer(loaded(self.sources[chosen.value]), self.pixels, prompt)
            except UserError as error:
                self._tell(html.escape(str(error)), "wrong")
                return
            place.value = card(chosen.value, said, self._right(said))

    def _right(self, said: Answer) -> str:
        """Whether an answer is right, where that is known: the suggestion's question about the suggestion's picture."""
        one = suggestions()[self.suggestion.index]
        if self.pixels is not one.pixels or self.question.value != one.question.text:
            return ""
        right = answers.score_answer(said.text, one.question) == 1.0
        return "✓ right" if right else f"✗ wrong; right is {one.question.answer}"


def card(name: str, said: Answer, verdict: str = "") -> str:
    """An answer as HTML: its text, whether it is right, each token with its log-prob, and what it took."""
    total = sum(said.logps)
    facts = f"{len(said.tokens)} tokens, log-prob {total:.3g} in all, {total / len(said.tokens):.2g} per token"
    facts += "; below each token its own: 0 is certain"
    stopped = "" if said.finished else f" Stopped after {MOST_TOKENS} tokens."
    colour = "#00664c" if verdict.startswith("✓") else "#a33a00"
    style = "line-height:1.35;height:256px;overflow:auto;padding-right:8px"
    return (
        f'<section aria-label="{html.escape(name)}" style="{style}">'
        f"<b>{html.escape(name)}</b>, {said.seconds:.2f} s"
        f'<span style="color:{colour};font-weight:600;margin-left:10px">{html.escape(verdict)}</span>'
        f'<div style="font-family:monospace;margin:2px 0 6px">{html.escape(said.text) or "(nothing)"}</div>'
        f"<div>{''.join(_boxes(said.tokens, said.logps))}</div>"
        f'<div style="color:#595959;font-size:12.5px">{facts}.{stopped}</div></section>'
    )


def _boxes(tokens: Iterable[str], logps: Sequence[float]) -> Iterable[str]:
    """Each token over its log-prob; the less probable, the darker its ground."""
    for token, logp in zip(tokens, logps, strict=True):
        strength = min(0.55, 0.12 * -logp)
        style = f"background:rgba(230,159,0,{strength:.2f});border:1px solid #c4c4c4;border-radius:3px;margin:1px"
        style += ";padding:0 3px;display:inline-block;text-align:center;line-height:1.25"
        said = html.escape(token.replace(" ", "·").replace("\n", "⏎")) or "?"
        value = f'<span style="font-size:11.5px;color:#444">{_short(logp)}</span>'
        yield f'<span style="{style}"><span style="font-family:monospace">{said}</span><br>{value}</span>'


def _short(logp: float) -> str:
    """Two significant digits; a log-prob that rounds to nothing is 0."""
    return "0" if logp > -5e-4 else f"{logp:.2g}".replace("-0.", "-.").replace("-", "−")
