"""The benchmark: both sides of every row do the same work, and the table says what was measured. Nothing is timed."""

import io
import math
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from swapping import swap
from trl import GRPOTrainer, SFTTrainer

from helpers.errors import UserError
from helpers.model import build, forward, generate, score
from helpers.train import trainers
from helpers.world import puzzles
from helpers.world.boards import Prompted
from tests.benchmarks import benchmarks
from tests.benchmarks.benchmarks import CASES, COLUMNS, LOADS, Case, Load, Result, Sides

SMOKE = LOADS["smoke"]
COMPARED = [c.name for c in CASES if c.name not in ("side-by-side", "rft-peak", "sft-peak")]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.setattr(benchmarks.tempfile, "gettempdir", lambda: str(tmp_path))


def case(**more: Any) -> Case:
    return Case(**{"name": "x", "what": "some work", "unit": "s", "prepare": lambda load: None} | more)


# ------------------------------------------------------------------------------------- same results


def test_every_row_that_was_asked_for_is_there() -> None:
    bars = {c.name: (c.judged, c.bar) for c in CASES}
    assert bars == {
        "rft-step": ("ratio", 4), "rft-step-kl": ("ratio", 4), "rollouts": ("ratio", 4), "sft-step": ("ratio", 1.8),
        "battery": ("ratio", 4), "battery-decoded": ("ratio", None), "scoring": ("ratio", 8),
        "scoring-rollouts": ("ratio", 8), "scoring-singles": ("ratio", 8), "side-by-side": ("ratio", 1.6),
        "boards": ("ours", 2000),
        "photos": ("ours", 500), "rft-peak": ("ratio", None), "sft-peak": ("ratio", None),
    }  # fmt: skip
    assert all(c.tolerance <= 1e-5 for c in CASES)


@pytest.mark.parametrize("name", COMPARED)
def test_both_sides_give_the_same(name: str) -> None:
    (chosen,) = benchmarks.choose([name])
    sides = chosen.prepare(SMOKE)
    assert 0 <= sides.apart() <= chosen.tolerance


def spoil_logps(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = trainers.packed_logps

    def spoilt(*given: Any) -> tuple:
        logps, entropy = stock(*given)
        return logps * (1 + 1e-4), entropy

    swap(monkeypatch, trainers, "packed_logps", spoilt)


def spoil_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = score.completion_logps
    spoilt = lambda *given: [[x + 1e-4 for x in row] for row in stock(*given)]  # noqa: E731
    swap(monkeypatch, score, "completion_logps", spoilt)


def spoil_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = score.greedy_texts
    swap(monkeypatch, score, "greedy_texts", lambda *given: [*stock(*given)[:-1], "<answer>no</answer>"])


def spoil_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy tokens stay as they are; sampled ones get log-probs that are a little too high."""
    stock = generate.generate

    def spoilt(model: Any, tokenizer: Any, ids: Any, pictures: Any, sampling: Any) -> list:
        found = stock(model, tokenizer, ids, pictures, sampling)
        return [[replace(r, logps=tuple(x + 1e-4 for x in r.logps)) for r in row] for row in found]

    swap(monkeypatch, generate, "generate", spoilt)


def spoil_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = puzzles.draw_boards

    def spoilt(*given: Any) -> np.ndarray:
        boards = stock(*given).copy()
        boards[0, 0, 0, 0] ^= 1
        return boards

    swap(monkeypatch, puzzles, "draw_boards", spoilt)


def spoil_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = forward.scored_logits
    swap(monkeypatch, forward, "scored_logits", lambda *given, **more: stock(*given, **more) * (1 + 1e-4))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [("rft-step-kl", spoil_logps), ("sft-step", spoil_loss), ("scoring", spoil_scores), ("battery", spoil_answers),
     ("rollouts", spoil_rollouts), ("boards", spoil_boards), ("photos", spoil_boards)],
)  # fmt: skip
def test_a_fault_of_ours_is_seen(name: str, spoil: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    (chosen,) = benchmarks.choose([name])
    spoil(monkeypatch)
    assert chosen.prepare(SMOKE).apart() > chosen.tolerance


def test_rollouts_that_differ_in_a_token_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One greedy token of one prompt is another one."""
    stock = generate.generate

    def spoilt(model: Any, tokenizer: Any, ids: Any, pictures: Any, sampling: Any) -> list:
        found = stock(model, tokenizer, ids, pictures, sampling)
        if not sampling.temperature:
            found[-1][0] = replace(found[-1][0], ids=(*found[-1][0].ids[:-1], 5))
        return found

    swap(monkeypatch, generate, "generate", spoilt)
    assert benchmarks.rollouts_alone(SMOKE).apart() == 1 / SMOKE.prompts


def test_the_kl_term_has_something_to_compare() -> None:
    """Between the shipped model and itself a KL term has neither value nor gradient."""
    nudged, base = benchmarks.nudged_model(), build.load()
    boards = benchmarks.boards_of(SMOKE)
    asked = boards.prompted()[:2]
    texts = [["<think>sky</think><answer>2 1 4 3</answer>"]] * 2
    logps = [torch.cat([x for row in score.completion_logps(*m, asked, texts) for x in row]) for m in (nudged, base)]
    assert (logps[0] - logps[1]).abs().max() > 1e-2
    again = benchmarks.nudged_model()[0].state_dict()
    assert all(torch.equal(w, again[n]) for n, w in nudged[0].state_dict().items())


@pytest.mark.parametrize("name", ["rollouts", "scoring", "boards", "sft-step", "rft-peak"])
def test_both_sides_measure_something(name: str) -> None:
    (chosen,) = benchmarks.choose([name])
    sides = chosen.prepare(SMOKE)
    for side in (sides.ours, sides.stock):
        assert 0 < side() < math.inf


def test_nothing_is_learned_while_timing() -> None:
    trainer = benchmarks.sft_trainer(SMOKE, True)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    benchmarks.train(trainer)
    assert max(float((p.detach() - before[n]).abs().max()) for n, p in trainer.model.named_parameters()) < 1e-7


def test_the_stock_side_is_trls_own_with_its_best_settings_for_a_cpu() -> None:
    for make, kind in ((benchmarks.rft_trainer, GRPOTrainer), (benchmarks.sft_trainer, SFTTrainer)):
        given = benchmarks.Setting(SMOKE) if kind is GRPOTrainer else SMOKE
        ours, stock = (make(given, fast) for fast in (True, False))
        assert type(stock) is kind and isinstance(ours, kind) and type(ours) is not kind
        assert stock.args.to_dict() == ours.args.to_dict()
        assert not (stock.args.bf16 or stock.args.fp16 or stock.args.gradient_checkpointing)
        assert stock.args.optim == "adamw_torch_fused" and stock.args.save_strategy == "no"
        assert {p.dtype for p in stock.model.parameters()} == {torch.float32}
        assert stock.model.config._attn_implementation == "sdpa" == ours.model.config._attn_implementation


def test_rewards_vary_whatever_is_written() -> None:
    texts = ["<think>sky</think>", "<answer>2 1 4 3</answer>", "no", "a", "b"]
    found = benchmarks.varied_reward([[{"content": t}] for t in texts], prompts=None)
    assert found == [float(sum(t.encode()) % 7) for t in texts] and len(set(found)) > 2


class Steps:
    """A trainer of one linear layer: loss scale * w . x, so that the gradient is scale * x."""

    def __init__(self, scale: float, x: tuple[float, ...] = (3.0, 4.0)) -> None:
        self.model, self.x, self.scale = torch.nn.Linear(2, 1, bias=False), torch.tensor([x]), scale
        self.callbacks: list[Any] = []
        self.args = SimpleNamespace(max_steps=4)
        with torch.no_grad():
            self.model.weight.copy_(torch.tensor([[1.0, -1.0]]))

    def training_step(self, model: Any, *_: Any) -> torch.Tensor:
        loss = self.scale * model(self.x).sum()
        loss.backward()
        return loss.detach()

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def train(self) -> None:
        for callback in self.callbacks:
            callback.on_train_begin()
        self.model.zero_grad()
        self.training_step(self.model)
        for callback in self.callbacks:
            for _ in range(self.args.max_steps):
                time.sleep(0.01)
                callback.on_step_end()
        time.sleep(0.1)  # what follows the last update does not count


def test_gradients_apart_by_hand() -> None:
    assert benchmarks.losses_and_gradients(Steps(2.0))[0] == [-2.0]
    assert benchmarks.losses_and_gradients(Steps(2.0))[1]["weight"].tolist() == [[6.0, 8.0]]
    assert benchmarks.gradients_apart(Steps(1.0), Steps(1.0)) == 0
    assert benchmarks.gradients_apart(Steps(1.0, (3.0, 4.4)), Steps(1.0)) == pytest.approx(0.4)  # the loss, -1.4 to -1
    assert benchmarks.gradients_apart(Steps(1.0, (4.0, 5.0)), Steps(1.0)) == pytest.approx(2**0.5 / 5)
    with pytest.raises(UserError, match="gradient is zero"):
        benchmarks.gradients_apart(Steps(1.0), Steps(0.0))


def test_a_step_is_timed_from_the_first_batch_to_the_last_update() -> None:
    taken = benchmarks.stepper(Steps(1.0))()
    assert 0.01 <= taken < 0.03


# --------------------------------------------------------------------------------- the machinery


def test_sides_are_compared_then_warmed_up_then_measured_in_turn() -> None:
    calls: list[str] = []
    values = {"ours": iter([99.0, 3.0, 1.0, 2.0]), "stock": iter([99.0, 8.0, 30.0, 9.0])}

    def side(name: str) -> Callable[[], float]:
        return lambda: calls.append(name) or next(values[name])

    sides = Sides(side("ours"), side("stock"), lambda: calls.append("apart") or 1e-7, lambda: calls.append("close"))
    found = benchmarks.measure(case(prepare=lambda load: sides), replace(SMOKE, repeats=3))
    assert calls == ["apart", *["ours", "stock"] * 4, "close"]
    assert (found.ours, found.stock, found.apart, found.repeats) == (2.0, 9.0, 1e-7, 3)
    with pytest.raises(UserError, match="at least one repeat, not 0"):
        benchmarks.measure(case(), replace(SMOKE, repeats=0))


def test_what_was_started_is_ended_even_where_a_side_fails() -> None:
    ended: list[bool] = []
    sides = Sides(lambda: 1 / 0, lambda: 1.0, close=lambda: ended.append(True))
    with pytest.raises(ZeroDivisionError):
        benchmarks.measure(case(prepare=lambda load: sides), SMOKE)
    assert ended == [True]


@pytest.mark.parametrize(
    ("more", "ours", "stock", "apart", "ratio", "passed"),
    [
        ({"bar": 4.0}, 1.0, 4.0, 0.0, 4.0, True),
        ({"bar": 4.0}, 1.0, 3.9, 0.0, 3.9, False),
        ({"bar": 4.0}, 1.0, 8.0, 1.1e-5, 8.0, False),  # faster, but not the same
        ({"bar": 4.0, "tolerance": 0.0}, 1.0, 8.0, 1e-9, 8.0, False),
        ({"bar": 4.0, "unit": "tokens/s"}, 800.0, 200.0, 0.0, 4.0, True),
        ({"bar": 4.0, "unit": "tokens/s"}, 200.0, 800.0, 0.0, 0.25, False),
        ({"bar": 500.0, "unit": "boards/s", "judged": "ours"}, 501.0, 900.0, 0.0, 501 / 900, True),
        ({"bar": 500.0, "unit": "boards/s", "judged": "ours"}, 499.0, 1.0, 0.0, 499.0, False),
        ({}, 2.0, 1.0, 9.0, 0.5, None),
        ({"unit": "GFLOP/s"}, 60.0, 120.0, 0.0, 0.5, None),
    ],
)
def test_ratios_and_verdicts(more: dict, ours: float, stock: float, apart: float, ratio: float, passed: Any) -> None:
    found = Result(case(**more), ours, stock, apart, 5)
    assert found.ratio == pytest.approx(ratio) and found.passed is passed


def test_the_table_is_what_is_published() -> None:
    results = [
        Result(case(what="steps", bar=4.0), 0.125, 1.0, 3e-7, 5),
        Result(case(what="boards", unit="boards/s", bar=2000.0, judged="ours"), 1999.0, 500.0, 0.0, 5),
        Result(case(what="peak", unit="GFLOP/s"), 12345.6, 98765.4, 0.0, 5),
    ]
    frame = benchmarks.table(results)
    assert tuple(frame.columns) == COLUMNS == ("what", "ours", "stock", "ratio", "unit", "repeats", "machine")
    assert frame["ratio"].tolist() == pytest.approx([8, 3.998, 0.125], rel=1e-3)
    assert frame["machine"].nunique() == 1 and frame["repeats"].tolist() == [5] * 3
    lines = benchmarks.text_table(results).splitlines()
    assert lines[2] == "| steps | 0.125 | 1 | 8 | s | ratio ≥ 4 | 3e-07 | pass |"
    assert lines[3] == "| boards | 1,999 | 500 | 4 | boards/s | ours ≥ 2000 | 0 | fail |"
    assert lines[4] == "| peak | 12,346 | 98,765 | 0.125 | GFLOP/s | – | 0 | reported |"
    assert {line.count("|") for line in lines} == {9}


def test_the_machine_is_described_without_its_name() -> None:
    found = benchmarks.machine("2 threads")
    assert re.search(r", \d+ cores, 2 threads, torch \d+\.\d+", found)
    assert platform.node() not in found


def test_rows_are_chosen_by_name_in_the_tables_order() -> None:
    assert benchmarks.choose([]) == list(CASES)
    assert [c.name for c in benchmarks.choose(["photos", "rft-step"])] == ["rft-step", "photos"]
    with pytest.raises(UserError, match=r"There is no row quick, slow: choose from rft-step, "):
        benchmarks.choose(["slow", "rft-step", "quick"])


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A benchmark of two rows that take no time, in an empty folder."""
    rows = tuple(case(name=n, what=n, bar=2.0, prepare=lambda load: Sides(lambda: 1.0, lambda: 3.0)) for n in "ab")
    swap(monkeypatch, benchmarks, "CASES", rows)
    swap(monkeypatch, benchmarks, "settle", lambda threads=1: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "file", "rows"),
    [
        (["--profile", "cpu"], "figures/benchmarks.csv", "ab"),
        (["--profile", "cpu", "--only", "a"], None, ""),  # a part of the table must not replace all of it
        (["--profile", "smoke"], None, ""),
        (["--profile", "smoke", "--only", "b", "--folder", "mine"], "mine/benchmarks.csv", "b"),
    ],
)
def test_only_whole_tables_are_published(toy: Path, capsys: Any, arguments: list, file: str | None, rows: str) -> None:
    benchmarks.main([*arguments, "--repeats", "2"])
    written = {str(p.relative_to(toy)) for p in toy.rglob("*.csv")}
    assert written == ({file} if file else set())
    if file:
        frame = pd.read_csv(toy / file)
        assert tuple(frame.columns) == COLUMNS and "".join(frame["what"]) == rows
        assert set(frame["ratio"]) == {3} and set(frame["repeats"]) == {2}
    said = capsys.readouterr().out
    assert "medians of 2" in said and "| pass |" in said


def test_a_wrong_row_is_told_before_anything_is_measured(toy: Path) -> None:
    with pytest.raises(UserError, match="There is no row c"):
        benchmarks.main(["--only", "c"])


# --------------------------------------------------------------------------------------- counting


def test_products_and_attention_are_counted_as_by_hand() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert benchmarks.count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    assert benchmarks.count_flops(lambda: a + a) == 0
    layer, x = torch.nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    both_ways = benchmarks.count_flops(lambda: layer(x).sum().backward())
    assert both_ways == 3 * 2 * 3 * 5 * 7  # forward, to the input, to the weight
    q, k, v = (torch.randn(2, 3, n, 16, requires_grad=True) for n in (11, 13, 13))
    attend = torch.nn.functional.scaled_dot_product_attention
    forward = 2 * (2 * 3) * 2 * 11 * 13 * 16  # scores and mixture, per picture and head
    with torch.no_grad():
        assert benchmarks.count_flops(lambda: attend(q, k, v)) == forward
    # backwards: the scores again, then to the scores, to the values, to the queries, to the keys
    assert benchmarks.count_flops(lambda: attend(q, k, v).sum().backward()) == forward + 5 * forward // 2


def test_what_runs_in_inference_mode_is_counted_too() -> None:
    class Scale(torch.nn.Module):
        def forward(self, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return x @ weight.T

    layer, scale, x = torch.nn.Linear(5, 7), Scale(), torch.randn(3, 5)

    def work() -> None:
        with torch.inference_mode():
            layer(x)
            scale(layer.weight, x)  # a module that is given a weight

    assert benchmarks.count_flops(work) == 2 * 2 * 3 * 5 * 7


def test_a_packed_sft_step_needs_less_matrix_work_than_the_stock_one() -> None:
    ours, stock = (benchmarks.count_flops(benchmarks.sft_trainer(SMOKE, fast).train) for fast in (True, False))
    weights = sum(p.numel() for p in build.load()[0].model.language_model.layers.parameters())
    assert 2 * 3 * weights * SMOKE.samples < ours < stock  # at the very least each sample's few tokens pass through


# ------------------------------------------------------------------------------------ side by side


class FakeWorker:
    """Takes no time; writes down what it is told."""

    log: list[tuple[str, int]] = []  # noqa: RUF012 -- emptied by the test

    def __init__(self, threads: int, profile: str) -> None:
        self.threads = threads
        self.log.append((profile, threads))

    def go(self) -> None:
        self.log.append(("go", self.threads))

    def wait(self) -> None:
        self.log.append(("wait", self.threads))

    def close(self) -> None:
        self.log.append(("close", self.threads))


def test_two_single_workers_run_together_and_the_double_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, benchmarks, "Worker", FakeWorker)
    swap(monkeypatch, benchmarks, "seconds", lambda work: work() or 0.5)
    monkeypatch.setattr(FakeWorker, "log", [])
    sides = benchmarks.side_by_side(replace(LOADS["cpu"], repeats=9))
    assert FakeWorker.log == [("cpu", 1), ("cpu", 1), ("cpu", 2), ("wait", 1), ("wait", 1), ("wait", 2)]
    FakeWorker.log.clear()
    steps = 2 * LOADS["cpu"].steps
    assert sides.ours() == sides.stock() == steps / 0.5
    single = [("go", 1), ("go", 1), ("wait", 1), ("wait", 1)]
    assert FakeWorker.log == [*single, ("go", 2), ("wait", 2), ("go", 2), ("wait", 2)]
    FakeWorker.log.clear()
    sides.close()
    assert sorted(FakeWorker.log) == [("close", 1), ("close", 1), ("close", 2)]
    with pytest.raises(UserError, match="one of the loads cpu, smoke"):
        benchmarks.side_by_side(replace(LOADS["cpu"], prompts=3))


def test_a_worker_that_stops_early_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; print('done', flush=True); sys.stdin.readline(); print('done', flush=True)"
    stock = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: stock([sys.executable, "-c", script], **how))
    worker = benchmarks.Worker(1, "smoke")
    worker.wait()
    worker.go()
    worker.wait()
    with pytest.raises(UserError, match="stopped early"):
        worker.wait()
    worker.close()
    assert worker.process.returncode is not None


def test_a_workers_life(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    taken: list[int] = []
    swap(monkeypatch, benchmarks, "settle", lambda threads: taken.append(threads))
    swap(monkeypatch, benchmarks, "rft_trainer", lambda setting, fast: (setting, fast))
    swap(monkeypatch, benchmarks, "stepper", lambda trainer: lambda: taken.append(trainer[0].load.steps))
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\ngo\n"))
    benchmarks.work_for_parent(2, Load(steps=7))
    assert taken == [2, 7, 7, 7] and capsys.readouterr().out == "done\n" * 3


# ---------------------------------------------------------------------------------------- scaling


@pytest.mark.parametrize("axis", benchmarks.SCALING)
def test_each_axis_changes_one_thing(axis: str) -> None:
    load = LOADS["cpu"]
    for value in benchmarks.SCALING[axis]:
        setting = benchmarks.scaling_setting(axis, value, load)
        seen = {
            "group size": setting.load.group,
            "completion length": setting.load.tokens,
            "picture size": setting.size,
        }
        usual = {"group size": 8, "completion length": 16, "picture size": 64}
        assert seen == usual | ({axis: value} if axis in usual else {})
        assert (setting.load.prompts, setting.load.steps) == (8, 1)


@pytest.mark.parametrize("width", benchmarks.SCALING["model width"])
def test_models_of_every_width_work(width: int) -> None:
    model, processor = benchmarks.scaling_setting("model width", width, LOADS["cpu"]).load_model()
    assert model.config.text_config.hidden_size == width
    heads = model.config.text_config.num_attention_heads
    assert sum(model.config.text_config.rope_parameters["mrope_section"]) == width // heads // 2
    asked = [Prompted(np.zeros((32, 32, 3), np.uint8), "?")]
    (row,) = score.completion_logps(model, processor, asked, [["sky"]])
    assert (row[0] < 0).all()


def test_scaling_rows_become_a_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    asked: list[Any] = []

    def sides(setting: Any) -> Sides:
        asked.append(setting)
        return Sides(lambda: 0.1 * setting.load.group, lambda: 0.6 * setting.load.group)

    swap(monkeypatch, benchmarks, "_both_trainers", sides)
    rows = benchmarks.scaling_rows(SMOKE, {"group size": (2, 4), "picture size": (32, 64)})
    assert [(s.load.group, s.size) for s in asked] == [(2, 64), (4, 64), (SMOKE.group, 32), (SMOKE.group, 64)]
    assert tuple(rows.columns) == ("axis", "value", "side", "seconds", "repeats") and len(rows) == 8
    wide = rows.pivot(index=["axis", "value"], columns="side", values="seconds")
    assert (wide["TRL alone"] / wide["this suite"]).tolist() == pytest.approx([6.0] * 4)
    assert "group size 4: 0.4 s, stock 2.4 s" in capsys.readouterr().out
    saved = benchmarks.save_scaling(rows, tmp_path)
    assert "faster: group size 4: 6.0 times; picture size 64: 6.0 times." in saved.alt
    assert pd.read_csv(tmp_path / "scaling.csv").equals(rows)
    fig = benchmarks.scaling_figure(rows)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["group size", "picture size"]
    assert [[line.get_ydata().tolist() for line in ax.lines[:2]] for ax in fig.axes][0] == [
        pytest.approx([0.2, 0.4]), pytest.approx([1.2, 2.4]),
    ]  # fmt: skip


def test_the_readmes_table_says_which_bars_are_reached() -> None:
    rows = benchmarks.table(
        [Result(c, ours, stock, 0.0, 5) for c, ours, stock in zip(CASES[:1] + CASES[-4:], (1, 1900, 501, 60, 60),
                                                                  (4.1, 900, 9, 120, 120), strict=True)]
    )  # fmt: skip
    lines = benchmarks.readme_table(rows).splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["yes |", "**no** |", "yes |", "– |", "– |"]
    assert " | ratio ≥ 4 | " in lines[2] and " | this suite ≥ 2000 | " in lines[3]
    assert all(row.what in line for row, line in zip(rows.itertuples(), lines[2:], strict=True))
