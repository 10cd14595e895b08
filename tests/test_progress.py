"""How far long work has come: counts, what is said of them, and what a reader of a notebook or of the batch sees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client import KernelManager
from jupyter_client.blocking import BlockingKernelClient

from helpers import progress
from helpers.lab import STOPPED
from helpers.study.profiles import get_profile, specs
from helpers.train import forecast

ROOT = Path(__file__).resolve().parents[1]
START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from helpers.lab import start; start('smoke', quiet=True)"


def test_a_count_inside_a_count_moves_its_share() -> None:
    assert progress.now() is None
    with progress.counting(4, "walks") as outer:
        outer.step()
        with progress.counting(2, "updates") as inner:
            inner.step()
            now = progress.now()
            assert now.words == "1 of 4 walks" and now.share == pytest.approx(1 / 4 + 1 / 8)
    assert progress.now() is None


def test_counted_items_come_as_they_are_and_an_error_leaves_no_count_behind() -> None:
    assert list(progress.counted([3, 1], "things")) == [3, 1]
    with pytest.raises(ZeroDivisionError):
        for _ in progress.counted([1, 2], "things"):
            raise ZeroDivisionError
    assert progress.now() is None


def test_what_is_left_goes_by_what_was_done(monkeypatch) -> None:
    count = progress.Count("updates", 4, 3, began=time.monotonic() - 30)
    monkeypatch.setattr(progress, "_RUNNING", [count])
    assert progress.told(31) == "3 of 4 updates, about 10 s to go, 31 s so far"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (130, "2 min 10 s"), (12000, "3 h 20 min")]
)
def test_times_are_said_as_a_reader_says_them(seconds: float, said: str) -> None:
    assert progress.span(seconds) == said


def test_how_long_training_takes_is_said_before_it_starts() -> None:
    cpu = get_profile("cpu")
    said = forecast.sentence(specs(cpu, ["sft-answer", "sft-expert"]), 2)
    known, lines = forecast.minutes_per_step(), [cpu.budget(arm) for arm in ("sft-answer", "sft-expert")]
    minutes = round(5 * sum(known[line.arm, cpu.model] * line.steps + forecast.START for line in lines) / 2)
    assert said.startswith("Training 10 runs, 2 at a time: sft-answer (5), sft-expert (5). Time: about ")
    assert f"about {minutes} min, going by published runs" in said
    assert forecast.sentence([], 2) == ""
    assert "how long is not known" in forecast.sentence(specs(get_profile("gpu"), ["sft-answer"]), 1)


@pytest.mark.parametrize(("seconds", "said"), [(14.4, "14 s"), (89, "1 min 29 s"), (100, "2 min"), (7300, "2 h 2 min")])
def test_a_forecast_is_said_no_finer_than_it_is_known(seconds: float, said: str) -> None:
    assert progress.about(seconds) == said


@pytest.fixture
def kernel(monkeypatch) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel as a notebook has it: nobody has said that it is a batch."""
    for name in ("JIGSAW_STATIC", "PAPERMILL", "JIGSAW_PULSE"):
        monkeypatch.delenv(name, raising=False)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(ROOT))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def outputs(client: BlockingKernelClient, request: str) -> list[dict]:
    """What a cell gave, until it was done."""
    found = []
    while True:
        message = client.get_iopub_msg(timeout=120)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return found
        if message["msg_type"] in ("stream", "display_data", "update_display_data", "error", "execute_result"):
            found.append({"type": message["msg_type"], **message["content"]})


def run(client: BlockingKernelClient, code: str) -> list[dict]:
    return outputs(client, client.execute(code))


def test_a_long_cell_shows_a_bar_that_becomes_one_line(kernel) -> None:
    _, client = kernel
    run(client, START)
    cell = "import time\nfrom helpers.progress import counted\nfor _ in counted(range(8), 'naps'): time.sleep(0.5)\n7"
    shown = [one for one in run(client, cell) if "data" in one]
    first, *updates, last = [one["data"].get("text/html", "") for one in shown if "text/html" in one["data"]]
    assert shown[0]["type"] == "display_data" and "<progress" in first and "of 8 naps" in first
    assert any(re.search(r"of 8 naps, about \d s to go, \d s so far", one) for one in updates)
    assert len({one["transient"]["display_id"] for one in shown if "text/html" in one["data"]}) == 1
    assert "<progress" not in last and "This cell took 4 s." in last
    assert run(client, "1 + 1")[0]["data"] == {"text/plain": "2"}  # and a short one shows nothing


def test_stop_is_told_in_a_sentence_and_the_kernel_goes_on(kernel) -> None:
    manager, client = kernel
    run(client, START)
    run(client, "x = 3")
    request = client.execute("import time\ntime.sleep(60)")
    time.sleep(2)
    manager.interrupt_kernel()
    (error,) = [one for one in outputs(client, request) if one["type"] == "error"]
    assert error["ename"] == "KeyboardInterrupt" and error["traceback"] == [STOPPED]
    assert run(client, "x")[0]["data"] == {"text/plain": "3"}


def test_stop_ends_the_trainings_that_a_cell_started(kernel, tmp_path) -> None:
    manager, client = kernel
    run(client, START)
    parent = run(client, f"import os; os.chdir({str(tmp_path)!r}); os.getpid()")[0]["data"]["text/plain"]
    request = client.execute(
        "from helpers.train import jobs\nfrom helpers.study.profiles import get_profile, specs\n"
        "jobs.run_missing(get_profile('cpu'), specs(get_profile('cpu'), ['base']))"
    )
    limit = time.monotonic() + 120
    while not (begun := children(parent)) and time.monotonic() < limit:
        time.sleep(0.2)
    assert begun
    time.sleep(3)  # it is under way
    manager.interrupt_kernel()
    (error,) = [one for one in outputs(client, request) if one["type"] == "error"]
    assert error["traceback"] == [STOPPED]
    assert not [pid for pid in begun if Path(f"/proc/{pid}").exists()]


def children(parent: str) -> list[str]:
    """Processes that train for a parent."""
    listed = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", parent], capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines() if "end_with" in line]


def test_in_a_batch_a_long_cell_tells_the_runner_and_leaves_nothing_in_the_notebook(tmp_path) -> None:
    file = tmp_path / "now"
    code = (
        f"{START}\nimport sys, time\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "from helpers.show.watch import watch\nshell = InteractiveShell.instance()\nwatch(shell)\n"
        "shell.run_cell('import time\\ntime.sleep(2.2)')\ntime.sleep(0.5)\n"
    )
    words = {"JIGSAW_STATIC": "1", "JIGSAW_PULSE": str(file), "IPYTHONDIR": str(tmp_path)}
    running = subprocess.Popen([sys.executable, "-c", code], env=os.environ | words, stdout=subprocess.PIPE, text=True)
    said = set()
    while running.poll() is None:
        said.add(file.read_text() if file.exists() else "")
        time.sleep(0.1)
    assert any(re.fullmatch(r"`import time`: working, \d s so far", one) for one in said), said
    assert file.read_text() == "" and running.stdout.read() == ""
