"""Exact per-base sensitivities of Mamba DNA models, as genome browser tracks."""

__version__ = "0.1.0"
