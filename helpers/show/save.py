"""Saving a figure with its data, its alt text and where it comes from, so that the same data give the same bytes."""

from __future__ import annotations

import base64
import html
import io
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from helpers.errors import UserError
from helpers.files import json_bytes, package_version, read_json, write_file
from helpers.show import keep
from helpers.show.style import use_style
from helpers.stats.summary import csv_text
from helpers.study.spec import RunSpec

LIBRARIES = ("matplotlib", "numpy", "pandas", "torch", "transformers", "trl")
SUFFIXES = ("csv", "json", "png", "svg", "txt")
MANIFEST = "manifest.json"
REDRAW = "delete it and redraw the figure"


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk; in a notebook it displays itself with its alt text."""

    id: str
    path: Path
    alt: str

    def _repr_html_(self) -> str:
        return _figure_html(self.path.read_bytes(), self.alt)


@dataclass(frozen=True)
class Source:
    """Where a figure comes from: run specs or hashes behind it, and the digest of the records that were read."""

    specs: tuple[str, ...] = ()
    records: str = ""

    @classmethod
    def of(cls, specs: Iterable[RunSpec | str], records: str = "") -> Source:
        """Hashes in order, each once."""
        return cls(tuple(sorted({spec if isinstance(spec, str) else spec.hash for spec in specs})), records)


def savefig(
    fig: Figure,
    id: str,
    *,
    alt: str | None = None,
    data: pd.DataFrame | None = None,
    source: Source = Source(),
    folder: str | Path = "figures",
) -> SavedFigure:
    """Write `<id>.png|.svg|.csv|.txt|.json` into `folder` and list it in the manifest; bytes repeat.

    `alt` and `data` are what the plot function recorded, unless given. Files that hold the same figure already, up to
    the rounding of another machine (`keep`), stay as they are, byte for byte.
    The source notebook comes from the environment variable JIGSAW_NOTEBOOK, set by the runner.
    Raises UserError on an empty alt text, a bad id, or missing, empty or non-finite data.
    """
    alt = _checked_alt(getattr(fig, "jigsaw_alt", "") if alt is None else alt)
    frame, folder = checked_data(drawn(fig) if data is None else data), Path(folder)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", id) or id == "manifest":
        raise UserError(f"The figure id {id!r} will not do: use lower-case letters, digits, - and _.")
    about = _provenance(id, alt, source, folder)
    csv, svg = csv_text(frame), _svg(fig, id, alt)
    if not _is_there(folder, about, csv, svg):
        texts = {"svg": svg, "csv": csv, "txt": textwrap.fill(alt, 110) + "\n", "json": json_bytes(about, indent=2)}
        for suffix, content in {"png": _png(fig), **texts}.items():
            write_file(folder / f"{id}.{suffix}", content)
    write_file(folder / MANIFEST, json_bytes(_manifest(folder), indent=2))
    return SavedFigure(id, folder / f"{id}.png", alt)


def _is_there(folder: Path, about: Mapping[str, Any], csv: str, svg: bytes) -> bool:
    """Whether `folder` holds this figure, whole: from the same records, with the same look and words, and its data."""
    files = {suffix: folder / f"{about['figure']}.{suffix}" for suffix in SUFFIXES}
    if not all(path.is_file() for path in files.values()):
        return False
    known = read_json(files["json"], REDRAW)
    if any(known.get(key) != about[key] for key in ("specs", "records", "notebook", "files")):
        return False
    words = keep.same_words(str(known.get("alt", "")), about["alt"])
    return (
        words
        and keep.same_data(keep.read_csv(files["csv"].read_text()), keep.read_csv(csv), about["figure"])
        and keep.same_look(files["svg"].read_text(encoding="utf-8"), svg.decode("utf-8"), about["figure"])
    )


def save_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, unless the file holds the same table up to the rounding of another machine."""
    text = csv_text(frame)
    if not (path.is_file() and keep.same_data(keep.read_csv(path.read_text()), keep.read_csv(text))):
        write_file(path, text)


def nothing_to_draw(id: str) -> Markdown:
    """One line in place of a figure that has no data yet."""
    return Markdown(f"*There is nothing to draw for `{id}`: no run has these values yet.*")


def show(figure: SavedFigure | Figure, alt: str | None = None) -> HTML:
    """An HTML figure with embedded PNG and alt text: its own unless given (UserError where there is none)."""
    if isinstance(figure, SavedFigure):
        return HTML(figure._repr_html_())
    return HTML(_figure_html(_png(figure), _checked_alt(getattr(figure, "jigsaw_alt", "") if alt is None else alt)))


def drawn(fig: Figure) -> pd.DataFrame:
    """The numbers a plot function of this module drew on `fig`. Raises UserError if it recorded none."""
    frames = getattr(fig, "jigsaw_drawn", [])
    if not frames:
        raise UserError("This figure does not know its numbers: pass data=, a table of what is drawn.")
    if any(list(frame.columns) != list(frames[0].columns) for frame in frames):
        raise UserError("The panels of this figure draw different tables: pass data=, one table.")
    return pd.concat(frames, ignore_index=True)


def _checked_alt(alt: str) -> str:
    if not isinstance(alt, str) or not alt.strip():
        raise UserError("A figure needs alt text: say in a sentence what it shows.")
    return " ".join(alt.split())


def checked_data(data: pd.DataFrame) -> pd.DataFrame:
    """A table that can be drawn and read back: rows, no NaN, nothing infinite. Raises UserError otherwise."""
    if not isinstance(data, pd.DataFrame) or data.empty:
        raise UserError("A figure needs its data: pass a table with the numbers that are drawn.")
    numbers = data.select_dtypes("number").to_numpy(dtype=float)
    if data.isna().to_numpy().any() or not np.isfinite(numbers).all():
        raise UserError("The data of a figure holds NaN or infinity: drop those rows or say what they mean.")
    return data


def _png(fig: Figure) -> bytes:
    return _render(fig, "png", {"Software": None})


def _svg(fig: Figure, id: str, alt: str) -> bytes:
    return _render(fig, "svg", {"Date": None, "Creator": None, "Title": id, "Description": alt})


def _render(fig: Figure, kind: str, info: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with use_style():
        _settle(fig)
        fig.savefig(buffer, format=kind, metadata=info)
    return buffer.getvalue()


def _settle(fig: Figure) -> None:
    """Lay out once, then keep it: each further pass of the engine shifts things and so changes the bytes."""
    if fig.get_layout_engine() is not None:
        fig.draw_without_rendering()
        fig.set_layout_engine("none")


def _figure_html(png: bytes, alt: str) -> str:
    source = base64.b64encode(png).decode()
    image = f'<img alt="{html.escape(alt)}" style="max-width:100%" src="data:image/png;base64,{source}">'
    return f'<figure style="margin:0">{image}</figure>'


def _provenance(id: str, alt: str, source: Source, folder: Path) -> dict[str, Any]:
    return {
        "figure": id,
        "alt": alt,
        "files": [f"{id}.{suffix}" for suffix in SUFFIXES],
        "notebook": os.environ.get("JIGSAW_NOTEBOOK") or _known_notebook(folder / f"{id}.json"),
        "specs": list(source.specs),
        "records": source.records,
        "versions": {name: package_version(name) for name in LIBRARIES},
    }


def _known_notebook(path: Path) -> str | None:
    """Redrawing a figure by hand must not forget which notebook it belongs to."""
    return read_json(path, REDRAW).get("notebook") if path.exists() else None


def _manifest(folder: Path) -> dict[str, Any]:
    """Rebuilt from the figures' own files each time, so parallel notebooks keep each other's entries."""
    entries = {}
    for path in sorted(folder.glob("*.json")):
        about = {} if path.name == MANIFEST else read_json(path, REDRAW)
        if "figure" in about:
            entries[about["figure"]] = {key: about[key] for key in ("alt", "files", "notebook", "specs")}
    return entries
