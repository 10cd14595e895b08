"""What passes cost, counted by formula: FLOPs, a multiplication with its addition as 2, of matrix products only.

Counted is what `forward` and `generate` do: linear layers on every token of the stream (what follows the last attention
only where a result is wanted), attention over whole padded rows and not just over what a mask leaves, each picture once
and the head where a token is scored. The way back costs each product once more for its weight, where that is trained,
and once for its input, where that takes a gradient: twice the forward pass (arXiv 2001.08361, 2.1). Left out are
norms, rotary turns, softmax, the optimiser, and that fused attention computes its scores anew on the way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from helpers.model.forward import Model, Patches, base_of
from helpers.model.generate import Ids, Rollout, Sampling
from helpers.model.packing import Packed, shared_start


@dataclass(frozen=True)
class Work:
    """FLOPs of a pass, and those of its gradient on the way back."""

    forward: int = 0
    back: int = 0

    def __add__(self, other: Work) -> Work:
        """Both passes together."""
        return Work(self.forward + other.forward, self.back + other.back)


@dataclass(frozen=True)
class Stream:
    """What a pass of the language model's layers is given.

    `tokens` go through the layers, for `pairs` of a query and a key scores are computed, and `wanted` tokens go on
    behind the last attention and into the head.
    """

    tokens: int
    pairs: int
    wanted: int


def packed_work(model: Model, packed: Packed, patches: Patches | None) -> Work:
    """Work of `forward.scored_logits`; the way back as far as the model's weights are to be trained."""
    rows, width = packed.rows.shape
    (prefixes, before), scored = packed.prefix.shape, len(packed.source.unique())
    stream = Stream(len(packed.ids), prefixes * before**2 + rows * width * (before + width), scored)
    return _picture_work(model, patches) + _language_work(model, stream)


def generation_flops(
    model: Model, prompts: Ids, patches: Patches | None, rollouts: Sequence[Sequence[Rollout]], most: int
) -> int:
    """FLOPs of `generate.generate` that wrote `rollouts` behind `prompts`, with at most `most` tokens each.

    How many rows each step had follows from the completions' lengths: a row is decoded until all its completions have
    ended, and somewhat longer, because rows leave together.
    """
    rows, each, width = len(prompts), len(rollouts[0]), max(map(len, prompts))
    twice = (rows - 1) * shared_start(prompts, base_of(model).config.image_token_id)
    alive = list(_rows_decoded(rollouts, most))
    fed = each * sum(alive)
    pairs = sum(n * each * (width + each * step) for step, n in enumerate(alive, 1))
    stream = Stream(sum(map(len, prompts)) - twice + fed, rows * width**2 + pairs, rows + fed)
    return (_picture_work(model, patches) + _language_work(model, stream)).forward


def _rows_decoded(rollouts: Sequence[Sequence[Rollout]], most: int) -> Iterator[int]:
    """How many rows are fed at each step of decoding, as `generate` drops them: once a quarter of them has ended."""
    ends = [max(len(r.ids) for r in row) if all(r.finished for r in row) else most + 1 for row in rollouts]
    for step in range(1, most):
        going = [end for end in ends if end > step]
        ends = going if len(going) <= 0.75 * len(ends) else ends
        if not ends:
            return
        yield len(ends)


def _language_work(model: Model, stream: Stream) -> Work:
    """The language model's layers and the head."""
    inner = base_of(model)
    language, first = inner.language_model, inner.language_model.layers[0]
    trained = _trained(model)
    # Nothing before the first layer is trained where both embeddings and tower are frozen, as with LoRA.
    taken = language.embed_tokens.weight.requires_grad or _trained(inner.visual)
    work = Work()
    for number, layer in enumerate(language.layers):
        own, mlp = layer.self_attn, layer.mlp
        behind = stream.wanted if number == len(language.layers) - 1 else stream.tokens
        for part in (own.q_proj, own.k_proj, own.v_proj):
            work += _linear(part, stream.tokens, taken if number == 0 else trained)
        work += _attention(stream.pairs, own.o_proj.in_features, trained)
        for part in (own.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj):
            work += _linear(part, behind, trained)
    return _anew(first, work) + _linear(model.lm_head, stream.wanted, trained)


def _picture_work(model: Model, patches: Patches | None) -> Work:
    """The vision tower, its merger included, on equal-sized pictures; all of it is trained, or nothing."""
    if patches is None:
        return Work()
    tower, pictures = base_of(model).visual, len(patches.values)
    tokens, trained = pictures * patches.rows * patches.columns, _trained(tower)
    work = Work()
    for number, block in enumerate(tower.blocks):
        whole = number in tower.fullatt_block_indexes
        pairs = (patches.rows * patches.columns) ** 2 if whole else _window_pairs(tower, patches)
        work += _attention(pictures * pairs, block.attn.proj.in_features, trained)
        for part in (block.attn.qkv, block.attn.proj, block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj):
            work += _linear(part, tokens, trained)
    # pictures of one size go through our own pass, which keeps all activations
    work = _anew(tower.blocks[0], work) if len(tower.fullatt_block_indexes) < len(tower.blocks) else work
    for part in (tower.merger.mlp[0], tower.merger.mlp[2]):
        work += _linear(part, tokens // patches.merge**2, trained)
    return work + _linear(tower.patch_embed.proj, tokens, False)  # a picture takes no gradient


def _window_pairs(tower: Qwen2_5_VisionTransformerPretrainedModel, patches: Patches) -> int:
    """Pairs of patches of a picture that stand in one window; the last window of a row or column may be smaller."""
    side, pairs = tower.window_size // patches.merge // tower.patch_size, patches.merge**4
    for length in patches.grid:
        pairs *= length // side * side**2 + (length % side) ** 2
    return pairs


def _linear(layer: nn.Module, rows: int, taken: bool) -> Work:
    """A linear layer, with the adapters that are at work in it; `taken`: whether its input takes a gradient."""
    weights = [(getattr(layer, "base_layer", layer).weight, taken)]
    if hasattr(layer, "lora_A") and not layer.disable_adapters:
        names = layer.active_adapters
        weights += [(layer.lora_A[name].weight, taken) for name in names]
        weights += [(layer.lora_B[name].weight, layer.lora_A[name].weight.requires_grad) for name in names]
    each = [(2 * rows * weight.numel(), weight.requires_grad + needed) for weight, needed in weights]
    return Work(sum(products for products, _ in each), sum(products * times for products, times in each))


def _attention(pairs: int, width: int, taken: bool) -> Work:
    """Scores and mixed values of `pairs` of a query and a key, over heads of `width` channels together."""
    return Work(4 * pairs * width, 8 * pairs * width * taken)


def _anew(layer: nn.Module, work: Work) -> Work:
    """The work of layers that keep no activations, so that the way back begins with the forward pass once more.

    All of it is counted, although torch stops before each layer's last product, which no gradient needs.
    """
    again = getattr(layer, "gradient_checkpointing", False) and layer.training and work.back
    return Work(work.forward, work.back + work.forward) if again else work


def _trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


@dataclass
class Tally:
    """What was spent since it was last taken; `known` is False once something was spent that nobody counted.

    `trained_tokens`: those of completions that the loss has a gradient for; `generated_tokens`: those of the
    `completions` that were drawn, end tokens included.
    """

    flops: int = 0
    trained_tokens: int = 0
    generated_tokens: int = 0
    completions: int = 0
    known: bool = True

    def scored(self, model: Model, packed: Packed, patches: Patches | None) -> None:
        """Count a pass of `scored_logits`, with its way back where gradients are recorded."""
        work = packed_work(model, packed, patches)
        self.flops += work.forward + (work.back if torch.is_grad_enabled() else 0)

    def drawn(
        self, model: Model, prompts: Ids, patches: Patches | None, rollouts: Sequence[Sequence[Rollout]], how: Sampling
    ) -> None:
        """Count completions that `generate` drew."""
        self.flops += generation_flops(model, prompts, patches, rollouts, how.max_tokens)
        self.completions += sum(map(len, rollouts))
        self.generated_tokens += sum(len(r.ids) for row in rollouts for r in row)

    def add(self, other: Tally) -> None:
        """Count what another tally has counted."""
        for name, value in other.spent().items():
            setattr(self, name, getattr(self, name) + value)
        self.known = self.known and other.known

    def spent(self) -> dict[str, int]:
        """What was counted, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "known"}

    def take(self) -> dict[str, int]:
        """What was counted, by name, or nothing where some of it is unknown; the next count begins at 0."""
        spent = self.spent() if self.known else {}
        self.__init__()
        return spent
