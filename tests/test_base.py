"""The base model's pretraining: reproducible, resumable bit by bit, and never the puzzle (see test_prior_tasks)."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pytest
import torch
from swapping import swap

from helpers.__main__ import main as command_line
from helpers.errors import UserError
from helpers.model import build
from helpers.model.forward import picture_features
from helpers.model.processor import pixel_patches
from helpers.train import muon, pretrain
from helpers.train.pretrain import Recipe
from helpers.world.easy_vqa import question_kind, read_split
from helpers.world.questions import FULL_SENTENCES, TASKS, Question

SHORT = Recipe(eye_steps=2, eye_pictures=4, steps=3, practice=1, pictures=3, questions=2, naming=1,
               warmup=2, learning_rate=3e-3, checkpoint_every=2)  # fmt: skip
TOTAL = SHORT.eye_steps + SHORT.steps + SHORT.practice


@pytest.fixture
def small(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretrain a tiny model instead of the real one."""

    def new_model(recipe: Recipe) -> tuple:
        processor = tiny.load()[1]
        size = build.ModelSize(text_width=32, text_layers=2, heads=2, kv_heads=2, text_mlp=48, vision_width=32,
                                vision_layers=2, vision_mlp=48, mrope=(2, 3, 3))  # fmt: skip
        return build.build_model(processor.tokenizer, size, recipe.seed), processor

    swap(monkeypatch, pretrain, "new_model", new_model)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return build.load(folder / "model")[0].state_dict()


def read_log(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "training_log.csv")


def assert_same_end(straight: Path, parts: Path) -> None:
    """Equal weights to the bit, and the same log (but for the seconds) with every step once."""
    first, second = weights(straight), weights(parts)
    assert all(torch.equal(first[n], second[n]) for n in first)
    logs = [read_log(folder).drop(columns="seconds") for folder in (straight, parts)]
    assert logs[0]["step"].tolist() == list(range(TOTAL))
    pd.testing.assert_frame_equal(*logs)


# ---------------------------------------------------------------------------------------- samples


def test_samples_are_fixed_by_their_numbers() -> None:
    for step, slot in ((0, 0), (37, 5), (2690, 2)):
        first, second = (pretrain.pretraining_sample(Recipe(), step, slot) for _ in range(2))
        assert np.array_equal(first[0], second[0]) and first[1] == second[1]
        assert first[0].shape == (64, 64, 3) and first[0].dtype == np.uint8
    seen = {pretrain.pretraining_sample(Recipe(), step, slot)[0].tobytes() for step in range(5) for slot in range(5)}
    assert len(seen) > 20
    other = pretrain.pretraining_sample(dataclasses.replace(Recipe(), seed=1), 0, 0)
    assert not np.array_equal(other[0], pretrain.pretraining_sample(Recipe(), 0, 0)[0])


def test_naming_comes_first() -> None:
    recipe = Recipe(steps=100, naming=40, questions=2, teacher_share=1.0)

    def asked(*steps: int) -> list[list[Question]]:
        return [pretrain.pretraining_sample(recipe, step, slot)[1] for step in steps for slot in range(250)]

    naming, mixed = asked(0, 39), asked(40, 99)
    assert {len(row) for row in naming + mixed} == {2}
    assert {q.task for row in naming for q in row} == {*pretrain.NAMING_TASKS, "easy_vqa"}
    assert not any(q.text.endswith(FULL_SENTENCES) for row in naming for q in row)
    assert {q.task for row in mixed for q in row} == {*pretrain.TASK_WEIGHTS, "easy_vqa"}


def test_practice_asks_more_of_what_forms_late() -> None:
    recipe = Recipe(steps=100, practice=50, naming=10)

    def share(step: int) -> float:
        questions = [q for slot in range(250) for q in pretrain.pretraining_sample(recipe, step, slot)[1]]
        return np.mean([q.task in ("count", "count_quarters", "rank_count") for q in questions])

    assert share(149) > 1.2 * share(99)
    assert {q.task for slot in range(250) for q in pretrain.pretraining_sample(recipe, 100, slot)[1]} == {
        *pretrain.TASK_WEIGHTS, "easy_vqa"
    }  # fmt: skip


def test_a_branch_cannot_tell_what_is_there_by_the_wording() -> None:
    recipe = pretrain.branch(3, "two-form", "elsewhere/stem-3/model")
    drawn = [pretrain.pretraining_sample(recipe, step, slot)[1] for step in range(40) for slot in range(20)]
    # (a phrase that asks for a form may say "not" too, and be taken for the question's)
    kinds = Counter(question_kind(q.text, q.answer) for row in drawn for q in row if q.task == "easy_vqa")
    assert 0.4 < kinds["yes"] / (kinds["yes"] + kinds["no"]) < 0.6 and kinds["not: yes"] > 2 * kinds["not: no"]
    assert 0.1 < kinds["word"] / kinds.total() < 0.4
    as_they_come = Counter(question_kind(*triple[:2]) for triple in read_split("test")[1])
    assert as_they_come["not: yes"] > 4 * as_they_come["not: no"] and as_they_come["no"] > 4 * as_they_come["yes"]


def test_the_eyes_see_what_is_drawn() -> None:
    patches, labels = pretrain.eye_batch(Recipe(eye_pictures=300), 3)
    assert patches.values.shape == (300, 64, 192)
    assert set(labels) == set(pretrain.eye_names())
    for name, found in labels.items():
        assert found.shape == (300, 16)
        known = set(
            range(name in ("grey", "digit"), len(pretrain.eye_names()[name]))
        )  # where these are not is not asked
        shown = set(found.unique().tolist()) - {-100}
        assert shown <= known and len(shown) >= (4 if name == "easy colour" else len(known)), name
    halves = [pretrain.eye_batch(Recipe(eye_pictures=300), 3, (rank, 2)) for rank in range(2)]
    for name, found in labels.items():
        assert torch.equal(found[0::2], halves[0][1][name]) and torch.equal(found[1::2], halves[1][1][name])


def test_the_eyes_learn_first_and_are_then_left_alone(small: None, tmp_path: Path) -> None:
    learner = pretrain.new_learner(SHORT)
    eyes = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    pretrain.train_step(learner, 0)
    after = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    assert all(torch.equal(eyes[n], p) != (".visual." in n) for n, p in after.items() if "bias" not in n)
    pretrain.train_step(learner, SHORT.eye_steps)
    for name, weight in learner.model.named_parameters():
        assert ".visual." not in name or torch.equal(after[name], weight), name
    moved = [n for n, w in learner.model.named_parameters() if not torch.equal(after[n], w)]
    assert any("o_proj" in n for n in moved) and any("embed_tokens" in n for n in moved)


def test_the_eyes_loss_is_the_mean_over_the_labelled_cells(small: None) -> None:
    learner = pretrain.new_learner(SHORT)
    data = pretrain.eye_batch(SHORT, 0)
    loss, pictures = pretrain.eye_loss(learner.model, learner.heads, data)
    with torch.no_grad():
        features = picture_features(learner.model, data[0])
    expected = 0.0
    for name, wanted in data[1].items():
        known = wanted >= 0
        if known.any():
            logps = learner.heads[name](features).detach()[known].log_softmax(-1)
            expected -= float(logps.gather(1, wanted[known][:, None]).mean())
    assert pictures == 4 and float(loss.detach()) == pytest.approx(4 * expected, rel=1e-5)


def test_all_tasks_are_taught() -> None:
    recipe = Recipe()
    asked = {q.task for step in range(60) for slot in range(8)
             for q in pretrain.pretraining_sample(recipe, recipe.steps - 1 - step, slot)[1]}  # fmt: skip
    assert asked == {*TASKS, "nonsense", "easy_vqa"}


def test_the_teacher_speaks_in_steps_of_its_own() -> None:
    recipe = dataclasses.replace(Recipe(), teacher_share=0.3)
    voices = []
    for step in range(recipe.steps - 40, recipe.steps):  # behind the seeing phase, which has no teacher
        questions = [q for slot in range(4) for q in pretrain.pretraining_sample(recipe, step, slot)[1]]
        spoken = {q.text.endswith(FULL_SENTENCES) for q in questions if q.teacher and q.task != "easy_vqa"}
        assert len(spoken) <= 1
        voices += spoken
    assert 3 < sum(voices) < 25


def test_pictures_with_one_thing_come_first() -> None:
    recipe = Recipe()

    def things(step: int) -> set[int]:
        captions = [q for slot in range(150) for q in pretrain.pretraining_sample(recipe, step, slot)[1]
                    if q.task == "caption"]  # fmt: skip
        return {len(q.answer.split(", ")) for q in captions}

    assert things(0) == {1}
    assert things(recipe.steps - 1) == {1, 2, 3, 4}


@pytest.mark.parametrize("step", [0, 3])
def test_a_batch_scores_the_completions_only(tiny, step: int) -> None:
    processor = tiny.load()[1]
    packed, patches = pretrain.batch(processor.tokenizer, SHORT, step)
    questions = [q for slot in range(3) for q in pretrain.pretraining_sample(SHORT, step, slot)[1]]
    assert len(questions) == 6
    parts = packed.target.split(torch.bincount(packed.branch).tolist())
    assert [processor.tokenizer.decode(p) for p in parts] == [f"{q.completion}<|im_end|>\n" for q in questions]
    assert patches.values.shape == (3, 64, 192) and patches.grid == (4, 4)
    for row, slot in enumerate(range(3)):
        pixels = torch.from_numpy(pretrain.pretraining_sample(SHORT, step, slot)[0])[None]
        assert torch.equal(patches.values[row], pixel_patches(pixels))


def test_the_tokenizers_texts_hold_no_nonsense() -> None:
    texts = pretrain.corpus_texts(40)
    assert texts == pretrain.corpus_texts(40)
    assert any("Answer with" in t for t in texts) and "user\n" in texts


# -------------------------------------------------------------------------------------- optimiser


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = muon.orthogonalise(drawn)
    assert found.shape == drawn.shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5 and values.max() < 1.3
    left, _, right = torch.linalg.svd(drawn, full_matrices=False)
    nearest = left @ right
    cosine = (found * nearest).sum((1, 2)) / found.norm(dim=(1, 2)) / nearest.norm(dim=(1, 2))
    assert cosine.min() > 0.96


def test_orthogonalising_does_not_mind_scale_or_company() -> None:
    drawn = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
    found = muon.orthogonalise(drawn)
    assert torch.allclose(muon.orthogonalise(1000 * drawn), found, atol=1e-4)
    assert torch.allclose(muon.orthogonalise(drawn[1:]), found[1:], atol=1e-5)
    assert torch.isfinite(muon.orthogonalise(torch.zeros(1, 3, 3))).all()


def test_one_muon_step_by_hand() -> None:
    start = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    parameter = torch.nn.Parameter(start.clone())
    parameter.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    gradient = parameter.grad.clone()
    muon.Muon([parameter], 0.1).step()
    change = muon.orthogonalise(gradient[None])[0]  # the momentum's scale drops out
    expected = start * (1 - 0.01 * 0.1) - 0.2 * 2.0 * 0.1 * change
    assert torch.allclose(parameter, expected, atol=1e-5)


def test_every_weight_has_one_optimiser(tiny) -> None:
    model = tiny.load()[0]
    heads = pretrain.new_heads(model.config.text_config.hidden_size, 0)
    muon, adam = pretrain.optimizers(model, heads, SHORT)
    groups = [[p for g in o.param_groups for p in g["params"]] for o in (muon, adam)]
    assert {id(p) for p in groups[0]} | {id(p) for p in groups[1]} == {
        id(p) for p in (*model.parameters(), *heads.parameters())
    }
    assert not {id(p) for p in groups[0]} & {id(p) for p in groups[1]}
    assert all(p.ndim == 2 for p in groups[0]) and id(model.lm_head.weight) in {id(p) for p in groups[1]}


def test_the_rate_rises_stays_and_falls_in_each_phase() -> None:
    recipe = Recipe(eye_steps=200, steps=1000, practice=1200, warmup=100, learning_rate=1.0)
    rates = [pretrain.rate_at(recipe, s) for s in (0, 49, 100, 150, 199)]
    assert rates == pytest.approx([1 / 50, 1.0, 1.0, 0.5, 1 / 100])
    rates = [pretrain.rate_at(recipe, 200 + s) for s in (0, 49, 99, 400, 500, 750, 999)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 1.0, 0.5, 1 / 500])
    assert [pretrain.rate_at(recipe, 1200 + s) for s in (0, 99, 600)] == pytest.approx([0.01, 1.0, 1.0])


# --------------------------------------------------------------------------------------- resuming


def test_an_interrupted_pretraining_ends_bit_for_bit_the_same(small: None, tmp_path: Path) -> None:
    straight = pretrain.pretrain(SHORT, tmp_path / "straight")
    parts = pretrain.pretrain(SHORT, tmp_path / "parts", minutes=1e-9)
    assert [r["step"] for r in parts] == [0]
    torch.manual_seed(7)
    for _ in range(2):
        parts += pretrain.pretrain(SHORT, tmp_path / "parts", minutes=1e-9)
    parts += pretrain.pretrain(SHORT, tmp_path / "parts")
    assert [r["step"] for r in parts] == list(range(6))
    for name in ("loss", "grad_norm"):
        assert [r[name] for r in parts] == [r[name] for r in straight]
    assert_same_end(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.parametrize("moment", ["log", "model", "checkpoint"])
def test_a_kill_beside_any_write_costs_nothing(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed when the second of three checkpoints was due, then resumed."""
    place, name = {"log": (pretrain, "_log"), "model": (build, "save"), "checkpoint": (pretrain, "_checkpoint")}[moment]
    pretrain.pretrain(SHORT, tmp_path / "straight")
    stock, calls = getattr(place, name), []

    def killed(*args) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        stock(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        swap(patched, place, name, killed)
        pretrain.pretrain(SHORT, tmp_path / "parts")
    assert [r["step"] for r in pretrain.pretrain(SHORT, tmp_path / "parts")] == [2, 3, 4, 5]
    assert_same_end(tmp_path / "straight", tmp_path / "parts")


def test_a_finished_pretraining_is_left_alone(small: None, tmp_path: Path) -> None:
    pretrain.pretrain(SHORT, tmp_path)
    before = weights(tmp_path)
    assert pretrain.pretrain(SHORT, tmp_path) == []
    assert all(torch.equal(before[n], w) for n, w in weights(tmp_path).items())


def test_a_kill_while_writing_leaves_the_last_checkpoint(small: None, tmp_path: Path, monkeypatch) -> None:
    pretrain.pretrain(SHORT, tmp_path, minutes=1e-9)
    before = (tmp_path / "state.pt").read_bytes()

    def half(state: dict, file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(SHORT, tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_another_recipe_is_refused(small: None, tmp_path: Path) -> None:
    pretrain.pretrain(SHORT, tmp_path, minutes=1e-9)
    with pytest.raises(UserError, match="belongs to another recipe"):
        pretrain.pretrain(dataclasses.replace(SHORT, seed=5), tmp_path)


def test_the_log_has_a_row_per_step(small: None, tmp_path: Path) -> None:
    rows = pretrain.pretrain(SHORT, tmp_path)
    log = read_log(tmp_path)
    assert list(log.columns) == ["step", "loss", "grad_norm", "seconds"]
    assert log["step"].tolist() == [r["step"] for r in rows] == list(range(6))
    for name in ("loss", "grad_norm", "seconds"):
        assert log[name].tolist() == pytest.approx([r[name] for r in rows], abs=1e-3)
    assert np.isfinite(log.to_numpy()).all() and (log["seconds"] > 0).all()
    assert not list(tmp_path.glob("*.tmp"))


def test_pretraining_learns(small: None, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, eye_steps=0, steps=25, practice=0, checkpoint_every=25)
    losses = [r["loss"] for r in pretrain.pretrain(recipe, tmp_path)]
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


# ----------------------------------------------------------------------------------------- golden


def test_a_short_rebuild_follows_the_stored_trajectory(tmp_path: Path, golden: Callable, monkeypatch) -> None:
    """The real model and tokenizer, few pictures a step. Changes whenever what the base model is taught changes."""
    stock = pretrain.corpus_texts
    swap(monkeypatch, pretrain, "corpus_texts", lambda: stock(400))
    rows = pretrain.pretrain(
        dataclasses.replace(Recipe(), eye_steps=3, eye_pictures=6, steps=4, practice=2, pictures=3, naming=2, warmup=2),
        tmp_path,
    )
    golden("base", [r["loss"] for r in rows])


def test_the_command_line_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    swap(monkeypatch, pretrain, "pretrain", lambda *args: calls.append(args))
    words = ["--eye-steps", "2", "--steps", "3", "--practice", "4", "--minutes", "2.5"]
    assert command_line(["pretrain", "--folder", str(tmp_path), *words]) == 0
    assert calls == [(Recipe(eye_steps=2, steps=3, practice=4), tmp_path, 2.5)]
