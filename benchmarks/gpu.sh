#!/usr/bin/env bash
# All measurements on a GPU, in one run of at most ten minutes: benchmarks/gpu.sh
# Without a GPU, all of them at tiny sizes on the CPU, kernels interpreted: benchmarks/gpu.sh --dry-run
#
# The machine needs Python 3.12 with torch, triton, numba, numpy, pandas, click and jaxtyping, and no
# network. Other dependencies are wheels in the ignored folder wheels/ (11 MB), filled by
#
#   pip download -d wheels -c constraints.txt --no-deps --only-binary=:all: --python-version 3.12 \
#     --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
#     --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
#     annotated-types biopython packaging platformdirs pydantic pydantic-core pyfaidx pysam \
#     safetensors tqdm typing-extensions typing-inspection
#
# Writes gpu.json and gpu.log, the printed output, to $OUT or else build/gpu/, and replaces earlier ones there.
set -euo pipefail
cd "$(dirname "$0")/.."

output=${OUT:-build/gpu}
mkdir -p "$output"
if compgen -G "wheels/*.whl" >/dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    # In a folder of their own: installed packages are left as they are.
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" wheels/*.whl
    # Searched after the machine's own packages, which torch was built with.
    export GENOSCAN_SITE=$site
fi
PYTHONPATH=$PWD PYTHONUNBUFFERED=1 python3 -m benchmarks.gpu --output "$output" "$@" \
    2>&1 | tee "$output/gpu.log"
