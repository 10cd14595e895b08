"""What runs had cost by each step: the axes on which arms can be compared, beside steps.

A step's costs are metrics of the record. A run from before they were recorded has none here, and neither has one from
the first step on at which something was not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from helpers.stats.curves import RUN, require_columns, values_at

AXES = ("samples", "completions", "trained_tokens", "generated_tokens", "flops", "seconds")
"""`samples`: boards; `completions`: those drawn, of `generated_tokens`; the clock's seconds of training steps."""
CORPUS: Mapping[str, str] = {
    "corpus_completions": "completions",
    "corpus_tokens": "generated_tokens",
    "corpus_flops": "flops",
}
"""Metrics at step 0: what a model wrote before the run began, and the axis that it counts on."""


def cumulative(metrics: pd.DataFrame) -> pd.DataFrame:
    """Costs of each run up to the end of every step: columns run, arm, seed, step and `AXES`, NaN where unknown.

    Step 0 holds what writing the corpus cost. What the source of a run cost is its own, and not in here. Raises
    UserError where the table lacks a column.
    """
    require_columns(metrics, (*RUN, "step", "samples", "name", "value"))
    if metrics.empty:
        return pd.DataFrame(columns=[*RUN, "step", *AXES])
    parts = [_summed(rows).assign(**dict(zip(RUN, run, strict=True))) for run, rows in metrics.groupby(RUN)]
    return pd.concat(parts, ignore_index=True)[[*RUN, "step", *AXES]]


def _summed(rows: pd.DataFrame) -> pd.DataFrame:
    """Costs of one run's metrics, summed up to each step from 0 to the last."""
    spent = rows.assign(name=rows["name"].replace(CORPUS)).pivot_table("value", "step", "name", "sum")
    # A step that the table leaves out must not pass for one that cost nothing.
    every = spent.reindex(index=range(int(rows["step"].max()) + 1), columns=list(AXES[1:]))
    every.loc[0] = every.loc[0].fillna(0.0)
    samples = rows.groupby("step")["samples"].first().reindex(every.index)
    samples.loc[0] = 0
    return every.cumsum(skipna=False).assign(samples=samples).rename_axis("step").reset_index()


def cost_at(costs: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    """Costs (as of `cumulative`) at marks as from `curves.crossings`: columns run, arm, seed, step and `AXES`.

    Linear between the evaluated steps around a mark, as the accuracy that it stands for; NaN where a cost is unknown.
    """
    require_columns(costs, (*RUN, "step", *AXES))
    known = costs.melt([*RUN, "step"], list(AXES), var_name="axis").dropna()
    there = values_at(known, marks, [*RUN, "axis"])
    wide = there.pivot(index=RUN, columns="axis", values="value").reindex(columns=list(AXES)).reset_index()
    return marks[[*RUN, "step"]].merge(wide, on=RUN, how="left")
