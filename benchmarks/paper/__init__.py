"""`python -m benchmarks paper`: experiments of Phase Gradient Flow (arXiv 2512.23068), corrected.

experiments.py   START HERE: the experiments by name; benchmarks/run.py runs one
layers.py        the paper's layer with seeded weights, and its inputs
rivals.py        the paper's tile scan and loops, written anew; torch's own ways to the same numbers
truth.py         the same derivatives in float64, computed independently
contenders.py    the ways to compute each derivative
costs.py         time and memory: fig1, fig3, a3
fidelity.py      float32 and lower precision against float64: fig2, a1, a2
pulse.py         the ghost pulse: fig4
parameters.py    derivatives of weights: a4
figure.py        curves, one per contender
"""
