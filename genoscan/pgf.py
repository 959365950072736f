"""The operator of Phase Gradient Flow (arXiv 2512.23068) under its authors' names.

For people who come from the paper.  One selective layer without convolution, gate or projections,
as its authors released it: decays shared by all channels, a full step-size projection, the input
map phi(delta A) B u without the delta of a zero-order hold, softplus at the end, and a state that
a learnt map of the first inputs begins with.

    h_t = exp(z_t) h_(t-1) + phi(z_t) B_t u_t        phi(z) = (exp(z) - 1) / z
    z_t = softplus(W_dt u_t + b_dt) A                y_t = max(scale, 1/2) softplus(C_t h_t + D u_t)

What the paper calls its gradient is a derivative along one direction (`pgf_forward`).  Every
input's at once is `pgf_vjp`, every parameter's `pgf_gradients`; the paper has neither.  The
recurrence is this project's scan, which multiplies by nothing over 1 and takes no logarithms, and
phi has no epsilon.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from genoscan.engine.adjoint import AdjointResult, adjoint, consume
from genoscan.engine.inputs import Dense
from genoscan.engine.tangent import DenseDirections, tangent
from genoscan.engine.target import WeightedSum
from genoscan.errors import InputError
from genoscan.ops.dispatch import choose
from genoscan.ops.dual import Dual, refuse_transforms
from genoscan.ops.primitive import check_precision

LEAST_SCALE = 0.5

Receive: TypeAlias = Callable[[Tensor, Tensor, int, int], object]
"""Takes y and dy of one block, and its start and end."""


class Gradients(NamedTuple):
    """The derivatives of the sum of y y_bar.

    u           (length, d_model) or (batch, length, d_model), as u came
    parameters  one a parameter, by its name, summed over the batch
    """

    u: Tensor
    parameters: dict[str, Tensor]


class FrechetMambaOperator(nn.Module):
    """One layer, u -> y; the names of its parameters are those of the released code.

    u is (length, d_model), or (batch, length, d_model).  The scan is the device's own; with
    `kernels="associative"` the paper's associative form, with "reference" its definition.
    Exact: every method equals whole-sequence autograd to rounding, whatever the block size.
    Calling the operator is differentiable by autograd, any number of times, and by torch.func; the
    `pgf_` methods return plain numbers, and run under torch.inference_mode() too.

    Raises
    ------
    InputError
        If inputs and weights are not float32 or float64 throughout, or under torch.autocast.
    """

    def __init__(
        self, d_model: int, d_state: int = 16, *, init_window: int = 3, kernels: str = "auto"
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.d_model, self.d_state, self.init_window = d_model, d_state, init_window
        self.A_log = nn.Parameter(torch.log(1 - 0.1 * torch.randn(d_state)))
        self.dt_proj = nn.Linear(d_model, d_model)
        self.B_proj = nn.Linear(d_model, d_state)
        self.C_proj = nn.Linear(d_model, d_state)
        self.D = nn.Parameter(torch.ones(d_model))
        self.redshift_scale = nn.Parameter(torch.tensor(2.0))
        self.init_estimator = nn.Linear(init_window * d_model, d_model * d_state)

    def forward(self, u: Float[Tensor, "*batch length d_model"]) -> Tensor:
        """Return y, of u's shape, in one piece."""
        x = self._batched(u)
        y, _ = _Causal(self).forward(x, self._first_state(x))
        return y.view(u.shape)

    @torch.inference_mode(False)
    @torch.no_grad()
    def pgf_stream(
        self,
        u: Float[Tensor, "*batch length d_model"],
        du: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield each block's span, y, and its derivative along du, from the first to the last.

        Memory: a block's arrays and two states, besides u and du.
        """
        x, x_dot = self._pair(u, du)
        first = Dual.of(self._first_state(x), self._first_state(x_dot, offset=False)[None])
        along = DenseDirections(x_dot[None])
        for span, y, y_dot in tangent(_Causal(self), Dense(x), along, tile=block_size, carry=first):
            shape = (*u.shape[:-2], -1, self.d_model)
            yield span, y.view(shape), y_dot[0].view(shape)

    @overload
    def pgf_forward(
        self,
        u: Float[Tensor, "*batch length d_model"],
        du: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
        *,
        streaming: Literal[False] = False,
        callback: None = None,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def pgf_forward(
        self,
        u: Float[Tensor, "*batch length d_model"],
        du: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
        *,
        streaming: Literal[True],
        callback: Receive,
    ) -> tuple[None, None]: ...

    def pgf_forward(
        self,
        u: Float[Tensor, "*batch length d_model"],
        du: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
        *,
        streaming: bool = False,
        callback: Receive | None = None,
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return y and its derivative along du, both of u's shape.

        With `streaming=True`, call `callback(y, dy, start, end)` for every block instead, first to
        last, and return (None, None): the memory is then that of `pgf_stream`.

        Raises
        ------
        InputError
            If only one of `streaming=True` and `callback` is given.
        """
        if streaming != (callback is not None):
            given, missing = "streaming=True", "callback=FUNCTION"
            if callback is not None:
                given, missing = "callback", "streaming=True"
            raise InputError(f"pgf_forward: {given} without {missing}: give both or neither")
        if callback is not None:
            for span, part, part_dot in self.pgf_stream(u, du, block_size):
                callback(part, part_dot, span.start, span.stop)
            return None, None
        y, y_dot = torch.empty_like(u), torch.empty_like(u)
        for span, part, part_dot in self.pgf_stream(u, du, block_size):
            y[..., span, :], y_dot[..., span, :] = part, part_dot
        return y, y_dot

    @torch.inference_mode(False)
    def pgf_vjp(
        self,
        u: Float[Tensor, "*batch length d_model"],
        y_bar: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
        *,
        slots: int = 64,
    ) -> Tensor:
        """Return the derivative of the sum of y y_bar with respect to every input, of u's shape.

        Memory: a block's arrays and `slots` states, besides u, y_bar and what is returned.
        """
        return self._pulled(u, y_bar, block_size, slots, {})[0]

    @torch.inference_mode(False)
    def pgf_gradients(
        self,
        u: Float[Tensor, "*batch length d_model"],
        y_bar: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
        *,
        slots: int = 64,
    ) -> Gradients:
        """Return the same and, in the same sweep, the derivatives of every parameter.

        Memory: as `pgf_vjp`, and twice the parameters.
        """
        # Whether or not they ask for a gradient, here they do.
        inside = {
            name: _ordinary(parameter.detach()).requires_grad_()
            for name, parameter in self.named_parameters()
            if not name.startswith("init_estimator")
        }
        u_bar, result, heads = self._pulled(u, y_bar, block_size, slots, inside)
        state_bar = result.carry_bar.flatten(1)
        if heads is None:
            heads = state_bar.new_zeros(len(state_bar), self.init_window * self.d_model)
            state_bar = torch.zeros_like(state_bar)
        found = dict(zip(inside, result.parameters, strict=True))
        found["init_estimator.weight"] = state_bar.mT @ heads
        found["init_estimator.bias"] = state_bar.sum(0)
        return Gradients(u_bar, found)

    def _pulled(
        self, u: Tensor, y_bar: Tensor, block_size: int, slots: int, inside: dict[str, Tensor]
    ) -> tuple[Tensor, AdjointResult, Tensor | None]:
        """Return u's cotangent, all that the adjoint knows, and the inputs of the estimator."""
        x, weights = self._pair(u, y_bar)
        x_bar = torch.empty_like(x)

        def receive(span: slice, bar: Tensor) -> None:
            x_bar[:, span] = bar

        with torch.no_grad():
            first = self._first_state(x)
        result = consume(
            adjoint(
                _Causal(self, inside),
                Dense(x),
                WeightedSum(weights),
                tile=block_size,
                slots=slots,
                carry=first,
                parameters=list(inside.values()),
            ),
            receive,
        )
        heads = self._heads(x)
        if heads is not None:
            pulled = result.carry_bar.flatten(1) @ self.init_estimator.weight.detach()
            x_bar[:, : self.init_window] += pulled.view(len(x), self.init_window, self.d_model)
        return x_bar.view(u.shape), result, heads

    def _heads(self, x: Tensor) -> Tensor | None:
        """Return the first inputs in a row, or None where there are too few."""
        window = self.init_window
        return x[:, :window].flatten(1) if 0 < window <= x.shape[1] else None

    def _first_state(self, x: Tensor, *, offset: bool = True) -> Tensor:
        """Return the state that the first inputs begin with; without offset, its linear part."""
        heads = self._heads(x)
        if heads is None:
            return x.new_zeros(len(x), self.d_model, self.d_state)
        estimator = self.init_estimator
        state = F.linear(heads, estimator.weight, estimator.bias if offset else None)
        return state.view(len(x), self.d_model, self.d_state)

    def _pair(self, u: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return an input and a direction or cotangent, (batch, length, d_model), detached."""
        refuse_transforms(u, other, *self.parameters())
        if u.shape != other.shape:
            raise InputError(f"shapes {tuple(u.shape)} and {tuple(other.shape)}: expected the same")
        x, moved = (_ordinary(self._batched(part).detach()) for part in (u, other))
        return x, moved

    def _batched(self, u: Tensor) -> Tensor:
        """Return (batch, length, d_model)."""
        if u.dim() not in (2, 3) or u.shape[-1] != self.d_model or u.shape[-2] == 0:
            raise InputError(
                f"input of shape {tuple(u.shape)}: expected (length, {self.d_model}) "
                f"or (batch, length, {self.d_model}), length at least 1"
            )
        check_precision((u, *self.parameters()))
        return u if u.dim() == 3 else u[None]


def _ordinary(tensor: Tensor) -> Tensor:
    """Copy a tensor that was made under torch.inference_mode(): autograd refuses those."""
    return tensor.clone() if tensor.is_inference() else tensor


class _Causal:
    """The operator without its estimator: a `Layer`, whose carry is the state.

    Its weights are the operator's, or, with `inside`, these, and the others fixed.
    """

    def __init__(
        self, operator: FrechetMambaOperator, inside: dict[str, Tensor] | None = None
    ) -> None:
        self._shape = operator.d_model, operator.d_state
        self._weights = dict[str, Tensor](operator.named_parameters())
        if inside is not None:
            fixed = {name: _ordinary(w.detach()) for name, w in self._weights.items()}
            self._weights = fixed | inside
        self._scan = choose(operator.D.device, operator.kernels).scan
        self.parameters = operator.parameters

    def begin(self, batch: int) -> Tensor:
        return self._weights["D"].new_zeros(batch, *self._shape)

    def forward(self, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._weights
        B, C = (F.linear(x, weights[f"{n}_proj.weight"], weights[f"{n}_proj.bias"]) for n in "BC")
        delta = F.linear(x, weights["dt_proj.weight"])
        A = -torch.exp(weights["A_log"]).expand(self._shape)
        bias = weights["dt_proj.bias"]
        read, state = self._scan(x, delta, A, B, C, weights["D"], carry, bias, input_map="phi")
        # From its threshold on torch takes x for softplus(x): at 40 that is so in float64 too.
        y = F.softplus(read, threshold=40)
        return y * weights["redshift_scale"].clamp(min=LEAST_SCALE), state
