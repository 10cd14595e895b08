"""One run, one owner; and when it goes, all that it started goes with it. Tried with real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kills import outcome
from test_processes import alive, holder, wait_for
from test_records import OTHER, SPEC, finished
from test_runner import write_notebook
from test_training import QUICK

from helpers import runner
from helpers.errors import UserError
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train.run import train

ROOT = Path(__file__).parents[1]


def test_the_same_run_started_twice_is_made_once_and_whole(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.kills", "--work", "sft"]
    more = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*words, str(tmp_path / "both")], stdout=subprocess.PIPE, **more) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    steps = [out.split().count("sft") for out, _ in told]
    assert sorted(steps) == [0, 6]  # one trained, the other waited and found it done
    assert "is in use by process" in told[steps.index(0)][1]
    subprocess.run([*words, str(tmp_path / "alone")], cwd=ROOT, env=more["env"], check=True, stdout=subprocess.DEVNULL)
    assert outcome("sft", tmp_path / "both") == outcome("sft", tmp_path / "alone")


def test_fresh_deletes_no_run_that_is_in_use(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for spec in (SPEC, OTHER):
        finished(store, spec)
    owner = holder(store.lock(SPEC.name), 60)
    (sentence,) = store.forget()
    assert sentence.startswith(f"{SPEC.name} stays as it is: {SPEC.name} is in use by process {owner.pid}")
    assert store.finished() == [SPEC] and not store.folder(OTHER).exists()
    owner.kill()
    owner.wait()
    assert store.forget() == [] and store.finished() == []


def test_a_second_batch_is_told_who_is_at_work_and_changes_nothing(tmp_path: Path, capsys) -> None:
    write_notebook(tmp_path, "00_first", "1 + 1")
    stamp = tmp_path / "out" / "cpu" / "finished" / "00_first.json"
    stamp.parent.mkdir(parents=True)
    stamp.write_text("{}")
    owner = holder(tmp_path / "out" / "cpu" / ".lock", 60)
    assert runner.main(["--fresh"], tmp_path) == 2
    assert f"is in use by process {owner.pid} since" in capsys.readouterr().err
    assert stamp.exists()
    owner.kill()
    owner.wait()


CELL = """
import subprocess, os
from helpers.processes import bound
training = subprocess.Popen(bound("sleeper"))
open("pids", "w").write(f"{os.getppid()} {os.getpid()} {training.pid}")
import time; time.sleep(120)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_notebook_kernel_and_training_end_with_the_batch_whatever_the_signal(tmp_path: Path, number: int) -> None:
    write_notebook(tmp_path, "00_first", CELL)
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(120)\n")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; from helpers import runner; "
    code += "from helpers.processes import interrupt_on_signals; interrupt_on_signals(); "
    code += f"sys.exit(runner.main(['--profile', 'smoke'], Path({str(tmp_path)!r})))"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    batch = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 3, 60)
    children = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(alive, children))
    batch.send_signal(number)
    told = batch.communicate(timeout=30)[1]
    assert batch.returncode == (-number if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or "stopped; the same command goes on from here." in told
    assert wait_for(lambda: not any(map(alive, children)))


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: Path):
    """A folder on a disk of a few megabytes, where this machine lets us mount one."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this machine mounts no small disk for a test")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_during_training_is_told_in_one_sentence_and_the_run_goes_on_later(
    small_disk: Path,
) -> None:
    spec = RunSpec("sft-answer", 0, 4, 1e-3, 2, size=32)
    with pytest.raises(UserError, match=r"the disk is full and .* was not written: free some space and run again"):
        train(spec, RunStore(small_disk), QUICK)
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    run = train(spec, RunStore(small_disk), QUICK)
    assert run.done


def test_a_full_disk_under_out_is_told_as_such(small_disk: Path, capsys) -> None:
    write_notebook(small_disk, "00_first", "'x' * 30_000_000")
    assert runner.main(["--profile", "smoke"], small_disk) in (1, 2)
    assert "the disk is full" in capsys.readouterr().err


def test_the_last_words_of_a_dead_process_are_a_reason_and_no_carets(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "Traceback (most recent call last):\n  File x\n    f(\n    ^^\nValueError: no such thing\n    ^^^^\n"
    )
    assert runner._last_words(log) == "ValueError: no such thing"
    log.write_text("OSError: [Errno 28] No space left on device: 'out/x'\n  ^^\n")
    assert runner._last_words(log) == "the disk is full: free some space and run again"
