"""From schema version 1 to 2: published records keep their rows, and completions get the ids that were sampled.

Version 1 kept texts only. Where a text encodes to as many tokens as were sampled, those are its ids. Where it does not
(a lone byte that no text can hold became U+FFFD), the base's log-prob was one of other tokens: such a row loses it.
So ids of migrated rows are inferred; those of rows that were written since are what was sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as parquet

from helpers.errors import UserError
from helpers.files import read_json, write_file
from helpers.study.published import publishing, write_runs
from helpers.study.schema import SCHEMAS, encode_table, table_file, to_arrow

Encode = Callable[[str], Sequence[int]]
"""Token ids of a completion, the end token included."""


def migrate(destination: Path, encode: Encode) -> int:
    """Bring a folder of published records of version 1 to version 2; how many rows lost their `logp_base`.

    Nothing is done where there is none of version 1. Raises UserError where the folder holds no records.
    """
    listed = read_json(destination / "specs.json", "restore it")
    if str(listed.get("schema")) != "1":
        return 0
    path, lost = table_file(destination, "completions"), 0
    with publishing(destination):
        # Where the ids are there already, a kill came between this file and the list of runs.
        if path.exists() and parquet.read_schema(path).names != SCHEMAS["completions"].names:
            frame = parquet.read_table(path).to_pandas()
            if list(frame.columns) != [name for name in SCHEMAS["completions"].names if name != "ids"]:
                raise UserError(f"{path} has not the columns of version 1: restore it.")
            frame, lost = with_ids(frame, encode)
            write_file(path, encode_table(to_arrow("completions", frame.to_dict("records"))))
        write_runs(destination, listed["runs"], [])
    return lost


def with_ids(frame: pd.DataFrame, encode: Encode) -> tuple[pd.DataFrame, int]:
    """Completions with the column ids, and how many rows lost their `logp_base`; those have no ids either."""
    encoded = [list(encode(text)) for text in frame["completion"]]
    # A completion that was cut off has no end token.
    cut = [ids[:-1] if len(ids) == n + 1 else ids for ids, n in zip(encoded, frame["tokens"], strict=True)]
    known = frame["tokens"].eq([len(ids) for ids in cut]) & ~frame["completion"].str.contains("\ufffd", regex=False)
    ids = pd.Series(cut, index=frame.index, dtype=object).where(known, None)
    logp = frame["logp_base"].astype(object).where(known & frame["logp_base"].notna(), None)
    return frame.assign(logp_base=logp, ids=ids), int((~known & frame["logp_base"].notna()).sum())
