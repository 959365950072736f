"""Checks of exactness on the user's own model and sequence.

sweeps.py  START HERE: values, gradients and tangents against independent computations
tracks.py  the same for the pipeline, from the genome to files
"""
