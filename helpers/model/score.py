"""Log-probs of completions, and what a model writes for a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from helpers.model.flops import Tally
from helpers.model.forward import Model, Patches, base_of, patches_of, scored_logits
from helpers.model.generate import Sampling, banned_tokens, generate
from helpers.model.packing import Branch, Group, Packed, pack
from helpers.model.processor import encode_prefix, encode_question, encode_targets, image_settings
from helpers.progress import counted
from helpers.world.boards import Prompted

Prompts = Sequence[Prompted]
Written = str | Sequence[int]
"""A completion: its text, or the token ids that were sampled, whose text may encode to others."""
Texts = Sequence[Sequence[Written]]  # completions of each of several prompts
MOST_LOGITS = 2**29  # numbers, 2 GiB in fp32: with a vocabulary of 150,000 a batch's logits are the largest thing


def patches(processor: ProcessorMixin, pictures: Sequence[np.ndarray]) -> Patches:
    """Patches of equal-sized pictures, each (H, W, 3) uint8, as the model's own image processor makes them.

    Pictures that have to be resized go through that processor, so that there is one rule for sizes, its own.
    """
    settings, images = image_settings(processor.image_processor), processor.image_processor
    height, width = pictures[0].shape[:2]
    if settings.fits(width, height):
        return patches_of(torch.from_numpy(np.stack(list(pictures))), settings)
    batch = images(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
    _, rows, columns = batch["image_grid_thw"][0].tolist()
    return Patches(batch["pixel_values"].reshape(len(pictures), rows * columns, -1), rows, columns, settings.merge)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str, grid: tuple[int, int]) -> list[int]:
    """Token ids of a whole prompt: chat start, the picture's placeholders, the text, the assistant's turn."""
    return list(_known_prompt(tokenizer, text, grid[0] * grid[1]))


@lru_cache(maxsize=4096)  # a few prompts come again and again: boards share one, the battery asks the same each time
def _known_prompt(tokenizer: PreTrainedTokenizerBase, text: str, image_tokens: int) -> tuple[int, ...]:
    return (*encode_prefix(tokenizer, image_tokens), *encode_question(tokenizer, text))


@dataclass(frozen=True)
class Drawn:
    """A completion that a model wrote: its text without the end token, and the token ids with it, if it came.

    An opening that it was given stands in the text and not among the ids.
    """

    text: str
    ids: tuple[int, ...]


def draw(
    model: Model,
    processor: ProcessorMixin,
    prompts: Sequence[Prompted],
    sampling: Sampling | None = None,
    chunk: int = 64,
    tally: Tally | None = None,
) -> list[list[Drawn]]:
    """Completions of each prompt (greedy, one per prompt, unless `sampling` says otherwise); `tally` counts them."""
    sampling = sampling or Sampling(temperature=0.0)
    tokenizer, drawn = processor.tokenizer, []
    for start in counted(range(0, len(prompts), chunk), "batches of prompts"):
        part = prompts[start : start + chunk]
        pictures = patches(processor, [p.pixels for p in part])
        ids = [prompt_ids(tokenizer, p.text, pictures.grid) + _ids(tokenizer, p.opening) for p in part]
        rows = generate(model, tokenizer, ids, pictures, sampling)
        for prompt, row in zip(part, rows, strict=True):
            drawn.append([Drawn(prompt.opening + text_of(tokenizer, r.ids), r.ids) for r in row])
        if tally is not None:
            tally.drawn(model, ids, pictures, rows, sampling)
    return drawn


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """What token ids say, the end token left out."""
    return tokenizer.decode([i for i in ids if i != tokenizer.eos_token_id])


def complete(
    model: Model,
    processor: ProcessorMixin,
    prompts: Sequence[Prompted],
    sampling: Sampling | None = None,
    chunk: int = 64,
    tally: Tally | None = None,
) -> list[list[str]]:
    """Texts of the completions of each prompt, as `draw` draws them."""
    return [[one.text for one in row] for row in draw(model, processor, prompts, sampling, chunk, tally)]


def completion_logps(
    model: Model,
    processor: ProcessorMixin,
    prompts: Prompts,
    completions: Texts,
    chunk: int = 64,
    tally: Tally | None = None,
) -> list[list[torch.Tensor]]:
    """Per-token log-probs (nats, fp32, T = 1) of given completions, end token included: one (tokens,) per completion.

    `completions[i]` are those of `prompts[i]`; they share one packed row, so prompt and picture are passed once.
    """
    rows = judged(model, processor, prompts, completions, chunk, tally)
    return [[completion.logps for completion in row] for row in rows]


@dataclass(frozen=True)
class Judged:
    """A given completion: its tokens' log-probs (tokens,), and whether greedy decoding would write just this."""

    logps: torch.Tensor
    greedy: bool


def judged(
    model: Model,
    processor: ProcessorMixin,
    prompts: Prompts,
    completions: Texts,
    chunk: int = 64,
    tally: Tally | None = None,
) -> list[list[Judged]]:
    """What the model makes of given completions (end token included), in one teacher-forced pass.

    A completion is greedy where each of its tokens is the first choice among those that may be written, given the
    ones before it: then decoding token by token takes the same way. `tally` counts the pass.
    """
    rows: list[list[Judged]] = []
    targets = iter(_targets(processor.tokenizer, [c for row in completions for c in row], -1))
    encoded = [(prompt, list(islice(targets, len(row)))) for prompt, row in zip(prompts, completions, strict=True)]
    parts = list(_parts(encoded, chunk, base_of(model).config.text_config.vocab_size))
    for part in counted(parts, "batches of completions"):
        packed, pictures = pack_completions(processor, part)
        with torch.inference_mode():
            logits, target = logits_and_targets(model, packed, pictures)
            if tally is not None:
                tally.scored(model, packed, pictures)
            logps = -torch.nn.functional.cross_entropy(logits, target, reduction="none")
            banned = torch.tensor(banned_tokens(processor.tokenizer), device=logits.device)
            # In place, behind the log-probs: a vocabulary's worth of logits per token is the largest thing here.
            first = logits.index_fill_(-1, banned, float("-inf")).argmax(-1) == target
        # The tokens of all completions stand in one row, one completion behind the other; an empty one has none.
        counts = torch.bincount(packed.branch, minlength=sum(len(ids) for _, ids in part)).tolist()
        pieces = map(Judged, logps.split(counts), (bool(same.all()) for same in first.split(counts)))
        rows += [list(islice(pieces, len(ids))) for _, ids in part]
    return rows


def _targets(tokenizer: PreTrainedTokenizerBase, completions: Sequence[Written], end: int | None) -> list[list[int]]:
    """Token ids to score: of texts with their end token and what the template puts behind it, up to `end`."""
    # All texts in one call, because a call costs more than a text.
    encoded = iter(encode_targets(tokenizer, [c for c in completions if isinstance(c, str)]))
    return [next(encoded)[:end] if isinstance(c, str) else list(c) for c in completions]


def _parts(rows: list[tuple[Prompted, list[list[int]]]], chunk: int, vocabulary: int) -> Iterator[list]:
    """The rows in parts of at most `chunk`, and of no more than `MOST_LOGITS` numbers unless a single row has more."""
    part, tokens = [], 0
    for row in rows:
        own = sum(len(ids) for ids in row[1])
        if part and (len(part) == chunk or (tokens + own) * vocabulary > MOST_LOGITS):
            yield part
            part, tokens = [], 0
        part, tokens = [*part, row], tokens + own
    if part:
        yield part


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
    processor: ProcessorMixin, part: Sequence[tuple[Prompted, Sequence[Written]]], line_break: bool = False
) -> tuple[Packed, Patches]:
    """Packed rows, one per prompt, with its completions as branches: texts with their end tokens, ids as they are.

    `line_break`: texts with the one that the chat template puts behind each, as it is trained; none is ever sampled.
    """
    tokenizer = processor.tokenizer
    pictures = patches(processor, [p.pixels for p, _ in part])
    targets = iter(_targets(tokenizer, [c for _, row in part for c in row], None if line_break else -1))
    groups = [
        Group(prompt_ids(tokenizer, prompt.text, pictures.grid), row, [Branch(next(targets)) for _ in written])
        for row, (prompt, written) in enumerate(part)
    ]
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return pack(groups, image_id, pictures.grid), pictures


def stock_logps(
    model: Model,
    processor: ProcessorMixin,
    prompts: Prompts,
    completions: Texts,
    temperature: float = 1.0,
) -> list[list[torch.Tensor]]:
    """`completion_logps` by the model's own forward pass, one completion at a time: for where packing cannot be."""
    return [
        [_stock_logps(model, processor, prompt, ids, temperature) for ids in _targets(processor.tokenizer, row, -1)]
        for prompt, row in zip(prompts, completions, strict=True)
    ]


def _stock_logps(
    model: Model, processor: ProcessorMixin, prompt: Prompted, ids: list[int], temperature: float
) -> torch.Tensor:
    pictures = patches(processor, [prompt.pixels])
    start = prompt_ids(processor.tokenizer, prompt.text, pictures.grid)
    tokens = torch.tensor([[*start, *ids]], device=model.device)
    grid = torch.tensor([[1, pictures.rows, pictures.columns]], device=model.device)
    values = pictures.values[0].to(model.device, model.dtype)
    # 1 marks a picture's token, whose places count in two directions.
    kinds = (tokens == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    given = {"input_ids": tokens, "pixel_values": values, "image_grid_thw": grid, "mm_token_type_ids": kinds}
    with torch.inference_mode():
        logits = model(**given, use_cache=False).logits[0, len(start) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(1, tokens[0, len(start) :, None])[:, 0]


def token_logps(model: Model, packed: Packed, pictures: Patches | None) -> torch.Tensor:
    """Log-probs (M,) of the scored tokens of a packed batch, in nats; differentiable."""
    return -torch.nn.functional.cross_entropy(*logits_and_targets(model, packed, pictures), reduction="none")


def logits_and_targets(model: Model, packed: Packed, pictures: Patches | None) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 logits (M, vocabulary) and ids (M,) of the scored tokens."""
    logits = scored_logits(model, packed, pictures).float()
    return logits, packed.target.to(logits.device)
