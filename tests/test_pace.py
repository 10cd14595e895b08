"""The pace of a run: when it is evaluated, when it ends, and at which rate it goes."""

import pytest

from helpers.study.checkpoints import evaluation_steps
from helpers.study.fixed import rules
from helpers.study.spec import RunSpec
from helpers.train.pace import MOVED, Pace
from helpers.train.settings import Settings

OPEN = Settings(dense=6, ways=True)


def pace(steps: int = 400, until: float = 0.9, settings: Settings = OPEN) -> Pace:
    extra = (("until", until),) if until else ()
    return Pace(RunSpec("sft-answer", 0, steps, 1e-3, 2, extra=extra), settings)


def run(curve: dict[int, float], own: Pace) -> list[int]:
    """The steps at which a run is evaluated whose exact match is that of the last step of `curve` before it."""
    seen = []
    for step in range(own.most + 1):
        if own.due(step):
            seen.append(step)
            own.note(step, curve[max(s for s in curve if s <= step)])
        if step >= own.end:
            break
    return seen


def test_without_a_goal_a_run_keeps_its_schedule_and_its_steps() -> None:
    own = pace(until=0, settings=Settings())
    assert own.most == own.end == 400
    assert run({0: 0.0, 50: 0.95}, own) == [s for s in evaluation_steps(400, 2)]


def test_a_run_that_moves_is_looked_at_six_times_an_octave() -> None:
    slow, fast = run({0: 0.0}, pace()), run({0: 0.0, 60: MOVED + 0.01}, pace())
    assert slow == [8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 400]
    assert fast[:8] == slow[:7] + [72] and {72, 81, 91, 102, 114, 128} <= set(fast)


def test_a_run_ends_a_quarter_after_the_first_evaluation_that_reaches_its_goal() -> None:
    own = pace()
    seen = run({0: 0.0, 100: 0.91, 140: 0.5}, own)
    assert own.turn == 128  # the first looked at from step 100 on; what comes later does not count
    assert seen[-1] == own.end == 160
    assert not [step for step in seen if own.turn < step < own.end]  # the decay is reported apart, at its end


def test_a_run_that_never_arrives_stops_at_its_steps() -> None:
    own = pace()
    assert run({0: 0.89}, own)[-1] == own.end == 400 and own.most == 500


def test_one_that_arrives_at_the_last_step_still_decays() -> None:
    own = pace(64)
    assert run({0: 0.0, 64: 0.95}, own)[-2:] == [64, 80] and own.end == own.most == 80


def test_the_rate_warms_up_stays_and_falls_to_zero_behind_the_goal() -> None:
    own = pace()
    assert [own.share(step) for step in (0, 5, 10, 300)] == [0.0, 0.5, 1.0, 1.0]
    own.note(128, 0.95)
    assert [own.share(step) for step in (128, 144, 160)] == [1.0, 0.5, 0.0]


def test_every_way_is_asked_at_the_first_evaluation_from_seven_tenths_on_and_at_the_end() -> None:
    own = pace()
    assert [own.note(step, exact) for step, exact in ((8, 0.1), (16, rules().at), (23, 0.6), (32, 0.8))] == [
        False, True, False, False,
    ]  # fmt: skip
    own.note(45, 0.93)
    assert own.note(own.end, 0.94)


def test_a_run_that_goes_until_less_is_examined_where_it_turns_and_looked_at_often_before() -> None:
    own, seen = pace(until=0.5), run({0: 0.0, 60: MOVED + 0.01}, pace(until=0.5))
    assert {72, 81, 91, 102, 114, 128} <= set(seen)
    assert [own.note(step, exact) for step, exact in ((64, 0.49), (72, 0.5))] == [False, True]
    assert (own.turn, own.examined, own.end) == (72, 72, 90)


def test_a_resumed_run_knows_what_its_record_says() -> None:
    first, again = pace(), pace()
    history = [(8, 0.1), (16, 0.3), (18, 0.75), (20, 0.92)]
    for step, exact in history:
        first.note(step, exact)
    again.replay(reversed(history))
    assert vars(again) == vars(first)


@pytest.mark.parametrize("at_once", [4, 8])
def test_one_that_draws_for_several_steps_is_looked_at_where_it_draws_anew(at_once: int) -> None:
    extra = (("until", 0.9), ("steps_per_generation", at_once))
    own = Pace(RunSpec("rft-stale", 0, 400, 1e-3, 2, extra=extra), OPEN)
    assert all(step % at_once == 0 for step in run({0: 0.5}, own)[:-1])
