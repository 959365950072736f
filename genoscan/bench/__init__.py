"""Measurements: what the project claims, as commands.

speed/          this program and its peers, side by side
paper/          the experiments of the Phase Gradient Flow paper
biology.py      does a track know the reading frame?  period3.py, markov.py, finish.py: its parts
memory.py       peaks;  clock.py: times;  bar.py: what a number must reach
machine.py      what it ran on
"""
