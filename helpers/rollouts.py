"""Fast generation: one prefill per prompt, its completions decoded side by side in one row.

Used by RFT (as TRL's `rollout_func`) and by every evaluation. A row holds a prompt's key-value cache once; at
each step the row's K completions are K query tokens that see the prompt and their own past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from helpers.packing import Patches


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
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], patches: Patches | None, sampling: Sampling
) -> list[list[Rollout]]:
    """Completions of each prompt: a list per prompt of `sampling.completions` rollouts.

    `prompts` are token ids with image placeholders; `patches` hold one picture per prompt, or None for text.
    Special and image tokens are never sampled (one sampled placeholder breaks the next forward pass); log-probs
    are still those of the full distribution.
    """
    import torch

    with torch.inference_mode():
        decoder = _Decoder(model, tokenizer, sampling, len(prompts))
        decoder.prefill(prompts, patches)
        while decoder.running():
            decoder.step()
        return decoder.results()


class _Decoder:
    """State of one batch of rows while it is decoded; rows leave when all their completions have ended."""

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling, rows: int) -> None:
        import torch
        from transformers import DynamicCache

        self.model, self.sampling, self.eos = model, sampling, tokenizer.eos_token_id
        self.pad, self.image_id = tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|image_pad|>")
        shape = (rows, sampling.completions, sampling.max_tokens)
        self.here = here = {"device": model.lm_head.weight.device}
        self.tokens, self.logps = torch.full(shape, self.pad, **here), torch.zeros(shape, **here)
        self.ended = torch.zeros(shape[:2], dtype=torch.bool, **here)
        self.alive, self.time = torch.arange(rows, **here), 0
        self.cache = DynamicCache()
        self.banned = torch.tensor([i for i in tokenizer.all_special_ids if i != self.eos], **here)
        self.generator = None if sampling.seed is None else torch.Generator(**here).manual_seed(sampling.seed)

    def prefill(self, prompts: Sequence[Sequence[int]], patches: Patches | None) -> None:
        import torch

        from helpers.packing import Group, hidden_states, pack

        groups = [Group(p, None if patches is None else i) for i, p in enumerate(prompts)]
        packed = pack(groups, self.image_id, patches.grid if patches else (1, 1), self.pad)
        hidden = hidden_states(self.model, packed, patches, self.cache)
        ends = packed.ends.to(**self.here)
        last = hidden[self.alive, ends - 1]
        self.position, self.width = packed.next_position.to(**self.here), packed.ids.shape[1]
        seen = torch.arange(self.width, **self.here)[None, :] < ends[:, None]
        self.prompt_mask = torch.zeros(seen.shape, dtype=hidden.dtype, **self.here).masked_fill_(~seen, float("-inf"))
        self._choose(self.model.lm_head(last)[:, None].expand(-1, self.sampling.completions, -1))

    def running(self) -> bool:
        return self.time < self.sampling.max_tokens and len(self.alive) > 0

    def step(self) -> None:
        """Feed the last tokens, K per row, and choose the next ones."""
        import torch

        from helpers.packing import base_of

        k = self.sampling.completions
        own = torch.full((k, k), float("-inf"), dtype=self.prompt_mask.dtype, **self.here)
        own = own.fill_diagonal_(0.0).repeat(1, self.time)
        mask = torch.cat((self.prompt_mask[:, None].expand(-1, k, -1), own.expand(len(self.alive), -1, -1)), 2)
        inner = base_of(self.model)
        hidden = inner.language_model(
            inputs_embeds=inner.language_model.embed_tokens(self.tokens[self.alive, :, self.time - 1]),
            position_ids=(self.position + self.time - 1)[None, :, None].expand(3, -1, k),
            attention_mask={"full_attention": mask[:, None]},
            past_key_values=self.cache,
            use_cache=True,
        )[0]
        self._choose(self.model.lm_head(hidden))

    def _choose(self, logits: torch.Tensor) -> None:
        """Draw one token per completion from `logits` (rows, K, vocabulary), then drop rows that have ended."""
        import torch

        temperature = self.sampling.temperature
        logps = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
        allowed = logps.index_fill(-1, self.banned, float("-inf"))
        if temperature:  # Gumbel-max: one exponential draw per entry, exact and cheaper than multinomial
            noise = torch.empty_like(allowed).exponential_(generator=self.generator)
            allowed = allowed - noise.log_()
        token = allowed.argmax(-1)
        ended = self.ended[self.alive]
        self.tokens[self.alive, :, self.time] = token.masked_fill(ended, self.pad)
        self.logps[self.alive, :, self.time] = logps.gather(-1, token[..., None])[..., 0].masked_fill(ended, 0.0)
        self.ended[self.alive] = ended | (token == self.eos)
        self.time += 1
        self._drop_ended_rows()

    def _drop_ended_rows(self) -> None:
        """Shrink the batch once a quarter of its rows have ended (each shrink copies the cache)."""
        keep = ~self.ended[self.alive].all(1)
        if keep.sum() <= 0.75 * len(keep):
            rows = keep.nonzero()[:, 0]
            if len(rows):
                self.cache.batch_select_indices(rows)
            self.alive, self.position = self.alive[rows], self.position[rows]
            self.prompt_mask = self.prompt_mask[rows]

    def results(self) -> list[list[Rollout]]:
        """The completions, cut behind their end token."""
        found = []
        for tokens, logps in zip(self.tokens.tolist(), self.logps.tolist(), strict=True):
            row = []
            for t, p in zip(tokens, logps, strict=True):
                stop = t.index(self.eos) + 1 if self.eos in t else self.time
                row.append(Rollout(tuple(t[:stop]), tuple(p[:stop]), self.eos in t))
            found.append(row)
        return found
