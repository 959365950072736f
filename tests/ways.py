"""Every way in which torch differentiates a function, first derivatives and higher ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from laws import assert_near, random_like
from operations import directions_for
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd import functional as by_autograd
from torch.utils.checkpoint import checkpoint

Call = Callable[..., Any]
Tensors = tuple[Tensor, ...]
BAR = 1e-10


def flat(outputs: Any) -> Tensors:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def energy(call: Call) -> Callable[..., Tensor]:
    """Return one number of all outputs, no derivative of which is constant."""
    return lambda *inputs: sum(out.pow(2).sum() + out.sin().sum() for out in flat(call(*inputs)))


def few(call: Call) -> Callable[..., Tensor]:
    """Return three numbers of all outputs."""
    return lambda *inputs: sum(
        torch.stack([out.sum(), out.pow(2).sum(), out.sin().sum()]) for out in flat(call(*inputs))
    )


def opened(inputs: Tensors) -> Tensors:
    return tuple(part.detach().clone().requires_grad_() for part in inputs)


def penalty(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    """Differentiate the squared gradient of the first input by all of them."""
    given = opened(inputs)
    (bar,) = torch.autograd.grad(energy(call)(*given), given[0], create_graph=True)
    return torch.autograd.grad(bar.pow(2).sum(), given)


def third(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    given = opened(inputs)
    total = energy(call)(*given)
    for _ in range(2):
        bars = torch.autograd.grad(total, given, create_graph=True, materialize_grads=True)
        total = sum((bar * dot).sum() for bar, dot in zip(bars, dots, strict=True))
    return torch.autograd.grad(total, given, materialize_grads=True)


def checkpointed(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    return penalty(lambda *given: checkpoint(call, *given, use_reentrant=False), inputs, dots)


def backward(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    """Accumulate first derivatives, and then those of a penalty on top."""
    given = opened(inputs)
    energy(call)(*given).backward(create_graph=True)
    sum(part.grad.pow(2).sum() for part in given).backward()
    return tuple(part.grad for part in given)


def batched(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    """Pull several cotangents back at once."""
    given = opened(inputs)
    numbers = few(call)(*given)
    return torch.autograd.grad(numbers, given, torch.eye(len(numbers)).to(numbers), is_grads_batched=True)


def dual_level(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    with forward_ad.dual_level():
        outputs = flat(call(*map(forward_ad.make_dual, inputs, dots)))
        return tuple(forward_ad.unpack_dual(out).tangent for out in outputs)


def recorded_dual_level(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    """Forward over reverse."""
    with forward_ad.dual_level():
        given = tuple(map(forward_ad.make_dual, opened(inputs), dots))
        bars = torch.autograd.grad(energy(call)(*given), given)
        return tuple(forward_ad.unpack_dual(bar).tangent for bar in bars)


def moving_cotangents(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    """Pull back cotangents that have tangents, through inputs that have none."""
    given = opened(inputs)
    outputs = flat(call(*given))
    bars = random_like(tuple(out.detach() for out in outputs), 5)
    with forward_ad.dual_level():
        moved = tuple(map(forward_ad.make_dual, bars, random_like(bars, 6)))
        pulled = torch.autograd.grad(outputs, given, moved)
        return tuple(forward_ad.unpack_dual(bar).tangent for bar in pulled)


def dependent(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    """Make all inputs of one: no derivative may be counted twice."""
    (seed,) = opened((torch.tensor(0.3, dtype=torch.float64),))
    given: list[Tensor] = []
    for part in inputs:
        before = given[-1].sum() if given else seed
        given.append(part + 0.1 * torch.sin(before))
    (bar,) = torch.autograd.grad(energy(call)(*given), seed, create_graph=True)
    return torch.autograd.grad(bar, seed)


def each(inputs: Tensors) -> tuple[int, ...]:
    return tuple(range(len(inputs)))


def smallest(inputs: Tensors) -> int:
    return min(each(inputs), key=lambda i: inputs[i].numel())


def func_vjp(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    outputs, pull = torch.func.vjp(call, *inputs)
    bars = random_like(flat(outputs), 5)
    return pull(bars if isinstance(outputs, tuple) else bars[0])


def func_vmap(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    pairs = (torch.stack([part, part + 0.01 * dot]) for part, dot in zip(inputs, dots, strict=True))
    return flat(torch.func.vmap(call)(*pairs))


def vmapped_jvp(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    many = tuple(torch.stack([dot, -2 * dot.flip(0)]) for dot in dots)
    return flat(torch.func.vmap(lambda *dot: torch.func.jvp(call, inputs, dot)[1])(*many))


WAYS: dict[str, Callable[[Call, Tensors, Tensors], Any]] = {
    "functional.jvp": lambda call, x, dots: flat(by_autograd.jvp(call, x, dots)[1]),
    "functional.hvp": lambda call, x, dots: by_autograd.hvp(energy(call), x, dots)[1],
    "functional.vhp": lambda call, x, dots: by_autograd.vhp(energy(call), x, dots)[1],
    "functional.hessian": lambda call, x, _: by_autograd.hessian(
        lambda part: energy(call)(*x[: smallest(x)], part, *x[smallest(x) + 1 :]), x[smallest(x)]
    ),
    "functional.jacobian": lambda call, x, _: by_autograd.jacobian(few(call), x, vectorize=True),
    "functional.jacobian, forward": lambda call, x, _: by_autograd.jacobian(
        lambda part: few(call)(*x[: smallest(x)], part, *x[smallest(x) + 1 :]),
        x[smallest(x)],
        vectorize=True,
        strategy="forward-mode",
    ),
    "func.jvp": lambda call, x, dots: flat(torch.func.jvp(call, x, dots)[1]),
    "func.vjp": func_vjp,
    "func.grad": lambda call, x, _: torch.func.grad(energy(call), each(x))(*x),
    "func.vmap": func_vmap,
    "func.vmap of func.jvp": vmapped_jvp,
    "func.hessian": lambda call, x, _: torch.func.hessian(energy(call), smallest(x))(*x),
    "func.jacrev": lambda call, x, _: torch.func.jacrev(few(call), each(x))(*x),
    "func.jacfwd": lambda call, x, _: torch.func.jacfwd(few(call), smallest(x))(*x),
    "func.jvp of func.grad": lambda call, x, dots: torch.func.jvp(torch.func.grad(energy(call), each(x)), x, dots)[1],
    "dual level": dual_level,
    "recorded dual level": recorded_dual_level,
    "moving cotangents": moving_cotangents,
    "batched cotangents": batched,
    "gradient penalty": penalty,
    "gradient penalty, checkpointed": checkpointed,
    "backward twice": backward,
    "third derivative": third,
    "dependent inputs": dependent,
}


FORWARD_OVER_REVERSE = ("recorded dual level", "moving cotangents")


def hold(way: str, found: Call, truth: Call, inputs: Tensors) -> None:
    """Compare, and see that there was something to compare."""
    dots = tuple(dot[0] for dot in directions_for(inputs, 1))
    try:
        expected = WAYS[way](truth, inputs, dots)
    except NotImplementedError:  # torch has no tangent of the derivative of its own silu
        assert way in FORWARD_OVER_REVERSE
        with pytest.raises(NotImplementedError):
            WAYS[way](found, inputs, dots)
        return
    assert_near(WAYS[way](found, inputs, dots), expected, bar=BAR)
    assert any(bool(part.any()) for part in flat(expected))
