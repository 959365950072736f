#!/usr/bin/env bash
# Install dist/*.whl in a new environment of each interpreter and run it there; build it first: check.sh.
# pythons.sh [PYTHON]...: interpreters (default: those of python3.11 to python3.14 that are on PATH)
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- python3.11 python3.12 python3.13 python3.14
wheel=$(ls dist/*.whl)
failed=0
for python in "$@"; do
    if ! version=$("$python" --version 2> /dev/null); then
        echo "$python: not found, not tested"
        continue
    fi
    scratch=$(mktemp -d)
    if "$python" -m venv "$scratch" &&
        "$scratch/bin/pip" install --quiet -c constraints.txt "$wheel" &&
        packaging/smoke_test.sh "$scratch/bin/python"; then
        echo "$python: $version: passed"
    else
        echo "$python: $version: FAILED"
        failed=1
    fi
    rm -rf "$scratch"
done
exit $failed
