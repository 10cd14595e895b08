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
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch.func import vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.errors import UserError
from helpers.model.build import Loaded
from helpers.model.forward import Model, scored_logits
from helpers.model.score import pack_completions
from helpers.progress import counted
from helpers.stats.intervals import Interval, jackknife
from helpers.world.boards import Sample

Weights = Mapping[str, torch.Tensor]
RULES = ("sgd", "adamw")
PRIOR = "prior tasks"  # the probe type that pools all prior tasks
CHUNK = 32  # products with J that go through the model side by side


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

    def logps(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-prob of each item (n,) under some logits (M, V), nats."""
        return self.per_item(token_logps(logits, self.target))

    @property
    def tokens(self) -> torch.Tensor:
        """Number of tokens of each item (n,)."""
        return self.owner.bincount(minlength=len(self.weight))


def scored(base: Loaded, items: Sequence[Sample]) -> Scored:
    """The completions (with end token) of `items` behind their prompts, packed once: neighbours with one prompt share.

    `base` is (model, processor); the model's own weights are not used. Raises UserError where there are no items.
    """
    if not items:
        raise UserError("There is nothing to score: the list of items is empty.")
    model, processor = base
    groups = [(group[0].prompt, [item.completion for item in group]) for group in _by_prompt(items)]
    packed, pictures = pack_completions(processor, groups)

    # `functional_call` swaps the weights under a module's forward: here one that gives these tokens' logits alone.
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


def singles(base: Loaded, items: Sequence[Sample]) -> list[Scored]:
    """Each item by itself with weight 1: for gradients of log-probs one by one."""
    return [scored(base, [replace(item, weight=1.0)]) for item in items]


def _by_prompt(items: Iterable[Sample]) -> list[list[Sample]]:
    """Runs of neighbouring items that share their prompt."""
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: id(item.prompt))]


def batches(items: Sequence[Sample], boards: int, count: int) -> list[list[Sample]]:
    """Up to `count` disjoint batches of `boards` neighbouring prompts with all their completions.

    Where there are too few items there are fewer batches, but at least one. Raises UserError on no items or no boards.
    """
    if not items or boards < 1:
        raise UserError(f"Batches need items and a size of 1 or more: got {len(items)} items, size {boards}.")
    groups = _by_prompt(items)
    whole = max(1, min(count, len(groups) // boards))
    return [list(itertools.chain(*groups[k * boards : (k + 1) * boards])) for k in range(whole)]


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    """The weights of a model by name, detached copies in fp32; tied ones once."""
    return {name: weight.detach().float().clone() for name, weight in model.named_parameters()}


def token_logps(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Log-probs (M,) in nats of the target tokens."""
    return logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]


def residual(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """G = p - onehot(target), (M, V): the gradient of the negative log-prob with respect to the logits."""
    return logits.softmax(-1) - torch.nn.functional.one_hot(target, logits.shape[-1])


def a_norm(logits: torch.Tensor) -> torch.Tensor:
    """||A||_F of A = I - 1 p^T per token (M,): sqrt(V ||p||^2 + V - 2), between sqrt(V - 1) and sqrt(2 V - 2)."""
    words = logits.shape[-1]
    return (words * logits.softmax(-1).square().sum(-1) + words - 2).sqrt()


@contextmanager
def _differentiable() -> Iterator[None]:
    """Attention in plain operations: the fused kernel of the CPU has no second derivative (values agree to 1e-6)."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


class Linearised:
    """The logits of a batch and their Jacobian J (M V, P) at one theta, as products; all of them exact.

    `pull(w)` = J^T w for w (M, V): weights. `push(d)` = J d for weights d: (M, V), the change of the logits to first
    order. `push` is the transpose of `pull` (a vjp of a vjp): built once, each product then costs one backward pass.
    """

    def __init__(self, batch: Scored, weights: Weights) -> None:
        self.batch = batch
        with _differentiable():
            logits, self._pull = vjp(batch.logits, dict(weights))
        self.logits = logits.detach()

    def pull(self, cotangent: torch.Tensor) -> dict[str, torch.Tensor]:
        """J^T w, a direction in weight space."""
        return self._pull(cotangent)[0]

    @cached_property
    def _transposed(self) -> Callable:
        # `pull` is linear, so where its derivative is taken does not matter: zeros will do.
        with _differentiable():
            return vjp(self.pull, torch.zeros_like(self.logits))[1]

    def push(self, direction: Weights) -> torch.Tensor:
        """J d, (M, V)."""
        return self._transposed(dict(direction))[0].detach()

    def logps(self) -> torch.Tensor:
        """Log-prob of each item (n,)."""
        return self.batch.logps(self.logits)

    def residual(self, item: int | None = None) -> torch.Tensor:
        """G (M, V), where `item` is given with zeros outside its tokens."""
        whole = residual(self.logits, self.batch.target)
        return whole if item is None else whole * (self.batch.owner == item)[:, None]


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
    return pair_gradient(batch, weights)[0]


def pair_gradient(batch: Scored, weights: Weights) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The gradient, and the logits it was computed from."""
    # Not by `torch.func.grad`, which records the way back too, for second derivatives: that takes up to twice as long.
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        logits = batch.logits(leaves)
        logps = token_logps(logits, batch.target)
        loss = -(batch.weight[batch.owner] * logps).sum() / len(logps)
        slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, slopes, strict=True)), logits.detach()


def flat(direction: Weights) -> torch.Tensor:
    """A direction in weight space as one vector (P,), in the order of its names."""
    return torch.cat([part.detach().flatten() for part in direction.values()])


class Head(NamedTuple):
    """The matrix (V, d) that turns hidden states into logits; `name` of its weight; `tied`: it embeds words too."""

    matrix: torch.Tensor
    name: str
    tied: bool


def head_of(model: Model, weights: Weights) -> Head:
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
    basis = torch.linalg.qr(head.matrix)[0]  # d orthonormal columns, of V rows, that span what W can write
    squares = _within(v, token, u, basis) + _outside(v, token, u, head, basis)
    return u.batch.per_item(squares).sqrt()


def _within(v: Linearised, token: int, u: Linearised, basis: torch.Tensor) -> torch.Tensor:
    """Sum of ||J_u J_v^T q||^2 over the columns q of `basis` (V, d), per token of `u` (M,)."""
    # One cotangent per column, with zeros at all other tokens of `v`.
    reached = basis.new_zeros(basis.shape[1], *v.logits.shape)
    reached[:, token] = basis.T
    return _many(lambda w: u.push(v.pull(w)), reached).square().sum((0, 2))


def _outside(v: Linearised, token: int, u: Linearised, head: Head, basis: torch.Tensor) -> torch.Tensor:
    """The same sum over a basis of what `basis`, the range of the head W, leaves out.

    There J_v^T q = q h_v^T, a change of W alone, and J_u of it is (h_u . h_v) q; where W embeds words too, also what
    the words read pass on, which lies in W's range and so stands at right angles to q.
    """
    # The model gives logits z = W h only; W has full column rank, so least squares recovers the hidden states exactly.
    hidden = torch.linalg.lstsq(head.matrix, torch.cat([v.logits[token : token + 1], u.logits]).T).solution.T
    overlap = hidden[1:] @ hidden[0]
    # V - d such directions q, each with ||(h_u . h_v) q||^2 = (h_u . h_v)^2.
    squares = (basis.shape[0] - basis.shape[1]) * overlap.square()
    if not head.tied:
        return squares
    # J_u q h^T is linear in q: from the words that `u` reads (b, c) it follows for every q, and words that it does not
    # read pass nothing on. What they add through W itself, counted above, is taken off.
    read = _through_input(u, hidden[0], head) - overlap[:, None] * _one_hot(u)[:, None]
    # Summed over the q's, sum_q q_b q_c is the projection onto what W leaves out: 1 - Q Q^T, at the words read.
    rows = basis[u.batch.inputs]
    left = torch.eye(len(rows)).to(rows) - rows @ rows.T
    return squares + (torch.einsum("bc,bmk->cmk", left, read) * read).sum((0, 2))


def _one_hot(u: Linearised) -> torch.Tensor:
    """Unit vectors (words read, V) of the words that `u` reads."""
    return torch.nn.functional.one_hot(u.batch.inputs, u.logits.shape[-1]).to(u.logits)


def _through_input(u: Linearised, hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """J_u e_b h^T for each word b that `u` reads: (words, M, V)."""
    still = {name: torch.zeros_like(weight) for name, weight in u.pull(torch.zeros_like(u.logits)).items()}
    return _many(lambda word: u.push({**still, head.name: word[:, None] * hidden}), _one_hot(u))


def _many(function: Callable, values: torch.Tensor) -> torch.Tensor:
    """`function` of each row, some side by side; torch warns that two of the operations are not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return torch.cat([vmap(function)(part) for part in counted(values.split(CHUNK), "parts of a kernel")])


def sketch(v: Linearised, u: Linearised, draws: int, token: int | None = None) -> torch.Tensor:
    """K(u, v) w for `draws` random w ~ N(0, 1): (draws, M_u, V). The mean of ||K w||^2 is ||K||_F^2, without bias.

    With `token`, for that token of `v` alone. The draws are the same at all weights, so that kernels can be compared.
    """
    # Drawn on the CPU, whatever the device: a GPU's generator gives other numbers.
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
