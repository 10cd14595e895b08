"""What changes results, and by how much: `python -m tests.reproduce`; the table goes to helpers/README.md.

The same work is done in fresh processes: twice as it is, with two threads, and with the instruction sets of older kinds
of machine. What comes out is compared with the first process's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from helpers.verdicts.readme import put_between

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "helpers" / "README.md"
MARKS = ("<!-- reproducible -->", "<!-- /reproducible -->")
OLDER = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}
VARIANTS: dict[str, dict[str, str]] = {
    "the same again": {},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "torch's plainest instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "oneDNN as on AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "both: another kind of machine": OLDER,
}
STEPS = 8


def work() -> dict[str, Any]:
    """Numbers that the suite rests on, from the shipped base and a few steps of two arms."""
    from helpers.model import build, evaluate, score
    from helpers.model.generate import Sampling
    from helpers.study.records import RunStore
    from helpers.study.schema import read_table
    from helpers.study.spec import RunSpec
    from helpers.train.run import Settings, train
    from helpers.world.boards import held_out_boards
    from helpers.world.puzzles import PuzzleSpec

    build.quiet_cpu()
    base, boards = build.load(), held_out_boards(PuzzleSpec(), 64)
    drawn = score.draw(*base, boards.prompted(), Sampling(2, 1.0, 32, 0))
    given = [[text] for text in (" ".join(map(str, p)) for p in boards.placements.tolist())]
    numbers: dict[str, Any] = {
        "sampled completions (share that differs)": [one.text for row in drawn for one in row],
        "log-prob of a given completion (nats)": _sums(score.completion_logps(*base, boards.prompted(), given)),
        "the same, one prompt a pass (nats)": _sums(score.completion_logps(*base, boards.prompted(), given, chunk=1)),
        "score on the battery": [m["score"] for m in evaluate.score_battery(*base, 10).values()],
    }
    quick = Settings(puzzle_tests=16, final_tests=64, battery=2, final_battery=4, per_octave=1)
    for arm, more in {"sft-answer": {}, "rft": {"beta": 0.12}}.items():
        with tempfile.TemporaryDirectory() as folder:
            spec = RunSpec(arm, 0, STEPS, 2e-4, 16 if arm == "sft-answer" else 4, **more)
            table = read_table(train(spec, RunStore(folder), quick).folder, "metrics").to_pandas()
        for name in ("loss", "update_norm"):
            numbers[f"{name.replace('_', ' ')} of {arm}, {STEPS} steps"] = table[table["name"] == name][
                "value"
            ].tolist()
    return numbers


def _sums(rows: list) -> list[float]:
    return [float(logps.sum()) for row in rows for logps in row]


def apart(one: list, other: list) -> float:
    """Largest difference of two lists of numbers; the share that differs of two lists of texts."""
    if one and isinstance(one[0], str):
        return float(np.mean([a != b for a, b in zip(one, other, strict=True)]))
    return float(np.max(np.abs(np.subtract(one, other)))) if len(one) == len(other) else float("nan")


def done(variant: dict[str, str]) -> dict[str, Any]:
    """The work in a process of its own under some variables."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variant
    words = [sys.executable, "-m", "tests.reproduce", "--work"]
    said = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True)
    if said.returncode:
        raise RuntimeError(said.stderr[-2000:])
    return json.loads(said.stdout.splitlines()[-1])


def table() -> str:
    """Quantities in rows, variants in columns, as Markdown."""
    first, others = done({}), {name: done(variant) for name, variant in VARIANTS.items()}
    lines = ["| " + " | ".join(["largest difference", *others]) + " |", "|---" * (1 + len(others)) + "|"]
    for quantity in first:
        cells = [f"{apart(first[quantity], other[quantity]):.1g}" for other in others.values()]
        lines.append("| " + " | ".join([quantity, *cells]) + " |")
    whole, single = (first[name] for name in first if "(nats)" in name)
    lines += ["", f"One prompt a pass instead of 64 moves a log-prob by at most {apart(whole, single):.0e} nats."]
    return "\n".join(lines)


def main() -> None:
    """Do the work once, or compare and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().work:
        print(json.dumps(work()))
        return
    DOCUMENT.write_text(put_between(DOCUMENT.read_text(), MARKS, table()))


if __name__ == "__main__":
    main()
