"""How panels that ask a kernel are displayed: with one, and where there is none."""

from __future__ import annotations

import ipywidgets
import pytest
from swapping import swap

from helpers.play import panel

WIDGET = "application/vnd.jupyter.widget-view+json"


def displayed(monkeypatch: pytest.MonkeyPatch, front_end: bool) -> list:
    """What `put` displays."""
    shown: list = []
    swap(monkeypatch, panel, "display", lambda item, **_: shown.append(item))
    swap(monkeypatch, panel, "front_end_present", lambda: front_end)
    panel.put(lambda: ipywidgets.VBox([ipywidgets.Button()]), "needs a <kernel>")
    return shown


def test_the_line_stands_alone_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = displayed(monkeypatch, front_end=False)
    assert "needs a &lt;kernel&gt;" in line.data


def test_a_page_without_a_kernel_shows_nothing_of_the_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    line, widget = displayed(monkeypatch, front_end=True)
    assert "needs a &lt;kernel&gt;" in line.data
    assert WIDGET in widget and "VBox" not in widget["text/plain"] + widget["text/html"]
