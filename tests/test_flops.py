"""FLOPs by formula equal those that torch counts, and a run writes down what each of its steps cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from swapping import swap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from helpers.model import build, flops
from helpers.model.forward import Patches, patches_of, scored_logits
from helpers.model.generate import Rollout, Sampling, generate
from helpers.model.packing import Branch, Group, pack
from helpers.model.processor import encode_prefix, encode_question, encode_target
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec
from helpers.train import engine, exam, recorder, run
from helpers.train.engine import Engine
from helpers.train.settings import Settings
from helpers.world import puzzles
from helpers.world.boards import training_boards

CLOSE = 1e-9  # they are equal
TEXTS = ("<answer>2 1 4 3</answer>", "<think>sky</think><answer>1 3 2 4</answer>", "no", "<think>a</think>")


def counted(work: Callable[[], Any]) -> int:
    """FLOPs that torch counts; it knows attention only as the two products that it consists of."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:
        work()
    return mode.get_total_flops()


def both_ways(model: Any, packed: Any, pictures: Patches) -> Callable[[], None]:
    """A pass and its way back."""
    return lambda: scored_logits(model, packed, pictures).sum().backward()


def asked(tokenizer: Any, size: int, n: int = 3) -> tuple[list[list[int]], Patches]:
    """Prompts of different length, with a picture each."""
    drawn = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    pictures = patches_of(torch.from_numpy(drawn))
    prefix = encode_prefix(tokenizer, pictures.grid[0] * pictures.grid[1])
    return [[*prefix, *encode_question(tokenizer, "Why? " * (i + 1))] for i in range(n)], pictures


def batch(loaded: tuple, size: int, each: int) -> tuple[Any, Patches]:
    """A packed batch of three prompts with `each` completions of different length."""
    model, processor = loaded
    prompts, pictures = asked(processor.tokenizer, size)
    targets = [encode_target(processor.tokenizer, text) for text in TEXTS]
    groups = [Group(p, i, [Branch(targets[(i + k) % 4]) for k in range(each)]) for i, p in enumerate(prompts)]
    return pack(groups, model.config.image_token_id, pictures.grid), pictures


@pytest.fixture(scope="module", params=["tiny", "shipped"])
def loaded(request: pytest.FixtureRequest, tiny: Any) -> tuple:
    """The tests' model, and the base of the study."""
    return build.load(tiny.folder if request.param == "tiny" else "shipped")


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("each", [1, 4], ids=["corpus", "groups"])
def test_a_packed_pass_and_its_way_back_cost_what_torch_counts(loaded: tuple, size: int, each: int) -> None:
    model, (packed, pictures) = loaded[0], batch(loaded, size, each)
    found, made = flops.packed_work(model, packed, pictures), []
    forward = counted(lambda: made.append(scored_logits(model, packed, pictures)))
    assert found.forward == pytest.approx(forward, rel=CLOSE)
    assert found.back == pytest.approx(counted(lambda: made[0].sum().backward()), rel=CLOSE)
    assert 1.85 * found.forward < found.back <= 2 * found.forward
    model.zero_grad()


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("completions", [1, 4])
def test_generation_costs_what_torch_counts(loaded: tuple, size: int, completions: int) -> None:
    model, tokenizer = loaded[0], loaded[1].tokenizer
    prompts, pictures = asked(tokenizer, size, 6)
    model.requires_grad_(False)  # torch's counter follows modules by their gradients, which generation has none of
    drawn: list = []
    how = Sampling(completions, 1.0, 24, seed=3)
    stock = counted(lambda: drawn.extend(generate(model, tokenizer, prompts, pictures, how)))
    found = flops.generation_flops(model, prompts, pictures, drawn, how.max_tokens)
    model.requires_grad_(True)
    assert found == pytest.approx(stock, rel=CLOSE)


def written(*lengths: int) -> list[Rollout]:
    """Completions that ended after so many tokens."""
    return [Rollout((5,) * n, (0.0,) * n, True) for n in lengths]


def test_rows_are_decoded_until_a_quarter_of_them_has_ended() -> None:
    rows = [written(1), written(2), written(5), written(5), written(5)]
    assert list(flops._rows_decoded(rows, 9)) == [5, 3, 3, 3]
    assert list(flops._rows_decoded([written(1, 3), written(2, 2)], 9)) == [2, 1]
    assert list(flops._rows_decoded([[Rollout((5, 5), (0.0, 0.0), False)]], 2)) == [1]


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_what_is_frozen_costs_no_gradient_of_its_own(tiny: Any, frozen: bool) -> None:
    loaded = build.load(tiny.folder)
    loaded.model.model.visual.requires_grad_(not frozen)
    packed, pictures = batch(loaded, 64, 4)
    found = flops.packed_work(loaded.model, packed, pictures)
    assert found.forward + found.back == pytest.approx(counted(both_ways(loaded.model, packed, pictures)), rel=CLOSE)


def test_adapters_are_counted_where_they_are_at_work(tiny: Any) -> None:
    plain = build.load(tiny.folder)
    packed, pictures = batch(plain, 64, 4)
    alone = flops.packed_work(plain.model, packed, pictures).forward
    layers = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    model = get_peft_model(plain.model, LoraConfig(r=8, target_modules=layers))
    found, made = flops.packed_work(model, packed, pictures), []
    assert found.forward == pytest.approx(
        counted(lambda: made.append(scored_logits(model, packed, pictures))), rel=CLOSE
    )
    assert found.back == pytest.approx(counted(lambda: made[0].sum().backward()), rel=CLOSE)
    with model.disable_adapter():
        assert flops.packed_work(model, packed, pictures).forward == alone < found.forward


def test_windows_of_the_vision_tower_are_counted_as_windows(tiny: Any) -> None:
    loaded = build.load(tiny.folder)
    tower = loaded.model.model.visual
    tower.fullatt_block_indexes, tower.window_size = [1], 64  # windows of 4 x 4 merged patches
    packed, pictures = batch(loaded, 96, 1)
    found = flops.packed_work(loaded.model, packed, pictures).forward
    assert found == pytest.approx(counted(lambda: scored_logits(loaded.model, packed, pictures)), rel=CLOSE)
    tower.fullatt_block_indexes = [0, 1]
    assert found < flops.packed_work(loaded.model, packed, pictures).forward


def test_layers_that_keep_no_activations_are_passed_twice(tiny: Any) -> None:
    loaded = build.load(tiny.folder)
    packed, pictures = batch(loaded, 64, 4)
    kept = flops.packed_work(loaded.model, packed, pictures)
    loaded.model.gradient_checkpointing_enable()
    loaded.model.train()
    found = flops.packed_work(loaded.model, packed, pictures)
    assert found.forward == kept.forward and found.back > kept.back
    stock = counted(both_ways(loaded.model, packed, pictures))
    assert found.forward + found.back == pytest.approx(stock, rel=0.02)  # each layer's last product is not passed again


def test_a_tally_begins_anew_once_it_is_taken_and_says_nothing_where_something_is_unknown() -> None:
    tally = flops.Tally(flops=3)
    tally.add(flops.Tally(4, 5, 6, 7))
    assert tally.take() == {"flops": 7, "trained_tokens": 5, "generated_tokens": 6, "completions": 7}
    assert tally == flops.Tally()
    tally.known = False
    assert tally.take() == {} and tally.known


# -------------------------------------------------------------------------------------------- runs

STEPS = 4
QUICK = Settings(puzzle_tests=1, final_tests=1, battery=1, final_battery=1, per_octave=1)
ARMS = {
    "sft-answer": {},
    "sft-answer, frozen": {"freeze_vision": True},
    "sft-answer, lora": {"lora_rank": 4},
    "sft-kl": {"beta": 0.1},
    "iterative-sft": {"extra": (("fresh_boards", 3), ("refresh_every", 2))},
    "rft": {"beta": 0.1},
    "rft, a group at a time": {"beta": 0.1},
    "rft, lora": {"beta": 0.1, "lora_rank": 4},
    "rft-no-kl": {},
    "rft-stale": {"beta": 0.1, "extra": (("steps_per_generation", 2),)},
    "reinforce-1-0": {},
    "sft-dft": {},
    "rft-entropy": {},
    "rft-random": {},
}


def unsolved(made: Engine, step: int, full: bool) -> dict[str, list[dict[str, Any]]]:
    """What an evaluation leaves, without a pass of the model."""
    row = {"task": "puzzle", "measure": "exact", "value": 0.0, "n": 1}
    return {"evaluations": [engine.identity_columns(made.spec, step) | row]}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that do nothing but train, on boards whose placement is one of the two that `puzzler` writes."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # torch's counter fails on parameters in the other
    swap(monkeypatch, exam, "evaluate", unsolved)
    swap(monkeypatch, engine, "update_norm", lambda *_: 1.0)
    monkeypatch.setattr(recorder.Recorder, "_logps", lambda self, model, boards, ids, *_: [0.0] * len(ids))
    swap(monkeypatch, puzzles, "shuffle", lambda spec, index: ((2, 1, 4, 3), (3, 1, 4, 2))[index % 2])
    training_boards.cache_clear()
    yield
    training_boards.cache_clear()


def prepared(arm: str, base: Path, root: Path, settings: Settings = QUICK, **more: Any) -> Engine:
    """A run of a few steps, not begun yet."""
    small = dict(seed=1, steps=STEPS, learning_rate=3e-3, batch_size=2, group_size=4, size=32,
                 max_completion_length=26, base=str(base))  # fmt: skip
    store, spec = RunStore(root), RunSpec(arm=arm, **(small | more))
    return run.prepare(spec, store, store.start(spec), settings)


def trained(made: Engine) -> pd.DataFrame:
    """Train, and give what was noted: a row per step, a column per metric."""
    run.make_trainer(made).train()
    made.run.flush()
    rows = pd.read_parquet(made.run.folder / "metrics.parquet")
    return rows.pivot(index="step", columns="name", values="value")


@pytest.mark.parametrize("name", ARMS)
def test_the_steps_of_a_run_cost_what_torch_counts(puzzler: Any, tmp_path: Path, bare: None, name: str) -> None:
    settings = Settings(groups_at_once=1) if "at a time" in name else QUICK
    made, found = prepared(name.split(",")[0], puzzler.folder, tmp_path, settings, **ARMS[name]), []
    stock = counted(lambda: found.append(trained(made)))
    (noted,) = found
    assert noted["flops"].sum() == pytest.approx(stock, rel=CLOSE)
    assert (noted["flops"] > 0).all() and list(noted.index) == [1, 2, 3, 4]
    assert "corpus_flops" not in noted


@pytest.mark.parametrize("arm", ["self-sft", "sft-voice", "sft-oracle"])
def test_a_corpus_that_a_model_writes_is_noted_once(puzzler: Any, tmp_path: Path, bare: None, arm: str) -> None:
    made: list[Engine] = []
    stock = counted(lambda: made.append(prepared(arm, puzzler.folder, tmp_path)))
    noted = trained(made[0])
    assert noted.loc[0, "corpus_flops"] == pytest.approx(stock, rel=CLOSE)
    assert noted["corpus_flops"].count() == 1
    assert noted.loc[0, "corpus_completions"] >= 64
    assert noted.loc[0, "corpus_tokens"] > 4 * noted.loc[0, "corpus_completions"]
    assert (noted.loc[1:, ["generated_tokens", "completions"]] == 0).all(axis=None)


def test_dreams_are_noted_as_a_corpus_and_learned_from_at_every_step(puzzler: Any, tmp_path: Path, bare: None) -> None:
    made, found = prepared("sft-dream", puzzler.folder, tmp_path, beta=0.1), []
    stock = counted(lambda: found.append(trained(made)))  # the dreams are written when the trainer is made
    (noted,) = found
    assert noted["flops"].sum() + noted.loc[0, "corpus_flops"] == pytest.approx(stock, rel=CLOSE)
    assert noted.loc[0, "corpus_flops"] > 0 and noted["corpus_flops"].count() == 1
    assert noted.loc[0, "corpus_completions"] == 2 * STEPS
    each = len(encode_target(made.processor.tokenizer, made.corpus.completions[0]))
    assert (noted.loc[1:, "trained_tokens"] > 2 * each).all()  # the answers' and the dreams'


def test_an_entropy_bonus_trains_every_token(puzzler: Any, tmp_path: Path, bare: None) -> None:
    noted = trained(prepared("rft-entropy", puzzler.folder, tmp_path))
    assert noted["trained_tokens"].tolist() == noted["generated_tokens"].tolist()


def test_what_is_drawn_and_learned_from_is_counted_step_by_step(puzzler: Any, tmp_path: Path, bare: None) -> None:
    made = prepared("rft", puzzler.folder, tmp_path, beta=0.1)
    noted = trained(made)
    drawn = pd.read_parquet(made.run.folder / "completions.parquet").groupby("step")["tokens"]
    assert noted["completions"].tolist() == drawn.count().tolist() == [8.0] * STEPS
    assert noted["generated_tokens"].tolist() == drawn.sum().tolist() == noted["trained_tokens"].tolist()


def test_rollouts_that_serve_several_steps_are_counted_where_they_are_drawn(
    puzzler: Any, tmp_path: Path, bare: None
) -> None:
    noted = trained(prepared("rft-stale", puzzler.folder, tmp_path, beta=0.1, extra=(("steps_per_generation", 2),)))
    assert noted["completions"].tolist() == [16, 0, 16, 0] and (noted["trained_tokens"] > 0).all()


def test_a_completion_without_advantage_trains_no_token_unless_there_is_a_kl_term(
    puzzler: Any, tmp_path: Path, bare: None
) -> None:
    made = prepared("reinforce-1-0", puzzler.folder, tmp_path)
    noted = trained(made)
    rows = pd.read_parquet(made.run.folder / "completions.parquet")
    right = rows["tokens"].where(rows["advantage"] > 0, 0).groupby(rows["step"]).sum()
    assert noted["trained_tokens"].tolist() == right.tolist()
    assert 0 < right.sum() < rows["tokens"].sum()


def test_sft_trains_its_completions_with_end_token_and_line_break(puzzler: Any, tmp_path: Path, bare: None) -> None:
    made = prepared("sft-answer", puzzler.folder, tmp_path)
    each = len(encode_target(made.processor.tokenizer, made.corpus.completions[0]))
    assert trained(made)["trained_tokens"].tolist() == [2.0 * each] * STEPS


@pytest.mark.parametrize("arm", ["rft", "sft-answer"])
def test_where_trls_own_passes_are_taken_nothing_is_noted(puzzler: Any, tmp_path: Path, bare: None, arm: str) -> None:
    noted = trained(prepared(arm, puzzler.folder, tmp_path, Settings(fast=False)))
    assert len(noted) == STEPS and not set(flops.Tally().spent()) & set(noted.columns)


def test_a_resumed_run_notes_its_corpus_once(puzzler: Any, tmp_path: Path, bare: None) -> None:
    made = prepared("self-sft", puzzler.folder, tmp_path)
    trainer = run.make_trainer(made)
    trainer.add_callback(Stop())
    with pytest.raises(InterruptedError):
        trainer.train()
    run.train(made.spec, RunStore(tmp_path), QUICK)
    rows = pd.read_parquet(made.run.folder / "metrics.parquet")
    assert (made.run.checkpoints / "checkpoint-2").exists()
    assert (rows["name"] == "corpus_flops").sum() == 1
    assert not rows.duplicated(["step", "name"]).any()
    assert rows[rows["name"] == "flops"]["step"].tolist() == [1, 2, 3, 4]


class Stop(TrainerCallback):
    """Stands for a kill in the third step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop before step 3."""
        if state.global_step == 2:
            raise InterruptedError
