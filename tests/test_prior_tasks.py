"""The prior battery: gold answers are right, wrong ones are not, and the puzzle is nowhere in pretraining."""

import ast
import re
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from helpers.errors import UserError
from helpers.train import pretrain
from helpers.world import easy_vqa, puzzles, questions, scenes
from helpers.world.answers import extract, is_format_failure, score_answer
from helpers.world.battery import alternatives, battery, chance
from helpers.world.boards import make_boards, training_boards
from helpers.world.questions import Question, ask, with_instruction
from helpers.world.scenes import draw_scene, puzzle_scene

TASKS = (*questions.TASKS, "easy_vqa")
HELPERS = Path(questions.__file__).parents[1]


@pytest.fixture(scope="module")
def samples() -> dict[str, list[questions.PriorSample]]:
    return {task: battery(task, 30) for task in TASKS}


@pytest.fixture(scope="module")
def pretraining() -> list[tuple[np.ndarray, list[Question]]]:
    """Pictures and questions from all stages of a pretraining, and from where the tokenizer learns."""
    recipe = pretrain.Recipe()
    steps = [*range(0, recipe.steps, recipe.steps // 70), *range(10**6, 10**6 + 60)]
    return [pretrain.pretraining_sample(recipe, step, slot) for step in steps for slot in (0, 5, 9)]


# ------------------------------------------------------------------------------- gold and wrong


@pytest.mark.parametrize("task", TASKS)
def test_every_gold_answer_scores_one_and_is_well_formed(task: str, samples: dict) -> None:
    assert len(samples[task]) == 30
    for sample in samples[task]:
        question = sample.question
        assert question.task == task
        assert score_answer(question.completion, question) == 1.0
        assert not is_format_failure(question.completion, question)
        assert extract(question.completion) == question.answer
        assert sample.pixels.shape == (64, 64, 3) and sample.pixels.dtype == np.uint8


@pytest.mark.parametrize("task", TASKS)
def test_alternatives_are_wrong_and_of_the_same_form(task: str, samples: dict) -> None:
    for i, sample in enumerate(samples[task]):
        question, found = sample.question, alternatives(sample.question, np.random.default_rng(i))
        assert 1 <= len(found) <= 3
        assert len({w.answer for w in found}) == len(found)
        for wrong in found:
            assert score_answer(wrong.completion, question) == 0.0
            assert not is_format_failure(wrong.completion, question)
            assert wrong.completion != question.completion
            assert len(wrong.answer.split()) == len(question.answer.split())


@pytest.mark.parametrize("task", TASKS)
def test_alternatives_are_fixed_by_their_generator(task: str, samples: dict) -> None:
    question = samples[task][0].question
    first, second = (alternatives(question, np.random.default_rng(5)) for _ in range(2))
    assert first == second


def test_a_think_that_states_the_answer_changes_with_it(samples: dict) -> None:
    for task in ("colour", "shape", "grounding", "count"):
        for sample in samples[task]:
            for wrong in alternatives(sample.question, np.random.default_rng(0)):
                assert wrong.think != sample.question.think, sample.question


def test_a_counts_think_adds_up_to_its_answer(samples: dict) -> None:
    for sample in samples["count"]:
        for question in (sample.question, *alternatives(sample.question, np.random.default_rng(0))):
            assert sum(map(int, question.think.split())) == int(question.answer)


def test_wrong_texts_score_zero(samples: dict) -> None:
    for task in TASKS:
        question = samples[task][0].question
        for text in ("", question.answer, "<answer></answer>", "<answer>zzz zzz</answer>"):
            assert score_answer(text, question) == 0.0
        assert score_answer(question.completion + question.completion, question) == 0.0
        assert is_format_failure(question.answer, question)


def test_extract_by_hand() -> None:
    assert extract("<think>a</think><answer> 2  1\n4 3 </answer>") == "2 1 4 3"
    assert extract("<answer>a</answer><answer>b</answer>") is None
    assert extract("<answer><answer>a</answer>") is None
    assert extract("<answer>a") is None
    assert extract("") is None


def test_captions_count_as_sets_of_things() -> None:
    question = Question("caption", "", "red star, blue cross", "2 things", "things")
    assert score_answer("<answer>blue cross, red star</answer>", question) == 1.0
    assert score_answer("<answer>blue cross</answer>", question) == 0.0
    assert score_answer("<answer>blue star, red cross</answer>", question) == 0.0


@pytest.mark.parametrize(
    ("kind", "n", "answer", "fails"),
    [
        ("yes or no", 1, "yes", False), ("yes or no", 1, "maybe", True),
        ("word", 1, "red", False), ("word", 1, "red star", True), ("word", 1, "7", True),
        ("number", 1, "42", False), ("number", 1, "red", True), ("number", 1, "4 2", True),
        ("cell", 2, "1 4", False), ("cell", 2, "1", True), ("cell", 2, "red 4", True),
        ("numbers", 3, "1 1 0", False), ("numbers", 3, "1 1", True),
        ("words", 2, "sky sky", False), ("words", 2, "sky", True), ("words", 2, "sky 3", True),
        ("order", 3, "2 3 1", False), ("order", 3, "2 2 1", True), ("order", 3, "0 1 2", True),
        ("things", 1, "red star, blue cross", False), ("things", 1, "red", True),
    ],
)  # fmt: skip
def test_format_failures_by_hand(kind: str, n: int, answer: str, fails: bool) -> None:
    question = Question("any", "", "gold", "", kind, n)
    assert is_format_failure(f"<answer>{answer}</answer>", question) is fails


# ------------------------------------------------------------------------------ answers are true


def test_answers_about_things_are_true_of_the_scene() -> None:
    rng = np.random.default_rng(0)
    for seed in range(80):
        scene = draw_scene(np.random.default_rng(seed), "things")
        colours, shapes = {i.shape: i.colour for i in scene.items}, {i.colour: i.shape for i in scene.items}
        question = ask("colour", scene, rng)
        assert colours[next(s for s in colours if s in question.text)] == question.answer
        question = ask("shape", scene, rng)
        assert shapes[next(c for c in shapes if c in question.text)] == question.answer
        question = ask("presence", scene, rng)
        words = set(re.findall("[a-z]+", question.text))
        assert (question.answer == "yes") == bool(words & {*colours, *shapes})
        question = ask("grounding", scene, rng)
        words = set(re.findall("[a-z]+", question.text))
        item = next(i for i in scene.items if i.shape in words or i.colour in words)
        assert question.answer == f"{int(item.y * 4) + 1} {int(item.x * 4) + 1}"


def test_counts_are_true_of_the_scene() -> None:
    rng = np.random.default_rng(0)
    asked = set()
    for seed in range(60):
        scene = draw_scene(np.random.default_rng(seed), "scatter")
        question = ask("count", scene, rng)
        name = next(n for n in ("things", *scenes.SHAPES) if n in question.text)
        asked.add(name)
        assert int(question.answer) == sum(name in ("things", i.shape) for i in scene.items)
        assert ask("count_quarters", scene, rng).answer == " ".join(map(str, scene.counts()))
    assert len(asked) == 7


def test_ranks_by_hand() -> None:
    assert questions._rank((0.1, 0.4, 0.2, 0.3)) == "4 1 3 2"
    assert questions._rank([9, 0, 3, 1]) == "1 4 2 3"


def test_ranks_are_those_of_the_scene() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        scene = draw_scene(np.random.default_rng(seed), "greys")
        ranks = [int(r) for r in ask("rank_brightness", scene, rng).answer.split()]
        assert [v for _, v in sorted(zip(ranks, scene.greys, strict=True))] == sorted(scene.greys, reverse=True)
        scene = draw_scene(np.random.default_rng(seed), "sizes")
        ranks = [int(r) for r in ask("rank_size", scene, rng).answer.split()]
        sizes = [i.size for i in scene.items]
        assert [v for _, v in sorted(zip(ranks, sizes, strict=True))] == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("move", "result"),
    [("Reverse", [2, 4, 1, 3]), ("Sort", [1, 2, 3, 4]), ("Swap first and last", [2, 1, 4, 3]),
     ("Move the first to the end", [1, 4, 2, 3]), ("Copy", [3, 1, 4, 2])],
)  # fmt: skip
def test_list_moves_by_hand(move: str, result: list[int]) -> None:
    text = next(t for t in questions.LIST_MOVES if t.startswith(move))
    assert questions.LIST_MOVES[text]([3, 1, 4, 2]) == result


def test_each_made_up_animal_has_one_food_and_one_home() -> None:
    scene, known = draw_scene(np.random.default_rng(0), "land"), {}
    for seed in range(300):
        question = ask("facts", scene, np.random.default_rng(seed))
        assert known.setdefault(question.think, question.answer) == question.answer
    assert len(known) == 2 * len(questions.NAMES)


def test_easy_vqa_answers_agree_with_the_facts_read_off_other_questions(samples: dict) -> None:
    for sample in samples["easy_vqa"]:
        if sample.question.kind == "word":
            assert sample.question.answer in sample.question.think.split()


def test_chance_levels() -> None:
    assert all(0 <= chance(task) <= 0.55 for task in (*questions.TASKS, "easy_vqa"))
    answers = [triple[1] for triple in easy_vqa.read_split("test")[1]]
    commonest = max(answers.count(a) for a in set(answers)) / len(answers)
    assert chance("easy_vqa") == pytest.approx(commonest, abs=1e-3)
    assert chance("rank_size") == 1 / len(list(permutations(range(4))))


@pytest.mark.parametrize("task", ["land", "count"])
def test_chance_is_the_share_of_the_commonest_answer_where_that_beats_guessing(task: str) -> None:
    answers = [sample.question.answer for sample in battery(task, 1500, seed=3)]
    commonest = max(answers.count(a) for a in set(answers)) / len(answers)
    # three standard errors of the sampled share are 0.04
    assert chance(task) == pytest.approx(commonest, abs=0.04)
    assert commonest > 2 / len(set(answers))


# ----------------------------------------------------------------------- instructions and voices


def test_an_instruction_names_the_length_and_keeps_the_gold(samples: dict) -> None:
    question = Question("lists", "Sort the list: 3 1 2.", "1 2 3", "3 1 2", "order", 3, "I sort.")
    texts = {with_instruction(question, np.random.default_rng(seed)).text for seed in range(400)}
    allowed = [i.format(n=3) for i in questions.INSTRUCTIONS["order"]]
    assert texts == {f"{question.text} {i}" for i in allowed} | {f"{i} {question.text}" for i in allowed}


def test_full_sentences_bring_the_teachers_voice() -> None:
    question = Question("light", "Which side?", "left", "right dark", "word", teacher="Let me look.")
    spoken = with_instruction(question, np.random.default_rng(0), full_sentences=True)
    assert spoken.think == "Let me look." and spoken.answer == "left"
    assert spoken.text.endswith(questions.FULL_SENTENCES)
    silent = with_instruction(Question("nonsense", "?", "1", "x", "number"), np.random.default_rng(0), True)
    assert silent.think == "x" and not silent.text.endswith(questions.FULL_SENTENCES)


def test_a_scene_that_does_not_suit_gets_no_question() -> None:
    rng, land = np.random.default_rng(0), draw_scene(np.random.default_rng(0), "land")
    for task in ("colour", "count", "rank_size", "rank_brightness", "reading"):
        assert ask(task, land, rng) is None


@pytest.mark.parametrize("call", [lambda: battery("colours", 2), lambda: ask("colours", None, None)])
def test_an_unknown_task_is_refused_with_the_known_names(call) -> None:
    with pytest.raises(UserError, match="no prior task 'colours'.*colour"):
        call()


# -------------------------------------------------------------------------------------- held out


@pytest.mark.parametrize("task", TASKS)
def test_the_battery_is_the_same_every_time(task: str, samples: dict) -> None:
    again = battery(task, 30)
    assert [s.question for s in again] == [s.question for s in samples[task]]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(again, samples[task], strict=True))
    if task != "easy_vqa":
        assert [s.question for s in battery(task, 10)] == [s.question for s in again[:10]]
    assert [s.question for s in battery(task, 30, seed=2)] != [s.question for s in again]


def test_no_battery_picture_occurs_in_pretraining(samples: dict, pretraining: list) -> None:
    held_out = {s.pixels.tobytes() for task in TASKS for s in samples[task]}
    assert len(held_out) > 400
    assert not held_out & {pixels.tobytes() for pixels, _ in pretraining}


def test_battery_and_pretraining_draw_from_different_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, stock = [], np.random.default_rng

    def listen(seed=None):
        seeds.append(tuple(np.atleast_1d(seed).tolist()) if seed is not None else None)
        return stock(seed)

    monkeypatch.setattr(np.random, "default_rng", listen)
    for task in TASKS:
        battery(task, 5)
    held_out = set(seeds)
    seeds.clear()
    for step in range(5):
        pretrain.pretraining_sample(pretrain.Recipe(), step, 1)
    assert held_out and seeds and None not in held_out | set(seeds)
    assert max(s[0] for s in held_out) < 100 <= min(s[0] for s in seeds)


# ------------------------------------------------------------------- never the puzzle (the proof)


def test_no_pretraining_text_contains_a_puzzle_prompt(pretraining: list, corpus: list[str]) -> None:
    texts = [q.text + " " + q.completion for _, questions in pretraining for q in questions] + corpus
    assert len(texts) > 700
    for rows in range(1, 6):
        for cols in range(1 if rows > 1 else 2, 6):
            asked = puzzles.prompt_text(puzzles.PuzzleSpec(rows=rows, cols=cols))
            question = asked.split("Use each")[0].strip()  # the instruction is shared on purpose
            assert len(question) > 20
            assert not any(question in text for text in texts)


def test_no_pretraining_text_speaks_of_tiles_or_mixing(pretraining: list, corpus: list[str]) -> None:
    words = {w for text in corpus for w in re.findall("[a-z]+", text.lower())}
    words |= {w for _, qs in pretraining for q in qs for w in re.findall("[a-z]+", q.text.lower())}
    asked = set(re.findall("[a-z]+", puzzles.prompt_text(puzzles.PuzzleSpec()).lower()))
    assert {"tiles", "mixed"} <= asked and not {"tile", "tiles", "mixed", "jigsaw", "puzzle"} & words
    sources = [
        ast.parse((HELPERS / f"{n}.py").read_text()) for n in ("world/questions", "world/easy_vqa", "world/scenes")
    ]
    literals = {n.value for s in sources for n in ast.walk(s) if isinstance(n, ast.Constant)}
    literals -= {ast.get_docstring(n, clean=False) for s in sources for n in ast.walk(s)
                 if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef)}  # fmt: skip
    spoken = " ".join(v.lower() for v in literals if isinstance(v, str))
    assert "answer with one word" in spoken
    assert not re.search(r"\btiles?\b|\bmixed\b|jigsaw|puzzle", spoken)


def seam(pixels: np.ndarray) -> float:
    """How much stronger the middle row and column break are than the breaks beside them."""
    p = pixels.astype(float)
    across = abs(np.diff(p, axis=0)).mean((1, 2)), abs(np.diff(p, axis=1)).mean((0, 2))
    return float(np.mean([line[31] / max(np.median(line), 1) for line in across]))


def test_pretraining_pictures_have_no_seams_and_boards_do(pretraining: list) -> None:
    boards = make_boards(puzzles.PuzzleSpec(), range(60), 9).pixels
    drawn = np.median([seam(b) for b in boards])
    learnt = np.array([seam(pixels) for pixels, _ in pretraining])
    assert drawn > 2.0
    assert np.median(learnt) < 1.25 and (learnt > drawn).mean() < 0.1


def test_no_board_and_no_picture_puzzles_are_cut_from_occurs_in_pretraining(pretraining: list) -> None:
    learnt = {pixels.tobytes() for pixels, _ in pretraining}
    spec = puzzles.PuzzleSpec()
    boards = [*make_boards(spec, range(60), 9).pixels, *training_boards(spec, 60, 0).pixels]
    pictures = [puzzle_scene(seed, i).pixels for seed in (9, 100, 101, 102) for i in range(40)]
    assert len(learnt) > 300
    assert not learnt & {p.tobytes() for p in [*boards, *pictures]}


@pytest.mark.parametrize("name", ["train/pretrain", "world/questions", "world/easy_vqa", "world/scenes"])
def test_what_makes_the_base_model_does_not_import_puzzles(name: str) -> None:
    imported = set()
    for node in ast.walk(ast.parse((HELPERS / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert imported and not any("puzzle" in module or "boards" in module or "corpora" in module for module in imported)


def test_drawing_a_pretraining_sample_never_loads_the_puzzle_module() -> None:
    code = (
        "import sys; from helpers.train import pretrain as base\n"
        "base.pretraining_sample(base.Recipe(), 3, 1); base.corpus_texts(4)\n"
        "print([m for m in sys.modules if m.endswith(('.puzzles', '.boards', '.corpora')) and 'helpers' in m])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HELPERS.parent)
    assert found.stdout.strip() == "[]", found.stderr


def test_a_new_task_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "TASKS", dict(questions.TASKS))

    @questions._task("sign", 1 / 10, on=("sign",))
    def _first_digit(scene: scenes.Scene, rng: np.random.Generator) -> questions.Question:
        return questions.Question("first_digit", "Which digit comes first?", scene.number[0], "sign", "number")

    assert list(questions.TASKS)[-1] == "first_digit" and questions.TASKS["first_digit"].chance == 0.1
    rng = np.random.default_rng(0)
    sign = scenes.draw_scene(rng, "sign")
    assert questions.ask("first_digit", sign, rng).answer == sign.number[0]
    assert questions.ask("first_digit", scenes.draw_scene(rng, "land"), rng) is None
