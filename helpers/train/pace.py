"""When a run is evaluated and when it ends: on a fixed schedule, or as soon as the puzzle is solved."""

from __future__ import annotations

from collections.abc import Iterable

from helpers.study.checkpoints import evaluation_steps
from helpers.study.profiles import checkpoint_steps
from helpers.study.spec import RunSpec
from helpers.train.settings import Settings

MOVED = 0.2  # exact match from which on a run is evaluated often
EARLY = 64  # step whose checkpoint is kept: a model that has hardly been trained, from which `sft-self` learns
WARM_UP = 10  # steps
EARLIEST = 8  # step: while the rate warms up little moves
DECAY_SHARE = 0.25  # of the steps before it


class Pace:
    """The schedule of one run, which knows the exact match at its evaluations so far.

    A run that goes `until` an exact match keeps its rate up to the first evaluation that reaches it, at most `steps`
    steps; then a quarter as many follow at a rate that falls to zero. Without `until` a run has just its `steps`.
    At the first evaluation that reaches its `mark` the model is examined in every way.
    """

    def __init__(self, spec: RunSpec, settings: Settings) -> None:
        self.cap, self.until, self.mark = spec.steps, float(spec.settings.get("until", 0)), spec.mark
        at_once = int(spec.settings.get("steps_per_generation", 1))
        self.sparse, self.dense = set(evaluation_steps(spec.steps, settings.per_octave, at_once)), set()
        if settings.dense:
            self.sparse, self.dense = (
                {-(-s // at_once) * at_once for s in checkpoint_steps(spec.steps, often) if s >= EARLIEST}
                for often in (settings.per_octave, settings.dense)
            )
        self.exact, self.turn, self.examined = 0.0, 0, 0  # the last two: steps

    def replay(self, evaluated: Iterable[tuple[int, float]]) -> None:
        """Catch up with the (step, exact match) pairs that a stopped run left."""
        for step, exact in sorted(evaluated):
            self.note(step, exact)

    def note(self, step: int, exact: float) -> bool:
        """Take notice of an evaluation; whether the model is to be examined in every way now."""
        self.exact = exact
        first = step > 0 and exact >= self.mark and not self.examined
        full = first or step == self.end
        self.examined = step if first else self.examined
        if self.until and not self.turn and step and exact >= self.until:
            self.turn = step
        return full

    @property
    def end(self) -> int:
        """The last step, as far as is known by now."""
        return self.turn + max(8, round(DECAY_SHARE * self.turn)) if self.turn else self.cap

    @property
    def most(self) -> int:
        """More steps than this no run takes."""
        return self.cap + max(8, round(DECAY_SHARE * self.cap)) if self.until else self.cap

    def due(self, step: int) -> bool:
        """Whether the model is evaluated after a step."""
        if step == self.end:
            return True
        often = not self.turn and self.exact > MOVED and step in self.dense
        return often or (not self.turn and step in self.sparse)

    def share(self, step: int) -> float:
        """Share of the learning rate after `step` steps of a run that goes until something."""
        if step < WARM_UP:
            return step / WARM_UP
        return max(0.0, (self.end - step) / (self.end - self.turn)) if self.turn else 1.0
