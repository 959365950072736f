"""The kernel set of the GPU, in Triton: the one place that imports it.

Runs on CUDA devices; on the CPU too where TRITON_INTERPRET=1 is set before the import, slowly,
for tests.
"""

from genoscan.ops.kernels import Kernels
from genoscan.ops.triton_gpu.conv import CONV_SILU
from genoscan.ops.triton_gpu.pointwise import GATE, RMS_NORM, STEP_SIZE
from genoscan.ops.triton_gpu.scan import SCAN

TRITON = Kernels("triton", SCAN, CONV_SILU, STEP_SIZE, GATE, RMS_NORM)
