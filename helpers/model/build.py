"""Build, load, save and export the model and its processor: the one place for image and tokenizer settings.

The small model is a real `Qwen2_5_VLForConditionalGeneration`, only narrow and shallow, so every line of the suite also
runs `Qwen/Qwen2.5-VL-3B-Instruct`. Its processor is Qwen's without the video branch, which would need torchvision.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase, ProcessorMixin, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging

from helpers.errors import UserError
from helpers.model.processor import ImageSettings, load_processor, require_model
from helpers.study.bases import BASES


@dataclass(frozen=True)
class ModelSize:
    """Widths and depths of a small Qwen2.5-VL. `mrope` are rotary channels for time, height, width: half a head."""

    text_width: int = 128
    text_layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    text_mlp: int = 384
    vision_width: int = 96
    vision_layers: int = 3
    vision_mlp: int = 256
    mrope: tuple[int, int, int] = (4, 6, 6)


def build_model(
    tokenizer: PreTrainedTokenizerBase, size: ModelSize | None = None, seed: int = 0
) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh small Qwen2.5-VL in fp32 with random weights fixed by `seed`."""
    size = size or ModelSize()
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    ids = {f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}
    parts = {"text_config": _text_config(tokenizer, size), "vision_config": _vision_config(size)}
    config = Qwen2_5_VLConfig(**parts, **ids, tie_word_embeddings=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config).float()
        _redraw(model)
        return model


def _redraw(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Redraw the weights at a scale that suits a narrow model.

    A matrix keeps the variance of its input; the language blocks start silent (their last matrices are zero), so that
    what a token is stands clear before the blocks add to it. The stock deviation of 0.02 suits widths of thousands.
    """
    for name, weight in model.named_parameters():
        if "embed_tokens" in name:
            torch.nn.init.normal_(weight, std=0.1)
        elif name.endswith(("o_proj.weight", "down_proj.weight")) and "language_model" in name:
            torch.nn.init.zeros_(weight)
        elif weight.ndim > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)


def _text_config(tokenizer: PreTrainedTokenizerBase, size: ModelSize) -> dict:
    widths = dict(hidden_size=size.text_width, intermediate_size=size.text_mlp, num_hidden_layers=size.text_layers)
    heads = dict(num_attention_heads=size.heads, num_key_value_heads=size.kv_heads)
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(size.mrope)}
    ids = dict(bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    more = dict(vocab_size=len(tokenizer), max_position_embeddings=4096, tie_word_embeddings=True)
    return dict(**widths, **heads, **ids, **more, rope_parameters=rotary)


def _vision_config(size: ModelSize) -> dict:
    images = ImageSettings()
    widths = dict(hidden_size=size.vision_width, intermediate_size=size.vision_mlp, out_hidden_size=size.text_width)
    patches = dict(patch_size=images.patch, spatial_merge_size=images.merge, temporal_patch_size=images.frames)
    # All blocks attend to the whole picture, so the window is never used: that is what lets pictures be batched.
    layers = dict(depth=size.vision_layers, fullatt_block_indexes=list(range(size.vision_layers)), num_heads=4)
    return dict(**widths, **patches, **layers, window_size=16 * images.patch)


class Loaded(NamedTuple):
    """A model with the processor that turns pictures and texts into its inputs."""

    model: Qwen2_5_VLForConditionalGeneration
    processor: ProcessorMixin


def load(source: str | Path = "shipped", dtype: str = "float32") -> Loaded:
    """A model in evaluation mode and its processor: a base by name, a folder in Hugging Face format, or a hub name.

    On a GPU where there is one. Raises UserError where there is no such model.
    """
    source = BASES.get(str(source), source)
    require_model(source)
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype=getattr(torch, dtype)).eval()
    except OSError as error:
        raise UserError(f"{source} cannot be loaded ({str(error).splitlines()[0]}); download it first.") from error
    return Loaded(model.to("cuda" if torch.cuda.is_available() else "cpu"), load_processor(source))


def save(model: Qwen2_5_VLForConditionalGeneration, processor: ProcessorMixin, folder: str | Path) -> None:
    """Save model and processor together in Hugging Face format."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def quiet_cpu() -> None:
    """Flush denormals, which keeps CPU training fast; call before the first torch work of a process.

    Adam's second moments of rare tokens become denormal once the softmax is sharp, and slow steps down several times.
    """
    torch.set_flush_denormal(True)


def quiet_progress() -> None:
    """A progress bar in a saved notebook is only noise."""
    logging.disable_progress_bar()


def require_gpu() -> None:
    """Raises UserError where no GPU can be seen."""
    if not torch.cuda.is_available():
        raise UserError("The gpu profile needs a CUDA GPU and none can be seen: use the profile cpu instead.")
