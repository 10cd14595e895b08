"""Files that are written whole or not at all, JSON in one form, and which packages are installed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from helpers.errors import UserError

ROOM = 2**23  # bytes that must fit for a disk not to count as full: no checkpoint is smaller
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DamagedFile(UserError):
    """A file is missing, cut short or altered, so that it has to be made again."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write `path` anew; only when the block ends well does it take the place of the earlier one.

    Raises `UserError` when the disk is full or the folder may not be written to.
    """
    # Two writers of one path must not share a temporary file: each would rename what the other half wrote.
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            # A rename may reach the disk before the contents do; after a power cut the file would be empty.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(write_trouble(path, error)) from error
    finally:
        discard(temporary)


def write_file(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) as `replacing` does: on failure the earlier file stays as it was."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def digest(path: Path) -> str:
    """SHA-256 of a file's contents, read in pieces: a checkpoint need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> dict[str, int | str]:
    """What a file is known by in a seal: "bytes" and "sha256"."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def discard(path: Path) -> None:
    """Delete a temporary file, if that is still possible."""
    # Should this fail too, the trouble that brought us here is still the one worth telling.
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def told_of_a_full_disk(folder: Path) -> Iterator[None]:
    """Tell in one sentence where libraries that write below `folder` fail, in their own words, on a full disk.

    Raises `UserError` in that case; any other error passes as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # A library's message says nothing of the disk (torch: "enforce fail"), so the disk is asked by writing to it.
        probe = folder / f"{uuid4().hex}.tmp"
        try:
            probe.write_bytes(bytes(ROOM))
        except OSError as refused:
            if refused.errno in _FULL:
                raise UserError(write_trouble(folder, refused)) from error
        finally:
            discard(probe)
        raise


def write_trouble(path: Path, error: OSError) -> str:
    """One sentence for a failed write."""
    if error.errno in _FULL:
        return f"the disk is full and {path} was not written: free some space and run again."
    return f"{path} could not be written ({error.strerror or error}): check that the folder may be written to."


def json_bytes(value: object, indent: int = 1) -> bytes:
    """Readable JSON with one form per value, as UTF-8. NaN and infinity, which JSON lacks, raise `ValueError`."""
    text = json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # half a surrogate pair has no bytes, but JSON has an escape


def read_json(path: Path, remedy: str = "delete it and run again") -> dict[str, Any]:
    """A JSON object from `path`; `remedy` says what to do where there is none.

    Raises `DamagedFile` when it is missing, cut short or something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is missing or cut short: {remedy}.") from error
    if not isinstance(value, dict):
        raise DamagedFile(f"{path} is not a JSON object: {remedy}.")
    return value


def package_version(name: str) -> str:
    """The installed version of a package, or 'absent'."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
