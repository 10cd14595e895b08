"""Solve it yourself, driven by mouse and by keyboard in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from helpers.play.page import View
from helpers.play.solve import game
from helpers.world import answers, puzzles
from tests.browser.conftest import check_latency, labelled, shoot
from tests.browser.narrow import WIDTHS, faults

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

Show = Callable[[View], "Frame"]


@pytest.fixture(scope="module")
def view() -> View:
    return game()


def truth(view: View, number: int = 0, source: int = 0) -> list[int]:
    """The placement of a board of 2 x 2 tiles."""
    return view.data["sources"][source]["boards"]["2x2"][number]["placement"]


def right_swaps(placement: list[int]) -> list[tuple[int, int]]:
    """Swaps of places, from 0, that put a board right."""
    lying, swaps = list(placement), []
    for place in range(len(lying)):
        other = lying.index(place + 1)
        if other != place:
            lying[place], lying[other] = lying[other], lying[place]
            swaps.append((place, other))
    return swaps


def said(frame: Frame) -> str:
    return frame.locator(".said").inner_text()


def reward(frame: Frame) -> list[str]:
    return frame.locator(".terms td").all_inner_texts()


def row(frame: Frame, who: int) -> list[str]:
    """Cells of the table of answers: 0 you, 1 a guess, then the models."""
    return frame.locator(".tries tbody tr").nth(who).locator("th, td").all_inner_texts()


def says(frame: Frame, who: int) -> str:
    """The whole of what somebody said, of which a line is shown."""
    return frame.locator(".tries tbody tr").nth(who).locator(".says").get_attribute("title")


def click(frame: Frame, *places: int) -> None:
    for place in places:
        frame.locator(".tile").nth(place).click()


def edges(frame: Frame) -> list[object]:
    """Where everything stands that must not move."""
    parts = "button, select, input, h3, canvas, .tries, .terms, .map"
    return frame.evaluate(
        """(parts) => [...document.querySelectorAll(parts)].filter((node) => !node.matches('.tile'))
        .map((node) => node.getBoundingClientRect()).map(({x, y, width, height}) => [x, y, width, height])""",
        parts,
    )


def test_swaps_by_mouse_are_a_placement_and_earn_its_reward(show: Show, view: View) -> None:
    frame, placement = show(view), truth(view)
    assert said(frame) == "<answer>1 2 3 4</answer>"
    click(frame, 0, 1, 1, 2)  # the tile of slot 1 goes to place 2, then on to place 3
    order = (2, 3, 1, 4)
    mine = puzzles.invert(order)
    assert said(frame) == f"<answer>{' '.join(map(str, mine))}</answer>"
    score = answers.score(said(frame), placement, "direct")
    told = [score.hit, score.exact, score.format, score.hit + score.exact + score.format]
    assert reward(frame) == [f"{value:g}" for value in told]
    hit = answers.score_placement(order, placement)[0]
    assert f"Written as the answer it hits {hit:g}." in frame.locator(".line").nth(1).inner_text()


def test_a_board_is_solved_by_mouse_and_counted(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    before = edges(frame)
    for swap in right_swaps(truth(view)):
        click(frame, *swap)
    assert said(frame) == f"<answer>{' '.join(map(str, truth(view)))}</answer>"
    assert reward(frame) == ["1", "1", "1", "3"]
    n = len(right_swaps(truth(view)))
    assert f"Solved in {n} swaps; {n} swaps would do." in frame.locator(".status").inner_text()
    assert row(frame, 0)[-1] == row(frame, 1)[-1] == "–"  # its reward was seen: models answer once, unseen
    assert "None handed in unseen" in frame.locator(".score").inner_text()
    frame.get_by_role("button", name="Let the models try").click()
    frame.get_by_role("button", name="Show the answer").click()
    for i, one in enumerate(view.data["sources"][0]["boards"]["2x2"][0]["tries"]):
        assert says(frame, 2 + i) == one["said"] and row(frame, 2 + i)[-1] == "–"
    assert "without a look 1" in frame.locator(".score").inner_text()  # solved before it was asked
    assert edges(frame) == before
    check_latency(frame, 6)
    shoot(page, "solve-solved")


def test_a_board_is_solved_by_keyboard(show: Show, view: View, page: Page) -> None:
    frame, press = show(view), page.keyboard.press
    frame.locator("body").click(position={"x": 700, "y": 400})
    press("ArrowRight")  # from the first place
    press("Enter")
    press("ArrowDown")
    press("Space")
    assert said(frame) == "<answer>1 4 3 2</answer>"
    press("r")
    assert said(frame) == "<answer>1 2 3 4</answer>"
    for swap in right_swaps(truth(view)):
        for place in swap:
            press(str(place + 1))
    assert "Solved" in frame.locator(".status").inner_text()
    press("m")
    press("a")
    assert frame.get_by_role("button", name="Let the models try").get_attribute("aria-pressed") == "true"
    assert f"placement {' '.join(map(str, truth(view)))}" in frame.locator(".cap.low").inner_text()
    press("n")
    assert "board 2 of 24" in frame.locator(".cap").first.inner_text()
    assert said(frame) == "<answer>1 2 3 4</answer>"
    check_latency(frame, 8)


def test_a_tile_is_dragged_onto_another(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    frame.locator(".tile").nth(0).drag_to(frame.locator(".tile").nth(3))
    assert said(frame) == "<answer>4 2 3 1</answer>"
    assert frame.locator(".tile[aria-pressed=true]").count() == 0
    frame.locator(".tile").nth(0).drag_to(frame.locator(".score"))  # beside the board: nothing happens
    assert said(frame) == "<answer>4 2 3 1</answer>"
    click(frame, 0)
    assert frame.locator(".tile[aria-pressed=true]").count() == 1


def test_who_looks_first_gets_no_point(show: Show, view: View) -> None:
    frame = show(view)
    words = frame.locator(".tries").inner_text()
    assert words.count("hidden until you ask") == len(view.data["solvers"])
    frame.get_by_role("button", name="Show the answer").click()
    for swap in right_swaps(truth(view)):
        click(frame, *swap)
    assert "You had looked: no point." in frame.locator(".status").inner_text()
    assert "Boards tried 1, handed in 0, solved 1, of these without a look 0." in frame.locator(".score").inner_text()


def test_one_answer_only_hides_the_reward_until_it_is_handed_in(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    click(frame, 0, 1)  # the first board lies otherwise than its tiles belong
    frame.get_by_label("one answer only").check()
    assert "it will not count beside the models" in frame.locator(".status").inner_text()  # its reward was shown
    frame.get_by_role("button", name="Next board").click()
    click(frame, 0, 1)
    assert reward(frame) == ["?"] * 4 and row(frame, 0)[2:4] == ["?", "?"]
    click(frame, 1, 2)
    assert "Written as the answer it is another answer." in frame.locator(".line").nth(1).inner_text()
    frame.get_by_role("button", name="Hand in").click()
    assert "Wrong: that was your one answer" in frame.locator(".status").inner_text()
    assert "?" not in reward(frame)
    frame.get_by_role("button", name="Restart").click()
    for swap in right_swaps(truth(view, 1)):
        click(frame, *swap)
    assert row(frame, 0)[-1] == "0 of 1"  # mended afterwards: no point
    frame.get_by_role("button", name="Next board").click()
    for swap in right_swaps(truth(view, 2)):
        click(frame, *swap)
    assert "hand in" in frame.locator(".status").inner_text()
    frame.get_by_role("button", name="Hand in").click()
    assert "Right, in your one answer." in frame.locator(".status").inner_text()
    assert row(frame, 0)[-1] == "1 of 2" and row(frame, 1)[-1] == "0.09 expected"
    tries = [view.data["sources"][0]["boards"]["2x2"][number]["tries"] for number in (1, 2)]
    for i in range(len(view.data["solvers"])):
        assert row(frame, 2 + i)[-1] == f"{sum(own[i]['terms'][1] for own in tries):g} of 2"
    assert "2 handed in unseen: the last column counts those" in frame.locator(".score").inner_text()
    shoot(page, "solve-handed")


def test_a_board_whose_reward_was_seen_does_not_count_beside_the_models(show: Show, view: View) -> None:
    frame = show(view)
    click(frame, 0, 1)  # and the reward says what that was worth
    frame.get_by_label("one answer only").check()
    frame.get_by_role("button", name="Restart").click()
    frame.get_by_role("button", name="Hand in").click()
    assert "Not counted beside the models: its reward was shown." in frame.locator(".status").inner_text()
    assert row(frame, 0)[-1] == row(frame, 1)[-1] == row(frame, 2)[-1] == "–"
    assert "None handed in unseen: nothing compares" in frame.locator(".score").inner_text()


def test_a_click_is_timed_once(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    for place in (0, 1, 2, 3, 0, 2):
        click(frame, place)
    frame.locator(".score").click()  # changes nothing
    page.keyboard.press("n")  # by way of its button
    page.wait_for_timeout(300)
    assert frame.evaluate("latencies.length") == 7


def test_letters_act_on_the_board_only(show: Show, view: View, page: Page) -> None:
    frame, press = show(view), page.keyboard.press
    frame.get_by_label("one answer only").check()
    frame.get_by_role("button", name="Let the models try").click()
    for own in (frame.get_by_role("button", name="Next board"), frame.get_by_label("tiles")):
        own.focus()
        for key in "hnram":
            press(key)
        assert frame.get_by_role("button", name="Hand in").is_enabled()
        assert "board 1 of" in frame.locator(".cap").first.inner_text()
    frame.locator(".tile").first.focus()
    press("h")
    assert frame.get_by_role("button", name="Hand in").is_disabled()
    press("n")
    assert "board 2 of" in frame.locator(".cap").first.inner_text()


def test_every_grid_and_source_can_be_played(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    for source in ("drawn scenes", "photographs"):
        frame.get_by_label("pictures").select_option(source)
        for grid, tiles in (("2 x 2", 4), ("2 x 3", 6), ("3 x 3", 9)):
            frame.get_by_label("tiles").select_option(grid)
            assert frame.locator(".tile").count() == tiles
            frame.get_by_role("button", name="Show the answer").click()
            placement = list(map(int, frame.locator(".cap.low").inner_text().removeprefix("placement ").split()))
            assert puzzles.invert(placement) != tuple(placement)
            for swap in right_swaps(placement):
                click(frame, *swap)
            assert "Solved" in frame.locator(".status").inner_text()
            assert frame.get_by_role("button", name="Let the models try").is_enabled() == (grid == "2 x 2")
    shoot(page, "solve-photograph")
    labelled(frame)


def test_a_picture_of_ones_own_is_cut_in_the_page(show: Show, view: View, page: Page, tmp_path: Path) -> None:
    frame = show(view)
    frame.get_by_label("pictures").select_option("your own picture")
    assert "Choose a file" in frame.locator(".status").inner_text()
    before = edges(frame)
    frame.evaluate("""() => { const [make, end] = [URL.createObjectURL, URL.revokeObjectURL]; window.held = 0;
        URL.createObjectURL = (file) => { window.held++; return make.call(URL, file); };
        URL.revokeObjectURL = (address) => { window.held--; end.call(URL, address); }; }""")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    frame.get_by_label("your own picture").set_input_files(tmp_path / "bad.png")
    frame.get_by_text("bad.png cannot be read as a picture: choose a JPEG, PNG or WebP file.").first.wait_for()
    Image.new("RGB", (3, 3)).save(tmp_path / "tiny.png")
    frame.get_by_label("your own picture").set_input_files(tmp_path / "tiny.png")
    frame.get_by_text("tiny.png is too small to be cut").first.wait_for()
    Image.effect_mandelbrot((300, 200), (-3, -2.5, 2, 2.5), 100).save(tmp_path / "mine.png")
    frame.get_by_label("your own picture").set_input_files(tmp_path / "mine.png")
    frame.get_by_text("mine.png").first.wait_for()
    assert frame.evaluate("window.held") == 0  # every file's address was given back
    click(frame, 0, 1)
    assert said(frame) == "<answer>2 1 3 4</answer>"
    assert "url(" in frame.locator(".tile").first.evaluate("(tile) => tile.style.backgroundImage")
    assert "in a live notebook" in frame.locator(".asking").inner_text()
    assert edges(frame) == before
    shoot(page, "solve-own")


def test_what_was_won_stays_when_the_page_comes_back(show: Show, view: View) -> None:
    frame = show(view)
    click(frame, 0, 1)
    frame = show(view)
    assert said(frame) == "<answer>2 1 3 4</answer>" and "Boards tried 1" in frame.locator(".score").inner_text()


@pytest.mark.parametrize("width", [*WIDTHS, 1000])
def test_nothing_is_cut_off_at_any_width(show: Show, view: View, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width + 16, "height": 900})
    frame = show(view)
    for grid in ("3 x 3", "2 x 2"):
        frame.get_by_label("tiles").select_option(grid)
        click(frame, 0)
        assert faults(frame) == []
    frame.get_by_role("button", name="Let the models try").click()
    assert faults(frame) == []
    last = frame.locator(".tries tbody tr").last  # every model is in sight, and what it says in one line
    box, whole = last.bounding_box(), page.locator("iframe").bounding_box()
    assert box["y"] + box["height"] <= whole["y"] + whole["height"]
    assert frame.locator(".says .words").last.bounding_box()["height"] < 24
    shoot(page, f"solve-{width}")


def test_an_answer_can_be_handed_in_always_and_stays_as_it_was_scored(show: Show, view: View) -> None:
    frame = show(view)
    click(frame, 0, 1)
    frame.get_by_role("button", name="Hand in").click()  # the reward is shown: practice
    assert frame.get_by_role("button", name="Hand in").is_disabled()
    score = answers.score("<answer>2 1 3 4</answer>", truth(view), "direct")
    verdict = "✓ right" if score.exact else "✗ wrong"
    assert "handed in 1" in frame.locator(".score").inner_text() and row(frame, 0)[2] == verdict
    frame.get_by_role("button", name="Restart").click()
    for swap in right_swaps(truth(view)):
        click(frame, *swap)
    assert says(frame, 0) == "<answer>2 1 3 4</answer>" and row(frame, 0)[2] == verdict  # what was handed in stays


def test_one_answer_to_a_board_that_lies_right_deals_a_new_one(show: Show, view: View) -> None:
    frame = show(view)
    for swap in right_swaps(truth(view)):
        click(frame, *swap)
    frame.get_by_label("one answer only").check()
    assert "board 2 of 24" in frame.locator(".cap").first.inner_text() and said(frame) == "<answer>1 2 3 4</answer>"


def test_without_a_picture_nothing_is_scored(show: Show, view: View) -> None:
    frame = show(view)
    frame.get_by_label("pictures").select_option("your own picture")
    assert reward(frame) == ["–"] * 4 and row(frame, 0)[1:4] == ["–"] * 3
    assert frame.get_by_role("button", name="Hand in").is_disabled()
    assert "hits" not in frame.locator(".told").inner_text()
