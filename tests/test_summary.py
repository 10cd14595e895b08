"""The summary: hand-computed numbers, interpolation, orders, and the file."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import evaluation

from helpers.errors import UserError
from helpers.stats import curves, summary, whole_summary
from helpers.study import cells
from helpers.study.spec import RunSpec
from helpers.verdicts.paper import beside_paper, fast_and_keeps, order_check, order_sentence, paper_numbers, paper_table

T_2 = 4.302652729911275  # 97.5% quantile of t with 2 degrees of freedom, from a printed table
PUZZLE = {0: 0.0, 10: 0.2, 20: 0.6, 40: 1.0}


def run_rows(arm: str, seed: int, puzzle: dict[int, float], prior: dict[int, tuple[float, float]]) -> list[dict]:
    """Rows of one run; two prior tasks, whose likelihood is 0.1 above their score."""
    rows = []
    for step, exact in puzzle.items():
        found = [("puzzle", "exact", exact, 500), ("puzzle", "hit", min(1.0, exact + 0.1), 500)]
        found.append(("puzzle", "format_failure", 0.0, 500))
        for task, score in zip(("colour", "count"), prior[step], strict=True):
            found += [(task, "score", score, 30), (task, "likelihood", score + 0.1, 30)]
            found.append((task, "format_failure", 0.5 * exact, 30))
        rows += [evaluation(f"{arm}-{seed}", step, *mark, samples=32 * step, n=n) for *mark, n in found]
    return rows


def evaluations(seeds: int = 3) -> pd.DataFrame:
    """rft loses 0.1 on `colour` at puzzle 0.2, 0.3 at 0.6, 0.4 at the end; seed s loses s hundredths more.

    sft-answer loses twice that; sft-expert never passes 0.2.
    """
    rows = run_rows("base", 0, {0: 0.0}, {0: (0.8, 0.6)})
    for seed in range(seeds):
        more = 0.01 * seed
        lost = {0: 0.0, 10: 0.1 + more, 20: 0.3 + more, 40: 0.4 + more}
        for arm, factor in (("rft", 1), ("sft-answer", 2)):
            rows += run_rows(arm, seed, PUZZLE, {s: (0.8 - factor * d, 0.6) for s, d in lost.items()})
        rows += run_rows("sft-expert", seed, {0: 0.0, 10: 0.2}, {0: (0.8, 0.6), 10: (0.8, 0.6)})
    return pd.DataFrame(rows)


def metrics(seeds: int = 3, minutes: bool = True) -> pd.DataFrame:
    """The norm of rft is step / 10."""
    rows = []
    for seed in range(seeds):
        where = {"run": f"rft-{seed}", "arm": "rft", "seed": seed, "samples": 0}
        rows += [where | {"step": s, "name": "update_norm", "value": s / 10} for s in (10, 20, 40)]
        rows += [where | {"step": 40, "name": "minutes", "value": 6.0 + seed}] * minutes
    columns = ["run", "arm", "seed", "samples", "step", "name", "value"]
    return pd.DataFrame(rows, columns=columns)


def tables(seeds: int = 3) -> dict[str, pd.DataFrame]:
    return {"evaluations": evaluations(seeds), "metrics": metrics(seeds)}


@pytest.fixture(scope="module")
def made() -> pd.DataFrame:
    return summary.summarise(tables())


def test_boards_of_another_grid_are_no_prior_task(made) -> None:
    known = evaluations()
    own = known[(known["task"] == "puzzle") & (known["step"] == known.groupby("run")["step"].transform("max"))]
    other = pd.concat([known, own.assign(task="puzzle 3x3", value=0.0)], ignore_index=True)
    pd.testing.assert_frame_equal(summary.summarise({"evaluations": other, "metrics": metrics()}), made)
    pd.testing.assert_frame_equal(curves.battery_mean(other), curves.battery_mean(known))
    stray = own[own["measure"] == "exact"].assign(task="puzzle 3x3", measure="score")
    drops = curves.task_drops(pd.concat([known, stray], ignore_index=True))
    pd.testing.assert_frame_equal(drops, curves.task_drops(known))


def value(frame: pd.DataFrame, quantity: str, arm: str, task: str = "all") -> float:
    return summary.look_up(frame, quantity, arm, task).value


def test_columns_and_no_gaps(made):
    assert tuple(made.columns) == summary.COLUMNS
    assert not made.isna().any().any()
    assert not made.duplicated(["quantity", "arm", "task"]).any()


def test_final_scores_of_each_task_and_of_their_mean(made):
    assert value(made, "prior_score", "base", "colour") == pytest.approx(0.8)
    assert value(made, "prior_score", "base") == pytest.approx(0.7)
    assert value(made, "prior_score", "rft", "colour") == pytest.approx(0.8 - 0.41)
    assert value(made, "prior_score", "rft") == pytest.approx((0.39 + 0.6) / 2)
    assert value(made, "prior_score_likelihood", "rft") == pytest.approx((0.49 + 0.7) / 2)
    assert value(made, "format_failure", "rft") == pytest.approx(0.5)
    assert value(made, "format_failure", "rft", "puzzle") == 0
    assert value(made, "puzzle_exact", "sft-expert", "puzzle") == pytest.approx(0.2)
    assert value(made, "puzzle_hit", "rft", "puzzle") == 1
    assert value(made, "steps", "rft", "puzzle") == 40
    assert value(made, "samples", "rft", "puzzle") == 1280


def test_items_behind_a_value(made):
    assert summary.look_up(made, "prior_score", "rft").n == 60
    assert summary.look_up(made, "prior_score", "rft", "colour").n == 30
    assert summary.look_up(made, "puzzle_exact", "rft", "puzzle").n == 500
    assert summary.look_up(made, "steps", "rft", "puzzle").n == 0


def test_interval_over_three_seeds_is_the_t_interval(made):
    row = summary.look_up(made, "prior_score", "rft", "colour")
    half = T_2 * 0.01 / 3**0.5  # standard deviation of 0, 0.01 and 0.02
    assert (row.low, row.high) == (pytest.approx(0.39 - half), pytest.approx(0.39 + half))
    assert row.seeds == 3


def test_crossing_is_interpolated_between_evaluated_steps(made):
    # 0.5 lies three quarters of the way from 0.2 (step 10) to 0.6 (step 20); 0.7 a quarter from 20 to 40.
    assert value(made, "steps_to_0.5", "rft", "puzzle") == pytest.approx(17.5)
    assert value(made, "samples_to_0.5", "rft", "puzzle") == pytest.approx(560)
    assert value(made, "steps_to_0.7", "rft", "puzzle") == pytest.approx(25)
    assert value(made, "update_norm_at_0.5", "rft", "puzzle") == pytest.approx(1.75)
    assert value(made, "update_norm", "rft", "puzzle") == pytest.approx(4)


def test_drop_at_equal_puzzle_accuracy(made):
    # colour has fallen by 0.1 + 0.75 * 0.2 = 0.25 (seed 0) at the crossing, the mean of two tasks by half of it
    assert value(made, "drop_at_0.5", "rft", "colour") == pytest.approx(0.26)
    assert value(made, "drop_at_0.5", "rft") == pytest.approx(0.13)
    assert value(made, "drop_at_0.5_likelihood", "rft") == pytest.approx(0.13)
    assert value(made, "drop_at_0.5", "sft-answer") == pytest.approx(0.26)
    assert value(made, "drop_at_0.7", "rft", "colour") == pytest.approx(0.3 + 0.025 + 0.01)
    assert value(made, "drop_final", "rft") == pytest.approx(0.205)
    assert value(made, "drop_final_likelihood", "sft-answer") == pytest.approx(0.41)


def test_an_arm_that_never_gets_there_has_no_row_at_it(made):
    there = made[made["arm"] == "sft-expert"]["quantity"]
    assert not there.str.contains("0.5|0.7").any()
    assert value(made, "drop_final", "sft-expert") == 0
    assert summary.interval_text(summary.look_up(made, "drop_at_0.5", "sft-expert")) == "not reached"


def test_seeds_counts_only_those_that_reach():
    table = evaluations()
    late = (table["run"] == "rft-2") & (table["task"] == "puzzle") & (table["measure"] == "exact")
    table.loc[late, "value"] = table.loc[late, "value"].clip(upper=0.4)
    row = summary.look_up(
        summary.summarise({"evaluations": table, "metrics": metrics()}), "steps_to_0.5", "rft", "puzzle"
    )
    assert (row.seeds, row.value) == (2, pytest.approx(17.5))


def test_a_run_that_starts_above_crosses_at_its_first_step():
    rows = pd.DataFrame(run_rows("rft", 0, {0: 0.9, 5: 1.0}, {0: (0.5, 0.5), 5: (0.5, 0.5)}))
    found = curves.crossings(rows, 0.5)
    assert found[["before", "after", "step"]].values.tolist() == [[0, 0, 0]]


@given(st.floats(0.01, 0.99), st.floats(0.0, 0.3))
def test_interpolated_crossing_lies_on_the_line(accuracy, start):
    if accuracy <= start:
        return
    rows = run_rows("rft", 0, {0: start, 100: 1.0}, {0: (0.5, 0.5), 100: (0.5, 0.5)})
    found = curves.crossings(pd.DataFrame(rows), accuracy).iloc[0]
    assert start + found["step"] / 100 * (1 - start) == pytest.approx(accuracy)


def test_minutes_only_where_recorded(made):
    assert value(made, "minutes", "rft", "puzzle") == pytest.approx(7)
    without = summary.summarise({"evaluations": evaluations(), "metrics": metrics(minutes=False)})
    assert "minutes" not in set(without["quantity"])


def test_no_metrics_at_all_is_fine():
    nothing = metrics(0)
    assert len(nothing) == 0
    made = summary.summarise({"evaluations": evaluations(1), "metrics": nothing})
    assert value(made, "drop_final", "rft") == pytest.approx(0.2)


def test_base_at_step_zero_stands_in_for_the_base_arm():
    table = evaluations()
    with_arm = summary.summarise({"evaluations": table, "metrics": metrics()})
    without = summary.summarise({"evaluations": table[table["arm"] != "base"], "metrics": metrics()})
    assert value(without, "drop_final", "rft") == pytest.approx(value(with_arm, "drop_final", "rft"))


def test_steps_that_lack_a_task_are_refused():
    table = evaluations(1)
    lacking = table[~((table["task"] == "count") & (table["step"] == 20))]
    with pytest.raises(UserError, match="score all tasks"):
        curves.battery_mean(lacking)


def test_two_runs_of_one_seed_are_refused():
    table, more = evaluations(1), evaluations(1)
    more = more[more["arm"] == "rft"].assign(run="rft-0-again")
    both = pd.concat([table, more])
    with pytest.raises(UserError, match="one setting"):
        summary.summarise({"evaluations": both, "metrics": metrics(1)})


def test_missing_tables_and_columns_are_named():
    with pytest.raises(UserError, match="metrics"):
        summary.summarise({"evaluations": evaluations(1)})
    with pytest.raises(UserError, match="measure"):
        summary.summarise({"evaluations": evaluations(1).drop(columns="measure"), "metrics": metrics(1)})


def test_the_file_repeats_byte_by_byte_whatever_the_order_of_rows(tmp_path):
    (tmp_path / "summary.csv").write_text(summary.csv_text(summary.summarise(tables())))
    shuffled = {name: frame.sample(frac=1, random_state=1) for name, frame in tables().items()}
    (tmp_path / "again.csv").write_text(summary.csv_text(summary.summarise(shuffled)))
    assert (tmp_path / "summary.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.csv", "summary.csv"]
    assert tuple(pd.read_csv(tmp_path / "summary.csv").columns) == summary.COLUMNS


def test_paper_table_has_scores_and_changes(made):
    table = paper_table(made).set_index("arm")
    assert list(table.index) == ["base", "rft", "sft-answer", "sft-expert"]
    assert list(table.columns[:4]) == ["steps", "puzzle accuracy", "prior mean", "prior mean change"]
    assert table.loc["rft", "prior mean change"] == pytest.approx(-0.205)
    assert table.loc["sft-answer", "colour change"] == pytest.approx(-0.82)
    assert table.loc["base", "count change"] == 0


def drops(**values: tuple[float, ...]) -> pd.DataFrame:
    rows = [
        {"quantity": "drop_final", "arm": arm.replace("_", "-"), "seed": seed, "task": "all", "value": v, "n": 1}
        for arm, several in values.items()
        for seed, v in enumerate(several)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        ((0.1, 0.11, 0.1), (0.3, 0.3, 0.31), "holds"),
        ((0.3, 0.3, 0.31), (0.1, 0.11, 0.1), "fails"),
        ((0.1, 0.2, 0.3), (0.3, 0.1, 0.2), "undecided"),
        ((0.1, 0.1), (0.3, 0.3), "undecided"),
    ],
)
def test_order_of_two_arms(low, high, verdict):
    check = order_check(drops(rft=low, sft_answer=high), "drop_final", ("rft", "sft-answer"))
    assert check["verdict"].tolist() == [verdict]
    assert check["difference"][0] == pytest.approx(sum(high) / len(high) - sum(low) / len(low))


def test_order_is_undecided_where_an_arm_is_missing():
    check = order_check(drops(rft=(0.1, 0.1, 0.1)), "drop_final")
    assert set(check["verdict"]) == {"undecided"}
    assert "is undecided at the end" in order_sentence(check, "at the end")
    assert "no seed of both" in order_sentence(check, "at the end")


def test_an_arm_that_is_faster_and_keeps_more_than_answer_sft():
    rows = pd.concat(
        [
            drops(rft=(0.1, 0.11, 0.1), sft_rollout=(0.1, 0.1, 0.11), sft_answer=(0.5, 0.5, 0.51)).assign(
                quantity="drop_at_0.5"
            ),
            drops(rft=(900, 910, 905), sft_rollout=(60, 70, 65)).assign(quantity="steps_to_0.5", task="puzzle"),
        ]
    )
    fast, keeps, matches = fast_and_keeps(rows, "sft-rollout")
    assert ": holds, difference +840" in fast
    assert ": holds, difference +0.400" in keeps
    assert ": undecided" in matches
    assert all("not reached" in line for line in fast_and_keeps(rows, "sft-self"))


def test_one_failed_pair_fails_the_order():
    values = {"a": (0.1, 0.1, 0.11), "b": (0.3, 0.3, 0.31), "c": (0.2, 0.2, 0.21)}
    rows = drops(**values)
    sentence = order_sentence(order_check(rows, "drop_final", ("a", "b", "c")), "at the end")
    assert sentence.startswith("The order a > b > c fails at the end.")


def test_paper_numbers_as_published():
    paper = paper_numbers()
    at = paper.set_index(["model", "arm", "benchmark", "quantity"])["value"]
    assert at["7B", "sft-rollout", "RefCOCO val", "prior change"] == -8.6
    assert at["7B", "rft", "RefCOCO val", "prior change"] == -0.6
    assert at["7B", "sft-answer", "MME", "prior change"] == -1854
    assert at["3B", "sft-answer", "jigsaw 3 x 3", "puzzle accuracy"] == 53
    assert at["3B", "sft-rollout", "jigsaw 3 x 3", "steps"] == 2670
    assert paper["certainty"].str.startswith("second-hand").all()


def test_beside_paper_puts_both_in_points(made):
    both = beside_paper(made).set_index("arm")
    assert list(both.index) == ["rft", "sft-expert", "sft-answer"]
    assert both.loc["rft", "ours: prior mean change"] == pytest.approx(-20.5)
    assert both.loc["sft-answer", "paper 7B: POPE"] == -69.9


def test_a_row_says_on_which_base_it_was_in_which_form_and_on_which_grid(made) -> None:
    arms = [RunSpec(arm, 0, steps, rate, 2) for arm, steps, rate in (("base", 0, 0.0), ("rft", 8, 1e-3))]
    arms += [RunSpec(arm, 0, 8, 1e-3, 2) for arm in ("sft-answer", "sft-expert")]
    whole = whole_summary.described(made, arms)
    assert tuple(whole.columns) == whole_summary.WHOLE and len(whole) == len(made)
    about = whole.drop_duplicates("arm").set_index("arm")[list(whole_summary.ABOUT)].T.to_dict("list")
    assert about["rft"] == ["shipped", "plain", "think", "2 x 2"] and about["sft-answer"][2] == "direct"
    pd.testing.assert_frame_equal(whole_summary.on_shipped(whole), made)
    with pytest.raises(KeyError):  # an arm of which nobody says how it was run
        whole_summary.described(made, arms[:1])


def test_cells_on_several_bases_are_counted_from_their_own_starts() -> None:
    specs = [cells.get_cell("sft-answer direct").at(stem, 6e-5) for stem in (3, 4)]
    picked = {spec.name: (cells.get_cell("sft-answer direct"), spec) for spec in specs}
    rows = []
    for spec, start, low in zip(specs, (0.9, 0.7), (0.5, 0.5), strict=True):
        curve = run_rows("sft-answer", spec.seed, {0: 0.0, 10: 1.0}, {0: (start, start), 10: (low, low)})
        rows += [row | {"run": spec.name} for row in curve]
    later = cells.get_cell("sft-answer direct, turned, after the jigsaw").specs(3)[0]
    rows += [row | {"run": later.name} for row in run_rows("sft-answer", 3, {0: 0.0, 10: 1.0}, {0: (1, 1), 10: (0, 0)})]
    spent = [dict(run=s.name, arm=s.arm, seed=s.seed, samples=0, step=10, name="minutes", value=1.0) for s in specs]
    known = {"evaluations": pd.DataFrame(rows), "metrics": pd.DataFrame(spent)}
    found = whole_summary.of_bases(known, picked | {later.name: (cells.get_cell("rft direct"), later)})
    drop = found[(found["quantity"] == "drop_at_0.7") & (found["task"] == "all")].to_dict("records")
    assert len(drop) == 1 and drop[0]["value"] == pytest.approx(0.7 * (0.4 + 0.2) / 2) and drop[0]["seeds"] == 2
    assert [drop[0][name] for name in whole_summary.ABOUT] == ["two-form", "direct", "direct", "2 x 2"]
    assert not found["quantity"].str.contains("likelihood").any()
    assert whole_summary.of_bases(known, {}).empty and whole_summary.on_shipped(found).empty
