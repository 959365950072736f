"""Tensors with tangents along several directions: forward mode without the overhead of torch.func.

In torch.func, each operation is dispatched once for the derivative and once for the batch of directions,
which takes longer than the arithmetic on a tile. In addition, the nesting level of torch.func is a global
variable, so several threads cannot use torch.func in parallel. In this module, the few operations that
dominate the run time of layers compute the tangents along all directions together. All other operations use
torch.func.
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

_FUNC_LOCK = threading.Lock()


def transformed(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether operations on the tensors are subject to a transform of torch.

    This is the case if a torch.func transform is active, if a tensor is batched, or if a tensor has a
    tangent in torch's forward mode.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    # Duals are excluded, because they would intercept the functions called here.
    plain = [t for t in tensors if t is not None and not isinstance(t, Dual)]
    # torch.autograd.grad(is_grads_batched=True) uses an older batching mechanism than torch.func.
    if any(map(torch._C._functorch.is_legacy_batchedtensor, plain)):
        return True
    # The level of forward mode is shared by all threads: only a tensor with a tangent shows that
    # the current thread uses it.
    in_use = forward_ad._current_level >= 0
    return in_use and any(forward_ad.unpack_dual(t).tangent is not None for t in plain)


def refuse_transforms(*tensors: Tensor | None) -> None:
    """Raise an error if operations on the tensors are subject to a transform of torch.

    Under such a transform, derivatives would be lost.

    Raises
    ------
    NotImplementedError
        If a torch.func transform is active in this thread, or if a tensor is batched or has a tangent in
        torch's forward mode.
    """
    if transformed(tensors):
        raise NotImplementedError(
            "a sweep in tiles has first derivatives only, and none inside torch.func transforms or "
            "torch.autograd.forward_ad: transform a call on the whole window, such as Model.whole"
        )


class Dual(Tensor):
    """A tensor that has tangents along several directions.

    The tangents are stored in the attribute `dots`, which has a leading axis of directions. They are exact
    up to rounding. Linear maps, sums, products, splits, softplus, layer norms and the operations of a
    kernel set have explicit rules; all other functions are differentiated by torch.func. In-place
    operations raise NotImplementedError. No autograd graph is recorded, because it would not include the
    compiled kernels.
    """

    dots: Tensor

    @staticmethod
    def of(primal: Tensor, dots: Tensor) -> "Dual":
        """Return a `Dual` with the given value and tangents.

        Parameters
        ----------
        primal : Tensor
            The value.
        dots : Tensor
            Tangents, of shape (directions, *primal.shape).

        Raises
        ------
        NotImplementedError
            If a torch.func transform is active, or if `primal` or `dots` is batched or has a tangent in
            torch's forward mode.
        """
        refuse_transforms(primal, dots)
        dual = primal.detach().as_subclass(Dual)
        dual.dots = dots
        return dual

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "__setitem__" or "out" in kwargs or (name.endswith("_") and not name.endswith("__")):
            raise NotImplementedError(f"{name}: writing in place loses the tangents")
        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            outputs = function(*tree_map(primal, args), **tree_map(primal, kwargs))
            if not tree_any(_is_differentiable, outputs):
                return outputs
            rule = _RULES.get(function)
            dots = rule(*args, **kwargs) if rule else NotImplemented  # type: ignore[operator]
            if dots is NotImplemented:
                dots = _any_function(function, args, kwargs)
        return tree_map(lambda o, d: Dual.of(o, d), outputs, dots)


def _is_differentiable(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def primal(value: Any) -> Any:
    """Return the value of a `Dual`, without its tangents; return any other object unchanged."""
    return value.as_subclass(Tensor) if isinstance(value, Dual) else value


def _linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        return NotImplemented
    return F.linear(x.dots, weight)


def _sum(a: Tensor, b: Tensor, **scale: float) -> Tensor:
    if scale or not (isinstance(a, Dual) and isinstance(b, Dual) and a.shape == b.shape):
        return NotImplemented
    return a.dots + b.dots


def _product(a: Any, b: Any) -> Tensor:
    axes = max(part.dim() for part in (a, b) if isinstance(part, Tensor))
    duals = [(p, q) for p, q in ((a, b), (b, a)) if isinstance(p, Dual)]
    if any(part.dim() < axes for part, _ in duals):  # directions would broadcast with another axis
        return NotImplemented
    return reduce(torch.add, (part.dots * primal(other) for part, other in duals))


def _layer_norm(x: Any, shape: list[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if isinstance(weight, Dual) or isinstance(bias, Dual) or len(shape) > 1:
        return NotImplemented
    centred, dots = (part - part.mean(-1, keepdim=True) for part in (primal(x), x.dots))
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return weight * scale * (dots - centred * (scale**2 * (centred * dots).mean(-1, keepdim=True)))


def _softplus(x: Any, *arguments: Any, **options: Any) -> Tensor:
    with torch.enable_grad():
        value = primal(x).detach().requires_grad_()
        y = F.softplus(value, *arguments, **options)
        (slope,) = torch.autograd.grad(y, value, torch.ones_like(y))
    return x.dots * slope


def _split(x: Any, sizes: list[int], dim: int = 0) -> tuple[Tensor, ...]:
    return x.dots.split(sizes, dim if dim < 0 else dim + 1)


_RULES = {
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.softplus: _softplus,
    Tensor.add: _sum,
    Tensor.mul: _product,
    Tensor.split: _split,
}


def _any_function(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Compute the tangents of the outputs of a function that has no explicit rule, with torch.func."""
    leaves, tree = tree_flatten((args, kwargs))
    duals = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Dual)]

    def function_of_duals(*tensors: Tensor) -> Any:
        given = list(leaves)
        for i, tensor in zip(duals, tensors, strict=True):
            given[i] = tensor
        inside_args, inside_kwargs = tree_unflatten(given, tree)
        return function(*inside_args, **inside_kwargs)

    primals = tuple(primal(leaves[i]) for i in duals)
    with _FUNC_LOCK:
        push = torch.func.vmap(lambda *dots: torch.func.jvp(function_of_duals, primals, dots)[1])
        return push(*(leaves[i].dots for i in duals))
