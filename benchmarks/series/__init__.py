"""`genoscan bench long-series`: a class for a series of 17,984 steps, learnt in flat memory.

experiments.py   START HERE: the planted task, or files; what is learnt, and what a step takes
data.py          series with an order planted in them; the .ts format of the UEA archive
learn.py         exact derivatives of a loss of the mean over all steps, tile by tile; one run
"""
