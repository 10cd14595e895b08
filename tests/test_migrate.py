"""Records of version 1 are brought to version 2: rows stay, ids come, and what was scored on other tokens goes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from test_records import OTHER, SPEC, completion, finished

from helpers.errors import UserError
from helpers.study.migrate import migrate
from helpers.study.published import load_published, publish, published_specs
from helpers.study.records import RunStore
from helpers.study.schema import SCHEMAS

TEXTS = {"a b c": 4, "a b": 2, "lone \ufffd": 3, "other words": 9}
"""Completions with the number of tokens that were sampled: whole, cut off, of a lone byte, of other tokens."""


def encode(text: str) -> list[int]:
    """A token per word, and an end."""
    return [len(word) for word in text.split()] + [99]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Published records as version 1 left them."""
    store = RunStore(tmp_path / "runs")
    finished(store, OTHER)
    run = store.start(SPEC)
    run.append("completions", [completion(step, text=text) for step, text in enumerate(TEXTS)])
    run.finish()
    place = tmp_path / "published"
    publish(store, place)
    frame = load_published(place, "completions")
    frame["tokens"] = frame["completion"].map(TEXTS).fillna(frame["tokens"]).astype(int)
    fields = [field for field in SCHEMAS["completions"] if field.name != "ids"]
    schema = pa.schema(fields, metadata={"schema_version": "1", "table": "completions"})
    parquet.write_table(pa.Table.from_pandas(frame.drop(columns="ids"), schema=schema), place / "completions.parquet")
    listed = json.loads((place / "specs.json").read_text())
    (place / "specs.json").write_text(json.dumps({"schema": 1, "runs": listed["runs"]}))
    return place


def test_version_1_is_named_with_a_way_out(old: Path) -> None:
    for call in (lambda: load_published(old, "metrics"), lambda: published_specs(old)):
        with pytest.raises(UserError, match="schema version 1 and this project reads 2"):
            call()


def test_rows_stay_ids_come_and_log_probs_of_other_tokens_go(old: Path) -> None:
    before = parquet.read_table(old / "completions.parquet").to_pandas()
    assert migrate(old, encode) == 2 + 3  # the other run's texts are of other tokens too
    after = load_published(old, "completions")
    kept = [name for name in before.columns if name != "logp_base"]
    assert after[kept].equals(before[kept])
    mine = after[after["run"] == SPEC.name].set_index("completion")
    assert mine["ids"]["a b c"].tolist() == [1, 1, 1, 99] and mine["ids"]["a b"].tolist() == [1, 1]
    assert mine["logp_base"][["a b c", "a b"]].tolist() == [-4.0, -4.0]
    for text in ("lone \ufffd", "other words"):
        assert mine["ids"][text] is None and mine["logp_base"].isna()[text]
    assert set(published_specs(old)) == {SPEC.name, OTHER.name}


def test_the_present_version_is_left_alone(old: Path) -> None:
    migrate(old, encode)
    before = {path.name: path.read_bytes() for path in old.glob("[!.]*")}
    assert migrate(old, encode) == 0
    assert {path.name: path.read_bytes() for path in old.glob("[!.]*")} == before


def test_the_published_records_hold_the_ids_that_the_tokenizer_makes_of_their_texts() -> None:
    from helpers.model.processor import encode_targets, load_processor

    rows = load_published("figures/records", "completions").dropna(subset="ids")
    encoded = encode_targets(load_processor().tokenizer, rows["completion"].tolist())
    assert len(rows) == 6398
    assert all(list(own) == ids[: len(own)] for own, ids in zip(rows["ids"], encoded, strict=True))
