"""Hostile input: completions, specs and records that no one should trust."""

import json
import random
from pathlib import Path

import pytest
from fuzz import TRUTH, check, hostile, second_opinion
from hypothesis import given, settings
from hypothesis import strategies as st
from test_records import SPEC, completion, finished

from helpers.errors import UserError
from helpers.study.records import RunStore, check_contents, verify
from helpers.study.schema import TABLES, read_table, to_arrow
from helpers.study.spec import RunSpec
from helpers.world.answers import extract, parse, score, score_answer
from helpers.world.questions import Question


def test_a_thousand_hostile_texts_earn_nothing_that_a_second_reader_does_not_give() -> None:
    generator, right = random.Random(1), 0
    for _ in range(1000):
        text = hostile(generator)
        check(text)
        right += score(text, TRUTH).hit > 0
    assert right > 50  # the texts are not all nonsense: the check could fail


@given(st.text(max_size=60))
def test_no_text_at_all_crashes_the_scorer(text: str) -> None:
    check(text)
    check(f"<think>{text}</think><answer>{text}</answer>")


@pytest.mark.parametrize(
    "text", ["<think>a</think><answer>2 1 4 3</answer>", "<answer> 2,1, 4 ,3\n</answer>", "x<answer>2 1 4 3</answer>"]
)
def test_the_second_reader_agrees_where_credit_is_due(text: str) -> None:
    assert second_opinion(text, TRUTH)[0] and score(text, TRUTH).exact == 1


HACKS = {
    "both answers": "<think>a</think><answer>2 1 4 3</answer><answer>3 1 4 2</answer>",
    "every placement": "<think>a</think><answer>1 2 3 4 2 1 4 3 3 4 1 2</answer>",
    "answer in the think": "<think><answer>2 1 4 3</answer>",
    "an echo of the format": "<think>...</think><answer>...</answer>",
    "the reward by name": "<think>reward: 1.0</think><answer>correct</answer>",
    "nested tags": "<answer><answer>2 1 4 3</answer></answer>",
    "other digits": "<answer>٢ ١ ٤ ٣</answer>",
    "a loop": "<answer>" + "2 1 4 3 " * 50 + "</answer>",
}


@pytest.mark.parametrize("kind", HACKS)
def test_what_tries_to_win_without_solving_earns_no_hits(kind: str) -> None:
    earned = score(HACKS[kind], TRUTH)
    assert (earned.hit, earned.exact) == (0, 0) and not earned.correct


COLOUR = Question("colour", "What colour?", "red", "word", "<think>a</think><answer>red</answer>")


UNCLEAR = (
    "<answer>red</answer></answer>", "<think><answer>red</answer>", "<answer>red",
    "<answer>blue</answer><answer>red</answer>", "<answer><answer>red</answer>",
)  # fmt: skip


@pytest.mark.parametrize("text", UNCLEAR)
def test_prior_tasks_read_answers_as_puzzles_do(text: str) -> None:
    assert score_answer(text, COLOUR) == 0 and extract(text) is None
    assert parse(text.replace("red", "2 1 4 3"), 4).placement is None
    assert score_answer("<think>a</think> <answer> red </answer>", COLOUR) == 1


# --- specs and records ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*json.loads(SPEC.to_json()), "new"]), json_values, max_size=6))
def test_a_spec_from_anywhere_is_a_spec_or_one_sentence(changes: dict) -> None:
    text = json.dumps(json.loads(SPEC.to_json()) | changes)
    try:
        spec = RunSpec.from_json(text)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert RunSpec.from_json(spec.to_json()) == spec


@given(st.dictionaries(st.sampled_from([*completion(0), "new"]), json_values, max_size=4))
def test_a_row_from_anywhere_fits_or_is_refused_in_one_sentence(changes: dict) -> None:
    row = {"run": "a", "seed": 0} | completion(0) | changes
    try:
        table = to_arrow("completions", [row])
    except UserError as error:
        assert str(error).startswith("completions, ")
    else:
        assert table.num_rows == 1


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), table=st.sampled_from(TABLES))
def test_one_flipped_bit_anywhere_in_a_table_is_found_and_the_run_is_made_anew(tmp_path_factory, place, bit, table):
    store = RunStore(tmp_path_factory.mktemp("runs"))
    path = finished(store).folder / f"{table}.parquet"
    flip(path, place, bit)
    (sentence,) = verify(store.root)
    assert f"{table}.parquet was changed after the run finished; run it again." in sentence
    with pytest.raises(UserError, match=r"parquet was changed after the run finished"):
        check_contents(path.parent)
    assert store.plan([SPEC]) == [SPEC]
    again = store.start(SPEC)
    assert "begins anew" in again.note and not path.exists()


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from(["DONE", "spec.json"]))
def test_one_flipped_bit_in_what_describes_a_run_is_found_unless_it_says_the_same(tmp_path_factory, place, bit, name):
    store = RunStore(tmp_path_factory.mktemp("runs"))
    path = finished(store).folder / name
    before = json.loads(path.read_bytes())
    flip(path, place, bit)
    try:
        same = json.loads(path.read_bytes()) == before  # white space may change
    except ValueError:
        same = False
    assert same != bool(verify(store.root))


def flip(path: Path, place: float, bit: int) -> None:
    """Flip a bit at a share of a file's length."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400))
def test_a_table_of_any_bytes_is_refused_in_one_sentence(tmp_path_factory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "metrics.parquet").write_bytes(data)
    with pytest.raises(UserError):
        read_table(folder, "metrics")
