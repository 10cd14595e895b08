"""Records behind the published figures: what is copied to `figures/records`, and what figures read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path

import pandas as pd
import pyarrow as pa

from helpers.errors import UserError
from helpers.files import DamagedFile, digest, json_bytes, read_json, write_file
from helpers.processes import owned
from helpers.study.profiles import FAIR, Profile, get_profile, specs
from helpers.study.records import RunStore, check_contents, finished_folders, own_table, read_spec
from helpers.study.schema import (
    SCHEMA_VERSION,
    TABLES,
    check_version,
    encode_table,
    read_table,
    table_file,
    tables_of,
    to_arrow,
)
from helpers.study.spec import RunSpec
from helpers.world.puzzles import PuzzleSpec

PUBLISHED = Path("figures/records")
MEASURED = PUBLISHED / "measured"
COMPLETION_GROUPS = 80  # of each run, twice so many boards at most are published with their completions
_REMEDY = "restore it, or publish again"


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
    written. Raises `UserError` when nothing, or not all that was named, is finished, when a finished run was changed
    since, and when the destination cannot be written.
    """
    if isinstance(completion_groups, bool) or not isinstance(completion_groups, int) or completion_groups < 0:
        raise UserError(f"completion_groups is {completion_groups!r}: use a whole number, 0 or more.")
    folders = finished_folders(store.root, names)
    if not folders:
        raise UserError(f"there is no finished run in {store.root}: finish one before publishing.")
    for folder in folders:
        check_contents(folder)
    runs, place = {folder.name: provenance(folder) for folder in folders}, Path(destination)
    # All is encoded before the first file is written: a damaged table leaves what was published whole.
    tables = dict.fromkeys(table for folder in folders for table in tables_of(folder))
    files = {table_file(place, t): encode_table(_joined(folders, t, completion_groups)) for t in tables}
    with publishing(place):
        for path, data in files.items():
            write_file(path, data)
        return [*files, write_runs(place, runs, [path.name for path in files])]


def publishing(destination: Path) -> AbstractContextManager[None]:
    """Own a folder of published records while a block writes to it."""
    return owned(destination / ".lock", str(destination), wait=True)


def as_published(store: RunStore, table: str, names: Iterable[str]) -> pd.DataFrame:
    """A table of some finished runs with the rows, and in the order, that `publish` would write by default.

    So a figure is the same on the machine that trained and in a clone that has the published records only. Raises
    `UserError` for a name that is no finished run.
    """
    return _joined(finished_folders(store.root, names), table, COMPLETION_GROUPS).to_pandas()


def _joined(folders: Sequence[Path], table: str, groups: int) -> pa.Table:
    """One table of several runs, thinned and sorted."""
    parts = [own_table(folder, table) for folder in folders if table in tables_of(folder)]
    if table == "completions":
        parts = [_thinned(part, groups) for part in parts]
    return _in_order(pa.concat_tables([to_arrow(table, []), *parts]))


def _in_order(content: pa.Table) -> pa.Table:
    """The rows sorted by every column but the ids, so that their order does not tell when each was written."""
    plain = [field.name for field in content.schema if not pa.types.is_list(field.type)]  # Arrow cannot sort lists
    return content.sort_by([(name, "ascending") for name in plain])


def _thinned(completions: pa.Table, groups: int) -> pa.Table:
    """Whole (step, puzzle) groups of one run: the first `groups`, and at most as many evenly spaced over the rest.

    The early ones show where learning starts from. If any of the rest was scored under the base model, the others
    of the rest are left out.
    """
    frame = completions.select(["step", "puzzle_id", "logp_base"]).to_pandas()
    keys = pd.MultiIndex.from_frame(frame[["step", "puzzle_id"]])
    known = keys.unique().sort_values()
    if len(known) <= 2 * groups:
        return completions
    late = known[groups:]
    # A group without base log-probs shows nothing that the figures on shift and surprise could draw.
    scored = late[late.isin(keys[frame["logp_base"].notna()])]
    late = scored if len(scored) else late
    spaced = [round(i * (len(late) - 1) / max(groups - 1, 1)) for i in range(groups)]
    return completions.filter(pa.array(keys.isin(known[:groups].append(late[spaced]))))


def provenance(folder: Path) -> dict[str, object]:
    """The spec of the run in `folder` and the versions it was made with."""
    return {"spec": read_spec(folder).to_dict(), "versions": read_json(folder / "versions.json")}


def write_table(destination: Path, table: str, frame: pd.DataFrame) -> None:
    """Write rows of one table, sorted, as a published file. Raises `UserError` for rows that do not fit its schema."""
    content = to_arrow(table, frame.to_dict("records"))
    write_file(table_file(destination, table), encode_table(_in_order(content)))


def load_published(destination: str | Path, table: str) -> pd.DataFrame:
    """One published table.

    Raises `UserError` when it is missing, damaged, changed since it was published, or of an unknown schema version.
    """
    content = read_table(Path(destination), table, _REMEDY)
    check_published(table_file(Path(destination), table))
    return content.to_pandas()


def check_published(path: Path) -> None:
    """Raise `DamagedFile` unless a published file is byte for byte what the list of runs beside it vouches for."""
    sealed = _listed(path.parent).get("files", {})
    if not path.is_file() or sealed.get(path.name) != digest(path):
        raise DamagedFile(f"{path} is missing or not what was published with {path.parent / 'specs.json'}: {_REMEDY}.")


def published_specs(destination: str | Path) -> dict[str, RunSpec]:
    """The published runs' specs by name. Raises `UserError` when the list is missing, damaged, edited or newer."""
    specs = {
        name: RunSpec.from_json(json.dumps(entry["spec"])) for name, entry in published_runs(Path(destination)).items()
    }
    strangers = [name for name, spec in specs.items() if spec.name != name]
    if strangers:
        raise DamagedFile(f"{destination} lists {strangers[0]} with the spec of another run: {_REMEDY}.")
    return specs


def published_runs(destination: Path) -> dict[str, dict[str, object]]:
    """The published runs by name, each with its `provenance`. Raises as `published_specs`."""
    listed = _listed(destination)
    if not isinstance(listed.get("runs"), dict):
        raise DamagedFile(f"{destination / 'specs.json'} lists no runs: {_REMEDY}.")
    return listed["runs"]


def _listed(destination: Path) -> dict[str, object]:
    path = destination / "specs.json"
    listed = read_json(path, _REMEDY)
    check_version(path, listed.get("schema"))
    return listed


def write_runs(destination: Path, runs: Mapping[str, Mapping[str, object]], written: Iterable[str]) -> Path:
    """Write the list of published runs, name to `provenance`, and seal the files that were `written`; returns its path.

    Other files beside it keep the seal that they had: what was damaged since is not blessed. Last of what is published
    together: a process that dies before it leaves files that `check_published` refuses.
    """
    path, before = destination / "specs.json", {}
    with suppress(UserError):
        before = dict(_listed(destination).get("files", {}))
    there = {p.name: p for p in destination.glob("[!.]*") if p.suffix in (".parquet", ".csv")}
    fresh = {*written, *(there.keys() - before.keys())}
    digests = {name: digest(there[name]) for name in fresh & there.keys()}
    sealed = {name: seal for name, seal in (before | digests).items() if name in there}
    write_file(path, json_bytes({"schema": SCHEMA_VERSION, "runs": runs, "files": sealed}))
    return path


def store(profile: Profile) -> RunStore:
    """Where a profile's runs live, those of the study and the controls alike: `runs/<profile>`."""
    return RunStore(Path("runs") / profile.name)


def table(profile_name: str, name: str) -> pd.DataFrame:
    """One table (`evaluations`, `metrics`, `completions`, `probes`) of all runs of a profile.

    Runs made on this machine come first, as they would be published; without any, `cpu` falls back on the published
    records. Raises UserError where there are neither.
    """
    profile = get_profile(profile_name)
    made, wanted = store(profile), _study_names(profile)
    if wanted <= {path.parent.name for path in made.root.glob("*/DONE")}:
        return as_published(made, name, wanted)
    if profile_name == "cpu" and (PUBLISHED / "specs.json").exists():
        return load_published(PUBLISHED, name)
    how = "" if profile_name == "cpu" else f" --profile {profile_name}"
    raise UserError(f"There are no records for profile {profile_name}; make them with ./run_all.sh{how} --retrain.")


@dataclass(frozen=True)
class Study:
    """The finished runs of some arms of a profile, and of its base, as notebooks read them."""

    profile: Profile
    arms: tuple[str, ...]

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """Scores of the puzzle and of every prior task at every evaluated step."""
        return self._rows("evaluations")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """What the trainers logged, and the size of the update."""
        return self._rows("metrics")

    @cached_property
    def completions(self) -> pd.DataFrame:
        """What the arms that sample wrote while they were trained."""
        return self._rows("completions")

    @property
    def hashes(self) -> list[str]:
        """Hashes of the runs' specs: where a figure comes from."""
        return sorted({run.rsplit("-", 1)[1] for run in self.evaluations["run"]})

    @property
    def puzzle(self) -> PuzzleSpec:
        """The puzzles of this profile."""
        return self.profile.puzzle

    def _rows(self, name: str) -> pd.DataFrame:
        rows = table(self.profile.name, name)
        arm = rows["run"].str.rsplit("-", n=2).str[0]
        return rows[arm.isin(("base", *self.arms))].reset_index(drop=True)


def records_digest(profile_name: str) -> str:
    """A hash of every row that figures are drawn from; empty where there are no records.

    Taken over the rows and not over files, so that the machine that trained and a clone with the published records
    agree. The controls' tables and the probe set are small and only published: their bytes count. Of the study on
    several bases ("fair") the seals of its published runs count, each of which is written once.
    """
    total = hashlib.sha256()
    if profile_name == FAIR.name:
        seals = sorted((PUBLISHED / "bases").glob("*/*/specs.json"))
        total.update(b"".join(path.read_bytes() for path in seals))
        return total.hexdigest()[:16] if seals else ""
    try:
        for name in TABLES:
            rows = table(profile_name, name)
            if "ids" in rows:  # lists have no hash
                rows = rows.assign(ids=[None if ids is None else tuple(ids) for ids in rows["ids"]])
            total.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    except UserError:
        return ""
    others = [*(PUBLISHED / "controls").glob("[!.]*"), *PUBLISHED.glob("*.csv")] if profile_name == "cpu" else []
    for path in sorted(others):
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _study_names(profile: Profile) -> set[str]:
    """The names of a profile's runs of the study."""
    return {spec.name for spec in specs(profile, profile.study_arms)}


def publish_records(profile_name: str = "cpu", destination: Path = PUBLISHED) -> list[Path]:
    """Copy the small tables of a profile's finished study to where a fresh clone finds them.

    Only runs of the study as its profile is now: controls and runs of earlier settings lie in the same folder. Raises
    `UserError` while a run of the study is not finished, because what is published replaces the whole study.
    """
    profile = get_profile(profile_name)
    return publish(store(profile), destination, names=_study_names(profile))


def find_measured(name: str, records: str) -> pd.DataFrame | None:
    """A table that takes long to measure, as published; None where none was measured on these records.

    `records`: their `records_digest`. Raises `DamagedFile` for a table that was changed since.
    """
    known, path = _made().get(name), MEASURED / f"{name}.csv"
    if known is None or known["records"] != records:
        return None
    if not path.is_file() or digest(path) != known["file"]:
        raise DamagedFile(f"{path} is missing or not what was published with {MEASURED / 'made.json'}: {_REMEDY}.")
    return pd.read_csv(path)


def keep_measured(name: str, table: pd.DataFrame, records: str) -> pd.DataFrame:
    """Publish a table that was measured on records with this digest; returns it as `find_measured` will."""
    text = table.to_csv(index=False, lineterminator="\n")  # all digits, so that what is read is what was measured
    with publishing(MEASURED):
        write_file(MEASURED / f"{name}.csv", text)
        made = _made() | {name: {"records": records, "file": digest(MEASURED / f"{name}.csv")}}
        write_file(MEASURED / "made.json", json_bytes(made))
    return pd.read_csv(StringIO(text))


def _made() -> dict[str, dict[str, str]]:
    """By name of a table, the digests of its file and of the records that it was measured on."""
    path = MEASURED / "made.json"
    return read_json(path, _REMEDY) if path.exists() else {}
