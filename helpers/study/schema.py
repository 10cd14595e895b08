"""The tables that a run leaves: their columns, the checks on every row, and parquet to and from bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from helpers.errors import UserError
from helpers.files import DamagedFile

SCHEMA_VERSION = 2  # of a record as a whole; a table's own is in `VERSIONS`
VERSIONS: Mapping[str, int] = MappingProxyType({"completions": 2})
"""Which version each table is in, 1 unless it stands here. 2: completions keep the ids that were sampled."""
REMEDY = "delete the folder it is in and run again"  # of a run whose file is damaged
_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_IDS = pa.list_(pa.field("item", pa.int32(), nullable=False))
_MARKS = pa.list_(pa.field("item", pa.bool_(), nullable=False))
_TEXTS = pa.list_(pa.field("item", pa.string(), nullable=False))
_IDENTITY = {"run": _TEXT, "arm": _TEXT, "seed": _INT}


def _schema(table: str, columns: Mapping[str, pa.DataType], empty: Sequence[str] = ()) -> pa.Schema:
    """A table's Arrow schema, the schema version in its metadata; only the columns `empty` may hold nothing."""
    fields = [pa.field(name, kind, nullable=name in empty) for name, kind in columns.items()]
    return pa.schema(fields, metadata={"schema_version": str(VERSIONS.get(table, 1)), "table": table})


# fmt: off
SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType({
    # One named number of one step; `samples` counts training samples (boards) seen so far.
    "metrics": _schema("metrics", {
        **_IDENTITY, "step": _INT, "samples": _INT, "name": _TEXT, "value": _FLOAT,
    }),
    # One completion: its text and the `ids` of the `tokens` that were sampled, of which the text may be no faithful
    # image. Log-probs in nats, summed over these very ids: `logp_policy` at the sampling `temperature`, `logp_base`
    # at T = 1.
    # `logp_base` is empty at steps that were not scored under the base model, `ids` where an older record lost them.
    "completions": _schema("completions", {
        "run": _TEXT, "seed": _INT, "step": _INT, "puzzle_id": _INT, "prompt": _TEXT,
        "completion": _TEXT, "tokens": _INT, "hit": _FLOAT, "exact": _FLOAT, "format": _FLOAT,
        "advantage": _FLOAT, "logp_policy": _FLOAT, "logp_base": _FLOAT, "temperature": _FLOAT,
        "dtype": _TEXT, "ids": _IDS,
    }, empty=["logp_base", "ids"]),
    # One measure of one task (`puzzle` or a prior task), the mean over `n` items.
    "evaluations": _schema("evaluations", {
        **_IDENTITY, "step": _INT, "samples": _INT, "task": _TEXT, "measure": _TEXT, "value": _FLOAT,
        "n": _INT,
    }),
    # One probe's log-prob in nats, summed over its `tokens` completion tokens.
    "probes": _schema("probes", {
        **_IDENTITY, "step": _INT, "probe": _TEXT, "item": _INT, "logp": _FLOAT, "tokens": _INT,
    }),
    # The items of one task, each once and always in the same order, put in one way: the form that the prompt asks for,
    # whose wording was taught or held out, the picture's size in pixels, how the answer begins, and after how many
    # samples of other tasks the model was asked (0: as it is). `right`: the answer tag says it (puzzle: all of it);
    # `kept`: in the very form that was asked for; `likely`: it is the most probable of a few; `said`: the first texts.
    "outcomes": _schema("outcomes", {
        **_IDENTITY, "step": _INT, "task": _TEXT, "asked": _TEXT, "wording": _TEXT, "size": _INT, "opening": _TEXT,
        "regained": _INT, "right": _MARKS, "kept": _MARKS, "likely": _MARKS, "said": _TEXTS,
    }, empty=["likely"]),
})


# fmt: on
OPTIONAL = ("outcomes",)
"""Tables that only runs have which record them; a record without one is whole."""
TABLES: tuple[str, ...] = tuple(name for name in SCHEMAS if name not in OPTIONAL)
MEASURES = ("exact", "hit", "score", "likelihood", "format_failure", "kept", "parts", "as_many")


KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "metrics": ("step", "name"),
        "evaluations": ("step", "task", "measure"),
        "probes": ("step", "probe", "item"),
        "outcomes": ("step", "task", "asked", "wording", "size", "opening", "regained"),
    }
)
"""What may occur once in a run; a group may hold the same completion twice, so `completions` has no key."""


_KINDS = {
    _TEXT: (str, str, "text that can be written as UTF-8"),
    _INT: (Integral, int, "a whole number of at most 64 bits"),
    _FLOAT: (Real, float, "a finite number"),
}


def check_table(table: str) -> None:
    """Refuse a name that is no table."""
    if table not in SCHEMAS:
        raise UserError(f"there is no table {table!r}: choose one of {', '.join(TABLES)}.")


def tables_of(folder: Path) -> tuple[str, ...]:
    """The tables that a record has: every one that it must have, and those of the optional ones that are there."""
    return (*TABLES, *(name for name in OPTIONAL if table_file(folder, name).exists()))


def table_file(folder: Path, table: str) -> Path:
    """Where a table lies in a folder."""
    return folder / f"{table}.parquet"


def to_arrow(table: str, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows as an Arrow table.

    Raises `UserError` naming table, column and row (counted from 0) for unknown or missing columns and for a value
    that does not fit: another type, NaN or infinity, an unknown measure.
    """
    check_table(table)
    schema = SCHEMAS[table]
    for index, row in enumerate(rows):
        _check_row(table, index, row)
    columns = [[_fitting(table, index, field, row[field.name]) for index, row in enumerate(rows)] for field in schema]
    return pa.table(columns, schema=schema)


def _check_row(table: str, index: int, row: Mapping[str, object]) -> None:
    """Refuse a row with other columns than the table's, or of a measure that is none."""
    names = SCHEMAS[table].names
    unknown, missing = sorted(set(row) - set(names)), [name for name in names if name not in row]
    if unknown:
        raise UserError(f"{table}, row {index}: there is no column {', '.join(unknown)}; use {', '.join(names)}.")
    if missing:
        raise UserError(f"{table}, row {index}: column {', '.join(missing)} is missing; give it a value.")
    if row.get("ids") is not None and len(row["ids"]) != row.get("tokens"):
        raise UserError(f"{table}, column ids, row {index}: holds {len(row['ids'])} and tokens says {row['tokens']}.")
    if "measure" in names and row["measure"] not in MEASURES:
        measures = ", ".join(MEASURES)
        raise UserError(f"{table}, column measure, row {index}: use one of {measures}, got {shown(row['measure'])}.")


def _fitting(table: str, index: int, field: pa.Field, value: object) -> str | int | float | list | None:
    """`value` as its column holds it.

    Stricter than Arrow, which takes True for 1.0, cuts 1.5 to 1, and lets None and NaN into any column.
    """
    if value is None and field.nullable:
        return None
    if field.type == _IDS:
        return _ids(table, index, value)
    if pa.types.is_list(field.type):
        return _several(table, index, field, value)
    kind, cast, wanted = _KINDS[field.type]
    with suppress(OverflowError, UnicodeEncodeError):
        if isinstance(value, kind) and not isinstance(value, bool):
            found = pa.scalar(cast(value), field.type).as_py()
            if kind is str or math.isfinite(found):
                return found
    raise UserError(f"{table}, column {field.name}, row {index}: must be {wanted}, got {shown(value)}.")


def _ids(table: str, index: int, value: object) -> list[int]:
    """Token ids as whole numbers of at most 31 bits."""
    if isinstance(value, list | tuple | np.ndarray) and len(value):
        ids = [int(i) for i in value if isinstance(i, Integral) and not isinstance(i, bool) and 0 <= i < 2**31]
        if len(ids) == len(value):
            return ids
    raise UserError(f"{table}, column ids, row {index}: must be token ids, one or more, got {shown(value)}.")


def _several(table: str, index: int, field: pa.Field, value: object) -> list[bool] | list[str]:
    """A list of marks, or of texts."""
    kind = bool if field.type == _MARKS else str
    if isinstance(value, list | tuple | np.ndarray):
        items = [one.item() if isinstance(one, np.generic) else one for one in value]
        if all(isinstance(one, kind) for one in items):
            return items
    raise UserError(
        f"{table}, column {field.name}, row {index}: must be a list of {kind.__name__}, got {shown(value)}."
    )


def shown(value: object) -> str:
    """A value short enough for an error sentence."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def encode_table(content: pa.Table) -> bytes:
    """The parquet file's bytes; made in memory, so that only `write_file` meets the disk."""
    sink = pa.BufferOutputStream()
    # One chunk: the bytes must not tell in how many pieces the rows came.
    parquet.write_table(content.combine_chunks(), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_table(folder: Path, table: str, remedy: str = REMEDY) -> pa.Table:
    """Read one table of a folder; `remedy` says what to do where that fails.

    Raises `DamagedFile` when it is missing or cut short, `UserError` for an unknown table and when it was written
    under a schema that this version does not know.
    """
    check_table(table)
    path = table_file(folder, table)
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            version = (schema.metadata or {}).get(b"schema_version", b"none").decode()
            check_version(path, version, VERSIONS.get(table, 1))
            if not schema.equals(SCHEMAS[table]):
                raise UserError(f"{path} does not have the columns of {table}: move it away and run again.")
            return file.read()
    except (OSError, pa.ArrowException) as error:
        raise DamagedFile(f"{path} is missing or cut short: {remedy}.") from error


def check_version(path: Path, version: object, known: int = SCHEMA_VERSION) -> None:
    """Refuse a record of another schema version, with the way out."""
    if str(version) != str(known):
        raise UserError(
            f"{path} has schema version {version} and this project reads {known}: "
            "use the project version that wrote it, or move it away and make it again."
        )


def is_prior(rows: pd.DataFrame) -> pd.Series:
    """Which rows of evaluations or outcomes are of a prior task, not of a puzzle, be it the run's or another."""
    return ~rows["task"].astype(str).str.startswith("puzzle")


def is_correct(completions: pd.DataFrame) -> pd.Series:
    """Which rows of a table of completions are right and well formed (`Score.correct` of each)."""
    return (completions["exact"] == 1) & (completions["format"] == 1)
