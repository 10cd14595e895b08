"""The forward pass over packed rows: pictures, layers, and logits where a token is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLDecoderLayer,
    Qwen2_5_VLVisionAttention,
    get_vision_position_ids,
)

from helpers.model.fused import gated, normalised, turned
from helpers.model.packing import Packed
from helpers.model.processor import ImageSettings, pixel_patches

Model = Qwen2_5_VLForConditionalGeneration | PeftModel  # with or without LoRA adapters
Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines (N, head size)
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Patches:
    """N equal-sized pictures as the tower takes them: values (N, rows * columns, 3 * frames * patch^2) fp32."""

    values: torch.Tensor
    rows: int
    columns: int
    merge: int = 2

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of merged patches, the picture's tokens in the language model."""
        return self.rows // self.merge, self.columns // self.merge


def patches_of(pictures: torch.Tensor, settings: ImageSettings | None = None) -> Patches:
    """Patches of pictures (N, H, W, 3) uint8 whose sides are multiples of a language token's (UserError)."""
    settings = settings or ImageSettings()
    n, height, width, _ = pictures.shape
    values = pixel_patches(pictures, settings).reshape(n, height * width // settings.patch**2, -1)
    return Patches(values, height // settings.patch, width // settings.patch, settings.merge)


def picture_features(model: Model, patches: Patches) -> torch.Tensor:
    """Language-side features (N, tokens, width) of equal-sized pictures in one batched pass.

    The stock tower attends picture by picture in a Python loop; with one size and full attention in every
    block a batch dimension does the same (tested for equality). Other towers go through the stock code.
    """
    tower, n = base_of(model).visual, len(patches.values)
    weight = tower.patch_embed.proj.weight
    flat = patches.values.flatten(0, 1).to(weight.device, weight.dtype)
    # One grid stands for all pictures: rotary positions repeat from picture to picture.
    grid = torch.tensor([[1, patches.rows, patches.columns]], device=weight.device)
    if len(tower.fullatt_block_indexes) < len(tower.blocks):
        return tower(flat, grid_thw=grid.repeat(n, 1)).pooler_output.reshape(n, -1, tower.config.out_hidden_size)
    hidden = tower.patch_embed(flat)
    rotary = tower.rotary_pos_emb(hidden, get_vision_position_ids(grid, patches.merge, kwargs={}))
    for block in tower.blocks:
        hidden = hidden + _vision_attention(block.attn, normalised(block.norm1, hidden), n, rotary)
        hidden = hidden + gated(block.mlp, normalised(block.norm2, hidden))
    return tower.merger(hidden).reshape(n, -1, tower.config.out_hidden_size)


def _vision_attention(own: Qwen2_5_VLVisionAttention, x: torch.Tensor, n: int, rotary: Rotary) -> torch.Tensor:
    """Full attention within each of `n` equal-sized pictures; `x` is (n * patches, width)."""
    cos, sin = (t[:, None, None] for t in rotary)  # fp32, and so is the turn, as in the stock tower
    both, v = own.qkv(x).reshape(n, -1, 3, own.num_heads, own.head_dim).split((2, 1), 2)
    q, k = turned(both.float(), cos, sin).to(x.dtype).unbind(2)
    return own.proj(attention(q, k, v.squeeze(2)).reshape(x.shape))


def obstacle(model: Model) -> str:
    """Why packed passes would not equal this model's own, in words; empty where they do."""
    inner = base_of(model)
    if type(inner).__name__ != "Qwen2_5_VLModel":
        return f"{type(inner).__name__} is not Qwen2.5-VL"
    if inner.language_model.has_sliding_layers:
        return "its attention has a sliding window"
    return "its attention drops out" if inner.config.text_config.attention_dropout else ""


def base_of(model: Model) -> Qwen2_5_VLModel:
    """The `Qwen2_5_VLModel` inside a plain or a LoRA-wrapped model."""
    return model.get_base_model().model if hasattr(model, "peft_config") else model.model


def embed(model: Model, packed: Packed, patches: Patches | None) -> torch.Tensor:
    """Token embeddings (N, width) with each picture's features put in the place of its placeholder tokens.

    `patches` are the unique pictures; each is encoded once, however many prefixes show it.
    """
    inner = base_of(model)
    embedded = inner.language_model.embed_tokens(packed.ids)
    if patches is None:
        return embedded
    features = picture_features(model, patches)[packed.pictures[packed.pictures >= 0]]
    # Prefixes stand in the stream in the order of `pictures`, so their placeholders are filled in that order.
    holes = packed.ids == inner.config.image_token_id
    return embedded.masked_scatter(holes[:, None], features)


def run_layers(
    model: Model, hidden: torch.Tensor, rotary: Rotary, attend: Attend, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """The language model's layers on a flat stream of tokens, (N, width) to normalised (N, width).

    `rotary`: cosines and sines (N, head size). `attend(layer, q, k, v)` takes (N, heads, head size), keys and values
    with the key-value heads, and gives (N, heads, head size). `wanted` (W,): the tokens whose result is needed; what
    follows the last attention is done for them alone, and (W, width) comes back. The stock layers want a batch of
    padded rows; here only `attend` knows what belongs together. Calls the model's own modules, so LoRA works.
    """
    language = base_of(model).language_model
    cos, sin = (t[:, None] for t in rotary)

    def block(layer: Qwen2_5_VLDecoderLayer, number: int, hidden: torch.Tensor) -> torch.Tensor:
        """One layer: attention among those that belong together, then the MLP, each on top of what came in."""
        own, x = layer.self_attn, normalised(layer.input_layernorm, hidden)
        q, k, v = (p(x).unflatten(-1, (-1, own.head_dim)) for p in (own.q_proj, own.k_proj, own.v_proj))
        # turned together: half the operations
        q, k = turned(torch.cat((q, k), 1), cos, sin).split((q.shape[1], k.shape[1]), 1)
        mixed = attend(number, q, k, v).flatten(1)
        # Behind the last attention no token looks at another: only those that are asked for need to go on.
        if wanted is not None and number == len(language.layers) - 1:
            hidden, mixed = _rows(hidden, wanted), _rows(mixed, wanted)
        hidden = hidden + own.o_proj(mixed)
        return hidden + gated(layer.mlp, normalised(layer.post_attention_layernorm, hidden))

    for number, layer in enumerate(language.layers):
        if layer.gradient_checkpointing and layer.training:
            hidden = checkpoint(block, layer, number, hidden, use_reentrant=False)
        else:
            hidden = block(layer, number, hidden)
    return normalised(language.norm, hidden)


def rotary_of(model: Model, positions: torch.Tensor) -> Rotary:
    """Cosines and sines (N, head size) of rotary positions (3, N)."""
    language = base_of(model).language_model
    cos, sin = language.rotary_emb(language.embed_tokens.weight, positions[:, None])
    return cos[0], sin[0]


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **how: Any) -> torch.Tensor:
    """Scaled dot-product attention of (rows, tokens, heads, head size), key-value heads shared where they are fewer."""
    shared = q.shape[2] != k.shape[2]
    mixed = scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), enable_gqa=shared, **how)
    return mixed.transpose(1, 2)


def _packed_attention(packed: Packed) -> Attend:
    """Attention of a packed batch: prefixes see themselves, branches their prefix and themselves, causally.

    Padding stands on the right, where causal attention does not look; the rows' mask hides it in the middle.
    """
    # Then the prefixes' keys serve as they are: copying them for each row of branches would cost memory and time.
    one_row_each = packed.parent.tolist() == list(range(len(packed.prefix)))

    def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Prefixes look back at themselves, branches at their prefix and themselves."""
        first = [_rows(t, packed.prefix) for t in (q, k, v)]
        mixed = [attention(*first, is_causal=True).flatten(0, 1)]
        if len(packed.rows):
            own = [_rows(t, packed.rows) for t in (q, k, v)]
            above = first if one_row_each else [_rows(t, packed.parent) for t in first]
            keys, values = (torch.cat((above[i], own[i]), 1) for i in (1, 2))
            mixed.append(attention(own[0], keys, values, attn_mask=packed.mask).flatten(0, 1))
        return _rows(torch.cat(mixed), packed.place)

    return attend


def _rows(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`values[index]` along the first axis; its backward pass adds rows, which is faster than that of indexing."""
    return values.index_select(0, index.flatten()).unflatten(0, index.shape)


def _beside(model: Model, packed: Packed) -> Packed:
    """The batch where the model is (the same object where it is there already)."""
    weight = model.lm_head.weight
    same = packed.ids.device == weight.device and packed.mask.dtype == weight.dtype
    return packed if same else packed.to(weight.device, weight.dtype)


def hidden_states(
    model: Model, packed: Packed, patches: Patches | None, wanted: torch.Tensor, see: Attend | None = None
) -> torch.Tensor:
    """Last hidden states (W, width) of the tokens `wanted` of a packed batch.

    `see(layer, q, k, v)` may look at what every layer attends to.
    """
    packed = _beside(model, packed)
    attend = _packed_attention(packed)

    def watched(number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        see(number, q, k, v)
        return attend(number, q, k, v)

    rotary = rotary_of(model, packed.positions)
    return run_layers(model, embed(model, packed, patches), rotary, watched if see else attend, wanted)


def scored_logits(model: Model, packed: Packed, patches: Patches | None) -> torch.Tensor:
    """Logits (M, vocabulary) of the scored tokens only: the head never sees prompt or padding."""
    packed = _beside(model, packed)
    wanted, back = packed.source.unique(return_inverse=True)  # branches that start together share a source
    return model.lm_head(hidden_states(model, packed, patches, wanted))[back]
