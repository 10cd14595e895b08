"""What an arm or a run learned from, as a `Corpus`: the one place that answers it.

A corpus is *written* anew by the arm's own recipe, or *recorded*: taken from the completions that a run left, with its
boards drawn again from run seed and puzzle number. `written_corpus`, `recorded_corpus` and `corpus_samples` answer for
the arms of a profile (by `Arm.stand_in`), `corpus_of` and `corpus_of_run` for one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from helpers.errors import UserError
from helpers.files import DamagedFile, read_json
from helpers.measure.shared import Shared, empty_table
from helpers.model.build import Loaded
from helpers.study.arms import REGISTRY, SOURCE_ARM, get_arm
from helpers.study.profiles import Profile, specs
from helpers.study.published import store
from helpers.study.records import is_finished, own_table
from helpers.study.schema import is_correct
from helpers.study.spec import RunSpec
from helpers.train import corpora, recipes, rows
from helpers.world import seeds
from helpers.world.battery import battery_samples
from helpers.world.boards import Corpus, Prompted, Sample, make_boards, training_boards
from helpers.world.puzzles import PuzzleSpec


def written_corpus(profile: Profile, arm: str, n: int) -> Corpus:
    """The first `n` pairs of an arm that rules write, at the profile's first seed. UserError for others."""
    known = [name for name, entry in REGISTRY.items() if entry.stand_in == "rules"]
    if arm not in known:
        raise UserError(f"Nobody writes the corpus of {arm}: choose one of {', '.join(known)}.")
    boards = training_boards(profile.puzzle, n, profile.seeds[0])
    given = recipes.Given(specs(profile, [arm])[0], store(profile), None, boards)
    return boards.corpus(arm, recipes.RECIPES[arm].write(given))


def recorded_corpus(profile: Profile, arm: str, completions: pd.DataFrame, n: int) -> Corpus | None:
    """Up to `n` pairs of an arm from the recorded completions of RFT, one per board; None where none stands in for it.

    `late`: correct, well-formed completions of the last third of the run, newest first. `thinks`: those written around
    the step the arm starts from, with the true placement behind them. The study samples both anew from checkpoints; the
    records of the run itself need no weights.
    """
    rft = completions[completions["run"].str.match(rf"{SOURCE_ARM}-{profile.seeds[0]}-")]
    chosen = _standing_in(profile, arm, rft)
    chosen = chosen.drop_duplicates("puzzle_id").head(n).assign(seed=profile.seeds[0])
    return None if chosen.empty else _recorded(profile.puzzle, chosen, arm)


def every_recorded(profile: Profile, arm: str, completions: pd.DataFrame, thinks: int) -> Corpus | None:
    """What RFT's recorded completions of all seeds hold for an arm: all different pairs; None where there are none.

    As `recorded_corpus`, but of every seed, and of `late` not one a board only. Of `thinks`, which never end, those of
    the `thinks` boards of each run that were met nearest to the arm's start, one a board.
    """
    rft, parts = completions[completions["run"].str.startswith(f"{SOURCE_ARM}-")], []
    for _, run in rft.groupby("run"):
        rows = _standing_in(profile, arm, run)
        one_each = rows.drop_duplicates("puzzle_id").head(thinks)
        late = get_arm(arm).stand_in == "late"
        parts.append(rows.drop_duplicates(["puzzle_id", "completion"]) if late else one_each)
    chosen = pd.concat(parts) if parts else rft
    return None if chosen.empty else _recorded(profile.puzzle, chosen, arm)


def _standing_in(profile: Profile, arm: str, rft: pd.DataFrame) -> pd.DataFrame:
    """The completions of one RFT run that stand in for what an arm learns from, the first to be taken first."""
    stand_in = get_arm(arm).stand_in
    if stand_in == "late":
        late = rft[(rft["step"] > rft["step"].max() * 2 / 3) & is_correct(rft)]
        return late.sort_values("step", ascending=False, kind="stable")
    return _early_thinks(profile, arm, rft) if stand_in == "thinks" else rft.iloc[:0]


def corpus_of(profile: Profile, spec: RunSpec, rollouts: pd.DataFrame, n: int) -> Corpus | None:
    """Up to `n` pairs that an SFT run trained on; None where the records cannot tell. `rollouts`: of its source run."""
    one = replace(profile, seeds=(spec.seed,))
    written = get_arm(spec.arm).stand_in == "rules"
    return written_corpus(one, spec.arm, n) if written else recorded_corpus(one, spec.arm, rollouts, n)


def corpus_samples(profile: Profile, completions: pd.DataFrame, boards: int) -> dict[str, list[Sample]]:
    """Training pairs of each arm on up to `boards` boards, by arm; arms without any are left out.

    What rules write is made here; the rest comes from the recorded `completions` of RFT, all seeds together: `groups`
    the first with a signal (the first two steps are the base's own), weighted by their advantages; `late` correct
    completions of the second half; `thinks` written near the step that the arm starts from, with the true placement;
    `early` correct completions of the first three steps, where the model is still nearly the base.
    """
    parts = {}
    for arm in (name for name, entry in REGISTRY.items() if entry.stand_in == "rules"):
        parts[arm] = list(written_corpus(profile, arm, boards))
    rft = completions[completions["run"].str.startswith(f"{SOURCE_ARM}-")]
    right = rft[is_correct(rft)]
    middle = rft.groupby("run")["step"].transform("max") / 2
    second_half = right[right["step"] > middle[right.index]].sort_values("step", ascending=False)
    chosen = {
        "groups": _first_groups(rft, boards),
        "late": _different(second_half, boards),
        "early": _different(right[right["step"] <= 3].sort_values("step"), boards),
    }
    for name, arm in REGISTRY.items():
        if arm.stand_in == "thinks":
            part = _early_thinks(profile, name, rft).drop_duplicates(["run", "puzzle_id"]).head(boards)
            parts[name] = list(_recorded(profile.puzzle, part, name))
        elif arm.stand_in in chosen:
            parts[name] = list(_recorded(profile.puzzle, chosen[arm.stand_in], name))
    return {arm: samples for arm, samples in parts.items() if any(sample.weight for sample in samples)}


def corpus_of_run(shared: Shared, spec: RunSpec, n: int) -> Corpus:
    """Up to `n` samples of what a finished run learned from; RFT: correct rollouts, evenly over its steps.

    Empty where that cannot be told (no correct rollout, a source that is not here, or boards of several grids).
    """
    arm = get_arm(spec.arm)
    if spec.easier:
        return Corpus(spec.arm, [], [])
    if arm.streamed:
        return _streamed(shared, spec, n)
    if arm.data == "drawn":
        paths = sorted(store(shared.profile).checkpoints(spec).glob("drawn-*.json"))
        pairs = [pair for path in paths for pair in read_json(path)["samples"][: max(1, n // len(paths))]]
        return _drawn_again(shared, spec, pairs[:n])
    share = float(spec.settings.get("replay_share", 0.5)) if arm.data == "replay" else 0.0
    boards = training_boards(spec.puzzle, n - round(n * share), spec.seed)
    try:
        texts = recipes.RECIPES[spec.arm].write(recipes.Given(spec, store(shared.profile), shared.base[1], boards))
    except DamagedFile:
        raise  # a broken source is no missing one
    except UserError:
        return Corpus(spec.arm, [], [])
    own = boards.corpus(spec.arm, texts)
    prior = rows.replayed(own, share, spec) if share else []
    prompts, texts = [sample.prompt for sample in prior], [sample.completion for sample in prior]
    return Corpus(spec.arm, [*own.prompts, *prompts], [*own.completions, *texts])


def _streamed(shared: Shared, spec: RunSpec, n: int) -> Corpus:
    """Correct rollouts of an RFT run (or of the source of `sft-stream`), every k-th so that all phases count alike."""
    name = spec.source if get_arm(spec.arm).data == "source" else spec.name
    folder = store(shared.profile).root / name
    completions = own_table(folder, "completions").to_pandas() if is_finished(folder) else empty_table("completions")
    right = completions[is_correct(completions)]
    chosen = right.iloc[:: max(1, len(right) // n)].head(n)
    return _drawn_again(shared, spec, list(zip(chosen["puzzle_id"], chosen["completion"], strict=True)))


def _drawn_again(shared: Shared, spec: RunSpec, pairs: Sequence[tuple[int, str]]) -> Corpus:
    """Completions with the prompts of their training boards."""
    if not pairs:
        return Corpus(spec.arm, [], [])
    made = make_boards(shared.profile.puzzle, [int(number) for number, _ in pairs], seeds.training(spec.seed))
    return made.corpus(spec.arm, [text for _, text in pairs])


def _recorded(kind: PuzzleSpec, chosen: pd.DataFrame, arm: str) -> Corpus:
    """Recorded completions as a corpus of `arm`, weighted by their advantages where the arm samples.

    Where it takes only thinks over, the true placement stands behind them.
    """
    keys = list(zip(chosen["seed"].astype(int), chosen["puzzle_id"].astype(int), strict=True))
    known = {key: make_boards(kind, [key[1]], seeds.training(key[0])) for key in dict.fromkeys(keys)}
    prompts = {key: board.prompted()[0] for key, board in known.items()}  # one object a board: it is encoded once
    texts = chosen["completion"].tolist()
    if get_arm(arm).stand_in == "thinks":
        true = [corpora.answer(known[key].placements[0].tolist()) for key in keys]
        texts = [f"{corpora.closed_think(text)}{answer}" for text, answer in zip(texts, true, strict=True)]
    weights = chosen["advantage"].astype(float).tolist() if get_arm(arm).family == "rft" else ()
    return Corpus(arm, [prompts[key] for key in keys], texts, weights)


def _early_thinks(profile: Profile, arm: str, rft: pd.DataFrame) -> pd.DataFrame:
    """Completions with a closed think, those nearest to the step that an arm starts from first."""
    step = int(dict(profile.budget(arm).extra).get("source_step", 0))
    closed = rft[[corpora.closed_think(text) is not None for text in rft["completion"]]]
    return closed.loc[(closed["step"] - step).abs().sort_values(kind="stable").index]


def _first_groups(rft: pd.DataFrame, n: int) -> pd.DataFrame:
    """The completions of the first `n` groups that have a signal; those of one board stand together."""
    keys = ["step", "run", "puzzle_id"]
    spread = rft.groupby(keys)["advantage"].transform(lambda a: a.abs().max())
    groups = rft[spread > 0].sort_values(keys, kind="stable")
    return groups[groups.groupby(keys).ngroup() < n]


def _different(completions: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first `n` different completions, one of each board before second ones of any."""
    once = completions.drop_duplicates(["run", "puzzle_id", "completion"])
    turn = once.groupby(["run", "puzzle_id"]).cumcount()
    return once.loc[turn.sort_values(kind="stable").index].head(n)


def gold_samples(tasks: Sequence[str], numbers: Sequence[int]) -> list[Sample]:
    """Gold answers of the held-out battery samples `numbers` of each task; the kind is the task."""
    chosen = [(task, battery_samples(task, max(numbers) + 1)[k]) for task in tasks for k in numbers]
    return [Sample(Prompted(s.pixels, s.question.text), s.question.completion, task) for task, s in chosen]


def puzzle_samples(profile: Profile, base: Loaded, n: int) -> list[Sample]:
    """Probes on `n` boards that no run sees, four kinds each, neighbours sharing their board.

    `puzzle bare`: the true placement alone. `puzzle own`: the base's own think, then the true placement.
    `puzzle wrong`: the same think, then a wrong one (turned by one place). `puzzle taught`: the teacher's words (2 x 2
    boards only). A board whose think does not close has the first and the last.
    """
    boards = training_boards(profile.puzzle, n, seeds.INFLUENCE_PROBES)
    own = corpora.self_completions(base, boards, seeds.INFLUENCE_PROBES)
    taught = corpora.expert_completions(boards) if (profile.rows, profile.cols) == (2, 2) else [None] * n
    samples = []
    for i, (placement, prompt) in enumerate(zip(boards.placements.tolist(), boards.prompted(), strict=True)):
        wrong = own[i] and own[i].split("<answer>")[0] + corpora.answer([*placement[1:], placement[0]])
        texts = {"bare": corpora.answer(placement), "own": own[i], "wrong": wrong, "taught": taught[i]}
        samples += [Sample(prompt, text, f"puzzle {name}") for name, text in texts.items() if text]
    return samples
