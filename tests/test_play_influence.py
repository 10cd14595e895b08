"""The influence page: cells, intervals and probes are those of the rows that were measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.play.influence import influence_pairs
from helpers.stats.intervals import seed_interval
from helpers.world.boards import Prompted, Sample


def sample(kind: str, text: str, shade: int, weight: float = 1.0) -> Sample:
    return Sample(Prompted(np.full((4, 4, 3), shade, np.uint8), f"about {kind}?"), text, kind, weight)


PROBED = [sample("colour", "red", 1), sample("colour", "blue", 2), sample("puzzle bare", "2 1", 3)]
LEARNED = {
    "rft": [[sample("rft", "flat", 4, 0.0), sample("rft", "good", 4, 1.5)], [sample("rft", "bad", 5, -1.0)]],
    "sft-answer": [[sample("sft-answer", "2 1", 3)], [sample("sft-answer", "1 2", 5)]],
}
BEFORE = [-1.0, -3.0, -8.0]


def measured() -> pd.DataFrame:
    """Items of 2, 2 and 4 tokens; item i moves by (b + 1) (i + 1) hundredths in batch b, down for sft-answer."""
    rows = [
        (corpus, batch, "AdamW", item, PROBED[item].kind, (2, 2, 4)[item], sign * (batch + 1) * (item + 1) / 100)
        for corpus, sign in (("rft", 1), ("sft-answer", -1))
        for batch in (0, 1)
        for item in range(3)
    ]
    return pd.DataFrame(rows, columns=["corpus", "batch", "step", "item", "kind", "tokens", "change"])


def test_a_cell_pools_tokens_and_its_interval_is_over_batches() -> None:
    data = influence_pairs(measured(), LEARNED, PROBED, BEFORE).data
    mean, low, high, batches = data["cells"]["AdamW"]["rft"]["colour"]
    assert batches == pytest.approx([0.03 / 4, 0.06 / 4])
    assert (mean, low, high) == pytest.approx(seed_interval(pd.Series(batches)), rel=1e-3)
    assert data["cells"]["AdamW"]["sft-answer"]["puzzle bare"][0] == pytest.approx(-0.045 / 4)
    assert data["moved"]["AdamW"]["rft"] == pytest.approx([0.015, 0.03, 0.045])
    assert [probe["before"] for probe in data["probes"]] == BEFORE
    assert [probe["tokens"] for probe in data["probes"]] == [2, 2, 4]


def test_what_is_shown_of_a_corpus_pulls_and_each_picture_stands_once() -> None:
    data = influence_pairs(measured(), LEARNED, PROBED, BEFORE).data
    assert [own["text"] for own in data["corpora"]["rft"]["samples"]] == ["good", "bad"]
    assert data["corpora"]["rft"]["completions"] == 3 and data["corpora"]["rft"]["samples"][1]["weight"] == -1
    assert len(data["pictures"]) == 5  # 3 and 5 are shown twice
    assert data["corpora"]["sft-answer"]["samples"][0]["picture"] == data["probes"][2]["picture"]


@pytest.mark.parametrize(
    ("learned", "probed", "before"),
    [
        ({"rft": LEARNED["rft"]}, PROBED, BEFORE),
        (LEARNED, [replace(PROBED[0], kind="shape"), *PROBED[1:]], BEFORE),
        (LEARNED, PROBED, BEFORE[1:]),
    ],
)
def test_what_does_not_belong_together_is_refused(learned, probed, before) -> None:
    with pytest.raises(UserError, match="The rows are of other corpora or probes"):
        influence_pairs(measured(), learned, probed, before)
