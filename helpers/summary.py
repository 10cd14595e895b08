"""The study in one table: `figures/summary.csv`, computed from the records and never by hand.

A row is one quantity of one arm (and prior task): mean over seeds with its 95% t interval. Beside it stand the
paper's own numbers, which come from another model and another scale.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("quantity", "arm", "task", "value", "low", "high", "seeds", "n")
THRESHOLDS = (0.5, 0.7)
ALL = "all"
PRIOR_MEASURES: Mapping[str, str] = {
    "prior_score": "score",
    "prior_score_likelihood": "likelihood",
    "format_failure": "format_failure",
}
PUZZLE_MEASURES: Mapping[str, str] = {
    "puzzle_exact": "exact",
    "puzzle_hit": "hit",
    "format_failure": "format_failure",
}
PAPER_ORDER = ("rft", "sft-rollout", "sft-expert", "sft-answer")
"""The arms by what the paper finds kept, most first."""

_RUN = ["run", "arm", "seed"]
_STEP = [*_RUN, "step", "samples"]
_EVALUATIONS = (*_STEP, "task", "measure", "value", "n")
_METRICS = (*_RUN, "step", "name", "value")


def battery_mean(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Mean over the prior tasks at every evaluated step, as rows of task "all"; equal weight per task.

    Columns as in the evaluations table; `n` is the number of items of all tasks together. Raises UserError when
    the steps of a measure do not hold the same tasks, so that their means would not compare.
    """
    _require(evaluations, _EVALUATIONS)
    prior = evaluations[(evaluations["task"] != "puzzle") & evaluations["measure"].isin(PRIOR_MEASURES.values())]
    if prior.empty:
        raise UserError("These evaluations hold no prior task: run the prior battery first.")
    tasks = prior.groupby([*_STEP, "measure"])["task"].agg(lambda names: tuple(sorted(names)))
    for measure, sets in tasks.groupby("measure"):
        if sets.nunique() > 1 or len(set(sets.iloc[0])) < len(sets.iloc[0]):
            raise UserError(f"Steps differ in the prior tasks with a {measure}: score all tasks at each step.")
    mean = prior.groupby([*_STEP, "measure"], as_index=False).agg(value=("value", "mean"), n=("n", "sum"))
    return mean.assign(task=ALL)[list(_EVALUATIONS)]


def crossings(evaluations: pd.DataFrame, accuracy: float) -> pd.DataFrame:
    """Where each run's puzzle exact match first reaches `accuracy`: a row per run that gets there.

    Columns run, arm, seed, before and after (the evaluated steps around the crossing, equal where the first step
    is there already), share (how far between them, 0..1), step, samples (interpolated linearly) and n.
    """
    import pandas as pd

    _require(evaluations, _EVALUATIONS)
    exact = evaluations[(evaluations["task"] == "puzzle") & (evaluations["measure"] == "exact")]
    trained = exact[exact["arm"] != "base"].sort_values("step")
    found = [_crossing(run, accuracy) for _, run in trained.groupby(_RUN)]
    columns = [*_RUN, "before", "after", "share", "step", "samples", "n"]
    return pd.DataFrame([row for row in found if row], columns=columns)


def _crossing(run: pd.DataFrame, accuracy: float) -> tuple | None:
    """The crossing of one run's rows (by step), or None where it never gets there."""
    if run["step"].duplicated().any():
        raise UserError("A run has several values at one step: pass the evaluations of each run once.")
    there = [place for place, value in enumerate(run["value"]) if value >= accuracy]
    if not there:
        return None
    last = run.iloc[there[0]]
    first = run.iloc[max(there[0] - 1, 0)]
    rise = last["value"] - first["value"]
    share = (accuracy - first["value"]) / rise if rise > 0 else 1.0
    step, samples = (first[c] + share * (last[c] - first[c]) for c in ("step", "samples"))
    return (*(last[c] for c in _RUN), first["step"], last["step"], share, step, samples, last["n"])


def per_seed(
    evaluations: pd.DataFrame, metrics: pd.DataFrame, accuracies: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """Every quantity of every run: columns quantity, arm, seed, task, value, n.

    `n`: items scored for one seed's value, 0 where nothing is scored. A quantity "at" an accuracy has rows only
    for seeds that reach it.
    """
    import pandas as pd

    _require(evaluations, _EVALUATIONS)
    _require(metrics, _METRICS)
    prior = evaluations[evaluations["task"] != "puzzle"]
    tasks = pd.concat([battery_mean(evaluations), prior[list(_EVALUATIONS)]], ignore_index=True)
    parts = [*_final(evaluations, tasks), *_run_lengths(evaluations), *_drops(tasks, _last(tasks), "drop_final")]
    for accuracy in accuracies:
        parts += _at_accuracy(evaluations, tasks, metrics, accuracy)
    parts += _metric_rows(metrics)
    columns = ["quantity", "arm", "seed", "task", "value", "n"]
    return pd.concat([part.reindex(columns=columns) for part in parts if len(part)], ignore_index=True)


def summarise(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The summary, columns `COLUMNS`, from the tables `evaluations` and `metrics`.

    `value` is the mean over seeds; `low` and `high` bound its 95% t interval, or are the smallest and largest
    value below three seeds. Sorted by quantity, arm (palette order) and task, so equal records give equal rows.
    """
    import pandas as pd

    from helpers.figures import ARM_STYLE, seed_interval

    rows = []
    for (quantity, arm, task), group in per_seed(*_both(tables)).groupby(["quantity", "arm", "task"]):
        if group["seed"].duplicated().any():
            raise UserError(f"{arm} has several runs of one seed: keep the runs of one setting only.")
        rows.append((quantity, arm, task, *seed_interval(group["value"]), len(group), int(group["n"].min())))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    order = {arm: place for place, arm in enumerate(ARM_STYLE)}
    keys = {"quantity": frame["quantity"], "arm": frame["arm"].map(order), "task": frame["task"]}
    return frame.loc[pd.DataFrame(keys).sort_values(list(keys)).index].reset_index(drop=True)


def write(tables: Mapping[str, pd.DataFrame], path: str | Path) -> pd.DataFrame:
    """Write the summary of `tables` to `path` as CSV and return it; equal records give equal bytes."""
    summary = summarise(tables)
    write_csv(summary, path)
    return summary


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """A table as CSV under a temporary name first; 10 significant digits, so equal numbers give equal bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(frame.to_csv(index=False, float_format="%.10g", lineterminator="\n"), encoding="utf-8")
    os.replace(temporary, path)


def _both(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    missing = [name for name in ("evaluations", "metrics") if name not in tables]
    if missing:
        raise UserError(f"The summary needs the table(s) {', '.join(missing)}: pass evaluations and metrics.")
    return tables["evaluations"], tables["metrics"]


def _require(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"The table lacks the column(s) {', '.join(missing)}: pass the table as recorded.")


# --- the parts of the summary ---------------------------------------------------------------------------


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    """The last evaluated step of each trained run, in the form of `crossings`."""
    trained = rows[rows["arm"] != "base"]
    last = trained.groupby(_RUN, as_index=False)["step"].max()
    return last.assign(before=last["step"], after=last["step"], share=1.0)


def _final(evaluations: pd.DataFrame, tasks: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Scores at the last step of each run, the base among them."""
    puzzle = evaluations[evaluations["task"] == "puzzle"]
    for rows, measures in ((tasks, PRIOR_MEASURES), (puzzle, PUZZLE_MEASURES)):
        last = rows[rows["step"] == rows.groupby("run")["step"].transform("max")]
        for quantity, measure in measures.items():
            yield last[last["measure"] == measure].assign(quantity=quantity)


def _run_lengths(evaluations: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """How long each run trained, in steps and in samples."""
    last = evaluations.groupby(_RUN, as_index=False)[["step", "samples"]].max()
    for quantity, column in (("steps", "step"), ("samples", "samples")):
        yield last.assign(quantity=quantity, task="puzzle", value=last[column].astype(float), n=0)


def _at_accuracy(
    evaluations: pd.DataFrame, tasks: pd.DataFrame, metrics: pd.DataFrame, accuracy: float
) -> Iterator[pd.DataFrame]:
    """What it took and cost to reach one puzzle accuracy."""
    marks = crossings(evaluations, accuracy)
    for quantity, column in ((f"steps_to_{accuracy:g}", "step"), (f"samples_to_{accuracy:g}", "samples")):
        yield marks.assign(quantity=quantity, task="puzzle", value=marks[column].astype(float))
    yield from _drops(tasks, marks, f"drop_at_{accuracy:g}")
    norms = metrics[metrics["name"] == "update_norm"]
    if len(norms) and len(marks):
        found = _interpolated(_with_start(norms), marks, _RUN)
        yield found.assign(quantity=f"update_norm_at_{accuracy:g}", task="puzzle", n=0)


def _with_start(norms: pd.DataFrame) -> pd.DataFrame:
    """Norms with a zero at step 0, where nothing has moved yet and nothing is recorded."""
    import pandas as pd

    start = norms[_RUN].drop_duplicates().assign(step=0, value=0.0)
    return pd.concat([start, norms[[*_RUN, "step", "value"]]]).drop_duplicates([*_RUN, "step"])


def _drops(tasks: pd.DataFrame, marks: pd.DataFrame, name: str) -> Iterator[pd.DataFrame]:
    """Fall below base at the marks, of each task and of their mean; by generation and by likelihood."""
    for ending, measure in (("", "score"), ("_likelihood", "likelihood")):
        rows = tasks[tasks["measure"] == measure]
        if rows.empty or marks.empty:
            continue
        base = rows[rows["arm"] == "base"]
        base = (base if len(base) else rows[rows["step"] == 0]).groupby("task")["value"].mean()
        found = _interpolated(rows, marks, [*_RUN, "task"])
        missing = sorted(set(found["task"]) - set(base.index))
        if missing:
            raise UserError(f"There is no base to compare {', '.join(missing)} with: evaluate the base arm.")
        drop = found["task"].map(base) - found["value"]
        yield found.assign(quantity=name + ending, value=drop)


def _interpolated(rows: pd.DataFrame, marks: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Values of `rows` at the marks, linear between the evaluated steps around them; columns keys, value, n."""
    wanted = ["before", "after", "share"]
    rows = rows.assign(n=rows["n"] if "n" in rows.columns else 0)[[*keys, "step", "value", "n"]]
    at = rows.merge(marks[[*_RUN, *wanted]], on=_RUN)
    first = at[at["step"] == at["before"]].set_index(list(keys))
    last = at[at["step"] == at["after"]].set_index(list(keys))
    value = first["value"] + last["share"] * (last["value"] - first["value"])
    n = first["n"].combine(last["n"], min)
    return value.rename("value").to_frame().assign(n=n).dropna().reset_index()


def _metric_rows(metrics: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The last update norm of each run, and the minutes it trained where they were recorded."""
    for name in ("update_norm", "minutes"):
        rows = metrics[metrics["name"] == name].sort_values("step").drop_duplicates("run", keep="last")
        yield rows.assign(quantity=name, task="puzzle", n=0)


# --- reading the summary --------------------------------------------------------------------------------


def look_up(summary: pd.DataFrame, quantity: str, arm: str, task: str = ALL) -> Any | None:
    """The row of one quantity (fields value, low, high, seeds, n), or None where there is none."""
    keep = (summary["quantity"] == quantity) & (summary["arm"] == arm) & (summary["task"] == task)
    return next(summary[keep].itertuples(index=False), None)


def arms(summary: pd.DataFrame, base: bool = True) -> list[str]:
    """The arms of a summary in palette order."""
    from helpers.figures import ARM_STYLE

    there = set(summary["arm"])
    return [arm for arm in ARM_STYLE if arm in there and (base or arm != "base")]


def interval_text(row: Any | None, digits: int = 2) -> str:
    """ "0.12 (0.08 to 0.16, 3 seeds)" of a row of the summary, or "not reached"."""
    if row is None:
        return "not reached"
    if row.seeds < 2:
        return f"{row.value:.{digits}f} (1 seed)"
    return f"{row.value:.{digits}f} ({row.low:.{digits}f} to {row.high:.{digits}f}, {row.seeds} seeds)"


def final_text(evaluations: pd.DataFrame, measure: str, task: str = ALL) -> str:
    """ "base 0.71, rft 0.65": mean over seeds at the last step of each arm, for alt texts and sentences."""
    from helpers.figures import ARM_STYLE

    rows = battery_mean(evaluations) if task == ALL else evaluations[evaluations["task"] == task]
    rows = rows[rows["measure"] == measure]
    last = rows[rows["step"] == rows.groupby("run")["step"].transform("max")]
    means = last.groupby("arm")["value"].mean()
    return ", ".join(f"{arm} {means[arm]:.2f}" for arm in ARM_STYLE if arm in means.index)


def paper_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary in the layout of the paper's table: a row per arm, tasks as pairs of score and change.

    Columns arm, steps, puzzle accuracy, prior mean, prior mean change, then `<task>` and `<task> change`; change is
    against base, so a loss is negative. All are means over seeds in [0, 1].
    """
    import pandas as pd

    scores = summary[summary["quantity"] == "prior_score"]
    tasks = [ALL, *sorted(set(scores["task"]) - {ALL})]
    rows = []
    for arm in arms(summary):
        row: dict[str, object] = {"arm": arm}
        for name, quantity in (("steps", "steps"), ("puzzle accuracy", "puzzle_exact")):
            row[name] = getattr(look_up(summary, quantity, arm, "puzzle"), "value", math.nan)
        for task in tasks:
            name = "prior mean" if task == ALL else task
            found, base = (look_up(summary, "prior_score", a, task) for a in (arm, "base"))
            row[name] = getattr(found, "value", math.nan)
            row[f"{name} change"] = row[name] - getattr(base, "value", math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def order_check(rows: pd.DataFrame, quantity: str, order: Sequence[str] = PAPER_ORDER) -> pd.DataFrame:
    """Does each arm of `order` keep more than the next? A row per pair of neighbours.

    `rows`: as `per_seed` gives them; `quantity`: a drop, or anything of which less is better. Differences are
    taken seed by seed (a seed's boards are the same for both arms). Columns more, less, difference (`less` minus
    `more`), low, high, seeds and verdict: "holds" or "fails" where the 95% interval is clear of 0, else "undecided"
    (always below 3 seeds; without a seed of both arms the numbers are NaN).
    """
    import pandas as pd

    from helpers.figures import seed_interval

    chosen = rows[(rows["quantity"] == quantity) & rows["task"].isin([ALL, "puzzle"])]
    drops = {arm: group.set_index("seed")["value"] for arm, group in chosen.groupby("arm")}
    found = []
    for more, less in zip(order, order[1:], strict=False):
        both = more in drops and less in drops
        difference = (drops[less] - drops[more]).dropna() if both else []
        interval = seed_interval(difference) if len(difference) else (math.nan,) * 3
        found.append((more, less, *interval, len(difference), _verdict(interval, len(difference))))
    return pd.DataFrame(found, columns=["more", "less", "difference", "low", "high", "seeds", "verdict"])


def _verdict(interval: Sequence[float], seeds: int) -> str:
    if seeds < 3 or interval[1] <= 0 <= interval[2]:
        return "undecided"
    return "holds" if interval[1] > 0 else "fails"


def order_sentence(check: pd.DataFrame, where: str) -> str:
    """What `order_check` found, in words; `where`: "at the end", "at puzzle accuracy 0.5"."""
    verdicts = set(check["verdict"])
    whole = "fails" if "fails" in verdicts else "holds" if verdicts == {"holds"} else "is undecided"
    pairs = "; ".join(_pair_text(row) for row in check.itertuples(index=False))
    order = " > ".join([*check["more"], check["less"].iloc[-1]])
    return f"The order {order} {whole} {where}. {pairs}."


def fast_and_keeps(rows: pd.DataFrame, arm: str, accuracy: float = 0.5) -> list[str]:
    """Three claims and their verdicts: `arm` is faster than RFT, keeps more than answer SFT, keeps less than RFT.

    At the puzzle accuracy given, decided as in `order_check`; `rows` as `per_seed` gives them.
    """
    at = f"{accuracy:g}"
    questions = (
        (f"{arm} is faster than rft (steps to {at})", f"steps_to_{at}", (arm, "rft"), 0),
        (f"{arm} keeps more than sft-answer at {at}", f"drop_at_{at}", (arm, "sft-answer"), 3),
        (f"rft keeps more than {arm} at {at}", f"drop_at_{at}", ("rft", arm), 3),
    )
    return [_answer(text, order_check(rows, which, pair).iloc[0], digits) for text, which, pair, digits in questions]


def _answer(claim: str, row: Any, digits: int) -> str:
    seeds = int(row["seeds"])
    if not seeds:
        return f"{claim}: not reached by both"
    span = f" ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})" if seeds > 1 else ""
    difference = f"{row['difference']:+.{digits}f}{span}"
    return f"{claim}: {row['verdict']}, difference {difference}, {seeds} seed{'s' * (seeds > 1)}"


def _pair_text(row: Any) -> str:
    if not row.seeds:
        return f"{row.more} > {row.less}: no seed of both got there"
    span = f"{row.difference:+.3f}"
    if row.seeds > 1:
        span += f" ({row.low:+.3f} to {row.high:+.3f})"
    return f"{row.more} > {row.less}: {row.verdict}, kept more by {span}, {row.seeds} seed{'s' * (row.seeds > 1)}"


# --- the paper's numbers --------------------------------------------------------------------------------

SECOND_HAND = "second-hand: a third party's notes quote it"
TWO_NOTES = "second-hand: two independent notes agree"
_PAPER_CHANGES: Mapping[str, tuple[float, ...]] = {
    "RefCOCO val": (-0.6, -57.2, -37.5, -8.6),
    "DocVQA": (0.0, -27.4, -2.3, -0.9),
    "MME": (-8, -1854, -249, -126),
    "MMStar": (1.7, -62.8, -3.7, -2.4),
    "POPE": (-0.2, -69.9, -12.1, -3.1),
    "MMMU": (-1.3, -28.9, -5.2, -2.5),
}
_PAPER_PUZZLE: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "3B": ((0, 66, 53, 70, 70), (0, 27360, 200, 4100, 2670)),
    "7B": ((0, 75, 80, 78, 81), (0, 27360, 400, 4100, 3000)),
}


def paper_numbers() -> pd.DataFrame:
    """The paper's published numbers: columns model, arm, quantity, benchmark, value, unit, certainty.

    Qwen2.5-VL-3B and 7B on 3 x 3 boards: another model and another scale than this study's, so directions and
    orders compare, sizes do not. Prior changes are known for 7B only. Arms carry this study's names.
    """
    import pandas as pd

    rows: list[tuple] = []
    names = ("base", "rft", "sft-answer", "sft-expert", "sft-rollout")
    for model, (accuracies, steps) in _PAPER_PUZZLE.items():
        for arm, accuracy, count in zip(names, accuracies, steps, strict=True):
            twice = arm == "base" or (model == "7B" and arm in ("rft", "sft-answer"))
            tag = TWO_NOTES if twice else SECOND_HAND
            rows.append((model, arm, "puzzle accuracy", "jigsaw 3 x 3", accuracy, "%", tag))
            rows.append((model, arm, "steps", "jigsaw 3 x 3", count, "steps", SECOND_HAND))
    for benchmark, changes in _PAPER_CHANGES.items():
        unit = "points of MME" if benchmark == "MME" else "percentage points"
        for arm, change in zip(names[1:], changes, strict=True):
            rows.append(("7B", arm, "prior change", benchmark, change, unit, SECOND_HAND))
    columns = ["model", "arm", "quantity", "benchmark", "value", "unit", "certainty"]
    return pd.DataFrame(rows, columns=columns).astype({"value": float})


def beside_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """Our changes next to the paper's 7B changes, a row per arm of both: in percentage points (MME: its points).

    The paper's columns carry "paper 7B" in their names: different model and scale.
    """
    import pandas as pd

    ours = paper_table(summary).set_index("arm")
    paper = paper_numbers().query("model == '7B' and arm != 'base'")
    change = paper[paper["quantity"] == "prior change"].pivot(index="arm", columns="benchmark", values="value")
    puzzle, steps = (
        paper[paper["quantity"] == quantity].set_index("arm")["value"] for quantity in ("puzzle accuracy", "steps")
    )
    rows = []
    for arm in [a for a in PAPER_ORDER if a in ours.index]:
        row = {"arm": arm, "ours: steps": ours.loc[arm, "steps"], "paper 7B: steps": steps[arm]}
        row |= {"ours: puzzle": 100 * ours.loc[arm, "puzzle accuracy"], "paper 7B: puzzle": puzzle[arm]}
        row["ours: prior mean change"] = 100 * ours.loc[arm, "prior mean change"]
        rows.append(row | {f"paper 7B: {b}": change.loc[arm, b] for b in _PAPER_CHANGES})
    return pd.DataFrame(rows)


README_COLUMNS: Mapping[str, str] = {
    "puzzle_exact": "puzzle exact match",
    "prior_score": "prior score",
    "prior_score_likelihood": "by likelihood",
    "format_failure": "format failures",
    "samples_to_0.5": "boards to 0.5",
    "drop_at_0.5": "drop at 0.5",
    "update_norm": "update norm",
    "minutes": "minutes",
}
SHARES = ("puzzle_exact", "prior_score", "prior_score_likelihood", "format_failure")
"""Quantities between 0 and 1, where a t interval over few seeds may reach beyond what is possible; it is cut there."""
README_MARKS = ("<!-- results -->", "<!-- /results -->")


def readme_table(summary: pd.DataFrame) -> str:
    """The README's table of results in Markdown: an arm a row, mean over seeds with its interval where it has one."""
    lines = ["| arm | seeds | " + " | ".join(README_COLUMNS.values()) + " |", "|---" * (len(README_COLUMNS) + 2) + "|"]
    for arm in arms(summary):
        rows = [
            look_up(summary, q, arm, ALL if q.startswith(("prior", "drop", "format")) else "puzzle")
            for q in README_COLUMNS
        ]
        seeds = max((int(r.seeds) for r in rows if r is not None), default=0)
        lines.append(f"| `{arm}` | {seeds} | " + " | ".join(map(_readme_cell, rows)) + " |")
    return "\n".join(lines)


def _readme_cell(row: Any) -> str:
    """One number with its interval; a dash where an arm never got there."""
    if row is None:
        return "–"
    digits = 0 if row.quantity.startswith(("samples", "steps")) else 1 if row.quantity == "minutes" else 2
    text = f"{row.value:.{digits}f}"
    if row.seeds < 2 or not math.isfinite(row.low) or row.low == row.high:
        return text
    low, high = (min(max(v, 0.0), 1.0) if row.quantity in SHARES else v for v in (row.low, row.high))
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def write_readme(summary: pd.DataFrame, readme: Path = Path("README.md")) -> None:
    """Put the table of results between the README's marks. Raises UserError where the marks are missing."""
    put_between(readme, README_MARKS, readme_table(summary))


def put_between(readme: Path, marks: tuple[str, str], content: str) -> None:
    """Replace what stands between two marks of a text file. Raises UserError where the marks are missing."""
    text = readme.read_text(encoding="utf-8")
    if any(text.count(mark) != 1 for mark in marks):
        raise UserError(f"{readme} needs {marks[0]} and {marks[1]} once each; put them back.")
    head, rest = text.split(marks[0])
    tail = rest.split(marks[1])[1]
    temporary = readme.with_suffix(".tmp")
    temporary.write_text(f"{head}{marks[0]}\n{content}\n{marks[1]}{tail}", encoding="utf-8")
    os.replace(temporary, readme)
