"""Keeping a base: a branch rounded to 16 bits, with its marks, where runs find it by name; and what pilots gave."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import torch

from helpers.errors import UserError
from helpers.files import json_bytes, read_json, write_file
from helpers.measure.bars import BARS, FORMS, all_marks
from helpers.model import build
from helpers.stats import front_table
from helpers.stats.intervals import wilson
from helpers.stats.summary import csv_text
from helpers.train.pretrain import finished_recipe

MADE = Path("work/stems")  # where stems and branches are pretrained
KEPT = Path("helpers/bases")
TUNED = Path("helpers/study/pilots.csv")  # what settings were chosen by, and is never reported
ITEMS = 500  # of each prior task, and boards, that a base is marked on
_NO_MARKS = pd.DataFrame(columns=["mark", "form", "value", "bar"])
_BRANCH = re.compile(r"(two-form|one-form)-\d+")


def keep_bases(made: Path = MADE, kept: Path = KEPT, items: int = ITEMS) -> list[Path]:
    """Keep every finished branch under `made` that is not kept yet; the folders written.

    A kept base never changes: runs have been made from it. Raises UserError where there is no folder `made`.
    """
    if not made.is_dir():
        raise UserError(f"There is no folder {made}: make a stem and its branches first (python -m helpers pretrain).")
    branches = [path for path in sorted(made.iterdir()) if _BRANCH.fullmatch(path.name)]
    fresh = [path for path in branches if not (kept / path.name).exists()]
    return [keep(path, kept / path.name, items) for path in fresh if finished_recipe(path)]


def marks_table(kept: Path = KEPT) -> pd.DataFrame:
    """The marks of every kept base: index mark and form, columns bar and then the bases by name; NaN where none is.

    A one-form base is marked in one form.
    """
    marks = {place.parent.name: pd.read_csv(place) for place in sorted(kept.glob("*/marks.csv"))}
    columns = [rows.set_index(["mark", "form"])["value"].rename(name) for name, rows in marks.items()]
    order = pd.MultiIndex.from_frame(pd.concat([*marks.values(), _NO_MARKS])[["mark", "form"]].drop_duplicates())
    bars = pd.Series(order.get_level_values("mark").map(dict(BARS)), order, dtype=float, name="bar")
    return pd.concat([bars, *(column.reindex(order) for column in columns)], axis=1)


def missed_marks(table: pd.DataFrame, items: int = ITEMS) -> list[str]:
    """A sentence for each mark of `marks_table` that a base misses: below its bar, or placements above chance.

    Placements are above chance where the 95% interval (Wilson) of the share that is right lies above it; `items`:
    boards behind that share.
    """
    missed = []
    for name in table.columns.drop("bar"):
        for (mark, form), value in table[name].dropna().items():
            bar, chance = table.loc[(mark, form), "bar"], re.fullmatch(r"exact, chance (\S+)", mark)
            if value < bar:
                missed.append(f"{name} misses {mark} ({form}): {value:.3g}, and the bar is {bar:.3g}.")
            elif chance and wilson(round(value * items), items).low > float(chance[1]):
                missed.append(f"{name} solves boards before it is taught to ({form}): {value:.3g}, {mark[7:]}.")
    return missed


def practice_words(kept: Path = KEPT) -> str:
    """How many steps each kept base's branch took: "Steps of its branch: two-form-3 3,000, two-form-5 2,000."."""
    made = {place.parent.name: read_json(place)["recipe"]["practice"] for place in sorted(kept.glob("*/made.json"))}
    return f"Steps of its branch: {', '.join(f'{name} {steps:,}' for name, steps in made.items()) or 'none'}."


def keep(branch: Path, place: Path, items: int = ITEMS) -> Path:
    """Round a branch's weights to 16 bits, mark what is stored, and move all of it into its place.

    Rounded before any use, the marks included, so that the stored weights are the base.
    """
    recipe, staged = finished_recipe(branch), stage_rounded(branch / "model", place)
    forms = FORMS if recipe["forms"] == "two-form" else FORMS[:1]
    write_file(staged / "marks.csv", csv_text(all_marks(build.load(staged), items, forms)).encode())
    # Where the stem lay when the branch began says nothing elsewhere; which stem it was does.
    write_file(staged / "made.json", json_bytes({"recipe": recipe | {"start": Path(recipe["start"]).parent.name}}))
    write_file(staged / "training_log.csv", (branch / "training_log.csv").read_bytes())
    staged.rename(place)
    return place


def stage_rounded(source: Path, place: Path) -> Path:
    """A saved model with its weights rounded to 16 bits, in a folder beside `place` that is to be renamed to it."""
    staged = place.with_name(f".staged-{place.name}")
    shutil.rmtree(staged, ignore_errors=True)
    loaded = build.load(source)
    build.save(loaded.model.to(torch.float16), loaded.processor, staged)
    return staged


def keep_tuned(path: Path = TUNED) -> None:
    """Write the front of the finished pilots beside what is kept there of other ones."""
    table = front_table.tuned()
    known = pd.read_csv(path, dtype={"base": str}) if path.exists() else table.iloc[:0]
    old = known[~known["run"].isin(table["run"])]
    write_file(path, csv_text(pd.concat([old, table] if len(old) else [table]).sort_values("run")).encode())
