"""What came of a reader's predictions, folded away until it is opened; every number is counted in the records."""

from __future__ import annotations

from collections import Counter

from IPython.display import Markdown

from helpers.play import tries
from helpers.play.runs import Record, Study

FALLEN = 0.1  # of a task's score: then it has begun to be forgotten


def folded(*sentences: str) -> Markdown:
    """Sentences under a heading that opens on a click."""
    items = "\n".join(f"* {sentence}" for sentence in sentences)
    return Markdown(f"<details><summary>What came of it</summary>\n\n{items}\n\n</details>")


def solved() -> list[str]:
    """How many of the drawn boards that one can solve by hand each model solves, a sentence for each form asked."""
    boards = tries.telling_boards(tries.PUZZLE, tries.DRAWN)
    said: dict[str, list[str]] = {}
    for solver in tries.solvers():
        right = sum(attempt.score.exact == 1 for attempt in tries.published(solver, "drawn", boards))
        said.setdefault(solver.asked, []).append(f"{solver.name} {right}")
    n = len(boards.placements)
    guess = f"a guess solves {n / tries.PUZZLE.n_placements:.1f} of them"
    return [f"Of {n} drawn boards, asked {form}: {', '.join(counts)} ({guess})." for form, counts in said.items()]


def lost_first(study: Study, arm: str) -> str:
    """Which prior task an arm's runs begin to forget first, base by base: the first that falls by a tenth."""
    runs = [record for record in study.records if record.arm == arm and record.spec.learning_rate == study.rate]
    found = Counter(task for record in runs if (task := _first_lost(record)))
    words = [f"{task.replace('_', ' ')} on {n}" for task, n in found.most_common()]
    return f"What {arm} forgot first, of {len(runs)} bases at the rate {study.rate:g}: {', '.join(words) or 'nothing'}."


def _first_lost(record: Record) -> str:
    """The task whose score is the first to fall by `FALLEN`; of several at one evaluation the one that falls most."""
    fallen = record.prior.iloc[0] - record.prior
    steps = fallen.index[(fallen >= FALLEN).any(axis=1)]
    return str(fallen.loc[steps[0]].idxmax()) if len(steps) else ""
