"""A view whose data fit in the page: script and data in one HTML output; no kernel, no network, no widget's model.

The output is a frame with a document of its own (`srcdoc`). So it lives in JupyterLab, after save and reload, in
exported HTML and in voila alike; its keys never reach the notebook's shortcuts; its height follows its width,
never its values, so that nothing below it moves. What all views share stands in `web/kit.js`, each view in a script of
its name.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.errors import UserError
from helpers.study.arms import LineStyle, get_arm

WEB = Path(__file__).parent / "web"
Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><main id="view" aria-label="{title}"></main><noscript>{title}: this view needs JavaScript.</noscript>
<script type="application/json" id="data">{data}</script>
<script>{kit}</script><script>{script}</script></body></html>"""


@dataclass(frozen=True)
class View:
    """A page by the script `web/<name>.js`; as a cell's last line it displays itself.

    `title` says what it is (to a screen reader too); `data` must be JSON; `height` in pixels, at 1000 wide. Where
    its page can be reached, the frame takes the height that its content needs at its width, once drawn and on resize.
    """

    name: str
    title: str
    height: int
    data: Mapping[str, Json] = field(repr=False)

    def page(self) -> str:
        """The whole document. Raises UserError for a view without a script, or for data that are no JSON."""
        script = WEB / f"{self.name}.js"
        if not script.is_file():
            raise UserError(f"There is no view {self.name}: choose one of {', '.join(names())}.")
        parts = {"style": WEB / "kit.css", "kit": WEB / "kit.js", "script": script}
        texts = {part: path.read_text("utf-8") for part, path in parts.items()}
        return _DOCUMENT.format(title=html.escape(self.title), data=embedded({"view": self.name, **self.data}), **texts)

    def _repr_html_(self) -> str:
        framed = html.escape(self.page())
        style = f"width:100%;height:{self.height}px;border:0;display:block"
        return f'<iframe title="{html.escape(self.title)}" style="{style}" srcdoc="{framed}"></iframe>'


def names() -> list[str]:
    """The views that there are."""
    return sorted(path.stem for path in WEB.glob("*.js") if path.stem != "kit")


def embedded(data: Mapping[str, Json]) -> str:
    """Data as JSON that can stand inside a script element: no text in it ends the element or opens a comment."""
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"The data of a view must be JSON without NaN: {error}.") from error
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def png(picture: Image.Image | np.ndarray) -> str:
    """A picture (uint8, height x width x 3) as a data address that an <img> shows."""
    return _address(picture, "png", optimize=True)


def jpeg(picture: np.ndarray, quality: int = 88) -> str:
    """A small picture (uint8, height x width x 3) as a data address, a fifth as long as `png`'s: grain packs badly."""
    return _address(picture, "jpeg", quality=quality, subsampling=0, optimize=True)


def webp(picture: np.ndarray, quality: int = 95) -> str:
    """A picture as a data address, a quarter as long as a PNG: grain is what makes drawn scenes long."""
    return _address(picture, "webp", quality=quality, method=6)


def _address(picture: Image.Image | np.ndarray, kind: str, **how: int) -> str:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, kind.upper(), **how)
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode("ascii")


class Pictures:
    """Each different picture of a page once: `shown` as data addresses; called with pixels, the place of theirs."""

    def __init__(self, encode: Callable[[np.ndarray], str] = png) -> None:
        self.shown: list[Json] = []
        self._encode, self._places = encode, dict[bytes, int]()

    def __call__(self, pixels: np.ndarray) -> int:
        key = pixels.tobytes()
        if key not in self._places:
            self._places[key] = len(self.shown)
            self.shown.append(self._encode(pixels))
        return self._places[key]


def numbers(values: Iterable[float], digits: int = 4) -> list[Json]:
    """Numbers with so many significant digits, a missing or infinite one as null: pages stay small."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in values]


def look(arm: str) -> dict[str, Json]:
    """The colour, marker and dashes of an arm in every figure, for a page."""
    style = get_arm(arm).look
    return {"colour": style.colour, "marker": style.marker, "dash": dashes(style.linestyle)}


def dashes(style: LineStyle) -> str:
    """matplotlib's line style as SVG's stroke-dasharray."""
    named = {"-": "", "--": "6 3", ":": "1.5 2.5", "-.": "7 3 1.5 3"}
    return named[style] if isinstance(style, str) else " ".join(f"{part:g}" for part in style[1])
