"""What the paper's theory rests on, measured on the study's runs: one row per run, so that intervals are over seeds.

Notebook 07 takes the theory apart on one draw of samples. Here its statements are put to the test: is the kernel
constant over a whole training, is influence symmetric, whom does one update on a corpus harm, do RFT's correct rollouts
stay in the base's probable region? `claims.py` holds the thresholds; they were fixed after notebooks 06 and 07 had been
seen and before any row here was measured, on runs that were trained anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from helpers.controls import Bench
    from helpers.dynamics import Item
    from helpers.profiles import RunSpec

REGION_EDGE = 0.05  # the base's own samples below this percentile lie outside its probable region
SGD_RATE = 1e-3  # small enough that the first order is all there is (notebook 07, section 1)


@dataclass(frozen=True)
class Amount:
    """How much is measured of a run: `boards` of a batch, `batches`, random `draws`, `pairs`, the base's `samples`.

    `pairs`: samples of the corpus that are held against one of each prior task; `gold`: gold answers per prior task.
    """

    boards: int = 8
    batches: int = 5
    draws: int = 8
    pairs: int = 3
    samples: int = 16
    gold: int = 4


def measured_theory(bench: Bench, spec: RunSpec) -> pd.DataFrame:
    """One row: alignment, size, asymmetry_sgd, asymmetry_adamw, influence_sgd, influence_adamw, gold_shift, region.

    `alignment` and `size`: the kernel of prior tasks and corpus at the run's end against the base's
    (`dynamics.kernel_drift`). `asymmetry_*`: `dynamics.asymmetry` between them. `influence_*`: change of the prior
    tasks' gold answers after one update on a batch of the corpus, nats per token, mean over batches. `gold_shift`:
    their change over the whole training. `region`: see `share_in_region`. NaN where a run has no such thing.
    """
    import pandas as pd

    amount = Amount(2, 1, 2, 1, 2, 1) if bench.profile.name == "smoke" else Amount()
    corpus = corpus_items(bench, spec, amount.boards * amount.batches)
    row = {"gold_shift": gold_shift(bench, spec, amount), "region": region(bench, spec, amount)}
    row |= _kernel(bench, spec, corpus, amount) | _symmetry(bench, spec, corpus, amount)
    return pd.DataFrame([row | _influence(bench, spec, corpus, amount)])


def corpus_items(bench: Bench, spec: RunSpec, n: int) -> list[Item]:
    """Up to `n` samples of what a run learned from; of RFT its correct rollouts, evenly over the training."""
    from helpers import controls, dynamics

    return [dynamics.Item(p, text, spec.arm) for p, text in controls.corpus_sample(bench, spec, n)]


def observed(spec: RunSpec, number: int = 1) -> list[Item]:
    """Gold answers of every prior task; other battery samples for another seed."""
    from helpers import dynamics, prior_tasks

    return dynamics.prior_items(prior_tasks.battery_tasks(), range(number * spec.seed, number * (spec.seed + 1)))


def _kernel(bench: Bench, spec: RunSpec, corpus: Sequence[Item], amount: Amount) -> dict[str, float]:
    """Size and alignment of K(prior, corpus) at the end of a run, from the same random directions as at the base."""
    from helpers import dynamics

    found = {"alignment": math.nan, "size": math.nan}
    if not corpus:
        return found
    v, u = (dynamics.scored(bench.base, items) for items in (observed(spec)[::2], corpus[: amount.pairs]))
    sketches = []
    for weights in (bench.weights(None), bench.weights(spec)):
        lines = dynamics.Linearised(v, weights), dynamics.Linearised(u, weights)
        sketches.append(dynamics.sketch(*lines, amount.draws))
    return {name: interval.mean for name, interval in dynamics.kernel_drift(*sketches).items()}


def _symmetry(bench: Bench, spec: RunSpec, corpus: Sequence[Item], amount: Amount) -> dict[str, float]:
    """Asymmetry of influence between prior tasks and corpus at the base, for both optimizers."""
    from helpers import dynamics

    found = {"asymmetry_sgd": math.nan, "asymmetry_adamw": math.nan}
    if not corpus:
        return found
    prior, some = observed(spec), list(corpus[: amount.pairs])
    groups = {dynamics.PRIOR: dynamics.singles(bench.base, prior), spec.arm: dynamics.singles(bench.base, some)}
    together, weights = dynamics.scored(bench.base, [*prior, *some]), bench.weights(None)
    for name, step in steps(spec, share=0.1).items():
        pairs = dynamics.symmetry(groups, together, weights, step)
        found[f"asymmetry_{name}"] = dynamics.asymmetry(pairs).mean
    return found


def _influence(bench: Bench, spec: RunSpec, corpus: Sequence[Item], amount: Amount) -> dict[str, float]:
    """What one update from the base does to prior gold answers, nats per token, mean over batches of the corpus."""
    from helpers import dynamics

    found = {"influence_sgd": math.nan, "influence_adamw": math.nan}
    if not corpus:
        return found
    parts = dynamics.batches(corpus, amount.boards, amount.batches)
    weights = bench.weights(None)
    learned = dynamics.lessons({spec.arm: [dynamics.scored(bench.base, part) for part in parts]}, weights)
    probes = dynamics.scored(bench.base, observed(spec, amount.gold))
    for name, step in steps(spec).items():
        rows = dynamics.influence(learned, probes, weights, [step])
        found[f"influence_{name}"] = float(dynamics.per_token(rows, ["step"])["value"].iloc[0])
    return found


def steps(spec: RunSpec, share: float = 1.0) -> dict[str, Any]:
    """One update of SGD, and of AdamW at a share of the run's own rate (a tenth is where its warm-up begins)."""
    from helpers.dynamics import Step

    return {"sgd": Step("sgd", SGD_RATE), "adamw": Step("adamw", share * spec.learning_rate)}


def gold_shift(bench: Bench, spec: RunSpec, amount: Amount) -> float:
    """Log-prob of prior tasks' gold answers at a run's end minus at the base, nats per token."""
    from helpers import dynamics

    probes = dynamics.scored(bench.base, observed(spec, amount.gold))
    before, after = (dynamics.logps_at(probes, bench.weights(which)) for which in (None, spec))
    return float((after - before).sum() / probes.tokens.sum())


def region(bench: Bench, spec: RunSpec, amount: Amount) -> float:
    """Share of RFT's correct rollouts of its last third that lie in the base's probable region; NaN for other arms."""
    import pandas as pd

    from helpers import controls, landscape

    if spec.arm != "rft":
        return math.nan
    rows = pd.read_parquet(controls.store(bench.profile).folder(spec) / "completions.parquet")
    last = int(rows["step"].max())
    late = landscape.phase_rows(rows, {"late": (2 * last // 3 + 1, last)})["logp"]
    own = landscape.own_samples(bench.base, bench.profile, 3 * amount.samples, amount.samples)["logp"]
    return share_in_region(late.tolist(), own.tolist())


def share_in_region(logps: Sequence[float], own: Sequence[float]) -> float:
    """Share of completions that are more probable than the least probable twentieth of the base's own samples.

    Both are base log-probs of whole completions, nats; ties count half (`landscape.percentiles`). The base's own
    samples give 0.95 by definition; NaN without completions.
    """
    from helpers.landscape import percentiles

    return float((percentiles(logps, own) >= REGION_EDGE).mean()) if len(logps) else math.nan
