"""The table of claims: what the paper, its relatives and this suite say, each with a test fixed beforehand.

A claim names a statistic, a threshold and a direction. The statistic has one value per seed (95% t interval), or comes
with a bootstrap interval over arms. The claim **holds** where the whole interval lies on its side of the threshold and
**fails** where it lies on the other; it is **undecided** where the interval straddles the threshold, where there are
fewer than five seeds, or where the runs are missing. Nothing here looks at a verdict before computing it, and a claim
that fails stays in the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from helpers.errors import UserError
from helpers.measure.analyses import Tables
from helpers.measure.predictors import advantage
from helpers.model import evaluate
from helpers.stats.curves import gain_and_drop
from helpers.stats.fits import fit, rank_correlation
from helpers.stats.intervals import seed_interval
from helpers.study.arms import SFT_ARMS
from helpers.world import battery

LEAST_SEEDS = 5


NO_VALUE = "not run"


BAR = "\\|"  # a bar that does not end a cell in Markdown


FORGETS, KEEPS = 0.10, 0.05  # a drop above the one is forgetting, a drop (or a difference) below the other is none


HALF = "drop_at_0.5"


COLUMNS = (
    "claim", "source", "statement", "statistic", "direction", "threshold", "value", "low", "high", "seeds", "verdict",
    "reason", "notebook", "figure",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What claims are computed from.

    `quantities` as from `controls.quantities`; `evaluations`: the study's; `tables`: the controls' and their results.
    """

    quantities: pd.DataFrame = field(repr=False)
    evaluations: pd.DataFrame = field(repr=False)
    tables: Tables = field(repr=False)


@dataclass(frozen=True)
class Finding:
    """A statistic: its value with a 95% interval, and the number of seeds behind it.

    `ran`: seeds that were run, where more were than have a value (an accuracy that a run never reaches).
    """

    value: float
    low: float
    high: float
    seeds: int
    ran: int = 0


Statistic = Callable[[Evidence], Finding | None]


@dataclass(frozen=True)
class Claim:
    """A statement with the statistic that decides it. `direction`: ">" or "<", the side on which it is true."""

    name: str
    source: str
    statement: str
    meaning: str
    statistic: Statistic = field(repr=False)
    direction: str
    threshold: float
    notebook: str
    figure: str

    def __post_init__(self) -> None:
        """Refuse a direction or threshold that decides nothing."""
        if self.direction not in ("<", ">") or not math.isfinite(self.threshold):
            raise UserError(f"Claim {self.name} needs a direction, < or >, and a finite threshold.")


def verdict(claim: Claim, found: Finding | None) -> tuple[str, str]:
    """(verdict, reason) of a claim: holds, fails or undecided."""
    if found is None:
        return "undecided", NO_VALUE
    if found.seeds < LEAST_SEEDS:
        reached = f"reached by {found.seeds or 'none'} of {found.ran} seeds that were run; " * (found.ran > found.seeds)
        return "undecided", f"{reached}{found.seeds} seed{'s' * (found.seeds != 1)} of at least {LEAST_SEEDS}"
    if not all(map(math.isfinite, (found.low, found.high))) or found.low <= claim.threshold <= found.high:
        return "undecided", "the interval straddles the threshold"
    above = found.low > claim.threshold
    return ("holds" if above == (claim.direction == ">") else "fails"), ""


def over_seeds(values: Mapping[int, float]) -> Finding | None:
    """A finding from one value per seed: mean and 95% t interval (the range, below three seeds); None without any."""
    finite = [value for value in values.values() if math.isfinite(value)]
    return Finding(*seed_interval(finite), len(finite)) if finite else None


def over_shared(function: Callable[..., float], values: Sequence[Mapping[int, float]]) -> Finding | None:
    """A finding from a function of several values per seed, over the seeds that have them all."""
    shared = set.intersection(*map(set, values))
    return over_seeds({seed: function(*(v[seed] for v in values)) for seed in sorted(shared)})


def by_seed(evidence: Evidence, quantity: str, label: str) -> dict[int, float]:
    """One quantity of an arm or control, over all prior tasks (or of the puzzle), by seed."""
    rows = evidence.quantities
    rows = rows[(rows["quantity"] == quantity) & (rows["label"] == label) & rows["task"].isin(["all", "puzzle"])]
    return dict(zip(rows["seed"].astype(int), rows["value"].astype(float), strict=True))


def level(quantity: str, label: str) -> Statistic:
    """A quantity of one arm."""
    return combined(lambda value: value, (quantity, label))


def combined(function: Callable[..., float], *parts: tuple[str, str]) -> Statistic:
    """A function of several (quantity, label) values, seed by seed, over the seeds that have them all."""

    def statistic(evidence: Evidence) -> Finding | None:
        """None where no seed was run with all of them."""
        found, rows = over_shared(function, [by_seed(evidence, *part) for part in parts]), evidence.quantities
        ran = len(set.intersection(*(set(rows.loc[rows["label"] == label, "seed"]) for _, label in parts)))
        return replace(found or Finding(math.nan, math.nan, math.nan, 0), ran=ran) if ran else None

    return statistic


def difference(first: str, second: str, quantity: str = HALF) -> Statistic:
    """One arm's value minus another's."""
    return combined(lambda a, b: a - b, (quantity, first), (quantity, second))


def ratio(first: str, second: str, quantity: str) -> Statistic:
    """One arm's value over another's; NaN where the other's is 0."""
    return combined(lambda a, b: a / b if b else math.nan, (quantity, first), (quantity, second))


def data_over_algorithm(answer: float, rollout: float, rft: float) -> float:
    """What another corpus changes under one loss, less what another loss changes on one corpus."""
    return (answer - rollout) - abs(rollout - rft)


def nearer(answer: float, rollout: float, rft: float) -> float:
    """How much nearer `rollout` lies to `rft` than to `answer`: the middle of the two minus it."""
    return (answer + rft) / 2 - rollout


def _predictors(evidence: Evidence, at: str) -> pd.DataFrame:
    rows = evidence.tables["predictors"]
    return rows[rows["at"].astype(str) == at] if len(rows) else rows


def rank_agreement(predictor: str) -> Statistic:
    """Spearman's correlation over SFT arms of a predictor's and the drop's means, with a bootstrap interval over arms.

    The drop is the one at exact match 0.5 (interpolated). Arms, not seeds, are what is counted: seeds of one arm say
    nothing new about what sets arms apart. Arms count that reach 0.5 with `LEAST_SEEDS` seeds, at the study's rate.
    """

    def statistic(evidence: Evidence) -> Finding | None:
        """Over arms that have both values; None below four."""
        rows = _predictors(evidence, "0.5")
        if rows.empty:
            return None
        rows = rows[rows["arm"].isin(SFT_ARMS) & ~rows["group"].isin(["sft-rates", "lora"]) & rows[predictor].notna()]
        drops = {label: by_seed(evidence, HALF, label) for label in rows["label"].unique()}
        rows = rows.assign(drop=[drops[row.label].get(row.seed, math.nan) for row in rows.itertuples()]).dropna(
            subset="drop"
        )
        groups = rows.groupby("label")
        means = groups[[predictor, "drop"]].mean()[groups["seed"].nunique() >= LEAST_SEEDS]
        found = rank_correlation(means[predictor], means["drop"])
        return Finding(*found, int(groups["seed"].nunique().loc[means.index].min())) if found else None

    return statistic


def explained(predictor: str) -> Statistic:
    """R^2 of the final drop on a predictor's logarithm, over all runs, with its bootstrap interval."""

    def statistic(evidence: Evidence) -> Finding | None:
        rows = _predictors(evidence, "end")
        found = fit(rows, predictor) if len(rows) else None
        return Finding(*found.r2, rows["seed"].nunique()) if found else None

    return statistic


def better(first: str, second: str) -> Statistic:
    """R^2 of one predictor minus that of another, over the same runs."""

    def statistic(evidence: Evidence) -> Finding | None:
        rows = _predictors(evidence, "end")
        found = advantage(rows, first, second) if len(rows) else None
        return Finding(*found, rows["seed"].nunique()) if found else None

    return statistic


def matched_excess(evidence: Evidence) -> Finding | None:
    """Drop of answer SFT's update at the length of RFT's, minus RFT's own drop, seed by seed."""
    rows = evidence.tables["matched"]
    if rows.empty:
        return None
    rows = rows[rows["norm_of"] == "rft"].assign(drop=rows["base_score"] - rows["score"])
    drops = {arm: part.set_index("seed")["drop"] for arm, part in rows.groupby("arm")}
    if not {"rft", "sft-answer"} <= drops.keys():
        return None
    apart = (drops["sft-answer"] - drops["rft"]).dropna()
    return over_seeds(dict(zip(apart.index, apart, strict=True)))


def rate_gap(evidence: Evidence) -> Finding | None:
    """Smallest drop of answer SFT over all rates minus the largest of SFT on rollouts, at exact match 0.5, by seed.

    Only seeds with at least two rates of both arms that get there.
    """
    rows = evidence.quantities
    rows = rows[(rows["quantity"] == HALF) & (rows["task"] == "all") & rows["group"].isin(["study", "sft-rates"])]
    found = {}
    for seed, part in rows.groupby("seed"):
        answer, rollout = (part.loc[part["arm"] == arm, "value"] for arm in ("sft-answer", "sft-rollout"))
        if min(len(answer), len(rollout)) >= 2:
            found[int(seed)] = float(answer.min() - rollout.max())
    return over_seeds(found)


def knowledge_share(arm: str) -> Statistic:
    """Drop by likelihood over drop by score at exact match 0.5, each divided by the base's distance from chance.

    By likelihood a guesser still finds 1 / candidates, by generation it finds nothing; so the two drops have different
    ranges. Seeds that lose no more than `KEEPS` are left out.
    """

    def statistic(evidence: Evidence) -> Finding | None:
        """Seed by seed; None without a base."""
        base = [[*by_seed(evidence, q, "base").values()] for q in ("prior_score_likelihood", "prior_score")]
        if not all(base):
            return None
        tasks = battery.battery_tasks()
        chance = sum(map(evaluate.likelihood_chance, tasks)) / len(tasks)
        room = (base[0][0] - chance) / base[1][0]
        share = combined(lambda a, b: a / b / room if b > KEEPS else math.nan, (f"{HALF}_likelihood", arm), (HALF, arm))
        return share(evidence)

    return statistic


def unchanged(arm: str, column: str) -> Statistic:
    """Share of an arm's weights that equal the base's in a number format."""

    def statistic(evidence: Evidence) -> Finding | None:
        rows = evidence.tables["weights"]
        if rows.empty:
            return None
        rows = rows[(rows["part"] == "all") & (rows["label"] == arm)]
        return over_seeds(dict(zip(rows["seed"], rows[column], strict=True)))

    return statistic


def measured(column: str, *labels: str) -> Statistic:
    """Mean over arms of what `theory.py` measured of their runs, seed by seed, over the seeds that have all of them."""
    return of_measured(lambda *values: math.fsum(values) / len(values), column, *labels)


def of_measured(function: Callable[..., float], column: str, *labels: str) -> Statistic:
    """A function of what `theory.py` measured of several arms' runs, seed by seed."""

    def statistic(evidence: Evidence) -> Finding | None:
        """None where no seed has all of the arms."""
        rows = evidence.tables["theory"]
        if column not in rows:
            return None
        known = rows.dropna(subset=column)
        parts = [known[known["label"] == label] for label in labels]
        return over_shared(function, [dict(zip(part["seed"], part[column], strict=True)) for part in parts])

    return statistic


def falling(*values: float) -> float:
    """The least ratio of a value to the next one: above 1 where each is larger than the one behind it."""
    return min(a / b if b else math.nan for a, b in zip(values, values[1:], strict=False))


def early_share(arm: str, step: int) -> Statistic:
    """Share of an arm's final drop that is there at a step; seeds without a final drop above `KEEPS` are left out."""

    def statistic(evidence: Evidence) -> Finding | None:
        """None where no seed has that step."""
        rows = gain_and_drop(evidence.evaluations)
        found = {}
        for seed, part in rows[rows["arm"] == arm].groupby("seed"):
            drops = part.set_index("step")["drop"]
            if step in drops.index and drops.iloc[-1] > KEEPS:
                found[int(seed)] = float(drops[step] / drops.iloc[-1])
        return over_seeds(found)

    return statistic


def regained(arm: str, samples: int) -> Statistic:
    """Share of the loss on never-shown prior tasks that `samples` samples of other tasks bring back, seed by seed."""

    def statistic(evidence: Evidence) -> Finding | None:
        """None where nothing was taught again."""
        rows = evidence.tables["recovery"]
        if rows.empty:
            return None
        rows = rows[(rows["label"] == arm) & (rows["half"] == "unshown")]
        found = {}
        for seed, part in rows.groupby("seed"):
            scores, base = part.set_index("samples")["score"], float(part["base_score"].iloc[0])
            if {0, samples} <= set(scores.index) and base - scores[0] > KEEPS:
                found[int(seed)] = float((scores[samples] - scores[0]) / (base - scores[0]))
        return over_seeds(found)

    return statistic


_AT = "at puzzle exact match 0.5"


_THREE = ((HALF, "sft-answer"), (HALF, "sft-rollout"), (HALF, "rft"))


PAPER, RAZOR, DOING = "paper", "RL's Razor, arXiv 2509.04259", "Retaining by Doing, arXiv 2510.18874"


SUBNETWORKS, SPURIOUS, SUITE = "Small Subnetworks, arXiv 2505.11711", "Spurious Forgetting, arXiv 2501.13453", "suite"


def _main_claims() -> list[Claim]:
    """The paper's four main claims."""
    return [
        Claim("answer-forgets", PAPER, "SFT on bare answers forgets much of what the base knew",
              f"drop of sft-answer {_AT}", level(HALF, "sft-answer"), ">", FORGETS, "05", "gain_drop"),
        Claim("rft-keeps", PAPER, "RFT learns the same task and keeps what the base knew",
              f"drop of rft {_AT}", level(HALF, "rft"), "<", KEEPS, "05", "gain_drop"),
        Claim("rollouts-keep", PAPER, "SFT on RFT's correct rollouts keeps nearly as much as RFT",
              f"how much nearer sft-rollout's drop is to rft's than to sft-answer's {_AT}",
              combined(nearer, *_THREE), ">", 0.0, "08", "rollout_gain_drop"),
        Claim("data-not-algorithm", PAPER, "The data, not the algorithm, decide how much is forgotten",
              f"(sft-answer - sft-rollout) - |sft-rollout - rft|, drops {_AT}",
              combined(data_over_algorithm, *_THREE), ">", 0.0, "09", "controls_at_equal"),
    ]  # fmt: skip


def _paper_claims() -> list[Claim]:
    """What else the paper says."""
    boards = "samples_to_0.5"
    return [
        Claim("rft-slower", PAPER, "RFT needs more boards than SFT on bare answers",
              "boards to exact match 0.5, rft over sft-answer", ratio("rft", "sft-answer", boards), ">", 1.0, "05",
              "learning_samples"),
        Claim("rollouts-fast", PAPER, "SFT on RFT's rollouts needs fewer boards than RFT",
              "boards to exact match 0.5, sft-rollout over rft", ratio("sft-rollout", "rft", boards), "<", 1.0, "08",
              "rollout_learning"),
        Claim("order-rft-rollout", PAPER, "RFT keeps more than SFT on its rollouts",
              f"drop of sft-rollout - rft {_AT}", difference("sft-rollout", "rft"), ">", 0.0, "05", "gain_drop"),
        Claim("order-rollout-expert", PAPER, "SFT on rollouts keeps more than SFT on a teacher's reasoning",
              f"drop of sft-expert - sft-rollout {_AT}", difference("sft-expert", "sft-rollout"), ">", 0.0, "05",
              "gain_drop"),
        Claim("order-expert-answer", PAPER, "SFT on a teacher's reasoning keeps more than SFT on bare answers",
              f"drop of sft-answer - sft-expert {_AT}", difference("sft-answer", "sft-expert"), ">", 0.0, "05",
              "gain_drop"),
        Claim("short-rft-enough", PAPER, "Thinks of a barely trained RFT model keep as much as RFT",
              f"drop of sft-self - rft {_AT}", difference("sft-self", "rft"), "<", KEEPS, "08", "rollout_gain_drop"),
        Claim("perplexity-ranks", PAPER, "Corpora that the base finds improbable cost more",
              f"rank correlation of perplexity and drop {_AT}, SFT arms and controls", rank_agreement("perplexity"),
              ">", 0.5, "09", "predictor_panels"),
        Claim("lbk-ranks", PAPER, "Corpora with a larger LBK cost more",
              f"rank correlation of the first LBK and drop {_AT}, SFT arms and controls", rank_agreement("lbk"),
              ">", 0.5, "09", "predictor_panels"),
        Claim("rate-not-it", SUITE, "No learning rate lets answer SFT keep what SFT on rollouts keeps",
              f"least drop of sft-answer - largest of sft-rollout over rates, {_AT}", rate_gap, ">", 0.0, "09",
              "rate_fronts"),
    ]  # fmt: skip


def _theory_claims() -> list[Claim]:
    """What the paper's explanation rests on (its section 5)."""
    arms, order = ("sft-answer", "sft-expert", "sft-rollout", "sft-self", "rft"), ("sft-answer", "sft-expert", "rft")
    pair, kernel = ("sft-rollout", "sft-answer"), "K(prior, corpus), norm of the change over its norm, mean over arms, "
    both = "asymmetry of influence between prior tasks and corpora (0 to 2), mean over arms, "
    one = "change of prior gold answers, sft-rollout - sft-answer, 1e-3 nats per token, "
    return [
        Claim("in-region", PAPER, "Most of RFT's correct rollouts stay in the base's probable region",
              "share of the last third's that are more probable than the base's own 5th percentile",
              measured("region", "rft"), ">", 0.5, "06", "landscape_corpora"),
        Claim("rollouts-probable", PAPER, "The base finds RFT's rollouts more probable than answers and taught text",
              "perplexity, the smaller of sft-answer's and sft-expert's, over rft's",
              of_measured(lambda a, b, c: min(a, b) / c, "perplexity", *order), ">", 1.0, "06", "landscape_corpora"),
        Claim("gold-shift", PAPER, "RFT takes less probability from prior gold answers than SFT on bare answers",
              "shift over the training, rft - sft-answer, nats per token",
              of_measured(lambda a, b: a - b, "gold_shift", "rft", "sft-answer"), ">", 0.0, "06", "landscape_shift"),
        Claim("lbk-order", PAPER, "LBK falls from bare answers to a teacher's text to RFT's rollouts",
              "LBK summed to step 64, least ratio of sft-answer, sft-expert, sft-rollout, each over the next",
              of_measured(falling, "lbk", "sft-answer", "sft-expert", "sft-rollout"), ">", 1.0, "07",
              "dynamics_training"),
        Claim("symmetry", PAPER, "One small step of SGD acts both ways alike", both + "SGD",
              measured("asymmetry_sgd", *arms), "<", 0.1, "07", "dynamics_symmetry"),
        Claim("symmetry-adamw", SUITE, "A first step of AdamW acts both ways alike", both + "AdamW",
              measured("asymmetry_adamw", *arms), "<", 0.1, "07", "dynamics_symmetry"),
        Claim("kernel-constant", PAPER, "The kernel stays roughly constant over the training",
              kernel + "base to end", measured("kernel_change", *arms), "<", 0.5, "07", "dynamics_kernel"),
        Claim("kernel-settles", PAPER, "The kernel stays roughly constant after a few dozen steps",
              kernel + "step 64 to end", measured("kernel_late", *arms), "<", 0.5, "07", "dynamics_kernel"),
        Claim("direction", PAPER, "One step of SGD on RFT's rollouts harms prior tasks less than one on bare answers",
              one + "SGD", of_measured(lambda a, b: a - b, "influence_sgd", *pair), ">", 0.0, "07",
              "dynamics_influence"),
        Claim("direction-adamw", SUITE, "The same for a first step of AdamW", one + "AdamW",
              of_measured(lambda a, b: a - b, "influence_adamw", *pair), ">", 0.0, "07", "dynamics_influence"),
    ]  # fmt: skip


def _related_claims() -> list[Claim]:
    """What the paper's relatives say."""
    return [
        Claim("forward-kl", RAZOR, "KL(base || run) on the new task explains forgetting",
              "R^2 of the final drop on its logarithm, all runs", explained("kl_forward"), ">", 0.7, "09",
              "predictor_fits"),
        Claim("prior-kl-better", SUITE, "KL on prior prompts explains forgetting better than KL on the new task",
              "difference of the two R^2", better("kl_prior", "kl_forward"), ">", 0.0, "09", "predictor_fits"),
        Claim("norm-poor", RAZOR, "The size of the update (L1) explains forgetting poorly",
              "R^2 of the final drop on its logarithm, all runs", explained("l1"), "<", 0.5, "09", "predictor_fits"),
        Claim("size-not-it", SUITE, "Answer SFT's update forgets more than RFT's at the same length",
              "drop of sft-answer's update at rft's norm - drop of rft", matched_excess, ">", 0.0, "09",
              "norm_matched"),
        Claim("bf16-sparse", SUBNETWORKS, "RFT leaves most weights unchanged in bf16",
              "share of rft's weights that equal the base's in bf16", unchanged("rft", "same_bf16"), ">", 0.7, "09",
              "sparsity_and_rank"),
        Claim("fp32-dense", RAZOR, "In fp32 RFT's update is not sparse",
              "share of rft's weights that equal the base's in fp32", unchanged("rft", "same_fp32"), "<", 0.05, "09",
              "sparsity_and_rank"),
        Claim("positives-suffice", RAZOR, "On-policy learning from correct samples alone keeps as much as RFT",
              f"drop of reinforce-1-0 - rft {_AT}", difference("reinforce-1-0", "rft"), "<", KEEPS, "09",
              "controls_at_equal"),
        Claim("kl-not-it", DOING, "RFT keeps as much without its KL term",
              f"drop of rft-no-kl - rft {_AT}", difference("rft-no-kl", "rft"), "<", KEEPS, "09", "controls_at_equal"),
        Claim("on-policy-helps", DOING, "Samples of the current model keep more than samples of the base",
              f"drop of self-sft - iterative-sft {_AT}", difference("self-sft", "iterative-sft"), ">", 0.0, "09",
              "controls_at_equal"),
        Claim("masked", SPURIOUS, "What answer SFT lost is masked: few samples of other tasks bring it back",
              "share of the loss on never-shown tasks regained with 32 samples", regained("sft-answer", 32), ">", 0.5,
              "09", "recovery"),
    ]  # fmt: skip


def _suite_claims() -> list[Claim]:
    """What this suite adds."""
    return [
        Claim("same-data-sft", SUITE, "SFT on the very rollouts of RFT, in its order, keeps as much as RFT",
              f"drop of sft-stream - rft {_AT}", difference("sft-stream", "rft"), "<", KEEPS, "09",
              "controls_at_equal"),
        Claim("own-voice", SUITE, "True placements behind the base's own thinks keep as much as RFT",
              f"drop of sft-voice - rft {_AT}", difference("sft-voice", "rft"), "<", KEEPS, "09", "controls_at_equal"),
        Claim("kl-no-cure", RAZOR, "A KL term to the base does not cure SFT on bare answers",
              f"drop of sft-kl {_AT}", level(HALF, "sft-kl"), ">", FORGETS, "09", "controls_at_equal"),
        Claim("replay-cures", SUITE, "Replaying prior-task samples cures SFT on bare answers",
              f"drop of sft-replay {_AT}", level(HALF, "sft-replay"), "<", KEEPS, "09", "controls_at_equal"),
        Claim("lora-keeps", SUITE, "LoRA keeps more than full fine-tuning on bare answers",
              f"drop of sft-answer - sft-answer with LoRA {_AT}", difference("sft-answer", "sft-answer, LoRA"), ">",
              0.0, "09", "controls_at_equal"),
        Claim("stale-keeps", SUITE, "RFT on stale rollouts keeps as much as RFT",
              f"drop of rft-stale - rft {_AT}", difference("rft-stale", "rft"), "<", KEEPS, "09", "controls_at_equal"),
        Claim("distill-keeps", SUITE, "A teacher's probabilities on the model's own samples keep as much as rewards",
              f"drop of distill - rft {_AT}", difference("distill", "rft"), "<", KEEPS, "09", "controls_at_equal"),
        Claim("oracle-keeps-more", SUITE, "Of true placements behind the base's thinks the most probable cost less",
              f"drop of sft-voice - sft-oracle {_AT}", difference("sft-voice", "sft-oracle"), ">", 0.0, "09",
              "controls_at_equal"),
        Claim("mostly-form", SUITE, "Most of what answer SFT loses is the form of its answers",
              f"drop by likelihood over drop by score of sft-answer, each as a share of what can be lost, {_AT}",
              knowledge_share("sft-answer"), "<", 0.5, "05", "knowledge_or_format"),
        Claim("early", SUITE, "Most of what answer SFT forgets goes within its first 32 steps",
              "drop of sft-answer at step 32 over its final drop", early_share("sft-answer", 32), ">", 0.5, "03",
              "sft_prior"),
    ]  # fmt: skip


CLAIMS: tuple[Claim, ...] = (
    *_main_claims(), *_paper_claims(), *_theory_claims(), *_related_claims(), *_suite_claims(),
)  # fmt: skip


def table(evidence: Evidence, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Every claim with its value, interval and verdict: columns `COLUMNS`; numbers are empty where nothing was run."""
    rows = []
    for claim in claims:
        found = claim.statistic(evidence)
        numbers = (found.value, found.low, found.high, found.seeds) if found else (None, None, None, 0)
        fixed = (claim.name, claim.source, claim.statement, claim.meaning, claim.direction, claim.threshold)
        rows.append((*fixed, *numbers, *verdict(claim, found), claim.notebook, claim.figure))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def markdown(rows: pd.DataFrame) -> str:
    """The table as Markdown, a claim a line: statement, statistic with its threshold, value, verdict, where to look."""
    head = ["", "claim", "says", "test", "value (95% interval)", "seeds", "verdict", "figure"]
    lines = [" | ".join(["", *head, ""]).strip(), "|---" * len(head) + "|"]
    for number, row in enumerate(rows.itertuples(index=False), start=1):
        test = f"{row.statistic} {row.direction} {row.threshold:g}"
        mark = f"**{row.verdict}**" if row.verdict != "undecided" else f"undecided: {row.reason}"
        where = f"{row.notebook}, `{row.figure}`"
        cells = [str(number), row.statement, row.source, test, _value_text(row), str(row.seeds), mark, where]
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return "\n".join(lines)


def _value_text(row: Any) -> str:
    if row.value is None or row.value != row.value:
        return "–"
    text = f"{row.value:.2f}"
    return text if row.seeds < 2 else f"{text} ({row.low:.2f} to {row.high:.2f})"


def count_sentence(rows: pd.DataFrame) -> str:
    """How many claims hold, fail and are undecided, in words."""
    counts = rows["verdict"].value_counts()
    missing = int((rows["reason"] == NO_VALUE).sum())
    few = int(rows["reason"].str.contains("of at least").sum())
    return (
        f"Of {len(rows)} claims {counts.get('holds', 0)} hold, {counts.get('fails', 0)} fail and "
        f"{counts.get('undecided', 0)} are undecided "
        f"({missing} were not run or never reached the accuracy, {few} have fewer than {LEAST_SEEDS} seeds)."
    )
