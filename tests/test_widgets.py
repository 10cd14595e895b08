"""Widgets: the static view needs no kernel, and the controls redraw what they say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.errors import UserError
from helpers.show import plots, widgets
from helpers.show.widgets import Choice, Slider


class ZMQInteractiveShell:
    """Stands for a notebook's shell: the class name is what tells it apart."""


@pytest.fixture
def displayed(monkeypatch) -> list:
    """What is displayed, in order; `display` returns a handle that records updates as ("update", html)."""
    seen: list = []
    handle = SimpleNamespace(update=lambda shown: seen.append(("update", shown.data)))

    def display(item, display_id=False):
        seen.append(item)
        return handle if display_id else None

    monkeypatch.setattr(widgets, "display", display)
    return seen


@pytest.fixture
def notebook(monkeypatch) -> None:
    for name in ("JIGSAW_STATIC", "PAPERMILL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(widgets, "get_ipython", ZMQInteractiveShell)


def draw_text(size, word="a", twice=False):
    return word * int(size) * (2 if twice else 1)


def test_static_without_a_kernel(displayed):
    widgets.explore(draw_text, size=Slider(3, 1, 5), word=Choice(("x", "y")), twice=False)
    assert displayed == ["xxx"]


def test_real_display_works_without_a_kernel(capsys):
    widgets.explore(draw_text, size=Slider(3, 1, 5))
    assert "aaa" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["JIGSAW_STATIC", "PAPERMILL"])
def test_runner_keeps_a_notebook_static(notebook, displayed, monkeypatch, name):
    assert widgets.front_end_present()
    monkeypatch.setenv(name, "1")
    assert not widgets.front_end_present()
    widgets.explore(draw_text, size=Slider(1, 0, 2))
    assert displayed == ["a"]
    monkeypatch.setenv(name, "0")
    assert widgets.front_end_present()


def test_controls_follow_the_static_figure_and_redraw(notebook, displayed):
    widgets.explore(draw_text, size=Slider(2, 0, 4), word=Choice(("x", "y")), twice=True)
    static, panel = displayed
    assert static == "xxxx"
    size, word, twice, output = panel.children
    assert [type(child).__name__ for child in panel.children] == [
        "IntSlider",
        "Dropdown",
        "Checkbox",
        "Output",
    ]
    assert output.outputs == ()
    size.value = 3
    assert "xxxxxx" in output.outputs[0]["data"]["text/plain"]
    assert displayed[2] == ("update", "")  # the static figure makes room for the live one
    word.value, twice.value = "y", False
    assert len(output.outputs) == 1
    assert output.outputs[0]["data"]["text/plain"] == "'yyy'"


def test_float_sliders_keep_their_step():
    size = widgets.build_controls(draw_text, {"size": Slider(0.5, 0, 1, 0.25)}).children[0]
    assert type(size).__name__ == "FloatSlider"
    assert (size.min, size.max, size.step, size.value) == (0, 1, 0.25, 0.5)


def test_user_errors_are_shown_in_place():
    def draw(size):
        if size > 1:
            raise UserError("Too <large>: choose less.")
        return "fine"

    size, output = widgets.build_controls(draw, {"size": Slider(1, 0, 2)}).children
    size.value = 2
    assert "Too &lt;large&gt;: choose less." in output.outputs[0]["data"]["text/html"]


def test_bare_figures_get_alt_text(displayed):
    def draw(index):
        """Boards, one after the other.

        More about them.
        """
        return plots.board_gallery([np.zeros((2, 2))], [str(index)])

    widgets.explore(draw, index=Slider(4, 0, 9))
    assert 'alt="Boards, one after the other (index = 4)"' in displayed[0].data


@pytest.mark.parametrize("control", [3, (0, 5), None])
def test_unknown_controls_are_refused(displayed, control):
    with pytest.raises(UserError, match="pass a Slider"):
        widgets.explore(draw_text, size=control)


@pytest.mark.parametrize("bad", [lambda: Slider(5, 0, 4), lambda: Slider(0, 0, 4, 0), lambda: Choice(())])
def test_impossible_controls_are_refused(bad):
    with pytest.raises(UserError):
        bad()
