"""Selection of a kernel set by device and name."""

import torch

from genoscan.errors import InputError
from genoscan.ops.kernels import Kernels

NAMES = ("auto", "cpu", "reference", "associative", "triton")


def choose(device: torch.device | str, name: str = "auto") -> Kernels:
    """Return the kernel set for a device.

    A kernel set is imported on first use, because numba and Triton take seconds to import.

    Parameters
    ----------
    device : torch.device or str
        Device of the tensors.
    name : str
        Name of the kernel set: "auto" (the default for the device), "cpu" (numba), "triton" (on a CUDA
        device, or on the CPU if Triton's interpreter is enabled), "reference" or "associative" (plain
        torch, on any device).

    Returns
    -------
    Kernels
        The kernel set.

    Raises
    ------
    InputError
        If the name is unknown, or "cpu" is chosen for another device.
    """
    kind = torch.device(device).type
    if name not in NAMES:
        raise InputError(f'kernels "{name}": expected one of {", ".join(NAMES)}')
    if name == "auto":
        name = {"cpu": "cpu", "cuda": "triton"}.get(kind, "reference")
    if name == "cpu":
        if kind != "cpu":
            raise InputError(f'kernels "cpu" on device {device}: expected the CPU')
        from genoscan.ops.cpu import CPU

        return CPU
    if name == "triton":
        from genoscan.ops.triton_gpu import TRITON

        return TRITON
    if name == "associative":
        from genoscan.ops.associative import ASSOCIATIVE

        return ASSOCIATIVE
    from genoscan.ops.reference import REFERENCE

    return REFERENCE
