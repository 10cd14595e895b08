"""Log-probs of completions, and what a model writes for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from helpers.model.forward import Model, Patches, patches_of, scored_logits
from helpers.model.generate import Sampling, banned_tokens, generate
from helpers.model.packing import Branch, Group, Packed, pack
from helpers.model.processor import encode_prefix, encode_question, encode_targets, image_settings
from helpers.world.boards import Prompted

Prompts = Sequence[Prompted]
Texts = Sequence[Sequence[str]]  # completions of each of several prompts


def patches(processor: ProcessorMixin, pictures: Sequence[np.ndarray]) -> Patches:
    """Patches of equal-sized pictures, each (H, W, 3) uint8, with the settings of a model's processor.

    Pictures whose sides are no multiples of the model's unit are enlarged to the next one (bicubic).
    """
    settings = image_settings(processor.image_processor)
    height, width = (-(-side // settings.unit) * settings.unit for side in pictures[0].shape[:2])
    if (height, width) != pictures[0].shape[:2]:
        pictures = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in pictures]
    return patches_of(torch.from_numpy(np.stack(list(pictures))), settings)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str, grid: tuple[int, int]) -> list[int]:
    """Token ids of a whole prompt: chat start, the picture's placeholders, the text, the assistant's turn."""
    return list(_known_prompt(tokenizer, text, grid[0] * grid[1]))


@lru_cache(maxsize=4096)  # a few prompts come again and again: boards share one, the battery asks the same each time
def _known_prompt(tokenizer: PreTrainedTokenizerBase, text: str, image_tokens: int) -> tuple[int, ...]:
    return (*encode_prefix(tokenizer, image_tokens), *encode_question(tokenizer, text))


def complete(
    model: Model, processor: ProcessorMixin, prompts: Prompts, sampling: Sampling | None = None, chunk: int = 64
) -> list[list[str]]:
    """Texts of the completions of each prompt (greedy, one per prompt, unless `sampling` says otherwise)."""
    sampling = sampling or Sampling(temperature=0.0)
    tokenizer, texts = processor.tokenizer, []
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        pictures = patches(processor, [p.pixels for p in part])
        ids = [prompt_ids(tokenizer, p.text, pictures.grid) for p in part]
        for row in generate(model, tokenizer, ids, pictures, sampling):
            texts.append([tokenizer.decode(strip(tokenizer, r.ids)) for r in row])
    return texts


def strip(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Token ids without the end token."""
    return [i for i in ids if i != tokenizer.eos_token_id]


def completion_logps(
    model: Model, processor: ProcessorMixin, prompts: Prompts, completions: Texts, chunk: int = 64
) -> list[list[torch.Tensor]]:
    """Per-token log-probs (nats, fp32, T = 1) of given completions, end token included: one (tokens,) per completion.

    `completions[i]` are those of `prompts[i]`; they share one packed row, so prompt and picture are passed once.
    """
    return [[completion.logps for completion in row] for row in judged(model, processor, prompts, completions, chunk)]


@dataclass(frozen=True)
class Judged:
    """A given completion: its tokens' log-probs (tokens,), and whether greedy decoding would write just this."""

    logps: torch.Tensor
    greedy: bool


def judged(
    model: Model, processor: ProcessorMixin, prompts: Prompts, completions: Texts, chunk: int = 64
) -> list[list[Judged]]:
    """What the model makes of given completions (end token included), in one teacher-forced pass.

    A completion is greedy where each of its tokens is the first choice among those that may be written, given the
    ones before it: then decoding token by token takes the same way.
    """
    rows: list[list[Judged]] = []
    for start in range(0, len(prompts), chunk):
        part = list(zip(prompts[start : start + chunk], completions[start : start + chunk], strict=True))
        packed, pictures = pack_completions(processor, part)
        with torch.inference_mode():
            logits, target = logits_and_targets(model, packed, pictures)
            logps = -torch.nn.functional.cross_entropy(logits, target, reduction="none")
            banned = torch.tensor(banned_tokens(processor.tokenizer), device=logits.device)
            # In place, behind the log-probs: a vocabulary's worth of logits per token is the largest thing here.
            first = logits.index_fill_(-1, banned, float("-inf")).argmax(-1) == target
        # The tokens of all completions stand in one row, one completion behind the other; an empty one has none.
        counts = torch.bincount(packed.branch, minlength=sum(len(texts) for _, texts in part)).tolist()
        pieces = map(Judged, logps.split(counts), (bool(same.all()) for same in first.split(counts)))
        rows += [list(islice(pieces, len(texts))) for _, texts in part]
    return rows


def greedy_texts(model: Model, processor: ProcessorMixin, prompts: Prompts, guesses: Sequence[str]) -> list[str]:
    """Greedy completions, one per prompt; the nearer the guesses, the faster.

    One pass checks all guesses; only prompts whose guess is not what the model would write are decoded.
    """
    rows = judged(model, processor, prompts, [[guess] for guess in guesses])
    sure = [guess if own.greedy else None for guess, (own,) in zip(guesses, rows, strict=True)]
    return filled(model, processor, prompts, sure)


def filled(model: Model, processor: ProcessorMixin, prompts: Prompts, texts: Sequence[str | None]) -> list[str]:
    """`texts` with greedy completions in the place of None."""
    open_ = [prompt for prompt, text in zip(prompts, texts, strict=True) if text is None]
    written = iter(complete(model, processor, open_) if open_ else ())
    return [next(written)[0] if text is None else text for text in texts]


def pack_completions(
    processor: ProcessorMixin, part: Sequence[tuple[Prompted, Sequence[str]]], line_break: bool = False
) -> tuple[Packed, Patches]:
    """Packed rows, one per prompt, with its completions and their end tokens as branches.

    `line_break`: with the one that the chat template puts behind each, as it is trained; none is ever sampled.
    """
    tokenizer = processor.tokenizer
    pictures = patches(processor, [p.pixels for p, _ in part])
    targets = iter(encode_targets(tokenizer, [text for _, texts in part for text in texts]))
    end = None if line_break else -1
    groups = [
        Group(prompt_ids(tokenizer, prompt.text, pictures.grid), row, [Branch(next(targets)[:end]) for _ in texts])
        for row, (prompt, texts) in enumerate(part)
    ]
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return pack(groups, image_id, pictures.grid), pictures


def token_logps(model: Model, packed: Packed, pictures: Patches | None) -> torch.Tensor:
    """Log-probs (M,) of the scored tokens of a packed batch, in nats; differentiable."""
    return -torch.nn.functional.cross_entropy(*logits_and_targets(model, packed, pictures), reduction="none")


def logits_and_targets(model: Model, packed: Packed, pictures: Patches | None) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 logits (M, vocabulary) and ids (M,) of the scored tokens."""
    logits = scored_logits(model, packed, pictures).float()
    return logits, packed.target.to(logits.device)
