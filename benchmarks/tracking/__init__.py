"""`genoscan bench state-tracking`: who learns to keep the state of an automaton?

experiments.py   START HERE: an experiment a task; PD-SSM and Mamba, three seeds each
tasks.py         the automata, as sequences and answers
learn.py         one run: short sequences are learnt from, long ones asked about
"""
