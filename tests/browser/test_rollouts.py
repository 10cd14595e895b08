"""The rollout browser in a browser: by mouse, by keyboard, two writers on one board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from helpers.play import rollouts
from helpers.play.page import View
from helpers.study.profiles import get_profile
from tests.browser.conftest import check_latency, labelled, shoot
from tests.browser.narrow import WIDTHS, faults

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

Show = Callable[[View], "Frame"]


@pytest.fixture(scope="module")
def view() -> View:
    """The published runs, and two models asked about two boards."""
    runs = [*rollouts.study_writers(get_profile("cpu")), *rollouts.base_writers()]
    return rollouts.view([*runs, *rollouts.model_writers(2, ("direct",))[:2]])


def index_of(view: View, label: str) -> int:
    return [run["label"] for run in view.data["runs"]].index(label)


def groups_of(view: View, run: int) -> list[list]:
    return [group for group in view.data["groups"] if group[0] == run]


def truth(view: View, group: list) -> str:
    return " ".join(map(str, view.data["boards"][group[2]]["truth"]))


def shown(frame: Frame, panel: int = 0) -> str:
    return frame.locator(".truth b").nth(panel).inner_text()


def column(frame: Frame, name: str, panel: int = 0) -> list[str]:
    return frame.locator(".panel").nth(panel).locator(f"td.{name}").all_inner_texts()


def test_a_group_stands_with_its_board_its_truth_and_its_numbers(show: Show, view: View, page: Page) -> None:
    frame, first = show(view), view.data["groups"][0]
    assert shown(frame) == truth(view, first)
    whole = frame.locator("td .answer").evaluate_all("(all) => all.map((node) => node.title)")
    assert whole == [view.data["texts"][row[0]] for row in first[4]]
    for text, said in zip(column(frame, "said"), whole, strict=True):
        answer, think = text.split("\n")  # each on lines of its own
        assert said == f"<think>{think}</think><answer>{answer}</answer>"
    assert [float(t) for t in column(frame, "reward")] == [row[4] for row in first[4]]
    assert [float(t) for t in column(frame, "advantage")] == pytest.approx([r[5] for r in first[4]], abs=0.006)
    moved = [row[6] - row[7] for row in first[4]]
    assert [float(t) for t in column(frame, "moved")] == pytest.approx(moved, abs=0.011)
    underlined = sum(round(4 * row[1]) for row in first[4])
    assert frame.locator("td .at").count() == underlined
    assert frame.locator(".panel img").first.evaluate("board => board.naturalWidth") == 64
    shoot(page, "rollouts")


def test_slider_buttons_and_menu_go_from_group_to_group(show: Show, view: View) -> None:
    frame, own = show(view), groups_of(view, 0)
    frame.get_by_role("button", name="next group").click()
    assert shown(frame) == truth(view, own[1])
    assert frame.get_by_role("button", name="previous group").is_enabled()
    steps = sorted({group[1] for group in own})
    frame.get_by_label("step", exact=True).first.fill(str(len(steps) - 1))
    assert shown(frame) == truth(view, next(group for group in own if group[1] == steps[-1]))
    assert frame.locator(".slot output").first.inner_text() == str(steps[-1])
    frame.get_by_label("Who wrote").select_option(index=2)
    assert shown(frame) in {truth(view, g) for g in groups_of(view, 2) if g[1] == steps[-1]}


def test_a_click_in_the_plot_goes_to_the_group(show: Show, view: View) -> None:
    frame, own = show(view), groups_of(view, 0)
    late = view.data["groups"].index(own[-1])
    frame.locator(f'[data-at="{late}"]').click(force=True)
    assert shown(frame) == truth(view, own[-1])
    assert frame.locator(".strip [data-at]").count() == len(own)


def test_by_keyboard_alone(show: Show, view: View, page: Page) -> None:
    frame, own = show(view), groups_of(view, 0)
    frame.locator("body").focus()
    frame.get_by_role("button", name="next group").focus()
    page.keyboard.press("ArrowRight")
    assert shown(frame) == truth(view, own[1])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert shown(frame) == truth(view, next(group for group in own if group[1] == 2))
    page.keyboard.press("ArrowDown")
    assert shown(frame) == truth(view, own[0])
    page.keyboard.press("c")
    assert frame.locator(".panel").nth(1).is_visible()
    page.keyboard.press("c")
    assert not frame.locator(".panel").nth(1).is_visible()
    frame.get_by_label("Who wrote").focus()
    page.keyboard.press("ArrowDown")
    assert shown(frame) == truth(view, groups_of(view, 1)[0])


def test_menus_choose_which_groups_are_walked_and_mark_which_completions(show: Show, view: View, page: Page) -> None:
    frame, own = show(view), groups_of(view, 0)
    silent = [group for group in own if max(abs(row[5]) for row in group[4]) < 0.01]
    assert silent, "this test needs a group without a signal in the page"
    frame.get_by_label("Groups", exact=True).select_option("without a signal")
    assert f"of {len(silent)} in this page; the record has 160 groups" in frame.locator(".count").inner_text()
    assert shown(frame) in {truth(view, group) for group in silent}
    assert "every advantage is 0, and nothing is learned" in frame.locator(".told").first.inner_text()
    frame.get_by_label("Completions", exact=True).select_option("malformed")
    assert frame.locator(".count").inner_text() == "no such group in this page; the record has 160 groups"


def test_malformed_completions_are_marked_and_the_others_step_back(show: Show, page: Page) -> None:
    writer = rollouts.base_writers()[0]
    rows = writer.rows.copy()
    spoilt = rows.index[rows["step"] == 3][0]
    rows.loc[spoilt, ["completion", "hit", "exact", "format"]] = ["<answer>1 1 2</answer", 0.0, 0.0, 0.0]
    frame = show(rollouts.view([replace(writer, rows=rows)]))
    frame.get_by_label("Completions", exact=True).select_option("malformed")
    assert frame.locator(".count").inner_text() == "group 1 of 1 in this page; the record has 160 groups"
    assert frame.locator(".slot output").first.inner_text() == "3"
    assert frame.locator("td [aria-label=malformed]").count() == 1 and frame.locator("tr.dim").count() == 7
    assert "<answer>1 1 2</answer" in column(frame, "said")
    shoot(page, "rollouts-malformed")


def test_completions_are_sorted_by_reward_or_log_prob(show: Show, view: View) -> None:
    frame, first = show(view), view.data["groups"][0][4]
    for name, key in (("reward", 4), ("log-prob now", 6), ("log-prob base", 7)):
        frame.get_by_label("Sort by").select_option(name)
        order = sorted(range(len(first)), key=lambda i, key=key: -first[i][key])
        assert [int(n) - 1 for n in column(frame, "number")] == order


def test_two_rates_stand_side_by_side_on_the_board_that_both_met(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    one, two = (index_of(view, f"RFT direct, rate {rate}, two-form-5") for rate in ("6e-5", "2e-4"))
    frame.get_by_label("Who wrote").select_option(index=one)
    frame.get_by_role("button", name="two side by side").click()
    frame.get_by_label("Beside it").select_option(index=two)
    mine, theirs = groups_of(view, one), groups_of(view, two)
    shared = {group[2] for group in mine} & {group[2] for group in theirs}
    assert shared and mine[0][2] in shared
    for group in mine[:6]:
        assert shown(frame) == truth(view, group)
        same = "The same board" in frame.locator(".panel .note").inner_text()
        assert same == (group[2] in shared)
        if same:
            assert shown(frame, 1) == shown(frame)
            beside = next(other for other in theirs if other[2] == group[2])
            assert [float(t) for t in column(frame, "reward", 1)] == [row[4] for row in beside[4]]
        frame.get_by_role("button", name="next group").click()
    shoot(page, "rollouts-two-rates")


def test_two_side_by_side_opens_two_writers_that_met_one_board(show: Show, view: View, page: Page) -> None:
    frame, own, two = show(view), groups_of(view, 0), "two side by side"
    frame.get_by_role("button", name=two).click()  # no other run met this one's boards
    chosen = [frame.get_by_label(name).locator("option:checked").inner_text() for name in ("Who wrote", "Beside it")]
    assert chosen[0] == "Base two-form-5, asked direct" and chosen[1].startswith("same board: End of ")
    assert shown(frame, 1) == shown(frame) and "The same board" in frame.locator(".panel .note").inner_text()
    frame.get_by_role("button", name=two).click()
    assert shown(frame) == truth(view, own[0])  # where it was


def test_early_and_late_stand_side_by_side_each_with_its_own_board(show: Show, view: View, page: Page) -> None:
    frame, own = show(view), groups_of(view, 0)
    frame.get_by_role("button", name="two side by side").click()
    for name in ("Who wrote", "Beside it"):
        frame.get_by_label(name).select_option(index=0)
    assert "The same writer, at another group" in frame.locator(".panel .note").inner_text()
    frame.locator(".second").get_by_label("step", exact=True).fill("1")
    assert shown(frame, 1) == truth(view, next(group for group in own if group[1] == 2))
    shoot(page, "rollouts-early-late")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_answer_is_cut_off_at_any_width(show: Show, view: View, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width + 16, "height": 900})
    frame = show(view)
    for _ in range(2):
        assert faults(frame) == []
        cut = "(all) => all.filter((node) => node.scrollWidth > node.clientWidth).length"
        assert frame.locator("td .answer").evaluate_all(cut) == 0
        frame.get_by_role("button", name="two side by side").click()


def test_models_answer_the_same_held_out_boards(show: Show, view: View, page: Page) -> None:
    frame, base = show(view), index_of(view, "Base two-form-5, asked direct")
    frame.get_by_label("Who wrote").select_option(index=base)
    assert frame.get_by_label("held-out board").first.is_visible()
    assert frame.locator(".told").first.inner_text().startswith("Not trained on; if it were: ")
    frame.get_by_role("button", name="two side by side").click()
    assert frame.get_by_label("Beside it").locator("option:checked").inner_text().startswith("same board: End of ")
    assert shown(frame, 1) == shown(frame)
    frame.get_by_role("button", name="next group").click()
    assert shown(frame, 1) == shown(frame) == truth(view, groups_of(view, base)[1])
    shoot(page, "rollouts-models")


def test_nothing_moves_every_control_is_named_and_it_is_quick(show: Show, view: View, page: Page) -> None:
    frame = show(view)
    places = "all => all.map((node) => { const box = node.getBoundingClientRect(); return [box.x, box.y, box.width]; })"
    for two in (False, True):
        if two:
            frame.get_by_role("button", name="two side by side").click()
        before = frame.eval_on_selector_all("button, select, input, .told, td.number, .panel img", places)
        for _ in range(4):
            frame.get_by_role("button", name="next group").click()
        frame.get_by_label("Sort by").select_option("reward")
        frame.get_by_label("Completions", exact=True).select_option("wrong")
        frame.get_by_label("Who wrote").select_option(index=6)
        assert frame.eval_on_selector_all("button, select, input, .told, td.number, .panel img", places) == before
    labelled(frame)
    check_latency(frame, 10)
    page.set_viewport_size({"width": 740, "height": 900})
    shoot(page, "rollouts-740")
