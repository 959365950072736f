"""Kernel set for the CPU: torch computes matrix products, and numba compiles all other operations."""

from genoscan.ops.cpu_conv import CONV_SILU
from genoscan.ops.cpu_linear import LINEAR
from genoscan.ops.cpu_mamba import mamba
from genoscan.ops.cpu_norm import RMS_NORM
from genoscan.ops.cpu_pd_mix import pd_mix
from genoscan.ops.cpu_pd_scan import PD_SCAN
from genoscan.ops.cpu_scan import SCAN
from genoscan.ops.kernels import Kernels

CPU = Kernels("cpu", SCAN, CONV_SILU, RMS_NORM, PD_SCAN, LINEAR, mamba, pd_mix)
