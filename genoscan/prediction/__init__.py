"""Predictions: of each base as tracks, and of windows as tables.

tracks.py   START HERE: predictions at each base
files.py    tracks, archives and calls
windows.py  predictions of pooled heads, one row for each region
"""
