"""Training: our shortcuts equal TRL's own numbers, and a killed run ends as if it had never been killed."""

import inspect
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image
from swapping import swap
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from helpers.errors import UserError
from helpers.model import build, forward, processor, score
from helpers.study.arms import get_arm
from helpers.study.checkpoints import checkpoint_at, checkpoint_numbers
from helpers.study.records import RunStore, verify
from helpers.study.spec import RunSpec
from helpers.train import engine, recipes, trainers
from helpers.train.rows import board_rows, corpus_rows
from helpers.train.run import make_trainer, prepare, train
from helpers.train.settings import Settings
from helpers.world import answers, battery, puzzles
from helpers.world.boards import training_boards

GOLDEN = Path(__file__).parent / "golden"
BOARDS = puzzles.PuzzleSpec(size=32)
QUICK = Settings(puzzle_tests=3, final_tests=3, battery=2, final_battery=2, per_octave=1)
NO_RUN = "rft-0-0123456789"
TIMES = ("seconds", "minutes", "step_time")  # metrics that a clock decides
TEXTS = ["<answer>2 1 4 3</answer>", "<think>sky and ground</think><answer>1 3 2 4</answer>", "no", "<think>a</think>"]


@pytest.fixture(autouse=True)
def one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate a single prior task: what the battery holds is not the matter here."""
    swap(monkeypatch, battery, "battery_tasks", lambda: ("lists",))
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def common(folder: Path, **more: Any) -> dict[str, Any]:
    return dict(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, learning_rate=1e-3,
        lr_scheduler_type="constant", seed=4, logging_steps=1, save_strategy="no", report_to="none",
        disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False,
    ) | more  # fmt: skip


def listen(trainer: Any) -> list[float]:
    """The loss of every training step of a trainer, unrounded."""
    losses, stock = [], trainer.training_step

    def step(*args: Any, **options: Any) -> torch.Tensor:
        loss = stock(*args, **options)
        losses.append(float(loss))
        return loss

    trainer.training_step = step
    return losses


# --------------------------------------------------------------------------------------------- SFT


def sft(loaded: tuple, folder: Path, fast: bool, **more: Any) -> tuple[Any, list[float]]:
    """(trainer, losses) of three steps: ours with packed rows, or TRL's own trainer and collator."""
    model, processor = loaded
    boards = training_boards(BOARDS, 12, 0)
    settings = common(folder, max_steps=3, per_device_train_batch_size=3, max_length=None) | more
    trainer = (trainers.StudySFTTrainer if fast else SFTTrainer)(
        model=model,
        processing_class=processor,
        args=SFTConfig(**settings),
        train_dataset=corpus_rows(boards.corpus("sft", TEXTS * 3)),
        data_collator=trainers.PackedCollator(processor) if fast else None,
    )
    losses = listen(trainer)
    trainer.train()
    return trainer, losses


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sft_losses_and_weights_equal_trls(tiny, tmp_path: Path, accumulate: int) -> None:
    more = dict(optim="sgd", learning_rate=1e-3, gradient_accumulation_steps=accumulate)
    ours, losses = sft(tiny.load(), tmp_path, True, **more)
    stock, expected = sft(tiny.load(), tmp_path, False, **more)
    assert len(losses) == 3 * accumulate
    before, after = tiny.load()[0].state_dict(), ours.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert losses == pytest.approx(expected, abs=1e-5)
    stored = dict(stock.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        assert torch.allclose(parameter, stored[name], atol=1e-5), name


def test_sft_reports_the_share_of_tokens_it_would_have_chosen(tiny, tmp_path: Path) -> None:
    ours, _ = sft(tiny.load(), tmp_path, True, max_steps=1)
    stock, _ = sft(tiny.load(), tmp_path, False, max_steps=1)
    shares = [t.state.log_history[0]["mean_token_accuracy"] for t in (ours, stock)]
    assert shares[0] == pytest.approx(shares[1], abs=1e-6)


def test_the_packed_collator_trains_on_the_completion_with_its_end(tiny) -> None:
    processor = tiny.load()[1]
    pairs = corpus_rows(training_boards(BOARDS, 2, 0).corpus("sft", TEXTS[:2]))
    batch = trainers.PackedCollator(processor)([pairs[0], pairs[1]])
    parts = batch["packed"].target.split(torch.bincount(batch["packed"].branch).tolist())
    assert [processor.tokenizer.decode(p) for p in parts] == [f"{t}<|im_end|>\n" for t in TEXTS[:2]]


# -------------------------------------------------------------------------------------------- GRPO


def odd_reward(completions: list, **_: Any) -> list[float]:
    """A reward that varies however bad the completions are."""
    return [float(sum(map(ord, c[0]["content"])) % 7) for c in completions]


def ragged(rollout: Any) -> Any:
    """Our rollouts, cut to different lengths: fresh weights hardly ever end a completion."""

    def cut(prompts: list, trainer: Any) -> dict[str, list]:
        drawn = rollout(prompts, trainer)
        for name in ("completion_ids", "logprobs"):
            drawn[name] = [row[: max(1, len(row) - i % 5)] for i, row in enumerate(drawn[name])]
        return drawn

    return cut


def grpo(loaded: tuple, folder: Path, fast: bool, **more: Any) -> tuple[Any, list[float]]:
    """(trainer, losses): ours or TRL's own, both with our rollouts so that they see the same completions."""
    model, processor = loaded
    peft = more.pop("peft_config", None)
    settings = common(
        folder, per_device_train_batch_size=8, num_generations=4, max_completion_length=12, max_steps=2
    )  # fmt: skip
    trainer = (trainers.StudyGRPOTrainer if fast else GRPOTrainer)(
        model=model,
        processing_class=processor,
        args=GRPOConfig(**(settings | more)),
        train_dataset=board_rows(training_boards(BOARDS, 8, 0)),
        reward_funcs=[odd_reward],
        rollout_func=ragged(trainers.group_rollouts(processor)),
        peft_config=peft,
    )
    losses = listen(trainer)
    return trainer, losses


def captured_inputs(trainer: Any) -> tuple[tuple, dict[str, Any]]:
    """What TRL passed to the private method in one training step."""
    calls: list[tuple[tuple, dict[str, Any]]] = []
    stock = trainer._get_per_token_logps_and_entropies

    def listen_in(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return stock(*args, **options)

    trainer._get_per_token_logps_and_entropies = listen_in
    trainer.train()
    del trainer._get_per_token_logps_and_entropies
    (model, *tensors), options = calls[0]
    return tuple(tensors), options


def shuffled(tensors: tuple, options: dict[str, Any], order: torch.Tensor) -> tuple[tuple, dict[str, Any]]:
    """The same samples in another order."""
    ids, mask, keep = tensors
    pixels = options["pixel_values"].reshape(len(ids), -1, options["pixel_values"].shape[-1])[order].flatten(0, 1)
    moved = {"pixel_values": pixels} | {k: options[k][order] for k in ("image_grid_thw", "mm_token_type_ids")}
    return (ids[order], mask[order], keep), options | moved


@pytest.fixture
def one_step(tiny, tmp_path: Path) -> tuple:
    """(trainer, tensors, options) of one GRPO batch, with fresh weights."""
    trainer, _ = grpo(tiny.load(), tmp_path, True, max_steps=1, learning_rate=1e-12, temperature=1.0)
    return trainer, *captured_inputs(trainer)


def both(trainer: Any, tensors: tuple, options: dict[str, Any]) -> tuple[tuple, tuple]:
    """(ours, stock) results of the private method."""
    ours = trainer._get_per_token_logps_and_entropies(trainer.model, *tensors, **options)
    stock = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, *tensors, **options)
    return ours, stock


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_log_probs_entropies_and_gradients_equal_trls(one_step: tuple, seed: int | None) -> None:
    trainer, tensors, options = one_step
    if seed is not None:
        order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
        tensors, options = shuffled(tensors, options, order)
    ours, stock = both(trainer, tensors, options)
    lengths = tensors[1][:, -tensors[2] :].sum(1)
    assert len(set(lengths.tolist())) > 1 and ours[0].shape == (8, tensors[2])
    assert torch.allclose(ours[0], stock[0], atol=1e-5)
    assert torch.allclose(ours[1], stock[1], atol=1e-5)
    assert ours[2] is stock[2] is None
    weights = torch.linspace(-1, 1, ours[0].numel()).reshape(ours[0].shape)
    gradients = []
    for logps, _, _ in (ours, stock):
        trainer.model.zero_grad()
        (logps * weights).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in trainer.model.named_parameters()})
    size = sum(float(g.square().sum()) for g in gradients[1].values()) ** 0.5
    for name, gradient in gradients[1].items():
        apart = float((gradients[0][name] - gradient).norm())
        assert apart <= 1e-5 * size, f"{name}: {apart} apart, the whole gradient is {size} long"


def test_the_entropy_has_a_gradient_where_trls_has_one(one_step: tuple) -> None:
    trainer, tensors, options = one_step
    ours, stock = both(trainer, tensors, options)
    assert ours[1].requires_grad == stock[1].requires_grad  # an entropy bonus would silently do nothing


def test_shuffling_the_samples_shuffles_the_log_probs(one_step: tuple) -> None:
    trainer, tensors, options = one_step
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    plain = trainer._get_per_token_logps_and_entropies(trainer.model, *tensors, **options)
    moved_tensors, moved_options = shuffled(tensors, options, order)
    moved = trainer._get_per_token_logps_and_entropies(trainer.model, *moved_tensors, **moved_options)
    assert torch.allclose(moved[0], plain[0][order], atol=1e-5)
    assert torch.allclose(moved[1], plain[1][order], atol=1e-5)


def test_log_probs_are_at_the_sampling_temperature_as_trls_are(tiny, tmp_path: Path) -> None:
    trainer, _ = grpo(tiny.load(), tmp_path, True, max_steps=1, learning_rate=1e-12, temperature=0.7)
    ours, stock = both(trainer, *captured_inputs(trainer))
    assert torch.allclose(ours[0], stock[0], atol=1e-5)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo", "bnpo"])
def test_every_loss_type_equals_trls(tiny, tmp_path: Path, loss_type: str, lora: bool) -> None:
    """With a KL term, two iterations per batch and gradient accumulation; full fine-tuning and LoRA."""
    layers = r".*language_model.*\.(q_proj|v_proj|down_proj)"
    found = []
    for fast in (True, False):
        torch.manual_seed(0)
        adapter = LoraConfig(r=2, lora_alpha=8, target_modules=layers) if lora else None
        trainer, losses = grpo(
            tiny.load(), tmp_path, fast, loss_type=loss_type, beta=0.1, num_iterations=2, optim="sgd", max_steps=3,
            gradient_accumulation_steps=2, per_device_train_batch_size=4, peft_config=adapter, learning_rate=5e-3,
        )  # fmt: skip
        trainer.train()
        found.append((losses, trainer.state.log_history))
    (ours, history), (stock, expected) = found
    assert len(ours) == 6 and all(map(math.isfinite, ours)) and any(abs(x) > 1e-3 for x in ours)
    assert ours == pytest.approx(stock, abs=1e-4)
    for mine, theirs in zip(history[:3], expected[:3], strict=True):
        shared = {"loss", "kl", "entropy", "reward", "grad_norm", "completions/mean_length"} & theirs.keys()
        assert len(shared) >= 4 and shared <= mine.keys()
        for name in shared:
            # the gradient norm sums a million squares: fp32 rounding of both paths shows in its fourth digit
            rel = 1e-3 if name == "grad_norm" else 2e-4
            assert mine[name] == pytest.approx(theirs[name], abs=2e-4, rel=rel), name


def test_what_cannot_be_packed_goes_through_trls_own_method(one_step: tuple) -> None:
    trainer, tensors, options = one_step
    trainer.fast = False
    slow = trainer._get_per_token_logps_and_entropies(trainer.model, *tensors, **options)
    stock = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, *tensors, **options)
    assert torch.equal(slow[0], stock[0])


def test_where_packing_would_not_be_equal_the_stock_path_is_taken_with_one_warning(
    puzzler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap(monkeypatch, forward, "obstacle", lambda model: "its attention drops out")
    store, spec = RunStore(tmp_path), run_spec("rft", puzzler.folder)
    with pytest.warns(UserWarning, match="switched off: its attention drops out") as caught:
        engine = prepare(spec, store, store.start(spec), QUICK)
    trainer = make_trainer(engine)
    assert len([w for w in caught if "switched off" in str(w.message)]) == 1
    assert trainer.fast is False and trainer.rollout_func is None


def test_one_setting_switches_the_fast_path_off_without_a_word(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), run_spec("sft-answer", puzzler.folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = prepare(spec, store, store.start(spec), replace(QUICK, fast=False))
    assert not [w for w in caught if "switched off" in str(w.message)]
    assert not isinstance(make_trainer(engine).data_collator, trainers.PackedCollator)


def test_the_private_methods_still_have_the_signatures_we_override() -> None:
    methods = (
        GRPOTrainer._get_per_token_logps_and_entropies,
        GRPOTrainer._get_train_sampler,
        SFTTrainer.compute_loss,
        Trainer._load_from_checkpoint,
    )
    found = {m.__qualname__: list(inspect.signature(m).parameters) for m in methods}
    path = GOLDEN / "signatures.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())


# ------------------------------------------------------------------------------------------- runs


def run_spec(arm: str, folder: Path, steps: int = 3, **more: Any) -> RunSpec:
    settings = dict(seed=1, steps=steps, learning_rate=3e-3, batch_size=2, group_size=4, size=32,
                    max_completion_length=26, base=str(folder))  # fmt: skip
    return RunSpec(arm=arm, **(settings | more))


def table(store: RunStore, spec: RunSpec, name: str) -> Any:
    return pandas.read_parquet(store.folder(spec) / f"{name}.parquet")


@pytest.mark.parametrize("scale", ["group", "none"])
def test_recorded_advantages_are_those_the_trainer_used(puzzler, tmp_path: Path, scale: str) -> None:
    extra = {"reward_weights": (1.0, 2.0, 0.5), "extra": (("scale_rewards", scale),)}
    store, spec = RunStore(tmp_path), run_spec("rft", puzzler.folder, **extra)
    engine = prepare(spec, store, store.start(spec), QUICK)
    trainer, used = make_trainer(engine), []
    stock = trainer._generate_and_score_completions

    def listen_in(inputs: list) -> dict:
        found = stock(inputs)
        used.extend(zip(trainer._logs["completion"], list(trainer._logs["advantages"]), strict=True))
        trainer._logs["completion"].clear()
        trainer._logs["advantages"].clear()
        return found

    trainer._generate_and_score_completions = listen_in
    trainer.train()
    engine.run.flush()
    rows = table(store, spec, "completions")
    assert len(rows) == len(used) == 3 * 2 * 4
    texts = [c if isinstance(c, str) else c[0]["content"] for c, _ in used]
    assert rows["completion"].tolist() == texts
    assert rows["advantage"].tolist() == pytest.approx([a for _, a in used], abs=1e-5)
    assert rows["advantage"].abs().max() > 0.5


def test_with_stock_trl_rft_trains_too_and_leaves_the_same_kind_of_record(puzzler, tmp_path: Path) -> None:
    spec, rows = run_spec("rft", puzzler.folder, steps=2, beta=0.1), {}
    for fast in (True, False):
        store = RunStore(tmp_path / str(fast))
        assert train(spec, store, replace(QUICK, fast=fast)).done
        rows[fast] = table(store, spec, "completions")
        ours = table(store, spec, "evaluations")
        rows[fast].attrs["start"] = ours[ours["step"] == 0]["value"].tolist()
    model, processor = puzzler.load()
    ours, stock = rows[True], rows[False]
    assert list(ours.columns) == list(stock.columns) and len(ours) == len(stock) == 16
    assert ours.attrs == stock.attrs
    assert ours["puzzle_id"].tolist() == stock["puzzle_id"].tolist()
    boards = training_boards(BOARDS, 4, 1).prompted()
    for drawn in (ours, stock):
        first = drawn[drawn["step"] == 1]
        asked = [boards[i] for i in first["puzzle_id"]]
        known = score.completion_logps(model, processor, asked, [[ids] for ids in first["ids"]])
        by_hand = pytest.approx([float(logps.sum()) for (logps,) in known], abs=1e-4)
        assert first["logp_policy"].tolist() == by_hand and first["logp_base"].tolist() == by_hand
        assert first["completion"].tolist() == [score.text_of(processor.tokenizer, ids) for ids in first["ids"]]
        assert drawn["advantage"].abs().max() > 0.5


@pytest.mark.parametrize("arm", ["rft", "rft-stale"])
def test_a_group_at_a_time_gives_the_same_steps_in_less_memory(puzzler, tmp_path: Path, monkeypatch, arm: str) -> None:
    stock, calls = trainers.packed_logps, {}
    more = {"extra": (("steps_per_generation", 2),)} if arm == "rft-stale" else {}
    spec, weights, rows = run_spec(arm, puzzler.folder, steps=2, beta=0.1, batch_size=3, **more), {}, {}
    for groups in (0, 1):
        store, calls[groups] = RunStore(tmp_path / str(groups)), []

        def listen(model: Any, tokens: tuple, *more: Any, seen: list = calls[groups]) -> Any:
            seen.append(len(tokens[0]))
            return stock(model, tokens, *more)

        monkeypatch.setattr(trainers, "packed_logps", listen)
        assert train(spec, store, replace(QUICK, groups_at_once=groups)).done
        weights[groups] = build.load(checkpoint_at(store.checkpoints(spec))).model.state_dict()
        rows[groups] = table(store, spec, "completions")
    assert len(rows[0]) == len(rows[1]) == 24
    assert rows[0]["completion"].tolist() == rows[1]["completion"].tolist()
    before = puzzler.load().model.state_dict()
    assert max(calls[1]) == spec.group_size < max(calls[0])  # the reference's scoring is cut into parts, too
    moved = max(float((weights[0][name] - before[name]).abs().max()) for name in before)
    apart = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in before)
    assert apart < 0.02 * moved


def test_a_run_leaves_a_whole_record(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), run_spec("rft", puzzler.folder)
    run = train(spec, store, QUICK)
    assert run.done and store.plan([spec]) == []
    rows = table(store, spec, "completions")
    assert sorted(rows["step"].unique()) == [1, 2, 3] and len(rows) == 24
    boards = training_boards(BOARDS, 6, 1)
    for row in rows.itertuples():
        score = answers.score(row.completion, boards.placements[row.puzzle_id].tolist())
        assert (row.hit, row.exact, row.format) == (score.hit, score.exact, score.format)
    finished = rows[(rows["step"] == 1) & (rows["tokens"] < spec.max_completion_length)]
    assert len(finished) >= 4
    assert finished["logp_policy"].tolist() == pytest.approx(finished["logp_base"].tolist(), abs=1e-3)
    evaluations = table(store, spec, "evaluations")
    assert set(evaluations["task"]) == {"puzzle", "lists"}
    assert sorted(evaluations["step"].unique()) == [0, 1, 2, 3]
    assert train(spec, store, QUICK).done  # a second call finds it finished
    assert verify(store.root) == []


def test_cut_off_completions_have_equal_log_probs_under_policy_and_base(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), run_spec("rft", puzzler.folder, steps=1, max_completion_length=12)
    train(spec, store, QUICK)
    rows = table(store, spec, "completions")
    cut = ~rows["completion"].str.endswith("</answer>")
    assert cut.any() and (rows["tokens"][cut] == 12).all()
    assert rows["logp_policy"].tolist() == pytest.approx(rows["logp_base"].tolist(), abs=1e-3)


def test_the_weights_move_and_the_base_does_not(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), run_spec("sft-answer", puzzler.folder)
    train(spec, store, QUICK)
    base, _ = puzzler.load()
    start = {n: p.detach().clone() for n, p in base.named_parameters()}
    trained, _ = build.load(store.checkpoints(spec) / "checkpoint-3")
    norms = table(store, spec, "metrics").query("name == 'update_norm' and step == 3")["value"]
    by_hand = math.sqrt(sum(float(((p.detach() - start[n]) ** 2).sum()) for n, p in trained.named_parameters()))
    assert norms.tolist() == pytest.approx([by_hand], rel=1e-4)
    assert engine.update_norm(base, start) == 0.0 < by_hand


def test_a_frozen_vision_tower_stays_as_it_was(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), run_spec("sft-answer", puzzler.folder, freeze_vision=True)
    train(spec, store, QUICK)
    base, _ = puzzler.load()
    trained = dict(build.load(store.checkpoints(spec) / "checkpoint-3")[0].named_parameters())
    changed = {"visual" in n for n, p in base.named_parameters() if not torch.equal(p, trained[n])}
    assert changed == {False}


def test_the_base_arm_is_evaluated_only(puzzler, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    spec = RunSpec("base", 0, 0, 0.0, 1, size=32, base=str(puzzler.folder))
    assert train(spec, store, QUICK).done
    assert set(table(store, spec, "evaluations")["step"]) == {0}
    assert len(table(store, spec, "completions")) == 0


def test_slow_settings_learn_the_same_from_a_corpus(puzzler, tmp_path: Path) -> None:
    spec, losses = run_spec("sft-answer", puzzler.folder, steps=2), []
    for fast in (True, False):
        store = RunStore(tmp_path / str(fast))
        train(spec, store, replace(QUICK, fast=fast))
        losses.append(table(store, spec, "metrics").query("name == 'loss'")["value"].tolist())
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


# ----------------------------------------------------------------------------------- bad starts


def test_an_unfinished_source_is_named(puzzler, tmp_path: Path) -> None:
    for arm, extra in (("sft-rollout", ()), ("sft-self", (("source_step", 2),)), ("distill", ()),
                       ("distill-degraded", ())):  # fmt: skip
        source = f"{get_arm(arm).source}-0-0123456789"
        spec = run_spec(arm, puzzler.folder, source=source, extra=extra, beta=1.0)
        with pytest.raises(UserError, match=f"{source}.* holds no checkpoint"):
            train(spec, RunStore(tmp_path), QUICK)


def test_self_sft_learns_from_correct_samples_of_the_base(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), run_spec("self-sft", puzzler.folder, steps=1)
    _, processor = engine.load_base(spec)
    boards, corpus = recipes.make_corpus(spec, store, processor)
    placements = {prompt.pixels.tobytes(): p for prompt, p in zip(boards.prompted(), boards.placements, strict=True)}
    assert len(corpus) > 0
    assert all(answers.score(s.completion, placements[s.prompt.pixels.tobytes()]).exact == 1 for s in corpus)


def test_a_base_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a model folder"):
        train(run_spec("sft-answer", tmp_path / "nothing"), RunStore(tmp_path / "runs"), QUICK)


@settings(max_examples=150, deadline=None)
@given(st.integers(8, 400), st.integers(8, 400))
def test_pictures_of_every_size_become_what_the_models_own_processor_makes_of_them(width: int, height: int) -> None:
    own = processor.load_processor()
    picture = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    ours = score.patches(own, [picture, picture])
    stock = own.image_processor(images=[Image.fromarray(picture)], return_tensors="pt")
    assert [1, ours.rows, ours.columns] == stock["image_grid_thw"][0].tolist()
    assert torch.allclose(ours.values[1], stock["pixel_values"], atol=1e-6)


@pytest.mark.parametrize("size", [20, 50, 72, 256])
@pytest.mark.parametrize("arm", ["rft", "sft-answer"])
def test_boards_of_any_size_are_trained_on(puzzler, tmp_path: Path, arm: str, size: int) -> None:
    store, spec = RunStore(tmp_path), run_spec(arm, puzzler.folder, steps=1, size=size)
    assert train(spec, store, replace(QUICK, puzzle_tests=1, final_tests=1, battery=1, final_battery=1)).done


# --------------------------------------------------------------------------------------- resuming

# Killed behind the checkpoint of step 4: in the midst of the first stage, of the second, and where one begins.
STAGES = {
    "rft, in stages": (("curriculum", "1x2@48"), ("stage_share", 0.8)),
    "rft, in the second stage": (("curriculum", "1x2@48 1x3@48"), ("stage_share", 0.4)),
    "sft-answer, in stages": (("curriculum", "1x2@48"), ("stage_share", 0.5)),
    "sft-answer, where one begins": (("curriculum", "1x2@48 1x3@48"), ("stage_share", 0.33)),
}

KILLED = """
import os, signal, sys
from transformers import TrainerCallback
from helpers.model import evaluate
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train import run as training
from helpers.world import battery

battery.battery_tasks = lambda: ("lists",)
stock = training.make_trainer

def make(engine):
    trainer = stock(engine)

    class Kill(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 5:
                os.kill(os.getpid(), signal.SIGKILL)

    trainer.add_callback(Kill())
    return trainer

training.make_trainer = make
quick = training.Settings(puzzle_tests=3, final_tests=3, battery=2, final_battery=2, per_octave=1)
training.train(RunSpec.from_json(sys.argv[1]), RunStore(sys.argv[2]), quick)
"""


KILLED_ARMS = ["sft-answer", "rft", "rft-stale", "rft, second epoch", "rft-random", "sft-dream", *STAGES]


@pytest.mark.parametrize("arm", KILLED_ARMS)
def test_a_killed_run_ends_as_if_it_had_never_been_killed(puzzler, tmp_path: Path, monkeypatch, arm: str) -> None:
    staged, arm, again = STAGES.get(arm, ()), arm.split(",")[0], "epoch" in arm
    known = {"rft-stale": {"extra": (("steps_per_generation", 4),)}, "sft-dream": {"beta": 0.5}}
    more = known.get(arm, {"extra": staged})
    spec = run_spec(arm, puzzler.folder, steps=6, batch_size=4 if arm == "sft-answer" else 2, **more)
    code = KILLED
    if again:  # four boards for six steps of two: they come again, in another order, at steps 3 and 5
        swap(monkeypatch, recipes, "CORPUS_BOARDS", 1)
        code = "from helpers.train import recipes\nrecipes.CORPUS_BOARDS = 1\n" + KILLED
    straight, resumed = RunStore(tmp_path / "straight"), RunStore(tmp_path / "resumed")
    command = [sys.executable, "-c", code, spec.to_json(), str(resumed.root)]
    killed = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    checkpoints = resumed.checkpoints(spec)
    saved = [4] if arm == "rft-stale" else [1, 2, 4]  # where it draws anew
    assert checkpoint_numbers(checkpoints) == saved and resumed.plan([spec]) == [spec]
    torch.manual_seed(99)  # what happened before must not matter
    train(spec, resumed, QUICK)
    train(spec, straight, QUICK)
    ends = [build.load(s.checkpoints(spec) / "checkpoint-6")[0].state_dict() for s in (straight, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    for name in ("metrics", "completions", "evaluations"):
        first, second = (table(s, spec, name) for s in (straight, resumed))
        if name == "completions" and arm == "rft":
            assert first["advantage"].abs().max() > 0.5
        if name == "metrics":
            first, second = (t[~t["name"].isin(TIMES)].reset_index(drop=True) for t in (first, second))
        assert len(first) > 0 or (name, arm[:3]) == ("completions", "sft")
        assert first.equals(second), name


def test_trls_own_resume_would_lose_the_weights(puzzler, tmp_path: Path) -> None:
    """Why `ResumeWeights` exists; when this fails, the stock method has been mended and ours can go."""
    model, processor = puzzler.load()
    build.save(model, processor, tmp_path / "checkpoint-1")
    trainer, _ = sft(puzzler.load(), tmp_path, True, max_steps=1, learning_rate=1e-2)
    moved = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    SFTTrainer._load_from_checkpoint(trainer, str(tmp_path / "checkpoint-1"))
    assert all(torch.equal(p, moved[n]) for n, p in trainer.model.named_parameters())
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    stored = dict(model.named_parameters())
    assert all(torch.equal(p, stored[n]) for n, p in trainer.model.named_parameters())


def test_the_rate_rises_stays_and_falls_to_zero_over_the_last_quarter(puzzler, tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), run_spec("sft-answer", puzzler.folder, steps=32)
    trainer = make_trainer(prepare(spec, store, store.start(spec), QUICK))
    trainer.create_optimizer_and_scheduler(spec.steps)
    rates = []
    for _ in range(spec.steps):
        rates.append(trainer.optimizer.param_groups[0]["lr"] / spec.learning_rate)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    by_hand = (
        [k / 10 for k in range(10)] + [1.0] * 15 + [1 - k / 8 for k in range(1, 8)]
    )  # step 24 is the decay's first
    assert rates == pytest.approx(by_hand)
    assert trainer.optimizer.param_groups[0]["lr"] == 0


# ----------------------------------------------------------------------------------------- golden


@pytest.fixture(scope="module")
def unchanging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and tokenizer that do not depend on what the base model is taught."""
    texts = [puzzles.prompt_text(BOARDS), "system\nYou are a helpful assistant.", "user\n", "assistant\n", *TEXTS] * 20
    tokenizer = processor.build_tokenizer(texts, 330)
    size = build.ModelSize(text_width=32, text_layers=2, heads=2, kv_heads=1, text_mlp=48, vision_width=32,
                            vision_layers=2, vision_mlp=48, mrope=(2, 3, 3))  # fmt: skip
    model = build.build_model(tokenizer, size, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    folder = tmp_path_factory.mktemp("unchanging")
    build.save(model, processor.build_processor(tokenizer), folder)
    return folder


def test_sft_follows_the_stored_trajectory(unchanging: Path, tmp_path: Path, golden: Callable) -> None:
    _, losses = sft(build.load(unchanging), tmp_path, True, max_steps=5, learning_rate=3e-3)
    assert losses[-1] < losses[0]
    golden("sft", losses)


def test_grpo_follows_the_stored_trajectory(unchanging: Path, tmp_path: Path, golden: Callable) -> None:
    more = dict(max_steps=5, learning_rate=1e-4, loss_type="dapo", beta=0.05, num_iterations=2)
    trainer, losses = grpo(build.load(unchanging), tmp_path, True, **more)
    trainer.train()
    rewards = [h["reward"] for h in trainer.state.log_history if "reward" in h]
    assert len(losses) == 5 and len(rewards) == 3 and np.std(rewards) > 0
    golden("grpo", losses + rewards)
