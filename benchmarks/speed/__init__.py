"""`python -m benchmarks speed`: genoscan and other programs on the same weights and bases.

run.py          START HERE: parity first, then row by row, each saved at once
rows.py         comparisons and their thresholds
contenders.py   the contenders by name; built in
  windows.py    derivatives by genoscan's engine, and by torch's autograd through its layers
  peers.py      transformers and mambapy with our weights
  scans.py      the scan's kernels, exponentials and copies
  files.py      whole commands, from FASTA to bigWig
  paper.py      the Phase Gradient Flow paper's layer, theirs and ours
  blocks.py     one block of each kind
parity.py       every contender's derivative against float64 autograd through plain torch
workers.py      starts worker processes and asks them for runs;  worker.py: such a process
report.py, figure.py   the results as text and as a page
compare.py      two files of results, row by row
"""
