"""`python -m benchmarks language`: PD-SSM against Mamba-2 as the recurrent layer of a small hybrid language model.

experiments.py   START HERE: the experiments; sizes
modelling.py     bits per byte of a corpus, learnt at equal weights and bytes
costs.py         bytes per second and memory of a training step, as ratios
probe.py         who holds what after swaps, what is where after moves: lengths beyond training
stories.py       the sentences of the probe
corpus.py        the text that fetch.sh downloads, split by document
model.py         the hybrid model
training.py      one run, which continues after it was killed
checkpoint.py    the file that a killed run continues from
"""
