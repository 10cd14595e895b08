"""Locks that die with their owner, children that die with their parent: tried with real processes and signals."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import processes
from helpers.errors import UserError
from helpers.processes import Busy, in_use, owned, owner

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from helpers.processes import owned
with owned(Path(sys.argv[1]), "the run"):
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(lock: Path, seconds: float) -> subprocess.Popen:
    """A process that owns a lock for some seconds; returns once it does."""
    command = [sys.executable, "-c", HOLD, str(lock), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout.readline() == "mine\n"
    return process


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether a condition comes true in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie, which nobody has waited for, does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_second_is_told_who_has_it_and_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "run"
    process = holder(lock, 60)
    says = rf"the run is in use by process {process.pid} since \d\d:\d\d: wait"
    with pytest.raises(Busy, match=says), owned(lock, "the run"):
        raise AssertionError
    assert owner(lock).startswith(f"process {process.pid} since")
    process.kill()  # nothing of its own could clean up
    process.wait()
    with owned(lock, "the run"):
        pass
    assert owner(lock) == ""


def test_asking_who_owns_it_disturbs_nobody_and_a_reader_keeps_owners_out(tmp_path: Path) -> None:
    lock = tmp_path / "run"
    with owned(lock, "the run"):
        assert lock.read_text().startswith(f"process {os.getpid()} since")
    assert owner(lock) == "" and lock.read_text() == "" and owner(tmp_path / "none") == ""
    lock.write_text("process 999999999 since 00:00")  # left by one that was killed
    assert not (tmp_path / "none").exists()
    with in_use(lock, "the run"):
        with in_use(lock, "the run"):  # readers do not keep each other out
            pass
        with pytest.raises(Busy, match="in use by another process"), owned(lock, "the run"):
            raise AssertionError


def test_a_lock_that_cannot_be_made_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"), owned(tmp_path / "file" / "lock", "the run"):
        raise AssertionError

    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(processes.fcntl, "flock", refuse)
    with owned(tmp_path / "lock", "the run"):  # a network disk without locks: the run goes on alone
        assert owner(tmp_path / "lock") == ""


def test_who_waits_says_so_and_goes_on_when_it_is_free(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    process = holder(tmp_path / "run", 1.0)
    with owned(tmp_path / "run", "the run", wait=True):
        assert process.wait() == 0
    assert f"the run is in use by process {process.pid}" in capsys.readouterr().err


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), owned(tmp_path / "run", "the run"):
            raise ValueError("inside")


PARENT = """
import subprocess, sys, time
from helpers.processes import bound
child = subprocess.Popen([*bound("sleeper")])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_bound_child_ends_with_its_parent_whatever_the_signal(tmp_path: Path, number: int) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", PARENT]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.send_signal(number)
    parent.wait()
    assert wait_for(lambda: not alive(child))


def test_a_bound_child_gets_its_words_and_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text("import sys\nprint(sys.argv[1:], __name__)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*processes.bound("words"), "a", "b c"], env=environment, capture_output=True, text=True)
    assert done.stdout == "['a', 'b c'] __main__\n" and done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt_unless_they_were_ignored_from_the_start(number: int) -> None:
    code = "import signal, sys, time\n"
    code += "signal.signal(int(sys.argv[1]), signal.SIG_IGN) if sys.argv[2] == 'nohup' else None\n"
    code += "from helpers.processes import interrupt_on_signals\ninterrupt_on_signals()\n"
    code += "try:\n print(1, flush=True); time.sleep(1.0)\nexcept KeyboardInterrupt: sys.exit(9)\n"
    for how, status in (("", 9), ("nohup", 0)):
        words = [sys.executable, "-c", code, str(int(number)), how]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as process:
            process.stdout.readline()
            process.send_signal(number)
        assert process.returncode == status
