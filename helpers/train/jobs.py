"""Training runs side by side in processes of their own; a run waits for those that it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

from helpers.errors import UserError
from helpers.processes import bound, owner, stop
from helpers.progress import Count, counting
from helpers.study import cells
from helpers.study.profiles import FAIR, Profile, get_profile, specs
from helpers.study.published import PUBLISHED, publish_records, store
from helpers.study.spec import RunSpec, whole_number
from helpers.train import forecast


def ensure(profile_name: str, retrain: bool = False, arms: Sequence[str] = (), jobs: int = 2) -> list[RunSpec]:
    """Train what is missing of a profile's runs, of some arms or of its study; returns the specs trained now.

    At `cpu` the published records stand in for runs unless `retrain` asks for new ones; `smoke` always trains. Raises
    UserError for an arm that the profile lacks, and where a run fails.
    """
    profile = get_profile(profile_name)
    asked = specs(profile, arms or profile.study_arms)
    if profile_name == "cpu" and not retrain and (PUBLISHED / "specs.json").exists():
        return []
    wanted = store(profile).plan(asked)
    run_missing(profile, wanted, jobs)
    return wanted


def run_missing(profile: Profile, asked: Sequence[RunSpec], jobs: int = 2, keep_going: bool = False) -> list[str]:
    """Train those of the runs `asked` for that are not finished, `jobs` at a time.

    Raises UserError for the first run that fails or whose source is neither finished nor asked for; with `keep_going`
    the others are trained, and a sentence for each that could not be is returned.
    """
    kept = store(profile)
    wanted = kept.plan(asked)
    there = {spec.name for spec in [*wanted, *(kept.finished() if kept.root.is_dir() else ())]}
    trouble = [_left_out(spec, spec.needs - there) for spec in wanted if spec.needs - there]
    if trouble and not keep_going:
        raise UserError(f"{trouble[0]} Train that run first, or name its arm too.")
    ready = [spec for spec in wanted if spec.needs <= there]
    if ready and profile != FAIR:
        print(forecast.sentence(ready, min(jobs, len(ready))), flush=True)
    return trouble + run_all(profile, ready, jobs, keep_going)


def train_cells(stems: Sequence[int], names: Sequence[str], jobs: int = 2) -> list[str]:
    """Train what is missing of cells on the bases of stems, base by base; each run is published when it is finished.

    Returns a sentence for each run that could not be trained.
    """
    said: list[str] = []
    for stem in stems:
        wanted = [spec for spec in cells.specs([stem], names) if not cells.is_published(spec)]
        said += run_missing(FAIR, wanted, jobs, keep_going=True)
    return said


def _left_out(spec: RunSpec, missing: Collection[str]) -> str:
    return f"{spec.name} was left out: it needs {' and '.join(sorted(missing))}, not finished."


def run_all(profile: Profile, wanted: Sequence[RunSpec], jobs: int, keep_going: bool = False) -> list[str]:
    """Train runs in separate single-threaded processes, `jobs` at a time; a run waits for those it needs.

    Whoever stops it stops the processes; what is finished stays.

    Two runs with one thread each beat one with two threads: small steps do not fill two cores. Raises UserError for
    the first run that fails, or with `keep_going` returns a sentence for each that failed or waited for one that did.
    """
    whole_number("jobs", jobs, 1)
    with counting(len(wanted), "runs") as count:
        return _run_all(profile, wanted, jobs, keep_going, count)


def _run_all(profile: Profile, wanted: Sequence[RunSpec], jobs: int, keep_going: bool, count: Count) -> list[str]:
    named = {spec.name: spec for spec in wanted}
    order = TopologicalSorter({name: spec.needs & named.keys() for name, spec in named.items()})
    order.prepare()
    left, ready, running, trouble, failed = dict(named), list(order.get_ready()), {}, [], set()
    try:
        while ready or running:
            while ready and len(running) < jobs:
                name = ready.pop(0)
                if busy := owner(store(profile).lock(name)):
                    print(f"{name} is being made by {busy}; waiting for it to end.", flush=True)
                running[name] = launch(profile, left.pop(name)), time.time()
            time.sleep(0.2)
            for name in [name for name, (process, _) in running.items() if process.poll() is not None]:
                process, begin = running.pop(name)
                count.step()
                print(
                    *_sentences(process, name),
                    f"{name}: {(time.time() - begin) / 60:.1f} minutes",
                    sep="\n",
                    flush=True,
                )
                if process.returncode:
                    failed.add(name)
                    trouble.append(f"{name} stopped: {last_words(process)}")
                    if not keep_going:
                        raise UserError(trouble[-1])
                else:
                    order.done(name)
                    # the order asked for, in which seeds are completed one by one, holds among those that can start
                    ready = sorted([*ready, *order.get_ready()], key=list(named).index)
    finally:
        stop([process for process, _ in running.values()])
    return trouble + [_left_out(spec, spec.needs & (failed | left.keys())) for spec in left.values()]


def launch(profile: Profile, spec: RunSpec, apart: bool = False) -> subprocess.Popen:
    """Start a run in a process of its own, which ends when this one does; what it says is kept for `last_words`.

    `apart`: an interrupt that is meant for this process, or for a cell of its notebook, does not reach it.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "4294967296",  # large temporaries stay in the process: no page faults
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # and lie on large pages
    }
    command = [*bound("helpers"), "train", "--profile", profile.name, "--spec", spec.to_json()]
    words = tempfile.TemporaryFile("a+")  # noqa: SIM115 -- a file, not a pipe, which fills up; at its end, wherever it is being read
    streams = {"stderr": words, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, start_new_session=apart, **streams)
    process.words = words
    return process


def _sentences(process: subprocess.Popen, name: str) -> list[str]:
    """What a process said of its run: that something was set aside. That it waits was said when it began to."""
    return [line for line in _lines(process) if line.startswith(f"{name}: ")]


def last_words(process: subprocess.Popen) -> str:
    """The last line a failed process wrote."""
    return (_lines(process) or [f"exit status {process.returncode}"])[-1]


def _lines(process: subprocess.Popen) -> list[str]:
    process.words.seek(0)
    return [line for line in process.words.read().splitlines() if line.strip()]


def train_first(profile: str, retrain: bool, fresh: bool) -> None:
    """Train the runs that the notebooks will read, two side by side, before the first notebook starts.

    `--fresh` discards earlier runs, but none that another process is at work on. New `cpu` records replace the
    published ones.
    """
    if fresh:
        for kept in store(get_profile(profile)).forget():
            print(kept, flush=True)
        for measured in ("controls", "probes"):  # of weights that are gone
            shutil.rmtree(Path("runs") / f"{profile}-{measured}", ignore_errors=True)
    ensure(profile, retrain)
    if retrain and profile == "cpu":
        publish_records()
