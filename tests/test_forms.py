"""Forms: what a prompt asks for, what a base is taught to write, and that twins differ in nothing else."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest

from helpers.train import pretrain
from helpers.world import forms
from helpers.world.puzzles import PuzzleSpec, prompt_text
from helpers.world.questions import LONGEST, Question

STEM = pretrain.stem(3)
PLACES = [(step, slot) for step in (0, 400, 2700, 4200) for slot in range(6)]


def samples(recipe: pretrain.Recipe) -> list[tuple[np.ndarray, list[Question]]]:
    return [pretrain.pretraining_sample(recipe, step, slot) for step, slot in PLACES]


def test_there_are_ten_wordings_or_more_of_each_form_and_two_are_never_taught() -> None:
    for asked in ("direct", "think"):
        taught, held_out = forms.PHRASES[asked], forms.HELD_OUT[asked]
        assert len(set(taught)) >= 10 and len(set(held_out)) == 2 and not set(taught) & set(held_out)
    every = [p for part in (forms.PHRASES, forms.HELD_OUT) for phrases in part.values() for p in phrases]
    assert len(set(every)) == len(every)
    known = {word for phrases in forms.PHRASES.values() for p in phrases for word in re.findall("[a-z]+", p.lower())}
    unknown = {w for ps in forms.HELD_OUT.values() for p in ps for w in re.findall("[a-z]+", p.lower())} - known
    assert unknown <= {"without", "but"}  # held-out wordings are new orders of words that are nearly all known


def test_asking_changes_the_prompt_and_writing_the_completion_and_nothing_else() -> None:
    question = Question("colour", "What colour? One word.", "red", "circle red", "word")
    rng = np.random.default_rng(0)
    asked = forms.ask_for(question, "direct", rng)
    assert asked.text != question.text and replace(asked, text=question.text) == question
    assert forms.ask_for(question, "plain", rng) == question
    assert forms.write(question, "direct").completion == "<answer>red</answer>"
    assert forms.write(question, "think").completion == "<think>circle red</think><answer>red</answer>"


def test_a_stem_knows_the_phrases_and_always_thinks() -> None:
    questions = [q for _, row in samples(STEM) for q in row]
    phrases = {p for ps in forms.PHRASES.values() for p in ps}
    asked = [q for q in questions if any(p in q.text for p in phrases)]
    assert 0.3 < len(asked) / len(questions) < 0.7
    assert all(q.completion.startswith("<think>") for q in questions)


def test_branches_see_the_same_pictures_and_prompts_and_differ_where_directness_is_asked_for() -> None:
    two, one = (samples(pretrain.branch(3, kind, "stem")) for kind in ("two-form", "one-form"))
    direct, changed = set(forms.PHRASES["direct"]), 0
    for (picture, questions), (same, twins) in zip(two, one, strict=True):
        assert np.array_equal(picture, same)
        assert [q.text for q in questions] == [q.text for q in twins]
        for question, twin in zip(questions, twins, strict=True):
            asked = any(phrase in question.text for phrase in direct)
            assert question.completion == (f"<answer>{twin.answer}</answer>" if asked else twin.completion)
            changed += asked
    assert changed > 20


def test_a_branch_is_taught_other_pictures_than_its_stem_and_held_out_wordings_never_occur() -> None:
    stems, branches = samples(STEM), samples(pretrain.branch(3, "two-form", "stem"))
    assert not {p.tobytes() for p, _ in stems} & {p.tobytes() for p, _ in branches}
    held_out = [p for ps in forms.HELD_OUT.values() for p in ps]
    assert not [q for _, row in stems + branches for q in row for p in held_out if p in q.text]


def test_no_base_is_ever_shown_a_puzzle_prompt() -> None:
    start = prompt_text(PuzzleSpec()).split(".")[0]
    assert not [q for _, row in samples(STEM) for q in row if start in q.text or "tile" in q.text.lower()]


def test_both_sizes_are_seen_and_a_batch_has_one() -> None:
    sides = {step: {len(pretrain.pretraining_sample(STEM, step, slot)[0]) for slot in range(4)} for step in range(30)}
    assert all(len(known) == 1 for known in sides.values())
    assert set().union(*sides.values()) == {64, 96}
    step = next(step for step, known in sides.items() if known == {96})
    patches, labels = pretrain.eye_batch(replace(STEM, eye_pictures=8), step)
    assert (patches.rows, patches.columns) == (12, 12) and all(v.shape == (8, 36) for v in labels.values())


def test_orders_of_up_to_nine_numbers_are_asked_for() -> None:
    questions = [q for step in range(2700, 2760) for q in pretrain.pretraining_sample(STEM, step, 0)[1]]
    lengths = {q.n for q in questions if q.kind == "order"}
    assert max(lengths) == LONGEST and {7, 8} & lengths
    for q in questions:
        if q.kind == "order":
            assert sorted(map(int, q.answer.split())) == list(range(1, q.n + 1))


def test_what_the_shipped_base_was_taught_is_what_it_was() -> None:
    digest = hashlib.sha256()
    for step in (0, 250, 700, 2599, 3000, 4099, 10**6 + 3):
        for slot in (0, 7):
            pixels, questions = pretrain.pretraining_sample(pretrain.Recipe(), step, slot)
            digest.update(pixels.tobytes() + "|".join(f"{q.text}#{q.completion}" for q in questions).encode())
            pixels, labels = pretrain.eye_sample(pretrain.Recipe(), step, slot)
            digest.update(pixels.tobytes() + "".join(f"{k}{labels[k].tolist()}" for k in sorted(labels)).encode())
    assert digest.hexdigest()[:16] == "ac079e1069b15522"


@pytest.mark.parametrize("kind", ["two-form", "one-form"])
def test_a_branch_goes_on_from_its_stem_with_frozen_eyes(kind: str, tmp_path) -> None:
    short = {"eye_steps": 1, "eye_pictures": 2, "steps": 1, "practice": 1, "pictures": 2, "questions": 1, "naming": 1}
    pretrain.pretrain(replace(STEM, **short), tmp_path / "stem")
    own = replace(pretrain.branch(3, kind, str(tmp_path / "stem" / "model")), practice=2, pictures=2, questions=1)
    rows = pretrain.pretrain(own, tmp_path / kind)
    assert len(rows) == 2
    before, after = (pretrain.load(tmp_path / name / "model").model.state_dict() for name in ("stem", kind))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved and not any("visual" in name for name in moved)
