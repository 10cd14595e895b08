"""Two toy labs that run in seconds: the squeeze on one softmax, and forgetting on a one-dimensional mixture.

Lab A (Ren and Sutherland, arXiv 2407.10490): what a positive and a negative step on one word do to the log-prob of
every other word, exactly and by the first-order product A K G.

Lab B (the simulation of "Retaining by Doing", arXiv 2510.18874): a policy of two Gaussian modes learns a new mode by
forward KL (SFT) or by REINFORCE. A factor that slows all gradients of the old mode, hidden in the original, is a
control here. Written anew from the facts about it; whatever has an integral is integrated, the rest is sampled.

All log-probs are in nats. Words are named by their rank at the start: word 1 is the most probable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from helpers.errors import UserError
from helpers.figures import (
    GREY,
    ArmStyle,
    Label,
    _direct_labels,
    _new_figure,
    _note,
    _record,
    _seed_note,
    arm_style,
    seed_interval,
    seed_summary,
    use_style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray
WORDS = 20
BEFORE, AFTER = "#666666", "#0072B2"
UP, DOWN = "#0072B2", "#A84300"


# --- lab A: one softmax -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lesson:
    """What a softmax is taught: `advantages` as (word, advantage) pairs, and how often and how hard.

    The objective is sum_i a_i log pi_i. One pair (word, 1) is SFT on that word, one pair (word, -1) a lone negative
    sample, pairs that sum to 0 a group with a baseline or a preference pair. `rate`: step of plain gradient ascent.
    """

    advantages: tuple[tuple[int, float], ...]
    rate: float = 0.5
    steps: int = 1

    def __post_init__(self) -> None:
        if not self.advantages or self.rate <= 0 or self.steps < 1:
            raise UserError("A lesson needs at least one (word, advantage) pair, a rate above 0 and a step or more.")

    def vector(self, words: int) -> Array:
        """Advantages (words,), 0 where nothing is said. Raises UserError for a word outside 1..words."""
        found = np.zeros(words)
        for word, advantage in self.advantages:
            if not 1 <= word <= words:
                raise UserError(f"There is no word {word}: choose 1 to {words}.")
            found[word - 1] += advantage
        return found


def start_logits(peak: float, words: int = WORDS) -> Array:
    """Logits (words,) with pi_i proportional to i^-peak: 0 is uniform, 1 is Zipf's law, 3 is very peaked.

    Raises UserError below two words or for a negative peak.
    """
    if words < 2 or peak < 0:
        raise UserError(f"A start needs two words or more and a peak of 0 or more, not {words} and {peak}.")
    return -peak * np.log(np.arange(1, words + 1))


def log_softmax(logits: Array) -> Array:
    """Log-probs in nats along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def residual(logits: Array, advantage: Array) -> Array:
    """G (words,): minus the gradient of sum_i a_i log pi_i in the logits, (sum_i a_i) pi - a.

    With one advantage of 1 it is pi - onehot, the G of Ren and Sutherland (2407.10490, section 3).
    """
    return advantage.sum() * np.exp(log_softmax(logits)) - advantage


def a_matrix(logits: Array) -> Array:
    """A (words, words) = I - 1 pi^T: the Jacobian of the log-probs in the logits (2407.10490, section 3)."""
    return np.eye(len(logits)) - np.exp(log_softmax(logits))[None, :]


def predicted_shift(observed: Array, trained: Array, lesson: Lesson, similarity: float = 1.0) -> Array:
    """First-order change of the log-probs (words,) after ONE step of `lesson`: -rate A K G, in nats.

    A at the `observed` logits, G at the `trained` ones, K = similarity times the identity: 1 where the logits
    themselves are the weights, the inner product of the two inputs under a shared linear layer.
    """
    words = len(trained)
    kernel = similarity * np.eye(words)
    return -lesson.rate * a_matrix(observed) @ kernel @ residual(trained, lesson.vector(words))


def learn(logits: Array, lesson: Lesson) -> Array:
    """Logits (words,) after `lesson.steps` steps of plain gradient ascent."""
    advantage = lesson.vector(len(logits))
    for _ in range(lesson.steps):
        logits = logits - lesson.rate * residual(logits, advantage)
    return logits


def rises(logits: Array, word: int) -> Array:
    """Which words (words,) gain log-prob when `word` is pushed down a little, at first order.

    From -rate A G with G = onehot - pi: word i other than `word` rises exactly if pi_i + pi_word > sum_j pi_j^2.
    `word` itself never does.
    """
    probabilities = np.exp(log_softmax(logits))
    found = probabilities + probabilities[word - 1] > (probabilities**2).sum()
    found[word - 1] = False
    return found


@dataclass(frozen=True)
class SharedLayer:
    """Logits z_p = W x_p of several prompts: `weights` W (words, inputs), `inputs` x (prompts, inputs), names."""

    weights: Array
    inputs: Array
    prompts: tuple[str, ...]

    @property
    def logits(self) -> Array:
        """(prompts, words)."""
        return self.inputs @ self.weights.T

    def learn(self, prompt: int, lesson: Lesson) -> SharedLayer:
        """The layer after `lesson` on one prompt: each step adds -rate G x^T to W."""
        weights, x = self.weights, self.inputs[prompt]
        advantage = lesson.vector(len(weights))
        for _ in range(lesson.steps):
            weights = weights - lesson.rate * np.outer(residual(weights @ x, advantage), x)
        return replace(self, weights=weights)


def shared_layer(peak: float, similarity: float, words: int = WORDS) -> SharedLayer:
    """Three prompts on three inputs: the trained one, a neighbour at cosine `similarity` to it, a stranger at 0.

    Each starts as `start_logits(peak)`, with word 1, 8 and 15 (modulo `words`) as its most probable word.
    Raises UserError unless -1 < similarity < 1.
    """
    if not -1 < similarity < 1:
        raise UserError(f"The similarity is a cosine between -1 and 1, both excluded, not {similarity}.")
    inputs = np.array([[1, 0, 0], [similarity, math.sqrt(1 - similarity**2), 0], [0, 0, 1]], dtype=float)
    starts = np.stack([np.roll(start_logits(peak, words), 7 * prompt) for prompt in range(3)])
    return SharedLayer(np.linalg.solve(inputs, starts).T, inputs, ("trained", "neighbour", "stranger"))


def squeeze_table(lessons: Mapping[str, Lesson], logits: Array) -> pd.DataFrame:
    """Each lesson from the same start, a row per word.

    Columns panel, word, before, after (probabilities), shift (all steps), one_step (measured) and predicted (A K G),
    the last three in nats.
    """
    import pandas as pd

    frames = []
    for panel, lesson in lessons.items():
        after, once = learn(logits, lesson), learn(logits, replace(lesson, steps=1))
        frames.append(_word_rows(panel, (logits, once, after), predicted_shift(logits, logits, lesson)))
    return pd.concat(frames, ignore_index=True)


def shared_table(layer: SharedLayer, lesson: Lesson) -> pd.DataFrame:
    """`lesson` on the first prompt of `layer`, seen from every prompt: columns as in `squeeze_table`."""
    import pandas as pd

    before = layer.logits
    once, after = (layer.learn(0, each).logits for each in (replace(lesson, steps=1), lesson))
    alike = layer.inputs @ layer.inputs[0]
    frames = [
        _word_rows(name, (before[p], once[p], after[p]), predicted_shift(before[p], before[0], lesson, alike[p]))
        for p, name in enumerate(layer.prompts)
    ]
    return pd.concat(frames, ignore_index=True)


def _word_rows(panel: str, logits: Sequence[Array], predicted: Array) -> pd.DataFrame:
    """Rows of one panel from its logits before, after one step and after all."""
    import pandas as pd

    before, once, after = (log_softmax(each) for each in logits)
    words = {"panel": panel, "word": np.arange(1, len(before) + 1)}
    ends = {"before": np.exp(before), "after": np.exp(after)}
    return pd.DataFrame(words | ends | {"shift": after - before, "one_step": once - before, "predicted": predicted})


def squeeze_sweep(peaks: Iterable[float], words: Iterable[int], rate: float, steps: int) -> pd.DataFrame:
    """Push one word down from starts of several peaks; a row per peak and pushed word.

    Columns peak, word, pushed_probability, winner (the most probable other word at the start), winner_gain (in its
    probability), bystander_shift (mean shift of all words but the pushed one and the winner, nats) and falling (the
    share of those that lose log-prob).
    """
    import pandas as pd

    words = list(words)
    return pd.DataFrame([_pushed(peak, Lesson(((word, -1.0),), rate, steps)) for peak in peaks for word in words])


def _pushed(peak: float, lesson: Lesson) -> dict[str, float]:
    """One row of `squeeze_sweep`."""
    logits, word = start_logits(peak), lesson.advantages[0][0]
    before, after = log_softmax(logits), log_softmax(learn(logits, lesson))
    winner = 2 if word == 1 else 1
    others = np.delete(after - before, [word - 1, winner - 1])
    return {
        "peak": peak,
        "word": word,
        "pushed_probability": math.exp(before[word - 1]),
        "winner": winner,
        "winner_gain": math.exp(after[winner - 1]) - math.exp(before[winner - 1]),
        "bystander_shift": others.mean(),
        "falling": (others < 0).mean(),
    }


# --- lab B: a policy of two modes --------------------------------------------------------------------------

PARTS = ("weight", "old_mean", "old_sd", "new_mean", "new_sd")  # of a policy, in this order on the last axis
OLD_MODE = (0.75, -3.0, 1.0)  # weight, mean, sd of what the policy should keep
NEW_WEIGHT, NEW_SD = 0.25, 0.7
START = (0.75, -3.5, 1.0, 0.5, 0.7)
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
class Learner:
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


def log_target(x: Array, learner: Learner, world: World) -> Array:
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
    weight, found = policy[:, 0], []
    shares = (weights * (1 - is_new), weights * is_new)
    for share, mean, sd in zip(shares, policy[:, [1, 3]].T, policy[:, [2, 4]].T, strict=True):
        apart = points - mean[:, None]
        mass, first = share.sum(axis=-1), (share * apart).sum(axis=-1)
        second = (share * apart**2).sum(axis=-1)
        found += [mass, first / sd**2, second / sd**3 - mass / sd]
    old_mass = np.divide(found[0], weight, out=np.zeros_like(weight), where=weight > 0)
    return np.stack([old_mass - found[3] / (1 - weight), *found[1:3], *found[4:]], axis=-1)


def ascent(learner: Learner, world: World, policy: Array, noise: tuple[Array, Array] | None = None) -> Array:
    """The gradient (B, 5) that `learner` climbs from policies (B, 5), before any slow factor.

    `noise`: standard normal and uniform numbers (B, n) each, for an estimate from n samples; None: exact, by
    integration. Raises UserError where there is no exact version.
    """
    points, weights = _points(learner, world, policy, noise)
    if learner.rule == "reinforce":
        weights = weights * _worth(learner, world, policy, points, weights)
    return summed_score(points, policy, weights)


def _points(learner: Learner, world: World, policy: Array, noise: tuple[Array, Array] | None) -> tuple[Array, Array]:
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


def _sampled(learner: Learner, world: World, policy: Array, normal: Array, uniform: Array) -> Array:
    """Samples (B, n) of the target (sft), of the policy, or of the policy's new mode."""
    weight, old_mean, old_sd, new_mean, new_sd = (policy[..., part, None] for part in range(5))
    if learner.rule == "sft":
        weight, old_mean, old_sd = OLD_MODE if learner.target == "both" else (0.0, 0.0, 1.0)
        new_mean, new_sd = world.place, NEW_SD
    elif learner.draws == "new mode":
        weight = 0.0
    return np.where(uniform < weight, old_mean + old_sd * normal, new_mean + new_sd * normal)


def _worth(learner: Learner, world: World, policy: Array, points: Array, weights: Array) -> Array:
    """Importance weight times reward of each point (B, n)."""
    old, new = mode_logs(points, policy)
    only_new = learner.draws == "new mode"
    sampled = new if only_new else np.logaddexp(old, new)
    reward = log_target(points, learner, world) - sampled - math.log(learner.beta)
    if learner.centred:
        reward = reward - (weights * reward).sum(axis=-1, keepdims=True)
    return reward * (1 + np.exp(old - new)) if only_new else reward


def train(learner: Learner, world: World, effort: Effort) -> Runs:
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


def advance(learner: Learner, world: World, policy: Array, slow: Array, noise: tuple | None = None) -> Array:
    """Policies (B, 5) after one step; `slow` (B,) multiplies the gradients of weight, old mean and old sd."""
    speed = np.ones((len(policy), 5))
    speed[:, :3] = slow[:, None] if world.modes == 2 else 0.0
    moved = policy + learner.rate * speed * ascent(learner, world, policy, noise)
    if world.modes == 2:
        moved[:, 0] = moved[:, 0].clip(*WEIGHT_LIMITS)
    moved[:, [2, 4]] = np.maximum(moved[:, [2, 4]], LEAST_SD)
    return moved


LEARNERS: Mapping[str, Learner] = MappingProxyType(
    {
        "SFT, rate 0.15": Learner("sft", 0.15),
        "SFT, rate 0.01": Learner("sft", 0.01),
        "REINFORCE, new mode": Learner("reinforce", 0.01, draws="new mode"),
        "REINFORCE, new mode, centred": Learner("reinforce", 0.01, draws="new mode", centred=True),
        "REINFORCE, whole": Learner("reinforce", 0.01),
    }
)
ONE_MODE: Mapping[str, Learner] = MappingProxyType(
    {"SFT, one mode": Learner("sft", 0.05), "REINFORCE, one mode": Learner("reinforce", 0.005)}
)


def outcomes(learners: Mapping[str, Learner], world: World, effort: Effort) -> pd.DataFrame:
    """The end of every run, a row each.

    Columns learner, slow, seed, step, reached (1 or 0: the gain), kept and drop (accuracy on the old mode, and its
    fall), gain, old_weight (of the policy's old mode).
    """
    import pandas as pd

    frames = [_ends(name, train(learner, world, effort), effort) for name, learner in learners.items()]
    return pd.concat(frames, ignore_index=True)


def _ends(name: str, runs: Runs, effort: Effort) -> pd.DataFrame:
    import pandas as pd

    last, first = runs.accuracies[-1].reshape(-1, 2), runs.accuracies[0].reshape(-1, 2)
    stopped, never = runs.stopped.ravel(), runs.stopped.ravel() < 0
    columns = {
        "learner": name,
        "slow": np.repeat(effort.slows, effort.seeds),
        "seed": np.tile(np.arange(effort.seeds), len(effort.slows)),
        "step": np.where(never, len(runs.policies) - 1, stopped),
        "reached": (~never).astype(int),
        "kept": last[:, 0],
        "drop": first[:, 0] - last[:, 0],
        "gain": last[:, 1] - first[:, 1],
        "old_weight": runs.policies[-1, ..., 0].ravel(),
    }
    return pd.DataFrame(columns)


def verdicts(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Does `first` keep more of the old mode than `second` at equal gain? A row per slow factor.

    Difference in kept accuracy paired by seed, with its 95% t interval. Verdict: "more" or "less" where the interval
    lies beyond `MARGIN`, "alike" where it lies within, "undecided" otherwise or below three seeds, "gain not reached"
    where a run of either did not get there. Columns slow, mean, low, high, seeds, verdict.
    """
    import pandas as pd

    pairs = rows[rows["learner"] == first].merge(rows[rows["learner"] == second], on=["slow", "seed"])
    if pairs.empty:
        raise UserError(f"There are no runs of {first} and {second} with the same seeds: run both.")
    found = []
    for slow, group in pairs.groupby("slow"):
        interval = seed_interval(group["kept_x"] - group["kept_y"])
        reached = bool((group["reached_x"] * group["reached_y"]).all())
        found.append((slow, *interval, len(group), _verdict(interval.low, interval.high, len(group), reached)))
    return pd.DataFrame(found, columns=["slow", "mean", "low", "high", "seeds", "verdict"])


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


def choices(by_measure: Mapping[str, pd.DataFrame], names: Iterable[str] = tuple(LEARNERS)) -> pd.DataFrame:
    """Every REINFORCE learner against every SFT learner under every measure: the verdict at each slow factor.

    `by_measure`: measure -> `outcomes`. Columns measure, reinforce, sft, and one per slow factor.
    """
    import pandas as pd

    names, rows = list(names), []
    for measure, frame in by_measure.items():
        for first in (name for name in names if name.startswith("REINFORCE")):
            for second in (name for name in names if name.startswith("SFT")):
                table = verdicts(frame, first, second)
                found = {f"{slow:g}": text for slow, text in zip(table["slow"], table["verdict"], strict=True)}
                rows.append({"measure": measure, "reinforce": first, "sft": second} | found)
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


def weight_pull(policy: Array, learner: Learner, world: World) -> float:
    """What REINFORCE from the new mode only is expected to add to the old mode's weight, per unit of step size.

    Modes far apart: minus the mean reward over 1 - w, where the mean reward is -KL(new mode || target)
    - log(1 - w) - log beta. Its sign hangs on the constant beta. `policy` (5,).
    """
    weight, _, _, mean, sd = policy
    ratio = sd / NEW_SD
    divergence = (ratio**2 - 1) / 2 - math.log(ratio) + (mean - world.place) ** 2 / (2 * NEW_SD**2)
    reward = 0.0 if learner.centred else -divergence - math.log1p(-weight) - math.log(learner.beta)
    return float((0.0 - reward) / (1 - weight))


# --- figures of lab A -------------------------------------------------------------------------------------


@use_style()
def squeeze_panels(rows: pd.DataFrame, steps: int) -> Figure:
    """Probabilities and log-probs of all words before and after `steps` steps, and one step against A K G.

    `rows` as from `squeeze_table` or `shared_table`, a column of panels per `panel`; they are also what is drawn.
    """
    names = list(rows["panel"].unique())
    fig = _new_figure(max(6.0, 3.0 * len(names)), 7.4)
    axes = fig.subplots(3, len(names), sharex=True, sharey="row", squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        part = rows[rows["panel"] == name]
        _word_panel(column, part)
        column[0].set_title(name)
        column[2].set_xlabel("word")
        column[2].set_xticks([1, 5, 10, 15, 20] if len(part) == 20 else [1, len(part)])
    axes[0, 0].set_ylabel("probability")
    axes[1, 0].set_ylabel("log-prob (nats)")
    axes[2, 0].set_ylabel("change in one step (nats)")
    _squeeze_legend(fig, steps)
    return _record(fig, rows)


def _word_panel(axes: Sequence[Axes], part: pd.DataFrame) -> None:
    """One column: probability, log-prob, change of one step."""
    word = part["word"]
    for ax, change in ((axes[0], lambda p: p), (axes[1], np.log)):
        ax.plot(word, change(part["before"]), "o-", color=BEFORE, mfc="white", lw=1, ms=4)
        ax.plot(word, change(part["after"]), "s-", color=AFTER, lw=1, ms=3.5)
    colours = [UP if value > 0 else DOWN for value in part["one_step"]]
    axes[2].bar(word, part["one_step"], color=colours, width=0.7)
    axes[2].plot(word, part["predicted"], "x", color="black", ms=5, mew=1.2)
    axes[2].axhline(0, color=GREY, lw=0.8)


def _squeeze_legend(fig: Figure, steps: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    plural = "" if steps == 1 else "s"
    handles = [
        Line2D([], [], color=BEFORE, marker="o", mfc="white", lw=1, label="before"),
        Line2D([], [], color=AFTER, marker="s", lw=1, label=f"after {steps} step{plural}"),
        Patch(color=UP, label="one step: rises"),
        Patch(color=DOWN, label="one step: falls"),
        Line2D([], [], color="black", marker="x", ls="none", label="predicted by A K G"),
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=5)


@use_style()
def squeeze_sweep_panels(rows: pd.DataFrame, steps: int) -> Figure:
    """Against the peak of the start, a line per pushed word: what the winner gains, what the bystanders lose.

    `rows` as from `squeeze_sweep`. Drawn columns: peak, word, winner, winner_gain, bystander_shift.
    """
    fig = _new_figure(9.4, 3.9)
    left, right = fig.subplots(1, 2)
    words = sorted(rows["word"].unique())
    for place, word in enumerate(words):
        part, look = rows[rows["word"] == word].sort_values("peak"), _rank_look(place, len(words))
        left.plot(part["peak"], part["winner_gain"], label=f"word {word}", **look)
        right.plot(part["peak"], part["bystander_shift"], **look)
    for ax in (left, right):
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xlabel("peak of the start (0: uniform)")
    left.set(ylabel="gain in probability", title="The most probable other word")
    right.set(ylabel="mean shift (nats)", title="All remaining words")
    fig.legend(loc="outside right center", title="pushed down")
    _note(fig, f"{steps} negative steps on one word; words are named by their rank at the start")
    return _record(fig, rows[["peak", "word", "winner", "winner_gain", "bystander_shift"]])


def _rank_look(place: int, count: int) -> dict:
    """From dark to light with rank; markers and dashes tell the lines apart without colour."""
    from matplotlib import colormaps

    colour = colormaps["cividis"](0.85 * place / max(1, count - 1))
    dashes = ("-", "--", "-.", ":", (0, (5, 1)))
    return {"color": colour, "marker": "osD^v"[place % 5], "linestyle": dashes[place % 5], "ms": 4}


def squeeze_view(word: int, push: str, rate: float, peak: float, steps: int) -> Figure:
    """One word pushed up or down on one softmax: before, after, and one step against A K G."""
    lesson = Lesson(((word, 1.0 if push == "up" else -1.0),), rate, steps)
    return squeeze_panels(squeeze_table({f"word {word} {push}": lesson}, start_logits(peak)), steps)


def shared_view(word: int, push: str, similarity: float, peak: float, steps: int) -> Figure:
    """One word pushed up or down on one prompt of a shared layer, seen from three prompts."""
    lesson = Lesson(((word, 1.0 if push == "up" else -1.0),), 0.5, steps)
    return squeeze_panels(shared_table(shared_layer(peak, similarity), lesson), steps)


# --- figures of lab B -------------------------------------------------------------------------------------

# Looks are borrowed from arms: browns learn from given data, blues from their own samples.
BORROWED: Mapping[str, str] = MappingProxyType(
    {
        "SFT, rate 0.15": "sft-answer",
        "SFT, rate 0.01": "sft-expert",
        "SFT, one mode": "sft-answer",
        "REINFORCE, new mode": "rft",
        "REINFORCE, new mode, centred": "reinforce-1-0",
        "REINFORCE, whole": "rft-no-kl",
        "REINFORCE, one mode": "rft-no-kl",
    }
)
MOMENTS = {"start": 0.0, "half way": 0.5, "end": 1.0}


def learner_style(name: str) -> ArmStyle:
    """The look of a learner: its own, or that of its kind."""
    return arm_style(BORROWED.get(name, "sft-answer" if name.startswith("SFT") else "rft"))


def density_rows(learners: Mapping[str, Learner], world: World, effort: Effort) -> pd.DataFrame:
    """Densities of seed 0 at the start, half way and at the end of every run, for `mixture_panels`.

    Columns learner, slow, moment, step, x, density, kept, gain (accuracy on the old mode and gain at that step).
    """
    import pandas as pd

    frames = []
    for name, learner in learners.items():
        runs = train(learner, world, replace(effort, seeds=1))
        for place, slow in enumerate(effort.slows):
            end = runs.stopped[place, 0] if runs.stopped[place, 0] >= 0 else len(runs.policies) - 1
            for moment, share in MOMENTS.items():
                about = {"learner": name, "slow": slow, "moment": moment, "step": round(share * end)}
                frames.append(_density(runs, place, about))
    return pd.concat(frames, ignore_index=True)


def _density(runs: Runs, place: int, about: dict) -> pd.DataFrame:
    import pandas as pd

    x = grid()[60:-60:3]  # -9 to 9, as fine as the eye
    scores, first = runs.accuracies[about["step"], place, 0], runs.accuracies[0, place, 0]
    density = np.exp(np.logaddexp(*mode_logs(x, runs.policies[about["step"], place, 0])))
    return pd.DataFrame(about | {"x": x, "density": density, "kept": scores[0], "gain": scores[1] - first[1]})


@use_style()
def mixture_panels(rows: pd.DataFrame, world: World) -> Figure:
    """The policy's density before, half way and at equal gain, a row per slow factor and a column per learner.

    `rows` as from `density_rows`, which are also what is drawn. Dashed: the two modes to hold.
    """
    names, slows = list(rows["learner"].unique()), sorted(rows["slow"].unique())
    fig = _new_figure(max(6.4, 3.0 * len(names)), 1.0 + 2.5 * len(slows))
    axes = fig.subplots(len(slows), len(names), sharex=True, sharey=True, squeeze=False)
    for line, slow in zip(axes, slows, strict=True):
        for ax, name in zip(line, names, strict=True):
            _density_panel(ax, rows[(rows["learner"] == name) & (rows["slow"] == slow)], world)
        line[0].set_ylabel(f"slow factor {slow:g}\ndensity" if world.modes == 2 else "density")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name)
    for ax in axes[-1]:
        ax.set_xlabel("x")
    axes[0, 0].set(xlim=(-7.5, max(7.0, world.place + 2)), ylim=(0, 0.72), xticks=(-6, -3, 0, 3, 6))
    _density_legend(fig, 4 if len(names) > 2 else 2)
    return _record(fig, rows)


def _density_panel(ax: Axes, part: pd.DataFrame, world: World) -> None:
    style = learner_style(part["learner"].iloc[0])
    for weight, mean, sd in (OLD_MODE, world.new_mode):
        ax.plot(grid(), weight * np.exp(log_normal(grid(), mean, sd)), color="black", ls="--", lw=1)
    looks = {"start": {"color": GREY, "ls": ":"}, "half way": {"color": style.colour, "alpha": 0.4, "lw": 1.2}}
    for moment, rows in part.groupby("moment", sort=False):
        ax.plot(rows["x"], rows["density"], **looks.get(moment, {"color": style.colour, "lw": 2}))
    first, last = part[part["moment"] == "start"].iloc[0], part[part["moment"] == "end"].iloc[0]
    text = f"old kept {first['kept']:.2f} to {last['kept']:.2f}\nnew gained {last['gain']:.2f}, step {last['step']}"
    ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=8.5)


def _density_legend(fig: Figure, columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="black", ls="--", lw=1, label="the two modes"),
        Line2D([], [], color=GREY, ls=":", label="policy at the start"),
        Line2D([], [], color=GREY, alpha=0.5, lw=1.2, label="half way"),
        Line2D([], [], color=GREY, lw=2, label="where the run stops"),
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=columns)


@use_style()
def slow_curves(rows: pd.DataFrame, start: float) -> Figure:
    """Accuracy kept on the old mode at equal gain against the slow factor (log x), a line per learner.

    `rows` as from `outcomes`; `start`: that accuracy before training. Runs that never reached the gain are left out.
    Drawn columns: learner, slow, mean, low, high, seeds, start.
    """
    summary = seed_summary(_reached(rows), ["learner", "slow"], "kept")
    fig = _new_figure(8.4, 4.4)
    ax = fig.add_subplot()
    labels = _kept_lines(ax, summary, "slow")
    ax.axhline(start, color=GREY, ls=":", lw=1.2)
    labels.append(Label(math.inf, start, f"before training {start:.2f}", GREY))
    ax.set_xscale("log")
    ax.set_xticks(sorted(summary["slow"].unique()))
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set(ylim=(-0.02, 0.9), xlabel="slow factor on the old mode's gradients (log scale; 1: no slowing)")
    ax.set(ylabel="accuracy kept on the old mode", title="What is kept at equal gain")
    _direct_labels(ax, labels)
    _note(fig, _seed_note(summary["seeds"]))
    return _record(fig, summary.assign(start=start))


def _reached(rows: pd.DataFrame) -> pd.DataFrame:
    there = rows[rows["reached"] == 1]
    if there.empty:
        raise UserError("No run reached the gain, so nothing compares: give more steps or ask for a smaller gain.")
    return there


def _kept_lines(ax: Axes, summary: pd.DataFrame, x: str) -> list[Label]:
    """A line with its band per learner; returns the labels for their ends."""
    labels = []
    for name in summary["learner"].unique():
        part, style = summary[summary["learner"] == name].sort_values(x), learner_style(name)
        ax.plot(part[x], part["mean"], label=name, **style.line())
        ax.fill_between(part[x], part["low"], part["high"], color=style.colour, alpha=0.15, lw=0)
        labels.append(Label(part[x].iloc[-1], part["mean"].iloc[-1], name, style.colour))
    return labels


@use_style()
def distance_panels(rows: pd.DataFrame) -> Figure:
    """Accuracy kept on the old mode at equal gain against the place of the new mode, a panel per slow factor.

    `rows`: `outcomes` of several worlds with a column place. Drawn columns: learner, slow, place, mean, low, high,
    seeds.
    """
    summary = seed_summary(_reached(rows), ["learner", "slow", "place"], "kept")
    slows = sorted(summary["slow"].unique())
    fig = _new_figure(1.8 + 3.6 * len(slows), 3.9)
    axes = fig.subplots(1, len(slows), sharey=True, squeeze=False)[0]
    for ax, slow in zip(axes, slows, strict=True):
        _kept_lines(ax, summary[summary["slow"] == slow], "place")
        ax.set(xlabel="mean of the new mode", title=f"slow factor {slow:g}")
        ax.set_xticks(sorted(summary["place"].unique()))
    axes[0].set(ylim=(-0.02, 0.9), ylabel="accuracy kept on the old mode")
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside right center")
    _note(fig, _seed_note(summary["seeds"]))
    return _record(fig, summary)


def mixture_view(slow: float, sft_rate: float, reinforce_rate: float, place: float, draws: str, modes: int) -> Figure:
    """SFT and REINFORCE on a one-dimensional mixture: densities before, half way and at equal gain."""
    draws = draws if modes == 2 else "whole"
    learners = {"SFT": Learner("sft", sft_rate), "REINFORCE": Learner("reinforce", reinforce_rate, draws=draws)}
    world = World(place, modes)
    return mixture_panels(density_rows(learners, world, Effort((slow,), seeds=1)), world)
