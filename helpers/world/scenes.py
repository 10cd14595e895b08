"""Drawn scenes with their facts: sky, two hills with a valley, ground, light from one side, coloured shapes.

A scene is drawn from a local random generator, so the same seed gives the same pixels. Every fact a
question may ask about (`Scene.items`, `land`, `light`, `high_hill`, `number`, `greys`) is known
by construction, never estimated from the pixels, except `land`, which counts the pixels of the drawing mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rng = np.random.Generator
SHAPES = ("circle", "square", "triangle", "cross", "star", "diamond")

COLOURS = {
    "red": (214, 40, 40), "yellow": (250, 215, 40), "blue": (30, 60, 220),
    "white": (250, 250, 250), "black": (15, 15, 15), "purple": (150, 40, 170),
}  # fmt: skip

QUARTERS = ("top left", "top right", "bottom left", "bottom right")
LANDS = ("sky", "hills", "ground")
_SKIES = ((120, 175, 235), (150, 190, 225), (235, 180, 150), (175, 205, 235))
_HILLS = ((60, 95, 85), (85, 80, 105), (95, 75, 60), (50, 85, 60))
_GROUNDS = ((120, 175, 80), (190, 170, 110), (150, 150, 105), (95, 150, 95))
_SIZES = (0.15, 0.21, 0.29, 0.38)
_GREYS = (25, 95, 165, 235)
_CENTRES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # (x, y) of the quarters, shares of the side
KINDS = ("land", "things", "scatter", "sizes", "greys", "sign", "collage")


@dataclass(frozen=True)
class Item:
    """One shape on the picture. `x`, `y` are the centre and `size` the width, as shares of the side (0..1)."""

    shape: str
    colour: str
    x: float
    y: float
    size: float

    @property
    def quarter(self) -> int:
        """Quarter of the picture in reading order, 0..3."""
        return 2 * (self.y >= 0.5) + (self.x >= 0.5)

    def covers(self, x: float, y: float) -> bool:
        """Whether a point (shares of the side) lies in the item's square."""
        return max(abs(x - self.x), abs(y - self.y)) < self.size / 2

    @property
    def cell(self) -> tuple[int, int]:
        """(row, column) on a 4 x 4 grid, counted from 1."""
        return int(self.y * 4) + 1, int(self.x * 4) + 1


@dataclass(frozen=True)
class Scene:
    """A picture and what is true of it. `pixels`: (side, side, 3) uint8; `land`: one word per quarter or None.

    `mask`: (side, side) index into `LANDS`, before anything was painted over it.
    """

    kind: str
    pixels: np.ndarray = field(repr=False)
    items: tuple[Item, ...] = ()
    land: tuple[str, ...] | None = None
    light: str | None = "left"
    high_hill: str | None = None
    number: str | None = None
    greys: tuple[int, ...] | None = None
    digits: tuple[Item, ...] = ()
    mask: np.ndarray | None = field(default=None, repr=False)

    @property
    def image(self) -> Image.Image:
        """The picture as a PIL RGB image."""
        return Image.fromarray(self.pixels)

    def counts(self, shape: str | None = None) -> tuple[int, int, int, int]:
        """How many items (of one shape, or all) lie in each quarter, in reading order."""
        quarters = [i.quarter for i in self.items if shape in (None, i.shape)]
        return tuple(quarters.count(q) for q in range(4))


def draw_scene(rng: Rng, kind: str = "land", plain: bool = True, side: int = 64, most: int = 4) -> Scene:
    """Draw one scene of a kind from `KINDS`, with at most `most` things where the kind is "things".

    `plain` pictures have the horizon near the middle and the valley in the centre (puzzles are cut from these); else
    the view is shifted, at times upside down, so that a place does not tell what it shows. `side` is in pixels.
    """
    if kind == "collage":
        return _collage(rng, side)
    # One generator draws everything, so the order of the draws is part of every picture: land, marks, light, grain.
    scene, canvas = _landscape(rng, plain, side)
    marks = dict(things=partial(_things, most=most), scatter=_scatter, sizes=_sizes, greys=_greys, sign=_sign)
    facts = marks[kind](rng, canvas) if kind in marks else {}
    pixels = _light_and_noise(rng, np.asarray(canvas, np.float32), scene.light, kind == "greys")
    return replace(scene, kind=kind, pixels=pixels, **facts)


def _collage(rng: Rng, side: int) -> Scene:
    """Quarters of four different pictures side by side: what a quarter shows says nothing about the next one.

    Each quarter shows one land clearly (>= 60 %). Not a jigsaw board: no two quarters come from one picture.
    """
    half, pixels, mask = side // 2, np.empty((side, side, 3), np.uint8), np.empty((side, side), int)
    for row, column in np.ndindex(2, 2):
        scene = None
        while scene is None or scene.land is None:
            scene = draw_scene(rng, ("land", "things")[rng.integers(2)], plain=bool(rng.random() < 0.5), side=side)
        top, left = rng.integers(2, size=2) * half
        own = np.s_[row * half : (row + 1) * half, column * half : (column + 1) * half]
        pixels[own] = scene.pixels[top : top + half, left : left + half]
        mask[own] = scene.mask[top : top + half, left : left + half]
    return Scene("collage", pixels, land=_land_words(mask), light=None, mask=mask)


def puzzle_scene(seed: int, index: int, side: int = 64) -> Scene:
    """The picture puzzles are cut from: a plain landscape with or without things on it, fixed by (seed, index)."""
    rng = np.random.default_rng((seed, index, 7))
    return draw_scene(rng, "things" if rng.random() < 0.5 else "land", side=side)


def _landscape(rng: Rng, plain: bool, side: int) -> tuple[Scene, Image.Image]:
    """The empty landscape (without light) and what is true of it."""
    # The ground line's height and the valley's place are shares of the side, from the top and from the left.
    horizon = rng.uniform(0.5, 0.62) if plain else rng.uniform(-0.1, 1.4)
    valley = rng.uniform(0.45, 0.55) if plain else rng.uniform(0.0, 1.0)
    upside_down = not plain and rng.random() < 0.25
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
    peaks = rng.uniform(0.22, 0.3), rng.uniform(0.22, 0.3)
    higher = int(rng.integers(2))
    heights = (peaks[0] + 0.12 * (higher == 0), peaks[1] + 0.12 * (higher == 1))
    centres = (valley - rng.uniform(0.3, 0.38), valley + rng.uniform(0.3, 0.38))
    bumps = [h * np.exp(-(((x - c) / 0.2) ** 2)) for h, c in zip(heights, centres, strict=True)]
    mask = np.where(y > horizon, 2, np.where(y > horizon - np.maximum(*bumps) - 0.03, 1, 0))
    # Sky and ground are brightest at the horizon: even a tile that shows nothing else says how high it belongs.
    depth = np.where(mask == 2, 1.1 - 0.35 * (y - horizon), 0.8 + 0.35 * (y - horizon + 0.5))
    palette = np.array([p[rng.integers(len(p))] for p in (_SKIES, _HILLS, _GROUNDS)], np.float32)
    pixels = palette[mask] * np.where(mask == 1, 1.0, depth)[..., None]
    if upside_down:
        mask, pixels = mask[::-1], pixels[::-1]
    # Which hill is higher is only a fact where both peaks can be seen.
    visible = all(0.1 < c < 0.9 for c in centres) and 0.2 < horizon < 1.1
    light, hill = ("left", "right")[rng.integers(2)], ("left", "right")[higher] if visible else None
    scene = Scene("land", pixels, land=_land_words(mask), light=light, high_hill=hill, mask=mask)
    return scene, Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _land_words(mask: np.ndarray) -> tuple[str, ...] | None:
    """The land that covers most of each quarter, or None where one quarter is too even to call (< 60 %)."""
    shares = _land_shares(mask, 2).reshape(4, 3)
    return tuple(LANDS[k] for k in shares.argmax(1)) if (shares.max(1) >= 0.6).all() else None


def tile_lands(mask: np.ndarray, rows: int, cols: int) -> tuple[str, ...]:
    """The land that covers most of each tile of a grid, in reading order; what is left over belongs to no tile."""
    height, width = mask.shape[0] // rows, mask.shape[1] // cols
    tiles = mask[: rows * height, : cols * width].reshape(rows, height, cols, width)
    shares = np.stack([(tiles == land).mean((1, 3)) for land in range(len(LANDS))], 2)
    return tuple(LANDS[k] for k in shares.argmax(2).flat)


def _land_shares(mask: np.ndarray, grid: int) -> np.ndarray:
    """Share of each land in each cell of a raster, (grid, grid, 3)."""
    n = len(mask) // grid  # what is left over at the right and below belongs to no cell
    cells = mask[: n * grid, : n * grid].reshape(grid, n, grid, n)
    return np.stack([(cells == land).mean((1, 3)) for land in range(3)], 2)


def _light_and_noise(rng: Rng, pixels: np.ndarray, light: str, flat: bool) -> np.ndarray:
    """Multiply by a horizontal ramp (bright side = `light`), add grain. `flat` keeps the grey levels comparable."""
    ramp = np.linspace(1.0, -1.0, pixels.shape[1]) * (0.0 if flat else rng.uniform(0.28, 0.42))
    ramp = 0.9 + (ramp if light == "left" else -ramp)
    shaded = pixels * ramp[None, :, None] + rng.normal(0, 4.0, pixels.shape)
    return np.clip(shaded, 0, 255).astype(np.uint8)


# What a cell of the picture may show, by question; the first name of each is "nothing of the sort".
CELL_NAMES = {
    "shape": ("", *SHAPES),
    "colour": ("", *COLOURS),
    "size": ("", "tiny", "small", "large", "huge"),
    "grey": ("", "dark", "dim", "pale", "bright"),
    "digit": ("", *"0123456789"),
    "land": LANDS,
    "light": ("left", "right"),
    "hill": ("left", "right"),
}


def cell_labels(scene: Scene, grid: int = 4) -> dict[str, np.ndarray]:
    """What each cell of a `grid` x `grid` raster shows: for each question of `CELL_NAMES` (grid, grid) indices.

    -100 stands where a question makes no sense (cross-entropy ignores it). Light and hill stand in every cell.
    """
    labels = {name: np.full((grid, grid), -100) for name in CELL_NAMES}
    centres = (np.arange(grid) + 0.5) / grid
    for mark, where in _marks(scene):
        for row, column in np.ndindex(grid, grid):
            own = (int(where.y * grid), int(where.x * grid)) == (row, column)
            if own or where.covers(centres[column], centres[row]):
                for name, value in mark.items():
                    labels[name][row, column] = value
    # Where there are things, an empty cell is an answer too; beside discs and signs nobody asks for shapes.
    for name in ("shape", "colour", "size") if scene.greys is None and scene.number is None else ():
        labels[name][labels[name] < 0] = 0
    if scene.mask is not None:
        labels["land"][:] = _land_shares(scene.mask, grid).argmax(2)
    if scene.greys is None and scene.light:
        labels["light"][:] = scene.light == "right"
    if scene.high_hill is not None:
        labels["hill"][:] = scene.high_hill == "right"
    return labels


def _marks(scene: Scene) -> list[tuple[dict[str, int], Item]]:
    """What is painted on a scene, as label indices, and where."""
    index = {name: names.index for name, names in CELL_NAMES.items()}
    marks = []
    for item in scene.items:
        size = 1 + int(np.argmin([abs(item.size - s) for s in _SIZES]))
        marks.append((dict(shape=index["shape"](item.shape), colour=index["colour"](item.colour), size=size), item))
    for centre, level in zip(_CENTRES, scene.greys or (), strict=False):
        grey = 1 + int(np.argmin([abs(level - g) for g in _GREYS]))
        marks.append(({"grey": grey}, Item("", "", *centre, 0.3)))
    return marks + [({"digit": index["digit"](digit.shape)}, digit) for digit in scene.digits]


def _things(rng: Rng, canvas: Image.Image, most: int) -> dict:
    """One to `most` things of different shape and colour, at most one in a quarter."""
    n = int(rng.integers(1, most + 1))
    shapes, colours = rng.permutation(SHAPES)[:n], rng.permutation(list(COLOURS))[:n]
    items = []
    for *look, quarter in zip(shapes, colours, np.sort(rng.permutation(4)[:n]), strict=True):
        centre = _sixteenth(quarter, *rng.integers(2, size=2))
        items.append(_item(rng, look, centre, rng.uniform(0.2, 0.25)))
    return _paint(canvas, items)


def _scatter(rng: Rng, canvas: Image.Image) -> dict:
    """Up to three small things a quarter, of one or two shapes, each in a sixteenth of its own."""
    shapes = rng.permutation(SHAPES)[: rng.integers(1, 3)]
    # Half of the pictures have four different counts: only those can be ranked.
    counts = rng.permutation(4) if rng.random() < 0.5 else rng.integers(0, 4, size=4)
    items = []
    for quarter, count in enumerate(counts):
        for cell in np.sort(rng.permutation(4)[:count]):
            look = (shapes[rng.integers(len(shapes))], list(COLOURS)[rng.integers(6)])
            items.append(_item(rng, look, _sixteenth(quarter, cell % 2, cell // 2), 0.17))
    return _paint(canvas, items)


def _sixteenth(quarter: int, right: int, below: int) -> tuple[float, float]:
    """Centre (x, y) of one of a quarter's own quarters, shares of the side."""
    x, y = _CENTRES[quarter]
    return x + 0.25 * right - 0.125, y + 0.25 * below - 0.125


def _sizes(rng: Rng, canvas: Image.Image) -> dict:
    """Four things, one a quarter, of clearly different size."""
    sizes = rng.permutation([0.13, *_SIZES[1:]]) + rng.uniform(-0.012, 0.012, 4)
    looks = zip(rng.permutation(SHAPES)[:4], rng.permutation(list(COLOURS))[:4], strict=True)
    return _paint(canvas, [_item(rng, *given) for given in zip(looks, _CENTRES, sizes, strict=True)])


def _item(rng: Rng, look: Sequence[str], centre: tuple[float, float], size: float) -> Item:
    """An item at a random place within 0.02 of a centre."""
    dx, dy = rng.uniform(-0.02, 0.02, size=2)
    return Item(str(look[0]), str(look[1]), float(centre[0] + dx), float(centre[1] + dy), float(size))


def _greys(rng: Rng, canvas: Image.Image) -> dict:
    """Four grey discs, one a quarter, of clearly different brightness (grey levels 0..255 in reading order)."""
    levels = tuple(map(int, rng.permutation(_GREYS) + rng.integers(-14, 15, size=4)))
    side, draw = canvas.width, ImageDraw.Draw(canvas)
    for (x, y), level in zip(_CENTRES, levels, strict=True):
        draw.circle((x * side, y * side), 0.16 * side, fill=(level,) * 3)
    return {"greys": levels}


def _sign(rng: Rng, canvas: Image.Image) -> dict:
    """A white sign with a number of one or two digits."""
    number = "".join(str(d) for d in rng.integers(0, 10, size=1 + (rng.random() < 0.4)))
    side, draw, half = canvas.width, ImageDraw.Draw(canvas), 0.16 * canvas.width  # half of a digit's square
    x, y = rng.choice([0.3, 0.5, 0.7], size=2) * side
    width, digits = half * len(number), []
    draw.rectangle((x - width, y - half, x + width, y + half), fill=(250, 250, 245))
    for place, digit in enumerate(number):
        centre = x - width + half * (2 * place + 1)
        draw.text((centre, y), digit, fill=(10, 10, 10), font=_font(int(0.32 * side)), anchor="mm")
        digits.append(Item(digit, "black", centre / side, y / side, 0.32))
    return {"number": number, "digits": tuple(digits)}


_font = lru_cache(maxsize=8)(ImageFont.load_default)  # kept: each call would read the font file anew


def _paint(canvas: Image.Image, items: list[Item]) -> dict:
    """Paste the items' stencils; returns the facts to add to the scene."""
    for item in items:
        width = max(3, round(item.size * canvas.width))
        corner = round(item.x * canvas.width - width / 2), round(item.y * canvas.width - width / 2)
        canvas.paste(COLOURS[item.colour], corner, _stencil(item.shape, width))
    return {"items": tuple(items)}


_SPOKES = [((0.5, 0.2)[k % 2], math.pi * k / 5) for k in range(10)]  # radius and angle, long and short in turn
_CORNERS = {
    "square": [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)],
    "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    "diamond": [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)],
    "star": [(0.5 + r * math.sin(a), 0.5 - r * math.cos(a)) for r, a in _SPOKES],
}


@lru_cache(maxsize=512)
def _stencil(shape: str, width: int) -> Image.Image:
    """Anti-aliased mask of a shape, drawn four times too large and reduced."""
    big = width * 4
    mask = Image.new("L", (big, big))
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        draw.ellipse((0, 0, big - 1, big - 1), fill=255)
    elif shape == "cross":
        third = big / 3
        draw.rectangle((third, 0, 2 * third, big), fill=255)
        draw.rectangle((0, third, big, 2 * third), fill=255)
    else:
        draw.polygon([(px * big, py * big) for px, py in _CORNERS[shape]], fill=255)
    return mask.reduce(4)
