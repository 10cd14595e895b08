"""Controls: runs that differ from one of the study's in a single respect, and what their weights show.

`python -m helpers.controls --profile cpu` trains what is missing, in order of priority, beside the study's own runs in
`runs/<profile>` (so that sources are found), measures the weights of all finished runs, and with `--publish` puts the
small tables into `figures/records/controls`. Each step is kept as soon as it is done: a stopped command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError
from helpers.profiles import RFT_ARMS, Profile, RunSpec, get_profile, specs
from helpers.records import RunStore, as_published, json_bytes, load_published, publish, write_file, write_table
from helpers.theory import measured_theory

if TYPE_CHECKING:
    import pandas as pd

    from helpers.updates import Sizes

PUBLISHED = Path("figures/records/controls")
RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
SLOW_FACTOR = 0.3  # a run at this share of the rate gets twice the steps, so that it may reach the same accuracy
EARLY = 0.3  # exact match that runs reach which never get to 0.5
LORA_RANK, LORA_FACTOR = 8, 5.0  # adapters start from zero and want a higher rate
METRICS = ("update_norm", "minutes", "kl", "reward", "entropy", "frac_reward_zero_std")  # what is published of metrics
GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "sft-rates": "the size of a step: SFT at five learning rates over two decades",
        "sft-stream": "the loss: RFT's own correct rollouts, in RFT's order, under SFT's loss",
        "sft-voice": "the words: the true placement behind the base's own think",
        "self-sft": "the source: correct samples of the base instead of a teacher's or RFT's",
        "lora": "the room for change: low-rank adapters instead of all weights",
        "sft-kl": "regularisation instead of data: bare answers with a KL term to the base",
        "sft-replay": "the usual remedy: bare answers with prior-task samples among them",
        "iterative-sft": "on-policy data under SFT's loss: samples of the current model",
        "sft-oracle": "probability: the correct completions that the base finds most probable",
        "rft-rates": "the size of a step: RFT at five learning rates over two decades",
        "rft-no-kl": "RFT's own KL term: taken away",
        "distill": "a teacher's probabilities instead of rewards, on the model's own samples",
        "reinforce-1-0": "negative gradients: taken away (reward 0 or 1, no baseline)",
        "rft-stale": "freshness: rollouts drawn for several steps at a time",
    }
)
LIKE: Mapping[str, str] = MappingProxyType(
    {
        "sft-kl": "sft-answer",
        "sft-replay": "sft-answer",
        "self-sft": "sft-rollout",
        "iterative-sft": "sft-rollout",
        "sft-voice": "sft-self",
        "sft-oracle": "sft-self",
        "sft-stream": "rft",
        "rft-no-kl": "rft",
        "distill": "rft",
        "reinforce-1-0": "rft",
        "rft-stale": "rft",
    }
)
"""Which of the study's arms a control differs from in one respect; it has that arm's steps, rate and batch."""
SMOKE_GROUPS = ("sft-kl",)  # what a smoke test trains of them
SMOKE_ARMS = ("rft", "sft-answer", "sft-expert", *SMOKE_GROUPS)  # and what it measures


@dataclass(frozen=True)
class Control:
    """One control run: its group (a key of `GROUPS`, which says what it isolates), a short name, and its spec."""

    group: str
    label: str
    spec: RunSpec

    @property
    def isolates(self) -> str:
        """What differs from the study, in words."""
        return GROUPS[self.group]


def control_specs(profile: Profile, groups: Iterable[str] = tuple(GROUPS)) -> list[Control]:
    """The control runs of a profile, seed by seed, each seed in order of priority.

    Every control has the learning rate, steps and batch of the study's arm in `LIKE`, unless these are what it varies.
    The study's own rate is among the sweep's five and is not listed again. Raises UserError for an
    unknown group.
    """
    asked = list(groups)
    unknown = sorted(set(asked) - set(GROUPS))
    if unknown:
        raise UserError(f"There is no group of controls {', '.join(unknown)}: choose from {', '.join(GROUPS)}.")
    found = []
    for seed in profile.seeds:
        known = {spec.arm: spec for spec in specs(replace(profile, seeds=(seed,)))}
        found += [control for group in GROUPS if group in asked for control in _group(group, known)]
    return found


def _group(group: str, known: Mapping[str, RunSpec]) -> list[Control]:
    """The controls of one group and seed; `known`: the seed's specs by arm."""
    if group == "sft-rates":
        return [c for arm in ("sft-answer", "sft-rollout") for c in _rates(group, known[arm])]
    if group == "rft-rates":
        return _rates(group, known["rft"])
    if group == "lora":
        return [_lora(group, known[arm]) for arm in ("sft-answer", "sft-rollout")]
    like = known[LIKE[group]]
    same = {"steps": like.steps, "learning_rate": like.learning_rate, "batch_size": like.batch_size}
    return [Control(group, group, replace(known[group], **same))]


def _rates(group: str, spec: RunSpec) -> list[Control]:
    """One arm at the other learning rates of the sweep."""
    found = []
    for factor in RATE_FACTORS:
        rate = float(f"{spec.learning_rate * factor:.3g}")
        steps = spec.steps * (2 if factor == SLOW_FACTOR else 1)
        if factor != 1:
            found.append(Control(group, f"{spec.arm} at {rate:g}", replace(spec, learning_rate=rate, steps=steps)))
    return found


def _lora(group: str, spec: RunSpec) -> Control:
    """One arm with adapters on the language model's linear layers."""
    rate = float(f"{spec.learning_rate * LORA_FACTOR:.3g}")
    return Control(group, f"{spec.arm}, LoRA", replace(spec, lora_rank=LORA_RANK, learning_rate=rate))


# --- training -------------------------------------------------------------------------------------------------


def store(profile: Profile) -> RunStore:
    """Where the runs live, those of the study among them."""
    return RunStore(Path("runs") / profile.name)


def train_missing(profile: Profile, controls: Sequence[Control], jobs: int = 2) -> list[str]:
    """Train the controls that are not finished, `jobs` at a time; a sentence for each that could not be.

    A run that fails, or whose source is not finished, does not keep the others from being trained.
    """
    from helpers.study import run_all

    kept, trouble = store(profile), []
    wanted, done = kept.plan([control.spec for control in controls]), _done(profile)
    for spec in [s for s in wanted if s.source and s.source not in done]:
        wanted.remove(spec)
        trouble.append(f"{spec.name} was left out: its source {spec.source} is not finished.")
    while wanted:
        try:
            run_all(profile, wanted, jobs)
            break
        except UserError as error:
            failed = [spec for spec in wanted if str(error).startswith(spec.name)]
            if not failed:
                raise
            trouble.append(str(error))
            wanted = [spec for spec in kept.plan(wanted) if spec not in failed]
    return trouble


def ensure(profile: Profile, retrain: bool = False) -> list[str]:
    """Train and measure what notebook 09 needs; a sentence for each control that could not be trained.

    At `smoke` one tiny control; at the other profiles nothing, unless `retrain` asks for all of them (hours).
    """
    trouble = []
    if profile.name == "smoke":
        _train_here(profile, control_specs(profile, SMOKE_GROUPS))
    elif retrain:
        trouble = train_missing(profile, control_specs(profile))
    if profile.name == "smoke" or retrain:
        measure(profile)
    return trouble


def _train_here(profile: Profile, controls: Sequence[Control]) -> None:
    """Train in this process: starting another takes longer than a tiny run."""
    from transformers.utils import logging

    from helpers.study import settings
    from helpers.training import train

    logging.disable_progress_bar()
    with warnings.catch_warnings(action="ignore"):  # deprecations inside the trainers' own code
        for spec in store(profile).plan([control.spec for control in controls]):
            train(spec, store(profile), settings(profile))


# --- measuring ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """What all measurements of one profile share: the base model and how much is measured."""

    profile: Profile
    sizes: Sizes
    base: tuple[Any, Any] = field(repr=False)
    ends: dict[str, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def fisher(self) -> Mapping[str, Any]:
        """The base's Fisher information on prior prompts."""
        from helpers import updates

        return updates.fisher(self.base, self.prior)

    @cached_property
    def prior(self) -> Any:
        """What the base writes to prior prompts."""
        from helpers import updates

        return updates.said(self.base, updates.prior_prompts(self.sizes.prompts))

    @cached_property
    def boards(self) -> Any:
        """What the base writes to held-out boards."""
        from helpers import updates

        return updates.said(self.base, updates.puzzle_prompts(self.puzzles, self.sizes.prompts))

    @property
    def puzzles(self) -> Any:
        """The boards' kind."""
        from helpers.puzzles import PuzzleSpec

        return PuzzleSpec(rows=self.profile.rows, cols=self.profile.cols, size=self.profile.size)

    def model(self, spec: RunSpec, step: int | None = None) -> tuple[Any, Any]:
        """(model, processor) of a run at a step, or at its end. Raises UserError where there is no checkpoint."""
        from helpers import models, training, updates

        folder = training.checkpoint_at(store(self.profile).folder(spec) / "checkpoints", step)
        return updates.load_tuned(folder, models.SHIPPED if spec.base == "shipped" else spec.base)

    def weights(self, spec: RunSpec | None) -> Mapping[str, Any]:
        """The final weights of a run; of the base for None."""
        from helpers import updates

        return updates.weights_of((self.base if spec is None else self.model(spec))[0])

    def scores(self, model: Any) -> dict[str, float]:
        """`updates.scores` of a model as it is."""
        from helpers import updates

        return updates.scores((model, self.base[1]), self.puzzles, self.sizes)

    def end_scores(self, spec: RunSpec | None) -> dict[str, float]:
        """Scores of a run's end, or of the base for None; scored once."""
        name = spec.name if spec else "base"
        if name not in self.ends:
            self.ends[name] = self.scores((self.base if spec is None else self.model(spec))[0])
        return self.ends[name]


def bench(profile: Profile) -> Bench:
    """The base of a profile's runs, and sizes that fit the profile."""
    from helpers import models, training, updates

    models.quiet_cpu()
    tiny = updates.Sizes(boards=4, battery=1, prompts=4)
    sizes = tiny if profile.name == "smoke" else updates.Sizes(battery=profile.battery_per_task)
    return Bench(profile, sizes, training.load_base(specs(profile, ["sft-answer"])[0]))


def study_specs(profile: Profile) -> list[RunSpec]:
    """The study's runs that train."""
    from helpers.study import STUDY_ARMS

    return specs(profile, [arm for arm in STUDY_ARMS if arm != "base"])


def _done(profile: Profile) -> set[str]:
    """Names of the runs that are finished on this machine."""
    root = store(profile)
    return {spec.name for spec in root.finished()} if root.root.is_dir() else set()


def finished(profile: Profile, wanted: Iterable[RunSpec]) -> list[RunSpec]:
    """Those of some runs that are finished on this machine with their checkpoints, in the order given."""
    from helpers import training

    root, there = store(profile), _done(profile)
    kept = [spec for spec in wanted if spec.name in there]
    return [spec for spec in kept if training.checkpoint_numbers(root.folder(spec) / "checkpoints")]


def measured_weights(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """`updates.change_table` of a run's end."""
    from helpers import updates

    return updates.change_table(bench.weights(None), bench.weights(spec))


def measured_predictors(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """What may predict forgetting, with the drop: a row at the end and one where exact match first reaches 0.5.

    Columns at, step, exact, drop, drop_likelihood, kl_forward, kl_reverse, kl_prior, perplexity, lbk, l2, l1, fisher,
    drift; perplexity and lbk belong to the corpus and to the first checkpoint, so they are the same in both rows.
    """
    import pandas as pd

    from helpers import updates

    fixed, start = _corpus_quantities(bench, spec), bench.weights(None)
    rows: list[dict[str, Any]] = []
    for at, step in _marks(bench, spec).items():
        if rows and rows[0]["step"] == step:
            rows.append(rows[0] | {"at": at})
            continue
        tuned = bench.model(spec, step)
        delta = updates.change(start, updates.weights_of(tuned[0]))
        rows.append(
            {"at": at, "step": step}
            | _drops(bench, spec, step)
            | updates.divergences(bench.base, tuned, bench.boards, bench.prior)
            | fixed
            | {"l2": updates.l2(delta), "l1": updates.l1(delta)}
            | {"fisher": updates.fisher_distance(bench.fisher, delta)}
            | {"drift": updates.activation_drift(bench.base, tuned, bench.prior)}
        )
    return pd.DataFrame(rows)


def _evaluations(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """A run's own evaluations."""
    import pandas as pd

    return pd.read_parquet(store(bench.profile).folder(spec) / "evaluations.parquet")


def _marks(bench: Bench, spec: RunSpec) -> dict[str, int]:
    """The last step, and the first evaluated one with exact match 0.5 or more, if any."""
    from helpers.summary import crossings

    evaluations = _evaluations(bench, spec)
    reached = crossings(evaluations, 0.5)
    marks = {"end": int(evaluations["step"].max())}
    return marks | ({"0.5": int(reached["after"].iloc[0])} if len(reached) else {})


def _drops(bench: Bench, spec: RunSpec, step: int) -> dict[str, float]:
    """Exact match and the drop below the run's own start at a step."""
    from helpers.summary import battery_mean

    evaluations = _evaluations(bench, spec)
    exact = evaluations[(evaluations["task"] == "puzzle") & (evaluations["measure"] == "exact")]
    found = {"exact": float(exact.loc[exact["step"] == step, "value"].iloc[0])}
    means = battery_mean(evaluations).set_index(["measure", "step"])["value"]
    for name, measure in (("drop", "score"), ("drop_likelihood", "likelihood")):
        found[name] = float(means[measure, 0] - means[measure, step])
    return found


def _corpus_quantities(bench: Bench, spec: RunSpec) -> dict[str, float | None]:
    """Perplexity under the base of what a run learned from, and its first LBK on prior prompts."""
    import numpy as np

    from helpers import training, updates
    from helpers.scoring import completion_logps

    corpus = corpus_sample(bench, spec, bench.sizes.prompts)
    if not corpus:
        return {"perplexity": None, "lbk": None}
    scored = completion_logps(*bench.base, [p for p, _ in corpus], [[text] for _, text in corpus])
    logps = np.concatenate([row[0].numpy() for row in scored])
    first = training.checkpoint_numbers(store(bench.profile).folder(spec) / "checkpoints")[0]
    lbk = updates.first_lbk(bench.base, bench.model(spec, first)[0], bench.prior, corpus)
    return {"perplexity": float(np.exp(-logps.mean())), "lbk": lbk}


def corpus_sample(bench: Bench, spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """Up to `n` (prompt, completion) pairs of what a run learned from; RFT: correct rollouts, evenly over its steps.

    Empty where that cannot be told (no correct rollout, or a source that is not here).
    """
    from helpers import corpora, training
    from helpers.scoring import Prompted

    seed, kind = spec.seed, training.puzzle_spec(spec)
    if spec.arm in RFT_ARMS or spec.arm == "sft-stream":
        return _recorded_sample(bench, spec, n)
    if spec.arm == "iterative-sft":
        return _drawn_sample(bench, spec, n)
    prior = _replayed(spec, n)
    boards = corpora.training_boards(kind, n - len(prior), seed)
    try:
        texts = training.make_completions(spec, store(bench.profile), bench.base[1], boards)
    except UserError:
        return []
    pairs = zip(boards.pixels, texts, strict=True)
    return [(Prompted(pixels, boards.text), text) for pixels, text in pairs if text is not None] + prior


def _replayed(spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """The prior-task samples among `n` of `sft-replay`'s; none for other arms."""
    from helpers import arms
    from helpers.scoring import Prompted

    if spec.arm != "sft-replay":
        return []
    share = float(spec.settings.get("replay_share", 0.5))
    drawn = arms.prior_samples(round(n * share), arms.REPLAY_SEED + spec.seed)
    return [(Prompted(s.pixels, s.question.text), s.question.completion) for s in drawn]


def _recorded_sample(bench: Bench, spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """Correct rollouts of an RFT run (or of the source of `sft-stream`), every k-th so that all phases count alike."""
    import pandas as pd

    name = spec.source if spec.arm == "sft-stream" else spec.name
    path = store(bench.profile).root / name / "completions.parquet"
    if not path.exists():
        return []
    rows = pd.read_parquet(path)
    right = rows[(rows["exact"] == 1) & (rows["format"] == 1)]
    chosen = right.iloc[:: max(1, len(right) // n)].head(n)
    return _asked(bench, spec, list(zip(chosen["puzzle_id"], chosen["completion"], strict=True)))


def _drawn_sample(bench: Bench, spec: RunSpec, n: int) -> list[tuple[Any, str]]:
    """What `iterative-sft` drew, a share of each phase."""
    import json

    paths = sorted((store(bench.profile).folder(spec) / "checkpoints").glob("drawn-*.json"))
    pairs = [pair for path in paths for pair in json.loads(path.read_text())[: max(1, n // len(paths))]]
    return _asked(bench, spec, pairs[:n])


def _asked(bench: Bench, spec: RunSpec, pairs: Sequence[Sequence[Any]]) -> list[tuple[Any, str]]:
    """Completions with the prompts of their training boards."""
    from helpers import corpora, scoring

    if not pairs:
        return []
    made = scoring.make_boards(bench.puzzles, [int(i) for i, _ in pairs], corpora.TRAIN_SEED + spec.seed)
    return [(prompt, text) for prompt, (_, text) in zip(made.prompted(), pairs, strict=True)]


def measured_flips(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """`live.flips` from the base to a run's end, over all prior tasks."""
    from helpers import live, prior_tasks

    return live.flips(bench.base, bench.model(spec), prior_tasks.battery_tasks(), bench.sizes.battery)


def measured_recovery(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """`updates.recovery_table` of a run's end, with the base's scores of each half in base_score, base_likelihood."""
    from helpers import updates

    smoke = bench.profile.name == "smoke"
    counts, how = ((0, 8), updates.Recovery(steps=2)) if smoke else (RECOVERY_COUNTS, updates.Recovery())
    found = updates.recovery_table(bench.model(spec), bench.puzzles, counts, bench.sizes, how)
    base = updates.half_scores(bench.base, bench.sizes.battery).set_index("half")
    return found.assign(**{f"base_{m}": found["half"].map(base[m]) for m in ("score", "likelihood")})


def measured_matched(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """A run's update at its own length, and at those of RFT and answer SFT of its seed, evaluated.

    Columns norm_of (whose length), norm, own_norm, base_score, base_likelihood, then the scores of `updates.scores`.
    """
    import pandas as pd

    from helpers import updates

    start, end = bench.weights(None), bench.weights(spec)
    own, (model, _) = updates.l2(updates.change(start, end)), bench.model(spec)
    rows = [{"norm_of": spec.arm, "norm": own, "own_norm": own} | bench.end_scores(spec)]
    for other in _of_seed(bench, spec, ("rft", "sft-answer")):
        norm = updates.l2(updates.change(start, bench.weights(other)))
        updates.put(model, updates.matched(start, end, norm))
        rows.append({"norm_of": other.arm, "norm": norm, "own_norm": own} | bench.scores(model))
    base = bench.end_scores(None)
    return pd.DataFrame(rows).assign(base_score=base["score"], base_likelihood=base["likelihood"])


def _of_seed(bench: Bench, spec: RunSpec, arms: Sequence[str]) -> list[RunSpec]:
    """The study's finished runs of some arms with the seed of `spec`, without itself."""
    same = [s for s in study_specs(bench.profile) if s.seed == spec.seed and s.arm in arms and s.arm != spec.arm]
    return finished(bench.profile, same)


def measured_lines(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """Scores along straight lines that end in a run: from the base, and from the end of RFT of its seed.

    Columns start (base or rft), share (0 at the start, 1 at the run's end), then the scores of `updates.scores`.
    """
    import pandas as pd

    from helpers import updates

    model, _ = bench.model(spec)
    end, rows = updates.weights_of(model), []
    for start in (None, *_of_seed(bench, spec, ("rft",))):
        first, name = bench.weights(start), start.arm if start else "base"
        rows.append({"start": name, "share": 0.0} | bench.end_scores(start))
        for share in (0.5,) if bench.profile.name == "smoke" else (0.25, 0.5, 0.75):
            updates.put(model, updates.between(first, end, share))
            rows.append({"start": name, "share": share} | bench.scores(model))
        rows.append({"start": name, "share": 1.0} | bench.end_scores(spec))
    return pd.DataFrame(rows)


Measure = Callable[[Bench, RunSpec], "pd.DataFrame"]
ANALYSES: Mapping[str, Measure] = MappingProxyType(
    {
        "weights": measured_weights,
        "predictors": measured_predictors,
        "matched": measured_matched,
        "recovery": measured_recovery,
        "lines": measured_lines,
        "flips": measured_flips,
        "theory": measured_theory,
    }
)
EVERY_RUN = ("weights", "predictors")  # the rest is measured for the study's arms only
RECOVERY_COUNTS = (0, 8, 32, 128)
RECOVERED = ("sft-answer",)  # arms with something to bring back


def measure(profile: Profile, names: Iterable[str] = tuple(ANALYSES), seeds: Sequence[int] | None = None) -> None:
    """Carry out the analyses of all finished runs; each run's result is kept, so that nothing is measured twice.

    Results of the matched weights and lines also depend on the other runs of the seed: a table that was made before
    those were finished lacks them, so such an analysis waits until the study has all arms of the seed.
    """
    chosen = [s for s in seeds if s in profile.seeds] if seeds is not None else list(profile.seeds)
    profile, ready = replace(profile, seeds=tuple(chosen)), None
    study = finished(profile, study_specs(profile))
    for name in names:
        controls = [c.spec for c in control_specs(profile)] if name in EVERY_RUN else []
        for spec in [*study, *finished(profile, controls)]:
            if _to_measure(profile, name, spec, study):
                ready = ready or bench(profile)
                found = ANALYSES[name](ready, spec)
                write_file(_cached(profile, name, spec), found.to_csv(index=False, float_format="%.6g").encode())
                if profile.name != "smoke":
                    print(f"{name}: {spec.name}", flush=True)


def _to_measure(profile: Profile, name: str, spec: RunSpec, study: Sequence[RunSpec]) -> bool:
    """Whether an analysis of a run is wanted, possible and not yet there."""
    if _cached(profile, name, spec).exists() or (name == "recovery" and spec.arm not in RECOVERED):
        return False
    if name == "theory" and spec.source and spec.source not in _done(profile):
        return False
    if profile.name == "smoke" and spec.arm not in (SMOKE_ARMS if name in EVERY_RUN else ("sft-answer",)):
        return False
    return name not in ("matched", "lines") or _whole_seed(profile, spec, study)


def _whole_seed(profile: Profile, spec: RunSpec, study: Sequence[RunSpec]) -> bool:
    """Whether the study has finished all its arms of a run's seed."""
    wanted = {s.arm for s in study_specs(profile)}
    return {s.arm for s in study if s.seed == spec.seed} == wanted


def _cached(profile: Profile, name: str, spec: RunSpec) -> Path:
    """Where one run's result of one analysis is kept."""
    return Path("runs") / f"{profile.name}-controls" / name / f"{spec.name}.csv"


# --- tables ---------------------------------------------------------------------------------------------------

RUN_COLUMNS = ("run", "group", "label", "arm", "seed", "learning_rate", "lora_rank", "steps")


@dataclass(frozen=True)
class Tables:
    """Everything that is known of the controls; a table of what was not run is empty.

    `runs`: columns `RUN_COLUMNS`; `evaluations`, `metrics`: the controls' own; `results`: by analysis, each with the
    run columns of the run that was measured (those of the study have the group "study").
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    metrics: pd.DataFrame
    results: Mapping[str, pd.DataFrame]

    def __getitem__(self, name: str) -> pd.DataFrame:
        """The table of one analysis."""
        return self.results[name]


def load(profile: Profile) -> Tables:
    """The controls' tables: what was made on this machine, and at `cpu` what was published beside it.

    One run per label and seed: the one made here, where both have one. Rows are in the order of `run_rows`, wherever
    they come from, so that figures are the same on every machine.
    """
    local, known = _local(profile), _published() if profile.name == "cpu" else None
    return _in_order(local if known is None else _joined(local, known), list(run_rows(profile)["run"]))


def _in_order(tables: Tables, names: Sequence[str]) -> Tables:
    """The tables with their rows in the order of the runs in `names`, any others behind them."""
    rank = {name: place for place, name in enumerate(names)}

    def ordered(frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of one run stay in their order."""
        places = frame["run"].map(lambda name: rank.get(name, len(rank)))
        return frame.iloc[places.argsort(kind="stable")].reset_index(drop=True)

    results = {name: ordered(frame) for name, frame in tables.results.items()}
    return Tables(*map(ordered, (tables.runs, tables.evaluations, tables.metrics)), MappingProxyType(results))


def _joined(first: Tables, second: Tables) -> Tables:
    """Both, one run per label and seed: that of the first, where both have one."""
    runs = _one_each(first.runs, second.runs)
    records = [_one_each(getattr(first, name), getattr(second, name)) for name in ("evaluations", "metrics")]
    kept = [frame[frame["run"].isin(set(runs["run"]))].reset_index(drop=True) for frame in records]
    return Tables(runs, *kept, MappingProxyType({name: _one_each(first[name], second[name]) for name in ANALYSES}))


def _one_each(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Rows of both tables; a run, and a label and seed where there are labels, is taken from the first that has it."""
    import pandas as pd

    rest = second[~second["run"].isin(set(first["run"]))]
    if {"label", "seed"} <= set(first.columns):
        taken = set(zip(first["label"], first["seed"], strict=True))
        rest = rest[[key not in taken for key in zip(rest["label"], rest["seed"], strict=True)]]
    return pd.concat([part for part in (first, rest) if len(part)] or [first], ignore_index=True)


def run_rows(profile: Profile) -> pd.DataFrame:
    """The run columns of the study's runs and of all controls."""
    import pandas as pd

    rows = [_run_row("study", spec.arm, spec) for spec in study_specs(profile)]
    rows += [_run_row(control.group, control.label, control.spec) for control in control_specs(profile)]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def _run_row(group: str, label: str, spec: RunSpec) -> tuple:
    return (spec.name, group, label, spec.arm, spec.seed, spec.learning_rate, spec.lora_rank, spec.steps)


def _local(profile: Profile) -> Tables:
    """What this machine has made."""
    import pandas as pd

    rows = run_rows(profile)
    runs = rows[(rows["group"] != "study") & rows["run"].isin(_done(profile))].reset_index(drop=True)
    records = []
    for name in ("evaluations", "metrics"):
        records.append(as_published(store(profile), name, runs["run"]) if len(runs) else _empty_table(name))
    results = {}
    for name in ANALYSES:
        paths = sorted((Path("runs") / f"{profile.name}-controls" / name).glob("*.csv"))
        parts = [pd.read_csv(path).assign(run=path.stem) for path in paths if path.stem in set(rows["run"])]
        results[name] = _with_runs(parts, rows)
    return Tables(runs, *records, MappingProxyType(results))


def _empty_table(name: str) -> pd.DataFrame:
    import pandas as pd

    from helpers.records import SCHEMAS

    return pd.DataFrame(columns=list(SCHEMAS[name]))


def _with_runs(parts: Sequence[pd.DataFrame], rows: pd.DataFrame) -> pd.DataFrame:
    """Results below each other, with the run columns in front; empty (but for those columns) where there are none."""
    import pandas as pd

    if not parts:
        return rows.iloc[:0]
    return rows.merge(pd.concat(parts, ignore_index=True), on="run", how="inner")


def publish_controls(profile: Profile, destination: Path = PUBLISHED) -> list[Path]:
    """Write the finished controls' evaluations, thinned metrics, specs and all results as small tables.

    What was published before stays where it belongs to a run of the profile as it is now and was not made anew, so
    that controls can be run a few at a time, on any machine. Raises UserError where there is nothing to publish.
    """
    local = _local(profile)
    if local.runs.empty and all(frame.empty for frame in local.results.values()):
        raise UserError("There is no finished control and no result to publish: run python -m helpers.controls first.")
    earlier = _still_valid(profile, _published(destination))
    found = local if earlier is None else _joined(local, earlier)
    written = {"runs.csv": found.runs} | {f"{name}.csv": frame for name, frame in found.results.items() if len(frame)}
    for name, frame in written.items():
        text = frame.sort_values(["group", "label", "seed"], kind="stable").to_csv(index=False, float_format="%.6g")
        write_file(destination / name, text.encode())
    if len(found.runs):
        _publish_records(profile, found, destination)
    return sorted(destination.iterdir())


def _still_valid(profile: Profile, known: Tables | None) -> Tables | None:
    """Of published tables what belongs to runs of the profile as it is now."""
    if known is None:
        return None
    names = set(run_rows(profile)["run"])
    runs, evaluations, metrics = (f[f["run"].isin(names)] for f in (known.runs, known.evaluations, known.metrics))
    results = {name: frame[frame["run"].isin(names)] for name, frame in known.results.items()}
    return Tables(runs, evaluations, metrics, MappingProxyType(results))


def _publish_records(profile: Profile, found: Tables, destination: Path) -> None:
    """The control runs' own tables and specs, without completions."""
    here = sorted(set(found.runs["run"]) & _done(profile))
    path = destination / "specs.json"
    listed = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    if here:
        with tempfile.TemporaryDirectory() as folder:
            publish(store(profile), folder, completion_groups=0, names=here)
            made = json.loads((Path(folder) / "specs.json").read_text())
        listed = made | {"runs": listed["runs"] | made["runs"]}
    listed["runs"] = {name: entry for name, entry in sorted(listed["runs"].items()) if name in set(found.runs["run"])}
    write_file(path, json_bytes(listed))
    write_table(destination / "metrics.parquet", "metrics", found.metrics[found.metrics["name"].isin(METRICS)])
    write_table(destination / "evaluations.parquet", "evaluations", found.evaluations)


def _published(source: Path = PUBLISHED) -> Tables | None:
    """What was published, or None."""
    import pandas as pd

    if not (source / "runs.csv").exists():
        return None
    runs = pd.read_csv(source / "runs.csv")
    tables = {}
    for name in ("evaluations", "metrics"):
        there = (source / f"{name}.parquet").exists()
        tables[name] = load_published(source, name) if there else _empty_table(name)
    results = {}
    for name in ANALYSES:
        path = source / f"{name}.csv"
        results[name] = pd.read_csv(path) if path.exists() else runs.iloc[:0]
    return Tables(runs, tables["evaluations"], tables["metrics"], MappingProxyType(results))


def hashes(tables: Tables) -> list[str]:
    """The specs' hashes of all control runs, for a figure's provenance."""
    return sorted({run.rsplit("-", 1)[1] for run in tables.runs["run"]})


def coverage(profile: Profile, tables: Tables) -> pd.DataFrame:
    """Which controls are there: a row per label with group, what it isolates, seeds found and wanted, and the rate."""
    import pandas as pd

    rows = []
    wanted = run_rows(profile)
    for (group, label), part in wanted[wanted["group"] != "study"].groupby(["group", "label"], sort=False):
        there = tables.runs[tables.runs["label"] == label]["seed"].nunique()
        rows.append((label, GROUPS[group], there, part["seed"].nunique(), part["learning_rate"].iloc[0]))
    return pd.DataFrame(rows, columns=["control", "isolates", "seeds", "of", "learning rate"])


def quantities(evaluations: pd.DataFrame, metrics: pd.DataFrame, tables: Tables, profile: Profile) -> pd.DataFrame:
    """`summary.per_seed` of the study and of every control: its columns, and label, group and learning_rate.

    `evaluations`, `metrics`: the study's tables. A control is compared with the study's base. Beside the study's own
    accuracies stands `EARLY`, which more controls reach.
    """
    import pandas as pd

    from helpers.summary import THRESHOLDS, per_seed

    rates = {line.arm: line.learning_rate for line in profile.budgets}
    marks = (EARLY, *THRESHOLDS)
    own = per_seed(evaluations, metrics, marks)
    parts = [own.assign(label=own["arm"], group="study", learning_rate=own["arm"].map(rates).fillna(0.0))]
    base = evaluations[evaluations["arm"] == "base"]
    for label, runs in tables.runs.groupby("label", sort=False):
        mine = [frame[frame["run"].isin(set(runs["run"]))] for frame in (tables.evaluations, tables.metrics)]
        found = per_seed(pd.concat([mine[0], base], ignore_index=True), mine[1], marks)
        first = runs.iloc[0]
        more = {"label": label, "group": first["group"], "learning_rate": first["learning_rate"]}
        parts.append(found[found["arm"] != "base"].assign(**more))
    return pd.concat(parts, ignore_index=True)


def compared(rows: pd.DataFrame, reference: str = "rft", quantity: str = "drop_at_0.5") -> pd.DataFrame:
    """Every arm and control minus `reference`, seed by seed: columns label, isolates, difference, low, high, seeds.

    `rows`: as from `quantities`. A label without a shared seed has no numbers; 95% t interval from three seeds on.
    """
    import pandas as pd

    from helpers.figures import seed_interval

    chosen = rows[(rows["quantity"] == quantity) & (rows["task"] == "all")]
    values = {label: part.set_index("seed")["value"] for label, part in chosen.groupby("label")}
    known, found = dict(zip(rows["label"], rows["group"], strict=True)), []
    for label in [name for name in dict.fromkeys(rows["label"]) if name not in ("base", reference)]:
        both = label in values and reference in values
        apart = (values[label] - values[reference]).dropna() if both else []
        interval = seed_interval(apart) if len(apart) else (None, None, None)
        found.append((label, GROUPS.get(known[label], "an arm of the study"), *interval, len(apart)))
    return pd.DataFrame(found, columns=["label", "isolates", "difference", "low", "high", "seeds"])


# --- command line ---------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Train, measure and publish; one sentence instead of a traceback for everything a user can mend."""
    parser = argparse.ArgumentParser(prog="python -m helpers.controls", description="Train and measure the controls.")
    parser.add_argument("--profile", default="cpu", choices=("smoke", "cpu", "gpu"))
    parser.add_argument("--only", nargs="*", default=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--seeds", nargs="*", type=int, default=None, help="some of the profile's seeds")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="say what is there and what is not, and stop")
    parser.add_argument("--no-training", action="store_true", help="measure only")
    parser.add_argument("--publish", action="store_true", help=f"also write {PUBLISHED}")
    options = parser.parse_args(arguments)
    profile = get_profile(options.profile)
    chosen = profile if options.seeds is None else replace(profile, seeds=tuple(options.seeds))
    if options.list:
        print(coverage(profile, load(profile)).to_string(index=False))
        return
    trouble = [] if options.no_training else train_missing(chosen, control_specs(chosen, options.only), options.jobs)
    measure(profile, seeds=options.seeds)
    if options.publish:
        publish_controls(profile)
    for sentence in trouble:
        print(sentence)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
