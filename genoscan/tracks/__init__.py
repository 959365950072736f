"""Compute scores; write, read, convert and compare track files. Does not import torch."""
