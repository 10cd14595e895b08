"""How probable a corpus is under the base model, by completion, by token, and as one perplexity."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.model.build import Loaded
from helpers.model.processor import encode_target
from helpers.model.score import completion_logps
from helpers.world.boards import Corpus


def base_logps(base: Loaded, corpus: Corpus) -> pd.DataFrame:
    """Base log-prob of each completion of a corpus: columns corpus, item, completion, tokens, logp, per_token.

    `logp` in nats, summed over `tokens` tokens (end token included), T = 1; `base` is (model, processor).
    """
    scored = completion_logps(*base, corpus.prompts, [[text] for text in corpus.completions])
    rows = [
        (corpus.kind, item, text, len(logps), float(logps.sum()), float(logps.mean()))
        for item, (text, (logps,)) in enumerate(zip(corpus.completions, scored, strict=True))
    ]
    return pd.DataFrame(rows, columns=["corpus", "item", "completion", "tokens", "logp", "per_token"])


def token_view(base: Loaded, corpus: Corpus, item: int) -> tuple[list[str], list[float]]:
    """Tokens of one completion of a corpus (end token included) and their base log-probs, for `heat_tokens`."""
    only = Corpus(corpus.kind, corpus.prompts[item : item + 1], corpus.completions[item : item + 1])
    return token_views(base, only)[0]


def token_views(model: Loaded, corpus: Corpus) -> list[tuple[list[str], list[float]]]:
    """`token_view` of every completion of a corpus, scored together; `model` may be any (model, processor)."""
    scored = completion_logps(*model, corpus.prompts, [[text] for text in corpus.completions])
    tokenizer, views = model[1].tokenizer, []
    for text, (logps,) in zip(corpus.completions, scored, strict=True):
        ids = encode_target(tokenizer, text)[: len(logps)]
        views.append(([tokenizer.decode([i]) for i in ids], logps.tolist()))
    return views


def perplexities(logps: pd.DataFrame) -> pd.DataFrame:
    """Perplexity of each corpus under the base model: exp of minus the mean base log-prob per token, tokens pooled.

    Columns corpus, completions, tokens (mean per completion), logp (mean nats per completion), perplexity.
    """
    table = logps.groupby("corpus", sort=False).agg(
        completions=("item", "size"), tokens=("tokens", "mean"), logp=("logp", "mean")
    )
    return table.assign(perplexity=np.exp(-table["logp"] / table["tokens"])).reset_index()
