"""`genoscan bench paper`: every experiment of Phase Gradient Flow (arXiv 2512.23068), corrected.

experiments.py   START HERE: which there are; how one runs is in bench/run.py
layers.py        their layer with seeded weights, and their inputs
rivals.py        their tile scan and loops, written anew; torch's own ways to the same numbers
truth.py         the same derivatives by an independent route in float64
contenders.py    who computes what, one beside another
costs.py         time and memory: fig1, fig3, a3
fidelity.py      float32 and less against float64: fig2, a1, a2
pulse.py         the ghost pulse: fig4
parameters.py    derivatives of weights: a4
figure.py        what their figures share
"""
