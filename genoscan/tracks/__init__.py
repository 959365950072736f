"""Per-base scores and track files: writing, reading, conversion and comparison. Does not import torch."""
