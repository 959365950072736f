"""Per-base scores, and functions that write, read, convert and compare track files.

This package does not import torch.
"""
