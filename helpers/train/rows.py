"""Training samples as rows of a data set, made when they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from PIL import Image

from helpers.errors import UserError
from helpers.study.records import finished_folders, own_table, read_spec
from helpers.study.schema import is_correct
from helpers.study.spec import RunSpec
from helpers.world import battery, easy_vqa, seeds
from helpers.world.boards import Boards, Corpus, Graded, Prompted, Sample
from helpers.world.forms import ask_for, ask_text, due
from helpers.world.pictures import resized
from helpers.world.questions import PriorSample


def board_rows(boards: Boards | Graded, order: Sequence[int] | None = None) -> Dataset:
    """Boards to sample for. Columns: `images` (one PIL picture), `prompt`, `placement`, `puzzle_id`, `written`.

    `order`: the number of the board in each row, where they are not just one a row.
    """

    def read(row: int) -> dict[str, Any]:
        i = rows[row]
        facts = {"puzzle_id": i, "placement": placements[i].tolist(), "written": boards.written}
        return _asked(prompts[i]) | facts

    prompts, placements, rows = boards.prompted(), boards.placements, order or range(len(boards))
    return lazy_rows(len(rows), read)


def corpus_rows(samples: Corpus | Sequence[Sample], order: Sequence[int] | None = None) -> Dataset:
    """Samples to learn from. Columns: `images`, `prompt`, `completion`. Raises UserError where there are none.

    `order`: the number of the sample in each row, where they are not just one a row.
    """
    known = list(samples)
    if not known:
        raise UserError("No board of this corpus has a completion; sample more boards or train the source longer.")
    rows = order or range(len(known))
    return lazy_rows(len(rows), lambda row: training_row(known[rows[row]]))


def training_row(sample: Sample) -> dict[str, Any]:
    """One training sample in TRL's conversational format."""
    return _asked(sample.prompt) | {"completion": [{"role": "assistant", "content": sample.completion}]}


def _asked(prompt: Prompted) -> dict[str, Any]:
    return {"images": [Image.fromarray(prompt.pixels)], "prompt": [{"role": "user", "content": prompt.text}]}


def lazy_rows(n: int, read: Callable[[int], dict[str, Any]]) -> Dataset:
    """`n` rows that are made when they are read: pictures stay arrays until then, and nothing is encoded or decoded."""

    def several(batch: dict) -> dict:
        found = [read(i) for i in batch["row"]]
        return {name: [row[name] for row in found] for name in found[0]}

    return Dataset.from_dict({"row": range(n)}).with_transform(several)


def replayed(corpus: Corpus, share: float, spec: RunSpec) -> list[Sample]:
    """Prior-task samples that make `share` of the whole when put behind a corpus, at the size of its pictures.

    Asked, and answered, in the form that the run asks for, in which it is judged.
    """
    side = corpus.prompts[0].pixels.shape[:2]
    seed = seeds.REPLAY + spec.seed
    rng = np.random.default_rng((seeds.WORDINGS, seed))
    drawn = prior_samples(replay_count(len(corpus), share), seed)
    asked = [(s, due(ask_for(s.question, spec.asked, rng), spec.asked)) for s in drawn]
    return [Sample(Prompted(resized(s.pixels, side), q.text), q.completion, q.task) for s, q in asked]


def dream_prompts(spec: RunSpec, n: int, side: tuple[int, int]) -> list[Prompted]:
    """`n` prompts of the prior tasks, in turn, for a base to write to: none is in the battery, and none is a puzzle.

    They ask for the form that the run asks for, in which it is judged; `side`: pixels (H, W) of its boards.
    """
    seed = seeds.DREAMS + spec.seed
    rng = np.random.default_rng((seeds.WORDINGS, seed))
    drawn = prior_samples(n, seed)
    return [Prompted(resized(s.pixels, side), ask_text(s.question.text, spec.asked, rng)) for s in drawn]


def replay_count(boards: int, share: float) -> int:
    """How many prior samples make `share` of a corpus with `boards` boards. UserError unless 0 < share < 1."""
    if not 0 < share < 1:
        raise UserError(f"replay_share is {share}: choose a share of prior-task samples between 0 and 1.")
    return max(1, round(boards * share / (1 - share)))


def prior_samples(n: int, seed: int, tasks: Sequence[str] = ()) -> list[PriorSample]:
    """`n` training samples of the prior tasks (all of the battery, or `tasks`), in turn; none is in the battery.

    Drawn tasks come from a seed that the battery does not use, easy-VQA from its train split.
    """
    if seed < 100:
        raise UserError(f"Seed {seed} could be the battery's: draw training samples from a seed of 100 or more.")
    names = list(tasks) or list(battery.battery_tasks())
    each = -(-n // len(names))
    drawn: list[list[PriorSample]] = []
    for task in names:
        easy = task == "easy_vqa"
        drawn.append(easy_vqa.easy_vqa_samples("train", each, seed) if easy else battery.battery(task, each, seed))
    return [row[k] for k in range(each) for row in drawn if k < len(row)][:n]


def source_completions(root: Path, spec: RunSpec) -> pd.DataFrame:
    """Every completion of a finished source run, in the order in which it was drawn. UserError where it is none.

    Nor may the source have been taught in stages: its boards are not those of the run.
    """
    (folder,) = finished_folders(root, [spec.source])
    if read_spec(folder).easier:
        raise UserError(f"{spec.source} drew for boards of several grids: choose a source without a curriculum.")
    return own_table(folder, "completions").to_pandas()


def stream_batches(completions: pd.DataFrame, steps: int) -> list[list[tuple[int, str]]]:
    """(board, completion) pairs of steps 1 to `steps`: the correct, well-formed completions drawn at that step.

    Their order is the record's. A step without any repeats the last one that has some (the first one, at the start).
    Raises UserError where the source is shorter or nothing is correct.
    """
    if steps > completions["step"].max():
        raise UserError(f"The source drew completions for {completions['step'].max()} steps: set steps to that.")
    right = completions[is_correct(completions)]
    if right.empty:
        raise UserError("The source run has no correct completion to learn from: train it longer.")
    pairs = {s: list(zip(r["puzzle_id"], r["completion"], strict=True)) for s, r in right.groupby("step")}
    batches, last = [], pairs[min(pairs)]
    for step in range(1, steps + 1):
        last = pairs.get(step, last)
        batches.append(last)
    return batches


def stream_rows(boards: Boards, batches: Sequence[Sequence[tuple[int, str]]]) -> Dataset:
    """A row per step: its first sample as columns, the rest in `others`, since a step has any number of samples."""

    def read(i: int) -> dict[str, Any]:
        first, *others = [training_row(Sample(prompts[board], text, "stream")) for board, text in batches[i]]
        return first | {"others": others}

    prompts = boards.prompted()
    return lazy_rows(len(batches), read)
