"""The toys in a browser: the page's numbers are those of helpers.toys, by mouse and by keyboard, and nothing moves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from browser.conftest import check_latency, labelled, shoot
from helpers.play import toys
from helpers.toys import mixture, softmax
from helpers.toys.softmax import Lesson

CLOSE = {"rel": 1e-6, "abs": 1e-9}


def values(frame, selector: str, name: str) -> list[float]:
    """A data attribute of every element, in order."""
    return [float(text) for text in frame.eval_on_selector_all(selector, f"nodes => nodes.map(n => n.dataset.{name})")]


def slide(frame, label: str, value: float) -> None:
    frame.get_by_role("slider", name=label, exact=True).fill(str(value))


def box(frame, selector: str) -> dict:
    return frame.locator(selector).first.bounding_box()


# --- squeeze -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "peak", "cosine", "step"), [(0.5, 1.5, 0.8, 10), (2.0, 3.0, -0.5, 0), (0.05, 0.0, 0.3, 50)]
)
@pytest.mark.parametrize("lesson", ["word 15 down", "15 down and 5 up"])
def test_squeezes_are_those_of_the_toy(show, lesson, rate, peak, cosine, step) -> None:
    frame = show(toys.squeeze(lesson, prompts=3))
    for label, value in {"rate": rate, "peak of the start": peak, "neighbour's cosine": cosine, "step": step}.items():
        slide(frame, label, value)
    taught, layer = Lesson(tuple(toys.LESSONS[lesson]), rate, max(step, 1)), softmax.shared_layer(peak, cosine)
    after = layer.learn(0, taught) if step else layer
    then = after.learn(0, replace(taught, steps=1))
    for prompt, name in enumerate(layer.prompts):
        alike = float(layer.inputs[prompt] @ layer.inputs[0])
        now, changed = (softmax.log_softmax(each.logits[prompt]) for each in (after, then))
        forecast = softmax.predicted_shift(after.logits[prompt], after.logits[0], taught, alike)
        bars = values(frame, f"svg[aria-label^='{name}: probability'] rect", "value")
        assert bars == pytest.approx(np.exp(now), **CLOSE)
        assert values(frame, f"svg[aria-label^='{name}: log-prob'] [data-logp]", "logp") == pytest.approx(now, **CLOSE)
        steps = f"svg[aria-label^='{name}: change']"
        assert values(frame, f"{steps} rect", "value") == pytest.approx(changed - now, rel=1e-6, abs=1e-9)
        assert values(frame, f"{steps} [data-forecast]", "forecast") == pytest.approx(forecast, **CLOSE)


def test_words_are_pushed_by_mouse_and_by_keyboard(show, page) -> None:
    frame = show(toys.squeeze())
    before = box(frame, "table, .number")
    assert "word 15, 0.00793 to 3.20e-6" in frame.inner_text(".number >> nth=-1")
    fifth = frame.get_by_role("button", name="word 5, advantage 0")
    fifth.click()
    assert frame.get_by_role("button", name="word 5, advantage -1").inner_text() == "5▼"
    page.keyboard.press("Enter")  # the button has the focus
    frame.get_by_role("button", name="word 5, advantage 1").wait_for()
    assert "The advantages sum to 0." in frame.inner_text("[role=status]")
    assert frame.get_by_label("lesson").input_value() == "my own"
    frame.get_by_label("lesson").select_option("word 1 down")
    assert "word 1, " in frame.inner_text("[role=status]")
    frame.get_by_label("on", exact=True).select_option("three prompts")
    assert "stranger prompt" in frame.inner_text("main")
    assert box(frame, "table, .number") == before
    labelled(frame)
    shoot(page, "squeeze")


def test_the_squeeze_plays_step_by_step_in_time(show, page) -> None:
    frame = show(toys.squeeze())
    frame.get_by_role("slider", name="step", exact=True).focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    assert "After 22 steps" in frame.inner_text("[role=status]")
    check_latency(frame, 12)
    frame.get_by_role("button", name="play step").click()
    frame.wait_for_function("document.querySelector('[role=status]').textContent.includes('After 25 steps')")
    frame.get_by_role("button", name="pause step").click()
    frame.get_by_role("button", name="play step").wait_for()


def test_playing_from_the_last_but_one_step_ends_at_the_last(show, page) -> None:
    frame = show(toys.squeeze())
    slide(frame, "step", 49)
    frame.get_by_role("button", name="play step").click()
    page.wait_for_timeout(500)  # four steps' time; an error in the page fails the test
    assert "After 50 steps" in frame.inner_text("[role=status]")
    frame.get_by_role("button", name="play step").wait_for()
    frame.get_by_role("button", name="play step").click()  # from the end: again from the start
    frame.get_by_role("button", name="pause step").wait_for()
    assert "After 50 steps" not in frame.inner_text("[role=status]")


def test_a_page_with_other_data_in_the_same_tab_begins_as_it_was_asked(show) -> None:
    frame = show(toys.squeeze())
    slide(frame, "step", 3)
    frame = show(toys.squeeze("word 1 down", prompts=3))
    assert frame.get_by_label("lesson").input_value() == "word 1 down"
    assert "stranger prompt" in frame.inner_text("main") and "After 10 steps" in frame.inner_text("[role=status]")
    frame = show(toys.squeeze())  # the first one has kept what was set there
    assert "After 3 steps" in frame.inner_text("[role=status]")


def test_what_was_remembered_and_cannot_be_drawn_is_forgotten(show, page) -> None:
    frame = show(toys.squeeze())
    frame.evaluate("kit.remember('state', { ...kit.recall('state'), step: 1000 })")
    frame = show(toys.squeeze())
    assert frame.get_by_role("alert").count() == 0 and "After 10 steps" in frame.inner_text("[role=status]")
    page.set_viewport_size({"width": 900, "height": 900})  # nor does the drawing that failed answer any longer
    slide(frame, "step", 4)
    frame = show(toys.squeeze())
    assert "After 4 steps" in frame.inner_text("[role=status]")


# --- mixture -----------------------------------------------------------------------------------------------


def twisted(seed: int) -> Iterator[float]:
    """The page's generator, mulberry32: numbers in [0, 1)."""
    now, every = seed, 0xFFFFFFFF
    while True:
        now = (now + 0x6D2B79F5) & every
        mixed = ((now ^ now >> 15) * (1 | now)) & every
        mixed = ((mixed + ((mixed ^ mixed >> 7) * (61 | mixed) & every)) & every) ^ mixed
        yield (mixed ^ mixed >> 14) / 2**32


def page_noise(seed: int, samples: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The page's draws of each step: standard normal and uniform numbers (1, samples)."""
    source = twisted(seed)
    while True:
        one, two, three = np.array([[next(source) for _ in range(3)] for _ in range(samples)]).T
        yield (np.sqrt(-2 * np.log(1 - one)) * np.cos(2 * math.pi * two))[None], three[None]


def trained(method: mixture.Method, world: mixture.World, slow: float, seed: int, samples: int) -> tuple:
    """Step, accuracy kept, gain and policy where a run stops, by helpers.toys with the page's draws (0: exactly)."""
    policy, noise = world.start[None], page_noise(seed, samples) if samples else None
    first = mixture.accuracy(policy[0], world)
    for step in range(1, mixture.Effort().steps + 1):
        policy = mixture.advance(method, world, policy, np.array([slow]), next(noise) if samples else None)
        kept, new = mixture.accuracy(policy[0], world)
        if new - first[1] >= mixture.Effort().gain:
            return step, kept, new - first[1], *policy[0]
    raise AssertionError("the run did not reach the gain")


def read(frame, learner: str) -> list[float]:
    frame.wait_for_selector("#view[data-trained=yes]", timeout=60_000)
    return values(frame, f"tr[data-learner={learner}] td[data-value]", "value")


@pytest.mark.parametrize(
    ("draws", "samples", "slow", "place", "modes", "seed"),
    [
        ("new mode", 100, 0.005, 3.5, 2, 0),
        ("whole", 100, 0.1, 5.5, 2, 2),
        ("whole", 0, 0.5, 4.25, 2, 0),
        ("whole", 10, 1.0, 3.5, 1, 1),
    ],
)
def test_runs_are_those_of_the_toy_with_the_same_draws(show, draws, samples, slow, place, modes, seed) -> None:
    frame = show(toys.mixture())
    frame.get_by_label("draws a step").select_option("exact integrals" if samples == 0 else f"{samples}")
    if frame.get_by_label("REINFORCE draws from its").is_enabled():
        frame.get_by_label("REINFORCE draws from its").select_option(draws.replace("whole", "whole policy"))
    slows = toys.mixture().data["slows"]
    slide(frame, "slow factor of the old mode", slows.index(slow))
    slide(frame, "new mode at", round((place - 2.5) / 0.25))
    frame.get_by_label("modes of the policy").select_option(str(modes))
    for _ in range(seed):
        frame.get_by_role("button", name="other draws").click()
    world = mixture.World(place, modes)
    expected = trained(mixture.Method("sft", 0.15), world, slow, seed, samples)
    assert read(frame, "SFT") == pytest.approx(expected, rel=1e-6, abs=1e-6)
    expected = trained(mixture.Method("reinforce", 0.01, draws=draws), world, slow, seed, samples)
    assert read(frame, "REINFORCE") == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_settings_that_cannot_stand_together_give_way(show) -> None:
    frame = show(toys.mixture())
    draws, samples = frame.get_by_label("REINFORCE draws from its"), frame.get_by_label("draws a step")
    samples.select_option("exact integrals")
    assert draws.input_value() == "whole policy"
    draws.select_option("new mode")
    assert samples.input_value() == "1,000"
    frame.get_by_label("modes of the policy").select_option("1")
    assert draws.is_disabled() and draws.input_value() == "whole policy"
    assert frame.get_by_role("slider", name="slow factor of the old mode").is_disabled()


def test_steps_rates_and_draws_are_read_off_with_three_digits_and_nothing_moves(show, page) -> None:
    frame = show(toys.mixture())
    end = read(frame, "SFT")
    before = box(frame, "table")
    rate = frame.get_by_role("slider", name="rate of REINFORCE")
    rate.fill("0")
    assert frame.locator("label", has=rate).locator("output").inner_text() == "0.0025"
    rate.focus()
    page.keyboard.press("ArrowRight")
    assert frame.locator("label", has=rate).locator("output").inner_text() == "0.005"
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    read(frame, "SFT")
    assert "At equal gain (0.9) on the old mode: SFT keeps " in frame.inner_text("[role=status]")
    frame.get_by_role("slider", name="step", exact=True).focus()
    page.keyboard.press("Home")
    assert read(frame, "SFT")[0] == 0 and end[0] > 0
    frame.get_by_role("button", name="play step").click()
    frame.wait_for_function("document.querySelector('tr[data-learner=SFT] td[data-value]').dataset.value > 5")
    frame.get_by_role("button", name="other draws").click()
    read(frame, "REINFORCE")
    assert box(frame, "table") == before
    labelled(frame)
    check_latency(frame, 8)
    shoot(page, "mixture")
