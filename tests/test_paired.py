"""Tests on paired differences: by hand, against tables and against a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.errors import UserError
from helpers.stats import paired

VALUES = [0.1, 0.2, 0.3]  # mean .2, standard deviation .1, standard error .1 / sqrt(3)


def p_of_two_degrees(t: float) -> float:
    """P(T > t) of Student's t with two degrees of freedom, which has a closed form."""
    return 0.5 - t / (2 * math.sqrt(2 + t * t))


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.2, 0.35])
def test_a_one_sided_test_by_hand(margin: float) -> None:
    t = (0.2 - margin) * math.sqrt(3) / 0.1
    assert paired.one_sided(VALUES, margin) == pytest.approx(p_of_two_degrees(t))


def test_equivalence_is_the_worse_of_two_one_sided_tests() -> None:
    near, far = ((margin - 0.2) * math.sqrt(3) / 0.1 for margin in (0.5, -0.5))
    assert p_of_two_degrees(near) > p_of_two_degrees(-far)
    assert paired.equivalence(VALUES, 0.5) == pytest.approx(p_of_two_degrees(near))
    assert paired.equivalence([-v for v in VALUES], 0.5) == paired.equivalence(VALUES, 0.5)
    assert paired.equivalence(VALUES, 0.1) > 0.5


@pytest.mark.parametrize(
    ("values", "said"),
    [([], "0 bases of at least 3"), ([1.0], "1 base of at least 3"), ([1.0, 2.0], "2 bases"),
     ([1.0, 2.0, math.nan], "not finite"), ([1.0, math.inf, 2.0], "not finite"),
     ([0.1 + 0.2, 0.3, 0.3], "all differences are equal")],
)  # fmt: skip
def test_what_cannot_be_tested_has_no_p_value_and_one_reason(values: list[float], said: str) -> None:
    assert said in paired.no_test(values) and paired.no_test(VALUES) == ""
    assert math.isnan(paired.one_sided(values, 0.0)) and math.isnan(paired.equivalence(values, 0.1))


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_an_equivalence_needs_a_margin(margin: float) -> None:
    with pytest.raises(UserError, match="margin is"):
        paired.equivalence(VALUES, margin)


@pytest.mark.parametrize(("n", "spread", "true"), [(3, 0.02, 0.0), (6, 0.05, 0.0), (8, 0.04, 0.02), (6, 0.05, 0.05)])
def test_power_is_the_share_of_simulated_studies_that_show_equivalence(n: int, spread: float, true: float) -> None:
    draws = np.random.default_rng(7).normal(true, spread, (100_000, n))
    error = draws.std(1, ddof=1) / math.sqrt(n)
    shown = np.abs(draws.mean(1)) + stats.t.isf(0.05, n - 1) * error < 0.05
    found = paired.power_of_equivalence(n, spread, 0.05, true=true)
    assert found == pytest.approx(shown.mean(), abs=0.005)
    some = [paired.equivalence(row, 0.05) < 0.05 for row in draws[:50]]
    assert some == shown[:50].tolist()


def test_power_at_its_ends() -> None:
    assert paired.power_of_equivalence(10, 1e-4, 0.05) == pytest.approx(1.0)
    assert paired.power_of_equivalence(5, 10.0, 0.05) == pytest.approx(0.0, abs=1e-4)
    at_margin = paired.power_of_equivalence(20, 0.02, 0.05, true=0.05)
    assert at_margin == pytest.approx(0.05, abs=1e-4)  # with much room one test rejects always, the other at alpha


@pytest.mark.parametrize(("n", "spread", "alpha"), [(2, 0.1, 0.05), (5, 0.0, 0.05), (5, 0.1, 0.0), (5, 0.1, 0.5)])
def test_a_power_of_nothing_is_refused(n: int, spread: float, alpha: float) -> None:
    with pytest.raises(UserError):
        paired.power_of_equivalence(n, spread, 0.05, alpha)


def test_the_bases_needed_are_the_fewest_that_give_the_power() -> None:
    need = paired.bases_needed(0.05, 0.05)
    below, enough = (paired.power_of_equivalence(n, 0.05, 0.05) for n in (need - 1, need))
    assert below < 0.8 <= enough
    assert paired.bases_needed(0.001, 0.05) == 3 and paired.bases_needed(0.05, 0.05, most=need - 1) is None


def test_holm_by_hand() -> None:
    found = paired.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": math.nan})
    # sorted: .005 x 5, .01 x 4, .03 x 3, .04 x 2 = .08 but no less than the .09 before it, 1
    assert found == pytest.approx({"a": 0.04, "b": 0.09, "c": 0.09, "d": 0.025, "e": 1.0})
    assert list(found) == ["a", "b", "c", "d", "e"] and paired.holm({}) == {}
    assert paired.holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_p_value_and_bonferronis(values: list[float]) -> None:
    found = paired.holm(dict(zip(map(str, range(len(values))), values, strict=True)))
    pairs = list(zip(values, found.values(), strict=True))
    assert all(p <= adjusted <= min(len(values) * p, 1) for p, adjusted in pairs)
    assert [p for p, _ in sorted(pairs)] == [p for p, _ in sorted(pairs, key=lambda pair: (pair[1], pair[0]))]
