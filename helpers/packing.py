"""One packed row per picture: the shared prefix once, its branches side by side.

Eight completions of one prompt share the prompt's tokens and the picture; stock code runs both eight times.
A packed row holds the prefix, then each branch; a mask lets a branch see the prefix and itself, and explicit
3-D positions let every branch start where the prefix ends. The log-probs equal those of separate sequences
(tested to 1e-5, gradients too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError

if TYPE_CHECKING:
    import torch

    from helpers.models import ImageSettings


@dataclass(frozen=True)
class Branch:
    """Token ids behind a prefix; the first `skip` of them are given (not scored)."""

    ids: Sequence[int]
    skip: int = 0


@dataclass(frozen=True)
class Group:
    """A prefix (token ids with the picture's placeholder tokens), its picture's index, and its branches."""

    prefix: Sequence[int]
    picture: int | None
    branches: Sequence[Branch] = ()


@dataclass(frozen=True)
class Packed:
    """A batch of G packed rows of T tokens, with M scored tokens in B branches.

    ids (G, T) long; positions (3, G, T) long; mask (G, 1, T, T) fp32, 0 where a token may be seen and -inf
    elsewhere; source (2, M): row and column of the token that predicts each scored token; target (M,) its id;
    branch (M,) its branch, numbered through the batch; pictures: index of each row's picture (or -1);
    ends (G,) length of each prefix; next_position (G,) the rotary position behind the prefix.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    branch: torch.Tensor
    pictures: torch.Tensor
    ends: torch.Tensor
    next_position: torch.Tensor

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Packed:
        """The batch on a device, its mask in a dtype (the trainers' data loaders pass a device only)."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return Packed(**{**moved, "mask": moved["mask"].to(dtype or self.mask.dtype)})


def rope_positions(ids: Sequence[int], image_id: int, grid: tuple[int, int]) -> tuple[list[list[int]], int]:
    """(time, height, width) position of each token, and the position behind the last one (Qwen2-VL, m-RoPE).

    Text advances all three by one; the picture's tokens, `grid` = (rows, columns) of merged patches, share one
    time and carry their row and column; text goes on behind the larger of the two.
    """
    axes: list[list[int]] = [[], [], []]
    position, seen = 0, 0
    for token in ids:
        if token == image_id:
            row, column = divmod(seen, grid[1])
            values = (position, position + row, position + column)
            seen += 1
            if seen == grid[0] * grid[1]:
                position, seen = position + max(grid), 0
        else:
            values = (position,) * 3
            position += 1
        for axis, value in zip(axes, values, strict=True):
            axis.append(value)
    return axes, position


def pack(groups: Sequence[Group], image_id: int, grid: tuple[int, int], pad_id: int) -> Packed:
    """Pack groups into rows, padded on the right. Raises UserError where there is nothing to pack."""
    import torch

    if not groups:
        raise UserError("There is nothing to score: the list of samples is empty.")
    width = max(len(g.prefix) + sum(len(b.ids) for b in g.branches) for g in groups)
    ids = torch.full((len(groups), width), pad_id)
    positions = torch.zeros(3, len(groups), width, dtype=torch.long)
    owner = torch.full((len(groups), width), -1)  # 0: prefix, k: branch k of the row, -1: padding
    ends, starts, scored, number = [], [], [], 0
    for row, group in enumerate(groups):
        end, after, found = _fill_row(row, group, (ids, positions, owner), (image_id, grid, number))
        ends.append(end)
        starts.append(after)
        scored += found
        number += len(group.branches)
    rows, columns, targets, branches = torch.tensor(scored, dtype=torch.long).reshape(-1, 4).unbind(1)
    pictures = torch.tensor([-1 if g.picture is None else g.picture for g in groups])
    return Packed(
        ids, positions, _mask(owner), torch.stack((rows, columns)), targets, branches,
        pictures, torch.tensor(ends), torch.tensor(starts),
    )  # fmt: skip


def _fill_row(row: int, group: Group, tensors: tuple, settings: tuple) -> tuple[int, int, list]:
    """Write one group into the tensors; returns (prefix length, next rotary position, scored tokens)."""
    import torch

    ids, positions, owner = tensors
    image_id, grid, number = settings
    axes, after = rope_positions(group.prefix, image_id, grid)
    end = cursor = len(group.prefix)
    ids[row, :end], owner[row, :end] = torch.tensor(group.prefix), 0
    positions[:, row, :end] = torch.tensor(axes)
    scored = []
    for k, branch in enumerate(group.branches):
        stop = cursor + len(branch.ids)
        ids[row, cursor:stop], owner[row, cursor:stop] = torch.tensor(branch.ids), k + 1
        positions[:, row, cursor:stop] = torch.arange(after, after + len(branch.ids))
        for offset in range(branch.skip, len(branch.ids)):
            before = cursor + offset - 1 if offset else end - 1
            scored.append((row, before, branch.ids[offset], number + k))
        cursor = stop
    return end, after, scored


def _mask(owner: torch.Tensor) -> torch.Tensor:
    """Additive mask (G, 1, T, T): earlier tokens of the prefix or of the same branch; padding sees itself only."""
    import torch

    width = owner.shape[1]
    shared = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    allowed = shared & (owner[:, None, :] >= 0) & torch.ones(width, width, dtype=torch.bool).tril()
    allowed |= torch.eye(width, dtype=torch.bool)
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf")).unsqueeze(1)


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
    from helpers.models import ImageSettings, pixel_patches

    settings = settings or ImageSettings()
    n, height, width, _ = pictures.shape
    values = pixel_patches(pictures, settings).reshape(n, height * width // settings.patch**2, -1)
    return Patches(values, height // settings.patch, width // settings.patch, settings.merge)


def picture_features(model: Any, patches: Patches) -> torch.Tensor:
    """Language-side features (N, tokens, width) of equal-sized pictures in one batched pass.

    The stock tower attends picture by picture in a Python loop; with one size and full attention in every
    block a batch dimension does the same (tested for equality). Other towers go through the stock code.
    """
    import torch

    tower, n = base_of(model).visual, len(patches.values)
    weight = tower.patch_embed.proj.weight
    flat = patches.values.flatten(0, 1).to(weight.device, weight.dtype)
    grid = torch.tensor([[1, patches.rows, patches.columns]], device=weight.device)
    if len(tower.fullatt_block_indexes) < len(tower.blocks):
        return tower(flat, grid_thw=grid.repeat(n, 1)).pooler_output.reshape(n, -1, tower.config.out_hidden_size)
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_position_ids

    hidden = tower.patch_embed(flat)
    rotary = tower.rotary_pos_emb(hidden, get_vision_position_ids(grid, patches.merge, kwargs={}))
    for block in tower.blocks:
        hidden = hidden + _vision_attention(block.attn, block.norm1(hidden), n, rotary)
        hidden = hidden + block.mlp(block.norm2(hidden))
    return tower.merger(hidden).reshape(n, -1, tower.config.out_hidden_size)


def _vision_attention(attention: Any, hidden: torch.Tensor, n: int, rotary: tuple) -> torch.Tensor:
    """Full attention within each of `n` equal-sized pictures; `hidden` is (n * patches, width)."""
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

    q, k, v = attention.qkv(hidden).reshape(n, -1, 3, attention.num_heads, attention.head_dim).unbind(2)
    q, k = apply_rotary_pos_emb_vision(q, k, *rotary)
    mixed = scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
    return attention.proj(mixed.transpose(1, 2).reshape(hidden.shape))


def base_of(model: Any) -> Any:
    """The `Qwen2_5_VLModel` inside a plain or a LoRA-wrapped model."""
    return model.get_base_model().model if hasattr(model, "peft_config") else model.model


def embed(model: Any, packed: Packed, patches: Patches | None) -> torch.Tensor:
    """Token embeddings (G, T, width) with each picture's features put in the place of its placeholder tokens.

    `patches` are the unique pictures; each is encoded once, however many rows show it.
    """
    inner = base_of(model)
    embedded = inner.language_model.embed_tokens(packed.ids)
    if patches is None:
        return embedded
    features = picture_features(model, patches)[packed.pictures.clamp(min=0)]
    holes = packed.ids == inner.config.image_token_id
    return embedded.masked_scatter(holes[..., None], features[packed.pictures >= 0])


def _beside(model: Any, packed: Packed) -> Packed:
    """The batch where the model is (the same object where it is there already)."""
    weight = model.lm_head.weight
    same = packed.ids.device == weight.device and packed.mask.dtype == weight.dtype
    return packed if same else packed.to(weight.device, weight.dtype)


def hidden_states(model: Any, packed: Packed, patches: Patches | None, cache: Any = None) -> torch.Tensor:
    """Last hidden states (G, T, width) of a packed batch; fills `cache` where one is given."""
    packed = _beside(model, packed)
    return base_of(model).language_model(
        inputs_embeds=embed(model, packed, patches),
        position_ids=packed.positions,
        attention_mask={"full_attention": packed.mask},
        past_key_values=cache,
        use_cache=cache is not None,
    )[0]


def scored_logits(model: Any, packed: Packed, patches: Patches | None) -> torch.Tensor:
    """Logits (M, vocabulary) of the scored tokens only: the head never sees prompt or padding."""
    packed = _beside(model, packed)
    hidden = hidden_states(model, packed, patches)
    return model.lm_head(hidden[packed.source[0], packed.source[1]])
