"""What the base model can reach by sampling: placements, answers, and where RFT's rollouts lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from transformers import ProcessorMixin

from helpers.errors import UserError
from helpers.measure.probes import PROBES, probe_boards
from helpers.model.build import Loaded
from helpers.model.generate import Sampling
from helpers.model.processor import encode_target
from helpers.model.score import completion_logps, draw
from helpers.stats.intervals import perplexity_interval, wilson
from helpers.study.profiles import Profile
from helpers.study.schema import is_correct
from helpers.train.corpora import answer, closed_think
from helpers.world import answers, seeds
from helpers.world.boards import Boards, Corpus, Prompted, make_boards


def own_samples(base: Loaded, profile: Profile, boards: int, samples: int) -> pd.DataFrame:
    """What the base itself writes about the first probe boards at T = 1, and how probable that is.

    Columns board, completion, exact, format, logp (nats, of the sampled ids), tokens, per_token.
    """
    held = probe_boards(profile, boards)
    sampling = Sampling(samples, 1.0, profile.max_completion_length, seeds.PROBES)
    drawn = draw(*base, held.prompted(), sampling, 32)
    logps = completion_logps(*base, held.prompted(), [[own.ids for own in row] for row in drawn], chunk=16)
    rows = []
    for i, (row, scored) in enumerate(zip(drawn, logps, strict=True)):
        for own, nats in zip(row, scored, strict=True):
            score = answers.score(own.text, held.placements[i].tolist())
            rows.append((i, own.text, score.exact, score.format, float(nats.sum()), len(nats), float(nats.mean())))
    return pd.DataFrame(rows, columns=["board", "completion", "exact", "format", "logp", "tokens", "per_token"])


def reachability(base: Loaded, held: Boards, written: pd.DataFrame) -> pd.DataFrame:
    """How probable a correct completion is, per board: by counting and by exact likelihood under the base.

    `written`: columns board (its number in `held`), completion, exact, format; from the base itself (`own_samples`) or
    from a model close to it. Columns board, samples, right (correct and well formed among them), counted (their share),
    low, high (its 95% Wilson interval), likelihood: the mean over the same completions' thinks of the base's exact
    probability of the true answer behind the think, 0 where there is no think. For the base's own samples both estimate
    the same probability; the second has less noise (Rao-Blackwell), because only the think is sampled.
    """
    rows, prompts = [], held.prompted()
    for board, part in written.groupby("board"):
        answer = held.placements[board].tolist()
        chances = [p for (p,) in answer_chances(base, prompts[board], thinks(part["completion"]), [answer])]
        right = int(is_correct(part).sum())
        rows.append((int(board), len(part), right, *wilson(right, len(part)), sum(chances) / len(part)))
    return pd.DataFrame(rows, columns=["board", "samples", "right", "counted", "low", "high", "likelihood"])


def thinks(completions: Iterable[str]) -> list[str]:
    """The think of each completion that has one, tags included."""
    return [think for text in completions if (think := closed_think(text)) is not None]


def answer_chances(
    base: Loaded, prompt: Prompted, given: Sequence[str], placements: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Probability of each placement (its answer and the end token) behind each think, at T = 1: a list per think.

    exp of the summed log-probs of the tokens behind the think. Each think is passed once per call, however often it was
    written.
    """
    different = list(dict.fromkeys(given))
    if not different or not placements:
        return [[] for _ in given]
    answers = [answer(p) for p in placements]
    lengths = [len(base[1].tokenizer(a, add_special_tokens=False)["input_ids"]) + 1 for a in answers]  # and the end
    texts = [[think + a for a in answers] for think in different]
    scored = completion_logps(*base, [prompt] * len(different), texts, chunk=16)
    # The log-probs of the last n tokens: the answer's and the end's. Those of the think before it are the same for all.
    chances = {
        think: [math.exp(float(logps[-n:].sum())) for logps, n in zip(row, lengths, strict=True)]
        for think, row in zip(different, scored, strict=True)
    }
    return [chances[think] for think in given]


def placement_ranks(base: Loaded, held: Boards, written: pd.DataFrame) -> pd.DataFrame:
    """Where the true placement stands among all placements under the base, per board.

    Every placement's probability is averaged over the thinks in `written` (as for `reachability`). Columns board,
    chance (of the true placement), rank (1: the most probable; ties count half), valid (probability that the answer is
    any placement at all), placements (how many there are). UserError for boards of more than four tiles.
    """
    tiles = len(held.placements[0])
    if tiles > 4:
        raise UserError(f"A board of {tiles} tiles has too many placements to score each: use 2 x 2 boards.")
    every, rows, prompts = list(permutations(range(1, tiles + 1))), [], held.prompted()
    for board, part in written.groupby("board"):
        given = thinks(part["completion"])
        if given:
            # Over all completions, so that those without a think count as 0, as in `reachability`.
            chances = np.sum(answer_chances(base, prompts[board], given, every), 0) / len(part)
            true = chances[every.index(tuple(held.placements[board].tolist()))]
            rank = 1 + (chances > true).sum() + ((chances == true).sum() - 1) / 2
            rows.append((int(board), float(true), float(rank), float(chances.sum()), len(every)))
    return pd.DataFrame(rows, columns=["board", "chance", "rank", "valid", "placements"])


def reach_within(likelihood: Sequence[float], samples: int) -> float:
    """Mean over boards of the probability that `samples` completions hold a correct one: 1 - (1 - p)^samples."""
    return float(np.mean(1 - (1 - np.asarray(likelihood, float)) ** samples))


def early_reach(base: Loaded, profile: Profile, completions: pd.DataFrame, last: int) -> pd.DataFrame:
    """`reachability` of the boards that RFT met in its first `last` steps, from RFT's own completions there.

    The policy is nearly the base then, so that the base's likelihood should foretell RFT's hits. Columns as there, and
    seed. `completions`: those of RFT runs.
    """
    early, parts = completions[completions["step"] <= last], []
    for seed, rows in early.groupby("seed"):
        ids = sorted(rows["puzzle_id"].unique().tolist())
        boards = make_boards(profile.puzzle, ids, seeds.training(int(seed)))
        written = rows.assign(board=rows["puzzle_id"].map({k: i for i, k in enumerate(ids)}))
        parts.append(reachability(base, boards, written).assign(seed=int(seed)))
    if not parts:
        raise UserError(f"There is no RFT completion of the first {last} steps: train the rft arm first.")
    return pd.concat(parts, ignore_index=True)


def early_sentence(reached: pd.DataFrame) -> str:
    """Whether RFT's first hits are as many, and on the boards, that the base's likelihood foretells.

    `reached` as from `early_reach`. Number: expected is the sum of samples x likelihood with its binomial standard
    deviation. Boards: the probability that a solved board has the higher likelihood of a solved and an unsolved one
    (Mann-Whitney; 0.5: no relation).
    """
    p, n, right = (reached[name].to_numpy(float) for name in ("likelihood", "samples", "right"))
    expected, spread = float((n * p).sum()), float(np.sqrt((n * p * (1 - p)).sum()))
    verdict = "as many as" if abs(right.sum() - expected) <= 1.96 * spread else "not the number that"
    said = f"Correct rollouts: {right.sum():.0f} of {n.sum():.0f}; {verdict} the base's likelihood foretells "
    said += f"({expected:.1f}, 95% from {max(0.0, expected - 1.96 * spread):.0f} to {expected + 1.96 * spread:.0f})."
    solved, unsolved = p[right > 0], p[right == 0]
    if len(solved) and len(unsolved):
        above = percentiles(solved, unsolved).mean()
        said += f" Of a solved and an unsolved board, the solved one has the higher likelihood in {above:.0%} of pairs."
    return said


def phase_rows(completions: pd.DataFrame, phases: Mapping[str, tuple[int, int]]) -> pd.DataFrame:
    """Correct RFT rollouts scored under the base, labelled by training phase: corpus, logp, tokens, per_token.

    `phases` maps a label to its (first, last) step, both included.
    """
    right = completions[is_correct(completions) & completions["logp_base"].notna()]
    parts = [right[right["step"].between(*steps)].assign(corpus=name) for name, steps in phases.items()]
    rows = pd.concat(parts, ignore_index=True).rename(columns={"logp_base": "logp"})[["corpus", "logp", "tokens"]]
    return rows.assign(per_token=rows["logp"] / rows["tokens"])


def percentiles(logps: Sequence[float], own: Sequence[float]) -> np.ndarray:
    """Where log-probs stand among the base's own samples: share of those that are less probable (ties count half)."""
    # With ties counted half, two equal sets stand at one half on average: the Mann-Whitney probability.
    ordered = np.sort(np.asarray(own, float))
    below, upto = (np.searchsorted(ordered, logps, side) for side in ("left", "right"))
    return (below + upto) / (2 * len(ordered))


def corpus_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Per corpus, in order of appearance: completions, tokens (mean), logp (mean), perplexity, low, high."""
    table = []
    for corpus, part in rows.groupby("corpus", sort=False):
        spread = perplexity_interval(part["logp"], part["tokens"])
        table.append((corpus, len(part), part["tokens"].mean(), part["logp"].mean(), *spread))
    return pd.DataFrame(table, columns=["corpus", "completions", "tokens", "logp", "perplexity", "low", "high"])


def surprise_table(processor: ProcessorMixin, probes: pd.DataFrame, logps: Sequence[np.ndarray]) -> pd.DataFrame:
    """Where the nats of each kind of right completion go: columns probe, form, numbers, words, first, completions.

    `logps` as from `score_probes`. Mean base log-prob (nats per completion) of the tokens of each sort: form (tags,
    white space, end token), numbers, words; `first`: of the first token alone, whatever its sort.
    """
    rows = []
    for probe, text, own in zip(probes["probe"], probes["completion"], logps, strict=True):
        if PROBES[probe].startswith("right"):
            tokens = [processor.tokenizer.decode([i]) for i in encode_target(processor.tokenizer, text)[: len(own)]]
            sums = dict.fromkeys(("form", "numbers", "words"), 0.0)
            for token, value in zip(tokens, own.tolist(), strict=True):
                sums[token_sort(token)] += value
            rows.append({"probe": probe, **sums, "first": float(own[0])})
    means = pd.DataFrame(rows).groupby("probe", sort=False)
    return means.mean().assign(completions=means.size()).reset_index()


def token_sort(token: str) -> str:
    """form (a tag, white space or the end token), numbers, or words (all else)."""
    if not token.strip() or (token.startswith("<") and token.endswith(">")):
        return "form"
    return "numbers" if token.strip().isdigit() else "words"


def one_board(profile: Profile, probes: pd.DataFrame) -> tuple[list[str], Corpus]:
    """The first board with most kinds of right completions: the kinds, and the completions as a corpus."""
    kinds = [kind for kind, meaning in PROBES.items() if meaning.startswith("right")]
    right = probes[probes["probe"].isin(kinds)]
    number = int(right["number"].value_counts(sort=False).sort_index().idxmax())
    texts = right[right["number"] == number].set_index("probe")["completion"]
    boards = probe_boards(profile, number + 1)
    return list(texts.index), Corpus("probes", [boards.prompted()[number]] * len(texts), texts.tolist())
