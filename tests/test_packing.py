"""Packed rows: positions, log-probs and gradients equal to separate stock forward passes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from swapping import swap

from helpers.errors import UserError
from helpers.model import forward, packing, processor
from helpers.model.forward import patches_of, scored_logits
from helpers.model.packing import Branch, Group, pack, rope_positions

IMAGE = 7


@pytest.fixture
def loaded(tiny) -> tuple:
    return tiny.load()


def pixels(n: int, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(drawn)


def prompt(tokenizer, text: str, cells: int = 16) -> list[int]:
    return [*processor.encode_prefix(tokenizer, cells), *processor.encode_question(tokenizer, text)]


def stock_inputs(model, ids: list[int], picture: torch.Tensor) -> dict:
    """What the stock forward pass takes for one sequence with one picture."""
    tokens = torch.tensor([ids])
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": (tokens == model.config.image_token_id).int(),
        "pixel_values": processor.pixel_patches(picture[None]),
        "image_grid_thw": torch.tensor([[1, picture.shape[0] // 8, picture.shape[1] // 8]]),
    }


def stock_logps(model, prefix: list[int], branch: Branch, picture: torch.Tensor) -> torch.Tensor:
    """Log-probs of the scored tokens of one branch, by a separate pass of the stock model."""
    ids = [*prefix, *branch.ids]
    logits = model(**stock_inputs(model, ids, picture)).logits[0]
    targets = range(len(prefix) + branch.skip, len(ids))
    return torch.stack([torch.log_softmax(logits[t - 1], -1)[ids[t]] for t in targets])


def packed_logps(model, groups: list[Group], pictures: torch.Tensor) -> tuple[torch.Tensor, packing.Packed]:
    patches = patches_of(pictures)
    packed = pack(groups, model.config.image_token_id, patches.grid)
    logps = torch.log_softmax(scored_logits(model, packed, patches), -1)
    return logps.gather(1, packed.target[:, None])[:, 0], packed


def two_groups(tokenizer) -> list[Group]:
    """Rows of different lengths with several branches, one of them with given tokens, one of a single token."""
    encode = lambda text: processor.encode_target(tokenizer, text)  # noqa: E731
    asked = processor.encode_question(tokenizer, "Read the sign.")
    first = [Branch(encode("<answer>2 1 4 3</answer>")), Branch(encode("<think>sky</think>")), Branch([5])]
    second = [Branch([*asked, *encode("<answer>7</answer>")], skip=len(asked)), Branch(encode("no"))]
    return [
        Group(prompt(tokenizer, "Which hill is higher?"), 1, first),
        Group(processor.encode_prefix(tokenizer, 16), 0, second),
    ]


# ------------------------------------------------------------------------------------------ layout


def test_rope_positions_by_hand() -> None:
    axes, after = rope_positions([1, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, 2, 3], IMAGE, (2, 3))
    assert axes[0] == [0, 1, 1, 1, 1, 1, 1, 4, 5]
    assert axes[1] == [0, 1, 1, 1, 2, 2, 2, 4, 5]
    assert axes[2] == [0, 1, 2, 3, 1, 2, 3, 4, 5]
    assert after == 6


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (4, 4), (2, 5), (6, 3), (1, 7)])
@pytest.mark.parametrize("images", [1, 2])
def test_rope_positions_equal_the_models(loaded: tuple, grid: tuple[int, int], images: int) -> None:
    model, processor = loaded
    start, end = (processor.tokenizer.convert_tokens_to_ids(f"<|vision_{w}|>") for w in ("start", "end"))
    picture = [start, *[processor.image_token_id] * (grid[0] * grid[1]), end]
    ids = [11, 12, *picture * images, 13, 14, 15]
    stock, _ = model.model.get_rope_index(
        input_ids=torch.tensor([ids]),
        mm_token_type_ids=(torch.tensor([ids]) == processor.image_token_id).int(),
        image_grid_thw=torch.tensor([[1, 2 * grid[0], 2 * grid[1]]] * images),
    )
    axes, after = rope_positions(ids, processor.image_token_id, grid)
    assert torch.tensor(axes).tolist() == stock[:, 0].tolist()
    assert after == int(stock.max()) + 1


def test_a_packed_stream_by_hand() -> None:
    groups = [Group([1, 2], None, [Branch([3, 4]), Branch([5], skip=0)]), Group([1, 6], 0, [Branch([8, 9], skip=1)])]
    packed = pack(groups, IMAGE, (1, 1))
    assert packed.ids.tolist() == [1, 2, 3, 4, 5, 6, 8, 9]  # the 1 that both start with stands there once
    assert packed.positions[0].tolist() == [0, 1, 2, 3, 2, 1, 2, 3]
    assert packed.prefix.tolist() == [[0, 1], [0, 5]] and packed.rows.tolist() == [[2, 3, 4], [6, 7, 0]]
    assert packed.parent.tolist() == [0, 1]
    assert packed.source.tolist() == [1, 2, 1, 6]  # 3 and 5 are predicted by the prefix's last token
    assert packed.target.tolist() == [3, 4, 5, 9]
    assert packed.branch.tolist() == [0, 0, 1, 2]
    assert packed.pictures.tolist() == [-1, 0]
    assert packed.ends.tolist() == [2, 2] and packed.next_position.tolist() == [2, 2]
    joined = torch.cat((packed.prefix.flatten(), packed.rows.flatten()))
    assert joined[packed.place].tolist() == list(range(8))
    seen = (packed.mask[:, 0] == 0).int().tolist()
    assert seen[0] == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert seen[1][:2] == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]


def test_long_branches_have_a_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [Group([1, 2], None, [Branch([3, 4]), Branch([5])]), Group([1, 6], None, [Branch([8])])]
    swap(monkeypatch, packing, "ROW", 2)
    packed = pack(groups, IMAGE, (1, 1))
    assert packed.rows.tolist() == [[2, 3], [4, 0], [6, 0]] and packed.parent.tolist() == [0, 0, 1]
    assert packed.branch.tolist() == [0, 0, 1, 2] and packed.source.tolist() == [1, 2, 1, 5]


def test_the_mask_hides_padding_behind_short_prefixes() -> None:
    groups = [Group([1, 2, 3], None, [Branch([4, 5])]), Group([6], None, [Branch([8]), Branch([9])])]
    packed = pack(groups, IMAGE, (1, 1))
    seen = (packed.mask[:, 0] == 0).int().tolist()
    assert seen == [[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], [[1, 0, 0, 1, 0], [1, 0, 0, 0, 1]]]


def test_branches_without_sisters_stand_behind_their_prefix() -> None:
    groups = [Group([1, 2], None, [Branch([4, 5], skip=1)]), Group([1, 6, 7], None, [Branch([8])])]
    packed = pack(groups, IMAGE, (1, 1))
    assert packed.ids.tolist() == [1, 2, 4, 5, 6, 7, 8]
    assert packed.prefix.tolist() == [[0, 1, 2, 3], [0, 4, 5, 6]] and packed.rows.numel() == 0
    assert packed.ends.tolist() == [4, 4] and packed.place.tolist() == [4, 1, 2, 3, 5, 6, 7]
    assert packed.source.tolist() == [2, 5] and packed.target.tolist() == [5, 8] and packed.branch.tolist() == [0, 1]
    assert packed.next_position.tolist() == [2, 3]


def test_pictures_are_never_shared_by_prefixes() -> None:
    groups = [Group([1, IMAGE, 2], k, [Branch([3])]) for k in range(2)]
    packed = pack(groups, IMAGE, (1, 1))
    assert packed.ids.tolist() == [1, IMAGE, 2, 3, IMAGE, 2, 3]


branches_drawn = st.lists(
    st.tuples(st.lists(st.integers(10, 30), min_size=1, max_size=5), st.integers(0, 5)), max_size=4
)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 6), branches_drawn), min_size=1, max_size=4))
def test_every_token_is_scored_once_and_predicted_by_the_one_before_it(drawn: list) -> None:
    groups = [
        Group(list(range(40, 40 + n)), None, [Branch(ids, min(skip, len(ids))) for ids, skip in branches])
        for n, branches in drawn
    ]
    packed = pack(groups, IMAGE, (1, 1))
    expected = [
        (([*g.prefix, *b.ids])[len(g.prefix) + k - 1], b.ids[k])
        for g in groups for b in g.branches for k in range(b.skip, len(b.ids))
    ]  # fmt: skip
    before = packed.ids[packed.source].tolist()
    assert list(zip(before, packed.target.tolist(), strict=True)) == expected
    joined = torch.cat((packed.prefix.flatten(), packed.rows.flatten()))
    assert joined[packed.place].tolist() == list(range(len(packed.ids)))
    alone = all(len(group.branches) < 2 for group in groups)
    for row, group in enumerate(groups):
        behind = [token for branch in group.branches for token in branch.ids] if alone else []
        assert packed.ids[packed.prefix[row, : packed.ends[row]]].tolist() == [*group.prefix, *behind]


def test_nothing_to_pack_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to score"):
        pack([], IMAGE, (1, 1))


def test_pictures_that_need_resizing_are_refused() -> None:
    with pytest.raises(UserError, match="multiples of 16"):
        patches_of(torch.zeros(1, 40, 64, 3, dtype=torch.uint8))


# ---------------------------------------------------------------------------------------- equality


def test_the_test_model_minds_positions_and_pixels(loaded: tuple) -> None:
    """Without this the equalities below would prove little."""
    model, processor = loaded
    ids, picture = prompt(processor.tokenizer, "Read the sign."), pixels(2)
    inputs = stock_inputs(model, ids, picture[0])
    with torch.no_grad():
        logps = torch.log_softmax(model(**inputs).logits[0, -1], -1)
        other = torch.log_softmax(model(**stock_inputs(model, ids, picture[1])).logits[0, -1], -1)
        flat = torch.arange(len(ids)).expand(3, 1, -1)
        moved = torch.log_softmax(model(**inputs, position_ids=flat).logits[0, -1], -1)
    assert (logps - other).abs().max() > 0.1
    assert (logps - moved).abs().max() > 0.1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 64)])
def test_features_equal_the_stock_towers(loaded: tuple, height: int, width: int) -> None:
    model, _ = loaded
    patches = patches_of(pixels(3, height, width))
    grid = torch.tensor([[1, patches.rows, patches.columns]] * 3)
    stock = model.model.visual(patches.values.flatten(0, 1), grid_thw=grid).pooler_output
    found = forward.picture_features(model, patches)
    assert found.shape == (3, height * width // 256, 32)
    assert torch.allclose(found.flatten(0, 1), stock, atol=1e-5)


def test_a_tower_with_windows_goes_through_the_stock_code(loaded: tuple) -> None:
    model, _ = loaded
    patches = patches_of(pixels(2, 96, 96))
    full = forward.picture_features(model, patches)
    model.model.visual.fullatt_block_indexes = [1]
    model.model.visual.window_size = 32
    grid = torch.tensor([[1, 12, 12]] * 2)
    stock = model.model.visual(patches.values.flatten(0, 1), grid_thw=grid).pooler_output
    found = forward.picture_features(model, patches)
    assert torch.allclose(found.flatten(0, 1), stock, atol=1e-5)
    assert not torch.allclose(found, full, atol=1e-3)


@pytest.mark.parametrize("row", [packing.ROW, 0])
def test_log_probs_and_gradients_equal_separate_passes(loaded: tuple, row: int, monkeypatch) -> None:
    """With all branches of a prefix in one row, and with a row for each."""
    swap(monkeypatch, packing, "ROW", row)
    model, processor = loaded
    model.zero_grad()
    groups, pictures = two_groups(processor.tokenizer), pixels(2)
    found, packed = packed_logps(model, groups, pictures)
    weights = torch.linspace(-1, 1, len(found))
    (found * weights).sum().backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    parts = [stock_logps(model, g.prefix, b, pictures[g.picture]) for g in groups for b in g.branches]
    stock = torch.cat(parts)
    (stock * weights).sum().backward()
    assert [len(p) for p in parts] == torch.bincount(packed.branch).tolist()
    assert torch.allclose(found, stock, atol=1e-5)
    for name, parameter in model.named_parameters():
        scale = max(1.0, float(parameter.grad.abs().max()))
        assert torch.allclose(ours[name], parameter.grad, atol=1e-5 * scale), name
    assert all(ours[n].abs().max() > 1e-6 for n in ours if "k_proj.bias" not in n)


def test_a_lora_model_gives_the_same_as_a_separate_pass(loaded: tuple) -> None:
    model, processor = loaded
    layers = r".*language_model.*\.(q_proj|v_proj|down_proj)"
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=layers, init_lora_weights=False))
    groups, pictures = two_groups(processor.tokenizer), pixels(2)
    found, _ = packed_logps(adapted, groups, pictures)
    parts = [stock_logps(adapted, g.prefix, b, pictures[g.picture]) for g in groups for b in g.branches]
    assert torch.allclose(found, torch.cat(parts), atol=1e-5)
    with adapted.disable_adapter():
        plain, _ = packed_logps(adapted, groups, pictures)
    assert (plain - found).abs().max() > 1e-3


def test_rows_do_not_depend_on_their_company(loaded: tuple) -> None:
    model, processor = loaded
    groups, pictures = two_groups(processor.tokenizer), pixels(2)
    with torch.no_grad():
        together, _ = packed_logps(model, groups, pictures)
        alone = [packed_logps(model, [g], pictures)[0] for g in groups]
        single = [packed_logps(model, [Group(g.prefix, g.picture, [b])], pictures)[0]
                  for g in groups for b in g.branches]  # fmt: skip
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert torch.allclose(together, torch.cat(single), atol=1e-5)


def test_rows_with_the_same_picture_share_it(loaded: tuple) -> None:
    model, processor = loaded
    tokenizer, pictures = processor.tokenizer, pixels(2)
    texts = ("Read the sign.", "Which hill is higher?", "Is there a star?")
    groups = [Group(prompt(tokenizer, t), i, [Branch([4, 9])]) for t, i in zip(texts, (1, 0, 1), strict=True)]
    with torch.no_grad():
        found, _ = packed_logps(model, groups, pictures)
        stock = [stock_logps(model, g.prefix, g.branches[0], pictures[g.picture]) for g in groups]
    assert torch.allclose(found, torch.cat(stock), atol=1e-5)


def test_text_without_a_picture_equals_a_separate_pass(loaded: tuple) -> None:
    model, processor = loaded
    prefix = prompt(processor.tokenizer, "Sort the list: 3 1 2.", cells=0)
    packed = pack([Group(prefix, None, [Branch([4, 9, 8])])], model.config.image_token_id, (1, 1))
    with torch.no_grad():
        logits = scored_logits(model, packed, None)
        stock = model(input_ids=torch.tensor([[*prefix, 4, 9, 8]])).logits[0, -4:-1]
    assert torch.allclose(torch.log_softmax(logits, -1), torch.log_softmax(stock, -1), atol=1e-5)


def test_packed_passes_are_refused_where_they_would_not_be_equal(loaded: tuple) -> None:
    model, _ = loaded
    assert forward.obstacle(model) == ""
    model.config.text_config.attention_dropout = 0.1
    assert "drops out" in forward.obstacle(model)
    model.config.text_config.attention_dropout = 0.0
    model.model.language_model.has_sliding_layers = True
    assert "sliding window" in forward.obstacle(model)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_equal_the_stock_language_model(loaded: tuple, checkpointing: bool) -> None:
    """One row, causal: `run_layers` against the stock layers, for all tokens and for some, with and without memory."""
    model, _ = loaded
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    hidden = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(9).expand(3, 1, 9)
    language = model.model.language_model
    stock = language(inputs_embeds=hidden, position_ids=positions)[0][0]
    attend = lambda _, *qkv: forward.attention(*(t[None] for t in qkv), is_causal=True)[0]  # noqa: E731
    rotary = forward.rotary_of(model, positions[:, 0])
    found = forward.run_layers(model, hidden[0], rotary, attend)
    some = forward.run_layers(model, hidden[0], rotary, attend, torch.tensor([8, 2, 2]))
    assert torch.allclose(found, stock, atol=1e-5)
    assert torch.allclose(some, stock[[8, 2, 2]], atol=1e-5)
