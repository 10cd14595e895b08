"""A few samples of some prior tasks, trained on for a moment: what they bring back was masked, not forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from helpers.model.build import Loaded
from helpers.model.score import pack_completions, token_logps
from helpers.train import rows
from helpers.world import seeds
from helpers.world.battery import battery_tasks
from helpers.world.boards import Prompted
from helpers.world.forms import Asked, ask_for, due
from helpers.world.questions import PriorSample, Question

SHOWN = (8, 32, 128)  # samples


@dataclass(frozen=True)
class Recovery:
    """How a forgotten skill is brought back: `steps` of AdamW at `rate`, `batch` samples each, of few samples."""

    steps: int = 24
    rate: float = 2e-4
    batch: int = 16


def halves(tasks: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tasks whose samples are shown again, and tasks that are only watched: every other one, so both hold all kinds."""
    return tuple(tasks[::2]), tuple(tasks[1::2])


def train_on_few(loaded: Loaded, samples: Sequence[PriorSample], how: Recovery, asked: Asked = "plain") -> None:
    """Train a model in place on few prior-task samples, asked for in a form; nothing where there are none."""
    model, processor = loaded
    rng, pairs = np.random.default_rng(seeds.RECOVERY), []
    put = list(zip(samples, _questions(samples, asked), strict=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.rate, weight_decay=0.0)
    for _ in range(how.steps if samples else 0):
        while len(pairs) < how.batch:  # each sample once before any is seen again
            pairs += [put[k] for k in rng.permutation(len(put))]
        now, pairs = pairs[: how.batch], pairs[how.batch :]
        part = [(Prompted(s.pixels, question.text), [question.completion]) for s, question in now]
        optimizer.zero_grad()
        (-token_logps(model, *pack_completions(processor, part)).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()


def _questions(samples: Sequence[PriorSample], asked: Asked) -> list[Question]:
    rng = np.random.default_rng((seeds.WORDINGS, seeds.RECOVERY))
    return [due(ask_for(s.question, asked, rng), asked) for s in samples]


@contextmanager
def recovered(loaded: Loaded, shown: int, asked: Asked) -> Iterator[None]:
    """A model that has seen `shown` samples of the shown half of the prior tasks again; as it was behind the block."""
    model, trained = loaded.model, [p for p in loaded.model.parameters() if p.requires_grad]
    kept = [p.detach().clone() for p in trained]
    train_on_few(loaded, rows.prior_samples(shown, seeds.RECOVERY, halves(battery_tasks())[0]), Recovery(), asked)
    model.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(trained, kept, strict=True):
                parameter.copy_(before)
