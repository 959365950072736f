"""`python -m benchmarks period3`: does a track reflect the reading frame?

track.py        START HERE: a finished track against an annotation
periodogram.py  the measure: power at frequency 1/3, inside coding sequence and outside genes
figure.py       mean periodograms, and mean scores by codon position
"""
