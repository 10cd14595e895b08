#!/usr/bin/env bash
# Makes .venv when it is missing or out of date, then executes the notebooks (helpers/runner.py).
set -euo pipefail
self=${BASH_SOURCE[0]}
while [ -L "$self" ]; do # started through a link: the repository is where the file itself lies
    link=$(readlink -- "$self")
    case $link in /*) self=$link ;; *) self=$(dirname -- "$self")/$link ;; esac
done
cd -- "$(dirname -- "$self")" > /dev/null
here=$(pwd -P)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
# Settings of the person's own Python or pip that would change where modules and packages are, or how names are read.
unset PYTHONHOME PYTHONSAFEPATH PYTHONPLATLIBDIR PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PYTHONIOENCODING
export PYTHONUTF8=1 PIP_USER=0

fail() {
    printf 'run_all.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}
stopped() {
    # shellcheck disable=SC2046 # several numbers are several words
    kill $(jobs -p) 2> /dev/null || true # a package installer that runs on would hold the set-up's lock
    fail "stopped; the same command goes on from here." 130
}
trap stopped INT TERM HUP

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

# One at a time: a second set-up waits for the first. The lock dies with the processes that hold file 9.
lock_set_up() {
    { exec 9> .venv.lock; } 2> /dev/null || fail "this folder cannot be written to, so .venv cannot be made: copy the repository."
    "$python" - << 'END' || [ $? -ne 75 ] || { echo "Another process is setting up .venv; waiting for it to end."; wait_for_lock; }
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(75)
except OSError:  # a disk without locks: whoever sets up twice at once has to mend it
    pass
END
}
wait_for_lock() {
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' &
    wait $!
}

make_venv() {
    case $here in
        *:*) fail "the path $here holds a colon, which Python environments do not allow; rename that folder and run again." ;;
    esac
    echo "Making .venv with $1."
    "$1" -m venv --clear .venv > /dev/null 2>&1 && return
    fail "$1 could not make .venv; its venv module may be missing (on Debian and Ubuntu: apt install python3-venv)."
}

# Scripts of an environment name its folder in their first lines: after a move they would start what is no more.
follow_move() {
    local now before
    now=$(cd .venv > /dev/null && pwd -P) # where it really lies: .venv may be a link to another repository's
    before=$(cat .venv/here.txt 2> /dev/null) || before=$now
    if [ "$before" != "$now" ]; then
        echo "This folder was moved: $before is now $now, and the scripts in it follow."
        .venv/bin/python - "$before" "$now" << 'END'
import pathlib, sys
old, new = (word.encode() + b"/" for word in sys.argv[1:])
for path in pathlib.Path(".venv/bin").iterdir():
    if path.is_symlink() or not path.is_file() or old not in path.read_bytes():
        continue
    data = path.read_bytes().replace(old, new)
    first, _, rest = data.partition(b"\n")
    if first.startswith(b"#!" + new) and (b" " in first or len(first) > 125):
        # No system takes such a first line; a shell does, by words that Python reads as a text (pip writes the same).
        data = b"#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n%s" % (first[2:], rest)
    path.write_bytes(data)
END
    fi
    [ -f .venv/here.txt ] && [ "$before" = "$now" ] || printf '%s' "$now" > .venv/here.txt
}

# What pip does, one short line for each package that it fetches, so that minutes do not pass in silence.
told() {
    tee .venv/install.log | awk '
        /^Collecting /          { printf "  %s\n", $2; fflush() }
        /^Installing collected/ { print "  installing all of them"; fflush() }'
}

install_packages() {
    echo "Installing the packages of requirements.txt into .venv (once, some minutes; log: .venv/install.log)."
    # The copy of what was installed is written last, so an interrupted installation goes on next time.
    rm -f .venv/installed.txt
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt > >(told) 2>&1 &
    wait $! || fail "the packages could not be installed ($(grep -m1 '^ERROR' .venv/install.log || echo 'see .venv/install.log')); the same command tries again."
    cp requirements.txt .venv/installed.tmp
    mv .venv/installed.tmp .venv/installed.txt
}

# What JupyterLab is told in this environment: it opens the folder that it is started in, so that notebooks find the
# figures beside them; and a saved notebook keeps what its panels last showed, for when there is no kernel any more.
tell_jupyter() {
    mkdir -p .venv/etc/jupyter .venv/share/jupyter/lab/settings
    echo '{"ServerApp": {"root_dir": "."}}' > .venv/etc/jupyter/jupyter_server_config.json
    echo '{"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true}}' > .venv/share/jupyter/lab/settings/overrides.json
}

set_up() {
    lock_set_up
    is_recent .venv/bin/python || make_venv "$python"
    .venv/bin/python -m pip --version > /dev/null 2>&1 || .venv/bin/python -m ensurepip > /dev/null 2>&1 ||
        fail ".venv has no pip; delete the folder .venv and start again."
    cmp -s requirements.txt .venv/installed.txt || install_packages
    follow_move
    tell_jupyter
    exec 9>&-
}

python=$(find_python)
if [ "$*" = "--setup-only" ]; then
    set_up
    exit
fi
# Options are looked at before anything is installed: a slip of the keyboard should not cost minutes.
"$python" -m helpers.runner --check "$@" || exit
for option in "$@"; do
    case "$option" in -h | --help) exit ;; esac
done
set_up
exec .venv/bin/python -m helpers run "$@"
