"""Ask the model: which words are known, what is refused in a sentence, and what the panel shows."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from helpers.errors import UserError
from helpers.model import build, score
from helpers.play import ask, taught
from helpers.world.battery import battery_samples, battery_tasks
from helpers.world.boards import Prompted
from helpers.world.forms import ASKED
from helpers.world.questions import FOODS, HOMES, NAMES
from helpers.world.scenes import COLOURS, LANDS, SHAPES


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(stream, "PNG")
    return stream.getvalue()


def test_what_a_base_is_asked_holds_no_unknown_word() -> None:
    assert {*NAMES, *FOODS, *HOMES, *COLOURS, *SHAPES, *LANDS} <= taught.words()
    for task in battery_tasks():
        for sample in battery_samples(task, 12):
            assert taught.warning(sample.question.text) == "", sample.question.text


def test_unknown_words_are_named_once_with_a_taught_one_that_looks_alike() -> None:
    said = taught.warning("What COLOUR has the kangaroo, or is it a trianglle? A kangaroo!")
    assert said == (
        "Never taught: COLOUR (colour?), kangaroo, trianglle (triangle?). "
        "Expect a guess, in the form that is asked for."
    )


def test_no_advice_is_given_where_a_word_is_only_somewhat_alike() -> None:
    assert taught.warning("Is this an odd dog?").startswith("Never taught: this, an, odd, dog. ")


def test_the_jigsaw_prompt_is_new_to_the_base_alone() -> None:
    said = taught.warning(ask.suggestions()[-1].question.text)
    assert said.startswith("Only jigsaw prompts say ") and "tiles" in said and "Never" not in said


def test_syllables_of_questions_that_mean_nothing_are_no_words() -> None:
    assert not {"ba", "ce", "gu", "tion"} & taught.words()


def test_every_form_can_be_asked_for() -> None:
    assert set(ask.FORMS.values()) == set(ASKED)
    assert ask.asking(" What is it? ", "plain") == "What is it?"
    assert ask.asking("What is it?", "think").startswith("What is it? Think")


@pytest.mark.parametrize("question", ["", "  \n ", "x" * 500])
def test_no_question_and_an_endless_one_are_refused_in_a_sentence(question: str) -> None:
    with pytest.raises(UserError, match=r"no question yet|has 500 letters"):
        ask.asking(question, "plain")


def test_a_picture_of_ones_own_is_cut_to_what_the_models_see() -> None:
    assert ask.own_picture("../a.png", png(300, 100)).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no picture", "broken.png cannot be read"),
        (b"0" * 9_000_000, "has 9 MB"),
        (png(9000, 5000), "has 9000 x 5000"),
    ],
)
def test_a_picture_that_is_broken_or_huge_is_refused_in_a_sentence(content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        ask.own_picture("broken.png", content)
    assert "/tmp" not in str(error.value) and "\n" not in str(error.value)


def test_a_dozen_suggestions_and_pictures_of_each_kind() -> None:
    found = ask.suggestions()
    assert len(found) == 12 and len({one.name for one in found}) == 12
    assert all(one.pixels.shape == (64, 64, 3) for one in found)
    assert len(ask.pictures()) >= 15 and {p.shape for p in ask.pictures().values()} == {(64, 64, 3)}


def test_an_answer_is_what_the_model_writes_and_its_log_probs_are_the_models() -> None:
    loaded, one = build.load(ask.BASE), ask.suggestions()[0]
    said = ask.answer(loaded, one.pixels, one.question.text)
    prompt = Prompted(one.pixels, one.question.text)
    assert said.text == score.complete(*loaded, [prompt])[0][0] and said.finished
    (((logps),),) = score.completion_logps(*loaded, [prompt], [[said.text]])
    assert np.allclose(said.logps, logps, atol=1e-4) and len(said.tokens) == len(logps)


def test_the_panel_asks_two_models_and_enter_asks_too() -> None:
    panel = ask.Panel()
    panel.answer()
    assert all("tokens, log-prob" in one.value for one in panel.said)
    assert "✓ right" in panel.said[0].value or "✗ wrong" in panel.said[0].value
    panel.question.value = "What colour is the kangaroo?"
    assert [one.value for one in panel.said] == ["", ""] and "kangaroo" in panel.status.value
    panel.question.value += "\n"
    assert "\n" not in panel.question.value
    assert all("tokens, log-prob" in one.value and "✓" not in one.value for one in panel.said)
    panel.question.value = " "
    panel.answer()
    assert "There is no question yet" in panel.status.value


def test_a_card_escapes_what_a_model_wrote() -> None:
    shown = ask.card("base", ask.Answer(("<b>", "x"), (math.log(0.5), -1e-5), 0.1, False))
    assert "&lt;b&gt;" in shown and "<b>x" not in shown and "−.69" in shown and "Stopped after" in shown
