"""Pages: what stands in them, and that nothing in their data or scripts can break out of its place."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import UserError
from helpers.play import page

VIEW = page.names()[0] if page.names() else ""


def data_of(document: str) -> dict[str, page.Json]:
    """What the page's script will read."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', document, re.DOTALL)
    return json.loads(found[1])


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_any_data_come_back_as_they_went_in(data) -> None:
    text = page.embedded(data)
    assert json.loads(text) == data and "<" not in text


@pytest.mark.parametrize("bad", [float("nan"), object(), {1, 2}])
def test_data_that_are_no_json_are_refused_in_a_sentence(bad) -> None:
    with pytest.raises(UserError, match="must be JSON without NaN"):
        page.embedded({"x": bad})


@pytest.mark.parametrize("name", page.names())
def test_no_script_ends_its_own_element_or_asks_the_network(name) -> None:
    for text in [(page.WEB / f).read_text("utf-8") for f in (f"{name}.js", "kit.js", "kit.css")]:
        assert "</" not in text and "<!--" not in text
        assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)


def test_a_view_is_one_frame_with_its_document_title_and_height() -> None:
    view = page.View(VIEW, 'A "title" <b>', 420, {"words": "</script><!--"})
    framed = view._repr_html_()
    found = re.fullmatch(r'<iframe title="([^"]*)" style="([^"]*)" srcdoc="([^"]*)"></iframe>', framed)
    assert html.unescape(found[1]) == view.title and "height:420px" in found[2]
    document = html.unescape(found[3])
    assert document == view.page() and document.count("</script>") == 3
    assert data_of(document) == {"view": VIEW, "words": "</script><!--"}


def test_a_view_without_a_script_names_those_there_are() -> None:
    with pytest.raises(UserError, match=f"There is no view nothing: choose one of .*{VIEW}"):
        page.View("nothing", "?", 100, {}).page()


def test_numbers_are_short_and_what_is_missing_is_null() -> None:
    assert page.numbers([1 / 3, float("nan"), float("inf"), 12345.6]) == [0.3333, None, None, 12350.0]


def test_a_picture_is_shown_pixel_by_pixel() -> None:
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    address = page.png(pixels)
    read = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(read), pixels)


def test_an_arm_looks_as_in_the_figures() -> None:
    assert page.look("rft").keys() == {"colour", "marker", "dash"}
    assert page.look("rft") != page.look("sft-answer")
