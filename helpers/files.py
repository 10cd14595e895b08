"""Files that are written whole or not at all, with one sentence where that fails."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

from helpers.errors import UserError


def write_file(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, then rename; on failure the earlier file stays as it was.

    Raises `UserError` when the disk is full or the folder may not be written to.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        discard(temporary)
        raise UserError(_write_trouble(path, error)) from error


def discard(path: Path) -> None:
    """Delete a temporary file, if that is still possible."""
    # Should this fail too, the trouble that brought us here is still the one worth telling.
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _write_trouble(path: Path, error: OSError) -> str:
    """One sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full and {path} was not written: free some space and run again."
    return f"{path} could not be written ({error.strerror or error}): check that the folder may be written to."


def json_bytes(value: object) -> bytes:
    """Readable JSON with one form per value."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
