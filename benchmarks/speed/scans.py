"""The scan's kernels alone, and the rates that bound them.

Every run returns its work: elements (bases x channels x states, one exponential each), and the
minimum of bytes, each input read once and each output written once.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed.peers import alike
from benchmarks.speed.settings import Settings
from benchmarks.speed.windows import Codes, question
from genoscan.model import Model
from genoscan.ops.kernels import Kernels, ScanInputs

Work = dict[str, float]
PIECE = 8_192
"""Elements that fit in the L1 cache."""


def scan_function(model: Model) -> Callable[[ScanInputs], tuple[Tensor, Tensor]]:
    """Return the scan of the model's kernels, which returns (y, last state)."""
    kernels: Kernels = model.causal.norm.kernels  # type: ignore[assignment]
    return lambda inputs: kernels.scan(*inputs)


@torch.no_grad()
def scan_inputs(model: Model, codes: Codes) -> ScanInputs:
    """Return the inputs of the first block's scan, computed in plain torch."""
    block = alike(model)
    weights = model.causal.layers[0].state_dict()
    x = model.causal.embed(question(model, codes)[0].tile(slice(0, codes.shape[1])))
    normed = F.rms_norm(x, x.shape[-1:], weights["norm.weight"], model.config.norm.eps)
    u, _ = F.linear(normed, weights["in_proj.weight"]).chunk(2, -1)
    padded = F.pad(u.transpose(1, 2), (block.d_conv - 1, 0))
    taps = weights["conv.weight"][:, None]
    convolved = F.conv1d(padded, taps, weights["conv.bias"], groups=taps.shape[0])
    u = F.silu(convolved).transpose(1, 2).contiguous()
    ranks = [block.dt_rank, block.d_state, block.d_state]
    step, B, C = F.linear(u, weights["x_proj.weight"]).split(ranks, -1)
    delta = F.softplus(F.linear(step, weights["dt_proj.weight"], weights["dt_proj.bias"]))
    A = -torch.exp(weights["A_log"])
    state = A.new_zeros(1, *A.shape)
    return ScanInputs(u, delta, A, B.contiguous(), C.contiguous(), weights["D"], state)


def forward(model: Model, settings: Settings) -> Callable[[Codes], Callable[[], Work]]:
    """Build the scan without a derivative, on one tile, repeated for as many bases as there are."""
    scan = scan_function(model)

    def prepare(codes: Codes) -> Callable[[], Work]:
        inputs = scan_inputs(model, codes[:, : settings.tile])

        @torch.no_grad()
        def turn() -> None:
            scan(inputs)

        return _repeated(turn, inputs, codes, streams=3)  # u, delta, y

    return prepare


def vjp(model: Model, settings: Settings) -> Callable[[Codes], Callable[[], Work]]:
    """Build the scan's vjp alone, with respect to all inputs but the weights A and D."""
    scan = scan_function(model)

    def prepare(codes: Codes) -> Callable[[], Work]:
        inputs = scan_inputs(model, codes[:, : settings.tile])
        moving = [inputs.u, inputs.delta, inputs.B, inputs.C, inputs.state]
        for tensor in moving:
            tensor.requires_grad_()
        y, _ = scan(inputs)
        random = torch.Generator(y.device).manual_seed(1)
        y_bar = torch.randn(y.shape, generator=random, device=y.device)

        def turn() -> None:
            torch.autograd.grad(y, moving, y_bar, retain_graph=True)

        return _repeated(turn, inputs, codes, streams=5)  # u, delta, and cotangents of u, delta, y

    return prepare


def _repeated(turn: Callable[[], None], inputs: ScanInputs, codes: Codes, *, streams: int) -> Callable[[], Work]:
    """Return a run that calls `turn` once per tile of the codes, and counts its work."""
    length, (channels, states) = inputs.u.shape[1], inputs.A.shape
    n_tiles = -(-codes.shape[1] // length)
    # B and C are read once per base; the vjp writes their cotangents.
    numbers = n_tiles * length * (streams * channels + (streams - 1) * states)
    elements = n_tiles * length * channels * states

    def run() -> Work:
        for _ in range(n_tiles):
            turn()
        return {"elements": elements, "bytes": 4 * numbers}

    return run


def exponentials(model: Model, settings: Settings) -> Callable[[Codes], Callable[[], Work]]:
    """Build torch.exp over as many elements as the scan's, in pieces that fit in the cache."""

    def prepare(codes: Codes) -> Callable[[], Work]:
        found = scan_inputs(model, codes[:, : settings.tile])
        piece = (found.delta[..., None] * found.A).flatten()[:PIECE].contiguous()
        room = torch.empty_like(piece)
        n_pieces = -(-codes.shape[1] * found.A.numel() // piece.numel())

        def run() -> Work:
            for _ in range(n_pieces):
                torch.exp(piece, out=room)
            return {"elements": n_pieces * piece.numel()}

        return run

    return prepare


def exp_rate(model: Model, settings: Settings) -> Callable[[Codes], Callable[[], Work]]:
    """Build the device's exponentials in registers, 256 per number read (Triton)."""
    from benchmarks.speed.exponentials import TIMES, many_exponentials

    def prepare(codes: Codes) -> Callable[[], Work]:
        x = torch.rand(codes.shape[1] * model.config.d_model, device=settings.device)
        room = torch.empty_like(x)

        def run() -> Work:
            many_exponentials(x, room)
            return {"elements": TIMES * x.numel()}

        return run

    return prepare


def copies(model: Model, settings: Settings) -> Callable[[Codes], Callable[[], Work]]:
    """Build a copy from memory to memory."""

    def prepare(codes: Codes) -> Callable[[], Work]:
        numbers = codes.shape[1] * model.config.d_model * 8
        x: Tensor = torch.rand(numbers, device=settings.device)
        room = torch.empty_like(x)

        def run() -> Work:
            room.copy_(x)
            return {"bytes": 2 * x.numel() * x.element_size()}

        return run

    return prepare
