"""The study as a whole: which runs it needs, training those that are missing, and loading the records.

`python -m helpers.study --profile cpu` trains every missing run (two side by side) and publishes the records.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import UserError
from helpers.profiles import SOURCE_ARMS, Profile, RunSpec, get_profile, specs
from helpers.records import RunStore, as_published, load_published, publish

if TYPE_CHECKING:
    import pandas

    from helpers.training import Settings

STUDY_ARMS = ("base", "rft", "sft-answer", "sft-expert", "sft-rollout", "sft-self")
PUBLISHED = Path("figures/records")


def store(profile: str) -> RunStore:
    """Where a profile's runs live: `runs/<profile>`."""
    return RunStore(Path("runs") / profile)


def settings(profile: Profile) -> Settings:
    """Evaluation settings of a profile."""
    from helpers.training import Settings as Evaluation

    return Evaluation(
        puzzle_tests=profile.puzzle_test_size // 4,
        final_tests=profile.puzzle_test_size,
        battery=profile.battery_per_task,
        final_battery=profile.battery_per_task,
        per_octave=2,
    )


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


def table(profile_name: str, name: str) -> pandas.DataFrame:
    """One table (`evaluations`, `metrics`, `completions`, `probes`) of all runs of a profile.

    Runs made on this machine come first, as they would be published; without any, `cpu` falls back on the published
    records. Raises UserError where there are neither.
    """
    folder = store(profile_name).root
    if folder.is_dir() and any(folder.glob("*/DONE")):
        wanted = {s.name for s in specs(get_profile(profile_name), STUDY_ARMS)}
        if {p.parent.name for p in folder.glob("*/DONE")} >= wanted:
            return as_published(store(profile_name), name, wanted)
    if profile_name == "cpu" and (PUBLISHED / "specs.json").exists():
        return load_published(PUBLISHED, name)
    raise UserError(f"There are no records for profile {profile_name}; make them with ./run_all.sh --retrain.")


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
    command = [sys.executable, "-m", "helpers.study", "--profile", profile.name, "--spec", spec.to_json()]
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


def publish_records(profile_name: str = "cpu", destination: Path = PUBLISHED) -> list[Path]:
    """Copy the small tables of a profile's finished study to where a fresh clone finds them.

    Only runs of the study as its profile is now: controls and runs of earlier settings lie in the same folder.
    """
    wanted = [spec.name for spec in specs(get_profile(profile_name), STUDY_ARMS)]
    return publish(store(profile_name), destination, names=wanted)


def main(arguments: list[str] | None = None) -> None:
    """Command line; one sentence instead of a traceback for everything a user can mend."""
    parser = argparse.ArgumentParser(prog="python -m helpers.study", description="Train the runs of the study.")
    parser.add_argument("--profile", default="cpu", choices=("smoke", "cpu", "gpu"))
    parser.add_argument("--arms", nargs="*", default=list(STUDY_ARMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=None, help="some of the profile's seeds")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    parser.add_argument("--publish", action="store_true", help="also write figures/records")
    options = parser.parse_args(arguments)
    profile = get_profile(options.profile)
    if options.spec:
        from helpers.training import train

        train(RunSpec.from_json(options.spec), store(options.profile), settings(profile))
        return
    chosen = set(profile.seeds if options.seeds is None else options.seeds)
    asked = [spec for spec in specs(profile, options.arms) if spec.seed in chosen or spec.arm == "base"]
    wanted = store(options.profile).plan(asked)  # there is one base, whatever the seeds
    run_all(profile, wanted, options.jobs)
    if options.publish:
        publish_records(options.profile)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
