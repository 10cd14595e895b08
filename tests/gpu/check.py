"""Is the suite right and fast on a GPU? `python -m tests.gpu.check`: ten minutes at most on one GPU of 80 GB.

 parity   One step of SFT and of RFT of the small model on the same recorded completions: losses, log-probs and
          gradients on the GPU equal the CPU's, and packed passes equal those of stock TRL. TF32 is off.
 speed    A Qwen2.5-VL-3B with random weights (its configuration stands here) takes steps of the `gpu` profile on 3 x 3
          boards, with this suite's trainers and with stock TRL: seconds, tokens per second, peak memory.

Both tables go to figures/gpu, the machine's name with them. `--tiny --out FOLDER` walks the same way on a CPU with a
tiny configuration, as the tests do.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from helpers.files import package_version, write_file
from helpers.model import build, score
from helpers.model.processor import Qwen2_5_VLImageOnlyProcessor, load_processor
from helpers.stats.summary import csv_text
from helpers.study.profiles import get_profile, specs
from helpers.study.published import PUBLISHED, load_published, published_specs
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train import rows, trainers
from helpers.train.recorder import StudyCallback
from helpers.train.run import make_trainer, prepare
from helpers.train.settings import Settings
from helpers.world.answers import REWARDS
from helpers.world.boards import Boards, training_boards

BOUND = 1e-4  # largest difference allowed, relative to the largest value of the quantity
GROUPS = 4  # recorded groups of completions
Values = dict[str, torch.Tensor]


# --- parity: the small model on recorded completions ------------------------------------------------------


def recorded() -> tuple[RunSpec, Boards, pd.DataFrame]:
    """An RFT run of the study, the boards of its first groups, and what was recorded of them."""
    name, spec = next((n, s) for n, s in published_specs(PUBLISHED).items() if s.arm == "rft" and s.seed == 0)
    table = load_published(PUBLISHED, "completions")
    table = table[(table["run"] == name) & (table["step"] == 1)]
    numbers = table["puzzle_id"].drop_duplicates().head(GROUPS).tolist()
    boards = training_boards(spec.puzzle, max(numbers) + 1, spec.seed).only(numbers)
    return spec, boards, table.set_index("puzzle_id").loc[numbers]


def nudged(source: str = "shipped") -> build.Loaded:
    """The base a little off itself, so that RFT's KL term and its gradient are not zero; the same on every device."""
    model, processor = build.load(source)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.add_(0.02 * parameter.std().nan_to_num() * noise)
    return build.Loaded(model, processor)


def common(folder: str, model: torch.nn.Module) -> dict[str, Any]:
    """Trainer settings of a single step that moves nothing."""
    return dict(output_dir=folder, use_cpu=model.device.type == "cpu", max_steps=1, learning_rate=1e-12, seed=0,
                report_to="none", disable_tqdm=True, save_strategy="no", bf16=False, tf32=None,
                remove_unused_columns=False, dataloader_pin_memory=False)  # fmt: skip


class Catch(TrainerCallback):
    """Keeps loss and gradients of a step."""

    def __init__(self) -> None:
        self.values: Values = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Copies of the gradients, before they are used."""
        named = model.named_parameters()
        self.values |= {f"gradient {n}": p.grad.detach().double().cpu() for n, p in named if p.grad is not None}


def one_step(trainer: Any, name: str) -> Values:
    """Loss and gradients of a trainer's first step."""
    catch, stock = Catch(), trainer.training_step

    def step(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = stock(*arguments, **options)
        catch.values["loss"] = loss.detach().double().cpu()
        return loss

    trainer.training_step = step
    trainer.add_callback(catch)
    trainer.train()
    return {f"{name} {quantity}": value for quantity, value in catch.values.items()}


def sft_step(stock: bool) -> Values:
    """SFT on the recorded completions, whatever they are worth."""
    _, boards, table = recorded()
    model, processor = nudged()
    prompts = [p for p in boards.prompted() for _ in range(len(table) // len(boards))]
    samples = rows.corpus_rows([rows.Sample(p, t, "sft") for p, t in zip(prompts, table["completion"], strict=True)])
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(per_device_train_batch_size=len(samples), max_length=None, **common(folder, model))
        kind, collator = (SFTTrainer, None) if stock else (trainers.StudySFTTrainer, trainers.PackedCollator(processor))
        more = {"processing_class": processor, "train_dataset": samples, "data_collator": collator}
        return one_step(kind(model=model, args=config, **more), "SFT")


def rft_step(stock: bool) -> Values:
    """GRPO's step on the recorded completions, with the study's rewards and its KL term to the base."""
    spec, boards, table = recorded()
    model, processor = nudged()
    size = len(table) // len(boards)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(per_device_train_batch_size=len(table), num_generations=size, beta=spec.beta,
                            max_completion_length=spec.max_completion_length, **common(folder, model))  # fmt: skip
        trainer = (GRPOTrainer if stock else trainers.StudyGRPOTrainer)(
            model=model,
            processing_class=processor,
            args=config,
            train_dataset=rows.board_rows(boards),
            reward_funcs=list(REWARDS),
            rollout_func=replayed(processor, boards, table["completion"].tolist()),
        )
        return one_step(trainer, "RFT")


def replayed(processor: Any, boards: Boards, texts: list[str]) -> Callable[[list, Any], dict[str, list]]:
    """A `rollout_func` that draws what was recorded: TRL asks for each board as often as its group is large."""
    pictures = score.patches(processor, list(boards.pixels))
    prompt, size = (
        score.prompt_ids(processor.tokenizer, boards.prompted()[0].text, pictures.grid),
        len(texts) // len(boards),
    )
    ids = [[*processor.tokenizer(text)["input_ids"], processor.tokenizer.eos_token_id] for text in texts]
    known = {Image.fromarray(p).tobytes(): ids[i * size : (i + 1) * size] for i, p in enumerate(boards.pixels)}

    def rollout(prompts: list, trainer: Any) -> dict[str, list]:
        """The recorded completions of each prompt's board, in turn."""
        turn: dict[bytes, int] = {}
        drawn = []
        for message in prompts:
            board = next(b["image"] for b in message[-1]["content"] if b["type"] == "image").tobytes()
            turn[board] = turn.get(board, -1) + 1
            drawn.append(known[board][turn[board] % size])
        return {
            "prompt_ids": [prompt] * len(drawn),
            "completion_ids": drawn,
            "logprobs": [[0.0] * len(d) for d in drawn],
        }

    return rollout


def logps(stock: bool) -> Values:
    """Log-probs of every token of the recorded completions under the nudged base."""
    _, boards, table = recorded()
    model, processor = nudged()
    texts = [list(part) for _, part in table.groupby("puzzle_id", sort=False)["completion"]]
    judge = score.stock_logps if stock else score.completion_logps
    found = [x for row in judge(model, processor, boards.prompted(), texts) for x in row]
    return {"log-probs": torch.cat(found).double().cpu()}


def all_values(stock: bool) -> Values:
    """Everything that is compared, from one device and one kind of passes."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return sft_step(stock) | rft_step(stock) | logps(stock)


def differences(comparison: str, ours: Values, theirs: Values) -> list[dict[str, Any]]:
    """A row per quantity (all gradients of an arm are one): largest difference over largest value, and the verdict."""
    table = []
    for name in ("SFT loss", "SFT gradient", "RFT loss", "RFT gradient", "log-probs"):
        keys = [key for key in theirs if key.startswith(name)]
        apart = max(float((ours[key] - theirs[key]).abs().max()) for key in keys)
        largest = max(float(theirs[key].abs().max()) for key in keys)
        row = {"comparison": comparison, "quantity": name, "values": sum(theirs[key].numel() for key in keys)}
        table.append(row | {"largest": largest, "difference": apart / largest, "holds": apart / largest <= BOUND})
    return table


def parity() -> pd.DataFrame:
    """Device against CPU, and packed against stock passes. Quantities as in `differences`."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "cpu.pt"
        hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([sys.executable, "-m", "tests.gpu.check", "--reference", str(file)], env=hidden, check=True)
        reference = torch.load(file, weights_only=True)
    packed, stock = all_values(False), all_values(True)
    return pd.DataFrame([*differences("this device against the CPU", packed, reference),
                         *differences("packed against stock TRL", packed, stock)])  # fmt: skip


# --- speed: Qwen2.5-VL-3B with random weights -------------------------------------------------------------


def configuration(tokenizer: Any, tiny: bool) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL-3B's widths and depths (as published with the model), or a few of each; the tokenizer's own ids."""
    ids = {f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in
           {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start",
            "vision_end": "vision_end"}.items()}  # fmt: skip
    text = dict(vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36,
                num_attention_heads=16, num_key_value_heads=2, max_position_embeddings=128000, rms_norm_eps=1e-6,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
                bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
                tie_word_embeddings=True)  # fmt: skip
    vision = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=2048, patch_size=14,
                  spatial_merge_size=2, temporal_patch_size=2, window_size=112,
                  fullatt_block_indexes=[7, 15, 23, 31])  # fmt: skip
    if tiny:
        text |= dict(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=1,
                     rope_parameters=text["rope_parameters"] | {"mrope_section": [2, 3, 3]})  # fmt: skip
        vision |= dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=32,
                       fullatt_block_indexes=[1])  # fmt: skip
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)


def make_model(folder: Path, tiny: bool) -> None:
    """Random weights of that configuration in bfloat16, with Qwen's image settings and the small tokenizer."""
    tokenizer = load_processor().tokenizer
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2_5_VLForConditionalGeneration(configuration(tokenizer, tiny)).to(torch.bfloat16)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2, size=pixels)
    processor = Qwen2_5_VLImageOnlyProcessor(image_processor=images, tokenizer=tokenizer,
                                             chat_template=tokenizer.chat_template)  # fmt: skip
    build.save(model, processor, folder)


class Clock(TrainerCallback):
    """Seconds of each step, with everything on the device done."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        """Start the clock."""
        self.begin = _now()

    def on_step_end(self, args, state, control, **kwargs):
        """Stop the clock."""
        self.seconds.append(_now() - self.begin)


def _count_tokens(trainer: Any) -> list[int]:
    """Completion tokens of every batch that a trainer learns from, as they come."""
    counted, stock_step, stock_inputs = [], trainer.training_step, trainer._prepare_inputs

    def step(model: Any, inputs: dict, *more: Any) -> torch.Tensor:
        if "labels" in inputs:
            counted.append(int((inputs["labels"] != -100).sum()))
        return stock_step(model, inputs, *more)

    def prepared(batch: Any) -> Any:
        ready = stock_inputs(batch)
        if "completion_mask" in ready:  # of RFT, which draws its completions here
            counted.append(int(ready["completion_mask"].sum()))
        return ready

    trainer.training_step, trainer._prepare_inputs = step, prepared
    return counted


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def steps_of(arm: str, folder: Path, fast: bool, tiny: bool) -> dict[str, Any]:
    """Two steps of an arm of the `gpu` profile, the first to warm up: the second's seconds, tokens and memory."""
    spec = next(s for s in specs(get_profile("gpu"), [arm]) if s.seed == 0)
    less = {"batch_size": 2, "group_size": 2, "max_completion_length": 24} if tiny else {}
    spec = replace(spec, base=str(folder), steps=2, **less)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as place:
        store, clock = RunStore(place), Clock()
        run = store.start(spec)
        trainer = make_trainer(prepare(spec, store, run, Settings(fast=fast, groups_at_once=1)))
        trainer.remove_callback(StudyCallback)  # neither evaluations nor checkpoints of 36 GB
        trainer.add_callback(clock)
        counted = _count_tokens(trainer)
        trainer.train()
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return {
        "arm": arm,
        "trainer": "this suite" if fast else "stock TRL",
        "seconds": clock.seconds[-1],
        "tokens per second": sum(counted) / 2 / clock.seconds[-1],
        "peak GiB": memory,
    }


def speed(tiny: bool, minutes: float) -> pd.DataFrame:
    """Both arms with both trainers; what no time was left for, or did not fit, has no numbers and says why."""
    begin, table = time.monotonic(), []
    with tempfile.TemporaryDirectory() as place:
        make_model(Path(place) / "model", tiny)
        for fast in (True, False):
            for arm in ("sft-answer", "rft"):
                try:
                    if time.monotonic() - begin > 60 * minutes:
                        raise TimeoutError("no time was left")
                    table.append(steps_of(arm, Path(place) / "model", fast, tiny) | {"trouble": ""})
                except (RuntimeError, TimeoutError, ValueError, TypeError) as error:
                    words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                    table.append({"arm": arm, "trainer": "this suite" if fast else "stock TRL", "trouble": words})
                print(table[-1], flush=True)
    return pd.DataFrame(table)


def machine() -> dict[str, str]:
    """What the tables were made on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    return {"machine": device} | {name: package_version(name) for name in ("torch", "transformers", "trl")}


def main() -> None:
    """Both parts, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/gpu"))
    parser.add_argument("--minutes", type=float, default=6.0, help="no step of the large model starts after that")
    parser.add_argument("--tiny", action="store_true", help="a tiny configuration instead of the 3B's")
    parser.add_argument("--only", choices=("parity", "speed"))
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        torch.save(all_values(False), options.reference)
        return
    if not options.tiny:
        build.require_gpu()
    parts = {"parity": parity, "speed": lambda: speed(options.tiny, options.minutes)}
    for name, make in parts.items():
        if options.only in (None, name):
            table = make().assign(**machine())
            print(table.to_string(), flush=True)
            write_file(options.out / f"{name}.csv", csv_text(table))


if __name__ == "__main__":
    main()
