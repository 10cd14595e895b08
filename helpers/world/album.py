"""Own pictures to cut boards from: some to learn from, others held out, kept small under a name that is their digest.

A run on own pictures has that name in its spec. So it is never taken for one on drawn scenes, or on other pictures; it
can be gone on from after the pictures were moved or changed; and a board hangs on its number and a seed alone.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.errors import UserError
from helpers.files import DamagedFile, json_bytes, read_json, write_file
from helpers.world import seeds
from helpers.world.pictures import Picture, centred, packaged_photos, photo_folder

ALBUMS = Path("runs/pictures")
SHORT = 160  # pixels of a kept picture's shorter side: enough for the part of it that a board of 96 pixels is cut from
LONGEST = 2  # times the shorter side: of a panorama the middle
HELD_OUT_SHARE = 0.25
SMALLEST = 0.8  # of the largest part with a board's shape: the smallest part that is cut out
NAMED = 10  # hex digits of the digest


@dataclass(frozen=True)
class Album:
    """Pictures to learn from and others that are held out. Each picture is in one part, whole, and in it once."""

    training: tuple[Picture, ...]
    held_out: tuple[Picture, ...]

    @property
    def name(self) -> str:
        """The first hex digits of the digest of every pixel and of what is held out; file names do not count."""
        total = hashlib.sha256()
        for part in (self.training, self.held_out):
            total.update(f"part of {len(part)}".encode())
            for picture in part:
                total.update(_digest(picture))
        return total.hexdigest()[:NAMED]

    @property
    def said(self) -> str:
        """How many pictures there are of each part, in words."""
        return f"{len(self.training)} pictures to learn from, {len(self.held_out)} held out"


def make_album(pictures: Sequence[Picture]) -> Album:
    """An album of pictures; a quarter of them, at least one, is held out. The same pixels give the same album.

    A picture that is there twice counts once: no copy of one that is held out is learned. Raises UserError where fewer
    than two different ones are left.
    """
    small = {_digest(picture): picture for picture in map(_small, reversed(pictures))}
    known = [small[digest] for digest in sorted(small)]  # not by name: another name makes no other album
    if len(known) < 2:
        raise UserError("Own pictures need two that differ, one to learn from and one to be tested on: add some.")
    order = np.random.default_rng(seeds.ALBUM).permutation(len(known))
    chosen = {int(i) for i in order[: math.ceil(HELD_OUT_SHARE * len(known))]}
    held_out = tuple(picture for i, picture in enumerate(known) if i in chosen)
    return Album(tuple(picture for i, picture in enumerate(known) if i not in chosen), held_out)


def _digest(picture: Picture) -> bytes:
    return hashlib.sha256(f"{picture.image.size}".encode() + picture.image.tobytes()).digest()


def _small(picture: Picture) -> Picture:
    """A picture as it is kept: RGB, no smaller and no larger than boards need."""
    width, height = picture.image.size
    short = min(width, height)
    most = LONGEST * short
    scale = min(1.0, SHORT / short)
    size = max(1, round(min(width, most) * scale)), max(1, round(min(height, most) * scale))
    return Picture(centred(picture.image.convert("RGB"), size), picture.name)


def open_album(folder: str | Path = "", least: int = 2) -> Album:
    """The album of a folder of pictures, or of the packaged photographs where none is named.

    What cannot be read is left out with a warning that names it. Raises UserError as `photo_folder` and `make_album`.
    """
    return make_album(photo_folder(folder, least) if str(folder) else packaged_photos())


def keep(album: Album, root: Path = ALBUMS) -> str:
    """Keep an album where runs find it; returns its name. Does nothing where it is kept already."""
    place = root / album.name
    if not place.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".", dir=root))  # of this process alone: another may keep the same album
        for part, pictures in (("training", album.training), ("held_out", album.held_out)):
            (staged / part).mkdir(parents=True)
            for i, picture in enumerate(pictures):
                picture.image.save(staged / part / f"{i:05}.png")
        names = {"training": [p.name for p in album.training], "held_out": [p.name for p in album.held_out]}
        write_file(staged / "names.json", json_bytes(names))
        try:
            staged.rename(place)
        except OSError:
            shutil.rmtree(staged)
            if not place.is_dir():  # else another process has kept it meanwhile
                raise
    return album.name


@lru_cache(maxsize=2)
def load_album(name: str, root: Path = ALBUMS) -> Album:
    """The album that was kept under a name. Raises UserError where there is none, `DamagedFile` where it changed."""
    place = root / name
    if not place.is_dir():
        raise UserError(f"The pictures {name} are not in {root}: run notebook 14 with their folder again.")
    names = read_json(place / "names.json", f"delete {place} and open the pictures again")
    album = Album(_part(place / "training", names["training"]), _part(place / "held_out", names["held_out"]))
    if album.name != name:
        raise DamagedFile(f"The pictures in {place} are not those that were kept: delete it and open them again.")
    return album


def _part(folder: Path, names: Sequence[str]) -> tuple[Picture, ...]:
    paths = sorted(folder.glob("*.png"))
    return tuple(Picture(Image.open(path).convert("RGB"), name) for path, name in zip(paths, names, strict=False))


def cut(picture: Picture, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A part of a picture with the shape of `size` (width, height), at a random place.

    From `SMALLEST` of the largest such part to all of it. Returns (height, width, 3) uint8 pixels.
    """
    image = picture.image
    scale = min(image.width / size[0], image.height / size[1]) * rng.uniform(SMALLEST, 1)
    width, height = scale * size[0], scale * size[1]
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    part = image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
    return np.asarray(part)
