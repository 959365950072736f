"""CUDA tensors without a card: numbers lie on the CPU, and mixing devices fails as on one.

A tensor on the simulated card says that it lies on cuda:0.  An operation on it and on a CPU
tensor is refused where torch refuses it, and so is `numpy()`; kernels get their numbers through
Triton's interpreter.  A CUDA graph repeats the operations that were recorded, and refuses those
that wait for it.  What is not simulated: time, memory, streams, and inference mode.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("cuda:0")
_aten = torch.ops.aten
_BETWEEN_DEVICES = {_aten.copy_.default}
_WAITING = {_aten._local_scalar_dense.default, _aten.equal.default, _aten.nonzero.default, _aten.masked_select.default}
"""Operations whose result, or its shape, the host waits for."""
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class OnCard(Tensor):
    """A tensor on the simulated card; `inner` has its numbers."""

    inner: Tensor
    device = property(lambda self: CARD)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnCard":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="cpu",
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnCard({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = (args[0], *args[2:]) if function in _INDEXED and _is_on(args[0]) else args
        tensors = [leaf for leaf in tree_leaves((given, kwargs)) if isinstance(leaf, Tensor)]
        elsewhere = [t for t in tensors if not _is_on(t) and t.dim()]
        if elsewhere and function not in _BETWEEN_DEVICES:
            raise RuntimeError(
                f"{function}: expected all tensors to be on the same device, found a CPU tensor of "
                f"shape {tuple(elsewhere[0].shape)}"
            )
        inner = tree_map(off_card, (args, kwargs))
        outputs = _recorded(function, *inner[0], **inner[1])
        masks = [i for i in tree_leaves(args[1:]) if isinstance(i, Tensor) and i.dtype == torch.bool]
        if function in _WAITING or (function in _INDEXED and masks):
            _wait(function)
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(outputs)):
            return outputs
        if function in _BETWEEN_DEVICES and not _is_on(args[0]):
            _wait(function)
            return args[0]
        wrapped = tree_map(lambda x: OnCard(x) if isinstance(x, Tensor) else x, outputs)
        return return_and_correct_aliasing(function, args, kwargs, wrapped)


class SimulatedGraph:
    """A CUDA graph: operations on the simulated card that were recorded, with the tensors they used."""

    recording: "SimulatedGraph | None" = None

    def __init__(self) -> None:
        self.steps: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def replay(self) -> None:
        for function, args, kwargs, outputs in self.steps:
            found = function(*args, **kwargs)
            for old, new in zip(tree_leaves(outputs), tree_leaves(found), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)

    @staticmethod
    @contextmanager
    def record(graph: "SimulatedGraph", pool: Any, stream: Any) -> Iterator[None]:
        SimulatedGraph.recording = graph
        try:
            yield
        finally:
            SimulatedGraph.recording = None


def _recorded(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, and record the call if a graph is being captured."""
    outputs = function(*args, **kwargs)
    if SimulatedGraph.recording is not None:
        SimulatedGraph.recording.steps.append((function, args, kwargs, outputs))
    return outputs


def _wait(function: Any) -> None:
    """Count an operation for which the host waits; a capture permits none."""
    if SimulatedGraph.recording is not None:
        raise RuntimeError(f"{function}: operation not permitted when stream is capturing")
    Simulated.transfers += 1


def _is_on(value: Any) -> bool:
    return isinstance(value, OnCard)


def off_card(value: Any) -> Any:
    return value.inner if _is_on(value) else value


class Simulated(TorchFunctionMode):
    """Sends what is made on, or moved to, cuda to the simulated card.

    `transfers` counts how often numbers have come back from it: each time the host waits.
    """

    transfers = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(function, *args, **kwargs)
        if function in (Tensor.numpy, Tensor.tolist) and _is_on(args[0]):
            if function is Tensor.numpy and not kwargs.get("force"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            _wait(function)
            return function(args[0].inner.detach(), *args[1:], **kwargs)
        if "device" in kwargs and kwargs["device"] is not None:
            wanted = torch.device(kwargs["device"])
            if wanted.type == "cuda":
                made = _recorded(function, *args, **kwargs | {"device": "cpu"})
                return made if _is_on(made) else OnCard(made)
        return function(*args, **kwargs)


def _moved(function: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Do what `to`, `cpu` and `cuda` do."""
    device, dtype = None, None
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, str | torch.device):
            device = torch.device(value)
    if function in (Tensor.cpu, Tensor.cuda):
        device = torch.device("cpu" if function is Tensor.cpu else "cuda")
    if device is None or device.type == tensor.device.type:
        return tensor if dtype is None else torch.ops.aten._to_copy(tensor, dtype=dtype)
    if tensor.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("a move between devices inside a graph")
    if device.type == "cuda":
        return OnCard(tensor.detach().to(dtype or tensor.dtype).clone())
    _wait(function)
    return tensor.inner.detach().to(dtype or tensor.dtype).clone()  # type: ignore[attr-defined]


def _launching(genuine: Callable[..., None]) -> Callable[..., None]:
    def launch(program: Any, grid: Any, *arguments: Any, **options: Any) -> None:
        for argument in arguments:
            if isinstance(argument, Tensor) and not _is_on(argument):
                raise ValueError("pointer argument cannot be accessed from Triton (cpu tensor?)")
        _recorded(genuine, program, grid, *map(off_card, arguments), **options)

    return launch


@contextmanager
def simulated_cuda(memory: int = 2**36) -> Iterator[None]:
    """Let torch see one CUDA device for as long as the context lasts."""
    from genoscan.ops.triton_gpu import arithmetic, conv, pd_scan, pointwise, scan

    launch = _launching(arithmetic.launch)
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # else a module's stay here
    properties = SimpleNamespace(total_memory=memory)
    Simulated.transfers = 0
    with (
        mock.patch.object(torch.cuda, "device_count", lambda: 1),
        mock.patch.object(torch.cuda, "current_device", lambda: 0),
        mock.patch.object(torch.cuda, "get_device_properties", lambda _device: properties),
        mock.patch.object(torch.cuda, "CUDAGraph", SimulatedGraph),
        mock.patch.object(torch.cuda, "graph", SimulatedGraph.record),
        mock.patch.object(torch.cuda, "graph_pool_handle", lambda: None),
        mock.patch.object(torch.cuda, "Stream", lambda device: device),
        mock.patch.object(conv, "launch", launch),
        mock.patch.object(pd_scan, "launch", launch),
        mock.patch.object(pointwise, "launch", launch),
        mock.patch.object(scan, "launch", launch),
        Simulated(),
    ):
        try:
            yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
