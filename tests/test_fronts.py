"""Choosing a learning rate: tables whose answers are computed by hand."""

import math

import pandas as pd
import pytest
from rows import front_run

from helpers.errors import UserError
from helpers.stats import fronts

SLOW, MIDDLE, FAST, WILD = 1e-5, 3e-5, 1e-4, 3e-4
FIRST = {SLOW: (0.10, 0.12, 0.14), MIDDLE: (0.05, 0.20, 0.02), FAST: (0.30, 0.40, 0.50)}


CELL = "rft direct"


def front(drops: dict[float, tuple[float, ...]] = FIRST, **more: object) -> pd.DataFrame:
    points = [(base, rate, v) for rate, values in drops.items() for base, v in zip("abc", values, strict=True)]
    return pd.DataFrame([front_run(CELL, *point, **more) for point in points])


def by_base(rows: pd.DataFrame) -> pd.DataFrame:
    found = fronts.chosen(rows, CELL)
    assert list(found.columns) == ["base", "rate", "drop", "flops", "at_edge"]
    return found.set_index("base")


def test_each_base_takes_the_rate_that_is_best_on_the_others() -> None:
    found = by_base(front())
    # a: .13 at slow and .11 at the middle over b, c; b: .12 and .035 over a, c; c: .11 and .125 over a, b
    assert found["rate"].to_dict() == {"a": MIDDLE, "b": MIDDLE, "c": SLOW}
    assert found["drop"].to_dict() == pytest.approx({"a": 0.06, "b": 0.21, "c": 0.15})  # drop_second of its own
    assert found["at_edge"].to_dict() == {"a": False, "b": False, "c": False}  # c: slowest, but .015 < .02 gained


def test_a_base_has_no_say_in_its_own_rate() -> None:
    changed = front(FIRST | {SLOW: (-9.0, 0.12, 0.14)})
    assert by_base(changed).loc["a"].tolist() == by_base(front()).loc["a"].tolist()


def test_the_slowest_rate_is_an_edge_where_it_saves_much_unless_it_is_capped() -> None:
    falling = {SLOW: (0.10, 0.10, 0.10), MIDDLE: (0.12, 0.13, 0.12), FAST: (0.3, 0.3, 0.3)}
    # Over all bases the slowest saves (.12 + .13 + .12) / 3 - .1 = .023: not less than .02
    assert by_base(front(falling))["at_edge"].all()
    assert not by_base(front(falling, capped=True))["at_edge"].any()
    some = front(falling)
    some.loc[0, "capped"] = True  # of one base of three
    assert by_base(some)["at_edge"].all()
    some.loc[1, "capped"] = True
    assert not by_base(some)["at_edge"].any()
    lost = front(falling | {MIDDLE: (math.nan,) * 3})
    assert by_base(lost)["at_edge"].all()  # what the slowest saves over the next is not known


def test_whether_a_front_is_too_short_is_the_same_for_all_bases() -> None:
    # over b and c the slowest saves .025, over all three bases .018: no base calls the front too short
    falling = {SLOW: (0.10, 0.10, 0.10), MIDDLE: (0.104, 0.125, 0.125), FAST: (0.3, 0.3, 0.3)}
    assert not by_base(front(falling))["at_edge"].any()


def test_the_fastest_rate_is_an_edge_where_it_saves_much_over_the_next() -> None:
    rising = {SLOW: (0.3, 0.3, 0.3), MIDDLE: (0.2, 0.2, 0.2), FAST: (0.18, 0.18, 0.18)}
    assert by_base(front(rising, capped=True))["at_edge"].all()
    flat = by_base(front(rising | {FAST: (0.19, 0.19, 0.19)}))
    assert set(flat["rate"]) == {FAST} and not flat["at_edge"].any()
    beyond = by_base(front(rising | {WILD: (math.nan,) * 3}))  # a faster one was tried and never arrived
    assert set(beyond["rate"]) == {FAST} and not beyond["at_edge"].any()
    assert by_base(front({SLOW: (0.1, 0.1, 0.1)}))["at_edge"].all()


def test_what_is_planned_and_not_there_yet_says_nothing() -> None:
    planned = front(FIRST | {SLOW: (math.nan,) * 3}).assign(ran=True)
    planned.loc[planned["rate"] == SLOW, "ran"] = False
    rest = front({rate: FIRST[rate] for rate in (MIDDLE, FAST)})
    pd.testing.assert_frame_equal(by_base(planned), by_base(rest))


def test_of_equal_rates_the_larger_is_taken() -> None:
    tied = {SLOW: (0.3, 0.3, 0.3), MIDDLE: (0.1, 0.2, 0.3), FAST: (0.1, 0.1 + 0.1, 0.1 + 0.2), WILD: (0.4, 0.4, 0.4)}
    assert set(by_base(front(tied))["rate"]) == {FAST}


def test_a_rate_that_fails_on_another_base_is_not_taken_and_one_that_fails_here_has_no_drop() -> None:
    found = by_base(front(FIRST | {MIDDLE: (math.nan, 0.20, 0.02)}))
    assert found["rate"].to_dict() == {"a": MIDDLE, "b": SLOW, "c": SLOW}
    assert math.isnan(found.loc["a", "drop"]) and found.loc["b", "drop"] == pytest.approx(0.13)


def test_only_bases_that_ran_a_rate_speak_for_it() -> None:
    rows = front()
    rows = rows[~((rows["base"] == "b") & (rows["rate"] == MIDDLE))]
    found = by_base(rows)
    # a: .13 at slow, .02 at the middle over c alone; c: .11 at slow, .05 at the middle over a alone
    assert found["rate"].to_dict() == {"a": MIDDLE, "b": MIDDLE, "c": MIDDLE}
    assert math.isnan(found.loc["b", "drop"])


def test_a_base_alone_chooses_nothing() -> None:
    rows = front()
    found = by_base(rows[rows["base"] == "a"]).loc["a"]
    assert math.isnan(found["rate"]) and math.isnan(found["drop"]) and not found["at_edge"]
    assert fronts.chosen(rows, "no cell").empty and fronts.least_flops(rows, "no cell").empty


def test_the_fewest_flops_are_those_of_a_run_that_arrived() -> None:
    drops = {SLOW: (0.1, 0.1, math.nan), FAST: (0.3, math.nan, math.nan)}
    rows = front(drops)
    rows.loc[~rows["arrived"], "flops"] = 1.0  # spent, but never there
    found = fronts.least_flops(rows, CELL)
    assert found[["a", "b"]].to_dict() == pytest.approx({"a": 1e13, "b": 1e14}) and math.isnan(found["c"])
    assert fronts.arrived(rows, CELL).to_dict() == {"a": True, "b": True, "c": False}


def test_what_is_no_front_is_refused() -> None:
    with pytest.raises(UserError, match="two runs on a at one rate"):
        fronts.chosen(pd.concat([front(), front()]), CELL)
    with pytest.raises(UserError, match="lacks the column"):
        fronts.least_flops(front().drop(columns="flops"), CELL)
