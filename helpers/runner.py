"""Executes the notebooks, each in a process of its own; `./run_all.sh` is the way in.

Nothing outside the standard library is imported here, so options can be checked before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from helpers.errors import UserError
from helpers.files import DamagedFile, json_bytes, read_json, write_file
from helpers.processes import bound, interrupt_on_signals, owned, stop

PROFILES = {
    "smoke": "seconds per notebook, to see that all of it runs; published figures stay as they are",
    "cpu": "the whole study on two CPU cores",
    "gpu": "Qwen2.5-VL-3B/7B on one GPU",
}


POLL_SECONDS = 0.1
LEAST_FREE = 1 << 16  # bytes on a disk below which nothing more can be told of an error
SAY_SECONDS = 20.0  # between two lines on where a notebook is
READ = (".py", ".toml", ".csv", ".md")  # code, claims, marks of bases, texts: what notebooks show of helpers/


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    profile: str
    only: tuple[str, ...]
    fresh: bool
    retrain: bool
    jobs: int
    check: bool


@dataclass(frozen=True)
class Task:
    """One notebook to execute with one set of parameters; paths below `root`, the repository's root."""

    source: Path
    root: Path
    profile: str
    retrain: bool

    @property
    def name(self) -> str:
        """The notebook's file name without its ending."""
        return self.source.stem

    @property
    def copy(self) -> Path:
        """Where the executed notebook goes."""
        return self.root / "out" / self.profile / f"{self.name}.ipynb"

    @property
    def log(self) -> Path:
        """What the executing process printed."""
        return self.copy.parent / "logs" / f"{self.name}.log"

    @property
    def pulse(self) -> Path:
        """Where the notebook says what its present cell is at (`helpers.show.watch`)."""
        return self.log.with_suffix(".now")

    @property
    def stamp(self) -> Path:
        """The file that exists only once the notebook has finished."""
        return self.copy.parent / "finished" / f"{self.name}.json"

    @property
    def parameters(self) -> dict[str, Any]:
        """What goes into the cell tagged `parameters`."""
        figures = "figures" if self.profile == "cpu" else f"out/{self.profile}/figures"
        return {"PROFILE": self.profile, "RETRAIN": self.retrain, "FIGURES": figures}


@dataclass
class Running:
    """A task under way: its process, and the digest of what went in when it started."""

    task: Task
    process: subprocess.Popen
    digest: str
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)


class _Parser(argparse.ArgumentParser):
    """Tells a wrong option in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; ./run_all.sh --help lists the options.")


def _jobs(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    profiles = "".join(f"\n  {name:<7} {text}" for name, text in PROFILES.items())
    parser = _Parser(
        prog="./run_all.sh",
        description="Sets up .venv when needed and executes the notebooks in order.\n"
        "What finished earlier and has not changed since is not executed again.",
        epilog=f"profiles:{profiles}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", default="cpu", choices=tuple(PROFILES), help="how much to compute (default: cpu)")
    add("--only", action="append", default=[], metavar="05", help="this notebook alone; may be repeated")
    add("--fresh", action="store_true", help="execute again what had finished")
    add("--retrain", action="store_true", help="make every record anew from the base checkpoint")
    add("--jobs", type=_jobs, default=1, metavar="N", help="notebooks side by side (default: 1)")
    add("--setup-only", action="store_true", help="set up .venv and stop; goes with no other option")
    add("--check", action="store_true", help=argparse.SUPPRESS)
    return parser


def parse(argv: list[str]) -> Options:
    """Options from command-line words; raises UserError on a wrong one."""
    found = vars(_parser().parse_args(argv))
    if found.pop("setup_only"):
        raise UserError("--setup-only goes with no other option and belongs to ./run_all.sh.")
    return Options(**{**found, "only": tuple(found["only"])})


def select(names: list[str], only: tuple[str, ...]) -> list[str]:
    """The notebooks that `only` names by their start ("05", "a1") or in full; all of them when it is empty.

    Raises UserError when a word names none.
    """
    chosen = set() if only else set(names)
    for word in only:
        start = Path(word).name.removesuffix(".ipynb").lower()
        found = [name for name in names if start and name.lower().startswith(start)]
        if not found:
            raise UserError(f"no notebook is called '{word}'; there are {', '.join(names)}.")
        chosen.update(found)
    return sorted(chosen)


def plan(root: Path, options: Options) -> list[Task]:
    """The tasks to do, in the order of the notebooks' names; raises UserError when there are none."""
    names = sorted(path.stem for path in (root / "notebooks").glob("[!.]*.ipynb"))
    if not names:
        raise UserError(f"no notebooks in {root / 'notebooks'}; start this from the repository's root.")
    chosen = select(names, options.only)
    folder = root / "notebooks"
    return [Task(folder / f"{name}.ipynb", root, options.profile, options.retrain) for name in chosen]


def _notebook(path: Path) -> dict[str, Any]:
    try:
        notebook = read_json(path)
        return notebook | {"cells": list(notebook["cells"])}
    except (DamagedFile, KeyError, TypeError):
        raise UserError(f"{path.name} is not a notebook that can be read; restore it from git.") from None


def _text(cell: dict[str, Any]) -> str:
    return "".join(cell.get("source", ""))


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def digest(task: Task) -> str:
    """A hash of all that decides what a notebook shows: its cells, its parameters, the helpers, the records.

    Outputs saved in the notebook do not count. With `retrain` the records are results, so they do not either.
    """
    cells = [[cell.get("cell_type"), _tags(cell), _text(cell)] for cell in _notebook(task.source)["cells"]]
    total = hashlib.sha256(json.dumps([cells, task.parameters]).encode())
    files = [path for path in (task.root / "helpers").rglob("*") if path.suffix in READ]
    if not task.retrain:
        files += [path for path in (task.root / "figures" / "records").rglob("*") if path.is_file()]
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(task.root)} {content}\n".encode())
    return total.hexdigest()


def figure_files(task: Task) -> list[str]:
    """Files, relative to the root, of the figures that the manifest says this notebook made."""
    folder = Path(task.parameters["FIGURES"])
    try:
        manifest = read_json(task.root / folder / "manifest.json")
        own = [entry["files"] for entry in manifest.values() if entry.get("notebook") == task.name]
    except (DamagedFile, KeyError, TypeError, AttributeError):
        return []
    return sorted(str(folder / file) for files in own for file in files)


def write_stamp(task: Task, key: str) -> None:
    """Note that `task` finished with inputs of digest `key`, and which figures it left."""
    write_file(task.stamp, json_bytes({"digest": key, "figures": figure_files(task)}))


def is_finished(task: Task, key: str) -> bool:
    """Whether `task` finished with the same inputs and its copy and figures are still there."""
    try:
        stamp = read_json(task.stamp)
        kept, figures = stamp["digest"], set(stamp["figures"])
    except (DamagedFile, KeyError, TypeError):
        return False
    left = [task.root / file for file in figures.union(figure_files(task))]
    return kept == key and all(path.is_file() for path in [task.copy, *left])


def command(task: Task) -> list[str]:
    """The command that executes one notebook with papermill, under this very interpreter."""
    words = [*bound("papermill"), str(task.source), str(task.copy)]
    words += ["--kernel", "python3", "--language", "python", "--start-timeout", "300"]
    # What cells print is in the log as it comes: a notebook that hangs says where.
    words += ["--cwd", str(task.root), "--no-progress-bar", "--log-output", "--log-level", "INFO"]
    for name, value in task.parameters.items():
        # Raw parameters are strings; the others are read as Python values.
        words += ["-p" if isinstance(value, bool) else "-r", name, str(value)]
    return words


def _before(path: Path, variable: str) -> str:
    return os.pathsep.join(filter(None, [str(path), os.environ.get(variable)]))


def environment(task: Task) -> dict[str, str]:
    """Environment of the notebook's process: this venv's kernel, one thread, no network below `gpu`."""
    found = dict(os.environ)
    # A kernel must find its own inline backend, whatever the caller's plots use.
    found.pop("MPLBACKEND", None)
    found["PYTHONPATH"] = _before(task.root, "PYTHONPATH")
    # Comes before the user's own kernels, which may belong to another Python.
    found["JUPYTER_PATH"] = _before(Path(sys.prefix) / "share" / "jupyter", "JUPYTER_PATH")
    # Figures note in the manifest which notebook made them.
    found.update(JIGSAW_NOTEBOOK=task.name, JIGSAW_STATIC="1", JIGSAW_PULSE=str(task.pulse))
    # The one way to the published figures: `helpers.lab` sends every other notebook's to out/.
    found["JIGSAW_PUBLISH"] = "1" if task.profile == "cpu" else "0"
    found.update(TOKENIZERS_PARALLELISM="false", PYDEVD_DISABLE_FILE_VALIDATION="1")
    # glibc gives large temporaries back to the system at once; page faults then take half of the time.
    for variable in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        found.setdefault(variable, str(2**30))
    if task.profile != "gpu":
        found["HF_HUB_OFFLINE"] = "1"
        # With two threads any other busy process makes every parallel region wait.
        found.setdefault("OMP_NUM_THREADS", "1")
    return found


def start(task: Task, key: str) -> Running:
    """Start one notebook; what it left earlier is forgotten."""
    for path in (task.stamp, task.copy, task.pulse):
        path.unlink(missing_ok=True)
    for path in (task.copy, task.log):
        path.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("wb") as log:
        # A session of its own: Ctrl-C reaches this process only, which then stops the others in order.
        process = subprocess.Popen(
            command(task),
            cwd=task.root,
            env=environment(task),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(task, process, key)


def _one_line(text: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def _cell_error(cell: dict[str, Any]) -> str:
    """ "Type: message" of a failed cell, empty when it left no error."""
    for output in cell.get("outputs", []):
        if output.get("output_type") == "error":
            return _one_line(f"{output['ename']}: {output['evalue']}")
    return ""


def _failed_cell(copy: Path) -> tuple[int, dict[str, Any]] | None:
    """The last code cell that was started, and its number among the notebook's own code cells.

    Papermill marks a cell as completed even when its kernel died, so its status would not do.
    """
    try:
        cells = _notebook(copy)["cells"]
    except UserError:
        return None
    own = [c for c in cells if c.get("cell_type") == "code" and "injected-parameters" not in _tags(c)]
    begun = [n for n, cell in enumerate(own) if cell["metadata"].get("papermill", {}).get("start_time")]
    return (begun[-1] + 1, own[begun[-1]]) if begun else None


def _last_words(log: Path) -> str:
    """What a dead process said last that says something: in a log, lines of carets and of code are no reason."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit|Killed)\b", line)]
    # A full disk may have had no room for its own error.
    full = not told and shutil.disk_usage(log.parent).free < LEAST_FREE
    if full or any("[Errno 28]" in line or "No space left" in line for line in lines):
        return "the disk is full: free some space and run again"
    return _one_line((told or lines)[-1]) if lines else "its process ended without a word"


def explain(task: Task) -> str:
    """One sentence on why a notebook failed: the cell, its first line, the error, where to look."""
    found = _failed_cell(task.copy)
    if found is None:
        log = task.log.relative_to(task.root)
        return f"{task.name} failed before its first cell: {_last_words(task.log)} (log: {log})"
    number, cell = found
    error = _cell_error(cell) or _last_words(task.log)
    where = f"{task.name} failed in code cell {number} (`{_one_line(_text(cell))}`)"
    return f"{where}: {error} (partial copy: {task.copy.relative_to(task.root)})"


def _report(task: Task, minutes: float, outcome: str) -> None:
    print(f"{task.name:<28} {minutes:6.1f} min  {outcome}", flush=True)


def _say_where(one: Running) -> None:
    """Every so often a line on the cell that a notebook is at, where that cell takes long."""
    if time.monotonic() - one.said < SAY_SECONDS:
        return
    one.said = time.monotonic()
    try:
        said = one.task.pulse.read_text(encoding="utf-8").strip()
    except OSError:
        said = ""
    if said:
        print(f"{one.task.name:<28} {(one.said - one.started) / 60:6.1f} min  at {said}", flush=True)


def _start_next(waiting: list[Task]) -> Iterator[Running]:
    """Start the first waiting task that has not finished earlier, if any."""
    while waiting:
        task = waiting.pop(0)
        key = digest(task)
        if not is_finished(task, key):
            yield start(task, key)
            return
        _report(task, 0.0, "finished earlier")


def _collect(one: Running) -> bool:
    """Report an ended task and stamp it when it succeeded, which is what is returned."""
    succeeded = one.process.returncode == 0
    if succeeded:
        write_stamp(one.task, one.digest)
    _report(one.task, (time.monotonic() - one.started) / 60, "ok" if succeeded else "failed")
    return succeeded


def execute(tasks: list[Task], jobs: int) -> list[Task]:
    """Execute `tasks` in order, at most `jobs` at once; returns the failed ones.

    After a failure nothing new is started; on Ctrl-C what is under way is stopped.
    """
    waiting, running, failed = list(tasks), [], []
    try:
        while running or (waiting and not failed):
            if not failed and len(running) < jobs:
                running += _start_next(waiting)
            ended = [one for one in running if one.process.poll() is not None]
            running = [one for one in running if one not in ended]
            for one in running:
                _say_where(one)
            failed += [one.task for one in ended if not _collect(one)]
            time.sleep(0 if ended else POLL_SECONDS)
    finally:
        stop([one.process for one in running], groups=True)
    return failed


def _closing(task: Task) -> str:
    figures, copies = task.parameters["FIGURES"], task.copy.parent.relative_to(task.root)
    return (
        f"Figures: {figures}/   executed notebooks: {copies}/   "
        "to explore: .venv/bin/jupyter lab notebooks   (--fresh executes all again)"
    )


def _run(argv: list[str], root: Path, train: Callable[[Options], None] | None) -> int:
    options = parse(argv)
    tasks = plan(root, options)
    if options.check:
        return 0
    if importlib.util.find_spec("papermill") is None:
        raise UserError("papermill is not installed for this Python; start the notebooks with ./run_all.sh.")
    # Two at once would each delete what the other has just made.
    with owned(root / "out" / options.profile / ".lock", f"{root / 'out' / options.profile}"):
        if options.fresh:
            for task in tasks:
                task.stamp.unlink(missing_ok=True)
        if train is not None:
            train(options)
        failed = execute(tasks, options.jobs)
    for task in failed:
        print(f"run_all.sh: {explain(task)}", file=sys.stderr)
    print(_closing(tasks[0]), flush=True)
    return 1 if failed else 0


def main(argv: list[str], root: Path, train: Callable[[Options], None] | None = None) -> int:
    """Do what the command line asks in the repository at `root`; returns the exit status.

    `train` makes the records that the notebooks will read, where there is something to train.

    0: all finished. 1: a notebook failed. 2: a wrong option, or a file that cannot be written. 130: interrupted.
    Never a traceback.
    """
    try:
        return _run(argv, root, train)
    except UserError as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrun_all.sh: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    except Exception as error:  # the person at the keyboard gets a sentence, whatever went wrong
        print(f"run_all.sh: {type(error).__name__}: {_one_line(str(error))}", file=sys.stderr)
        return 1


if __name__ == "__main__":  # with the standard library alone: run_all.sh looks at its options before any set-up
    interrupt_on_signals()
    sys.exit(main(sys.argv[1:], Path.cwd()))
