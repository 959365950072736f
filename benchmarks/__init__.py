"""Measurements behind the README and docs/, run from a checkout as `python -m benchmarks`.

cli.py          the commands
speed/          genoscan and its peers, side by side
paper/          the experiments of the Phase Gradient Flow paper
tracking/       learning to keep the state of an automaton
mechanistic/    learning recall, copying, compression and memorisation
language/       PD-SSM and Mamba-2 in a hybrid language model
series/         learning the class of a series of 17,984 steps
period3/        period 3 of a track inside and outside coding sequence
reading_frame.py  codon position, read linearly from a model's activations
gpu.sh          all measurements on a GPU: gpu.py, gpu_rows.py, gpu_parity.py, interpreted.py
floor.py        lower bounds of an adjoint on this CPU
results/        what was measured, described in README.md

Shared: experiment.py (definition of an experiment), run.py (measures one cell by cell, resumably),
alone.py (measures in a separate process), learning.py (training of small models), recurrent.py (blocks
at equal weights), clock.py, machine.py, threshold.py, figure.py.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
