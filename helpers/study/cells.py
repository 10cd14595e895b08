"""The study on several bases: its cells, and the runs of each cell on each base.

A *cell* is an arm, the form that its prompts ask for and the kind of base it starts from, trained at a front of rates.
The unit of every interval is the base: a base is made of a stem by a branch (`train.pretrain`), and a run's seed is
its stem's number. The bases of `PILOTS` are for tuning and are never reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pandas as pd

from helpers.errors import UserError
from helpers.study.arms import get_arm, room_of
from helpers.study.fixed import rules
from helpers.study.profiles import FAIR, GRIDS
from helpers.study.published import PUBLISHED, as_published, load_published, publish, store
from helpers.study.records import is_finished
from helpers.study.schema import table_file, to_arrow
from helpers.study.spec import Extra, RunSpec
from helpers.world.forms import ASKED, Asked

NAMES = ("evaluations", "outcomes", "metrics")  # the tables that results are read from
Kind = Literal["two-form", "one-form"]
PILOTS = FAIR.seeds[:2]
REPORTED = rules().stems
TWINS = REPORTED[:3]  # stems that have a one-form branch as well, and on which every cell but the headline's is run
SOURCE_RATE = 6e-5  # of runs that feed others
MANY, SOME = 8192, 4096  # boards: where rules write the answers or a run draws its own, where a model writes them
UNTIL = {"2x2": rules().until, "3x3": 0.5, "turned": rules().until}  # exact match up to which a run keeps its rate


@dataclass(frozen=True)
class Cell:
    """One cell. `rates`: its front, the fastest first; `effort`: rate times the most steps that a run may take.

    So a slower run may take as many more steps as it is slower, and a rate that is added changes no other run.
    `boards`: how many there are to learn from. `source`: the cell whose run at `SOURCE_RATE` feeds this one.
    `headline`: whether it is run on every reported base, else on the first three. `grid`: which of `GRIDS` its puzzles
    are. `after`: the cell from the end of whose run at `SOURCE_RATE` this one's start. `frozen`: whether the eyes are.
    """

    arm: str
    asked: Asked
    rates: tuple[float, ...]
    effort: float
    kind: Kind = "two-form"
    batch_size: int = 32
    beta: float = 0.0
    boards: int = MANY
    extra: Extra = ()
    source: str = ""
    after: str = ""
    headline: bool = False
    label: str = ""
    lora_rank: int = 0
    frozen: bool = False
    grid: str = "2x2"
    group_size: int = FAIR.group_size

    @property
    def name(self) -> str:
        """How claims and tables call it: "rft direct", "rft direct, 3x3", "rft think, one-form"."""
        grid, after = self.grid if self.grid != "2x2" else "", "after the jigsaw" if self.after else ""
        apart = (grid, after, self.label, self.kind if self.kind != "two-form" else "")
        return ", ".join((f"{self.arm} {self.asked}", *filter(None, apart)))

    @property
    def stems(self) -> tuple[int, ...]:
        """The stems that it is run on, those of the pilots first."""
        return (*PILOTS, *(REPORTED if self.headline else TWINS))

    def specs(self, stem: int) -> list[RunSpec]:
        """Its runs on the base of a stem, one a rate; none where it is not run there."""
        return [self.at(stem, rate) for rate in self.rates] if stem in self.stems else []

    def at(self, stem: int, rate: float) -> RunSpec:
        """Its run at one rate."""
        steps = round(self.effort / rate) if rate else 0
        until = UNTIL[self.grid] if rate >= SOURCE_RATE else min(UNTIL[self.grid], rules().until_slow)
        source, after = (get_cell(c).at(stem, SOURCE_RATE).name if c else "" for c in (self.source, self.after))
        settings = (("until", until), ("boards", self.boards), *self.extra, *((("after", after),) if after else ()))
        puzzle = GRIDS[self.grid]
        return RunSpec(
            arm=self.arm,
            seed=stem,
            steps=steps,
            learning_rate=rate,
            batch_size=self.batch_size,
            group_size=self.group_size,
            rows=puzzle.rows,
            cols=puzzle.cols,
            size=puzzle.size,
            beta=self.beta,
            max_completion_length=room_of(self.arm, self.asked, puzzle.tiles),
            lora_rank=self.lora_rank,
            freeze_vision=self.frozen,
            base=base_name(self.kind, stem),
            source=source,
            extra=settings if steps else (),
            asked=self.asked,
            turned=puzzle.turned,
        )


_FRONT = (2e-4, 6e-5, 2e-5)
_LONG = (*_FRONT, 6e-6)  # bare answers are cheap: their front goes on until nothing more is saved
_DEAR = (2e-4, 1.1e-4, 6e-5)  # a rate a third of the last would cost more than `flops_cap` (a pilot: 5.5e13 at 6e-5)
_ONE = (SOURCE_RATE,)  # where one rate will do
_KL = 0.36  # weight of the KL term, RFT's and SFT's: of .12, .36 and 1 the pilots kept most with it, if by little
_PAIR, _FAST = _FRONT[:2], _FRONT[:1]  # on 3x3 a run takes several times as long
_IN_STAGES = (("curriculum", "2x2@96 2x3@96"),)
# Nine slots share one reward, so each slot's signal is weaker: more completions a board, less weight on the KL term.
_RFT_3X3 = dict(batch_size=16, group_size=32, beta=0.05, grid="3x3")
# fmt: off
_CELLS = (
    *(Cell("base", asked, (0.0,), 0.0, headline=True) for asked in ASKED),
    Cell("sft-answer", "direct", _LONG, 0.12, headline=True),
    Cell("rft", "direct", _FRONT, 0.12, batch_size=16, beta=_KL, headline=True),
    Cell("rft", "think", _DEAR, 0.16, batch_size=16, beta=_KL, headline=True),
    Cell("sft-answer", "plain", _LONG, 0.12, headline=True),
    Cell("sft-rollout", "think", _FRONT, 0.12, boards=SOME, source="rft think", headline=True),
    Cell("sft-voice", "think", _FRONT, 0.12, boards=SOME, headline=True),
    Cell("sft-expert", "sentences", _FRONT, 0.12, boards=SOME, headline=True),
    # KL: both algorithms without it, and each with its own weight
    Cell("rft-no-kl", "direct", _FRONT, 0.12, batch_size=16, headline=True),
    Cell("sft-kl", "direct", _FRONT, 0.12, beta=_KL, headline=True),
    # data: the rollouts one by one in their order, and a hardly trained writer's thinks
    Cell("sft-stream", "think", _ONE, 0.16, batch_size=16, source="rft think"),
    Cell("sft-self", "think", _ONE, 0.12, boards=SOME, extra=(("source_step", 64),), source="rft think"),
    # form: the teacher's sentences where nobody asks for them, and what the twin that always thinks makes of it all
    Cell("sft-expert", "plain", _ONE, 0.12, boards=SOME),
    Cell("sft-answer", "direct", _ONE, 0.12, kind="one-form"),
    Cell("sft-answer", "plain", _ONE, 0.12, kind="one-form"),
    Cell("rft", "think", _ONE, 0.16, kind="one-form", batch_size=16, beta=_KL),
    Cell("rft", "direct", _ONE, 0.16, kind="one-form", batch_size=16, beta=_KL),
    # length: bare answers behind a think that says nothing
    Cell("sft-answer", "think", _ONE, 0.12, extra=(("filler", "fixed"),), label="filler fixed"),
    Cell("sft-answer", "think", _ONE, 0.12, extra=(("filler", "empty"),), label="filler empty"),
    # the negative control: RFT's direct rollouts are bare true answers, nothing else
    Cell("sft-rollout", "direct", _ONE, 0.12, source="rft direct"),
    # whether what is lost is lost in the eyes, which all tasks share
    Cell("sft-answer", "direct", _ONE, 0.12, label="eyes frozen", frozen=True),
    Cell("rft", "direct", _ONE, 0.12, batch_size=16, beta=_KL, label="eyes frozen", frozen=True),
    Cell("sft-voice", "think", _ONE, 0.12, boards=SOME, label="eyes frozen", frozen=True),
    # as many completions in a step as RFT has
    Cell("sft-answer", "direct", _ONE, 0.12, batch_size=128, label="large batch"),
    # old controls that decide a claim
    Cell("sft-replay", "direct", _ONE, 0.12, extra=(("replay_share", 0.5),)),
    Cell("rft-stale", "direct", _ONE, 0.16, batch_size=16, beta=_KL, extra=(("steps_per_generation", 8),)),
    Cell("sft-answer", "direct", (1e-3,), 0.6, label="LoRA", lora_rank=8),
    Cell("rft", "direct", (1e-3,), 0.6, batch_size=16, beta=_KL, label="LoRA", lora_rank=8),
    # a harder puzzle, and whether easier ones before it help
    Cell("sft-answer", "direct", _PAIR, 0.4, grid="3x3"),
    Cell("sft-expert", "sentences", _PAIR, 0.4, grid="3x3"),
    Cell("rft", "direct", _FAST, 0.6, **_RFT_3X3),
    Cell("rft", "direct", _FAST, 0.6, **_RFT_3X3, extra=_IN_STAGES, label="curriculum"),
    # a second task, turned tiles: from the base, and by the same arm after the jigsaw
    Cell("sft-answer", "direct", _ONE, 0.12, grid="turned"),
    Cell("rft", "direct", _ONE, 0.12, batch_size=16, beta=_KL, grid="turned"),
    Cell("rft", "think", _ONE, 0.16, batch_size=16, beta=_KL, grid="turned"),
    Cell("sft-answer", "direct", _ONE, 0.12, grid="turned", after="sft-answer direct"),
    Cell("rft", "direct", _ONE, 0.12, batch_size=16, beta=_KL, grid="turned", after="rft direct"),
    Cell("rft-no-kl", "direct", _ONE, 0.12, batch_size=16, grid="turned", after="rft-no-kl direct"),
    Cell("rft", "think", _ONE, 0.16, batch_size=16, beta=_KL, grid="turned", after="rft think"),
    Cell(
        "sft-rollout", "think", _ONE, 0.12, boards=SOME, grid="turned",
        source="rft think, turned", after="sft-rollout think",
    ),
    # causes, one by one: whose probabilities are learned on own samples; KL on old prompts; a loss that spares what is
    # improbable; an entropy bonus where the KL term stands; and what is left of RFT without any signal
    Cell("distill", "direct", _ONE, 0.12, batch_size=16, beta=1.0, source="rft direct"),
    Cell("distill-degraded", "direct", _ONE, 0.12, batch_size=16, beta=1.0, source="sft-answer direct, one-form"),
    Cell("sft-dream", "direct", _ONE, 0.12, beta=1.0, extra=(("dreams", SOME),)),
    Cell("sft-dft", "direct", _ONE, 0.12),
    Cell("rft-entropy", "direct", _ONE, 0.12, batch_size=16, extra=(("entropy", 0.01),)),
    Cell("rft-random", "direct", _ONE, 0.12, batch_size=16),
)
# fmt: on

CELLS: Mapping[str, Cell] = MappingProxyType({cell.name: cell for cell in _CELLS})
"""Every cell by name, in the order in which they are run."""

HEADLINE = tuple(name for name, cell in CELLS.items() if cell.headline and get_arm(cell.arm).trains)
"""The names of the cells that are trained on every reported base."""


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


def tuning() -> dict[str, tuple[Cell, RunSpec]]:
    """The cell and the spec of every finished run on a pilot's base, by name, at whatever weight of the KL term.

    A run of an arm and form that are no cell's is left out.
    """
    made = store(FAIR)
    there = [spec for spec in made.finished() if spec.seed in PILOTS] if made.root.is_dir() else []
    of_cells = [(spec, CELLS.get(f"{spec.arm} {spec.asked}")) for spec in there]
    return {spec.name: (replace(cell, beta=spec.beta), spec) for spec, cell in of_cells if cell}


def publish_run(spec: RunSpec) -> Path | None:
    """Publish one finished run of the study, once and for ever; the folder, or None where it is there already."""
    place = place_of(spec)
    if is_published(spec):
        return None
    publish(store(FAIR), place, names=[spec.name])
    return place


def is_published(spec: RunSpec) -> bool:
    """Whether the records of a run are published: it need not be trained again."""
    return (place_of(spec) / "specs.json").exists()


def tables(stems: Iterable[int], names: Iterable[str] = NAMES) -> dict[str, pd.DataFrame]:
    """`tables_of` every run that is planned on the bases of stems."""
    return tables_of((spec for _, spec in planned(stems).values()), names)


def tables_of(specs: Iterable[RunSpec], names: Iterable[str] = NAMES) -> dict[str, pd.DataFrame]:
    """Tables of those runs that are published, or finished here.

    Rows as they are published, whichever it is; a table is empty, with its columns, where there are none.
    """
    parts: dict[str, list[pd.DataFrame]] = {name: [to_arrow(name, []).to_pandas()] for name in names}
    for spec in specs:
        for name, rows in _tables_of(spec, tuple(parts)).items():
            parts[name].append(rows)
    return {name: _below(rows) for name, rows in parts.items()}


def _below(rows: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other; an empty one only where there is nothing else, whose columns have no types yet."""
    return pd.concat([part for part in rows if len(part)] or rows[:1], ignore_index=True)


def _tables_of(spec: RunSpec, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    place, made = place_of(spec), store(FAIR)
    if is_published(spec):
        return {name: load_published(place, name) for name in names if table_file(place, name).exists()}
    there = is_finished(made.folder(spec))
    return {name: as_published(made, name, [spec.name]) for name in names} if there else {}


def place_of(spec: RunSpec) -> Path:
    """Where the records of a run are published: a folder that is written once, under its base."""
    return PUBLISHED / "bases" / spec.base / spec.name
