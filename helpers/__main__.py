"""One command line for everything: `python -m helpers COMMAND --help`.

`run` is what `./run_all.sh` calls. Only what a command needs is imported, inside its function, so that `--help` comes
at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from helpers import runner
from helpers.errors import UserError
from helpers.processes import interrupt_on_signals
from helpers.study.controls import GROUPS, control_specs
from helpers.study.profiles import FAIR, LIVE, PROFILES, Profile, get_profile, specs
from helpers.study.spec import RunSpec

RECORDS = ("study", "controls", "probes", "bases", "pilots", "checkpoints", "tries")


def train(options: argparse.Namespace) -> None:
    """Train the runs of the study that are missing, some side by side; of --profile fair, seeds are stems."""
    profile = chosen(options.profile, options.seeds)
    if options.spec:
        from helpers.train import run

        run.carry_out(RunSpec.from_json(options.spec), profile)
        return
    jobs = _jobs()
    if profile.name == FAIR.name:
        print(*jobs.train_cells(profile.seeds, options.cells, options.jobs), sep="\n")
        return
    planned = specs(get_profile(options.profile), options.arms or profile.study_arms)
    asked = [s for s in planned if s.seed in profile.seeds or s.steps == 0]  # there is one base, whatever the seeds
    jobs.run_missing(profile, asked, options.jobs)


def controls(options: argparse.Namespace) -> None:
    """Train and measure the controls that are missing, in order of priority."""
    from helpers.measure import analyses

    profile = get_profile(options.profile)
    some = chosen(options.profile, options.seeds)
    if options.list:
        print(analyses.coverage(profile, analyses.load(profile)).to_string(index=False))
        return
    wanted = [control.spec for control in control_specs(some, options.only or list(GROUPS))]
    trouble = [] if options.no_training else _jobs().run_missing(some, wanted, options.jobs, keep_going=True)
    analyses.measure(profile, seeds=options.seeds)
    print(*trouble, sep="\n")


def score(options: argparse.Namespace) -> None:
    """Score the probe set under every checkpoint of a finished study."""
    from helpers.measure import probes

    profile = chosen(options.profile, options.seeds)
    if get_profile(options.profile).seeds[0] not in profile.seeds:
        raise UserError("The probe set comes from the runs of the profile's first seed: name it among the seeds.")
    probes.score_study(profile, profile.study_arms, options.n, options.jobs)


def publish(options: argparse.Namespace) -> None:
    """Copy the small tables of finished runs to figures/records, or finished branches of stems to helpers/bases.

    Of the pilots only their front is kept, as `kept.TUNED`; of four runs their ends, in helpers/checkpoints; of these
    models what they say to the boards that readers solve (tries).
    """
    from helpers.measure import analyses, kept, kept_runs, probes
    from helpers.play import tries
    from helpers.study.published import publish_records

    profile = get_profile(options.profile)
    writers = {
        "study": lambda: publish_records(profile.name),
        "controls": lambda: analyses.publish_controls(profile),
        "probes": lambda: probes.publish_probes(profile, profile.study_arms),
        "bases": lambda: print(*kept.keep_bases(), sep="\n"),
        "pilots": kept.keep_tuned,
        "checkpoints": lambda: print(*kept_runs.keep_checkpoints(), sep="\n"),
        "tries": lambda: print(tries.publish_tries(), "tries of models written"),
    }
    for name in options.what or RECORDS[:1]:
        writers[name]()


def migrate(options: argparse.Namespace) -> None:
    """Bring published records of an older version of this suite to the present one."""
    from helpers.model.processor import encode_target, load_processor
    from helpers.study.migrate import migrate

    tokenizer = load_processor().tokenizer
    lost = migrate(options.folder, lambda text: encode_target(tokenizer, text)[:-1])
    print(f"{options.folder} is of the present version; {lost} rows lost a log-prob that was of other tokens.")


def pretrain(options: argparse.Namespace) -> None:
    """Rebuild the shipped base from nothing, or make a stem or a branch of one, resumably."""
    from helpers.train import pretrain as bases

    recipe = bases.Recipe() if options.stem is None else bases.stem(options.stem)
    if options.branch:
        if options.stem is None or not options.start:
            raise UserError("A branch needs its stem: --stem SEED --start FOLDER, with the stem's model in it.")
        recipe = bases.branch(options.stem, options.branch, options.start)
    given = {"eye_steps": options.eye_steps, "steps": options.steps, "practice": options.practice}
    recipe = replace(recipe, **{name: steps for name, steps in given.items() if steps is not None})
    bases.pretrain(recipe, options.folder, options.minutes)


def tables(options: argparse.Namespace) -> None:
    """Write README.md's table of results and its count of claims from figures/summary.csv and figures/claims.csv."""
    from helpers.verdicts.readme import write_readme

    write_readme()


def _jobs() -> ModuleType:
    """Runs side by side: imported when there are some to train."""
    from helpers.train import jobs

    return jobs


def chosen(name: str, seeds: Sequence[int] | None) -> Profile:
    """A profile with some of its seeds (None: all). UserError for a seed that it lacks."""
    profile = get_profile(name)
    foreign = sorted(set(seeds or ()) - set(profile.seeds))
    if foreign:
        raise UserError(f"Profile {name} has no seed {foreign[0]}: choose among {', '.join(map(str, profile.seeds))}.")
    return profile if not seeds else replace(profile, seeds=tuple(sorted(set(seeds))))


def parser() -> argparse.ArgumentParser:
    """The commands and their options; each command's text is its function's docstring."""
    whole = argparse.ArgumentParser(prog="python -m helpers", description="Jigsaw Lab's commands.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    made = {}
    for command in (train, controls, score, publish, pretrain, tables, migrate):
        made[command] = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        made[command].set_defaults(command=command)
    commands.add_parser("run", help="Execute the notebooks, as ./run_all.sh does.", add_help=False)
    for command in (train, controls, score, publish):
        names = (*PROFILES, FAIR.name, LIVE.name) if command is train else tuple(PROFILES)
        made[command].add_argument("--profile", default="cpu", choices=names)
    for command in (train, controls, score):
        made[command].add_argument("--seeds", nargs="+", type=int, help="some of the profile's seeds")
        made[command].add_argument("--jobs", type=int, default=2, help="runs side by side (default: 2)")
    made[train].add_argument("--arms", nargs="+", metavar="ARM", help="default: those of the study")
    made[train].add_argument("--cells", nargs="+", metavar="CELL", default=(), help="of --profile fair (default: all)")
    made[train].add_argument("--spec", help=argparse.SUPPRESS)
    made[controls].add_argument("--only", nargs="+", metavar="GROUP", help="some of the groups of controls")
    made[controls].add_argument("--list", action="store_true", help="say what is there and what is not, and stop")
    made[controls].add_argument("--no-training", action="store_true", help="measure only")
    made[score].add_argument("--n", type=int, default=64, help="held-out boards, and prior samples")
    made[publish].add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(RECORDS)} (default: study)")
    made[migrate].add_argument("folder", nargs="?", type=Path, default=Path("figures/records"))
    made[pretrain].add_argument("--folder", type=Path, default=Path("work/base"), help="where all of it goes")
    made[pretrain].add_argument(
        "--stem", type=int, metavar="SEED", help="a stem of that seed instead of the shipped base"
    )
    made[pretrain].add_argument("--branch", choices=("two-form", "one-form"), help="go on from a stem, in these forms")
    made[pretrain].add_argument("--start", help="the folder of the stem's model")
    made[pretrain].add_argument("--minutes", type=float, help="stop (resumably) after this many minutes")
    for steps in ("--eye-steps", "--steps", "--practice"):
        made[pretrain].add_argument(steps, type=int, help="steps of that phase; the shipped base's if left out")
    return whole


def train_first(options: runner.Options) -> None:
    """Before the notebooks: train what they will read, where there is something to train."""
    if options.retrain or options.profile == "smoke":
        _jobs().train_first(options.profile, options.retrain, options.fresh)


def main(arguments: list[str]) -> int:
    """Carry out one command; one sentence instead of a traceback for everything a user can mend."""
    if arguments[:1] == ["run"]:
        return runner.main(arguments[1:], Path.cwd(), train_first)
    try:
        options = parser().parse_args(arguments)
        unknown = sorted(set(getattr(options, "what", ())) - set(RECORDS))
        if unknown:
            raise UserError(f"There is nothing called {unknown[0]} to publish: choose among {', '.join(RECORDS)}.")
        options.command(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    interrupt_on_signals()
    sys.exit(main(sys.argv[1:]))
