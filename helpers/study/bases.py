"""The base models that the suite brings along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_HERE = Path(__file__).parents[1]
BASES: Mapping[str, Path] = MappingProxyType(
    {"shipped": _HERE / "base_model"} | {path.name: path for path in sorted((_HERE / "bases").glob("[!.]*"))}
)
"""Base models by the name that a `RunSpec` gives them; any other name is a folder or a model of the hub."""
