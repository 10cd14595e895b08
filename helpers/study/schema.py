"""The tables that a run leaves: their columns, the checks on every row, and parquet to and from bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType

import pyarrow
import pyarrow as pa
import pyarrow.parquet as parquet

from helpers.errors import UserError
from helpers.study.spec import to_float

SCHEMA_VERSION = 1


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


KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "metrics": ("step", "name"),
        "evaluations": ("step", "task", "measure"),
        "probes": ("step", "probe", "item"),
    }
)
"""What may occur once in a run; a group may hold the same completion twice, so `completions` has no key."""


_LARGEST_INT = 2**63 - 1


class DamagedRecord(UserError):
    """A file of a record is cut short or altered, so that the run has to be made again."""


def read_json(path: Path) -> dict:
    """A JSON object from `path`. Raises `DamagedRecord` when it is missing, cut short or something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedRecord(f"{path} is missing or cut short: delete the folder it is in and run again.") from error
    if not isinstance(value, dict):
        raise DamagedRecord(f"{path} is not a JSON object: delete the folder it is in and run again.")
    return value


def check_table(table: str) -> None:
    """Refuse a name that is no table."""
    if table not in SCHEMAS:
        raise UserError(f"there is no table {table!r}: choose one of {', '.join(TABLES)}.")


def check_row(table: str, index: int, row: Mapping[str, object]) -> None:
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
            raise UserError(f"{table}, column {name}, row {index}: {trouble}, got {shown(row[name])}.")
    if table == "evaluations" and row["measure"] not in MEASURES:
        raise UserError(
            f"{table}, column measure, row {index}: use one of {', '.join(MEASURES)}, got {shown(row['measure'])}."
        )


def shown(value: object) -> str:
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


def _arrow_schema(table: str) -> pyarrow.Schema:
    """The table's Arrow schema, with the schema version in its metadata."""
    kinds = {"text": pa.string(), "int": pa.int64(), "float": pa.float64()}
    columns = [
        pa.field(name, kinds[kind.rstrip("?")], nullable=kind.endswith("?")) for name, kind in SCHEMAS[table].items()
    ]
    return pa.schema(columns, metadata={"schema_version": str(SCHEMA_VERSION), "table": table})


def to_arrow(table: str, rows: Sequence[Mapping[str, object]]) -> pyarrow.Table:
    """Checked rows as an Arrow table."""
    casts = {"text": str, "int": int, "float": float}
    data = {
        name: [None if row[name] is None else casts[kind.rstrip("?")](row[name]) for row in rows]
        for name, kind in SCHEMAS[table].items()
    }
    return pa.table(data, schema=_arrow_schema(table))


def encode_table(content: pyarrow.Table) -> bytes:
    """The parquet file's bytes; made in memory, so that only `write_file` meets the disk."""
    sink = pa.BufferOutputStream()
    parquet.write_table(content.combine_chunks(), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_table(path: Path, table: str) -> pyarrow.Table:
    """Read one parquet file.

    Raises `DamagedRecord` when it is missing or cut short, `UserError` when it was written under a schema
    that this version does not know.
    """
    try:
        with parquet.ParquetFile(path) as file:
            _check_schema(path, table, file.schema_arrow)
            return file.read()
    except (OSError, pa.ArrowException) as error:
        raise DamagedRecord(f"{path} is missing or cut short: delete the folder it is in and run again.") from error


def unknown_version(path: Path, version: object) -> str:
    """One sentence for a record of another schema version, with the way out."""
    return (
        f"{path} has schema version {version} and this project reads {SCHEMA_VERSION}: "
        "use the project version that wrote it, or move it away and make it again."
    )


def _check_schema(path: Path, table: str, schema: pyarrow.Schema) -> None:
    """Refuse a parquet file of another schema version, or with other columns."""
    version = (schema.metadata or {}).get(b"schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise UserError(unknown_version(path, version))
    if not schema.equals(_arrow_schema(table)):
        raise UserError(f"{path} does not have the columns of {table}: move it away and run again.")


def concat_tables(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """Tables of one schema below each other."""
    return pa.concat_tables(tables)
