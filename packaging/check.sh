#!/usr/bin/env bash
# Build dist/*.tar.gz and dist/*.whl, check both, and run the wheel outside of the checkout. The
# python3 on PATH must have what genoscan needs, as it has after README's test command.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install --quiet -r packaging/requirements.txt

tools=$scratch/tools/bin
"$tools/cffconvert" --validate -i CITATION.cff
"$tools/yamllint" --strict -c packaging/yamllint.yaml CITATION.cff .github/workflows/*.yml
"$tools/shellcheck" .ci/run packaging/*.sh benchmarks/*.sh benchmarks/genes/*.sh
"$tools/hadolint" packaging/Dockerfile
"$tools/spython" recipe --parser singularity packaging/genoscan.def > /dev/null

rm -rf dist
"$tools/python" -m build --no-isolation
"$tools/twine" check --strict dist/*
"$tools/check-wheel-contents" dist/*.whl
checksum=$(sha256sum dist/*.tar.gz | cut -d ' ' -f 1)
sed "s/SHA256_OF_SDIST/$checksum/" packaging/bioconda/meta.yaml > dist/meta.yaml

python3 -m pip install --quiet --no-deps --target "$scratch/installed" dist/*.whl
PYTHONPATH=$scratch/installed packaging/smoke_test.sh python3
