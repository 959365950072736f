"""Nucleotide dependency maps: how the predictions at each base depend on each other base.

compute.py         START HERE: the values of a map
plan.py            settings, windows and substitutions
dependency_map.py  a map in memory
files.py           arrays, contact matrices, tables of pairs, and tracks
page.py            a heat map as a page
"""
