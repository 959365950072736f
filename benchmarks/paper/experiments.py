"""START HERE: the paper's experiments by name."""

from benchmarks.experiment import Experiment
from benchmarks.paper import costs, fidelity, parameters, pulse

EXPERIMENTS: dict[str, Experiment] = {
    "fig1": costs.FIG1,
    "fig2": fidelity.FIG2,
    "fig3": costs.FIG3,
    "fig4": pulse.FIG4,
    "a1": fidelity.A1,
    "a2": fidelity.A2,
    "a3": costs.A3,
    "a4": parameters.A4,
}
