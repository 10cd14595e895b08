"""One batched scorer for all: log-probs of completions, puzzles, the prior battery (by generation and likelihood)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from helpers import prior_tasks, puzzles

if TYPE_CHECKING:
    import torch

    from helpers.packing import Packed, Patches


@dataclass(frozen=True)
class Prompted:
    """A picture (H, W, 3) uint8 and the text asked about it."""

    pixels: np.ndarray
    text: str


def patches(processor: Any, pictures: Sequence[np.ndarray]) -> Patches:
    """Patches of equal-sized pictures, each (H, W, 3) uint8, with the settings of a model's processor.

    Pictures whose sides are no multiples of the model's unit are enlarged to the next one (bicubic).
    """
    import torch

    from helpers.models import image_settings
    from helpers.packing import patches_of

    settings = image_settings(processor.image_processor)
    height, width = (-(-side // settings.unit) * settings.unit for side in pictures[0].shape[:2])
    if (height, width) != pictures[0].shape[:2]:
        pictures = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in pictures]
    return patches_of(torch.from_numpy(np.stack(list(pictures))), settings)


def prompt_ids(tokenizer: Any, text: str, grid: tuple[int, int]) -> list[int]:
    """Token ids of a whole prompt: chat start, the picture's placeholders, the text, the assistant's turn."""
    return list(_known_prompt(tokenizer, text, grid[0] * grid[1]))


@lru_cache(maxsize=4096)  # a few prompts come again and again: boards share one, the battery asks the same each time
def _known_prompt(tokenizer: Any, text: str, image_tokens: int) -> tuple[int, ...]:
    from helpers.models import encode_prefix, encode_question

    return (*encode_prefix(tokenizer, image_tokens), *encode_question(tokenizer, text))


def complete(
    model: Any, processor: Any, prompts: Sequence[Prompted], sampling: Any = None, chunk: int = 64
) -> list[list[str]]:
    """Texts of the completions of each prompt (greedy, one per prompt, unless `sampling` says otherwise)."""
    from helpers.rollouts import Sampling, generate

    sampling = sampling or Sampling(temperature=0.0)
    tokenizer, texts = processor.tokenizer, []
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        pictures = patches(processor, [p.pixels for p in part])
        ids = [prompt_ids(tokenizer, p.text, pictures.grid) for p in part]
        for row in generate(model, tokenizer, ids, pictures, sampling):
            texts.append([tokenizer.decode(strip(tokenizer, r.ids)) for r in row])
    return texts


def strip(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Token ids without the end token."""
    return [i for i in ids if i != tokenizer.eos_token_id]


def completion_logps(
    model: Any,
    processor: Any,
    prompts: Sequence[Prompted],
    completions: Sequence[Sequence[str]],
    chunk: int = 64,
) -> list[list[torch.Tensor]]:
    """Per-token log-probs (nats, fp32, T = 1) of given completions, end token included: one (tokens,) per completion.

    `completions[i]` are the completions of `prompts[i]`; they share one packed row, so the prompt and the picture
    are passed once however many there are.
    """
    found = judged(model, processor, prompts, completions, chunk)
    return [[completion.logps for completion in row] for row in found]


@dataclass(frozen=True)
class Judged:
    """A given completion: its tokens' log-probs (tokens,), and whether greedy decoding would write just this."""

    logps: torch.Tensor
    greedy: bool


def judged(
    model: Any,
    processor: Any,
    prompts: Sequence[Prompted],
    completions: Sequence[Sequence[str]],
    chunk: int = 64,
) -> list[list[Judged]]:
    """What the model makes of given completions (end token included), in one teacher-forced pass.

    A completion is greedy where each of its tokens is the first choice among those that may be written, given the
    ones before it: then decoding token by token takes the same way.
    """
    import torch

    from helpers.rollouts import banned_tokens

    found: list[list[Judged]] = []
    for start in range(0, len(prompts), chunk):
        part = list(zip(prompts[start : start + chunk], completions[start : start + chunk], strict=True))
        packed, pictures = pack_completions(processor, part)
        with torch.inference_mode():
            logits, target = _logits_and_targets(model, packed, pictures)
            logps = -torch.nn.functional.cross_entropy(logits, target, reduction="none")
            banned = torch.tensor(banned_tokens(processor.tokenizer), device=logits.device)
            first = logits.index_fill_(-1, banned, float("-inf")).argmax(-1) == target
        counts = torch.bincount(packed.branch, minlength=sum(len(c) for _, c in part)).tolist()
        pieces = iter(zip(logps.split(counts), first.split(counts), strict=True))
        for _, texts in part:
            found.append([Judged(own, bool(same.all())) for own, same in (next(pieces) for _ in texts)])
    return found


def greedy_texts(model: Any, processor: Any, prompts: Sequence[Prompted], guesses: Sequence[str]) -> list[str]:
    """Greedy completions, one per prompt; the nearer the guesses, the faster.

    One pass checks all guesses; only prompts whose guess is not what the model would write are decoded.
    """
    found = [row[0] for row in judged(model, processor, prompts, [[guess] for guess in guesses])]
    return _filled(model, processor, prompts, [g if f.greedy else None for g, f in zip(guesses, found, strict=True)])


def _filled(model: Any, processor: Any, prompts: Sequence[Prompted], texts: Sequence[str | None]) -> list[str]:
    """`texts` with greedy completions in the place of None."""
    open_ = [prompt for prompt, text in zip(prompts, texts, strict=True) if text is None]
    written = iter(complete(model, processor, open_) if open_ else ())
    return [next(written)[0] if text is None else text for text in texts]


def pack_completions(processor: Any, part: Sequence[tuple[Prompted, Sequence[str]]]) -> tuple[Packed, Patches]:
    """Packed rows, one per prompt, with its completions (and their end tokens) as branches."""
    from helpers.models import encode_targets
    from helpers.packing import Branch, Group, pack

    tokenizer = processor.tokenizer
    pictures = patches(processor, [p.pixels for p, _ in part])
    targets = iter(encode_targets(tokenizer, [text for _, texts in part for text in texts]))
    groups = []
    for row, (prompt, texts) in enumerate(part):
        branches = [Branch(next(targets)[:-1]) for _ in texts]  # without the template's line break
        groups.append(Group(prompt_ids(tokenizer, prompt.text, pictures.grid), row, branches))
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return pack(groups, image_id, pictures.grid), pictures


def token_logps(model: Any, packed: Packed, pictures: Patches | None) -> torch.Tensor:
    """Log-probs (M,) of the scored tokens of a packed batch, in nats; differentiable."""
    import torch

    return -torch.nn.functional.cross_entropy(*_logits_and_targets(model, packed, pictures), reduction="none")


def _logits_and_targets(model: Any, packed: Packed, pictures: Patches | None) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 logits (M, vocabulary) and ids (M,) of the scored tokens."""
    from helpers.packing import scored_logits

    logits = scored_logits(model, packed, pictures).float()
    return logits, packed.target.to(logits.device)


@dataclass(frozen=True)
class TestBoards:
    """Held-out puzzles: boards (N, H, W, 3) uint8, their true placements, and the prompt all share."""

    boards: np.ndarray
    placements: tuple[tuple[int, ...], ...]
    text: str

    def prompted(self) -> list[Prompted]:
        """The boards with their prompt."""
        return [Prompted(board, self.text) for board in self.boards]


@lru_cache(maxsize=8)
def test_boards(spec: puzzles.PuzzleSpec, n: int, seed: int = 9) -> TestBoards:
    """`n` puzzles cut from scenes that no training puzzle uses (training scenes have other seeds)."""
    return make_boards(spec, range(n), seed)


def make_boards(spec: puzzles.PuzzleSpec, indices: Sequence[int], seed: int) -> TestBoards:
    """Puzzles number `indices` cut from drawn scenes of a seed."""
    from helpers.scenes import puzzle_scene

    width, height = spec.board_size
    pictures = np.stack([puzzle_scene(seed, i, max(width, height)).pixels[:height, :width] for i in indices])
    placements = tuple(puzzles.shuffle(spec, seed * 10**7 + i) for i in indices)
    boards = puzzles.make_boards(pictures, spec, np.array(placements))
    return TestBoards(boards, placements, puzzles.prompt_text(spec))


def score_puzzles(model: Any, processor: Any, tests: TestBoards, sampling: Any = None) -> dict[str, float]:
    """Mean exact match, hit rate and format failure over held-out boards (greedy unless `sampling` is given)."""
    texts = complete(model, processor, tests.prompted(), sampling)
    scores = [puzzles.score(t, p) for row, p in zip(texts, tests.placements, strict=True) for t in row]
    return {
        "exact": float(np.mean([s.exact for s in scores])),
        "hit": float(np.mean([s.hit for s in scores])),
        "format_failure": float(np.mean([s.reason != "ok" for s in scores])),
    }


@lru_cache(maxsize=64)
def battery_samples(task: str, n: int) -> tuple[prior_tasks.PriorSample, ...]:
    """The first `n` held-out samples of a task (drawn once per process)."""
    return tuple(prior_tasks.battery(task, n))


def score_battery(
    model: Any, processor: Any, n: int, tasks: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Score, format-failure rate and likelihood score of each prior task over its first `n` held-out samples.

    `score` is the mean over generated greedy answers; `likelihood` the share of samples whose gold completion has a
    higher log-prob (summed, nats) than each of up to three wrong completions of the same form: knowledge without
    the format. Its chance level is `likelihood_chance`. All tasks go through the model together: large batches of
    prompts of similar length keep a small model busy.
    """
    samples = [s for task in tasks or prior_tasks.battery_tasks() for s in battery_samples(task, n)]
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].question.text))
    samples = [samples[i] for i in order]
    texts, hits = answer_battery(model, processor, samples, [i % n for i in order])
    found: dict[str, list[tuple[float, bool, bool]]] = {}
    for sample, text, hit in zip(samples, texts, hits, strict=True):
        question = sample.question
        failed = prior_tasks.is_format_failure(text, question)
        found.setdefault(question.task, []).append((prior_tasks.score_answer(text, question), failed, hit))
    names = ("score", "format_failure", "likelihood")
    return {t: dict(zip(names, np.mean(rows, 0).tolist(), strict=True)) for t, rows in found.items()}


def answer_battery(
    model: Any, processor: Any, samples: Sequence[prior_tasks.PriorSample], numbers: Sequence[int]
) -> tuple[list[str], list[bool]]:
    """Greedy completion of each sample, and whether its gold completion is the most probable of its candidates.

    One pass scores the candidates and finds whose gold completion is the greedy one; only the rest is decoded.
    `numbers` fix the wrong candidates.
    """
    prompts = [Prompted(s.pixels, s.question.text) for s in samples]
    candidates = [_candidates(s.question, i) for s, i in zip(samples, numbers, strict=True)]
    found = judged(model, processor, prompts, candidates)
    sure = [row[0] if own[0].greedy else None for row, own in zip(candidates, found, strict=True)]
    hits = [max(range(len(row)), key=lambda k: float(row[k].logps.sum())) == 0 for row in found]
    return _filled(model, processor, prompts, sure), hits


@lru_cache(maxsize=8192)
def _candidates(question: prior_tasks.Question, index: int) -> list[str]:
    """The gold completion first, then the wrong ones (fixed by the sample's index)."""
    wrong = prior_tasks.alternatives(question, np.random.default_rng((index, 5)))
    return [question.completion, *(w.completion for w in wrong)]


def likelihood_chance(task: str) -> float:
    """Mean of one over the number of candidates."""
    samples = battery_samples(task, 40)
    return float(np.mean([1 / len(_candidates(s.question, i)) for i, s in enumerate(samples)]))
