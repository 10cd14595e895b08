"""How each arm is trained: one recipe per arm, found in `RECIPES` by the arm's name.

An SFT recipe says what is learned and under which loss, an RFT recipe how samples are rewarded. All else is the same
for every arm and stands in `run`. A new arm is an entry in `helpers.study.arms` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import ProcessorMixin, TrainerState

from helpers.errors import UserError
from helpers.files import json_bytes, read_json, write_file
from helpers.model import build
from helpers.model.build import Loaded
from helpers.model.flops import Tally
from helpers.model.forward import Model
from helpers.study.checkpoints import checkpoint_at
from helpers.study.records import RunStore
from helpers.study.spec import RunSpec, whole_number
from helpers.train import corpora, rows, trainers
from helpers.train.corpora import Completions, Writer
from helpers.train.course import course
from helpers.train.engine import Engine, load_start
from helpers.train.pace import Pace
from helpers.train.recorder import Advantages, group_advantages, random_advantages
from helpers.world import answers, seeds
from helpers.world.boards import Boards, Corpus, Graded, Sample, training_boards
from helpers.world.puzzles import PuzzleSpec

CORPUS_BOARDS = 2048
FRESH_BOARDS = 512  # boards that `iterative-sft` samples for each time
FRESH_ROUNDS = 4  # of 4 tries each
Reward = Callable[..., list[float]]


class Given(NamedTuple):
    """What a corpus is written for: a run, the store with the runs that may feed it, its processor and its boards.

    Without a processor no model can be loaded; what rules alone write needs none. `tally` counts what a model writes.
    """

    spec: RunSpec
    store: RunStore
    processor: ProcessorMixin | None
    boards: Boards
    tally: Tally | None = None

    def base(self) -> Loaded:
        """The model that the run starts from."""
        return self._writer(load_start(self.spec, self.store.root).model)

    def _writer(self, model: Model) -> Loaded:
        loaded = Loaded(model, self.processor)
        return loaded if self.tally is None else Writer.counted(loaded, self.tally)

    @property
    def asked(self) -> tuple[Boards, int, int]:
        """The boards that are written for, the seed of what is written, and how many tokens it may take."""
        return self.boards, self.spec.seed, self.spec.max_completion_length

    def source(self, step: int | None = None) -> Loaded:
        """The model of the run's source at a step, or at its end. Raises UserError where there is no checkpoint."""
        folder = self.store.root / self.spec.source / "checkpoints"
        return self._writer(build.load(checkpoint_at(folder, step)).model)


def _answers(given: Given) -> Completions:
    filler = given.spec.settings.get("filler")
    return corpora.filled_completions(given.boards, str(filler)) if filler else corpora.answer_completions(given.boards)


def _oracle(given: Given) -> Completions:
    thinks = int(given.spec.settings.get("thinks", 8))
    return corpora.oracle_completions(given.base(), *given.asked, thinks=thinks)


def _corpus_boards(spec: RunSpec, _: RunStore) -> int:
    """A board for each sample, up to a limit from which on they are seen again."""
    return min(int(spec.settings.get("boards", CORPUS_BOARDS)), max(spec.steps * spec.batch_size, 64))


def _rollout_boards(spec: RunSpec, _: RunStore) -> int:
    """A board for each prompt, up to a higher limit: nothing has to be written for them in advance."""
    return min(int(spec.settings.get("boards", 4 * CORPUS_BOARDS)), max(spec.steps * spec.batch_size, 1))


def _fresh_boards(spec: RunSpec, _: RunStore) -> int:
    return min(4 * CORPUS_BOARDS, _phase_boards(spec) * -(-spec.steps // refresh_every(spec)))


def _source_boards(spec: RunSpec, store: RunStore) -> int:
    """As many as the source saw. Raises UserError where the source is not finished."""
    return int(rows.source_completions(store.root, spec)["puzzle_id"].max()) + 1


def _corpus_rows(engine: Engine) -> Dataset:
    corpus, most = engine.corpus, Pace(engine.spec, engine.settings).most
    return rows.corpus_rows(corpus, course(engine.spec, corpus.stages, most))


def sampled_rows(engine: Engine) -> Dataset:
    """Rows of the boards that RFT draws for."""
    boards, most = engine.boards, Pace(engine.spec, engine.settings).most
    order = course(engine.spec, boards.stages, most) if isinstance(boards, Graded) else None
    return rows.board_rows(boards, order)


def _replay_rows(engine: Engine) -> Dataset:
    share = float(engine.spec.settings.get("replay_share", 0.5))
    return rows.corpus_rows([*engine.corpus, *rows.replayed(engine.corpus, share, engine.spec)])


def _stream_rows(engine: Engine) -> Dataset:
    drawn, steps = rows.source_completions(engine.run.folder.parent, engine.spec), engine.spec.steps
    # A run that goes until something may outlast its source: then it learns the same again, in the same order.
    steps = min(steps, int(drawn["step"].max())) if "until" in engine.spec.settings else steps
    return rows.stream_rows(engine.boards, rows.stream_batches(drawn, steps))


def refresh_every(spec: RunSpec) -> int:
    """Steps between two draws of `iterative-sft`. Raises UserError unless it is a whole number above 0."""
    steps = spec.settings.get("refresh_every", 50)
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"refresh_every is {steps!r}: choose a whole number of steps, 1 or more.")
    return steps


def _phase_boards(spec: RunSpec) -> int:
    """Boards sampled for at each draw: no more than the phase has samples."""
    return min(int(spec.settings.get("fresh_boards", FRESH_BOARDS)), refresh_every(spec) * spec.batch_size)


def _fresh_rows(engine: Engine) -> Dataset:
    """Rows of `iterative-sft`: row i belongs to step i // batch and is drawn when the first of its phase is read.

    The data loader reads one batch ahead, so a phase is drawn by the model one update before the phase begins. What
    was drawn is kept beside the checkpoints, so that a resumed run learns from the same samples, with what it cost.
    """
    spec, every = engine.spec, refresh_every(engine.spec)
    size = every * spec.batch_size

    @cache
    def drawn(phase: int) -> list[tuple[int, str]]:
        path = engine.run.checkpoints / f"drawn-{phase}.json"
        if not path.exists():
            cost = Tally()
            write_file(path, json_bytes({"samples": _correct_samples(engine, phase, cost), "cost": cost.spent()}))
        kept = read_json(path)
        # A resumed run reads again what an earlier step drew, and has that step's cost in its record.
        if max(1, phase * every) > engine.done and "cost" in kept:
            engine.tally.add(Tally(**kept["cost"]))
        return kept["samples"]

    def read(i: int) -> dict[str, Any]:
        pairs = drawn(i // size)
        board, text = pairs[i % size % len(pairs)]  # too few correct samples are seen again within their phase
        return rows.training_row(Sample(prompts[board], text, spec.arm))

    prompts = engine.boards.prompted()
    return rows.lazy_rows(spec.steps * spec.batch_size, read)


def _correct_samples(engine: Engine, phase: int, cost: Tally) -> list[tuple[int, str]]:
    """(board, completion) pairs that the model as it is writes for a phase's boards. UserError where none is right.

    `cost` counts all that was written, right or wrong.
    """
    spec, each = engine.spec, _phase_boards(engine.spec)
    chosen = [k % len(engine.boards) for k in range(phase * each, (phase + 1) * each)]
    training, seed = engine.model.training, spec.seed + seeds.PHASE * (phase + 1)
    writer = Writer.counted(Loaded(engine.model.eval(), engine.processor), cost)
    asked = engine.boards.only(chosen), seed, spec.max_completion_length
    texts = corpora.rollout_completions(writer, *asked, rounds=FRESH_ROUNDS)
    engine.model.train(training)
    pairs = [(board, text) for board, text in zip(chosen, texts, strict=True) if text is not None]
    if not pairs:
        raise UserError(f"{spec.name} found no correct sample for {each} boards: raise fresh_boards.")
    return pairs


def _frozen(engine: Engine) -> dict[str, Any]:
    """What a KL term to the model that the run starts from needs: that model, and the term's weight."""
    return {"frozen": load_start(engine.spec, engine.run.folder.parent).model, "beta": engine.spec.beta}


def _dreams(engine: Engine) -> dict[str, Any]:
    """What `sft-dream` needs beside its corpus: the base, and what it wrote to prior-task prompts before the run."""
    spec, known = engine.spec, _frozen(engine)
    most = whole_number("dreams", spec.settings.get("dreams", CORPUS_BOARDS), 1)
    side = engine.corpus.prompts[0].pixels.shape[:2]
    prompts = rows.dream_prompts(spec, min(most, spec.steps * spec.batch_size), side)
    writer = Writer.counted(Loaded(known["frozen"], engine.processor), engine.writing)
    return known | {"dreams": rows.corpus_rows(corpora.dream_corpus(writer, prompts, spec.seed))}


def entropy_weight(spec: RunSpec) -> float:
    """Weight of the entropy bonus of `rft-entropy`, per nat of mean entropy. Raises UserError unless it is above 0."""
    weight = spec.settings.get("entropy", 0.01)
    if isinstance(weight, str) or weight <= 0:
        raise UserError(f"entropy is {weight!r}: choose a weight above 0, usually 0.01.")
    return float(weight)


def _random_rewards(spec: RunSpec) -> Sequence[Reward]:
    """The one reward of `rft-random`, as TRL calls it."""

    def random_reward(completions: Sequence[answers.Completion], trainer_state: TrainerState, **_: Any) -> list[float]:
        """Rewards that mean nothing; the batch is drawn before its step is counted."""
        return answers.random_rewards(spec.seed, trainer_state.global_step + 1, len(completions))

    return (random_reward,)


@dataclass(frozen=True)
class Sft:
    """SFT: `write` gives each board its completion before the run begins; without it nothing is fixed in advance.

    `trainer` has the loss, `options` are more arguments for it; `loss` is TRL's `loss_type`. `rows` are the samples,
    `in_order` as they come instead of shuffled, `whole_steps` one row for all samples of a step; `boards` is how many
    boards are made.
    """

    write: Callable[[Given], Completions] | None = None
    trainer: type[trainers.StudySFTTrainer] = trainers.StudySFTTrainer
    options: Callable[[Engine], dict[str, Any]] = lambda engine: {}
    loss: str = "nll"
    rows: Callable[[Engine], Dataset] = _corpus_rows
    boards: Callable[[RunSpec, RunStore], int] = _corpus_boards
    in_order: bool = False
    whole_steps: bool = False


@dataclass(frozen=True)
class Rft:
    """RFT: a run's `rewards` with their `weights`, and `advantages`: what the trainer makes of a batch's scores.

    `options` are more of GRPO's settings. With `teacher` the KL term's reference is the end of the source run.
    """

    trainer: type[trainers.StudyGRPOTrainer] = trainers.StudyGRPOTrainer
    rewards: Callable[[RunSpec], Sequence[Reward]] = lambda spec: answers.REWARDS
    weights: Callable[[RunSpec], Sequence[float]] = lambda spec: spec.reward_weights
    advantages: Advantages = group_advantages
    options: Callable[[RunSpec], dict[str, Any]] = lambda spec: {}
    teacher: bool = False
    boards: Callable[[RunSpec, RunStore], int] = _rollout_boards


# Without rewards what is left of GRPO's loss is beta times the KL term. On samples of the model in training its
# gradient, with the bias correction, is that of KL(model || teacher), the end of the run's source: arXiv 2306.13649.
_DISTILL = Rft(
    weights=lambda spec: [0.0, 0.0, 0.0],
    advantages=lambda spec, scores, step: [0.0] * len(scores),
    options=lambda spec: {"use_bias_correction_kl": True},
    teacher=True,
)


RECIPES: Mapping[str, Sft | Rft] = MappingProxyType(
    {
        "rft": Rft(),
        "sft-answer": Sft(_answers),
        "sft-expert": Sft(lambda given: corpora.expert_completions(given.boards)),
        "sft-rollout": Sft(lambda given: corpora.rollout_completions(given.source(), *given.asked, rounds=6)),
        "sft-self": Sft(
            lambda given: corpora.self_completions(given.source(int(given.spec.settings["source_step"])), *given.asked)
        ),
        "self-sft": Sft(lambda given: corpora.rollout_completions(given.base(), *given.asked, rounds=6)),
        "iterative-sft": Sft(rows=_fresh_rows, boards=_fresh_boards, in_order=True),
        "reinforce-1-0": Rft(
            trainers.StudyReinforceTrainer,
            rewards=lambda spec: (answers.correct_reward,),
            weights=lambda spec: [1.0],
            advantages=lambda spec, scores, step: [float(score.correct) for score in scores],
        ),
        "rft-no-kl": Rft(),
        "sft-kl": Sft(_answers, trainers.StudyKLTrainer, _frozen),
        "sft-replay": Sft(_answers, rows=_replay_rows),
        "distill": _DISTILL,
        "sft-stream": Sft(rows=_stream_rows, boards=_source_boards, in_order=True, whole_steps=True),
        "sft-voice": Sft(lambda given: corpora.self_completions(given.base(), *given.asked)),
        "sft-oracle": Sft(_oracle),
        "rft-stale": Rft(
            options=lambda spec: {"steps_per_generation": int(spec.settings.get("steps_per_generation", 8))}
        ),
        "distill-degraded": _DISTILL,
        "sft-dream": Sft(_answers, trainers.StudyDreamTrainer, _dreams),
        "sft-dft": Sft(_answers, loss="dft"),  # arXiv 2508.05629
        "rft-entropy": Rft(options=lambda spec: {"entropy_coef": entropy_weight(spec)}),
        "rft-random": Rft(rewards=_random_rewards, weights=lambda spec: [1.0], advantages=random_advantages),
    }
)


def get_recipe(arm: str) -> Sft | Rft:
    """The recipe of an arm. Raises UserError for one that has none."""
    if arm not in RECIPES:
        raise UserError(f"There is no recipe for arm {arm}: add one to helpers/train/recipes.py.")
    return RECIPES[arm]


def make_corpus(
    spec: RunSpec, store: RunStore, processor: ProcessorMixin, tally: Tally | None = None
) -> tuple[Boards | Graded, Corpus | None]:
    """Training boards of a run, with a corpus where its arm is SFT. UserError where its source is not finished.

    `tally` counts what a model writes of it.
    """
    recipe = get_recipe(spec.arm)
    most, ends = recipe.boards(spec, store), (*spec.starts[1:], spec.steps)
    needed = [(end - start) * spec.batch_size for start, end in zip(spec.starts, ends, strict=True)]
    own, *easier = (spec.puzzle, *spec.easier)
    # The scenes of a stage are those of every other, cut otherwise; without stages there is one, which has them all.
    parts = [_asking(spec, puzzle, min(most, n)) for puzzle, n in zip(easier, needed, strict=False)]
    parts.append(_asking(spec, own, min(most, needed[-1]) if easier else most))
    boards = Graded(tuple(parts)) if easier else parts[0]
    if isinstance(recipe, Rft) or recipe.write is None:
        return boards, None
    written = [part.corpus(spec.arm, recipe.write(Given(spec, store, processor, part, tally))) for part in parts]
    return boards, _joined(written) if easier else written[0]


def _asking(spec: RunSpec, puzzle: PuzzleSpec, n: int) -> Boards:
    return training_boards(puzzle, n, spec.seed, spec.pictures).asking(spec.asked, seeds.training(spec.seed))


def _joined(parts: Sequence[Corpus]) -> Corpus:
    """The corpora of stages behind each other."""
    prompts, texts = [p for part in parts for p in part.prompts], [t for part in parts for t in part.completions]
    return Corpus(parts[0].kind, prompts, texts, stages=tuple(map(len, parts)))
