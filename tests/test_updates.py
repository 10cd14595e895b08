"""Updates: sizes, ranks and lines against values computed by hand or in another way."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from swapping import swap

from helpers.errors import UserError
from helpers.measure import linear, predictors, recovery, updates
from helpers.model import score
from helpers.model.generate import Sampling
from helpers.stats import fits
from helpers.train import rows
from helpers.world import battery, boards, puzzles, seeds

BOARDS = puzzles.PuzzleSpec(size=32)


@pytest.fixture(autouse=True)
def three_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A battery of three tasks without pictures from files."""
    swap(monkeypatch, battery, "battery_tasks", lambda: ("lists", "colour", "shape"))


# ---------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("matrix", "rank"),
    [
        (torch.eye(5), 5.0),
        (torch.outer(torch.arange(1.0, 5), torch.tensor([2.0, -1.0, 3.0])), 1.0),
        (torch.diag(torch.tensor([3.0, 1.0])), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))),
        (torch.zeros(3, 4), 0.0),
        (torch.diag(torch.tensor([0.0, -7.0, 7.0])), 2.0),  # signs and zeros do not matter
    ],
)
def test_effective_rank_of_known_matrices(matrix: torch.Tensor, rank: float) -> None:
    assert updates.effective_rank(matrix) == pytest.approx(rank, abs=1e-6)
    assert updates.effective_rank(-3 * matrix) == pytest.approx(rank, abs=1e-6)


def test_a_rotation_does_not_change_the_effective_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 4, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    assert updates.effective_rank(turn @ matrix) == pytest.approx(updates.effective_rank(matrix), abs=1e-4)


def test_small_changes_vanish_in_bf16() -> None:
    base = torch.tensor([1.0, 1.0, 0.0, -2.0])
    tuned = base + torch.tensor([1e-3, 1e-2, 1e-6, 0.0])  # bf16 steps by 2^-7 above 1, and is fine near 0
    assert updates.count_equal(base, tuned) == 1
    assert updates.count_equal(base, tuned, "bfloat16") == 2


def weights(values: dict[str, list]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(rows) for name, rows in values.items()}


NAMES = ("model.visual.blocks.0.attn.qkv.weight", "model.language_model.layers.1.mlp.up_proj.weight",
         "model.language_model.layers.1.input_layernorm.weight")  # fmt: skip


def test_the_change_table_by_hand() -> None:
    base = weights({NAMES[0]: [[0.0, 0.0], [0.0, 0.0]], NAMES[1]: [[1.0, 1.0]], NAMES[2]: [5.0, 5.0]})
    tuned = weights({NAMES[0]: [[3.0, 0.0], [0.0, 3.0]], NAMES[1]: [[1.0, 1.001]], NAMES[2]: [5.0, 1.0]})
    found = updates.change_table(base, tuned).set_index(["part", "kind"])
    assert list(found.index) == [("eye 1", "attention"), ("text 2", "mlp"), ("text 2", "norms"), ("all", "all")]
    assert found["l2"].tolist() == pytest.approx([math.sqrt(18), 0.001, 4.0, math.sqrt(18 + 1e-6 + 16)], rel=1e-3)
    assert found["l1"].tolist() == pytest.approx([6.0, 0.001, 4.0, 10.001], rel=1e-3)
    assert found["same_fp32"].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5])
    assert found["same_bf16"].tolist() == pytest.approx([0.5, 1.0, 0.5, 5 / 8])
    assert found["rank"].tolist()[:2] == pytest.approx([2.0, 1.0]) and math.isnan(found["rank"].iloc[2])
    assert found["full"].tolist()[:2] == [2.0, 1.0]


def test_every_weight_of_the_model_is_counted_once(tiny) -> None:
    model, _ = tiny.load()
    base = linear.weights_of(model)
    tuned = {name: weight + 0.01 for name, weight in base.items()}
    found = updates.change_table(base, tuned)
    total = sum(p.numel() for p in model.parameters())
    assert found["weights"].iloc[-1] == total == found["weights"].iloc[:-1].sum()
    assert found["l2"].iloc[-1] == pytest.approx(0.01 * math.sqrt(total), rel=1e-3)
    assert found["l2"].iloc[-1] == pytest.approx(updates.l2(updates.change(base, tuned)), rel=1e-6)
    assert found["l1"].iloc[-1] == pytest.approx(updates.l1(updates.change(base, tuned)), rel=1e-6)
    assert "other" not in set(found["kind"])


def test_the_ends_of_a_line_are_the_two_models(tiny, puzzler) -> None:
    (model, processor), (other, _) = tiny.load(), puzzler.load()
    first, second = linear.weights_of(model), linear.weights_of(other)
    prompts = list(predictors.puzzle_prompts(BOARDS, 3))
    texts = [["<answer>2 1 4 3</answer>"]] * 3
    expected = {0.0: score.completion_logps(model, processor, prompts, texts),
                1.0: score.completion_logps(other, processor, prompts, texts)}  # fmt: skip
    for share, wanted in expected.items():
        updates.put(model, updates.between(first, second, share))
        found = score.completion_logps(model, processor, prompts, texts)
        assert all(torch.equal(a[0], b[0]) for a, b in zip(found, wanted, strict=True))
    middle = updates.between(first, second, 0.25)
    assert all(torch.allclose(middle[n], 0.75 * first[n] + 0.25 * second[n], atol=1e-6) for n in first)


@given(st.floats(1e-3, 50))
def test_norm_matching_gives_the_norm_asked_for(norm: float) -> None:
    base = weights({"a": [1.0, -2.0], "b": [[0.5]]})
    tuned = weights({"a": [1.5, -2.5], "b": [[1.25]]})
    found = updates.change(base, updates.matched(base, tuned, norm))
    assert updates.l2(found) == pytest.approx(norm, rel=1e-3, abs=1e-5)
    assert float(found["a"][0] * -1) == pytest.approx(float(found["a"][1]), rel=1e-3, abs=1e-5)  # same direction


def test_an_update_without_length_has_no_direction(tiny) -> None:
    base = weights({"a": [1.0]})
    with pytest.raises(UserError, match="no direction"):
        updates.matched(base, base, 1.0)
    with pytest.raises(UserError, match="another model"):
        updates.put(tiny.load()[0], base)


# -------------------------------------------------------------------------------------- divergence


def test_completion_kl_is_the_sum_over_tokens_in_other_arithmetic(tiny, puzzler) -> None:
    (p, processor), (q, _) = tiny.load(), puzzler.load()
    prompts, texts = predictors.puzzle_prompts(BOARDS, 2), ("<answer>2 1 4 3</answer>", "no")
    written = predictors.Corpus("own words", prompts, texts)
    found = predictors.completion_kl(p, q, processor, written)
    for value, prompt, text in zip(found, prompts, texts, strict=True):
        packed, pictures = score.pack_completions(processor, [(prompt, [text])])
        with torch.no_grad():
            probs = [score.logits_and_targets(m, packed, pictures)[0].double().softmax(-1).numpy() for m in (p, q)]
        by_hand = sum(a @ (np.log(a) - np.log(b)) for a, b in zip(*probs, strict=True))
        assert value == pytest.approx(by_hand, rel=1e-4) and by_hand > 0.01
    same = predictors.completion_kl(p, p, processor, written)
    assert same == pytest.approx([0.0, 0.0], abs=1e-6)


def test_kl_of_whole_completions_is_the_mean_log_ratio_of_draws(puzzler) -> None:
    """Monte Carlo: both estimate KL(p || q) over completions; the token-wise one varies less."""
    (p, processor), (q, _) = puzzler.load(), puzzler.load()
    with torch.no_grad():
        q.model.language_model.norm.weight.mul_(0.8)  # a flatter softmax
    prompts = [predictors.puzzle_prompts(BOARDS, 1)[0]] * 150
    texts = [row[0] for row in score.complete(p, processor, prompts, Sampling(1, 1.0, 40, 3))]
    exact = predictors.completion_kl(p, q, processor, predictors.Corpus("own words", prompts, tuple(texts)))
    logps = [score.completion_logps(m, processor, prompts, [[t] for t in texts]) for m in (p, q)]
    ratios = np.array([float(a[0].sum() - b[0].sum()) for a, b in zip(*logps, strict=True)])
    error = ratios.std() / math.sqrt(len(ratios))
    assert abs(exact.mean() - ratios.mean()) < 4 * error
    assert exact.std() < ratios.std()


def test_divergences_point_where_their_names_say(tiny, puzzler) -> None:
    (base, processor), (tuned, _) = tiny.load(), puzzler.load()
    puzzle, prior = (predictors.written_by((base, processor), prompts)
                     for prompts in (predictors.puzzle_prompts(BOARDS, 2), predictors.prior_prompts(3)))  # fmt: skip
    found = predictors.divergences((base, processor), (tuned, processor), puzzle, prior)
    own = predictors.written_by((tuned, processor), puzzle.prompts)
    for name, p, q, texts in (("kl_forward", base, tuned, puzzle), ("kl_prior", base, tuned, prior),
                              ("kl_reverse", tuned, base, own)):  # fmt: skip
        assert found[name] == pytest.approx(predictors.completion_kl(p, q, processor, texts).mean())
        assert found[name] != pytest.approx(predictors.completion_kl(q, p, processor, texts).mean(), rel=0.01)
    assert max(predictors.divergences((base, processor), (base, processor), puzzle, prior).values()) < 1e-5


def test_what_a_model_says_is_not_cut_off_before_an_evaluation_would(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    swap(monkeypatch, score, "draw", lambda *args: asked.append(args[-1]) or [[score.Drawn("x", (1, 2))]])
    predictors.written_by(tiny.load(), predictors.puzzle_prompts(BOARDS, 1))
    assert asked[0].max_tokens == Sampling().max_tokens


def test_activation_drift_of_a_rescaled_last_norm_is_its_scale(tiny) -> None:
    base, (tuned, processor) = tiny.load(), tiny.load()
    with torch.no_grad():
        tuned.model.language_model.norm.weight.mul_(1.1)
    prior = predictors.written_by(base, predictors.prior_prompts(4))
    assert predictors.activation_drift(base, base, prior) == 0.0
    assert predictors.activation_drift(base, (tuned, processor), prior) == pytest.approx(0.1, rel=1e-3)


def test_fisher_by_finite_differences(tiny) -> None:
    model, processor = tiny.load()
    prior = predictors.written_by((model, processor), predictors.prior_prompts(2))
    found = predictors.fisher((model, processor), prior)
    name, place, small = "model.language_model.layers.0.mlp.up_proj.weight", (3, 2), 2e-3
    weight, slopes = dict(model.named_parameters())[name], []
    for prompt, text in zip(prior.prompts, prior.completions, strict=True):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * small
            values.append(float(score.completion_logps(model, processor, [prompt], [[text]])[0][0].double().sum()))
            with torch.no_grad():
                weight[place] -= sign * small
        slopes.append((values[0] - values[1]) / (2 * small))
    assert float(found[name][place]) == pytest.approx(np.mean(np.square(slopes)), rel=0.05)
    assert all(bool((part >= 0).all()) for part in found.values())


def test_fisher_distance_by_hand() -> None:
    information = weights({"a": [4.0, 0.0], "b": [1.0]})
    assert predictors.fisher_distance(information, weights({"a": [0.5, 100.0], "b": [2.0]})) == pytest.approx(
        math.sqrt(5)
    )


def test_the_first_lbk_is_nought_for_the_base_and_grows_with_the_step(tiny, puzzler) -> None:
    base, (early, _) = tiny.load(), tiny.load()
    prior = predictors.written_by(base, predictors.prior_prompts(3))
    corpus = predictors.Corpus("taught", predictors.puzzle_prompts(BOARDS, 2), ["<answer>2 1 4 3</answer>"] * 2)
    start, other = linear.weights_of(base[0]), linear.weights_of(puzzler.load()[0])
    found = []
    for share in (0.0, 0.02, 0.04):
        updates.put(early, updates.between(start, other, share))
        found.append(predictors.first_lbk(base, early, prior, corpus))
    assert found[0] == 0.0 < found[1] < found[2] < 3 * found[1]


# ---------------------------------------------------------------------------------------- recovery


def test_halves_hold_every_task_once() -> None:
    shown, unshown = recovery.halves(battery.battery_tasks())
    assert (shown, unshown) == (("lists", "shape"), ("colour",))


def test_restoring_learns_the_samples_and_nothing_without_them(tiny) -> None:
    model, processor = tiny.load()
    samples = rows.prior_samples(6, seeds.RECOVERY, ("lists",))
    prompts = [boards.Prompted(s.pixels, s.question.text) for s in samples]
    texts = [[s.question.completion] for s in samples]

    def likelihood() -> float:
        return sum(float(row[0].sum()) for row in score.completion_logps(model, processor, prompts, texts))

    start, before = linear.weights_of(model), likelihood()
    recovery.train_on_few((model, processor), [], recovery.Recovery(steps=5))
    assert likelihood() == before
    recovery.train_on_few((model, processor), samples, recovery.Recovery(steps=5, rate=1e-2, batch=4))
    assert likelihood() > before + 10
    table = recovery.recovery_table((model, processor), BOARDS, (0, 3), predictors.Sizes(2, 2, 2), recovery.Recovery(2))
    assert table[["samples", "half"]].to_numpy().tolist() == [
        [0, "shown"],
        [0, "unshown"],
        [3, "shown"],
        [3, "unshown"],
    ]
    assert table["score"].between(0, 1).all() and table["likelihood"].between(0, 1).all()
    assert any(not torch.equal(start[n], p) for n, p in linear.weights_of(model).items())


def test_the_recovery_table_leaves_the_model_as_it_was(puzzler) -> None:
    loaded = puzzler.load()
    before = linear.weights_of(loaded[0])
    recovery.recovery_table(loaded, BOARDS, (2,), predictors.Sizes(2, 1, 2), recovery.Recovery(1, rate=1e-2))
    assert all(torch.equal(before[name], weight) for name, weight in linear.weights_of(loaded[0]).items())


# -------------------------------------------------------------------------------------- predictors


def test_r_squared_by_hand() -> None:
    assert fits.r_squared([0, 1, 2], [0, 1, 0]) == 0.0
    assert fits.r_squared([0, 1, 2], [5, 3, 1]) == pytest.approx(1.0)
    assert fits.r_squared([0, 1, 2, 3], [0, 1, 1, 0]) == 0.0
    assert fits.r_squared([1, 2, 3], [1, 2, 2]) == pytest.approx(0.75)
    assert fits.r_squared([1, 1, 1], [1, 2, 3]) == 0.0
    assert math.isnan(fits.r_squared([1, 2, 3], [1, 1, 1]))


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=12))
def test_r_squared_is_what_least_squares_explains(points: list[tuple[int, int]]) -> None:
    x, y = (np.array(v, float) for v in zip(*points, strict=True))
    if x.std() == 0 or y.std() == 0:
        return
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    assert fits.r_squared(x, y) == pytest.approx(1 - residual @ residual / ((y - y.mean()) @ (y - y.mean())), abs=1e-6)


def test_left_out_r_squared_by_hand() -> None:
    groups = ["a", "a", "b", "b"]
    assert fits.left_out_r_squared([0, 1, 2, 3], [0, 1, 2, 3], groups) == pytest.approx(1.0)
    # the line through b is flat at 1 and that through a flat at 0: no better than the other group's mean
    assert fits.left_out_r_squared([0, 1, 2, 3], [0, 0, 1, 1], groups) == pytest.approx(0.0)
    # each group's line has slope 1 but another level: extrapolated 2 too low or high, against means off by 4.5 and 3.5
    found = fits.left_out_r_squared([0, 1, 2, 3], [0, 1, 4, 5], groups)
    assert found == pytest.approx(1 - (4 * 2**2) / (4.5**2 + 3.5**2 + 3.5**2 + 4.5**2))
    assert math.isnan(fits.left_out_r_squared([0, 1], [0, 1], ["a", "a"]))


def rows_of(n: int = 12, noise: float = 0.02) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(-2, 2, n))
    drop = 0.3 + 0.1 * np.log(x) + noise * rng.standard_normal(n)
    arms = [("a", "b", "c")[i % 3] for i in range(n)]
    return pd.DataFrame({"arm": arms, "drop": drop, "good": x, "bad": np.exp(rng.standard_normal(n)), "none": np.nan})


def test_a_predictor_that_drives_the_drop_is_found_and_a_random_one_is_not() -> None:
    rows = rows_of()
    good, bad = fits.fit(rows, "good", 300), fits.fit(rows, "bad", 300)
    for made in (good, bad):
        assert made.r2[1] <= made.r2[0] <= made.r2[2] and (made.runs, made.arms) == (12, 3)
    assert good.r2[1] > 0.8 and good.left_out[0] > 0.8 and bad.r2[0] < 0.4
    assert fits.fit(rows, "none") is None and fits.fit(rows.head(3), "good") is None
    assert fits.fit(rows[rows["arm"] != "c"], "good", 50).left_out is None
    apart = predictors.advantage(rows, "good", "bad", 300)
    assert apart[0] == pytest.approx(good.r2[0] - bad.r2[0]) and apart[1] > 0
    assert predictors.advantage(rows.head(2), "good", "bad") is None


def test_more_seeds_of_the_same_arms_do_not_narrow_the_interval() -> None:
    """Runs of one arm are drawn together: copies of what is known already are no evidence."""
    rows = rows_of(12, noise=0.2).assign(label=[f"run {i}" for i in range(12)])
    once, five = (fits.fit(pd.concat([rows] * copies), "good", 200) for copies in (1, 5))
    assert five.runs == 60 and five.r2 == pytest.approx(once.r2) and five.left_out == pytest.approx(once.left_out)
    apart = [predictors.advantage(pd.concat([rows] * copies), "good", "bad", 200) for copies in (1, 5)]
    assert apart[0] == pytest.approx(apart[1]) and apart[0][1] < apart[0][2]
    assert once.r2[2] - once.r2[1] > 0.05


def test_weights_count_points_as_often_as_copies_would() -> None:
    x, y, groups = [0.0, 1.0, 2.0, 4.0], [1.0, 0.0, 3.0, 2.0], ["a", "a", "b", "c"]
    copies = [0, 0, 0, 1, 2, 2, 3]
    again = [[values[i] for i in copies] for values in (x, y, groups)]
    weights = np.array([[3.0, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert fits.r_squared(x, y, weights) == pytest.approx([fits.r_squared(*again[:2]), fits.r_squared(x, y)])
    found = fits.left_out_r_squared(x, y, groups, weights)
    assert found == pytest.approx([fits.left_out_r_squared(*again), fits.left_out_r_squared(x, y, groups)])
