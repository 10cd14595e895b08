"""Fast generation: one prefill per prompt, its completions decoded side by side in one row.

Used by RFT (as TRL's `rollout_func`) and by every evaluation. A row holds a prompt's keys and values once; at each step
the row's K completions are K query tokens that see the prompt and their own past. Small models are bound by the number
of operations, so a step does as few as it can: room for all keys is made once, and so are masks and rotary positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from helpers.model.forward import Model, Patches, attention, base_of, hidden_states, rotary_of, run_layers
from helpers.model.packing import Group, pack

Ids = Sequence[Sequence[int]]  # token ids of several prompts


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: `completions` per prompt; temperature 0 is greedy; `seed` None uses torch's state."""

    completions: int = 1
    temperature: float = 1.0
    max_tokens: int = 128
    seed: int | None = None


@dataclass(frozen=True)
class Rollout:
    """One completion: token ids (the end token included, if it came), and each token's log-prob.

    `logps` are in nats, fp32, at the sampling temperature over the whole vocabulary (T = 1 where greedy).
    """

    ids: tuple[int, ...]
    logps: tuple[float, ...] = field(repr=False)
    finished: bool = True


def generate(
    model: Model, tokenizer: PreTrainedTokenizerBase, prompts: Ids, patches: Patches | None, sampling: Sampling
) -> list[list[Rollout]]:
    """Completions of each prompt: a list per prompt of `sampling.completions` rollouts.

    `prompts` are token ids with image placeholders; `patches` hold one picture per prompt, or None for text.
    Special and image tokens are never sampled (one sampled placeholder breaks the next forward pass); log-probs
    are still those of the full distribution.
    """
    with torch.inference_mode():
        decoder = _Decoder(model, tokenizer, sampling, len(prompts))
        decoder.prefill(prompts, patches)
        while decoder.running():
            decoder.step()
        return decoder.results()


def banned_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that are never written: all special tokens but the end token."""
    return [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]


class _Decoder:
    """State of one batch of rows while it is decoded; rows leave when all their completions have ended."""

    def __init__(self, model: Model, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, rows: int) -> None:
        self.model, self.sampling, self.eos = model, sampling, tokenizer.eos_token_id
        self.pad, self.image_id = tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|image_pad|>")
        shape = (rows, sampling.completions, sampling.max_tokens)
        self.here = here = {"device": model.lm_head.weight.device}
        self.tokens, self.logps = torch.full(shape, self.pad, **here), torch.zeros(shape, **here)
        self.ended = torch.zeros(shape[:2], dtype=torch.bool, **here)
        self.alive, self.time = torch.arange(rows, **here), 0
        self.keys: list[torch.Tensor] = []  # per layer (rows, heads, P + K * steps, head size)
        self.values: list[torch.Tensor] = []
        self.banned = torch.tensor(banned_tokens(tokenizer), **here)
        self.generator = None if sampling.seed is None else torch.Generator(**here).manual_seed(sampling.seed)

    def prefill(self, prompts: Ids, patches: Patches | None) -> None:
        """Read the prompts, keep their keys and values, and choose the first tokens."""
        groups = [Group(p, None if patches is None else i) for i, p in enumerate(prompts)]
        packed = pack(groups, self.image_id, patches.grid if patches else (1, 1))
        prefix, ends = packed.prefix.to(**self.here), packed.ends.to(**self.here)
        last = prefix.gather(1, ends[:, None] - 1)[:, 0]
        hidden = hidden_states(self.model, packed, patches, last, lambda _, q, k, v: self._keep(prefix, k, v))
        self.width = prefix.shape[1]
        self._prepare_steps(ends, packed.next_position.to(**self.here), hidden.dtype)
        self._choose(self.model.lm_head(hidden)[:, None].expand(-1, self.sampling.completions, -1))

    def _keep(self, prefix: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put one layer's prompt keys and values at the start of room for all steps."""
        width = prefix.shape[1]
        # The last token is chosen but never read, hence one step less.
        whole = width + self.sampling.completions * (self.sampling.max_tokens - 1)
        for rooms, new in ((self.keys, k), (self.values, v)):
            # heads before tokens: what one head reads lies together
            rooms.append(new.new_empty(len(prefix), new.shape[1], whole, new.shape[2]))
            rooms[-1][:, :, :width] = new[prefix].transpose(1, 2)

    def _prepare_steps(self, ends: torch.Tensor, position: torch.Tensor, dtype: torch.dtype) -> None:
        """Rotary positions (rows, steps, head size) and the mask (rows, 1, K, P + K * steps) of all steps to come."""
        k, steps = self.sampling.completions, self.sampling.max_tokens - 1
        positions = position[:, None] + torch.arange(steps, **self.here)
        turned = rotary_of(self.model, positions.flatten().expand(3, -1))
        self.cos, self.sin = (t.unflatten(0, positions.shape) for t in turned)
        seen = torch.arange(self.width, **self.here) < ends[:, None]
        # The cache holds step after step the K tokens of all completions; completion i sees every K-th of them.
        own = torch.eye(k, dtype=torch.bool, **self.here).repeat(1, steps)
        allowed = torch.cat((seen[:, None].expand(-1, k, -1), own.expand(len(ends), -1, -1)), 2)
        self.mask = torch.zeros(allowed.shape, dtype=dtype, **self.here).masked_fill_(~allowed, float("-inf"))[:, None]

    def running(self) -> bool:
        """Whether a completion has not ended and may go on."""
        return self.time < self.sampling.max_tokens and len(self.alive) > 0

    def step(self) -> None:
        """Feed the last tokens, K per row, and choose the next ones."""
        k, step = self.sampling.completions, self.time - 1
        start, stop = self.width + k * step, self.width + k * self.time
        mask, shape = self.mask[..., :stop], (len(self.alive), k)

        def attend(layer: int, q: torch.Tensor, new_k: torch.Tensor, new_v: torch.Tensor) -> torch.Tensor:
            # The new tokens are written first: a completion sees itself, and the mask hides its sisters.
            for rooms, new in ((self.keys, new_k), (self.values, new_v)):
                rooms[layer][:, :, start:stop] = new.unflatten(0, shape).transpose(1, 2)
            keys, values = (rooms[layer][:, :, :stop].transpose(1, 2) for rooms in (self.keys, self.values))
            return attention(q.unflatten(0, shape), keys, values, attn_mask=mask).flatten(0, 1)

        embedded = base_of(self.model).language_model.embed_tokens(self.tokens[self.alive, :, step].flatten())
        rotary = tuple(t[:, step].repeat_interleave(k, 0) for t in (self.cos, self.sin))
        hidden = run_layers(self.model, embedded, rotary, attend)
        self._choose(self.model.lm_head(hidden).unflatten(0, shape))

    def _choose(self, logits: torch.Tensor) -> None:
        """Choose one token per completion from `logits` (rows, K, vocabulary), then drop rows that have ended."""
        temperature = self.sampling.temperature
        logits = logits.float() if temperature in (0.0, 1.0) else logits.float() / temperature
        logps = torch.log_softmax(logits, -1)  # of all words: what is banned is only never chosen
        if temperature:
            token = self._draw(logps.exp().index_fill_(-1, self.banned, 0.0))
        else:
            token = logps.index_fill(-1, self.banned, float("-inf")).argmax(-1)
        # A completion that has ended stays with its row, but what it says from here on is padding.
        ended = self.ended[self.alive]
        self.tokens[self.alive, :, self.time] = token.masked_fill(ended, self.pad)
        self.logps[self.alive, :, self.time] = logps.gather(-1, token[..., None])[..., 0].masked_fill(ended, 0.0)
        self.ended[self.alive] = ended | (token == self.eos)
        self.time += 1
        self._drop_ended_rows()

    def _draw(self, weights: torch.Tensor) -> torch.Tensor:
        """Tokens (rows, K) drawn in proportion to `weights` (rows, K, vocabulary).

        One uniform number each, looked up in the cumulative sum: `multinomial` draws one for every word. Of weight 0
        is drawn never, because the number is below the sum and the first larger entry is taken.
        """
        total = weights.cumsum(-1)
        uniform = torch.rand(*weights.shape[:-1], 1, generator=self.generator, **self.here)
        # in fp32 the product may round up to the sum itself: the largest float below it stands for that case
        below = torch.minimum(uniform * total[..., -1:], total[..., -1:].nextafter(torch.zeros_like(total[..., -1:])))
        return torch.searchsorted(total, below, right=True)[..., 0]

    def _drop_ended_rows(self) -> None:
        """Shrink the batch once a quarter of its rows have ended (each shrink copies keys and values)."""
        keep = ~self.ended[self.alive].all(1)
        # Waiting rows cost a step's work for nothing, but dropping them one by one would copy the cache each time.
        if keep.sum() <= 0.75 * len(keep):
            rows = keep.nonzero()[:, 0]
            self.alive, self.mask = self.alive[rows], self.mask[rows]
            self.cos, self.sin = self.cos[rows], self.sin[rows]
            self.keys, self.values = ([room[rows] for room in rooms] for rooms in (self.keys, self.values))

    def results(self) -> list[list[Rollout]]:
        """The completions, cut behind their end token."""

        def cut(ids: list[int], logps: list[float]) -> Rollout:
            stop = ids.index(self.eos) + 1 if self.eos in ids else self.time
            return Rollout(tuple(ids[:stop]), tuple(logps[:stop]), self.eos in ids)

        return [list(map(cut, *row)) for row in zip(self.tokens.tolist(), self.logps.tolist(), strict=True)]
