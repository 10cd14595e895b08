"""Training samples as rows of a data set, made when they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pandas as pd
from datasets import Dataset
from PIL import Image

from helpers.errors import UserError
from helpers.study.spec import RunSpec
from helpers.train.engine import Engine
from helpers.world import battery, easy_vqa, seeds
from helpers.world.boards import Boards


def rows(boards: Boards, completions: Sequence[str | None] | None = None) -> Dataset:
    """Boards (with completions, where given) as a dataset; boards without a completion are left out.

    Columns: `images` (one PIL picture), `prompt`, `placement`, `puzzle_id`, and `completion` for SFT. Pictures stay
    arrays in memory and become PIL when a row is read, so nothing is encoded or decoded.
    """
    kept = [i for i in range(len(boards)) if completions is None or completions[i] is not None]
    if not kept:
        raise UserError("No board of this corpus has a completion; sample more boards or train the source longer.")
    table = Dataset.from_dict({"puzzle_id": kept})
    return table.with_transform(_reader(boards, completions))


def _reader(boards: Boards, completions: Sequence[str | None] | None) -> Callable[[dict], dict]:
    """The function that turns row numbers into rows."""

    def read(batch: dict) -> dict:
        """Rows of a batch, each with its picture and prompt."""
        ids = batch["puzzle_id"]
        pictures = {i: Image.fromarray(boards.pixels[i]) for i in set(ids)}  # RFT asks for each board a group of times
        found = {
            "puzzle_id": ids,
            "images": [[pictures[i]] for i in ids],
            "prompt": [[{"role": "user", "content": boards.text}] for _ in ids],
            "placement": [boards.placements[i].tolist() for i in ids],
        }
        if completions is not None:
            found["completion"] = [[{"role": "assistant", "content": completions[i]}] for i in ids]
        return found

    return read


def training_row(pixels: np.ndarray, prompt: str, completion: str) -> dict[str, Any]:
    """One training sample in TRL's conversational format."""
    return {
        "images": [Image.fromarray(pixels)],
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def lazy_rows(n: int, read: Callable[[int], dict[str, Any]]) -> Dataset:
    """`n` rows that are made when they are read."""

    def several(batch: dict) -> dict:
        found = [read(i) for i in batch["row"]]
        return {name: [row[name] for row in found] for name in found[0]}

    return Dataset.from_dict({"row": range(n)}).with_transform(several)


def replay_rows(engine: Engine) -> Dataset:
    """`sft-replay`: the boards with their bare placements, and prior-task samples behind them."""
    share = float(engine.spec.settings.get("replay_share", 0.5))
    prior = prior_samples(replay_count(len(engine.boards), share), seeds.REPLAY + engine.spec.seed)
    boards, n = engine.boards, len(engine.boards)
    side = boards.pixels.shape[1:3]

    def read(i: int) -> dict[str, Any]:
        if i < n:
            return training_row(boards.pixels[i], boards.text, engine.completions[i])
        sample = prior[i - n]
        return training_row(_resized(sample.pixels, side), sample.question.text, sample.question.completion)

    return lazy_rows(n + len(prior), read)


def replay_count(boards: int, share: float) -> int:
    """How many prior samples make `share` of a corpus with `boards` boards. UserError unless 0 < share < 1."""
    if not 0 < share < 1:
        raise UserError(f"replay_share is {share}: choose a share of prior-task samples between 0 and 1.")
    return max(1, round(boards * share / (1 - share)))


def prior_samples(n: int, seed: int, tasks: Sequence[str] = ()) -> list[Any]:
    """`n` training samples of the prior tasks (all of the battery, or `tasks`), in turn; none is in the battery.

    Drawn tasks come from a seed that the battery does not use, easy-VQA from its train split.
    """
    if seed < 100:
        raise UserError(f"Seed {seed} could be the battery's: draw training samples from a seed of 100 or more.")
    names = list(tasks) or list(battery.battery_tasks())
    each = -(-n // len(names))
    drawn: list[list[Any]] = []
    for task in names:
        easy = task == "easy_vqa"
        drawn.append(easy_vqa.easy_vqa_samples("train", each, seed) if easy else battery.battery(task, each, seed))
    return [row[k] for k in range(each) for row in drawn if k < len(row)][:n]


def _resized(pixels: np.ndarray, side: tuple[int, int]) -> np.ndarray:
    """A picture at the boards' height and width: one batch holds pictures of one size."""
    if pixels.shape[:2] == side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(side[::-1], Image.Resampling.BICUBIC))


def source_completions(root: Path, spec: RunSpec) -> pd.DataFrame:
    """Every completion of a finished source run, in the order in which it was drawn."""
    folder = Path(root) / spec.source
    if not (folder / "DONE").exists():
        raise UserError(f"{folder} is not a finished run; train the source first (--retrain makes every run).")
    return pandas.read_parquet(folder / "completions.parquet")


def stream_batches(completions: pd.DataFrame, steps: int) -> list[list[tuple[int, str]]]:
    """(board, completion) pairs of steps 1 to `steps`: the correct, well-formed completions drawn at that step.

    Their order is the record's. A step without any repeats the last one that has some (the first one, at the start).
    Raises UserError where the source is shorter or nothing is correct.
    """
    if steps > completions["step"].max():
        raise UserError(f"The source drew completions for {completions['step'].max()} steps: set steps to that.")
    right = completions[(completions["exact"] == 1) & (completions["format"] == 1)]
    if right.empty:
        raise UserError("The source run has no correct completion to learn from: train it longer.")
    found: dict[int, list[tuple[int, str]]] = {}
    for row in right.itertuples():
        found.setdefault(row.step, []).append((row.puzzle_id, row.completion))
    batches, last = [], found[min(found)]
    for step in range(1, steps + 1):
        last = found.get(step, last)
        batches.append(last)
    return batches


def stream_rows(boards: Boards, batches: Sequence[Sequence[tuple[int, str]]]) -> Dataset:
    """A row per step: its first sample as columns, the rest in `others`, since a step has any number of samples."""

    def read(i: int) -> dict[str, Any]:
        samples = [training_row(boards.pixels[board], boards.text, text) for board, text in batches[i]]
        return samples[0] | {"others": samples[1:]}

    return lazy_rows(len(batches), read)
