"""Pictures before cutting: your own photo folder, or photographs that two installed packages bring along.

Drawn scenes live in `helpers.world.scenes`. Everything here works without a network.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FORMATS = ("JPEG", "PNG", "WEBP")

# What Pillow raises, depending on where inside a file the damage sits.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """An image before cutting, with the facts known about it.

    image: PIL, mode RGB, any size. name: short and unique within its source. facts: plain values by name
    (for photographs: where the picture came from; for drawn scenes: what is in it).
    """

    image: Image.Image
    name: str
    facts: dict[str, Any] = field(default_factory=dict)


_SOURCES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
# Only files inside the two wheels. Left out: microscopy, medical pictures, text, silhouettes, logos and test
# charts; the bare textures (brick, grass, gravel), the blurred clock and the star field, which have no layout
# to rebuild; and the right half of the motorcycle stereo pair, nearly a copy of the left.
# Package, file inside it, what it shows, and its credit and licence as the package states them:
_PACKAGED = (
    ("skimage", "data/astronaut.png", "an astronaut", "NASA", "public domain"),
    ("skimage", "data/camera.png", "a man with a camera", "Lav Varshney", "CC0"),
    ("skimage", "data/chelsea.png", "a cat", "Stefan van der Walt", "CC0"),
    ("skimage", "data/coffee.png", "a cup of coffee", "Rachel Michetti", "CC0"),
    ("skimage", "data/coins.png", "old coins", "Brooklyn Museum", "no known copyright restrictions"),
    ("skimage", "data/moon.png", "the moon's surface", "scikit-image", "not stated"),
    ("skimage", "data/motorcycle_left.png", "a motorcycle", "Middlebury stereo 2014", "not stated"),
    ("skimage", "data/rocket.jpg", "a rocket", "SpaceX", "public domain"),
    ("sklearn", "datasets/images/china.jpg", "a pagoda", "danielbuechele", "CC BY 2.0"),
    ("sklearn", "datasets/images/flower.jpg", "a flower", "vultilion", "CC BY 2.0"),
)


def load_picture(path: str | Path) -> Picture:
    """Read one JPEG, PNG or WebP file as an RGB `Picture`, upright as the camera meant it.

    Grey, 16-bit, palette and CMYK pictures become RGB; transparency is laid on white. Of an animation the first frame
    is taken. `facts` holds "file", "width", "height" (pixels). Raises UserError, naming the file, if it cannot be read.
    """
    file = Path(path).expanduser()
    # A name in another encoding than UTF-8 could be neither shown nor written into a notebook.
    name = os.fsencode(file.name).decode("utf-8", "backslashreplace")
    if not file.is_file():
        raise UserError(f"There is no picture file at {file}: check the path, or pick a file that exists.")
    return _read(file, name, str(file.with_name(name)))


def read_picture(content: bytes, name: str) -> Picture:
    """A picture from a file's bytes, as `load_picture` reads it; `name` is the file's. Raises UserError, naming it."""
    return _read(io.BytesIO(content), name, name)


def _read(source: Path | io.BytesIO, name: str, shown: str) -> Picture:
    """`shown`: how a file that cannot be read is named."""
    try:
        with Image.open(source, formats=_FORMATS) as raw:
            image = _to_rgb(_upright(raw))
    except _BROKEN as error:
        reason = "not one of the three" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(
            f"{shown} cannot be read as a JPEG, PNG or WebP picture ({reason}): "
            "save it again in one of these formats, or take it out."
        ) from error
    return Picture(image, name, {"file": name, "width": image.width, "height": image.height})


def _upright(raw: Image.Image) -> Image.Image:
    """The picture as the camera meant it; as it lies in the file where that note is damaged and the picture is not."""
    try:
        return ImageOps.exif_transpose(raw)
    except _BROKEN:
        return raw


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode that JPEG, PNG or WebP can have, as RGB on white."""
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 on convert, which would turn nearly every pixel white; it also forgets which
        # grey stands for transparency.
        grey, clear = np.asarray(image).astype(np.uint32), image.info.get("transparency")
        image = Image.fromarray((grey // 257).clip(0, 255).astype(np.uint8))
        image = image if clear is None else Image.fromarray(np.where(grey == clear, 255, np.asarray(image)))
    if image.has_transparency_data:
        top = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", top.size, "white"), top)
    return image.convert("RGB")


def photo_folder(path: str | Path, least: int = 2) -> list[Picture]:
    """Every JPEG, PNG and WebP picture directly inside a folder that can be read, sorted by file name.

    Suffixes count in any case; other files, subfolders and hidden files (name starting with a dot) are skipped. What
    cannot be read, or has a side below `least` pixels (a board's tiles in a row), is left out with a warning that
    names it and says why. Raises UserError when the folder is missing or no picture is left.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"There is no folder at {folder}: create it and put photographs in, or check the path.")
    visible = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    files = sorted((file for file in visible if file.suffix.lower() in _SUFFIXES), key=lambda file: file.name)
    if not files:
        raise UserError(f"The folder {folder} holds no picture: put files ending in {', '.join(_SUFFIXES)} into it.")
    read = [_try(file, least) for file in files]
    pictures, trouble = [p for p in read if isinstance(p, Picture)], [t for t in read if isinstance(t, str)]
    if not pictures:
        raise UserError(f"No picture in {folder} can be used. {' '.join(trouble)}")
    if trouble:
        warnings.warn(f"{len(trouble)} of {len(files)} pictures were left out. {' '.join(trouble)}", stacklevel=2)
    return pictures


def _try(file: Path, least: int) -> Picture | str:
    """A picture, or why it is left out."""
    try:
        picture = load_picture(file)
    except UserError as error:
        return str(error)
    size = f"{picture.image.width} x {picture.image.height}"
    small = f"{picture.name} has {size} pixels, fewer than the {least} tiles of a board."
    return small if min(picture.image.size) < least else picture


def packaged_photos() -> list[Picture]:
    """Ten real photographs (seven in colour) from the installed scikit-image and scikit-learn, read offline.

    `name` is the file's stem, such as "astronaut"; `facts` adds "shows", "source", "credit", "licence".
    Raises UserError when one of the two packages is not installed.
    """
    return [_packaged_photo(*entry) for entry in _PACKAGED]


def _packaged_photo(package: str, file: str, shows: str, credit: str, licence: str) -> Picture:
    # find_spec only locates a top-level package: importing scikit-learn here would cost a second.
    spec, source = find_spec(package), _SOURCES[package]
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"The packaged photographs need {source}: install it, or use photo_folder.")
    picture = load_picture(Path(spec.submodule_search_locations[0]) / file)
    more = {"shows": shows, "source": source, "credit": credit, "licence": licence}
    return replace(picture, name=Path(file).stem, facts=picture.facts | more)


def resized(pixels: np.ndarray, side: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 at another height and width, bicubic: one batch holds pictures of one size."""
    if pixels.shape[:2] == side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(side[::-1], Image.Resampling.BICUBIC))


def centred(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest centred part of an image with the shape of `size` (width, height), resized to it (Lanczos).

    It is cut out first and resized then, so nothing outside it bleeds in. An image that already has this
    size comes back pixel for pixel. Raises UserError when a side is below 1.
    """
    if min(size) < 1:
        raise UserError(f"A picture cannot be {size[0]} x {size[1]} pixels: use sides of 1 or more.")
    scale = min(image.width / size[0], image.height / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    part = image.crop((left, top, left + width, top + height))
    # reducing_gap halves what is far too large first, which is faster; equal sizes come back as they are
    return part.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
