"""Capture of a layer's computations on tiles as CUDA graphs.

For a small model, the host takes longer to launch the kernels of a tile one by one than the GPU takes to
run them. A captured graph launches all of these kernels at once and gives the same results.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from genoscan.layer import Carry, Layer, leaves, map_leaves
from genoscan.ops.dual import Dual

_AFTER = 2
"""Number of tiles of a kind that are run without a graph, so that kernels are compiled before the capture."""
_GRAPHS = 4
"""Maximum number of graphs per layer: for full tiles and for the first tile, each with and without gradients."""

Kind: TypeAlias = tuple[Any, ...]
"""Kind of a tile: its shape, its dtype, and whether gradients are enabled."""

_captures: "WeakKeyDictionary[Layer, _Captures]" = WeakKeyDictionary()


class Captured:
    """Causal layer whose computation on tiles of equal shape is captured once and then replayed.

    The weights of the layer must be frozen and stored on a CUDA device. The gradient of a tile must be
    computed before the layer is run on the next tile.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        weights = [(weight.data_ptr(), weight._version) for weight in layer.parameters()]
        known = _captures.get(layer)
        if known is None or known.weights != weights:
            known = _captures[layer] = _Captures(weights)
        self._captures = known

    def begin(self, batch: int) -> Carry:
        """Return the carry before the first base."""
        return self._layer.begin(batch)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the layer."""
        return self._layer.parameters()

    def forward(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Return the output over one tile and the carry at the right edge of the tile."""
        inputs = [x, *leaves(carry)]
        if any(isinstance(part, Dual) for part in inputs):
            return self._layer.forward(x, carry)
        graph = self._captures.find(self._layer, x, carry)
        if graph is None:
            return self._layer.forward(x, carry)
        outputs = _Replay.apply(graph, *inputs) if torch.is_grad_enabled() else graph.run(inputs)
        after = iter(outputs[1:])
        return outputs[0], map_leaves(lambda _leaf: next(after), graph.after)


class _Captures:
    """Captured graphs of a layer, keyed by the kind of tile.

    If there are too many graphs, the least recently used graph is dropped.

    Attributes
    ----------
    weights
        Address and version of each weight of the layer. The graphs are valid only for these weights.
    """

    def __init__(self, weights: list[tuple[int, int]]) -> None:
        self.weights = weights
        self._seen: Counter[Kind] = Counter()
        self._graphs: OrderedDict[Kind, _TileGraph] = OrderedDict()

    def find(self, layer: Layer, x: Tensor, carry: Carry) -> "_TileGraph | None":
        """Return the graph for a tile, or None if too few tiles of this kind have been run.

        The graph is captured if it does not exist yet.
        """
        kind = (x.shape, x.dtype, torch.is_grad_enabled())
        if kind not in self._graphs:
            self._seen[kind] += 1
            if self._seen[kind] <= _AFTER:
                return None
            if len(self._graphs) == _GRAPHS:
                dropped, _ = self._graphs.popitem(last=False)
                self._seen[dropped] = 0
            self._graphs[kind] = _TileGraph(layer, x, carry)
        self._graphs.move_to_end(kind)
        return self._graphs[kind]


class _Pool:
    """Memory that all captured graphs of a device share, and the stream on which they are captured.

    Each graph overwrites the intermediate values of the other graphs.
    """

    def __init__(self, device: torch.device) -> None:
        self._graphs: WeakSet[_TileGraph] = WeakSet()
        self._handle: Any = None
        # torch captures on a stream of the current device otherwise, which records nothing of another one.
        self.stream = torch.cuda.Stream(device)
        self.runs = 0

    def handle_for(self, graph: "_TileGraph") -> Any:
        """Return the handle of the memory pool in which a graph is to be captured."""
        if not self._graphs:  # the memory was freed with the last graph
            self._handle = torch.cuda.graph_pool_handle()
        self._graphs.add(graph)
        return self._handle


@cache
def _pool(device: torch.device) -> _Pool:
    """Return the memory pool of a device."""
    return _Pool(device)


class _TileGraph:
    """CUDA graphs of the forward pass over a tile and, if gradients are enabled, of the backward pass.

    Attributes
    ----------
    after
        Carry at the right edge of the captured tile. Only its structure is used.
    pool
        Memory pool of the device.
    """

    def __init__(self, layer: Layer, x: Tensor, carry: Carry) -> None:
        grad = torch.is_grad_enabled()
        # A graph that is captured in inference mode could not be replayed outside it.
        with torch.inference_mode(False), torch.set_grad_enabled(grad):
            self._capture(layer, x, carry, grad=grad)

    def _capture(self, layer: Layer, x: Tensor, carry: Carry, *, grad: bool) -> None:
        x, carry = (map_leaves(lambda leaf: leaf.detach().clone().requires_grad_(grad), part) for part in (x, carry))
        self._inputs = [x, *leaves(carry)]
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self.pool = _pool(x.device)
        handle, stream = self.pool.handle_for(self), self.pool.stream
        with torch.cuda.graph(self._forward, pool=handle, stream=stream):
            outputs, after = layer.forward(x, carry)
        ends = [outputs, *leaves(after)]
        if grad:
            self._bars = [torch.zeros_like(end) for end in ends]
            pairs = [pair for pair in zip(ends, self._bars, strict=True) if pair[0].requires_grad]
            with torch.cuda.graph(self._backward, pool=handle, stream=stream):
                self._input_bars = torch.autograd.grad(
                    [end for end, _ in pairs],
                    self._inputs,
                    [bar for _, bar in pairs],
                    allow_unused=True,
                    materialize_grads=True,
                )
        self._outputs = [end.detach() for end in ends]
        self.after = map_leaves(lambda leaf: leaf.detach(), after)

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the forward pass; return the output and the leaves of the carry at the right edge of the tile."""
        self.pool.runs += 1
        return _replay(self._forward, self._inputs, inputs, self._outputs)

    def pull(self, bars: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the backward pass; return the cotangents of the inputs to the last forward pass."""
        return _replay(self._backward, self._bars, bars, self._input_bars)


@torch.no_grad()
def _replay(
    graph: torch.cuda.CUDAGraph, places: Sequence[Tensor], values: Sequence[Tensor], results: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    for place, value in zip(places, values, strict=True):
        place.copy_(value)
    graph.replay()
    # Copies: the next replay overwrites the results.
    return tuple(result.clone() for result in results)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: _TileGraph, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = graph.run(inputs)
        ctx.graph, ctx.run = graph, graph.pool.runs
        return outputs

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Any, ...]:
        if ctx.run != ctx.graph.pool.runs:
            raise RuntimeError("a layer was run on another tile before the gradient of this one")
        return None, *ctx.graph.pull(bars)
