"""The run store: resuming, refusing bad rows, noticing damage, loading and publishing."""

import builtins
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swapping import swap

from helpers import files
from helpers.errors import UserError
from helpers.study import fixed, published, records
from helpers.study.published import (
    as_published,
    check_published,
    load_published,
    publish,
    published_runs,
    published_specs,
    write_runs,
)
from helpers.study.records import Run, RunStore, load_table, verify
from helpers.study.schema import SCHEMAS, TABLES
from helpers.study.spec import RunSpec

SPEC = RunSpec("rft", 0, 10, 1e-4, 2)
OTHER = RunSpec("sft-answer", 1, 10, 1e-4, 4)


def metric(step: int, value: float = 0.5, name: str = "loss") -> dict[str, object]:
    """One row of metrics without the columns that the run fills in."""
    return {"step": step, "samples": 2 * step, "name": name, "value": value}


def evaluation(step: int, measure: str = "exact") -> dict[str, object]:
    """One row of evaluations."""
    return {"step": step, "samples": 2 * step, "task": "puzzle", "measure": measure, "value": 0.25, "n": 16}


def probe(step: int, item: int = 0) -> dict[str, object]:
    """One row of probes."""
    return {"step": step, "probe": "rft-right", "item": item, "logp": -7.5, "tokens": 9}


def completion(step: int, puzzle_id: int = 0, text: str = "<answer>1 2 3 4</answer>") -> dict[str, object]:
    """One row of completions."""
    parts = {"hit": 0.5, "exact": 0.0, "format": 1.0, "advantage": -0.25}
    scores = {"logp_policy": -3.0, "logp_base": -4.0, "temperature": 1.0, "dtype": "float32", "tokens": 9}
    scores["ids"] = list(range(9))
    return {"step": step, "puzzle_id": puzzle_id, "prompt": "solve", "completion": text} | parts | scores


ROWS: dict[str, Callable[..., dict[str, object]]] = {
    "metrics": metric,
    "completions": completion,
    "evaluations": evaluation,
    "probes": probe,
}


def finished(store: RunStore, spec: RunSpec = SPEC, steps: int = 3) -> Run:
    """A finished run with one row per table and step."""
    run = store.start(spec)
    for table, row in ROWS.items():
        run.append(table, [row(step) for step in range(steps)])
    run.finish()
    return run


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """An empty store."""
    return RunStore(tmp_path / "runs")


# --- the life of a run ---


def test_a_finished_run_is_whole_and_no_longer_planned(store: RunStore) -> None:
    assert store.plan([SPEC, OTHER, SPEC]) == [SPEC, OTHER]
    run = finished(store)
    assert run.done
    assert store.plan([SPEC, OTHER]) == [OTHER]
    assert store.finished() == [SPEC]
    assert verify(store.root) == []
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"spec.json", "versions.json", "DONE"} | {f"{table}.parquet" for table in TABLES}
    assert run.folder == store.root / SPEC.name


def test_spec_and_versions_are_kept(store: RunStore) -> None:
    run = store.start(SPEC)
    assert RunSpec.from_json((run.folder / "spec.json").read_text()) == SPEC
    versions = json.loads((run.folder / "versions.json").read_text())
    assert set(versions) == {
        "python", "platform", "torch", "transformers", "trl", "peft", "datasets", "claims",
    }  # fmt: skip
    assert versions["python"].startswith("3.")
    assert versions["claims"] == fixed.current_hashes("primary") and len(versions["claims"]) == 6


def test_rows_come_back_with_types_and_identity(store: RunStore) -> None:
    run = store.start(SPEC)
    run.append("metrics", [metric(1), metric(np.int32(2), np.float32(0.25))])
    run.append("metrics", [{**metric(3, 7), "run": SPEC.name, "seed": 0}])
    run.finish()
    frame = load_table(store.root, "metrics")
    assert list(frame.columns) == ["run", "arm", "seed", "step", "samples", "name", "value"]
    assert frame["value"].tolist() == [0.5, 0.25, 7.0]
    assert set(frame["run"]) == {SPEC.name}
    assert set(frame["arm"]) == {"rft"}
    assert (frame["seed"].dtype, frame["value"].dtype) == (np.dtype("int64"), np.dtype("float64"))


def test_nothing_is_on_disk_before_a_flush(store: RunStore) -> None:
    run = store.start(SPEC)
    run.append("probes", [probe(0)])
    assert not (run.folder / "probes.parquet").exists()
    run.flush()
    assert parquet.read_metadata(run.folder / "probes.parquet").num_rows == 1
    run.append("probes", [probe(1)])
    run.flush()
    run.flush()
    assert parquet.read_metadata(run.folder / "probes.parquet").num_rows == 2


def test_a_finished_record_is_closed(store: RunStore) -> None:
    run = finished(store)
    before = (run.folder / "DONE").read_bytes()
    again = store.start(SPEC)
    assert again.done
    for change in (lambda: again.append("metrics", [metric(9)]), lambda: again.truncate(0)):
        with pytest.raises(UserError, match="is closed"):
            change()
    again.finish()
    assert (run.folder / "DONE").read_bytes() == before


def test_checkpoints_have_a_folder(store: RunStore) -> None:
    run = store.start(SPEC)
    assert run.checkpoints == run.folder / "checkpoints"
    assert run.checkpoints.is_dir()


# --- resuming ---


def test_truncation_on_resume_gives_the_tables_of_an_uninterrupted_run(store: RunStore) -> None:
    first = store.start(SPEC)
    for table, row in ROWS.items():
        first.append(table, [row(step) for step in range(6)])
    first.flush()  # The checkpoint of step 3 exists; the process dies after step 5.
    second = store.start(SPEC)
    assert not second.done
    second.truncate(3)
    for table, row in ROWS.items():
        second.append(table, [row(step) for step in (4, 5)])
    second.finish()
    for table in TABLES:
        assert load_table(store.root, table)["step"].tolist() == [0, 1, 2, 3, 4, 5]


def test_truncation_drops_waiting_rows_too_and_reaches_the_disk(store: RunStore) -> None:
    run = store.start(SPEC)
    run.append("metrics", [metric(1), metric(5)])
    run.flush()
    run.append("metrics", [metric(2), metric(6)])
    run.truncate(2)
    assert parquet.read_table(run.folder / "metrics.parquet")["step"].to_pylist() == [1]
    run.finish()
    assert load_table(store.root, "metrics")["step"].tolist() == [1, 2]


def test_truncating_to_minus_one_empties_the_record(store: RunStore) -> None:
    run = store.start(SPEC)
    run.append("metrics", [metric(0), metric(1)])
    run.flush()
    run.truncate(-1)
    run.finish()
    assert load_table(store.root, "metrics").empty


@settings(max_examples=25)  # Every example writes to the disk.
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12), st.integers(-1, 10))
def test_truncation_keeps_exactly_the_steps_up_to_the_given_one(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, bool]], step: int
) -> None:
    run = RunStore(tmp_path_factory.mktemp("runs")).start(SPEC)
    for at, flush in moves:
        run.append("probes", [probe(at)])
        if flush:
            run.flush()
    run.truncate(step)
    run.finish()
    kept = parquet.read_table(run.folder / "probes.parquet")["step"].to_pylist()
    assert kept == [at for at, _ in moves if at <= step]


def test_another_spec_in_the_folder_is_refused(store: RunStore) -> None:
    run = store.start(SPEC)
    (run.folder / "spec.json").write_text(OTHER.to_json())
    with pytest.raises(UserError, match=f"holds another spec .{OTHER.name}"):
        store.start(SPEC)


def test_a_resume_under_other_versions_is_kept_beside_the_first(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for torch in ("1", "1", "2", "2"):
        swap(monkeypatch, records, "versions", lambda torch=torch: {"torch": torch})
        run = store.start(SPEC)
    claims = {"claims": fixed.current_hashes("primary")}
    assert (
        json.loads((run.folder / "versions.json").read_text())
        == {
            "torch": "1",
            "resumed_with": [{"torch": "2"} | claims],
        }
        | claims
    )


# --- rows that are refused ---


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("metrics", {"value": math.nan}, "metrics, column value, row 1: must be a finite number, got nan"),
        ("metrics", {"value": -math.inf}, "metrics, column value, row 1: must be a finite number, got -inf"),
        ("metrics", {"value": np.float32("nan")}, "metrics, column value, row 1: must be a finite number"),
        ("metrics", {"value": np.float32("inf")}, "metrics, column value, row 1: must be a finite number"),
        ("metrics", {"value": np.float16("-inf")}, "metrics, column value, row 1: must be a finite number"),
        ("metrics", {"value": 10**400}, "metrics, column value, row 1: must be a finite number"),
        ("metrics", {"value": None}, "metrics, column value, row 1: must be a finite number, got None"),
        ("metrics", {"value": "0.5"}, "metrics, column value, row 1: must be a finite number"),
        ("metrics", {"value": True}, "metrics, column value, row 1: must be a finite number"),
        ("metrics", {"step": 1.0}, "metrics, column step, row 1: must be a whole number of at most 64 bits, got 1.0"),
        ("metrics", {"step": True}, "metrics, column step, row 1: must be a whole number of at most 64 bits"),
        ("metrics", {"step": None}, "metrics, column step, row 1: must be a whole number of at most 64 bits"),
        ("metrics", {"step": np.uint64(2**63)}, "metrics, column step, row 1: must be a whole number"),
        ("metrics", {"step": -(2**70)}, "metrics, column step, row 1: must be a whole number of at most 64 bits"),
        ("metrics", {"name": 3}, "metrics, column name, row 1: must be text that can be written as UTF-8, got 3"),
        ("metrics", {"name": "\ud800"}, "metrics, column name, row 1: must be text that can be written"),
        ("metrics", {"nmae": 1}, "metrics, row 1: there is no column nmae"),
        ("metrics", {"seed": 4}, "metrics, column seed, row 1: 4 is another run's"),
        ("completions", {"arm": "rft"}, "completions, row 1: there is no column arm"),
        ("completions", {"logp_base": math.nan}, "completions, column logp_base, row 1: must be a finite number"),
        ("evaluations", {"measure": "exakt"}, "evaluations, column measure, row 1: use one of exact, hit"),
        ("probes", {"logp": -math.inf}, "probes, column logp, row 1: must be a finite number"),
    ],
)
def test_bad_rows_are_refused_and_none_of_the_batch_is_kept(
    store: RunStore, table: str, change: dict[str, object], says: str
) -> None:
    run = store.start(SPEC)
    with pytest.raises(UserError) as caught:
        run.append(table, [ROWS[table](0), ROWS[table](1) | change])
    assert str(caught.value).startswith(says)
    run.finish()
    assert load_table(store.root, table).empty


@pytest.mark.parametrize("table", TABLES)
def test_every_missing_column_is_named(store: RunStore, table: str) -> None:
    run = store.start(SPEC)
    for name in set(SCHEMAS[table].names) - {"run", "arm", "seed"}:
        row = ROWS[table](0)
        del row[name]
        with pytest.raises(UserError, match=f"{table}, row 0: column {name} is missing"):
            run.append(table, [row])


def test_unknown_tables_are_refused(store: RunStore, tmp_path: Path) -> None:
    run = store.start(SPEC)
    calls = (
        lambda: run.append("metric", []),
        lambda: load_table(store.root, "metric"),
        lambda: load_published(tmp_path, "metric"),
    )
    for call in calls:
        with pytest.raises(UserError, match="choose one of metrics, completions, evaluations, probes"):
            call()


# --- a disk that fails ---


class _FullDisk:
    """A file that takes half of what is written and then has no room left."""

    def __init__(self, path: Path) -> None:
        self.file = builtins.open(path, "wb")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "_FullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        """Write half, then fail as a full disk does."""
        self.file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_earlier_file_and_the_rows(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.start(SPEC)
    run.append("metrics", [metric(1)])
    run.flush()
    before = (run.folder / "metrics.parquet").read_bytes()
    run.append("metrics", [metric(2)])
    with monkeypatch.context() as patch:
        patch.setattr(files, "open", lambda path, _: _FullDisk(path), raising=False)
        with pytest.raises(UserError, match="disk is full and .*metrics.parquet was not written"):
            run.flush()
    assert (run.folder / "metrics.parquet").read_bytes() == before
    assert list(run.folder.glob("*.tmp")) == []
    run.finish()  # Space was freed: the rows that waited are still there.
    assert load_table(store.root, "metrics")["step"].tolist() == [1, 2]


def test_a_disk_that_fills_at_the_end_leaves_the_run_unfinished(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.start(SPEC)
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "DONE":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="disk is full"):
        run.finish()
    assert store.plan([SPEC]) == [SPEC]


def test_a_root_that_cannot_hold_folders_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="could not be written"):
        RunStore(tmp_path / "runs").start(SPEC)


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with files.replacing(path) as first:
        first.write(b"half")
        files.write_file(path, "second")
        first.write(b" and half")
        assert path.read_text() == "second"
    assert path.read_text() == "half and half"
    assert [path] == list(tmp_path.iterdir())


# --- damage ---


def cut(path: Path) -> None:
    """Cut a file to half its length."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no DONE": (lambda folder: (folder / "DONE").unlink(), "stopped before its end"),
    "half a DONE": (lambda folder: cut(folder / "DONE"), "DONE is missing or cut short"),
    "empty DONE": (lambda folder: (folder / "DONE").write_text(""), "DONE is missing or cut short"),
    "half a table": (lambda folder: cut(folder / "probes.parquet"), "probes.parquet is missing or cut short"),
    "no table": (lambda folder: (folder / "metrics.parquet").unlink(), "metrics.parquet is missing"),
    "half a spec": (lambda folder: cut(folder / "spec.json"), "spec.json is missing or cut short"),
    "list as spec": (lambda folder: (folder / "spec.json").write_text("[]"), "is not a JSON object"),
    "half versions": (lambda folder: cut(folder / "versions.json"), "versions.json is missing or cut short"),
    "leftover": (lambda folder: (folder / "probes.parquet.tmp").write_text("x"), "probes.parquet.tmp"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_counts_as_unfinished_and_can_be_made_again(store: RunStore, kind: str) -> None:
    damage, says = DAMAGE[kind]
    finished(store, OTHER)
    folder = finished(store).folder
    damage(folder)
    assert store.plan([SPEC, OTHER]) == [SPEC]
    if kind == "no DONE":
        assert set(load_table(store.root, "probes")["run"]) == {OTHER.name}
    else:  # a run that was finished once is not left out in silence
        with pytest.raises(UserError, match=f"{SPEC.name} in .* does not count as finished"):
            load_table(store.root, "probes")
    (sentence,) = verify(store.root)
    assert says in sentence
    assert sentence.startswith(f"{SPEC.name} does not count as finished: ")
    run = store.start(SPEC)
    if not run.done:
        run.truncate(-1)
        run.finish()
    assert store.plan([SPEC]) == []


def test_a_damaged_table_is_set_aside_and_the_run_begins_anew(store: RunStore) -> None:
    for name in (f"{SPEC.name}.damaged", f"{SPEC.name}.damaged-2"):
        run = store.start(SPEC)
        assert not run.note
        run.append("metrics", [metric(1)])
        run.flush()
        cut(run.folder / "metrics.parquet")
        again = store.start(SPEC)
        assert f"its old folder is now {name}:" in again.note
        assert (store.root / name / "metrics.parquet").exists()
        assert not (again.folder / "metrics.parquet").exists()
    again.finish()
    assert store.finished() == [SPEC]
    assert ["set aside" in sentence for sentence in verify(store.root)] == [True, True]


def test_an_interrupted_run_resumes_without_being_set_aside(store: RunStore) -> None:
    run = store.start(SPEC)
    run.append("metrics", [metric(1)])
    run.flush()
    (run.folder / "metrics.parquet.tmp").write_bytes(b"half")
    again = store.start(SPEC)
    assert again.note == ""
    assert list(run.folder.glob("*.tmp")) == []
    again.finish()
    assert load_table(store.root, "metrics")["step"].tolist() == [1]


def test_a_changed_byte_is_noticed_and_not_published(store: RunStore, tmp_path: Path) -> None:
    path = finished(store).folder / "completions.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (sentence,) = verify(store.root)
    assert "completions.parquet was changed after the run finished" in sentence
    with pytest.raises(UserError, match=r"completions\.parquet was changed after the run finished"):
        publish(store, tmp_path / "published")


@pytest.mark.parametrize("table", ["metrics", "evaluations", "probes"])
def test_verify_notices_repeated_rows(store: RunStore, table: str) -> None:
    run = store.start(SPEC)
    run.append(table, [ROWS[table](1), ROWS[table](2), ROWS[table](1)])
    run.append("completions", [completion(1), completion(1)])
    run.finish()
    (sentence,) = verify(store.root)
    assert f"{table}.parquet repeats step, " in sentence
    assert "in 1 rows" in sentence


def test_verify_notices_a_renamed_folder(store: RunStore) -> None:
    folder = finished(store).folder
    folder.rename(folder.with_name(OTHER.name))
    (sentence,) = verify(store.root)
    assert f"{OTHER.name} does not count as finished: its spec.json belongs to {SPEC.name}" in sentence


# --- schemas ---


def rewrite_version(path: Path, table: str, version: str) -> None:
    """Write a table as another project version would have, and keep `DONE` in step with it."""
    content = parquet.read_table(path).replace_schema_metadata({"schema_version": version, "table": table})
    parquet.write_table(content, path, compression="zstd")
    done = path.parent / "DONE"
    if done.exists():
        done.write_bytes(files.json_bytes(records._seal(path.parent)))


def test_an_unknown_schema_version_of_a_table_is_refused_with_a_way_out(store: RunStore) -> None:
    path = finished(store).folder / "metrics.parquet"
    rewrite_version(path, "metrics", "99")
    says = "has schema version 99 and this project reads 1: use the project version that wrote it, or move it"
    with pytest.raises(UserError, match=says):
        load_table(store.root, "metrics")
    assert len(load_table(store.root, "probes")) == 3
    (sentence,) = verify(store.root)
    assert "has schema version 99" in sentence


def test_a_parquet_file_without_our_metadata_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "metrics.parquet")
    with pytest.raises(UserError, match="schema version none"):
        load_published(tmp_path, "metrics")


def test_other_columns_under_the_known_version_are_refused(store: RunStore) -> None:
    path = finished(store).folder / "metrics.parquet"
    path.write_bytes((path.parent / "probes.parquet").read_bytes())
    (path.parent / "DONE").write_bytes(files.json_bytes(records._seal(path.parent)))
    with pytest.raises(UserError, match="does not have the columns of metrics"):
        load_table(store.root, "metrics")


def test_a_run_finished_by_another_project_version_is_never_overwritten(store: RunStore) -> None:
    folder = finished(store).folder
    (folder / "DONE").write_text('{"schema": 1}')
    for call in (
        lambda: store.plan([SPEC]),
        lambda: store.start(SPEC),
        lambda: load_table(store.root, "probes"),
    ):
        with pytest.raises(UserError, match="has schema version 1 and this project reads 2"):
            call()
    assert folder.exists()


def test_the_schema_version_is_in_every_file(store: RunStore) -> None:
    run = finished(store)
    for table in TABLES:
        metadata = parquet.read_schema(run.folder / f"{table}.parquet").metadata
        assert metadata[b"schema_version"] == (b"2" if table == "completions" else b"1")
        assert metadata[b"table"] == table.encode()


# --- loading ---


def test_load_table_joins_the_finished_runs_of_a_store(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    finished(store)
    finished(store, OTHER)
    store.start(RunSpec("rft", 5, 10, 1e-4, 2)).append("metrics", [metric(1)])
    frame = load_table(str(store.root), "metrics")
    assert frame.groupby("run")["step"].apply(list).to_dict() == {
        SPEC.name: [0, 1, 2],
        OTHER.name: [0, 1, 2],
    }


def test_an_empty_store_gives_an_empty_table_and_a_missing_one_an_error(store: RunStore) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        load_table(store.root, "probes")
    with pytest.raises(UserError, match="there is no folder"):
        verify(store.root)
    store.start(SPEC)
    frame = load_table(store.root, "probes")
    assert frame.empty
    assert list(frame.columns) == SCHEMAS["probes"].names


# --- publishing ---


def test_publishing_twice_gives_the_same_bytes_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = [completion(step, item, text) for step in range(3) for item in (4, 2) for text in ("b", "a", "a")]
    published = []
    for name, ordered in (("one", rows), ("two", rows[::-1])):
        store = RunStore(tmp_path / name)
        for spec in (SPEC, OTHER) if name == "one" else (OTHER, SPEC):
            run = store.start(spec)
            for row in ordered:
                run.append("completions", [row])
                run.flush()
            run.append("metrics", [metric(row) for row in (range(3) if name == "one" else (2, 0, 1))])
            run.finish()
        paths = publish(store, tmp_path / f"{name}-published", completion_groups=4)
        first = [path.read_bytes() for path in paths]
        assert [path.read_bytes() for path in publish(store, tmp_path / f"{name}-published", 4)] == first
        published.append(first)
    assert published[0] == published[1]


def test_published_tables_and_specs_come_back(store: RunStore, tmp_path: Path) -> None:
    finished(store, OTHER)
    run = finished(store)
    run.checkpoints.joinpath("weights.bin").write_bytes(b"heavy")
    store.start(RunSpec("rft", 5, 10, 1e-4, 2))  # Unfinished: stays out.
    paths = publish(store, tmp_path / "published")
    assert {path.name for path in (tmp_path / "published").glob("[!.]*")} == {path.name for path in paths}
    assert {path.name for path in paths} == {f"{table}.parquet" for table in TABLES} | {"specs.json"}
    for table in TABLES:
        pd.testing.assert_frame_equal(load_published(tmp_path / "published", table), load_table(store.root, table))
    assert published_specs(tmp_path / "published") == {SPEC.name: SPEC, OTHER.name: OTHER}
    listed = json.loads((tmp_path / "published" / "specs.json").read_text())
    assert listed["runs"][SPEC.name]["versions"] == records.versions() | {"claims": fixed.current_hashes("primary")}


@pytest.mark.parametrize(
    ("groups", "unscored", "steps"),
    [
        (0, set(), []),
        (1, set(), [0, 1]),
        (2, set(), [0, 1, 2, 9]),
        (3, set(), [0, 1, 2, 3, 6, 9]),
        (4, set(), [0, 1, 2, 3, 4, 6, 7, 9]),
        (5, set(), range(10)),
        (99, set(), range(10)),
        (2, {1, 3, 5, 7, 9}, [0, 1, 2, 8]),  # the early ones count whether scored or not
        (3, {1, 3, 5, 7, 9}, [0, 1, 2, 4, 6, 8]),
        (3, {3, 4, 5, 6, 8, 9}, [0, 1, 2, 7]),  # the only scored one of the rest
        (3, set(range(10)), [0, 1, 2, 3, 6, 9]),
    ],
)
def test_thinning_keeps_early_groups_and_whole_ones_spread_over_the_rest(
    store: RunStore, tmp_path: Path, groups: int, unscored: set[int], steps: list[int]
) -> None:
    for spec in (SPEC, OTHER):
        run = store.start(spec)
        rows = [completion(step, 7, text) for step in range(10) for text in "xyz"]
        run.append("completions", [r | {"logp_base": None} if r["step"] in unscored else r for r in rows])
        run.finish()
    publish(store, tmp_path / "published", completion_groups=groups)
    frame = load_published(tmp_path / "published", "completions")
    for spec in (SPEC, OTHER):
        mine = frame[frame["run"] == spec.name]
        assert mine["step"].tolist() == [step for step in steps for _ in range(3)]
        assert mine["completion"].tolist() == list("xyz") * len(steps)


def test_records_read_as_published_equal_the_published_ones(store: RunStore, tmp_path: Path) -> None:
    for spec in (SPEC, OTHER):
        run = store.start(spec)
        run.append("completions", [completion(step, 7, text) for step in range(200, -1, -1) for text in "yx"])
        run.append("metrics", [metric(2), metric(0)])
        run.finish()
    publish(store, tmp_path / "published", names=[OTHER.name])
    for table in TABLES:
        found = as_published(store, table, [OTHER.name])
        pd.testing.assert_frame_equal(found, load_published(tmp_path / "published", table))
    assert len(as_published(store, "completions", [OTHER.name])) == 2 * 2 * published.COMPLETION_GROUPS
    assert as_published(store, "metrics", []).empty


def test_asking_for_a_run_that_is_not_finished_is_refused(store: RunStore, tmp_path: Path) -> None:
    finished(store)
    store.start(OTHER)
    for call in (
        lambda: as_published(store, "metrics", [SPEC.name, OTHER.name]),
        lambda: publish(store, tmp_path / "published", names=[OTHER.name]),
    ):
        with pytest.raises(UserError, match=f"{OTHER.name} in .* does not count as finished: it was stopped"):
            call()
    assert not (tmp_path / "published").exists()


def test_what_was_damaged_since_is_not_blessed_by_publishing_something_else(store: RunStore, tmp_path: Path) -> None:
    finished(store)
    place = tmp_path / "published"
    publish(store, place)
    (place / "extra.csv").write_text("a\n1\n")
    write_runs(place, published_runs(place), ["extra.csv"])
    check_published(place / "extra.csv")
    path = place / "metrics.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (place / "extra.csv").write_text("a\n2\n")
    write_runs(place, published_runs(place), ["extra.csv"])
    check_published(place / "extra.csv")
    with pytest.raises(UserError, match="metrics.parquet is missing or not what was published"):
        check_published(path)


def test_publishing_nothing_is_refused(store: RunStore, tmp_path: Path) -> None:
    store.start(SPEC)
    with pytest.raises(UserError, match="no finished run"):
        publish(store, tmp_path / "published")
    with pytest.raises(UserError, match="completion_groups is -1"):
        publish(store, tmp_path / "published", -1)
    assert not (tmp_path / "published").exists()


def test_published_files_that_are_missing_cut_or_newer_are_told(store: RunStore, tmp_path: Path) -> None:
    destination = tmp_path / "published"
    with pytest.raises(UserError, match="metrics.parquet is missing or cut short: restore it"):
        load_published(destination, "metrics")
    with pytest.raises(UserError, match="specs.json is missing or cut short: restore it"):
        published_specs(destination)
    finished(store)
    publish(store, destination)
    cut(destination / "metrics.parquet")
    with pytest.raises(UserError, match="metrics.parquet is missing or cut short"):
        load_published(destination, "metrics")
    publish(store, destination)
    rewrite_version(destination / "probes.parquet", "probes", "7")
    with pytest.raises(UserError, match="schema version 7"):
        load_published(destination, "probes")
    (destination / "specs.json").write_text('{"schema": 3, "runs": {}}')
    with pytest.raises(UserError, match="schema version 3"):
        published_specs(destination)
