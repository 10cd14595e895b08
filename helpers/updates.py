"""What an update is: its size, shape and path, how far it moves what the model says, and what brings back the old.

Theta are all weights of a model, by name; the change of a run is theta(run) - theta(base). Log-probs and divergences
are in nats at T = 1, fp32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from helpers.prior_tasks import PriorSample
    from helpers.puzzles import PuzzleSpec
    from helpers.scoring import Prompted

    Weights = Mapping[str, torch.Tensor]

KINDS = {"attn": "attention", "mlp": "mlp", "norm": "norms", "embed": "embedding"}
RECOVERY_SEED = 700  # training samples that bring a skill back: of no battery, no replay and no pretraining
DRIFT_SEED = 8  # draws completions for divergences


# --- weights ----------------------------------------------------------------------------------------------


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a model by name, detached copies in fp32; tied ones once."""
    return {name: weight.detach().float().clone() for name, weight in model.named_parameters()}


def load_tuned(folder: str | Path, base: str | Path) -> tuple[Any, Any]:
    """(model in evaluation mode, processor) of a checkpoint; LoRA adapters are merged into the base they were made on.

    Raises UserError where the folder holds neither.
    """
    from helpers import models

    if not (Path(folder) / "adapter_config.json").is_file():
        return models.load(folder)
    from peft import PeftModel

    model, processor = models.load(base)
    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval(), processor


def put(model: Any, weights: Weights) -> None:
    """Load weights into a model in place. Raises UserError where they are another model's."""
    own = dict(model.named_parameters())
    if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
        raise UserError("These weights belong to another model: take both from runs of one base.")
    model.load_state_dict(dict(weights), strict=False)


def change(base: Weights, tuned: Weights) -> dict[str, torch.Tensor]:
    """theta(tuned) - theta(base), by name."""
    return {name: tuned[name] - weight for name, weight in base.items()}


def l2(delta: Weights) -> float:
    """Euclidean norm of all entries together."""
    return math.sqrt(sum(float(part.double().square().sum()) for part in delta.values()))


def l1(delta: Weights) -> float:
    """Sum of the absolute values of all entries."""
    return sum(float(part.double().abs().sum()) for part in delta.values())


def between(first: Weights, second: Weights, share: float) -> dict[str, torch.Tensor]:
    """(1 - share) first + share second, by name: a point of the straight line, its ends exactly the two models."""
    if share == 0:
        return dict(first)
    if share == 1:
        return dict(second)
    return {name: weight + share * (second[name] - weight) for name, weight in first.items()}


def matched(base: Weights, tuned: Weights, norm: float) -> dict[str, torch.Tensor]:
    """base + norm * (tuned - base) / ||tuned - base||_2: the update in its own direction at another length.

    Raises UserError where nothing has changed, since there is no direction then.
    """
    length = l2(change(base, tuned))
    if length == 0:
        raise UserError("These weights equal the base's, so their update has no direction to rescale.")
    return between(base, tuned, norm / length)


def unchanged(base: torch.Tensor, tuned: torch.Tensor, dtype: str = "float32") -> int:
    """How many weights are equal before and after, once both are rounded to a number format."""
    import torch

    kind = getattr(torch, dtype)
    return int((base.to(kind) == tuned.to(kind)).sum())


def effective_rank(matrix: torch.Tensor) -> float:
    """exp of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007): 1 to min(rows, cols).

    A tensor of more than two axes is one row per first index. 0 for a matrix of zeros.
    """
    import torch

    values = torch.linalg.svdvals(matrix.flatten(1).double())
    if not float(values.sum()):
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def kind_of(name: str) -> str:
    """What a weight does in its block: attention, mlp, norms or embedding (patches, words), else "merger"."""
    if "merger" in name:
        return "merger"
    return next((kind for key, kind in KINDS.items() if key in name), "other")


def change_table(base: Weights, tuned: Weights) -> pd.DataFrame:
    """The change per part and kind of weight: columns part, kind, weights, l2, l1, same_fp32, same_bf16, rank, full.

    `same_...`: shares of weights that are equal in that format; `rank`: mean effective rank of the kind's matrices,
    `full` the mean of the largest it could be (both empty where there is none). A last row, part and kind "all", holds
    the whole model.
    """
    import pandas as pd

    from helpers.dynamics import layer_of

    rows = [_weight_row(layer_of(name), name, weight, tuned[name]) for name, weight in base.items()]
    frame = pd.DataFrame(rows)
    whole = frame.assign(part="all", kind="all")
    found = pd.concat([frame, whole]).groupby(["part", "kind"], sort=False, as_index=False).agg(
        weights=("weights", "sum"), l2=("square", lambda s: math.sqrt(s.sum())), l1=("l1", "sum"),
        same_fp32=("same_fp32", "sum"), same_bf16=("same_bf16", "sum"), rank=("rank", "mean"), full=("full", "mean"),
    )  # fmt: skip
    shares = {name: found[name] / found["weights"] for name in ("same_fp32", "same_bf16")}
    return found.assign(**shares)


def _weight_row(part: str, name: str, before: torch.Tensor, after: torch.Tensor) -> dict[str, Any]:
    delta = (after - before).double()
    matrix = before.ndim > 1
    return {
        "part": part,
        "kind": kind_of(name),
        "weights": before.numel(),
        "square": float(delta.square().sum()),
        "l1": float(delta.abs().sum()),
        "same_fp32": unchanged(before, after),
        "same_bf16": unchanged(before, after, "bfloat16"),
        "rank": effective_rank(delta) if matrix else None,
        "full": float(min(before.flatten(1).shape)) if matrix else None,
    }


# --- what it says now -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How much is measured: held-out `boards`, `battery` samples per task, `prompts` of each kind."""

    boards: int = 250
    battery: int = 40
    prompts: int = 96


def scores(loaded: tuple[Any, Any], spec: PuzzleSpec, sizes: Sizes) -> dict[str, float]:
    """exact (puzzle), score, likelihood and format_failure (means over the prior tasks) of a model."""
    import numpy as np

    from helpers import scoring

    exact = scoring.score_puzzles(*loaded, scoring.test_boards(spec, sizes.boards))["exact"]
    tasks = scoring.score_battery(*loaded, sizes.battery).values()
    return {"exact": exact} | {
        m: float(np.mean([t[m] for t in tasks])) for m in ("score", "likelihood", "format_failure")
    }


@dataclass(frozen=True)
class Said:
    """What a model wrote to prompts: one completion each, drawn at T = 1."""

    prompts: tuple[Prompted, ...] = field(repr=False)
    texts: tuple[str, ...]

    def pairs(self) -> list[tuple[Prompted, list[str]]]:
        """(prompt, [completion]) pairs, as they are packed."""
        return [(prompt, [text]) for prompt, text in zip(self.prompts, self.texts, strict=True)]


def said(loaded: tuple[Any, Any], prompts: Sequence[Prompted]) -> Said:
    """What a model writes to prompts; equal for equal weights."""
    from helpers.rollouts import Sampling
    from helpers.scoring import complete

    rows = complete(*loaded, list(prompts), Sampling(1, 1.0, 128, DRIFT_SEED))
    return Said(tuple(prompts), tuple(row[0] for row in rows))


def puzzle_prompts(spec: PuzzleSpec, n: int) -> list[Prompted]:
    """`n` held-out boards with their prompt."""
    from helpers import scoring

    return scoring.test_boards(spec, n).prompted()


def prior_prompts(n: int) -> list[Prompted]:
    """`n` prompts of the battery, its tasks in turn."""
    from helpers import prior_tasks, scoring

    tasks = prior_tasks.battery_tasks()
    each = -(-n // len(tasks))
    rows = [scoring.battery_samples(task, each) for task in tasks]
    chosen = [row[k] for k in range(each) for row in rows][:n]
    return [scoring.Prompted(sample.pixels, sample.question.text) for sample in chosen]


def completion_kl(p: Any, q: Any, processor: Any, written: Said) -> np.ndarray:
    """Sum over each completion's tokens (end token included) of KL(p || q) at that token: (n,), nats.

    For completions written by p its mean estimates KL(p || q) between the distributions over whole completions, with
    less variance than the log-ratio (the expectation over the next token is exact).
    """
    import torch

    from helpers.arms import token_kl
    from helpers.packing import scored_logits
    from helpers.scoring import pack_completions

    pairs, found = written.pairs(), []
    for start in range(0, len(pairs), 32):
        part = pairs[start : start + 32]
        packed, pictures = pack_completions(processor, part)
        with torch.inference_mode():
            apart = token_kl(*(scored_logits(model, packed, pictures).float() for model in (p, q)))
        found.append(torch.zeros(len(part)).index_add(0, packed.branch, apart.cpu()))
    return torch.cat(found).numpy()


def divergences(base: tuple[Any, Any], tuned: tuple[Any, Any], puzzles: Said, prior: Said) -> dict[str, float]:
    """KL in nats per completion; `puzzles` and `prior`: what the base wrote to prompts of either kind.

    kl_forward: KL(base || tuned) on puzzle prompts (RL's Razor, arXiv 2509.04259); kl_reverse: KL(tuned || base) there,
    over what the tuned model writes; kl_prior: KL(base || tuned) on prior prompts.
    """
    own = said(tuned, puzzles.prompts)
    ways = {"kl_forward": (base, tuned, puzzles), "kl_reverse": (tuned, base, own), "kl_prior": (base, tuned, prior)}
    return {name: float(completion_kl(p[0], q[0], base[1], texts).mean()) for name, (p, q, texts) in ways.items()}


def activation_drift(base: tuple[Any, Any], tuned: tuple[Any, Any], prior: Said) -> float:
    """Mean absolute change of the last hidden states over their mean size, at the tokens that the base wrote."""
    import torch

    from helpers.packing import hidden_states
    from helpers.scoring import pack_completions

    packed, pictures = pack_completions(base[1], prior.pairs())
    with torch.inference_mode():
        before, after = (hidden_states(m, packed, pictures, packed.source).float() for m, _ in (base, tuned))
    return float((after - before).abs().mean() / before.abs().mean())


def fisher(base: tuple[Any, Any], prior: Said) -> dict[str, torch.Tensor]:
    """Diagonal of the base's Fisher information: mean over the completions y that it wrote of (d log pi(y | x))^2."""
    import torch

    from helpers.scoring import pack_completions, token_logps

    model, processor = base
    total = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for pair in prior.pairs():
        model.zero_grad()
        token_logps(model, *pack_completions(processor, [pair])).sum().backward()
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                total[name] += weight.grad.square() / len(prior.texts)
    model.zero_grad()
    return total


def fisher_distance(information: Weights, delta: Weights) -> float:
    """sqrt(sum F_i delta_i^2): the length of an update as the base's answers to prior prompts feel it."""
    return math.sqrt(sum(float((information[name] * part.square()).double().sum()) for name, part in delta.items()))


def first_lbk(base: tuple[Any, Any], early: Any, prior: Said, corpus: Sequence[tuple[Prompted, str]]) -> float:
    """LBK on the base's own answers to prior prompts, from the base to a run's first checkpoint (paper, section 5).

    `early`: the model at that checkpoint; `corpus`: (prompt, completion) pairs that the run learned from.
    """
    from helpers import dynamics

    model, _ = base
    probes = dynamics.scored(base, [dynamics.Item(p, t, "prior") for p, (t,) in prior.pairs()])
    learned = dynamics.scored(base, [dynamics.Item(p, t, "corpus") for p, t in corpus])
    return dynamics.lbk_between(probes, learned, dynamics.weights_of(model), dynamics.weights_of(early))


# --- what comes back --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovery:
    """How a forgotten skill is brought back: `steps` of AdamW at `rate`, `batch` samples each, of few samples."""

    steps: int = 24
    rate: float = 2e-4
    batch: int = 16


def halves(tasks: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tasks whose samples are shown again, and tasks that are only watched: every other one, so both hold all kinds."""
    return tuple(tasks[::2]), tuple(tasks[1::2])


def restore(loaded: tuple[Any, Any], samples: Sequence[PriorSample], how: Recovery) -> None:
    """Train a model in place on few prior-task samples; nothing where there are none."""
    import numpy as np
    import torch

    from helpers.scoring import Prompted, pack_completions, token_logps

    model, processor = loaded
    rng, pairs = np.random.default_rng(RECOVERY_SEED), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.rate, weight_decay=0.0)
    for _ in range(how.steps if samples else 0):
        while len(pairs) < how.batch:  # each sample once before any is seen again
            pairs += [samples[k] for k in rng.permutation(len(samples))]
        now, pairs = pairs[: how.batch], pairs[how.batch :]
        part = [(Prompted(s.pixels, s.question.text), [s.question.completion]) for s in now]
        optimizer.zero_grad()
        (-token_logps(model, *pack_completions(processor, part)).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def half_scores(loaded: tuple[Any, Any], battery: int) -> pd.DataFrame:
    """Columns half (shown, unshown), score, likelihood, format_failure: means over the tasks of each half."""
    import numpy as np
    import pandas as pd

    from helpers import prior_tasks, scoring

    found = scoring.score_battery(*loaded, battery)
    rows = []
    for half, tasks in zip(("shown", "unshown"), halves(prior_tasks.battery_tasks()), strict=True):
        means = {m: float(np.mean([found[t][m] for t in tasks])) for m in ("score", "likelihood", "format_failure")}
        rows.append({"half": half} | means)
    return pd.DataFrame(rows)


def recovery_table(
    tuned: tuple[Any, Any], spec: PuzzleSpec, counts: Sequence[int], sizes: Sizes, how: Recovery | None = None
) -> pd.DataFrame:
    """`half_scores` after `restore` with each number of samples: columns samples, exact (puzzle) and those.

    Samples come from the shown half of the prior tasks, in turn. A skill whose samples were never shown and that rises
    all the same was masked, not forgotten. The model is left as it was.
    """
    import pandas as pd

    from helpers import arms, prior_tasks, scoring

    shown, _ = halves(prior_tasks.battery_tasks())
    start, parts = weights_of(tuned[0]), []
    for n in counts:
        put(tuned[0], start)
        restore(tuned, arms.prior_samples(n, RECOVERY_SEED, shown) if n else [], how or Recovery())
        exact = scoring.score_puzzles(*tuned, scoring.test_boards(spec, sizes.boards))["exact"]
        parts.append(half_scores(tuned, sizes.battery).assign(samples=n, exact=exact))
    put(tuned[0], start)
    return pd.concat(parts, ignore_index=True)


# --- predictors -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """How well one predictor explains drops: R^2 with a 95% bootstrap interval, within and left out by arm."""

    predictor: str
    runs: int
    arms: int
    r2: tuple[float, float, float]
    left_out: tuple[float, float, float] | None = field(default=None)


def r_squared(x: Any, y: Any, weights: Any = 1.0) -> Any:
    """Share of the variance of y that a straight line in x explains: the squared correlation along the last axis.

    `weights` (..., n): how often each point counts. 0 where x is constant, NaN where y is. A number for two lists, an
    array (...,) for weights (..., n).
    """
    import numpy as np

    x, y, w = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float), np.asarray(weights, float))
    dx, dy = (v - (w * v).sum(-1, keepdims=True) / w.sum(-1, keepdims=True) for v in (x, y))
    dx, dy = (np.where(np.abs(d) > 1e-12 * np.abs(v).max(initial=1e-300), d, 0) for d, v in ((dx, x), (dy, y)))
    shared, sizes = (w * dx * dy).sum(-1) ** 2, (w * dx**2).sum(-1) * (w * dy**2).sum(-1)
    found = np.where(sizes > 0, shared / np.where(sizes > 0, sizes, 1), 0.0)
    return np.where((w * dy**2).sum(-1) > 0, found, np.nan)[()]


def left_out_r_squared(x: Any, y: Any, groups: Any, weights: Any = 1.0) -> Any:
    """1 - SSE / SST with each group's y predicted by the line through the other groups' points; may be negative.

    `x`, `y`, `groups`: (n,); `weights` (..., n): how often each point counts. SST is about the mean of the other
    groups' y, so that 0 is as good as knowing no x. NaN below two groups. A number, or an array (...,).
    """
    import numpy as np

    x, y, groups = np.asarray(x, float), np.asarray(y, float), np.asarray(groups)
    weights = np.broadcast_to(np.asarray(weights, float), np.broadcast_shapes(np.shape(weights), x.shape))
    errors, totals, present = (np.zeros(weights.shape[:-1]) for _ in range(3))
    for group in sorted(set(groups.tolist())):
        out = groups == group
        inside, others = weights * out, weights * ~out
        known = np.where(others.sum(-1, keepdims=True) > 0, others.sum(-1, keepdims=True), 1)
        mean_x, mean_y = ((others * v).sum(-1, keepdims=True) / known for v in (x, y))
        size = (others * (x - mean_x) ** 2).sum(-1, keepdims=True)
        slope = (others * (x - mean_x) * y).sum(-1, keepdims=True) / np.where(size > 0, size, 1)
        errors += (inside * (y - mean_y - slope * (x - mean_x)) ** 2).sum(-1)
        totals += (inside * (y - mean_y) ** 2).sum(-1)
        present += inside.sum(-1) > 0
    return np.where((present > 1) & (totals > 0), 1 - errors / np.where(totals > 0, totals, 1), np.nan)[()]


def fit(rows: pd.DataFrame, predictor: str, draws: int = 2000) -> Fit | None:
    """R^2 of drop on the logarithm of a predictor, over runs; None below four runs.

    `rows`: columns arm, drop and the predictor (rows where it is missing or not above 0 are left out), and label where
    an arm has variants. The logarithm, because all predictors are positive and some span decades.
    """
    import numpy as np

    known = rows[rows[predictor].notna() & (rows[predictor] > 0)]
    if len(known) < 4:
        return None
    x, y, arms = np.log(known[predictor].to_numpy(float)), known["drop"].to_numpy(float), known["arm"].to_numpy(str)
    counts = _resampled(known, draws)
    inside = _interval(r_squared(x, y), r_squared(x, y, counts))
    outside = None
    if len(set(arms)) >= 3:
        outside = _interval(left_out_r_squared(x, y, arms), left_out_r_squared(x, y, arms, counts))
    return Fit(predictor, len(known), len(set(arms)), inside, outside)


def _resampled(rows: pd.DataFrame, draws: int) -> np.ndarray:
    """How often each row counts in each bootstrap draw, (draws, n): whole arms are drawn with replacement.

    Seeds and learning rates of one arm are no independent evidence on what separates arms, so they stay together.
    """
    import numpy as np

    names, place = np.unique(rows["arm"].to_numpy(str), return_inverse=True)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, place].astype(float)


def rank_correlation(x: pd.Series, y: pd.Series, draws: int = 2000) -> tuple[float, float, float] | None:
    """Spearman's correlation of two quantities (n,), with the middle 95% of its bootstrap draws over the n pairs.

    None below four pairs or where one of the two does not vary. Draws in which one does not vary are left out.
    """
    import numpy as np

    if len(x) < 4 or x.nunique() < 2 or y.nunique() < 2:
        return None
    pairs = np.stack([x.to_numpy(float), y.to_numpy(float)])
    drawn = pairs[:, np.random.default_rng(0).integers(len(x), size=(draws, len(x)))]  # (2, draws, n)
    return _interval(float(_spearman(pairs[:, None])[0]), _spearman(drawn))


def _spearman(pairs: np.ndarray) -> np.ndarray:
    """Correlations (draws,) of the ranks of (2, draws, n) values, ties sharing theirs; NaN where one does not vary."""
    import numpy as np

    less, same = (relation(pairs[..., None, :], pairs[..., None]).sum(-1) for relation in (np.less, np.equal))
    ranks = less + (same + 1) / 2
    first, second = ranks - ranks.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(-1) / np.sqrt((first**2).sum(-1) * (second**2).sum(-1))


def _interval(value: float, draws: np.ndarray) -> tuple[float, float, float]:
    """(value, low, high): the middle 95% of bootstrap draws, those without a value left out."""
    import numpy as np

    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, (0.025, 0.975)) if len(finite) else (math.nan, math.nan)
    return float(value), float(low), float(high)


def advantage(rows: pd.DataFrame, first: str, second: str, draws: int = 2000) -> tuple[float, float, float] | None:
    """R^2 of one predictor minus another's on the same runs, with its 95% bootstrap interval; None as in `fit`."""
    import numpy as np

    known = rows[(rows[[first, second]] > 0).all(axis=1)]
    if len(known) < 4:
        return None
    (a, b), y = np.log(known[[first, second]].to_numpy(float)).T, known["drop"].to_numpy(float)
    counts = _resampled(known, draws)
    return _interval(r_squared(a, y) - r_squared(b, y), r_squared(a, y, counts) - r_squared(b, y, counts))
