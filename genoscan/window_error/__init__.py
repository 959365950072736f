"""How much scores depend on the window that is read: measured for each model, expected for each run.

measurement.py  START HERE: scores of several windows against those of a long one
grid.py         regions, targets and windows that are compared
files.py        results in the configuration and the card of a model
expected.py     the expected error of a job
"""
