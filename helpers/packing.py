"""Packed batches: what is shared once, what differs beside it, no padding.

Eight completions of one prompt share the prompt's tokens and the picture; stock code runs both eight times. A packed
batch is one flat stream that holds each prefix once, what all prefixes start with once for all, and each branch.
Everything but attention works on the stream; attention lets a prefix see itself and a branch see its prefix and
itself, and explicit 3-D positions let every branch start where its prefix ends. The last layer goes on only where a
scored token is predicted. The log-probs equal those of separate sequences (tested to 1e-5, gradients too).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError
from helpers.fused import gated, normalised, turned

if TYPE_CHECKING:
    import torch

    from helpers.models import ImageSettings


ROW = 512  # tokens: shorter branches of a prefix share a row of attention, which is faster; longer ones would waste it


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
    """A batch of N tokens: G prefixes and B branches in R rows, of which M tokens are scored.

    ids (N,); positions (3, N): time, height, width; prefix (G, P) and rows (R, W): where in the stream the tokens of
    prefixes and of branches stand, padded on the right with token 0 (what all prefixes start with stands in the stream
    once; short branches of one prefix share a row; a branch without sisters stands behind its prefix, in its row, where
    no group of the batch has more than one); place (N,): where each token stands in those two, flattened and
    joined; parent (R,): the prefix of each row; mask (R or 1, 1, W, P + W) fp32, 0 where a branch's token may see one
    of its prefix or of its own branch and -inf elsewhere; source (M,): the token that predicts each scored token;
    target (M,) its id; branch (M,) its branch; pictures (G,): index of each prefix's picture (or -1); ends (G,) length
    of each row of `prefix`; next_position (G,) the rotary position behind it.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    prefix: torch.Tensor
    rows: torch.Tensor
    place: torch.Tensor
    parent: torch.Tensor
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


# Batch after batch asks with the same words; the result is read, never changed.
_known_positions = lru_cache(maxsize=1024)(rope_positions)


def pack(groups: Sequence[Group], image_id: int, grid: tuple[int, int]) -> Packed:
    """Pack groups into one stream. Raises UserError where there is nothing to pack."""
    import torch

    if not groups:
        raise UserError("There is nothing to score: the list of samples is empty.")
    stream = _Stream(alone=all(len(group.branches) < 2 for group in groups))
    stream.start(groups, image_id)
    for row, group in enumerate(groups):
        stream.add(row, group, image_id, grid)
    prefix, ends = _padded(stream.prefixes)
    rows, lengths = _padded(stream.rows)
    owner, _ = _padded(stream.owners, -1)
    parent = torch.tensor(stream.parents, dtype=torch.long)
    source, target, branch = torch.tensor(stream.scored, dtype=torch.long).reshape(-1, 3).unbind(1)
    return Packed(
        ids=torch.tensor(stream.ids),
        positions=torch.tensor(stream.axes),
        prefix=prefix,
        rows=rows,
        place=_places(len(stream.ids), (prefix, ends), (rows, lengths)),
        parent=parent,
        mask=_mask(ends[parent], prefix.shape[1], owner),
        source=source,
        target=target,
        branch=branch,
        pictures=torch.tensor([-1 if g.picture is None else g.picture for g in groups]),
        ends=ends,
        next_position=torch.tensor(stream.after),
    )


class _Stream:
    """The flat lists that a packed batch is made from."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone  # at most one branch per prefix: together they are one causal sequence
        self.ids: list[int] = []
        self.axes: list[list[int]] = [[], [], []]
        self.prefixes: list[list[int]] = []
        self.rows: list[list[int]] = []  # tokens of branches
        self.owners: list[list[int]] = []  # and the branch of each, numbered within its row
        self.parents: list[int] = []
        self.branches = 0
        self.scored: list[tuple[int, int, int]] = []  # source, target, branch
        self.after: list[int] = []
        self.shared = 0

    def start(self, groups: Sequence[Group], image_id: int) -> None:
        """Put what all prefixes start with, up to the first picture, at the start of the stream."""
        prefixes = [list(g.prefix) for g in groups]
        first, last = min(prefixes), max(prefixes)  # all others lie between these two
        same = 0
        while same < min(len(first), len(last)) and first[same] == last[same] != image_id:
            same += 1
        self._append(first[:same], [range(same)] * 3)
        self.shared = same

    def add(self, number: int, group: Group, image_id: int, grid: tuple[int, int]) -> None:
        """Append a prefix, less what all share, and its branches."""
        axes, after = _known_positions(tuple(group.prefix), image_id, grid)
        shared = self.shared
        own = self._append(group.prefix[shared:], [axis[shared:] for axis in axes])
        self.prefixes.append([*range(shared), *own])
        self.after.append(after)
        together = sum(len(b.ids) for b in group.branches) <= ROW
        for place, branch in enumerate(group.branches):
            if not self.alone and (place == 0 or not together):
                self._start_row(number)
            self._add_branch(branch, after)

    def _start_row(self, parent: int) -> None:
        self.rows.append([])
        self.owners.append([])
        self.parents.append(parent)

    def _add_branch(self, branch: Branch, after: int) -> None:
        """Append a branch to the last row, behind its prefix's rotary position."""
        indices = self._append(branch.ids, [range(after, after + len(branch.ids))] * 3)
        before = [self.prefixes[-1][-1], *indices]
        self.scored += [(before[k], branch.ids[k], self.branches) for k in range(branch.skip, len(branch.ids))]
        self.branches += 1
        if self.alone:
            self.prefixes[-1] += indices
            return
        self.rows[-1] += indices
        self.owners[-1] += [self.owners[-1][-1] + 1 if self.owners[-1] else 0] * len(indices)

    def _append(self, ids: Sequence[int], axes: Sequence[Sequence[int]]) -> list[int]:
        """Add tokens with their positions; returns where they stand."""
        start = len(self.ids)
        self.ids += ids
        for known, more in zip(self.axes, axes, strict=True):
            known += more
        return list(range(start, len(self.ids)))


def _padded(indices: Sequence[Sequence[int]], value: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices as rows of one tensor, `value` on the right, and the rows' lengths; (0, 0) where there are none."""
    import torch

    lengths = torch.tensor([len(i) for i in indices], dtype=torch.long)
    found = torch.full((len(indices), int(lengths.max()) if len(indices) else 0), value)
    for row, part in enumerate(indices):
        found[row, : len(part)] = torch.tensor(part, dtype=torch.long)
    return found, lengths


def _places(tokens: int, *parts: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """For each token of the stream where it stands in the joined, flattened index tensors (one place of several)."""
    import torch

    found, offset = torch.zeros(tokens, dtype=torch.long), 0
    for indices, lengths in parts:
        real = (torch.arange(indices.shape[1]) < lengths[:, None]).flatten()
        found[indices.flatten()[real]] = offset + real.nonzero()[:, 0]
        offset += indices.numel()
    return found


def _mask(ends: torch.Tensor, width: int, owner: torch.Tensor) -> torch.Tensor:
    """Additive mask of rows behind prefixes of lengths `ends` (R,); `owner` (R, W): the branch of each token, -1: none.

    One for all rows where they are alike.
    """
    import torch

    if len(ends) and bool((ends == ends[0]).all()) and bool((owner == owner[0]).all()):
        ends, owner = ends[:1], owner[:1]
    before = (torch.arange(width) < ends[:, None])[:, None].expand(-1, owner.shape[1], -1)
    own = (owner[:, :, None] == owner[:, None]) & (owner[:, None] >= 0)
    allowed = torch.cat((before, own.tril()), 2)
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))[:, None]


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
        hidden = hidden + _vision_attention(block.attn, normalised(block.norm1, hidden), n, rotary)
        hidden = hidden + gated(block.mlp, normalised(block.norm2, hidden))
    return tower.merger(hidden).reshape(n, -1, tower.config.out_hidden_size)


def _vision_attention(attention: Any, hidden: torch.Tensor, n: int, rotary: tuple) -> torch.Tensor:
    """Full attention within each of `n` equal-sized pictures; `hidden` is (n * patches, width)."""
    from torch.nn.functional import scaled_dot_product_attention

    cos, sin = (t[:, None, None] for t in rotary)  # fp32, and so is the turn, as in the stock tower
    both, v = attention.qkv(hidden).reshape(n, -1, 3, attention.num_heads, attention.head_dim).split((2, 1), 2)
    q, k = turned(both.float(), cos, sin).to(hidden.dtype).unbind(2)
    mixed = scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v.squeeze(2))))
    return attention.proj(mixed.transpose(1, 2).reshape(hidden.shape))


def obstacle(model: Any) -> str:
    """Why packed passes would not equal this model's own, in words; empty where they do."""
    inner = base_of(model)
    if type(inner).__name__ != "Qwen2_5_VLModel":
        return f"{type(inner).__name__} is not Qwen2.5-VL"
    text = inner.config.text_config
    if inner.language_model.has_sliding_layers:
        return "its attention has a sliding window"
    if text.attention_dropout:
        return "its attention drops out"
    return ""


def base_of(model: Any) -> Any:
    """The `Qwen2_5_VLModel` inside a plain or a LoRA-wrapped model."""
    return model.get_base_model().model if hasattr(model, "peft_config") else model.model


def embed(model: Any, packed: Packed, patches: Patches | None) -> torch.Tensor:
    """Token embeddings (N, width) with each picture's features put in the place of its placeholder tokens.

    `patches` are the unique pictures; each is encoded once, however many prefixes show it.
    """
    inner = base_of(model)
    embedded = inner.language_model.embed_tokens(packed.ids)
    if patches is None:
        return embedded
    features = picture_features(model, patches)[packed.pictures[packed.pictures >= 0]]
    holes = packed.ids == inner.config.image_token_id
    return embedded.masked_scatter(holes[:, None], features)


Attend = Callable[[int, "torch.Tensor", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
Rotary = tuple["torch.Tensor", "torch.Tensor"]


def run_layers(
    model: Any, hidden: torch.Tensor, rotary: Rotary, attend: Attend, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """The language model's layers on a flat stream of tokens, (N, width) to normalised (N, width).

    `rotary`: cosines and sines (N, head size). `attend(layer, q, k, v)` takes (N, heads, head size), keys and values
    with the key-value heads, and gives (N, heads, head size). `wanted` (W,): the tokens whose result is needed; what
    follows the last attention is done for them alone, and (W, width) comes back. The stock layers want a batch of
    padded rows; here only `attend` knows what belongs together. Calls the model's own modules, so LoRA works.
    """
    from torch.utils.checkpoint import checkpoint

    language = base_of(model).language_model

    def block(layer: Any, number: int, hidden: torch.Tensor) -> torch.Tensor:
        mixed = _attention(layer, number, normalised(layer.input_layernorm, hidden), rotary, attend)
        if wanted is not None and number == len(language.layers) - 1:
            hidden, mixed = _rows(hidden, wanted), _rows(mixed, wanted)
        hidden = hidden + layer.self_attn.o_proj(mixed)
        return hidden + gated(layer.mlp, normalised(layer.post_attention_layernorm, hidden))

    for number, layer in enumerate(language.layers):
        if layer.gradient_checkpointing and layer.training:
            hidden = checkpoint(block, layer, number, hidden, use_reentrant=False)
        else:
            hidden = block(layer, number, hidden)
    return normalised(language.norm, hidden)


def _attention(layer: Any, number: int, x: torch.Tensor, rotary: Rotary, attend: Attend) -> torch.Tensor:
    """Attention of one layer up to its output projection: projections, rotary positions, `attend`; (N, width)."""
    import torch

    own = layer.self_attn
    q, k, v = (p(x).unflatten(-1, (-1, own.head_dim)) for p in (own.q_proj, own.k_proj, own.v_proj))
    cos, sin = (t[:, None] for t in rotary)
    both = turned(torch.cat((q, k), 1), cos, sin)  # together: half the operations
    q, k = both.split((q.shape[1], k.shape[1]), 1)
    return attend(number, q, k, v).flatten(1)


def rotary_of(model: Any, positions: torch.Tensor) -> Rotary:
    """Cosines and sines (N, head size) of rotary positions (3, N)."""
    language = base_of(model).language_model
    cos, sin = language.rotary_emb(language.embed_tokens.weight, positions[:, None])
    return cos[0], sin[0]


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **how: Any) -> torch.Tensor:
    """Scaled dot-product attention of (rows, tokens, heads, head size), key-value heads shared where they are fewer."""
    from torch.nn.functional import scaled_dot_product_attention

    shared = q.shape[2] != k.shape[2]
    mixed = scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), enable_gqa=shared, **how)
    return mixed.transpose(1, 2)


def _packed_attention(packed: Packed) -> Attend:
    """Attention of a packed batch: prefixes see themselves, branches their prefix and themselves, causally.

    Padding stands on the right, where causal attention does not look; the rows' mask hides it in the middle.
    """
    import torch

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


def _beside(model: Any, packed: Packed) -> Packed:
    """The batch where the model is (the same object where it is there already)."""
    weight = model.lm_head.weight
    same = packed.ids.device == weight.device and packed.mask.dtype == weight.dtype
    return packed if same else packed.to(weight.device, weight.dtype)


def hidden_states(
    model: Any, packed: Packed, patches: Patches | None, wanted: torch.Tensor, see: Attend | None = None
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


def scored_logits(model: Any, packed: Packed, patches: Patches | None) -> torch.Tensor:
    """Logits (M, vocabulary) of the scored tokens only: the head never sees prompt or padding."""
    packed = _beside(model, packed)
    wanted, back = packed.source.unique(return_inverse=True)  # branches that start together share a source
    return model.lm_head(hidden_states(model, packed, patches, wanted))[back]
