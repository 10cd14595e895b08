#!/usr/bin/env bash
# Everything that must hold before a change goes in: style, tests, and the notebooks in the smoke profile.
#   ./check.sh --figures   redraw every published figure from the published records and compare (ten minutes)
#   ./check.sh --browser   drive every view in a real browser: mouse, keyboard, reload, exported HTML, voila (minutes)
#   ./check.sh --audit     known weaknesses of the pinned packages (asks the network)
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")" > /dev/null
failed=()

step() {
    local title=$1
    shift
    echo "== $title"
    "$@" || failed+=("$title")
}

run_tests() {
    mkdir -p out
    .venv/bin/python -m pytest -q tests --ignore tests/browser | tee out/tests.log
}

# What drives a browser stands in a folder of its own: no notebook needs it. What cannot be installed is named by the
# tests themselves, which are then skipped.
browser() {
    local packages=out/browser/packages
    mkdir -p out/browser
    [ -d $packages/playwright ] || .venv/bin/python -m pip install -q --target $packages playwright==1.65.2
    if ! command -v chromium chromium-browser google-chrome google-chrome-stable > /dev/null && [ -z "${CHROMIUM:-}" ]; then
        [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null || { apt-get -q update && apt-get -qy install chromium; } > out/browser/apt.log 2>&1
    fi
    PYTHONPATH=$packages .venv/bin/python -m pytest -q -rs tests/browser "$@"
}

audit() {
    .venv/bin/python -m pip check || return
    # In an environment of its own: what looks for weaknesses need not stand among what is looked at.
    [ -x out/audit/bin/pip-audit ] || { .venv/bin/python -m venv out/audit && out/audit/bin/python -m pip install -q pip-audit; } || return
    out/audit/bin/pip-audit --requirement requirements.txt --disable-pip --no-deps
}

./run_all.sh --setup-only || exit
case "${1:-}" in
    --figures) REDRAW=all exec .venv/bin/python -m pytest -q tests/test_redraw.py ;;
    --browser) browser; exit ;;
    --audit) audit; exit ;;
    "") ;;
    *) echo "check.sh: there is no option $1; use --figures, --browser, --audit or none." >&2; exit 2 ;;
esac
step "style" .venv/bin/python -m ruff check helpers tests notebooks
step "layout" .venv/bin/python -m ruff format --check helpers tests notebooks
step "tests" run_tests
step "views in a browser, the core" browser -m core
step "notebooks, without a network" .venv/bin/python -m tests.offline ./run_all.sh --profile smoke --fresh --jobs 2

if [ ${#failed[@]} -gt 0 ]; then
    echo "== failed: ${failed[*]}"
else
    echo "== all passed"
fi
tail -n 1 out/tests.log
[ ${#failed[@]} -eq 0 ]
