"""The first line of every notebook: find the repository, quieten the libraries, pick the profile.

    import sys
    sys.path.insert(0, "..")
    from helpers.lab import start
    lab = start(PROFILE, RETRAIN, FIGURES)

`lab` then answers what differs between profiles: sizes, where figures go, where records come from.
`check` marks an exercise.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from helpers.errors import UserError
from helpers.files import package_version
from helpers.study.profiles import FAIR, Profile, get_profile
from helpers.study.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from matplotlib.figure import Figure

    from helpers.show.save import SavedFigure
    from helpers.study.published import Study

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "figures"  # what README and readers see: only the runner's run at the default profile writes there
HERE = ROOT / "out" / "figures"
PUBLISHING = "JIGSAW_PUBLISH"  # set by helpers.runner for its own notebooks, and by nothing else
SHOWN_VERSIONS = ("torch", "transformers", "trl")


MEANING = {
    "smoke": "tiny sizes, to see that everything runs: the numbers mean nothing",
    "cpu": "the study's own size, on two CPU cores",
    "gpu": "Qwen2.5-VL on one GPU",
}


_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_NUM_THREADS": "1",  # with two threads any other busy process makes every parallel region wait
}


Value = TypeVar("Value")


@dataclass(frozen=True)
class Lab:
    """What a notebook needs to know about its profile.

    `figures` is the folder that `save` writes to; `retrain` asks for new runs in place of published records.
    """

    profile: Profile
    retrain: bool
    figures: Path

    @property
    def name(self) -> str:
        """The profile's name: smoke, cpu or gpu."""
        return self.profile.name

    def pick(self, smoke: Value, cpu: Value, gpu: Value | None = None) -> Value:
        """The value meant for this profile; `gpu` falls back on `cpu`'s."""
        return {"smoke": smoke, "cpu": cpu, "gpu": cpu if gpu is None else gpu}[self.name]

    def save(
        self,
        fig: Figure,
        id: str,
        *,
        alt: str | None = None,
        data: pd.DataFrame | None = None,
        specs: Iterable[RunSpec | str] = (),
        own: bool = False,
    ) -> SavedFigure:
        """`save.savefig` into this notebook's folder; as a cell's last line the result displays itself.

        `specs`: the runs behind it, each as its spec, its hash, or its name (which ends in the hash).
        `own`: made of what only this reader has (own photographs, a training of a minute ago), so never published.
        """
        save, folder = self._save(), HERE if own and self.figures == PUBLISHED else self.figures
        hashes = [spec.rsplit("-", 1)[-1] if isinstance(spec, str) else spec.hash for spec in specs]
        source = save.Source.of(hashes, self._published().records_digest(self.name))
        return save.savefig(fig, id, alt=alt, data=data, source=source, folder=folder)

    def present(
        self, draw: Callable[[pd.DataFrame], Figure], rows: pd.DataFrame, id: str, **saved: Any
    ) -> SavedFigure | Markdown:
        """The saved figure that `draw` makes of `rows`, or one line where there are none; `saved` as in `save`."""
        return self._save().nothing_to_draw(id) if rows.empty else self.save(draw(rows), id, **saved)

    def save_table(self, frame: pd.DataFrame, name: str) -> None:
        """A table as `<name>.csv` beside this notebook's figures."""
        self._save().save_table(frame, self.figures / f"{name}.csv")

    def ensure(self, arms: Iterable[str] | None = None) -> list[RunSpec]:
        """Train missing runs (at `cpu` published records stand in for runs); returns those trained now."""
        from helpers.train import jobs

        return jobs.ensure(self.name, self.retrain, tuple(arms or ()))

    def on_bases(self) -> Lab:
        """This lab for the study on several bases, which has one size at every profile and is never trained here."""
        return replace(self, profile=FAIR)

    def study(self, *arms: str) -> Study:
        """The finished runs of some arms and of the base (none named: all); trains what is missing."""
        self.ensure(("base", *arms) if arms else None)
        return self._published().Study(self.profile, arms or self.profile.study_arms)

    def table(self, name: str) -> pd.DataFrame:
        """A table of all runs of this profile: evaluations, metrics, completions or probes."""
        return self._published().table(self.name, name)

    def measured(self, name: str, make: Callable[[], pd.DataFrame], again: bool = False) -> pd.DataFrame:
        """A table that takes long to measure: as published at `cpu` with its records, else as `make` makes it now.

        `again` measures it anew, whatever is published. What the runner's run at `cpu` makes is published.
        """
        if self.name != "cpu":
            return make()
        published = self._published()
        records = published.records_digest(self.name)
        known = None if again else published.find_measured(name, records)
        if known is not None:
            print(f"{name}: as published. `again = True` measures it here.")
            return known
        return published.keep_measured(name, make(), records) if self.figures == PUBLISHED else make()

    def _save(self) -> ModuleType:
        """The module that writes figures; it brings matplotlib along."""
        from helpers.show import save

        return save

    def _published(self) -> ModuleType:
        """The module that reads records; it brings pandas along, so not before it is asked for."""
        from helpers.study import published

        return published

    def load_base(self) -> tuple[Any, Any]:
        """(model, processor) of this profile's base model, ready for evaluation.

        Raises UserError at `gpu` where no GPU can be seen.
        """
        from helpers.model import build

        build.quiet_cpu()
        build.quiet_progress()
        if self.name == "gpu":
            build.require_gpu()
        return build.load(self.profile.model)


def start(profile: str, retrain: bool = False, figures: str | Path = HERE, quiet: bool = False) -> Lab:
    """Make the repository's root the working folder, quieten the libraries, and say what will be run.

    Call before torch or transformers is imported. A relative `figures` counts from the repository's root; the folder
    of published figures is open to `./run_all.sh` at the default profile alone, and everybody else writes to `out/`.
    Raises UserError for an unknown profile or a `retrain` that is not True or False.
    """
    if not isinstance(retrain, bool):
        raise UserError(f"RETRAIN is {retrain!r}: it must be True or False.")
    lab = Lab(get_profile(profile), retrain, _folder(profile, ROOT / figures))
    _enter_root()
    _attend_to_cells()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if profile != "gpu":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not quiet:
        print(_greeting(lab))
    return lab


STOPPED = "Stopped. The kernel goes on as it was: run this cell again, or any other."


def _attend_to_cells() -> None:
    """In a notebook: tell in a sentence what a user can mend or has stopped, and show that a long cell is at work."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return
    shell.set_custom_exc((UserError, KeyboardInterrupt), _tell)
    from helpers.show.watch import watch

    before = getattr(shell, "jigsaw_watch", None)
    if before is not None:
        before.stop()
    shell.jigsaw_watch = watch(shell)


def _tell(shell: Any, kind: type, error: BaseException, trace: TracebackType, tb_offset: int | None = None) -> None:
    # IPython's own way out, which sends Jupyter and papermill the error of a failed cell with the lines given here.
    shell._showtraceback(kind, error, [STOPPED if kind is KeyboardInterrupt else str(error)])


def check(answer: Any, accept: Callable[[Any], bool], hint: str) -> None:
    """Say whether an exercise's answer is right; an `accept` that fails is a no.

    `None`, alone or as a part of a tuple of answers: not answered yet.
    """
    if any(part is None for part in (answer if isinstance(answer, tuple) else (answer,))):
        print("Not answered yet: put your answer in place of None and run the cell again.")
        return
    try:
        right = bool(accept(answer))
    except Exception:  # an answer of the wrong kind is a wrong answer, not a crash
        right = False
    print("Right." if right else f"Not yet. {hint}")


def _folder(profile: str, asked: Path) -> Path:
    """Where figures go: where they were asked to go, unless that is the published folder and this is no such run."""
    published = PUBLISHED.resolve() in (asked.resolve(), *asked.resolve().parents)
    return HERE if published and (profile != "cpu" or os.environ.get(PUBLISHING) != "1") else asked


def _enter_root() -> None:
    """Run-time paths such as runs/ count from the root, wherever Jupyter was started."""
    os.chdir(ROOT)
    # A relative entry would now point somewhere else.
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry not in ("..", str(ROOT)))]


def _greeting(lab: Lab) -> str:
    """Profile, versions and folder, in two lines."""
    versions = ", ".join(f"{name} {package_version(name)}" for name in SHOWN_VERSIONS)
    folder = os.path.relpath(lab.figures, ROOT)
    kept = "" if lab.figures == PUBLISHED else " Published figures stay as they are."
    records = "trained anew" if lab.retrain else "published where there are any"
    return (  # the last sentence is for whoever meets a NameError further down
        f"Profile {lab.name}: {MEANING[lab.name]}. Records: {records}. Figures go to {folder}/.{kept}\n"
        f"Python {platform.python_version()}, {versions}. After a restart of the kernel begin here again."
    )
