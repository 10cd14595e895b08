#!/usr/bin/env bash
# Everything that must hold before a change goes in: style, tests, and the notebooks in the smoke profile.
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
    .venv/bin/python -m pytest -q tests | tee out/tests.log
}

./run_all.sh --setup-only || exit
step "style" .venv/bin/python -m ruff check helpers tests notebooks
step "layout" .venv/bin/python -m ruff format --check helpers tests notebooks
step "tests" run_tests
step "notebooks, without a network" .venv/bin/python -m tests.offline ./run_all.sh --profile smoke --fresh --jobs 2

if [ ${#failed[@]} -gt 0 ]; then
    echo "== failed: ${failed[*]}"
else
    echo "== all passed"
fi
tail -n 1 out/tests.log
[ ${#failed[@]} -eq 0 ]
