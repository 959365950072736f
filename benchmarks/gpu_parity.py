"""Errors of every GPU kernel and of the engine against plain torch in float64."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.sequence import real_bases, shipped_genome, write_fasta
from genoscan.engine.adjoint import consume
from genoscan.engine.inputs import OneHot
from genoscan.engine.target import whole_window
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.gradient import gradient
from genoscan.job import Options, prepare
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.config import LayerConfig, ModelConfig
from genoscan.layers.heads import HeadConfig
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.pd_ssm import PdSsmConfig, with_surrogate
from genoscan.layers.surrogate import Surrogate
from genoscan.layers.weights import build, save_model
from genoscan.model import Model, load_model
from genoscan.ops.associative import ASSOCIATIVE
from genoscan.ops.dispatch import choose
from genoscan.ops.dual import Dual
from genoscan.ops.reference import REFERENCE
from genoscan.pipeline import run
from genoscan.tracks.reader import BigWig
from genoscan.tracks.score import SCORES
from genoscan.training.objective import LabelLikelihood
from genoscan.verification.sweeps import relative

Tensors = tuple[Tensor, ...]
Errors = Iterator[tuple[str, float]]
_DIRECTIONS = 2


def worst(found: Tensors, truth: Tensors) -> float:
    """Return the largest error of all tensors: relative L2, or a tenth of the relative maximum."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(found, truth, strict=True)]
    errors = [relative(a, b) for a, b in pairs if b.numel()]
    errors += [float((a - b).abs().max() / b.abs().max()) / 10 for a, b in pairs if b.numel()]
    # NaN is the largest, wherever it stands.
    return float(torch.tensor(errors).max())


def kernel_errors(device: str, dtype: torch.dtype, *, tiny: bool) -> Errors:
    """Yield the error of each kernel's outputs, derivatives and tangents."""
    sizes = (1, 3, 4, 2) if tiny else (2, 300, 512, 16)
    kernels = choose(device, "triton")
    for name, problem, numbers in _problems(*sizes, device):
        inputs, choice = problem[0], {k: part.to(device) for k, part in problem[1].items()}
        # The reference uses the inputs as rounded for the kernel.
        given = tuple(part.to(device, dtype) for part in inputs)
        numbers = numbers | choice
        kernel, definition = name.split(",")[0], REFERENCE
        found = _rules(getattr(kernels, kernel), given, numbers, by_dual=True)
        exact = tuple(part.double() for part in given)
        truth = _rules(getattr(definition, kernel), exact, numbers, by_dual=False)
        for rule, a, b in zip(("outputs", "derivatives", "tangents"), found, truth, strict=True):
            yield f"{name}, {rule}", worst(a, b)


def _problems(batch: int, length: int, channels: int, states: int, device: str) -> Iterator[Any]:
    """Yield kernel names, arguments in float64 on the CPU, and keyword arguments."""
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    row = (batch, length, channels)
    A = -torch.exp(normal(channels, states))
    u, B, C = normal(*row), normal(batch, length, states), normal(batch, length, states)
    rest = (A, B, C, normal(channels), normal(batch, channels, states))
    steps = torch.nn.functional.softplus(normal(*row) - 2)
    yield "scan", ((u, steps, *rest), {}), {}
    gated = (u, normal(*row), *rest, normal(channels), normal(*row))
    yield "scan, steps and gate", (gated, {}), {}
    yield "scan, phi", ((u, steps, *rest), {}), {"input_map": "phi"}
    convolved = (normal(*row), normal(channels, 4), normal(channels), normal(batch, 3, channels))
    yield "conv_silu", (convolved, {}), {}
    yield "rms_norm", ((normal(*row), normal(channels)), {}), {"eps": 1e-5}
    yield "linear", ((normal(*row), normal(states, channels) / channels**0.5), {}), {}
    heads, n_maps = 2, 3
    planes = (batch, length, heads, 2, 4 * states)
    route = torch.randint(n_maps, planes[:3], generator=random, dtype=torch.int16)
    some = torch.randint(4 * states, (heads, n_maps, 4 * states), generator=random)
    permuted = torch.stack([torch.randperm(4 * states, generator=random) for _ in range(6)])
    for name, maps in (("", some), (", permuted", permuted.view_as(some))):
        inputs = normal(*planes) / 3, normal(*planes), normal(batch, *planes[2:])
        yield f"pd_scan{name}", (inputs, {"route": route, "maps": maps.to(torch.int16)}), {}


def _rules(
    call: Callable[..., Any], inputs: Tensors, numbers: dict[str, Any], *, by_dual: bool
) -> tuple[Tensors, Tensors, Tensors]:
    """Return outputs, cotangents of all inputs, and the outputs' tangents along directions."""

    def tupled(*given: Tensor) -> Tensors:
        outputs = call(*given, **numbers)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    open_inputs = [part.detach().clone().requires_grad_() for part in inputs]
    outputs = tupled(*open_inputs)
    bars = [_seeded(part, 2) for part in outputs]
    cotangents = torch.autograd.grad(outputs, open_inputs, bars)
    dots = [torch.stack([_seeded(part, 3 + i) for i in range(_DIRECTIONS)]) for part in inputs]
    if by_dual:
        pushed = tupled(*map(Dual.of, inputs, dots))
        return outputs, cotangents, tuple(part.dots for part in pushed)  # type: ignore[attr-defined]
    along = [torch.func.jvp(tupled, inputs, tuple(dot[i] for dot in dots))[1] for i in range(_DIRECTIONS)]
    return outputs, cotangents, tuple(map(torch.stack, zip(*along, strict=True)))


def _seeded(like: Tensor, seed: int) -> Tensor:
    """Return normal noise that depends on the shape, not on dtype or device."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=random).to(like)


ENGINES: dict[str, dict[torch.dtype, float]] = {
    "causal": {torch.float32: 2e-6, torch.float64: 1e-12},
    "both directions": {torch.float32: 2e-6, torch.float64: 1e-12},
    # In float32 rounding may change what PD-SSM selects.
    "PD-SSM": {torch.float64: 1e-12},
    "PD-SSM, coupled": {torch.float64: 1e-12},
    "PD-SSM, coupled, both directions": {torch.float64: 1e-12},
    "both strands": {torch.float64: 1e-12},
}
"""Kinds of models, and the largest error of each dtype."""


def engine_error(path: Path, dtype: torch.dtype, device: str, length: int, tile: int) -> float:
    """Return the error of the adjoint, with tiles that do not divide the window."""
    codes = torch.from_numpy(real_bases(shipped_genome(), length))[None]
    model = load_model(path, device=device, dtype=dtype, kernels="triton", tile=tile, slots=2)
    found = _pulled(model, codes)
    return worst((found,), (_truth(path, length, device),))


def long_engine_error(path: Path, device: str, length: int, tile: int) -> float:
    """Return the error of the adjoint in float32 against that in float64."""
    codes = torch.from_numpy(real_bases(shipped_genome(), length))[None]
    settings: dict[str, Any] = {"device": device, "kernels": "triton", "tile": tile, "slots": 2}
    single, double = (
        _pulled(load_model(path, dtype=dtype, **settings), codes) for dtype in (torch.float32, torch.float64)
    )
    return worst((single,), (double,))


def track_error(path: Path, folder: Path, device: str, length: int, tile: int) -> float:
    """Return the error of the scores in a bigWig written from FASTA."""
    codes = real_bases(shipped_genome(), length)
    write_fasta(folder / "track.fa", "chr", codes)
    model = load_model(path, device=device, kernels="triton", tile=tile, slots=2)
    options = Options(context=0, reach=0)
    job = prepare(open_genome(folder / "track.fa"), model, [Region("chr", 0, length)], options)
    run(job, [folder / "track.bw"])
    with BigWig(folder / "track.bw") as opened:
        found = torch.from_numpy(opened.scores("chr", 0, length))
    truth = _truth(path, length, device)
    columns = model.by_base(truth)
    return worst((found,), (torch.from_numpy(SCORES[options.formula](columns, codes)),))


def _pulled(model: Model, codes: Tensor) -> Tensor:
    """Return the derivatives of a window's log-likelihood by the engine, on the CPU."""
    target = whole_window(codes, model.columns(), model.config.label_offset)
    return gradient(model, codes, target).gradient[0].cpu()


@cache
def _truth(path: Path, length: int, device: str) -> Tensor:
    """Return the same by torch's autograd over the whole window in float64, on the CPU."""
    codes = torch.from_numpy(real_bases(shipped_genome(), length))[None]
    model = load_model(path, device=device, dtype=torch.float64, kernels="reference")
    span = slice(0, length)
    x = OneHot(codes, model.table()).tile(span).requires_grad_()
    target = whole_window(codes, model.columns(), model.config.label_offset)
    (x_bar,) = torch.autograd.grad(target(model.whole(x), span).sum(), x)
    return x_bar[0].cpu()


def write_small_model(kind: str, path: Path, n_layers: int) -> None:
    """Write a small model of a kind of `ENGINES`, with a task head and seeded weights."""
    mamba = MambaConfig(d_conv=4, dt_rank=1)
    pd_ssm = PdSsmConfig(d_conv=4, rank=2, d_state=16, n_maps=4)
    coupled = pd_ssm.model_copy(update={"coupled": True})
    layers: dict[str, LayerConfig] = {
        "causal": mamba,
        "both directions": BidirectionalConfig(inner=mamba),
        "PD-SSM": pd_ssm,
        "PD-SSM, coupled": coupled,
        "PD-SSM, coupled, both directions": BidirectionalConfig(inner=coupled),
        "both strands": BidirectionalConfig(inner=mamba, rcps=True),
    }
    layer = layers[kind]
    both = isinstance(layer, BidirectionalConfig)
    head = HeadConfig(kind="per_base", labels=("a", "b", "c"), link="softmax", fold=kind == "both strands")
    config = ModelConfig(
        d_model=16,
        layers=(layer,) * n_layers,
        label_offset=0 if both else 1,
        heads={"head": head},
        context=0,
        reach=0,
        trained_on="nothing",
    )
    torch.manual_seed(1)
    save_model(path, config, build(config), f"# {kind}\n")


def weights_error(path: Path, device: str, length: int, tile: int) -> float:
    """Return the error in float32 of the derivatives of a task head's likelihood by all weights."""
    codes = torch.from_numpy(real_bases(shipped_genome(), length))[None]
    found = []
    for place, dtype, kernels in ((device, torch.float32, "triton"), ("cpu", torch.float64, "reference")):
        model = load_model(path, device=place, dtype=dtype, kernels=kernels, tile=tile, slots=2).with_head("head")
        weights = list(model.stack.requires_grad_(True).parameters())
        target = LabelLikelihood(1 << codes.long() % 3, model.config.heads["head"])
        inputs, whole = OneHot(codes, model.table()), slice(0, length)
        if kernels == "triton":
            tiles = model.method.gradient(model.stack, inputs, target, parameters=weights)
            found.append(consume(tiles, lambda _span, _x_bar: None).parameters)
        else:
            found.append(torch.autograd.grad(target(model.whole(inputs.tile(whole)), whole).sum(), weights))
    return worst(*(tuple(bar.cpu() for bar in bars) for bars in found))


def surrogate_error(path: Path, surrogate: Surrogate, device: str, length: int) -> float:
    """Return the error in float64 of the surrogate gradient of a window's log-likelihood by all weights."""
    codes = torch.from_numpy(real_bases(shipped_genome(), length))[None]
    whole, found = slice(0, length), []
    for place, kernels in ((device, "triton"), ("cpu", "reference")):
        model = load_model(path, device=place, dtype=torch.float64, kernels=kernels)
        trained = replace(model, network=with_surrogate(model.network, surrogate))
        weights = list(trained.network.requires_grad_(True).parameters())
        target = whole_window(codes, model.columns(), model.config.label_offset)
        outputs = trained.whole(OneHot(codes, model.table()).tile(whole))
        bars = torch.autograd.grad(target(outputs, whole).sum(), weights, allow_unused=True)
        # The weights of the task head have no part in it.
        found.append(tuple(bar.cpu() for bar in bars if bar is not None))
    return worst(*found)


def scan_rounding(device: str, length: int) -> Errors:
    """Yield the scan's error in float32 for several inputs, at decays from 1e-10 to 1e5.

    The reference is the associative form in float64, an independent algorithm.
    """
    random = torch.Generator().manual_seed(7)
    normal = torch.randn(length, generator=random)
    inflows = {
        "normal": normal,
        "positive": normal.abs(),
        "three-valued": torch.tensor([0.3, 0.7, 1.1])[(normal * 5).long() % 3],
        "constant": torch.full((length,), 0.7),
    }
    decays = -torch.logspace(-10, 5, 31)
    scan = choose(device, "triton").scan
    for kind, inflow in inflows.items():
        u = inflow[None, :, None].expand(1, length, 31).contiguous()
        ones = torch.ones(1, length, 1)
        state = torch.randn(1, 31, 1, generator=random)
        inputs = (u, torch.ones_like(u), decays[:, None], ones, ones, torch.zeros(31), state)
        given = tuple(part.to(device) for part in inputs)
        bars = u.flip(1).to(device), torch.randn(1, 31, 1, generator=random).to(device)
        found = _pulled_scan(scan, given, bars)
        double = tuple(part.double() for part in given)
        truth = _pulled_scan(ASSOCIATIVE.scan, double, tuple(bar.double() for bar in bars))
        for name, a, b in zip(("y", "u_bar", "delta_bar"), found, truth, strict=True):
            # Channel by channel: large ones would hide small ones.
            channels = zip(a.unbind(-1), b.unbind(-1), strict=True)
            yield f"{kind}, {name}", max(worst((x,), (y,)) for x, y in channels)


def _pulled_scan(scan: Callable[..., Tensors], inputs: Tensors, bars: Tensors) -> Tensors:
    """Return y, and the cotangents of u and delta."""
    given = [part.detach().requires_grad_(i < 2) for i, part in enumerate(inputs)]
    outputs = scan(*given)
    return outputs[0], *torch.autograd.grad(outputs, given[:2], bars)
