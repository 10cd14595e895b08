"""The processor and its tokenizer: pictures to patches, prompts and completions to tokens, as Qwen2.5-VL does it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    BatchFeature,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
)
from transformers.processing_utils import ProcessorMixin

from helpers.errors import UserError
from helpers.study.bases import BASES

SPECIAL = tuple(f"<|{n}|>" for n in ["im_start", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"])
TAGS = ("<think>", "</think>", "<answer>", "</answer>")  # ordinary tokens: the model writes them


@dataclass(frozen=True)
class ImageSettings:
    """How pictures become patches: pixels per patch side, patches merged per side, frames per patch, normalisation.

    The defaults are the small model's; `image_settings` reads those of any Qwen2.5-VL processor.
    """

    patch: int = 8
    merge: int = 2
    frames: int = 1
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    deviation: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    smallest: int = 16 * 16
    largest: int = 192 * 192

    @property
    def unit(self) -> int:
        """Pixels per side of one language token."""
        return self.patch * self.merge

    def fits(self, width: int, height: int) -> bool:
        """Whether a picture of this size goes in without resizing."""
        whole = width % self.unit == 0 and height % self.unit == 0
        return whole and self.smallest <= width * height <= self.largest


def image_settings(images: Qwen2VLImageProcessorPil) -> ImageSettings:
    """Settings of a Qwen image processor."""
    sides = images.patch_size, images.merge_size, images.temporal_patch_size
    colours = tuple(images.image_mean), tuple(images.image_std)
    return ImageSettings(*sides, *colours, images.size["shortest_edge"], images.size["longest_edge"])


def build_tokenizer(texts: list[str], vocabulary: int = 640) -> Qwen2Tokenizer:
    """Byte-level BPE tokenizer with Qwen's special tokens and chat template, trained on `texts`.

    Each digit is a token of its own, as in Qwen; the four tags of a completion are single, ordinary tokens.
    """
    bpe = Tokenizer(models.BPE())
    # A word takes the space before it along; digits and signs stand alone and are never merged with anything.
    split = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|[0-9]|[^A-Za-z0-9]+?"), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    # With all bytes in the alphabet any text can be written, whatever the corpus lacks; sorted, or ids would vary.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = vocabulary - len(SPECIAL + TAGS) - 2  # and the two tokens that end a text and a turn
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    # The trained vocabulary goes into Qwen's own class, which normalises and decodes as the 3B model's does.
    model = json.loads(bpe.to_str())["model"]
    words = dict(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], unk_token=None)
    ends = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=list(SPECIAL))
    tokenizer = Qwen2Tokenizer(**words, **ends, model_max_length=4096)
    tokenizer.add_tokens(list(TAGS))  # not as special tokens: those are never sampled, and decoding may skip them
    tokenizer.padding_side = "left"
    # Qwen2.5-VL's own, as TRL packages it
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5_vl.jinja").read_text()
    return tokenizer


class Qwen2_5_VLImageOnlyProcessor(Qwen2_5_VLProcessor):
    """Qwen's processor without the video branch (the stock class refuses to start without torchvision).

    `ProcessorMixin` reads the sub-processors it wants off the constructor's parameters: a shorter signature will do.
    """

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


AutoProcessor.register(Qwen2_5_VLConfig, Qwen2_5_VLImageOnlyProcessor, exist_ok=True)


def build_processor(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLImageOnlyProcessor:
    """Processor for pictures from 16 x 16 to 192 x 192 pixels: 8-pixel patches, merged 2 x 2, one frame each."""
    settings = ImageSettings()
    sides = dict(patch_size=settings.patch, merge_size=settings.merge, temporal_patch_size=settings.frames)
    bounds = {"shortest_edge": settings.smallest, "longest_edge": settings.largest}
    images = Qwen2VLImageProcessorPil(**sides, size=bounds)
    return Qwen2_5_VLImageOnlyProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def require_model(source: str | Path) -> None:
    """Refuse what is neither a saved model nor, by its look, a name on the hub."""
    path = Path(source)
    saved = (path / "config.json").is_file() and list(path.glob("*.safetensors"))
    if not saved and (path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source))):
        missing = "not a model folder (no config.json with *.safetensors)"
        raise UserError(f"{path} is {missing}; name one saved by save_pretrained.")


def load_processor(source: str | Path = "shipped") -> Qwen2_5_VLImageOnlyProcessor:
    """The processor saved with a model, padding on the left as GRPO needs it (TRL issue 5785)."""
    processor = Qwen2_5_VLImageOnlyProcessor.from_pretrained(BASES.get(str(source), source))
    processor.tokenizer.padding_side = "left"
    return processor


def vectorise_images(stock: Qwen2VLImageProcessorPil) -> Qwen2VLImageProcessorPil:
    """A copy of Qwen's image processor that handles equal-sized pictures without resizing in one array operation.

    TRL passes each picture once per completion; picture by picture that costs as much as the forward pass. The
    values equal the stock processor's (tested); pictures that need resizing go the stock way.
    """

    class Vectorised(type(stock)):
        def __call__(self, images: Any, **options: Any) -> BatchFeature:
            flat = [image for entry in images for image in (entry if isinstance(entry, list | tuple) else [entry])]
            settings, (width, height) = image_settings(self), flat[0].size
            if not settings.fits(width, height) or any(image.size != flat[0].size for image in flat):
                return super().__call__(images=images, **options)
            pictures = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in flat]))
            grid = torch.tensor([[1, height // settings.patch, width // settings.patch]]).repeat(len(flat), 1)
            return BatchFeature({"pixel_values": pixel_patches(pictures, settings), "image_grid_thw": grid})

        def to_dict(self) -> dict:
            return super().to_dict() | {"image_processor_type": type(stock).__name__}

    fast = copy.copy(stock)
    fast.__class__ = Vectorised  # a subclass of whatever class came in: the settings and the rest of it stay
    return fast


def share_work(stock: ProcessorMixin) -> ProcessorMixin:
    """A copy of a processor that does the same work once: for RFT, which passes each prompt once per completion.

    A pair of one text and one picture (the same object) is processed once and its tensors are repeated; a chat is
    rendered once per wording. The results equal the stock processor's (tested). What has another shape than one
    picture per text, all of one size, goes the stock way. Images are vectorised as `vectorise_images` does.
    """

    class Sharing(type(stock)):
        def __call__(self, images: Any = None, text: Any = None, **options: Any) -> BatchFeature:
            if not _one_picture_each(images, text) or options.get("return_tensors") != "pt":
                return super().__call__(images=images, text=text, **options)
            # The same object is the same picture (TRL repeats references); while the batch lives its id is unique.
            keys = [(words, id(entry[0])) for entry, words in zip(images, text, strict=True)]
            place = {key: row for row, key in enumerate(dict.fromkeys(keys))}
            chosen, rows = [keys.index(key) for key in place], [place[key] for key in keys]
            batch = super().__call__(images=[images[i] for i in chosen], text=[text[i] for i in chosen], **options)
            for name, values in batch.items():  # a picture's patches are many rows, which stay together
                batch[name] = values.unflatten(0, (len(chosen), -1))[rows].flatten(0, 1)
            return batch

        def apply_chat_template(self, conversation: list[dict], *args: Any, **options: Any) -> str | BatchFeature:
            """The same text as before for the same wording, without rendering it again."""
            key = None if args or options.get("tokenize") else _wording(conversation, options)
            if key is None:
                return super().apply_chat_template(conversation, *args, **options)
            if key not in self.rendered:
                self.rendered[key] = super().apply_chat_template(conversation, **options)
            return self.rendered[key]

    fast = copy.copy(stock)
    fast.__class__, fast.rendered = Sharing, {}
    fast.image_processor = vectorise_images(stock.image_processor)
    return fast


def _one_picture_each(images: Any, text: Any) -> bool:
    """Whether there is one picture for each text, all of one size."""
    if not isinstance(images, list) or not isinstance(text, list) or len(images) != len(text):
        return False
    single = all(isinstance(entry, list | tuple) and len(entry) == 1 for entry in images)
    return single and len({getattr(entry[0], "size", None) for entry in images}) == 1


def _wording(conversation: list[dict], options: dict) -> tuple | None:
    """What a rendered chat depends on, its pictures left out: a key, or None for chats of another form."""
    parts: list = [tuple(sorted((k, repr(v)) for k, v in options.items()))]
    for message in conversation:
        blocks = message.get("content") if isinstance(message, dict) else None
        if not isinstance(blocks, list) or any(block.get("type") not in ("image", "text") for block in blocks):
            return None
        parts.append((message["role"], *((block["type"], block.get("text")) for block in blocks)))
    return tuple(parts)


def pixel_patches(pictures: torch.Tensor, settings: ImageSettings | None = None) -> torch.Tensor:
    """Flattened patches, (N * patches, 3 * frames * patch^2) fp32, of pictures (N, H, W, 3) uint8.

    Order and normalisation equal Qwen's image processor for sizes that need no resizing (tested); else UserError.
    """
    settings = settings or ImageSettings()
    n, height, width, _ = pictures.shape
    unit, merge, patch = settings.unit, settings.merge, settings.patch
    if height % unit or width % unit:
        raise UserError(f"Pictures of {width} x {height} pixels need resizing; use sides that are multiples of {unit}.")
    # Patches of one language token stand together (2 x 2), each channel by channel, frame by frame.
    scaled = pictures.float().div_(255).sub_(torch.tensor(settings.mean)).div_(torch.tensor(settings.deviation))
    blocks = scaled.reshape(n, height // unit, merge, patch, width // unit, merge, patch, 3)
    ordered = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6).unsqueeze(6).expand(*[-1] * 6, settings.frames, -1, -1)
    return ordered.reshape(n * height * width // patch**2, 3 * settings.frames * patch**2)


def encode_prefix(tokenizer: PreTrainedTokenizerBase, image_tokens: int) -> list[int]:
    """Token ids of the chat up to and with the picture; `image_tokens` 0 gives a chat without picture.

    Together with `encode_question` this equals the processor's own chat template (tested); the picture ends in a
    special token, so both halves can be encoded apart.
    """
    content = [*([{"type": "image"}] if image_tokens else []), {"type": "text", "text": "%"}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    # The sign stands where the question will; the template writes one placeholder, the model wants one per token.
    text = text[: text.rindex("%")].replace("<|image_pad|>", "<|image_pad|>" * image_tokens)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_questions(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of what stands from behind the picture to the place where the completion starts, for several texts."""
    return _encode(tokenizer, [f"{text}<|im_end|>\n<|im_start|>assistant\n" for text in texts])


def encode_question(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """`encode_questions` of one text."""
    return encode_questions(tokenizer, [text])[0]


def encode_targets(tokenizer: PreTrainedTokenizerBase, completions: Sequence[str]) -> list[list[int]]:
    """Token ids of completions as training targets: each with the end token and the template's line break."""
    return _encode(tokenizer, [f"{completion}<|im_end|>\n" for completion in completions])


def encode_target(tokenizer: PreTrainedTokenizerBase, completion: str) -> list[int]:
    """`encode_targets` of one completion."""
    return encode_targets(tokenizer, [completion])[0]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of several texts; one call, because a call costs more than a text, and none for no texts (it fails)."""
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
