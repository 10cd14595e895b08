"""A softmax in miniature: what one step on one answer does to the others (the squeeze), and a shared layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from helpers.errors import UserError

Array = np.ndarray
WORDS = 20


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
        vector = np.zeros(words)
        for word, advantage in self.advantages:
            if not 1 <= word <= words:
                raise UserError(f"There is no word {word}: choose 1 to {words}.")
            vector[word - 1] += advantage
        return vector


def start_logits(peak: float, words: int = WORDS) -> Array:
    """Logits (words,) with pi_i proportional to i^-peak: 0 is uniform, 1 is Zipf's law, 3 is very peaked.

    Raises UserError below two words or for a negative peak.
    """
    if words < 2 or peak < 0:
        raise UserError(f"A start needs two words or more and a peak of 0 or more, not {words} and {peak}.")
    return -peak * np.log(np.arange(1, words + 1))


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
    kernel = similarity * np.eye(len(trained))
    return -lesson.rate * a_matrix(observed) @ kernel @ residual(trained, lesson.vector(len(trained)))


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
    rising = probabilities + probabilities[word - 1] > (probabilities**2).sum()
    rising[word - 1] = False
    return rising


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
    frames = []
    for panel, lesson in lessons.items():
        after, once = learn(logits, lesson), learn(logits, replace(lesson, steps=1))
        frames.append(_word_rows(panel, (logits, once, after), predicted_shift(logits, logits, lesson)))
    return pd.concat(frames, ignore_index=True)


def shared_table(layer: SharedLayer, lesson: Lesson) -> pd.DataFrame:
    """`lesson` on the first prompt of `layer`, seen from every prompt: columns as in `squeeze_table`."""
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
