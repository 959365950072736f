"""`python -m benchmarks long-series`: classify series of 17,984 steps, trained in flat memory.

experiments.py   START HERE: the planted task, or files; accuracy, and the cost of a step
ablations.py     the same without one property of PD-SSM at a time
data.py          series with planted motifs; the .ts format of the UEA archive
learn.py         one run, with exact derivatives of a loss of the mean over all steps, in tiles
"""
