"""Settings that must stand before torch, matplotlib or a tokenizer is first imported."""

import os

os.environ.update(MPLBACKEND="Agg", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", JIGSAW_STATIC="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402

# No deadline: on a busy machine an example may well take seconds. Derandomised: a failure can be repeated.
settings.register_profile("lab", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("lab")


import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from helpers.model import build, processor, score  # noqa: E402
from helpers.study.records import versions  # noqa: E402
from helpers.train import pretrain  # noqa: E402
from helpers.world.boards import make_boards  # noqa: E402
from helpers.world.puzzles import PuzzleSpec  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class TinyModel:
    """A saved model small enough for tests; every `load()` gives fresh copies of the same weights."""

    folder: Path

    def load(self) -> tuple[Any, Any]:
        """(model in evaluation mode, processor)."""
        return build.load(self.folder)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Undo `models.quiet_cpu` behind each test: it holds for the whole process, and hypothesis needs denormals."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """The texts that the tests' tokenizer is trained on."""
    return pretrain.corpus_texts(300)


@pytest.fixture(scope="session")
def tiny(corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A random model whose weights are large enough that every position and pixel matters to its output.

    The end token is made likely, so that completions end after different lengths, and so are the image
    placeholder and the padding, which must never be sampled.
    """
    tokenizer = processor.build_tokenizer(corpus, 420)
    size = build.ModelSize(
        text_width=32, text_layers=2, heads=2, kv_heads=1, text_mlp=48,
        vision_width=32, vision_layers=2, vision_mlp=48, mrope=(2, 3, 3),
    )  # fmt: skip
    model = build.build_model(tokenizer, size, seed=3)
    named = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<|image_pad|>", "<|endoftext|>")}
    torch.manual_seed(19)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # a model for pretraining starts with silent blocks: here they must speak
                parameter.normal_(std=0.12)
        table = model.get_input_embeddings().weight
        table[[tokenizer.eos_token_id, *named.values()]] *= 3.0
        model.model.language_model.norm.weight.mul_(2.5)  # a sharp softmax
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build.save(model, processor.build_processor(tokenizer), folder)
    return TinyModel(folder)


@pytest.fixture(scope="session")
def puzzler(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """The tiny model after a short training on well-formed answers: it guesses, and its rewards vary."""
    model, processor = tiny.load()
    boards = make_boards(PuzzleSpec(size=32), range(64), 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    for _ in range(70):
        chosen = rng.integers(64, size=3)
        part = [(boards.prompted()[i], [_guess(rng) for _ in range(6)]) for i in chosen]
        packed, pictures = score.pack_completions(processor, part)
        loss = -score.token_logps(model, packed, pictures).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("puzzler") / "model"
    build.save(model, processor, folder)
    return TinyModel(folder)


def _guess(rng: np.random.Generator) -> str:
    """A completion with one of two placements, sometimes without a think: few choices, all of which matter."""
    think = ("<think>sky</think>", "<think>land</think>", "")[rng.integers(3)]
    return f"{think}<answer>{('2 1 4 3', '3 1 4 2')[rng.integers(2)]}</answer>"


@pytest.fixture(scope="session")
def golden() -> Callable[[str, list[float]], None]:
    """Compares a list of numbers with the stored one (1e-4); `UPDATE_GOLDEN=1` stores it anew."""

    def compare(name: str, values: list[float]) -> None:
        path = GOLDEN / f"{name}.json"
        if os.environ.get("UPDATE_GOLDEN"):
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(json.dumps({"values": values, "versions": versions()}, indent=1) + "\n")
        stored = json.loads(path.read_text())
        assert values == pytest.approx(stored["values"], rel=1e-4, abs=1e-4), f"made with {stored['versions']}"

    return compare
