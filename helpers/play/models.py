"""The models to play with: loaded once, whichever views and panels of a notebook ask for them."""

from __future__ import annotations

from functools import lru_cache

from helpers.measure.kept_runs import STEM
from helpers.model import build
from helpers.model.build import Loaded
from helpers.study.cells import base_name

BASE = base_name("two-form", STEM)
"""The base of the runs whose ends are kept."""


@lru_cache(maxsize=8)
def loaded(source: str) -> Loaded:
    """A model by what `build.load` takes: one in memory, however often it is asked for."""
    build.quiet_progress()
    return build.load(source)
