"""A training to start, watch, stop, go on with and compare: the one view that needs a running kernel.

The run is a process of its own, so the kernel stays free; a thread looks at its tables on disk twice a second at most
and ends with it.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from functools import cache
from threading import Lock, Thread

import ipywidgets as w

from helpers.errors import UserError
from helpers.play import live_picture
from helpers.play.live_picture import Shown
from helpers.play.panel import FORMS, own_keys, put
from helpers.stats.alike import NOTHING, alike_of
from helpers.study.arms import ARM_DESCRIPTIONS, get_arm, room_of
from helpers.study.bases import BASES
from helpers.study.own import arms, forms, kl_weights, usual
from helpers.study.profiles import GRIDS
from helpers.study.records import is_finished
from helpers.study.spec import RunSpec
from helpers.train import child
from helpers.train.child import Child
from helpers.world import seeds

HEIGHT = 560
PERIOD = 0.6  # seconds between two looks at a run
MOST = 8  # runs of a session, and of earlier ones, that are listed
NEEDS = "Live run: this panel trains a model, so it needs a kernel."
RATES = (2e-5, 6e-5, 1.1e-4, 2e-4, 4e-4, 6e-4)
UNTIL = {"never: all steps": 0.0, "0.3": 0.3, "0.5": 0.5, "0.7": 0.7, "0.9": 0.9}


def live_run(base: str = "two-form-5") -> None:
    """Display the panel, and one line that stays where there is no kernel. Raises UserError for an unknown base."""
    put(lambda: _panel(base).box, NEEDS)


@cache
def _panel(base: str) -> Panel:
    """One panel a base: a cell that is run again shows the same one, with the run that is under way."""
    return Panel(base)


class Panel:
    """The panel's controls, its picture and the runs of this session; `box` is what is displayed."""

    def __init__(self, base: str = "two-form-5") -> None:
        """Earlier runs of this machine are listed and not shown. Raises UserError for an unknown base."""
        if base not in BASES:
            raise UserError(f"There is no base {base}: choose one of {', '.join(BASES)}.")
        self._lock, self._thread, self.child = Lock(), None, None
        self.runs: list[RunSpec] = []
        self.hidden: set[str] = set()
        self._number: dict[str, int] = {}
        self._boxes: dict[str, w.Checkbox] = {}
        self._settings = _controls(base)
        self._build()
        for spec in [spec for spec in child.earlier() if not spec.pictures][-MOST:]:
            self._list(spec, shown=False)
        self._arm_changed()

    # What is set ----------------------------------------------------------------------------------------------------
    def spec(self) -> RunSpec:
        """The run that the controls describe. Raises UserError where it cannot be."""
        s = {name: control.value for name, control in self._settings.items()}
        rft = get_arm(s["arm"]).family == "rft"
        stop = (("until", s["until"]),) if s["until"] else ()
        return RunSpec(
            arm=s["arm"], seed=seeds.LIVE, steps=s["steps"], learning_rate=s["rate"], base=s["base"],
            batch_size=usual(s["arm"], s["base"])[1], beta=s["beta"], asked=s["form"], extra=stop,
            reward_weights=(s["hit"], s["exact"], s["format"]) if rft else (1.0, 1.0, 1.0),
            max_completion_length=room_of(s["arm"], s["form"], GRIDS["2x2"].tiles),
        )  # fmt: skip

    def _arm_changed(self, _: object = None) -> None:
        """Bring form and KL term to what the studies give the arm; the reward's weights are for RFT alone."""
        arm, base = self._settings["arm"].value, self._settings["base"].value
        asked, _, beta = usual(arm, base)
        self._settings["form"].options = _forms(base)
        self._settings["form"].value = asked if asked in forms(base) else "plain"
        self._settings["beta"].value = beta
        for name in ("hit", "exact", "format"):
            self._settings[name].disabled = get_arm(arm).family != "rft"
        self._about.value = f"<span>{html.escape(ARM_DESCRIPTIONS[arm])}</span>"
        self._check()

    def _check(self, _: object = None) -> None:
        """Say how long the run would take, or why it cannot be."""
        try:
            spec = self.spec()
        except UserError as error:
            self._note.value = f'<span role="status" style="color:#a40000">{html.escape(str(error))}</span>'
            self._start.disabled = True
            self.draw()
            return
        self._start.disabled = self.busy
        self._start.description = self._verb(spec)
        self._note.value = html.escape(child.expectation(spec))
        self.draw()

    def _verb(self, spec: RunSpec) -> str:
        """Start, go on where such a run was stopped, or show where it is finished."""
        if is_finished(child.folder(spec)):
            return "Show (finished)"
        return "Continue" if child.progress(spec).step else "Start"

    @property
    def busy(self) -> bool:
        """Whether a run of this panel is under way."""
        return self.child is not None and self.child.state in ("starting", "training", "stopping")

    # What is done ---------------------------------------------------------------------------------------------------
    def start(self, _: object = None) -> None:
        """Train what is set, or go on with it, or show it where it is finished."""
        spec = self.spec()
        if self.busy:
            return
        self._list(spec)
        if not is_finished(child.folder(spec)):
            self.child = Child(spec)
            self._thread = Thread(target=self._watch, daemon=True)
            self._thread.start()
        self._check()

    def stop(self, _: object = None) -> None:
        """Ask the run to end; the panel says when it has."""
        if self.child is not None:
            self.child.stop()
        self.draw()

    def remove(self, spec: RunSpec) -> None:
        """Take a run out of the list; its record stays on disk."""
        if self.busy and self.child.spec == spec:
            return
        self.runs = [known for known in self.runs if known != spec]
        self._fill_list()
        self.draw()

    def _watch(self) -> None:
        """Draw while the run goes on, and once when it has ended."""
        while self.busy:
            time.sleep(PERIOD)
            self.draw()
        self._check()

    # What is seen ---------------------------------------------------------------------------------------------------
    def draw(self) -> None:
        """The picture and the line of words; nothing is sent where nothing has changed."""
        with self._lock:
            chosen = [spec for spec in self.runs if spec.name not in self.hidden]
            shown = [Shown(self._number[spec.name], spec, child.progress(spec)) for spec in chosen]
            newest = chosen[-1] if chosen else self._asked()
            known = alike_of(newest) if newest else NOTHING
            expected = child.forecast(newest).steps if newest else 64
            words = child.status(self.child)
            _set(self._picture, live_picture.picture(shown, known, expected, _alt(shown, words)))
            _set(self._status, f'<span role="status">{html.escape(words)}</span>')
            for run in shown:
                _set(self._boxes[run.spec.name], self._named(run.spec), "description")
            self._stop.disabled = not self.busy or self.child.state == "stopping"

    def _asked(self) -> RunSpec | None:
        """The run that is set; None where it cannot be."""
        try:
            return self.spec()
        except UserError:
            return None

    def _list(self, spec: RunSpec, shown: bool = True) -> None:
        """List a run, as the newest one."""
        self._number.setdefault(spec.name, len(self._number) + 1)
        self.runs = [*(known for known in self.runs if known != spec), spec][-MOST:]
        self.hidden = self.hidden - {spec.name} if shown else self.hidden | {spec.name}
        self._fill_list()

    def _fill_list(self) -> None:
        self._listed.children = [self._row(spec) for spec in self.runs] or [w.HTML("No run yet.")]

    def _row(self, spec: RunSpec) -> w.HBox:
        """One run of the list: whether it is shown, and a button that takes it out."""
        name = self._named(spec)
        box = w.Checkbox(value=spec.name not in self.hidden, description=name, indent=False, layout=_ROW)
        out = w.Button(description="Remove", tooltip=f"Take out run {name}; its record stays", layout=_SMALL)

        def show(change: dict[str, bool]) -> None:
            self.hidden = self.hidden - {spec.name} if change["new"] else self.hidden | {spec.name}
            self.draw()

        box.observe(show, "value")
        out.on_click(lambda _: self.remove(spec))
        self._boxes[spec.name] = box
        return w.HBox([box, out])

    def _named(self, spec: RunSpec) -> str:
        return f"{self._number[spec.name]}: {child.title(spec)}"

    def _build(self) -> None:
        """Lay everything out, each part in a place of fixed size."""
        s = self._settings
        self._about = w.HTML(layout={"height": "34px", "width": "280px"})
        self._note = w.HTML(layout={"height": "84px", "width": "280px", "overflow": "hidden"})
        self._status = w.HTML(layout={"height": "22px", "width": "100%"})
        self._picture = w.HTML(layout={"height": f"{live_picture.HEIGHT + 4}px", "width": "100%"})
        self._start = w.Button(description="Start", button_style="primary", tooltip="Train what is set above")
        self._stop = w.Button(description="Stop", tooltip="Stop the run; it can be gone on from", disabled=True)
        self._listed = w.VBox(layout={"height": "86px", "overflow": "auto", "width": "100%"})
        self._start.on_click(self.start)
        self._stop.on_click(self.stop)
        s["arm"].observe(self._arm_changed, "value")
        s["base"].observe(self._arm_changed, "value")
        for name in s.keys() - {"arm", "base"}:
            s[name].observe(self._check, "value")
        rewards = w.HBox([s["hit"], s["exact"], s["format"]])
        order = [s["base"], s["arm"], self._about, s["form"], s["rate"], s["beta"]]
        order += [w.HTML("reward weights (RFT):"), rewards, s["steps"], s["until"], self._note]
        left = w.VBox([*order, w.HBox([self._start, self._stop])], layout={"flex": "0 0 290px"})
        right = w.VBox([self._status, self._picture, self._listed], layout={"flex": "1 1 680px", "min_width": "440px"})
        self.box = w.HBox([own_keys(), left, right], layout={"height": f"{HEIGHT}px", "overflow": "auto hidden"})
        self.box.add_class("jigsaw-live")


_ROW = {"flex": "1 1 500px"}
_SMALL = {"flex": "0 0 76px"}
_WIDE = {"width": "280px"}
_NAMED = {"description_width": "88px"}


def _forms(base: str) -> list[tuple[str, str]]:
    """The forms that a base can be asked for, with what they are called here."""
    return [(name, form) for name, form in FORMS.items() if form in forms(base)]


def _controls(base: str) -> dict[str, w.ValueWidget]:
    """Every control, by name, at its default."""

    def menu(words: str, options: Sequence[object], value: object) -> w.Dropdown:
        return w.Dropdown(options=options, value=value, description=words, style=_NAMED, layout=_WIDE)

    def weight(words: str) -> w.BoundedFloatText:
        style = {"description_width": "36px"}
        layout = {"width": "91px"}
        return w.BoundedFloatText(value=1.0, min=0, max=10, step=0.5, description=words, style=style, layout=layout)

    steps = w.BoundedIntText(value=240, min=8, max=4000, step=8, description="most steps", style=_NAMED, layout=_WIDE)
    return {
        "base": menu("base", list(BASES), base),
        "arm": menu("arm", arms(), "sft-answer"),
        "form": menu("form asked", _forms(base), forms(base)[0]),
        "rate": menu("rate", [(f"{rate:g}", rate) for rate in RATES], 2e-4),
        "beta": menu("KL weight", [(f"{weight:g}", weight) for weight in kl_weights()], 0.0),
        "hit": weight("hit"),
        "exact": weight("exact"),
        "format": weight("form"),
        "steps": steps,
        "until": menu("stop at exact", list(UNTIL.items()), 0.5),
    }


def _set(widget: w.DOMWidget, text: str, name: str = "value") -> None:
    """Send a text to the page where it has changed."""
    if getattr(widget, name) != text:
        setattr(widget, name, text)


def _alt(shown: Sequence[Shown], words: str) -> str:
    runs = [f"Run {run.number}: {child.title(run.spec)}." for run in shown]
    return " ".join(["Curves of exact match and prior score.", words, *runs])
