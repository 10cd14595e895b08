"""Nothing that is read can run code, nothing is fetched, nothing is served to others."""

import ast
import subprocess
import sys
from pathlib import Path

import offline
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "helpers").rglob("*.py")), *sorted((ROOT / "tests" / "gpu").rglob("*.py"))]


def calls(path: Path) -> list[ast.Call]:
    """Every call in a file."""
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_read_that_could_run_code(path: Path) -> None:
    """Records are parquet, JSON and CSV, weights are safetensors; what torch loads is weights only."""
    imported = {alias.name.split(".")[0] for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}  # fmt: skip
    assert not imported & {"pickle", "joblib", "dill", "marshal", "shelve"}
    for call in calls(path):
        name, given = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert name not in ("eval", "exec", "pd.read_pickle", "pandas.read_pickle")
        assert name != "torch.load" or given.get("weights_only") == "True"
        assert "trust_remote_code" not in given and given.get("allow_pickle") != "True"
        assert given.get("shell") != "True"


def test_the_base_model_is_stored_in_formats_that_hold_no_code() -> None:
    suffixes = {path.suffix for path in (ROOT / "helpers" / "base_model").iterdir()}
    assert suffixes <= {".csv", ".jinja", ".json", ".md", ".safetensors"}


def test_nothing_listens_but_what_jupyter_itself_serves_on_this_machine() -> None:
    """Neither scripts nor documents open a server to others or take its token away."""
    documents = [ROOT / "README.md", ROOT / "run_all.sh", ROOT / "check.sh", *(ROOT / "notebooks").glob("*.ipynb")]
    for path in [*documents, *SOURCES[: len(list((ROOT / "helpers").rglob("*.py")))]]:
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("0.0.0.0", "--ip=", "token=''", 'token=""', "disable_check_xsrf")), (
            path
        )


REACH_OUT = """
import socket, sys
with socket.socket() as server:
    server.bind(("127.0.0.1", 0))
    server.listen()
    socket.create_connection(server.getsockname(), 2).close()
try:
    socket.create_connection(("192.0.2.1", 443), 2)
except OSError as error:
    sys.exit(f"refused at once: {error}")
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_offline_means_this_machine_only(namespaces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not namespaces:
        monkeypatch.setenv("PATH", "/nowhere")  # no `unshare`: the guard in Python's sockets stands in
    words, environment = offline.command([sys.executable, "-c", REACH_OUT])
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "refused at once" in done.stderr, done.stderr


def test_the_smoke_notebooks_are_executed_without_a_network_by_the_check() -> None:
    assert "tests.offline ./run_all.sh --profile smoke" in (ROOT / "check.sh").read_text()
