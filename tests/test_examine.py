"""The battery put in several ways: the same items and answers in every form, wording and size."""

from dataclasses import replace

import pytest
from swapping import swap

from helpers.errors import UserError
from helpers.model import evaluate, examine, score
from helpers.world import battery, forms
from helpers.world.boards import training_boards
from helpers.world.puzzles import PuzzleSpec
from helpers.world.ways import Way, items

TASKS = ("light", "lists", "caption")
WAYS = [Way("direct"), Way("think", True), Way("plain"), Way("sentences"), Way("think", size=96)]


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, battery, "battery_tasks", lambda: TASKS)


@pytest.fixture(scope="module")
def loaded(tiny) -> tuple:
    return tiny.load()


@pytest.mark.parametrize("task", battery.battery_tasks())
def test_a_sample_shows_and_asks_the_same_at_every_size(task: str) -> None:
    small, large = battery.battery_samples(task, 6), battery.battery_samples(task, 6, 96)
    for one, other in zip(small, large, strict=True):
        assert one.question == other.question and other.pixels.shape == (96, 96, 3)
        # the same picture, up to grain and resizing
        shrunk = other.pixels[::3, ::3].mean((0, 1)) - one.pixels[::2, ::2].mean((0, 1))
        assert abs(shrunk).max() < 6


@pytest.mark.parametrize(
    "way", [Way("direct"), Way("think", True), Way("plain"), Way("sentences"), Way("think", size=96)]
)
def test_a_way_changes_how_items_are_put_and_never_what_is_right(way: Way) -> None:
    for task in TASKS:
        for (prompt, question), sample in zip(items(way, task, 8), battery.battery_samples(task, 8), strict=True):
            assert question.answer == sample.question.answer and sample.question.text in prompt.text
            phrase = prompt.text.replace(sample.question.text, "").strip()
            assert phrase in (forms.wordings(way.asked, way.held_out) or ("",))
            assert question.completion.startswith("<answer>" if way.asked == "direct" else "<think>")
            assert prompt.pixels.shape[0] == way.size


def test_every_wording_is_asked_in_turn_of_chance_and_always_the_same() -> None:
    texts = [prompt.text for prompt, _ in items(Way("direct"), "light", 160)]
    assert sum(any(p in text for text in texts) for p in forms.PHRASES["direct"]) == len(forms.PHRASES["direct"])
    items.cache_clear()
    assert [prompt.text for prompt, _ in items(Way("direct"), "light", 160)] == texts


def test_the_plain_way_gives_the_scores_of_the_plain_battery(loaded: tuple) -> None:
    plain = {task: own.means for task, own in examine.examine(*loaded, Way(), 3).items()}
    known = evaluate.score_battery(*loaded, 3, TASKS)
    assert {t: (m["score"], m["format_failure"]) for t, m in plain.items()} == {
        t: (m["score"], m["format_failure"]) for t, m in known.items()
    }


def test_outcomes_stand_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    way, right = Way("direct"), {}
    for task in TASKS:
        right[task] = [i % 3 == 1 for i in range(6)]
    known = {prompt.text: (task, i) for task in TASKS for i, (prompt, _) in enumerate(items(way, task, 6))}

    def answered(model, processor, prompts, candidates):
        texts = []
        for prompt, (gold, *_) in zip(prompts, candidates, strict=True):
            task, i = known[prompt.text]
            texts.append(gold if right[task][i] else "<think>x</think><answer>nothing</answer>")
        return texts, [text.startswith("<answer>") for text in texts]

    swap(monkeypatch, evaluate, "answered", answered)
    found = examine.examine(None, None, way, 6, choose=True)
    for task in TASKS:
        assert list(found[task].right) == list(found[task].kept) == list(found[task].likely) == right[task]
        assert found[task].means["score"] == pytest.approx(1 / 3)


def test_wrong_answers_stand_behind_the_same_think() -> None:
    for task in TASKS:
        for number, (_, question) in enumerate(items(Way("think"), task, 6)):
            gold, *wrong = examine._candidates(question, number)
            assert wrong and gold == question.completion and len({gold, *wrong}) == len(wrong) + 1
            assert {text.split("<answer>")[0] for text in wrong} == {gold.split("<answer>")[0]}


def test_an_opening_is_written_for_the_model_and_nothing_is_chosen_behind_it(loaded: tuple) -> None:
    found = examine.examine(*loaded, Way("think", opening="<answer>"), 2)
    for own in found.values():
        assert all(text.startswith("<answer>") for text in own.said) and own.likely == ()
        assert "likelihood" not in own.means
    with pytest.raises(UserError, match="cannot be chosen again"):
        examine.examine(*loaded, Way(opening="<think>"), 2, choose=True)


def test_an_opening_is_continued_as_greedy_decoding_would(puzzler) -> None:
    """What a model writes of its own begins with a tag; given that as an opening it goes on in the same way."""
    model, prompts = puzzler.load(), training_boards(PuzzleSpec(size=32), 3, 0).prompted()
    for prompt, (own,) in zip(prompts, score.draw(*model, prompts), strict=True):
        first = score.text_of(model.processor.tokenizer, own.ids[:1])
        (again,) = score.draw(*model, [replace(prompt, opening=first)])[0]
        assert first == "<think>" and again.text == own.text and again.ids == own.ids[1:]
