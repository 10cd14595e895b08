"""How the shipped base model was made: pretraining on the prior battery, in its own voice. Never the puzzle.

`python -m helpers pretrain --help` rebuilds it from nothing, resumably; on two cores
`torchrun --nproc_per_node 2 -m helpers pretrain` takes the same steps faster.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from helpers.errors import UserError
from helpers.files import replacing, write_file
from helpers.model.build import Loaded, build_model, load, quiet_cpu, save
from helpers.model.forward import Model, Patches, patches_of, picture_features, scored_logits
from helpers.model.packing import Branch, Group, Packed, pack
from helpers.model.processor import build_processor, build_tokenizer, encode_prefix, encode_questions, encode_targets
from helpers.train.muon import Muon
from helpers.world import seeds
from helpers.world.easy_vqa import easy_vqa_question, question_kind, read_split
from helpers.world.forms import ask_for, write
from helpers.world.pictures import resized
from helpers.world.questions import EASY_VQA, Question, ask, with_instruction
from helpers.world.scenes import CELL_NAMES, cell_labels, draw_scene

Labels = dict[str, torch.Tensor]  # (N, cells) per question of the eyes
Batch = tuple[Packed, Patches]
Worker = tuple[int, int]  # rank, number of workers

# Shares of scenes and weights of tasks, phase by phase. What the eyes are trained on: mostly things of known shape.
EYE_SCENES = {"things": 0.28, "scatter": 0.24, "sizes": 0.14, "greys": 0.05, "sign": 0.17, "land": 0.12}
# Then the model learns to say what it sees, one thing first, before everything is asked.
NAMING_SCENES = {"things": 0.85, "land": 0.15}
NAMING_TASKS = {"caption": 3.0, "colour": 1.0, "shape": 1.0, "land": 1.0, "light": 0.5}
EASY_VQA_WEIGHT = 0.08
SCENE_WEIGHTS = {"things": 0.38, "scatter": 0.16, "sizes": 0.12, "greys": 0.06, "sign": 0.08, "land": 0.12}
TASK_WEIGHTS = {
    "colour": 2.0, "shape": 2.0, "grounding": 2.5, "presence": 2.5, "caption": 2.0, "count": 2.0,
    "count_quarters": 1.5, "rank_size": 2.0, "rank_brightness": 1.0, "rank_count": 1.5, "land": 1.5,
    "light": 0.6, "hill": 0.6, "reading": 4.0, "facts": 0.3, "lists": 0.5, "nonsense": 1.5,
}  # fmt: skip
# At last mostly what forms late: it needs more practice than what forms early, which must only be kept.
PRACTICE_EASY_VQA = 0.14
PRACTICE_SCENES = {
    "things": 0.24, "scatter": 0.2, "sizes": 0.06, "greys": 0.1, "sign": 0.14, "land": 0.04, "collage": 0.14,
}  # fmt: skip
SIDE, LARGE_SIDE, CELL = 64, 96, 16  # pixels; a cell is a token of the language model
# How often a question asks for a form, in words: a stem must know the phrases, a branch learns what they mean.
FORM_SHARES = {
    "stem": {"plain": 0.5, "think": 0.25, "direct": 0.25},
    "branch": {"plain": 0.3, "think": 0.2, "direct": 0.5},
}
PRACTICE_TASKS = {
    "colour": 0.7, "shape": 0.7, "grounding": 2.0, "presence": 2.0, "caption": 1.5, "count": 3.0,
    "count_quarters": 2.0, "rank_size": 2.0, "rank_brightness": 2.0, "rank_count": 2.0, "land": 1.0,
    "light": 0.3, "hill": 0.6, "reading": 4.0, "facts": 0.2, "lists": 0.4, "nonsense": 1.2,
}  # fmt: skip
# With two sizes and many wordings to learn besides, finding the named one among several things forms later still.
FORMED_SCENES = PRACTICE_SCENES | {"things": 0.5, "scatter": 0.1, "sizes": 0.12, "greys": 0.14}
FORMED_TASKS = PRACTICE_TASKS | {
    "colour": 5.0, "shape": 5.0, "grounding": 1.0, "presence": 1.0, "rank_brightness": 4.0,
}  # fmt: skip
# What a branch says of boards has to stay varied.
BRANCH_TASKS = FORMED_TASKS | {"nonsense": 4.0}
# Of easy-VQA questions with "not" four of five are answered by yes, of the others by no. Asked as they come they teach
# a base to go by the wording and not to look (measured: 68 of 72 of the rarer answers were wrong). So a branch is asked
# evenly what is there. What is not there takes a step more: asked evenly, a base looked and was right on 131 of 190.
BRANCH_EASY_VQA = 0.3
YES_WEIGHT = 5.0


@dataclass(frozen=True)
class Recipe:
    """Settings of one pretraining: `eye_steps` of the vision tower alone, then `steps` of the whole model.

    The eyes see `eye_pictures` pictures a step and name what each cell shows; then they are kept as they are,
    and a step asks `questions` questions about each of `pictures` pictures, for the first `naming` steps only
    what is on them. `practice` more steps ask most often what forms last. The rate starts anew in each phase.

    The rest is off for the shipped base. `large_share`: steps with pictures of 96 pixels; `long_weight`: how often
    lists and orders of up to nine numbers are asked for. `forms`: prompts ask for a form in some of many wordings, and
    everything is answered with a think ("stem", "one-form") or as asked ("two-form"). `start`: the folder of the stem
    from which a branch goes on, with its own `practice` steps alone. Both branches of a stem see the same pictures and
    prompts.
    """

    eye_steps: int = 1200
    eye_pictures: int = 64
    steps: int = 2600
    pictures: int = 20
    questions: int = 3
    naming: int = 300
    practice: int = 1500
    learning_rate: float = 4e-3
    warmup: int = 200
    teacher_share: float = 0.08
    seed: int = 0
    checkpoint_every: int = 200
    large_share: float = 0.0
    long_weight: float = 0.0
    forms: Literal["none", "stem", "two-form", "one-form"] = "none"
    start: str = ""


def stem(seed: int) -> Recipe:
    """The recipe of a stem: pictures of both sizes, orders of up to nine numbers, every wording, always a think."""
    return Recipe(seed=seed, large_share=1 / 3, long_weight=3.0, forms="stem")


def branch(seed: int, forms: Literal["two-form", "one-form"], start: str) -> Recipe:
    """The recipe of a branch of the stem of a seed, whose model lies in the folder `start`.

    Both branches take the same steps on the same pictures and prompts, which the stem has not seen. Where the two-form
    base then misses a bar (`measure.bars`), it is made again with half as many `practice` steps more, and so is its
    twin. One that misses a bar again is kept all the same: who made bases until one passes would choose among them.
    And one that lacks nothing but variety (distinct orders of nine tiles) is kept as it is: of the first three branches
    the one that practised longest had the least, so that more steps do not mend it. What a base misses is said where
    its marks are shown.
    """
    own = {"eye_steps": 0, "steps": 0, "naming": 0, "practice": 2000, "learning_rate": 3e-3, "warmup": 50}
    return replace(stem(seed + seeds.BRANCHES), forms=forms, start=start, **own)


def pretraining_sample(recipe: Recipe, step: int, slot: int) -> tuple[np.ndarray, list[Question]]:
    """Picture number `slot` of a step, (side, side, 3) uint8, and its instructed questions; fixed by its numbers."""
    rng = np.random.default_rng((seeds.PRETRAINING + recipe.seed, step, slot))
    # The teacher's long thinks come together in steps of their own, or every row would be padded to their length.
    teacher = np.random.default_rng((seeds.PRETRAINING + recipe.seed, step, 10**6)).random() < recipe.teacher_share
    naming = step < recipe.naming
    easy, scenes, tasks = EASY_VQA_WEIGHT, SCENE_WEIGHTS, TASK_WEIGHTS
    if naming:
        scenes, tasks = NAMING_SCENES, NAMING_TASKS
    elif recipe.steps <= step < recipe.steps + recipe.practice:
        easy, scenes, tasks = PRACTICE_EASY_VQA, PRACTICE_SCENES, PRACTICE_TASKS
        if recipe.forms != "none":
            scenes, tasks = FORMED_SCENES, FORMED_TASKS
        if recipe.start:
            easy, tasks = BRANCH_EASY_VQA, BRANCH_TASKS
    if recipe.long_weight and not naming:
        tasks = tasks | {"long": recipe.long_weight}
    side = side_at(recipe, step)
    if rng.random() < easy:
        pixels, questions = _easy_vqa_sample(rng, recipe.questions, evenly=bool(recipe.start))
        return resized(pixels, (side, side)), _in_forms(recipe, questions, (step, slot))
    # Finding the named one among several things forms late or never; with one thing on the picture it is easy.
    most = min(4, 1 + 4 * step // max(1, recipe.naming))
    scene = draw_scene(rng, _draw(rng, scenes), plain=bool(rng.random() < 0.4), side=side, most=most)
    questions: list[Question] = []
    while len(questions) < recipe.questions:
        if question := ask(_draw(rng, tasks), scene, rng):
            questions.append(with_instruction(question, rng, bool(teacher and not naming)))
    return scene.pixels, _in_forms(recipe, questions, (step, slot))


def side_at(recipe: Recipe, step: int) -> int:
    """Pixels per side of a step's pictures: one size in each step, because a batch has one."""
    if not recipe.large_share:
        return SIDE
    rng = np.random.default_rng((seeds.PRETRAINING + recipe.seed, step, 10**6 + 1))
    return LARGE_SIDE if rng.random() < recipe.large_share else SIDE


def _in_forms(recipe: Recipe, questions: list[Question], place: tuple[int, int]) -> list[Question]:
    """Questions that ask for forms, with the completions that the recipe's base shall write."""
    if recipe.forms == "none":
        return questions
    rng = np.random.default_rng((seeds.PRETRAINING + recipe.seed, *place, 2))
    shares, formed = FORM_SHARES["stem" if recipe.forms == "stem" else "branch"], []
    for question in questions:
        asked = _draw(rng, shares)
        full = question.teacher and question.think == question.teacher  # asked for full sentences already
        written = "direct" if recipe.forms == "two-form" and asked == "direct" and not full else "think"
        formed.append(write(question if full else ask_for(question, asked, rng), written))
    return formed


def eye_sample(recipe: Recipe, step: int, slot: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Picture number `slot` of a step of the eyes, (side, side, 3) uint8, and what its cells of 16 pixels show."""
    rng = np.random.default_rng((seeds.PRETRAINING + recipe.seed, step, slot, 1))
    side = side_at(recipe, step)
    grid = side // CELL
    if rng.random() < EASY_VQA_WEIGHT:
        positions = _positions_by_picture()
        pixels, question = easy_vqa_question("train", positions[int(rng.integers(len(positions)))][0])
        names = dict(zip(("easy colour", "easy shape"), question.think.split(), strict=False))
        labels = {k: np.full((grid, grid), EASY_VQA[k].index(v)) for k, v in names.items() if len(names) == 2}
        return resized(pixels, (side, side)), labels
    scene = draw_scene(rng, _draw(rng, EYE_SCENES), plain=bool(rng.random() < 0.4), side=side)
    return scene.pixels, cell_labels(scene, grid)


def eye_batch(recipe: Recipe, step: int, worker: Worker = (0, 1)) -> tuple[Patches, Labels]:
    """(patches, labels) of one step of the eyes; labels are (N, cells) per question, -100 where there is none."""
    samples = [eye_sample(recipe, step, slot) for slot in range(worker[0], recipe.eye_pictures, worker[1])]
    grid = side_at(recipe, step) // CELL
    nothing, labels = np.full((grid, grid), -100), {}
    for name in eye_names():
        labels[name] = torch.from_numpy(np.stack([known.get(name, nothing).flatten() for _, known in samples]))
    return _patches(samples), labels


def _patches(samples: Sequence[tuple[np.ndarray, object]]) -> Patches:
    return patches_of(torch.from_numpy(np.stack([pixels for pixels, _ in samples])))


def eye_names() -> dict[str, tuple[str, ...]]:
    """What the eyes can name, by question."""
    return CELL_NAMES | EASY_VQA


def new_heads(width: int, seed: int) -> torch.nn.ModuleDict:
    """One linear classifier per question of `eye_names` on top of the picture's tokens; thrown away afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.ModuleDict({name: torch.nn.Linear(width, len(v)) for name, v in eye_names().items()})


def eye_loss(model: Model, heads: torch.nn.ModuleDict, data: tuple[Patches, Labels]) -> tuple[torch.Tensor, int]:
    """(summed loss, pictures): for each question the mean cross-entropy over the cells where it makes sense."""
    patches, labels = data
    features = picture_features(model, patches)
    asked = {name: wanted.flatten() for name, wanted in labels.items() if (wanted >= 0).any()}
    losses = [cross_entropy(heads[name](features).flatten(0, 1), wanted) for name, wanted in asked.items()]
    return len(features) * torch.stack(losses).sum(), len(features)


def _draw(rng: np.random.Generator, weights: dict[str, float]) -> str:
    shares = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def _easy_vqa_sample(rng: np.random.Generator, n: int, evenly: bool) -> tuple[np.ndarray, list[Question]]:
    """A training picture of easy-VQA and `n` questions on it, as they come or yes as often as no (`YES_WEIGHT`)."""
    triples = read_split("train")[1]
    positions = _positions_by_picture()[triples[int(rng.integers(len(triples)))][2]]
    shares = None
    if evenly:
        weights = [YES_WEIGHT if question_kind(*triples[position][:2]) == "yes" else 1.0 for position in positions]
        shares = np.array(weights) / sum(weights)
    chosen = [easy_vqa_question("train", int(rng.choice(positions, p=shares))) for _ in range(n)]
    return chosen[0][0], [with_instruction(q, rng) for _, q in chosen]


@lru_cache(maxsize=1)
def _positions_by_picture() -> dict[int, list[int]]:
    positions: dict[int, list[int]] = {}
    for position, (_, _, picture) in enumerate(read_split("train")[1]):
        positions.setdefault(picture, []).append(position)
    return positions


def corpus_texts(n: int = 4000, recipe: Recipe | None = None) -> list[str]:
    """Texts of `n` pretraining questions with their completions: what the tokenizer is trained on."""
    recipe = recipe or Recipe()
    # The chat template's own words come often enough to become tokens.
    texts = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"] * n
    for slot in range(n // recipe.questions):
        for question in pretraining_sample(recipe, 10**6 + slot, slot)[1]:
            if question.task != "nonsense":  # its syllables would eat the vocabulary
                texts.append(f"{question.text}\n{question.think}\n{question.answer}")
    return texts + [f"{word}\n {word}" for words in EASY_VQA.values() for word in words] * (n // 50)


def batch(tokenizer: PreTrainedTokenizerBase, recipe: Recipe, step: int, worker: Worker = (0, 1)) -> Batch:
    """(packed batch, patches) of one pretraining step: a row per picture, a branch per question.

    `worker` = (rank, workers): each worker takes every so-many-th picture of the same step.
    """
    samples = [pretraining_sample(recipe, step, slot) for slot in range(worker[0], recipe.pictures, worker[1])]
    questions = [q for _, row in samples for q in row]
    asked = encode_questions(tokenizer, [q.text for q in questions])
    answered = encode_targets(tokenizer, [q.completion for q in questions])
    branches = iter([Branch([*a, *b], skip=len(a)) for a, b in zip(asked, answered, strict=True)])
    grid = side_at(recipe, step) // CELL
    prefix = encode_prefix(tokenizer, grid * grid)
    groups = [Group(prefix, slot, [next(branches) for _ in row]) for slot, (_, row) in enumerate(samples)]
    return pack(groups, tokenizer.convert_tokens_to_ids("<|image_pad|>"), (grid, grid)), _patches(samples)


def optimizers(model: Model, heads: torch.nn.ModuleDict, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the 2-D weights inside the blocks, AdamW for embeddings, norms, biases and the patch embedding."""
    matrices, others = [], list(heads.parameters())
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if inside else others).append(parameter)
    rate = recipe.learning_rate
    return [Muon(matrices, rate), torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True)]


def rate_at(recipe: Recipe, step: int) -> float:
    """Learning rate of a step, in each of the three phases: linear warm-up, then linear to zero from 50 % on."""
    done = step
    for steps in (recipe.eye_steps, recipe.steps, recipe.practice):
        if done < steps:
            break
        done -= steps
    rise = min(1.0, (done + 1) / min(recipe.warmup, steps / 4))
    return recipe.learning_rate * rise * min(1.0, (steps - done) / (0.5 * steps))


@dataclass(frozen=True)
class Learner:
    """A model in pretraining, with its processor, the eyes' classifiers and the optimisers."""

    recipe: Recipe
    model: Model
    processor: ProcessorMixin
    heads: torch.nn.ModuleDict
    optims: list[torch.optim.Optimizer]


def train_step(learner: Learner, step: int, worker: Worker = (0, 1)) -> tuple[float, float]:
    """One step; returns (mean loss in nats per scored token or per picture, gradient norm before clipping at 1)."""
    recipe, model = learner.recipe, learner.model
    # The eyes are frozen while the language model learns to read them: its first gradients would put them out.
    model.model.visual.requires_grad_(step < recipe.eye_steps)
    if step < recipe.eye_steps:
        loss, count = eye_loss(model, learner.heads, eye_batch(recipe, step, worker))
    else:
        loss, count = text_loss(model, batch(learner.processor.tokenizer, recipe, step - recipe.eye_steps, worker))
    loss.backward()
    trained = [p for p in (*model.parameters(), *learner.heads.parameters()) if p.grad is not None]
    mean = _average(trained, loss.item(), count)
    norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
    for optim in learner.optims:
        for group in optim.param_groups:
            group["lr"] = rate_at(recipe, step)
        optim.step()
        optim.zero_grad(set_to_none=True)
    return mean, float(norm)


def text_loss(model: Model, data: Batch) -> tuple[torch.Tensor, int]:
    """(summed cross-entropy in nats, scored tokens) of a packed batch."""
    packed, patches = data
    return cross_entropy(scored_logits(model, packed, patches), packed.target, reduction="sum"), len(packed.target)


def _average(trained: list[torch.Tensor], loss: float, count: int) -> float:
    """Turn summed gradients into the mean over what all workers scored; returns the mean loss."""
    # One message for all: gradients, loss and count, so that workers with more scored tokens weigh more.
    flat = torch.cat([p.grad.flatten() for p in trained] + [torch.tensor([loss, float(count)])])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flat)
    flat /= flat[-1].clone()  # a copy: the division changes the divisor too
    for parameter, part in zip(trained, flat[:-2].split([p.numel() for p in trained]), strict=True):
        parameter.grad.copy_(part.view_as(parameter))
    return float(flat[-2])


def _worker() -> Worker:
    """(rank, workers) as `torchrun` tells them; joins the group where there are several."""
    rank, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if workers > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return rank, workers


def new_learner(recipe: Recipe) -> Learner:
    """Everything a pretraining starts from, fixed by the recipe's seed."""
    model, processor = new_model(recipe)
    model.train()
    heads = new_heads(model.config.text_config.hidden_size, recipe.seed)
    return Learner(recipe, model, processor, heads, optimizers(model, heads, recipe))


def new_model(recipe: Recipe) -> Loaded:
    """A fresh model with a tokenizer trained on the corpus, or the stem that a branch goes on from."""
    if recipe.start:
        return load(recipe.start)
    # A base without forms has the tokenizer of the shipped one, whatever its seed.
    processor = build_processor(
        build_tokenizer(corpus_texts() if recipe.forms == "none" else corpus_texts(recipe=recipe))
    )
    return Loaded(build_model(processor.tokenizer, seed=recipe.seed), processor)


def pretrain(recipe: Recipe, folder: Path, minutes: float | None = None) -> list[dict[str, float]]:
    """Pretrain into `folder` (resuming what is there); stops early, resumably, after `minutes`.

    Returns one row per step taken: step, loss, grad_norm, seconds. The model is in `folder/model` when done.
    """
    quiet_cpu()
    worker = _worker()
    folder.mkdir(parents=True, exist_ok=True)
    learner, total = new_learner(recipe), recipe.eye_steps + recipe.steps + recipe.practice
    start, begin, rows = _resume(folder, learner), time.time(), []
    for step in range(start, total):
        tick = time.time()
        loss, norm = train_step(learner, step, worker)
        rows.append({"step": step, "loss": loss, "grad_norm": norm, "seconds": time.time() - tick})
        last = step + 1 == total or (minutes and time.time() - begin > 60 * minutes)
        if (last or (step + 1) % recipe.checkpoint_every == 0) and worker[0] == 0:
            # The checkpoint comes last: what a kill before it leaves undone, the resumed run does again.
            _log(folder, rows, step + 1)
            save(learner.model, learner.processor, folder / "model")
            _checkpoint(folder, learner, step + 1)
        if last:
            break
    return rows


def finished_recipe(folder: Path) -> dict[str, object]:
    """The recipe of the pretraining in `folder` where it is finished; empty where it is not."""
    path = folder / "state.pt"
    state = torch.load(path, weights_only=True) if path.exists() else {"recipe": {}, "step": 0}
    recipe = state["recipe"]
    return recipe if recipe and state["step"] == sum(recipe[p] for p in ("eye_steps", "steps", "practice")) else {}


def _log(folder: Path, rows: list[dict[str, float]], end: int) -> None:
    """Bring `training_log.csv` up to step `end`: a row per step."""
    path = folder / "training_log.csv"
    old = path.read_text().splitlines()[1:] if path.exists() else []
    new = [f"{int(r['step'])},{r['loss']:.5f},{r['grad_norm']:.4f},{r['seconds']:.3f}" for r in rows]
    lines = {int(line.split(",")[0]): line for line in [*old, *new]}  # a step that was done again counts once
    write_file(path, "\n".join(["step,loss,grad_norm,seconds", *(lines[k] for k in sorted(lines) if k < end), ""]))


def _checkpoint(folder: Path, learner: Learner, step: int) -> None:
    """Write the full state; a kill never leaves half a checkpoint."""
    state = {"recipe": asdict(learner.recipe), "step": step, "optims": [o.state_dict() for o in learner.optims]}
    state |= {"model": learner.model.state_dict(), "heads": learner.heads.state_dict()}
    with replacing(folder / "state.pt") as file:
        torch.save(state, file)


def _resume(folder: Path, learner: Learner) -> int:
    """Load the state in `folder` if there is one; returns the step to go on with."""
    path = folder / "state.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(learner.recipe):
        raise UserError(f"{path} belongs to another recipe; choose another folder or remove it.")
    learner.model.load_state_dict(state["model"])
    learner.heads.load_state_dict(state["heads"])
    for optim, saved in zip(learner.optims, state["optims"], strict=True):
        optim.load_state_dict(saved)
    return state["step"]
