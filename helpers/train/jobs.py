"""Training runs side by side in processes of their own; a run waits for its source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from helpers.errors import UserError
from helpers.study.arms import SOURCE_ARMS, STUDY_ARMS
from helpers.study.profiles import Profile, get_profile, specs
from helpers.study.published import PUBLISHED, publish_records, store
from helpers.study.spec import RunSpec


def ensure(profile_name: str, retrain: bool = False, arms: Sequence[str] = STUDY_ARMS, jobs: int = 2) -> list[RunSpec]:
    """Train what is missing of a profile's runs; returns the specs that were trained now.

    At `cpu` the published records stand in for runs unless `retrain` asks for new ones; `smoke` always trains.
    """
    profile = get_profile(profile_name)
    if profile_name == "cpu" and not retrain and (PUBLISHED / "specs.json").exists():
        return []
    wanted = store(profile_name).plan(specs(profile, arms))
    if wanted:
        run_all(profile, wanted, jobs)
    return wanted


def run_missing(profile: Profile, asked: Sequence[RunSpec], jobs: int) -> None:
    """Train those of the runs `asked` for that are not finished."""
    run_all(profile, store(profile.name).plan(asked), jobs)


def run_all(profile: Profile, wanted: Sequence[RunSpec], jobs: int) -> None:
    """Train runs in separate single-threaded processes, `jobs` at a time; a run waits for its source.

    Two runs with one thread each beat one with two threads: small steps do not fill two cores.
    """
    waiting, running = list(wanted), []
    while waiting or running:
        ready = [s for s in waiting if not _blocked(profile, s, waiting, [r for _, r, _ in running])]
        while ready and len(running) < jobs:
            spec = ready.pop(0)
            waiting.remove(spec)
            running.append((_launch(profile, spec), spec, time.time()))
        time.sleep(0.2)
        for process, spec, begin in [r for r in running if r[0].poll() is not None]:
            running = [r for r in running if r[1] != spec]
            print(f"{spec.name}: {(time.time() - begin) / 60:.1f} minutes", flush=True)
            if process.returncode:
                _stop(running)
                raise UserError(f"{spec.name} stopped: {_last_words(process)}")


def _blocked(profile: Profile, spec: RunSpec, waiting: Sequence[RunSpec], running: Sequence[RunSpec]) -> bool:
    """Whether the run's source is still to come."""
    return spec.arm in SOURCE_ARMS and spec.source in {s.name for s in [*waiting, *running]}


def _launch(profile: Profile, spec: RunSpec) -> subprocess.Popen:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "4294967296",  # large temporaries stay in the process: no page faults
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # and lie on large pages
    }
    command = [sys.executable, "-m", "helpers", "train", "--profile", profile.name, "--spec", spec.to_json()]
    words = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- a file, not a pipe: nobody reads while the run goes on
    process = subprocess.Popen(command, env=environment, stderr=words, stdout=subprocess.DEVNULL)
    process.words = words
    return process


def _stop(running: Sequence[tuple]) -> None:
    for process, *_ in running:
        process.terminate()


def _last_words(process: subprocess.Popen) -> str:
    """The last line a failed process wrote."""
    process.words.seek(0)
    lines = [line for line in process.words.read().splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "error" in line]
    return (named or lines or [f"exit status {process.returncode}"])[-1]


def train_first(profile: str, retrain: bool, fresh: bool) -> None:
    """Train the runs that the notebooks will read, two side by side, before the first notebook starts.

    Only where there is something to train: always at `smoke`, on request (`--retrain`) elsewhere. `--fresh` discards
    earlier runs. New `cpu` records replace the published ones.
    """
    if not (retrain or profile == "smoke"):
        return
    if fresh:
        shutil.rmtree(store(profile).root, ignore_errors=True)
    ensure(profile, retrain)
    if retrain and profile == "cpu":
        publish_records()
