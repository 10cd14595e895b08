"""SFT and RFT through TRL: `SFTTrainer` and `GRPOTrainer`, extended at their hooks.

Differences from TRL's stock behaviour, all tested for equality:
 1. a full fine-tune resumes with its weights (stock resumes without them for this architecture);
 2. completions are drawn by `helpers.rollouts` (the official `rollout_func` hook);
 3. forward passes are packed: each picture and prompt once per group (`compute_loss` of SFT, one private method
    of GRPO). `Settings.fast=False` switches 2 and 3 off.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import puzzles
from helpers.errors import UserError
from helpers.profiles import SFT_ARMS, RunSpec, checkpoint_steps

if TYPE_CHECKING:
    import torch

    from helpers.corpora import Boards
    from helpers.records import Run, RunStore

CORPUS_BOARDS = 2048
DECAY_SHARE = 0.25  # of all steps: the last quarter


@dataclass(frozen=True)
class Settings:
    """How a run is evaluated and executed; nothing here changes what it learns.

    `puzzle_tests` held-out boards and `battery` samples per prior task at each checkpoint; `final_tests` and
    `final_battery` at the last one and for the base model. `fast` packs forward passes and shares prefixes.
    """

    puzzle_tests: int = 250
    final_tests: int = 500
    battery: int = 20
    final_battery: int = 200
    fast: bool = True
    per_octave: int = 2


@dataclass
class Engine:
    """What one run works with."""

    spec: RunSpec
    settings: Settings
    model: Any
    processor: Any
    run: Run
    boards: Boards = field(repr=False)
    completions: list[str | None] | None = field(default=None, repr=False)


def puzzle_spec(spec: RunSpec) -> puzzles.PuzzleSpec:
    """The puzzles of a run."""
    return puzzles.PuzzleSpec(rows=spec.rows, cols=spec.cols, size=spec.size)


def evaluate(engine: Engine, step: int, full: bool) -> list[dict[str, Any]]:
    """Rows of the evaluations table for the model as it is: the puzzle, then every prior task."""
    from helpers import scoring

    spec, settings = engine.spec, engine.settings
    engine.model.eval()
    boards, n = (settings.final_tests, settings.final_battery) if full else (settings.puzzle_tests, settings.battery)
    tests = scoring.test_boards(puzzle_spec(spec), boards)
    found = [("puzzle", k, v, boards) for k, v in scoring.score_puzzles(engine.model, engine.processor, tests).items()]
    for task, result in scoring.score_battery(engine.model, engine.processor, n).items():
        found += [(task, measure, value, n) for measure, value in result.items()]
    engine.model.train()
    common = _identity(spec, step)
    return [common | {"task": t, "measure": m, "value": v, "n": c} for t, m, v, c in found]


def _identity(spec: RunSpec, step: int) -> dict[str, Any]:
    """The columns that say which run and step a row belongs to; `samples` counts boards seen."""
    return {"run": spec.name, "arm": spec.arm, "seed": spec.seed, "step": step, "samples": step * spec.batch_size}


def update_norm(model: Any, base: dict[str, torch.Tensor]) -> float:
    """L2 norm of the change of all weights since the base model; with LoRA that of the products B A it adds."""
    lora = [m.get_delta_weight(name) for m in model.modules() if hasattr(m, "lora_A") for name in m.lora_A]
    parameters = {n: p.detach() for n, p in model.named_parameters() if n in base and "lora_" not in n}
    squares = [((p - base[n]) ** 2).sum() for n, p in parameters.items()] + [(d.detach() ** 2).sum() for d in lora]
    return float(sum(squares)) ** 0.5


def load_weights(model: Any, folder: str) -> None:
    """Load a checkpoint's weights into a model. Raises UserError where they are another model's.

    Stock `_load_from_checkpoint` reads hub key names raw and loads nothing (transformers issue 43701).
    """
    import torch

    stored = type(model).from_pretrained(folder, dtype=torch.float32).state_dict()
    missing, unexpected = model.load_state_dict(stored, strict=False)
    if unexpected or any("lm_head" not in key for key in missing):
        raise UserError(f"{folder} does not hold this model; remove it to start the run anew.")


@lru_cache(maxsize=1)
def _resuming() -> type:
    """A mix-in for TRL's trainers that resumes a full fine-tune with its weights."""

    class ResumeWeights:
        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if os.path.exists(os.path.join(resume_from_checkpoint, "adapter_config.json")):
                return super()._load_from_checkpoint(resume_from_checkpoint, model)
            load_weights(model or self.model, resume_from_checkpoint)

    return ResumeWeights


@lru_cache(maxsize=1)
def sft_trainer_class() -> type:
    """TRL's `SFTTrainer` with packed forward passes where the collator made them (made on first use: cheap import)."""
    import torch
    from trl import SFTTrainer

    class StudySFTTrainer(_resuming(), SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """TRL's loss: the mean cross-entropy of the completion tokens; logs their accuracy as TRL does."""
            if "packed" not in inputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            from helpers.packing import scored_logits

            packed = inputs["packed"]
            logits = scored_logits(model, packed, inputs["patches"]).float()
            target = packed.target.to(logits.device)
            losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
            tokens = len(losses) if num_items_in_batch is None else num_items_in_batch
            hits = (logits.detach().argmax(-1) == target).float().mean()
            self._metrics["train"]["mean_token_accuracy"].append(float(hits))
            return losses.sum() / tokens

    return StudySFTTrainer


@lru_cache(maxsize=1)
def rft_trainer_class() -> type:
    """TRL's `GRPOTrainer` whose log-probs come from packed rows.

    The private method is the one place where TRL computes them, for policy, old policy and reference alike;
    overriding it keeps every loss type and option. A test compares it with the stock method.
    """
    from trl import GRPOTrainer

    class StudyGRPOTrainer(_resuming(), GRPOTrainer):
        fast = True

        def _get_per_token_logps_and_entropies(
            self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **extra
        ):
            if not self.fast or extra.get("pixel_values") is None or extra.get("compute_aux_loss"):
                return super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **extra
                )
            extra |= {"temperature": self.temperature}
            return packed_logps(model, (input_ids, attention_mask, logits_to_keep), extra)

    return StudyGRPOTrainer


def packed_logps(model: Any, tokens: tuple, extra: dict[str, Any]) -> tuple:
    """Per-token log-probs and entropies, each (B, C), of completions (padded right) behind prompts (padded left).

    `tokens` = (input ids (B, P + C), attention mask, C); `extra` holds TRL's `pixel_values` and `image_grid_thw`,
    the sampling `temperature` (TRL divides the logits by it).
    Samples with the same prompt and picture share one packed row. Third value: no auxiliary loss.
    """
    import torch

    from helpers.packing import Branch, Group, Patches, pack, scored_logits

    input_ids, mask, width = tokens
    _, rows, columns = extra["image_grid_thw"][0].tolist()
    values = extra["pixel_values"].reshape(len(input_ids), rows * columns, -1)
    keys, members = _shared_prompts(input_ids[:, :-width], mask[:, :-width], values)
    lengths = mask[:, -width:].sum(1).tolist()
    groups, order = [], []
    for row, (prompt, samples) in enumerate(zip(keys, members, strict=True)):
        branches = [Branch(input_ids[i, -width:][: lengths[i]].tolist()) for i in samples]
        groups.append(Group(prompt, row, branches))
        order += samples
    patches = Patches(values[[m[0] for m in members]], rows, columns, _merge(model))
    packed = pack(groups, _image_id(model), patches.grid)
    logits = scored_logits(model, packed, patches).float()
    logps = torch.log_softmax(logits if extra["temperature"] == 1 else logits / extra["temperature"], -1)
    entropy = -(logps.exp() * logps).sum(-1)
    chosen = logps.gather(1, packed.target[:, None].to(logps.device))[:, 0]
    place = tuple(p.to(logps.device) for p in _places(packed.branch, torch.tensor(order)))
    empty = torch.zeros(len(input_ids), width, device=logps.device)
    return empty.index_put(place, chosen), empty.index_put(place, entropy), None


def _image_id(model: Any) -> int:
    from helpers.packing import base_of

    return base_of(model).config.image_token_id


def _merge(model: Any) -> int:
    from helpers.packing import base_of

    return base_of(model).config.vision_config.spatial_merge_size


def _places(branch: torch.Tensor, order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(sample, position in its completion) of each scored token."""
    import torch

    counts = torch.bincount(branch, minlength=len(order))
    starts = counts.cumsum(0) - counts
    return order[branch], torch.arange(len(branch)) - starts[branch]


def _shared_prompts(prompts: torch.Tensor, mask: torch.Tensor, values: torch.Tensor) -> tuple[list, list]:
    """Unique (prompt, picture) pairs: their prompt ids without padding, and the samples that share each."""
    found: dict[tuple, tuple[list[int], list[int]]] = {}
    for i in range(len(prompts)):
        ids = prompts[i][mask[i].bool()].tolist()
        key = (tuple(ids), values[i].float().cpu().numpy().tobytes())
        found.setdefault(key, (ids, []))[1].append(i)
    return [ids for ids, _ in found.values()], [members for _, members in found.values()]


class PackedCollator:
    """Collates SFT rows into packed rows: picture, prompt, completion (its end token and line break are trained)."""

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import numpy as np

        from helpers.models import encode_targets
        from helpers.packing import Branch, Group, pack
        from helpers.scoring import patches, prompt_ids

        pictures = patches(self.processor, [np.asarray(e["images"][0]) for e in examples])
        targets = encode_targets(self.tokenizer, [e["completion"][0]["content"] for e in examples])
        groups = []
        for row, (example, target) in enumerate(zip(examples, targets, strict=True)):
            prompt = prompt_ids(self.tokenizer, example["prompt"][0]["content"], pictures.grid)
            groups.append(Group(prompt, row, [Branch(target)]))
        image_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        packed = pack(groups, image_id, pictures.grid)
        return {"packed": packed, "patches": pictures, "labels": packed.target}  # labels: TRL counts tokens


def group_rollouts(processor: Any) -> Callable[[list, Any], dict[str, list]]:
    """TRL's `rollout_func`: prompts arrive repeated once per completion; each unique one is encoded once."""

    def rollout(prompts: list, trainer: Any) -> dict[str, list]:
        """Completions of all prompts, with ids and log-probs as TRL wants them."""
        import numpy as np
        import torch

        from helpers.rollouts import Sampling, generate
        from helpers.scoring import patches, prompt_ids

        size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        unique = [_content(p) for p in prompts[::size]]
        pictures = patches(processor, [np.asarray(image) for image, _ in unique])
        ids = [prompt_ids(processor.tokenizer, text, pictures.grid) for _, text in unique]
        seed = int(torch.randint(2**31, (1,)))  # from torch's state, which a checkpoint restores
        sampling = Sampling(size, trainer.temperature, trainer.max_completion_length, seed)
        drawn = generate(trainer.accelerator.unwrap_model(trainer.model), processor.tokenizer, ids, pictures, sampling)
        flat = [r for row in drawn for r in row]
        return {
            "prompt_ids": [p for p in ids for _ in range(size)],
            "completion_ids": [list(r.ids) for r in flat],
            "logprobs": [list(r.logps) for r in flat],
            "logp_policy": [sum(r.logps) for r in flat],
        }

    return rollout


def _content(prompt: list[dict[str, Any]]) -> tuple[Any, str]:
    """(picture, text) of a conversational prompt as TRL passes it on."""
    blocks = prompt[-1]["content"]
    image = next(b["image"] for b in blocks if b["type"] == "image")
    return image, next(b["text"] for b in blocks if b["type"] == "text")


def recorder(engine: Engine) -> Callable[..., list[float]]:
    """A reward function of weight zero that writes every completion of every step into the run's record."""
    base, _ = load_base(engine.spec)
    spec, size = engine.spec, engine.spec.group_size
    scored_steps = {*range(1, 11), *checkpoint_steps(spec.steps, per_octave=6)}

    def record(prompts, completions, completion_ids, puzzle_id, placement, logp_policy, trainer_state, **_):
        """Zeros, after the batch has been written down."""
        texts = [c[0]["content"] for c in completions]
        scores = [puzzles.score(t, p) for t, p in zip(texts, placement, strict=True)]
        step = trainer_state.global_step + 1
        logp_base: list[float | None] = [None] * len(texts)
        if step in scored_steps:  # scoring each step would cost a third of the run
            logp_base = _base_logps(engine, base, puzzle_id[::size], texts, completion_ids)
        used = _used_advantages(spec, scores)
        rows = zip(puzzle_id, texts, completion_ids, scores, used, logp_policy, logp_base, strict=True)
        engine.run.append("completions", [
            {"run": spec.name, "seed": spec.seed, "step": step, "puzzle_id": i,
             "prompt": engine.boards.text, "completion": text, "tokens": len(ids), "hit": s.hit, "exact": s.exact,
             "format": s.format, "advantage": a, "logp_policy": p, "logp_base": b,
             "temperature": spec.temperature, "dtype": dtype(spec)}
            for i, text, ids, s, a, p, b in rows
        ])  # fmt: skip
        return [0.0] * len(texts)

    return record


def _base_logps(engine: Engine, base: Any, boards: Sequence[int], texts: Sequence[str], ids: Sequence) -> list[float]:
    """Log-prob under the base of each completion; `boards`: one number per group, `ids`: the completions' tokens."""
    from helpers.scoring import Prompted, completion_logps

    size = engine.spec.group_size
    asked = [Prompted(engine.boards.pixels[i], engine.boards.text) for i in boards]
    shared = [texts[i : i + size] for i in range(0, len(texts), size)]
    scored = [x for row in completion_logps(base, engine.processor, asked, shared) for x in row]
    # a completion that was cut off has no end token to score
    return [float(x[: len(own)].sum()) for x, own in zip(scored, ids, strict=True)]


def _used_advantages(spec: RunSpec, scores: Sequence[puzzles.Score]) -> list[float]:
    """The advantages that an arm's trainer uses: GRPO's, but for the arms that have no centred reward."""
    from helpers import arms

    if spec.arm == "reinforce-1-0":
        return [arms.correct(s) for s in scores]
    if spec.arm == "distill":
        return [0.0] * len(scores)
    return _advantages([_reward(spec, s) for s in scores], spec.group_size, _scale(spec))


def _reward(spec: RunSpec, score: puzzles.Score) -> float:
    hit, exact, form = spec.reward_weights
    return hit * score.hit + exact * score.exact + form * score.format


def _scale(spec: RunSpec) -> str:
    """What GRPO divides a group's centred rewards by: its standard deviation ("group") or nothing ("none")."""
    return str(spec.settings.get("scale_rewards", "group"))


def _advantages(totals: Sequence[float], size: int, scale: str) -> list[float]:
    """GRPO advantages as TRL computes them: reward - group mean, over (group standard deviation + 1e-4) if scaled."""
    import torch

    groups = torch.tensor(totals).reshape(-1, size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + 1e-4) if scale == "group" else centred).flatten().tolist()


def load_base(spec: RunSpec) -> tuple[Any, Any]:
    """(model, processor) that a run starts from."""
    from helpers import models

    return models.load(models.SHIPPED if spec.base == "shipped" else spec.base, dtype(spec))


def dtype(spec: RunSpec) -> str:
    """Name of the number format a run computes in: float32 unless its profile says otherwise."""
    return str(spec.settings.get("dtype", "float32"))


def train(spec: RunSpec, store: RunStore, settings: Settings | None = None) -> Run:
    """Carry out one run (or resume it, or do nothing where it is done) and return its record.

    Raises UserError where the run's source is not finished.
    """
    run = store.start(spec)
    if run.done:
        return run
    engine = prepare(spec, store, run, settings or Settings())
    if spec.arm == "base":
        run.truncate(-1)
        run.append("evaluations", evaluate(engine, 0, full=True))
    else:
        trainer = make_trainer(engine)
        last = last_checkpoint(run.checkpoints)
        run.truncate(int(last.name.split("-")[1]) if last else -1)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        run.flush()
        run.append("metrics", [_metric(spec, spec.steps, "minutes", training_minutes(run))])
    run.finish()
    return run


def training_minutes(run: Run) -> float:
    """Minutes a run spent in training steps, without evaluations, over all its resumes."""
    import pandas

    metrics = pandas.read_parquet(run.folder / "metrics.parquet")
    return float(metrics.loc[metrics["name"] == "seconds", "value"].sum()) / 60


Corpus = tuple["Boards", list[str | None] | None]


def prepare(spec: RunSpec, store: RunStore, run: Run, settings: Settings, corpus: Corpus | None = None) -> Engine:
    """Model, boards and completions of a run; with `corpus` = (boards, completions) it trains on that one."""
    import torch

    from helpers import models

    models.quiet_cpu()
    torch.manual_seed(spec.seed)
    model, processor = load_base(spec)
    settings = _possible(settings, model)
    if settings.fast:
        processor = models.share_work(processor)
    if spec.freeze_vision:
        model.model.visual.requires_grad_(False)
    boards, completions = corpus or make_corpus(spec, store, processor)
    return Engine(spec, settings, model, processor, run, boards, completions)


def _possible(settings: Settings, model: Any) -> Settings:
    """The settings, without the fast path where it would not equal the model's own passes (with one warning)."""
    from helpers.packing import obstacle

    reason = obstacle(model) if settings.fast else ""
    if not reason:
        return settings
    warnings.warn(f"Packed passes are switched off: {reason}. TRL's own are used, several times slower.", stacklevel=3)
    return replace(settings, fast=False)


def make_corpus(spec: RunSpec, store: RunStore, processor: Any) -> Corpus:
    """Training boards of a run, with completions where its arm is SFT."""
    from helpers import arms, corpora

    if spec.arm in arms.DRAWN:
        return arms.drawn_boards(spec, store), []
    wanted = spec.steps * spec.batch_size
    n = min(CORPUS_BOARDS, max(wanted, 64)) if spec.arm in SFT_ARMS else min(4 * CORPUS_BOARDS, max(wanted, 1))
    boards = corpora.training_boards(puzzle_spec(spec), n, spec.seed)
    return boards, make_completions(spec, store, processor, boards) if spec.arm in SFT_ARMS else None


def make_completions(spec: RunSpec, store: RunStore, processor: Any, boards: Boards) -> list[str | None]:
    """The corpus of an SFT arm. Raises UserError where it needs a source run that is not finished."""
    from helpers import arms, corpora, models

    if spec.arm in ("sft-answer", "sft-kl", "sft-replay"):
        return corpora.answer_completions(boards)
    if spec.arm == "sft-expert":
        return corpora.expert_completions(boards)
    if spec.arm == "self-sft":
        return corpora.rollout_completions(load_base(spec)[0], processor, boards, spec.seed, rounds=6)
    if spec.arm == "sft-voice":
        return corpora.self_completions(load_base(spec)[0], processor, boards, spec.seed)
    if spec.arm == "sft-oracle":
        thinks = int(spec.settings.get("thinks", 8))
        return arms.oracle_completions((load_base(spec)[0], processor), boards, spec.seed, thinks)
    folder = store.root / spec.source / "checkpoints"
    if spec.arm == "sft-self":
        wanted = int(spec.settings["source_step"])
        model, _ = models.load(checkpoint_at(folder, wanted))
        return corpora.self_completions(model, processor, boards, spec.seed)
    model, _ = models.load(checkpoint_at(folder, None))
    return corpora.rollout_completions(model, processor, boards, spec.seed, rounds=6)


def checkpoint_at(folder: Path, step: int | None = None) -> Path:
    """The checkpoint of a run at `step` (the nearest one), or its last. Raises UserError where there is none."""
    steps = checkpoint_numbers(folder)
    if not steps:
        raise UserError(f"{folder} holds no checkpoint; train the source run first (--retrain makes every run).")
    return folder / f"checkpoint-{steps[-1] if step is None else min(steps, key=lambda s: abs(s - step))}"


def checkpoint_numbers(folder: Path) -> list[int]:
    """Steps of the saved checkpoints in a folder, ascending."""
    return sorted(int(p.name.split("-")[1]) for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit())


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that holds a full training state, or None."""
    whole = [s for s in checkpoint_numbers(folder) if (folder / f"checkpoint-{s}" / "trainer_state.json").exists()]
    whole = [s for s in whole if (folder / f"checkpoint-{s}" / "optimizer.pt").exists()]
    return folder / f"checkpoint-{whole[-1]}" if whole else None


def common_arguments(engine: Engine) -> dict[str, Any]:
    """Trainer settings that every arm shares: a short warm-up, a constant rate, a linear decay to zero at the end; fp32
    on the CPU. The decay averages out the steps' noise, which a constant rate would leave in the weights.
    """
    spec, gpu = engine.spec, engine.model.device.type == "cuda"
    return dict(
        output_dir=str(engine.run.checkpoints),
        use_cpu=not gpu,
        bf16=dtype(spec) == "bfloat16",
        gradient_checkpointing=gpu,  # memory is short on a GPU; on a CPU it only costs time
        max_steps=spec.steps,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": int(DECAY_SHARE * spec.steps), "decay_type": "linear"},
        warmup_steps=min(10, spec.steps),
        weight_decay=spec.weight_decay,
        optim="adamw_torch_fused",
        seed=spec.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def make_trainer(engine: Engine) -> Any:
    """The TRL trainer of a run, with its callback."""
    trainer = _make_rft(engine) if engine.completions is None else _make_sft(engine)
    engine.model = trainer.model  # with LoRA TRL wraps it
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(study_callback(engine))
    return trainer


def _peft(spec: RunSpec) -> Any:
    """LoRA on every linear layer of the language model, or None for full fine-tuning."""
    if not spec.lora_rank:
        return None
    from peft import LoraConfig

    layers = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    return LoraConfig(r=spec.lora_rank, lora_alpha=2 * spec.lora_rank, target_modules=layers)


def _make_sft(engine: Engine) -> Any:
    from trl import SFTConfig

    from helpers import arms

    parts = arms.sft_parts(engine)
    arguments = SFTConfig(
        per_device_train_batch_size=parts.per_step,
        max_length=None,
        train_sampling_strategy="sequential" if parts.in_order else "random",
        **common_arguments(engine),
    )
    return parts.trainer(
        model=engine.model,
        processing_class=engine.processor,
        args=arguments,
        train_dataset=parts.rows,
        data_collator=parts.collator,
        peft_config=_peft(engine.spec),
    )


def _make_rft(engine: Engine) -> Any:
    from trl import GRPOConfig

    from helpers import arms, corpora

    spec, fast = engine.spec, engine.settings.fast
    parts = arms.rft_parts(engine)
    arguments = GRPOConfig(
        per_device_train_batch_size=spec.batch_size * spec.group_size,
        num_generations=spec.group_size,
        max_completion_length=spec.max_completion_length,
        temperature=spec.temperature,
        beta=spec.beta,
        scale_rewards=_scale(spec),
        reward_weights=[*parts.weights, 0.0],
        log_completions=False,
        **parts.options,
        **common_arguments(engine),
    )
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental
    trainer = parts.trainer(
        model=engine.model,
        processing_class=engine.processor,
        args=arguments,
        train_dataset=corpora.rows(engine.boards),
        reward_funcs=[*parts.rewards, recorder(engine)],
        rollout_func=group_rollouts(engine.processor) if fast else None,
        peft_config=_peft(spec),
    )
    trainer.fast = fast
    if parts.reference:
        load_weights(trainer.ref_model, str(parts.reference))
    return trainer


def evaluation_steps(total: int, per_octave: int) -> tuple[int, ...]:
    """When a run is evaluated and saved: every doubling at first, `per_octave` times a doubling from step 64 on.

    Runs of more than 16 steps begin with step 8: while the rate warms up little moves.
    """
    early = [s for s in checkpoint_steps(total, 1) if s <= 64 and (s == 0 or s >= 8 or total <= 16)]
    return tuple(sorted({*early, *(s for s in checkpoint_steps(total, per_octave) if s >= 64 or s == total)}))


def study_callback(engine: Engine) -> Any:
    """A callback that evaluates and saves on the log-spaced schedule and keeps the run's tables in step."""
    from transformers import TrainerCallback

    spec, run = engine.spec, engine.run
    schedule = evaluation_steps(spec.steps, engine.settings.per_octave)
    base = {n: p.detach().clone() for n, p in engine.model.named_parameters()}

    clock: dict[str, float] = {}

    class StudyCallback(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            clock["begin"] = time.perf_counter()

        def on_train_begin(self, args, state, control, **kwargs):
            if state.global_step == 0:
                run.append("evaluations", evaluate(engine, 0, full=False))

        def on_step_end(self, args, state, control, **kwargs):
            """Evaluate and ask for a checkpoint where the schedule says so."""
            step = state.global_step
            run.append("metrics", [_metric(spec, step, "seconds", time.perf_counter() - clock["begin"])])
            control.should_save = step in schedule
            if control.should_save:
                run.append("evaluations", evaluate(engine, step, full=step == spec.steps))
                run.append("metrics", [_metric(spec, step, "update_norm", update_norm(engine.model, base))])

        def on_log(self, args, state, control, logs=None, **kwargs):
            """Append the trainer's numbers to the record."""
            if "train_runtime" in (logs or {}):  # the trainer's closing summary repeats what its last step said
                return
            numbers = {k: v for k, v in (logs or {}).items() if isinstance(v, int | float)}
            step = state.global_step
            run.append("metrics", [_metric(spec, step, k, v) for k, v in numbers.items() if v == v])
            if control.should_save:  # before the checkpoint is written: what a resume drops is never needed again
                run.flush()

        def on_save(self, args, state, control, **kwargs):
            _forget_old_optimisers(run.checkpoints, state.global_step)

    return StudyCallback()


def _metric(spec: RunSpec, step: int, name: str, value: float) -> dict[str, Any]:
    return _identity(spec, step) | {"name": name, "value": float(value)}


def _forget_old_optimisers(folder: Path, step: int) -> None:
    """Keep the weights of every checkpoint but the optimiser state of the last only."""
    for number in checkpoint_numbers(folder):
        if number < step:
            (folder / f"checkpoint-{number}" / "optimizer.pt").unlink(missing_ok=True)
