"""Learning dynamics: what one update on one corpus does to the log-prob of everything else.

Notation of the paper (section 5, after Ren and Sutherland, arXiv 2407.10490): `u` is trained on, `v` is observed,
theta the P weights, z(theta) the logits (M, V) of the M scored tokens over V words, J = dz/dtheta.

    change of log pi(v) after one step on u  =  -eta A(v) K(v, u) G(u)  +  O(eta^2)
    A = I - 1 p^T (per token)    K = J(v) J(u)^T (empirical NTK of the logits)    G = softmax(z) - onehot(target)

J is never stored: every product with it is one pass through the model (`Linearised`), exact up to rounding, for
all tokens of a batch at once. All log-probs are in nats at T = 1; fp32.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.errors import UserError
from helpers.figures import Interval, seed_interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from helpers.profiles import Profile
    from helpers.scoring import Prompted

    Weights = Mapping[str, torch.Tensor]

PROBE_SEED = 77  # boards of no run of the study
RULES = ("sgd", "adamw")
PRIOR = "prior tasks"  # the probe type that pools all prior tasks
CHUNK = 32  # products with J that go through the model side by side


# --- samples ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One completion of one prompt. `kind` names its corpus or probe type, `weight` its share in a loss.

    The weight is 1 in SFT, and the advantage where the item is a rollout of RFT.
    """

    prompt: Prompted = field(repr=False)
    completion: str
    kind: str
    weight: float = 1.0


@dataclass(frozen=True)
class Scored:
    """Scored tokens as a function of the weights.

    `logits(theta)` gives z (M, V); `target` (M,) the tokens' ids; `owner` (M,) the item each belongs to; `weight` (n,)
    the items' weights in a loss; `kinds` their kinds; `inputs` the distinct words that the model reads.
    """

    logits: Callable[[Weights], torch.Tensor] = field(repr=False)
    target: torch.Tensor = field(repr=False)
    owner: torch.Tensor = field(repr=False)
    weight: torch.Tensor = field(repr=False)
    kinds: tuple[str, ...]
    inputs: torch.Tensor = field(repr=False)

    def per_item(self, per_token: torch.Tensor) -> torch.Tensor:
        """Sums (n,) over each item's tokens of a value per token (M,)."""
        return per_token.new_zeros(len(self.weight)).index_add(0, self.owner, per_token)

    @property
    def tokens(self) -> torch.Tensor:
        """Number of tokens of each item (n,)."""
        return self.owner.bincount(minlength=len(self.weight))


def scored(base: tuple[Any, Any], items: Sequence[Item]) -> Scored:
    """The completions (with end token) of `items` behind their prompts, packed once: neighbours with one prompt share.

    `base` is (model, processor); the model's own weights are not used. Raises UserError where there are no items.
    """
    import torch

    from helpers.packing import scored_logits
    from helpers.scoring import pack_completions

    if not items:
        raise UserError("There is nothing to score: the list of items is empty.")
    model, processor = base
    groups = [(group[0].prompt, [item.completion for item in group]) for group in _by_prompt(items)]
    packed, pictures = pack_completions(processor, groups)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> torch.Tensor:
            return scored_logits(self.model, packed, pictures).float()

    module = Logits()

    def logits(weights: Weights) -> torch.Tensor:
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(module, named, ())

    weight = torch.tensor([item.weight for item in items], dtype=torch.float32)
    tensors = (packed.target, packed.branch, weight, packed.ids.unique())
    target, owner, weight, inputs = (tensor.to(model.lm_head.weight.device) for tensor in tensors)
    return Scored(logits, target, owner, weight, tuple(item.kind for item in items), inputs)


def singles(base: tuple[Any, Any], items: Sequence[Item]) -> list[Scored]:
    """Each item by itself with weight 1: for gradients of log-probs one by one."""
    return [scored(base, [replace(item, weight=1.0)]) for item in items]


def _by_prompt(items: Iterable[Item]) -> list[list[Item]]:
    """Runs of neighbouring items that share their prompt."""
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: id(item.prompt))]


def batches(items: Sequence[Item], boards: int, count: int) -> list[list[Item]]:
    """Up to `count` disjoint batches of `boards` neighbouring prompts with all their completions.

    Where there are too few items there are fewer batches, but at least one. Raises UserError on no items or no boards.
    """
    if not items or boards < 1:
        raise UserError(f"Batches need items and a size of 1 or more: got {len(items)} items, size {boards}.")
    groups = _by_prompt(items)
    whole = max(1, min(count, len(groups) // boards))
    return [list(itertools.chain(*groups[k * boards : (k + 1) * boards])) for k in range(whole)]


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a model by name, detached copies."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


# --- A, K, G ----------------------------------------------------------------------------------------------


def token_logps(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Log-probs (M,) in nats of the target tokens."""
    return logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]


def residual(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """G = p - onehot(target), (M, V): the gradient of the negative log-prob with respect to the logits."""
    import torch

    return logits.softmax(-1) - torch.nn.functional.one_hot(target, logits.shape[-1])


def a_norm(logits: torch.Tensor) -> torch.Tensor:
    """||A||_F of A = I - 1 p^T per token (M,): sqrt(V ||p||^2 + V - 2), between sqrt(V - 1) and sqrt(2 V - 2)."""
    words = logits.shape[-1]
    return (words * logits.softmax(-1).square().sum(-1) + words - 2).sqrt()


@contextmanager
def _differentiable() -> Iterator[None]:
    """Attention in plain operations: the fused kernel of the CPU has no second derivative (values agree to 1e-6)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield


class Linearised:
    """The logits of a batch and their Jacobian J (M V, P) at one theta, as products; all of them exact.

    `pull(w)` = J^T w for w (M, V): weights. `push(d)` = J d for weights d: (M, V), the change of the logits to first
    order. `push` is the transpose of `pull` (a vjp of a vjp): built once, each product then costs one backward pass.
    """

    def __init__(self, batch: Scored, weights: Weights) -> None:
        from torch.func import vjp

        self.batch = batch
        with _differentiable():
            logits, self._pull = vjp(batch.logits, dict(weights))
        self.logits = logits.detach()

    def pull(self, cotangent: torch.Tensor) -> dict[str, torch.Tensor]:
        """J^T w, a direction in weight space."""
        return self._pull(cotangent)[0]

    @cached_property
    def _transposed(self) -> Callable:
        import torch
        from torch.func import vjp

        with _differentiable():
            return vjp(self.pull, torch.zeros_like(self.logits))[1]

    def push(self, direction: Weights) -> torch.Tensor:
        """J d, (M, V)."""
        return self._transposed(dict(direction))[0].detach()

    def logps(self) -> torch.Tensor:
        """Log-prob of each item (n,)."""
        return self.batch.per_item(token_logps(self.logits, self.batch.target))

    def residual(self, item: int | None = None) -> torch.Tensor:
        """G (M, V), where `item` is given with zeros outside its tokens."""
        found = residual(self.logits, self.batch.target)
        return found if item is None else found * (self.batch.owner == item)[:, None]


def akg(v: Linearised, u: Linearised, item: int | None = None) -> torch.Tensor:
    """-A(v) K(v, u) G(u), (M_v, V): change per unit of rate of the log-prob of every word at every token of `v`.

    For one SGD step on the summed negative log-prob of `u` (or of one of its items); Theorem 5.1 to first order.
    """
    return apply_a(v.logits, -v.push(u.pull(u.residual(item))))


def apply_a(logits: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """A dz = dz - (p . dz) 1 per token (M, V): change of all log-probs for a small change of the logits."""
    return change - (logits.softmax(-1) * change).sum(-1, keepdim=True)


def gradient(batch: Scored, weights: Weights) -> dict[str, torch.Tensor]:
    """Gradient of the loss that the trainers minimise: -(sum of weight x log-prob over tokens) / (number of tokens).

    With weights 1 it is SFT's; with advantages it is GRPO's on fresh rollouts (token-normalised, no KL term).
    """
    return _gradient(batch, weights)[0]


def _gradient(batch: Scored, weights: Weights) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The gradient, and the logits it was computed from."""
    from torch.func import grad

    def loss(theta: Weights) -> tuple[torch.Tensor, torch.Tensor]:
        logits = batch.logits(theta)
        logps = token_logps(logits, batch.target)
        return -(batch.weight[batch.owner] * logps).sum() / len(logps), logits

    slope, logits = grad(loss, has_aux=True)(dict(weights))
    return slope, logits.detach()


def flat(direction: Weights) -> torch.Tensor:
    """A direction in weight space as one vector (P,), in the order of its names."""
    import torch

    return torch.cat([part.detach().flatten() for part in direction.values()])


# --- the size of K ----------------------------------------------------------------------------------------


class Head(NamedTuple):
    """The matrix (V, d) that turns hidden states into logits; `name` of its weight; `tied`: it embeds words too."""

    matrix: torch.Tensor
    name: str
    tied: bool


def head_of(model: Any, weights: Weights) -> Head:
    """The output head of a model at some weights."""
    shared = [name for name in weights if name.endswith("embed_tokens.weight")]
    tied = "lm_head.weight" not in weights
    name = shared[0] if tied else "lm_head.weight"
    return Head(weights[name], name, tied)


def kernel_norms(v: Linearised, token: int, u: Linearised, head: Head) -> torch.Tensor:
    """Exact ||K(v, u)||_F of one token of `v` with each item of `u` (n,), over all V words of all tokens.

    The square is the sum of ||J_u J_v^T q||^2 over any orthonormal basis q of the V words. Words reach the hidden
    state (d) through the head W only, so d basis vectors span W's range and the others need no pass through `v`.
    """
    import torch

    basis = torch.linalg.qr(head.matrix)[0]
    squares = _within(v, token, u, basis) + _outside(v, token, u, head, basis)
    return u.batch.per_item(squares).sqrt()


def _within(v: Linearised, token: int, u: Linearised, basis: torch.Tensor) -> torch.Tensor:
    """Sum of ||J_u J_v^T q||^2 over the columns q of `basis` (V, d), per token of `u` (M,)."""
    reached = basis.new_zeros(basis.shape[1], *v.logits.shape)
    reached[:, token] = basis.T
    return _many(lambda w: u.push(v.pull(w)), reached).square().sum((0, 2))


def _outside(v: Linearised, token: int, u: Linearised, head: Head, basis: torch.Tensor) -> torch.Tensor:
    """The same sum over a basis of what `basis`, the range of the head W, leaves out.

    There J_v^T q = q h_v^T, a change of W alone, and J_u of it is (h_u . h_v) q; where W embeds words too, also what
    the words read pass on, which lies in W's range and so stands at right angles to q.
    """
    import torch

    hidden = torch.linalg.lstsq(head.matrix, torch.cat([v.logits[token : token + 1], u.logits]).T).solution.T
    overlap = hidden[1:] @ hidden[0]
    squares = (basis.shape[0] - basis.shape[1]) * overlap.square()
    if not head.tied:
        return squares
    read = _through_input(u, hidden[0], head) - overlap[:, None] * _one_hot(u)[:, None]
    rows = basis[u.batch.inputs]
    left = torch.eye(len(rows)).to(rows) - rows @ rows.T
    return squares + (torch.einsum("bc,bmk->cmk", left, read) * read).sum((0, 2))


def _one_hot(u: Linearised) -> torch.Tensor:
    """Unit vectors (words read, V) of the words that `u` reads."""
    import torch

    return torch.nn.functional.one_hot(u.batch.inputs, u.logits.shape[-1]).to(u.logits)


def _through_input(u: Linearised, hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """J_u e_b h^T for each word b that `u` reads: (words, M, V)."""
    import torch

    still = {name: torch.zeros_like(weight) for name, weight in u.pull(torch.zeros_like(u.logits)).items()}
    return _many(lambda word: u.push({**still, head.name: word[:, None] * hidden}), _one_hot(u))


def _many(function: Callable, values: torch.Tensor) -> torch.Tensor:
    """`function` of each row, some side by side; torch warns that two of the operations are not."""
    from torch.func import vmap

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return vmap(function, chunk_size=CHUNK)(values)


def sketch(v: Linearised, u: Linearised, draws: int, token: int | None = None) -> torch.Tensor:
    """K(u, v) w for `draws` random w ~ N(0, 1): (draws, M_u, V). The mean of ||K w||^2 is ||K||_F^2, without bias.

    With `token`, for that token of `v` alone. The draws are the same at all weights, so that kernels can be compared.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    random = torch.randn(draws, *v.logits.shape, generator=generator).to(v.logits)
    if token is not None:
        random = random * (torch.arange(len(v.logits)) == token)[:, None].to(random)
    return _many(lambda w: u.push(v.pull(w)), random)


def kernel_size(products: torch.Tensor, tokens: int) -> Interval:
    """||K||_F per pair of tokens from a `sketch`: sqrt(||K||_F^2 / (M_u M_v)) with its 95% jackknife interval."""
    squares = products.double().square().sum((1, 2)) / (tokens * products.shape[1])
    return jackknife(lambda keep: math.sqrt(float(squares[keep].mean())), len(squares))


def kernel_drift(before: torch.Tensor, after: torch.Tensor) -> dict[str, Interval]:
    """How a kernel changed, from sketches with the same draws: 95% jackknife intervals.

    `size`: ||K'||_F / ||K||_F. `alignment`: <K, K'> / (||K|| ||K'||), 1 where one is a multiple of the other.
    """
    old, new = before.double().flatten(1), after.double().flatten(1)
    squares, others, both = old.square().sum(1), new.square().sum(1), (old * new).sum(1)

    def size(keep: Sequence[int]) -> float:
        return math.sqrt(float(others[keep].sum() / squares[keep].sum()))

    def alignment(keep: Sequence[int]) -> float:
        return float(both[keep].sum() / (squares[keep].sum() * others[keep].sum()).sqrt())

    return {"size": jackknife(size, len(old)), "alignment": jackknife(alignment, len(old))}


def jackknife(estimate: Callable[[list[int]], float], n: int) -> Interval:
    """An estimate from all of n draws, with a 95% t interval from leaving each out once (the value itself for n < 3).

    Pseudo-values n f(all) - (n - 1) f(all but i): their mean is f without its first-order bias (Tukey, 1958).
    """
    everything = list(range(n))
    whole = estimate(everything)
    if n < 3:
        return Interval(whole, whole, whole)
    rest = [estimate(everything[:i] + everything[i + 1 :]) for i in everything]
    return seed_interval([n * whole - (n - 1) * value for value in rest])


# --- one update -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One update: torch's SGD or AdamW (fresh state, no decay) at a rate. Raises UserError for another rule."""

    rule: str
    rate: float

    def __post_init__(self) -> None:
        if self.rule not in RULES or not self.rate > 0:
            raise UserError(f"A step needs a rule of {', '.join(RULES)} and a rate above 0, not {self}.")

    @property
    def label(self) -> str:
        """ "SGD, rate 0.01"."""
        return f"{ {'sgd': 'SGD', 'adamw': 'AdamW'}[self.rule] }, rate {self.rate:g}"


def optimizer(leaves: Mapping[str, torch.Tensor], step: Step) -> torch.optim.Optimizer:
    """The step's optimizer over some tensors."""
    import torch

    made = torch.optim.SGD if step.rule == "sgd" else torch.optim.AdamW
    return made(list(leaves.values()), lr=step.rate, weight_decay=0.0)


def update(weights: Weights, slope: Weights, step: Step) -> dict[str, torch.Tensor]:
    """The change of the weights after one step on a gradient.

    AdamW's first step is rate x g / (|g| + eps): nearly the sign, so its length hardly depends on the gradient's.
    """
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    for name, leaf in leaves.items():
        leaf.grad = slope[name].detach().clone()
    optimizer(leaves, step).step()
    return {name: leaf.detach() - weights[name] for name, leaf in leaves.items()}


def moved(weights: Weights, direction: Weights, share: float = 1.0) -> dict[str, torch.Tensor]:
    """theta + share x direction."""
    return {name: weight + share * direction[name] for name, weight in weights.items()}


def logits_at(batch: Scored, weights: Weights) -> torch.Tensor:
    """Logits (M, V) at some weights."""
    import torch

    with torch.no_grad():
        return batch.logits(weights)


def logps_at(batch: Scored, weights: Weights) -> torch.Tensor:
    """Log-prob of each item (n,) at some weights, nats."""
    return batch.per_item(token_logps(logits_at(batch, weights), batch.target))


def predicted(line: Linearised, direction: Weights) -> dict[str, torch.Tensor]:
    """Two predictions of each item's change of log-prob (n,) from J alone.

    `first order`: -sum(G * J d), which for SGD is -eta A K G at the target word (Theorem 5.1). `linear logits`: the
    logits move by J d, the softmax is exact; what it misses is the change of J itself.
    """
    change, batch = line.push(direction), line.batch
    first = apply_a(line.logits, change).gather(-1, batch.target[:, None])[:, 0]
    after = token_logps(line.logits + change, batch.target) - token_logps(line.logits, batch.target)
    return {"first order": batch.per_item(first), "linear logits": batch.per_item(after)}


class Lesson(NamedTuple):
    """A batch, the gradient of its loss at some weights, and the logits (M, V) there."""

    batch: Scored
    slope: Weights
    logits: torch.Tensor


Lessons = Mapping[str, Sequence[Lesson]]  # by corpus


def lessons(corpora: Mapping[str, Sequence[Scored]], weights: Weights) -> dict[str, list[Lesson]]:
    """The gradients of all batches of all corpora, taken once."""
    return {arm: [Lesson(batch, *_gradient(batch, weights)) for batch in parts] for arm, parts in corpora.items()}


def influence(
    learned: Lessons, probes: Scored, weights: Weights, steps: Sequence[Step], line: Linearised | None = None
) -> pd.DataFrame:
    """Change of each probe's log-prob after one real update on each batch of each corpus: a row per combination.

    Columns corpus, batch, step (its label), item, kind, tokens, change (nats), a (the probe's A_norm) and g (mean
    ||p - e||_2 of the batch), for LBK; with `line`, the probes' `Linearised`, also the predictions of `predicted`.
    """
    import pandas as pd

    frames, logits = [], logits_at(probes, weights)
    before = probes.per_item(token_logps(logits, probes.target))
    common = {"item": range(len(probes.kinds)), "kind": probes.kinds, "tokens": probes.tokens.tolist()}
    common["a"] = item_a_norm(logits, probes).tolist()
    for corpus, number, lesson in each_lesson(learned):
        g = float(item_g_norm(lesson.logits, lesson.batch).mean())
        for step in steps:
            direction = update(weights, lesson.slope, step)
            found = {"change": logps_at(probes, moved(weights, direction)) - before}
            found |= predicted(line, direction) if line else {}
            named = {"corpus": corpus, "batch": number, "step": step.label, "g": g}
            frames.append(pd.DataFrame(common | {name: values.tolist() for name, values in found.items()} | named))
    return pd.concat(frames, ignore_index=True)


def each_lesson(learned: Lessons) -> Iterator[tuple[str, int, Lesson]]:
    """(corpus, number of the batch, lesson) of all."""
    for corpus, parts in learned.items():
        for number, lesson in enumerate(parts):
            yield corpus, number, lesson


def per_token(rows: pd.DataFrame, by: Sequence[str], value: str = "change") -> pd.DataFrame:
    """Change per token (nats, tokens pooled) of the rows of `influence`, per group: columns `by`, value."""
    sums = rows.groupby(list(by), sort=False)[[value, "tokens"]].sum()
    return (sums[value] / sums["tokens"]).rename("value").reset_index()


def over_batches(rows: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean and 95% t interval over the batches of each group: columns `by`, mean, low, high."""
    import pandas as pd

    found = [(*keys, *seed_interval(part[value])) for keys, part in rows.groupby(list(by), sort=False)]
    return pd.DataFrame(found, columns=[*by, "mean", "low", "high"])


def span(interval: Any, digits: int = 2, scale: float = 1.0) -> str:
    """ "+0.12 (+0.08 to +0.16)" of anything with mean, low and high."""
    mean, low, high = (scale * value for value in (interval.mean, interval.low, interval.high))
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def sign_words(interval: Any, below: str, above: str) -> str:
    """Which side of 0 an interval lies on, in the words given, or "undecided"."""
    return below if interval.high < 0 else above if interval.low > 0 else "undecided"


def mutual(alone: Sequence[Scored], together: Scored, weights: Weights, step: Step) -> np.ndarray:
    """Entry (i, j): change of the mean log-prob per token of item j after one step up that of item i (n, n).

    `alone` hold one item each, `together` all of them in the same order. Theorem 5.2 says that for SGD the matrix is
    symmetric to first order.
    """
    import numpy as np

    before, rows = logps_at(together, weights), []
    for single in alone:
        direction = update(weights, gradient(single, weights), step)
        rows.append(((logps_at(together, moved(weights, direction)) - before) / together.tokens).tolist())
    return np.array(rows)


# --- the bound and its sign -------------------------------------------------------------------------------


def item_a_norm(logits: torch.Tensor, batch: Scored) -> torch.Tensor:
    """The paper's A_norm of each probe (n,): sqrt(V pbar^2 + V - 2), pbar the mean over its tokens of ||p||_2."""
    words = logits.shape[-1]
    mean = batch.per_item(logits.softmax(-1).norm(dim=-1)) / batch.tokens
    return (words * mean.square() + words - 2).sqrt()


def item_g_norm(logits: torch.Tensor, batch: Scored) -> torch.Tensor:
    """||p - e||_2 of each training sample (n,), as the mean over its tokens of ||softmax - onehot||_2."""
    return batch.per_item(residual(logits, batch.target).norm(dim=-1)) / batch.tokens


def lbk(change: Sequence[float], a: Sequence[float], g: float) -> float:
    """||change of log-prob||_2 over probes of a type / sqrt(mean A_norm) / mean ||p - e||_2 (paper, section 5, 2.).

    As the authors of the framework compute it: not divided by the rate, and by the *root* of A_norm, which is already
    a norm. The bound on ||K||_F divides by ||A||_F itself (see `ladder`).
    """
    return math.sqrt(math.fsum(value * value for value in change)) / _scale(a, g)


def lbk_between(probes: Scored, learned: Scored, before: Weights, after: Weights) -> float:
    """LBK of probes from one checkpoint to a later one, with the normalisers of the first.

    `learned`: samples of what was trained on in between.
    """
    logits = logits_at(probes, before)
    change = logps_at(probes, after) - probes.per_item(token_logps(logits, probes.target))
    g = float(item_g_norm(logits_at(learned, before), learned).mean())
    return lbk(change.tolist(), item_a_norm(logits, probes).tolist(), g)


def sign_delta(change: Sequence[float], a: Sequence[float], g: float) -> float:
    """Mean change of log-prob over probes of a type, with the same normalisers: LBK's signed twin."""
    return math.fsum(change) / len(change) / _scale(a, g)


def _scale(a: Sequence[float], g: float) -> float:
    return math.sqrt(math.fsum(a) / len(a)) * g


def probe_types(kinds: Sequence[str]) -> dict[str, list[int]]:
    """Numbers of the items of each probe type: all prior tasks together, each of them, and each kind of puzzle."""
    prior = [i for i, kind in enumerate(kinds) if not kind.startswith("puzzle")]
    found = {PRIOR: prior} if prior else {}
    for i, kind in enumerate(kinds):
        found.setdefault(kind, []).append(i)
    return found


def bounds(rows: pd.DataFrame) -> pd.DataFrame:
    """LBK and SignDelta of the rows of `influence`: columns corpus, batch, step, probe, lbk, sign_delta."""
    import pandas as pd

    found = []
    for key, part in rows.groupby(["corpus", "batch", "step"], sort=False):
        change, a, g = part["change"].to_numpy(), part["a"].to_numpy(), part["g"].iloc[0]
        for probe, keep in probe_types(part["kind"].tolist()).items():
            found.append((*key, probe, lbk(change[keep], a[keep], g), sign_delta(change[keep], a[keep], g)))
    return pd.DataFrame(found, columns=["corpus", "batch", "step", "probe", "lbk", "sign_delta"])


def ema(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Exponential moving average: s_0 = x_0, s_t = keep s_(t-1) + (1 - keep) x_t."""
    return list(itertools.accumulate(values, lambda s, x: keep * s + (1 - keep) * x))


class Pair(NamedTuple):
    """One token of `v` and the items of `u`, linearised at the same weights."""

    v: Linearised
    token: int
    u: Linearised


def ladder(pair: Pair, head: Head, weights: Weights, rate: float) -> pd.DataFrame:
    """From the exact kernel norm down to LBK, for one token of `v` and each item of `u`: a row per item.

    A step of SGD on the summed negative log-prob of u changes the log-probs of all words at v's token by eta A K G.
    Columns kind, tokens (of u), a and g (||A||_F and ||G||_F), then each at most the one before it:
    `kernel` ||K||_F, `gradient` ||K G|| / g, `words` ||A K G|| / (a g), `target` |(A K G)_target| / (a g). `measured`:
    `target` from a real step at `rate`; `lbk`: LBK of that step, divided by the rate. Units: nats per unit of rate.
    """
    import pandas as pd

    v, token, u = pair
    norms, rows = kernel_norms(v, token, u, head), []
    before = token_logps(v.logits, v.batch.target)[token]
    word, a = v.batch.target[token], float(a_norm(v.logits)[token])
    for item, kind in enumerate(u.batch.kinds):
        pushed = u.residual(item)
        slope, g = u.pull(pushed), float(pushed.norm())
        kg = v.push(slope)[token]
        change = apply_a(v.logits[token], kg)
        there = logits_at(v.batch, moved(weights, slope, -rate))
        real = abs(float(token_logps(there, v.batch.target)[token] - before)) / rate
        mean = float(pushed.norm(dim=-1).sum() / u.batch.tokens[item])
        steps = (kg.norm() / g, change.norm() / (a * g), change[word].abs() / (a * g))
        rows.append((kind, int(u.batch.tokens[item]), a, g, float(norms[item]), *map(float, steps),
                     real / (a * g), lbk([real], [a], mean)))  # fmt: skip
    names = ["kind", "tokens", "a", "g", "kernel", "gradient", "words", "target", "measured", "lbk"]
    return pd.DataFrame(rows, columns=names)


# --- along training ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A short training: AdamW at `rate` after `warmup` updates, gradients clipped at norm `clip` as in the trainers.

    The rate rises as in the trainers but for their first update, whose rate is 0: it is left out here.

    Weights are kept after the updates `keep` (0: the start).
    """

    steps: int
    rate: float
    keep: tuple[int, ...] = (0,)
    warmup: int = 10
    clip: float = 1.0


@dataclass(frozen=True)
class Walk:
    """A short training on one corpus: rows per step and probe type, and the weights after some steps."""

    corpus: str
    rows: pd.DataFrame
    snapshots: Mapping[int, Weights] = field(repr=False)


Source = Callable[[int, "Weights"], Scored]  # the batch of an update (from 1) at the weights before it


def walk(corpus: str, source: Source, probes: Scored, weights: Weights, plan: Plan) -> Walk:
    """Train as planned and measure after each update.

    Rows: corpus, step, probe (type), lbk and sign_delta (of the change since the step before; normalisers at the
    weights before it), change (nats per token since the start).
    """
    import pandas as pd

    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    engine, here = optimizer(leaves, Step("adamw", plan.rate)), dict(weights)
    logits, rows, snapshots = logits_at(probes, here), [], {0: here} if 0 in plan.keep else {}
    start = before = probes.per_item(token_logps(logits, probes.target))
    for number in range(1, plan.steps + 1):
        a, g = item_a_norm(logits, probes).cpu().numpy(), _advance(leaves, engine, source(number, here), plan, number)
        here = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        logits = logits_at(probes, here)
        after = probes.per_item(token_logps(logits, probes.target))
        change, total = ((after - earlier).cpu().numpy() for earlier in (before, start))
        for probe, keep in probe_types(probes.kinds).items():
            moved_by = total[keep].sum() / float(probes.tokens[keep].sum())
            rows.append((corpus, number, probe, lbk(change[keep], a[keep], g), sign_delta(change[keep], a[keep], g),
                         moved_by))  # fmt: skip
        before = after
        if number in plan.keep:
            snapshots[number] = here
    names = ["corpus", "step", "probe", "lbk", "sign_delta", "change"]
    return Walk(corpus, pd.DataFrame(rows, columns=names), snapshots)


def _advance(leaves: Mapping, engine: torch.optim.Optimizer, batch: Scored, plan: Plan, number: int) -> float:
    """One update in place; returns the batch's mean ||p - e||_2 before it."""
    import torch

    slope, logits = _gradient(batch, {name: leaf.detach() for name, leaf in leaves.items()})
    for name, leaf in leaves.items():
        leaf.grad = slope[name]
    torch.nn.utils.clip_grad_norm_(leaves.values(), plan.clip)
    engine.param_groups[0]["lr"] = plan.rate * min(1.0, number / plan.warmup)
    engine.step()
    return float(item_g_norm(logits, batch).mean())


def repeated(parts: Sequence[Scored]) -> Source:
    """A corpus as a source: its batches in turn, from the first again where they run out."""
    return lambda number, _: parts[(number - 1) % len(parts)]


def on_policy(base: tuple[Any, Any], profile: Profile, boards: int) -> Source:
    """RFT as a source: groups written by the model at the present weights for new boards, weighted by advantages.

    GRPO's gradient without the KL term; the three rewards have unit weights; boards of the profile's first seed.
    """
    import copy

    model = copy.deepcopy(base[0])

    def source(number: int, weights: Weights) -> Scored:
        """New groups, on the next boards."""
        import torch

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        part = range((number - 1) * boards, number * boards)
        return scored(base, rollout_items((model, base[1]), profile, part, profile.seeds[0]))

    return source


def rollout_items(model: tuple[Any, Any], profile: Profile, boards: range, seed: int) -> list[Item]:
    """A group of completions (T = 1) per training board, as items of `rft` whose weights are their advantages."""
    from helpers import corpora, live, puzzles, scoring
    from helpers.rollouts import Sampling
    from helpers.scoring import Prompted

    made = scoring.make_boards(_puzzles(profile), boards, corpora.TRAIN_SEED + seed)
    prompts = [Prompted(pixels, made.text) for pixels in made.boards]
    sampling = Sampling(profile.group_size, 1.0, profile.max_completion_length, seed + boards.start)
    items = []
    for prompt, texts, truth in zip(prompts, scoring.complete(*model, prompts, sampling), made.placements, strict=True):
        scores = [puzzles.score(text, truth) for text in texts]
        weights = live.advantages([s.hit + s.exact + s.format for s in scores])
        items += [Item(prompt, text, "rft", weight) for text, weight in zip(texts, weights, strict=True)]
    return items


# --- direction --------------------------------------------------------------------------------------------


def layer_of(name: str) -> str:
    """The part of the model that a weight belongs to."""
    block = re.search(r"(visual\.blocks|layers)\.(\d+)\.", name)
    if block:
        return f"{'eye' if block[1] == 'visual.blocks' else 'text'} {int(block[2]) + 1}"
    parts = {"patch_embed": "patches", "merger": "merger", "embed_tokens": "words", "lm_head": "head"}
    return next((part for key, part in parts.items() if key in name), "last norm")


def cosines(slope: Weights, other: Weights) -> dict[str, tuple[float, float]]:
    """Per part of the model and for "all": (cosine of two gradients, its share of the whole cosine).

    Share: inner product within the part over the product of the whole norms; the shares add up to the cosine of "all".
    """
    sums: dict[str, list[float]] = {}
    for name, mine in slope.items():
        found = ((mine * other[name]).sum(), mine.square().sum(), other[name].square().sum())
        for part in (layer_of(name), "all"):
            sums[part] = [a + float(b) for a, b in zip(sums.get(part, [0.0] * 3), found, strict=True)]
    whole = math.sqrt(sums["all"][1] * sums["all"][2])
    return {part: (dot / math.sqrt(max(x * y, 1e-60)), dot / whole) for part, (dot, x, y) in sums.items()}


def directions(learned: Lessons, prior: Weights) -> pd.DataFrame:
    """Cosine of each batch's gradient with the gradient `prior` of the prior tasks, per part of the model.

    Columns corpus, batch, part, cosine, share (see `cosines`), norm (of the whole gradient). Above 0: a small SGD step
    on the batch makes the prior tasks' gold answers more probable.
    """
    import pandas as pd

    rows = []
    for corpus, number, lesson in each_lesson(learned):
        size = float(flat(lesson.slope).norm())
        rows += [(corpus, number, part, *both, size) for part, both in cosines(lesson.slope, prior).items()]
    return pd.DataFrame(rows, columns=["corpus", "batch", "part", "cosine", "share", "norm"])


def symmetry(groups: Mapping[str, Sequence[Scored]], together: Scored, weights: Weights, step: Step) -> pd.DataFrame:
    """v|u beside u|v for each pair of a corpus sample u and a prior sample v, under one rule.

    `groups`: single items by corpus, `PRIOR` among them; `together`: all of them in order. Columns step, corpus, u, v,
    forward (change of v after a step on u), backward (the other way round): mean log-prob per token, nats.
    """
    import pandas as pd

    singles = [(kind, single) for kind, parts in groups.items() for single in parts]
    change = mutual([single for _, single in singles], together, weights, step)
    prior = [i for i, (kind, _) in enumerate(singles) if kind == PRIOR]
    rows = [
        (step.label, kind, i, j, change[i, j], change[j, i])
        for i, (kind, _) in enumerate(singles) if kind != PRIOR for j in prior
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["step", "corpus", "u", "v", "forward", "backward"])


def asymmetry(pairs: pd.DataFrame) -> Interval:
    """Mean |forward - backward| over the mean of (|forward| + |backward|) / 2: 0 if symmetric, 2 at most.

    Two unrelated changes of one size and either sign give about 1. The 95% jackknife interval is over the samples v.
    """
    gap, size = _gap_and_size(pairs)
    return jackknife(lambda keep: math.fsum(gap[i] for i in keep) / math.fsum(size[i] for i in keep), len(gap))


def asymmetry_index(pairs: pd.DataFrame) -> float:
    """The same number without an interval, and without the jackknife's correction that can leave the range 0 to 2."""
    gap, size = _gap_and_size(pairs)
    return math.fsum(gap) / math.fsum(size)


def _gap_and_size(pairs: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Per sample v the sums of |forward - backward| and of (|forward| + |backward|) / 2."""
    gap = (pairs["forward"] - pairs["backward"]).abs().groupby(pairs["v"]).sum().tolist()
    size = ((pairs["forward"].abs() + pairs["backward"].abs()) / 2).groupby(pairs["v"]).sum().tolist()
    return gap, size


def constancy(walked: Walk, v: Scored, u: Scored, draws: int) -> pd.DataFrame:
    """How K(v, u) changes while training on the corpus that u comes from; every snapshot sees the same random draws.

    Columns corpus, step, quantity, mean, low, high. Quantities: `norm` (||K||_F per pair of tokens, see `kernel_size`),
    `size` and `alignment` against the first snapshot (see `kernel_drift`).
    """
    import pandas as pd

    rows, first = [], None
    for step, weights in walked.snapshots.items():
        line = Linearised(v, weights)
        drawn = sketch(line, Linearised(u, weights), draws)
        first = drawn if first is None else first
        found = {"norm": kernel_size(drawn, len(line.logits)), **kernel_drift(first, drawn)}
        rows += [(walked.corpus, step, name, *interval) for name, interval in found.items()]
    return pd.DataFrame(rows, columns=["corpus", "step", "quantity", "mean", "low", "high"])


# --- what is trained on, what is observed -----------------------------------------------------------------


def prior_items(tasks: Sequence[str], numbers: Sequence[int]) -> list[Item]:
    """Gold answers of the held-out battery samples `numbers` of each task; the kind is the task."""
    from helpers.scoring import Prompted, battery_samples

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
    from helpers import corpora
    from helpers.scoring import Prompted

    boards = corpora.training_boards(_puzzles(profile), n, PROBE_SEED)
    own = corpora.self_completions(*base, boards, PROBE_SEED)
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
    from helpers import live

    found = {}
    for arm in ("sft-answer", "sft-expert") if (profile.rows, profile.cols) == (2, 2) else ("sft-answer",):
        corpus = live.written_corpus(profile, arm, boards)
        pairs = zip(corpus.prompted(), corpus.completions, strict=True)
        found[arm] = [Item(prompt, text, arm) for prompt, text in pairs]
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


def _puzzles(profile: Profile) -> Any:
    from helpers.puzzles import PuzzleSpec

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
    from helpers import corpora, scoring
    from helpers.scoring import Prompted

    known: dict[tuple[int, int], tuple[Prompted, tuple[int, ...]]] = {}
    found = []
    for row in rows.itertuples():
        key = (int(row.seed), int(row.puzzle_id))
        if key not in known:
            made = scoring.make_boards(_puzzles(profile), [key[1]], corpora.TRAIN_SEED + key[0])
            known[key] = Prompted(made.boards[0], made.text), made.placements[0]
        prompt, placement = known[key]
        text, weight = row.completion, float(row.advantage) if arm == "rft" else 1.0
        if arm == "sft-self":
            text = f"{text.split('</think>')[0]}</think>{corpora.answer(placement)}"
        found.append(Item(prompt, text, arm, weight))
    return found
