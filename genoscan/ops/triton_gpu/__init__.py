"""The Triton kernel set for CUDA devices.

No other part of genoscan imports Triton. If TRITON_INTERPRET=1 is set before the import, the kernels also
run on the CPU, slowly; this is intended for tests.
"""

from torch import Tensor

from genoscan.ops.kernels import Kernels
from genoscan.ops.triton_gpu.conv import CONV_SILU
from genoscan.ops.triton_gpu.pd_scan import PD_SCAN
from genoscan.ops.triton_gpu.pointwise import GATE, RMS_NORM, STEP_SIZE
from genoscan.ops.triton_gpu.scan import SCAN


def gated_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor,
    bias: Tensor | None = None,
    z: Tensor | None = None,
    *,
    input_map: str = "euler",
) -> tuple[Tensor, Tensor]:
    """Return the outputs and the final state of the selective scan, as `reference.scan` does.

    The softplus of the step sizes and the gate are computed by separate kernels.
    """
    steps = delta if bias is None else STEP_SIZE(delta, bias)
    y, state = SCAN(u, steps, A, B, C, D, state, input_map=input_map)
    return (y if z is None else GATE(y, z)), state


TRITON = Kernels("triton", gated_scan, CONV_SILU, RMS_NORM, PD_SCAN)
