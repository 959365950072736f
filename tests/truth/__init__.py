"""Independent references: whole windows, base after base, in plain float64 torch.

Nothing here imports genoscan.  Models are written from their papers and from the layout of their
files, windows and scores from what the command line promises; `test_columns.py` and the other tests
of this folder run the program and compare.
"""
