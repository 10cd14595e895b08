"""Forward KL against REINFORCE on a mixture of two bells: who leaves the old mode?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.errors import UserError
from helpers.stats.intervals import seed_interval
from helpers.toys.softmax import Array

OLD_MODE = (0.75, -3.0, 1.0)  # weight, mean, sd of what the policy should keep
NEW_WEIGHT, NEW_SD = 0.25, 0.7
START = (0.75, -3.5, 1.0, 0.5, 0.7)  # weight, old mean, old sd, new mean, new sd: so on the last axis of all policies
SLOW = 0.005  # the factor of the original simulation
WEIGHT_LIMITS = (1e-3, 1 - 1e-3)
LEAST_SD = 0.05  # the distance of two grid points: narrower modes could not be integrated
MARGIN = 0.02  # two learners keep alike if they differ by less: fixed before any run
RULES, DRAWS, TARGETS, MEASURES = ("sft", "reinforce"), ("whole", "new mode"), ("new", "both"), ("policy", "mode")


@dataclass(frozen=True)
class World:
    """The task: learn a mode at `place` (weight 0.25, sd 0.7), keep the old one (weight 0.75, mean -3, sd 1).

    `modes`: of the policy, 2 or 1. `measure`: what is held against a mode, the whole policy's density ("policy") or
    only that of the policy's own mode of that name ("mode", which needs two).
    """

    place: float = 3.5
    modes: int = 2
    measure: str = "policy"

    def __post_init__(self) -> None:
        if self.modes not in (1, 2) or not -8 <= self.place <= 8:
            raise UserError(f"A world has 1 or 2 modes and its new mode in -8..8, not {self.modes} and {self.place}.")
        if self.measure not in MEASURES or (self.measure == "mode" and self.modes == 1):
            raise UserError(f"The measure is one of {', '.join(MEASURES)}, and with one mode only 'policy'.")

    @property
    def new_mode(self) -> tuple[float, float, float]:
        """Weight, mean, sd."""
        return (NEW_WEIGHT, self.place, NEW_SD)

    @property
    def start(self) -> Array:
        """The policy (5,) at the start. With one mode, that mode stands in the place of the new one, weight 1."""
        old = START[1:3]
        return np.array(START if self.modes == 2 else (0.0, *old, *old))


@dataclass(frozen=True)
class Method:
    """How a policy learns. `rate`: step of plain gradient ascent.

    sft: forward KL, E_target[log q]. reinforce: E_q[r] with r = log target - log q - log beta, r held fixed, which is
    the reverse KL up to a constant; `draws` come from the whole policy, or from its new mode only with importance
    weights and r = log target - log(its share of q) - log beta, as in the original. `centred`: r minus its mean.
    `target`: the new mode alone, or the whole mixture (for sft: replay).
    """

    rule: str
    rate: float
    draws: str = "whole"
    centred: bool = False
    target: str = "new"
    beta: float = 0.1

    def __post_init__(self) -> None:
        known = self.rule in RULES and self.draws in DRAWS and self.target in TARGETS
        if not known or self.rate <= 0 or self.beta <= 0:
            raise UserError(
                f"A learner needs a rule of {RULES}, draws of {DRAWS}, a target of {TARGETS}, rates above 0."
            )


@dataclass(frozen=True)
class Effort:
    """How runs are made: every slow factor with seeds 0..seeds-1, `samples` a step (0: exact integrals), and when to
    stop: at `gain` in accuracy on the new mode, or after `steps`.

    A slow factor multiplies the gradients of the old mode's weight, mean and sd; 1 is plain gradient ascent.
    """

    slows: tuple[float, ...] = (SLOW,)
    seeds: int = 10
    samples: int = 1000
    steps: int = 3000
    gain: float = 0.9

    def __post_init__(self) -> None:
        if not self.slows or any(slow < 0 for slow in self.slows) or self.seeds < 1 or self.steps < 1:
            raise UserError("Runs need slow factors of 0 or more, a seed or more and a step or more.")
        if self.samples < 0 or not 0 < self.gain < 1:
            raise UserError("Runs need 0 (exact) or more samples a step and a gain between 0 and 1.")


class Runs(NamedTuple):
    """What `train` leaves, with axes step, slow factor, seed; after its stop a run repeats its last state.

    policies (T+1, F, S, 5), accuracies (T+1, F, S, 2) on the old and the new mode, stopped (F, S): the step at which
    the gain was reached, -1 where it never was.
    """

    policies: Array
    accuracies: Array
    stopped: Array


@cache
def grid() -> Array:
    """Points (481,) from -12 to 12 that carry every integral: trapezoids, exact up to rounding for modes not narrower
    than `LEAST_SD`, and to about 1e-4 for an overlap, whose integrand has kinks."""
    points = np.linspace(-12, 12, 481)
    points.flags.writeable = False
    return points


def log_normal(x: Array, mean: float | Array, sd: float | Array) -> Array:
    """Log-density of a Gaussian."""
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * math.log(2 * math.pi)


def overlap(p: Array, q: Array) -> Array:
    """Area under both of two densities (..., 481) on the grid: 1 for the same distribution, 0 for disjoint ones.

    Two Gaussians of one sd whose means are d sds apart share 2 Phi(-d/2).
    """
    points = grid()
    return np.minimum(p, q).sum(axis=-1) * (points[1] - points[0])


def mode_logs(x: Array, policy: Array) -> tuple[Array, Array]:
    """Log of weight times density of the policy's old and new mode: (..., n) for points (..., n), policies (..., 5)."""
    weight, old_mean, old_sd, new_mean, new_sd = (policy[..., part, None] for part in range(5))
    with np.errstate(divide="ignore"):  # weight 0: a policy with one mode
        old = np.log(weight) + log_normal(x, old_mean, old_sd)
    return old, np.log1p(-weight) + log_normal(x, new_mean, new_sd)


def accuracy(policy: Array, world: World) -> Array:
    """Overlap area with the old and the new mode, each as a share of that mode's area: (..., 2) from (..., 5)."""
    held = [np.exp(log_q) for log_q in mode_logs(grid(), policy)]
    if world.measure == "policy":
        held = [held[0] + held[1]] * 2
    scores = [
        overlap(weight * np.exp(log_normal(grid(), mean, sd)), q) / weight
        for (weight, mean, sd), q in zip((OLD_MODE, world.new_mode), held, strict=True)
    ]
    return np.stack(scores, axis=-1)


def log_target(x: Array, learner: Method, world: World) -> Array:
    """Log-density of what is to be learned: the new mode by itself, or the mixture of both with their weights."""
    new = log_normal(x, world.place, NEW_SD)
    if learner.target == "new":
        return new
    weight, mean, sd = OLD_MODE
    return np.logaddexp(math.log(weight) + log_normal(x, mean, sd), math.log(NEW_WEIGHT) + new)


def summed_score(points: Array, policy: Array, weights: Array) -> Array:
    """Sum over points (B, n) of weights (B, n) times the gradient of log q in the policy's five parts: (B, 5).

    With r the share of the old mode in q at a point: r / w - (1 - r) / (1 - w) for the weight w; and for each mode
    its share times (x - mean) / sd^2 for its mean, times (x - mean)^2 / sd^3 - 1 / sd for its sd.
    """
    old, new = mode_logs(points, policy)
    with np.errstate(over="ignore"):  # exp of a large number: the share of the new mode is 0
        is_new = 1 / (1 + np.exp(old - new))
    weight, mean, sd = policy[:, 0], policy[:, [1, 3]], policy[:, [2, 4]]
    shares = np.stack([weights * (1 - is_new), weights * is_new], axis=1)  # (B, 2, n): of the old and the new mode
    apart = points[:, None] - mean[..., None]
    mass, first, second = shares.sum(axis=-1), (shares * apart).sum(axis=-1), (shares * apart**2).sum(axis=-1)
    in_mean, in_sd = first / sd**2, second / sd**3 - mass / sd
    old_mass = np.divide(mass[:, 0], weight, out=np.zeros_like(weight), where=weight > 0)
    in_weight = old_mass - mass[:, 1] / (1 - weight)
    return np.stack([in_weight, in_mean[:, 0], in_sd[:, 0], in_mean[:, 1], in_sd[:, 1]], axis=-1)


def ascent(learner: Method, world: World, policy: Array, noise: tuple[Array, Array] | None = None) -> Array:
    """The gradient (B, 5) that `learner` climbs from policies (B, 5), before any slow factor.

    `noise`: standard normal and uniform numbers (B, n) each, for an estimate from n samples; None: exact, by
    integration. Raises UserError where there is no exact version.
    """
    points, weights = _points(learner, world, policy, noise)
    if learner.rule == "reinforce":
        weights = weights * _worth(learner, world, policy, points, weights)
    return summed_score(points, policy, weights)


def _points(learner: Method, world: World, policy: Array, noise: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """Where the learner looks, and with what weight: samples, or the whole grid under the density sampled from."""
    if noise is None:
        if learner.draws == "new mode":
            raise UserError("REINFORCE from the new mode only sees its samples and has no exact version: set samples.")
        x = grid()[None, :]
        old, new = mode_logs(x, policy)
        log_density = log_target(x, learner, world) if learner.rule == "sft" else np.logaddexp(old, new)
        weights = np.exp(log_density) * (x[0, 1] - x[0, 0])
        return x, np.broadcast_to(weights, (len(policy), x.shape[1]))
    normal, uniform = noise
    points = _sampled(learner, world, policy, normal, uniform)
    return points, np.full(points.shape, 1 / points.shape[-1])


def _sampled(learner: Method, world: World, policy: Array, normal: Array, uniform: Array) -> Array:
    """Samples (B, n) of the target (sft), of the policy, or of the policy's new mode."""
    weight, old_mean, old_sd, new_mean, new_sd = (policy[..., part, None] for part in range(5))
    if learner.rule == "sft":
        weight, old_mean, old_sd = OLD_MODE if learner.target == "both" else (0.0, 0.0, 1.0)
        new_mean, new_sd = world.place, NEW_SD
    elif learner.draws == "new mode":
        weight = 0.0
    return np.where(uniform < weight, old_mean + old_sd * normal, new_mean + new_sd * normal)


def _worth(learner: Method, world: World, policy: Array, points: Array, weights: Array) -> Array:
    """Importance weight times reward of each point (B, n)."""
    old, new = mode_logs(points, policy)
    only_new = learner.draws == "new mode"
    sampled = new if only_new else np.logaddexp(old, new)
    reward = log_target(points, learner, world) - sampled - math.log(learner.beta)
    if learner.centred:
        reward = reward - (weights * reward).sum(axis=-1, keepdims=True)
    return reward * (1 + np.exp(old - new)) if only_new else reward


def train(learner: Method, world: World, effort: Effort) -> Runs:
    """All runs of one learner side by side. A run depends on its slow factor and seed only, not on its neighbours."""
    shape = (len(effort.slows), effort.seeds)
    slow = np.repeat(np.array(effort.slows, dtype=float), effort.seeds)
    seed = np.tile(np.arange(effort.seeds), len(effort.slows))
    policy = np.tile(world.start, (len(slow), 1))
    stopped = np.full(len(slow), -1)
    generators = [np.random.default_rng(number) for number in range(effort.seeds)]
    policies, accuracies = [policy], [accuracy(policy, world)]
    for step in range(1, effort.steps + 1):
        going = np.flatnonzero(stopped < 0)
        if not len(going):
            break
        noise = _noise(generators, seed[going], effort.samples)
        policy, scores = policy.copy(), accuracies[-1].copy()
        policy[going] = advance(learner, world, policy[going], slow[going], noise)
        scores[going] = accuracy(policy[going], world)
        # `going` numbers the runs; the condition picks some of those numbers, and only they get a stop.
        stopped[going[scores[going, 1] - accuracies[0][going, 1] >= effort.gain]] = step
        policies.append(policy)
        accuracies.append(scores)
    shaped = (np.stack(each).reshape(len(each), *shape, -1) for each in (policies, accuracies))
    return Runs(*shaped, stopped.reshape(shape))


def _noise(generators: Sequence[np.random.Generator], seeds: Array, samples: int) -> tuple[Array, Array] | None:
    """Numbers for each run from its seed's generator: runs of one seed share them, whatever their slow factor."""
    if not samples:
        return None
    rows = {seed: (generators[seed].standard_normal(samples), generators[seed].random(samples)) for seed in set(seeds)}
    return tuple(np.stack([rows[seed][kind] for seed in seeds]) for kind in (0, 1))


def advance(learner: Method, world: World, policy: Array, slow: Array, noise: tuple | None = None) -> Array:
    """Policies (B, 5) after one step; `slow` (B,) multiplies the gradients of weight, old mean and old sd."""
    speed = np.ones((len(policy), 5))
    speed[:, :3] = slow[:, None] if world.modes == 2 else 0.0
    moved = policy + learner.rate * speed * ascent(learner, world, policy, noise)
    if world.modes == 2:
        moved[:, 0] = moved[:, 0].clip(*WEIGHT_LIMITS)
    moved[:, [2, 4]] = np.maximum(moved[:, [2, 4]], LEAST_SD)
    return moved


LEARNERS: Mapping[str, Method] = {
    "SFT, rate 0.15": Method("sft", 0.15),
    "SFT, rate 0.01": Method("sft", 0.01),
    "REINFORCE, new mode": Method("reinforce", 0.01, draws="new mode"),
    "REINFORCE, new mode, centred": Method("reinforce", 0.01, draws="new mode", centred=True),
    "REINFORCE, whole": Method("reinforce", 0.01),
}
ONE_MODE: Mapping[str, Method] = {
    "SFT, one mode": Method("sft", 0.05),
    "REINFORCE, one mode": Method("reinforce", 0.005),
}


def outcomes(learners: Mapping[str, Method], world: World, effort: Effort) -> pd.DataFrame:
    """The end of every run, a row each.

    Columns learner, slow, seed, step, reached (1 or 0: the gain), kept and drop (accuracy on the old mode, and its
    fall), gain, old_weight (of the policy's old mode).
    """
    frames = []
    for name, learner in learners.items():
        runs = train(learner, world, effort)
        first, last = runs.accuracies[0].reshape(-1, 2), runs.accuracies[-1].reshape(-1, 2)
        stopped = runs.stopped.ravel()
        ends = {
            "learner": name,
            "slow": np.repeat(effort.slows, effort.seeds),
            "seed": np.tile(np.arange(effort.seeds), len(effort.slows)),
            "step": np.where(stopped < 0, len(runs.policies) - 1, stopped),
            "reached": (stopped >= 0).astype(int),
            "kept": last[:, 0],
            "drop": first[:, 0] - last[:, 0],
            "gain": last[:, 1] - first[:, 1],
            "old_weight": runs.policies[-1, ..., 0].ravel(),
        }
        frames.append(pd.DataFrame(ends))
    return pd.concat(frames, ignore_index=True)


def verdicts(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Does `first` keep more of the old mode than `second` at equal gain? A row per slow factor.

    Difference in kept accuracy paired by seed, with its 95% t interval. Verdict: "more" or "less" where the interval
    lies beyond `MARGIN`, "alike" where it lies within, "undecided" otherwise or below three seeds, "gain not reached"
    where a run of either did not get there. Columns slow, mean, low, high, seeds, verdict.
    """
    pairs = rows[rows["learner"] == first].merge(rows[rows["learner"] == second], on=["slow", "seed"])
    if pairs.empty:
        raise UserError(f"There are no runs of {first} and {second} with the same seeds: run both.")
    answers = []
    for slow, group in pairs.groupby("slow"):
        interval = seed_interval(group["kept_x"] - group["kept_y"])
        reached = bool((group["reached_x"] * group["reached_y"]).all())
        answers.append((slow, *interval, len(group), _verdict(interval.low, interval.high, len(group), reached)))
    return pd.DataFrame(answers, columns=["slow", "mean", "low", "high", "seeds", "verdict"])


def _verdict(low: float, high: float, seeds: int, reached: bool) -> str:
    if not reached:
        return "gain not reached"
    if seeds < 3:
        return "undecided"
    if low > MARGIN:
        return "more"
    if high < -MARGIN:
        return "less"
    return "alike" if low > -MARGIN and high < MARGIN else "undecided"


def verdict_sentence(table: pd.DataFrame, first: str, second: str) -> str:
    """`verdicts` in words: at which slow factors `first` keeps more, less, or as much."""
    words = {"more": f"{first} keeps more than {second}", "less": f"{first} keeps less than {second}"}
    words |= {"alike": f"they keep alike (within {MARGIN:g})", "undecided": "undecided"}
    parts = []
    for verdict, text in (words | {"gain not reached": "the gain was not reached"}).items():
        slows = ", ".join(f"{slow:g}" for slow in table.loc[table["verdict"] == verdict, "slow"])
        parts += [f"{text} at slow factor {slows}"] if slows else []
    return "; ".join(parts) + "."


def choices(by_measure: Mapping[str, pd.DataFrame], names: Sequence[str] = tuple(LEARNERS)) -> pd.DataFrame:
    """Every REINFORCE learner against every SFT learner under every measure: the verdict at each slow factor.

    `by_measure`: measure -> `outcomes`. Columns measure, reinforce, sft, and one per slow factor.
    """
    reinforce, sft = ([name for name in names if name.startswith(rule)] for rule in ("REINFORCE", "SFT"))
    rows = []
    for measure, first, second in product(by_measure, reinforce, sft):
        table = verdicts(by_measure[measure], first, second)
        answers = dict(zip(table["slow"].map("{:g}".format), table["verdict"], strict=True))
        rows.append({"measure": measure, "reinforce": first, "sft": second} | answers)
    return pd.DataFrame(rows)


def crossing(rows: pd.DataFrame, first: str, second: str) -> float | None:
    """The smallest slow factor at which the mean kept accuracies of two learners are equal; None if they never are.

    Interpolated along the logarithm of the slow factor.
    """
    table = verdicts(rows, first, second).sort_values("slow")
    logs, gaps = np.log(table["slow"].to_numpy()), table["mean"].to_numpy()
    for here in range(len(gaps) - 1):
        if gaps[here] == 0 or gaps[here] * gaps[here + 1] < 0:
            share = gaps[here] / (gaps[here] - gaps[here + 1])
            return float(np.exp(logs[here] + share * (logs[here + 1] - logs[here])))
    return None


def weight_pull(policy: Array, learner: Method, world: World) -> float:
    """What REINFORCE from the new mode only is expected to add to the old mode's weight, per unit of step size.

    Modes far apart: minus the mean reward over 1 - w, where the mean reward is -KL(new mode || target)
    - log(1 - w) - log beta. Its sign hangs on the constant beta. `policy` (5,).
    """
    weight, _, _, mean, sd = policy
    ratio = sd / NEW_SD
    divergence = (ratio**2 - 1) / 2 - math.log(ratio) + (mean - world.place) ** 2 / (2 * NEW_SD**2)
    reward = 0.0 if learner.centred else -divergence - math.log1p(-weight) - math.log(learner.beta)
    return float((0.0 - reward) / (1 - weight))  # of no reward 0, where -reward would be -0
