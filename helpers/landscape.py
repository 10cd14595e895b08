"""The probability landscape: how probable samples are under the base model, and how training shifts them.

A fixed probe set (held-out boards and prior samples with completions of several kinds) is scored under every
checkpoint of every run. `python -m helpers.landscape --profile cpu` does it for a finished study.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError
from helpers.profiles import RFT_ARMS, Profile, RunSpec, get_profile, specs
from helpers.records import RunStore, as_published, load_published, published_specs, write_file, write_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from helpers.corpora import Boards
    from helpers.live import Corpus
    from helpers.puzzles import PuzzleSpec
    from helpers.scoring import Prompted

PROBE_SEED = 800  # boards of no run: training ones are of small seeds, held-out ones of other scenes
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
PUBLISHED = Path("figures/records")
STREAMED = (*RFT_ARMS, "sft-stream")
EXACT_ORDERS = 8  # up to so many arms, every order of them is tried; beyond, a random sample of orders


# --- the probe set ----------------------------------------------------------------------------------------


def make_probes(profile: Profile, base: tuple[Any, Any], rft: Any, n: int) -> pd.DataFrame:
    """The probe set: up to `n` held-out boards and as many prior samples, each with completions of every kind.

    Columns probe (a key of `PROBES`), item, task ("puzzle" or a prior task), number (of its board or sample),
    completion. `base` is (model, processor), `rft` a trained RFT model. A board that a model did not solve in 96
    (base) or 24 (RFT) tries has no completion of that kind.
    """
    import pandas as pd

    from helpers import corpora

    boards = probe_boards(profile, n)
    written = {"answer": corpora.answer_completions(boards)}
    if (profile.rows, profile.cols) == (2, 2):
        written["expert"] = corpora.expert_completions(boards)
    written["rollout"] = corpora.rollout_completions(rft, base[1], boards, PROBE_SEED, rounds=6)
    written["base-right"] = corpora.rollout_completions(*base, boards, PROBE_SEED, tries=16, rounds=6)
    pairs = [(text, boards.placements[i].tolist()) for i, text in enumerate(written["rollout"])]
    written["wrong"] = [text and misplace(text, placement) for text, placement in pairs]
    written["shuffled"] = [text and shuffle_tokens(base[1].tokenizer, text, i) for i, (text, _) in enumerate(pairs)]
    rows = [(kind, i, "puzzle", i, text) for kind, texts in written.items() for i, text in enumerate(texts) if text]
    return pd.DataFrame([*rows, *_prior_rows(base, n)], columns=PROBE_COLUMNS)


def probe_boards(profile: Profile, n: int) -> Boards:
    """The first `n` boards of the probe set, which no run trains on and no evaluation uses."""
    from helpers import corpora

    return corpora.training_boards(puzzle_spec(profile), n, PROBE_SEED)


def puzzle_spec(profile: Profile) -> PuzzleSpec:
    """The puzzles of a profile."""
    from helpers.puzzles import PuzzleSpec

    return PuzzleSpec(profile.rows, profile.cols, size=profile.size)


def misplace(text: str, placement: Sequence[int]) -> str:
    """The completion with a wrong placement: the true one turned by one place.

    By two where one would give the solved board, which no puzzle shows, so that models learn to avoid it.
    """
    from helpers.corpora import answer

    turned = [[*placement[k:], *placement[:k]] for k in (1, 2)]
    wrong = next((p for p in turned if p not in (sorted(p), [*placement])), turned[0])
    return text.split("<answer>")[0] + answer(wrong)


def shuffle_tokens(tokenizer: Any, text: str, item: int) -> str | None:
    """The completion's tokens in another order, fixed by the item.

    Orders whose text the tokenizer would cut into other tokens are passed over; None where 100 orders all are.
    """
    import numpy as np

    ids, rng = tokenizer(text, add_special_tokens=False)["input_ids"], np.random.default_rng((PROBE_SEED, item))
    for _ in range(100):
        mixed = [ids[k] for k in rng.permutation(len(ids))]
        found = tokenizer.decode(mixed)
        if mixed != ids and tokenizer(found, add_special_tokens=False)["input_ids"] == mixed:
            return found
    return None


def _prior_rows(base: tuple[Any, Any], n: int) -> list[tuple]:
    """Probe rows of about `n` prior samples, spread over all tasks: gold answers and the base's greedy ones."""
    from helpers import prior_tasks, scoring

    tasks = prior_tasks.battery_tasks()
    each = -(-n // len(tasks))
    samples = [(task, k, s) for task in tasks for k, s in enumerate(scoring.battery_samples(task, each))]
    own = scoring.complete(*base, [scoring.Prompted(s.pixels, s.question.text) for _, _, s in samples])
    gold = [("prior-gold", i, task, k, s.question.completion) for i, (task, k, s) in enumerate(samples)]
    return gold + [("prior-model", i, task, k, own[i][0]) for i, (task, k, _) in enumerate(samples)]


def prompts_of(profile: Profile, probes: pd.DataFrame) -> list[Prompted]:
    """The picture and question of each probe, drawn again from its task and number."""
    from helpers import scoring

    boards = probe_boards(profile, int(probes.loc[probes["task"] == "puzzle", "number"].max()) + 1)
    most = probes.groupby("task")["number"].max() + 1
    found = []
    for task, number in zip(probes["task"], probes["number"], strict=True):
        if task == "puzzle":
            found.append(scoring.Prompted(boards.pixels[number], boards.text))
        else:
            sample = scoring.battery_samples(task, int(most[task]))[number]
            found.append(scoring.Prompted(sample.pixels, sample.question.text))
    return found


def score_probes(model: Any, processor: Any, profile: Profile, probes: pd.DataFrame) -> list[np.ndarray]:
    """Log-probs (tokens,) of each probe's completion in nats, end token included, T = 1.

    Completions of one prompt share a packed row, so each picture is passed once.
    """
    from helpers.scoring import completion_logps

    prompts, together = prompts_of(profile, probes), {}
    for place, key in enumerate(zip(probes["task"], probes["number"], strict=True)):
        together.setdefault(key, []).append(place)
    texts = probes["completion"].tolist()
    shared = [prompts[places[0]] for places in together.values()]
    found = completion_logps(model, processor, shared, [[texts[i] for i in p] for p in together.values()], chunk=32)
    flat = {i: logps.numpy() for places, row in zip(together.values(), found, strict=True)
            for i, logps in zip(places, row, strict=True)}  # fmt: skip
    return [flat[i] for i in range(len(texts))]


# --- scoring a study --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeStore:
    """Where the probes of a profile live: the set itself, and a store with one record of log-probs per run.

    The RFT run that wrote part of the set names its folder, so that probes of an earlier study are never taken for
    those of this one.
    """

    profile: Profile

    @property
    def runs(self) -> RunStore:
        """The trained runs."""
        return RunStore(Path("runs") / self.profile.name)

    @property
    def source(self) -> RunSpec:
        """The run whose last checkpoint writes the `rollout` probes: RFT of the first seed."""
        return specs(self.profile, ["rft"])[0]

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
        from helpers import models, training

        if self.set_file.exists():
            return read_probes(self.set_file)
        models.quiet_cpu()
        rft, _ = models.load(training.checkpoint_at(self.runs.folder(self.source) / "checkpoints"))
        made = make_probes(self.profile, training.load_base(self.source), rft, n)
        write_file(self.set_file, made.to_csv(index=False).encode())
        return made

    def table(self, arms: Sequence[str]) -> pd.DataFrame | None:
        """The log-probs of all runs of some arms; None where not all of them have been scored here."""
        wanted = specs(self.profile, arms)
        if not self.set_file.exists() or self.scores.plan(wanted):
            return None
        return as_published(self.scores, "probes", [spec.name for spec in wanted])


def read_probes(path: Path) -> pd.DataFrame:
    """A probe set from its CSV. Raises UserError where it is missing, damaged or has other columns."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path} is missing: restore it, or make it with python -m helpers.landscape.")
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()), keep_default_na=False)
    except ValueError as error:  # no table, or no text
        raise UserError(f"{path} is damaged: restore it, or delete the folder it is in and score again.") from error
    if tuple(table.columns) != PROBE_COLUMNS or not len(table):
        raise UserError(f"{path} must have the columns {', '.join(PROBE_COLUMNS)}: restore it.")
    if table.isna().any(axis=None) or any(table[name].dtype.kind not in "iu" for name in ("item", "number")):
        raise UserError(f"{path} lacks a value: restore it, or delete the folder it is in and score again.")
    return table


def score_run(profile: Profile, spec: RunSpec, n: int) -> None:
    """Score the probe set under every checkpoint of one run (step 0 is the base model); nothing if that is done.

    Log-probs are kept to a thousandth of a nat: further digits would double the published file and say nothing.
    """
    import torch

    from helpers import models, training

    store = ProbeStore(profile)
    run = store.scores.start(spec)
    if run.done:
        return
    models.quiet_cpu()
    torch.set_num_threads(1)
    probes, folder = store.probes(n), store.runs.folder(spec) / "checkpoints"
    if spec.steps:
        training.checkpoint_at(folder)  # a UserError where the run's checkpoints have been deleted
    run.truncate(-1)
    for step in (0, *training.checkpoint_numbers(folder)):
        source = training.checkpoint_at(folder, step) if step else None
        model, processor = models.load(source) if source else training.load_base(spec)
        found = score_probes(model, processor, profile, probes)
        run.append("probes", [
            {"step": step, "probe": probe, "item": item, "logp": round(float(logps.sum()), 3), "tokens": len(logps)}
            for probe, item, logps in zip(probes["probe"], probes["item"], found, strict=True)
        ])  # fmt: skip
    run.finish()


def score_study(profile: Profile, arms: Sequence[str], n: int, jobs: int = 2) -> None:
    """Score every run of some arms, `jobs` processes side by side. Resumable run by run.

    Raises UserError where a run has not been trained here: probes are scored under its checkpoints.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by each process when it first computes
    store, wanted = ProbeStore(profile), specs(profile, arms)
    missing = store.runs.plan([*wanted, store.source])
    if missing:
        raise UserError(
            f"Probes are scored under checkpoints, which {len(missing)} runs lack here ({missing[0].name} first): "
            f"train them with python -m helpers.study --profile {profile.name}, or restore {PUBLISHED}/probes.parquet."
        )
    store.probes(n)
    if jobs == 1:
        for spec in wanted:
            score_run(profile, spec, n)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for done in [pool.submit(score_run, profile, spec, n) for spec in wanted]:
            done.result()


def ensure(profile: Profile, retrain: bool, arms: Sequence[str], n: int) -> None:
    """Score what is missing; at `cpu` the published scores stand in unless `retrain` asks for new ones.

    Raises UserError where there is nothing published and the runs have not been trained here.
    """
    if ProbeStore(profile).table(arms) is not None:
        return
    if profile.name == "cpu" and not retrain and _published() is not None:
        return
    score_study(profile, arms, n, jobs=1 if profile.name == "smoke" else 2)


def publish_probes(profile: Profile, arms: Sequence[str], destination: Path = PUBLISHED) -> None:
    """Put the probe set and its log-probs where a fresh clone finds them. UserError where some are still to score."""
    store = ProbeStore(profile)
    found = store.table(arms)
    if found is None:
        raise UserError(f"Not all runs are scored: python -m helpers.landscape --profile {profile.name} first.")
    _together(store.set_file, found)
    write_table(destination / "probes.parquet", "probes", found)
    write_file(destination / "probe_set.csv", store.set_file.read_bytes())


def probe_tables(profile: Profile, arms: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(probe set, its log-probs under every checkpoint): made on this machine, or at `cpu` the published ones.

    Raises UserError where there are neither, or where set and log-probs do not belong together.
    """
    store = ProbeStore(profile)
    made = store.table(arms)
    if made is not None:
        return _together(store.set_file, made)
    found = _published() if profile.name == "cpu" else None
    if found is None:
        raise UserError(f"There are no probes of {profile.name}: python -m helpers.landscape --profile {profile.name}.")
    return found


def _published() -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The published (probe set, log-probs), or None; publishing a study anew empties the table of log-probs."""
    if not (PUBLISHED / "probe_set.csv").exists() or not (PUBLISHED / "probes.parquet").exists():
        return None
    found = load_published(PUBLISHED, "probes")
    if found.empty:
        return None
    strangers = set(found["run"]) - set(published_specs(PUBLISHED))
    if strangers:
        raise UserError(f"The published probes are of other runs ({min(strangers)}): score and publish them again.")
    return _together(PUBLISHED / "probe_set.csv", found)


def _together(path: Path, scored: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A probe set and its log-probs; UserError unless every run scored every probe, and no other, at each step."""
    probes = read_probes(path)
    known = set(zip(probes["probe"], probes["item"], strict=True))
    for (run, step), part in scored.groupby(["run", "step"]):
        if len(part) != len(probes) or set(zip(part["probe"], part["item"], strict=True)) != known:
            raise UserError(f"{path} is not the probe set that {run} was scored with at step {step}: score it again.")
    return probes, scored


# --- what they say ----------------------------------------------------------------------------------------


def shifts(scored: pd.DataFrame) -> pd.DataFrame:
    """Mean shift of each kind of probe, per run and step: log-prob under the checkpoint minus base log-prob.

    `scored`: the probes table. Columns run, arm, seed, step, probe, value (nats per completion), per_token (nats
    per token, tokens pooled).
    """
    import pandas as pd

    start = scored[scored["step"] == 0].drop_duplicates(["run", "probe", "item"])
    both = scored.merge(start[["run", "probe", "item", "logp"]], on=["run", "probe", "item"], suffixes=("", "_base"))
    both["shift"] = both["logp"] - both["logp_base"]
    grouped = both.groupby(["run", "arm", "seed", "step", "probe"], sort=False)
    totals = grouped.agg(value=("shift", "mean"), shift=("shift", "sum"), tokens=("tokens", "sum")).reset_index()
    totals["per_token"] = totals["shift"] / totals["tokens"]
    return pd.DataFrame(totals.drop(columns=["shift", "tokens"]))


def movement(shifted: pd.DataFrame, arm: str, probe: str) -> str:
    """Whether one kind of probe rose or fell under an arm, in words: mean shift per completion over seeds.

    `shifted`: rows of `shifts`, one step per run. Rose or fell only where the 95% t interval of at least three seeds
    leaves out 0.
    """
    from helpers.figures import seed_interval

    values = shifted[(shifted["arm"] == arm) & (shifted["probe"] == probe)]["value"]
    mean, low, high = seed_interval(values)
    if len(values) < 3:
        return f"{probe} {mean:+.2f} nats, too few seeds ({len(values)}) to say more"
    verdict = "rose" if low > 0 else "fell" if high < 0 else "is not seen to move"
    return f"{probe} {verdict}: {mean:+.2f} nats ({low:+.2f} to {high:+.2f}, {len(values)} seeds)"


def perplexity_interval(logps: Sequence[float], tokens: Sequence[int], draws: int = 2000) -> tuple[float, float, float]:
    """Perplexity of a corpus with its 95% bootstrap interval over completions: (value, low, high).

    exp(-sum of log-probs / number of tokens), tokens pooled; completions are drawn again with replacement.
    """
    import numpy as np

    logps, tokens = np.asarray(logps, float), np.asarray(tokens, float)
    if not len(logps):
        raise UserError("A perplexity needs at least one completion.")
    again = np.random.default_rng(0).integers(len(logps), size=(draws, len(logps)))
    spread = np.exp(-logps[again].sum(1) / tokens[again].sum(1))
    return float(np.exp(-logps.sum() / tokens.sum())), *np.quantile(spread, (0.025, 0.975)).tolist()


@dataclass(frozen=True)
class Asked:
    """Boards as they are asked about: a prompt each, and each one's true placement."""

    prompts: tuple[Prompted, ...]
    placements: tuple[tuple[int, ...], ...]


def asked(pixels: np.ndarray, placements: Sequence[Sequence[int]], text: str) -> Asked:
    """Boards (N, H, W, 3) uint8 with their true placements, all asked about with the same text."""
    from helpers.scoring import Prompted

    return Asked(tuple(Prompted(p, text) for p in pixels), tuple(tuple(map(int, p)) for p in placements))


def asked_probes(profile: Profile, n: int) -> Asked:
    """The first `n` boards of the probe set."""
    held = probe_boards(profile, n)
    return asked(held.pixels, held.placements, held.text)


def own_samples(base: tuple[Any, Any], profile: Profile, boards: int, samples: int) -> pd.DataFrame:
    """What the base itself writes about the first probe boards at T = 1, and how probable that is.

    Columns board, completion, exact, format, logp (nats, end token included), tokens, per_token.
    """
    import pandas as pd

    from helpers import puzzles, scoring
    from helpers.rollouts import Sampling

    held = asked_probes(profile, boards)
    sampling = Sampling(samples, 1.0, profile.max_completion_length, PROBE_SEED)
    drawn = scoring.complete(*base, held.prompts, sampling, 32)
    logps = scoring.completion_logps(*base, held.prompts, drawn, chunk=16)
    rows = []
    for i, (texts, found) in enumerate(zip(drawn, logps, strict=True)):
        for text, values in zip(texts, found, strict=True):
            score = puzzles.score(text, held.placements[i])
            rows.append((i, text, score.exact, score.format, float(values.sum()), len(values), float(values.mean())))
    return pd.DataFrame(rows, columns=["board", "completion", "exact", "format", "logp", "tokens", "per_token"])


# --- rank and reachability --------------------------------------------------------------------------------


def reachability(base: tuple[Any, Any], held: Asked, written: pd.DataFrame) -> pd.DataFrame:
    """How probable a correct completion is, per board: by counting and by exact likelihood under the base.

    `written`: columns board (its number in `held`), completion, exact, format; from the base itself (`own_samples`) or
    from a model close to it. Columns board, samples, right (correct and well formed among them), counted (their share),
    low, high (its 95% Wilson interval), likelihood: the mean over the same completions' thinks of the base's exact
    probability of the true answer behind the think, 0 where there is no think. For the base's own samples both estimate
    the same probability; the second has less noise (Rao-Blackwell), because only the think is sampled.
    """
    import pandas as pd

    from helpers.figures import wilson

    rows = []
    for board, part in written.groupby("board"):
        answer = held.placements[board]
        chances = [p for (p,) in answer_chances(base, held.prompts[board], thinks(part["completion"]), [answer])]
        right = int(((part["exact"] == 1) & (part["format"] == 1)).sum())
        rows.append((int(board), len(part), right, *wilson(right, len(part)), sum(chances) / len(part)))
    return pd.DataFrame(rows, columns=["board", "samples", "right", "counted", "low", "high", "likelihood"])


def thinks(completions: Iterable[str]) -> list[str]:
    """The think of each completion that has one, tags included."""
    return [t.split("</think>")[0] + "</think>" for t in completions if t.startswith("<think>") and "</think>" in t]


def answer_chances(
    base: tuple[Any, Any], prompt: Prompted, given: Sequence[str], placements: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Probability of each placement (its answer and the end token) behind each think, at T = 1: a list per think.

    exp of the summed log-probs of the tokens behind the think. Each think is passed once per call, however often it was
    written.
    """
    import math

    from helpers.corpora import answer
    from helpers.scoring import completion_logps

    different = list(dict.fromkeys(given))
    if not different or not placements:
        return [[] for _ in given]
    answers = [answer(p) for p in placements]
    lengths = [len(base[1].tokenizer(a, add_special_tokens=False)["input_ids"]) + 1 for a in answers]  # and the end
    texts = [[think + a for a in answers] for think in different]
    found = completion_logps(*base, [prompt] * len(different), texts, chunk=16)
    chances = {
        think: [math.exp(float(logps[-n:].sum())) for logps, n in zip(row, lengths, strict=True)]
        for think, row in zip(different, found, strict=True)
    }
    return [chances[think] for think in given]


def placement_ranks(base: tuple[Any, Any], held: Asked, written: pd.DataFrame) -> pd.DataFrame:
    """Where the true placement stands among all placements under the base, per board.

    Every placement's probability is averaged over the thinks in `written` (as for `reachability`). Columns board,
    chance (of the true placement), rank (1: the most probable; ties count half), valid (probability that the answer is
    any placement at all), placements (how many there are). UserError for boards of more than four tiles.
    """
    from itertools import permutations

    import numpy as np
    import pandas as pd

    tiles = len(held.placements[0])
    if tiles > 4:
        raise UserError(f"A board of {tiles} tiles has too many placements to score each: use 2 x 2 boards.")
    every, rows = list(permutations(range(1, tiles + 1))), []
    for board, part in written.groupby("board"):
        given = thinks(part["completion"])
        if given:
            chances = np.sum(answer_chances(base, held.prompts[board], given, every), 0) / len(part)
            true = chances[every.index(held.placements[board])]
            rank = 1 + (chances > true).sum() + ((chances == true).sum() - 1) / 2
            rows.append((int(board), float(true), float(rank), float(chances.sum()), len(every)))
    return pd.DataFrame(rows, columns=["board", "chance", "rank", "valid", "placements"])


def reach_within(likelihood: Sequence[float], samples: int) -> float:
    """Mean over boards of the probability that `samples` completions hold a correct one: 1 - (1 - p)^samples."""
    import numpy as np

    return float(np.mean(1 - (1 - np.asarray(likelihood, float)) ** samples))


def early_reach(base: tuple[Any, Any], profile: Profile, completions: pd.DataFrame, last: int) -> pd.DataFrame:
    """`reachability` of the boards that RFT met in its first `last` steps, from RFT's own completions there.

    The policy is nearly the base then, so that the base's likelihood should foretell RFT's hits. Columns as there, and
    seed. `completions`: those of RFT runs.
    """
    import pandas as pd

    from helpers import scoring
    from helpers.corpora import TRAIN_SEED

    early, parts = completions[completions["step"] <= last], []
    for seed, rows in early.groupby("seed"):
        ids = sorted(rows["puzzle_id"].unique().tolist())
        boards = scoring.make_boards(puzzle_spec(profile), ids, TRAIN_SEED + int(seed))
        written = rows.assign(board=rows["puzzle_id"].map({k: i for i, k in enumerate(ids)}))
        found = reachability(base, asked(boards.boards, boards.placements, boards.text), written)
        parts.append(found.assign(seed=int(seed)))
    if not parts:
        raise UserError(f"There is no RFT completion of the first {last} steps: train the rft arm first.")
    return pd.concat(parts, ignore_index=True)


def early_sentence(found: pd.DataFrame) -> str:
    """Whether RFT's first hits are as many, and on the boards, that the base's likelihood foretells.

    `found` as from `early_reach`. Number: expected is the sum of samples x likelihood with its binomial standard
    deviation. Boards: the probability that a solved board has the higher likelihood of a solved and an unsolved one
    (Mann-Whitney; 0.5: no relation).
    """
    import numpy as np

    p, n, right = (found[name].to_numpy(float) for name in ("likelihood", "samples", "right"))
    expected, spread = float((n * p).sum()), float(np.sqrt((n * p * (1 - p)).sum()))
    verdict = "as many as" if abs(right.sum() - expected) <= 1.96 * spread else "not the number that"
    said = f"Correct rollouts: {right.sum():.0f} of {n.sum():.0f}; {verdict} the base's likelihood foretells "
    said += f"({expected:.1f}, 95% from {max(0.0, expected - 1.96 * spread):.0f} to {expected + 1.96 * spread:.0f})."
    solved, unsolved = p[right > 0], p[right == 0]
    if len(solved) and len(unsolved):
        above = percentiles(solved, unsolved).mean()
        said += f" Of a solved and an unsolved board, the solved one has the higher likelihood in {above:.0%} of pairs."
    return said


# --- corpora under the base -------------------------------------------------------------------------------


def phase_rows(completions: pd.DataFrame, phases: Mapping[str, tuple[int, int]]) -> pd.DataFrame:
    """Correct RFT rollouts scored under the base, labelled by training phase: corpus, logp, tokens, per_token.

    `phases` maps a label to its (first, last) step, both included.
    """
    import pandas as pd

    right = completions[(completions["exact"] == 1) & (completions["format"] == 1) & completions["logp_base"].notna()]
    parts = []
    for name, (first, last) in phases.items():
        part = right[right["step"].between(first, last)]
        parts.append(pd.DataFrame({"corpus": name, "logp": part["logp_base"], "tokens": part["tokens"]}))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(per_token=rows["logp"] / rows["tokens"])


def percentiles(logps: Sequence[float], own: Sequence[float]) -> np.ndarray:
    """Where log-probs stand among the base's own samples: share of those that are less probable (ties count half)."""
    import numpy as np

    ordered = np.sort(np.asarray(own, float))
    below, upto = (np.searchsorted(ordered, logps, side) for side in ("left", "right"))
    return (below + upto) / (2 * len(ordered))


def corpus_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Per corpus, in order of appearance: completions, tokens (mean), logp (mean), perplexity, low, high."""
    import pandas as pd

    table = []
    for corpus, part in rows.groupby("corpus", sort=False):
        spread = perplexity_interval(part["logp"], part["tokens"])
        table.append((corpus, len(part), part["tokens"].mean(), part["logp"].mean(), *spread))
    return pd.DataFrame(table, columns=["corpus", "completions", "tokens", "logp", "perplexity", "low", "high"])


def surprise_table(processor: Any, probes: pd.DataFrame, logps: Sequence[np.ndarray]) -> pd.DataFrame:
    """Where the nats of each kind of right completion go: columns probe, form, numbers, words, first, completions.

    `logps` as from `score_probes`. Mean base log-prob (nats per completion) of the tokens of each sort: form (tags,
    white space, end token), numbers, words; `first`: of the first token alone, whatever its sort.
    """
    import pandas as pd

    from helpers.models import encode_target

    rows = []
    for probe, text, found in zip(probes["probe"], probes["completion"], logps, strict=True):
        if PROBES[probe].startswith("right"):
            tokens = [processor.tokenizer.decode([i]) for i in encode_target(processor.tokenizer, text)[: len(found)]]
            sums = dict.fromkeys(("form", "numbers", "words"), 0.0)
            for token, value in zip(tokens, found.tolist(), strict=True):
                sums[token_sort(token)] += value
            rows.append({"probe": probe, **sums, "first": float(found[0])})
    means = pd.DataFrame(rows).groupby("probe", sort=False)
    return means.mean().assign(completions=means.size()).reset_index()


def token_sort(token: str) -> str:
    """form (a tag, white space or the end token), numbers, or words (all else)."""
    if not token.strip() or (token.startswith("<") and token.endswith(">")):
        return "form"
    return "numbers" if token.strip().isdigit() else "words"


def one_board(profile: Profile, probes: pd.DataFrame) -> tuple[list[str], Corpus]:
    """The first board with most kinds of right completions: the kinds, and the completions as a corpus."""
    import numpy as np

    from helpers.live import Corpus

    kinds = [kind for kind, meaning in PROBES.items() if meaning.startswith("right")]
    right = probes[probes["probe"].isin(kinds)]
    number = int(right["number"].value_counts(sort=False).sort_index().idxmax())
    texts = right[right["number"] == number].set_index("probe")["completion"]
    boards = probe_boards(profile, number + 1)
    pixels, placements = (np.repeat(a[number : number + 1], len(texts), 0) for a in (boards.pixels, boards.placements))
    return list(texts.index), Corpus("probes", pixels, placements, tuple(texts), boards.text)


# --- perplexity and forgetting ----------------------------------------------------------------------------


def every_run(profile: Profile, name: str) -> pd.DataFrame:
    """A table (evaluations, metrics or completions) of the study's runs and of its controls, other rates included.

    Completions are the study's alone: those of controls are not published, and a figure should be the same wherever
    it is drawn. Raises UserError where there are no records of the study.
    """
    import pandas as pd

    from helpers import controls, study

    found = study.table(profile.name, name)
    if name == "completions":
        return found
    more = getattr(controls.load(profile), name)
    more = more[~more["run"].isin(set(found["run"]))]
    return pd.concat([found, more], ignore_index=True) if len(more) else found


def study_rows(profile: Profile, table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of an arm's runs in the study, without those at other learning rates.

    All the arm's rows where no run has the name that this version of the study gives it.
    """
    rows = table[table["run"].str.match(rf"{arm}-\d+-")]
    own = rows[rows["run"].isin({spec.name for spec in specs(profile, [arm])})]
    return own if len(own) else rows


def rate_runs(profile: Profile) -> dict[str, RunSpec]:
    """Specs, by name, of the recorded runs that differ from the study's in the learning rate only (or not at all).

    Steps and the source may differ too: a lower rate needs more steps, and its source is another run. One run per arm,
    seed and rate: the study's own, else the one with most steps.
    """
    from helpers import controls

    store, known = RunStore(Path("runs") / profile.name), {}
    for folder in (PUBLISHED, controls.PUBLISHED):
        known |= published_specs(folder) if (folder / "specs.json").exists() else {}
    known |= {spec.name: spec for spec in store.finished()} if store.root.is_dir() else {}
    own = {(spec.arm, spec.seed): spec for spec in specs(profile, [line.arm for line in profile.budgets])}
    alike = [spec for spec in known.values() if _alike(spec, own.get((spec.arm, spec.seed)))]
    ranked = sorted(alike, key=lambda spec: (spec == own[spec.arm, spec.seed], spec.steps, spec.name))
    best = {(spec.arm, spec.seed, spec.learning_rate): spec for spec in ranked}  # the last of equals stays
    return {spec.name: spec for spec in best.values()}


def _alike(spec: RunSpec, own: RunSpec | None) -> bool:
    """Whether a run is one of the study's but for its learning rate, steps and source."""
    if own is None:
        return False
    return replace(spec, learning_rate=own.learning_rate, steps=own.steps, source=own.source) == own


def rate_drops(tables: Mapping[str, pd.DataFrame], runs: Mapping[str, RunSpec], quantity: str) -> pd.DataFrame:
    """Drop in mean prior score of each run: columns arm, seed, learning_rate, drop.

    `tables`: evaluations and metrics of every run; `quantity`: one of `summary.per_seed`'s, such as drop_at_0.5. A run
    that never gets there has no row.
    """
    import pandas as pd

    from helpers import summary

    evaluations, metrics = tables["evaluations"], tables["metrics"]
    rates = {name: spec.learning_rate for name, spec in runs.items()}
    parts = [pd.DataFrame(columns=["arm", "seed", "learning_rate", "drop"])]
    for rate in sorted(set(evaluations["run"].map(rates).dropna())):
        chosen = evaluations[(evaluations["run"].map(rates) == rate) | (evaluations["arm"] == "base")]
        found = summary.per_seed(chosen, metrics[metrics["run"].map(rates) == rate])
        found = found[(found["task"] == summary.ALL) & (found["quantity"] == quantity)]
        parts.append(found.assign(learning_rate=rate, drop=found["value"])[list(parts[0].columns)])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def rate_perplexities(
    base: tuple[Any, Any], profile: Profile, completions: pd.DataFrame, n: int, runs: Mapping[str, RunSpec]
) -> pd.DataFrame:
    """Perplexity under the base of what each run learned from: columns arm, seed, learning_rate, perplexity.

    SFT on a corpus: up to `n` of its completions; arms that learn from rollouts as they are drawn (`STREAMED`): the
    correct ones (`stepwise_perplexity`). Where the records cannot tell what a run learned from, its perplexity is the
    one measured beside its checkpoints (`controls.measured_predictors`), if there is one.
    """
    import pandas as pd

    from helpers import controls, live

    beside = controls.load(profile)["predictors"]
    measured = dict(zip(beside["run"], beside["perplexity"], strict=True)) if len(beside) else {}
    known: dict[tuple, float | None] = {}
    rows = []
    for spec in runs.values():
        streamed = spec.arm in STREAMED
        sampler = spec.name if spec.arm in RFT_ARMS else spec.source  # the run that wrote what this one learned from
        key, rollouts = (spec.arm, spec.seed, sampler), completions[completions["run"] == sampler]
        if key not in known and streamed:
            known[key] = stepwise_perplexity(rollouts)
        elif key not in known:
            corpus = corpus_of(profile, spec, rollouts, n)
            table = None if corpus is None else live.perplexities(live.base_logps(base, corpus))
            known[key] = None if table is None else float(table["perplexity"].iloc[0])
        value = measured.get(spec.name) if known[key] is None else known[key]
        rows.append((spec.arm, spec.seed, spec.learning_rate, value))
    found = pd.DataFrame(rows, columns=["arm", "seed", "learning_rate", "perplexity"]).dropna(subset="perplexity")
    return found.drop_duplicates(["arm", "seed", "learning_rate"], ignore_index=True)


def corpus_of(profile: Profile, spec: RunSpec, rollouts: pd.DataFrame, n: int) -> Corpus | None:
    """Up to `n` pairs that an SFT run trained on; None where the records cannot tell. `rollouts`: of its source run."""
    from helpers import live

    one = replace(profile, seeds=(spec.seed,))
    if spec.arm in ("sft-answer", "sft-expert"):
        return live.written_corpus(one, spec.arm, n)
    if spec.arm in ("sft-rollout", "sft-self"):
        return live.recorded_corpus(one, spec.arm, rollouts, n)
    return None


def stepwise_perplexity(completions: pd.DataFrame) -> float | None:
    """Perplexity under the base of the correct rollouts of a whole RFT run, of which some steps are recorded.

    The first steps are recorded densely, so each step counts for the steps around it (half the way to its neighbours)
    and each of its groups for the groups left out: exp(-sum(w logp) / sum(w tokens)). None where no correct rollout was
    scored.
    """
    import numpy as np

    scored = completions[completions["logp_base"].notna()]
    right = scored[(scored["exact"] == 1) & (scored["format"] == 1)]
    if right.empty:
        return None
    groups = scored.groupby("step")["puzzle_id"].nunique()
    steps = groups.index.to_numpy(float)
    widths = np.gradient(steps) if len(steps) > 1 else np.ones(1)
    weights = right["step"].map(dict(zip(groups.index, widths / groups.to_numpy(), strict=True))).to_numpy()
    return float(np.exp(-(weights @ right["logp_base"].to_numpy()) / (weights @ right["tokens"].to_numpy())))


def at_own_rate(profile: Profile, points: pd.DataFrame) -> pd.DataFrame:
    """The points of the study's own learning rates."""
    rates = {line.arm: line.learning_rate for line in profile.budgets}
    return points[points["learning_rate"] == points["arm"].map(rates)].reset_index(drop=True)


def rank_correlation(points: pd.DataFrame) -> tuple[int, float, float] | None:
    """(arms, Spearman's rho, luck) of perplexity and drop over the arms' means; None where one of them does not vary.

    `points`: columns arm, perplexity, drop. rho: Pearson's correlation of the ranks, ties sharing theirs. luck: the
    share of all orders of the arms that reach it (one-sided; beyond `EXACT_ORDERS` arms, of 20,000 random ones). Seeds
    of one arm are not independent, so arms are what is counted.
    """
    from itertools import permutations

    import numpy as np

    means = points.groupby("arm")[["perplexity", "drop"]].mean().rank()
    n, spread = len(means), means.to_numpy(float) - means.mean().to_numpy()
    lengths = np.sqrt((spread**2).sum(0))
    if n < 2 or not lengths.all():
        return None
    x, y = (spread / lengths).T
    rng = np.random.default_rng(0)
    orders = list(permutations(range(n))) if n <= EXACT_ORDERS else [rng.permutation(n) for _ in range(20_000)]
    rho = float(x @ y)
    return n, rho, float((y[np.array(orders)] @ x >= rho - 1e-9).mean())


def rank_sentence(points: pd.DataFrame) -> str:
    """`rank_correlation` in words."""
    found = rank_correlation(points)
    if found is None:
        return "No rank correlation: it needs at least two arms that differ both in perplexity and in drop."
    n, rho, luck = found
    return f"Rank correlation over {n} arms: {rho:.2f}; by luck alone at least that in {luck:.1%} of all orders."


def main(arguments: list[str] | None = None) -> None:
    """Command line: score the probes of a finished study."""
    from helpers.study import STUDY_ARMS

    parser = argparse.ArgumentParser(prog="python -m helpers.landscape", description="Score the probe set.")
    parser.add_argument("--profile", default="cpu", choices=("smoke", "cpu"))
    parser.add_argument("--n", type=int, default=64, help="held-out boards, and prior samples")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", nargs="*", type=int, default=None, help="some of the profile's seeds")
    parser.add_argument("--publish", action="store_true", help="also write figures/records")
    options = parser.parse_args(arguments)
    profile = get_profile(options.profile)
    if options.seeds is not None:
        if profile.seeds[0] not in options.seeds:
            raise UserError(f"The probe set comes from the runs of seed {profile.seeds[0]}: name it among the seeds.")
        profile = replace(profile, seeds=tuple(sorted(options.seeds)))
    score_study(profile, STUDY_ARMS, options.n, options.jobs)
    if options.publish:
        publish_probes(profile, STUDY_ARMS)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
