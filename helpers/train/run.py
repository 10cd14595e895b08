"""Carrying out one run: preparing it, training it through TRL, resuming it, closing its record."""

from __future__ import annotations

import os
from typing import Any

import torch
from peft import LoraConfig
from transformers import PrinterCallback
from trl import GRPOConfig, SFTConfig

from helpers.model import build
from helpers.model.processor import share_work
from helpers.study.checkpoints import last_checkpoint
from helpers.study.profiles import Profile
from helpers.study.published import store
from helpers.study.records import Run, RunStore
from helpers.study.spec import RunSpec
from helpers.train import recipes, rows
from helpers.train.engine import Engine, Settings, dtype, evaluate, load_base, settings
from helpers.train.recipes import SftCorpus, make_corpus, possible
from helpers.train.recorder import metric_row, recorder, reward_scale, study_callback, training_minutes
from helpers.train.trainers import group_rollouts, load_weights

DECAY_SHARE = 0.25  # of all steps: the last quarter


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
        run.append("metrics", [metric_row(spec, spec.steps, "minutes", training_minutes(run))])
    run.finish()
    return run


def prepare(spec: RunSpec, store: RunStore, run: Run, settings: Settings, corpus: SftCorpus | None = None) -> Engine:
    """Model, boards and completions of a run; with `corpus` = (boards, completions) it trains on that one."""
    build.quiet_cpu()
    torch.manual_seed(spec.seed)
    model, processor = load_base(spec)
    settings = possible(settings, model)
    if settings.fast:
        processor = share_work(processor)
    if spec.freeze_vision:
        model.model.visual.requires_grad_(False)
    boards, completions = corpus or make_corpus(spec, store, processor)
    return Engine(spec, settings, model, processor, run, boards, completions)


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
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(study_callback(engine))
    return trainer


def _peft(spec: RunSpec) -> Any:
    """LoRA on every linear layer of the language model, or None for full fine-tuning."""
    if not spec.lora_rank:
        return None
    layers = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    return LoraConfig(r=spec.lora_rank, lora_alpha=2 * spec.lora_rank, target_modules=layers)


def _make_sft(engine: Engine) -> Any:
    parts = recipes.sft_parts(engine)
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
    spec, fast = engine.spec, engine.settings.fast
    parts = recipes.rft_parts(engine)
    arguments = GRPOConfig(
        per_device_train_batch_size=spec.batch_size * spec.group_size,
        num_generations=spec.group_size,
        max_completion_length=spec.max_completion_length,
        temperature=spec.temperature,
        beta=spec.beta,
        scale_rewards=reward_scale(spec),
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
        train_dataset=rows.rows(engine.boards),
        reward_funcs=[*parts.rewards, recorder(engine)],
        rollout_func=group_rollouts(engine.processor) if fast else None,
        peft_config=_peft(spec),
    )
    trainer.fast = fast
    if parts.reference:
        load_weights(trainer.ref_model, str(parts.reference))
    return trainer


def carry_out(spec: RunSpec, profile: Profile) -> None:
    """`train` in a process of its own, as `jobs` starts it: a run of a profile, evaluated as the profile says."""
    train(spec, store(profile.name), settings(profile))
