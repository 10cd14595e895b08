"""Interactive views of the figures: the static picture first, controls only where a front end can show them.

Set JIGSAW_STATIC=1 (as the notebook runner does) to keep a notebook static even inside a kernel.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import HTML, display

from helpers.errors import UserError
from helpers.show import save


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high`; `value` is the default that the static figure shows."""

    value: float
    low: float
    high: float
    step: float = 1

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high or self.step <= 0:
            raise UserError(f"A slider needs low <= value <= high and step > 0, not {self}.")


@dataclass(frozen=True)
class Choice:
    """One of `options`; the first is the default that the static figure shows."""

    options: Sequence[Any]

    def __post_init__(self) -> None:
        if not self.options:
            raise UserError("A choice needs at least one option.")


Control = Slider | Choice | bool


def front_end_present() -> bool:
    """Whether controls work here: a kernel with ipywidgets, and neither JIGSAW_STATIC nor PAPERMILL set."""
    if any(os.environ.get(name, "") not in ("", "0") for name in ("JIGSAW_STATIC", "PAPERMILL")):
        return False
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def explore(draw: Callable[..., Any], **controls: Control) -> None:
    """Display `draw` at the controls' defaults and, with a front end, controls that redraw it.

    `draw` takes the controls by name and returns a figure or anything a notebook displays; the first line
    of its docstring becomes the alt text of a bare figure. Raises UserError on an unknown kind of control.
    """
    defaults = {name: _default(name, control) for name, control in controls.items()}
    shown = display(_shown(draw, defaults), display_id=True)
    if front_end_present():
        display(build_controls(draw, controls, shown))


def build_controls(draw: Callable[..., Any], controls: Mapping[str, Control], shown: Any = None) -> Any:
    """An `ipywidgets.VBox`: a widget per control and the `Output` below them that is redrawn on every change.

    `shown`: display handle of the static figure; at the first change it is emptied and the output takes over.
    """
    widgets = {name: _widget(name, control) for name, control in controls.items()}
    output = ipywidgets.Output()

    def redraw(_change: Any) -> None:
        if shown is not None:
            shown.update(HTML(""))
        _redraw(output, draw, {name: widget.value for name, widget in widgets.items()})

    for widget in widgets.values():
        widget.observe(redraw, names="value")
    return ipywidgets.VBox([*widgets.values(), output])


def _redraw(output: Any, draw: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Through the Output's own list: text printed or displayed by a callback is lost in some front ends."""
    try:
        shown = _shown(draw, values)
    except UserError as error:
        shown = _message(str(error))
    output.outputs = ()
    output.append_display_data(shown)


def _shown(draw: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    result = draw(**values)
    if not hasattr(result, "savefig"):
        return result
    about = (draw.__doc__ or "Interactive figure").strip().splitlines()[0].rstrip(".")
    setting = ", ".join(f"{name} = {value}" for name, value in values.items())
    return save.show(result, alt=f"{about} ({setting})" if setting else about)


def _default(name: str, control: Control) -> Any:
    if isinstance(control, bool):
        return control
    if isinstance(control, Slider):
        return control.value
    if isinstance(control, Choice):
        return control.options[0]
    raise UserError(f"The control {name} is a {type(control).__name__}: pass a Slider, a Choice or True/False.")


def _widget(name: str, control: Control) -> Any:
    common = {"value": _default(name, control), "description": name.replace("_", " ")}
    if isinstance(control, bool):
        return ipywidgets.Checkbox(**common)
    if isinstance(control, Choice):
        return ipywidgets.Dropdown(options=list(control.options), **common)
    whole = all(isinstance(part, int) for part in (control.value, control.low, control.high, control.step))
    slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    # Redrawing on release only: a figure takes longer than the slider takes to pass a value.
    limits = {"min": control.low, "max": control.high, "step": control.step, "continuous_update": False}
    return slider(**common, **limits)


def _message(text: str) -> HTML:
    return HTML(f'<p role="status">{html.escape(text)}</p>')
