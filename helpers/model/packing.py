"""Packing: one row holds a picture, its prompt once, and the completions behind it side by side.

No completion sees another, and each continues the positions of its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch.nn.utils.rnn import pad_sequence

from helpers.errors import UserError

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
    # The columns of (source, target, branch), also where nothing is scored and the list has none.
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


def shared_start(prefixes: Sequence[Sequence[int]], image_id: int) -> int:
    """How many tokens all prefixes start with, up to the first picture: these stand in the stream once."""
    own = [list(prefix) for prefix in prefixes]
    first, last = min(own), max(own)  # all others lie between these two
    same = 0
    # Up to the picture only: states behind it depend on what it shows.
    while same < min(len(first), len(last)) and first[same] == last[same] != image_id:
        same += 1
    return same


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
        self.shared = shared_start([g.prefix for g in groups], image_id)
        self._append(groups[0].prefix[: self.shared], [range(self.shared)] * 3)

    def add(self, number: int, group: Group, image_id: int, grid: tuple[int, int]) -> None:
        """Append a prefix, less what all share, and its branches."""
        axes, after = _known_positions(tuple(group.prefix), image_id, grid)
        shared = self.shared
        # The shared start is computed once: without a picture before it, its states are the same for every prefix.
        own = self._append(group.prefix[shared:], [axis[shared:] for axis in axes])
        self.prefixes.append([*range(shared), *own])
        self.after.append(after)
        together = sum(len(b.ids) for b in group.branches) <= ROW
        for place, branch in enumerate(group.branches):
            if not self.alone and (place == 0 or not together):
                self.rows.append([])
                self.owners.append([])
                self.parents.append(number)
            self._add_branch(branch, after)

    def _add_branch(self, branch: Branch, after: int) -> None:
        """Append a branch to the last row, behind its prefix's rotary position."""
        # Sisters start at the same position: each goes on from the prompt as if it were alone behind it.
        indices = self._append(branch.ids, [range(after, after + len(branch.ids))] * 3)
        # A token is predicted by the one before it, the first of a branch by the last of its prefix.
        before = [self.prefixes[-1][-1], *indices]
        self.scored += [(before[k], branch.ids[k], self.branches) for k in range(branch.skip, len(branch.ids))]
        self.branches += 1
        if self.alone:  # it stands in its prefix's row, where plain causal attention is all it needs
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
    if not indices:
        return torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    rows = [torch.tensor(part, dtype=torch.long) for part in indices]
    return pad_sequence(rows, True, value), torch.tensor([len(part) for part in indices])


def _places(tokens: int, *parts: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """For each token of the stream where it stands in the joined, flattened index tensors (one place of several)."""
    places, offset = torch.zeros(tokens, dtype=torch.long), 0
    for indices, lengths in parts:
        # Padding points at token 0 as well, so it is told by its place in the row, not by what stands there.
        real = (torch.arange(indices.shape[1]) < lengths[:, None]).flatten()
        # The shared start stands in every prefix's row; all copies hold the same values, so any place will do.
        places[indices.flatten()[real]] = offset + real.nonzero()[:, 0]
        offset += indices.numel()
    return places


def _mask(ends: torch.Tensor, width: int, owner: torch.Tensor) -> torch.Tensor:
    """Additive mask of rows behind prefixes of lengths `ends` (R,); `owner` (R, W): the branch of each token, -1: none.

    One for all rows where they are alike.
    """
    if len(ends) and bool((ends == ends[0]).all()) and bool((owner == owner[0]).all()):
        ends, owner = ends[:1], owner[:1]
    # -inf for the padding behind a shorter prefix, which lies between the prefix and the branches, not at the end.
    before = (torch.arange(width) < ends[:, None])[:, None].expand(-1, owner.shape[1], -1)
    own = (owner[:, :, None] == owner[:, None]) & (owner[:, None] >= 0)
    allowed = torch.cat((before, own.tril()), 2)
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))[:, None]
