"""What every committed notebook promises to its reader."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook
from papermill import execute_notebook, inspect_notebook
from papermill.exceptions import PapermillExecutionError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[!.]*.ipynb"))
EXPECTED = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "A1")
PARAMETERS = {"PROFILE": "'cpu'", "RETRAIN": "False", "FIGURES": "'out/figures'"}
OWN = {"14_your_own_run": {
    "PICTURES": "''", "GRID": "'2x2'", "FORM": "'direct'", "ARM": "'sft-answer'", "RATE": "0.0002", "SEED": "0",
    "REWARD_WEIGHTS": "'1 1 1'", "BASE": "'two-form-5'", "STEPS": "280",
}}  # fmt: skip
"""Notebooks with more parameters than the three: what a reader gives a run of his own."""
MAX_CELL_LINES = 15
MAX_FUNCTION_LINES = 10

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def tree(cell: Any) -> ast.Module:
    """The cell as Python, with `%magic` and `!command` lines turned into calls."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def is_tagged(cell: Any) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def assigned(module: ast.Module) -> set[str]:
    """Every name the code binds: by assignment, loop, import, definition or `with ... as`."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


def test_every_chapter_is_there_once():
    prefixes = [path.stem.split("_")[0] for path in NOTEBOOKS]
    assert set(EXPECTED) <= set(prefixes), "a chapter is missing from notebooks/"
    assert len(prefixes) == len(set(prefixes)), "two notebooks carry the same number"


@each_notebook
def test_is_valid_notebook(path):
    nbformat.validate(nbformat.read(path, as_version=4))


@each_notebook
def test_first_code_cell_alone_is_tagged_parameters(path):
    cells = code_cells(path)
    assert [is_tagged(cell) for cell in cells] == [True] + [False] * (len(cells) - 1)


@each_notebook
def test_parameters_are_the_three_with_their_defaults_and_a_notebooks_own(path):
    found = inspect_notebook(str(path))
    defaults = {name: repr(ast.literal_eval(about["default"])) for name, about in found.items()}
    assert defaults == PARAMETERS | OWN.get(path.stem, {})


@each_notebook
def test_parameters_are_never_reassigned(path):
    for cell in code_cells(path)[1:]:
        assert not assigned(tree(cell)) & {*PARAMETERS, *OWN.get(path.stem, {})}, cell.source


@each_notebook
def test_cells_and_functions_are_short(path):
    for cell in code_cells(path):
        assert len(cell.source.strip().splitlines()) <= MAX_CELL_LINES, cell.source
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, node.name


@each_notebook
def test_has_one_main_heading_and_begins_with_it(path):
    cells = nbformat.read(path, as_version=4).cells
    heads = [line for cell in cells if cell.cell_type == "markdown" for line in headings(cell.source)]
    assert sum(line.startswith("# ") for line in heads) == 1
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


def headings(markdown: str) -> list[str]:
    """Heading lines, without the `#` comments inside fenced code."""
    outside = markdown.split("```")[::2]
    return [line for part in outside for line in part.splitlines() if line.startswith("#")]


@each_notebook
def test_started_somewhere_else_it_says_in_the_traceback_what_to_do(path, tmp_path):
    """The line that fails is the one that a traceback shows."""
    cell = code_cells(path)[1].source
    code = f"import sys\nsys.path[:] = [p for p in sys.path if p]\n{cell}"
    (tmp_path / "cell.py").write_text(code)
    done = subprocess.run([sys.executable, "-I", "cell.py"], cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'helpers'" in done.stderr
    assert "no such module: start in the repository or in notebooks/" in done.stderr


@pytest.mark.parametrize("error", ["UserError('too small: take a bigger one.')", "ValueError('an error of ours')"])
def test_what_a_user_can_mend_is_told_in_one_sentence_and_the_cell_fails(error, tmp_path):
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom helpers.lab import start\nstart('smoke', quiet=True)"
    cells = [new_code_cell(start), new_code_cell(f"from helpers.errors import UserError\nraise {error}")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    with pytest.raises(PapermillExecutionError):
        execute_notebook(tmp_path / "a.ipynb", tmp_path / "b.ipynb", kernel_name="python3", progress_bar=False)
    (told,) = [
        o for o in nbformat.read(tmp_path / "b.ipynb", as_version=4).cells[-1].outputs if o.output_type == "error"
    ]
    assert told.ename == error.split("(")[0]
    assert (told.traceback == ["too small: take a bigger one."]) == (told.ename == "UserError")


@each_notebook
def test_is_committed_without_results(path):
    for cell in code_cells(path):
        assert cell.outputs == [] and cell.execution_count is None, cell.source


def test_headings_skip_fenced_code():
    assert headings("# One\n```python\n# not one\n```\n## Two") == ["# One", "## Two"]


@pytest.mark.parametrize(
    "code",
    ["PROFILE = 1", "for PROFILE in (): pass", "PROFILE += ''", "import x as PROFILE", "(PROFILE := 2)"],
)
def test_assigned_sees_every_way_of_binding(code):
    assert "PROFILE" in assigned(ast.parse(code))
    assert "PROFILE" not in assigned(ast.parse("print(PROFILE)"))
