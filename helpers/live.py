"""Short runs here and now, and the corpora of the study: what notebooks compute while they are being read."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError
from helpers.profiles import SOURCE_ARMS, Profile, specs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from helpers.corpora import Boards
    from helpers.scoring import Prompted

LIVE_SEED = 77  # no seed of any profile: a live run repeats none of the study's


@dataclass(frozen=True)
class Live:
    """A short run: its tables, and the model as it is afterwards."""

    evaluations: pd.DataFrame
    metrics: pd.DataFrame
    completions: pd.DataFrame
    model: Any = field(repr=False)
    processor: Any = field(repr=False)


@dataclass(frozen=True)
class Corpus:
    """What an SFT arm trains on: boards (N, H, W, 3) with one completion each."""

    arm: str
    pixels: np.ndarray = field(repr=False)
    placements: np.ndarray = field(repr=False)
    completions: tuple[str, ...] = field(repr=False)
    text: str

    def __len__(self) -> int:
        return len(self.completions)

    def prompted(self) -> list[Prompted]:
        """The boards with the prompt they share."""
        from helpers.scoring import Prompted

        return [Prompted(board, self.text) for board in self.pixels]


def run(profile: Profile, arm: str, steps: int, corpus: Corpus | None = None) -> Live:
    """Train the first `steps` steps of an arm on new boards (or on `corpus`) and keep nothing on disk.

    Evaluated on few puzzles and a few samples per prior task, so its points are noisier than the published ones.
    Raises UserError for an arm that learns from another run where no corpus is given.
    """
    from helpers.records import TABLES, RunStore, load_table
    from helpers.training import Settings, make_trainer, prepare, puzzle_spec

    if arm in SOURCE_ARMS and corpus is None:
        raise UserError(f"The arm {arm} learns from another run: pass the corpus it should train on.")
    spec = replace(specs(profile, [arm])[0], steps=steps, seed=LIVE_SEED)
    tests = min(100, profile.puzzle_test_size)
    battery = min(12, profile.battery_per_task)
    settings = Settings(puzzle_tests=tests, final_tests=tests, battery=battery, final_battery=battery, per_octave=1)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        store = RunStore(Path(folder))
        own = None if corpus is None else _as_boards(corpus, puzzle_spec(spec))
        engine = prepare(spec, store, store.start(spec), settings, own)
        make_trainer(engine).train()
        engine.run.finish()
        found = {name: load_table(folder, name) for name in TABLES}
    engine.model.eval()
    tables = {name: found[name] for name in ("evaluations", "metrics", "completions")}
    return Live(**tables, model=engine.model, processor=engine.processor)


def _quiet() -> Any:
    """Deprecation warnings of the trainers' own code are noise in a notebook."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return warnings.catch_warnings(action="ignore")


def _as_boards(corpus: Corpus, spec: Any) -> tuple[Boards, list[str]]:
    from helpers.corpora import Boards

    boards = Boards(spec, corpus.pixels, corpus.placements, ("left",) * len(corpus), (None,) * len(corpus))
    return boards, list(corpus.completions)


# --- corpora ----------------------------------------------------------------------------------------------


def written_corpus(profile: Profile, arm: str, n: int) -> Corpus:
    """The first `n` pairs of `sft-answer` or `sft-expert` at the profile's first seed. UserError for others."""
    from helpers import corpora

    makers = {"sft-answer": corpora.answer_completions, "sft-expert": corpora.expert_completions}
    if arm not in makers:
        raise UserError(f"Nobody writes the corpus of {arm}: choose one of {', '.join(makers)}.")
    boards = corpora.training_boards(_puzzles(profile), n, profile.seeds[0])
    return Corpus(arm, boards.pixels, boards.placements, tuple(makers[arm](boards)), boards.text)


def recorded_corpus(profile: Profile, arm: str, completions: pd.DataFrame, n: int) -> Corpus | None:
    """Up to `n` pairs of `sft-rollout` or `sft-self` from the recorded completions of RFT; None where none fits.

    `sft-rollout`: correct, well-formed completions of the last third of the run, one per board. `sft-self`: the
    thinks written around the step the arm starts from, with the true placement behind them. The study samples
    both anew from checkpoints; the records of the run itself need no weights.
    """
    import numpy as np

    from helpers import scoring

    rft = completions[completions["run"].str.match(rf"rft-{profile.seeds[0]}-")]
    chosen = {"sft-rollout": _correct, "sft-self": _early}[arm](profile, rft)
    chosen = chosen.drop_duplicates("puzzle_id").head(n)
    if chosen.empty:
        return None
    boards = scoring.make_boards(_puzzles(profile), chosen["puzzle_id"].tolist(), _scene_seed(profile))
    texts = chosen["completion"].tolist()
    if arm == "sft-self":
        texts = [_with_truth(t, p) for t, p in zip(texts, boards.placements, strict=True)]
    return Corpus(arm, boards.boards, np.array(boards.placements), tuple(texts), boards.text)


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
    from helpers.corpora import answer

    return f"{text.split('</think>')[0]}</think>{answer(placement)}"


def _puzzles(profile: Profile) -> Any:
    from helpers.puzzles import PuzzleSpec

    return PuzzleSpec(rows=profile.rows, cols=profile.cols, size=profile.size)


def _scene_seed(profile: Profile) -> int:
    """The scene seed of the first seed's training boards, as `corpora.training_boards` uses it."""
    from helpers.corpora import TRAIN_SEED

    return TRAIN_SEED + profile.seeds[0]


# --- measurements -----------------------------------------------------------------------------------------


def base_logps(base: tuple[Any, Any], corpus: Corpus) -> pd.DataFrame:
    """Base log-prob of each completion of a corpus: columns corpus, item, completion, tokens, logp, per_token.

    `logp` in nats, summed over `tokens` tokens (end token included), T = 1; `base` is (model, processor).
    """
    import pandas as pd

    from helpers.scoring import completion_logps

    found = completion_logps(*base, corpus.prompted(), [[text] for text in corpus.completions])
    rows = [
        (corpus.arm, item, text, len(logps), float(logps.sum()), float(logps.mean()))
        for item, (text, (logps,)) in enumerate(zip(corpus.completions, found, strict=True))
    ]
    return pd.DataFrame(rows, columns=["corpus", "item", "completion", "tokens", "logp", "per_token"])


def token_view(base: tuple[Any, Any], corpus: Corpus, item: int) -> tuple[list[str], list[float]]:
    """Tokens of one completion of a corpus (end token included) and their base log-probs, for `heat_tokens`."""
    from helpers.models import encode_target
    from helpers.scoring import completion_logps

    model, processor = base
    text = corpus.completions[item]
    ((logps,),) = completion_logps(model, processor, corpus.prompted()[item : item + 1], [[text]])
    ids = encode_target(processor.tokenizer, text)[: len(logps)]
    return [processor.tokenizer.decode([i]) for i in ids], logps.tolist()


def perplexities(logps: pd.DataFrame) -> pd.DataFrame:
    """Perplexity of each corpus under the base model: exp of minus the mean base log-prob per token, tokens pooled.

    Columns corpus, completions, tokens (mean per completion), logp (mean nats per completion), perplexity.
    """
    import numpy as np

    table = logps.groupby("corpus", sort=False).agg(
        completions=("item", "size"), tokens=("tokens", "mean"), logp=("logp", "mean")
    )
    return table.assign(perplexity=np.exp(-table["logp"] / table["tokens"])).reset_index()


def flips(before: tuple[Any, Any], after: tuple[Any, Any], tasks: Sequence[str], n: int) -> pd.DataFrame:
    """How the answers to `n` samples of each prior task changed: columns task, kept, lost, gained, never, n.

    Shares of samples: right before and after, right then wrong (1 to 0), wrong then right (0 to 1), wrong both
    times. An answer is right where its score is at least one half. `before`, `after`: (model, processor).
    """
    import pandas as pd

    rows = []
    for task in tasks:
        first, second = (_right(model, task, n) for model in (before, after))
        pairs = list(zip(first, second, strict=True))
        shares = [pairs.count(kind) / n for kind in ((True, True), (True, False), (False, True), (False, False))]
        rows.append((task, *shares, n))
    return pd.DataFrame(rows, columns=["task", "kept", "lost", "gained", "never", "n"])


def _right(model: tuple[Any, Any], task: str, n: int) -> list[bool]:
    from helpers import prior_tasks, scoring

    samples = scoring.battery_samples(task, n)
    prompts = [scoring.Prompted(s.pixels, s.question.text) for s in samples]
    texts = [row[0] for row in scoring.complete(*model, prompts)]
    return [prior_tasks.score_answer(t, s.question) >= 0.5 for t, s in zip(texts, samples, strict=True)]


def advantages(rewards: Sequence[float]) -> list[float]:
    """GRPO's advantages of one group: (reward - mean) / (standard deviation + 1e-4), the latter over n - 1."""
    import statistics

    mean, spread = statistics.fmean(rewards), statistics.stdev(rewards)
    return [(reward - mean) / (spread + 1e-4) for reward in rewards]
