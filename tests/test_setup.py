"""`run_all.sh` until the notebooks start: with a stand-in for Python that installs nothing, so that it takes moments.

The stand-in passes everything else on to the real Python without its packages, as on a machine where nothing is
installed.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from standin import make_clone
from test_processes import alive, wait_for

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What set-up needs of the repository, with the stand-in beside it."""
    return make_clone(tmp_path / "clone")


def words(clone: Path, **more: str) -> dict:
    """Options of `subprocess.run` that call a script with the stand-in for Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP"))}
    environment |= {"PYTHON": str(clone / "python")} | more
    return {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def call(clone: Path, *options: str, script: Path | None = None, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(script or clone / "run_all.sh"), *options], **words(clone, **more), timeout=60)


def test_a_fresh_clone_sets_up_says_what_it_does_and_starts(clone: Path) -> None:
    done = call(clone, "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"Making .venv with {clone / 'python'}.",
        "Installing the packages of requirements.txt into .venv (once, some minutes; log: .venv/install.log).",
        "  torch>=2.0",
        "  installing all of them",
        f"started in {clone} with -m helpers run --profile smoke",
    ]
    again = call(clone, "--profile", "smoke")
    assert again.stdout.splitlines() == [f"started in {clone} with -m helpers run --profile smoke"]


def test_a_wrong_option_is_told_before_anything_is_installed(clone: Path) -> None:
    done = call(clone, "--profile", "big")
    assert done.returncode == 2 and done.stderr.startswith("run_all.sh: ") and "'big'" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_failed_installation_is_told_and_tried_again(clone: Path) -> None:
    done = call(clone, "--setup-only", PIP_ERROR="No matching distribution")
    assert done.returncode == 1 and "(ERROR: No matching distribution); the same command tries again." in done.stderr
    assert call(clone, "--setup-only").returncode == 0
    assert (clone / "pip.count").read_text().count("x") == 2


@pytest.mark.parametrize("name, value", [("PYTHONHOME", "/nowhere"), ("PYTHONSAFEPATH", "1"), ("PIP_USER", "1"),
                                         ("PIP_TARGET", "/nowhere"), ("PYTHONIOENCODING", "ascii")])  # fmt: skip
def test_settings_of_the_persons_own_python_do_not_reach_it(clone: Path, name: str, value: str) -> None:
    assert call(clone, **{name: value}).returncode == 0
    seen = dict(line.split("=", 1) for line in (clone / "pip.env").read_text().splitlines() if "=" in line)
    assert seen.get(name) == ("0" if name == "PIP_USER" else None)


def test_a_path_with_other_letters_works_in_an_ascii_locale(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "Bär und 日本")
    done = call(clone, LC_ALL="C", LANG="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0 and f"started in {clone}" in done.stdout


def test_a_colon_in_the_path_is_named(tmp_path: Path) -> None:
    done = call(make_clone(tmp_path / "a:b"))
    assert done.returncode == 1 and "holds a colon, which Python environments do not allow" in done.stderr


def test_a_start_through_links_finds_the_repository(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "second").symlink_to(clone / "run_all.sh")
    (tmp_path / "first").symlink_to("bin/second")
    assert f"started in {clone}" in call(clone, script=tmp_path / "first").stdout


@pytest.mark.parametrize("name", ["elsewhere", "über all", "far" + "a" * 120])
def test_a_moved_folder_keeps_working_scripts(clone: Path, tmp_path: Path, name: str) -> None:
    call(clone, "--setup-only")
    script = ".venv/bin/jupyter"
    (clone / script).write_text((clone / script).read_text() + "import sys; print(sys.argv[1:], __name__)\n")
    (clone / script).chmod(0o755)
    moved = clone.rename(tmp_path / name)
    done = call(moved)
    assert f"This folder was moved: {clone}/.venv is now {moved}/.venv, and the scripts in it follow." in done.stdout
    told = subprocess.run([moved / script, "a b"], capture_output=True, text=True)
    assert told.stdout == "['a b'] __main__\n", told.stderr
    assert "follow" not in call(moved).stdout


def test_a_link_to_another_repositorys_environment_is_left_as_it_is(clone: Path, tmp_path: Path) -> None:
    call(clone, "--setup-only")
    other = make_clone(tmp_path / "other")
    (other / ".venv").symlink_to(clone / ".venv")
    assert "follow" not in call(other).stdout
    assert (clone / ".venv/bin/jupyter").read_text() == f"#!{clone}/.venv/bin/python\n"


def test_a_second_set_up_waits_for_the_first(clone: Path) -> None:
    with subprocess.Popen([clone / "run_all.sh", "--setup-only"], **words(clone, PIP_SECONDS="1.5")) as first:
        assert wait_for((clone / "pip.pid").exists)
        second = call(clone, "--setup-only")
        assert second.returncode == 0
        assert second.stdout == "Another process is setting up .venv; waiting for it to end.\n"
    assert first.returncode == 0
    assert (clone / "pip.count").read_text().count("x") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stopped_set_up_stops_the_installer_too(clone: Path, number: int) -> None:
    with subprocess.Popen([clone / "run_all.sh", "--setup-only"], **words(clone, PIP_SECONDS="30")) as process:
        assert wait_for(lambda: (clone / "pip.pid").exists() and (clone / "pip.pid").read_text().strip())
        time.sleep(0.1)
        process.send_signal(number)
        told = process.communicate(timeout=10)[1]
    assert process.returncode == 130 and "stopped; the same command goes on from here." in told
    assert wait_for(lambda: not alive(int((clone / "pip.pid").read_text())))
    assert call(clone, "--setup-only").returncode == 0


def test_a_clone_with_other_line_ends_can_start(tmp_path: Path) -> None:
    command = [
        "git",
        "-c",
        "core.autocrlf=true",
        "clone",
        "--quiet",
        "--depth",
        "1",
        f"file://{ROOT}",
        str(tmp_path / "c"),
    ]
    if not (ROOT / ".git").exists() or subprocess.run(command).returncode:
        pytest.skip("this is no clone")
    for name in ("run_all.sh", "check.sh", ".ci/run", "helpers/runner.py", "figures/summary.csv"):
        assert b"\r" not in (tmp_path / "c" / name).read_bytes(), name
