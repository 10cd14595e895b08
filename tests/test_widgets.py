"""Where controls that ask the kernel are offered, and where not."""

from __future__ import annotations

import pytest

from helpers.show import widgets


class ZMQInteractiveShell:
    """Stands for a notebook's shell: the class name is what tells it apart."""


def test_outside_a_kernel_there_is_no_front_end() -> None:
    assert not widgets.front_end_present()


@pytest.mark.parametrize("name", ["JIGSAW_STATIC", "PAPERMILL"])
def test_runner_keeps_a_notebook_static(monkeypatch, name) -> None:
    for each in ("JIGSAW_STATIC", "PAPERMILL"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setattr(widgets, "get_ipython", ZMQInteractiveShell)
    assert widgets.front_end_present()
    monkeypatch.setenv(name, "1")
    assert not widgets.front_end_present()
    monkeypatch.setenv(name, "0")
    assert widgets.front_end_present()
