"""Scenes: the same seed gives the same pixels, and every stated fact is true of what was drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from swapping import swap

from helpers.world import scenes
from helpers.world.scenes import COLOURS, KINDS, LANDS, QUARTERS, SHAPES, Item, draw_scene, puzzle_scene


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def unlit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw without light and grain, so that colours can be read off the pixels."""
    swap(monkeypatch, scenes, "_light_and_noise", lambda rng, pixels, light, flat: pixels.astype(np.uint8))


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Every drawing mask (0 sky, 1 hills, 2 ground) that is turned into words."""
    seen, stock = [], scenes._land_words

    def keep(mask: np.ndarray):
        seen.append(mask)
        return stock(mask)

    swap(monkeypatch, scenes, "_land_words", keep)
    return seen


# ------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plain", [True, False])
def test_the_same_seed_gives_the_same_picture_and_facts(kind: str, plain: bool) -> None:
    first, other = draw_scene(rng(4, 2), kind, plain), draw_scene(rng(4, 3), kind, plain)
    np.random.seed(1)  # nobody else's random numbers matter
    second = draw_scene(rng(4, 2), kind, plain)
    assert np.array_equal(first.pixels, second.pixels)
    assert (first.items, first.land, first.light, first.number, first.greys) == (
        second.items, second.land, second.light, second.number, second.greys
    )  # fmt: skip
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("side", [32, 64, 96])
def test_pictures_have_the_side_that_was_asked_for(side: int) -> None:
    for kind in KINDS:
        scene = draw_scene(rng(1), kind, side=side)
        assert scene.pixels.shape == (side, side, 3) and scene.pixels.dtype == np.uint8
        assert scene.image.size == (side, side) and scene.image.mode == "RGB"
        assert np.array_equal(np.asarray(scene.image), scene.pixels)


def test_puzzle_scenes_are_fixed_by_seed_and_index() -> None:
    drawn = {(s, i): puzzle_scene(s, i).pixels.tobytes() for s in range(3) for i in range(20)}
    assert len(set(drawn.values())) == 60
    assert puzzle_scene(2, 7).pixels.tobytes() == drawn[2, 7]
    assert {puzzle_scene(0, i).kind for i in range(20)} == {"land", "things"}


# ------------------------------------------------------------------------------------------- items


@pytest.mark.parametrize(
    ("x", "y", "quarter", "cell"),
    [(0.1, 0.1, 0, (1, 1)), (0.9, 0.1, 1, (1, 4)), (0.2, 0.8, 2, (4, 1)), (0.6, 0.55, 3, (3, 3)),
     (0.5, 0.49, 1, (2, 3)), (0.49, 0.5, 2, (3, 2)), (0.25, 0.74, 2, (3, 2))],
)  # fmt: skip
def test_quarter_and_cell_of_an_item(x: float, y: float, quarter: int, cell: tuple[int, int]) -> None:
    item = Item("star", "red", x, y, 0.2)
    assert (item.quarter, item.cell) == (quarter, cell)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_cell_lies_in_its_quarter(x: float, y: float) -> None:
    item = Item("star", "red", x, y, 0.2)
    row, column = item.cell
    assert 1 <= row <= 4 and 1 <= column <= 4
    assert item.quarter == 2 * (row > 2) + (column > 2)


def test_counts_per_quarter_by_hand() -> None:
    places = [("star", 0.1, 0.1), ("star", 0.4, 0.4), ("cross", 0.3, 0.1), ("cross", 0.7, 0.9)]
    items = tuple(Item(shape, "red", x, y, 0.1) for shape, x, y in places)
    scene = scenes.Scene("scatter", np.zeros((64, 64, 3), np.uint8), items)
    assert scene.counts() == (3, 0, 0, 1)
    assert scene.counts("star") == (2, 0, 0, 0)
    assert scene.counts("circle") == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["things", "scatter", "sizes"])
def test_each_item_has_its_colour_where_it_is_said_to_lie(kind: str, unlit: None) -> None:
    shown = 0
    for seed in range(40):
        scene = draw_scene(rng(seed), kind, plain=seed % 2 == 0)
        for item in scene.items:
            assert item.shape in SHAPES
            pixel = scene.pixels[int(item.y * 64), int(item.x * 64)].astype(int)
            assert abs(pixel - COLOURS[item.colour]).max() <= 2, (seed, item)
            shown += 1
    assert shown > 60


def test_items_cover_as_much_as_their_size_says(unlit: None) -> None:
    for seed in range(20):
        for item in draw_scene(rng(seed), "sizes").items:
            width = round(item.size * 64)
            stencil = np.asarray(scenes._stencil(item.shape, width))
            across = np.flatnonzero(stencil.max(0) > 60)
            assert stencil.shape == (width, width)
            assert across[-1] - across[0] + 1 >= 0.85 * width - 1


def test_shapes_differ_from_each_other() -> None:
    stencils = [np.asarray(scenes._stencil(shape, 14), float) for shape in SHAPES]
    for i, a in enumerate(stencils):
        for b in stencils[:i]:
            assert abs(a - b).mean() > 20


def test_things_differ_in_shape_and_colour_and_have_a_quarter_each() -> None:
    numbers = set()
    for seed in range(60):
        items = draw_scene(rng(seed), "things").items
        numbers.add(len(items))
        for values in ([i.shape for i in items], [i.colour for i in items], [i.quarter for i in items]):
            assert len(set(values)) == len(items)
        assert [i.quarter for i in items] == sorted(i.quarter for i in items)
    assert numbers == {1, 2, 3, 4}


@pytest.mark.parametrize("most", [1, 2, 4])
def test_no_more_things_than_asked_for(most: int) -> None:
    numbers = {len(draw_scene(rng(seed), "things", most=most).items) for seed in range(40)}
    assert numbers == set(range(1, most + 1))


def test_scattered_things_have_a_cell_each_and_at_most_three_share_a_quarter() -> None:
    for seed in range(40):
        scene = draw_scene(rng(seed), "scatter")
        assert max(scene.counts()) <= 3
        assert len({i.cell for i in scene.items}) == len(scene.items)
        assert len({i.shape for i in scene.items}) <= 2
        assert sum(scene.counts()) == len(scene.items)


def test_sizes_can_be_told_apart() -> None:
    for seed in range(40):
        items = draw_scene(rng(seed), "sizes").items
        ordered = sorted(round(i.size * 64) for i in items)
        assert len(items) == 4 and np.diff(ordered).min() >= 3


def test_grey_discs_have_their_levels_in_reading_order(unlit: None) -> None:
    for seed in range(20):
        scene = draw_scene(rng(seed), "greys")
        drawn = [scene.pixels[r, c].tolist() for r in (16, 48) for c in (16, 48)]
        assert drawn == [[level] * 3 for level in scene.greys]
        assert np.diff(sorted(scene.greys)).min() >= 40


def test_grey_levels_stay_comparable_under_light_and_grain() -> None:
    for seed in range(20):
        scene = draw_scene(rng(seed), "greys")
        quarters = [scene.pixels[r - 4 : r + 4, c - 4 : c + 4].mean() for r in (16, 48) for c in (16, 48)]
        assert np.argsort(quarters).tolist() == np.argsort(scene.greys).tolist()


def test_a_sign_is_white_with_dark_digits_and_wider_for_two_of_them(unlit: None) -> None:
    white = {1: [], 2: []}
    for seed in range(40):
        scene = draw_scene(rng(seed), "sign")
        assert scene.number.isdigit() and len(scene.number) in (1, 2)
        white[len(scene.number)].append(int((scene.pixels.min(2) >= 240).sum()))
        assert (scene.pixels.max(2) < 60).sum() >= 5 * len(scene.number)
    assert min(white[2]) > max(white[1])


# -------------------------------------------------------------------------------------- landscape


def by_hand(mask: np.ndarray) -> tuple[str, ...] | None:
    """The land of each quarter, counted pixel by pixel."""
    words = []
    for top in (0, 32):
        for left in (0, 32):
            counts = [0, 0, 0]
            for row in range(top, top + 32):
                for column in range(left, left + 32):
                    counts[mask[row, column]] += 1
            if max(counts) < 0.6 * 32 * 32:
                return None
            words.append(LANDS[counts.index(max(counts))])
    return tuple(words)


def test_the_land_of_each_quarter_is_what_the_mask_shows_most(masks: list[np.ndarray]) -> None:
    drawn = [draw_scene(rng(seed), "land", plain=seed % 2 == 0) for seed in range(60)]
    assert len(masks) == 60
    assert [scene.land for scene in drawn] == [by_hand(mask) for mask in masks]
    assert 5 < sum(scene.land is not None for scene in drawn) < 60


def test_the_mask_is_what_is_painted(masks: list[np.ndarray], unlit: None) -> None:
    for seed in range(10):
        scene = draw_scene(rng(seed), "land")
        hills = {tuple(p) for p in scene.pixels[masks[-1] == 1].tolist()}
        assert len(hills) == 1 and hills <= set(scenes._HILLS)  # hills alone are painted flat
        elsewhere = {tuple(p) for p in scene.pixels[masks[-1] != 1].tolist()}
        assert not hills & elsewhere


def test_land_words_on_masks_made_by_hand() -> None:
    mask = np.zeros((4, 4), int)
    mask[2:, :2], mask[2:, 2:] = 2, 1
    assert scenes._land_words(mask) == ("sky", "sky", "ground", "hills")
    mask[0, 0] = 1  # three of four pixels still agree
    assert scenes._land_words(mask) == ("sky", "sky", "ground", "hills")
    mask[0, 1] = 1  # two against two: no word
    assert scenes._land_words(mask) is None


def test_the_bright_side_is_where_the_light_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    lit = [draw_scene(rng(seed), "land") for seed in range(20)]
    swap(monkeypatch, scenes, "_light_and_noise", lambda rng, pixels, light, flat: pixels.astype(np.uint8))
    for seed, scene in enumerate(lit):
        ratio = scene.pixels.astype(float) / np.maximum(draw_scene(rng(seed), "land").pixels, 1)
        left, right = ratio[:, :32].mean(), ratio[:, 32:].mean()
        assert (left > right + 0.1) if scene.light == "left" else (right > left + 0.1)
    assert {scene.light for scene in lit} == {"left", "right"}


def test_the_higher_hill_reaches_further_up(masks: list[np.ndarray]) -> None:
    told = 0
    for seed in range(80):
        scene = draw_scene(rng(seed), "land", plain=True)
        if scene.high_hill is not None:
            tops = [np.argmax((half >= 1).any(1)) for half in (masks[-1][:, :32], masks[-1][:, 32:])]
            assert scene.high_hill == ("left" if tops[0] < tops[1] else "right")
            told += 1
    assert told > 40


def test_a_plain_view_has_ground_below_and_never_above() -> None:
    lands = {draw_scene(rng(seed), "land", plain=True).land for seed in range(80)} - {None}
    assert lands and all(land[2:] == ("ground", "ground") for land in lands)
    assert all("ground" not in land[:2] for land in lands)


def test_a_shifted_view_shows_sky_and_ground_in_any_quarter() -> None:
    found = [land for seed in range(300) if (land := draw_scene(rng(seed), "land", plain=False).land)]
    for quarter in range(len(QUARTERS)):
        assert {land[quarter] for land in found} >= {"sky", "ground"}
    assert {word for land in found for word in land} <= set(LANDS)


def test_the_facts_of_a_kind_are_those_it_draws() -> None:
    for kind in KINDS:
        scene = draw_scene(rng(11), kind)
        assert scene.kind == kind
        assert bool(scene.items) == (kind in ("things", "scatter", "sizes"))
        assert (scene.number is not None) == (kind == "sign")
        assert (scene.greys is not None) == (kind == "greys")


# ------------------------------------------------------------------------------------------ cells


def test_cells_show_what_lies_in_them() -> None:
    item = Item("star", "blue", 0.30, 0.60, 0.2)
    mask = np.zeros((64, 64), int)
    mask[32:] = 2
    scene = scenes.Scene("things", np.zeros((64, 64, 3), np.uint8), (item,), light="right", mask=mask)
    labels = scenes.cell_labels(scene)
    for name, value in (("shape", 5), ("colour", 3), ("size", 2)):
        expected = np.zeros((4, 4), int)
        expected[2, 1] = value  # x .30 and y .60 lie in the second column and the third row
        assert np.array_equal(labels[name], expected), name
        assert scenes.CELL_NAMES[name][value] == {"shape": "star", "colour": "blue", "size": "small"}[name]
    assert labels["land"].tolist() == [[0] * 4, [0] * 4, [2] * 4, [2] * 4]
    assert (labels["light"] == 1).all()
    for name in ("grey", "digit", "hill"):
        assert (labels[name] == -100).all(), name


def test_a_large_thing_fills_all_cells_whose_centres_it_covers() -> None:
    scene = scenes.Scene("sizes", np.zeros((64, 64, 3), np.uint8), (Item("circle", "red", 0.25, 0.25, 0.38),))
    assert scenes.cell_labels(scene)["shape"].nonzero()[0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_cell_labels_have_names(kind: str) -> None:
    for seed in range(20):
        scene = draw_scene(rng(seed), kind, plain=seed % 2 == 0)
        labels = scenes.cell_labels(scene)
        assert set(labels) == set(scenes.CELL_NAMES)
        for name, found in labels.items():
            assert found.shape == (4, 4) and found.max() < len(scenes.CELL_NAMES[name])
        assert (labels["grey"] > 0).any() == (kind == "greys") and (labels["digit"] > 0).any() == (kind == "sign")
        assert ((labels["light"] == -100) == (kind in ("greys", "collage"))).all()
        for item in scene.items:
            assert labels["shape"][item.cell[0] - 1, item.cell[1] - 1] > 0


def test_digits_lie_where_they_are_drawn() -> None:
    for seed in range(30):
        scene = draw_scene(rng(seed), "sign")
        assert "".join(d.shape for d in scene.digits) == scene.number
        assert [d.x for d in scene.digits] == sorted(d.x for d in scene.digits)
        for digit in scene.digits:
            left, top = (int(64 * v) for v in (digit.x - 0.16, digit.y - 0.16))
            dark = scene.pixels[top : top + 20, max(left, 0) : left + 20].max(-1) < 120
            assert dark.any(), (seed, digit)


# --------------------------------------------------------------------------------------- collages


def test_a_collage_shows_quarters_of_four_different_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    stock, drawn = scenes.draw_scene, []

    def keep(generator, kind, **options):
        drawn.append(stock(generator, kind, **options))
        return drawn[-1]

    swap(monkeypatch, scenes, "draw_scene", keep)
    for seed in range(20):
        drawn.clear()
        collage = stock(rng(seed), "collage")
        clear = [s for s in drawn if s.land is not None]
        assert len({s.pixels.tobytes() for s in clear}) == 4
        sources = []
        for row, column in np.ndindex(2, 2):
            part = collage.pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            for number, scene in enumerate(clear):
                cuts = [scene.pixels[r : r + 32, c : c + 32] for r in (0, 32) for c in (0, 32)]
                sources += [number for cut in cuts if np.array_equal(cut, part)]
        assert sorted(sources) == [0, 1, 2, 3]


def test_the_quarters_of_a_collage_say_nothing_about_each_other() -> None:
    lands = [draw_scene(rng(seed), "collage").land for seed in range(150)]
    for quarter in range(4):
        assert {land[quarter] for land in lands} >= {"sky", "ground"}
    same = np.mean([land[0] == land[1] for land in lands])
    assert 0.2 < same < 0.7  # in a landscape the two upper quarters nearly always agree
