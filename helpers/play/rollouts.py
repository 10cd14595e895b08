"""Groups of completions for the view `rollouts`: what runs of RFT wrote, and what models write to the same boards.

A run's boards are drawn again from its seed and their numbers. Runs of one seed meet the same boards in the same order,
so that two rates, or two forms, can be laid side by side on one board; models are asked about held-out boards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from helpers.errors import UserError
from helpers.measure.kept_runs import STEM, kept
from helpers.model import score
from helpers.model.build import Loaded
from helpers.model.generate import Sampling
from helpers.play import page
from helpers.play.models import BASE, loaded
from helpers.play.page import Json, View
from helpers.study import cells
from helpers.study.arms import get_arm
from helpers.study.profiles import FAIR, Profile, specs
from helpers.study.published import table
from helpers.study.spec import RunSpec
from helpers.train import live
from helpers.world import answers, seeds
from helpers.world.boards import Boards, held_out_boards, make_boards
from helpers.world.forms import Asked, Written, written_as
from helpers.world.puzzles import PuzzleSpec, undo

CELLS = ("rft direct", "rft think")
EACH = 2  # groups of a step that a page holds: a run has a hundred and sixty on record
HELD_OUT = 4  # boards that every model is asked about
FORMS: tuple[Asked, ...] = ("direct", "think")
GROUP = ["step", "puzzle_id"]
_NUMBERS = ["hit", "exact", "format", "reward", "advantage", "logp_policy", "logp_base", "tokens"]
_WEIGHTS = (1.0, 1.0, 1.0)

Key = tuple[int, PuzzleSpec, int]
"""A board: the seed of its scenes, the kind of puzzle, its number."""


@dataclass(frozen=True)
class Writer:
    """Who wrote groups of completions: a run of RFT while it was trained, or a model that is asked here and now.

    `rows`: as in the table of completions. `scenes`: the seed of the boards' scenes. `unit`: what the column step
    counts. `weights`: those of hit, exact match and format in the reward.
    """

    label: str
    puzzle: PuzzleSpec
    scenes: int
    written: Written
    rows: pd.DataFrame = field(repr=False)
    weights: tuple[float, float, float] = _WEIGHTS
    unit: str = "step"

    @cached_property
    def keys(self) -> set[Key]:
        """The boards that it wrote for."""
        return {self.key(number) for number in self.rows["puzzle_id"].unique()}

    def key(self, number: int) -> Key:
        """One of its boards."""
        return self.scenes, self.puzzle, int(number)


def view(writers: Sequence[Writer]) -> View:
    """The browser of groups, of some writers. Raises UserError where none wrote anything."""
    some = [writer for writer in writers if len(writer.rows)]
    if not some:
        raise UserError("There are no completions to browse: train RFT first, or name a study with records.")
    return View("rollouts", "Rollouts: groups of completions, board by board", 800, _data(some))


def study_view(profile: Profile) -> View:
    """The browser of a study's runs of RFT, of those on several bases, and of models at the same held-out boards.

    Loads some small models and draws from them: seconds.
    """
    return view([*study_writers(profile), *base_writers(), *model_writers()])


def study_writers(profile: Profile) -> list[Writer]:
    """The runs of a profile's study that learn from their own samples. Raises UserError where there are no records."""
    rows = table(profile.name, "completions")
    own = [arm for arm in profile.study_arms if get_arm(arm).data == "own"]
    named = [(spec, f"{get_arm(spec.arm).spoken or spec.arm}, seed {spec.seed}") for spec in specs(profile, own)]
    return [_run(spec, label, rows[rows["run"] == spec.name]) for spec, label in named]


def base_writers(stem: int = STEM, names: Iterable[str] = CELLS) -> list[Writer]:
    """The runs of RFT's cells on the two-form base of a stem, those that are published or finished here."""
    found = []
    for name in names:
        for spec in cells.get_cell(name).specs(stem):
            rows = cells.tables_of([spec], ["completions"])["completions"]
            if len(rows):
                found.append(_run(spec, f"RFT {spec.asked}, rate {_rate(spec)}, {spec.base}", rows))
    return found


def _rate(spec: RunSpec) -> str:
    """The learning rate as people write it: 6e-5, 1.1e-4."""
    return f"{spec.learning_rate:.1e}".replace(".0e", "e").replace("e-0", "e-")


def _run(spec: RunSpec, label: str, rows: pd.DataFrame) -> Writer:
    return Writer(
        label, spec.puzzle, seeds.training(spec.seed), written_as(spec.asked), rows.reset_index(drop=True),
        spec.reward_weights,
    )  # fmt: skip


def model_writers(count: int = HELD_OUT, forms: Sequence[Asked] = FORMS) -> list[Writer]:
    """The base of the kept runs and their ends, each asked in each form for a group on the first held-out boards.

    At temperature 1, always the same draws. The log-prob under the base is the base's own for itself.
    """
    sources = {f"Base {BASE}": BASE} | {f"End of {cell}": str(folder) for cell, (_, folder) in kept().items()}
    models = {name: loaded(source) for name, source in sources.items()}
    judge, found = loaded(BASE), []
    for asked in forms:
        boards = held_out_boards(FAIR.puzzle, count).asking(asked, seeds.HELD_OUT)
        for name, model in models.items():
            rows = drawn(model, judge, boards, FAIR.group_size)
            label = f"{name}, asked {asked}"
            found.append(Writer(label, boards.spec, seeds.HELD_OUT, boards.written, rows, unit="held-out board"))
    return found


def drawn(model: Loaded, judge: Loaded, boards: Boards, size: int, seed: int = seeds.SHOWN) -> pd.DataFrame:
    """Groups of `size` completions that a model writes to boards at temperature 1: rows as a run records them.

    Step n is board n, counted from 1; `logp_base` is under `judge`. The advantages are those that GRPO would give them.
    """
    prompts = boards.prompted()
    texts = score.draw(*model, prompts, Sampling(size, 1.0, answers.room(boards.spec.tiles), seed))
    ids = [[one.ids for one in row] for row in texts]
    own = score.completion_logps(*model, prompts, ids)
    base = own if judge is model else score.completion_logps(*judge, prompts, ids)
    rows = []
    for board, (prompt, truth) in enumerate(zip(prompts, boards.placements.tolist(), strict=True)):
        scores = [answers.score(one.text, truth, boards.written) for one in texts[board]]
        gained = live.advantages([s.hit + s.exact + s.format for s in scores])
        rows += [
            {"step": board + 1, "puzzle_id": board, "prompt": prompt.text, "completion": one.text,
             "tokens": len(one.ids), "hit": s.hit, "exact": s.exact, "format": s.format, "advantage": a,
             "logp_policy": float(p.sum()), "logp_base": float(b.sum())}
            for one, s, a, p, b in zip(texts[board], scores, gained, own[board], base[board], strict=True)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def chosen(writer: Writer, met: Counter[Key]) -> pd.DataFrame:
    """The rows that a page holds: of a run whole groups at steps 1, 2, 4, ... and its last, of a model all of them.

    `EACH` groups a step, first those on boards that most writers have `met`; and the run's first malformed one.
    """
    rows = writer.rows
    if writer.unit != "step":
        return rows
    steps = sorted(rows["step"].unique())
    wanted = {min(steps, key=lambda step: abs(step - 2**k)) for k in range(int(steps[-1]).bit_length())} | {steps[-1]}
    groups = rows.drop_duplicates(GROUP)[GROUP].sort_values(GROUP)
    rank = [-met[writer.key(number)] for number in groups["puzzle_id"]]
    first = groups.assign(rank=rank).sort_values(["step", "rank", "puzzle_id"]).groupby("step").head(EACH)
    odd = rows[rows["format"] < 1].sort_values(GROUP)[GROUP].head(1)
    taken = pd.concat([first[first["step"].isin(wanted)][GROUP], odd]).drop_duplicates()
    return rows.merge(taken, on=GROUP).sort_values(GROUP, kind="stable")


def _data(writers: Sequence[Writer]) -> dict[str, Json]:
    """What the page's script reads; texts, prompts and boards stand once and are numbered."""
    met = Counter(key for writer in writers for key in writer.keys)
    texts, prompts, boards = {}, {}, {}
    groups: list[Json] = []
    for number, writer in enumerate(writers):
        rows = chosen(writer, met)
        rows = rows.assign(reward=rows[["hit", "exact", "format"]] @ list(writer.weights))
        for (step, puzzle), group in rows.groupby(GROUP):
            lines = zip(group["completion"], group[_NUMBERS].to_numpy(), strict=True)
            said: list[Json] = [[_place(texts, text), *page.numbers(values)] for text, values in lines]
            place, asked = _place(boards, writer.key(puzzle)), _place(prompts, group["prompt"].iloc[0])
            groups.append([number, int(step), place, asked, said])
    return {
        "runs": [_about(writer) for writer in writers],
        "boards": _drawn_boards(list(boards)),
        "groups": groups,
        "texts": list(texts),
        "prompts": list(prompts),
    }


def _place(known: dict[Hashable, int], value: Hashable) -> int:
    """The number of a value among those seen so far."""
    return known.setdefault(value, len(known))


def _about(writer: Writer) -> dict[str, Json]:
    recorded = len(writer.rows.drop_duplicates(GROUP))
    return {"label": writer.label, "unit": writer.unit, "weights": list(writer.weights), "recorded": recorded,
            "written": writer.written}  # fmt: skip


def _drawn_boards(keys: Sequence[Key]) -> list[Json]:
    """Each board's picture, grid, true placement, and the order that puts it together."""
    known: dict[Key, Json] = {}
    for scenes, puzzle in dict.fromkeys(key[:2] for key in keys):
        numbers = sorted(key[2] for key in keys if key[:2] == (scenes, puzzle))
        made = make_boards(puzzle, numbers, scenes)
        for number, pixels, truth in zip(numbers, made.pixels, made.placements.tolist(), strict=True):
            known[scenes, puzzle, number] = {
                "image": page.jpeg(pixels), "rows": puzzle.rows, "cols": puzzle.cols, "number": number,
                "truth": truth, "order": list(undo(puzzle, truth)),
            }  # fmt: skip
    return [known[key] for key in keys]
