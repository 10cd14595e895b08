"""The toy labs: hand-computed steps, conservation, gradients against finite differences, areas in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats

from helpers.errors import UserError
from helpers.show import save
from helpers.toys import plots, softmax
from helpers.toys.mixture import (
    LEARNERS,
    LEAST_SD,
    MEASURES,
    OLD_MODE,
    ONE_MODE,
    RULES,
    START,
    TARGETS,
    WEIGHT_LIMITS,
    Effort,
    Method,
    World,
    accuracy,
    advance,
    ascent,
    choices,
    crossing,
    grid,
    mode_logs,
    outcomes,
    overlap,
    train,
    verdict_sentence,
    verdicts,
    weight_pull,
)
from helpers.toys.softmax import Lesson

some_logits = arrays(float, 7, elements=st.floats(-4, 4))
some_word = st.integers(1, 7)
NEW_MODE = Method("reinforce", 0.01, draws="new mode")


# --- lab A ------------------------------------------------------------------------------------------------


def test_one_negative_step_by_hand() -> None:
    logits, down = np.log([0.5, 0.3, 0.2]), Lesson(((3, -1.0),), rate=0.1)
    # Ascent on -log pi_3 moves the logits by 0.1 (pi - onehot_3).
    assert softmax.learn(logits, down) - logits == pytest.approx([0.05, 0.03, -0.08])
    # Minus the mean of those moves under pi: 0.5 0.05 + 0.3 0.03 - 0.2 0.08 = 0.018.
    assert softmax.predicted_shift(logits, logits, down) == pytest.approx([0.032, 0.012, -0.098])
    # 0.5 + 0.2 and 0.3 + 0.2 both exceed 0.25 + 0.09 + 0.04.
    assert softmax.rises(logits, 3).tolist() == [True, True, False]


def test_one_positive_step_by_hand() -> None:
    logits, up = np.log([0.5, 0.3, 0.2]), Lesson(((3, 1.0),), rate=0.1)
    assert softmax.learn(logits, up) - logits == pytest.approx([-0.05, -0.03, 0.08])
    assert softmax.residual(logits, up.vector(3)) == pytest.approx([0.5, 0.3, -0.8])
    assert softmax.predicted_shift(logits, logits, up) == pytest.approx([-0.032, -0.012, 0.098])


def test_start_is_a_power_law_sorted_by_rank() -> None:
    found = np.exp(softmax.log_softmax(softmax.start_logits(1.0, 4)))
    assert found == pytest.approx(np.array([12, 6, 4, 3]) / 25)
    assert np.exp(softmax.log_softmax(softmax.start_logits(0.0, 4))) == pytest.approx([0.25] * 4)


@given(some_logits, some_word, st.floats(-2, 2).filter(lambda a: abs(a) > 0.01), st.floats(0.01, 2))
def test_what_a_step_conserves(logits, word, advantage, rate) -> None:
    lesson = Lesson(((word, advantage),), rate, 3)
    before = np.exp(softmax.log_softmax(logits))
    assert np.exp(softmax.log_softmax(softmax.learn(logits, lesson))).sum() == pytest.approx(1)
    shift = softmax.predicted_shift(logits, logits, lesson)
    # No probability is made at first order, and the sum over words has a closed form.
    assert before @ shift == pytest.approx(0, abs=1e-12)
    total = rate * advantage * len(logits) * ((before**2).sum() - before[word - 1])
    assert shift.sum() == pytest.approx(total, abs=1e-9)


@given(some_logits, some_word, some_word)
def test_residual_is_minus_the_gradient(logits, word, other) -> None:
    advantage = Lesson(((word, 0.7), (other, -0.4))).vector(7)

    def objective(moved):
        return advantage @ (moved - special.logsumexp(moved))

    steps = 1e-5 * np.eye(7)
    slopes = [(objective(logits + step) - objective(logits - step)) / 2e-5 for step in steps]
    assert -softmax.residual(logits, advantage) == pytest.approx(slopes, abs=1e-7)


@given(some_logits, some_word)
def test_akg_is_the_slope_of_the_measured_shift(logits, word) -> None:
    def error(rate):
        lesson = Lesson(((word, -1.0),), rate)
        measured = special.log_softmax(softmax.learn(logits, lesson)) - special.log_softmax(logits)
        return np.abs(measured - softmax.predicted_shift(logits, logits, lesson)).max()

    assert error(1e-4) <= 1e-8  # the remainder is of second order in the rate
    assert error(0.02) < 0.3 * error(0.04) + 1e-12


def test_a_is_the_jacobian_of_the_log_probs() -> None:
    logits = np.array([0.3, -1.2, 2.0, 0.1])
    steps = 1e-6 * np.eye(4)
    columns = [(special.log_softmax(logits + s) - special.log_softmax(logits - s)) / 2e-6 for s in steps]
    assert softmax.a_matrix(logits) == pytest.approx(np.array(columns).T, abs=1e-8)


@given(some_logits, some_word)
def test_the_rule_says_which_words_rise(logits, word) -> None:
    p = special.softmax(logits)
    clear = np.abs(p + p[word - 1] - (p**2).sum()) > 1e-4  # a tie is decided at second order
    clear[word - 1] = True
    once = softmax.learn(logits, Lesson(((word, -1.0),), rate=1e-6))
    measured = special.log_softmax(once) - special.log_softmax(logits) > 0
    assert (softmax.rises(logits, word) == measured)[clear].all()


@given(some_logits, some_word, st.floats(0.01, 5), st.integers(1, 20))
def test_a_lone_negative_never_lowers_the_top_word_and_the_top_word_stays(logits, word, rate, steps) -> None:
    top = int(np.argmax(logits))
    if word - 1 == top:
        word = 1 + (top + 1) % 7
    before = softmax.log_softmax(logits)
    after = softmax.log_softmax(softmax.learn(logits, Lesson(((word, -1.0),), rate, steps)))
    assert after[top] >= before[top] - 1e-12 and after.max() == after[top]


@given(some_logits, st.permutations(range(1, 8)), st.floats(0.01, 2))
def test_a_balanced_step_moves_all_bystanders_alike(logits, words, rate) -> None:
    up, down, *bystanders = words
    after = softmax.learn(logits, Lesson(((up, 1.0), (down, -1.0)), rate, steps=4))
    shift = softmax.log_softmax(after) - softmax.log_softmax(logits)
    assert np.ptp(shift[np.array(bystanders) - 1]) < 1e-9
    assert shift[up - 1] - shift[down - 1] == pytest.approx(8 * rate)  # 2 rate a step, whatever the start


@pytest.mark.parametrize("similarity", [-0.6, 0.0, 0.8])
def test_a_shared_layer_starts_as_told_and_moves_by_the_kernel(similarity) -> None:
    layer, lesson = softmax.shared_layer(1.2, similarity), Lesson(((15, -1.0),), 0.3)
    for prompt, top in enumerate((0, 7, 14)):
        start = special.softmax(layer.logits[prompt])
        assert start[top] == start.max()
        assert sorted(start, reverse=True) == pytest.approx(special.softmax(softmax.start_logits(1.2)))
    moved = layer.learn(0, lesson).logits - layer.logits
    assert moved[1] == pytest.approx(similarity * moved[0], abs=1e-12)
    assert moved[2] == pytest.approx(np.zeros(20), abs=1e-12)


def test_a_shared_layer_climbs_its_objective() -> None:
    layer, lesson = softmax.shared_layer(1.0, 0.5, words=4), Lesson(((2, 1.0), (3, -0.5)), 0.1)
    x = layer.inputs[1]
    slopes = np.zeros_like(layer.weights)
    for where in np.ndindex(slopes.shape):
        values = []
        for sign in (1, -1):
            weights = layer.weights.copy()
            weights[where] += sign * 1e-5
            log_p = special.log_softmax(weights @ x)
            values.append(log_p[1] - 0.5 * log_p[2])
        slopes[where] = (values[0] - values[1]) / 2e-5
    assert layer.learn(1, lesson).weights - layer.weights == pytest.approx(0.1 * slopes, abs=1e-8)


def test_tables_hold_both_the_measured_and_the_predicted() -> None:
    lesson = Lesson(((3, -1.0),), 1e-3, 5)
    rows = softmax.squeeze_table({"down": lesson}, softmax.start_logits(1.0))
    assert rows["before"].sum() == pytest.approx(1) and rows["after"].sum() == pytest.approx(1)
    assert rows["shift"].tolist() == pytest.approx(np.log(rows["after"] / rows["before"]).tolist())
    assert rows["one_step"].tolist() == pytest.approx(rows["predicted"].tolist(), abs=1e-6)
    shared = softmax.shared_table(softmax.shared_layer(1.0, 0.7), lesson)
    assert shared["one_step"].tolist() == pytest.approx(shared["predicted"].tolist(), abs=1e-6)
    assert (shared.loc[shared["panel"] == "stranger", ["shift", "predicted"]].abs() < 1e-12).all(axis=None)
    trained = shared.loc[shared["panel"] == "trained", "after"]
    assert trained.tolist() == pytest.approx(rows["after"].tolist())


def test_sweep_rows_are_what_their_names_say() -> None:
    rows = softmax.squeeze_sweep([0.0, 1.0], [1, 5], rate=0.2, steps=2).set_index(["peak", "word"])
    p = 1 / np.arange(1, 21)
    logits = np.log(p / p.sum())
    for _ in range(2):
        gradient = special.softmax(logits)
        gradient[4] -= 1
        logits = logits + 0.2 * gradient
    shift = special.log_softmax(logits) - np.log(p / p.sum())
    found = rows.loc[(1.0, 5)]
    assert found["pushed_probability"] == pytest.approx(p[4] / p.sum()) and found["winner"] == 1
    assert found["winner_gain"] == pytest.approx(special.softmax(logits)[0] - p[0] / p.sum())
    assert found["bystander_shift"] == pytest.approx(np.delete(shift, [0, 4]).mean())
    assert found["falling"] == pytest.approx((np.delete(shift, [0, 4]) < 0).mean())
    assert rows.loc[(1.0, 1)]["winner"] == 2
    assert rows.loc[(0.0, 5)]["falling"] == 0  # from a uniform start nobody is squeezed


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lesson(()),
        lambda: Lesson(((1, 1.0),), rate=0),
        lambda: Lesson(((1, 1.0),), steps=0),
        lambda: Lesson(((21, 1.0),)).vector(20),
        lambda: Lesson(((0, 1.0),)).vector(20),
        lambda: softmax.start_logits(-1),
        lambda: softmax.start_logits(1, words=1),
        lambda: softmax.shared_layer(1.0, 1.0),
        lambda: World(place=20),
        lambda: World(modes=3),
        lambda: World(modes=1, measure="mode"),
        lambda: Method("dpo", 0.1),
        lambda: Method("sft", 0),
        lambda: Effort(slows=()),
        lambda: Effort(slows=(-0.1,)),
        lambda: Effort(gain=1.0),
    ],
)
def test_bad_input_is_told_in_a_sentence(make) -> None:
    with pytest.raises(UserError, match=r"^[A-Z].*[.]$"):
        make()


# --- lab B: areas -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("sd", [0.7, 1.0])
def test_overlap_of_equal_widths_has_a_closed_form(apart, sd) -> None:
    p, q = (stats.norm.pdf(grid(), mean, sd) for mean in (-1.03, -1.03 + apart * sd))
    assert overlap(p, q) == pytest.approx(2 * stats.norm.cdf(-apart / 2), abs=2e-4)


def test_overlap_of_unequal_widths_and_of_far_modes() -> None:
    p, q = stats.norm.pdf(grid(), 0, 1), stats.norm.pdf(grid(), 0, 2)
    cross = math.sqrt(8 * math.log(2) / 3)  # where the two densities are equal
    inside = stats.norm.cdf(cross / 2) - stats.norm.cdf(-cross / 2)
    assert overlap(p, q) == pytest.approx(inside + 2 * stats.norm.cdf(-cross), abs=2e-4)
    assert overlap(stats.norm.pdf(grid(), -6, 0.5), stats.norm.pdf(grid(), 6, 0.5)) < 1e-12
    assert overlap(0.3 * p, p) == pytest.approx(0.3)


@pytest.mark.parametrize("measure", MEASURES)
def test_accuracy_is_one_at_the_truth_and_known_at_the_start(measure) -> None:
    world = World(measure=measure)
    truth = np.array([*OLD_MODE, 3.5, 0.7])
    assert accuracy(truth, world) == pytest.approx([1, 1], abs=1e-6)
    if measure == "mode":  # both modes have the same width and the right weight: half a sd and 3 / 0.7 sds apart
        known = 2 * stats.norm.cdf([-0.25, -1.5 / 0.7])
        assert accuracy(world.start, world) == pytest.approx(known, abs=2e-4)


def test_the_whole_policy_counts_under_one_measure_and_its_mode_under_the_other() -> None:
    swapped = np.array([0.25, 3.5, 0.7, -3.0, 1.0])  # the same density with the modes' names exchanged
    assert accuracy(swapped, World()) == pytest.approx([1, 1], abs=1e-6)
    assert accuracy(swapped, World(measure="mode")) == pytest.approx([0, 0], abs=1e-3)


# --- lab B: gradients -------------------------------------------------------------------------------------

FINE = np.linspace(-14, 14, 8001)
POLICY = np.array([0.6, -2.6, 1.1, 1.2, 0.9])


def mixture(weight, old_mean, old_sd, new_mean, new_sd):
    return weight * stats.norm.pdf(FINE, old_mean, old_sd) + (1 - weight) * stats.norm.pdf(FINE, new_mean, new_sd)


def objective(learner, policy):
    """Minus the divergence that the learner descends, up to a constant, by another grid and another library."""
    target = stats.norm.pdf(FINE, 3.5, 0.7) if learner.target == "new" else mixture(0.75, -3, 1, 3.5, 0.7)
    q, log_target = mixture(*policy), np.log(np.maximum(target, 1e-300))
    if learner.target == "new":
        log_target = stats.norm.logpdf(FINE, 3.5, 0.7)
    values = target * np.log(q) if learner.rule == "sft" else q * (log_target - np.log(q))
    return np.trapezoid(values, FINE)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rule", RULES)
def test_exact_gradients_agree_with_finite_differences(rule, target) -> None:
    learner = Method(rule, 0.1, target=target)
    slopes = []
    for step in 1e-5 * np.eye(5):
        slopes.append((objective(learner, POLICY + step) - objective(learner, POLICY - step)) / 2e-5)
    assert ascent(learner, World(), POLICY[None])[0] == pytest.approx(slopes, rel=1e-5, abs=1e-6)


def test_forward_kl_from_far_modes_by_hand() -> None:
    policy = np.array([[0.75, -9.0, 1.0, 2.5, 0.7]])
    # Every sample belongs to the new mode: w loses 1 / (1 - w); mean and sd climb one Gaussian's likelihood.
    found = ascent(Method("sft", 0.1), World(), policy)[0]
    assert found == pytest.approx([-4, 0, 0, 1 / 0.49, (0.49 + 1) / 0.343 - 1 / 0.7], abs=1e-6)


@pytest.mark.parametrize("learner", [Method("sft", 0.1), Method("reinforce", 0.1), Method("sft", 1, target="both")])
def test_samples_estimate_the_exact_gradient(learner) -> None:
    rng, n, batches = np.random.default_rng(3), 2000, 200
    noise = (rng.standard_normal((batches, n)), rng.random((batches, n)))
    found = ascent(learner, World(), np.tile(POLICY, (batches, 1)), noise)
    error = found.std(axis=0, ddof=1) / math.sqrt(batches)
    exact = ascent(learner, World(), POLICY[None])[0]
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error).all()


def test_reinforce_from_the_new_mode_only_by_hand() -> None:
    policy = np.array([0.6, -11.0, 0.5, 2.5, 0.9])
    rng = np.random.default_rng(1)
    noise = (rng.standard_normal((100, 4000)), rng.random((100, 4000)))
    many = np.tile(policy, (100, 1))
    found = ascent(NEW_MODE, World(), many, noise)
    error = 4 * found.std(axis=0, ddof=1) / 10 + 1e-9
    # KL(N(2.5, 0.9) || N(3.5, 0.7)) falls with slope (3.5 - 2.5) / 0.49 in the mean and 1/0.9 - 0.9/0.49 in the sd.
    known = [weight_pull(policy, NEW_MODE, World()), 0, 0, 1 / 0.49, 1 / 0.9 - 0.9 / 0.49]
    assert (np.abs(found.mean(axis=0) - known) < error).all()
    centred = ascent(replace(NEW_MODE, centred=True), World(), many, noise)
    assert np.abs(centred[:, 0]).max() < 1e-9


def test_the_pull_on_the_weight_changes_sign_where_the_reward_does() -> None:
    # Mean reward 0: KL = log(1 / beta) - log(1 - w) = log 10 + log 4; equal widths: KL = d^2 / (2 0.49).
    apart = math.sqrt(2 * 0.49 * math.log(40))
    pulls = [
        weight_pull(np.array([0.75, -9, 1, 3.5 - d, 0.7]), NEW_MODE, World()) for d in (apart - 0.1, apart, apart + 0.1)
    ]
    assert pulls[0] < 0 < pulls[2] and pulls[1] == pytest.approx(0, abs=1e-9)
    assert weight_pull(np.array([0.75, -9, 1, 3.5, 0.7]), NEW_MODE, World()) == pytest.approx(-4 * math.log(40))


def test_only_samples_can_show_the_new_mode_only() -> None:
    with pytest.raises(UserError, match="no exact version"):
        ascent(NEW_MODE, World(), POLICY[None])


# --- lab B: runs ------------------------------------------------------------------------------------------


def test_slow_factor_one_is_plain_ascent_and_others_scale_the_old_mode_only() -> None:
    learner, world, three = Method("sft", 0.01), World(), np.tile(POLICY, (3, 1))
    climbed = ascent(learner, world, POLICY[None])[0]
    moved = advance(learner, world, three, np.array([1.0, 0.25, 0.0])) - three
    assert moved[0] == pytest.approx(0.01 * climbed)
    assert moved[1] == pytest.approx(0.01 * climbed * [0.25, 0.25, 0.25, 1, 1])
    assert moved[2] == pytest.approx(0.01 * climbed * [0, 0, 0, 1, 1])


def test_a_sampled_run_step_by_step() -> None:
    """Maximum likelihood by finite differences on the very same samples, one policy, plain loops."""
    runs = train(Method("sft", 0.05), World(), Effort((0.3,), seeds=2, samples=50, steps=4))
    rng, policy = np.random.default_rng(1), np.array(START)
    for step in range(1, 5):
        normal, _ = rng.standard_normal(50), rng.random(50)
        x = 3.5 + 0.7 * normal

        def likelihood(p, x=x):
            parts = p[0] * stats.norm.pdf(x, p[1], p[2]) + (1 - p[0]) * stats.norm.pdf(x, p[3], p[4])
            return np.log(parts).mean()

        slopes = [(likelihood(policy + h) - likelihood(policy - h)) / 2e-6 for h in 1e-6 * np.eye(5)]
        policy = policy + 0.05 * np.array([0.3, 0.3, 0.3, 1, 1]) * slopes
        assert runs.policies[step, 0, 1] == pytest.approx(policy, abs=1e-6)


@pytest.mark.parametrize("learner", [NEW_MODE, Method("reinforce", 0.01)])
def test_a_run_repeats_and_does_not_depend_on_its_neighbours(learner) -> None:
    effort = Effort((0.005, 0.5), seeds=3, samples=60, steps=40)
    many, again = train(learner, World(), effort), train(learner, World(), effort)
    assert all(np.array_equal(a, b) for a, b in zip(many, again, strict=True))
    alone = train(learner, World(), replace(effort, slows=(0.5,)))
    steps = min(len(alone.policies), len(many.policies))
    assert np.array_equal(alone.policies[:steps, 0], many.policies[:steps, 1])
    assert not np.array_equal(many.policies[-1, 0, 0], many.policies[-1, 0, 1])


def test_a_run_stops_where_the_gain_is_first_reached() -> None:
    runs = train(Method("sft", 0.15), World(), Effort((0.005, 1.0), seeds=1, samples=0))
    gains = runs.accuracies[..., 1] - runs.accuracies[0, ..., 1]
    for place in range(2):
        stop = runs.stopped[place, 0]
        assert gains[stop, place, 0] >= 0.9 > gains[:stop, place, 0].max()
        assert (runs.policies[stop:, place] == runs.policies[stop, place]).all()
    assert runs.stopped.max() == len(runs.policies) - 1


def test_a_gain_out_of_reach_is_reported_as_such() -> None:
    effort = Effort((1.0,), seeds=3, samples=40, steps=2)
    rows = outcomes({"SFT": Method("sft", 0.01), "REINFORCE": NEW_MODE}, World(), effort)
    assert (rows["reached"] == 0).all() and (rows["step"] == 2).all()
    assert verdicts(rows, "REINFORCE", "SFT")["verdict"].tolist() == ["gain not reached"]
    with pytest.raises(UserError, match="No run reached"):
        plots.slow_curves(rows, 0.8)


def test_exact_runs_do_not_know_seeds() -> None:
    runs = train(Method("reinforce", 0.01), World(), Effort((0.01,), seeds=2, samples=0, steps=5))
    assert np.array_equal(runs.policies[:, 0, 0], runs.policies[:, 0, 1])


def test_one_mode_stays_one_mode() -> None:
    world = World(modes=1)
    for learner in (Method("sft", 0.05), Method("reinforce", 0.005), NEW_MODE):
        last = train(learner, world, Effort((1.0,), seeds=1, samples=100, steps=20)).policies[-1, 0, 0]
        assert last[0] == 0 and last[1:3].tolist() == [-3.5, 1.0] and last[3] > -3.5
        density = np.exp(np.logaddexp(*mode_logs(grid(), last)))
        assert density == pytest.approx(stats.norm.pdf(grid(), last[3], last[4]))


@given(
    st.tuples(st.floats(0.001, 0.999), st.floats(-6, 6), st.floats(0.06, 4), st.floats(-6, 6), st.floats(0.06, 4)),
    st.sampled_from([Method("sft", 3.0), Method("reinforce", 3.0), Method("reinforce", 3.0, draws="new mode")]),
)
def test_no_step_leaves_the_allowed_policies(policy, learner) -> None:
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal((1, 30)), rng.random((1, 30)))
    moved = advance(learner, World(), np.array([policy]), np.ones(1), noise)[0]
    assert np.isfinite(moved).all()
    assert WEIGHT_LIMITS[0] <= moved[0] <= WEIGHT_LIMITS[1] and min(moved[2], moved[4]) >= LEAST_SD


def test_old_data_in_the_target_keeps_the_old_mode() -> None:
    learners = {"SFT, new": Method("sft", 0.15), "SFT, both": Method("sft", 0.15, target="both")}
    rows = outcomes(learners, World(), Effort((1.0,), seeds=1, samples=0, steps=800)).set_index("learner")
    start = accuracy(World().start, World())[0]
    assert rows.loc["SFT, both", "kept"] > start > rows.loc["SFT, new", "kept"]
    assert rows["reached"].all() and rows["drop"].tolist() == pytest.approx((start - rows["kept"]).tolist())
    reverse = Method("reinforce", 0.05, target="both")
    found = outcomes({"both": reverse}, World(), Effort((1.0,), seeds=1, samples=0)).iloc[0]
    assert found["reached"] and found["kept"] > start


# --- lab B: verdicts --------------------------------------------------------------------------------------


def made_rows(gaps, seeds=3, spread=0.001):
    """Two learners whose kept accuracies differ by `gaps[slow]`."""
    rows = [
        {"learner": name, "slow": slow, "seed": seed, "reached": 1, "kept": 0.4 + share * (gap + seed * spread)}
        for slow, gap in gaps.items()
        for seed in range(seeds)
        for name, share in (("REINFORCE, a", 1), ("SFT, b", 0))
    ]
    return pd.DataFrame(rows)


def test_verdicts_need_more_than_the_margin() -> None:
    table = verdicts(made_rows({0.1: 0.05, 0.2: -0.05, 0.5: 0.0, 1.0: 0.018}), "REINFORCE, a", "SFT, b")
    assert table["verdict"].tolist() == ["more", "less", "alike", "undecided"]
    assert table["mean"].tolist() == pytest.approx([0.051, -0.049, 0.001, 0.019])
    half = stats.t.ppf(0.975, 2) * 0.001 / math.sqrt(3)
    assert (table["high"] - table["mean"]).tolist() == pytest.approx([half] * 4)
    text = verdict_sentence(table, "REINFORCE, a", "SFT, b")
    assert "keeps more than SFT, b at slow factor 0.1;" in text and text.endswith("undecided at slow factor 1.")


def test_two_seeds_decide_nothing_and_missing_runs_are_refused() -> None:
    rows = made_rows({0.1: 0.5}, seeds=2)
    assert verdicts(rows, "REINFORCE, a", "SFT, b")["verdict"].tolist() == ["undecided"]
    with pytest.raises(UserError, match="run both"):
        verdicts(rows, "REINFORCE, a", "SFT, c")


def test_crossing_is_interpolated_along_the_logarithm() -> None:
    rows = made_rows({0.01: 0.3, 1.0: -0.1}, spread=0.0)
    assert crossing(rows, "REINFORCE, a", "SFT, b") == pytest.approx(10**-0.5)
    assert crossing(made_rows({0.01: 0.3, 1.0: 0.1}), "REINFORCE, a", "SFT, b") is None


def test_choices_compare_every_pair_under_every_measure() -> None:
    names = ("REINFORCE, a", "SFT, b")
    table = choices({"policy": made_rows({0.1: 0.05}), "mode": made_rows({0.1: -0.05})}, names)
    assert table["measure"].tolist() == ["policy", "mode"] and table["0.1"].tolist() == ["more", "less"]


# --- figures ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short() -> pd.DataFrame:
    learners = {name: LEARNERS[name] for name in ("SFT, rate 0.15", "REINFORCE, new mode")}
    return outcomes(learners, World(), Effort((0.005, 1.0), seeds=3, samples=100, steps=400))


def test_figures_remember_what_they_draw(short, tmp_path) -> None:
    table = softmax.squeeze_table({"down": Lesson(((5, -1.0),))}, softmax.start_logits(1.0))
    sweep = softmax.squeeze_sweep((0.5, 1.0), (1, 5), 0.5, 3)
    densities = plots.density_rows({"SFT, rate 0.15": Method("sft", 0.15)}, World(), Effort((0.005,), samples=0))
    made = {
        "words": (plots.squeeze_panels(table, 1), len(table)),
        "sweep": (plots.squeeze_sweep_panels(sweep, 3), 4),
        "slow": (plots.slow_curves(short, 0.8), 4),
        "distance": (plots.distance_panels(pd.concat([short.assign(place=p) for p in (3.5, 4.5)])), 8),
        "mixture": (plots.mixture_panels(densities, World()), len(densities)),
    }
    for name, (fig, rows) in made.items():
        assert len(save.drawn(fig)) == rows
        save.savefig(fig, name, alt=name, folder=tmp_path)  # refuses NaN and infinity
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_drawn_lines_are_means_over_seeds(short) -> None:
    drawn = save.drawn(plots.slow_curves(short, 0.8)).set_index(["learner", "slow"])
    for key, rows in short.groupby(["learner", "slow"]):
        assert drawn.loc[key, "mean"] == pytest.approx(rows["kept"].mean()) and drawn.loc[key, "seeds"] == 3


def test_densities_integrate_to_one_and_begin_at_the_start() -> None:
    rows = plots.density_rows({"SFT": Method("sft", 0.15)}, World(), Effort((0.005,), samples=0))
    for _, part in rows.groupby("moment"):
        assert np.trapezoid(part["density"], part["x"]) == pytest.approx(1, abs=0.01)
    start, end = (rows[rows["moment"] == moment].iloc[0] for moment in ("start", "end"))
    assert start["step"] == 0 and start["gain"] == 0
    assert start["kept"] == pytest.approx(accuracy(World().start, World())[0]) and end["gain"] >= 0.9


def test_every_learner_has_a_look() -> None:
    for name in [*LEARNERS, *ONE_MODE, "SFT", "REINFORCE"]:
        assert plots.learner_look(name)["color"]
    looks = {(plots.learner_look(name)["marker"], str(plots.learner_look(name)["linestyle"])) for name in LEARNERS}
    assert len(looks) == len(LEARNERS)
