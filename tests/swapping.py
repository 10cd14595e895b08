"""Replacing a function of the suite for one test, wherever it has been imported to."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


def swap(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, value: Any) -> None:
    """Put `value` in place of `module.name` in every loaded module of the suite that holds the same object."""
    original = getattr(module, name)
    for loaded in [module, *(m for key, m in sys.modules.items() if key.startswith(("helpers.", "tests.")))]:
        if getattr(loaded, name, None) is original:
            monkeypatch.setattr(loaded, name, value)
