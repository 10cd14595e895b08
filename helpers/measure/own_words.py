"""How probable a base of the study on several bases finds what a cell learns to write, asked as the cell asks.

A base that answers in two forms may find a bare answer, where one is asked for, as likely as its own think. Nothing is
trained: rules or the base itself write SFT's texts, and RFT's are what a published run drew. And what one update on
SFT's texts does to gold answers in each form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd

from helpers.measure import influence, linear
from helpers.measure.perplexity import base_logps
from helpers.measure.reach import corpus_summary
from helpers.model import build
from helpers.model.build import Loaded
from helpers.study import cells
from helpers.study.bases import BASES
from helpers.study.cells import SOURCE_RATE, TWINS, Kind
from helpers.study.profiles import FAIR
from helpers.study.published import store
from helpers.study.schema import is_correct
from helpers.study.spec import RunSpec
from helpers.train.recipes import RECIPES, Given
from helpers.world import seeds
from helpers.world.battery import battery_samples, battery_tasks
from helpers.world.boards import Corpus, Prompted, Sample, training_boards
from helpers.world.forms import Asked, ask_for, due

SFT = ("sft-answer direct", "sft-answer plain", "sft-expert sentences", "sft-expert plain", "sft-voice think")
RFT = ("rft direct", "rft think")
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMS: tuple[Asked, ...] = ("direct", "think", "sentences")
COLUMNS = ["cell", "kind", "stem", "completions", "tokens", "logp", "perplexity", "low", "high"]


def perplexities(stem: int, n: int, kinds: Sequence[Kind] = KINDS) -> pd.DataFrame:
    """Perplexity of each cell's texts under the bases of a stem: columns `COLUMNS`, a row per cell and base.

    Of SFT's cells the first `n` texts; of RFT's the correct rollouts of the last third of its run on that base, scored
    when they were drawn (none of a run that is neither published nor finished here). Intervals over texts, 95%
    bootstrap. Bases that are not kept are left out.
    """
    parts = []
    for kind in kinds:
        if cells.base_name(kind, stem) in BASES:
            rows = pd.concat([*_written(kind, stem, n), *_drawn(kind, stem)], ignore_index=True)
            parts.append(corpus_summary(rows).rename(columns={"corpus": "cell"}).assign(kind=kind, stem=stem))
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def texts_of(kind: Kind, stem: int, n: int) -> tuple[Loaded, dict[str, Corpus]]:
    """A base, and the first `n` texts that each of SFT's cells would learn on it, behind their prompts, by cell."""
    corpora, base = {}, build.load(cells.base_name(kind, stem))
    for name in SFT:
        spec = replace(cells.get_cell(name).at(stem, SOURCE_RATE), base=cells.base_name(kind, stem))
        boards = training_boards(spec.puzzle, n, stem).asking(spec.asked, seeds.training(stem))
        texts = RECIPES[spec.arm].write(Given(spec, store(FAIR), base.processor, boards))
        corpora[name] = boards.corpus(name, texts)
    return base, corpora


def _written(kind: Kind, stem: int, n: int) -> list[pd.DataFrame]:
    """The texts that SFT's cells would learn on a base, scored under it."""
    base, corpora = texts_of(kind, stem, n)
    return [base_logps(base, corpus) for corpus in corpora.values()]


def gold_in_forms(tasks: Sequence[str], numbers: Sequence[int]) -> list[Sample]:
    """Gold answers of the held-out battery samples `numbers` of each task, asked for in each of `FORMS`.

    Written as they are asked for; the kind is that form.
    """
    samples = []
    for asked in FORMS:
        rng = np.random.default_rng((seeds.WORDINGS, seeds.HELD_OUT))
        for task in tasks:
            drawn = battery_samples(task, max(numbers) + 1)
            for own in (drawn[number] for number in numbers):
                question = due(ask_for(own.question, asked, rng), asked)
                samples.append(Sample(Prompted(own.pixels, question.text), question.completion, f"asked: {asked}"))
    return samples


def one_step(kind: Kind, stem: int, boards: int, batches: int, numbers: Sequence[int]) -> pd.DataFrame:
    """What one update of a base on each of SFT's cells does to gold answers of the prior tasks, form by form.

    On up to `batches` batches of `boards` boards, by SGD and by AdamW at the cells' rate; gold answers of the samples
    `numbers` of every task. Columns step, corpus (the cell), kind (the form), mean, low, high: nats per token, with
    95% t intervals over batches.
    """
    base, corpora = texts_of(kind, stem, boards * batches)
    weights = linear.weights_of(base.model)
    parts = {
        name: [linear.scored(base, part) for part in linear.batches(list(own), boards, batches)]
        for name, own in corpora.items()
    }
    gold = linear.scored(base, gold_in_forms(battery_tasks(), numbers))
    steps = [influence.Step("sgd", 0.01), influence.Step("adamw", SOURCE_RATE)]
    rows = influence.influence(influence.batch_gradients(parts, weights), gold, weights, steps)
    by = ["step", "corpus", "kind"]
    return influence.over_batches(influence.per_token(rows, [*by, "batch"]), by)


def _drawn(kind: Kind, stem: int) -> list[pd.DataFrame]:
    """The correct rollouts of the last third of RFT's runs on a base, as they were scored under it."""
    found = []
    for name in RFT:
        cell = cells.CELLS.get(name if kind == "two-form" else f"{name}, {kind}")
        rows = cells.tables_of([cell.at(stem, SOURCE_RATE)], ["completions"])["completions"] if cell else None
        if rows is not None and len(rows):
            late = rows[is_correct(rows) & rows["logp_base"].notna() & (rows["step"] > rows["step"].max() * 2 / 3)]
            scored = late.rename(columns={"logp_base": "logp"})[["logp", "tokens"]]
            found.append(scored.assign(corpus=name, per_token=scored["logp"] / scored["tokens"]))
    return found


def beside_drops(table: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """`perplexities` with a column drop: what the cell had lost at 0.7 at `SOURCE_RATE`; NaN where it did not arrive.

    `front`: as from `front_table`.
    """
    own = front[front["rate"] == SOURCE_RATE].set_index(["cell", "base"])["drop"].to_dict()
    names = [row.cell if row.kind == "two-form" else f"{row.cell}, {row.kind}" for row in table.itertuples()]
    drops = [own.get((name, str(stem)), float("nan")) for name, stem in zip(names, table["stem"], strict=True)]
    return table.assign(drop=drops)


def runs_read(stems: Sequence[int] = TWINS) -> list[RunSpec]:
    """The runs whose drops or rollouts stand beside perplexities, on the bases of some stems and of both kinds."""
    names = [name for cell in (*SFT, *RFT) for name in (cell, f"{cell}, one-form") if name in cells.CELLS]
    return [cells.get_cell(name).at(stem, SOURCE_RATE) for stem in stems for name in names]


def is_whole(stems: Sequence[int] = TWINS) -> bool:
    """Whether every base and every run that `beside_drops` tells of is there."""
    bases = {cells.base_name(kind, stem) for kind in KINDS for stem in stems}
    return bases <= BASES.keys() and all(map(cells.is_published, runs_read(stems)))
