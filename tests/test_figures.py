"""Figures: the numbers drawn, the files written, and whether the arms can be told apart."""

from __future__ import annotations

import base64
import itertools
import json
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import evaluation

from helpers.errors import UserError
from helpers.show import marks, plots, style
from helpers.show.save import SUFFIXES, Source, drawn, savefig, show
from helpers.stats import curves, intervals, summary
from helpers.study import arms
from helpers.study.arms import ARM_STYLE

MAIN_ARMS = ("base", "rft", "sft-answer", "sft-expert", "sft-rollout", "sft-self")
T_2 = 4.302652729911275  # 97.5% quantile of t with 2 degrees of freedom, from a printed table


def evaluations(seeds: int = 3, steps: tuple[int, ...] = (0, 10, 20), arms: tuple[str, ...] = ("rft", "sft-answer")):
    """Seed s scores 0.1 s apart on the puzzle; sft-answer loses 0.02 a step on `count`, rft nothing."""
    rows = []
    for arm, seed in itertools.product(("base", *arms), range(seeds)):
        for step in (0,) if arm == "base" else steps:
            puzzle = 0.1 if step == 0 else 0.1 + 0.02 * step + 0.1 * seed
            lost = 0.02 * step if arm == "sft-answer" else 0.0
            marks = (("puzzle", "exact", puzzle), ("count", "score", 0.9 - lost), ("colour", "score", 0.7))
            rows += [evaluation(f"{arm}-{seed}-x", step, *mark, samples=4 * step, n=100) for mark in marks]
    return pd.DataFrame(rows)


def metrics(seeds: int = 3, steps: tuple[int, ...] = (1, 2, 3)) -> pd.DataFrame:
    names = [name for _, panel in style.RFT_PANELS.values() for name in panel]
    rows = [
        {
            "run": f"rft-{s}-x",
            "arm": "rft",
            "seed": s,
            "step": t,
            "samples": t,
            "name": n,
            "value": s + 10.0 * t,
        }
        for n, s, t in itertools.product(names, range(seeds), steps)
    ]
    return pd.DataFrame(rows)


def battery() -> pd.DataFrame:
    row = {"task": "count", "value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.2}
    return pd.DataFrame([row, {**row, "task": "colour", "value": 0.55}])


def tiny():
    """A figure that is quick to write, for tests of the files."""
    return plots.board_gallery([np.zeros((2, 2))], ["board"])


def save(tmp_path, fig=None, id="curve", **changes):
    arguments = {"alt": "Exact match rises.", "folder": tmp_path} | changes
    return savefig(fig or tiny(), id, **arguments)


# --- palette ---------------------------------------------------------------------------------------------


def linear_rgb(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "typical": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
}


def lab(rgb: np.ndarray) -> np.ndarray:
    ratio = XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_lab_of_known_colours():
    assert lab(linear_rgb("#FFFFFF")) == pytest.approx([100, 0, 0], abs=0.1)
    assert lab(linear_rgb("#FF0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)


@pytest.mark.parametrize("vision", VISION)
def test_main_arms_are_told_apart_by_colour(vision):
    seen = {arm: lab(VISION[vision] @ linear_rgb(ARM_STYLE[arm].colour)) for arm in MAIN_ARMS}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    assert min(distances.values()) >= 20, min(distances, key=distances.get)


@pytest.mark.parametrize("arm", ARM_STYLE)
def test_contrast_on_white(arm):
    luminance = XYZ[1] @ linear_rgb(ARM_STYLE[arm].colour)
    assert 1.05 / (luminance + 0.05) >= 3.0


def test_every_arm_differs_in_each_channel():
    for channel in ("colour", "marker", "linestyle"):
        looks = [getattr(style, channel) for style in ARM_STYLE.values()]
        assert len(set(looks)) == len(looks), channel


def test_every_arm_of_the_study_has_a_style():
    assert set(ARM_STYLE) == set(arms.ARMS)


def test_unknown_arm_is_named():
    with pytest.raises(UserError, match="no arm 'sft-magic'"):
        arms.arm_style("sft-magic")


def test_a_readers_matplotlibrc_does_not_leak_in():
    with matplotlib.rc_context({"text.usetex": True, "text.color": "white", "lines.linewidth": 9, "font.size": 30}):
        fig = plots.learning_curves(evaluations(), "puzzle", "exact")
        assert show(fig).data  # usetex would need LaTeX
        assert matplotlib.rcParams["text.usetex"]
    ax = fig.axes[0]
    assert ax.title.get_color() != "white"
    assert {text.get_usetex() for text in ax.texts} == {False}
    assert max(line.get_linewidth() for line in ax.lines) < 2


def test_the_alt_text_of_a_figure_is_made_of_what_it_draws(tmp_path):
    fig = plots.learning_curves(evaluations(arms=("rft",)), "puzzle", "exact")
    alt = savefig(fig, "curve", folder=tmp_path).alt
    assert alt.startswith("Exact match, puzzle, against step")
    assert "base 0.10, rft 0.60" in alt  # 0.1 + 0.02 x 20, and 0.1 a seed: mean over seeds 0, 1, 2
    with pytest.raises(UserError, match="alt text"):
        savefig(marks.record(style.new_figure(2, 2), pd.DataFrame({"a": [1]})), "mute", folder=tmp_path)


def test_lines_draw_each_name_with_its_band_and_say_where_it_ends():
    rows = pd.DataFrame({"who": ["b", "b", "a"], "x": [2, 1, 5], "mean": [0.4, 0.2, 0.9]})
    ax = style.new_axes()
    labels = marks.lines(ax, rows.assign(low=0.0, high=1.0), "x", "who", lambda _: {"color": "#000000"})
    assert [(label.text, label.x, label.y) for label in labels] == [("b", 2.0, 0.4), ("a", 5.0, 0.9)]
    assert ax.lines[0].get_xdata().tolist() == [1, 2]  # along x, whatever the order of the rows


def test_strips_put_the_same_points_on_the_same_heights_in_every_panel():
    rows = pd.DataFrame({"corpus": ["rft"] * 3, "one": [1.0, 2.0, 3.0], "two": [9.0, 8.0, 7.0]})
    left, right = style.new_axes(), style.new_axes()
    marks.strips(left, rows, "one", {"rft": 2.0})
    marks.strips(right, rows, "two", {"rft": 8.0})
    assert left.lines[0].get_ydata().tolist() == right.lines[0].get_ydata().tolist()


def test_heat_writes_a_number_into_every_cell_in_the_order_of_the_table():
    ax = style.new_axes()
    marks.heat(ax, pd.DataFrame([[0.1, 0.9], [0.5, 0.2]], index=["a", "b"], columns=["x", "y"]), vmin=0)
    assert [text.get_text() for text in ax.texts] == ["0.10", "0.90", "0.50", "0.20"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_use_style_is_undone():
    before = matplotlib.rcParams["axes.grid"]
    with style.use_style():
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
        assert matplotlib.rcParams["figure.dpi"] == 110
        assert not matplotlib.rcParams["axes.spines.top"]
    assert matplotlib.rcParams["axes.grid"] == before


# --- statistics ------------------------------------------------------------------------------------------


def test_seed_interval_by_hand():
    assert intervals.seed_interval([0.4]) == (0.4, 0.4, 0.4)
    assert intervals.seed_interval([0.2, 0.6]) == pytest.approx((0.4, 0.2, 0.6))
    half = T_2 * 1.0 / math.sqrt(3)  # 1, 2, 3 have standard deviation 1
    assert intervals.seed_interval([1, 2, 3]) == pytest.approx((2, 2 - half, 2 + half))


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_seed_interval_refuses(values):
    with pytest.raises(UserError):
        intervals.seed_interval(values)


def test_wilson_by_hand():
    # Newcombe (1998), table I: 81/263 and 15/148 and 0/20
    assert intervals.wilson(81, 263) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    assert intervals.wilson(15, 148) == pytest.approx((15 / 148, 0.0624, 0.1605), abs=5e-5)
    assert intervals.wilson(0, 20) == pytest.approx((0, 0, 0.1611), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case):
    k, n = case
    mean, low, high = intervals.wilson(k, n)
    assert 0 <= low <= mean <= high <= 1
    mirrored = intervals.wilson(n - k, n)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high))


@pytest.mark.parametrize("case", [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses(case):
    with pytest.raises(UserError):
        intervals.wilson(*case)


def exact_rows(paths: dict[str, list[tuple[int, float]]]) -> pd.DataFrame:
    """Puzzle exact match of runs of one arm, (step, value) each."""
    points = [(run, step, value) for run, path in paths.items() for step, value in path]
    rows = [evaluation("rft-0", step, "puzzle", "exact", v, run=run, samples=8 * step) for run, step, v in points]
    return pd.DataFrame(rows)


def test_an_accuracy_is_first_reached_on_the_line_between_two_steps_not_at_the_best_one():
    paths = {"a": [(0, 0.1), (20, 0.9), (10, 0.7), (30, 0.2)], "b": [(10, 0.4)], "c": [(5, 0.9), (9, 0.2)]}
    found = curves.crossings(exact_rows(paths), 0.4).set_index("run")
    assert found["step"].to_dict() == {"a": pytest.approx(5.0), "b": 10, "c": 5}
    assert found.loc["a", ["before", "after", "share", "samples"]].tolist() == pytest.approx([0, 10, 0.5, 40.0])
    assert set(curves.crossings(exact_rows(paths), 0.5)["run"]) == {"a", "c"}


def test_a_monotone_crossing_is_read_off_the_nearest_curve_that_never_falls():
    rows = exact_rows({"dips": [(0, 0.1), (10, 0.9), (20, 0.5), (30, 0.8)], "rises": [(0, 0.1), (10, 0.5)]})
    rows.loc[(rows["run"] == "dips") & (rows["step"] == 20), "n"] = 30
    found = curves.crossings(rows, 0.7).set_index("run")
    assert found["step"].to_dict() == {"dips": pytest.approx(7.5)}  # 10 * (.7 - .1) / (.9 - .1)
    found = curves.crossings(rows, 0.7, monotone=True).set_index("run")
    # .9 over 10 items and .5 over 30 become (9 + 15) / 40 = .6 at steps 10 and 20; from there half of the way to .8
    dips = found.loc["dips", ["before", "after", "share", "step", "samples"]].tolist()
    assert dips == pytest.approx([20, 30, 0.5, 25, 200]) and len(found) == 1
    both = [curves.crossings(rows, 0.4, monotone=how).set_index("run").loc["rises"] for how in (False, True)]
    assert both[0].equals(both[1]) and both[0]["step"] == pytest.approx(7.5)


def test_a_run_that_stands_at_an_accuracy_has_reached_it_where_it_first_did():
    rows = exact_rows({"stands": [(0, 0.1), *((step, 0.7) for step in range(10, 90, 10))]})
    rows["n"] = range(10, 10 + len(rows))
    assert curves.crossings(rows, 0.7, monotone=True)[["before", "after", "step"]].values.tolist() == [[0, 10, 10]]
    fallen = exact_rows({"falls": [(0, 0.1), (10, 0.8), (20, 0.2)]})
    assert len(curves.crossings(fallen, 0.7)) == 1 and curves.crossings(fallen, 0.7, monotone=True).empty


def test_a_step_with_two_values_has_no_crossing():
    with pytest.raises(UserError, match="several values at one step"):
        curves.crossings(exact_rows({"a": [(0, 0.1), (0, 0.6)]}), 0.5)


def test_seed_summary_refuses_mixed_settings():
    twice = pd.concat([evaluations(1), evaluations(1).assign(run="rft-0-other")])
    with pytest.raises(UserError, match="one setting only"):
        plots.learning_curves(twice, "puzzle", "exact")


def test_gain_and_drop_by_hand():
    changes = curves.gain_and_drop(evaluations()).set_index(["run", "step"])
    end = changes.loc[("sft-answer-1-x", 20)]
    assert end["gain"] == pytest.approx(0.02 * 20 + 0.1)
    assert end["drop"] == pytest.approx(0.4 / 2)  # one of two tasks lost 0.4
    assert changes.loc[("rft-2-x", 20), "drop"] == pytest.approx(0)


def test_base_falls_back_to_step_zero():
    without = evaluations()[lambda df: df["arm"] != "base"]
    assert curves.gain_and_drop(without)["gain"].max() == pytest.approx(0.4 + 0.2)
    with pytest.raises(UserError, match="no base"):
        curves.gain_and_drop(without[without["step"] > 0])


def test_gain_and_drop_refuses_unequal_batteries():
    table = evaluations()
    table = table[~((table["task"] == "colour") & (table["step"] == 20))]
    with pytest.raises(UserError, match="score all tasks"):
        curves.gain_and_drop(table)


def test_task_drops_at_equal_accuracy():
    drops = curves.task_drops(evaluations(), accuracy=0.36)
    steps = drops.drop_duplicates("run").set_index("run")["step"].to_dict()
    # exact match is 0.1 at the start and 0.1 (1 + seed) + 0.02 step later: seeds 0 and 1 cross it between two steps
    wanted = {"rft-0-x": 13.0, "rft-1-x": 10 * 0.26 / 0.3, "rft-2-x": 10 * 0.26 / 0.4}
    assert {run: step for run, step in steps.items() if run.startswith("rft")} == pytest.approx(wanted)
    lost = drops[(drops["task"] == "count") & (drops["run"] == "sft-answer-0-x")]["value"].item()
    assert lost == pytest.approx(0.02 * 13)
    with pytest.raises(UserError, match="lower the accuracy"):
        curves.task_drops(evaluations(), accuracy=2.0)


def test_the_figures_drop_at_an_accuracy_is_the_summarys():
    table = evaluations()
    drawn_rows = drawn(plots.per_task_drop(table, accuracy=0.36)).set_index(["task", "arm"])["mean"]
    nothing = pd.DataFrame(columns=["run", "arm", "seed", "step", "name", "value"])
    seeds = summary.per_seed(table, nothing, accuracies=(0.36,))
    means = seeds[seeds["quantity"] == "drop_at_0.36"].groupby(["task", "arm"])["value"].mean()
    assert len(drawn_rows) == 4 and means[drawn_rows.index].tolist() == pytest.approx(drawn_rows.tolist())


def test_an_interval_in_words():
    interval = intervals.Interval(-0.5, -0.625, 0.25)
    assert intervals.in_words(interval) == "-0.50 (-0.62 to 0.25)"
    assert intervals.in_words(interval, "+.1f", 5, "nats") == "-0.5 nats (-0.6 to +0.2, 5 seeds)"
    assert intervals.in_words(interval, ".2f", 1) == "-0.50 (1 seed)"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.08))
def test_spread_labels_stay_apart_ordered_and_inside(positions, gap):
    moved = style._spread(positions, gap)
    order = np.argsort(positions, kind="stable")
    assert np.all(np.diff(np.array(moved)[order]) >= gap - 1e-9)
    assert min(moved) >= -1e-9
    assert max(moved) <= 1 + 1e-9


def test_spread_leaves_distant_labels_alone():
    assert style._spread([0.9, 0.1, 0.5], 0.1) == pytest.approx([0.9, 0.1, 0.5])
    assert style._spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


# --- what the plots draw ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
def test_learning_curves_draw_mean_and_interval(tmp_path, seeds):
    fig = plots.learning_curves(evaluations(seeds), "puzzle", "exact", chance=1 / 23)
    save(tmp_path, fig)
    rows = pd.read_csv(tmp_path / "curve.csv").set_index(["arm", "step"])
    mean, half = (0.5, 0.0) if seeds == 1 else (0.6, T_2 * 0.1 / math.sqrt(3))
    end = rows.loc[("rft", 20)]
    assert list(end[["mean", "low", "high"]]) == pytest.approx([mean, mean - half, mean + half])
    assert (rows["seeds"] == seeds).all()
    assert list(rows["chance"]) == pytest.approx([1 / 23] * len(rows))
    line = next(line for line in fig.axes[0].lines if line.get_label() == "rft")
    assert list(line.get_ydata()) == pytest.approx(list(rows.loc["rft"]["mean"]))
    assert ("single seed" if seeds == 1 else "95% t interval") in fig.get_supxlabel()


def test_learning_curves_keep_step_zero_at_the_left_edge():
    ax = plots.learning_curves(evaluations(), "puzzle", "exact", x="samples").axes[0]
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[0] == 0
    assert list(ax.get_xticks()) == [0, 40, 80]


def test_learning_curves_share_a_given_axes():
    fig = style.new_figure(8, 3)
    for place, task in enumerate(("count", "colour"), start=1):
        returned = plots.learning_curves(evaluations(), task, "score", ax=fig.add_subplot(1, 2, place))
        assert returned is fig
    assert list(drawn(fig)["task"].unique()) == ["count", "colour"]


def test_labels_name_every_arm_and_chance():
    ax = plots.learning_curves(evaluations(), "puzzle", "exact", chance=0.04).axes[0]
    assert {text.get_text() for text in ax.texts} == {"base", "rft", "sft-answer", "chance 0.04"}


@pytest.mark.parametrize("seeds", [1, 3])
def test_per_task_drop_draws_mean_and_interval(seeds):
    table = evaluations(seeds)
    lost_more = (table["arm"] == "sft-answer") & (table["task"] == "count") & (table["step"] == 20)
    table.loc[lost_more, "value"] -= 0.1 * table.loc[lost_more, "seed"]
    rows = drawn(plots.per_task_drop(table)).set_index(["task", "arm"])
    mean, half = (0.4, 0.0) if seeds == 1 else (0.5, T_2 * 0.1 / math.sqrt(3))
    row = rows.loc[("count", "sft-answer")]
    assert list(row[["mean", "low", "high"]]) == pytest.approx([mean, mean - half, mean + half])
    assert rows.loc[("colour", "rft"), "mean"] == pytest.approx(0)


def test_per_task_drop_says_who_never_got_there():
    table = evaluations()
    table.loc[(table["arm"] == "rft") & (table["task"] == "puzzle"), "value"] = 0.1
    fig = plots.per_task_drop(table, accuracy=0.39)
    assert "Never there: rft" in fig.get_supxlabel()
    assert set(drawn(fig)["arm"]) == {"sft-answer"}


@pytest.mark.parametrize("seeds", [1, 3])
def test_gain_drop_draws_mean_paths(seeds):
    fig = plots.gain_drop(evaluations(seeds))
    row = drawn(fig).set_index(["arm", "step"]).loc[("sft-answer", 20)]
    assert row["gain"] == pytest.approx(0.4 if seeds == 1 else 0.5)
    assert row["drop"] == pytest.approx(0.2)
    assert row["gain_high"] - row["gain"] == pytest.approx(0 if seeds == 1 else T_2 * 0.1 / math.sqrt(3))
    faint = [line for line in fig.axes[0].lines if line.get_alpha() == 0.3]
    assert len(faint) == (0 if seeds == 1 else 2 * seeds)


@pytest.mark.parametrize("seeds", [1, 3])
def test_rft_diagnostics_draw_every_panel(seeds):
    fig = plots.rft_diagnostics(metrics(seeds))
    rows = drawn(fig)
    assert set(rows["panel"]) == set(style.RFT_PANELS)
    row = rows[(rows["name"] == "entropy") & (rows["step"] == 2)].iloc[0]
    half = 0 if seeds == 1 else T_2 / math.sqrt(3)
    assert list(row[["mean", "low", "high"]]) == pytest.approx(
        [20 + seeds // 2, row["mean"] - half, row["mean"] + half]
    )


def test_rft_diagnostics_say_what_was_not_recorded():
    table = metrics()
    fig = plots.rft_diagnostics(table[table["name"] != "entropy"])
    said = {ax.get_title("left"): [text.get_text() for text in ax.texts] for ax in fig.axes}
    assert said["Entropy"] == ["not recorded"]
    assert {text.split()[-1] for text in said["Reward parts"]} == {"hit", "exact", "format"}
    with pytest.raises(UserError, match="None of these metrics"):
        plots.rft_diagnostics(table.assign(name="loss"))


def test_battery_bars_draw_the_table():
    fig = plots.battery_bars(battery())
    assert [bar.get_width() for bar in fig.axes[0].patches] == [0.5, 0.55]
    pd.testing.assert_frame_equal(drawn(fig), battery())


def test_board_gallery_wraps_into_columns():
    images = [np.full((4, 4, 3), shade, dtype=np.uint8) for shade in (0, 100, 200)]
    fig = plots.board_gallery(images, ["a", "b", "price in $ and $"], columns=2)
    assert [ax.get_title() for ax in fig.axes] == ["a", "b", "price in $ and $"]
    assert fig.axes[2].get_subplotspec().rowspan.start == 1
    with pytest.raises(UserError, match="one title each"):
        plots.board_gallery(images, ["a"])
    with pytest.raises(UserError, match="one title each"):
        plots.board_gallery([], [])


def test_heat_tokens_keep_every_token_and_wrap():
    tokens = ["<think>", " sky", "\n", "$x$", ""] * 8
    fig = plots.heat_tokens(tokens, [-0.1 * i for i in range(40)])
    rows = drawn(fig)
    assert list(rows["token"]) == tokens
    assert rows["logp"].iloc[39] == pytest.approx(-3.9)
    assert {"↵", "·sky", "∅", "$x$"} <= {text.get_text() for text in fig.axes[0].texts}
    with pytest.raises(UserError, match="1 tokens, 2 values"):
        plots.heat_tokens(["a"], [0, -1])
    with pytest.raises(UserError, match="NaN"):
        plots.heat_tokens(["a"], [math.nan])


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_wrapped_tokens_never_overlap_nor_pass_the_limit(widths):
    spots = style.wrap_words(widths, 24)
    for (column, row), width, following in zip(spots, widths, [*spots[1:], None], strict=True):
        assert column + width <= 24
        assert following in (None, (column + width, row), (0, row + 1))


@pytest.mark.parametrize("steps", [(0,), (7,)])
def test_single_step_and_single_arm_are_drawn(steps):
    table = evaluations(1, steps, arms=("rft",))
    curve = plots.learning_curves(table, "puzzle", "exact")
    tasks, plane = plots.per_task_drop(table), plots.gain_drop(table)
    diagnostics = plots.rft_diagnostics(metrics(1, (3,)))
    assert list(drawn(curve)["step"]) == [0, steps[0]]
    assert list(drawn(tasks)["task"]) == ["colour", "count"]
    assert list(drawn(plane)["step"]) == list(steps)
    assert set(drawn(diagnostics)["step"]) == {3}
    for fig in (curve, tasks, plane, diagnostics):
        fig.draw_without_rendering()


def test_plots_refuse_what_they_cannot_draw():
    with pytest.raises(UserError, match="No evaluation of puzzle/hit: there are colour/score"):
        plots.learning_curves(evaluations(), "puzzle", "hit")
    with pytest.raises(UserError, match="lacks the column"):
        plots.learning_curves(evaluations().drop(columns="measure"), "puzzle", "exact")
    with pytest.raises(UserError, match="'epoch'"):
        plots.learning_curves(evaluations(), "puzzle", "exact", x="epoch")
    with pytest.raises(UserError, match="Only the base"):
        plots.gain_drop(evaluations(arms=()))
    with pytest.raises(UserError, match="finite"):
        plots.learning_curves(evaluations().assign(value=math.nan), "puzzle", "exact")


# --- files -----------------------------------------------------------------------------------------------


def test_same_bytes_twice(tmp_path):
    fig = plots.learning_curves(evaluations(), "puzzle", "exact")
    save(tmp_path / "one", fig)
    save(tmp_path / "two", fig)
    save(tmp_path / "three", plots.learning_curves(evaluations(), "puzzle", "exact"))
    for suffix in SUFFIXES:
        written = [(tmp_path / place / f"curve.{suffix}").read_bytes() for place in ("one", "two", "three")]
        assert written[0] == written[1] == written[2], suffix
    assert b"Software" not in (tmp_path / "one" / "curve.png").read_bytes()
    svg = (tmp_path / "one" / "curve.svg").read_text()
    assert "dc:date" not in svg
    assert "Exact match rises." in svg


def test_provenance_and_manifest(tmp_path, monkeypatch):
    class Spec:
        hash = "beef"

    monkeypatch.setenv("JIGSAW_NOTEBOOK", "05-who-forgets")
    save(tmp_path, id="first", source=Source.of([Spec(), "cafe", "cafe"], "1234"))
    monkeypatch.delenv("JIGSAW_NOTEBOOK")
    save(tmp_path, id="second", alt="  Two\n lines. ")
    about = json.loads((tmp_path / "first.json").read_text())
    assert about["specs"] == ["beef", "cafe"] and about["records"] == "1234"
    assert about["versions"]["pandas"] == pd.__version__
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest) == {"first", "second"}
    assert manifest["first"]["notebook"] == "05-who-forgets"
    assert manifest["second"] == {
        "alt": "Two lines.",
        "files": [f"second.{suffix}" for suffix in SUFFIXES],
        "notebook": None,
        "specs": [],
    }
    assert all((tmp_path / name).exists() for entry in manifest.values() for name in entry["files"])
    assert (tmp_path / "second.txt").read_text() == "Two lines.\n"


def test_redrawing_by_hand_keeps_the_notebook_and_replaces_the_entry(tmp_path, monkeypatch):
    monkeypatch.setenv("JIGSAW_NOTEBOOK", "03-sft")
    save(tmp_path)
    monkeypatch.delenv("JIGSAW_NOTEBOOK")
    save(tmp_path, alt="New words.")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert list(manifest) == ["curve"]
    assert (manifest["curve"]["notebook"], manifest["curve"]["alt"]) == ("03-sft", "New words.")
    assert not list(tmp_path.glob("*.tmp")), "temporary files were left behind"


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_alt_text_is_required(tmp_path, alt):
    with pytest.raises(UserError, match="alt text"):
        save(tmp_path / "new", alt=alt)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_data_without_a_value_is_refused(tmp_path, bad):
    with pytest.raises(UserError, match="NaN or infinity"):
        save(tmp_path / "new", data=pd.DataFrame({"x": [1.0, bad]}))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("id", ["", "Big", "../up", "manifest", "a b"])
def test_ids_are_file_names(tmp_path, id):
    with pytest.raises(UserError, match="figure id"):
        save(tmp_path, id=id)


def test_figures_without_numbers_are_refused(tmp_path):
    with pytest.raises(UserError, match="pass data="):
        save(tmp_path, style.new_figure(2, 2))
    with pytest.raises(UserError, match="pass a table"):
        save(tmp_path, data=pd.DataFrame({"x": []}))


def test_broken_neighbour_is_named(tmp_path):
    (tmp_path / "old.json").write_text("{")
    with pytest.raises(UserError, match=r"old\.json is missing or cut short: delete it and redraw"):
        save(tmp_path)


def test_show_embeds_the_picture_with_its_alt_text(tmp_path):
    saved = save(tmp_path, alt='Gain "exceeds" <chance>.')
    shown = show(saved).data
    assert 'alt="Gain &quot;exceeds&quot; &lt;chance&gt;."' in shown
    assert base64.b64encode(saved.path.read_bytes()).decode() in shown
    assert shown == saved._repr_html_()
    assert "titles: board." in show(tiny()).data  # a figure's own words
    assert 'alt="A board."' in show(tiny(), alt="A board.").data
    with pytest.raises(UserError, match="alt text"):
        show(style.new_figure(2, 2))
