"""Learning dynamics against computations of another kind: explicit matrices, loops of gradients, numbers by hand."""

import math
from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.errors import UserError
from helpers.measure import influence, learned_from, linear, walks
from helpers.model.score import completion_logps
from helpers.show import dynamics
from helpers.show.save import drawn
from helpers.stats import intervals
from helpers.stats.intervals import seed_interval
from helpers.study.profiles import get_profile
from helpers.verdicts import forecasts
from helpers.world.battery import battery_samples
from helpers.world.boards import Prompted, Sample

ARMS = ("rft", "sft-answer", "sft-expert", "sft-rollout", "sft-self")


# --- a softmax model small enough to write down -----------------------------------------------------------


def softmax_model(seed, tokens=(2, 1), words=4, width=3, weight=1.0):
    """Items of some tokens each with fixed features x (M, d); z = x W^T, so that K = (x_v . x_u) I exactly."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(sum(tokens), width, generator=generator, dtype=torch.float64)
    target = torch.randint(words, (sum(tokens),), generator=generator)
    owner = torch.repeat_interleave(torch.arange(len(tokens)), torch.tensor(tokens))
    kinds = tuple(f"task {i}" for i in range(len(tokens)))
    weights = torch.full((len(tokens),), weight, dtype=torch.float64)
    batch = linear.Scored(
        lambda w: features @ w["w"].T, target, owner, weights, kinds, torch.empty(0, dtype=torch.long)
    )
    return SimpleNamespace(batch=batch, features=features)


@pytest.fixture
def softmax():
    """Two batches of the softmax model at one W (4 words, 3 features)."""
    w = {"w": torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    return SimpleNamespace(w=w, v=softmax_model(1), u=softmax_model(2, tokens=(1, 3)))


def dense_akg(v, u, w, keep):
    """-A K G written out with full matrices for the tokens `keep` of u: (M_v, V)."""
    z_v, z_u = v.features @ w.T, u.features @ w.T
    words = z_v.shape[1]
    kernel = torch.kron(v.features @ u.features.T, torch.eye(words, dtype=w.dtype))
    g = z_u.softmax(-1)
    g[torch.arange(len(g)), u.batch.target] -= 1
    g[~keep] = 0
    a = torch.block_diag(*[torch.eye(words).to(w) - torch.ones(words, 1).to(w) @ p[None] for p in z_v.softmax(-1)])
    return -(a @ kernel @ g.flatten()).reshape(z_v.shape)


@pytest.mark.parametrize("item", [None, 0, 1])
def test_akg_is_the_product_of_the_written_out_matrices(softmax, item):
    v, u = (linear.Linearised(m.batch, softmax.w) for m in (softmax.v, softmax.u))
    keep = torch.ones(4, dtype=torch.bool) if item is None else softmax.u.batch.owner == item
    expected = dense_akg(softmax.v, softmax.u, softmax.w["w"], keep)
    torch.testing.assert_close(linear.akg(v, u, item), expected)


def test_first_order_prediction_is_the_derivative_in_the_rate(softmax):
    slope = linear.gradient(softmax.u.batch, softmax.w)
    step = influence.Step("sgd", 1e-6)
    direction = influence.update(softmax.w, slope, step)
    line = linear.Linearised(softmax.v.batch, softmax.w)
    measured = influence.logps_at(softmax.v.batch, influence.moved(softmax.w, direction)) - line.logps()
    found = influence.predicted(line, direction)
    keep = torch.ones(4, dtype=torch.bool)
    words = dense_akg(softmax.v, softmax.u, softmax.w["w"], keep) * step.rate / 4  # the loss is a mean over 4 tokens
    by_hand = softmax.v.batch.per_item(words[torch.arange(3), softmax.v.batch.target])
    torch.testing.assert_close(found["first order"], by_hand)
    torch.testing.assert_close(measured, by_hand, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(found["linear logits"], measured, rtol=1e-9, atol=1e-15)  # z is linear in W


def test_kernel_norm_of_the_softmax_model_has_a_closed_form(softmax):
    v, u = (linear.Linearised(m.batch, softmax.w) for m in (softmax.v, softmax.u))
    overlap = softmax.v.features @ softmax.u.features.T
    found = linear.kernel_norms(v, 1, u, linear.Head(softmax.w["w"], "w", tied=False))
    by_hand = [math.sqrt(4 * float((overlap[1, keep] ** 2).sum())) for keep in ([0], [1, 2, 3])]
    assert found.tolist() == pytest.approx(by_hand)


def test_sketch_estimates_the_kernel_norm_without_bias(softmax):
    v, u = (linear.Linearised(m.batch, softmax.w) for m in (softmax.v, softmax.u))
    overlap = softmax.v.features @ softmax.u.features.T
    found = linear.kernel_size(linear.sketch(v, u, 640), len(softmax.v.features))
    exact = math.sqrt(4 * float((overlap**2).sum()) / overlap.numel())
    assert found.low < exact < found.high
    assert found.high - found.low < 0.2 * exact
    one = linear.kernel_size(linear.sketch(v, u, 640, token=2), 1)
    assert one.mean == pytest.approx(math.sqrt(float((overlap[2] ** 2).mean()) * 4), rel=0.1)


# --- A and G ----------------------------------------------------------------------------------------------

logits_rows = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=7)


@given(logits_rows)
def test_a_norm_is_the_frobenius_norm_of_the_matrix(row):
    z = torch.tensor([row], dtype=torch.float64)
    matrix = torch.eye(len(row), dtype=torch.float64) - torch.ones(len(row), 1, dtype=torch.float64) @ z.softmax(-1)
    assert float(linear.a_norm(z)) == pytest.approx(float(torch.linalg.matrix_norm(matrix)))


@given(logits_rows, st.integers(0, 10**6))
def test_a_turns_changes_of_logits_into_changes_of_log_probs(row, seed):
    z = torch.tensor([row], dtype=torch.float64)
    change = torch.randn(1, len(row), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: x.log_softmax(-1))(z[0])
    torch.testing.assert_close(linear.apply_a(z, change)[0], jacobian @ change[0])


def test_residual_is_minus_the_gradient_of_the_log_prob():
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(4), requires_grad=True)
    target = torch.tensor([0, 4, 2])
    (slope,) = torch.autograd.grad(z.log_softmax(-1)[torch.arange(3), target].sum(), z)
    torch.testing.assert_close(linear.residual(z.detach(), target), -slope)


def test_normalisers_of_lbk_by_hand():
    batch = softmax_model(0, tokens=(2,), words=2).batch
    # p = (0.5, 0.5) and (0.8, 0.2): norms 0.7071 and 0.8246; targets set below
    z = torch.tensor([[0.0, 0.0], [math.log(4), 0.0]], dtype=torch.float64)
    batch = replace(batch, target=torch.tensor([0, 1]))
    mean = (math.sqrt(0.5) + math.sqrt(0.68)) / 2
    assert influence.item_a_norm(z, batch).tolist() == pytest.approx([math.sqrt(2 * mean**2 + 0)])
    # p - e = (-0.5, 0.5) and (0.8, -0.8)
    assert influence.item_g_norm(z, batch).tolist() == pytest.approx([(math.sqrt(0.5) + math.sqrt(1.28)) / 2])


def test_lbk_and_sign_delta_by_hand():
    assert influence.lbk([3.0, -4.0], [4.0, 14.0], 0.5) == pytest.approx(5 / 3 / 0.5)
    assert influence.sign_delta([3.0, -4.0], [4.0, 14.0], 0.5) == pytest.approx(-0.5 / 3 / 0.5)
    assert influence.sign_delta([2.0, 2.0], [9.0, 9.0], 1.0) == pytest.approx(2 / 3)


def test_bounds_pool_the_prior_tasks_and_keep_each():
    rows = pd.DataFrame(
        {"corpus": "rft", "batch": 0, "step": "s", "kind": ["hill", "land", "puzzle own"], "change": [3.0, 4.0, 12.0],
         "a": [1.0, 9.0, 4.0], "g": 2.0}
    )  # fmt: skip
    found = influence.bounds(rows).set_index("probe")["lbk"]
    assert found.to_dict() == pytest.approx(
        {linear.PRIOR: 5 / math.sqrt(5) / 2, "hill": 1.5, "land": 4 / 3 / 2, "puzzle own": 3.0}
    )


def test_ema_by_hand():
    assert influence.ema([1.0, 2.0, 0.0]) == pytest.approx([1.0, 1.1, 0.99])
    assert influence.ema([]) == []


# --- the real architecture against loops of gradients -----------------------------------------------------


def picture(seed):
    return np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)


def item(seed, completion, kind="hill", weight=1.0):
    return Sample(Prompted(picture(seed), "What is seen? Answer with one word."), completion, kind, weight)


@pytest.fixture(scope="module")
def small(tiny):
    """(model, processor), its weights, and whole Jacobians of short completions (one is the end token alone)."""
    model, processor = tiny.load()
    base, weights = (model, processor), linear.weights_of(model)
    v, u = linear.scored(base, [item(0, "left")]), linear.scored(base, [item(1, "sky"), item(2, "")])
    return SimpleNamespace(base=base, weights=weights, v=v, u=u, jv=loops(model, v, [0]), ju=loops(model, u, None))


def loops(model, batch, tokens):
    """dz/dtheta (tokens V, P) by backward passes from each logit, through the model's own parameters."""
    named = list(model.named_parameters())
    logits = batch.logits(dict(named))
    kept = (logits if tokens is None else logits[tokens]).flatten()
    rows = []
    for unit in torch.eye(len(kept)).split(60):
        parts = torch.autograd.grad(kept, [p for _, p in named], unit, retain_graph=True, is_grads_batched=True)
        rows.append(torch.cat([part.flatten(1) for part in parts], 1))
    return torch.cat(rows)


def test_pull_and_push_are_products_with_the_looped_jacobian(small):
    line, rng = linear.Linearised(small.u, small.weights), torch.Generator().manual_seed(0)
    w = torch.randn(line.logits.shape, generator=rng)
    torch.testing.assert_close(linear.flat(line.pull(w)), small.ju.T @ w.flatten(), rtol=1e-3, atol=1e-3)
    direction = {name: torch.randn(weight.shape, generator=rng) for name, weight in small.weights.items()}
    expected = (small.ju @ linear.flat(direction)).reshape(line.logits.shape)
    torch.testing.assert_close(line.push(direction), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_exact_kernel_norm_equals_the_norm_of_the_whole_matrix(small):
    v, u = (linear.Linearised(batch, small.weights) for batch in (small.v, small.u))
    head = linear.head_of(small.base[0], small.weights)
    assert head.tied
    found = linear.kernel_norms(v, 0, u, head)
    kernel, words = small.jv @ small.ju.T, v.logits.shape[1]
    owner = torch.repeat_interleave(small.u.owner, words)
    assert found.tolist() == pytest.approx([float(kernel[:, owner == i].norm()) for i in range(2)], rel=1e-3)
    # the share outside the head's range is small: looked at by itself
    basis = torch.linalg.qr(head.matrix)[0]
    rest = (kernel - basis @ (basis.T @ kernel)).reshape(words, -1, words)
    outside = linear._outside(v, 0, u, head, basis)
    torch.testing.assert_close(outside, rest.square().sum((0, 2)), rtol=1e-2, atol=0)
    untied = linear._outside(v, 0, u, head._replace(tied=False), basis)
    assert not torch.allclose(untied, outside, rtol=5e-2)


def test_ladder_goes_down_and_its_real_step_is_the_first_order(small):
    v, u = (linear.Linearised(batch, small.weights) for batch in (small.v, small.u))
    head = linear.head_of(small.base[0], small.weights)
    rows = walks.ladder(walks.Pair(v, 0, u), head, small.weights, 1e-6)
    kernel = (small.jv @ small.ju.T).reshape(len(small.jv), *u.logits.shape)
    for number, row in enumerate(rows.itertuples()):
        assert row.kernel > row.gradient > row.words > row.target > 0
        mine = small.u.owner == number
        g = linear.residual(u.logits, small.u.target)[mine]
        kg = torch.einsum("vmk,mk->v", kernel[:, mine], g)
        assert row.g == pytest.approx(float(g.norm()), rel=1e-4)
        assert row.gradient == pytest.approx(float(kg.norm() / g.norm()), rel=1e-3)
        p = v.logits[0].softmax(-1)
        change = kg - (p @ kg)
        assert row.words == pytest.approx(float(change.norm()) / row.a / row.g, rel=1e-3)
        assert row.target == pytest.approx(abs(float(change[small.v.target[0]])) / row.a / row.g, rel=1e-3)
        assert row.measured == pytest.approx(row.target, rel=0.05)
        real = row.measured * row.a * row.g
        assert row.lbk == pytest.approx(real / math.sqrt(row.a) / float(g.norm(dim=-1).mean()), rel=1e-3)


def test_gradient_is_that_of_the_weighted_token_mean(small):
    model = small.base[0]
    batch = linear.scored(small.base, [item(1, "sky", weight=2.0), item(2, "7 7", weight=-0.5)])
    logps = linear.token_logps(batch.logits(dict(model.named_parameters())), batch.target)
    sums = batch.per_item(logps)
    model.zero_grad()
    (-(2.0 * sums[0] - 0.5 * sums[1]) / len(logps)).backward()
    found = linear.gradient(batch, small.weights)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)
    model.zero_grad()


def test_scored_agrees_with_the_scorer_however_many_rows(small):
    items = [item(seed, text) for seed, text in enumerate(["sky", "left 3", "7"] * 5)]
    shared = [items[0].prompt, items[0].completion], [replace(items[0], completion="dark"), "dark"]
    items = [items[0], shared[1][0], *items[1:]]
    batch = linear.scored(small.base, items)
    assert batch.kinds == ("hill",) * len(items)
    texts = [[i.completion] for i in items]
    expected = [float(row[0].sum()) for row in completion_logps(*small.base, [i.prompt for i in items], texts)]
    assert influence.logps_at(batch, small.weights).tolist() == pytest.approx(expected, rel=1e-4)
    assert batch.tokens.tolist() == [len(row[0]) for row in
                                     completion_logps(*small.base, [i.prompt for i in items], texts)]  # fmt: skip


def test_answer_token_is_the_one_behind_the_tag(small):
    tokenizer = small.base[1].tokenizer
    long = item(0, "<think>sky</think><answer>3 1 4 2</answer>")
    batch = linear.scored(small.base, [long])
    assert tokenizer.decode([int(batch.target[walks.answer_token(small.base[1], long)])]).strip() == "3"
    with pytest.raises(UserError, match="no <answer> tag"):
        walks.answer_token(small.base[1], item(0, "sky"))


def test_nothing_to_score_is_refused(small):
    with pytest.raises(UserError, match="nothing to score"):
        linear.scored(small.base, [])


# --- updates ----------------------------------------------------------------------------------------------


def test_updates_follow_their_formulas():
    weights, slope = {"a": torch.tensor([1.0, 2.0, 3.0])}, {"a": torch.tensor([0.5, -2.0, 0.0])}
    assert influence.update(weights, slope, influence.Step("sgd", 0.1))["a"].tolist() == pytest.approx(
        [-0.05, 0.2, 0.0], abs=1e-6
    )
    found = influence.update(weights, slope, influence.Step("adamw", 0.1))["a"].tolist()
    assert found == pytest.approx([-0.1, 0.1, 0.0], abs=1e-6)
    assert weights["a"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("rule", "rate"), [("adam", 0.1), ("sgd", 0.0), ("sgd", math.nan)])
def test_bad_steps_are_refused(rule, rate):
    with pytest.raises(UserError, match="A step needs"):
        influence.Step(rule, rate)


def test_influence_is_the_difference_of_two_log_probs(softmax):
    step = influence.Step("sgd", 0.3)
    learned = influence.batch_gradients({"rft": [softmax.u.batch]}, softmax.w)
    rows = influence.influence(
        learned, softmax.v.batch, softmax.w, [step], linear.Linearised(softmax.v.batch, softmax.w)
    )
    z = softmax.u.features @ softmax.w["w"].T
    hot = torch.nn.functional.one_hot(softmax.u.batch.target, 4)
    w = softmax.w["w"] - 0.3 * (z.softmax(-1) - hot).T @ softmax.u.features / 4
    before, after = ((softmax.v.features @ m.T).log_softmax(-1) for m in (softmax.w["w"], w))
    change = (after - before)[torch.arange(3), softmax.v.batch.target]
    by_hand = [float(change[:2].sum()), float(change[2])]
    assert rows["change"].tolist() == pytest.approx(by_hand)
    assert rows["step"].unique().tolist() == ["SGD, rate 0.3"]
    pooled = influence.per_token(rows, ["corpus"])["value"].tolist()
    assert pooled == pytest.approx([sum(by_hand) / 3])


def test_over_batches_gives_the_t_interval_of_each_group():
    rows = pd.DataFrame({"corpus": ["rft"] * 3 + ["base"], "batch": [0, 1, 2, 0], "value": [1.0, 2.0, 6.0, 5.0]})
    found = influence.over_batches(rows, ["corpus"]).set_index("corpus")
    assert tuple(found.loc["rft"]) == pytest.approx(tuple(seed_interval([1.0, 2.0, 6.0])))
    assert tuple(found.loc["base"]) == (5.0, 5.0, 5.0)


def test_intervals_in_words():
    low, wide, high = (SimpleNamespace(mean=m, low=m - 0.1, high=m + 0.1) for m in (-0.5, 0.05, 0.5))
    assert influence.span(low, 1) == "-0.5 (-0.6 to -0.4)" and influence.span(high, 0, 10) == "+5 (+4 to +6)"
    assert [influence.sign_words(i, "hurts", "helps") for i in (low, wide, high)] == ["hurts", "undecided", "helps"]


def test_one_sgd_step_acts_both_ways_alike_and_adamw_does_not():
    parts = [softmax_model(seed, tokens=(n,)) for seed, n in ((1, 2), (2, 1), (3, 3))]
    features = torch.cat([part.features for part in parts])
    target = torch.cat([part.batch.target for part in parts])
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor([2, 1, 3]))
    kinds = (linear.PRIOR, "rft", "rft")
    together = linear.Scored(lambda w: features @ w["w"].T, target, owner, torch.ones(3).double(), kinds, owner)
    w = {"w": torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    groups = {linear.PRIOR: [parts[0].batch], "rft": [parts[1].batch, parts[2].batch]}
    sgd = walks.symmetry(groups, together, w, influence.Step("sgd", 1e-6))
    adamw = walks.symmetry(groups, together, w, influence.Step("adamw", 1e-6))
    assert len(sgd) == 2
    assert sgd["forward"].tolist() == pytest.approx(sgd["backward"].tolist(), rel=1e-4)
    assert walks.asymmetry(sgd).mean < 1e-4
    assert walks.asymmetry(adamw).mean > 0.05


def test_asymmetry_by_hand():
    pairs = pd.DataFrame({"forward": [1.0, 1.0], "backward": [1.0, -1.0], "v": [0, 1]})
    assert walks.asymmetry(pairs).mean == pytest.approx(1.0)  # |0| + |2| over 1 + 1
    assert walks.asymmetry_index(pairs) == pytest.approx(1.0)
    assert walks.asymmetry(pairs.assign(backward=-1.0)).mean == pytest.approx(2.0)


def test_a_walk_is_a_training_with_torch(softmax):
    plan = walks.Plan(steps=5, rate=0.05, keep=(0, 5), warmup=3, clip=0.4)
    walked = walks.walk("rft", walks.repeated([softmax.u.batch]), softmax.v.batch, softmax.w, plan)
    w = softmax.w["w"].clone().requires_grad_()
    engine = torch.optim.AdamW([w], lr=1.0, weight_decay=0.0)
    for number in range(1, 6):
        logps = (softmax.u.features @ w.T).log_softmax(-1)[torch.arange(4), softmax.u.batch.target]
        engine.zero_grad()
        (-logps.mean()).backward()
        torch.nn.utils.clip_grad_norm_([w], 0.4)
        engine.param_groups[0]["lr"] = 0.05 * min(1, number / 3)
        engine.step()
    torch.testing.assert_close(walked.snapshots[5]["w"], w.detach())
    torch.testing.assert_close(walked.snapshots[0]["w"], softmax.w["w"])
    before, after = (influence.logps_at(softmax.v.batch, walked.snapshots[k]) for k in (0, 5))
    last = walked.rows[walked.rows["step"] == 5].set_index("probe")["change"]
    assert last[linear.PRIOR] == pytest.approx(float((after - before).sum()) / 3)
    assert last["task 0"] == pytest.approx(float((after - before)[0]) / 2)
    assert (walked.rows["lbk"] > 0).all()


def test_sources_take_turns_and_write_their_own_groups(puzzler):
    base = puzzler.load()
    first, second = object(), object()
    assert [walks.repeated([first, second])(n, {}) for n in (1, 2, 3)] == [first, second, first]
    profile = replace(get_profile("smoke"), size=32)
    source = walks.on_policy(base, profile, 2)
    weights = linear.weights_of(base[0])
    batch = source(1, weights)
    assert batch.kinds == ("rft",) * 8
    groups = batch.weight.reshape(2, 4)
    assert groups.sum(1).tolist() == pytest.approx([0.0, 0.0], abs=1e-4)
    assert torch.equal(source(1, weights).target, batch.target)
    silent = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    assert not torch.equal(source(1, silent).target, batch.target)  # other weights write other completions


# --- direction and constancy ------------------------------------------------------------------------------


def test_cosines_by_hand_and_their_shares_add_up():
    mine = {"visual.merger.mlp.0.weight": torch.tensor([3.0, 0.0]), "layers.0.mlp.weight": torch.tensor([4.0])}
    other = {"visual.merger.mlp.0.weight": torch.tensor([1.0, 1.0]), "layers.0.mlp.weight": torch.tensor([-1.0])}
    found = walks.cosines(mine, other)
    assert found["merger"][0] == pytest.approx(1 / math.sqrt(2))
    assert found["text 1"][0] == pytest.approx(-1.0)
    assert found["all"][0] == found["all"][1] == pytest.approx((3 - 4) / (5 * math.sqrt(3)))
    assert found["merger"][1] + found["text 1"][1] == pytest.approx(found["all"][0])


def test_every_weight_belongs_to_a_part(small):
    parts = {walks.layer_of(name) for name in small.weights}
    assert parts == {"patches", "eye 1", "eye 2", "merger", "words", "text 1", "text 2", "last norm"}


def test_directions_have_a_row_per_batch_and_part(softmax):
    learned = influence.batch_gradients({"rft": [softmax.u.batch, softmax.v.batch]}, softmax.w)
    rows = walks.directions(learned, linear.gradient(softmax.v.batch, softmax.w))
    whole = rows[rows["part"] == "all"].set_index("batch")
    assert whole.loc[1, "cosine"] == pytest.approx(1.0)
    assert abs(whole.loc[0, "cosine"]) < 0.999
    assert whole.loc[0, "norm"] == pytest.approx(float(learned["rft"][0].slope["w"].norm()))


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=8))
def test_jackknife_of_a_mean_is_the_t_interval(values):
    found = intervals.jackknife(lambda keep: sum(values[i] for i in keep) / len(keep), len(values))
    assert found == pytest.approx(seed_interval(values), abs=1e-6)


def test_kernel_drift_sees_size_and_turn():
    before = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1))
    same = linear.kernel_drift(before, 2 * before)
    assert same["size"].mean == pytest.approx(2.0) and same["alignment"].mean == pytest.approx(1.0)
    assert linear.kernel_drift(before, -before)["alignment"].mean == pytest.approx(-1.0)


def test_a_kernel_that_does_not_move_is_constant(softmax):
    twice = walks.Walk("rft", pd.DataFrame(), {0: softmax.w, 3: {"w": 2 * softmax.w["w"]}})  # K does not depend on W
    rows = walks.constancy(twice, softmax.v.batch, softmax.u.batch, 6).set_index(["step", "quantity"])["mean"]
    assert rows[3, "size"] == pytest.approx(1.0) and rows[3, "alignment"] == pytest.approx(1.0)
    assert rows[3, "norm"] == pytest.approx(rows[0, "norm"])


# --- samples ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3), min_size=1, max_size=9), st.integers(1, 4), st.integers(1, 4))
def test_batches_are_whole_boards_in_order(sizes, boards, count):
    items = []
    for number, size in enumerate(sizes):
        prompt = Prompted(np.zeros(0), str(number))
        items += [Sample(prompt, str(k), "rft") for k in range(size)]
    found = linear.batches(items, boards, count)
    flat = [i for part in found for i in part]
    assert flat == items[: len(flat)] and 1 <= len(found) <= count
    for part in found:
        assert len({i.prompt.text for i in part}) == min(boards, len(sizes))


def test_batches_of_nothing_are_refused():
    with pytest.raises(UserError, match="Batches need items"):
        linear.batches([], 2, 2)


def recorded():
    """Completions of one RFT run of 10 steps, hand made."""
    right, wrong = "<think>sky</think><answer>{}</answer>", "<answer>1</answer>"
    rows = []
    for step, board in ((1, 0), (1, 1), (2, 2), (6, 3), (9, 4)):
        for k in range(4):
            exact = float(k == 0)
            advantage = 0.0 if board == 1 else (1.5 if k == 0 else -0.5)
            text = right.format(f"{board} of {k // 2}") if k < 3 else wrong
            rows.append(("rft-0-0123456789", 0, step, board, text, exact, float(k < 3), advantage))
    names = ["run", "seed", "step", "puzzle_id", "completion", "exact", "format", "advantage"]
    return pd.DataFrame(rows, columns=names)


def test_corpora_come_from_the_records_they_should():
    profile = replace(get_profile("smoke"), size=32)
    found = learned_from.corpus_samples(profile, recorded(), 2)
    assert set(found) == {"rft", "sft-answer", "sft-expert", "sft-rollout", "sft-self", "self-sft"}
    groups = [len(part) for part in linear.batches(found["rft"], 1, 9)]
    assert groups == [4, 4]  # boards 0 and 2: the group of board 1 has no signal
    assert [i.weight for i in found["rft"]][:4] == [1.5, -0.5, -0.5, -0.5]
    assert [i.completion for i in found["sft-rollout"]] == [
        f"<think>sky</think><answer>{board} of 0</answer>" for board in (4, 3)
    ]
    assert [i.completion for i in found["self-sft"]] == [
        f"<think>sky</think><answer>{board} of 0</answer>" for board in (0, 1)
    ]
    for sample in found["sft-self"]:
        assert sorted(sample.completion.split("<answer>")[1].split("<")[0].split()) == ["1", "2", "3", "4"]
    assert all(i.weight == 1 for arm, items in found.items() if arm != "rft" for i in items)


def test_an_arm_without_recorded_samples_is_left_out():
    table = recorded()
    profile = replace(get_profile("smoke"), size=32)
    assert not {"sft-rollout", "self-sft"} & set(learned_from.corpus_samples(profile, table.assign(exact=0.0), 2))
    assert "rft" not in learned_from.corpus_samples(profile, table.assign(advantage=0.0), 2)
    assert "sft-self" not in learned_from.corpus_samples(
        profile, table.assign(completion="<answer>1 2 3 4</answer>"), 2
    )


def test_prior_items_are_the_battery_s_gold_answers():
    found = learned_from.gold_samples(["hill", "land"], [0, 2])
    assert [i.kind for i in found] == ["hill", "hill", "land", "land"]
    assert [i.completion for i in found] == [
        battery_samples(task, 3)[k].question.completion for task in ("hill", "land") for k in (0, 2)
    ]


def test_puzzle_probes_differ_in_words_or_placement_only(small):
    profile = replace(get_profile("smoke"), size=32)
    texts = {}
    for probe in learned_from.puzzle_samples(profile, small.base, 2):
        texts.setdefault(probe.kind, []).append(probe.completion)
    assert len(texts["puzzle bare"]) == len(texts["puzzle taught"]) == 2
    for bare, taught in zip(texts["puzzle bare"], texts["puzzle taught"], strict=True):
        assert taught.endswith(bare) and taught.startswith("<think>")
    for own, wrong in zip(texts.get("puzzle own", []), texts.get("puzzle wrong", []), strict=True):
        assert own.split("<answer>")[0] == wrong.split("<answer>")[0] and own != wrong


# --- prediction -------------------------------------------------------------------------------------------

numbers = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=4, max_size=7)


EQUAL = 6.011781321802951  # three of these have a mean that is not quite this


@given(numbers)
@example([(0.0, 0.0), (EQUAL, 0.0), (EQUAL, 0.0), (EQUAL, 1.0)])
def test_left_out_agrees_with_polyfit(points):
    x, y = ([p[k] for p in points] for k in (0, 1))
    found = forecasts.left_out(x, y)
    for out in range(len(x)):
        xs, ys = np.delete(x, out), np.delete(y, out)
        if np.ptp(xs) > 0.1:
            assert found[out] == pytest.approx(float(np.polyval(np.polyfit(xs, ys, 1), x[out])), rel=1e-4, abs=1e-4)
        elif np.ptp(xs) == 0:
            assert found[out] == pytest.approx(ys.mean(), abs=1e-9)


def points(values, drops):
    """Quantities and drops of five arms; each drop as two seeds around it."""
    quantities = pd.DataFrame({"quantity": "cosine", "arm": ARMS, "batch": 0, "value": values})
    rows = [(arm, seed, drop + (seed - 0.5) / 50) for arm, drop in zip(ARMS, drops, strict=True) for seed in (0, 1)]
    return quantities, pd.DataFrame(rows, columns=["arm", "seed", "value"])


def test_an_exact_line_predicts_every_arm_and_luck_counts_orders():
    x = [0.0, 1.0, 2.0, 4.0, 7.0]
    quantities, drops = points(x, [0.9 - 0.1 * v for v in x])
    predictions = forecasts.leave_one_out(quantities, drops)
    errors = forecasts.prediction_errors(predictions, quantities).set_index("quantity")
    assert errors.loc["cosine", "error"] == pytest.approx(0, abs=1e-9)
    assert errors.loc["cosine", "luck"] == pytest.approx(1 / 120)
    assert errors.loc["cosine", "slope"] == "as expected"
    by_hand = [abs(d - (sum(0.9 - 0.1 * v for v in x) - d) / 4) for d in (0.9 - 0.1 * v for v in x)]
    assert errors.loc[forecasts.BASELINE, "error"] == pytest.approx(sum(by_hand) / 5)
    assert errors.loc["cosine", "gain"] == pytest.approx(sum(by_hand) / 5)
    quantities, drops = points(x, [0.1 + 0.1 * v for v in x])
    against = forecasts.prediction_errors(forecasts.leave_one_out(quantities, drops), quantities).set_index("quantity")
    assert against.loc["cosine", "slope"] == "against"


def test_luck_is_the_share_of_orders_that_do_as_well():
    x, y = [0.0, 1.0, 2.0, 3.0, 5.0], [0.2, 0.1, 0.5, 0.3, 0.8]
    quantities, drops = points(x, y)
    errors = forecasts.prediction_errors(forecasts.leave_one_out(quantities, drops), quantities).set_index("quantity")

    def error(order):
        found = []
        for out in range(5):
            fit = np.polyfit(np.delete(x, out), np.delete(order, out), 1)
            found.append(abs(order[out] - np.polyval(fit, x[out])))
        return np.mean(found)

    shares = [error(order) <= error(y) + 1e-9 for order in permutations(y)]
    assert errors.loc["cosine", "luck"] == pytest.approx(np.mean(shares))
    assert errors.loc["cosine", "error"] == pytest.approx(error(y))


def test_too_few_arms_are_refused():
    quantities, drops = points([1.0, 2.0, 3.0, 4.0, 5.0], [0.1] * 5)
    with pytest.raises(UserError, match="needs 4 or more"):
        forecasts.leave_one_out(quantities[quantities["arm"].isin(ARMS[:3])], drops)


def test_base_quantities_by_another_way(softmax):
    learned = influence.batch_gradients({"rft": [softmax.u.batch]}, softmax.w)
    steps = [influence.Step("sgd", 0.1), influence.Step("adamw", 0.01)]
    rows = influence.influence(learned, softmax.v.batch, softmax.w, steps)
    cosine = walks.directions(learned, linear.gradient(softmax.v.batch, softmax.w))
    found = forecasts.base_quantities(learned, rows, cosine).set_index("quantity")["value"]
    assert set(found.index) < set(forecasts.EXPECTED)
    logps = influence.logps_at(softmax.u.batch, softmax.w)
    assert found["log perplexity"] == pytest.approx(-float(logps.sum()) / 4)
    change = rows[rows["step"] == "SGD, rate 0.1"]["change"]
    assert found["influence, SGD (1e-3 nats)"] == pytest.approx(1e3 * change.sum() / 3)
    a, g = rows["a"].iloc[:2].mean(), rows["g"].iloc[0]
    assert math.exp(found["log LBK, SGD"]) == pytest.approx(math.sqrt((change**2).sum()) / math.sqrt(a) / g)


# --- figures ----------------------------------------------------------------------------------------------


def influence_cells():
    rows = [
        (step, corpus, kind, sign * 10.0**-k, -1e-5, 2e-2)
        for step in ("SGD, rate 0.01", "AdamW, rate 0.0002") for corpus in ARMS[:3]
        for k, (kind, sign) in enumerate((("hill", 1), ("land", -1), ("puzzle own", 1)))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["step", "corpus", "kind", "mean", "low", "high"])


def frames():
    """One small table per figure function."""
    corpora = [arm for arm in ARMS for _ in range(2)]
    scatter = {"step": "s", "item": 0, "kind": "hill", "change": 0.1, "first order": -0.2, "linear logits": 0.01}
    rungs = {name: 10.0**-k for k, name in enumerate(dynamics.RUNGS)}
    walks = [(arm, step, linear.PRIOR, 0.1 * step, -0.1) for arm in ARMS for step in (1, 2, 3)]
    kernel = [(arm, step, name, 1.0, 0.9, 1.1) for arm in ARMS for step in (0, 8) for name in
              ("norm", "size", "alignment")]  # fmt: skip
    cosine = [(arm, batch, part, 0.1 * batch, 0.1) for arm in ARMS for batch in range(3) for part in ("all", "words")]
    return {
        dynamics.influence_map: influence_cells(),
        dynamics.forecast_scatter: pd.DataFrame({"corpus": corpora, **scatter}),
        dynamics.ladder_dots: pd.DataFrame({"kind": ARMS, "observed": "hill", **rungs}),
        dynamics.training_bounds: pd.DataFrame(walks, columns=["corpus", "step", "probe", "lbk", "sign_delta"]),
        dynamics.kernel_panels: pd.DataFrame(kernel, columns=["corpus", "step", "quantity", "mean", "low", "high"]),
        dynamics.cosine_lines: pd.DataFrame(cosine, columns=["corpus", "batch", "part", "cosine", "share"]),
        dynamics.symmetry_scatter: pd.DataFrame(
            {"step": "s", "corpus": corpora, "u": 0, "v": 1, "forward": 1e-3, "backward": -1e-4}
        ),
    }


@pytest.mark.parametrize("draw", frames(), ids=lambda draw: draw.__name__)
def test_figures_draw_what_they_record(draw):
    table = frames()[draw]
    fig = draw(table)
    fig.draw_without_rendering()
    recorded_rows = drawn(fig)
    assert len(recorded_rows) > 0 and not recorded_rows.isna().to_numpy().any()
    values = {float(v) for v in recorded_rows.select_dtypes("number").to_numpy().ravel().round(9)}
    column = {"cosine_lines": "cosine"}.get(draw.__name__)
    if column is None:
        shown = table.select_dtypes("number").drop(columns=["item"], errors="ignore").to_numpy().ravel().round(9)
        assert {float(v) for v in shown} <= values
    else:
        assert seed_interval([0.0, 0.1, 0.2]).high == pytest.approx(recorded_rows["high"].max())


def test_prediction_figures_show_arms_and_errors():
    quantities, drops = points([0.0, 1.0, 2.0, 4.0, 7.0], [0.1, 0.3, 0.2, 0.5, 0.9])
    errors = forecasts.prediction_errors(forecasts.leave_one_out(quantities, drops), quantities)
    fig = dynamics.prediction_panels(quantities, drops, errors)
    assert drawn(fig)["drop"].tolist() == pytest.approx([0.1, 0.3, 0.2, 0.5, 0.9])
    assert len(fig.axes) == 1
    pd.testing.assert_frame_equal(drawn(dynamics.error_dots(errors)), errors)


def test_cells_with_an_interval_around_zero_are_bracketed():
    fig = dynamics.influence_map(influence_cells().assign(low=lambda t: np.where(t["kind"] == "hill", 1e-3, t["low"])))
    texts = {text.get_text() for text in fig.axes[0].texts}
    assert "1000" in texts and "(-100)" in texts
