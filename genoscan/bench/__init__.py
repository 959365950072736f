"""Measurements: what the project claims, as commands.

speed/          this program and its peers, side by side
paper/          the experiments of the Phase Gradient Flow paper
tracking/       who learns to keep the state of an automaton
series/         who learns the class of a series of 17,984 steps
experiment.py   what an experiment is;  run.py: how one runs, cell by cell, and is resumed
biology.py      does a track know the reading frame?  period3.py, markov.py, finish.py: its parts
alone.py        a cost, measured in a process of its own;  memory.py: peaks;  clock.py: times
bar.py          what a number must reach;  figure.py: what figures share
machine.py      what it ran on
"""
