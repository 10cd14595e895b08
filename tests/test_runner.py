"""The runner as its user meets it: lines printed, exit status, files left."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from swapping import swap

from helpers import processes, runner
from helpers.errors import UserError
from helpers.study.profiles import PROFILES

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = 'PROFILE = "cpu"\nRETRAIN = False\nFIGURES = "out/figures"'


def write_notebook(root: Path, name: str, *sources: str) -> Path:
    """A notebook with a heading, the cell of parameters, and one code cell per source."""
    cells = [new_markdown_cell(f"# {name}"), new_code_cell(DEFAULTS, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=cells + [new_code_cell(source) for source in sources])
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def repository(tmp_path):
    """A repository of two notebooks, one helper and one record."""
    # A package with an __init__, as ours: one without would give way to ours where PYTHONPATH holds this repository.
    files = {"helpers/__init__.py": "", "helpers/tool.py": "x = 1\n", "figures/records/table.csv": "a\n1\n"}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    write_notebook(tmp_path, "00_first", "1 + 1")
    write_notebook(tmp_path, "01_second", "2 + 2")
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces papermill by a process that copies the notebook, fast; returns the names executed."""
    executed = []

    def command(task: runner.Task) -> list[str]:
        executed.append(task.name)
        copy = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
        return [sys.executable, "-S", "-c", copy, str(task.source), str(task.copy)]

    swap(monkeypatch, runner, "command", command)
    return executed


def execute_twice(repository: Path, executed: list[str], between, *options: str) -> list[str]:
    """Names executed by a second call, after `between` has changed something."""
    assert runner.main(["--profile", "cpu"], repository) == 0
    assert executed == ["00_first", "01_second"]
    executed.clear()
    between()
    assert runner.main(["--profile", "cpu", *options], repository) == 0
    return executed


# ---------------------------------------------------------------- with real kernels


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two real notebooks side by side: one finishes, one fails."""
    root = tmp_path_factory.mktemp("real")
    (root / "helpers").mkdir()
    (root / "helpers" / "tool.py").write_text("WORD = 'found'\n")
    (root / "helpers" / "__init__.py").write_text("")
    probe = "import json, os, sys, pathlib\nfrom helpers.tool import WORD\n"
    facts = "{'word': WORD, 'python': sys.prefix, 'cwd': os.getcwd(), 'environment': dict(os.environ)}"
    given = "'parameters': [PROFILE, RETRAIN, FIGURES]"
    probe += f"pathlib.Path('facts.json').write_text(json.dumps({facts} | {{{given}}}))"
    write_notebook(root, "00_first", probe)
    write_notebook(root, "01_second", "x = 1", "y = 0\nx / y", "print('never reached')")
    words = [sys.executable, "-m", "helpers", "run", "--profile", "smoke", "--retrain", "--jobs", "2"]
    # The tool above stands in the kernel's path; the runner itself comes from this repository.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; "
    code += f"from helpers import runner; sys.exit(runner.main({words[4:]!r}, Path({str(root)!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    return root, done


def test_success_is_reported_and_stamped(real):
    root, done = real
    line = next(line for line in done.stdout.splitlines() if line.startswith("00_first"))
    assert line.split()[2:] == ["min", "ok"]
    assert (root / "out/smoke/finished/00_first.json").is_file()


def test_kernel_gets_parameters_root_interpreter_and_environment(real):
    root, _ = real
    facts = json.loads((root / "facts.json").read_text())
    assert facts["parameters"] == ["smoke", True, "out/smoke/figures"]
    assert (facts["word"], facts["python"], facts["cwd"]) == ("found", sys.prefix, str(root))
    environment = facts["environment"]
    assert environment["HF_HUB_OFFLINE"] == environment["JIGSAW_STATIC"] == "1"
    assert environment["JIGSAW_NOTEBOOK"] == "00_first" and environment["JIGSAW_PUBLISH"] == "0"
    assert int(environment["MALLOC_MMAP_THRESHOLD_"]) >= 2**30
    assert "inline" in environment["MPLBACKEND"]


def test_failure_names_notebook_cell_and_error(real):
    root, done = real
    assert done.returncode == 1
    told = done.stderr.strip()
    assert told == (
        "run_all.sh: 01_second failed in code cell 3 (`y = 0`): ZeroDivisionError: division by zero "
        "(partial copy: out/smoke/01_second.ipynb)"
    )
    assert not (root / "out/smoke/finished/01_second.json").exists()


def test_failure_keeps_partial_copy(real):
    root, _ = real
    cells = nbformat.read(root / "out/smoke/01_second.ipynb", as_version=4).cells
    assert any(output.output_type == "error" for cell in cells for output in cell.get("outputs", []))
    assert cells[-1].execution_count is None


# ---------------------------------------------------------------- what is executed again


def test_second_call_skips_what_finished(repository, stand_in, capsys):
    assert execute_twice(repository, stand_in, lambda: None) == []
    assert capsys.readouterr().out.count("finished earlier") == 2


def test_changed_cell_executes_that_notebook_again(repository, stand_in):
    assert execute_twice(repository, stand_in, lambda: write_notebook(repository, "01_second", "3")) == ["01_second"]


def test_saved_outputs_do_not_count_as_change(repository, stand_in):
    def save_outputs():
        path = repository / "notebooks/00_first.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[2].update(execution_count=7, outputs=[nbformat.v4.new_output("stream", text="2")])
        nbformat.write(notebook, path)

    assert execute_twice(repository, stand_in, save_outputs) == []


@pytest.mark.parametrize("changed", ["helpers/tool.py", "figures/records/table.csv"])
def test_changed_helper_or_record_executes_all_again(repository, stand_in, changed):
    between = (repository / changed).write_text
    assert execute_twice(repository, stand_in, lambda: between("other\n")) == ["00_first", "01_second"]


def test_fresh_executes_all_again_and_only_limits_it(repository, stand_in):
    assert execute_twice(repository, stand_in, lambda: None, "--fresh", "--only", "01") == ["01_second"]


def test_retrain_is_another_parameter_and_ignores_records(repository, stand_in):
    assert runner.main(["--retrain"], repository) == 0
    (repository / "figures/records/table.csv").write_text("made anew\n")
    assert runner.main(["--retrain"], repository) == 0
    assert stand_in == ["00_first", "01_second"]
    assert runner.main([], repository) == 0
    assert len(stand_in) == 4


def test_missing_copy_executes_that_notebook_again(repository, stand_in):
    lost = repository / "out/cpu/00_first.ipynb"
    assert execute_twice(repository, stand_in, lost.unlink) == ["00_first"]


def test_missing_figure_executes_its_notebook_again(repository, stand_in):
    figures = {name: repository / "figures" / f"{name}.png" for name in ("one", "two")}
    for path in figures.values():
        path.touch()
    notebooks = {"one": "00_first", "two": "01_second"}
    manifest = {id: {"files": [f"{id}.png"], "notebook": name} for id, name in notebooks.items()}
    (repository / "figures/manifest.json").write_text(json.dumps(manifest))
    assert execute_twice(repository, stand_in, figures["two"].unlink) == ["01_second"]


def test_broken_stamp_counts_as_unfinished(repository, stand_in):
    stamp = repository / "out/cpu/finished/00_first.json"
    assert execute_twice(repository, stand_in, lambda: stamp.write_text("{")) == ["00_first"]


def test_change_during_execution_is_not_taken_for_finished(repository, stand_in, monkeypatch):
    inner = runner.command

    def command(task):
        write_notebook(repository, task.name, "edited meanwhile")
        return inner(task)

    swap(monkeypatch, runner, "command", command)
    assert runner.main(["--only", "00"], repository) == 0
    assert runner.main(["--only", "00"], repository) == 0
    assert stand_in == ["00_first", "00_first"]


# ---------------------------------------------------------------- failures without a cell, interruption


def test_process_that_dies_early_is_told_with_its_last_words(repository, monkeypatch, capsys):
    words = [sys.executable, "-c", "import sys; sys.exit('no room left')"]
    swap(monkeypatch, runner, "command", lambda task: words)
    assert runner.main([], repository) == 1
    told = capsys.readouterr()
    assert told.err == (
        "run_all.sh: 00_first failed before its first cell: no room left (log: out/cpu/logs/00_first.log)\n"
    )
    assert "01_second" not in told.out, "nothing is started after a failure"


def test_dead_kernel_is_told_with_the_cell_that_was_under_way(repository, monkeypatch, capsys):
    """Papermill leaves no error in the copy then, and calls every cell completed."""
    copy = nbformat.read(repository / "notebooks/00_first.ipynb", as_version=4)
    copy.cells += [new_code_cell("load_too_much()"), new_code_cell("never()")]
    for cell, time_begun in zip(copy.cells, ("0:01", "0:02", "0:03", "0:04", None), strict=True):
        cell.metadata.papermill = {"status": "completed", "start_time": time_begun}
    code = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2]); sys.exit('Kernel died')"
    words = [sys.executable, "-c", code]
    swap(monkeypatch, runner, "command", lambda task: [*words, str(task.copy), nbformat.writes(copy)])
    assert runner.main(["--only", "00"], repository) == 1
    assert "00_first failed in code cell 3 (`load_too_much()`): Kernel died" in capsys.readouterr().err


def test_interruption_stops_the_process_and_says_how_to_go_on(repository, tmp_path):
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    code = f"import sys, signal; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
    code += f"from helpers import runner; runner.command = lambda task: {sleeper!r}\n"
    code += f"sys.exit(runner.main([], Path({str(repository)!r})))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    log = repository / "out/cpu/logs/00_first.log"
    limit = time.monotonic() + 20
    while not log.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert told.strip() == "run_all.sh: stopped; the same command goes on from here."


def test_stop_ends_a_process_that_ignores_being_asked(monkeypatch, repository):
    swap(monkeypatch, processes, "GRACE_SECONDS", 0.2)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); time.sleep(60)"
    swap(monkeypatch, runner, "command", lambda task: [sys.executable, "-u", "-c", stubborn])
    options = runner.parse([])
    running = runner.start(runner.plan(repository, options)[0], "key")
    while not running.task.log.read_text():
        time.sleep(0.02)
    processes.stop([running.process], groups=True)
    assert running.process.returncode == -signal.SIGKILL


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    "words, part",
    [
        (["--profile", "big"], "'big'"),
        (["--only", "77"], "no notebook is called '77'; there are 00_first, 01_second."),
        (["--only", ""], "no notebook is called ''"),
        (["--jobs", "0"], "'0' is not a whole number"),
        (["--pro", "cpu"], "--pro"),
        (["--setup-only"], "--setup-only"),
    ],
)
def test_wrong_option_is_one_sentence_and_status_2(repository, stand_in, capsys, words, part):
    assert runner.main(words, repository) == 2
    told = capsys.readouterr()
    assert part in told.err and told.err.count("\n") == 1 and told.out == ""
    assert stand_in == []


def test_unreadable_notebook_is_one_sentence(repository, capsys):
    (repository / "notebooks/00_first.ipynb").write_text("not json")
    assert runner.main([], repository) == 2
    assert capsys.readouterr().err == (
        "run_all.sh: 00_first.ipynb is not a notebook that can be read; restore it from git.\n"
    )


def test_unexpected_error_is_one_sentence(repository, monkeypatch, capsys):
    def broken(task):
        raise OSError("disk full\nand more")

    swap(monkeypatch, runner, "command", broken)
    assert runner.main([], repository) == 1
    assert capsys.readouterr().err == "run_all.sh: OSError: disk full\n"


def test_folder_without_notebooks_is_refused(tmp_path, capsys):
    assert runner.main([], tmp_path) == 2
    assert "no notebooks in" in capsys.readouterr().err


def test_help_lists_options_and_profiles(capsys):
    with pytest.raises(SystemExit) as exit:
        runner.main(["--help"], ROOT)
    told = capsys.readouterr().out
    assert exit.value.code == 0
    assert all(word in told for word in ("--profile", "--only", "--fresh", "--retrain", "--jobs", "smoke"))


def test_select_keeps_order_and_names_once():
    names = ["00_question", "05_forget", "A1_base"]
    assert runner.select(names, ()) == names
    assert runner.select(names, ("a1", "notebooks/05_forget.ipynb", "05")) == ["05_forget", "A1_base"]
    with pytest.raises(UserError):
        runner.select(names, ("05", "5"))


def test_only_the_cpu_profile_writes_the_published_figures():
    given = {name: runner.Task(Path("00.ipynb"), ROOT, name, False).parameters for name in runner.PROFILES}
    assert {name: words["FIGURES"] for name, words in given.items()} == {
        "smoke": "out/smoke/figures",
        "cpu": "figures",
        "gpu": "out/gpu/figures",
    }
    keys = {name: runner.environment(runner.Task(Path("00.ipynb"), ROOT, name, False)) for name in runner.PROFILES}
    assert {name: found["JIGSAW_PUBLISH"] for name, found in keys.items()} == {"smoke": "0", "cpu": "1", "gpu": "0"}


def test_profiles_are_those_of_the_study():
    assert set(runner.PROFILES) == set(PROFILES)


def test_gpu_profile_keeps_network_and_threads(monkeypatch):
    for variable in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    found = {name: runner.environment(runner.Task(Path("00.ipynb"), ROOT, name, False)) for name in ("cpu", "gpu")}
    assert found["cpu"]["OMP_NUM_THREADS"] == found["cpu"]["HF_HUB_OFFLINE"] == "1"
    assert "OMP_NUM_THREADS" not in found["gpu"] and "HF_HUB_OFFLINE" not in found["gpu"]


def test_runner_needs_only_the_standard_library():
    """run_all.sh looks at options before anything is installed."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import helpers.runner"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code]).returncode == 0
