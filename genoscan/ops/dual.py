"""Tensors that carry tangents along several directions: forward mode without torch.func's cost.

torch.func pushes tangents through one level of dispatch for the derivative and one for the
directions, which costs more than a tile's arithmetic, and it keeps its place in a global, which
threads cannot share.  Here the few operations that layers spend their time in push all directions
at once; whatever else a layer does still goes to torch.func.
"""

import threading
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils._pytree import tree_any, tree_flatten, tree_map, tree_unflatten

_ONE_AT_A_TIME = threading.Lock()


def transformed(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether the tensors are more than arrays: batched, or with a tangent of torch's.

    All count as such under a torch.func transform.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    # torch must not see a Dual here: that would be a function like any other to the Dual.
    plain = [t for t in tensors if t is not None and not isinstance(t, Dual)]
    # torch.autograd.grad(is_grads_batched=True) batches by an older mechanism than torch.func.
    if any(map(torch._C._functorch.is_legacy_batchedtensor, plain)):
        return True
    # Transforms belong to a thread, but the level of forward mode is shared by all threads: only
    # a tensor's own tangent says that this thread uses it.
    in_use = forward_ad._current_level >= 0
    return in_use and any(forward_ad.unpack_dual(t).tangent is not None for t in plain)


def refuse_transforms(*tensors: Tensor | None) -> None:
    """Refuse torch.func's transforms and torch's forward mode where their tangents would be lost.

    Raises
    ------
    NotImplementedError
        If a torch.func transform is active on this thread, or a tensor is batched or has a tangent.
    """
    if transformed(tensors):
        raise NotImplementedError(
            "a sweep in tiles has first derivatives only, and none inside torch.func transforms or "
            "torch.autograd.forward_ad: transform a call on the whole window, such as Model.whole"
        )


class Dual(Tensor):
    """A tensor and its tangents, `dots`, which have one more axis in front: the directions.

    Exact: the derivative itself, to rounding.  Linear maps, sums, products, softplus and a kernel
    set's operations are pushed directly, any other differentiable function by torch.func; writing
    in place is refused.  No graph is recorded: kernels would be missing from it.
    """

    dots: Tensor

    @staticmethod
    def of(primal: Tensor, dots: Tensor) -> "Dual":
        """Put a tensor and its tangents together; neither may have a tangent of torch's own."""
        refuse_transforms(primal, dots)
        dual = primal.detach().as_subclass(Dual)
        dual.dots = dots
        return dual

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in ("__setitem__", "out") or (name.endswith("_") and not name.endswith("__")):
            raise NotImplementedError(f"{name}: writing in place loses the tangents")
        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            outputs = function(*tree_map(primal, args), **tree_map(primal, kwargs))
            if not tree_any(_moves, outputs):
                return outputs
            rule = _RULES.get(function)
            dots = rule(*args, **kwargs) if rule else NotImplemented  # type: ignore[operator]
            if dots is NotImplemented:
                dots = _any_function(function, args, kwargs)
        return tree_map(lambda o, d: Dual.of(o, d), outputs, dots)


def _moves(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def primal(value: Any) -> Any:
    """Return the tensor without its tangents; anything else as it is."""
    return value.as_subclass(Tensor) if isinstance(value, Dual) else value


def _linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if any(isinstance(still, Dual) for still in (weight, bias)):
        return NotImplemented
    return F.linear(x.dots, weight)


def _sum(a: Tensor, b: Tensor, **scale: float) -> Tensor:
    if scale or not (isinstance(a, Dual) and isinstance(b, Dual) and a.shape == b.shape):
        return NotImplemented
    return a.dots + b.dots


def _product(a: Any, b: Any) -> Tensor:
    axes = max(part.dim() for part in (a, b) if isinstance(part, Tensor))
    moving = [(p, q) for p, q in ((a, b), (b, a)) if isinstance(p, Dual)]
    if any(part.dim() < axes for part, _ in moving):  # the other's would meet the directions
        return NotImplemented
    return reduce(torch.add, (part.dots * primal(other) for part, other in moving))


def _softplus(x: Any, *arguments: Any, **numbers: Any) -> Tensor:
    with torch.enable_grad():
        still = primal(x).detach().requires_grad_()
        y = F.softplus(still, *arguments, **numbers)
        (slope,) = torch.autograd.grad(y, still, torch.ones_like(y))
    return x.dots * slope


def _split(x: Any, sizes: list[int], dim: int = 0) -> tuple[Tensor, ...]:
    return x.dots.split(sizes, dim if dim < 0 else dim + 1)


_RULES = {
    F.linear: _linear,
    Tensor.add: _sum,
    Tensor.mul: _product,
    F.softplus: _softplus,
    Tensor.split: _split,
}


def _any_function(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Push the tangents through any function that torch can differentiate."""
    leaves, tree = tree_flatten((args, kwargs))
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Dual)]

    def closed(*tensors: Tensor) -> Any:
        given = list(leaves)
        for i, tensor in zip(moving, tensors, strict=True):
            given[i] = tensor
        inside_args, inside_kwargs = tree_unflatten(given, tree)
        return function(*inside_args, **inside_kwargs)

    still = tuple(primal(leaves[i]) for i in moving)
    with _ONE_AT_A_TIME:
        push = torch.func.vmap(lambda *dots: torch.func.jvp(closed, still, dots)[1])
        return push(*(leaves[i].dots for i in moving))
