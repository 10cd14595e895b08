"""The run store: plan, start or resume, append, finish, load, verify and publish the records of runs.

A run's folder holds `spec.json`, `versions.json`, one parquet file per table in `SCHEMAS`, `checkpoints/`,
and `DONE`, written last. Every file is written whole under a temporary name and then renamed, so that what
stands under the real name is always complete; `DONE` lists the size and digest of each table.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from pathlib import Path

import pandas
import pyarrow
import pyarrow.compute as compute

from helpers.errors import UserError
from helpers.files import discard, json_bytes, write_file
from helpers.study.schema import (
    KEYS,
    SCHEMA_VERSION,
    SCHEMAS,
    TABLES,
    DamagedRecord,
    check_row,
    check_table,
    concat_tables,
    encode_table,
    read_json,
    read_table,
    shown,
    to_arrow,
    unknown_version,
)
from helpers.study.spec import RunSpec

_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets")


_ASIDE = ".damaged"


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that decide a run's numbers, or 'absent'."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str:
    """One package's installed version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def read_spec(folder: Path) -> RunSpec:
    """The spec a folder holds. Raises `DamagedRecord` when it is missing, cut short or impossible."""
    path = folder / "spec.json"
    try:
        return RunSpec.from_json(json.dumps(read_json(path)))
    except DamagedRecord:
        raise
    except UserError as error:
        raise DamagedRecord(f"{path} cannot be used: {error}") from error


def problem(folder: str | Path) -> str | None:
    """Why the run in `folder` does not count as finished, in one sentence, or None when it is finished.

    Looks at sizes and row counts only; `verify` reads the contents too. Raises `UserError` when the run was
    written under an unknown schema version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return f"{folder.name} has not been started: run it."
    halves = _leftovers(folder)
    if halves:
        return f"{folder.name} is unfinished: it holds the half-written file {halves[0].name}; run it again."
    if not (folder / "DONE").exists():
        return f"{folder.name} is unfinished: it was stopped before its end; run it again to resume."
    try:
        return _spec_trouble(folder) or _tables_trouble(folder)
    except DamagedRecord as error:
        return f"{folder.name} is unfinished: {error}"


def _leftovers(folder: Path) -> list[Path]:
    """Temporary files that a stopped write left behind."""
    return sorted(folder.glob("*.tmp"))


def _spec_trouble(folder: Path) -> str | None:
    """Whether the spec in the folder belongs to the folder's name, and the versions can be read."""
    name = read_spec(folder).name
    read_json(folder / "versions.json")
    if name != folder.name:
        return f"{folder.name} is unfinished: its spec.json belongs to {name}; move it away and run again."
    return None


def _tables_trouble(folder: Path) -> str | None:
    """Whether every table is as large as `DONE` says, under a schema version this project knows."""
    done = read_json(folder / "DONE")
    if done.get("schema") != SCHEMA_VERSION:
        raise UserError(unknown_version(folder, done.get("schema")))
    for table in TABLES:
        path, sealed = folder / f"{table}.parquet", _sealed(done, table)
        size = path.stat().st_size if path.exists() else -1
        if size != sealed.get("bytes"):
            return f"{folder.name} is unfinished: {path.name} is missing or cut short; run it again."
    return None


def _sealed(done: Mapping[str, object], table: str) -> Mapping[str, object]:
    """What `DONE` says about one table; empty when it says nothing usable."""
    tables = done.get("tables")
    entry = tables.get(table) if isinstance(tables, dict) else None
    return entry if isinstance(entry, dict) else {}


def _seal(folder: Path) -> dict[str, object]:
    """The contents of `DONE`: size and digest of every table."""
    contents = {table: (folder / f"{table}.parquet").read_bytes() for table in TABLES}
    return {
        "schema": SCHEMA_VERSION,
        "tables": {
            table: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for table, data in contents.items()
        },
    }


def _run_folders(root: str | Path) -> list[Path]:
    """Every folder under `root` that is not hidden, sorted. Raises `UserError` when `root` is no folder."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: check the path, or run something first.")
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def finished_folders(root: str | Path) -> list[Path]:
    """The folders under `root` that hold a finished run."""
    return [folder for folder in _run_folders(root) if _ASIDE not in folder.name and problem(folder) is None]


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

    def plan(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        """Those of `specs` that are not finished, in order, each once.

        Raises `UserError` when one was finished under an unknown schema version.
        """
        return [spec for spec in dict.fromkeys(specs) if problem(self.folder(spec)) is not None]

    def finished(self) -> list[RunSpec]:
        """The specs of all finished runs, sorted by name. Raises `UserError` when there is no store."""
        return [read_spec(folder) for folder in finished_folders(self.root)]

    def start(self, spec: RunSpec) -> Run:
        """Create the run's folder, or resume the one that is there.

        Temporary files of a stopped write are removed. A folder with a damaged file cannot be resumed: it is
        renamed to `<name>.damaged`, the run begins anew, and `Run.note` says so. When you resume from a
        checkpoint, call `Run.truncate` with its step next. Raises `UserError` when the folder holds another
        spec, an unknown schema version, or cannot be written.
        """
        folder = self.folder(spec)
        note = self._set_aside_if_damaged(folder, spec)
        for path in _leftovers(folder):
            discard(path)
        if not (folder / "spec.json").exists():
            write_file(folder / "spec.json", json_bytes(json.loads(spec.to_json())))
        if not (folder / "DONE").exists():
            _note_versions(folder / "versions.json")
        return Run(spec, folder, note)

    def _set_aside_if_damaged(self, folder: Path, spec: RunSpec) -> str:
        """Rename a folder that holds a damaged file; returns the sentence that says so, or an empty text."""
        try:
            _check_resumable(folder, spec)
        except DamagedRecord as error:
            aside = _free_name(folder)
            try:
                os.rename(folder, aside)
            except OSError as trouble:
                raise UserError(f"{folder} is damaged and could not be renamed: move it away by hand.") from trouble
            return f"{folder.name} begins anew and its old folder is now {aside.name}: {error}"
        return ""


def _check_resumable(folder: Path, spec: RunSpec) -> None:
    """Raise `DamagedRecord` for a damaged file, `UserError` for a folder that holds another spec."""
    if (folder / "spec.json").exists():
        found = read_spec(folder)
        if found != spec:
            raise UserError(f"{folder} holds another spec ({found.name}): move that folder away and run again.")
    if (folder / "versions.json").exists():
        read_json(folder / "versions.json")
    if (folder / "DONE").exists():
        trouble = _tables_trouble(folder)
        if trouble:
            raise DamagedRecord(trouble)
    for table in TABLES:
        path = folder / f"{table}.parquet"
        if path.exists():
            read_table(path, table)


def _free_name(folder: Path) -> Path:
    """`<name>.damaged`, or the first of `<name>.damaged-2`, `-3`, ... that is free."""
    names = (folder.with_name(f"{folder.name}{_ASIDE}" + (f"-{n}" if n > 1 else "")) for n in count(1))
    return next(path for path in names if not path.exists())


def _note_versions(path: Path) -> None:
    """Write the versions in use; on a resume under other ones, add those instead of hiding the first."""
    now = versions()
    if not path.exists():
        write_file(path, json_bytes(now))
        return
    before = read_json(path)
    resumed = before.get("resumed_with", [])
    last = resumed[-1] if resumed else {key: value for key, value in before.items() if key != "resumed_with"}
    if last != now:
        write_file(path, json_bytes(before | {"resumed_with": [*resumed, now]}))


class Run:
    """One run being recorded. Rows wait in memory until `flush`; made by `RunStore.start`."""

    def __init__(self, spec: RunSpec, folder: Path, note: str = "") -> None:
        """Read back what an earlier start left. `note` is a sentence for the reader, or empty."""
        self.spec = spec
        self.folder = folder
        self.note = note
        self._identity = {"run": spec.name, "arm": spec.arm, "seed": spec.seed}
        self._waiting: dict[str, list[dict[str, object]]] = {table: [] for table in TABLES}
        self._stored = {table: self._stored_table(table) for table in TABLES}

    def _stored_table(self, table: str) -> pyarrow.Table:
        """The table on disk, or an empty one."""
        path = self._path(table)
        return read_table(path, table) if path.exists() else to_arrow(table, [])

    def _path(self, table: str) -> Path:
        """Where a table lives."""
        return self.folder / f"{table}.parquet"

    @property
    def done(self) -> bool:
        """Whether the run is finished and whole on disk."""
        return problem(self.folder) is None

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
        complete = [self._identity_for(table) | dict(row) for row in rows]
        for index, row in enumerate(complete):
            check_row(table, index, row)
            self._check_identity(table, index, row)
        self._waiting[table].extend(complete)

    def _identity_for(self, table: str) -> dict[str, object]:
        """The columns that are the same in every row of this run."""
        return {name: value for name, value in self._identity.items() if name in SCHEMAS[table]}

    def _check_identity(self, table: str, index: int, row: Mapping[str, object]) -> None:
        """Refuse a row that belongs to another run."""
        for name, value in self._identity_for(table).items():
            if row[name] != value:
                raise UserError(
                    f"{table}, column {name}, row {index}: {shown(row[name])} is another run's; leave {name} out."
                )

    def _check_open(self) -> None:
        """Refuse to change a finished record."""
        if (self.folder / "DONE").exists():
            raise UserError(f"{self.spec.name} is finished and its record is closed: delete its folder to redo it.")

    def flush(self) -> None:
        """Write the waiting rows. Call before saving a checkpoint, so that no row of its steps can be lost.

        Each table is replaced whole. Raises `UserError` when the disk is full or may not be written; the file
        on disk is then the earlier one and the rows still wait.
        """
        for table in TABLES:
            if self._waiting[table]:
                self._write(table, concat_tables([self._stored[table], to_arrow(table, self._waiting[table])]))
                self._waiting[table] = []

    def _write(self, table: str, content: pyarrow.Table) -> None:
        """Replace a table on disk, then in memory."""
        write_file(self._path(table), encode_table(content))
        self._stored[table] = content

    def truncate(self, step: int) -> None:
        """Drop the rows of every table with a step above `step`, in memory and on disk.

        For a resume from the checkpoint of `step`; -1 drops everything, for a resume without a checkpoint.
        Raises `UserError` when the run is finished.
        """
        self._check_open()
        for table in TABLES:
            self._waiting[table] = [row for row in self._waiting[table] if row["step"] <= step]
            stored = self._stored[table]
            kept = stored.filter(compute.less_equal(stored["step"], step))
            if kept.num_rows < stored.num_rows:
                self._write(table, kept)

    def finish(self) -> None:
        """Write what waits, every table (empty ones too), and `DONE` last. Does nothing on a finished run."""
        if (self.folder / "DONE").exists():
            return
        self.flush()
        for table in TABLES:
            if not self._path(table).exists():
                self._write(table, self._stored[table])
        write_file(self.folder / "DONE", json_bytes(_seal(self.folder)))


def load_table(roots: str | Path | Sequence[str | Path], table: str) -> pandas.DataFrame:
    """One table of every finished run under one or more stores, below each other.

    Unfinished runs are left out, and a run that several stores hold is taken from the first. With no finished
    run the frame is empty but has its columns. Raises `UserError` for an unknown table, a store that does not
    exist and an unknown schema version.
    """
    check_table(table)
    several = [roots] if isinstance(roots, str | Path) else list(roots)
    folders: dict[str, Path] = {}
    for folder in (folder for root in several for folder in finished_folders(root)):
        folders.setdefault(folder.name, folder)
    parts = [read_table(folder / f"{table}.parquet", table) for folder in folders.values()]
    return concat_tables([to_arrow(table, []), *parts]).to_pandas()


def verify(root: str | Path) -> list[str]:
    """Everything wrong under a store, one sentence each; empty when all runs are finished and whole.

    Reads every table. Raises `UserError` when the store does not exist.
    """
    found: list[str] = []
    for folder in _run_folders(root):
        try:
            found.extend(_folder_problems(folder))
        except UserError as error:
            found.append(str(error))
    return found


def _folder_problems(folder: Path) -> list[str]:
    """What is wrong with one run's folder."""
    if _ASIDE in folder.name:
        return [f"{folder.name} was set aside because a file in it was damaged: look at it, then delete it."]
    trouble = problem(folder)
    if trouble:
        return [trouble]
    done = read_json(folder / "DONE")
    return [text for table in TABLES for text in _table_problems(folder, table, _sealed(done, table))]


def _table_problems(folder: Path, table: str, sealed: Mapping[str, object]) -> list[str]:
    """What is wrong with the contents of one table of a finished run."""
    path = folder / f"{table}.parquet"
    if hashlib.sha256(path.read_bytes()).hexdigest() != sealed.get("sha256"):
        return [f"{folder.name}: {path.name} was changed after the run finished; delete the folder and run again."]
    frame = read_table(path, table).to_pandas()
    if (frame["run"] != folder.name).any():
        return [f"{folder.name}: {path.name} holds rows of another run; delete the folder and run again."]
    keys = list(KEYS.get(table, ()))
    twice = int(frame.duplicated(keys).sum()) if keys else 0
    if twice:
        return [f"{folder.name}: {path.name} repeats {', '.join(keys)} in {twice} rows; run it anew."]
    return []
