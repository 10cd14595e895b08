"""Which answers flip in training, and how much a few samples of other tasks bring back."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers.measure.linear import weights_of
from helpers.measure.predictors import Sizes, mean_scores
from helpers.measure.updates import put
from helpers.model import evaluate, score
from helpers.model.build import Loaded
from helpers.progress import counted
from helpers.train import rows
from helpers.train.few import Recovery, halves, train_on_few
from helpers.world import answers, boards, seeds
from helpers.world.battery import battery_samples, battery_tasks
from helpers.world.puzzles import PuzzleSpec


def half_scores(loaded: Loaded, battery: int) -> pd.DataFrame:
    """Columns half (shown, unshown), score, likelihood, format_failure: means over the tasks of each half."""
    scores = evaluate.score_battery(*loaded, battery)
    parts = zip(("shown", "unshown"), halves(battery_tasks()), strict=True)
    return pd.DataFrame([{"half": half} | mean_scores([scores[t] for t in tasks]) for half, tasks in parts])


def recovery_table(
    tuned: Loaded, spec: PuzzleSpec, counts: Sequence[int], sizes: Sizes, how: Recovery | None = None
) -> pd.DataFrame:
    """`half_scores` after `train_on_few` with each number of samples: columns samples, exact (puzzle) and those.

    Samples come from the shown half of the prior tasks, in turn. A skill whose samples were never shown and that rises
    all the same was masked, not forgotten. The model is left as it was.
    """
    shown, _ = halves(battery_tasks())
    start, parts = weights_of(tuned[0]), []
    for n in counted(counts, "trainings"):
        put(tuned[0], start)
        train_on_few(tuned, rows.prior_samples(n, seeds.RECOVERY, shown) if n else [], how or Recovery())
        exact = evaluate.score_puzzles(*tuned, boards.held_out_boards(spec, sizes.boards))["exact"]
        parts.append(half_scores(tuned, sizes.battery).assign(samples=n, exact=exact))
    put(tuned[0], start)
    return pd.concat(parts, ignore_index=True)


def flips(before: Loaded, after: Loaded, tasks: Sequence[str], n: int) -> pd.DataFrame:
    """How the answers to `n` samples of each prior task changed: columns task, kept, lost, gained, never, n.

    Shares of samples: right before and after, right then wrong (1 to 0), wrong then right (0 to 1), wrong both
    times. An answer is right where its score is at least one half. `before`, `after`: (model, processor).
    """
    rows = []
    for task in counted(tasks, "prior tasks"):
        pairs = list(zip(_right(before, task, n), _right(after, task, n), strict=True))
        shares = [pairs.count(kind) / n for kind in ((True, True), (True, False), (False, True), (False, False))]
        rows.append((task, *shares, n))
    return pd.DataFrame(rows, columns=["task", "kept", "lost", "gained", "never", "n"])


def _right(model: Loaded, task: str, n: int) -> list[bool]:
    samples = battery_samples(task, n)
    prompts = [boards.Prompted(s.pixels, s.question.text) for s in samples]
    texts = [row[0] for row in score.complete(*model, prompts)]
    return [answers.score_answer(t, s.question) >= 0.5 for t, s in zip(texts, samples, strict=True)]
