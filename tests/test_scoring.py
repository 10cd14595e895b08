"""Scoring: log-probs equal to a gather by hand, and means that follow from the texts."""

import numpy as np
import pytest
import torch
from PIL import Image
from swapping import swap

from helpers.model import evaluate, processor, score
from helpers.model.generate import Sampling
from helpers.model.score import Judged
from helpers.world import answers, battery, boards, puzzles
from helpers.world.boards import Boards, Prompted, training_boards
from helpers.world.puzzles import PuzzleSpec
from helpers.world.questions import PriorSample, Question
from helpers.world.scenes import puzzle_scene

BLACK = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def loaded(tiny) -> tuple:
    return tiny.load()


def drawn(n: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))


def by_hand(model, processor, prompt: Prompted, completion: str) -> torch.Tensor:
    """Log-prob of each completion token and of the end token, through the stock processor and model."""
    content = [{"type": "image"}, {"type": "text", "text": prompt.text}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ask = lambda t: processor(text=[t], images=[[Image.fromarray(prompt.pixels)]], return_tensors="pt")  # noqa: E731
    inputs, given = ask(f"{text}{completion}<|im_end|>"), ask(text)["input_ids"].shape[1]
    assert "mm_token_type_ids" in inputs
    with torch.no_grad():
        logps = torch.log_softmax(model(**inputs).logits[0], -1)
    ids = inputs["input_ids"][0]
    return torch.stack([logps[t - 1, ids[t]] for t in range(given, len(ids))])


# --------------------------------------------------------------------------------------- log-probs


def test_completion_log_probs_equal_a_gather_by_hand(loaded: tuple) -> None:
    model, processor = loaded
    prompts = [Prompted(p, t) for p, t in zip(drawn(3), ("Read the sign.", "Is there a star?", "Why?"), strict=True)]
    texts = [["<answer>2 1 4 3</answer>", "no"], ["<think>sky</think><answer>yes</answer>"], ["a", "b", ""]]
    found = score.completion_logps(model, processor, prompts, texts, chunk=2)
    assert [len(row) for row in found] == [2, 1, 3]
    for row, prompt, completions in zip(found, prompts, texts, strict=True):
        for logps, completion in zip(row, completions, strict=True):
            assert torch.allclose(logps, by_hand(model, processor, prompt, completion), atol=1e-5)
    assert len(found[2][2]) == 1  # the end token alone


def test_log_probs_do_not_depend_on_the_chunk(loaded: tuple) -> None:
    model, processor = loaded
    prompts = [Prompted(p, "Read the sign.") for p in drawn(5)]
    texts = [["7", "<answer>7</answer>"]] * 5
    one, all_ = (score.completion_logps(model, processor, prompts, texts, chunk=c) for c in (1, 5))
    for a, b in zip(one, all_, strict=True):
        assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))


def test_token_log_probs_carry_gradients(loaded: tuple) -> None:
    model, processor = loaded
    packed, pictures = score.pack_completions(processor, [(Prompted(BLACK, "Why?"), ["a"])])
    logps = score.token_logps(model, packed, pictures)
    assert logps.requires_grad and (logps < 0).all()
    found = score.completion_logps(model, processor, [Prompted(BLACK, "Why?")], [["a"]])
    assert torch.allclose(found[0][0], logps.detach(), atol=1e-6)


# --------------------------------------------------------------------------------------- generation


def test_completions_are_the_decoded_rollouts_without_the_end_token(loaded: tuple) -> None:
    model, processor = loaded
    prompts = [Prompted(p, "Read the sign.") for p in drawn(5)]
    texts = score.complete(model, processor, prompts, Sampling(3, 1.0, 8, seed=1), chunk=2)
    assert [len(row) for row in texts] == [3] * 5
    assert not any("<|im_end|>" in text for row in texts for text in row)
    greedy = score.complete(model, processor, prompts)
    assert greedy == score.complete(model, processor, prompts, chunk=2)


def test_prompts_equal_the_chat_template(loaded: tuple) -> None:
    tokenizer = loaded[1].tokenizer
    found = score.prompt_ids(tokenizer, "Why?", (2, 3))
    assert found == [*processor.encode_prefix(tokenizer, 6), *processor.encode_question(tokenizer, "Why?")]


# ------------------------------------------------------------------------------------------ puzzles


def test_held_out_boards_are_cut_by_their_placements() -> None:
    spec = puzzles.PuzzleSpec(size=32)
    tests = boards.make_boards(spec, range(4), 9)
    for i, (board, placement) in enumerate(zip(tests.pixels, tests.placements, strict=True)):
        picture = puzzle_scene(9, i, 32).image
        assert np.array_equal(np.asarray(puzzles.make_board(picture, spec, placement)), board)
        assert tuple(placement) == puzzles.shuffle(spec, 9 * 10**7 + i) != (1, 2, 3, 4)
    assert [p.text for p in tests.prompted()] == [puzzles.prompt_text(spec)] * 4


def test_held_out_boards_are_fixed_and_never_trained_on() -> None:
    spec = puzzles.PuzzleSpec()
    first, longer = boards.held_out_boards(spec, 10), boards.held_out_boards(spec, 30)
    assert np.array_equal(first.pixels, longer.pixels[:10])
    assert np.array_equal(first.placements, longer.placements[:10])
    trained = {b.tobytes() for seed in range(3) for b in training_boards(spec, 40, seed).pixels}
    assert not trained & {b.tobytes() for b in longer.pixels}


def test_oblong_boards_are_possible() -> None:
    spec = puzzles.PuzzleSpec(rows=2, cols=3, size=96)
    tests = boards.make_boards(spec, range(2), 9)
    assert tests.pixels.shape == (2, 96, 96, 3) and sorted(tests.placements[0]) == [1, 2, 3, 4, 5, 6]


def test_puzzle_scores_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = Boards(PuzzleSpec(), np.zeros((4, 32, 32, 3), np.uint8), np.array([[2, 1, 4, 3]] * 4))
    texts = [["<answer>2 1 4 3</answer>"], ["<answer>2 1 3 4</answer>"], ["2 1 4 3"], ["<answer>1 1 1 1</answer>"]]
    swap(monkeypatch, score, "complete", lambda *_: texts)
    found = evaluate.score_puzzles(None, None, tests)
    assert found == {"exact": 0.25, "hit": (1 + 0.5) / 4, "format_failure": 0.5}


# ------------------------------------------------------------------------------------ prior battery


def question(answer: str) -> Question:
    return Question("lists", "Copy the list: 2 1 3.", answer, answer, "order", 3)


def stub(monkeypatch: pytest.MonkeyPatch, prefer: list[str]) -> list[list[list[str]]]:
    """Log-probs that prefer, for sample i, the completion with answer `prefer[i]`; returns what was scored."""
    seen: list[list[list[str]]] = []

    def judged(model, processor, prompts, candidates, **_):
        seen.append([list(row) for row in candidates])
        value = lambda text, liked: -1.0 if answers.extract(text) == liked else -2.0  # noqa: E731
        return [
            [Judged(torch.tensor([value(t, liked), -1.0]), True) for t in row]
            for row, liked in zip(candidates, prefer, strict=True)
        ]

    swap(monkeypatch, score, "judged", judged)
    return seen


def hits(samples: list[PriorSample]) -> list[bool]:
    return evaluate.answer_battery(None, None, samples, range(len(samples)))[1]


def test_likelihood_hits_where_the_gold_completion_is_the_most_probable(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [PriorSample(BLACK, question("2 1 3")) for _ in range(2)]
    wrong = [c for c in evaluate._candidates(samples[1].question, 1)[1:]]
    seen = stub(monkeypatch, ["2 1 3", answers.extract(wrong[-1])])
    assert hits(samples) == [True, False]
    assert [row[0] for row in seen[0]] == [samples[0].question.completion] * 2
    assert all(2 <= len(set(row)) == len(row) <= 4 for row in seen[0])


def test_sums_decide_not_means(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [PriorSample(BLACK, question("2 1 3"))]
    rows = [Judged(torch.tensor(v), True) for v in ([-0.6, -0.6], [-1.0], [-3.0], [-3.0])]
    swap(monkeypatch, score, "judged", lambda m, p, q, c, **_: [rows[: len(c[0])]])
    assert hits(samples) == [False]  # -1.2 < -1.0, though per token -0.6 > -1.0


def test_only_answers_that_are_not_sure_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gold completions that greedy decoding would write are taken as they are; the others are written out."""
    samples = [PriorSample(BLACK, Question("colour", f"what colour {i}?", "red", "star red", "word")) for i in range(3)]
    greedy = iter([True, False, True])
    swap(
        monkeypatch, score, "judged",
        lambda m, p, q, c, **_: [[Judged(torch.zeros(1), g)] * len(r) for r, g in zip(c, greedy, strict=True)],
    )  # fmt: skip
    asked: list[str] = []
    swap(monkeypatch, score, "complete", lambda m, p, q, *_: asked.extend(x.text for x in q) or [["no"]] * len(q))
    texts, _ = evaluate.answer_battery(None, None, samples, range(3))
    assert texts == [samples[0].question.completion, "no", samples[2].question.completion]
    assert asked == ["what colour 1?"]


def test_greedy_texts_do_not_depend_on_the_guesses(loaded: tuple) -> None:
    model, processor = loaded
    samples = [s for task in ("colour", "lists", "light") for s in battery.battery_samples(task, 4)]
    prompts = [Prompted(s.pixels, s.question.text) for s in samples]
    written = [row[0] for row in score.complete(model, processor, prompts)]
    wrong = [s.question.completion for s in samples]
    half = [w if i % 2 else g for i, (w, g) in enumerate(zip(written, wrong, strict=True))]
    for guesses in (written, wrong, half):
        assert score.greedy_texts(model, processor, prompts, guesses) == written


def test_what_greedy_decoding_writes_is_judged_greedy_and_nothing_else_is(puzzler) -> None:
    model, processor = puzzler.load()
    asked = boards.held_out_boards(PuzzleSpec(size=32), 6).prompted()
    written, longer = (
        [row[0] for row in score.complete(model, processor, asked, Sampling(1, 0.0, n))] for n in (40, 60)
    )
    ended = [i for i, (a, b) in enumerate(zip(written, longer, strict=True)) if a == b]
    rows = score.judged(model, processor, asked, [[t, t + "1", "<answer>1</answer>"] for t in written])
    assert ended and all(rows[i][0].greedy for i in ended)
    assert not any(row[k].greedy for row in rows for k in (1, 2))


def test_battery_scores_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = "Copy the list: 2 1 3."
    words = [Question("colour", f"{'very ' * i}what colour?", "red", "star red", "word") for i in range(4)]
    lists = [Question("lists", copied, "2 1 3", "2 1 3", "order", 3)] * 4
    tasks = {"colour": words, "lists": lists}
    answers = {"colour": ["red", "blue", "7", "red"], "lists": ["2 1 3", "1 2 3", "1 1 3", "2 1 3"]}
    asked: list[str] = []

    def complete(model, processor, prompts, *_):
        asked.extend(p.text for p in prompts)
        left = {copied: list(answers["lists"])} | {q.text: [a] for q, a in zip(words, answers["colour"], strict=True)}
        return [[f"<answer>{left[p.text].pop(0)}</answer>"] for p in prompts]

    samples = lambda task, n: tuple(PriorSample(BLACK, q) for q in tasks[task][:n])  # noqa: E731
    swap(monkeypatch, battery, "battery_samples", samples)
    swap(monkeypatch, score, "complete", complete)
    better = {"colour": iter([True, False, False, False]), "lists": iter([True, True, True, False])}

    def judged(model, processor, prompts, candidates, **_):
        """The first candidate wins where it should; none is what the model would write."""
        tasks_asked = ["lists" if p.text == copied else "colour" for p in prompts]
        first = [0.0 if next(better[t]) else -2.0 for t in tasks_asked]
        return [
            [Judged(torch.tensor([f]), False), *[Judged(torch.tensor([-1.0]), False)] * (len(row) - 1)]
            for f, row in zip(first, candidates, strict=True)
        ]

    swap(monkeypatch, score, "judged", judged)
    found = evaluate.score_battery(None, None, 4, ["lists", "colour"])
    assert sorted(asked) == sorted([copied] * 4 + [q.text for q in words])
    assert found["colour"] == {"score": 0.5, "format_failure": 0.25, "likelihood": 0.25}
    assert found["lists"] == {"score": 0.5, "format_failure": 0.25, "likelihood": 0.75}


def test_likelihood_chance_is_one_over_the_number_of_candidates() -> None:
    assert evaluate.likelihood_chance("presence") == 0.5
    assert evaluate.likelihood_chance("rank_size") == 0.25


def test_the_battery_is_scored_from_end_to_end(loaded: tuple) -> None:
    found = evaluate.score_battery(*loaded, 2)
    assert list(sorted(found)) == sorted(battery.battery_tasks())
    for result in found.values():
        assert set(result) == {"score", "format_failure", "likelihood"}
        assert set(result.values()) <= {0.0, 0.5, 1.0}


def test_a_tasks_scores_do_not_depend_on_the_other_tasks(loaded: tuple) -> None:
    together = evaluate.score_battery(*loaded, 4, ["colour", "lists"])
    for task in ("colour", "lists"):
        alone = evaluate.score_battery(*loaded, 4, [task])[task]
        for measure in ("score", "format_failure"):
            assert alone[measure] == together[task][measure]


@pytest.mark.parametrize(
    ("kind", "gold", "said", "share", "as_many"),
    [
        ("things", "red star, blue cross", "blue cross, red star", 1.0, True),
        ("things", "red star, blue cross", "red star, blue cross, red star", 1.0, False),
        ("things", "red star, red star", "red star, blue cross", 0.5, True),
        ("order", "2 1 4 3", "1 2 4 3", 0.5, True),
        ("order", "2 1 4 3", "2 1 4", 0.75, False),
        ("word", "star", "cross", 0.0, True),
        ("word", "star", "", 0.0, False),
    ],
)
def test_parts_of_an_answer_are_things_in_any_order_or_words_in_their_places(
    kind: str, gold: str, said: str, share: float, as_many: bool
) -> None:
    task = "caption" if kind == "things" else "rank_brightness"
    question = Question(task, "?", gold, "", kind, len(gold.split()))
    assert answers.score_parts(f"<answer>{said}</answer>", question) == (share, as_many)
    assert (answers.score_answer(f"<answer>{said}</answer>", question) == 1.0) == (share == 1.0 and as_many)
    assert answers.score_parts(said, question) == (0.0, False)
