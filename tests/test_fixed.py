"""Claims as they were fixed: what decides one is hashed, prose is not, and only an amendment excuses a change."""

import pytest

from helpers.errors import UserError
from helpers.stats.paired import power_of_equivalence
from helpers.study import fixed

TEXT = """
[[claim]]
id = "name"
statement = "says"
statistic = "difference_of_cells"
arguments = { first = "sft-answer direct", second = "rft direct" }
direction = ">"
threshold = 0.1
test = "superiority"
rule = "undecided"
family = "primary"
notebook = "11"

[[claim]]
id = "other"
statistic = "of_runs"
arguments = { formula = "value", quantity = "steps", labels = ["rft"] }
direction = "<"
threshold = 1
"""
# printf '%s' '{"arguments":{"first":"sft-answer direct","second":"rft direct"},"direction":">","family":"primary",
# "rule":"undecided","statistic":"difference_of_cells","test":"superiority","threshold":0.1}' | sha256sum, on one line
GOLDEN = "03e89f6d4b9a"
THEN = fixed.claim_hashes(TEXT)


def amended(text: str, claim: str = "name", was: str = GOLDEN) -> str:
    return f'{text}\n[[amendment]]\nclaim = "{claim}"\nwas = "{was}"\nreason = "a slip of the pen"\n'


def test_the_hash_of_a_claim() -> None:
    assert THEN["name"] == GOLDEN and set(THEN) == {"name", "other"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("threshold = 0.1", "threshold = 0.05"), ('"rft direct"', '"rft think"'), ('test = "superiority"\n', ""),
     ('rule = "undecided"', 'rule = "left out"'), ('family = "primary"', ""), ('direction = ">"', 'direction = "<"')],
)  # fmt: skip
def test_what_decides_a_claim_changes_its_hash_and_is_reported(old: str, new: str) -> None:
    (said,) = fixed.changed(THEN, TEXT.replace(old, new, 1))
    assert said.startswith("Claim name is ") and f"was {GOLDEN} when the run was made" in said


@pytest.mark.parametrize(
    ("old", "new"),
    [('"says"', '"says it better"'), ('notebook = "11"', 'notebook = "12"\nfigure = "x"'),
     ('first = "sft-answer direct", second = "rft direct"', 'second = "rft direct", first = "sft-answer direct"'),
     ("threshold = 1\n", "threshold = 1.0\n"), ('direction = "<"', 'direction = "<"\ntest = ""')],
)  # fmt: skip
def test_prose_and_the_way_a_thing_is_written_do_not(old: str, new: str) -> None:
    text = TEXT.replace(old, new, 1)
    assert text != TEXT and fixed.changed(THEN, text) == []


def test_the_rules_of_the_study_decide_claims_on_bases_and_no_other() -> None:
    with_rules = "[study]\nat = 0.7\n" + TEXT
    recorded = fixed.claim_hashes(with_rules)
    assert recorded["other"] == THEN["other"] and recorded["name"] != GOLDEN
    (said,) = fixed.changed(recorded, with_rules.replace("0.7", "0.5"))
    assert said.startswith("Claim name is ")


def test_the_rules_of_the_study() -> None:
    rules = fixed.rules()
    assert 0 < rules.edge_gain < rules.at < rules.until_slow < rules.until < 1 and 0 < rules.alpha < 0.5
    assert len(set(rules.stems)) == len(rules.stems) >= 6


def test_the_power_that_the_claims_promise() -> None:
    n, text = len(fixed.rules().stems), " ".join(fixed.claims_text().replace("\n# ", " ").split())
    assert "a power of 0.8 where paired differences spread by up to 0.035" in text
    assert "under the strictest step of Holm's correction by up to 0.023" in text
    strictest = fixed.rules().alpha / len(fixed.current_hashes("primary"))
    for spread, alpha in ((0.035, fixed.rules().alpha), (0.023, strictest)):
        assert power_of_equivalence(n, spread, 0.05, alpha) > 0.8 > power_of_equivalence(n, spread + 0.002, 0.05, alpha)


def test_an_amendment_excuses_one_claim_as_it_was_and_no_other() -> None:
    text = TEXT.replace("threshold = 0.1", "threshold = 0.05")
    assert fixed.changed(THEN, amended(text)) == []
    assert fixed.changed(THEN, amended(text, was="0" * 12)) == fixed.changed(THEN, text)
    assert len(fixed.changed(THEN, amended(text, claim="other"))) == 1
    both = text.replace("threshold = 1\n", "threshold = 2\n")
    (said,) = fixed.changed(THEN, amended(both))
    assert said.startswith("Claim other is ")


def test_a_claim_that_is_gone_is_reported_and_a_new_one_is_not() -> None:
    (said,) = fixed.changed(THEN | {"lost": "abc"}, TEXT)
    assert said.startswith("Claim lost is gone, and was abc")
    assert fixed.changed({"other": THEN["other"]}, TEXT) == []


@pytest.mark.parametrize("more", ['extra = "x"', ""])
def test_an_amendment_says_why(more: str) -> None:
    text = f'[[amendment]]\nclaim = "name"\nwas = "{GOLDEN}"\n{more}'
    with pytest.raises(UserError, match="An amendment says claim, was, reason"):
        fixed.amendments(text)


def test_the_claims_of_this_suite_have_a_hash_each() -> None:
    now = fixed.current_hashes()
    assert len(now) == fixed.claims_text().count("[[claim]]") and all(len(value) == 12 for value in now.values())
    assert fixed.changed(now) == []
