"""When a published figure stays as it is: same records, same look, data within a stated tolerance.

Two machines round differently, so drawing the same records again moves the last digits of whatever runs through the
model, and with them every byte of a picture. Such a figure is left alone. One that changed for a reason is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from types import MappingProxyType
from xml.etree import ElementTree

import numpy as np
import pandas as pd

EXACT = 1e-8  # of a column's scale: sums of the same records in another order

# What runs through the model again each time, by figure and column: how far it may move, as a share of the column's
# largest absolute value. About ten times the largest difference seen between instruction sets (AVX-512, AVX2, none).
TOLERANCES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "base_training": {"loss": 1e-5},
        "corpus_perplexity": {"logp": 1e-5, "per_token": 1e-5},
        "drop_vs_perplexity": {"perplexity": 1e-5},
        "dynamics_bound": dict.fromkeys(("g", "kernel", "gradient", "words", "target", "measured", "lbk"), 1e-3),
        "dynamics_cosine": dict.fromkeys(("mean", "low", "high"), 1e-3),
        "dynamics_errors": dict.fromkeys(("error", "low", "high", "gain", "gain_low", "gain_high"), 1e-3),
        "dynamics_forecast": dict.fromkeys(("change", "first order", "linear logits"), 1e-3),
        "dynamics_influence": dict.fromkeys(("mean", "low", "high"), 1e-4),
        "dynamics_kernel": dict.fromkeys(("mean", "low", "high"), 1e-4),
        "dynamics_prediction": dict.fromkeys(("value", "value_low", "value_high"), 1e-3),
        "dynamics_symmetry": dict.fromkeys(("forward", "backward"), 1e-2),
        "dynamics_training": dict.fromkeys(("value", "smooth"), 1e-4),
        "landscape_corpora": {"logp": 1e-5, "per_token": 1e-5},
        "landscape_forgetting": {"perplexity": 1e-5},
        "landscape_reach": {"likelihood": 1e-4},
        "landscape_tokens": {"logp": 1e-5},
    }
)

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_COLOUR = re.compile(r"#([0-9a-f]{6})")
_COLOURS_APART = 2  # of 255: a colour scale follows its numbers' last digits


def same_data(before: pd.DataFrame, now: pd.DataFrame, figure: str = "") -> bool:
    """Whether two tables hold the same rows: words alike, numbers within their column's tolerance in `figure`."""
    if list(before.columns) != list(now.columns) or len(before) != len(now):
        return False
    known = TOLERANCES.get(figure, {})
    return all(_same_column(before[name], now[name], known.get(name, EXACT)) for name in before.columns)


def _same_column(before: pd.Series, now: pd.Series, tolerance: float) -> bool:
    if not all(pd.api.types.is_numeric_dtype(column) for column in (before, now)):
        return before.astype(str).tolist() == now.astype(str).tolist()
    old, new = (column.to_numpy(dtype=float) for column in (before, now))
    scale = float(np.nanmax(np.abs(old), initial=0.0))
    return bool(np.allclose(old, new, rtol=0, atol=tolerance * scale, equal_nan=True))


def same_words(before: str, now: str) -> bool:
    """Whether two alt texts differ in nothing but their numbers (which `same_data` has judged)."""
    return _NUMBER.sub("#", " ".join(before.split())) == _NUMBER.sub("#", " ".join(now.split()))


def same_look(before: str, now: str) -> bool:
    """Whether two SVG drawings differ in nothing but where things stand: same elements, letters, widths, colours.

    Where things stand follows from the data, which `same_data` has judged. Raises `ElementTree.ParseError`.
    """
    (old, old_colours), (new, new_colours) = _look(before), _look(now)
    return old == new and all(abs(a - b) <= _COLOURS_APART for a, b in zip(old_colours, new_colours, strict=True))


def _look(svg: str) -> tuple[list[str], list[int]]:
    """(what is drawn, element by element, without places and colours; the colours, three bytes each)."""
    words, colours = [], []
    for element in ElementTree.fromstring(svg).iter():
        style = element.get("style", "")
        letter = next((v for k, v in element.items() if k.endswith("href") and v.startswith("#DejaVu")), "")
        size = element.get("viewBox", "")
        words += [element.tag, _COLOUR.sub("#", style), letter, size]
        colours += [byte for colour in _COLOUR.findall(style) for byte in bytes.fromhex(colour)]
    return words, colours


def read_csv(text: str) -> pd.DataFrame:
    """A table as it is read back from a file; an empty cell is an empty word, as it was written."""
    return pd.read_csv(StringIO(text), keep_default_na=False, na_values=[""])
