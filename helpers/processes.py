"""Processes that keep out of each other's way: locks that die with their owner, children that die with their parent."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TextIO

from helpers.errors import UserError
from helpers.files import write_trouble

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0  # what a stopped process has left to end by itself
ORPHANED = 143  # exit status of a process that ended because its parent had


class Busy(UserError):
    """Another process is at work on what is wanted."""


@contextmanager
def owned(lock: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Own `what` while the block runs; the lock file `lock` stays, the lock ends with the process, however it ends.

    Where another process has it, or reads it: raises `Busy` naming the owner, or with `wait` says so once and waits.
    Raises UserError where the lock cannot be made.
    """
    with _locked(lock, what, fcntl.LOCK_EX, wait) as file:
        with suppress(OSError):  # a full disk: the lock is held all the same, without a name
            file.truncate(0)
            file.write(f"process {os.getpid()} since {time.strftime('%H:%M')}")
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)  # or whoever reads it next would be told of an owner that is gone


@contextmanager
def in_use(lock: Path, what: str) -> Iterator[None]:
    """Keep others from owning (changing, deleting) `what` while the block reads it; waits for an owner to end."""
    with _locked(lock, what, fcntl.LOCK_SH, wait=True):
        yield


@contextmanager
def _locked(lock: Path, what: str, kind: int, wait: bool) -> Iterator[TextIO]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        # The file is never deleted: whoever waits for it would then own a file that the next one does not see.
        file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 -- closed below, which ends the lock
    except OSError as error:
        raise UserError(write_trouble(lock, error)) from error
    with file:
        _take(file, lock, what, kind, wait)
        yield file


def _take(file: TextIO, lock: Path, what: str, kind: int, wait: bool) -> None:
    """Lock an open file. Some network disks have no locks: there a run is as alone as its user keeps it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise Busy(f"{what} is in use by {_owner(lock)}: wait until it ends, or stop it.") from None
        print(f"{what} is in use by {_owner(lock)}; waiting for it to end.", file=sys.stderr, flush=True)
        fcntl.flock(file, kind)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise UserError(write_trouble(lock, error)) from error


def owner(lock: Path) -> str:
    """ "process 1234 since 14:02" while a process owns `lock`, else empty. Asking disturbs nobody."""
    if not lock.exists():
        return ""
    with open(lock, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(lock)
        except OSError:  # no locks here
            return ""
    return ""


def _owner(lock: Path) -> str:
    """Who wrote its name into a lock and is alive; readers write none, and an owner does a moment after it owns."""
    for _ in range(5):
        with suppress(OSError, ValueError, IndexError):
            words = lock.read_text(encoding="utf-8", errors="replace")
            os.kill(int(words.split()[1]), 0)
            return words
        time.sleep(POLL_SECONDS / 4)
    return "another process"


def bound(module: str) -> list[str]:
    """Words of a command that runs a module as `python -m` does, and ends as soon as this process is gone.

    So it does where this process was killed by a signal that cannot be caught.
    """
    root = str(Path(__file__).parents[1])
    code = f"import runpy, sys; sys.path.insert(0, {root!r}); from helpers.processes import end_with; "
    code += f"end_with({os.getpid()}); runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", code]


def end_with(parent: int) -> None:
    """End this process, which `parent` started, as soon as that one is gone."""
    Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    # An orphan gets another parent (init, or the nearest reaper): what it gets is not the same everywhere.
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(ORPHANED)  # at once, like a kill: records and checkpoints are made to stand that


def interrupt_on_signals() -> None:
    """Let SIGTERM, and SIGHUP of a closed terminal, raise KeyboardInterrupt as Ctrl-C does, so that children are ended.

    A process that was started to outlive its terminal (`nohup`) goes on ignoring SIGHUP.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def stop(processes: Sequence[subprocess.Popen], groups: bool = False) -> None:
    """End processes that are still under way: asked first, forced after `GRACE_SECONDS`; with `groups` theirs too."""
    limit = time.monotonic() + GRACE_SECONDS
    try:
        _send(processes, signal.SIGTERM, groups)
        while time.monotonic() < limit and any(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)
    finally:  # whoever is interrupted once more while it waits leaves none behind either
        _send(processes, signal.SIGKILL, groups)
        for process in processes:
            process.wait()


def _send(processes: Sequence[subprocess.Popen], number: int, groups: bool) -> None:
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):  # it ended just now
                os.killpg(process.pid, number) if groups else process.send_signal(number)
