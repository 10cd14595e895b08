"""Every seed of the suite in one table, so that nothing is tested or probed on what was trained on.

A *stream* is what one kind of generator draws. Within a stream no two uses share a seed (a test); across streams they
may. A new use is a constant and its entry in `TABLE`. Published draws hang on these numbers: none may change.
"""

from __future__ import annotations

RUNS = range(17)  # of runs: the order of rows, and whatever else training draws
BASES = range(17)  # of pretrained models
LIVE = 99  # the run that a notebook trains here and now
BENCHMARK = 17  # what the speed of training is measured with
HELD_OUT = 9  # scenes of the puzzles that every run is tested on
TRAINING = 100  # scenes of a run's training boards: this and its seed
NOISE = 13  # before the seed and the step of a run: rewards that mean nothing
ALBUM = 15  # which of own pictures are held out
CROPS = 14  # before the seed and the number of a board of own pictures: which part of a picture it is cut from
WORDINGS = 12  # before the seed of some questions or boards: how each of them asks for a form
SHUFFLES = 10**7  # a scene's seed times this, and its number: the number of its board's shuffle
PROBES = 800  # boards of no run, whose completions are scored under every checkpoint
INFLUENCE_PROBES = 77  # boards of no run, on which influence is measured
DIVERGENCE = 8  # completions on which a model is compared with its base
SHOWN = 90  # completions to held-out boards that a view shows of several models
BATTERY = 1
REPLAY = 500  # prior samples that `sft-replay` mixes in: this and the run's seed
DREAMS = 600  # prior prompts to which the base writes what `sft-dream` is held by: this and the run's seed
RECOVERY = 700  # prior samples that bring a skill back
PRETRAINING = 1000  # what a base is taught: this and its own seed
BRANCHES = 100  # what a branch of a stem is taught: this, `PRETRAINING` and the stem's seed
PHASE = 1000  # between one draw of `iterative-sft` and the next
ROUND = 10**6  # between one round of tries for a correct completion and the next


def training(run: int) -> int:
    """The seed of the scenes of a run's training boards."""
    return TRAINING + run


def _one(seed: int) -> range:
    return range(seed, seed + 1)


def _after(start: int, seeds: range) -> range:
    return range(start + seeds.start, start + seeds.stop)


_SCENES = {
    "held-out boards": _one(HELD_OUT),
    "boards of runs": _after(TRAINING, RUNS),
    "boards of live runs": _one(training(LIVE)),
    "probe boards": _one(training(PROBES)),
    "probe boards of influence": _one(training(INFLUENCE_PROBES)),
    "boards of benchmarks": _one(training(BENCHMARK)),
    "pictures of benchmarks": _one(BENCHMARK),
}

TABLE: dict[str, dict[str, range]] = {
    "training": {"runs": RUNS, "live runs": _one(LIVE), "benchmarks": _one(BENCHMARK)},
    "models": {"bases": BASES, "benchmarks": _one(BENCHMARK)},
    "scenes": _SCENES,
    "shuffles": {"single puzzles": range(SHUFFLES)}
    | {what: range(seeds.start * SHUFFLES, seeds.stop * SHUFFLES) for what, seeds in _SCENES.items()},
    "samples of prior tasks": {
        "the battery": _one(BATTERY),
        "replay in runs": _after(REPLAY, RUNS),
        "replay in live runs": _one(REPLAY + LIVE),
        "dreams of runs": _after(DREAMS, RUNS),
        "dreams of live runs": _one(DREAMS + LIVE),
        "recovery": _one(RECOVERY),
        "pretraining": _after(PRETRAINING, BASES),
        "pretraining of branches": _after(PRETRAINING + BRANCHES, BASES),
    },
    # The first round of tries; every other lies a whole `ROUND` further on.
    "completions to learn from": {
        "corpora of runs": RUNS,
        "corpora of live runs": _one(LIVE),
        "draws of iterative-sft": range(PHASE, ROUND),
    },
    "rewards that mean nothing": {"runs": RUNS, "live runs": _one(LIVE)},
    "completions to measure": {
        "probes": _one(PROBES),
        "probes of influence": _one(INFLUENCE_PROBES),
        "divergences": _one(DIVERGENCE),
        "views": _one(SHOWN),
    },
}
