"""The run store: plan, start or resume, append, finish, load, verify and publish the records of runs.

A run's folder holds `spec.json`, `versions.json`, one parquet file per table in `SCHEMAS`, `checkpoints/`,
and `DONE`, written last. Every file is written whole under a temporary name and then renamed, so that what
stands under the real name is always complete; `DONE` lists the size and digest of each table.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pyarrow as pa
import pyarrow.compute as compute

from helpers.errors import UserError
from helpers.files import DamagedFile, digest, discard, fingerprint, json_bytes, package_version, read_json, write_file
from helpers.processes import Busy, in_use, owned
from helpers.study.fixed import current_hashes
from helpers.study.schema import (
    KEYS,
    OPTIONAL,
    REMEDY,
    SCHEMA_VERSION,
    SCHEMAS,
    TABLES,
    check_table,
    check_version,
    encode_table,
    read_table,
    shown,
    table_file,
    tables_of,
    to_arrow,
)
from helpers.study.spec import RunSpec

_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets")
_ASIDE = ".damaged"


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that decide a run's numbers, or 'absent'."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {package: package_version(package) for package in _PACKAGES}


def read_spec(folder: Path) -> RunSpec:
    """The spec a folder holds. Raises `DamagedFile` when it is missing, cut short or impossible."""
    path = folder / "spec.json"
    listed = read_json(path, REMEDY)
    try:
        return RunSpec.from_json(json.dumps(listed))
    except UserError as error:
        raise DamagedFile(f"{path} cannot be used: {error}") from error


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` is finished and its tables are as it left them; `verify` says why it is not.

    Raises `UserError` when the run was written under an unknown schema version.
    """
    try:
        _check_finished(folder)
    except DamagedFile:
        return False
    return True


def _leftovers(folder: Path) -> list[Path]:
    """Temporary files that a stopped write left behind."""
    return sorted(folder.glob("*.tmp"))


def _check_finished(folder: Path) -> None:
    """Raise `DamagedFile` unless a run's spec, versions, tables and `DONE` are all there and belong together."""
    if not folder.is_dir():
        raise DamagedFile("it has not been started; run it.")
    halves = _leftovers(folder)
    if halves:
        raise DamagedFile(f"it holds the half-written file {halves[0].name}; run it again.")
    if not (folder / "DONE").exists():
        raise DamagedFile("it was stopped before its end; run it again to resume.")
    name = read_spec(folder).name
    read_json(folder / "versions.json", REMEDY)
    if name != folder.name:
        raise DamagedFile(f"its spec.json belongs to {name}; move it away and run again.")
    _check_sealed(folder)


def _check_sealed(folder: Path) -> None:
    """Raise `DamagedFile` unless every table is byte for byte what `DONE` vouches for."""
    for table, seal in _seals(folder).items():
        path = table_file(folder, table)
        if not path.exists() or path.stat().st_size != seal["bytes"]:
            raise DamagedFile(f"{path} is missing or cut short; run it again.")
        if digest(path) != seal["sha256"]:
            raise DamagedFile(f"{path} was changed after the run finished; run it again.")


def _seals(folder: Path) -> dict[str, dict[str, object]]:
    """ "bytes" and "sha256" of every table, as `DONE` has them; `UserError` for an unknown schema version."""
    done = read_json(folder / "DONE", REMEDY)
    check_version(folder, done.get("schema"))
    try:
        listed = (*TABLES, *(name for name in OPTIONAL if name in done["tables"]))
        return {table: {what: done["tables"][table][what] for what in ("bytes", "sha256")} for table in listed}
    except (KeyError, TypeError) as error:
        raise DamagedFile(f"{folder / 'DONE'} does not list every table: {REMEDY}.") from error


def _seal(folder: Path) -> dict[str, object]:
    """The contents of `DONE`: size and digest of every table."""
    seals = {table: fingerprint(table_file(folder, table)) for table in tables_of(folder)}
    return {"schema": SCHEMA_VERSION, "tables": seals}


def _run_folders(root: str | Path) -> list[Path]:
    """Every folder under `root` that is not hidden, sorted. Raises `UserError` when `root` is no folder."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: check the path, or run something first.")
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def finished_folders(root: str | Path, names: Iterable[str] | None = None) -> list[Path]:
    """The folders under `root` that hold a finished run, sorted; those in `names` where it is given.

    Raises `UserError` when there is no store, for a name that is no finished run, and for a run that was finished and
    is no longer whole: what it holds is neither used nor left out in silence.
    """
    closed = {f.name for f in _run_folders(root) if _ASIDE not in f.name and (f / "DONE").exists()}
    wanted = closed if names is None else set(names)
    missing = [name for name in sorted(wanted) if name not in closed or not is_finished(Path(root) / name)]
    if missing:
        others = f", and {len(missing) - 1} others do not either" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]} in {root} does not count as finished{others}: {_reason(Path(root) / missing[0])}"
        )
    return [Path(root) / name for name in sorted(wanted)]


def _reason(folder: Path) -> str:
    """Why a run does not count as finished."""
    try:
        _check_finished(folder)
    except UserError as error:
        return str(error)
    return "it was being written a moment ago; try again."


@dataclass(frozen=True)
class RunStore:
    """The runs under one folder (`runs/`), one folder per run."""

    root: Path

    def __post_init__(self) -> None:
        """Accept a text as well as a path."""
        object.__setattr__(self, "root", Path(self.root))

    def folder(self, spec: RunSpec) -> Path:
        """Where the run of `spec` lives, whether it exists or not."""
        return self.root / spec.name

    def checkpoints(self, spec: RunSpec) -> Path:
        """Where the trainer's checkpoints of a run lie, if any are there."""
        return self.folder(spec) / "checkpoints"

    def owned(self, name: str, wait: bool = True) -> AbstractContextManager[None]:
        """Own a run while a block reads and writes its folder; see `processes.owned`."""
        return owned(self.lock(name), name, wait)

    @contextmanager
    def in_use(self, *names: str) -> Iterator[None]:
        """Keep finished runs from being deleted while a block reads them; empty names count for nothing."""
        with ExitStack() as locks:
            for name in filter(None, names):
                locks.enter_context(in_use(self.lock(name), name))
            yield

    def lock(self, name: str) -> Path:
        """The lock of the run called `name`; outside its folder, which may be renamed or deleted."""
        return self.root / ".locks" / name

    def forget(self) -> list[str]:
        """Delete every run, but none that a process is at work on: a sentence for each of those."""
        folders = _run_folders(self.root) if self.root.is_dir() else []
        return [sentence for sentence in map(self._forget, folders) if sentence]

    def _forget(self, folder: Path) -> str:
        try:
            with self.owned(folder.name, wait=False):
                # Renamed first: a kill in the midst of deleting must not leave half a run under the real name.
                gone = folder.with_name(f".forgotten-{folder.name}")
                shutil.rmtree(gone, ignore_errors=True)
                shutil.rmtree(folder.rename(gone), ignore_errors=True)
        except Busy as error:
            return f"{folder.name} stays as it is: {error}"
        return ""

    def plan(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        """Those of `specs` that are not finished, in order, each once.

        Raises `UserError` when one was finished under an unknown schema version.
        """
        return [spec for spec in dict.fromkeys(specs) if not is_finished(self.folder(spec))]

    def finished(self) -> list[RunSpec]:
        """The specs of all finished and whole runs, sorted by name. Raises `UserError` when there is no store."""
        return [
            read_spec(folder) for folder in _run_folders(self.root) if _ASIDE not in folder.name and is_finished(folder)
        ]

    def start(self, spec: RunSpec, facts: Mapping[str, object] = MappingProxyType({})) -> Run:
        """Create the run's folder, or resume the one that is there. `facts` are noted beside the versions.

        Temporary files of a stopped write are removed. A folder with a damaged file cannot be resumed: it is
        renamed to `<name>.damaged`, the run begins anew, and `Run.note` says so. When you resume from a
        checkpoint, call `Run.truncate` with its step next. Raises `UserError` when the folder holds another
        spec, an unknown schema version, or cannot be written.
        """
        folder, note = self.folder(spec), ""
        try:
            _check_resumable(folder, spec)
        except DamagedFile as error:
            note = f"{folder.name} begins anew and its old folder is now {_set_aside(folder).name}: {error}"
        for path in _leftovers(folder):
            discard(path)
        if not (folder / "spec.json").exists():
            write_file(folder / "spec.json", json_bytes(spec.to_dict()))
        if not (folder / "DONE").exists():
            _note_versions(folder / "versions.json", facts)
        return Run(spec, folder, note)


def _check_resumable(folder: Path, spec: RunSpec) -> None:
    """Raise `DamagedFile` for a damaged file, `UserError` for a folder that holds another spec."""
    if (folder / "spec.json").exists():
        found = read_spec(folder)
        if found != spec:
            raise UserError(f"{folder} holds another spec ({found.name}): move that folder away and run again.")
    if (folder / "versions.json").exists():
        read_json(folder / "versions.json", REMEDY)
    if (folder / "DONE").exists():
        _check_sealed(folder)
    for table in SCHEMAS:
        if table_file(folder, table).exists():
            read_table(folder, table)


def _set_aside(folder: Path) -> Path:
    """Rename a folder to `<name>.damaged`, or to the first of `<name>.damaged-2`, `-3`, ... that is free."""
    names = (folder.with_name(f"{folder.name}{_ASIDE}" + (f"-{n}" if n > 1 else "")) for n in count(1))
    try:
        return folder.rename(next(path for path in names if not path.exists()))
    except OSError as error:
        raise UserError(f"{folder} is damaged and could not be renamed: move it away by hand.") from error


def _note_versions(path: Path, facts: Mapping[str, object]) -> None:
    """Write the versions in use, and what the primary claims were fixed to be.

    On a resume under other ones, add those instead of hiding the first.
    """
    now = versions() | {"claims": current_hashes("primary")} | dict(facts)
    before = read_json(path, REMEDY) if path.exists() else now
    resumed = before.get("resumed_with", [])
    last = resumed[-1] if resumed else {key: value for key, value in before.items() if key != "resumed_with"}
    if last != now:
        before |= {"resumed_with": [*resumed, now]}
    write_file(path, json_bytes(before))


class Run:
    """One run being recorded. Rows wait in memory until `flush`; made by `RunStore.start`."""

    def __init__(self, spec: RunSpec, folder: Path, note: str = "") -> None:
        """Read back what an earlier start left. `note` is a sentence for the reader, or empty."""
        self.spec = spec
        self.folder = folder
        self.note = note
        self._stored = {table: self._stored_table(table) for table in SCHEMAS}
        self._waiting = {table: to_arrow(table, []) for table in SCHEMAS}

    def _stored_table(self, table: str) -> pa.Table:
        """The table on disk, or an empty one."""
        there = table_file(self.folder, table).exists()
        return read_table(self.folder, table) if there else to_arrow(table, [])

    @property
    def done(self) -> bool:
        """Whether the run is finished and whole on disk."""
        return is_finished(self.folder)

    @property
    def checkpoints(self) -> Path:
        """The folder for the trainer's checkpoints, made on first use."""
        path = self.folder / "checkpoints"
        path.mkdir(exist_ok=True)
        return path

    def append(self, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows to a table, in memory; all of them or, if one is refused, none.

        `run`, `arm` and `seed` may be left out. Raises `UserError` naming table, column and row (counted from
        0 within `rows`) for unknown or missing columns, a wrong type, NaN or infinity, and when the run is
        finished.
        """
        check_table(table)
        self._check_open()
        identity = {"run": self.spec.name, "arm": self.spec.arm, "seed": self.spec.seed}
        identity = {name: value for name, value in identity.items() if name in SCHEMAS[table].names}
        complete = [identity | dict(row) for row in rows]
        for index, row in enumerate(complete):
            for name in identity:
                if row[name] != identity[name]:
                    says = f"{shown(row[name])} is another run's; leave {name} out."
                    raise UserError(f"{table}, column {name}, row {index}: {says}")
        self._waiting[table] = pa.concat_tables([self._waiting[table], to_arrow(table, complete)])

    def _check_open(self) -> None:
        """Refuse to change a finished record."""
        if (self.folder / "DONE").exists():
            raise UserError(f"{self.spec.name} is finished and its record is closed: delete its folder to redo it.")

    def flush(self, *tables: str) -> None:
        """Write the waiting rows (of some tables: all where none is named).

        Call before saving a checkpoint, so that no row of its steps can be lost. Each table is replaced whole. Raises
        `UserError` when the disk is full or may not be written; the file on disk is then the earlier one and the rows
        still wait.
        """
        for table, waiting in self._waiting.items():
            if waiting.num_rows and (not tables or table in tables):
                self._write(table, pa.concat_tables([self._stored[table], waiting]))
                self._waiting[table] = waiting.slice(0, 0)

    def _write(self, table: str, content: pa.Table) -> None:
        """Replace a table on disk, then in memory."""
        # Written whole each time: the index of a parquet file stands at its end, so none can be appended to.
        write_file(table_file(self.folder, table), encode_table(content))
        self._stored[table] = content

    def truncate(self, step: int) -> None:
        """Drop the rows of every table with a step above `step`, in memory and on disk.

        For a resume from the checkpoint of `step`; -1 drops everything, for a resume without a checkpoint.
        Raises `UserError` when the run is finished.
        """
        self._check_open()
        # The resumed run makes the later steps again; left in, they would be there twice.
        early = compute.field("step") <= step
        for table, stored in self._stored.items():
            self._waiting[table] = self._waiting[table].filter(early)
            kept = stored.filter(early)
            if kept.num_rows < stored.num_rows:
                self._write(table, kept)

    def finish(self) -> None:
        """Write what waits, every table (empty ones too), and `DONE` last. Does nothing on a finished run."""
        if (self.folder / "DONE").exists():
            return
        self.flush()
        for table in TABLES:
            if not table_file(self.folder, table).exists():
                self._write(table, self._stored[table])
        # Last, because it vouches for the others: a process that dies before it leaves a run to be resumed.
        write_file(self.folder / "DONE", json_bytes(_seal(self.folder)))


def load_table(root: str | Path, table: str) -> pd.DataFrame:
    """One table of every finished run under a store, below each other.

    Unfinished runs are left out. With no finished run the frame is empty but has its columns. Raises `UserError`
    for an unknown table, a store that does not exist and an unknown schema version.
    """
    folders = [folder for folder in finished_folders(root) if table in tables_of(folder)]
    parts = [own_table(folder, table) for folder in folders]
    return pa.concat_tables([to_arrow(table, []), *parts]).to_pandas()


def verify(root: str | Path) -> list[str]:
    """Everything wrong under a store, one sentence a run; empty when all runs are finished and whole.

    Reads every table. Raises `UserError` when the store does not exist.
    """
    found: list[str] = []
    for folder in _run_folders(root):
        try:
            if _ASIDE in folder.name:
                raise DamagedFile("it was set aside because a file in it was damaged; look at it, then delete it.")
            _check_finished(folder)
            check_contents(folder)
        except DamagedFile as error:
            found.append(f"{folder.name} does not count as finished: {error}")
        except UserError as error:
            found.append(str(error))
    return found


def own_table(folder: Path, table: str) -> pa.Table:
    """One table of a run. Raises `DamagedFile` where it holds rows of another run."""
    content = read_table(folder, table)
    if set(content["run"].unique().to_pylist()) - {folder.name}:
        raise DamagedFile(f"{table_file(folder, table)} holds rows of another run; delete the folder and run again.")
    return content


def check_contents(folder: Path) -> None:
    """Raise `DamagedFile` unless a finished run's tables are as `DONE` sealed them, each row its own and once."""
    _check_sealed(folder)
    for table in tables_of(folder):
        keys = list(KEYS.get(table, ()))
        frame = own_table(folder, table).to_pandas()
        twice = int(frame.duplicated(keys).sum()) if keys else 0
        if twice:
            raise DamagedFile(f"{table_file(folder, table)} repeats {', '.join(keys)} in {twice} rows; run it anew.")
