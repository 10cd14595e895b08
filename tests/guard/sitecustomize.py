"""Imported by every Python that `tests.offline` starts where there are no network namespaces: no way out."""

import socket

_connect = socket.socket.connect
_LOCAL = ("127.0.0.1", "::1", "localhost")


def _refuse(self: socket.socket, address: object, *more: object) -> None:
    """Connect to this machine only."""
    if self.family in (socket.AF_INET, socket.AF_INET6) and str(address[0]) not in _LOCAL:
        raise OSError("there is no network: tests.offline cut it off")
    _connect(self, address, *more)


socket.socket.connect = _refuse
