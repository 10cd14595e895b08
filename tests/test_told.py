"""Sentences about results: made right from small tables, and the README and the notebooks say what the records say."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rows import front_run

from helpers.measure import analyses
from helpers.measure.learned_from import every_recorded, recorded_corpus
from helpers.stats import curves, intervals, paired, summary, tables, ways
from helpers.stats.intervals import Interval
from helpers.study.profiles import get_profile
from helpers.study.published import Study
from helpers.study.schema import is_correct
from helpers.train import pretrain
from helpers.train.pretrain import Recipe
from helpers.verdicts import claims, told, told_bases
from helpers.world import battery, easy_vqa

ROOT = Path(__file__).parents[1]
PLACES = {"drop_at_0.5": "at exact match 0.5", "drop_final": "at the end"}
LORA, LORA_ROLLOUT = "sft-answer, LoRA", "sft-rollout, LoRA"


def flat(text: str) -> str:
    """A text in one line."""
    return " ".join(text.split())


README = flat((ROOT / "README.md").read_text(encoding="utf-8"))


@cache
def prose(number: str) -> str:
    """The Markdown of a notebook in one line."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return flat(" ".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"))


@cache
def code(number: str) -> str:
    """The code of a notebook."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


@pytest.fixture(scope="module")
def known() -> SimpleNamespace:
    """The published records: the study's tables, the controls', and what is computed from both."""
    profile = get_profile("cpu")
    study, results = Study(profile, profile.study_arms), analyses.load(profile)
    evaluations, metrics = study.evaluations, study.metrics
    return SimpleNamespace(
        profile=profile,
        evaluations=evaluations,
        metrics=metrics,
        completions=study.completions,
        results=results,
        seeds=summary.per_seed(evaluations, metrics),
        numbers=summary.summarise({"evaluations": evaluations, "metrics": metrics}),
        quantities=analyses.quantities(evaluations, metrics, results, profile),
    )


def values(known: Any, quantity: str, label: str, task: str = "all") -> pd.Series:
    """A quantity by seed."""
    q = known.quantities
    chosen = (q["quantity"] == quantity) & (q["label"] == label) & (q["task"] == task)
    return q[chosen].set_index("seed")["value"]


# --- sentences from small tables --------------------------------------------------------------------------


def rows(**by_arm: list[float]) -> pd.DataFrame:
    """Steps and boards to 0.5, by arm (with _ for -) a value per seed; a step has ten boards."""
    table = [
        (f"{q}_to_0.5", arm.replace("_", "-"), seed, "puzzle", value * times)
        for arm, found in by_arm.items()
        for seed, value in enumerate(found)
        for q, times in (("steps", 1), ("samples", 10))
    ]
    return pd.DataFrame(table, columns=["quantity", "arm", "seed", "task", "value"])


def test_what_learning_costs_follows_the_ratios() -> None:
    slow = told.cost_of_learning(rows(rft=[40, 41, 42], sft_answer=[10, 10, 10]), 8)
    assert "more boards, 4.10 (3.85 to 4.35, 3 seeds) times as many" in slow and "fewer" not in slow
    fast = told.cost_of_learning(rows(rft=[5, 5.1, 5.2], sft_answer=[10, 10, 10]), 8)
    assert "fewer boards, 0.51" in fast and "more completions, 4.08" in fast
    assert "neither clearly fewer nor more boards" in told.cost_of_learning(rows(rft=[5, 5], sft_answer=[10, 10]), 8)
    assert told.cost_of_learning(rows(rft=[5, 5]), 8).endswith("is not reached by both rft and sft-answer.")


def test_two_worst_tasks_and_what_they_carry() -> None:
    table = [("drop_final", "rft", task, drop) for task, drop in {"a": 0.6, "b": 0.2, "c": 0.2, "d": 0.0}.items()]
    numbers = pd.DataFrame([*table, ("drop_final", "rft", "all", 9.0)], columns=["quantity", "arm", "task", "value"])
    said = told.carried(numbers, "drop_final", "at the end")
    assert said == (
        "Of an arm's drop at the end its two worst tasks carry: rft 0.80 (a, b). Spread evenly it would be 0.50."
    )
    assert told.spared(numbers, "c", PLACES) == "c loses at most 0.20 at the end (under rft, whose mean drop is 0.25)."


def test_sides_are_told_by_whole_intervals() -> None:
    named = [("a", Interval(1, 0.5, 2)), ("b", Interval(-1, -2, -0.5)), ("c", Interval(1, -1, 3))]
    assert told.sides(named, "up", "down") == "up: a; down: b; undecided: c"
    assert told.sides(named[:1], "up", "down") == "up: a; down: none; undecided: none"


@pytest.mark.parametrize(("turn", "way"), [(1, "against"), (-1, "with")])
def test_one_step_is_held_against_the_drops(turn: int, way: str) -> None:
    overall = pd.DataFrame({"step": "SGD", "corpus": ["a", "b", "c"], "mean": np.array([1.0, 2.0, 3.0]) * turn})
    overall = overall.assign(low=overall["mean"] - 0.1, high=overall["mean"] + 0.1)
    drops = pd.DataFrame({"arm": ["a", "a", "b", "c"], "value": [0.0, 0.2, 0.5, 0.9]})
    (said,) = told.one_step(overall, drops)
    assert f"goes {way} that of their final drops" in said and f"{turn:+.2f}" in said


def test_where_an_update_sits_adds_up() -> None:
    parts = {"patches": 0.1, "eye 1": 0.1, "merger": 0.1, "words": 0.3, "text 1": 0.39, "last norm": 0.01}
    shares = pd.DataFrame({"label": "rft", "part": list(parts), "share": list(parts.values())})
    (said,) = told.where_it_sits(shares, ["rft", "sft-answer"])
    assert said == ("rft: eyes 0.20, merger 0.10, words 0.30, text blocks 0.40; largest single part: text 1 (0.39).")


def test_what_was_not_run_is_said_so(known: Any) -> None:
    assert told.without_kl(known.seeds, known.seeds.iloc[:0]) == "rft-no-kl: not run at this profile."
    assert "does not reach exact match 0.9 here" in told.lora(known.quantities, 0.9)
    assert told.paid_early(known.evaluations, ("rft",), 3) == ["Step 3 was not evaluated at this profile."]


def test_every_recorded_rollout_is_taken_once(known: Any) -> None:
    corpus = every_recorded(known.profile, "sft-rollout", known.completions, 50)
    late = known.completions[known.completions["step"] > known.completions["step"].max() * 2 / 3]
    right = late[is_correct(late)].drop_duplicates(["run", "puzzle_id", "completion"])
    assert len(corpus) == len(right) > 4 * len(recorded_corpus(known.profile, "sft-rollout", known.completions, 50))
    assert sorted(corpus.completions) == sorted(right["completion"])
    assert every_recorded(known.profile, "sft-answer", known.completions, 50) is None
    thinks = every_recorded(known.profile, "sft-self", known.completions, 50)
    assert len(thinks) == 50 * len(known.profile.seeds)
    assert all(text.startswith("<think>") for text in thinks.completions)


def test_perplexities_are_told_apart_by_their_intervals() -> None:
    logps = [("a", -10.0 - i % 2, 10) for i in range(40)] + [("b", -10.1 - i % 2, 10) for i in range(40)]
    logps += [("c", -50.0 - i % 2, 10) for i in range(40)]
    said = told.corpora_apart(pd.DataFrame(logps, columns=["corpus", "logp", "tokens"]))
    assert said[0].startswith("a: perplexity 2.86 (") and len(said) == 4
    assert said[-1] == "Intervals overlap: a and b."


# --- the same words everywhere ----------------------------------------------------------------------------


def test_the_box_and_the_scope_stand_wherever_results_are_summarised() -> None:
    assert flat(told.built_in()) in README and told.SCOPE in README.replace("*", "")
    for number in ("00", "05"):
        assert "Markdown(told.built_in())" in code(number)
    for number in ("00", "05", "08", "09"):
        assert "print(told.SCOPE" in code(number)


def test_what_the_box_says_is_so(known: Any) -> None:
    assert Recipe().forms == "none" and Recipe().teacher_share < 0.1
    drawn = [q for step in range(0, 2000, 50) for q in pretrain.pretraining_sample(Recipe(), step, 0)[1]]
    asked = [s.question for task in battery.battery_tasks() for s in battery.battery_samples(task, 8)]
    assert len(drawn) > 40 and all(q.completion.startswith("<think>") for q in [*drawn, *asked])
    lines = study_budgets(known)
    assert {line.learning_rate for line in lines} == {2e-4} and len({line.steps for line in lines}) > 1
    assert {line.arm for line in lines if line.beta} == {"rft"}
    assert known.profile.puzzle.n_placements == 23


def study_budgets(known: Any) -> list[Any]:
    """The budgets of the study's arms."""
    return [known.profile.budget(arm) for arm in known.profile.study_arms if arm != "base"]


def test_the_four_claims_of_notebook_00_are_the_first_of_09() -> None:
    main = claims.all_claims()[:4]
    lines = claims.statements(main).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == [claim.statement for claim in main]
    assert "claims.all_claims()[:4]" in code("00") and "claims.table(" in code("00") and "claims.table(" in code("09")
    assert "| claim |" not in prose("00")


# --- what Markdown says without a number ------------------------------------------------------------------


def test_03_arms_differ_in_more_than_the_completion(known: Any) -> None:
    both = [known.profile.budget(arm) for arm in ("sft-answer", "sft-expert")]
    assert both[0].steps != both[1].steps and "told.budgets(" in code("03")
    assert "differ in nothing but" not in prose("03") and not re.search(r"about \d+ tokens", prose("03"))


def test_04_what_it_says_of_rft(known: Any) -> None:
    cost = told.cost_of_learning(known.seeds, known.profile.group_size)
    assert "fewer boards" in cost and "neither clearly fewer nor more steps" in cost and "more completions" in cost
    assert "That gap in steps is not found here" in prose("04")
    first = known.completions[known.completions["step"] == 1]
    assert (first["format"] == 1).all() and "full from the first step on" in prose("04")
    base = known.evaluations.query("arm == 'base' and task == 'puzzle' and measure == 'format_failure'")
    assert (base["value"] < 0.02).all()
    norms = {said.split(",")[0]: float(re.search(r"\(([\d.]+) times", said)[1]) for said in told.brake(known.metrics)}
    assert norms["sft-answer"] < 0.2 and norms["rft"] > 0.9 and "SFT has a brake of its own" in prose("04")


def test_05_easy_vqa_and_the_two_tasks(known: Any) -> None:
    for quantity, where in PLACES.items():
        drops = told.task_drops(known.numbers, quantity)
        assert drops.loc["easy_vqa"].max() < 0.1, where
        gentle = [arm for arm in drops if arm != "sft-answer"]
        assert all(set(drops[arm].nlargest(2).index) == {"caption", "rank_brightness"} for arm in gentle), where
        carried = drops.loc[["caption", "rank_brightness"], gentle].sum() / drops[gentle].sum()
        assert carried.min() > 0.5, where


def test_08_rollouts_pay_a_part_at_the_start(known: Any) -> None:
    early = curves.gain_and_drop(known.evaluations).query("step == 32").groupby("arm")["drop"].mean()
    assert early["sft-answer"] > 10 * early["sft-rollout"] > 20 * early["sft-self"] / 2 and early["sft-rollout"] > 0.02
    assert "has nothing to pay at the start" not in prose("08")


def test_09_where_updates_sit_and_what_lora_saves(known: Any) -> None:
    shares = tables.part_shares(known.results["weights"])
    largest = shares.loc[shares.groupby("label")["share"].idxmax()].set_index("label")["part"]
    study = [arm for arm in known.profile.study_arms if arm != "base"]
    assert {arm: largest[arm] for arm in study if arm != "rft"} == dict.fromkeys(study[1:], "words")
    places = told.places_of_update(shares)
    assert places.loc["rft"].idxmax() == "text blocks" and (places.loc[study].idxmax(axis=1) != "eyes").all()
    kept = known.seeds.query("quantity == 'drop_at_0.5' and task == 'all'").groupby("arm")["value"].mean()
    assert places.loc[study, "words"].idxmax() == kept.idxmin() == "sft-self"
    assert (places.loc[[LORA, LORA_ROLLOUT], "text blocks"] == 1).all()
    by_score, by_likelihood = (values(known, f"drop_at_0.3{end}", LORA).mean() for end in ("", "_likelihood"))
    whole, known_then = (values(known, f"drop_at_0.3{end}", "sft-answer").mean() for end in ("", "_likelihood"))
    assert abs(by_score - whole) < 0.05 and by_likelihood < 0.01 < 0.3 < known_then


def test_07_one_step_goes_against_the_drops() -> None:
    table = pd.read_csv(ROOT / "figures" / "dynamics_prediction.csv")
    for rule in ("SGD", "AdamW"):
        one = table[table["quantity"].str.startswith(f"influence, {rule}")].set_index("arm")
        assert one["value"].rank().corr(one["drop"].rank()) > 0.5, rule
    sgd = table[table["quantity"].str.startswith("influence, SGD")].set_index("arm")
    assert sgd.loc["sft-answer", "value_low"] > 0 > sgd.loc["sft-rollout", "value_high"]
    cosines = pd.read_csv(ROOT / "figures" / "dynamics_cosine.csv").query("measure == 'cosine' and part == 'all'")
    assert not (cosines.set_index("corpus").loc[["sft-answer", "sft-expert"], "high"] < 0).any()
    assert "are not those that keep them" in prose("07") and "told.one_step(" in code("07")
    theory = pd.read_csv(ROOT / "figures" / "claims.csv").set_index("claim")["verdict"]
    assert (theory[["direction", "direction-adamw"]] == "undecided").all() and "finds undecided whether" in prose("07")


# --- the study on several bases ---------------------------------------------------------------------------


def test_the_power_of_an_equality_is_that_of_its_test() -> None:
    told_, alone, strict = told_bases.power(6, 5, spreads=(0.02, 0.05))
    found = [paired.power_of_equivalence(6, spread, 0.05, alpha) for alpha in (0.05, 0.01) for spread in (0.02, 0.05)]
    words = [f"{value:.2f}" for value in found]
    assert "within ±0.05 on 6 bases" in told_ and "by 0.02 and 0.05" in told_
    assert alone == f"Tested alone (p below 0.05): {words[0]} and {words[1]}; 0.8 takes 4 and 11 bases."
    assert f"one of 5 (p below 0.01): {words[2]} and {words[3]}; 0.8 takes " in strict
    assert "more than 50" in told_bases.power(6, 5, spreads=(0.02, 0.5))[1]


def test_what_was_chosen_and_what_was_lost_there() -> None:
    rows = [front_run("rft direct", base, rate, first) for base, slow in zip("345", (0.1, 0.2, 0.3), strict=True)
            for rate, first in ((2e-4, 0.4), (6e-5, slow), (2e-5, 0.5))]  # fmt: skip
    front = pd.DataFrame([*rows, front_run("rft think", "3", 2e-4, 0.1)])
    choice, alone, none = told_bases.best_rates(front, ["rft direct", "rft think", "sft-answer direct"])
    assert choice.startswith("rft direct: of 3 bases, chosen 6e-05 for 3; lost there 0.21 (") and "3 bases)" in choice
    assert alone.endswith("no rate can be chosen on the others.") and none == "sft-answer direct: not run."
    never = pd.DataFrame([front_run("rft direct", base, 2e-4, math.nan) for base in "34"])
    assert told_bases.best_rates(never, ["rft direct"]) == ["rft direct: no rate reached the mark on every base."]
    assert told_bases.so_far(front.assign(ran=front["base"] != "5"), ["rft direct"]) == (
        "Of 9 planned runs of 1 cell 6 are there, on the bases of stems: 3, 4."
    )


def test_at_which_rates_cells_are_read() -> None:
    rows = [("rft direct", "3", "a"), ("rft direct", "4", "b"), ("rft think", "3", "c"), ("sft-answer plain", "3", "d")]
    front = pd.DataFrame(rows, columns=["cell", "base", "run"])
    said = told_bases.rates_read(
        dict.fromkeys("abc"), front, ["rft direct", "rft think", "sft-answer plain", "sft-kl direct"]
    )
    assert said == (
        "Read at the rate that is best on the other bases: rft direct. Read at 6e-05, because fewer than two bases ran "
        "it: rft think. Read at no rate yet: sft-answer plain. Not run: sft-kl direct."
    )


def test_form_and_knowledge_are_told_apart_base_by_base() -> None:
    likely, (shown, *_, last) = ways.CHOSE[0], ways.REGAINED
    values = {ways.OWN: (0.5, 0.3), likely: (0.8, 0.8), shown: (0.5, 0.5), last: (0.9, 0.9)}
    table = [("r", "rft direct", seed, way, who, value) for way, found in values.items()
             for seed, trained in enumerate(found) for who, value in (("trained", trained), ("base", 0.9))]  # fmt: skip
    scores = pd.DataFrame(table, columns=["run", "cell", "seed", "way", "who", "value"])
    (said,) = told_bases.form_or_knowledge(scores, ["rft direct", "rft think"])
    asked, rest = said.split("; ")
    assert asked == "rft direct lost 0.50 (0.40 to 0.60, 2 bases) as asked, 0.10 (0.10 to 0.10, 2 bases) by likelihood"
    assert rest.startswith("on tasks not shown again 0.40 (0.40 to 0.40, 2 bases) before, 0.00 (")
    assert rest.endswith("2 bases) after 128 samples of other tasks.")
    assert told_bases.form_or_knowledge(scores.iloc[:0], ["rft direct"]) == told_bases.carried_on_bases(
        scores.iloc[:0], ["rft direct"]
    )


def test_two_tasks_that_carry_a_cells_drop() -> None:
    falls = {"a": (0.6, 0.1), "b": (0.2, 0.2), "c": (0.1, 0.25), ways.ALL_TASKS: (0.3, 0.3)}
    rows = [("rft direct", task, *found) for task, found in falls.items()]
    rows += [("rft think", task, found[0] / 100, 0.0) for task, found in falls.items()]
    summary = pd.DataFrame(rows, columns=["cell", "task", "mean", "without"])
    first, second = told_bases.carried_on_bases(summary, ["rft direct", "sft-kl direct", "rft think"])
    assert first == "rft direct: mean drop 0.30, 0.89 of it on a and b; without any one task 0.10 to 0.25."
    assert "too little for a share on a and b" in second


def test_what_easy_vqa_gives_to_whoever_does_not_look() -> None:
    kinds = Counter(easy_vqa.question_kind(text, answer) for text, answer, _ in easy_vqa.read_split("test")[1])
    alone = (kinds["not: yes"] + kinds["no"]) / (kinds.total() - kinds["word"])
    said = told_bases.easy_vqa_by_wording()
    assert f"{alone:.2f} are answered right by wording" in said and alone == pytest.approx(0.825, abs=0.001)
    assert said.endswith(f"the score is {1 - (kinds['yes'] + kinds['not: no']) / kinds.total():.2f}.")
    assert "told_bases.easy_vqa_by_wording()" in code("11") and "told_bases.power(" in code("11")


# --- the README -------------------------------------------------------------------------------------------


def test_the_readme_holds_the_computed_sentences(known: Any) -> None:
    sentences = [
        told.cost_of_learning(known.seeds, known.profile.group_size),
        told.carried(known.numbers, "drop_at_0.5", PLACES["drop_at_0.5"]),
        told.spared(known.numbers, "easy_vqa", PLACES),
        told.lora(known.quantities, 0.3),
    ]
    assert [said for said in sentences if said not in README] == []


def apart(known: Any, quantity: str, first: str, second: str) -> str:
    """The difference of two labels in words: "0.03 ... -0.01 to 0.07"."""
    values_of = {label: values(known, quantity, label) for label in (first, second)}
    mean, low, high, _ = intervals.paired_interval(values_of, first, second)
    return f"{mean:.2f}|{low:.2f} to {high:.2f}"


def test_the_readmes_numbers_are_those_of_the_records(known: Any) -> None:
    def drop(label: str, quantity: str = "drop_at_0.5") -> str:
        return f"{values(known, quantity, label).mean():.2f}"

    def said(label: str, quantity: str, task: str = "all") -> str:
        mean, low, high = intervals.seed_interval(values(known, quantity, label, task))
        return f"{mean:.2f}|{low:.2f} to {high:.2f}"

    exact, norm = "puzzle_exact", "update_norm_at_0.5"
    study = known.seeds.query("quantity == @exact and arm != 'base'")["value"]
    at_half = apart(known, "drop_at_0.5", "rft", "sft-rollout").split("|")
    end, slow = (apart(known, *names).split("|") for names in (
        ("drop_final", "rft", "sft-rollout"), ("drop_at_0.5", "sft-rollout at 6e-05", "rft at 6e-05")
    ))  # fmt: skip
    stale, stream = (apart(known, *names).split("|") for names in (
        ("drop_at_0.5", "rft", "rft-stale"), ("drop_at_0.3", "sft-stream", "rft")
    ))  # fmt: skip
    fresh = apart(known, "drop_at_0.5", "iterative-sft", "self-sft").split("|")
    bare, own = said("rft-no-kl", exact, "puzzle").split("|"), said("rft at 6e-05", "drop_at_0.5").split("|")
    phrases = [
        f"each run solves at least {study.min():.2f} of the held-out boards",
        f"({values(known, norm, 'sft-self', 'puzzle').mean():.1f} and "
        f"{values(known, norm, 'sft-answer', 'puzzle').mean():.1f}) and has lost {drop('sft-self')} against "
        f"{drop('sft-answer')}",
        f"(RFT loses {at_half[0]} more, {at_half[1]})",
        f"ends {end[0]} ({end[1]}) below SFT on its rollouts",
        f"(`sft-voice`) cost {drop('sft-voice')}.",
        f"(`sft-replay`) cost {drop('sft-replay')}, on the tasks",
        f"costs the same, {drop('distill')}.",
        f"(`sft-oracle`) cost no less than any ({drop('sft-oracle')} each)",
        f"costs {drop('rft-stale')}, which is {stale[0]} less than RFT ({stale[1]})",
        f"it has lost {stream[0]} more than RFT ({stream[1]})",
        f"{bare[0]} of the boards are solved ({bare[1]}) and {drop('rft-no-kl', 'drop_final')} is lost in the end",
        f"have lost {drop('rft-no-kl')}. From correct samples",
        f"nearly nothing is learned, and {drop('reinforce-1-0', 'drop_final')} is lost",
        f"does not save the rest ({drop('sft-kl', 'drop_final')} lost in the end)",
        f"Rollouts with LoRA have lost {drop(LORA_ROLLOUT, 'drop_at_0.3')} there",
        f"RFT costs {own[0]} at 0.3 times the study's rate ({own[1]}, with twice the steps), {drop('rft')} at the "
        f"study's and {drop('rft at 0.0006')} at three times",
        f"SFT on rollouts {drop('sft-rollout at 6e-05')}, {drop('sft-rollout')} and {drop('sft-rollout at 0.0006')}, "
        f"and {drop('sft-rollout at 0.002')} at ten times; answer SFT {drop('sft-answer at 6e-05')}, "
        f"{drop('sft-answer')} and {drop('sft-answer at 0.0006')}",
        f"(RFT loses {slow[0]} less, {slow[1]})",
        f"(`iterative-sft`) cost {fresh[0]} more than those of the base (`self-sft`), {fresh[1]}",
    ]
    assert [phrase for phrase in phrases if phrase not in README] == []


def entropy(metrics: pd.DataFrame, arm: str, step: int) -> float:
    """The mean entropy of an arm's runs at a step."""
    runs = metrics[metrics["run"].str.match(rf"{arm}-\d") & (metrics["name"] == "entropy")]
    return float(runs.loc[runs["step"] == step, "value"].mean())


def test_the_readmes_numbers_of_claims_are_those_of_the_table(known: Any) -> None:
    value = pd.read_csv(ROOT / "figures" / "claims.csv").set_index("claim")["value"]
    fits = tables.fits_table(known.results["predictors"].query("at == 'end'")).set_index("predictor")
    r2, corpus = fits["r2"].map("{:.2f}".format), fits.loc["perplexity"]
    both = values(known, "drop_at_0.5", LORA)
    less = (values(known, "drop_at_0.5", "sft-answer") - both).dropna()
    phrases = [
        f"still loses {value['size-not-it']:.2f} more than RFT",
        f"({value['in-region']:.2f} of them, as of the base's own samples)",
        f"(asymmetry {value['symmetry-adamw']:.1f} of at most 2)",
        f"bring back {value['masked']:.2f} of what answer SFT lost",
        f"KL on prior prompts (R² {r2['kl_prior']}) and how far activations on prior prompts drift ({r2['drift']})",
        f"The perplexity of the corpus ({r2['perplexity']}, {corpus['low']:.2f} to {corpus['high']:.2f} over arms)",
        f"KL on the new task ({r2['kl_forward']}) and the size of the update (L1 {r2['l1']}, L2 {r2['l2']})",
        f"the two on bare answers that reach it have lost {less.mean():.2f} less than with all weights",
    ]
    assert [phrase for phrase in phrases if phrase not in README] == [] and len(both) == 2
    ends = known.quantities.query("label in [@LORA, @LORA_ROLLOUT] and quantity == 'puzzle_exact'")["value"]
    assert (ends < 0.5).mean() > 0.5
    without = {"rft-no-kl": known.results.metrics, "rft": known.metrics}
    back = known.results["recovery"].query("samples == 32")["exact"].mean()
    assert f"the puzzle falls to {back:.2f} meanwhile" in README
    said = [f"{entropy(frame, arm, 256):.2f}" for arm, frame in without.items()]
    assert f"at step 256 it is {said[0]}, with the term {said[1]}" in README
    early = curves.gain_and_drop(known.evaluations).query("arm == 'sft-answer' and step == 32")
    assert early["gain"].mean() < 0.05 and value["early"] > 0.85


def drops_on_bases(*sft_then_rft: tuple[float, float]) -> pd.DataFrame:
    """A front of the two direct cells: on each base the drops given, on the reported items, and a worse rate."""
    rows = []
    for base, pair in enumerate(sft_then_rft, 3):
        for cell, drop in zip(told_bases.DIRECT, pair, strict=True):
            rows += [front_run(cell, str(base), rate, d - 0.01) for rate, d in ((1e-5, drop), (1e-4, 0.9))]
    return pd.DataFrame(rows)


def one_base(answer: float) -> pd.DataFrame:
    """The summary's drops at 0.5 on the shipped base."""
    drops = {"sft-answer": answer, "rft": 0.1, "sft-rollout": 0.08, "sft-expert": 0.2}
    rows = [("drop_at_0.5", arm, "all", value, value, value, 5, 440) for arm, value in drops.items()]
    return pd.DataFrame(rows, columns=summary.COLUMNS)


@pytest.mark.parametrize(
    ("pairs", "ends"),
    [
        (
            [(0.2, 0.18), (0.3, 0.28)],
            "lost 0.25 and RFT 0.23 when they solve 0.7 of the boards: nearly all of that gap",
        ),
        ([(0.5, 0.2), (0.6, 0.3)], "lost 0.55 and RFT 0.25 when they solve 0.7 of the boards: a gap of 0.30 remains."),
    ],
)
def test_the_answer_in_three_sentences_is_made_of_the_tables(pairs, ends) -> None:
    first, second, third = told_bases.three_sentences(one_base(0.8), drops_on_bases(*pairs))
    assert "has lost 0.80" in first and "RFT 0.10" in first and "loses 0.08" in second and "sentences 0.20" in second
    assert ends in third and "so far" not in third


def test_the_answer_says_what_is_not_known() -> None:
    empty = pd.DataFrame(columns=summary.COLUMNS)
    assert told_bases.three_sentences(empty, drops_on_bases((0.2, 0.2))) == [
        "The study on one base has no drops to tell of yet."
    ]
    single = told_bases.three_sentences(one_base(0.8), drops_on_bases((0.2, 0.2)))  # no rate is chosen on other bases
    assert single[-1] == "On bases that write bare answers too it is not yet known."
    planned = pd.concat(
        [
            drops_on_bases((0.2, 0.2), (0.2, 0.2)).assign(ran=True),
            drops_on_bases((0.2, 0.2), (0.2, 0.2), (0.2, 0.2)).query("base == '5'").assign(ran=False),
        ]
    )
    assert "(so far 2 of 3 bases, too few for a verdict)" in told_bases.three_sentences(one_base(0.8), planned)[-1]
