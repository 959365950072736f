"""`genoscan bench speed`: this program and its peers on the same weights, bases and machine.

run.py          START HERE: parity first, then row by row, each kept as soon as it is known
rows.py         what is compared with what, and the bars
contenders.py   who takes part: what each is built from and what it computes
  windows.py    this program's own derivatives, and torch's through its layers
  peers.py      transformers and mambapy with our weights
  scans.py      the scan's kernels, exponentials and copies
  files.py      whole commands, from FASTA to bigWig
  paper.py      the Phase Gradient Flow paper's layer, theirs and ours
parity.py       everyone's derivative against float64 autograd through plain torch
worker.py       one contender in a process of its own; crew.py: the process that tells it what to do
report.py, figure.py   words and picture
"""
