"""Corpora: the same boards for every arm, right completions, and nothing kept that has none."""

import re

import numpy as np
import pytest
from PIL import Image
from swapping import swap

from helpers.errors import UserError
from helpers.model import build, score
from helpers.train import corpora, pretrain, rows
from helpers.world import answers, forms, puzzles
from helpers.world.boards import Boards, training_boards
from helpers.world.scenes import puzzle_scene, tile_lands

SPEC = puzzles.PuzzleSpec()


@pytest.fixture(scope="module")
def boards() -> Boards:
    return training_boards(SPEC, 24, 0)


def stub_samples(monkeypatch: pytest.MonkeyPatch, texts: list[list[str]]) -> list:
    calls: list = []

    def complete(model, processor, prompts, sampling, chunk):
        calls.append((prompts, sampling))
        return texts

    swap(monkeypatch, score, "complete", complete)
    return calls


def few(boards: Boards, n: int) -> Boards:
    return Boards(boards.spec, boards.pixels[:n], boards.placements[:n], boards.lights[:n], boards.lands[:n])


# ------------------------------------------------------------------------------------------- boards


def test_boards_show_the_tiles_their_placements_say(boards: Boards) -> None:
    assert len(boards) == 24 and boards.pixels.shape == (24, 64, 64, 3)
    for i in range(24):
        scene = puzzle_scene(100, i)
        board = puzzles.make_board(scene.image, SPEC, boards.placements[i])
        assert np.array_equal(np.asarray(board), boards.pixels[i])
        assert (boards.lights[i], boards.lands[i]) == (scene.light, scene.land)
        assert boards.placements[i].tolist() != [1, 2, 3, 4]


def test_boards_are_fixed_by_the_runs_seed(boards: Boards) -> None:
    longer, other = training_boards(SPEC, 30, 0), training_boards(SPEC, 24, 1)
    assert np.array_equal(longer.pixels[:24], boards.pixels)
    assert np.array_equal(longer.placements[:24], boards.placements)
    assert not np.array_equal(other.pixels, boards.pixels)
    assert not np.array_equal(other.placements, boards.placements)


def test_all_boards_share_the_puzzles_prompt(boards: Boards) -> None:
    assert {prompt.text for prompt in boards.prompted()} == {puzzles.prompt_text(SPEC)}


def test_boards_ask_for_a_form_in_wordings_of_their_own(boards: Boards) -> None:
    asking, plain = boards.asking("direct", 3), puzzles.prompt_text(SPEC)
    texts = [prompt.text for prompt in asking.prompted()]
    assert len(set(texts)) > 5 and all(plain in text for text in texts)
    assert {text.replace(plain, "").strip() for text in texts} <= set(forms.PHRASES["direct"])
    # a board's wording hangs on its number and the seed, and goes with it
    assert [p.text for p in training_boards(SPEC, 30, 0).asking("direct", 3).prompted()[:24]] == texts
    assert [p.text for p in asking.only([5, 2]).prompted()] == [texts[5], texts[2]]
    assert texts != [p.text for p in boards.asking("direct", 4).prompted()]
    assert boards.asking("plain", 3) == boards.asking("direct", 3).asking("plain", 3)
    assert (asking.written, boards.written, boards.asking("sentences", 3).written) == ("direct", "think", "think")


# -------------------------------------------------------------------------------------- completions


def test_answers_are_bare_and_right(boards: Boards) -> None:
    for text, placement in zip(corpora.answer_completions(boards), boards.placements.tolist(), strict=True):
        assert text == f"<answer>{placement[0]} {placement[1]} {placement[2]} {placement[3]}</answer>"
        assert answers.score(text, placement).exact == 1.0


def test_the_teachers_completions_are_right_and_well_formed(boards: Boards) -> None:
    for text, placement in zip(corpora.expert_completions(boards), boards.placements.tolist(), strict=True):
        score = answers.score(text, placement)
        assert (score.exact, score.format, score.reason) == (1.0, 1.0, "ok")


def test_the_teachers_reasons_are_true(boards: Boards) -> None:
    sentence = re.compile(r"The (\w+ \w+) shows (\w+) and is (bright|dark), so it belongs at (\d)\.")
    told = 0
    for i, text in enumerate(corpora.expert_completions(boards)):
        found = sentence.findall(text)
        assert [f[0] for f in found] == ["top left", "top right", "bottom left", "bottom right"]
        assert [int(f[3]) for f in found] == boards.placements[i].tolist()
        for _, land, look, place in found:
            side = "left" if place in "13" else "right"
            assert (look == "bright") == (side == boards.lights[i])
            if boards.lands[i]:
                assert land == boards.lands[i][int(place) - 1]
                told += 1
    assert told > 40


def test_every_word_of_the_teacher_occurs_in_pretraining(boards: Boards) -> None:
    recipe = pretrain.Recipe()
    wanted = {w for t in corpora.expert_completions(boards) for w in re.findall("[A-Za-z]+", t)}
    missing, slot = set(wanted), 0
    while missing and slot < 4000:
        for question in pretrain.pretraining_sample(recipe, 10**6 + slot, slot)[1]:
            missing -= set(re.findall("[A-Za-z]+", f"{question.text} {question.completion}"))
        slot += 1
    assert len(wanted) > 20 and not missing


@pytest.mark.parametrize(("rows", "cols"), [(2, 3), (3, 3), (1, 4)])
def test_the_teacher_explains_every_tile_of_any_grid_truly(rows: int, cols: int) -> None:
    spec = puzzles.PuzzleSpec(rows=rows, cols=cols, size=96)
    some = training_boards(spec, 6, 0)
    for i, (text, placement) in enumerate(zip(corpora.expert_completions(some), some.placements.tolist(), strict=True)):
        assert answers.score(text, placement).correct
        said = re.findall(
            r"The tile in row (\d) and column (\d) shows (\w+)( and is \w+)?, so it belongs at (\d).", text
        )
        assert len(said) == spec.tiles
        for (row, column, land, shade, place), true in zip(said, placement, strict=True):
            slot = (int(row) - 1) * cols + int(column) - 1
            assert (placement[slot], land) == (int(place), some.lands[i][true - 1]) and int(place) == true
            side = 2 * ((true - 1) % cols) + 1 - cols
            lit = "" if side == 0 else f" and is {'bright' if (side > 0) == (some.lights[i] == 'right') else 'dark'}"
            assert shade == lit


def test_the_land_of_a_tile_is_what_most_of_its_pixels_show() -> None:
    mask = np.array([[0, 0, 1], [0, 2, 1], [2, 2, 2], [2, 2, 0]])
    assert tile_lands(mask, 2, 3) == ("sky", "sky", "hills", "ground", "ground", "sky")
    assert tile_lands(mask[:2], 1, 1) == ("sky",)


@pytest.mark.parametrize("filler", ["empty", "fixed"])
def test_a_filler_says_the_same_of_every_board_and_the_answer_is_true(boards: Boards, filler: str) -> None:
    texts = corpora.filled_completions(boards, filler)
    assert {text.split("<answer>")[0] for text in texts} == {texts[0].split("<answer>")[0]}
    assert all(answers.score(t, p).correct for t, p in zip(texts, boards.placements.tolist(), strict=True))
    with pytest.raises(UserError, match="filler is 'long': choose empty or fixed"):
        corpora.filled_completions(boards, "long")


def test_the_first_correct_well_formed_rollout_is_kept(boards, monkeypatch: pytest.MonkeyPatch) -> None:
    some = few(boards, 4)
    right = [corpora.answer(p) for p in some.placements.tolist()]
    texts = [
        ["rubbish", f"<think>a</think>{right[0]}", f"<think>b</think>{right[0]}"],
        [right[1], "rubbish", "rubbish"],  # right, but without a think
        ["<think>a</think><answer>1 2 3 4</answer>"] * 3,
        [f"<think>c</think>{right[3]}", "", ""],
    ]
    calls = stub_samples(monkeypatch, texts)
    found = corpora.rollout_completions(build.Loaded("model", "processor"), some, seed=3, tries=3)
    assert found == [f"<think>a</think>{right[0]}", None, None, f"<think>c</think>{right[3]}"]
    prompts, sampling = calls[0]
    assert len(prompts) == 4 and prompts[0].text == some.prompted()[0].text
    assert (sampling.completions, sampling.temperature, sampling.seed) == (3, 1.0, 3)


def test_later_rounds_only_sample_the_unsolved_boards_again(boards, monkeypatch: pytest.MonkeyPatch) -> None:
    some = few(boards, 4)
    right = [f"<think>a</think>{corpora.answer(p)}" for p in some.placements.tolist()]
    wrong = "<think>a</think><answer>1 2 3 4</answer>"
    rounds = [[[wrong], [right[1]], [wrong], [wrong]], [[wrong], [wrong], [right[3]]], [[right[0]], [right[2]]]]
    sampled = []

    def complete(model, processor, prompts, sampling, chunk):
        sampled.append((prompts, sampling))
        return rounds[len(sampled) - 1]

    swap(monkeypatch, score, "complete", complete)
    found = corpora.rollout_completions(build.Loaded("model", "processor"), some, seed=3, tries=1, rounds=5)
    assert found == right
    asked = [[0, 1, 2, 3], [0, 2, 3], [0, 2]]  # after the third round nothing is left to do
    assert [len(prompts) for prompts, _ in sampled] == [len(numbers) for numbers in asked]
    for (prompts, _), numbers in zip(sampled, asked, strict=True):
        assert all(np.array_equal(p.pixels, some.pixels[i]) for p, i in zip(prompts, numbers, strict=True))
    assert len({sampling.seed for _, sampling in sampled}) == 3 and sampled[0][1].seed == 3


def test_a_think_of_ones_own_gets_the_true_answer(boards, monkeypatch: pytest.MonkeyPatch) -> None:
    some = few(boards, 4)
    right = [corpora.answer(p) for p in some.placements.tolist()]
    thought = "<think>sky, hills</think><answer>1 2 3 4</answer>"
    stub_samples(monkeypatch, [[thought], ["<answer>1 2 3 4</answer>"], ["<think>unfinished"], [thought]])
    found = corpora.self_completions(build.Loaded("model", "processor"), some, seed=0)
    assert found == [f"<think>sky, hills</think>{right[0]}", None, None, f"<think>sky, hills</think>{right[3]}"]
    assert answers.score(found[0], some.placements[0]).exact == 1.0


def test_a_real_models_rollouts_become_a_corpus(puzzler) -> None:
    writer = puzzler.load()
    some = training_boards(puzzles.PuzzleSpec(size=32), 48, 0)
    # It guesses one of two placements, which four of the boards have; most other completions are no answer at all.
    found = corpora.rollout_completions(writer, some, seed=0, tries=8, rounds=8)
    kept = [(t, p) for t, p in zip(found, some.placements.tolist(), strict=True) if t is not None]
    assert len(kept) > 0
    assert all(answers.score(t, p).exact == answers.score(t, p).format == 1.0 for t, p in kept)
    assert found == corpora.rollout_completions(writer, some, seed=0, tries=8, rounds=8)


# --------------------------------------------------------------------------------------------- rows


def test_where_the_answer_alone_is_asked_for_only_that_is_well_formed(boards, monkeypatch: pytest.MonkeyPatch) -> None:
    some = few(boards, 2).asking("direct", 0)
    right = [corpora.answer(p) for p in some.placements.tolist()]
    stub_samples(monkeypatch, [[f"<think>a</think>{right[0]}", right[0]], [f"<think>a</think>{right[1]}"] * 2])
    found = corpora.rollout_completions(build.Loaded("model", "processor"), some, seed=3, tries=2)
    assert found == [right[0], None]


def test_rows_to_learn_from_have_trls_columns(boards: Boards) -> None:
    row = rows.corpus_rows(boards.corpus("sft-answer", corpora.answer_completions(boards)))[3]
    assert row["prompt"] == [{"role": "user", "content": puzzles.prompt_text(SPEC)}]
    assert row["completion"] == [{"role": "assistant", "content": corpora.answer(boards.placements[3].tolist())}]
    (image,) = row["images"]
    assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), boards.pixels[3])


def test_rows_to_sample_for_have_what_rewards_need(boards: Boards) -> None:
    dataset = rows.board_rows(boards)
    assert len(dataset) == 24
    assert set(dataset[0]) == {"puzzle_id", "images", "prompt", "placement", "written"}
    row = dataset[3]
    assert row["written"] == "think" and rows.board_rows(boards.asking("direct", 0))[3]["written"] == "direct"
    assert row["puzzle_id"] == 3 and row["placement"] == boards.placements[3].tolist()
    assert np.array_equal(np.asarray(row["images"][0]), boards.pixels[3])


def test_boards_without_a_completion_are_left_out(boards: Boards) -> None:
    completions: list[str | None] = [None] * 24
    completions[5], completions[20] = "five", "twenty"
    dataset = rows.corpus_rows(boards.corpus("sft", completions))
    assert [row["completion"][0]["content"] for row in dataset] == ["five", "twenty"]
    assert np.array_equal(np.asarray(dataset[1]["images"][0]), boards.pixels[20])


def test_rows_are_made_when_read(boards: Boards, monkeypatch: pytest.MonkeyPatch) -> None:
    made, stock = [], Image.fromarray
    monkeypatch.setattr(Image, "fromarray", lambda pixels: made.append(1) or stock(pixels))
    dataset = rows.board_rows(boards)
    assert len(dataset) == 24 and not made
    dataset[2:4]
    assert len(made) == 2


def test_a_corpus_without_any_completion_is_refused(boards: Boards) -> None:
    with pytest.raises(UserError, match="No board of this corpus has a completion"):
        rows.corpus_rows(boards.corpus("sft", [None] * 24))
