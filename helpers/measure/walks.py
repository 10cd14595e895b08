"""Longer walks along a corpus: predicted against measured, cosines of updates, symmetry, and the kernel's drift."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd
import torch
from transformers import ProcessorMixin

from helpers.errors import UserError
from helpers.measure import influence, linear
from helpers.measure.influence import BatchGradients, Step, lbk, logits_at, probe_types, sign_delta
from helpers.measure.linear import PRIOR, Head, Linearised, Scored, Weights, sketch, token_logps
from helpers.model import score
from helpers.model.build import Loaded
from helpers.model.generate import Sampling
from helpers.progress import counted
from helpers.stats.intervals import Interval, jackknife
from helpers.study.profiles import Profile
from helpers.train import live
from helpers.world import answers, seeds
from helpers.world.boards import Sample, make_boards


class Pair(NamedTuple):
    """One token of `v` and the items of `u`, linearised at the same weights."""

    v: Linearised
    token: int
    u: Linearised


def answer_token(processor: ProcessorMixin, sample: Sample) -> int:
    """Number of the completion's token behind its opening answer tag. Raises UserError where there is none."""
    head, tag, _ = sample.completion.partition("<answer>")
    if not tag:
        raise UserError(f"This completion has no <answer> tag: {sample.completion!r}; choose another sample.")
    return len(processor.tokenizer(head + tag, add_special_tokens=False)["input_ids"])


def ladder(pair: Pair, head: Head, weights: Weights, rate: float) -> pd.DataFrame:
    """From the exact kernel norm down to LBK, for one token of `v` and each item of `u`: a row per item.

    A step of SGD on the summed negative log-prob of u changes the log-probs of all words at v's token by eta A K G.
    Columns kind, tokens (of u), a and g (||A||_F and ||G||_F), then each at most the one before it:
    `kernel` ||K||_F, `gradient` ||K G|| / g, `words` ||A K G|| / (a g), `target` |(A K G)_target| / (a g). `measured`:
    `target` from a real step at `rate`; `lbk`: LBK of that step, divided by the rate. Units: nats per unit of rate.
    """
    v, token, u = pair
    norms, rows = linear.kernel_norms(v, token, u, head), []
    before = token_logps(v.logits, v.batch.target)[token]
    word, a = v.batch.target[token], float(linear.a_norm(v.logits)[token])
    for item, kind in enumerate(counted(u.batch.kinds, "items")):
        # From the inside out: G, then J_u^T G, then J_v of it, which is K G, at the one token that is looked at.
        pushed = u.residual(item)
        slope, g = u.pull(pushed), float(pushed.norm())
        kg = v.push(slope)[token]
        change = linear.apply_a(v.logits[token], kg)
        there = logits_at(v.batch, influence.moved(weights, slope, -rate))
        real = abs(float(token_logps(there, v.batch.target)[token] - before)) / rate
        mean = float(pushed.norm(dim=-1).sum() / u.batch.tokens[item])
        steps = (kg.norm() / g, change.norm() / (a * g), change[word].abs() / (a * g))
        rows.append((kind, int(u.batch.tokens[item]), a, g, float(norms[item]), *map(float, steps),
                     real / (a * g), lbk([real], [a], mean)))  # fmt: skip
    names = ["kind", "tokens", "a", "g", "kernel", "gradient", "words", "target", "measured", "lbk"]
    return pd.DataFrame(rows, columns=names)


@dataclass(frozen=True)
class Plan:
    """A short training: AdamW at `rate` after `warmup` updates, gradients clipped at norm `clip` as in the trainers.

    The rate rises as in the trainers but for their first update, whose rate is 0: it is left out here. Weights are kept
    after the updates `keep` (0: the start).
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


def ladders(base: Loaded, observed: Sequence[Sample], u: Linearised, head: Head, weights: Weights) -> pd.DataFrame:
    """The `ladder` of the word behind the opening answer tag, at a rate of 1e-4; column `observed`: its kind."""
    rungs = []
    for sample in counted(observed, "observed samples"):
        pair = Pair(Linearised(linear.scored(base, [sample]), weights), answer_token(base[1], sample), u)
        rungs.append(ladder(pair, head, weights, 1e-4).assign(observed=sample.kind))
    return pd.concat(rungs).sort_values(["observed", "kind"], ignore_index=True)


def walk(corpus: str, source: Source, probes: Scored, weights: Weights, plan: Plan) -> Walk:
    """Train as planned and measure after each update.

    Rows: corpus, step, probe (type), lbk and sign_delta (of the change since the step before; normalisers at the
    weights before it), change (nats per token since the start).
    """
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    engine, here = influence.optimizer(leaves, Step("adamw", plan.rate)), dict(weights)
    logits, rows, snapshots = logits_at(probes, here), [], {0: here} if 0 in plan.keep else {}
    start = before = probes.logps(logits)
    for number in counted(range(1, plan.steps + 1), f"updates on {corpus}"):
        # The normalisers are those of the weights before the update, so both are taken before `here` moves on.
        a = influence.item_a_norm(logits, probes).cpu().numpy()
        g = _advance(leaves, engine, source(number, here), plan, number)
        here = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        logits = logits_at(probes, here)
        after = probes.logps(logits)
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
    slope, logits = linear.pair_gradient(batch, {name: leaf.detach() for name, leaf in leaves.items()})
    for name, leaf in leaves.items():
        leaf.grad = slope[name]
    torch.nn.utils.clip_grad_norm_(leaves.values(), plan.clip)
    engine.param_groups[0]["lr"] = plan.rate * min(1.0, number / plan.warmup)
    engine.step()
    return float(influence.item_g_norm(logits, batch).mean())


def repeated(parts: Sequence[Scored]) -> Source:
    """A corpus as a source: its batches in turn, from the first again where they run out."""
    return lambda number, _: parts[(number - 1) % len(parts)]


def on_policy(base: Loaded, profile: Profile, boards: int) -> Source:
    """RFT as a source: groups written by the model at the present weights for new boards, weighted by advantages.

    GRPO's gradient without the KL term; the three rewards have unit weights; boards of the profile's first seed.
    """
    model = copy.deepcopy(base[0])

    def source(number: int, weights: Weights) -> Scored:
        """New groups, on the next boards."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        part = range((number - 1) * boards, number * boards)
        return linear.scored(base, rollout_items((model, base[1]), profile, part, profile.seeds[0]))

    return source


def rollout_items(model: Loaded, profile: Profile, boards: range, seed: int) -> list[Sample]:
    """A group of completions (T = 1) per training board, as items of `rft` whose weights are their advantages."""
    made = make_boards(profile.puzzle, boards, seeds.training(seed))
    prompts = made.prompted()
    sampling = Sampling(profile.group_size, 1.0, profile.max_completion_length, seed + boards.start)
    items = []
    for prompt, texts, truth in zip(prompts, score.complete(*model, prompts, sampling), made.placements, strict=True):
        scores = [answers.score(text, truth) for text in texts]
        weights = live.advantages([s.hit + s.exact + s.format for s in scores])
        items += [Sample(prompt, text, "rft", weight) for text, weight in zip(texts, weights, strict=True)]
    return items


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
        products = ((mine * other[name]).sum(), mine.square().sum(), other[name].square().sum())
        for part in (layer_of(name), "all"):
            sums[part] = [a + float(b) for a, b in zip(sums.get(part, [0.0] * 3), products, strict=True)]
    whole = math.sqrt(sums["all"][1] * sums["all"][2])
    # A part may have no gradient at all; its cosine is 0 then, and 0 / 0 without the floor.
    return {part: (dot / math.sqrt(max(x * y, 1e-60)), dot / whole) for part, (dot, x, y) in sums.items()}


def directions(learned: BatchGradients, prior: Weights) -> pd.DataFrame:
    """Cosine of each batch's gradient with the gradient `prior` of the prior tasks, per part of the model.

    Columns corpus, batch, part, cosine, share (see `cosines`), norm (of the whole gradient). Above 0: a small SGD step
    on the batch makes the prior tasks' gold answers more probable.
    """
    rows = []
    for corpus, number, one in influence.each_gradient(learned):
        size = float(linear.flat(one.slope).norm())
        rows += [(corpus, number, part, *both, size) for part, both in cosines(one.slope, prior).items()]
    return pd.DataFrame(rows, columns=["corpus", "batch", "part", "cosine", "share", "norm"])


def symmetry(groups: Mapping[str, Sequence[Scored]], together: Scored, weights: Weights, step: Step) -> pd.DataFrame:
    """v|u beside u|v for each pair of a corpus sample u and a prior sample v, under one rule.

    `groups`: single items by corpus, `PRIOR` among them; `together`: all of them in order. Columns step, corpus, u, v,
    forward (change of v after a step on u), backward (the other way round): mean log-prob per token, nats.
    """
    singles = [(kind, single) for kind, parts in groups.items() for single in parts]
    change = influence.mutual([single for _, single in singles], together, weights, step)
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
    # The ratio of two sums over v, not the mean of ratios: a v that hardly moves would have a ratio of pure noise.
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
    rows, first = [], None
    for step, weights in counted(walked.snapshots.items(), "snapshots"):
        line = Linearised(v, weights)
        drawn = sketch(line, Linearised(u, weights), draws)
        first = drawn if first is None else first
        known = {"norm": linear.kernel_size(drawn, len(line.logits)), **linear.kernel_drift(first, drawn)}
        rows += [(walked.corpus, step, name, *interval) for name, interval in known.items()]
    return pd.DataFrame(rows, columns=["corpus", "step", "quantity", "mean", "low", "high"])
