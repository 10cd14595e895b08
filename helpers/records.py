"""The run store: plan, start or resume, append, finish, load, verify and publish the records of runs.

A run's folder holds `spec.json`, `versions.json`, one parquet file per table in `SCHEMAS`, `checkpoints/`,
and `DONE`, written last. Every file is written whole under a temporary name and then renamed, so that what
stands under the real name is always complete; `DONE` lists the size and digest of each table.
"""

import errno
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from helpers.errors import UserError
from helpers.profiles import RunSpec, to_float

if TYPE_CHECKING:
    import pandas
    import pyarrow

SCHEMA_VERSION = 1
COMPLETION_GROUPS = 80  # of each run, twice so many boards at most are published with their completions

_IDENTITY = {"run": "text", "arm": "text", "seed": "int"}

# fmt: off
SCHEMAS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    # One named number of one step; `samples` counts training samples (boards) seen so far.
    "metrics": MappingProxyType({
        **_IDENTITY, "step": "int", "samples": "int", "name": "text", "value": "float",
    }),
    # One completion; log-probs in nats, summed over its `tokens`: `logp_policy` at the
    # sampling `temperature`, `logp_base` at T = 1.
    # `logp_base` is empty at steps that were not scored under the base model.
    "completions": MappingProxyType({
        "run": "text", "seed": "int", "step": "int", "puzzle_id": "int", "prompt": "text",
        "completion": "text", "tokens": "int", "hit": "float", "exact": "float", "format": "float",
        "advantage": "float", "logp_policy": "float", "logp_base": "float?", "temperature": "float",
        "dtype": "text",
    }),
    # One measure of one task (`puzzle` or a prior task), the mean over `n` items.
    "evaluations": MappingProxyType({
        **_IDENTITY, "step": "int", "samples": "int", "task": "text", "measure": "text", "value": "float",
        "n": "int",
    }),
    # One probe's log-prob in nats, summed over its `tokens` completion tokens.
    "probes": MappingProxyType({
        **_IDENTITY, "step": "int", "probe": "text", "item": "int", "logp": "float", "tokens": "int",
    }),
})
# fmt: on
TABLES: tuple[str, ...] = tuple(SCHEMAS)

MEASURES = ("exact", "hit", "score", "likelihood", "format_failure")

_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "metrics": ("step", "name"),
        "evaluations": ("step", "task", "measure"),
        "probes": ("step", "probe", "item"),
    }
)
"""What may occur once in a run; a group may hold the same completion twice, so `completions` has no key."""

_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets")
_LARGEST_INT = 2**63 - 1
_ASIDE = ".damaged"


class DamagedRecord(UserError):
    """A file of a record is cut short or altered, so that the run has to be made again."""


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


# --- files ---


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
        _discard(temporary)
        raise UserError(_write_trouble(path, error)) from error


def _discard(path: Path) -> None:
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


def _read_json(path: Path) -> dict:
    """A JSON object from `path`. Raises `DamagedRecord` when it is missing, cut short or something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedRecord(f"{path} is missing or cut short: delete the folder it is in and run again.") from error
    if not isinstance(value, dict):
        raise DamagedRecord(f"{path} is not a JSON object: delete the folder it is in and run again.")
    return value


# --- rows and tables ---


def _check_table(table: str) -> None:
    """Refuse a name that is no table."""
    if table not in SCHEMAS:
        raise UserError(f"there is no table {table!r}: choose one of {', '.join(TABLES)}.")


def _check_row(table: str, index: int, row: Mapping[str, object]) -> None:
    """Refuse a row whose columns or values do not fit the table's schema; `index` counts from 0."""
    columns = SCHEMAS[table]
    unknown, missing = sorted(set(row) - set(columns)), [name for name in columns if name not in row]
    if unknown:
        raise UserError(f"{table}, row {index}: there is no column {', '.join(unknown)}; use {', '.join(columns)}.")
    if missing:
        raise UserError(f"{table}, row {index}: column {', '.join(missing)} is missing; give it a value.")
    for name, kind in columns.items():
        trouble = _trouble(kind, row[name])
        if trouble:
            raise UserError(f"{table}, column {name}, row {index}: {trouble}, got {_shown(row[name])}.")
    if table == "evaluations" and row["measure"] not in MEASURES:
        raise UserError(
            f"{table}, column measure, row {index}: use one of {', '.join(MEASURES)}, got {_shown(row['measure'])}."
        )


def _shown(value: object) -> str:
    """A value short enough for an error sentence."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _trouble(kind: str, value: object) -> str:
    """What keeps `value` out of a column of `kind` ("?" at its end: may be empty), or an empty text."""
    if kind.endswith("?"):
        return "" if value is None else _trouble(kind[:-1], value)
    if kind == "text":
        return _text_trouble(value)
    if isinstance(value, bool) or not isinstance(value, Integral if kind == "int" else Real):
        return f"must be {'a whole number' if kind == 'int' else 'a number'}"
    if kind == "int":
        return "" if abs(int(value)) <= _LARGEST_INT else "must fit in 64 bits"
    return "" if math.isfinite(to_float(value)) else "must be finite"


def _text_trouble(value: object) -> str:
    """What keeps `value` out of a text column: another type, or half a surrogate pair, which has no bytes."""
    if not isinstance(value, str):
        return "must be text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must be text that can be written as UTF-8"
    return ""


def _arrow_schema(table: str) -> "pyarrow.Schema":
    """The table's Arrow schema, with the schema version in its metadata."""
    import pyarrow as pa

    kinds = {"text": pa.string(), "int": pa.int64(), "float": pa.float64()}
    columns = [
        pa.field(name, kinds[kind.rstrip("?")], nullable=kind.endswith("?")) for name, kind in SCHEMAS[table].items()
    ]
    return pa.schema(columns, metadata={"schema_version": str(SCHEMA_VERSION), "table": table})


def _to_arrow(table: str, rows: Sequence[Mapping[str, object]]) -> "pyarrow.Table":
    """Checked rows as an Arrow table."""
    import pyarrow as pa

    casts = {"text": str, "int": int, "float": float}
    data = {
        name: [None if row[name] is None else casts[kind.rstrip("?")](row[name]) for row in rows]
        for name, kind in SCHEMAS[table].items()
    }
    return pa.table(data, schema=_arrow_schema(table))


def _encode(content: "pyarrow.Table") -> bytes:
    """The parquet file's bytes; made in memory, so that only `write_file` meets the disk."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(content.combine_chunks(), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _read_table(path: Path, table: str) -> "pyarrow.Table":
    """Read one parquet file.

    Raises `DamagedRecord` when it is missing or cut short, `UserError` when it was written under a schema
    that this version does not know.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_schema(path, table, file.schema_arrow)
            return file.read()
    except (OSError, pa.ArrowException) as error:
        raise DamagedRecord(f"{path} is missing or cut short: delete the folder it is in and run again.") from error


def _unknown_version(path: Path, version: object) -> str:
    """One sentence for a record of another schema version, with the way out."""
    return (
        f"{path} has schema version {version} and this project reads {SCHEMA_VERSION}: "
        "use the project version that wrote it, or move it away and make it again."
    )


def _check_schema(path: Path, table: str, schema: "pyarrow.Schema") -> None:
    """Refuse a parquet file of another schema version, or with other columns."""
    version = (schema.metadata or {}).get(b"schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise UserError(_unknown_version(path, version))
    if not schema.equals(_arrow_schema(table)):
        raise UserError(f"{path} does not have the columns of {table}: move it away and run again.")


def _concat(tables: Sequence["pyarrow.Table"]) -> "pyarrow.Table":
    """Tables of one schema below each other."""
    import pyarrow as pa

    return pa.concat_tables(tables)


# --- state of a folder ---


def _read_spec(folder: Path) -> RunSpec:
    """The spec a folder holds. Raises `DamagedRecord` when it is missing, cut short or impossible."""
    path = folder / "spec.json"
    try:
        return RunSpec.from_json(json.dumps(_read_json(path)))
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
    name = _read_spec(folder).name
    _read_json(folder / "versions.json")
    if name != folder.name:
        return f"{folder.name} is unfinished: its spec.json belongs to {name}; move it away and run again."
    return None


def _tables_trouble(folder: Path) -> str | None:
    """Whether every table is as large as `DONE` says, under a schema version this project knows."""
    done = _read_json(folder / "DONE")
    if done.get("schema") != SCHEMA_VERSION:
        raise UserError(_unknown_version(folder, done.get("schema")))
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


def _finished_folders(root: str | Path) -> list[Path]:
    """The folders under `root` that hold a finished run."""
    return [folder for folder in _run_folders(root) if _ASIDE not in folder.name and problem(folder) is None]


# --- the store ---


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
        return [_read_spec(folder) for folder in _finished_folders(self.root)]

    def start(self, spec: RunSpec) -> "Run":
        """Create the run's folder, or resume the one that is there.

        Temporary files of a stopped write are removed. A folder with a damaged file cannot be resumed: it is
        renamed to `<name>.damaged`, the run begins anew, and `Run.note` says so. When you resume from a
        checkpoint, call `Run.truncate` with its step next. Raises `UserError` when the folder holds another
        spec, an unknown schema version, or cannot be written.
        """
        folder = self.folder(spec)
        note = self._set_aside_if_damaged(folder, spec)
        for path in _leftovers(folder):
            _discard(path)
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
        found = _read_spec(folder)
        if found != spec:
            raise UserError(f"{folder} holds another spec ({found.name}): move that folder away and run again.")
    if (folder / "versions.json").exists():
        _read_json(folder / "versions.json")
    if (folder / "DONE").exists():
        trouble = _tables_trouble(folder)
        if trouble:
            raise DamagedRecord(trouble)
    for table in TABLES:
        path = folder / f"{table}.parquet"
        if path.exists():
            _read_table(path, table)


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
    before = _read_json(path)
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

    def _stored_table(self, table: str) -> "pyarrow.Table":
        """The table on disk, or an empty one."""
        path = self._path(table)
        return _read_table(path, table) if path.exists() else _to_arrow(table, [])

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
        _check_table(table)
        self._check_open()
        complete = [self._identity_for(table) | dict(row) for row in rows]
        for index, row in enumerate(complete):
            _check_row(table, index, row)
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
                    f"{table}, column {name}, row {index}: {_shown(row[name])} is another run's; leave {name} out."
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
                self._write(table, _concat([self._stored[table], _to_arrow(table, self._waiting[table])]))
                self._waiting[table] = []

    def _write(self, table: str, content: "pyarrow.Table") -> None:
        """Replace a table on disk, then in memory."""
        write_file(self._path(table), _encode(content))
        self._stored[table] = content

    def truncate(self, step: int) -> None:
        """Drop the rows of every table with a step above `step`, in memory and on disk.

        For a resume from the checkpoint of `step`; -1 drops everything, for a resume without a checkpoint.
        Raises `UserError` when the run is finished.
        """
        import pyarrow.compute as compute

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


# --- reading, checking, publishing ---


def load_table(roots: str | Path | Sequence[str | Path], table: str) -> "pandas.DataFrame":
    """One table of every finished run under one or more stores, below each other.

    Unfinished runs are left out, and a run that several stores hold is taken from the first. With no finished
    run the frame is empty but has its columns. Raises `UserError` for an unknown table, a store that does not
    exist and an unknown schema version.
    """
    _check_table(table)
    several = [roots] if isinstance(roots, str | Path) else list(roots)
    folders: dict[str, Path] = {}
    for folder in (folder for root in several for folder in _finished_folders(root)):
        folders.setdefault(folder.name, folder)
    parts = [_read_table(folder / f"{table}.parquet", table) for folder in folders.values()]
    return _concat([_to_arrow(table, []), *parts]).to_pandas()


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
    done = _read_json(folder / "DONE")
    return [text for table in TABLES for text in _table_problems(folder, table, _sealed(done, table))]


def _table_problems(folder: Path, table: str, sealed: Mapping[str, object]) -> list[str]:
    """What is wrong with the contents of one table of a finished run."""
    path = folder / f"{table}.parquet"
    if hashlib.sha256(path.read_bytes()).hexdigest() != sealed.get("sha256"):
        return [f"{folder.name}: {path.name} was changed after the run finished; delete the folder and run again."]
    frame = _read_table(path, table).to_pandas()
    if (frame["run"] != folder.name).any():
        return [f"{folder.name}: {path.name} holds rows of another run; delete the folder and run again."]
    keys = list(_KEYS.get(table, ()))
    twice = int(frame.duplicated(keys).sum()) if keys else 0
    if twice:
        return [f"{folder.name}: {path.name} repeats {', '.join(keys)} in {twice} rows; run it anew."]
    return []


def publish(
    store: RunStore,
    destination: str | Path,
    completion_groups: int = COMPLETION_GROUPS,
    names: Iterable[str] | None = None,
) -> list[Path]:
    """Copy the finished runs' tables to `destination`: one parquet per table, and `specs.json`; no weights.

    `names`: the runs to publish; all that are finished where it is None.

    Of each run's groups (one puzzle at one step) of completions the first `completion_groups` are kept, whole, and
    at most as many evenly spaced over the rest (only groups scored under the base model, if there are any). Rows
    are sorted, so the same records give the same bytes. Replaces what was published there before. Returns the paths
    written. Raises `UserError` when nothing is finished or the destination cannot be written.
    """
    if isinstance(completion_groups, bool) or not isinstance(completion_groups, int) or completion_groups < 0:
        raise UserError(f"completion_groups is {completion_groups!r}: use a whole number, 0 or more.")
    chosen = None if names is None else set(names)
    folders = [folder for folder in _finished_folders(store.root) if chosen is None or folder.name in chosen]
    if not folders:
        raise UserError(f"there is no finished run in {store.root}: finish one before publishing.")
    files = {f"{table}.parquet": _encode(_joined(folders, table, completion_groups)) for table in TABLES}
    files["specs.json"] = json_bytes(
        {
            "schema": SCHEMA_VERSION,
            "runs": {folder.name: _provenance(folder) for folder in folders},
        }
    )
    for name, data in files.items():
        write_file(Path(destination) / name, data)
    return [Path(destination) / name for name in files]


def as_published(store: RunStore, table: str, names: Iterable[str]) -> "pandas.DataFrame":
    """A table of some finished runs with the rows, and in the order, that `publish` would write by default.

    So a figure is the same on the machine that trained and in a clone that has the published records only.
    """
    _check_table(table)
    chosen = set(names)
    folders = [folder for folder in _finished_folders(store.root) if folder.name in chosen]
    return _joined(folders, table, COMPLETION_GROUPS).to_pandas()


def _joined(folders: Sequence[Path], table: str, groups: int) -> "pyarrow.Table":
    """One table of several runs, thinned and sorted."""
    parts = [_read_table(folder / f"{table}.parquet", table) for folder in folders]
    if table == "completions":
        parts = [_thinned(part, groups) for part in parts]
    return _concat([_to_arrow(table, []), *parts]).sort_by([(name, "ascending") for name in SCHEMAS[table]])


def _thinned(completions: "pyarrow.Table", groups: int) -> "pyarrow.Table":
    """Whole (step, puzzle) groups of one run: the first `groups`, and at most as many evenly spaced over the rest.

    The early ones show where learning starts from. If any of the rest was scored under the base model, the others
    of the rest are left out.
    """
    import pyarrow as pa

    columns = (completions[name].to_pylist() for name in ("step", "puzzle_id", "logp_base"))
    rows = list(zip(*columns, strict=True))
    known = sorted({row[:2] for row in rows})
    if len(known) <= 2 * groups:
        return completions
    early, late = known[:groups], known[groups:]
    scored = {row[:2] for row in rows if row[2] is not None}
    late = [key for key in late if key in scored] or late
    spaced = {late[round(i * (len(late) - 1) / max(groups - 1, 1))] for i in range(groups)}
    kept = spaced | set(early)
    return completions.filter(pa.array([row[:2] in kept for row in rows], pa.bool_()))


def _provenance(folder: Path) -> dict[str, object]:
    """A run's spec and the versions it was made with."""
    spec = json.loads(_read_spec(folder).to_json())
    return {"spec": spec, "versions": _read_json(folder / "versions.json")}


def write_table(path: str | Path, table: str, frame: "pandas.DataFrame") -> None:
    """Write rows of one table, sorted, as a published file. Raises `UserError` for rows that do not fit its schema."""
    _check_table(table)
    rows = frame.to_dict("records")
    for index, row in enumerate(rows):
        _check_row(table, index, row)
    order = [(name, "ascending") for name in SCHEMAS[table]]
    write_file(Path(path), _encode(_to_arrow(table, rows).sort_by(order)))


def load_published(destination: str | Path, table: str) -> "pandas.DataFrame":
    """One published table. Raises `UserError` when it is missing, damaged or of an unknown schema version."""
    _check_table(table)
    path = Path(destination) / f"{table}.parquet"
    try:
        return _read_table(path, table).to_pandas()
    except DamagedRecord as error:
        raise UserError(f"{path} is missing or cut short: restore it, or publish again.") from error


def published_specs(destination: str | Path) -> dict[str, RunSpec]:
    """The published runs' specs by name. Raises `UserError` when the list is missing, damaged or newer."""
    path = Path(destination) / "specs.json"
    try:
        listed = _read_json(path)
    except DamagedRecord as error:
        raise UserError(f"{path} is missing or cut short: restore it, or publish again.") from error
    if listed.get("schema") != SCHEMA_VERSION or not isinstance(listed.get("runs"), dict):
        raise UserError(_unknown_version(path, listed.get("schema")))
    return {name: RunSpec.from_json(json.dumps(entry["spec"])) for name, entry in listed["runs"].items()}
