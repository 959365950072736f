"""The operations as tests see them: arguments, definitions by other means, all three rules."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from laws import assert_near, random_like
from torch import Tensor
from torch.nn import functional as F
from toys import scan_problem

from genoscan.ops.dual import Dual
from genoscan.ops.kernels import Kernels
from genoscan.ops.primitive import OptionalTensors, Primitive, Tensors
from genoscan.ops.reference import REFERENCE


class Operation(NamedTuple):
    """How an operation's arguments are made, and what it is, said without genoscan.

    kernel      what a kernel set calls it
    problem     (batch, length, channels, inner) -> arguments in float64
    sizes       (length, channels, inner) to try; inner is the scan's states, or the taps
    modest      sizes that the definition can be had for
    small       sizes for gradcheck
    """

    kernel: str
    problem: Callable[[int, int, int, int], Tensors]
    definition: Callable[..., Tensors]
    sizes: list[tuple[int, int, int]]
    modest: list[tuple[int, int, int]]
    small: list[tuple[int, int, int]]
    options: dict[str, Any]


class Rules(NamedTuple):
    """All that an operation says about one problem."""

    outputs: Tensors
    bars: Tensors
    dots: Tensors


def normals(*shapes: tuple[int, ...], seed: int = 1) -> Tensors:
    return random_like(tuple(torch.zeros(shape, dtype=torch.float64) for shape in shapes), seed)


def _conv_problem(batch: int, length: int, channels: int, taps: int) -> Tensors:
    before = (batch, taps - 1, channels)
    return normals((batch, length, channels), (channels, taps), (channels,), before)


def _scan_problem(batch: int, length: int, channels: int, states: int) -> Tensors:
    return scan_problem(batch=batch, length=length, channels=channels, states=states)[:7]


def _gated_scan_problem(batch: int, length: int, channels: int, states: int) -> Tensors:
    u, _, *others = _scan_problem(batch, length, channels, states)
    delta, bias, z = normals(u.shape, (channels,), u.shape, seed=5)
    return u, delta, *others, bias, z


def _scan(*inputs: Tensor, bias: Tensor | None = None, z: Tensor | None = None, input_map: str = "euler") -> Tensors:
    """Sum over all that ever entered the state: no recurrence."""
    u, delta, A, B, C, D, state = inputs
    if bias is not None:
        delta = torch.logaddexp(delta + bias, torch.zeros_like(delta))
    so_far = delta.cumsum(1)
    past = torch.ones(u.shape[1], u.shape[1], dtype=torch.bool, device=u.device).tril()
    since = (so_far[:, :, None] - so_far[:, None]).masked_fill(~past[..., None], 0)
    left = torch.exp(since[..., None] * A) * past[..., None, None]
    gain = delta[..., None]
    if input_map == "phi":  # the decay's mean over a step that begins with 1 and ends with exp(z)
        at, weight = np.polynomial.legendre.leggauss(60)
        rates = delta[..., None] * A
        parts = zip((at + 1) / 2, weight / 2, strict=True)
        gain = sum((float(w) * torch.exp(rates * float(x)) for x, w in parts), 0 * rates)
    h = torch.einsum("btscn,bscn,bsc,bsn->btcn", left, gain.expand(*u.shape, len(A[0])), u, B)
    h = h + torch.exp(so_far[..., None] * A) * state[:, None]
    y = torch.einsum("btcn,btn->btc", h, C) + D * u
    return (y if z is None else y * z / (1 + torch.exp(-z))), h[:, -1]


def _conv_silu(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> Tensors:
    padded = torch.cat([tail, x], 1)
    groups, taps = weight.shape
    y = F.conv1d(padded.transpose(1, 2), weight[:, None], bias, groups=groups).transpose(1, 2)
    return y * torch.sigmoid(y), padded[:, padded.shape[1] - (taps - 1) :]


def _rms_norm(x: Tensor, weight: Tensor, *, eps: float) -> Tensors:
    return (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight,)


LENGTHS = (1, 2, 31, 32, 33, 63, 64, 65, 130)
CHANNELS = (1, 16, 20, 33, 48)
_ROWS = [(length, 20, 0) for length in LENGTHS] + [(33, channels, 0) for channels in (*CHANNELS, 1000)]
_CONVOLUTIONS = [
    (length, channels, taps)
    for length in (1, 2, 3, 31, 32, 33, 130)
    for channels, taps in ((1, 4), (16, 1), (20, 4), (48, 8), (33, 2))
]

_SCANS = [(length, 20, 17) for length in LENGTHS] + [
    (33, channels, states) for channels in CHANNELS for states in (1, 4, 16, 17, 40)
]
_MODEST_SCANS = [(1, 1, 1), (2, 16, 4), (33, 20, 17), (33, 48, 40), (65, 1, 16)]

_PRODUCTS = [(1, 1, 1), (33, 20, 17), (65, 48, 1), (130, 1, 64)]

OPERATIONS = {
    "scan": Operation(
        kernel="scan",
        problem=_scan_problem,
        definition=_scan,
        sizes=_SCANS,
        modest=_MODEST_SCANS,
        small=[(3, 3, 2), (34, 2, 1), (2, 1, 17)],
        options={},
    ),
    "gated_scan": Operation(
        kernel="scan",
        problem=_gated_scan_problem,
        definition=lambda *inputs: _scan(*inputs[:7], bias=inputs[7], z=inputs[8]),
        sizes=_SCANS,
        modest=_MODEST_SCANS,
        small=[(3, 3, 2), (34, 2, 1), (2, 1, 17)],
        options={},
    ),
    "phi_scan": Operation(
        kernel="scan",
        problem=_gated_scan_problem,
        definition=lambda *inputs, input_map: _scan(*inputs[:7], bias=inputs[7], z=inputs[8], input_map=input_map),
        sizes=[(33, 20, 17), (130, 20, 4), (65, 16, 40), (33, 48, 16), *_MODEST_SCANS],
        modest=_MODEST_SCANS,
        small=[(3, 3, 2), (34, 2, 1), (2, 1, 17)],
        options={"input_map": "phi"},
    ),
    "conv_silu": Operation(
        kernel="conv_silu",
        problem=_conv_problem,
        definition=_conv_silu,
        sizes=_CONVOLUTIONS,
        modest=_CONVOLUTIONS,
        small=[(1, 2, 4), (5, 3, 4), (3, 1, 1)],
        options={},
    ),
    "rms_norm": Operation(
        kernel="rms_norm",
        problem=lambda batch, length, channels, _: normals((batch, length, channels), (channels,)),
        definition=_rms_norm,
        sizes=_ROWS,
        modest=_ROWS,
        small=[(3, 3, 0), (2, 17, 0)],
        options={"eps": 1e-3},
    ),
    "linear": Operation(
        kernel="linear",
        problem=lambda batch, length, channels, out: normals((batch, length, channels), (out, channels), (out,)),
        definition=lambda x, weight, bias: (torch.einsum("bti,oi->bto", x, weight) + bias,),
        sizes=_PRODUCTS,
        modest=_PRODUCTS,
        small=[(3, 3, 2), (1, 1, 1)],
        options={},
    ),
}


def problem(
    name: str, length: int, channels: int, inner: int = 4, *, batch: int = 2, dtype: torch.dtype = torch.float64
) -> Tensors:
    """Return arguments of the operation of this name."""
    made = OPERATIONS[name].problem(batch, length, channels, inner)
    return tuple(tensor.to(dtype) for tensor in made)


def of(kernels: Kernels, name: str) -> Any:
    """Return the kernel set's operation of this name."""
    return getattr(kernels, OPERATIONS[name].kernel)


def tupled(operation: Callable[..., Any], **options: Any) -> Callable[..., Tensors]:
    """Return the operation as a layer calls it, but always with a tuple of outputs."""

    def call(*inputs: Tensor) -> Tensors:
        found = operation(*inputs, **options)
        return found if isinstance(found, tuple) else (found,)

    return call


def called(kernels: Kernels, name: str) -> Callable[..., Tensors]:
    return tupled(of(kernels, name), **OPERATIONS[name].options)


def bars_for(name: str, inputs: Tensors) -> Tensors:
    """Return a cotangent for each output."""
    with torch.no_grad():
        return random_like(called(REFERENCE, name)(*inputs), 2)


def directions_for(inputs: Tensors, count: int) -> Tensors:
    """Return tangents of the inputs, an axis of directions in front."""
    room = tuple(tensor.new_zeros(count, *tensor.shape) for tensor in inputs)
    return tuple(random_like(room, 10))


def questions(
    name: str, *size: int, batch: int = 2, dtype: torch.dtype = torch.float64, directions: int = 3
) -> tuple[Tensors, Tensors, Tensors]:
    """Return arguments, cotangents and tangents."""
    inputs = problem(name, *size, batch=batch, dtype=dtype)
    return inputs, bars_for(name, inputs), directions_for(inputs, directions)


def by_torch(call: Callable[..., Tensors], inputs: Tensors, bars: Tensors, dots: Tensors) -> Rules:
    """Return the values and derivatives of what is plain torch, as torch finds them."""
    closed = tuple(tensor.detach() for tensor in inputs)
    pushed = [torch.func.jvp(call, closed, direction)[1] for direction in zip(*dots, strict=True)]
    tangents = tuple(torch.stack(tangents) for tangents in zip(*pushed, strict=True))
    return Rules(*_recorded(call, inputs, bars), tangents)


def by_layers(call: Callable[..., Tensors], inputs: Tensors, bars: Tensors, dots: Tensors) -> Rules:
    """Return an operation's values and derivatives as layers get them: autograd's, and a Dual's."""
    pushed = call(*map(Dual.of, inputs, dots))
    return Rules(*_recorded(call, inputs, bars), tuple(output.dots for output in pushed))


def _recorded(call: Callable[..., Tensors], inputs: Tensors, bars: Tensors) -> tuple[Tensors, Tensors]:
    given = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    outputs = call(*given)
    pulled = torch.autograd.grad(outputs, given, bars)
    return tuple(output.detach() for output in outputs), pulled


def by_rules(
    primitive: Primitive, inputs: OptionalTensors, bars: Tensors, dots: OptionalTensors, **options: Any
) -> Rules:
    """Return what the three rules say."""
    outputs, saved = primitive.forward(inputs, save=True, **options)
    _, tangents = primitive.jvp(inputs, dots, **options)
    pulled = primitive.vjp(inputs, saved, bars, (True,) * len(inputs), **options)
    return Rules(outputs, tuple(pulled), tangents)


def rules(kernels: Kernels, name: str, inputs: OptionalTensors, bars: Tensors, dots: OptionalTensors) -> Rules:
    """Return what a kernel set's own three rules say, or torch of one that has none."""
    if isinstance(primitive := of(kernels, name), Primitive):
        return by_rules(primitive, inputs, bars, dots, **OPERATIONS[name].options)
    return by_torch(called(kernels, name), inputs, bars, dots)


def doubled(tensors: OptionalTensors) -> OptionalTensors:
    return tuple(tensor if tensor is None else tensor.double() for tensor in tensors)


def truth(name: str, inputs: Tensors, bars: Tensors, dots: Tensors) -> Rules:
    """The same by torch's autograd through the reference, in float64."""
    return by_torch(called(REFERENCE, name), doubled(inputs), doubled(bars), doubled(dots))


# The permutation-diagonal scan, whose maps no derivative moves

PdProblem = tuple[tuple[Tensor, Tensor, Tensor], dict[str, Tensor]]


def pd_problem(
    length: int, heads: int, n_states: int, *, permute: bool = False, batch: int = 2, dtype: torch.dtype = torch.float64
) -> PdProblem:
    """Return decays within the unit circle, inflow, state; routes and maps, which may collide."""
    random = torch.Generator().manual_seed(length + heads + n_states)
    n_maps = 3
    shape = batch, length, heads, 2, n_states
    empty = torch.zeros(shape, dtype=dtype)
    decay, inflow, state = random_like((empty, empty, empty[:, 0]))
    decay = decay / (1 + decay.norm(dim=-2, keepdim=True))
    if permute:
        maps = torch.rand(heads, n_maps, n_states, generator=random).argsort(-1)
    else:
        maps = torch.randint(n_states, (heads, n_maps, n_states), generator=random)
    route = torch.randint(n_maps, (batch, length, heads), generator=random)
    return (decay, inflow, state), {"route": route.to(torch.int16), "maps": maps.to(torch.int16)}


def pd_by_matrices(
    decay: Tensor, inflow: Tensor, state: Tensor, *, route: Tensor, maps: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the same by complex matrices, every one of them made."""
    complexes = (torch.complex(*part.unbind(-2)) for part in (decay, inflow, state))
    decay, inflow, x = complexes
    heads, n_maps, n_states = maps.shape
    rows = torch.zeros(heads, n_maps, n_states, n_states, dtype=decay.dtype)
    for head in range(heads):
        for k in range(n_maps):
            for q in range(n_states):
                rows[head, k, maps[head, k, q].long(), q] = 1
    found = []
    for t in range(decay.shape[1]):
        chosen = torch.stack(
            [torch.stack([rows[h, route[b, t, h].long()] for h in range(heads)]) for b in range(len(decay))]
        )
        x = torch.einsum("bhiq,bhq,bhq->bhi", chosen, decay[:, t], x) + inflow[:, t]
        found.append(torch.stack([x.real, x.imag], -2))
    return torch.stack(found, 1), found[-1]


def pd_pulled(
    run: Callable[..., tuple[Tensor, Tensor]], inputs: tuple[Tensor, ...], chosen: dict[str, Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    leaves = tuple(part.detach().clone().requires_grad_() for part in inputs)
    outputs = run(*leaves, **chosen)
    bars = random_like(tuple(part.detach() for part in outputs), 3)
    return tuple(part.detach() for part in outputs), torch.autograd.grad(outputs, leaves, bars)


def pd_rules(scan: Callable[..., tuple[Tensor, Tensor]], inputs: Tensors, chosen: dict[str, Tensor]) -> None:
    """Hold outputs, cotangents and tangents against dense matrices."""
    found, truth = (pd_pulled(run, inputs, chosen) for run in (scan, pd_by_matrices))
    assert_near(found, truth)
    dots = random_like(tuple(part.expand(3, *part.shape) for part in inputs), 7)
    pushed = scan(*map(Dual.of, inputs, dots), **chosen)
    for i, direction in enumerate(zip(*dots, strict=True)):
        _, along = torch.func.jvp(lambda *parts: pd_by_matrices(*parts, **chosen), inputs, direction)
        assert_near(tuple(output.dots[i] for output in pushed), along)
