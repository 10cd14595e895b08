"""Kill -9 at random moments: `python -m tests.kills --count 30 --seed 0`.

In each phase (set-up, steps of SFT, RFT and LoRA, evaluation, checkpoint, writing tables, drawing, publishing) a real
process is killed, and the next call goes on from what it left. What comes out in the end is compared, bit for bit and
times apart, with what an undisturbed process makes. Every kill is logged with what was going on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
ARMS = {"sft": ("sft-answer", {}), "rft": ("rft", {"beta": 0.1}), "lora": ("sft-answer", {"lora_rank": 2})}
PHASES = ("set-up", "sft", "rft", "lora", "evaluation", "checkpoint", "tables", "drawing", "publishing")
SPAN = {"set-up": 0.9, "sft": 0.1, "rft": 0.2, "lora": 0.1, "evaluation": 0.3, "checkpoint": 0.3, "tables": 0.08,
        "drawing": 0.3, "publishing": 0.08}  # fmt: skip
"""Seconds within which a kill falls once a phase has begun: about as long as it takes here."""
TIMES = ("seconds", "minutes", "step_time")
PAUSE = 0.02  # each write waits so long between its contents and its name, so that kills fall there too


# --- what is killed: a process that says what it is about to do -------------------------------------------


def work(kind: str, folder: Path) -> None:
    """Train, draw or publish in this process, with a line for each phase that begins."""
    _slow_writes()
    {"drawing": draw, "publishing": publish}.get(kind, lambda place: train(kind, place))(folder)


def _say(phase: str) -> None:
    print(phase, flush=True)


def _slow_writes() -> None:
    stock = os.fsync
    os.fsync = lambda number: (stock(number), time.sleep(PAUSE))


def train(kind: str, folder: Path) -> None:
    """A short run of one arm of the shipped base."""
    from transformers import TrainerCallback

    from helpers.study.records import RunStore
    from helpers.study.spec import RunSpec
    from helpers.train import recorder
    from helpers.train import run as training
    from helpers.world import battery

    class Marks(TrainerCallback):
        """Says when a step begins."""

        def on_step_begin(self, args, state, control, **kwargs):
            _say(kind)

    battery.battery_tasks = lambda: ("lists",)
    stock_make, stock_evaluate, stock_flush = training.make_trainer, training.evaluate, training.Run.flush
    stock_save = recorder.StudyCallback.on_log

    def make(engine):
        trainer = stock_make(engine)
        trainer.add_callback(Marks())
        return trainer

    def evaluate(*arguments, **options):
        _say("evaluation")
        return stock_evaluate(*arguments, **options)

    def flush(run):
        _say("tables")
        stock_flush(run)

    def on_log(callback, args, state, control, logs=None, **kwargs):
        stock_save(callback, args, state, control, logs, **kwargs)
        if control.should_save:
            _say("checkpoint")

    training.make_trainer, training.Run.flush, recorder.StudyCallback.on_log = make, flush, on_log
    training.evaluate = recorder.evaluate = evaluate
    arm, more = ARMS[kind]
    spec = RunSpec(arm=arm, seed=0, steps=6, learning_rate=1e-3, batch_size=2, group_size=4, size=32, **more)
    quick = training.Settings(puzzle_tests=3, final_tests=3, battery=2, final_battery=2, per_octave=1)
    training.train(spec, RunStore(folder), quick)


def draw(folder: Path) -> None:
    """Three figures."""
    from helpers.show.plots import learning_curves
    from helpers.show.save import savefig
    from tests.rows import evaluation

    rows = [
        evaluation(f"{arm}-{seed}-0123456789", step, "puzzle", "exact", step / 8 + seed / 100)
        for arm in ("rft", "sft-answer")
        for seed in (0, 1)
        for step in (0, 2, 4)
    ]
    for number in range(3):
        _say("drawing")
        savefig(learning_curves(pd.DataFrame(rows), "puzzle", "exact"), f"figure-{number}", folder=folder)


def publish(folder: Path) -> None:
    """The records of two finished runs, which lie beside the folder."""
    from helpers.study.published import publish
    from helpers.study.records import RunStore

    _say("publishing")
    publish(RunStore(folder.parent / "finished"), folder)


# --- what kills -------------------------------------------------------------------------------------------


def _command(kind: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command of one kind of work, and its environment."""
    if kind == "set-up":
        words = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP"))}
        return [str(folder / "run_all.sh"), "--setup-only"], words | {
            "PYTHON": str(folder / "python"),
            "PIP_SECONDS": "0.5",
        }
    return [sys.executable, "-m", "tests.kills", "--work", kind, str(folder)], os.environ | {"OMP_NUM_THREADS": "1"}


def undisturbed(kind: str, folder: Path) -> None:
    """Do the work to its end. Raises RuntimeError where it fails."""
    command, environment = _command(kind, folder)
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{kind} failed: {done.stderr[-2000:]}")


def kill(kind: str, folder: Path, phase: str, rng: np.random.Generator) -> str:
    """Start the work and kill it in a phase; what it was doing, or an empty text where it ended before."""
    command, environment = _command(kind, folder)
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wanted, marks = int(rng.integers(1, 3)) if kind in ARMS or kind == "drawing" else 1, [phase] * (kind == "set-up")
    while marks.count(phase) < wanted and (line := process.stdout.readline()):
        marks.append(line.decode().strip())
    time.sleep(rng.uniform(0, SPAN[phase]))
    ended = process.poll() is not None
    process.kill()
    # What it said between the mark and its end tells what was really going on.
    marks += [line.decode().strip() for line in process.stdout]
    process.wait()
    return "" if ended else marks[-1]


# --- what must be the same --------------------------------------------------------------------------------


def outcome(kind: str, folder: Path) -> dict[str, str]:
    """Digests of all that counts, by name: rows without times and the last weights, or every file."""
    if kind in ARMS:
        return dict(_of_run(next(folder.glob("[!.]*"))))
    top = folder / ".venv" if kind == "set-up" else folder
    files = [top / "installed.txt", top / "bin" / "jupyter"] if kind == "set-up" else top.rglob("*")
    kept = sorted(path for path in files if path.is_file() and path.suffix != ".tmp" and path.name[0] != ".")
    # A folder's own name stands in the scripts of its environment.
    return {str(path.relative_to(top)): _digest(path.read_bytes().replace(bytes(folder), b"")) for path in kept}


def _of_run(folder: Path) -> Iterator[tuple[str, str]]:
    from helpers.study.checkpoints import checkpoint_at
    from helpers.study.records import check_contents
    from helpers.study.schema import TABLES, read_table

    check_contents(folder)
    for table in TABLES:
        rows = read_table(folder, table).to_pandas()
        rows = rows[~rows["name"].isin(TIMES)] if table == "metrics" else rows
        yield table, _digest(rows.reset_index(drop=True).to_json().encode())
    for path in sorted(checkpoint_at(folder / "checkpoints").glob("*.safetensors")):
        yield path.name, _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def half_published(folder: Path, whole: dict[str, str]) -> None:
    """After a kill, what is published is what it shall be or refused, never used as it is. Raises AssertionError."""
    from helpers.errors import UserError
    from helpers.study.published import load_published, published_specs
    from helpers.study.schema import TABLES

    try:
        published_specs(folder)
        for table in TABLES:
            load_published(folder, table)
    except UserError:
        return
    assert outcome("publishing", folder) == whole


# --- the test ---------------------------------------------------------------------------------------------


def schedule(count: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Phases to be killed in, by kind of work: every phase as often as every other, up to one."""
    phases: dict[str, list[str]] = {}
    for number, phase in enumerate([PHASES[i % len(PHASES)] for i in range(count)]):
        kind = phase if phase not in ("evaluation", "checkpoint", "tables") else list(ARMS)[number // 9 % 3]
        phases.setdefault(kind, []).append(phase)
    return {kind: rng.permutation(of_kind).tolist() for kind, of_kind in phases.items()}


def prepare(kind: str, folder: Path, place: Path) -> Path:
    """An empty folder for one kind of work."""
    from tests.standin import make_clone

    shutil.rmtree(folder, ignore_errors=True)
    if kind == "set-up":
        return make_clone(folder)
    if kind == "publishing" and not (place / "finished").exists():
        for arm in ("sft", "rft"):
            shutil.copytree(place / f"{arm}-whole", place / "finished", dirs_exist_ok=True)
    return folder


def run(count: int, seed: int, place: Path, tell: Callable[[str], None] = print) -> Counter[str]:
    """Kill `count` times; how often in each phase. Raises AssertionError where anything comes out otherwise."""
    rng, kills, known = np.random.default_rng(seed), Counter(), {}
    phases = schedule(count, rng)
    for kind in [*ARMS, *sorted(phases.keys() - ARMS.keys())]:  # publishing needs two finished runs
        undisturbed(kind, prepare(kind, place / f"{kind}-whole", place))
        known[kind] = outcome(kind, place / f"{kind}-whole")
        folder = prepare(kind, place / kind, place)
        for phase in phases.get(kind, ()):
            while not (doing := kill(kind, folder, phase, rng)):
                assert outcome(kind, folder) == known[kind], f"{kind} came out otherwise after {dict(kills)}"
                prepare(kind, folder, place)
            if kind == "publishing":
                half_published(folder, known[kind])
            kills[phase] += 1
            tell(json.dumps({"kill": sum(kills.values()), "work": kind, "phase": phase, "last word": doing}))
        undisturbed(kind, folder)
        assert outcome(kind, folder) == known[kind], f"{kind} came out otherwise after {dict(kills)}"
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("out/kills"))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]))
        return
    place = options.folder.absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    print(dict(run(options.count, options.seed, place, lambda line: print(line, flush=True))))


if __name__ == "__main__":
    main()
