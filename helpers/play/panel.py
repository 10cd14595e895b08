"""What panels share that ask a kernel: how one is displayed, its menus and its own keys, and a file that comes in."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import ipywidgets as widgets
from IPython.display import HTML, display
from PIL import Image

from helpers.errors import UserError
from helpers.show.widgets import front_end_present
from helpers.world.forms import Asked
from helpers.world.pictures import read_picture

FORMS: Mapping[str, Asked] = MappingProxyType(
    {"as it is": "plain", "think first": "think", "answer directly": "direct", "full sentences": "sentences"}
)
"""The forms that a prompt can ask for, by what panels call them."""

WITHOUT = "Where it shows no controls, or broken links beside them, run this cell."
"""What a reader does where the kernel is gone; a saved notebook shows what the panel last showed."""

MOST_BYTES, MOST_PIXELS = 8_000_000, 40_000_000  # of an upload; what is longer, a notebook's channel may refuse


def uploaded(name: str, content: bytes) -> Image.Image:
    """The picture of an uploaded file. Raises UserError, in a sentence, for one that is too large or cannot be read."""
    if len(content) > MOST_BYTES:
        size = f"{len(content) / 1e6:.0f} MB; {MOST_BYTES / 1e6:.0f} MB are the most"
        raise UserError(f"{name} has {size}: save it smaller.")
    width, height = _size(content)
    if width * height > MOST_PIXELS:
        raise UserError(f"{name} has {width} x {height} pixels, far more than are needed: save it smaller.")
    return read_picture(content, name).image


def _size(content: bytes) -> tuple[int, int]:
    """Pixels across and down, as a file's head says them; none where reading it will tell what is wrong with it."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


def put(make: Callable[[], widgets.Widget], line: str) -> None:
    """Display the panel that `make` makes below one quiet line, which alone stands where there was no kernel.

    So in an exported file; in a batch, where nobody could use it, nothing is made.
    """
    words = html.escape(f"{line} {WITHOUT}")
    display(HTML(f'<p style="color:#595959;font-size:12.5px;margin:0">{words}</p>'))
    if front_end_present():
        # The empty HTML is what an exported file shows in place of the widget, which it cannot draw.
        display({**make()._repr_mimebundle_(), "text/plain": "", "text/html": ""}, raw=True)


def menu(label: str, options: Sequence[str], value: str | None = None) -> widgets.Dropdown:
    """A labelled menu that takes its share of a row's width; the first option unless `value` says another."""
    layout, style = {"width": "auto", "flex": "1 1 0", "min_width": "0"}, {"description_width": "initial"}
    return widgets.Dropdown(description=label, options=options, value=value or options[0], layout=layout, style=style)


_OWN_KEYS = """const box = this.closest('.widget-box');
const mark = (event) => {
  if (!box.isConnected) return window.removeEventListener('keydown', mark, true);
  if (!box.contains(event.target)) return;
  if (event.ctrlKey || event.metaKey) delete event.target.dataset.lmSuppressShortcuts;
  else event.target.dataset.lmSuppressShortcuts = 'true';
};
window.addEventListener('keydown', mark, true);"""


def own_keys() -> widgets.HTML:
    """As a box's first child: keeps the notebook's one-letter keys away from what has the focus in that box.

    Else `x` on a menu or a button would cut the cell. Keys with Ctrl stay the notebook's, such as the one that saves.
    """
    # The notebook looks for the mark on the very element that has the focus, before it looks for a shortcut.
    return widgets.HTML(f'<style onload="{html.escape(_OWN_KEYS)}"></style>', layout={"height": "0", "margin": "0"})
