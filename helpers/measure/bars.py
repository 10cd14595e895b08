"""What a base must be able to do before anything is trained on it: its marks in both forms, and what its eyes see.

Held out throughout: samples of the battery, wordings that no base is taught, boards that no run trains on. Boards are
used to measure here and never to teach.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch

from helpers.errors import UserError
from helpers.model.build import Loaded
from helpers.model.examine import examine
from helpers.model.forward import picture_features
from helpers.model.generate import Sampling
from helpers.model.score import complete, patches
from helpers.world import answers, seeds
from helpers.world.boards import Boards, make_boards
from helpers.world.forms import Asked
from helpers.world.puzzles import PuzzleSpec
from helpers.world.ways import Way

FORMS: tuple[Asked, ...] = ("think", "direct")
BESIDES: tuple[Asked, ...] = ("plain", "sentences")  # forms that runs ask for too, without a bar
BARS: Mapping[str, float] = MappingProxyType(
    {
        "kinds at .80": 11,
        "mean score": 0.92,
        "easy_vqa": 0.90,
        "form kept": 0.98,
        "form kept, held-out wordings": 0.90,
        "valid placements": 0.60,
        "2 x 2: orders above 1 %": 12,
        "3 x 3: distinct orders": 200,
        "eyes, 2 x 2 exact": 0.95,
        "eyes, 3 x 3 hits": 0.95,
    }
)
"""What is the least; placements by an untrained base may not be above chance besides."""


def prior_marks(base: Loaded, asked: Asked, n: int, held_out: bool = False) -> pd.DataFrame:
    """Score and form of greedy answers to `n` held-out samples a task, asked for in a form.

    Columns asked, held_out (the wordings), task, score, kept (share in the form that was asked for), n.
    """
    found = examine(*base, Way(asked, held_out), n)
    rows = [(asked, held_out, task, own.means["score"], own.means["kept"], n) for task, own in found.items()]
    return pd.DataFrame(rows, columns=["asked", "held_out", "task", "score", "kept", "n"])


def board_marks(base: Loaded, spec: PuzzleSpec, asked: Asked, n: int, samples: int = 1000) -> dict[str, float]:
    """What an untrained base makes of boards, asked for in a form.

    exact and hit of greedy answers to `n` held-out boards; of `samples` drawn at T = 1: the share of valid placements,
    how many different ones, and how many of them are more frequent than one in a hundred.
    """
    boards = make_boards(spec, range(max(n, samples)), seeds.HELD_OUT)
    prompts = boards.asking(asked, seeds.HELD_OUT).prompted()
    room = answers.room(spec.tiles, outside=True)
    greedy = complete(*base, prompts[:n], Sampling(temperature=0.0, max_tokens=room))
    truths = boards.placements.tolist()
    scores = [answers.score(text, truth) for (text,), truth in zip(greedy, truths[:n], strict=True)]
    drawn = complete(*base, prompts[:samples], Sampling(1, 1.0, room, seeds.PROBES))
    placed = [answers.parse(text, spec.tiles).placement for (text,) in drawn]
    counts = Counter(placement for placement in placed if placement is not None)
    return {
        "exact": float(np.mean([s.exact for s in scores])),
        "hit": float(np.mean([s.hit for s in scores])),
        "valid": sum(counts.values()) / samples,
        "distinct": float(len(counts)),
        "above 1 %": float(sum(count > samples / 100 for count in counts.values())),
    }


def eye_marks(base: Loaded, spec: PuzzleSpec, n: int = 3000, ridge: float = 10.0) -> dict[str, float]:
    """Whether a board's solution can be read off the frozen visual tokens by a linear map: exact and hit, held out.

    One map for all slots, from a tile's own tokens and the mean over the board's tiles to its place: least squares with
    a ridge on one-hot places. A fifth of the `n` boards is kept for the test. The eyes of a base are frozen while its
    words are taught, so that what they cannot see no arm can learn. Raises UserError where tiles have no whole tokens.
    """
    boards = make_boards(spec, range(n), seeds.training(seeds.INFLUENCE_PROBES))
    tiles = tile_tokens(visual_tokens(base, boards), spec)
    features = torch.cat([tiles, tiles.mean(1, keepdim=True).expand_as(tiles)], 2)
    wanted, cut = torch.from_numpy(boards.placements - 1), n - n // 5
    mean, scale = features[:cut].mean((0, 1)), features[:cut].std((0, 1)) + 1e-6
    x = torch.cat([(features - mean) / scale, torch.ones(n, spec.tiles, 1)], 2)
    known, targets = x[:cut].flatten(0, 1), torch.nn.functional.one_hot(wanted[:cut].flatten(), spec.tiles).float()
    gram = known.T @ known + ridge * torch.eye(known.shape[1])
    right = (x[cut:] @ torch.linalg.solve(gram, known.T @ targets)).argmax(-1) == wanted[cut:]
    return {"exact": float(right.all(1).float().mean()), "hit": float(right.float().mean())}


def tile_tokens(tokens: torch.Tensor, spec: PuzzleSpec) -> torch.Tensor:
    """Each tile's own tokens, (boards, tiles, tokens * width), of a board's in reading order, (boards, tokens, width).

    Raises UserError where the tokens cannot be shared out evenly.
    """
    boards, count, width = tokens.shape
    side = math.isqrt(count)
    if side * side != count or side % spec.rows or side % spec.cols:
        raise UserError(f"{count} tokens of a board cannot be shared out among {spec.rows} x {spec.cols} tiles.")
    grid = tokens.reshape(boards, spec.rows, side // spec.rows, spec.cols, side // spec.cols, width)
    return grid.swapaxes(2, 3).reshape(boards, spec.tiles, -1)


def visual_tokens(base: Loaded, boards: Boards, chunk: int = 250) -> torch.Tensor:
    """What the language model is given of each board: (boards, tokens, width)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(boards), chunk):
            pictures = patches(base.processor, list(boards.pixels[start : start + chunk]))
            parts.append(picture_features(base.model, pictures).cpu().float())
    return torch.cat(parts)


def all_marks(base: Loaded, n: int, forms: Sequence[Asked] = FORMS) -> pd.DataFrame:
    """Every mark of a base beside its bar: columns mark, form, value, bar (empty where there is none)."""
    rows = [row for asked in forms for row in (*_prior_rows(base, asked, n), *_board_rows(base, asked, n))]
    rows += [("mean score besides", asked, prior_marks(base, asked, n)["score"].mean()) for asked in BESIDES]
    for size in (64, 96):
        rows.append(("eyes, 2 x 2 exact", f"{size} pixels", eye_marks(base, PuzzleSpec(2, 2, size=size))["exact"]))
    rows.append(("eyes, 3 x 3 hits", "96 pixels", eye_marks(base, PuzzleSpec(3, 3, size=96))["hit"]))
    table = pd.DataFrame(rows, columns=["mark", "form", "value"])
    return table.assign(bar=table["mark"].map(BARS))


def _prior_rows(base: Loaded, asked: Asked, n: int) -> list[tuple[str, str, float]]:
    marks, held_out = prior_marks(base, asked, n), prior_marks(base, asked, n, held_out=True)
    easy = marks.loc[marks["task"] == "easy_vqa", "score"].iloc[0]
    kinds = (marks["score"] >= 0.8).sum()
    values = (kinds, marks["score"].mean(), easy, marks["kept"].mean(), held_out["kept"].mean())
    return [(mark, asked, float(value)) for mark, value in zip(list(BARS)[:5], values, strict=True)]


def _board_rows(base: Loaded, asked: Asked, n: int) -> list[tuple[str, str, float]]:
    rows = []
    for spec, mark, name in (
        (PuzzleSpec(2, 2, size=64), "2 x 2: orders above 1 %", "above 1 %"),
        (PuzzleSpec(3, 3, size=96), "3 x 3: distinct orders", "distinct"),
    ):
        own, grid = board_marks(base, spec, asked, n), f"{spec.rows} x {spec.cols}"
        rows += [(mark, asked, own[name]), ("valid placements", f"{asked}, {grid}", own["valid"])]
        rows += [(f"exact, chance {spec.chance_exact:.2g}", f"{asked}, {grid}", own["exact"])]
    return rows
