"""Per-base scores, and functions that write, read, convert and compare track files.

No module in this package imports torch.
"""
