"""Peak memory of each notebook and arm: `python -m tests.memory`; the table goes to helpers/README.md.

Everything is measured at the `cpu` profile: an arm's first steps with its whole evaluation, in the process that a run
has to itself; two of RFT side by side; each notebook with all the processes that it starts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from helpers import runner
from helpers.study.profiles import get_profile, specs
from helpers.study.records import RunStore
from helpers.verdicts.readme import put_between

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "helpers" / "README.md"
MARKS = ("<!-- memory -->", "<!-- /memory -->")
POLL_SECONDS = 0.05
STEPS = 3


def work(arm: str) -> None:
    """The first steps of one arm at the study's size, on bare answers where another run would have to feed it."""
    from helpers.train.corpora import answer_completions
    from helpers.train.run import make_trainer, prepare
    from helpers.train.settings import settings
    from helpers.world.boards import training_boards

    profile = get_profile("cpu")
    spec = replace(next(s for s in specs(profile, [arm]) if s.arm == arm), steps=STEPS * bool(arm != "base"))
    boards = training_boards(profile.puzzle, 256, spec.seed)
    corpus = boards.corpus(arm, answer_completions(boards)) if spec.source else None
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        make_trainer(prepare(spec, store, store.start(spec), settings(profile), corpus)).train()


def peak(processes: list[subprocess.Popen]) -> float:
    """Largest sum of resident memory, in GiB, of processes and all that they start, until they end."""
    most, known = 0.0, [psutil.Process(process.pid) for process in processes]
    while any(process.poll() is None for process in processes):
        most = max(most, sum(map(_resident, known)))
        time.sleep(POLL_SECONDS)
    failed = [process for process in processes if process.returncode]
    if failed:
        raise RuntimeError(f"{failed[0].args} failed with status {failed[0].returncode}")
    return most / 2**30


def _resident(process: psutil.Process) -> int:
    try:
        family = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in family if one.is_running())
    except psutil.Error:  # it ended while it was being asked
        return 0


def start(words: list[str], **more: str) -> subprocess.Popen:
    """A process whose words are not wanted."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"} | more, **quiet)


def measured() -> list[tuple[str, float]]:
    """(what, peak in GiB) of every arm of the study, of two runs side by side, and of every notebook."""
    run = [sys.executable, "-m", "tests.memory", "--work"]
    rows = [(f"arm `{arm}`", peak([start([*run, arm])])) for arm in get_profile("cpu").study_arms if arm != "base"]
    rows.append(("two runs of `rft` side by side", peak([start([*run, "rft"]), start([*run, "rft"])])))
    with tempfile.TemporaryDirectory() as folder:
        for task in runner.plan(ROOT, runner.parse([])):
            words = [word if word != str(task.copy) else f"{folder}/copy.ipynb" for word in runner.command(task)]
            words = ["out/figures" if word == "figures" else word for word in words]
            rows.append(
                (f"notebook `{task.name}`", peak([start(words, **runner.environment(task) | {"JIGSAW_PUBLISH": "0"})]))
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    lines = ["| what, at the `cpu` profile | peak (GiB) |", "|---|---|"]
    lines += [f"| {what} | {gib:.2f} |" for what, gib in measured()]
    DOCUMENT.write_text(put_between(DOCUMENT.read_text(), MARKS, "\n".join(lines)))


if __name__ == "__main__":
    main()
