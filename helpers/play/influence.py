"""The influence map as a page: each cell opens its pair, what one update learned from and what it moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from helpers.errors import UserError
from helpers.measure.influence import over_batches, per_token
from helpers.play.page import Json, Pictures, View, numbers
from helpers.show.dynamics import CELL
from helpers.show.marks import in_order
from helpers.show.style import colour_steps
from helpers.world.boards import Sample

LEARNED = 2
"""So many samples of what each corpus teaches stand in the page."""


def influence_pairs(
    rows: pd.DataFrame,
    learned: Mapping[str, Sequence[Sequence[Sample]]],
    probed: Sequence[Sample],
    before: Sequence[float],
) -> View:
    """A map of corpora by probes for each rule, whose cells open: texts, pictures, log-probs before and after.

    `rows` of `measure.influence.influence`; `learned`: the batches of each corpus, `probed`: the probes, both in the
    order in which they were measured; `before`: log-prob of each probe before any step (nats, summed over tokens).
    Raises UserError where they do not belong together.
    """
    items = rows.drop_duplicates("item").set_index("item").sort_index()
    known = items["kind"].tolist() == [sample.kind for sample in probed] and len(before) == len(probed)
    if not known or not set(rows["corpus"]) <= set(learned):
        raise UserError("The rows are of other corpora or probes: pass what was measured, in that order.")
    pictures = Pictures()
    corpora = in_order(rows["corpus"])
    data: dict[str, Json] = {
        "unit": CELL,
        "steps": list(rows["step"].unique()),
        "corpora": {name: _taught(learned[name], pictures) for name in corpora},
        "kinds": list(items["kind"].unique()),
        "probes": [
            _probe(sample, pictures) | {"tokens": int(tokens), "before": float(f"{logp:.6g}")}
            for sample, tokens, logp in zip(probed, items["tokens"], before, strict=True)
        ],
        "cells": _cells(rows),
        "moved": _moved(rows),
        "colours": list(colour_steps("PuOr", 41)),
        "pictures": pictures.shown,
    }
    return View("influence", "What one update on a corpus does to everything else, pair by pair", 668, data)


def _probe(sample: Sample, pictures: Pictures) -> dict[str, Json]:
    """A sample as the page shows it."""
    texts = {"kind": sample.kind, "asked": sample.prompt.text, "text": sample.completion}
    return {**texts, "picture": pictures(sample.prompt.pixels), "weight": float(f"{sample.weight:.3g}")}


def _taught(batches: Sequence[Sequence[Sample]], pictures: Pictures) -> dict[str, Json]:
    """What a corpus teaches: how much, and its first samples on boards of their own that pull at all."""
    pulling = {id(sample.prompt): sample for batch in batches for sample in reversed(batch) if sample.weight != 0}
    samples: list[Json] = [_probe(sample, pictures) for sample in list(pulling.values())[:LEARNED]]
    return {"batches": len(batches), "completions": sum(map(len, batches)), "samples": samples}


def _cells(rows: pd.DataFrame) -> dict[str, Json]:
    """step -> corpus -> kind -> mean, low, high (nats per token, 95% over batches) and the value of each batch."""
    by = ["step", "corpus", "kind"]
    each = per_token(rows, [*by, "batch"])
    values = each.groupby(by)["value"].agg(list)
    cells: dict[str, Json] = {}
    for row in over_batches(each, by).itertuples():
        ends = numbers([row.mean, row.low, row.high])
        corpus = cells.setdefault(row.step, {}).setdefault(row.corpus, {})
        corpus[row.kind] = [*ends, numbers(values[row.step, row.corpus, row.kind])]
    return cells


def _moved(rows: pd.DataFrame) -> dict[str, Json]:
    """step -> corpus -> the change of each probe (nats, summed over its tokens), mean over batches."""
    means = rows.groupby(["step", "corpus", "item"])["change"].mean().unstack("item").sort_index(axis=1)
    moved: dict[str, Json] = {}
    for (step, corpus), own in means.iterrows():
        moved.setdefault(step, {})[corpus] = numbers(own)
    return moved
