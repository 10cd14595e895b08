"""Tables and drawings of notebooks 00 to 02: puzzles and the base model."""

from __future__ import annotations

import html
import itertools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from helpers.errors import UserError
from helpers.files import read_json
from helpers.model import evaluate
from helpers.model.score import complete, prompt_ids
from helpers.show import marks, plots
from helpers.show.marks import record
from helpers.show.style import new_axes, spaced, use_style
from helpers.stats import intervals
from helpers.world import battery, puzzles, questions
from helpers.world.answers import parse, score, score_answer
from helpers.world.boards import Prompted
from helpers.world.pictures import Picture

Shape = tuple[int, int]
BAR, DARK = "#8FB8D4", "#1A4E73"
MOST_PAIRS = 10**6  # larger tables of guesses against truths no longer fit in memory with ease


def notebook_map(folder: str | Path = "notebooks") -> HTML:
    """The numbered notebooks that are there, as links: main heading, and the minutes that it says it takes."""
    rows = "".join(map(_map_row, sorted(Path(folder).glob("[0-9A-Z]*.ipynb"))))
    head = "".join(f'<th scope="col" style="text-align:left">{name}</th>' for name in ("", "notebook", "time"))
    return HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def _map_row(path: Path) -> str:
    """A notebook's row of the map, from its first cell."""
    first = "".join(read_json(path, "restore it from git")["cells"][0]["source"])
    heading, number = first.splitlines()[0].lstrip("# "), path.stem.split("_")[0]
    time = re.search(r"\*\*Time and cost\.\*\*\s+(.*?)\.\s", f"{first}\n", re.DOTALL)
    said = " ".join(time[1].split()) if time else ""
    link = f'<a href="{path.name}">{html.escape(heading)}</a>'
    cells = "".join(f'<td style="text-align:left">{cell}</td>' for cell in (number, link, html.escape(said)))
    return f"<tr>{cells}</tr>"


def boards(pictures: Sequence[Picture], shapes: Sequence[Shape], size: int = 192) -> tuple[list, list[str]]:
    """Every picture cut and shuffled in every shape (rows, cols): boards, and titles with the answers.

    An answer is written as its board lies: a slash between rows.
    """
    images, titles = [], []
    for index, (picture, (rows, cols)) in enumerate(itertools.product(pictures, shapes)):
        puzzle = puzzles.make_puzzle(picture.image, puzzles.PuzzleSpec(rows, cols, size), index)
        images.append(puzzle.board)
        answer = " / ".join(spaced(puzzle.placement[i : i + cols]) for i in range(0, rows * cols, cols))
        titles.append(f"{picture.name}, {rows} x {cols}\n{textwrap.fill(answer, 24)}")
    return images, titles


def is_lossless(pictures: Iterable[Picture], shapes: Sequence[Shape], size: int, tries: int = 3) -> pd.DataFrame:
    """Per shape: boards checked, and how many came back pixel for pixel when put together by their answer."""
    pictures, rows = list(pictures), []
    for shape in shapes:
        spec = puzzles.PuzzleSpec(*shape, size)
        made = [puzzles.make_puzzle(p.image, spec, i) for p in pictures for i in range(tries)]
        exact = [np.array_equal(puzzles.restore(m.board, spec, m.placement), m.picture) for m in made]
        rows.append({"shape": "{} x {}".format(*shape), "boards": len(made), "restored exactly": sum(exact)})
    return pd.DataFrame(rows)


def chance_table(shapes: Sequence[Shape]) -> pd.DataFrame:
    """Chance levels per shape: by the formula and, where all pairs fit in memory, by counting."""
    rows = []
    for shape in shapes:
        spec = puzzles.PuzzleSpec(*shape, size=96)
        counted = count_chance(spec) if spec.n_placements**2 <= MOST_PAIRS else None
        hit, exact = (f"{counted[0]:.4f}", f"{counted[1]:.3g}") if counted else ("too many", "too many")
        by_formula = f"{spec.chance_hit:.4f}", f"{spec.chance_exact:.3g}"
        rows.append(("{} x {}".format(*shape), f"{spec.n_placements:,}", by_formula[0], hit, by_formula[1], exact))
    names = ["hit rate, formula", "hit rate, counted", "exact match, formula", "exact match, counted"]
    return pd.DataFrame(rows, columns=["shape", "placements", *names])


def count_chance(spec: puzzles.PuzzleSpec) -> tuple[float, float]:
    """Mean (hit rate, exact match) over every guess against every truth that can occur."""
    every = np.array(placements(spec.tiles)[0 if spec.solved_allowed else 1 :])
    right = (every[:, None] == every[None]).mean(2)
    return float(right.mean()), float((right == 1).mean())


def placements(n: int) -> list[puzzles.Placement]:
    """All n! placements of n tiles in lexicographic order; the first is the solved board."""
    return list(itertools.permutations(range(1, n + 1)))


def reward_table(truth: Sequence[int]) -> pd.DataFrame:
    """Reward of every placement, well formed; columns answer, hit, exact, format, total."""
    rows = []
    for answer in map(spaced, placements(len(truth))):
        earned = score(f"<think>x</think><answer>{answer}</answer>", truth)
        rows.append((answer, earned.hit, earned.exact, earned.format))
    table = pd.DataFrame(rows, columns=["answer", "hit", "exact", "format"])
    return table.assign(total=table[["hit", "exact", "format"]].sum(axis=1))


@use_style()
def reward_landscape(table: pd.DataFrame) -> Figure:
    """How many placements earn how much: hit and total reward. Drawn columns: reward, value, placements."""
    rewards = table.melt(value_vars=["hit", "total"], var_name="reward")
    drawn = rewards.groupby(["reward", "value"]).size().reset_index(name="placements")
    fig, axes = marks.panels({"hit": "Hit reward", "total": "Total reward"}, 8.0, 3.2)
    for name, ax in axes.items():
        counts, mean = drawn[drawn["reward"] == name], table[name].mean()
        ax.axvline(mean, color=DARK, linestyle="--", linewidth=1.2, zorder=0)
        ax.text(mean, 1.0, f" mean {mean:.2f}", transform=ax.get_xaxis_transform(), va="top", color=DARK)
        bars = ax.bar(counts["value"], counts["placements"], 0.05 * np.ptp(counts["value"]) + 0.02, color=BAR)
        ax.bar_label(bars, padding=2, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        ax.set(xlabel="reward", ylabel="placements")
        ax.set_xticks(counts["value"], [f"{value:g}" for value in counts["value"]], fontsize=8)
        ax.margins(y=0.2)
    hits = ", ".join(f"{r.placements} earn {r.value:g}" for r in drawn[drawn["reward"] == "hit"].itertuples())
    totals = ", ".join(f"{v:g}" for v in drawn.loc[drawn["reward"] == "total", "value"])
    alt = f"Histograms of the rewards of {len(table)} placements. Hit reward: {hits}. Total reward of a well-formed"
    return record(fig, drawn, f"{alt} completion: {totals}.")


@use_style()
def token_picture(board: Any, side: int = 16) -> Figure:
    """A board under the grid of its image tokens, `side` pixels each, numbered in reading order."""
    ax = new_axes(3.4, 3.4)
    ax.imshow(board, interpolation="nearest", extent=(0, board.width, board.height, 0))
    cells = list(itertools.product(range(board.height // side), range(board.width // side)))
    for number, (row, col) in enumerate(cells, start=1):
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
        ax.text((col + 0.5) * side, (row + 0.5) * side, f"{number}", ha="center", va="center", bbox=box)
    ax.set(xticks=range(0, board.width + 1, side), yticks=range(0, board.height + 1, side), xlabel="pixels")
    ax.grid(color="white", linewidth=1.5)
    ax.set_axisbelow(False)
    rows = [{"token": k, "row": r + 1, "column": c + 1} for k, (r, c) in enumerate(cells, start=1)]
    alt = f"A board of {board.width} x {board.height} pixels under the grid of its {len(rows)} image tokens of"
    return record(ax.figure, pd.DataFrame(rows), f"{alt} {side} x {side} pixels, numbered in reading order.")


def parameter_table(model: Any) -> pd.DataFrame:
    """Parameters per part of a Qwen2.5-VL; the output layer shares the word embedding's weights."""
    inner = model.model
    vision, language = inner.visual, inner.language_model
    parts = {
        "eyes: patch embedding": vision.patch_embed,
        f"eyes: {len(vision.blocks)} vision blocks": vision.blocks,
        "eyes: merger (2 x 2 patches to 1 token)": vision.merger,
        "words: embedding (and output layer, tied)": language.embed_tokens,
        f"mind: {len(language.layers)} language blocks": language.layers,
        "mind: last norm": language.norm,
    }
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    total = sum(p.numel() for p in model.parameters())
    if sum(counts.values()) != total:
        raise UserError("This model has parts that the table does not know: add them to parameter_table.")
    rows = [{"part": n, "parameters": f"{c:,}", "share": f"{c / total:.1%}"} for n, c in counts.items()]
    return pd.DataFrame([*rows, {"part": "all", "parameters": f"{total:,}", "share": "100%"}])


def tokens_of(processor: Any, text: str, grid: Shape) -> list[str]:
    """The tokens of a whole prompt as text, one by one; image tokens are `<|image_pad|>`."""
    tokenizer = processor.tokenizer
    return [tokenizer.decode([i]) for i in prompt_ids(tokenizer, text, grid)]


def battery_live(model: Any, processor: Any, n: int) -> pd.DataFrame:
    """The prior battery scored here and now: columns task, measure, value, n, as in the evaluations table."""
    scores = evaluate.score_battery(model, processor, n)
    rows = [(task, name, value, n) for task, parts in scores.items() for name, value in parts.items()]
    return pd.DataFrame(rows, columns=["task", "measure", "value", "n"])


def battery_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per prior task, best first: score with 95% Wilson interval, chance, likelihood, failures.

    `rows`: columns task, measure, value, n. Raises UserError where a task lacks its score.
    """
    values = {(r.task, r.measure): (float(r.value), int(r.n)) for r in rows.itertuples()}
    lines = []
    for task in battery.battery_tasks():
        if (task, "score") not in values:
            raise UserError(f"There is no score of the prior task {task}: evaluate the whole battery first.")
        value, n = values[task, "score"]
        _, low, high = intervals.wilson(round(value * n), n)
        likelihood, failures = (values.get((task, m), (math.nan, n))[0] for m in ("likelihood", "format_failure"))
        likelihood_chance = evaluate.likelihood_chance(task)
        lines.append((task, value, low, high, battery.chance(task), likelihood, likelihood_chance, failures, n))
    scores = ["value", "low", "high", "chance", "likelihood", "likelihood chance", "format failures"]
    table = pd.DataFrame(lines, columns=["task", *scores, "n"])
    return table.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def prior_gallery(tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """One picture per prior task with a question about it and the gold completion. Drawn: position, title."""
    samples = {task: battery.battery_samples(task, 4)[1] for task in tasks or battery.battery_tasks()}
    titles = [_asked(task, sample.question) for task, sample in samples.items()]
    return plots.board_gallery([s.pixels for s in samples.values()], titles, columns)


def _asked(task: str, question: questions.Question, width: int = 32) -> str:
    """Task, question and completion, wrapped to stand above a small picture."""
    parts = [task.upper(), *textwrap.wrap(question.text, width)]
    parts += textwrap.wrap(question.think, width, initial_indent="think: ")
    return "\n".join(parts + textwrap.wrap(question.answer, width, initial_indent="answer: "))


def majority(samples: Sequence[questions.PriorSample]) -> tuple[str, float]:
    """The commonest gold answer, and the score of always giving it."""
    (answer, count), *_ = Counter(s.question.answer for s in samples).most_common(1)
    return answer, count / len(samples)


def kind_table(model: Any, processor: Any, samples: Sequence[questions.PriorSample]) -> pd.DataFrame:
    """Greedy score on easy-VQA samples, of all and by kind of question, beside each kind's majority answer.

    Columns kind, questions, score, low, high (95% Wilson), majority answer, majority score.
    """
    order = sorted(samples, key=lambda s: len(s.question.text))  # prompts of one length need no padding
    texts = complete(model, processor, [Prompted(s.pixels, s.question.text) for s in order])
    right = [score_answer(text, s.question) == 1 for (text,), s in zip(texts, order, strict=True)]
    rows = []
    for kind in ("all", "yes or no", "shape", "colour"):
        asked = [i for i, s in enumerate(order) if kind in ("all", _answer_kind(s.question.answer))]
        if asked:
            scored = intervals.wilson(sum(right[i] for i in asked), len(asked))
            rows.append((kind, len(asked), *scored, *majority([order[i] for i in asked])))
    names = ["kind", "questions", "score", "low", "high", "majority answer", "majority score"]
    return pd.DataFrame(rows, columns=names)


def _answer_kind(answer: str) -> str:
    """What an easy-VQA answer names."""
    shapes = questions.EASY_VQA["easy shape"]
    return "yes or no" if answer in ("yes", "no") else "shape" if answer in shapes else "colour"


def answers(completions: Iterable[str], n: int = 4) -> pd.DataFrame:
    """Per completion: its think, the placement it gives ("" where none is valid), and the parser's reason."""
    rows = []
    for text in completions:
        think, parsed = text.partition("<think>")[2].partition("</think>")[0], parse(text, n)
        rows.append((think, spaced(parsed.placement or ()), parsed.reason))
    return pd.DataFrame(rows, columns=["think", "placement", "reason"])


def placement_shares(given: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """Share of all completions that give each placement, commonest first; `given`: see `answers`."""
    every = pd.Index(map(spaced, placements(n)), name="placement")
    shares = given["placement"].value_counts().reindex(every, fill_value=0) / len(given)
    return shares.sort_values(ascending=False, kind="stable").reset_index(name="share")


@use_style()
def placement_bars(shares: pd.DataFrame) -> Figure:
    """Share of completions per placement, lines at 1 % and a uniform choice. Drawn: placement, share."""
    ax, uniform, valid = new_axes(8.0, 3.4), 1 / len(shares), f"{shares['share'].sum():.0%}"
    ax.bar(shares["placement"], shares["share"], color=BAR)
    for level, name, dash in ((0.01, "1 %", ":"), (uniform, f"uniform {uniform:.1%}", "--")):
        ax.axhline(level, color="black", linestyle=dash, linewidth=1.2)
        marks.row_text(ax, level, name, 1.01, fontsize=9.5)
    ax.tick_params(axis="x", rotation=90)
    ax.grid(axis="x", visible=False)
    ax.set(ylabel="share of completions", xlabel="placement given", xlim=(-0.7, len(shares) - 0.3))
    ax.set_title(f"What the base answers to a puzzle (valid: {valid} of completions)")
    first = shares.iloc[0]
    alt = f"""Share of completions that give each of {len(shares)} placements. Valid: {valid}.
        {(shares["share"] > 0.01).sum()} placements lie above the 1 % line; the commonest, {first["placement"]}, takes
        {first["share"]:.0%}; a uniform choice would give {uniform:.1%}."""
    return record(ax.figure, shares, alt)


def verdicts(
    battery: pd.DataFrame, kinds: pd.DataFrame, exact: intervals.Interval, shares: pd.DataFrame
) -> pd.DataFrame:
    """The bars a base model must clear, each with what was measured and whether it was met.

    `battery`: see `battery_table`; `kinds`: see `kind_table`; `exact`: exact match on puzzles with its interval;
    `shares`: see `placement_shares`.
    """
    score, chance = battery["value"], 1 / (len(shares) - 1)  # the solved board is never asked
    easy, valid = float(kinds.set_index("kind")["score"]["all"]), float(shares["share"].sum())
    high, common = int((score >= 0.80).sum()), int((shares["share"] > 0.01).sum())
    inside = f"{exact.low:.3f} to {exact.high:.3f} holds {chance:.3f}"
    rows = [
        ("prior tasks scoring 0.80 or more", f"{high}", "10", high >= 10),
        ("mean score of the battery", f"{score.mean():.3f}", "0.920", score.mean() >= 0.92),
        ("easy-VQA, official test split", f"{easy:.3f}", "0.900", easy >= 0.90),
        ("puzzle at chance", f"{exact.mean:.3f}", inside, exact.low <= chance <= exact.high),
        ("share of valid placements, T = 1", f"{valid:.3f}", "0.600", valid >= 0.60),
        ("placements above 1 % of completions", f"{common}", "12", common >= 12),
    ]
    table = pd.DataFrame(rows, columns=["bar", "measured", "needed", "verdict"])
    return table.assign(verdict=table["verdict"].map({True: "met", False: "not met"}))
