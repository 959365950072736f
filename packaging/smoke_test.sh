#!/usr/bin/env bash
# Run an installed genoscan in a new folder: its command, models, example data, kernels and writers.
# smoke_test.sh [PYTHON]: the interpreter that genoscan is installed for (default: python3)
set -euo pipefail

python=$(command -v "${1:-python3}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

genoscan() {
    "$python" -P -m genoscan "$@"
}

package=$("$python" -P -c 'import genoscan; print(genoscan.__path__[0])')
for part in py.typed _models _data _workflows; do
    if [ ! -e "$package/$part" ]; then
        echo "$package: found no $part: not an installed wheel, or an incomplete one" >&2
        exit 1
    fi
done

genoscan --version
genoscan models list
genoscan attribute "$package/_data/chloroplast.fa" --region NC_000932.1:54,958-55,157 --context 64 --reach 64 \
    --output track.bw --output track.bedgraph
genoscan track convert track.bw --output converted.bedgraph
cmp track.bedgraph converted.bedgraph
genoscan export html track.bw --genome "$package/_data/chloroplast.fa" \
    --annotation "$package/_data/chloroplast.genes.bed" --output page.html
test -s "$(genoscan workflow path)"
echo "genoscan runs from $package"
