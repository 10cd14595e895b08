"""What panels share that ask a kernel: how one is displayed, its menus, and its own keys."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from IPython.display import HTML, display

from helpers.show.widgets import front_end_present


def put(make: Callable[[], widgets.Widget], line: str) -> None:
    """Display the panel that `make` makes below one quiet line, which alone stands where there is no kernel.

    So after a reload and in an exported file; in a batch, where nobody could use it, nothing is made.
    """
    display(HTML(f'<p style="color:#595959;font-size:12.5px;margin:0">{html.escape(line)}</p>'))
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
