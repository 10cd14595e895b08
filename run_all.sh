#!/usr/bin/env bash
# Makes .venv when it is missing or out of date, then executes the notebooks (helpers/runner.py).
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")" > /dev/null
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

fail() {
    printf 'run_all.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}
trap 'fail "stopped; the same command goes on from here." 130' INT TERM

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} .venv/bin/python python3 python3.14 python3.13 python3.12 python3.11; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and was not found; install it, or name it: PYTHON=/path/to/python3.12 ./run_all.sh."
}

make_venv() {
    echo "Making .venv with $1."
    "$1" -m venv --clear .venv > /dev/null 2>&1 && return
    fail "$1 could not make .venv; its venv module may be missing (on Debian and Ubuntu: apt install python3-venv)."
}

install_packages() {
    echo "Installing the packages of requirements.txt into .venv (once, some minutes; log: .venv/install.log)."
    # The copy of what was installed is written last, so an interrupted installation goes on next time.
    rm -f .venv/installed.txt
    .venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt > .venv/install.log 2>&1 ||
        fail "the packages could not be installed ($(grep -m1 '^ERROR' .venv/install.log || echo 'see .venv/install.log')); the same command tries again."
    cp requirements.txt .venv/installed.tmp
    mv .venv/installed.tmp .venv/installed.txt
}

set_up() {
    is_recent .venv/bin/python || make_venv "$python"
    .venv/bin/python -m pip --version > /dev/null 2>&1 || .venv/bin/python -m ensurepip > /dev/null 2>&1 ||
        fail ".venv has no pip; delete the folder .venv and start again."
    cmp -s requirements.txt .venv/installed.txt || install_packages
}

python=$(find_python)
if [ "$*" = "--setup-only" ]; then
    set_up
    exit
fi
# Options are looked at before anything is installed: a slip of the keyboard should not cost minutes.
"$python" -m helpers run --check "$@" || exit
for option in "$@"; do
    case "$option" in -h | --help) exit ;; esac
done
set_up
exec .venv/bin/python -m helpers run "$@"
