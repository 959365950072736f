"""Integrated gradients, expected gradients and smoothgrad: averages of gradients over several inputs.

path_method.py       what is averaged
path_attribution.py  the average
"""
