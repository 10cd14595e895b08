"""What came of a reader's predictions is counted in what was published."""

from __future__ import annotations

import pandas as pd

from helpers.play import predicted, tries
from helpers.play.runs import Record, Study
from helpers.study.spec import RunSpec


def record(arm: str, base: str, scores: dict[str, list[float]], rate: float = 6e-5) -> Record:
    """A run whose prior tasks have these scores at the steps 0, 8, 16."""
    spec = RunSpec("sft-answer", 3, 100, rate, 32, base=base, asked="direct")
    common = {"run": spec.name, "arm": arm, "seed": 3, "samples": 0, "n": 100}
    rows = [
        common | {"step": 8 * i, "task": task, "measure": "score", "value": value}
        for task, values in scores.items()
        for i, value in enumerate(values)
    ]
    return Record(arm, base, spec, pd.DataFrame(rows), pd.DataFrame())


def test_the_task_that_falls_by_a_tenth_first_is_named_base_by_base() -> None:
    early = record("a", "one", {"caption": [1.0, 0.8, 0.5], "colour": [1.0, 0.95, 0.1]})
    late = record("a", "two", {"caption": [1.0, 0.95, 0.85], "colour": [1.0, 0.95, 0.2]})
    kept = record("a", "three", {"caption": [1.0, 0.95, 0.95], "colour": [1.0, 1.0, 1.0]})
    other = record("a", "one", {"caption": [1.0, 1.0, 1.0], "colour": [1.0, 0.0, 0.0]}, rate=2e-4)
    said = predicted.lost_first(Study("s", "base", True, (early, late, kept, other), rate=6e-5), "a")
    assert said == "What a forgot first, of 3 bases at the rate 6e-05: caption on 1, colour on 1."


def test_every_model_is_counted_on_the_boards_that_a_reader_solves() -> None:
    said = predicted.solved()
    boards = tries.telling_boards(tries.PUZZLE, tries.DRAWN)
    for sentence, form in zip(said, dict.fromkeys(solver.asked for solver in tries.solvers()), strict=True):
        assert sentence.startswith(f"Of {len(boards.placements)} drawn boards, asked {form}: base ")
        for solver in (one for one in tries.solvers() if one.asked == form):
            texts = [attempt.score.exact for attempt in tries.published(solver, "drawn", boards)]
            assert f"{solver.name} {int(sum(texts))}" in sentence
    assert "<details>" in predicted.folded(*said).data
