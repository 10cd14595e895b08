"""Generation: equal to the stock model's where it can be, and true to its distribution where it samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.model.forward import patches_of, scored_logits
from helpers.model.generate import Sampling, _Decoder, generate
from helpers.model.packing import Branch, Group, pack
from helpers.model.processor import encode_prefix, encode_question

# fp32 rounding alone: the tiny model's enlarged weights amplify it, so that both ways of computing a log-prob lie up to
# 2e-4 from their fp64 value and differ by 4e-5 in the order of their sums (with or without flushing denormals).
CLOSE = {"rel": 1e-5, "abs": 5e-5}

TEXTS = ("Read the sign.", "Which hill is higher? Answer with one word.", "Is there a star?", "Find the red thing.")


@pytest.fixture(scope="module")
def loaded(tiny) -> tuple:
    return tiny.load()


@pytest.fixture(scope="module")
def asked(loaded: tuple) -> tuple:
    """(model, tokenizer, prompts, patches) of four prompts of different length with a picture each."""
    model, processor = loaded
    tokenizer = processor.tokenizer
    drawn = np.random.default_rng(0).integers(0, 256, (4, 32, 64, 3), dtype=np.uint8)
    prefix = encode_prefix(tokenizer, 8)
    prompts = [[*prefix, *encode_question(tokenizer, text)] for text in TEXTS]
    return model, tokenizer, prompts, patches_of(torch.from_numpy(drawn))


def teacher_forced(asked: tuple, row: int, ids: tuple[int, ...], temperature: float = 1.0) -> list[float]:
    """Log-probs of given tokens by one pass over them."""
    model, tokenizer, prompts, patches = asked
    groups = [Group(prompts[row], row, [Branch(ids)])]
    packed = pack(groups, model.config.image_token_id, patches.grid)
    with torch.no_grad():
        logps = torch.log_softmax(scored_logits(model, packed, patches) / temperature, -1)
    return logps.gather(1, packed.target[:, None])[:, 0].tolist()


def banned(tokenizer) -> list[int]:
    return [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]


def test_greedy_tokens_equal_the_stock_models(asked: tuple) -> None:
    model, tokenizer, prompts, patches = asked
    found = generate(*asked, Sampling(1, 0.0, 20))
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        stock = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20,
            mm_token_type_ids=(ids == model.config.image_token_id).int(), pixel_values=patches.values[row],
            image_grid_thw=torch.tensor([[1, patches.rows, patches.columns]]), suppress_tokens=banned(tokenizer),
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        assert found[row][0].ids == tuple(stock[0, len(prompt) :].tolist())
    assert len({r[0].ids for r in found}) > 1


def test_sampled_log_probs_equal_teacher_forced_ones(asked: tuple) -> None:
    found = generate(*asked, Sampling(5, 1.0, 24, seed=1))
    lengths = set()
    for row, rollouts_ in enumerate(found):
        assert len(rollouts_) == 5
        for rollout in rollouts_:
            assert len(rollout.ids) == len(rollout.logps)
            assert rollout.logps == pytest.approx(teacher_forced(asked, row, rollout.ids), **CLOSE)
            lengths.add(len(rollout.ids))
    assert len(lengths) > 3, "completions must end at different places for this to test row dropping"


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_log_probs_are_those_at_the_sampling_temperature(asked: tuple, temperature: float) -> None:
    for row, (rollout,) in enumerate(generate(*asked, Sampling(1, temperature, 10, seed=2))):
        assert rollout.logps == pytest.approx(teacher_forced(asked, row, rollout.ids, temperature), **CLOSE)


def test_greedy_log_probs_are_at_temperature_one(asked: tuple) -> None:
    for row, (rollout,) in enumerate(generate(*asked, Sampling(1, 0.0, 10))):
        assert rollout.logps == pytest.approx(teacher_forced(asked, row, rollout.ids), **CLOSE)


def test_the_end_token_is_kept_and_nothing_follows_it(asked: tuple) -> None:
    tokenizer, found = asked[1], generate(*asked, Sampling(8, 1.0, 6, seed=3))
    flat = [r for row in found for r in row]
    assert {r.finished for r in flat} == {True, False}
    for rollout in flat:
        assert rollout.finished == (rollout.ids[-1] == tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in rollout.ids[:-1]
        assert rollout.finished or len(rollout.ids) == 6


def test_special_tokens_are_never_sampled_although_the_model_wants_them(asked: tuple) -> None:
    model, tokenizer, prompts, patches = asked
    packed = pack([Group(p, i, [Branch([4])]) for i, p in enumerate(prompts)], model.config.image_token_id,
                  patches.grid)  # fmt: skip
    with torch.no_grad():
        wanted = torch.softmax(scored_logits(model, packed, patches), -1)[:, banned(tokenizer)].sum(1)
    assert wanted.max() > 0.05
    found = generate(*asked, Sampling(40, 1.5, 12, seed=4))
    sampled = {i for row in found for r in row for i in r.ids}
    assert len(sampled) > 50 and not sampled & set(banned(tokenizer))


def test_the_same_seed_gives_the_same_completions(asked: tuple) -> None:
    first, second, other = (generate(*asked, Sampling(3, 1.0, 12, seed=s)) for s in (7, 7, 8))
    assert first == second and first != other


def test_without_a_seed_torchs_state_decides(asked: tuple) -> None:
    torch.manual_seed(3)
    first = generate(*asked, Sampling(2, 1.0, 8))
    torch.manual_seed(3)
    assert first == generate(*asked, Sampling(2, 1.0, 8))
    assert first != generate(*asked, Sampling(2, 1.0, 8))


def test_a_seed_leaves_torchs_state_alone(asked: tuple) -> None:
    before = torch.get_rng_state()
    generate(*asked, Sampling(2, 1.0, 8, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_dropping_ended_rows_changes_nothing(asked: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = generate(*asked, Sampling(1, 0.0, 40))
    dropped, stock = [], _Decoder._drop_ended_rows

    def listen(decoder) -> None:
        before = len(decoder.alive)
        stock(decoder)
        dropped.append(before - len(decoder.alive))

    monkeypatch.setattr(_Decoder, "_drop_ended_rows", listen)
    sampled = generate(*asked, Sampling(1, 1.0, 40, seed=5))
    assert sum(d > 0 for d in dropped) >= 2
    for row, (rollout,) in enumerate(sampled):
        assert rollout.logps == pytest.approx(teacher_forced(asked, row, rollout.ids), **CLOSE)
    monkeypatch.setattr(_Decoder, "_drop_ended_rows", lambda decoder: None)
    assert [r[0].ids for r in generate(*asked, Sampling(1, 0.0, 40))] == [r[0].ids for r in greedy]


def test_a_prompts_greedy_completion_does_not_depend_on_the_batch(asked: tuple) -> None:
    model, tokenizer, prompts, patches = asked
    together = generate(*asked, Sampling(2, 0.0, 16))
    for row, prompt in enumerate(prompts):
        alone = replace(patches, values=patches.values[[row]])
        (single,) = generate(model, tokenizer, [prompt], alone, Sampling(1, 0.0, 16))
        assert single[0].ids == together[row][0].ids == together[row][1].ids
        assert single[0].logps == pytest.approx(together[row][0].logps, **CLOSE)


def test_text_prompts_without_a_picture_are_completed(loaded: tuple) -> None:
    model, processor = loaded
    tokenizer = processor.tokenizer
    prompt = [*encode_prefix(tokenizer, 0), *encode_question(tokenizer, "Sort the list: 2 1 3.")]
    ((rollout,),) = generate(model, tokenizer, [prompt], None, Sampling(1, 0.0, 8))
    ids = torch.tensor([prompt])
    stock = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8,
                           suppress_tokens=banned(tokenizer), eos_token_id=tokenizer.eos_token_id,
                           pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    assert rollout.ids == tuple(stock[0, len(prompt) :].tolist())


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """Pearson's statistic with rare tokens pooled, and its degrees of freedom."""
    expected = probabilities * counts.sum()
    common = expected >= 8
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    kept = expected > 0
    return float(((observed - expected)[kept] ** 2 / expected[kept]).sum()), int(kept.sum()) - 1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_tokens_follow_the_softmax(asked: tuple, temperature: float) -> None:
    model, tokenizer, prompts, patches = asked
    found = generate(*asked, Sampling(8000, temperature, 1, seed=11))
    counts = np.bincount([r.ids[0] for r in found[1]], minlength=len(tokenizer))
    packed = pack([Group(prompts[1], 1, [Branch([4])])], model.config.image_token_id, patches.grid)
    with torch.no_grad():
        logits = scored_logits(model, packed, patches)[0]

    def distance(t: float) -> float:
        allowed = (logits / t).index_fill(0, torch.tensor(banned(tokenizer)), float("-inf"))
        statistic, freedom = chi_square(counts, torch.softmax(allowed.double(), 0).numpy())
        return (statistic - freedom) / (2 * freedom) ** 0.5  # about standard normal if the two agree

    assert abs(distance(temperature)) < 4
    assert distance(temperature * 1.15) > 6  # a slightly wrong temperature would be found out
