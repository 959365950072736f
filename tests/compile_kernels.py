"""Compile the CPU kernels of one dtype into numba's cache: python compile_kernels.py float32

Tests run in two processes, each of which would otherwise compile all of them.
"""

import sys

import torch
from operations import OPERATIONS, by_layers, called, pd_problem, pd_pulled, questions, rules

from genoscan.ops.cpu import CPU


def main(dtype: torch.dtype) -> None:
    for name in OPERATIONS:
        asked = questions(name, 5, 3, 4, dtype=dtype)
        by_layers(called(CPU, name), *asked)
        rules(CPU, name, *asked)
    inputs, chosen = pd_problem(5, 2, 3, dtype=dtype)
    pd_pulled(CPU.pd_scan, inputs, chosen)


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]))
