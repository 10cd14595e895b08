"""Controls: each differs from the study in what it isolates, nothing is done twice, and what is missing is said."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from swapping import swap

from helpers import lab
from helpers.errors import UserError
from helpers.measure import analyses
from helpers.measure import shared as shared_module
from helpers.measure.shared import PUBLISHED, store, study_specs
from helpers.show.controls import (
    change_by_part,
    controls_at_equal,
    drop_vs_norm,
    flip_bars,
    line_panels,
    norm_matched,
    predictor_fits,
    predictor_panels,
    recovery_lines,
    sparsity_and_rank,
)
from helpers.show.save import drawn
from helpers.stats.tables import PREDICTORS, fits_table, norm_points, part_table, rate_paths
from helpers.study.arms import ARMS, RFT_ARMS, SFT_ARMS
from helpers.study.controls import GROUPS, control_specs
from helpers.study.profiles import PROFILES, Profile, get_profile, specs
from helpers.study.published import published_specs
from helpers.study.records import load_table
from helpers.study.spec import RunSpec

SMOKE = get_profile("smoke")
FREE = {"sft-rates": {"learning_rate", "steps"}, "rft-rates": {"learning_rate", "steps"},
        "lora": {"learning_rate", "lora_rank"}}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as working folder: runs/ and figures/ count from there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- which runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_controls_are_runs_that_can_be_trained_and_that_the_study_does_not_have(name: str) -> None:
    profile = get_profile(name)
    found = control_specs(profile)
    own = {spec.name for spec in specs(profile)}
    names = [control.spec.name for control in found]
    assert len(set(names)) == len(names) and not {s.name for s in specs(profile, profile.study_arms)} & set(names)
    for control in found:
        assert control.spec.arm in (*SFT_ARMS, *RFT_ARMS) and control.isolates == GROUPS[control.group]
        assert not control.spec.source or control.spec.source in own


@pytest.mark.parametrize("name", PROFILES)
def test_a_control_differs_from_the_study_only_in_what_it_isolates(name: str) -> None:
    profile = get_profile(name)
    known = {(spec.arm, spec.seed): spec for spec in specs(profile)}
    for control in control_specs(profile):
        spec = control.spec
        rft = spec.arm.startswith(("rft", "reinforce")) or spec.arm in ("sft-stream", "distill")
        corpus = {"self-sft": "sft-rollout", "iterative-sft": "sft-rollout", "sft-voice": "sft-self",
                  "sft-oracle": "sft-self"}  # fmt: skip
        like = known["rft" if rft else corpus.get(spec.arm, "sft-answer"), spec.seed]
        if control.group in FREE:
            same = {field: getattr(known[spec.arm, spec.seed], field) for field in FREE[control.group]}
            assert replace(spec, **same) == known[spec.arm, spec.seed]
        else:
            assert (spec.steps, spec.learning_rate, spec.batch_size) == (
                like.steps,
                like.learning_rate,
                like.batch_size,
            )
            assert spec.lora_rank == 0


def test_a_sweep_has_five_rates_over_two_decades() -> None:
    profile = get_profile("cpu")
    own = {spec.arm: spec.learning_rate for spec in specs(profile)}
    sweeps = control_specs(profile, ["sft-rates", "rft-rates"])
    for arm in ("sft-answer", "sft-rollout", "rft"):
        rates = {c.spec.learning_rate for c in sweeps if c.spec.arm == arm and c.spec.seed == 0} | {own[arm]}
        assert len(rates) == 5 and max(rates) == pytest.approx(100 * min(rates)) and own[arm] in rates


def test_seeds_come_one_after_the_other_each_in_order_of_priority() -> None:
    profile = replace(get_profile("cpu"), seeds=(3, 1))
    found = control_specs(profile)
    seeds = [control.spec.seed for control in found]
    assert seeds == sorted(seeds, reverse=True)
    first = [control.group for control in found if control.spec.seed == 3]
    assert list(dict.fromkeys(first)) == list(GROUPS)
    some = control_specs(profile, ["sft-kl", "sft-voice"])
    assert [c.label for c in some] == ["sft-voice", "sft-kl"] * 2
    with pytest.raises(UserError, match="no group of controls nonsense"):
        control_specs(profile, ["nonsense"])


def record(spec: RunSpec, exact: float = 0.5, score: float = 0.6, profile: Profile = SMOKE) -> None:
    """A finished record with two evaluated steps."""
    run = store(profile).start(spec)
    for step, (e, s) in {0: (0.0, 0.9), spec.steps or 1: (exact, score)}.items():
        where = {"step": step, "samples": step * spec.batch_size, "n": 4}
        run.append("evaluations", [where | {"task": "puzzle", "measure": "exact", "value": e}])
        run.append(
            "evaluations", [where | {"task": "colour", "measure": m, "value": s} for m in ("score", "likelihood")]
        )
    if spec.steps:
        run.append(
            "metrics", [{"step": spec.steps, "samples": 1, "name": n, "value": 2.0} for n in ("update_norm", "loss")]
        )
    run.finish()


# --- measuring --------------------------------------------------------------------------------------------


def checkpointed(spec: RunSpec, profile: Profile) -> None:
    """A finished record with a checkpoint's folder."""
    record(spec, profile=profile)
    (store(profile).checkpoints(spec) / "checkpoint-2").mkdir(parents=True)


def test_nothing_is_measured_twice_and_only_what_is_possible(here: Path, monkeypatch) -> None:
    profile = replace(get_profile("cpu"), seeds=(0,))
    *most, last = study_specs(profile)
    voice = control_specs(profile, ["sft-voice"])[0].spec
    for spec in [*most, voice]:
        checkpointed(spec, profile)
    calls = []

    def fake(name: str) -> Callable:
        return lambda shared, spec: (calls.append((name, spec.arm)), pd.DataFrame({"value": [1.5]}))[1]

    swap(monkeypatch, analyses, "ANALYSES", {name: fake(name) for name in analyses.ANALYSES})
    swap(monkeypatch, shared_module, "load_shared", lambda profile: None)
    analyses.measure(profile, ["weights", "lines", "recovery"])
    arms = [spec.arm for spec in most]
    assert calls == [("weights", arm) for arm in [*arms, "sft-voice"]] + [("recovery", "sft-answer")]
    checkpointed(last, profile)
    calls.clear()
    analyses.measure(profile, ["weights", "lines", "recovery"])
    assert calls == [("weights", last.arm), *(("lines", arm) for arm in [*arms, last.arm])]
    found = analyses.load(profile)["weights"]
    assert found["value"].tolist() == [1.5] * 6 and set(found["label"]) == {*arms, last.arm, "sft-voice"}


def test_the_theory_waits_for_the_run_that_a_corpus_comes_from(here: Path) -> None:
    profile = replace(get_profile("cpu"), seeds=(0,))
    runs = {spec.arm: spec for spec in study_specs(profile)}
    asked = lambda arm: analyses._to_measure(profile, "theory", runs[arm], [])  # noqa: E731
    assert asked("sft-answer") and not asked("sft-rollout")
    checkpointed(runs["rft"], profile)
    assert asked("sft-rollout")


def test_a_smoke_test_measures_a_few_runs_only(here: Path) -> None:
    study_runs = study_specs(SMOKE)
    wanted = {name: [s.arm for s in study_runs if analyses._to_measure(SMOKE, name, s, study_runs)] for name in
              ("weights", "flips")}  # fmt: skip
    assert wanted == {"weights": ["rft", "sft-answer", "sft-expert"], "flips": ["sft-answer"]}


def test_without_any_run_every_table_is_empty_and_coverage_says_so(here: Path) -> None:
    found = analyses.load(SMOKE)
    assert found.runs.empty and found.evaluations.empty and all(found[name].empty for name in analyses.ANALYSES)
    table = analyses.coverage(SMOKE, found)
    assert (table["seeds"] == 0).all() and (table["of"] == 1).all() and len(table) == len(control_specs(SMOKE))
    with pytest.raises(UserError, match="nothing to publish|no result to publish"):
        analyses.publish_controls(SMOKE)


def test_published_tables_equal_the_local_ones_and_give_way_to_newer_runs(here: Path, monkeypatch) -> None:
    wanted = control_specs(SMOKE, ["sft-kl", "sft-voice"])
    for control in wanted:
        record(control.spec)
    cached = here / "runs" / "smoke-controls" / "weights"
    cached.mkdir(parents=True)
    pd.DataFrame({"part": ["all"], "l2": [1.25]}).to_csv(cached / f"{wanted[0].spec.name}.csv", index=False)
    local = analyses.load(SMOKE)
    analyses.publish_controls(SMOKE)
    again = analyses._published()
    pd.testing.assert_frame_equal(again.runs, local.runs.sort_values("group").reset_index(drop=True), check_dtype=False)
    keys = ["run", "step", "task", "measure"]
    pd.testing.assert_frame_equal(*(t.evaluations.sort_values(keys).reset_index(drop=True) for t in (again, local)))
    assert set(again.metrics["name"]) == {"update_norm"}  # the loss of every step is not published
    assert again["weights"]["l2"].tolist() == [1.25] and again["lines"].empty
    other = replace(wanted[0].spec, learning_rate=0.5)
    newer = local.runs.assign(run=[other.name, wanted[1].spec.name])
    united = analyses._one_each(newer, again.runs)
    assert sorted(united["run"]) == sorted([other.name, wanted[1].spec.name])


def test_publishing_again_keeps_what_was_published_of_the_same_profile(here: Path) -> None:
    first, second, gone = (c.spec for c in control_specs(SMOKE, ["sft-kl", "sft-voice", "lora"])[:3])
    record(first)
    weights = here / "runs" / "smoke-controls" / "weights" / f"{first.name}.csv"
    weights.parent.mkdir(parents=True)
    pd.DataFrame({"part": ["all"], "l2": [1.25]}).to_csv(weights, index=False)
    record(gone)
    analyses.publish_controls(SMOKE)
    shutil.rmtree(here / "runs")  # another machine
    record(second)
    analyses.publish_controls(SMOKE)
    found = analyses._published()
    assert set(found.runs["run"]) == {first.name, second.name, gone.name}
    assert set(found.evaluations["run"]) == set(found.runs["run"]) == set(found.metrics["run"])
    assert set(published_specs(PUBLISHED)) == set(found.runs["run"])
    assert found["weights"]["l2"].tolist() == [1.25]


def test_tables_have_the_order_of_the_runs_wherever_they_come_from(here: Path) -> None:
    cpu = replace(SMOKE, name="cpu")  # the profile that has published records
    wanted = [c.spec for c in control_specs(cpu, ["sft-kl", "sft-voice", "sft-stream"])]
    for spec in wanted:
        record(spec, profile=cpu)
        weights = here / "runs" / "cpu-controls" / "weights" / f"{spec.name}.csv"
        weights.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"part": ["all", "a"], "l2": [1.25, 0.5]}).to_csv(weights, index=False)
    local = analyses.load(cpu)
    analyses.publish_controls(cpu)
    for spec in (None, wanted[1], wanted[2]):  # nothing, one run and another are made here; the rest is published
        shutil.rmtree(here / "runs", ignore_errors=True)
        if spec:
            record(spec, profile=cpu)
        found = analyses.load(cpu)
        assert found.runs["run"].tolist() == [spec.name for spec in wanted]
        pd.testing.assert_frame_equal(found.evaluations, local.evaluations)
        norms = (t.metrics.query("name != 'loss'").reset_index(drop=True) for t in (found, local))
        pd.testing.assert_frame_equal(*norms)
        pd.testing.assert_frame_equal(found["weights"], local["weights"])


def test_publishing_drops_runs_of_earlier_settings(here: Path) -> None:
    new, old = (c.spec for c in control_specs(SMOKE, ["sft-voice", "sft-kl"]))
    record(old)
    analyses.publish_controls(SMOKE)
    shutil.rmtree(here / "runs")
    record(new)
    budgets = tuple(b._replace(beta=0.7) if b.arm == "sft-kl" else b for b in SMOKE.budgets)
    analyses.publish_controls(replace(SMOKE, budgets=budgets))
    assert set(analyses._published().runs["run"]) == {new.name} == set(published_specs(PUBLISHED))


def test_quantities_keep_rates_of_one_arm_apart(here: Path) -> None:
    base, answer = specs(SMOKE, ["base", "sft-answer"])
    record(base, 0.0, 0.9)
    record(answer, 0.6, 0.5)
    swept = control_specs(SMOKE, ["sft-rates"])[:2]
    adapters = control_specs(SMOKE, ["lora"])[0]  # the same arm, and no rate of the sweep
    for control, score in zip([*swept, adapters], (0.3, 0.7, 0.1), strict=True):
        record(control.spec, 0.7, score)
    tables = analyses.load(SMOKE)
    whole = [load_table(store(SMOKE).root, name) for name in ("evaluations", "metrics")]
    own = [frame[frame["run"].isin([base.name, answer.name])] for frame in whole]
    found = analyses.quantities(*own, tables, SMOKE)
    final = found[(found["quantity"] == "drop_final") & (found["task"] == "all")].set_index("label")
    labels = [adapters.label, "sft-answer", swept[0].label, swept[1].label]
    assert final["value"].to_dict() == pytest.approx(dict(zip(labels, (0.8, 0.4, 0.6, 0.2), strict=True)))
    assert final["learning_rate"].to_dict() == pytest.approx(dict(zip(labels, (5e-3, 1e-3, 1e-4, 3e-4), strict=True)))
    rates = {line.arm: line.learning_rate for line in SMOKE.budgets}
    paths = rate_paths(pd.concat([own[0], tables.evaluations]), tables.runs, rates)
    assert sorted(paths["factor"].unique()) == [0.1, 0.3, 1.0]
    end = paths[(paths["factor"] == 0.3) & (paths["step"] > 0)].iloc[0]
    assert (end["gain"], end["drop"]) == pytest.approx((0.7, 0.2))
    own_rate = paths[(paths["factor"] == 1) & (paths["step"] > 0)].iloc[0]
    assert (own_rate["gain"], own_rate["drop"]) == pytest.approx((0.6, 0.4))


# --- figures ----------------------------------------------------------------------------------------------


def run_columns(arms: list[str], seeds: int = 3) -> pd.DataFrame:
    rows = [(f"{a}-{s}-0123456789", "study", a, a, s, 1e-3, 0, 4) for a in arms for s in range(seeds)]
    return pd.DataFrame(rows, columns=list(analyses.RUN_COLUMNS))


def test_the_table_by_part_by_hand() -> None:
    rows = [("rft", s, "words", n, l1, same, rank) for s, n, l1, same, rank in
            ((0, 30, 2.0, 0.5, 4.0), (0, 10, 1.0, 0.1, 8.0), (1, 40, 5.0, 0.2, 2.0))]  # fmt: skip
    rows += [("sft-kl", 0, "words", 1, 1.0, 1.0, 1.0), ("rft", 0, "eye 1", 1, 0.5, 0.0, 1.0)]
    columns = ["label", "seed", "part", "weights", "l1", "same_bf16", "rank"]
    found = part_table(pd.DataFrame(rows, columns=columns), ["rft"])
    assert found.index.tolist() == ["words", "eye 1"] and {label for _, label in found.columns} == {"rft"}
    words = [found.loc["words", (name, "rft")] for name in ("L1 norm", "unchanged in bf16", "effective rank")]
    assert words == pytest.approx([(3 + 5) / 2, (16 / 40 + 0.2) / 2, (6 + 2) / 2])


def test_every_figure_records_the_numbers_it_draws() -> None:
    rng, runs = np.random.default_rng(0), run_columns(["rft", "sft-answer"])
    each = lambda **columns: runs.assign(**columns)  # noqa: E731
    values = rng.uniform(0.2, 0.8, len(runs))
    weights = pd.concat([
        each(part=part, kind="mlp", l2=values, same_fp32=0.0, same_bf16=values, rank=5.0, full=10.0)
        for part in ("eye 1", "text 1", "all")
    ])  # fmt: skip
    shares = drawn(change_by_part(weights))
    assert shares.groupby("label")["share"].sum().tolist() == pytest.approx([1.0, 1.0])
    assert drawn(sparsity_and_rank(weights))["rank"].tolist() == [0.5] * 6
    matched = pd.concat([each(norm_of=n, score=values, base_score=0.9, exact=0.3) for n in ("rft", "sft-answer")])
    found = drawn(norm_matched(matched))
    own = found[(found["arm"] == "rft") & (found["norm_of"] == "own") & found["panel"].str.startswith("drop")]
    assert own["mean"].tolist() == pytest.approx([0.9 - values[:3].mean()])
    lines = pd.concat([each(start=s, share=x, exact=x, score=1 - x) for s in ("base", "rft") for x in (0.0, 0.5, 1.0)])
    along = drawn(line_panels(lines))
    assert (along["mean"] - along["share"].where(along["measure"] == "exact", 1 - along["share"])).abs().max() < 1e-9
    flips = each(task="colour", kept=0.5, lost=0.3, gained=0.1, never=0.1, n=10)
    bars = flip_bars(flips)
    assert drawn(bars).set_index(["arm", "kind"])["share"]["rft", "lost"] == 0.3
    swatches = [handle.get_facecolor() for handle in bars.legends[0].legend_handles]
    assert len(set(swatches)) == len(swatches) == 4
    recovery = pd.concat([
        each(samples=n, half=h, score=values, likelihood=0.9, base_score=0.95, base_likelihood=0.97)
        for n in (0, 8) for h in ("shown", "unshown")
    ])  # fmt: skip
    assert len(drawn(recovery_lines(recovery))) == 2 * 2 * 2 * 2


def test_every_arm_can_be_drawn_in_every_figure_of_points() -> None:
    """Some arms' markers are letters, which are no format strings."""
    arms = [arm for arm in ARMS if arm != "base"]
    rows = run_columns(arms, 1).assign(drop=0.1, norm=2.0, at="end", part="all", same_fp32=0.0, same_bf16=0.1, rank=2.0,
                                       full=4.0, **dict.fromkeys(PREDICTORS, 2.0))  # fmt: skip
    for figure in (drop_vs_norm, predictor_panels, sparsity_and_rank):
        assert set(drawn(figure(rows))["arm"]) == set(arms)


def test_predictors_are_ranked_by_what_they_explain() -> None:
    runs = run_columns(["rft", "sft-answer", "sft-expert", "sft-rollout"], 2)
    drop = np.linspace(0.05, 0.5, len(runs))
    rows = runs.assign(drop=drop, **{name: np.exp(k * drop + 0.3 * np.cos(7 * k * np.arange(8)))
                                     for k, name in enumerate(PREDICTORS)})  # fmt: skip
    rows["kl_prior"], rows["lbk"] = np.exp(3 * drop), np.nan
    fits = fits_table(rows)
    assert fits["predictor"].iloc[0] == "kl_prior" and fits["r2"].iloc[0] == pytest.approx(1.0)
    assert "lbk" not in set(fits["predictor"]) and (fits["r2"].diff().dropna() <= 0).all()
    assert set(drawn(predictor_fits(fits))["predictor"]) == set(fits["predictor"])
    assert "lbk" not in set(drawn(predictor_panels(rows))["predictor"])


def equal_rows() -> pd.DataFrame:
    kinds = [("rft", "rft", "study"), ("sft-answer", "sft-answer at 2e-05", "sft-rates")]
    rows = [
        (q, arm, seed, "all", 0.1 * (seed + k), 4, label, group)
        for q in ("drop_at_0.5", "drop_at_0.5_likelihood", "drop_final", "update_norm", "update_norm_at_0.5")
        for k, (arm, label, group) in enumerate(kinds)
        for seed in range(3)
    ]  # fmt: skip
    rows.append(("drop_final", "sft-kl", 0, "all", 0.5, 4, "sft-kl", "sft-kl"))
    return pd.DataFrame(rows, columns=["quantity", "arm", "seed", "task", "value", "n", "label", "group"])


def test_controls_that_never_get_there_are_named() -> None:
    fig = controls_at_equal(equal_rows())
    assert set(drawn(fig)["label"]) == {"rft", "sft-answer at 2e-05"}
    assert [text.get_text() for text in fig.axes[0].texts] == ["never reaches 0.5"]
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == ["rft", "sft-answer at 2e-05", "sft-kl"]


def test_norm_points_pair_each_runs_norm_with_its_drop() -> None:
    found = norm_points(equal_rows())
    assert len(found) == 12 and (found["norm"] - found["drop"]).abs().max() < 1e-12
    assert len(drawn(drop_vs_norm(found))) == 12


def test_what_was_not_run_is_not_drawn() -> None:
    said = lab.start("smoke", quiet=True).present(lambda rows: 1 / 0, pd.DataFrame(), "lines")
    assert "nothing to draw for `lines`" in said.data
