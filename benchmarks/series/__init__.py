"""`python -m benchmarks long-series`: classify series of 17,984 steps, trained in flat memory.

experiments.py   START HERE: the planted task, or files; accuracy, and the cost of a step
data.py          series with two planted motifs; the .ts format of the UEA archive
learn.py         one run, with exact derivatives of a loss of the mean over all steps, in tiles
"""
