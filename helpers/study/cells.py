"""The study on several bases: its cells, and the runs of each cell on each base.

A *cell* is an arm, the form that its prompts ask for and the kind of base it starts from, trained at a front of rates.
The unit of every interval is the base: a base is made of a stem by a branch (`train.pretrain`), and a run's seed is
its stem's number. The bases of `PILOTS` are for tuning and are never reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pandas as pd

from helpers.errors import UserError
from helpers.study.arms import get_arm
from helpers.study.profiles import FAIR
from helpers.study.published import PUBLISHED, as_published, load_published, publish, store
from helpers.study.records import is_finished
from helpers.study.schema import table_file, to_arrow
from helpers.study.spec import Extra, RunSpec
from helpers.world.answers import room
from helpers.world.forms import ASKED, Asked

NAMES = ("evaluations", "outcomes", "metrics")  # the tables that results are read from
Kind = Literal["two-form", "one-form"]
PILOTS = FAIR.seeds[:2]
REPORTED = FAIR.seeds[2:]
TWINS = REPORTED[:3]  # stems that have a one-form branch as well, and on which every cell but the headline's is run
UNTIL = 0.9  # exact match up to which a run keeps its rate
FLOPS_CAP = 1e14  # that a run may spend to reach exact match 0.7: fronts end where the next rate would pass it


@dataclass(frozen=True)
class Cell:
    """One cell. `rates`: its front, the fastest first; `steps`: the most that a run may take at the fastest of them.

    A slower run may take as many more steps as its rate is lower. `source`: the cell whose run, at the middle of its
    front, feeds this one; `headline`: whether it is run on every reported base, else on the first three.
    """

    arm: str
    asked: Asked
    rates: tuple[float, ...]
    steps: int
    kind: Kind = "two-form"
    batch_size: int = 32
    beta: float = 0.0
    extra: Extra = ()
    source: str = ""
    headline: bool = False
    label: str = ""
    lora_rank: int = 0

    @property
    def name(self) -> str:
        """How claims and tables call it: "rft direct", "rft think, one-form", "sft-answer direct, filler fixed"."""
        ending = "" if self.kind == "two-form" else f", {self.kind}"
        return f"{self.arm} {self.asked}{self.label and ', ' + self.label}{ending}"

    @property
    def stems(self) -> tuple[int, ...]:
        """The reported stems that it is run on."""
        return REPORTED if self.headline else TWINS

    def specs(self, stem: int) -> list[RunSpec]:
        """Its runs on the base of a stem, one a rate."""
        return [self._spec(stem, rate) for rate in self.rates]

    def _spec(self, stem: int, rate: float) -> RunSpec:
        steps = round(self.steps * self.rates[0] / rate) if rate else 0
        source = get_cell(self.source).middle(stem).name if self.source else ""
        outside = get_arm(self.arm).written == "sentences"
        return RunSpec(
            arm=self.arm,
            seed=stem,
            steps=steps,
            learning_rate=rate,
            batch_size=self.batch_size,
            group_size=FAIR.group_size,
            beta=self.beta,
            max_completion_length=room(FAIR.puzzle.tiles, outside),
            lora_rank=self.lora_rank,
            base=base_name(self.kind, stem),
            source=source,
            extra=(("until", UNTIL), *self.extra) if steps else (),
            asked=self.asked,
        )

    def middle(self, stem: int) -> RunSpec:
        """Its run at the middle rate, which feeds other cells."""
        return self._spec(stem, self.rates[len(self.rates) // 2])


_FRONT = (2e-4, 6e-5, 2e-5)
_ONE = (6e-5,)  # where one rate will do; the pilots decide which
# fmt: off
_CELLS = (
    *(Cell("base", asked, (0.0,), 0, headline=True) for asked in ASKED),
    Cell("sft-answer", "direct", _FRONT, 600, headline=True),
    Cell("rft", "direct", _FRONT, 600, batch_size=16, beta=0.12, headline=True),
    Cell("rft", "think", _FRONT, 800, batch_size=16, beta=0.12, headline=True),
    Cell("sft-answer", "plain", _FRONT, 600, headline=True),
    Cell("sft-rollout", "think", _FRONT, 600, source="rft think", headline=True),
    Cell("sft-voice", "think", _FRONT, 600, headline=True),
    Cell("sft-expert", "sentences", _FRONT, 600, headline=True),
    # KL: both algorithms without it, and each with its own weight
    Cell("rft-no-kl", "direct", _FRONT, 600, batch_size=16, headline=True),
    Cell("sft-kl", "direct", _FRONT, 600, beta=0.12, headline=True),
    # data: the rollouts one by one in their order, and a hardly trained writer's thinks
    Cell("sft-stream", "think", _ONE, 2600, batch_size=16, source="rft think"),
    Cell("sft-self", "think", _ONE, 2000, extra=(("source_step", 64),), source="rft think"),
    # form: the teacher's sentences where nobody asks for them, and what the twin that always thinks makes of it all
    Cell("sft-expert", "plain", _ONE, 2000),
    Cell("sft-answer", "direct", _ONE, 2000, kind="one-form"),
    Cell("sft-answer", "plain", _ONE, 2000, kind="one-form"),
    Cell("rft", "think", _ONE, 2600, kind="one-form", batch_size=16, beta=0.12),
    Cell("rft", "direct", _ONE, 2600, kind="one-form", batch_size=16, beta=0.12),
    # length: bare answers behind a think that says nothing
    Cell("sft-answer", "think", _ONE, 2000, extra=(("filler", "fixed"),), label="filler fixed"),
    Cell("sft-answer", "think", _ONE, 2000, extra=(("filler", "empty"),), label="filler empty"),
    # the negative control: RFT's direct rollouts are bare true answers, nothing else
    Cell("sft-rollout", "direct", _ONE, 2000, source="rft direct"),
    # old controls that decide a claim
    Cell("sft-replay", "direct", _ONE, 2000, extra=(("replay_share", 0.5),)),
    Cell("rft-stale", "direct", _ONE, 2600, batch_size=16, beta=0.12, extra=(("steps_per_generation", 8),)),
    Cell("sft-answer", "direct", (1e-3,), 600, label="LoRA", lora_rank=8),
    Cell("rft", "direct", (1e-3,), 600, batch_size=16, beta=0.12, label="LoRA", lora_rank=8),
)
# fmt: on

CELLS: Mapping[str, Cell] = MappingProxyType({cell.name: cell for cell in _CELLS})
"""Every cell by name, in the order in which they are run."""


def get_cell(name: str) -> Cell:
    """The cell called `name`. Raises UserError for any other."""
    if name not in CELLS:
        raise UserError(f"there is no cell {name!r}: choose one of {', '.join(CELLS)}.")
    return CELLS[name]


def base_name(kind: Kind, stem: int) -> str:
    """The name of a base, as a `RunSpec` gives it."""
    return f"{kind}-{stem}"


def specs(stems: Iterable[int], names: Iterable[str] = ()) -> Iterator[RunSpec]:
    """The runs of cells (all of them, or `names`) on the bases of stems, stem by stem, sources first."""
    cells = [get_cell(name) for name in names] or list(CELLS.values())
    for stem in stems:
        yield from (spec for cell in cells for spec in cell.specs(stem))


def planned(stems: Iterable[int]) -> dict[str, tuple[Cell, RunSpec]]:
    """The cell and the spec of every run on the bases of stems, by the run's name."""
    return {spec.name: (cell, spec) for stem in stems for cell in CELLS.values() for spec in cell.specs(stem)}


def publish_complete(stems: Iterable[int]) -> list[Path]:
    """Publish every cell of the bases of stems whose runs are all finished, once and for ever; the folders written."""
    made = store(FAIR)
    places = {place_of(cell, stem): cell.specs(stem) for stem in stems for cell in CELLS.values()}
    complete = {
        place: [spec.name for spec in own]
        for place, own in places.items()
        if not (place / "specs.json").exists() and all(is_finished(made.folder(spec)) for spec in own)
    }
    for place, names in complete.items():
        publish(made, place, names=names)
    return list(complete)


def tables(stems: Iterable[int], names: Iterable[str] = NAMES) -> dict[str, pd.DataFrame]:
    """Tables of every cell on the bases of stems that is published, or else of its runs that are finished here.

    Rows as they are published, whichever it is; a table is empty, with its columns, where there are none.
    """
    named = tuple(names)
    parts: dict[str, list[pd.DataFrame]] = {name: [to_arrow(name, []).to_pandas()] for name in named}
    for stem in stems:
        for cell in CELLS.values():
            for name, rows in _tables_of(cell, stem, named).items():
                parts[name].append(rows)
    return {name: _below(rows) for name, rows in parts.items()}


def _below(rows: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other; an empty one only where there is nothing else, whose columns have no types yet."""
    return pd.concat([part for part in rows if len(part)] or rows[:1], ignore_index=True)


def _tables_of(cell: Cell, stem: int, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    place, made = place_of(cell, stem), store(FAIR)
    if (place / "specs.json").exists():
        return {name: load_published(place, name) for name in names if table_file(place, name).exists()}
    finished = [spec.name for spec in cell.specs(stem) if is_finished(made.folder(spec))]
    return {name: as_published(made, name, finished) for name in names} if finished else {}


def place_of(cell: Cell, stem: int) -> Path:
    """Where the records of a cell on the base of a stem are published: a folder that is written once."""
    return PUBLISHED / "bases" / base_name(cell.kind, stem) / cell.name.replace(", ", " ").replace(" ", "-")
