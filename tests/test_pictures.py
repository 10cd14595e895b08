"""Pictures: every kind of file becomes upright RGB, or a sentence that names the file."""

from __future__ import annotations

import io
import json
import os
import socket

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.errors import UserError
from helpers.world import pictures
from helpers.world.pictures import Picture, centred, load_picture, packaged_photos, photo_folder
from tests.benchmarks.benchmarks import random_crops

RED, BLUE = (255, 0, 0), (0, 0, 255)


def red_over_blue(width: int = 16, height: int = 32) -> Image.Image:
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width, height // 2))
    return image


def near(pixel: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 12) -> bool:
    return len(pixel) == 3 and max(abs(a - b) for a, b in zip(pixel, wanted, strict=True)) <= tolerance


# ---- reading one file


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp"])
def test_formats(tmp_path, name):
    red_over_blue().save(tmp_path / name)
    picture = load_picture(tmp_path / name)
    assert picture.image.mode == "RGB" and picture.image.size == (16, 32) and picture.name == name
    assert picture.facts == {"file": name, "width": 16, "height": 32}
    assert near(picture.image.getpixel((8, 4)), RED) and near(picture.image.getpixel((8, 28)), BLUE)


# How a camera stored the picture for each EXIF orientation: the transform that undoes the viewer's one.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_is_honoured(tmp_path, orientation, suffix):
    upright = red_over_blue()
    upright.paste((255, 255, 255), (0, 0, 8, 8))  # a white corner, top left, tells mirrored from turned
    stored = upright.transpose(STORED[orientation]) if STORED[orientation] is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 100, "subsampling": 0}
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **({} if suffix == "png" else options))
    image = load_picture(tmp_path / f"a.{suffix}").image
    assert image.size == (16, 32)
    assert near(image.getpixel((3, 3)), (255, 255, 255)) and near(image.getpixel((12, 3)), RED)
    assert near(image.getpixel((3, 28)), BLUE)


def test_grey_becomes_rgb(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    assert load_picture(tmp_path / "grey.png").image.getcolors() == [(16, (77, 77, 77))]
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert load_picture(tmp_path / "bits.png").image.getcolors() == [(16, (255, 255, 255))]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 257 * 100, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = load_picture(tmp_path / "deep.png").image
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (100, 100, 100), (255, 255, 255)]


def test_palette_becomes_rgb(tmp_path):
    red_over_blue().convert("P", palette=Image.Palette.ADAPTIVE, colors=2).save(tmp_path / "p.png")
    image = load_picture(tmp_path / "p.png").image
    assert (image.getpixel((0, 0)), image.getpixel((0, 31))) == (RED, BLUE)


def test_palette_with_transparency_is_laid_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png", transparency=1)
    loaded = load_picture(tmp_path / "p.png").image
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [RED, (255, 255, 255)]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_alpha_is_laid_on_white(tmp_path, suffix):
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate([0, 128, 255]):
        image.putpixel((x, 0), (*RED, alpha))
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    loaded = load_picture(tmp_path / f"a.{suffix}").image
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (255, 127, 127), RED]


def test_grey_with_alpha_and_cmyk(tmp_path):
    Image.new("LA", (2, 2), (0, 0)).save(tmp_path / "la.png")
    assert load_picture(tmp_path / "la.png").image.getcolors() == [(4, (255, 255, 255))]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    assert near(load_picture(tmp_path / "c.jpg").image.getpixel((4, 4)), RED)


# ---- files that are no pictures


def test_missing_file_is_named(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(UserError, match=path.name):
            load_picture(path)


def test_broken_files_are_named(tmp_path):
    full = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(full, "PNG")
    half = full.getvalue()[: len(full.getvalue()) // 2]
    cases = {"empty.png": b"", "text.jpg": b"not a picture", "cut.png": half}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.*save it again"):
            load_picture(tmp_path / name)


def test_other_formats_are_refused_whatever_the_suffix(tmp_path):
    red_over_blue().save(tmp_path / "really_a_gif.png", format="GIF")
    with pytest.raises(UserError, match=r"really_a_gif\.png"):
        load_picture(tmp_path / "really_a_gif.png")


def encoded(form: str) -> bytes:
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    red_over_blue().save(data, form, exif=exif)
    return data.getvalue()


@pytest.mark.parametrize("form", pictures._FORMATS)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_ends_in_another_error(tmp_path, form, data):
    damaged = bytearray(encoded(form))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    file = tmp_path / "damaged.png"
    file.write_bytes(bytes(damaged))
    try:
        assert load_picture(file).image.mode == "RGB"
    except UserError as error:
        assert "damaged.png" in str(error)


# ---- folders


def test_photo_folder_is_sorted_and_takes_only_pictures(tmp_path):
    for name in ["b.JPG", "a.png", "c.WebP", "d.jpeg"]:
        red_over_blue().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._b.jpg").write_bytes(b"what some systems leave beside a copied file")
    (tmp_path / "folder.png").mkdir()
    found = photo_folder(str(tmp_path))
    assert [picture.name for picture in found] == ["a.png", "b.JPG", "c.WebP", "d.jpeg"]
    assert all(isinstance(picture, Picture) for picture in found)


def test_photo_folder_says_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="holds no picture"):
        photo_folder(tmp_path)
    with pytest.raises(UserError, match="no folder at .*gone"):
        photo_folder(tmp_path / "gone")
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(UserError, match="bad.png"):
        photo_folder(tmp_path)


# ---- packaged photographs


def test_packaged_photos_come_offline_from_the_two_packages(monkeypatch):
    def no_network(*_args, **_kwargs):
        raise AssertionError("packaged_photos must not touch the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    photos = {picture.name: picture for picture in packaged_photos()}
    assert list(photos) == [
        *("astronaut", "camera", "chelsea", "coffee", "coins"),
        *("moon", "motorcycle_left", "rocket", "china", "flower"),
    ]
    assert all(picture.image.mode == "RGB" and min(picture.image.size) >= 300 for picture in photos.values())
    assert photos["flower"].facts["source"] == "scikit-learn" and photos["chelsea"].facts["shows"] == "a cat"
    assert {picture.facts["source"] for picture in photos.values()} == {"scikit-image", "scikit-learn"}
    colours = sum(np.ptp(np.asarray(picture.image), axis=2).max() > 0 for picture in photos.values())
    assert colours == 7


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="scikit-image"):
        packaged_photos()


# ---- centring


def test_centring_takes_the_middle():
    image = Image.new("RGB", (60, 20), BLUE)
    image.paste(RED, (20, 0, 40, 20))
    assert centred(image, (10, 10)).getcolors() == [(100, RED)]
    same = Image.effect_noise((12, 12), 90).convert("RGB")
    assert centred(same, (12, 12)).tobytes() == same.tobytes()
    with pytest.raises(UserError):
        centred(image, (0, 0))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24))
@settings(max_examples=40, deadline=None)
def test_random_crops_are_repeatable_squares(width, height, size):
    picture = Image.effect_noise((width, height), 90).convert("RGB")
    crops = random_crops(picture, size, 3)
    assert [c.size for c in crops] == [(size, size)] * 3
    assert [c.tobytes() for c in crops] == [c.tobytes() for c in random_crops(picture, size, 3)]


# --- what people really have in a folder ---


def photo(seed: int = 0) -> Image.Image:
    """A picture that shows which way is up."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 36, 3), dtype=np.uint8))


@pytest.mark.parametrize("damage", [b"\xff\xff\x01", b"\x00\x01\x01\x12\x00\x03\xff\xff\xff\xff\xff\xff", b""])
def test_damaged_exif_does_not_cost_the_picture(tmp_path, damage):
    photo().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + damage)
    assert pictures.load_picture(tmp_path / "a.jpg").image.size == (36, 24)


def test_where_turning_fails_the_picture_is_read_as_it_lies(tmp_path, monkeypatch):
    def fail(image):
        raise SyntaxError("not a TIFF file")

    photo().save(tmp_path / "a.png")
    monkeypatch.setattr(pictures.ImageOps, "exif_transpose", fail)
    assert pictures.load_picture(tmp_path / "a.png").image.size == (36, 24)


def test_transparency_of_16_bit_grey_is_laid_on_white(tmp_path):
    grey = np.array([[0, 257 * 10], [257 * 20, 257 * 10]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png", transparency=257 * 10)
    shown = np.asarray(pictures.load_picture(tmp_path / "grey.png").image)[..., 0]
    assert shown.tolist() == [[0, 255], [20, 255]]


def test_a_file_name_in_another_encoding_can_be_shown(tmp_path):
    path = os.fsencode(tmp_path) + b"/b\xe4r.png"
    photo().save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", path)
    (picture,) = pictures.photo_folder(tmp_path)
    assert picture.name == "b\\xe4r.png" == picture.facts["file"]
    json.dumps(picture.facts).encode()


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    photo().save(tmp_path / "photos" / "a.png")
    assert [p.name for p in pictures.photo_folder("~/photos")] == ["a.png"]
    assert pictures.load_picture("~/photos/a.png").name == "a.png"


def test_what_cannot_be_used_is_named_and_the_rest_is_read(tmp_path):
    for name in ("b.png", "a.jpg"):
        photo().save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (2, 40)).save(tmp_path / "narrow.png")
    with pytest.warns(UserWarning, match="2 of 4 pictures were left out") as told:
        assert [p.name for p in pictures.photo_folder(tmp_path, least=3)] == ["a.jpg", "b.png"]
    assert "broken.jpg cannot be read" in str(told[0].message)
    assert "narrow.png has 2 x 40 pixels, fewer than the 3 tiles of a board." in str(told[0].message)


def test_a_folder_of_which_nothing_is_left_is_refused(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"No picture in .* can be used\. .*a\.jpg cannot.*b\.png cannot"):
        pictures.photo_folder(tmp_path)
