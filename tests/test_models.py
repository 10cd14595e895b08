"""Model and processor: the stock classes, and our shortcuts equal to them token by token and value by value."""

import json
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from swapping import swap
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers import Qwen2_5_VLForConditionalGeneration as Stock
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from helpers.errors import UserError
from helpers.model import build
from helpers.model import processor as processor_module
from helpers.model.processor import (
    SPECIAL,
    TAGS,
    Qwen2_5_VLImageOnlyProcessor,
    build_tokenizer,
    encode_prefix,
    encode_question,
    encode_target,
    pixel_patches,
    share_work,
    vectorise_images,
)

PROMPT = "What colour is the star? Answer with one word."


@pytest.fixture(scope="module")
def loaded(tiny) -> tuple:
    return tiny.load()


@pytest.fixture(scope="module")
def processor(loaded: tuple):
    return loaded[1]


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# --------------------------------------------------------------------------------------- tokenizer


def test_digits_and_tags_are_tokens_of_their_own(processor) -> None:
    tokens = processor.tokenizer.tokenize("<think>a 10</think><answer>2 1 43</answer><|im_end|>")
    assert [t for t in tokens if any(c.isdigit() for c in t)] == ["1", "0", "2", "1", "4", "3"]
    for tag in ("<think>", "</think>", "<answer>", "</answer>", "<|im_end|>"):
        assert tokens.count(tag) == 1


def test_a_placement_differs_from_another_in_its_digits_only(processor) -> None:
    encode = lambda text: encode_target(processor.tokenizer, f"<answer>{text}</answer>")  # noqa: E731
    first, second = encode("2 1 4 3"), encode("4 1 2 3")
    assert len(first) == len(second)
    assert sum(a != b for a, b in zip(first, second, strict=True)) == 2


def test_tags_are_ordinary_and_chat_tokens_special(processor) -> None:
    tokenizer = processor.tokenizer
    special = set(tokenizer.all_special_ids)
    for name in SPECIAL + TAGS:
        assert (tokenizer.convert_tokens_to_ids(name) in special) == name.startswith("<|")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.padding_side == "left"


def test_every_text_survives_the_round_trip(processor, corpus: list[str]) -> None:
    for text in corpus[-400:]:
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@settings(max_examples=60)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30))
def test_any_text_survives_the_round_trip(processor, text: str) -> None:
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded = processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert unicodedata.normalize("NFC", decoded) == unicodedata.normalize("NFC", text)


def test_the_same_texts_give_the_same_tokenizer(corpus: list[str]) -> None:
    first, second = (build_tokenizer(corpus, 420) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert len(first) == 420


# ------------------------------------------------------------------------------- prompts and targets


@pytest.mark.parametrize(("width", "height"), [(64, 64), (32, 32), (96, 48)])
def test_prefix_and_question_equal_the_processors_chat_template(processor, width: int, height: int) -> None:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    stock = processor(text=[text], images=[[picture(0, width, height)]])["input_ids"][0]
    cells = width * height // 16**2
    prefix = encode_prefix(processor.tokenizer, cells)
    assert prefix.count(processor.image_token_id) == cells
    assert [*prefix, *encode_question(processor.tokenizer, PROMPT)] == list(stock)


def test_a_chat_without_picture_equals_the_chat_template_too(processor) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    stock = processor(text=[text])["input_ids"][0]
    prefix = encode_prefix(processor.tokenizer, 0)
    assert [*prefix, *encode_question(processor.tokenizer, PROMPT)] == list(stock)


def test_a_percent_sign_in_the_question_is_kept(processor) -> None:
    ids = encode_question(processor.tokenizer, "How many % are there?")
    assert "How many % are there?" in processor.tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["<answer>2 1 4 3</answer>", "<think>sky, hills</think><answer>1</answer>", "x"])
def test_a_target_equals_trls_completion_tokens(processor, text: str) -> None:
    row = {
        "images": [picture(1)],
        "prompt": [{"role": "user", "content": PROMPT}],
        "completion": [{"role": "assistant", "content": text}],
    }
    batch = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([row])
    trained = batch["labels"][batch["labels"] != -100].tolist()
    assert encode_target(processor.tokenizer, text) == trained
    assert processor.tokenizer.decode(trained) == f"{text}<|im_end|>\n"


# ----------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("width", "height"), [(64, 64), (32, 64), (16, 16), (192, 192), (48, 96)])
def test_patches_equal_the_stock_processor(processor, width: int, height: int) -> None:
    pictures = [picture(seed, width, height) for seed in range(3)]
    stock = processor.image_processor(pictures, return_tensors="pt")
    ours = pixel_patches(torch.from_numpy(np.stack([np.asarray(p) for p in pictures])))
    assert ours.shape == stock["pixel_values"].shape
    assert torch.allclose(ours, stock["pixel_values"].float(), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 63, 64, 3), (1, 64, 24, 3), (2, 8, 8, 3)])
def test_sides_that_are_no_multiples_of_16_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="multiples of 16"):
        pixel_patches(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(
    "images",
    [
        [picture(0), picture(1)],
        [[picture(0)], [picture(1)]],
        [picture(0, 32, 64)],
        [picture(0), picture(1, 32, 32)],  # two sizes
        [picture(0, 50, 70)],  # resized
        [picture(0, 256, 256)],  # too large
        [picture(0).convert("L")],
    ],
)
def test_vectorised_images_equal_the_stock_processor(processor, images: list) -> None:
    stock = processor.image_processor
    expected = stock(images, return_tensors="pt")
    found = vectorise_images(stock)(images=images, return_tensors="pt")
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    assert torch.allclose(found["pixel_values"].float(), expected["pixel_values"].float(), atol=1e-6)


def test_vectorising_leaves_the_stock_processor_alone_and_saves_as_stock(processor, tmp_path) -> None:
    stock = processor.image_processor
    fast = vectorise_images(stock)
    assert type(fast) is not type(stock) and type(processor.image_processor) is type(stock)
    fast.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["image_processor_type"] == type(stock).__name__


# -------------------------------------------------------------------------------- loading and saving


def test_saving_and_loading_gives_the_same_model_and_processor(loaded: tuple, tmp_path) -> None:
    model, processor = loaded
    build.save(model, processor, tmp_path)
    again, reread = build.load(tmp_path)
    assert type(reread) is type(processor) is Qwen2_5_VLImageOnlyProcessor
    assert reread.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert reread.tokenizer.padding_side == "left"
    ask = lambda p: p(text=[f"<|image_pad|>{PROMPT}"], images=[[picture(3)]], return_tensors="pt")  # noqa: E731
    first, second = ask(processor), ask(reread)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    stored = dict(again.named_parameters())
    assert all(torch.equal(p, stored[n]) for n, p in model.named_parameters())
    assert not again.training and {p.dtype for p in again.parameters()} == {torch.float32}


def test_auto_processor_finds_the_class(tiny) -> None:
    assert type(AutoProcessor.from_pretrained(tiny.folder)) is Qwen2_5_VLImageOnlyProcessor


def test_the_model_is_the_stock_class_with_tied_embeddings(loaded: tuple) -> None:
    model = loaded[0]
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_the_seed_fixes_the_weights_and_leaves_torchs_state_alone(processor) -> None:
    size = build.ModelSize(text_width=16, text_layers=1, heads=1, kv_heads=1, text_mlp=16, vision_width=16,
                            vision_layers=1, vision_mlp=16, mrope=(2, 3, 3))  # fmt: skip
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (build.build_model(processor.tokenizer, size, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_default_size_has_a_million_and_a_half_weights(processor) -> None:
    model = build.build_model(processor.tokenizer)
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 2e6
    half_head = build.ModelSize().text_width // build.ModelSize().heads // 2
    assert sum(build.ModelSize().mrope) == half_head


@pytest.mark.parametrize("files", [[], ["config.json"], ["model.safetensors"]])
def test_a_folder_that_is_no_model_is_refused_in_one_sentence(tmp_path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="is not a model folder"):
        build.load(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="nowhere is not a model folder"):
        build.load(tmp_path / "nowhere")


def test_a_name_on_the_hub_that_is_not_stored_here_is_told_in_one_sentence() -> None:
    """Tests run offline, so the hub's answer is that of a machine without network."""
    with pytest.raises(UserError, match=r"^nobody/no-such-model cannot be loaded \(.+\); download it first\.$"):
        build.load("nobody/no-such-model")


def test_a_name_on_the_hub_is_loaded_in_the_asked_precision(monkeypatch: pytest.MonkeyPatch, tiny) -> None:
    """Weights and processor are asked for by the hub's name, and the weights come in bfloat16 where asked."""
    stored, asked = Stock.from_pretrained, []

    def from_pretrained(source, **options):
        asked.append(source)
        return stored(tiny.folder, **options)

    monkeypatch.setattr(Stock, "from_pretrained", from_pretrained)
    swap(monkeypatch, processor_module, "load_processor", lambda source: asked.append(source))
    model, _ = build.load("Qwen/Qwen2.5-VL-3B-Instruct", "bfloat16")
    assert asked == ["Qwen/Qwen2.5-VL-3B-Instruct"] * 2
    assert {str(p.dtype) for p in model.parameters()} == {"torch.bfloat16"}


def shared_inputs(processor) -> tuple[list, list[str]]:
    """Three prompts of two wordings over two pictures, the way TRL passes a group: repeated."""
    pictures = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (32, 64, 3), dtype=np.uint8)) for k in (0, 1)]
    pairs = [(0, "Read the sign."), (1, "Read the sign."), (1, "Which hill is higher?")]
    chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for _, text in pairs]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    order = [0, 0, 1, 2, 2, 0]
    return [[pictures[pairs[i][0]]] for i in order], [texts[i] for i in order]


def test_sharing_work_changes_no_tensor(tiny) -> None:
    stock = tiny.load()[1]
    images, texts = shared_inputs(stock)
    expected = stock(images=images, text=texts, padding=True, return_tensors="pt")
    fast = share_work(stock)
    seen: list[int] = []
    inner = type(fast.image_processor).__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fast.image_processor), "__call__",
                      lambda self, images, **how: seen.append(len(images)) or inner(self, images, **how))  # fmt: skip
        found = fast(images=images, text=texts, padding=True, return_tensors="pt")
    assert set(found) == set(expected) and all(found[k].shape == expected[k].shape for k in expected)
    assert all(torch.equal(found[k], expected[k]) for k in expected if k != "pixel_values")
    assert torch.allclose(found["pixel_values"], expected["pixel_values"], atol=1e-6)
    assert seen == [3], "three different pairs, each processed once"


def test_sharing_work_leaves_other_shapes_to_the_stock_processor(tiny) -> None:
    stock = tiny.load()[1]
    fast, (images, texts) = share_work(stock), shared_inputs(stock)
    two = [[*images[0], *images[2]]]
    text = [texts[0].replace("<|image_pad|>", "<|image_pad|><|image_pad|>")]
    for arguments in ({"images": two, "text": text}, {"text": ["no picture"]}):
        expected = stock(**arguments, padding=True, return_tensors="pt")
        found = fast(**arguments, padding=True, return_tensors="pt")
        assert set(found) == set(expected) and torch.equal(found["input_ids"], expected["input_ids"])


def test_a_chat_is_rendered_once_per_wording_and_never_confused(tiny) -> None:
    stock = tiny.load()[1]
    fast = share_work(stock)
    chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": t}]}] for t in ("a", "b", "a")]
    for how in ({"add_generation_prompt": True}, {"add_generation_prompt": False}):
        for chat in [*chats, [{"role": "user", "content": "plain"}]]:
            rendered = fast.apply_chat_template(chat, tokenize=False, **how)
            assert rendered == stock.apply_chat_template(chat, tokenize=False, **how)
    assert len(fast.rendered) == 4  # two wordings, each with and without the assistant's turn
