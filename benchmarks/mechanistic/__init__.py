"""`python -m benchmarks mechanistic`: recall, copying, compression and memorisation (arXiv 2403.17844).

experiments.py   START HERE: one experiment per task; Mamba, Mamba-2 and PD-SSM at equal weights
axes.py          two of the tasks by vocabulary, length and noise, an experiment each
states.py        selective copying by the number of states
summary.py       all tasks as one table and figure, all sizes as one figure
tasks.py         the tasks, as sequences and labels
learn.py         one run
"""
