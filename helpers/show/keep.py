"""When a published figure stays as it is: same records, same look, data within a stated tolerance.

Two machines round differently, so drawing the same records again moves the last digits of whatever runs through the
model, and with them every byte of a picture. Such a figure is left alone. One that changed for a reason is not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from io import StringIO
from types import MappingProxyType
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd

EXACT = 1e-9  # of each number: sums of the same records in another order
NEAR = 2.0  # points: how far anything may stand from where it stood
SLACK = 0.01  # of what a figure with tolerances draws

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
_PLACE = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_COLOUR = re.compile(r"#([0-9a-f]{6})")
_COLOURS_APART = 2  # of 255: a colour scale follows its numbers' last digits


def same_data(before: pd.DataFrame, now: pd.DataFrame, figure: str = "") -> bool:
    """Whether two tables hold the same rows: words alike, numbers within their column's tolerance in `figure`."""
    if list(before.columns) != list(now.columns) or len(before) != len(now):
        return False
    known = TOLERANCES.get(figure, {})
    return all(_same_column(before[name], now[name], known.get(name)) for name in before.columns)


def _same_column(before: pd.Series, now: pd.Series, tolerance: float | None) -> bool:
    """`tolerance`: a share of the column's scale; None: every number to `EXACT` of itself."""
    if not all(pd.api.types.is_numeric_dtype(column) for column in (before, now)):
        return before.astype(str).tolist() == now.astype(str).tolist()
    old, new = (column.to_numpy(dtype=float) for column in (before, now))
    if tolerance is None:
        return bool(np.allclose(old, new, rtol=EXACT, atol=1e-12, equal_nan=True))
    scale = float(np.abs(old[np.isfinite(old)]).max(initial=0.0))
    return bool(np.allclose(old, new, rtol=0, atol=tolerance * scale, equal_nan=True))


def same_words(before: str, now: str) -> bool:
    """Whether two alt texts say the same: numbers may differ by one in their last digit, as rounding does."""
    old, new = (" ".join(text.split()) for text in (before, now))
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=False)
    return _NUMBER.sub("#", old) == _NUMBER.sub("#", new) and all(_near(a, b) for a, b in pairs)


def _near(one: str, other: str) -> bool:
    return abs(_value(one) - _value(other)) <= 1.01 * max(_unit(one), _unit(other))


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _unit(number: str) -> float:
    """What one in the last digit is worth: 0.01 in "0.12", 100000 in "1,200,000", where noughts only fill up."""
    digits, _, power = number.replace(",", "").partition("e")
    whole, dot, decimals = digits.partition(".")
    last = -len(decimals) if dot else len(whole) - len(whole.rstrip("0"))
    return 10.0 ** (last + int(power or 0))


def same_look(before: str, now: str, figure: str = "") -> bool:
    """Whether two SVG drawings show the same: the same elements, letters and widths, colours and places nearly so.

    In a figure with tolerances a few points near the middle of a logarithmic axis, and a few last digits, may differ:
    `SLACK` of all places and letters. Raises `ElementTree.ParseError`.
    """
    old, new, slack = _look(before), _look(now), SLACK if figure in TOLERANCES else 0.0
    if slack and old.words != new.words:
        odd = (Counter(old.words) - Counter(new.words)) + (Counter(new.words) - Counter(old.words))
        return odd.total() <= slack * len(old.words)
    if old.words != new.words or len(old.places) != len(new.places):
        return False
    far = np.abs(np.subtract(old.places, new.places)) > NEAR
    return _apart(old.colours, new.colours) <= _COLOURS_APART and far.sum() <= slack * len(far)


def _apart(one: list[float], other: list[float]) -> float:
    return float(np.abs(np.subtract(one, other)).max(initial=0.0))


class _Look(NamedTuple):
    """A drawing in parts: elements with their styles and letters, colours (three bytes each), places (points)."""

    words: list[str]
    colours: list[float]
    places: list[float]


def _look(svg: str) -> _Look:
    look = _Look([], [], [])
    for element in ElementTree.fromstring(svg).iter():
        style = element.get("style", "")
        letter = next((v for k, v in element.items() if k.endswith("href") and v.startswith("#DejaVu")), "")
        look.words.extend((element.tag, _COLOUR.sub("#", style), letter, element.get("viewBox", "")))
        look.colours.extend(byte for colour in _COLOUR.findall(style) for byte in bytes.fromhex(colour))
        for name in ("d", "x", "y", "transform", "points"):
            look.places.extend(map(float, _PLACE.findall(element.get(name, ""))))
    return look


def read_csv(text: str) -> pd.DataFrame:
    """A table as it is read back from a file; an empty cell is an empty word, as it was written."""
    return pd.read_csv(StringIO(text), keep_default_na=False, na_values=[""])
