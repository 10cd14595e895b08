"""The house: packages in one order, imports only downwards and at the top of a file."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

HELPERS = Path(__file__).parents[1] / "helpers"
ORDER = (
    "errors", "files", "processes", "progress",
    "world", "study", "stats", "model", "train", "measure", "verdicts", "show", "toys", "play",
    "runner", "lab", "__main__",
)  # fmt: skip
"""Whatever stands here imports only from itself and from what stands before it."""
LAZY = {"lab.py", "__main__.py"}  # start-up must be light there: at most MOST_LAZY imports inside functions
MOST_LAZY = 16
FILES = sorted(HELPERS.rglob("*.py"))


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    """(module or name below `helpers`, statement) of every import of the suite's own modules."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
            below = (node.module or "").removeprefix("helpers").lstrip(".")
            found += [(f"{below}.{alias.name}".lstrip("."), node) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(a.name.removeprefix("helpers."), node) for a in node.names if a.name.startswith("helpers.")]
    return found


def inside_functions(tree: ast.AST) -> list[ast.stmt]:
    """Every import statement that stands inside a function."""
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return [m for f in functions for m in ast.walk(f) if isinstance(m, ast.Import | ast.ImportFrom)]


def test_every_file_and_folder_has_its_place_in_the_order() -> None:
    tops = {p.relative_to(HELPERS).parts[0].removesuffix(".py") for p in FILES if p.name != "__init__.py"}
    assert tops == set(ORDER)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(HELPERS)))
def test_imports_go_down_only(file: Path) -> None:
    own = file.relative_to(HELPERS).parts[0].removesuffix(".py")
    if file.name == "__init__.py":
        assert not imports(ast.parse(file.read_text()))
        return
    for name, _ in imports(ast.parse(file.read_text())):
        assert ORDER.index(name.split(".")[0]) <= ORDER.index(own), f"{file.name} imports {name} from above"


def test_imports_stand_at_the_top_of_a_file() -> None:
    offenders = {p.name: len(inside_functions(ast.parse(p.read_text()))) for p in FILES if p.name not in LAZY}
    assert {name: count for name, count in offenders.items() if count} == {}
    lazy = sum(len(inside_functions(ast.parse((HELPERS / name).read_text()))) for name in LAZY)
    assert lazy <= MOST_LAZY


def test_no_module_imports_itself_by_a_detour() -> None:
    modules = {".".join(p.relative_to(HELPERS).with_suffix("").parts): p for p in FILES if p.name != "__init__.py"}
    below: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for imported, _ in imports(ast.parse(path.read_text())):
            target = imported if imported in modules else imported.rpartition(".")[0]
            below[name] |= {target} & modules.keys()
    for name in below:
        seen, todo = set(), list(below[name])
        while todo:
            step = todo.pop()
            if step not in seen:
                seen.add(step)
                todo += below[step]
        assert name not in seen, f"{name} imports itself by a detour"


@pytest.mark.parametrize("package", ["world", "study", "stats"])
def test_torch_is_not_needed(package: str) -> None:
    names = [
        ".".join(("helpers", *p.relative_to(HELPERS).with_suffix("").parts)) for p in (HELPERS / package).glob("*.py")
    ]
    code = (
        f"import sys\nfor name in {names}: __import__(name)\nprint('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HELPERS.parent)
    assert found.stdout.split() == ["False", "False"], found.stderr


def test_the_notebooks_first_line_is_light() -> None:
    code = "import sys, helpers.lab; print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HELPERS.parent)
    assert found.stdout.strip() == "[]", found.stderr


def test_an_installation_holds_every_package_and_every_data_file() -> None:
    settings = tomllib.loads((HELPERS.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set(find_packages(str(HELPERS.parent), include=settings["packages"]["find"]["include"]))
    assert found == {".".join(p.parent.relative_to(HELPERS.parent).parts) for p in HELPERS.rglob("__init__.py")}
    data = {
        file
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for file in (HELPERS.parent / package.replace(".", "/")).glob(pattern)
    }
    tracked = subprocess.run(["git", "ls-files", "helpers"], capture_output=True, text=True, cwd=HELPERS.parent)
    assert {HELPERS.parent / name for name in tracked.stdout.split() if not name.endswith((".py", ".md"))} <= data
