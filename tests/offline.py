"""Run a command without a network: `python -m tests.offline ./run_all.sh --profile smoke`.

In a network namespace of its own with nothing but the loop-back interface, where this machine allows one; elsewhere
Python's sockets refuse every other address, in the command and in whatever Python it starts.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

GUARD = Path(__file__).parent / "guard"  # holds a sitecustomize.py, which every Python below imports first
UP = "--interface-up"
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def command(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The command that runs `words` without a network, and its environment."""
    apart = ["unshare", "--net", "--map-root-user"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        allowed = subprocess.run([*apart, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if allowed:
        return [*apart, sys.executable, str(Path(__file__)), UP, *words], environment
    paths = os.pathsep.join(filter(None, [str(GUARD), environment.get("PYTHONPATH")]))
    return words, environment | {"PYTHONPATH": paths}


def loop_back_up() -> None:
    """Kernels talk to their notebooks over the loop-back interface, which a new namespace has switched off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def main() -> None:
    """Become the command."""
    words = sys.argv[1:]
    if words[:1] == [UP]:
        loop_back_up()
        os.execvp(words[1], words[1:])
    words, environment = command(words)
    os.execvpe(words[0], words, environment)


if __name__ == "__main__":
    main()
