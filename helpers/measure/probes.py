"""The probability landscape: how probable samples are under the base model, and how training shifts them.

A fixed probe set (held-out boards and prior samples with completions of several kinds) is scored under every
checkpoint of every run. `python -m helpers score --profile cpu` does it for a finished study.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from helpers.errors import UserError
from helpers.files import write_file
from helpers.measure.shared import published_table
from helpers.model import build, score
from helpers.model.build import Loaded
from helpers.model.forward import Model
from helpers.model.score import completion_logps
from helpers.processes import end_with
from helpers.stats.intervals import in_words, seed_interval
from helpers.study import checkpoints, published
from helpers.study.arms import SOURCE_ARM
from helpers.study.profiles import Profile, specs
from helpers.study.published import (
    PUBLISHED,
    as_published,
    check_published,
    published_runs,
    published_specs,
    publishing,
    write_runs,
    write_table,
)
from helpers.study.records import Run, RunStore
from helpers.study.spec import RunSpec
from helpers.train import corpora, engine
from helpers.train.corpora import answer
from helpers.world import battery, seeds
from helpers.world.boards import Boards, Prompted, training_boards

PROBES: Mapping[str, str] = MappingProxyType(
    {
        "answer": "right: the bare true placement",
        "expert": "right: the outside teacher's explanation",
        "rollout": "right: written by the RFT model",
        "base-right": "right: written by the base model",
        "wrong": "wrong: the rollout with another placement",
        "shuffled": "nonsense: the rollout's tokens in another order",
        "prior-gold": "prior tasks: the gold answer",
        "prior-model": "prior tasks: the base model's own answer",
    }
)

PROBE_COLUMNS = ("probe", "item", "task", "number", "completion")


def make_probes(profile: Profile, base: Loaded, rft: Model, n: int) -> pd.DataFrame:
    """The probe set: up to `n` held-out boards and as many prior samples, each with completions of every kind.

    Columns probe (a key of `PROBES`), item, task ("puzzle" or a prior task), number (of its board or sample),
    completion. `base` is (model, processor), `rft` a trained RFT model. A board that a model did not solve in 96
    (base) or 24 (RFT) tries has no completion of that kind.
    """
    boards = probe_boards(profile, n)
    written = {"answer": corpora.answer_completions(boards)}
    if (profile.rows, profile.cols) == (2, 2):
        written["expert"] = corpora.expert_completions(boards)
    written["rollout"] = corpora.rollout_completions(Loaded(rft, base[1]), boards, seeds.PROBES, rounds=6)
    written["base-right"] = corpora.rollout_completions(base, boards, seeds.PROBES, tries=16, rounds=6)
    pairs = [(text, boards.placements[i].tolist()) for i, text in enumerate(written["rollout"])]
    written["wrong"] = [text and misplace(text, placement) for text, placement in pairs]
    written["shuffled"] = [text and shuffle_tokens(base[1].tokenizer, text, i) for i, (text, _) in enumerate(pairs)]
    rows = [(kind, i, "puzzle", i, text) for kind, texts in written.items() for i, text in enumerate(texts) if text]
    return pd.DataFrame([*rows, *_prior_rows(base, n)], columns=PROBE_COLUMNS)


def probe_boards(profile: Profile, n: int) -> Boards:
    """The first `n` boards of the probe set, which no run trains on and no evaluation uses."""
    return training_boards(profile.puzzle, n, seeds.PROBES)


def misplace(text: str, placement: Sequence[int]) -> str:
    """The completion with a wrong placement: the true one turned by one place.

    By two where one would give the solved board, which no puzzle shows, so that models learn to avoid it.
    """
    turned = [[*placement[k:], *placement[:k]] for k in (1, 2)]
    wrong = next((p for p in turned if p not in (sorted(p), [*placement])), turned[0])
    return text.split("<answer>")[0] + answer(wrong)


def shuffle_tokens(tokenizer: PreTrainedTokenizerBase, text: str, item: int) -> str | None:
    """The completion's tokens in another order, fixed by the item.

    Orders whose text the tokenizer would cut into other tokens are passed over; None where 100 orders all are.
    """
    # A text can be cut in several ways, and what is scored is the text: it must be cut into the very tokens meant.
    ids, rng = tokenizer(text, add_special_tokens=False)["input_ids"], np.random.default_rng((seeds.PROBES, item))
    for _ in range(100):
        mixed = [ids[k] for k in rng.permutation(len(ids))]
        other = tokenizer.decode(mixed)
        if mixed != ids and tokenizer(other, add_special_tokens=False)["input_ids"] == mixed:
            return other
    return None


def _prior_rows(base: Loaded, n: int) -> list[tuple]:
    """Probe rows of about `n` prior samples, spread over all tasks: gold answers and the base's greedy ones."""
    tasks = battery.battery_tasks()
    each = -(-n // len(tasks))
    samples = [(task, k, s) for task in tasks for k, s in enumerate(battery.battery_samples(task, each))]
    own = score.complete(*base, [Prompted(s.pixels, s.question.text) for _, _, s in samples])
    gold = [("prior-gold", i, task, k, s.question.completion) for i, (task, k, s) in enumerate(samples)]
    return gold + [("prior-model", i, task, k, own[i][0]) for i, (task, k, _) in enumerate(samples)]


def prompts_of(profile: Profile, probes: pd.DataFrame) -> list[Prompted]:
    """The picture and question of each probe, drawn again from its task and number."""
    boards = probe_boards(profile, int(probes.loc[probes["task"] == "puzzle", "number"].max()) + 1).prompted()
    most = probes.groupby("task")["number"].max() + 1

    def prompt(task: str, number: int) -> Prompted:
        if task == "puzzle":
            return boards[number]
        sample = battery.battery_samples(task, int(most[task]))[number]
        return Prompted(sample.pixels, sample.question.text)

    return list(map(prompt, probes["task"], probes["number"]))


def score_probes(model: Model, processor: ProcessorMixin, profile: Profile, probes: pd.DataFrame) -> list[np.ndarray]:
    """Log-probs (tokens,) of each probe's completion in nats, end token included, T = 1.

    Completions of one prompt share a packed row, so each picture is passed once.
    """
    prompts, texts, together = prompts_of(profile, probes), probes["completion"].tolist(), {}
    for place, key in enumerate(zip(probes["task"], probes["number"], strict=True)):
        together.setdefault(key, []).append(place)
    groups = list(together.values())
    written = [[texts[place] for place in group] for group in groups]
    rows = completion_logps(model, processor, [prompts[group[0]] for group in groups], written, chunk=32)
    # Groups gather probes from all over the table: put each row's log-probs back in its place.
    places, logps = [place for group in groups for place in group], [one.numpy() for row in rows for one in row]
    return [logps[k] for k in np.argsort(places)]


@dataclass(frozen=True)
class ProbeStore:
    """Where the probes of a profile live: the set itself, and a store with one record of log-probs per run.

    The RFT run that wrote part of the set names its folder, so that probes of an earlier study are never taken for
    those of this one.
    """

    profile: Profile

    @property
    def source(self) -> RunSpec:
        """The run whose last checkpoint writes the `rollout` probes: RFT of the first seed."""
        return specs(self.profile, [SOURCE_ARM])[0]

    @property
    def scores(self) -> RunStore:
        """One record per run, holding nothing but its probes table."""
        return RunStore(Path("runs") / f"{self.profile.name}-probes" / self.source.hash)

    @property
    def set_file(self) -> Path:
        """The probe set as CSV."""
        return self.scores.root / "probe_set.csv"

    def probes(self, n: int) -> pd.DataFrame:
        """The probe set, made on first use from the base model and the source's last checkpoint."""
        if self.set_file.exists():
            return read_probes(self.set_file)
        build.quiet_cpu()
        rft, _ = build.load(checkpoints.checkpoint_at(published.store(self.profile).checkpoints(self.source)))
        made = make_probes(self.profile, engine.load_base(self.source), rft, n)
        write_file(self.set_file, made.to_csv(index=False))
        return made

    def table(self, arms: Sequence[str]) -> pd.DataFrame | None:
        """The log-probs of all runs of some arms; None where not all of them have been scored here."""
        wanted = specs(self.profile, arms)
        if not self.set_file.exists() or self.scores.plan(wanted):
            return None
        return as_published(self.scores, "probes", [spec.name for spec in wanted])


def read_probes(path: Path) -> pd.DataFrame:
    """A probe set from its CSV. Raises UserError where it is missing, damaged or has other columns."""
    if not path.is_file():
        raise UserError(f"{path} is missing: restore it, or make it with python -m helpers score.")
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()), keep_default_na=False)
    except ValueError as error:  # no table, or no text
        raise UserError(f"{path} is damaged: restore it, or delete the folder it is in and score again.") from error
    if tuple(table.columns) != PROBE_COLUMNS or not len(table):
        raise UserError(f"{path} must have the columns {', '.join(PROBE_COLUMNS)}: restore it.")
    # Empty text is a value here (`keep_default_na`), but a gap makes a column of numbers one of text.
    if table.isna().any(axis=None) or any(table[name].dtype.kind not in "iu" for name in ("item", "number")):
        raise UserError(f"{path} lacks a value: restore it, or delete the folder it is in and score again.")
    return table


def score_run(profile: Profile, spec: RunSpec, n: int) -> None:
    """Score the probe set under every checkpoint of one run (step 0 is the base model); nothing if that is done.

    Log-probs are kept to a thousandth of a nat: further digits would double the published file and say nothing.
    """
    store = ProbeStore(profile)
    with published.store(profile).in_use(spec.name), store.scores.owned(spec.name):
        run = store.scores.start(spec)
        if not run.done:
            _score(run, profile, n)


def _score(run: Run, profile: Profile, n: int) -> None:
    spec, store = run.spec, ProbeStore(profile)
    build.quiet_cpu()
    torch.set_num_threads(1)
    probes, folder = store.probes(n), published.store(profile).checkpoints(spec)
    if spec.steps:
        checkpoints.checkpoint_at(folder)  # a UserError where the run's checkpoints have been deleted
    run.truncate(-1)
    for step in (0, *checkpoints.checkpoint_numbers(folder)):
        source = checkpoints.checkpoint_at(folder, step) if step else None
        model, processor = build.load(source) if source else engine.load_base(spec)
        scored = score_probes(model, processor, profile, probes)
        run.append("probes", [
            {"step": step, "probe": probe, "item": item, "logp": round(float(logps.sum()), 3), "tokens": len(logps)}
            for probe, item, logps in zip(probes["probe"], probes["item"], scored, strict=True)
        ])  # fmt: skip
    run.finish()


def score_study(profile: Profile, arms: Sequence[str], n: int, jobs: int = 2) -> None:
    """Score every run of some arms, `jobs` processes side by side. Resumable run by run.

    Raises UserError where a run has not been trained here: probes are scored under its checkpoints.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by each process when it first computes
    store, wanted = ProbeStore(profile), specs(profile, arms)
    missing = published.store(profile).plan([*wanted, store.source])
    if missing:
        raise UserError(
            f"Probes are scored under checkpoints, which {len(missing)} runs lack here ({missing[0].name} first): "
            f"train them with python -m helpers train --profile {profile.name}, or restore {PUBLISHED}/probes.parquet."
        )
    store.probes(n)
    if jobs == 1:
        for spec in wanted:
            score_run(profile, spec, n)
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, get_context("spawn"), end_with, (os.getpid(),)) as pool:
        for done in [pool.submit(score_run, profile, spec, n) for spec in wanted]:
            done.result()


def ensure(profile: Profile, retrain: bool, arms: Sequence[str], n: int) -> None:
    """Score what is missing; at `cpu` the published scores stand in unless `retrain` asks for new ones.

    Raises UserError where there is nothing published and the runs have not been trained here.
    """
    if (ProbeStore(profile).table(arms) if retrain else _known(profile, arms)) is None:
        score_study(profile, arms, n, jobs=1 if profile.name == "smoke" else 2)


def publish_probes(profile: Profile, arms: Sequence[str], destination: Path = PUBLISHED) -> None:
    """Put the probe set and its log-probs where a fresh clone finds them. UserError where some are still to score."""
    store = ProbeStore(profile)
    scored = store.table(arms)
    if scored is None:
        raise UserError(f"Not all runs are scored: python -m helpers score --profile {profile.name} first.")
    _together(store.set_file, scored)
    with publishing(destination):
        write_table(destination, "probes", scored)
        write_file(destination / "probe_set.csv", store.set_file.read_bytes())
        write_runs(destination, published_runs(destination), ["probes.parquet", "probe_set.csv"])


def probe_tables(profile: Profile, arms: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(probe set, its log-probs under every checkpoint): made on this machine, or at `cpu` the published ones.

    Raises UserError where there are neither, or where set and log-probs do not belong together.
    """
    known = _known(profile, arms)
    if known is None:
        raise UserError(f"There are no probes of {profile.name}: python -m helpers score --profile {profile.name}.")
    return known


def _known(profile: Profile, arms: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """(probe set, log-probs) of this machine, else at `cpu` the published ones; None where there are neither."""
    store = ProbeStore(profile)
    made, path = store.table(arms), PUBLISHED / "probe_set.csv"
    if made is not None:
        return _together(store.set_file, made)
    if profile.name != "cpu" or not path.exists():
        return None
    scored = published_table(PUBLISHED, "probes")
    if scored.empty:  # as publishing a study anew leaves it
        return None
    strangers = set(scored["run"]) - set(published_specs(PUBLISHED))
    if strangers:
        raise UserError(f"The published probes are of other runs ({min(strangers)}): score and publish them again.")
    known = _together(path, scored)
    check_published(path)  # last: what is wrong inside says more than that something is
    return known


def _together(path: Path, scored: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A probe set and its log-probs; UserError unless every run scored every probe, and no other, at each step."""
    probes = read_probes(path)
    known = set(zip(probes["probe"], probes["item"], strict=True))
    for (run, step), part in scored.groupby(["run", "step"]):
        if len(part) != len(probes) or set(zip(part["probe"], part["item"], strict=True)) != known:
            raise UserError(f"{path} is not the probe set that {run} was scored with at step {step}: score it again.")
    return probes, scored


def shifts(scored: pd.DataFrame) -> pd.DataFrame:
    """Mean shift of each kind of probe, per run and step: log-prob under the checkpoint minus base log-prob.

    `scored`: the probes table. Columns run, arm, seed, step, probe, value (nats per completion), per_token (nats
    per token, tokens pooled).
    """
    start = scored[scored["step"] == 0].drop_duplicates(["run", "probe", "item"])
    both = scored.merge(start[["run", "probe", "item", "logp"]], on=["run", "probe", "item"], suffixes=("", "_base"))
    both["shift"] = both["logp"] - both["logp_base"]
    grouped = both.groupby(["run", "arm", "seed", "step", "probe"], sort=False)
    sums = grouped[["shift", "tokens"]].sum()
    shifted = grouped["shift"].mean().to_frame("value").assign(per_token=sums["shift"] / sums["tokens"])
    return shifted.reset_index()


def movement(shifted: pd.DataFrame, arm: str, probe: str) -> str:
    """Whether one kind of probe rose or fell under an arm, in words: mean shift per completion over seeds.

    `shifted`: rows of `shifts`, one step per run. Rose or fell only where the 95% t interval of at least three seeds
    leaves out 0.
    """
    values = shifted[(shifted["arm"] == arm) & (shifted["probe"] == probe)]["value"]
    moved = seed_interval(values)
    if len(values) < 3:
        return f"{probe} {moved.mean:+.2f} nats, too few seeds ({len(values)}) to say more"
    verdict = "rose" if moved.low > 0 else "fell" if moved.high < 0 else "is not seen to move"
    return f"{probe} {verdict}: {in_words(moved, '+.2f', len(values), 'nats')}"
