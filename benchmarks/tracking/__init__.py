"""`python -m benchmarks state-tracking`: learning to keep the state of an automaton.

experiments.py   START HERE: one experiment per task; PD-SSM and Mamba, three seeds each
tasks.py         the automata, as sequences and labels
learn.py         one run: training on short sequences, testing on long ones
"""
