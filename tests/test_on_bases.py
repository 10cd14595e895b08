"""Claims on bases: what differs between cells, and the tests that decide, on fronts whose answers are known."""

import math

import pandas as pd
import pytest
from rows import front_run
from test_claims import claim, evidence

from helpers.errors import UserError
from helpers.stats.intervals import seed_interval
from helpers.verdicts import claims, on_bases
from helpers.verdicts.claims import Claim
from helpers.verdicts.on_bases import OnBases
from helpers.verdicts.statistics import Evidence

BASES = "abcd"
RATES = (1e-5, 3e-5, 1e-4)
SFT, RFT = "sft-answer direct", "rft direct"
HIGH, LOW = (0.30, 0.32, 0.34, 0.36), (0.10, 0.14, 0.12, 0.16)  # apart by .20 .18 .22 .20
T = 3.182446  # the 97.5% quantile of Student's t with three degrees of freedom
ERROR = math.sqrt((0.02**2 + 0.02**2) / 3 / 4)
QUESTION = {"first": SFT, "second": RFT}


def cell(name: str, drops: tuple[float, ...], slow: float = 0.5, fast: float = 0.6) -> list[dict[str, object]]:
    """A front of three rates on four bases that is best at the middle one, where the drops are those given."""
    fronts = [zip(RATES, (slow, middle, fast), strict=True) for middle in drops]
    points = [(base, *point) for base, front in zip(BASES, fronts, strict=True) for point in front]
    return [front_run(name, *point) for point in points]


def given(*rows: list[dict[str, object]]) -> Evidence:
    known = evidence()
    return Evidence(known.quantities, known.evaluations, known.tables, pd.DataFrame(sum(rows, [])))


def asked(threshold: float = 0.1, direction: str = ">", **fields: object) -> Claim:
    start = {"statistic": "difference_of_cells", "arguments": QUESTION, "test": "superiority", "rule": "undecided"}
    return claim(direction, threshold, **start | fields)


def p_of_three_degrees(t: float) -> float:
    """P(T > t) of Student's t with three degrees of freedom, which has a closed form."""
    x = t / math.sqrt(3)
    return 0.5 - (x / (1 + x * x) + math.atan(x)) / math.pi


# --- statistics -------------------------------------------------------------------------------------------


def test_a_difference_of_cells_by_hand() -> None:
    found = on_bases.difference_of_cells(given(cell(SFT, HIGH), cell(RFT, LOW)), SFT, RFT)
    assert found.differences == pytest.approx((0.20, 0.18, 0.22, 0.20))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2 - T * ERROR, 0.2 + T * ERROR))
    assert (found.seeds, found.ran, found.cells) == (4, 4, (SFT, RFT))
    assert (found.doubts, found.late, found.logs) == ((), (), False)


def test_a_cost_ratio_by_hand() -> None:
    rows = pd.DataFrame(cell(SFT, HIGH) + cell(RFT, LOW))
    for base, times in zip(BASES, (2, 4, 8, 4), strict=True):
        here = (rows["cell"] == RFT) & (rows["base"] == base)
        rows.loc[here, "flops"] *= times
    found = on_bases.cost_ratio(given(rows.to_dict("records")), RFT, SFT)
    error = math.sqrt(2 / 3 / 4)  # of the logarithms to base 2: 1, 2, 3, 2
    assert (found.value, found.low, found.high) == pytest.approx((4, 2 ** (2 - T * error), 2 ** (2 + T * error)))
    assert found.differences == pytest.approx([n * math.log(2) for n in (1, 2, 3, 2)]) and found.logs
    turned = on_bases.cost_ratio(given(rows.to_dict("records")), SFT, RFT)
    assert turned.value == pytest.approx(1 / 4) and turned.low == pytest.approx(1 / found.high)
    more = asked(1.0, statistic="cost_ratio", arguments={"first": RFT, "second": SFT})
    assert claims.tested(more, found).claim == pytest.approx(p_of_three_degrees(2 / error))
    assert claims.decide(more, found) == ("holds", "") and claims.decide(more, turned) == ("fails", "")
    assert claims.tested(asked(4.0, statistic="cost_ratio"), found).claim == pytest.approx(0.5)


def test_the_drop_of_one_cell_by_hand() -> None:
    made = asked(0.2, "<", statistic="drop_of_cell", arguments={"cell": RFT})
    found = made.estimate(given(cell(RFT, LOW)))
    second = [drop + 0.01 for drop in LOW]  # on the half of the items that is reported
    assert found.differences == pytest.approx(second) and found.cells == (RFT,)
    assert (found.value, found.low, found.high) == pytest.approx((0.14, *seed_interval(pd.Series(second))[1:]))
    assert claims.decide(made, found) == ("holds", "")
    assert made.estimate(given(cell(SFT, LOW))) is None


def test_costs_at_the_chosen_rates_and_with_what_feeds_a_run() -> None:
    rows = pd.concat([given(cell(SFT, HIGH)).fronts, given(cell(RFT, LOW)).fronts], ignore_index=True)
    rows["flops"] = [1e9 if rate != RATES[1] else 1e12 for rate in rows["rate"]]  # the chosen rate is a dear one
    rows.loc[rows["cell"] == RFT, "flops"] *= [2.0, 4.0, 8.0] * 4
    known = given(rows.to_dict("records"))
    assert on_bases.cost_at_choice(known, RFT, SFT).value == pytest.approx(4)
    assert on_bases.cost_ratio(known, RFT, SFT).value == pytest.approx(2)
    fed = given(rows.assign(source_flops=(rows["cell"] == RFT) * 3e9).to_dict("records"))
    assert on_bases.cost_ratio(fed, RFT, SFT, of_sources="counted").value == pytest.approx(5)


def test_equal_cells_fall_back_where_a_base_never_arrives() -> None:
    names = ("sft", "rft-no-kl", "sft-kl", "rft")
    both = [cell("sft-kl", HIGH), cell("rft", LOW)]
    all_there = given(cell("sft", LOW), cell("rft-no-kl", HIGH), *both)
    assert on_bases.equal_cells(all_there, *names).cells == names[:2]
    lost = cell("rft-no-kl", (math.nan, *HIGH[1:]), math.nan, math.nan)
    assert on_bases.equal_cells(given(cell("sft", LOW), lost, *both), *names).cells == names[2:]
    once = cell("rft-no-kl", (math.nan, *HIGH[1:]))  # the base arrives at other rates
    assert on_bases.equal_cells(given(cell("sft", LOW), once, *both), *names).cells == names[:2]
    not_yet = on_bases.equal_cells(given(cell("sft", LOW), cell("rft-no-kl", HIGH)[3:], *both), *names)
    assert not_yet.cells == names[:2] and not_yet.doubts == ("rft-no-kl was not run on a",)
    assert on_bases.equal_cells(given(cell("sft", LOW), lost), *names) is None


def test_a_cell_that_was_not_run_has_no_estimate() -> None:
    for statistic in (on_bases.difference_of_cells, on_bases.cost_ratio):
        assert statistic(given(cell(SFT, HIGH)), SFT, RFT) is None and statistic(evidence(), SFT, RFT) is None


# --- what leaves a claim undecided ------------------------------------------------------------------------


def test_a_base_that_is_missing_leaves_it_undecided_whatever_the_rest_shows() -> None:
    found = on_bases.difference_of_cells(given(cell(SFT, HIGH), cell(RFT, LOW)[3:]), SFT, RFT)
    assert found.ran == found.seeds == 3 and claims.decide(asked(rule="left out"), found) == (
        "undecided",
        "rft direct was not run on a",
    )
    elsewhere = given(cell(SFT, HIGH), cell(RFT, LOW), [front_run("another", "e", 1e-5, 0.1)])
    assert "was not run on e" in claims.decide(asked(), on_bases.cost_ratio(elsewhere, SFT, RFT)).reason


def test_a_rate_at_the_edge_leaves_it_undecided() -> None:
    found = on_bases.difference_of_cells(given(cell(SFT, HIGH), cell(RFT, LOW, fast=0.0)), SFT, RFT)
    assert claims.decide(asked(), found) == (
        "undecided",
        "the rate chosen for rft direct lies at the edge of its front on a, b, c, d",
    )
    assert math.isnan(claims.tested(asked(), found).claim)


def test_the_rule_says_what_follows_where_a_base_does_not_arrive() -> None:
    rows = cell(RFT, LOW)
    rows[1] |= front_run(RFT, "a", RATES[1], math.nan)
    found = on_bases.difference_of_cells(given(cell(SFT, HIGH), rows), SFT, RFT)
    # The other bases lose the middle rate, since it fails on a; the slowest saves .1 over the fastest, whatever follows
    assert "no rate" not in str(found.late) and found.late == ("rft direct did not reach 0.7 at the rate chosen for a",)
    assert found.doubts == ("the rate chosen for rft direct lies at the edge of its front on b, c, d",)
    lone = OnBases(0.2, 0.1, 0.3, 3, 4, (0.20, 0.18, 0.22), late=found.late)
    assert claims.decide(asked(), lone) == ("undecided", found.late[0])
    assert claims.decide(asked(rule="left out"), lone) == ("holds", "")


def test_where_no_rate_arrives_on_all_others_none_is_chosen() -> None:
    rows = cell(RFT, (math.nan, *LOW[1:]), math.nan, math.nan)
    found = on_bases.difference_of_cells(given(cell(SFT, HIGH), rows), SFT, RFT)
    assert (
        found.seeds == 0
        and math.isnan(found.value)
        and found.late
        == (
            "no rate of rft direct reached 0.7 on every base but b, c, d",
            "rft direct did not reach 0.7 at the rate chosen for a",
        )
    )
    spent = on_bases.cost_ratio(given(cell(SFT, HIGH), rows), RFT, SFT)
    assert spent.seeds == 3 and spent.late == ("rft direct never reached 0.7 on a",)


# --- tests ------------------------------------------------------------------------------------------------


def of(*differences: float) -> OnBases:
    return OnBases(*seed_interval(differences), len(differences), len(differences), differences)


APART = (0.20, 0.18, 0.22, 0.20)


@pytest.mark.parametrize(
    ("direction", "threshold", "expected"),
    [(">", 0.1, "holds"), (">", 0.3, "fails"), (">", 0.19, "undecided"), (">", 0.21, "undecided"),
     ("<", 0.3, "holds"), ("<", 0.1, "fails"), ("<", 0.21, "undecided"), ("<", 0.19, "undecided")],
)  # fmt: skip
def test_superiority(direction: str, threshold: float, expected: str) -> None:
    made, found = asked(threshold, direction), of(*APART)
    sign = 1 if direction == ">" else -1
    assert claims.tested(made, found).claim == pytest.approx(p_of_three_degrees(sign * (0.2 - threshold) / ERROR))
    assert claims.decide(made, found)[0] == expected


@pytest.mark.parametrize(
    ("differences", "threshold", "expected"),
    [(APART, 0.25, "holds"), (APART, 0.1, "fails"), (APART, 0.19, "undecided"), (APART, 0.21, "undecided"),
     ([-v for v in APART], 0.25, "holds"), ([-v for v in APART], 0.1, "fails"),
     ((0.02, -0.02, 0.01, -0.01), 0.05, "holds"), ((0.2, -0.2, 0.1, -0.1), 0.05, "undecided")],
)  # fmt: skip
def test_equivalence(differences: list[float], threshold: float, expected: str) -> None:
    assert claims.decide(asked(threshold, "<", test="equivalence"), of(*differences))[0] == expected


def test_what_fails_an_equivalence_is_a_one_sided_test_at_the_margin() -> None:
    made = asked(0.18, "<", test="equivalence")  # t = .02 / ERROR = 2.449, p = .046; the interval reaches to .174
    found = of(*APART)
    assert p_of_three_degrees(0.02 / ERROR) < 0.05 and found.low < 0.18
    assert claims.tested(made, found).claim == pytest.approx(1 - p_of_three_degrees(0.02 / ERROR))
    assert claims.decide(made, found) == ("fails", "")


@pytest.mark.parametrize(
    ("differences", "said"), [((0.2, 0.3), "2 bases of at least 3"), ((0.2, 0.2, 0.2), "no spread to test with")]
)
def test_what_cannot_be_tested_is_undecided(differences: tuple[float, ...], said: str) -> None:
    verdict, reason = claims.decide(asked(), of(*differences))
    assert verdict == "undecided" and said in reason


def test_holms_correction_spans_the_primary_family_and_no_other() -> None:
    close = given(cell(SFT, HIGH), cell(RFT, LOW))
    alone, primary = asked(0.18, id="alone"), [asked(0.18, id=name, family="primary") for name in ("one", "two")]
    p = p_of_three_degrees(0.02 / ERROR)
    assert 0.025 < p < 0.05
    missing = asked(0.1, id="missing", family="primary", arguments={"first": SFT, "second": "nothing"})
    found = claims.p_values(close, [alone, *primary, missing]).set_index("claim")
    assert found["p"].to_dict() == pytest.approx({"alone": p, "one": p, "two": p, "missing": math.nan}, nan_ok=True)
    assert found["adjusted"].to_dict() == pytest.approx({"alone": p, "one": 3 * p, "two": 3 * p, "missing": 1.0})
    rows = claims.table(close, [alone, *primary, missing]).set_index("claim")
    assert rows["verdict"].to_dict() == {"alone": "holds"} | dict.fromkeys(("one", "two", "missing"), "undecided")
    assert rows.loc["one", "reason"] == "the test gives p = 0.14, after Holm"
    assert rows.loc["missing", "reason"] == claims.NO_VALUE
    assert claims.count_sentence(rows.reset_index()).endswith(
        "and 1 were not run. The other 2 are on bases and could not be tested, or their tests show nothing."
    )


def test_a_primary_claim_is_as_hard_to_fail_as_to_hold() -> None:
    close = given(cell(SFT, HIGH), cell(RFT, LOW))
    turned = {"first": RFT, "second": SFT}  # the same differences with the other sign
    fields = [asked(0.18, id="one"), asked(-0.18, id="two", arguments=turned), asked(0.18, "<", id="three")]
    alone = claims.table(close, fields)["verdict"].tolist()
    assert alone == ["holds", "fails", "fails"]
    primary = [Claim(**made.model_dump() | {"family": "primary"}) for made in fields]
    assert set(claims.table(close, primary)["verdict"]) == {"undecided"}
    found, p = claims.p_values(close, primary), p_of_three_degrees(0.02 / ERROR)
    assert found["adjusted"].tolist() == pytest.approx([3 * p, 1.0, 1.0])
    assert found["against"].tolist() == pytest.approx([1 - p, 3 * p, 3 * p])


def test_an_exploratory_claim_is_not_corrected() -> None:
    close = given(cell(SFT, HIGH), cell(RFT, LOW))
    two = [asked(0.18, id=name, family="exploratory") for name in ("one", "two")]
    assert set(claims.table(close, two)["verdict"]) == {"holds"}


def test_a_part_of_the_primary_family_is_not_enough_for_holm() -> None:
    whole = claims.all_claims("primary")
    with pytest.raises(UserError, match="whole family: give form-direct-rft-keeps"):
        claims.table(evidence(), whole[1:])
    assert len(claims.p_values(evidence(), whole)) == len(whole)


# --- the primary claims -----------------------------------------------------------------------------------


def test_the_primary_claims_are_undecided_until_they_are_run_and_not_among_the_published() -> None:
    rows = claims.table(evidence(), claims.all_claims("primary"))
    assert rows["claim"].tolist() == [
        "form-direct-rft-keeps", "paper-pairing-rft-keeps", "rft-costs-more", "rollouts-as-rft", "algorithm-equal",
        "outside-words-cost",
    ]  # fmt: skip
    assert set(rows["verdict"]) == {"undecided"} and set(rows["reason"]) == {claims.NO_VALUE}
    assert not set(rows["claim"]) & {made.id for made in claims.all_claims()}
    assert "| rft" not in claims.markdown(rows) and claims.markdown(rows).count("undecided: not run | 11, `bases_") == 6


@pytest.mark.parametrize("made", claims.all_claims("primary"), ids=lambda made: made.id)
def test_a_primary_claim_says_what_would_change_our_mind_and_what_was_known(made: Claim) -> None:
    assert made.rule == "undecided" and made.revise and "first trial on one base" in made.notes
    assert (made.test, made.threshold) in {("superiority", 0.1), ("superiority", 1.0), ("equivalence", 0.05)}


def test_the_primary_claims_on_fronts_where_all_of_them_hold() -> None:
    high, low = ("sft-answer plain", "sft-expert sentences", SFT), ("rft think", "sft-voice think", RFT)
    near = tuple(v + d for v, d in zip(LOW, (0.01, -0.01, 0.01, 0.0), strict=True))
    rows = [cell(name, HIGH) for name in high] + [cell(name, LOW) for name in low]
    rows += [cell("sft-rollout think", near), cell("rft-no-kl direct", HIGH[::-1])]
    # 4a: HIGH - HIGH[::-1] is -.06 -.02 .02 .06: nothing is shown of it
    for row in rows[5]:
        row["flops"] *= 3 + ord(row["base"])
    found = claims.table(given(*rows), claims.all_claims("primary")).set_index("claim")
    assert found["verdict"].to_dict() == dict.fromkeys(found.index, "holds") | {"algorithm-equal": "undecided"}
    assert (found["seeds"] == 4).all() and found.loc["rft-costs-more", "value"] == pytest.approx(101.5, abs=0.1)


def test_claims_on_bases_are_counted_in_words_of_their_own() -> None:
    alone = Evidence.on_bases(pd.DataFrame(cell(SFT, HIGH) + cell(RFT, LOW)))
    rows = claims.table(alone, claims.all_claims("primary"))
    assert rows.equals(claims.table(given(cell(SFT, HIGH), cell(RFT, LOW)), claims.all_claims("primary")))
    held = (rows["verdict"] == "holds").sum()
    assert claims.count_on_bases(rows).startswith(f"Of 6 claims {held} hold, ")
    assert claims.count_on_bases(rows).endswith(" 4 were not run, 1 could not be tested or their tests show nothing.")
    assert "| bases | verdict |" in claims.markdown(rows, "bases")


def test_what_would_change_our_mind_and_what_was_known_are_told_once() -> None:
    one, two = asked(id="a", revise="If not.", notes="A\ntrial."), asked(id="b", notes="A trial.")
    assert claims.minds([one, two]) == "* `a`: If not."
    assert claims.known_before([one, two, asked(id="c")]) == "* `a`, `b`: A trial."
