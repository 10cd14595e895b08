"""What a run learned from: its corpus, written or recorded, as boards with a completion each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from helpers.errors import UserError
from helpers.measure.linear import Item
from helpers.study.profiles import Profile
from helpers.study.spec import RunSpec
from helpers.train import corpora
from helpers.train.corpora import answer
from helpers.world import seeds
from helpers.world.battery import battery_samples
from helpers.world.boards import Corpus, Prompted, make_boards, training_boards
from helpers.world.puzzles import PuzzleSpec


def written_corpus(profile: Profile, arm: str, n: int) -> Corpus:
    """The first `n` pairs of `sft-answer` or `sft-expert` at the profile's first seed. UserError for others."""
    makers = {"sft-answer": corpora.answer_completions, "sft-expert": corpora.expert_completions}
    if arm not in makers:
        raise UserError(f"Nobody writes the corpus of {arm}: choose one of {', '.join(makers)}.")
    boards = training_boards(_puzzles(profile), n, profile.seeds[0])
    return boards.corpus(arm, makers[arm](boards))


def recorded_corpus(profile: Profile, arm: str, completions: pd.DataFrame, n: int) -> Corpus | None:
    """Up to `n` pairs of `sft-rollout` or `sft-self` from the recorded completions of RFT; None where none fits.

    `sft-rollout`: correct, well-formed completions of the last third of the run, one per board. `sft-self`: the
    thinks written around the step the arm starts from, with the true placement behind them. The study samples
    both anew from checkpoints; the records of the run itself need no weights.
    """
    rft = completions[completions["run"].str.match(rf"rft-{profile.seeds[0]}-")]
    chosen = {"sft-rollout": _correct, "sft-self": _early}[arm](profile, rft)
    chosen = chosen.drop_duplicates("puzzle_id").head(n)
    if chosen.empty:
        return None
    boards = make_boards(_puzzles(profile), chosen["puzzle_id"].tolist(), _scene_seed(profile))
    texts = chosen["completion"].tolist()
    if arm == "sft-self":
        texts = [_with_truth(t, p) for t, p in zip(texts, boards.placements, strict=True)]
    return boards.corpus(arm, texts)


def _correct(profile: Profile, rft: pd.DataFrame) -> pd.DataFrame:
    """Correct, well-formed completions of the last third, newest first."""
    late = rft[rft["step"] > rft["step"].max() * 2 / 3]
    return late[(late["exact"] == 1) & (late["format"] == 1)].sort_values("step", ascending=False, kind="stable")


def _early(profile: Profile, rft: pd.DataFrame) -> pd.DataFrame:
    """Completions with a think, those nearest to the step that `sft-self` starts from first."""
    step = int(dict(profile.budget("sft-self").extra).get("source_step", 0))
    thinks = rft[rft["completion"].str.startswith("<think>") & rft["completion"].str.contains("</think>")]
    distance = (thinks["step"] - step).abs()
    return thinks.loc[distance.sort_values(kind="stable").index]


def _with_truth(text: str, placement: Sequence[int]) -> str:
    return f"{text.split('</think>')[0]}</think>{answer(placement)}"


def _puzzles(profile: Profile) -> Any:
    return PuzzleSpec(rows=profile.rows, cols=profile.cols, size=profile.size)


def _scene_seed(profile: Profile) -> int:
    """The scene seed of the first seed's training boards, as `corpora.training_boards` uses it."""
    return seeds.training(profile.seeds[0])


def prior_items(tasks: Sequence[str], numbers: Sequence[int]) -> list[Item]:
    """Gold answers of the held-out battery samples `numbers` of each task; the kind is the task."""
    found = []
    for task in tasks:
        samples = battery_samples(task, max(numbers) + 1)
        chosen = [samples[k] for k in numbers]
        found += [Item(Prompted(s.pixels, s.question.text), s.question.completion, task) for s in chosen]
    return found


def answer_token(processor: Any, item: Item) -> int:
    """Number of the completion's token behind its opening answer tag. Raises UserError where there is none."""
    head, tag, _ = item.completion.partition("<answer>")
    if not tag:
        raise UserError(f"This completion has no <answer> tag: {item.completion!r}; choose another sample.")
    return len(processor.tokenizer(head + tag, add_special_tokens=False)["input_ids"])


def puzzle_items(profile: Profile, base: tuple[Any, Any], n: int) -> list[Item]:
    """Probes on `n` boards that no run sees, four kinds each, neighbours sharing their board.

    `puzzle bare`: the true placement alone. `puzzle own`: the base's own think, then the true placement.
    `puzzle wrong`: the same think, then a wrong one (turned by one place). `puzzle taught`: the teacher's words (2 x 2
    boards only). A board whose think does not close has the first and the last.
    """
    boards = training_boards(probe_puzzles(profile), n, seeds.INFLUENCE_PROBES)
    own = corpora.self_completions(base, boards, seeds.INFLUENCE_PROBES)
    taught = corpora.expert_completions(boards) if (profile.rows, profile.cols) == (2, 2) else [None] * n
    found = []
    for i, placement in enumerate(boards.placements.tolist()):
        prompt = Prompted(boards.pixels[i], boards.text)
        turned = corpora.answer([*placement[1:], placement[0]])
        wrong = own[i] and own[i].split("<answer>")[0] + turned
        texts = {"bare": corpora.answer(placement), "own": own[i], "wrong": wrong, "taught": taught[i]}
        found += [Item(prompt, text, f"puzzle {name}") for name, text in texts.items() if text]
    return found


def corpus_items(profile: Profile, completions: pd.DataFrame, boards: int) -> dict[str, list[Item]]:
    """Training pairs of each arm on up to `boards` boards, by arm; arms without any are left out.

    Written corpora are made here; the rest comes from the recorded `completions` of RFT:
    `rft` its first groups with a signal (the first two steps are the base's own), weighted by their advantages;
    `sft-rollout` correct completions of the second half; `sft-self` thinks written near the step that the arm starts
    from, with the true placement; `self-sft` correct completions of the first three steps, where the model is still
    nearly the base.
    """
    found = {}
    for arm in ("sft-answer", "sft-expert") if (profile.rows, profile.cols) == (2, 2) else ("sft-answer",):
        corpus = written_corpus(profile, arm, boards)
        found[arm] = [Item(row.prompt, row.completion, arm) for row in corpus]
    rft = completions[completions["run"].str.startswith("rft-")]
    right = rft[(rft["exact"] == 1) & (rft["format"] == 1)]
    middle = rft.groupby("run")["step"].transform("max") / 2
    chosen = {
        "rft": _first_groups(rft, boards),
        "sft-rollout": _different(
            right[right["step"] > middle[right.index]].sort_values("step", ascending=False), boards
        ),
        "sft-self": _early_thinks(profile, rft, boards),
        "self-sft": _different(right[right["step"] <= 3].sort_values("step"), boards),
    }
    found |= {arm: _recorded(profile, rows, arm) for arm, rows in chosen.items()}
    return {arm: items for arm, items in found.items() if any(item.weight for item in items)}


def probe_puzzles(profile: Profile) -> Any:
    return PuzzleSpec(rows=profile.rows, cols=profile.cols, size=profile.size)


def _first_groups(rft: pd.DataFrame, n: int) -> pd.DataFrame:
    """The completions of the first `n` groups that have a signal; those of one board stand together."""
    keys = ["step", "run", "puzzle_id"]
    spread = rft.groupby(keys)["advantage"].transform(lambda a: a.abs().max())
    groups = rft[spread > 0].sort_values(keys, kind="stable")
    return groups[groups.groupby(keys).ngroup() < n]


def _different(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first `n` different completions, one of each board before second ones of any."""
    rows = rows.drop_duplicates(["run", "puzzle_id", "completion"])
    turn = rows.groupby(["run", "puzzle_id"]).cumcount()
    return rows.loc[turn.sort_values(kind="stable").index].head(n)


def _early_thinks(profile: Profile, rft: pd.DataFrame, n: int) -> pd.DataFrame:
    """Completions with a closed think, nearest first to the step that `sft-self` starts from, one per board."""
    step = int(dict(profile.budget("sft-self").extra).get("source_step", 0))
    thinks = rft[rft["completion"].str.match(r"<think>.*</think>")]
    near = thinks.assign(order=(thinks["step"] - step).abs()).sort_values("order", kind="stable")
    return near.drop_duplicates(["run", "puzzle_id"]).head(n)


def _recorded(profile: Profile, rows: pd.DataFrame, arm: str) -> list[Item]:
    """Items of recorded completions; boards are drawn again from run seed and puzzle number."""
    known: dict[tuple[int, int], tuple[Prompted, list[int]]] = {}
    found = []
    for row in rows.itertuples():
        key = (int(row.seed), int(row.puzzle_id))
        if key not in known:
            made = make_boards(probe_puzzles(profile), [key[1]], seeds.training(key[0]))
            known[key] = made.prompted()[0], made.placements[0].tolist()
        prompt, placement = known[key]
        text, weight = row.completion, float(row.advantage) if arm == "rft" else 1.0
        if arm == "sft-self":
            text = f"{text.split('</think>')[0]}</think>{corpora.answer(placement)}"
        found.append(Item(prompt, text, arm, weight))
    return found


def corpus_of(profile: Profile, spec: RunSpec, rollouts: pd.DataFrame, n: int) -> Corpus | None:
    """Up to `n` pairs that an SFT run trained on; None where the records cannot tell. `rollouts`: of its source run."""
    one = replace(profile, seeds=(spec.seed,))
    if spec.arm in ("sft-answer", "sft-expert"):
        return written_corpus(one, spec.arm, n)
    if spec.arm in ("sft-rollout", "sft-self"):
        return recorded_corpus(one, spec.arm, rollouts, n)
    return None
