"""What the tables say, in sentences: notebooks print them and tests hold the README to them.

A sentence that states a number or a comparison is made here, so that it changes when the records do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from helpers.stats.curves import ALL, gain_and_drop
from helpers.stats.intervals import Interval, in_words, perplexity_interval, seed_interval, seeds_in_words
from helpers.stats.summary import arms
from helpers.study.profiles import Profile

SCOPE = "One form, one base: the shipped base thinks before every answer, whatever it is asked, and all seeds share it."
"""What every summary of today's study says of itself."""

_BOX = Path(__file__).with_name("built_in.md")


def built_in() -> str:
    """The box "What we built in" as Markdown: notebooks 00 and 05 show it, and the README holds the same text."""
    return _BOX.read_text(encoding="utf-8").strip()


def budgets(profile: Profile, names: Iterable[str]) -> str:
    """How long some arms train: "sft-answer takes 640 steps of 32 boards, sft-expert 288 steps of 32 boards"."""
    lines = [profile.budget(name) for name in names]
    said = ", ".join(f"{line.arm} {line.steps} steps of {line.batch_size} boards" for line in lines)
    return (
        f"Trained for: {said}; learning rates {', '.join(f'{r:g}' for r in sorted({b.learning_rate for b in lines}))}."
    )


def cost_of_learning(
    seeds: pd.DataFrame, group_size: int, arm: str = "rft", other: str = "sft-answer", at: str = "0.5"
) -> str:
    """What an arm that writes groups needs beside another to reach an accuracy: boards, steps, completions.

    `seeds`: as from `summary.per_seed`. Ratios seed by seed with their 95% intervals; below three seeds undecided.
    """
    found = []
    for name, quantity, factor in (
        ("boards", "samples", 1),
        ("steps", "steps", 1),
        ("completions", "samples", group_size),
    ):
        first, second = (_by_seed(seeds, f"{quantity}_to_{at}", which) for which in (arm, other))
        ratios = (factor * first / second).dropna()
        if ratios.empty:
            return f"Exact match {at} is not reached by both {arm} and {other}."
        interval = seed_interval(ratios)
        low, high = interval[1:] if len(ratios) > 2 else (0.0, 2.0)
        word = "fewer" if high < 1 else "more" if low > 1 else "neither clearly fewer nor more"
        found.append(f"{word} {name}, {in_words(interval, seeds=len(ratios))} times as many")
    return (
        f"To exact match {at} {arm} needs, beside {other}: {'; '.join(found)}. It writes {group_size} for each board."
    )


def _by_seed(seeds: pd.DataFrame, quantity: str, arm: str, task: str = "puzzle") -> pd.Series:
    chosen = (seeds["quantity"] == quantity) & (seeds["arm"] == arm) & (seeds["task"] == task)
    return seeds[chosen].set_index("seed")["value"]


def brake(metrics: pd.DataFrame, names: Sequence[str] = ("rft", "sft-answer")) -> list[str]:
    """Loss and gradient norm of some arms, over the first and the last tenth of their steps, means over seeds."""
    said = []
    for arm in names:
        rows = metrics[(metrics["arm"] == arm) & metrics["name"].isin(["loss", "grad_norm"])]
        share = rows["step"] / rows["step"].max()
        means = [rows[part].groupby("name")["value"].mean() for part in (share <= 0.1, share > 0.9)]
        (loss, norm), (last_loss, last_norm) = ((m.get("loss", 0.0), m.get("grad_norm", 0.0)) for m in means)
        said.append(
            f"{arm}, first and last tenth of its steps: loss {loss:.3f} and {last_loss:.3f}, "
            f"gradient norm {norm:.2f} and {last_norm:.2f} ({last_norm / max(norm, 1e-9):.2f} times the first)."
        )
    return said


def format_from_start(completions: pd.DataFrame) -> str:
    """The share of recorded completions that earn the format reward, at the first and the last recorded step."""
    shares = completions.groupby("step")["format"].mean()
    first, last = shares.index.min(), shares.index.max()
    said = (f"by {shares[step]:.2f} of the completions at step {step}" for step in (first, last))
    return f"The format reward is earned {' and '.join(said)}."


def without_kl(study: pd.DataFrame, control: pd.DataFrame) -> str:
    """What RFT does without its KL term: boards solved and prior score lost in the end, beside RFT's.

    `study`, `control`: as from `summary.per_seed`; the second may be empty.
    """
    quantities = {"boards solved": ("puzzle_exact", "puzzle"), "prior score lost": ("drop_final", ALL)}
    parts = []
    for name, (quantity, task) in quantities.items():
        mine, rft = _by_seed(control, quantity, "rft-no-kl", task), _by_seed(study, quantity, "rft", task)
        if mine.empty or rft.empty:
            return "rft-no-kl: not run at this profile."
        parts.append(f"{name} {seeds_in_words(mine)}, with it {seeds_in_words(rft)}")
    return f"RFT without its KL term, in the end: {'; '.join(parts)}."


def task_drops(numbers: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The drop of each prior task (rows) under each arm (columns), from a summary."""
    rows = numbers[(numbers["quantity"] == quantity) & (numbers["task"] != ALL)]
    wide = rows.pivot(index="task", columns="arm", values="value")
    return wide.reindex(columns=[arm for arm in arms(numbers, base=False) if arm in wide])


def carried(numbers: pd.DataFrame, quantity: str, where: str) -> str:
    """Which share of each arm's drop its two worst tasks carry."""
    drops, parts = task_drops(numbers, quantity), []
    for arm in drops:
        worst = drops[arm].nlargest(2)
        parts.append(f"{arm} {worst.sum() / drops[arm].sum():.2f} ({', '.join(sorted(worst.index))})")
    if not parts:
        return f"No arm has a drop {where}."
    even = 2 / len(drops)
    return (
        f"Of an arm's drop {where} its two worst tasks carry: {'; '.join(parts)}. Spread evenly it would be {even:.2f}."
    )


def spared(numbers: pd.DataFrame, task: str, places: Mapping[str, str]) -> str:
    """The most that one task loses under any arm, at each of `places` (quantity: where)."""
    parts = []
    for quantity, where in places.items():
        drops = task_drops(numbers, quantity)
        if task in drops.index:
            worst = drops.loc[task].idxmax()
            mean = drops[worst].mean()
            parts.append(f"{drops.loc[task, worst]:.2f} {where} (under {worst}, whose mean drop is {mean:.2f})")
    return f"{task} loses at most {' and '.join(parts) or 'nothing that was measured'}."


_PLACES: Mapping[str, tuple[str, ...]] = {
    "eyes": ("patches", "eye"),
    "merger": ("merger",),
    "words": ("words",),
    "text blocks": ("text", "last norm"),
}


def places_of_update(shares: pd.DataFrame) -> pd.DataFrame:
    """Share of the squared length of an update in the eyes, the merger, the words and the text blocks, a row per label.

    `shares`: as from `tables.part_shares`.
    """
    names = {part: next(n for n, starts in _PLACES.items() if part.startswith(starts)) for part in set(shares["part"])}
    wide = shares.assign(place=shares["part"].map(names)).pivot_table(
        index="label", columns="place", values="share", aggfunc="sum", sort=False
    )
    return wide.reindex(columns=list(_PLACES))


def where_it_sits(shares: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Where the updates of some arms sit: their shares by place, and their largest single part."""
    places, said = places_of_update(shares), []
    for label in [name for name in names if name in places.index]:
        parts = shares[shares["label"] == label].set_index("part")["share"]
        spread = ", ".join(f"{place} {share:.2f}" for place, share in places.loc[label].items())
        said.append(f"{label}: {spread}; largest single part: {parts.idxmax()} ({parts.max():.2f}).")
    return said


def lora(quantities: pd.DataFrame, accuracy: float) -> str:
    """What answer SFT has lost at an accuracy with all weights and with LoRA, by score and by likelihood."""
    said = []
    for name, label in (("with all weights", "sft-answer"), ("with LoRA", "sft-answer, LoRA")):
        rows = quantities[(quantities["label"] == label) & (quantities["task"] == ALL)]
        lost = [rows.loc[rows["quantity"] == f"drop_at_{accuracy:g}{e}", "value"] for e in ("", "_likelihood")]
        if lost[0].empty:
            return f"Answer SFT {name} does not reach exact match {accuracy:g} here."
        score, likelihood = (f"{v.mean():.2f}" if abs(v.mean()) >= 0.01 else f"{v.mean():.3f}" for v in lost)
        said.append(f"{name} {score} by score and {likelihood} by likelihood ({len(lost[0])} seeds)")
    return f"At exact match {accuracy:g} answer SFT has lost {', '.join(said)}."


def corpora_apart(logps: pd.DataFrame) -> list[str]:
    """The perplexity of each corpus with its interval over completions, and which neighbours overlap.

    `logps`: columns corpus, logp, tokens, a row per completion.
    """
    found = {name: perplexity_interval(part["logp"], part["tokens"]) for name, part in logps.groupby("corpus")}
    ranked = sorted(found, key=lambda name: found[name].mean)
    pairs = [f"{a} and {b}" for a, b in zip(ranked, ranked[1:], strict=False) if found[a].high >= found[b].low]
    said = [f"{name}: perplexity {in_words(found[name])}" for name in ranked]
    return [*said, f"Intervals overlap: {', '.join(pairs) or 'none'}."]


def sides(rows: Iterable[tuple[str, Interval]], above: str, below: str) -> str:
    """Which of some named intervals lie above 0, below it, or across: "helps: a, b; hurts: c; undecided: none"."""
    groups: dict[str, list[str]] = {above: [], below: [], "undecided": []}
    for name, interval in rows:
        groups[above if interval.low > 0 else below if interval.high < 0 else "undecided"].append(name)
    return "; ".join(f"{word}: {', '.join(names) or 'none'}" for word, names in groups.items())


def one_step(overall: pd.DataFrame, drops: pd.DataFrame) -> list[str]:
    """What one step on each corpus does to prior gold answers, per optimizer, and whether the drops go that way.

    `overall`: columns step, corpus, mean, low, high; `drops`: columns arm, value, a row per run.
    """
    lost, said = drops.groupby("arm")["value"].mean(), []
    for step, part in overall.groupby("step", sort=False):
        named = [(row.corpus, Interval(row.mean, row.low, row.high)) for row in part.itertuples(index=False)]
        both = part.set_index("corpus")["mean"].to_frame("moved").join(lost.rename("lost"), how="inner").rank()
        tilt = both["moved"].corr(both["lost"])
        way = "against" if tilt > 0 else "with"
        said.append(
            f"One step of {step} on prior gold answers: {sides(named, 'helps', 'hurts')}. Its order of "
            f"{len(both)} arms goes {way} that of their final drops (rank correlation of help and drop {tilt:+.2f})."
        )
    return said


def paid_early(evaluations: pd.DataFrame, names: Sequence[str], step: int) -> list[str]:
    """Gain and drop of some arms at an early step, and which share of their final drop that is; means over seeds."""
    points, said = gain_and_drop(evaluations), []
    for arm in names:
        rows = points[points["arm"] == arm]
        early = rows[rows["step"] == step]
        if early.empty:
            continue
        drop, end = early["drop"].mean(), rows.groupby("run")["drop"].last().mean()
        share = f", {drop / end:.2f} of its final drop" if end > 0.01 else ""
        said.append(f"{arm:<12} at step {step}: gained {early['gain'].mean():.2f}, lost {drop:.2f}{share}")
    return said or [f"Step {step} was not evaluated at this profile."]
