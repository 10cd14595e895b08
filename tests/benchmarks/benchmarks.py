"""How fast the suite is beside the stock tools, measured in one run on one machine.

`python -m tests.benchmarks` measures every row of the table on the shipped base model: two sides do the same work,
in turn, and the medians over repeats are compared. `--only rft-step` measures one row, `--scaling` draws how the time
of an RFT step grows. Before a row is timed its two sides are compared, so that what is faster is also the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from helpers.errors import UserError
from helpers.files import package_version, write_file
from helpers.model import build, score
from helpers.model.generate import Sampling, generate
from helpers.model.processor import load_processor, share_work
from helpers.model.score import patches, prompt_ids
from helpers.show import marks, save, style
from helpers.show.style import Label, direct_labels
from helpers.stats.summary import csv_text
from helpers.study.profiles import get_profile
from helpers.train import corpora, rows, trainers
from helpers.verdicts.readme import put_between
from helpers.world import answers, battery, pictures, puzzles, seeds
from helpers.world.boards import Boards, Prompted, training_boards
from helpers.world.puzzles import PuzzleSpec
from helpers.world.scenes import puzzle_scene

COLUMNS = ("what", "ours", "stock", "ratio", "unit", "repeats", "machine")


RATE = 1e-12  # learning rate while timing: every step does its whole work and leaves the model as it was


SEED = seeds.BENCHMARK


ALLOCATOR = {  # large temporaries stay in the process; must stand before Python starts; both sides profit
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
}


Side = Callable[[], float]


@dataclass(frozen=True)
class Sides:
    """Two ways to do the same work: each call does it once and returns its value in the case's unit.

    `apart` says how far their results are from each other; `close` ends what the sides started.
    """

    ours: Side
    stock: Side
    apart: Callable[[], float] = lambda: 0.0
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Load:
    """How much work a row does: counts of prompts, completions, samples, boards; `steps` per timing of a trainer."""

    prompts: int = 8
    group: int = 8
    tokens: int = 32
    samples: int = 32
    battery: int = 40
    scored: int = 128
    boards: int = 512
    photos: int = 128
    matrix: int = 1024
    steps: int = 2
    repeats: int = 5


LOADS: Mapping[str, Load] = MappingProxyType(
    {
        "cpu": Load(),
        "smoke": Load(2, 4, 12, samples=4, battery=1, scored=4, boards=8, photos=4, matrix=64, steps=1, repeats=1),
    }
)


@dataclass(frozen=True)
class Case:
    """One row of the table.

    `prepare` loads what the sides need. `bar` is the least `judged` value ("ratio", or "ours" where the issue asks
    for a speed) that passes; None where a row is only reported. `tolerance`: how far results may be apart.
    """

    name: str
    what: str
    unit: str
    prepare: Callable[[Load], Sides] = field(repr=False)
    bar: float | None = None
    judged: str = "ratio"
    tolerance: float = 1e-5
    threads: str = "1 thread"

    @property
    def higher_is_better(self) -> bool:
        """Speeds are better high, times low."""
        return self.unit.endswith("/s")


@dataclass(frozen=True)
class Result:
    """What a case gave: medians of both sides in its unit, how far their results are apart, number of repeats."""

    case: Case
    ours: float
    stock: float
    apart: float
    repeats: int

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.ours / self.stock if self.case.higher_is_better else self.stock / self.ours

    @property
    def passed(self) -> bool | None:
        """Whether the bar is reached with results that are the same; None where there is no bar."""
        if self.case.bar is None:
            return None
        return getattr(self, self.case.judged) >= self.case.bar and self.apart <= self.case.tolerance

    def row(self) -> dict[str, Any]:
        """The row of the CSV."""
        values = (self.case.what, self.ours, self.stock, self.ratio, self.case.unit, self.repeats)
        return dict(zip(COLUMNS, (*values, machine(self.case.threads)), strict=True))


def measure(case: Case, load: Load) -> Result:
    """Both sides once to warm up and to compare their results, then in turn `load.repeats` times."""
    if load.repeats < 1:
        raise UserError(f"A median needs at least one repeat, not {load.repeats}: raise --repeats.")
    sides = case.prepare(load)
    try:
        apart = sides.apart()
        sides.ours(), sides.stock()
        pairs = [(sides.ours(), sides.stock()) for _ in range(load.repeats)]
    finally:
        sides.close()
    ours, stock = (statistics.median(values) for values in zip(*pairs, strict=True))
    return Result(case, ours, stock, apart, load.repeats)


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def machine(threads: str = "1 thread") -> str:
    """Processor, cores, threads and torch version; never a host's name."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    name = found.group(1).strip() if found else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {threads}, torch {package_version('torch')}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def table(results: Sequence[Result]) -> pd.DataFrame:
    """The results as the published table (columns `COLUMNS`)."""
    return pd.DataFrame([r.row() for r in results], columns=list(COLUMNS))


def text_table(results: Sequence[Result]) -> str:
    """The results for reading, in Markdown, with each bar and whether it is reached."""
    lines = ["| what | ours | stock | ratio | unit | bar | results apart | |", "|---|---|---|---|---|---|---|---|"]
    for r in results:
        bar = "–" if r.case.bar is None else f"{r.case.judged} ≥ {r.case.bar:g}"
        verdict = {True: "pass", False: "fail", None: "reported"}[r.passed]
        numbers = f"{_short(r.ours)} | {_short(r.stock)} | {_short(r.ratio)}"
        lines.append(f"| {r.case.what} | {numbers} | {r.case.unit} | {bar} | {r.apart:.1g} | {verdict} |")
    return "\n".join(lines)


README_MARKS = ("<!-- benchmarks -->", "<!-- /benchmarks -->")


def readme_table(rows: pd.DataFrame) -> str:
    """The published table for the README, in Markdown: a row per case with its bar and whether it was reached."""
    bars = {case.what: case for case in CASES}
    lines = ["| what | this suite | stock | ratio | unit | bar | reached |", "|---|---|---|---|---|---|---|"]
    for row in rows.itertuples():
        case = bars[row.what]
        bar = "–" if case.bar is None else f"{case.judged} ≥ {case.bar:g}".replace("ours", "this suite")
        reached = "–" if case.bar is None else "yes" if getattr(row, case.judged) >= case.bar else "**no**"
        numbers = f"{_short(row.ours)} | {_short(row.stock)} | {_short(row.ratio)}"
        lines.append(f"| {row.what} | {numbers} | {row.unit} | {bar} | {reached} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def boards_of(load: Load, size: int = 64) -> Boards:
    """Training boards enough for every prompt of a timing, 2 x 2 tiles, `size` pixels a side."""
    return training_boards(PuzzleSpec(size=size), load.steps * max(load.prompts, load.samples), SEED)


@dataclass(frozen=True)
class Setting:
    """What an RFT trainer is made for: a load, a KL weight, the boards' size, and where the model comes from."""

    load: Load
    beta: float = 0.0
    size: int = 64
    loader: Callable[[], tuple[Any, Any]] | None = field(default=None, repr=False)

    def load_model(self) -> tuple[Any, Any]:
        """A fresh (model, processor): the shipped base unless a loader says otherwise."""
        return self.loader() if self.loader else build.load()


def rft_trainer(setting: Setting, fast: bool, rollout: Any = None) -> Any:
    """A GRPO trainer on the puzzle with its three rewards: ours, or TRL's own with its best CPU settings.

    `rollout` replaces the drawing of completions (by default ours, or `model.generate` for the stock trainer);
    the rewards are then ones that vary, so that there is a gradient to compare.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental
    load, (model, processor) = setting.load, setting.load_model()
    if fast:
        processor = share_work(processor)
    own = trainers.group_rollouts(processor) if fast else None
    return _quiet((trainers.StudyGRPOTrainer if fast else GRPOTrainer)(
        model=model,
        processing_class=processor,
        args=GRPOConfig(
            per_device_train_batch_size=load.prompts * load.group, num_generations=load.group, beta=setting.beta,
            max_completion_length=load.tokens, temperature=1.0, log_completions=False, **_arguments(load),
        ),
        train_dataset=rows.board_rows(boards_of(load, setting.size)),
        reward_funcs=[varied_reward] if rollout else [answers.hit_reward, answers.exact_reward, answers.format_reward],
        rollout_func=rollout or own,
    ))  # fmt: skip


def varied_reward(completions: list, **_: Any) -> list[float]:
    """A reward from 0 to 6 that differs within nearly every group, however bad the completions are."""
    return [float(sum(map(ord, c[0]["content"])) % 7) for c in completions]


def sft_trainer(load: Load, fast: bool) -> Any:
    """An SFT trainer on true placements: ours with packed rows, or TRL's own with its collator for pictures."""
    model, processor = build.load()
    boards = boards_of(load)
    return _quiet((trainers.StudySFTTrainer if fast else SFTTrainer)(
        model=model,
        processing_class=processor,
        args=SFTConfig(per_device_train_batch_size=load.samples, max_length=None, **_arguments(load)),
        train_dataset=rows.corpus_rows(boards.corpus("sft-answer", corpora.answer_completions(boards))),
        data_collator=trainers.PackedCollator(processor) if fast else None,
    ))  # fmt: skip


def _arguments(load: Load) -> dict[str, Any]:
    """Trainer settings of both sides: fp32 on the CPU, nothing recomputed, nothing saved."""
    return dict(
        output_dir=os.path.join(tempfile.gettempdir(), "jigsaw-benchmark"),  # nothing is saved there
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=load.steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        seed=SEED,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _quiet(trainer: Any) -> Any:
    trainer.remove_callback(PrinterCallback)
    return trainer


def stepper(trainer: Any) -> Side:
    """Seconds per step of a trainer's own loop, from the first batch that is fetched to the last update."""
    clock: dict[str, float] = {}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock["begin"] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock["end"] = time.perf_counter()

    trainer.add_callback(Clock())

    def steps() -> float:
        train(trainer)
        return (clock["end"] - clock["begin"]) / trainer.args.max_steps

    return steps


def train(trainer: Any) -> None:
    """All steps of a trainer, from the same random state each time."""
    torch.manual_seed(SEED)
    trainer.train()


def losses_and_gradients(trainer: Any) -> tuple[list[float], dict[str, Any]]:
    """The loss of every step of a trainer, and the gradient of each parameter at the last one (before clipping)."""
    losses, found, stock = [], {}, trainer.training_step

    def step(model: Any, *args: Any, **options: Any) -> Any:
        loss = stock(model, *args, **options)
        losses.append(float(loss))
        found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        return loss

    trainer.training_step = step
    try:
        train(trainer)
    finally:
        del trainer.training_step
    return losses, found


def gradients_apart(first: Any, second: Any) -> float:
    """How far two trainers' losses and gradients are apart on the same batches, the largest of all.

    Losses: absolute. Gradients: the length of each parameter's difference over the whole gradient's length.
    """
    (ours, mine), (stock, theirs) = (losses_and_gradients(t) for t in (first, second))
    length = sum(float(g.square().sum()) for g in theirs.values()) ** 0.5
    if not length:
        raise UserError("The gradient is zero, so there is nothing to compare: raise the load's group or tokens.")
    parts = [float((mine[n] - g).norm()) / length for n, g in theirs.items()]
    return max([abs(a - b) for a, b in zip(ours, stock, strict=True)] + parts)


def rft_step(load: Load, beta: float = 0.0) -> Sides:
    """One GRPO step: rollouts, rewards, forward and backward pass, update."""
    setting = Setting(load, beta)

    def apart() -> float:
        """Both trainers are fed our rollouts, drawn from the same random state by the same weights."""
        once, rollout = replace(load, steps=1), trainers.group_rollouts(build.load()[1])
        nudged = Setting(once, beta, loader=nudged_model)
        return gradients_apart(*(rft_trainer(nudged, fast, rollout) for fast in (True, False)))

    return Sides(stepper(rft_trainer(setting, True)), stepper(rft_trainer(setting, False)), apart)


def nudged_model() -> tuple[Any, Any]:
    """(model, processor): the shipped base, its weights moved by a hundredth of their spread, the same each time.

    The reference model stays the shipped one, so that a KL term has a value and a gradient to compare; between equal
    models it has neither.
    """
    model, processor = build.load()
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight += 0.01 * weight.std() * torch.randn(weight.shape, generator=generator)
    return model, processor


def rft_step_with_kl(load: Load) -> Sides:
    """The same with the KL term of the study's `rft` arm."""
    return rft_step(load, get_profile("cpu").budget("rft").beta)


def sft_step(load: Load) -> Sides:
    """One SFT step on bare answers: collation, forward and backward pass, update."""

    def apart() -> float:
        return gradients_apart(*(sft_trainer(replace(load, steps=1), fast) for fast in (True, False)))

    return Sides(stepper(sft_trainer(load, True)), stepper(sft_trainer(load, False)), apart)


def stock_inputs(processor: Any, prompts: Sequence[Any], completions: Sequence[str] = ("",)) -> dict[str, Any]:
    """What the stock processor makes of prompts (`scoring.Prompted`) with a completion each behind them."""
    texts = [[{"type": "image"}, {"type": "text", "text": p.text}] for p in prompts]
    asked = [
        processor.apply_chat_template([{"role": "user", "content": t}], add_generation_prompt=True, tokenize=False)
        for t in texts
    ]
    written = [a + c for a, c in zip(asked, [*completions] * (len(asked) // len(completions)), strict=True)]
    images = [[Image.fromarray(p.pixels)] for p in prompts]
    return dict(processor(text=written, images=images, padding=True, return_tensors="pt"))


def stock_generate(model: Any, tokenizer: Any, inputs: Mapping[str, Any], **how: Any) -> list[list[int]]:
    """`model.generate` with the special tokens suppressed as ours are: token ids up to the end token."""
    end = tokenizer.eos_token_id
    banned = [i for i in tokenizer.all_special_ids if i != end]
    with torch.no_grad():
        found = model.generate(
            **inputs, **how, suppress_tokens=banned, eos_token_id=end, pad_token_id=tokenizer.pad_token_id
        )
    rows = found[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def rollouts_alone(load: Load) -> Sides:
    """Sampling at T = 1; both sides are given tokens and patches, ours each prompt once, stock once per completion."""
    model, processor = build.load()
    boards = boards_of(load)
    prompts = boards.prompted()[: load.prompts]
    pictures = patches(processor, [p.pixels for p in prompts])
    ids = [prompt_ids(processor.tokenizer, p.text, pictures.grid) for p in prompts]
    asked = (model, processor.tokenizer, ids, pictures)
    inputs = stock_inputs(processor, [p for p in prompts for _ in range(load.group)])
    free = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=load.tokens)

    def ours() -> float:
        return _speed(lambda: sum(len(r.ids) for row in generate(*asked, Sampling(load.group, 1.0, load.tokens))
                                  for r in row))  # fmt: skip

    def stock() -> float:
        return _speed(lambda: sum(map(len, stock_generate(model, processor.tokenizer, inputs, **free))))

    def apart() -> float:
        """Share of prompts whose greedy completions differ, or the largest difference of a sampled log-prob (nats)."""
        greedy = [list(row[0].ids) for row in generate(*asked, Sampling(1, 0.0, load.tokens))]
        once = stock_inputs(processor, prompts)
        theirs = stock_generate(model, processor.tokenizer, once, do_sample=False, max_new_tokens=load.tokens)
        unequal = statistics.fmean(a != b for a, b in zip(greedy, theirs, strict=True))
        drawn = [r for row in generate(*asked, Sampling(load.group, 1.0, load.tokens, SEED)) for r in row]
        return max(unequal, *_logps_apart(model, inputs, drawn))

    return Sides(ours, stock, apart)


def _logps_apart(model: Any, inputs: Mapping[str, Any], drawn: Sequence[Any]) -> list[float]:
    """How far each rollout's log-probs are from those of one stock forward pass over `inputs` and its tokens (nats)."""
    found = []
    width = inputs["input_ids"].shape[1]
    for k, rollout in enumerate(drawn):
        ids = torch.tensor([rollout.ids])
        row = {name: inputs[name][k : k + 1] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
        row = {n: torch.cat((v, torch.full_like(ids, n == "attention_mask")), 1) for n, v in row.items()}
        row["input_ids"][:, width:] = ids
        patches = inputs["image_grid_thw"].prod(1).tolist()
        row["pixel_values"] = inputs["pixel_values"].split(patches)[k]
        with torch.no_grad():
            logits = model(**row, image_grid_thw=inputs["image_grid_thw"][k : k + 1]).logits[0, width - 1 : -1]
        logps = torch.log_softmax(logits, -1).gather(1, ids[0][:, None])[:, 0]
        found.append(float((logps - torch.tensor(rollout.logps)).abs().max()))
    return found


def _speed(work: Callable[[], float]) -> float:
    """What a piece of work counted, per second."""
    begin = time.perf_counter()
    amount = work()
    return amount / (time.perf_counter() - begin)


def battery_by_generation(load: Load) -> Sides:
    """Greedy answers to the whole prior battery: all tasks together, or `model.generate` task by task.

    Ours is how `score_battery` finds them: one pass tells which gold answers are the greedy ones, the rest is decoded.
    So its speed depends on how much the model knows, here the base; `battery_decoded` has every answer decoded.
    """
    return _battery(load, checked=True)


def battery_decoded(load: Load) -> Sides:
    """The same with every answer decoded, which is what is left for a model that knows nothing."""
    return _battery(load, checked=False)


def _battery(load: Load, checked: bool) -> Sides:
    """Seconds for the answers to all tasks; `checked`: gold answers are looked at before anything is decoded."""
    model, processor = build.load()
    tasks = {t: battery.battery_samples(t, load.battery) for t in battery.battery_tasks()}
    asked = {t: [Prompted(s.pixels, s.question.text) for s in found] for t, found in tasks.items()}
    flat = [p for prompts in asked.values() for p in prompts]
    gold = [s.question.completion for found in tasks.values() for s in found]
    order = sorted(range(len(flat)), key=lambda i: len(flat[i].text))  # as `score_battery` does
    answers: dict[str, list[str]] = {}

    def together() -> None:
        """All tasks at once, shortest questions first."""
        prompts = [flat[i] for i in order]
        if checked:
            texts = score.greedy_texts(model, processor, prompts, [gold[i] for i in order])
        else:
            texts = [text for (text,) in score.complete(model, processor, prompts)]
        answers["ours"] = [t for _, t in sorted(zip(order, texts, strict=True))]

    def task_by_task() -> None:
        answers["stock"] = []
        for prompts in asked.values():
            inputs = stock_inputs(processor, prompts)
            ids = stock_generate(model, processor.tokenizer, inputs, do_sample=False, max_new_tokens=128)
            answers["stock"] += [score.text_of(processor.tokenizer, i) for i in ids]

    def apart() -> float:
        """Share of samples whose answers differ."""
        together(), task_by_task()
        return statistics.fmean(a != b for a, b in zip(answers["ours"], answers["stock"], strict=True))

    return Sides(lambda: seconds(together), lambda: seconds(task_by_task), apart)


def scoring_groups(load: Load, group: int = 4) -> Sides:
    """Log-probs of `load.scored` completions, `group` per picture (as the battery's likelihood scores them)."""
    model, processor = build.load()
    boards = boards_of(replace(load, steps=1, samples=load.scored))
    prompts = boards.prompted()[: load.scored // group]
    texts = score.complete(model, processor, prompts, Sampling(group, 1.0, load.tokens, SEED))
    found: dict[str, list[torch.Tensor]] = {}

    def packed() -> None:
        found["ours"] = [x for row in score.completion_logps(model, processor, prompts, texts) for x in row]

    def one_by_one() -> None:
        pairs = [(p, t) for p, row in zip(prompts, texts, strict=True) for t in row]
        found["stock"] = [stock_logps(model, processor, p, t) for p, t in pairs]

    def apart() -> float:
        packed(), one_by_one()
        return max(float((a - b).abs().max()) for a, b in zip(found["ours"], found["stock"], strict=True))

    amount = len(prompts) * group
    return Sides(lambda: amount / seconds(packed), lambda: amount / seconds(one_by_one), apart)


def scoring_singles(load: Load) -> Sides:
    """The same with one completion per picture: only the batch is shared."""
    return scoring_groups(load, 1)


def scoring_rollouts(load: Load) -> Sides:
    """The same with a whole RFT group per picture, `load.group` completions."""
    return scoring_groups(load, load.group)


def stock_logps(model: Any, processor: Any, prompt: Any, completion: str) -> Any:
    """Log-probs (nats) of a completion's tokens and its end token, by one stock forward pass for this sample."""
    inputs = stock_inputs(processor, [prompt], [f"{completion}<|im_end|>"])
    ids = inputs["input_ids"][0]
    own = len(processor.tokenizer(f"{completion}<|im_end|>", add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logps = torch.log_softmax(model(**inputs).logits[0, -own - 1 : -1], -1)
    return logps.gather(1, ids[-own:, None])[:, 0]


def drawing_boards(load: Load) -> Sides:
    """Shuffle, cut and draw 2 x 2 boards of 64 x 64 pixels, from pictures in memory."""
    spec = puzzles.PuzzleSpec()
    few = [puzzle_scene(SEED, i).pixels for i in range(min(load.boards, 32))]
    pictures = np.stack([few[i % len(few)] for i in range(load.boards)])
    images = [Image.fromarray(p) for p in pictures]
    numbers = range(load.boards)

    def batched() -> np.ndarray:
        return puzzles.draw_boards(pictures, spec, np.array([puzzles.shuffle(spec, i) for i in numbers]))

    def loop() -> list[np.ndarray]:
        return [np.asarray(puzzles.make_board(images[i], spec, puzzles.shuffle(spec, i))) for i in numbers]

    return _drawn(batched, loop, load.boards)


def random_crops(image: Image.Image, size: int, n: int) -> list[Image.Image]:
    """Random square crops between half the shorter side and all of it, resized to `size` x `size` pixels."""
    rng, short, found = np.random.default_rng(SEED), min(image.size), []
    for side in rng.integers(min(short, max(size, short // 2)), short + 1, size=n):
        left, top = rng.integers(image.width - side + 1), rng.integers(image.height - side + 1)
        found.append(pictures.centred(image.crop((left, top, left + side, top + side)), (size, size)))
    return found


def drawing_photos(load: Load) -> Sides:
    """Random crops of packaged photographs, resized to 96 x 96 pixels, shuffled and drawn as 3 x 3 boards."""
    spec, photos = puzzles.PuzzleSpec(rows=3, cols=3, size=96), pictures.packaged_photos()
    each = -(-load.photos // len(photos))
    numbers = range(each * len(photos))

    def cropped() -> list[Any]:
        return [crop for photo in photos for crop in random_crops(photo.image, spec.size, each)]

    def batched() -> np.ndarray:
        placements = np.array([puzzles.shuffle(spec, i) for i in numbers])
        return puzzles.draw_boards(np.stack([np.asarray(image) for image in cropped()]), spec, placements)

    def loop() -> list[np.ndarray]:
        pairs = enumerate(cropped())
        return [np.asarray(puzzles.make_board(image, spec, puzzles.shuffle(spec, i))) for i, image in pairs]

    return _drawn(batched, loop, len(numbers))


def _drawn(batched: Callable[[], Any], loop: Callable[[], Any], amount: int) -> Sides:
    """Boards a second of both ways; apart: the share of boards that differ in any pixel."""

    def apart() -> float:
        return statistics.fmean((a != b).any() for a, b in zip(batched(), loop(), strict=True))

    return Sides(lambda: amount / seconds(batched), lambda: amount / seconds(loop), apart)


def rft_peak(load: Load) -> Sides:
    """GFLOP/s of an RFT step."""
    return _share_of_peak(rft_trainer(Setting(load), True), load.matrix)


def sft_peak(load: Load) -> Sides:
    """GFLOP/s of an SFT step."""
    return _share_of_peak(sft_trainer(load, True), load.matrix)


def _share_of_peak(trainer: Any, side: int) -> Sides:
    """GFLOP/s of a trainer's steps (matrix products and attention only) beside those of a plain square product."""
    work = count_flops(lambda: train(trainer)) / trainer.args.max_steps
    first, second = (torch.randn(side, side) for _ in range(2))
    once = stepper(trainer)

    def product() -> float:
        return 10 * 2 * side**3 / seconds(lambda: [first @ second for _ in range(10)]) / 1e9

    return Sides(lambda: work / once() / 1e9, product)


def count_flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products, convolutions and attention in one call.

    torch's counter lacks the CPU's attention kernel, so its own formulas for the GPU's are passed for it.
    """
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda *a, **_: sdpa_flop_count(*a[:3]),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *a, **_: sdpa_backward_flop_count(*a[:4]),
    }
    counter = FlopCounterMode(display=False, custom_mapping=attention)
    counter.mod_tracker = _NoModules()
    with counter:
        work()
    return counter.get_total_flops()


class _NoModules:
    """Stands in for the counter's module hooks, which fail where a module is given a weight in inference mode."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass


class Worker:
    """A process of its own that takes RFT steps with a number of threads whenever it is told to."""

    def __init__(self, threads: int, profile: str) -> None:
        environment = os.environ | ALLOCATOR | {"OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "tests.benchmarks", "--worker", str(threads), "--profile", profile]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def go(self) -> None:
        """Start the steps."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def wait(self) -> None:
        """Wait until the worker has done what it was told. Raises UserError where it has stopped instead."""
        if self.process.stdout.readline().strip() != "done":
            raise UserError("A benchmark process stopped early: run `python -m tests.benchmarks --only rft-step`.")

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()


def side_by_side(load: Load) -> Sides:
    """Two runs at a time with one thread each, or one after the other with two: RFT steps a second of both."""
    profile = next((name for name, other in LOADS.items() if replace(other, repeats=load.repeats) == load), None)
    if profile is None:
        raise UserError(f"Two runs side by side need one of the loads {', '.join(LOADS)}, as their processes read it.")
    single, double = [Worker(1, profile) for _ in range(2)], Worker(2, profile)
    for worker in (*single, double):
        worker.wait()  # set up, warmed up

    def together() -> None:
        for worker in single:
            worker.go()
        for worker in single:
            worker.wait()

    def one_after_the_other() -> None:
        for _ in single:
            double.go()
            double.wait()

    def close() -> None:
        for worker in (*single, double):
            worker.close()

    amount = len(single) * load.steps
    return Sides(lambda: amount / seconds(together), lambda: amount / seconds(one_after_the_other), close=close)


def work_for_parent(threads: int, load: Load) -> None:
    """A worker's life: set up, say so, then take steps for each line that comes in."""
    settle(threads)
    steps = stepper(rft_trainer(Setting(load), True))
    steps()
    print("done", flush=True)
    for _ in sys.stdin:
        steps()
        print("done", flush=True)


CASES: tuple[Case, ...] = (
    Case("rft-step", "RFT step, 64 completions (8 prompts x 8), beta 0", "s", rft_step, bar=4.0),
    Case("rft-step-kl", "RFT step, 64 completions (8 prompts x 8), KL term", "s", rft_step_with_kl, bar=4.0),
    Case("rollouts", "rollouts alone, 8 prompts x 8", "tokens/s", rollouts_alone, bar=4.0),
    Case("sft-step", "SFT step, 32 samples", "s", sft_step, bar=1.8),
    Case("battery", "prior battery by generation, 11 tasks x 40", "s", battery_by_generation, bar=4.0, tolerance=0.0),
    Case("battery-decoded", "the same, every answer decoded", "s", battery_decoded, tolerance=0.0),
    Case("scoring-rollouts", "log-prob scoring, 8 completions per picture", "samples/s", scoring_rollouts, bar=8.0),
    Case("scoring", "log-prob scoring, 4 completions per picture", "samples/s", scoring_groups, bar=8.0),
    Case("scoring-singles", "log-prob scoring, 1 completion per picture", "samples/s", scoring_singles, bar=8.0),
    Case("side-by-side", "two runs side by side, 1 thread each (stock: in turn, 2 threads)", "steps/s", side_by_side,
         bar=1.6, threads="1 or 2 threads"),
    Case("boards", "drawing puzzles, 2 x 2, 64 x 64 pixels", "boards/s", drawing_boards, bar=2000.0, judged="ours",
         tolerance=0.0),
    Case("photos", "drawing photographs, 3 x 3, 96 x 96 pixels", "boards/s", drawing_photos, bar=500.0, judged="ours",
         tolerance=0.0),
    Case("rft-peak", "matrix work in an RFT step (stock: plain 1024^3 product)", "GFLOP/s", rft_peak),
    Case("sft-peak", "matrix work in an SFT step (stock: plain 1024^3 product)", "GFLOP/s", sft_peak),
)  # fmt: skip


SCALING: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "group size": (2, 4, 8, 16),
        "completion length": (8, 16, 32, 64),
        "picture size": (32, 64, 96, 128),
        "model width": (64, 128, 192, 256),
    }
)


UNITS = {"group size": "completions per prompt", "completion length": "tokens", "picture size": "pixels a side",
         "model width": "text width"}  # fmt: skip


SIDE_LOOK = {"this suite": ("#0072B2", "s", "-"), "TRL alone": ("#A84300", "^", "--")}


def scaling_setting(axis: str, value: int, load: Load) -> Setting:
    """An RFT step that differs from the usual one (8 x 8 completions of 16 tokens, 64 pixels) in one respect.

    The model has fresh weights: it hardly ever ends a completion, so all of them have the full length.
    """
    load = replace(load, tokens=min(load.tokens, 16), steps=1)
    if axis == "group size":
        load = replace(load, group=value)
    if axis == "completion length":
        load = replace(load, tokens=value)
    width = value if axis == "model width" else 128
    return Setting(load, size=value if axis == "picture size" else 64, loader=lambda: fresh_model(width))


def fresh_model(width: int) -> tuple[Any, Any]:
    """(model, processor) of a width, with the shipped model's proportions and tokenizer and random weights."""
    processor = load_processor()
    half, vision = width // 8, width * 3 // 4
    time_part = half // 4
    size = build.ModelSize(
        text_width=width, text_mlp=3 * width, vision_width=vision, vision_mlp=vision * 8 // 3,
        mrope=(time_part, (half - time_part) // 2, half - time_part - (half - time_part) // 2),
    )  # fmt: skip
    return build.build_model(processor.tokenizer, size, seed=SEED), processor


def scaling_rows(load: Load, axes: Mapping[str, Sequence[int]] = SCALING) -> pd.DataFrame:
    """Seconds per RFT step of both sides along each axis: columns axis, value, side, seconds, repeats."""
    rows = []
    for axis, values in axes.items():
        for value in values:
            setting = scaling_setting(axis, value, load)
            case = Case("scaling", f"{axis} {value}", "s", lambda _, s=setting: _both_trainers(s))
            found = measure(case, load)
            print(f"{axis} {value}: {found.ours:.3g} s, stock {found.stock:.3g} s", flush=True)
            for side, taken in zip(SIDE_LOOK, (found.ours, found.stock), strict=True):
                rows.append((axis, value, side, taken, found.repeats))
    return pd.DataFrame(rows, columns=["axis", "value", "side", "seconds", "repeats"])


def _both_trainers(setting: Setting) -> Sides:
    return Sides(*(stepper(rft_trainer(setting, fast)) for fast in (True, False)))


def scaling_figure(rows: pd.DataFrame) -> Figure:
    """Seconds per RFT step, a panel per axis and a line per side; drawn columns as in `scaling_rows`."""
    with style.use_style():
        fig = style.new_figure(8.0, 5.6)
        axes = list(rows["axis"].unique())
        top = None
        for place, axis in enumerate(axes, start=1):
            ax = top = fig.add_subplot(-(-len(axes) // 2), min(2, len(axes)), place, sharey=top)
            ax.set_ylim(0, 1.06 * rows["seconds"].max())  # before lines are named at their ends
            _scaling_panel(ax, rows[rows["axis"] == axis])
        counts = rows["repeats"].max()
        style.add_note(fig, f"8 prompts, 8 completions of 16 tokens each, 64 pixels unless named; median of {counts}")
        return marks.record(fig, rows)


def _scaling_panel(ax: Any, rows: pd.DataFrame) -> None:
    """Both sides along one axis, named at their ends."""
    labels, axis = [], rows["axis"].iloc[0]
    for side, (colour, marker, dash) in SIDE_LOOK.items():
        line = rows[rows["side"] == side]
        ax.plot(line["value"], line["seconds"], color=colour, marker=marker, linestyle=dash)
        labels.append(Label(float(line["value"].iloc[-1]), float(line["seconds"].iloc[-1]), side, colour))
    ax.set(title=axis, xlabel=UNITS.get(axis, axis), ylabel="seconds per step")
    ax.set_xticks(sorted(rows["value"].unique()))
    direct_labels(ax, labels)


def save_scaling(rows: pd.DataFrame, folder: str | Path) -> Any:
    """Draw and save figure `scaling`."""
    ends = [
        f"{axis} {part['value'].max()}: {_times(part):.1f} times" for axis, part in rows.groupby("axis", sort=False)
    ]
    alt = (
        "Seconds per RFT step against group size, completion length, picture size and model width, a line for this "
        f"suite and one for TRL alone. At the right ends this suite is faster: {'; '.join(ends)}."
    )
    return save.savefig(scaling_figure(rows), "scaling", alt=alt, folder=folder)


def _times(part: pd.DataFrame) -> float:
    """How many times faster ours is at the largest value."""
    last = part[part["value"] == part["value"].max()].set_index("side")["seconds"]
    ours, stock = (last[side] for side in SIDE_LOOK)
    return float(stock / ours)


def settle(threads: int = 1) -> None:
    """The settings that every side runs under: threads, denormals flushed, no chatter."""
    torch.set_num_threads(threads)
    build.quiet_cpu()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def run(cases: Iterable[Case], load: Load) -> list[Result]:
    """Measure cases one after the other, saying each result as it comes."""
    results = []
    for case in cases:
        results.append(measure(case, load))
        print(text_table(results[-1:]).splitlines()[-1], flush=True)
    return results


def choose(names: Sequence[str]) -> list[Case]:
    """The cases of these names, in the table's order; all where none is named. UserError for an unknown name."""
    known = [case.name for case in CASES]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise UserError(f"There is no row {', '.join(unknown)}: choose from {', '.join(known)}.")
    return [case for case in CASES if not names or case.name in names]


def write_readme(readme: Path, folder: Path) -> None:
    """Put the published table between the README's marks."""
    content = readme_table(pd.read_csv(folder / "benchmarks.csv"))
    write_file(readme, put_between(readme.read_text(encoding="utf-8"), README_MARKS, content))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="rows to measure (default: all)")
    parser.add_argument("--repeats", type=int, help="timings of each side (default: 5; 1 at smoke)")
    parser.add_argument("--profile", default="cpu", choices=tuple(LOADS))
    parser.add_argument("--scaling", action="store_true", help="measure and draw how a step's time grows")
    parser.add_argument("--folder", type=Path, help="where the results are written (default: figures, at cpu)")
    parser.add_argument("--readme", action="store_true", help="write README.md's table anew from the results, no more")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line. The table is published only where every row was measured at `cpu`, or a folder is named."""
    options = _parser().parse_args(arguments)
    if options.readme:
        return write_readme(Path("README.md"), options.folder or Path("figures"))
    load = LOADS[options.profile]
    load = load if options.repeats is None else replace(load, repeats=options.repeats)
    if options.worker:
        return work_for_parent(options.worker, load)
    cases = choose(options.only)
    settle()
    folder = options.folder or (Path("figures") if options.profile == "cpu" else None)
    if options.scaling:
        rows = scaling_rows(load)
        return print(save_scaling(rows, folder).path) if folder else print(rows.to_string(index=False))
    results = run(cases, load)
    print(f"\n{machine()}; medians of {load.repeats}\n\n{text_table(results)}")
    if options.folder or (folder and not options.only):
        write_file(folder / "benchmarks.csv", csv_text(table(results)))
