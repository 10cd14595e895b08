"""Records behind the published figures: what is copied to `figures/records`, and what figures read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas
import pyarrow
import pyarrow as pa

from helpers.errors import UserError
from helpers.files import json_bytes, write_file
from helpers.study.arms import STUDY_ARMS
from helpers.study.profiles import get_profile, specs
from helpers.study.records import RunStore, finished_folders, read_spec
from helpers.study.schema import (
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
    to_arrow,
    unknown_version,
)
from helpers.study.spec import RunSpec

COMPLETION_GROUPS = 80  # of each run, twice so many boards at most are published with their completions


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
    folders = [folder for folder in finished_folders(store.root) if chosen is None or folder.name in chosen]
    if not folders:
        raise UserError(f"there is no finished run in {store.root}: finish one before publishing.")
    files = {f"{table}.parquet": encode_table(_joined(folders, table, completion_groups)) for table in TABLES}
    files["specs.json"] = json_bytes(
        {
            "schema": SCHEMA_VERSION,
            "runs": {folder.name: _provenance(folder) for folder in folders},
        }
    )
    for name, data in files.items():
        write_file(Path(destination) / name, data)
    return [Path(destination) / name for name in files]


def as_published(store: RunStore, table: str, names: Iterable[str]) -> pandas.DataFrame:
    """A table of some finished runs with the rows, and in the order, that `publish` would write by default.

    So a figure is the same on the machine that trained and in a clone that has the published records only.
    """
    check_table(table)
    chosen = set(names)
    folders = [folder for folder in finished_folders(store.root) if folder.name in chosen]
    return _joined(folders, table, COMPLETION_GROUPS).to_pandas()


def _joined(folders: Sequence[Path], table: str, groups: int) -> pyarrow.Table:
    """One table of several runs, thinned and sorted."""
    parts = [read_table(folder / f"{table}.parquet", table) for folder in folders]
    if table == "completions":
        parts = [_thinned(part, groups) for part in parts]
    return concat_tables([to_arrow(table, []), *parts]).sort_by([(name, "ascending") for name in SCHEMAS[table]])


def _thinned(completions: pyarrow.Table, groups: int) -> pyarrow.Table:
    """Whole (step, puzzle) groups of one run: the first `groups`, and at most as many evenly spaced over the rest.

    The early ones show where learning starts from. If any of the rest was scored under the base model, the others
    of the rest are left out.
    """
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
    spec = json.loads(read_spec(folder).to_json())
    return {"spec": spec, "versions": read_json(folder / "versions.json")}


def write_table(path: str | Path, table: str, frame: pandas.DataFrame) -> None:
    """Write rows of one table, sorted, as a published file. Raises `UserError` for rows that do not fit its schema."""
    check_table(table)
    rows = frame.to_dict("records")
    for index, row in enumerate(rows):
        check_row(table, index, row)
    order = [(name, "ascending") for name in SCHEMAS[table]]
    write_file(Path(path), encode_table(to_arrow(table, rows).sort_by(order)))


def load_published(destination: str | Path, table: str) -> pandas.DataFrame:
    """One published table. Raises `UserError` when it is missing, damaged or of an unknown schema version."""
    check_table(table)
    path = Path(destination) / f"{table}.parquet"
    try:
        return read_table(path, table).to_pandas()
    except DamagedRecord as error:
        raise UserError(f"{path} is missing or cut short: restore it, or publish again.") from error


def published_specs(destination: str | Path) -> dict[str, RunSpec]:
    """The published runs' specs by name. Raises `UserError` when the list is missing, damaged or newer."""
    path = Path(destination) / "specs.json"
    try:
        listed = read_json(path)
    except DamagedRecord as error:
        raise UserError(f"{path} is missing or cut short: restore it, or publish again.") from error
    if listed.get("schema") != SCHEMA_VERSION or not isinstance(listed.get("runs"), dict):
        raise UserError(unknown_version(path, listed.get("schema")))
    return {name: RunSpec.from_json(json.dumps(entry["spec"])) for name, entry in listed["runs"].items()}


PUBLISHED = Path("figures/records")


def store(profile: str) -> RunStore:
    """Where a profile's runs live: `runs/<profile>`."""
    return RunStore(Path("runs") / profile)


def table(profile_name: str, name: str) -> pandas.DataFrame:
    """One table (`evaluations`, `metrics`, `completions`, `probes`) of all runs of a profile.

    Runs made on this machine come first, as they would be published; without any, `cpu` falls back on the published
    records. Raises UserError where there are neither.
    """
    folder = store(profile_name).root
    if folder.is_dir() and any(folder.glob("*/DONE")):
        wanted = {s.name for s in specs(get_profile(profile_name), STUDY_ARMS)}
        if {p.parent.name for p in folder.glob("*/DONE")} >= wanted:
            return as_published(store(profile_name), name, wanted)
    if profile_name == "cpu" and (PUBLISHED / "specs.json").exists():
        return load_published(PUBLISHED, name)
    raise UserError(f"There are no records for profile {profile_name}; make them with ./run_all.sh --retrain.")


def publish_records(profile_name: str = "cpu", destination: Path = PUBLISHED) -> list[Path]:
    """Copy the small tables of a profile's finished study to where a fresh clone finds them.

    Only runs of the study as its profile is now: controls and runs of earlier settings lie in the same folder.
    """
    wanted = [spec.name for spec in specs(get_profile(profile_name), STUDY_ARMS)]
    return publish(store(profile_name), destination, names=wanted)
