"""Claims: the verdict follows from interval, threshold and seeds, and from nothing else."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from rows import evaluation
from swapping import swap

from helpers.errors import UserError
from helpers.measure.analyses import ANALYSES, RUN_COLUMNS, Tables
from helpers.model import evaluate
from helpers.verdicts import claims, statistics
from helpers.verdicts.claims import Claim
from helpers.verdicts.statistics import Estimate, Evidence
from helpers.world import battery

CLAIMS = claims.all_claims()
PRIMARY, EXPLORATORY = (claims.all_claims(family) for family in ("primary", "exploratory"))
HALF = "drop_at_0.5"
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


ARGUMENTS = {"formula": "value", "quantity": "steps", "labels": ["rft"]}
FIELDS = {"id": "name", "source": "paper", "statement": "says", "measured": "meaning", "statistic": "of_runs",
          "arguments": ARGUMENTS, "direction": ">", "threshold": 0.5, "units": "none", "notebook": "05",
          "figure": "x"}  # fmt: skip


def claim(direction: str = ">", threshold: float = 0.5, **fields: object) -> Claim:
    return Claim(**FIELDS | {"direction": direction, "threshold": threshold} | fields)


def tables(**results: pd.DataFrame) -> Tables:
    empty = pd.DataFrame(columns=list(RUN_COLUMNS))
    return Tables(empty, pd.DataFrame(), pd.DataFrame(), {name: results.get(name, empty) for name in ANALYSES})


def evidence(rows: list[tuple[str, str, int, float]] = (), **results: pd.DataFrame) -> Evidence:
    """Evidence from (quantity, label, seed, value); controls have a label with another group."""
    frame = pd.DataFrame(rows, columns=["quantity", "label", "seed", "value"])
    frame["arm"] = [label.split(" at ")[0].split(",")[0] for label in frame["label"]]
    frame["group"] = ["sft-rates" if " at " in label else "study" for label in frame["label"]]
    return Evidence(frame.assign(task="all"), pd.DataFrame(), tables(**results))


# --- verdicts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "low", "high", "seeds", "expected"),
    [
        (">", 0.6, 0.9, 5, "holds"), (">", 0.1, 0.4, 5, "fails"), (">", 0.4, 0.6, 5, "undecided"),
        ("<", 0.6, 0.9, 5, "fails"), ("<", 0.1, 0.4, 5, "holds"), ("<", 0.5, 0.6, 5, "undecided"),
        (">", 0.6, 0.9, 4, "undecided"), (">", math.nan, 0.9, 9, "undecided"), ("<", -math.inf, 0.1, 9, "undecided"),
    ],
)  # fmt: skip
def test_the_verdict_table(direction: str, low: float, high: float, seeds: int, expected: str) -> None:
    found, reason = claims.decide(claim(direction), Estimate(0.5, low, high, seeds))
    assert found == expected and bool(reason) == (expected == "undecided")


def test_what_was_not_run_is_undecided() -> None:
    assert claims.decide(claim(), None) == ("undecided", claims.NO_VALUE)
    assert claims.decide(claim(), Estimate(1, 1, 1, 1)) == ("undecided", "1 seed of at least 5")


@given(st.floats(-2, 2), st.floats(0, 1), st.floats(-2, 2), st.integers(1, 9))
def test_turning_a_claim_round_turns_its_verdict_round(value: float, half: float, threshold: float, seeds: int) -> None:
    found = Estimate(value, value - half, value + half, seeds)
    pair = {claims.decide(claim(direction, threshold), found)[0] for direction in "<>"}
    assert pair in ({"holds", "fails"}, {"undecided"})


def test_the_t_interval_over_five_seeds_by_hand() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    found = statistics.over_seeds(dict(enumerate(values)))
    half = 2.776445 * math.sqrt(0.025 / 5)  # t quantile of 4 degrees of freedom, variance 0.025
    assert (found.value, found.low, found.high, found.seeds) == pytest.approx((0.3, 0.3 - half, 0.3 + half, 5))
    assert statistics.over_seeds({0: math.nan}) is None and statistics.over_seeds({}) is None
    assert statistics.over_seeds({0: math.nan, 1: 2.0}) == Estimate(2.0, 2.0, 2.0, 1)


def written(**fields: object) -> str:
    """A claim as it stands in a TOML file."""
    values = FIELDS | {"threshold": 0.0} | fields
    table = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.pop("arguments").items())
    lines = [f"{n} = {v if isinstance(v, float) else json.dumps(v)}" for n, v in values.items()]
    return "\n".join(["[[claim]]", *lines, f"arguments = {{ {table} }}"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"direction": "="}, "name is no claim: direction"), ({"threshold": math.nan}, "threshold"),
        ({"threshold": math.inf}, "threshold"), ({"statistic": "magic"}, "there is no statistic magic"),
        ({"arguments": {"formula": "value", "quantity": "steps"}}, "of_runs: missing a required argument: 'labels'"),
        ({"arguments": ARGUMENTS | {"arm": "rft"}}, "unexpected keyword argument 'arm'"),
        ({"arguments": ARGUMENTS | {"formula": "magic"}}, "no formula magic"),
        ({"thresold": 0.1}, "thresold"),
    ],
)  # fmt: skip
def test_a_claim_that_decides_nothing_is_refused(fields: dict[str, object], said: str) -> None:
    assert claims.read_claims(written()) == (claim(threshold=0.0),)
    with pytest.raises(UserError, match=said):
        claims.read_claims(written(**fields))


CELLS = {"statistic": "difference_of_cells", "arguments": {"first": "a", "second": "b"}, "test": "superiority",
         "rule": "undecided"}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"test": "superiority"}, "needs a test and a rule"), ({"rule": "undecided"}, "needs a test and a rule"),
        ({"family": "primary"}, "needs a test and a rule"), (CELLS | {"test": ""}, "needs a test and a rule"),
        (CELLS | {"rule": ""}, "needs a test and a rule"), (CELLS | {"rule": "as one likes"}, "rule"),
        (CELLS | {"family": "secondary"}, "family"), (CELLS | {"test": "equivalence"}, "the direction"),
        (CELLS | {"test": "equivalence", "direction": "<", "threshold": 0.0}, "0 is too small"),
        (CELLS | {"statistic": "cost_ratio", "threshold": 0.0}, "0 is too small"),
        (CELLS | {"statistic": "cost_ratio", "test": "equivalence", "direction": "<", "threshold": 1.0}, "1 is too"),
    ],
)  # fmt: skip
def test_a_test_belongs_to_a_claim_on_bases_and_to_no_other(fields: dict[str, object], said: str) -> None:
    assert claims.read_claims(written(**CELLS, family="primary"))[0].test == "superiority"
    with pytest.raises(UserError, match=said):
        claims.read_claims(written(**fields))


# --- statistics -------------------------------------------------------------------------------------------


def test_only_seeds_that_have_all_parts_count() -> None:
    rows = [("drop_at_0.5", "sft-answer", s, 0.5) for s in (0, 1, 2)] + [
        ("drop_at_0.5", "rft", s, 0.1) for s in (1, 2, 3)
    ]
    found = statistics.of_runs(evidence(rows), "difference", HALF, ["sft-answer", "rft"])
    assert (found.value, found.seeds) == pytest.approx((0.4, 2))
    assert statistics.of_runs(evidence(rows), "difference", HALF, ["sft-answer", "sft-kl"]) is None
    assert statistics.of_runs(evidence(rows), "value", HALF, ["rft"]).seeds == 3


def test_a_ratio_to_nothing_is_left_out() -> None:
    rows = [("samples_to_0.5", "rft", s, v) for s, v in enumerate((300.0, 400.0))]
    rows += [("samples_to_0.5", "sft-answer", s, v) for s, v in enumerate((100.0, 0.0))]
    ratio = statistics.of_runs(evidence(rows), "ratio", "samples_to_0.5", ["rft", "sft-answer"])
    assert ratio == Estimate(3.0, 3.0, 3.0, 1, ran=2)


def test_the_formulas_by_hand() -> None:
    story, nearer = (statistics.FORMULAS[name] for name in ("data_over_algorithm", "nearer"))
    assert story(answer=0.5, rollout=0.2, rft=0.1) == pytest.approx(0.3 - 0.1)
    assert story(answer=0.5, rollout=0.4, rft=0.1) < 0  # another loss changes more
    assert nearer(answer=0.5, rollout=0.2, rft=0.1) == pytest.approx(0.1)
    assert nearer(answer=0.5, rollout=0.4, rft=0.1) < 0
    assert statistics.FORMULAS["least_over_last"](6.0, 4.0, 2.0) == 2.0
    falling = statistics.FORMULAS["least_step"]
    assert falling(6.0, 3.0, 2.0) == 1.5 and falling(2.0, 3.0, 1.0) < 1 and math.isnan(falling(2.0, 0.0))


def test_ranks_agree_over_arms_at_interpolated_drops() -> None:
    arms = {"sft-answer": (90.0, 0.8), "sft-expert": (5.0, 0.1), "sft-rollout": (1.0, 0.2), "sft-self": (2.0, 0.3)}
    arms |= {"sft-stream": (0.5, 0.9), "rft": (999.0, 0.0)}  # too few seeds; not SFT
    rows, drops = [], []
    for arm, (perplexity, drop) in arms.items():
        for seed in range(2 if arm == "sft-stream" else 5):
            where = {"group": "study", "label": arm, "arm": arm, "seed": seed, "lbk": None}
            rows += [where | {"at": at, "perplexity": perplexity + seed / 10, "drop": 9.0} for at in ("0.5", "end")]
            drops.append((HALF, arm, seed, drop))
    swept = rows[0] | {"group": "sft-rates", "label": "sft-answer at 1", "perplexity": 0.1}
    given_ = evidence(drops, predictors=pd.DataFrame([*rows, swept]))
    found = statistics.rank_agreement(given_, "perplexity", HALF)
    # ranks of perplexity: 4 3 1 2, of the drop: 4 1 2 3; 1 - 6 (0 + 4 + 1 + 1) / (4 (16 - 1))
    assert (found.value, found.seeds) == pytest.approx((0.4, 5)) and found.low < 0.4 < found.high == pytest.approx(1.0)
    assert (
        statistics.rank_agreement(given_, "lbk", HALF) is None
        and statistics.rank_agreement(evidence(), "lbk", HALF) is None
    )


def test_runs_that_never_get_there_are_told_from_runs_that_are_missing() -> None:
    rows = [("drop_final", "sft-kl", s, 0.5) for s in range(3)] + [("drop_at_0.5", "rft", s, 0.1) for s in range(5)]
    made = claim(arguments={"formula": "value", "quantity": HALF, "labels": ["sft-kl"]})
    found = claims.table(evidence(rows), [made]).iloc[0]
    assert found["reason"] == "reached by none of 3 seeds that were run; 0 seeds of at least 5"
    assert found["verdict"] == "undecided" and found["seeds"] == 0 and math.isnan(found["value"])
    rows.append(("drop_at_0.5", "sft-kl", 1, 0.5))
    found = claims.table(evidence(rows), [made]).iloc[0]
    assert found["reason"] == "reached by 1 of 3 seeds that were run; 1 seed of at least 5"


def test_what_is_lost_is_a_share_of_what_can_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, battery, "battery_tasks", lambda: ("a", "b"))
    swap(monkeypatch, evaluate, "likelihood_chance", {"a": 0.25, "b": 0.75}.get)
    rows = [("prior_score", "base", 0, 0.8), ("prior_score_likelihood", "base", 0, 0.9)]
    assert statistics.knowledge_share(evidence(rows), HALF, "sft-answer", 0.05) is None
    rows += [(HALF, "sft-answer", s, drop) for s, drop in enumerate((0.4, 0.04))]
    rows += [(f"{HALF}_likelihood", "sft-answer", s, 0.1) for s in range(2)]
    found = statistics.knowledge_share(evidence(rows), HALF, "sft-answer", 0.05)
    # (0.1 / (0.9 - 0.5)) / (0.4 / 0.8); seed 1 lost nothing
    assert (found.value, found.seeds, found.ran) == pytest.approx((0.5, 1, 2))
    assert statistics.knowledge_share(evidence(rows[2:]), HALF, "sft-answer", 0.05) is None


def test_explained_and_better_come_with_bootstrap_intervals() -> None:
    rng, n = np.random.default_rng(1), 20
    drop = rng.uniform(0, 0.5, n)
    frame = pd.DataFrame({"at": "end", "arm": ["a", "b"] * 10, "seed": list(range(5)) * 4, "drop": drop,
                          "kl_prior": np.exp(4 * drop), "kl_forward": np.exp(rng.standard_normal(n))})  # fmt: skip
    given_ = evidence(predictors=frame)
    assert statistics.explained(given_, "kl_prior") == Estimate(*[pytest.approx(1.0)] * 3, 5)
    apart = statistics.better(given_, "kl_prior", "kl_forward")
    assert apart.low > 0.3 and claims.decide(claim(">", 0.0), apart) == ("holds", "")
    assert statistics.explained(evidence(), "kl_prior") is None


def test_norm_matched_rate_gap_unchanged_and_regained_by_hand() -> None:
    matched = pd.DataFrame([
        {"arm": a, "seed": s, "norm_of": n, "score": v, "base_score": 0.9}
        for s in (0, 1)
        for a, n, v in (("rft", "rft", 0.8), ("sft-answer", "rft", 0.3), ("sft-answer", "sft-answer", 0.1))
    ])  # fmt: skip
    assert statistics.matched_excess(evidence(matched=matched), "sft-answer", "rft").value == pytest.approx(0.5)
    assert statistics.matched_excess(evidence(matched=matched[matched["arm"] != "rft"]), "sft-answer", "rft") is None
    drops = {"sft-answer": 0.6, "sft-answer at 2e-05": 0.4, "sft-rollout": 0.1, "sft-rollout at 2e-05": 0.2}
    rows = [("drop_at_0.5", label, 0, value) for label, value in drops.items()]
    assert statistics.rate_gap(evidence(rows), HALF, "sft-answer", "sft-rollout") == Estimate(
        *[pytest.approx(0.2)] * 3, 1
    )
    assert statistics.rate_gap(evidence(rows[:3]), HALF, "sft-answer", "sft-rollout") is None
    weights = pd.DataFrame({"part": ["all", "text 1"], "label": "rft", "seed": 0, "same_bf16": [0.25, 0.9]})
    assert statistics.of_table(evidence(weights=weights), "value", "weights", "same_bf16", ["rft"]).value == 0.25
    recovery = pd.DataFrame([
        {"label": "sft-answer", "half": h, "seed": s, "samples": n, "score": v, "base_score": 0.9}
        for s, after in ((0, 0.7), (1, 0.3)) for h in ("shown", "unshown")
        for n, v in ((0, 0.3), (32, after if h == "unshown" else 0.9))
    ])  # fmt: skip
    found = statistics.regained(evidence(recovery=recovery), "sft-answer", 32, 0.05)
    assert (found.value, found.low, found.high) == pytest.approx((1 / 3, 0.0, 2 / 3))


def theory_rows(better: int) -> pd.DataFrame:
    """What `theory.py` might find: as the paper has it (1), or the other way round (-1)."""
    rank = {"sft-answer": 3.0, "sft-expert": 2.0, "sft-self": 1.6, "sft-rollout": 1.5, "rft": 1.2}
    rows = []
    for label, place in rank.items():
        worse, far = place**better, 0.01 if better > 0 else 1.9
        spread = {"asymmetry_sgd": far, "asymmetry_adamw": far, "kernel_change": far, "kernel_late": far}
        found = {"perplexity": worse, "lbk": worse, "gold_shift": -worse, "influence_sgd": -worse,
                 "influence_adamw": -worse, "region": 0.9 if better > 0 else 0.1}  # fmt: skip
        rows += [{"label": label, "seed": seed} | spread | found for seed in range(5)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("better", "expected"), [(1, "holds"), (-1, "fails")])
def test_the_theory_s_claims_follow_what_was_measured(better: int, expected: str) -> None:
    made = [c for c in CLAIMS if c.notebook in ("06", "07")]
    noise = 1 + np.random.default_rng(0).normal(0, 0.001, 25)
    found = theory_rows(better)
    numbers = found.columns.difference(["label", "seed"])
    given_ = evidence(theory=found.assign(**{name: found[name] * noise for name in numbers}))
    rows = claims.table(given_, made)
    assert dict(zip(rows["claim"], rows["verdict"], strict=True)) == {c.id: expected for c in made}
    some = claims.table(evidence(theory=found[found["label"] != "sft-expert"]), made).set_index("claim")["verdict"]
    assert some["lbk-order"] == "undecided" and some["direction"] == expected


def test_a_seed_counts_where_all_its_arms_were_measured() -> None:
    found = theory_rows(1)
    found.loc[(found["label"] == "sft-answer") & (found["seed"] == 3), "lbk"] = math.nan
    both = statistics.of_table(evidence(theory=found), "mean", "theory", "lbk", ["sft-answer", "rft"])
    assert both == Estimate(2.1, 2.1, 2.1, 4)
    assert statistics.of_table(evidence(theory=found), "value", "theory", "nothing", ["rft"]) is None
    assert statistics.of_table(evidence(theory=found), "mean", "theory", "lbk", ["rft", "no-arm"]) is None


def test_the_early_share_is_read_from_the_evaluations() -> None:
    rows = [
        evaluation(f"{arm}-0", step, task, measure, value)
        for arm, path in (("base", ((0, 0.9),)), ("sft-answer", ((0, 0.9), (32, 0.6), (64, 0.5))))
        for step, value in path
        for task, measure in (("puzzle", "exact"), ("colour", "score"))
    ]
    given_ = Evidence(evidence().quantities, pd.DataFrame(rows), tables())
    assert statistics.early_share(given_, "sft-answer", 32, 0.05).value == pytest.approx(0.75)
    assert statistics.early_share(given_, "sft-answer", 16, 0.05) is None


# --- the table --------------------------------------------------------------------------------------------


def test_there_are_enough_claims_the_papers_main_four_first() -> None:
    assert len(CLAIMS) >= 15 and len({c.id for c in CLAIMS}) == len(CLAIMS)
    assert {c.source for c in CLAIMS[:4]} == {"paper"}
    assert [c.id for c in CLAIMS[:4]] == ["answer-forgets", "rft-keeps", "rollouts-keep", "data-not-algorithm"]


@pytest.mark.parametrize("made", [*CLAIMS, *PRIMARY, *EXPLORATORY], ids=lambda c: c.id)
def test_every_claim_points_at_a_figure_of_its_notebook(made: Claim) -> None:
    (path,) = NOTEBOOKS.glob(f"{made.notebook}_*.ipynb")
    assert re.search(rf'\\"{made.figure}\\"', path.read_text(encoding="utf-8")), f"{path.name} draws no {made.figure}"


def test_every_claim_is_undecided_where_nothing_was_run() -> None:
    given_ = Evidence(evidence().quantities, empty_evaluations(), tables())
    found = claims.table(given_)
    assert list(found.columns) == list(claims.COLUMNS) and len(found) == len(CLAIMS)
    assert set(found["verdict"]) == {"undecided"} and set(found["reason"]) == {claims.NO_VALUE}
    assert found["value"].isna().all() and (found["seeds"] == 0).all()
    assert claims.count_sentence(found).startswith(f"Of {len(CLAIMS)} claims 0 hold, 0 fail and {len(CLAIMS)} are")


def empty_evaluations() -> pd.DataFrame:
    """Evaluations of an untrained base: no arm has a row."""
    marks = (("puzzle", "exact", 0.0), ("colour", "score", 0.9))
    return pd.DataFrame([evaluation("base-0", 0, *mark) for mark in marks])


def test_every_claim_is_a_whole_line_of_a_table_that_markdown_reads() -> None:
    lines = claims.markdown(claims.table(Evidence(evidence().quantities, empty_evaluations(), tables()))).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9} and len(lines) == len(CLAIMS) + 2
    html = markdown2html_mistune("\n".join(lines))
    assert html.count("<tr>") == len(CLAIMS) + 1 and "KL(base || run)" in html


def test_a_table_line_by_line() -> None:
    known = [("steps", "rft", seed, value) for seed, value in enumerate((0.65, 0.7, 0.75, 0.8, 0.85))]
    known.append(("steps", "sft-kl", 0, 1.0))
    labels = [(">", 0.5, "rft"), ("<", 0.0, "sft-kl"), (">", 0.5, "sft-dft")]
    made = [claim(way, limit, arguments=ARGUMENTS | {"labels": [name]}) for way, limit, name in labels]
    rows = claims.table(evidence(known), made)
    assert rows["verdict"].tolist() == ["holds", "undecided", "undecided"]
    lines = claims.markdown(rows).splitlines()
    assert len(lines) == 5 and all(line.count("|") == lines[0].count("|") for line in lines)
    assert lines[2] == "| 1 | says | paper | meaning > 0.5 | 0.75 (0.65 to 0.85) | 5 | **holds** | 05, `x` |"
    assert lines[3].endswith("| 1.00 | 1 | undecided: 1 seed of at least 5 | 05, `x` |")
    assert lines[4].endswith("| – | 0 | undecided: not run | 05, `x` |")
    assert claims.count_sentence(rows) == (
        "Of 3 claims 1 hold, 0 fail and 2 are undecided: 0 have an interval across the threshold, "
        "1 have values of fewer than 5 seeds (0 because runs never reached the accuracy) and 1 were not run."
    )
