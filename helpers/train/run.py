"""Carrying out one run: preparing it, training it through TRL, resuming it, closing its record."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PrinterCallback, Qwen2_5_VLForConditionalGeneration
from trl import GRPOConfig, SFTConfig

from helpers.files import digest, told_of_a_full_disk
from helpers.model import build
from helpers.model.forward import obstacle
from helpers.model.processor import share_work
from helpers.study import cells
from helpers.study.arms import get_arm
from helpers.study.checkpoints import STAGED, checkpoint_at, last_checkpoint
from helpers.study.profiles import FAIR, Profile
from helpers.study.published import store
from helpers.study.records import Run, RunStore
from helpers.study.spec import RunSpec
from helpers.train import trainers
from helpers.train.engine import Engine, dtype, load_start, start_of
from helpers.train.exam import evaluate
from helpers.train.pace import DECAY_SHARE, WARM_UP, Pace
from helpers.train.recipes import Rft, Sft, get_recipe, make_corpus, sampled_rows
from helpers.train.recorder import Recorder, StudyCallback, evaluated, metric_row, reward_scale, training_minutes
from helpers.train.settings import Settings, settings
from helpers.world.boards import Corpus

_HELPERS = Path(__file__).parents[1]


def train(spec: RunSpec, store: RunStore, settings: Settings | None = None) -> Run:
    """Carry out one run (or resume it, or do nothing where it is done) and return its record.

    While another process is at work on it this one waits. Raises UserError where a run that it needs is not finished,
    and where the disk is full.
    """
    with store.in_use(*spec.needs), store.owned(spec.name):
        chosen = settings or Settings()
        run = store.start(spec, made_with(chosen, start_of(spec, store.root)))
        if run.note:
            print(f"{spec.name}: {run.note}", file=sys.stderr, flush=True)
        if not run.done:
            with told_of_a_full_disk(run.folder):
                _train(run, store, chosen)
    return run


def made_with(settings: Settings, start: Path) -> dict[str, object]:
    """What decides a run's numbers beside its spec: digests of the code and of the weights in `start`, settings."""
    total = hashlib.sha256()
    for path in sorted(_HELPERS.rglob("*.py")):
        total.update(path.read_bytes())
    weights = start / "model.safetensors"
    base = digest(weights)[:16] if weights.is_file() else "not a folder"
    return {"code": total.hexdigest()[:16], "weights": base, "settings": asdict(settings)}


def _train(run: Run, store: RunStore, settings: Settings) -> None:
    """From wherever the run stands to its end."""
    spec = run.spec
    engine = prepare(spec, store, run, settings)
    if not get_arm(spec.arm).trains:
        run.truncate(-1)
        for table, found in evaluate(engine, 0, full=True).items():
            run.append(table, found)
    else:
        last, trouble = last_checkpoint(run.checkpoints)
        if trouble:
            print(f"{spec.name}: {trouble}", file=sys.stderr, flush=True)
        done = int(last.name.split("-")[1]) if last else -1
        engine.done = max(done, 0)
        trainer = make_trainer(engine)
        if isinstance(trainer, trainers.StudyGRPOTrainer):
            trainer.epochs_done = engine.done // steps_per_epoch(spec, len(trainer.train_dataset))
        run.truncate(done)  # rows behind the checkpoint belong to steps that are about to be repeated
        if done > 0:
            trainer.pace.replay(evaluated(run))
        if done < trainer.pace.end:  # killed between its last checkpoint and its end, a run has no step left to take
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        run.flush()
        run.append("metrics", [metric_row(spec, trainer.pace.end, "minutes", training_minutes(run))])
    run.finish()


def prepare(spec: RunSpec, store: RunStore, run: Run, settings: Settings, corpus: Corpus | None = None) -> Engine:
    """Model, boards and corpus of a run; with `corpus` given it trains on that one instead of its arm's."""
    build.quiet_cpu()
    torch.manual_seed(spec.seed)
    model, processor = load_start(spec, store.root)
    settings = _possible(settings, model)
    if settings.fast:
        processor = share_work(processor)
    if spec.freeze_vision:
        model.model.visual.requires_grad_(False)
    engine = Engine(spec, settings, model, processor, run, corpus=corpus)
    if get_arm(spec.arm).trains and corpus is None:
        engine.boards, engine.corpus = make_corpus(spec, store, processor, engine.writing)
    return engine


def _possible(settings: Settings, model: Qwen2_5_VLForConditionalGeneration) -> Settings:
    """The settings, without the fast path where it would not equal the model's own passes (with one warning)."""
    reason = obstacle(model) if settings.fast else ""
    if not reason:
        return settings
    warnings.warn(f"Packed passes are switched off: {reason}. TRL's own are used, several times slower.", stacklevel=3)
    return replace(settings, fast=False)


def steps_per_epoch(spec: RunSpec, boards: int) -> int:
    """Steps of RFT until its rows come again, a board each; TRL leaves out what no longer fills a draw."""
    at_once = int(spec.settings.get("steps_per_generation", 1))
    return max(1, boards // (spec.batch_size * at_once) * at_once)


def make_trainer(engine: Engine) -> trainers.StudySFTTrainer | trainers.StudyGRPOTrainer:
    """The TRL trainer of a run, as its arm's recipe says, with the study's callback."""
    recipe = get_recipe(engine.spec.arm)
    trainer = _make_rft(engine, recipe) if isinstance(recipe, Rft) else _make_sft(engine, recipe)
    engine.model = trainer.model  # with LoRA TRL wraps it
    trainer.tally = engine.tally
    trainer.remove_callback(PrinterCallback)
    callback = StudyCallback(engine)
    trainer.add_callback(callback)
    trainer.pace = callback.pace
    return trainer


def _make_sft(engine: Engine, recipe: Sft) -> trainers.StudySFTTrainer:
    collator = trainers.PackedCollator(engine.processor) if engine.settings.fast else None
    arguments = SFTConfig(
        per_device_train_batch_size=1 if recipe.whole_steps else engine.spec.batch_size,
        max_length=None,
        train_sampling_strategy="sequential" if recipe.in_order or engine.spec.easier else "random",
        loss_type=recipe.loss,
        **_common_arguments(engine),
    )
    return recipe.trainer(
        args=arguments,
        train_dataset=recipe.rows(engine),
        data_collator=trainers.flattened(engine.processor, collator) if recipe.whole_steps else collator,
        **_what_is_trained(engine),
        **recipe.options(engine),
    )


def _make_rft(engine: Engine, recipe: Rft) -> trainers.StudyGRPOTrainer:
    spec, fast = engine.spec, engine.settings.fast
    groups = math.gcd(engine.settings.groups_at_once or spec.batch_size, spec.batch_size)
    options = recipe.options(spec) | {"gradient_accumulation_steps": spec.batch_size // groups}
    if "steps_per_generation" in options:  # TRL counts batches here, not steps of the optimiser
        options["steps_per_generation"] *= spec.batch_size // groups
    arguments = GRPOConfig(
        per_device_train_batch_size=groups * spec.group_size,
        num_generations=spec.group_size,
        max_completion_length=spec.max_completion_length,
        temperature=spec.temperature,
        beta=spec.beta,
        scale_rewards=reward_scale(spec),
        reward_weights=[*recipe.weights(spec), 0.0],
        log_completions=False,
        shuffle_dataset=not spec.easier,  # the rows of a curriculum stand in their order
        **options,
        **_common_arguments(engine),
    )
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental
    trainer = recipe.trainer(
        args=arguments,
        train_dataset=sampled_rows(engine),
        reward_funcs=[*recipe.rewards(spec), Recorder(engine, recipe.advantages)],
        rollout_func=trainers.group_rollouts(engine.processor, engine.tally) if fast else None,
        **_what_is_trained(engine),
    )
    trainer.fast = fast
    if recipe.teacher:
        trainers.load_weights(
            trainer.ref_model, str(checkpoint_at(engine.run.folder.parent / spec.source / "checkpoints"))
        )
    return trainer


def _what_is_trained(engine: Engine) -> dict[str, Any]:
    """The trainer's model and processor, with LoRA on the language model's linear layers where the spec asks for it."""
    spec, adapter = engine.spec, None
    if spec.lora_rank:
        layers = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
        adapter = LoraConfig(r=spec.lora_rank, lora_alpha=2 * spec.lora_rank, target_modules=layers)
    return {"model": engine.model, "processing_class": engine.processor, "peft_config": adapter}


def _common_arguments(engine: Engine) -> dict[str, Any]:
    """Trainer settings that every arm shares: a short warm-up, a constant rate, a linear decay to zero at the end; fp32
    on the CPU. The decay averages out the steps' noise, which a constant rate would leave in the weights. A run that
    goes `until` something has its rate from its `Pace`.
    """
    spec, gpu = engine.spec, engine.model.device.type == "cuda"
    return dict(
        output_dir=str(engine.run.checkpoints / STAGED),  # `StudyCallback` renames them into place
        use_cpu=not gpu,
        bf16=dtype(spec) == "bfloat16",
        gradient_checkpointing=gpu,  # memory is short on a GPU; on a CPU it only costs time
        max_steps=Pace(spec, engine.settings).most,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": int(DECAY_SHARE * spec.steps), "decay_type": "linear"},
        warmup_steps=min(WARM_UP, spec.steps),
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


def carry_out(spec: RunSpec, profile: Profile) -> None:
    """`train` in a process of its own, as `jobs` starts it: a run of a profile, evaluated as the profile says.

    A run of the study on several bases is published at once: no later loss of the machine loses it.
    """
    train(spec, store(profile), settings(profile))
    if profile == FAIR and spec.name in cells.planned([spec.seed]):
        cells.publish_run(spec)
