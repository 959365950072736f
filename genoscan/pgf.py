"""Phase Gradient Flow operator (arXiv 2512.23068), with the names used in the released code.

The operator is a selective state-space layer without a convolution, a gate, or input and output
projections. All channels share the same decay rates, and the step-size projection has full rank. Unlike in
a zero-order hold, the input map phi(delta A) B u does not include the step size delta as a factor. A
softplus is applied to the output. The initial state is a learnt affine function of the first inputs. At
position t, u_t is the input, h_t the state and y_t the output:

    h_t = exp(z_t) h_(t-1) + phi(z_t) B_t u_t        phi(z) = (exp(z) - 1) / z
    z_t = delta_t A                                  delta_t = softplus(W_dt u_t + b_dt)
    y_t = max(scale, 1/2) softplus(C_t h_t + D u_t)

Here, A contains the decay rates with a negative sign; B_t and C_t are affine functions of u_t; and W_dt,
b_dt, D and the scalar `scale` are parameters. All products are computed for each channel and each state,
and C_t h_t is summed over states.

The gradient in the paper is a derivative along one direction (`pgf_forward`). `pgf_vjp` computes the
derivatives with respect to all inputs at once, and `pgf_gradients` also computes the derivatives with
respect to all parameters. Neither has a counterpart in the paper. The recurrence is computed by the scan of
this package, which uses no logarithms and whose factors are all at most 1. The function phi is computed
without adding an epsilon to its denominator.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, overload

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

MIN_SCALE = 0.5

BlockCallback: TypeAlias = Callable[[Tensor, Tensor, int, int], object]
"""Function called for each block, with the arguments y, dy, start and end (exclusive)."""


class Gradients(NamedTuple):
    """Derivatives of sum(y * y_bar), where y is the output and y_bar is its cotangent.

    Attributes
    ----------
    u
        Derivative with respect to the input, with the same shape as the input.
    parameters
        Derivatives with respect to the parameters, by parameter name, summed over the batch.
    """

    u: Tensor
    parameters: dict[str, Tensor]


class FrechetMambaOperator(nn.Module):
    """Selective state-space layer of Phase Gradient Flow, which maps an input u to an output y.

    Parameters
    ----------
    d_model
        Number of channels.
    d_state
        Number of states per channel.
    init_window
        Number of inputs, from the start of the sequence, that determine the initial state. If it is 0 or
        larger than the length of the sequence, the initial state is zero.
    kernels
        Kernel set for the scan: "auto" for the default of the device, "associative" for the associative
        scan of the paper, or "reference" for the definition in plain torch operations.

    Raises
    ------
    InputError
        If the operator is called with inputs and weights that are not all float32 or all float64, or
        while torch.autocast is enabled.

    Notes
    -----
    The input `u` has shape (length, d_model) or (batch, length, d_model). For any block size, the results
    of all methods equal those of autograd over the whole sequence up to rounding. The operator can be
    differentiated to any order by autograd and torch.func. The `pgf_` methods return tensors without an
    autograd graph and can also be called under torch.inference_mode().
    """

    def __init__(self, d_model: int, d_state: int = 16, *, init_window: int = 3, kernels: str = "auto") -> None:
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
        """Return the output y over the whole sequence.

        Parameters
        ----------
        u
            Input of shape (length, d_model) or (batch, length, d_model).

        Returns
        -------
        Tensor
            Output y, with the same shape as `u`.

        Raises
        ------
        InputError
            If the shape or dtype of `u` is not as expected.
        """
        x = self._batched(u)
        y, _ = _CausalOperator(self).forward(x, self._initial_state(x))
        return y.view(u.shape)

    @torch.inference_mode(False)
    @torch.no_grad()
    def pgf_stream(
        self,
        u: Float[Tensor, "*batch length d_model"],
        du: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the output y and its derivative along `du`, block by block from first to last.

        Parameters
        ----------
        u
            Input of shape (length, d_model) or (batch, length, d_model).
        du
            Direction of the derivative, with the same shape as `u`.
        block_size
            Number of positions per block.

        Yields
        ------
        span
            Positions of the block.
        y, dy
            Output and its derivative at these positions.

        Notes
        -----
        In addition to `u` and `du`, memory is needed for the arrays of one block, for one state and for
        its derivative.
        """
        x, x_dot = self._pair(u, du)
        state = Dual.of(self._initial_state(x), self._initial_state(x_dot, offset=False)[None])
        layer, along = _CausalOperator(self), DenseDirections(x_dot[None])
        for span, y, y_dot in tangent(layer, Dense(x), along, tile=block_size, carry=state):
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
        callback: BlockCallback,
    ) -> tuple[None, None]: ...

    def pgf_forward(
        self,
        u: Float[Tensor, "*batch length d_model"],
        du: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
        *,
        streaming: bool = False,
        callback: BlockCallback | None = None,
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return the output y and its derivative along `du`.

        Parameters
        ----------
        u
            Input of shape (length, d_model) or (batch, length, d_model).
        du
            Direction of the derivative, with the same shape as `u`.
        block_size
            Number of positions per block.
        streaming
            Whether to pass each block to `callback` instead of returning `y` and `dy`. If True, the
            method needs no more memory than `pgf_stream`.
        callback
            Function called as `callback(y, dy, start, end)` for each block, from the first to the last.

        Returns
        -------
        y, dy
            Output and its derivative, each with the same shape as `u`. Both are None if `streaming` is
            True.

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
        """Return the derivative of sum(y * y_bar) with respect to the input, where y is the output.

        Parameters
        ----------
        u
            Input of shape (length, d_model) or (batch, length, d_model).
        y_bar
            Cotangent of the output, with the same shape as `u`.
        block_size
            Number of positions per block.
        slots
            Maximum number of states to store as checkpoints. Fewer states need more recomputation.

        Returns
        -------
        Tensor
            Derivative with respect to `u`, with the same shape as `u`.

        Notes
        -----
        In addition to `u`, `y_bar` and the result, memory is needed for the arrays of one block and for
        `slots` states.
        """
        return self._vjp(u, y_bar, block_size, slots, {})[0]

    @torch.inference_mode(False)
    def pgf_gradients(
        self,
        u: Float[Tensor, "*batch length d_model"],
        y_bar: Float[Tensor, "*batch length d_model"],
        block_size: int = 64,
        *,
        slots: int = 64,
    ) -> Gradients:
        """Return the derivatives of sum(y * y_bar) with respect to the input and all parameters.

        Parameters
        ----------
        u, y_bar, block_size, slots
            As in `pgf_vjp`.

        Returns
        -------
        Gradients
            Derivatives with respect to `u` and to each parameter.

        Notes
        -----
        The method needs as much memory as `pgf_vjp`, plus twice the size of the parameters.
        """
        # Derivatives of all parameters, whether or not they require a gradient.
        trained = {
            name: _outside_inference(parameter.detach()).requires_grad_()
            for name, parameter in self.named_parameters()
            if not name.startswith("init_estimator")
        }
        u_bar, result, first = self._vjp(u, y_bar, block_size, slots, trained)
        state_bar = result.carry_bar.flatten(1)
        if first is None:
            first = state_bar.new_zeros(len(state_bar), self.init_window * self.d_model)
            state_bar = torch.zeros_like(state_bar)
        found = dict(zip(trained, result.parameters, strict=True))
        found["init_estimator.weight"] = state_bar.mT @ first
        found["init_estimator.bias"] = state_bar.sum(0)
        return Gradients(u_bar, found)

    def _vjp(
        self, u: Tensor, y_bar: Tensor, block_size: int, slots: int, trained: dict[str, Tensor]
    ) -> tuple[Tensor, AdjointResult, Tensor | None]:
        """Return the cotangent of `u`, the result of `adjoint`, and the input to `init_estimator`, if any."""
        x, weights = self._pair(u, y_bar)
        x_bar = torch.empty_like(x)

        def receive(span: slice, bar: Tensor) -> None:
            x_bar[:, span] = bar

        with torch.no_grad():
            state = self._initial_state(x)
        result = consume(
            adjoint(
                _CausalOperator(self, trained),
                Dense(x),
                WeightedSum(weights),
                tile=block_size,
                slots=slots,
                carry=state,
                parameters=list(trained.values()),
            ),
            receive,
        )
        first = self._first_inputs(x)
        if first is not None:
            first_bar = result.carry_bar.flatten(1) @ self.init_estimator.weight.detach()
            x_bar[:, : self.init_window] += first_bar.view(len(x), self.init_window, self.d_model)
        return x_bar.view(u.shape), result, first

    def _first_inputs(self, x: Tensor) -> Tensor | None:
        """Return the inputs at the first `init_window` positions as one vector per sequence.

        The result is None if `init_window` is 0 or larger than the number of positions in `x`.
        """
        window = self.init_window
        return x[:, :window].flatten(1) if 0 < window <= x.shape[1] else None

    def _initial_state(self, x: Tensor, *, offset: bool = True) -> Tensor:
        """Compute the initial state from the first inputs; add the bias of the estimator if `offset` is True."""
        first = self._first_inputs(x)
        if first is None:
            return x.new_zeros(len(x), self.d_model, self.d_state)
        estimator = self.init_estimator
        state = F.linear(first, estimator.weight, estimator.bias if offset else None)
        return state.view(len(x), self.d_model, self.d_state)

    def _pair(self, u: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return `u` and a direction or cotangent, detached and with shape (batch, length, d_model)."""
        refuse_transforms(u, other, *self.parameters())
        if u.shape != other.shape:
            raise InputError(f"shapes {tuple(u.shape)} and {tuple(other.shape)}: expected the same")
        x, second = (_outside_inference(self._batched(part).detach()) for part in (u, other))
        return x, second

    def _batched(self, u: Tensor) -> Tensor:
        """Check the input and return it with shape (batch, length, d_model)."""
        if u.dim() not in (2, 3) or u.shape[-1] != self.d_model or u.shape[-2] == 0:
            raise InputError(
                f"input of shape {tuple(u.shape)}: expected (length, {self.d_model}) "
                f"or (batch, length, {self.d_model}), length at least 1"
            )
        check_precision((u, *self.parameters()))
        return u if u.dim() == 3 else u[None]


def _outside_inference(tensor: Tensor) -> Tensor:
    """Return the tensor, or a clone of it if it was created in inference mode.

    Autograd would reject a tensor that was created in inference mode.
    """
    return tensor.clone() if tensor.is_inference() else tensor


class _CausalOperator:
    """Operator without the estimator of its initial state, as a `Layer` whose carry is the state.

    If `trained` is given, its tensors replace the weights with the same names, and all other weights
    are detached.
    """

    def __init__(self, operator: FrechetMambaOperator, trained: dict[str, Tensor] | None = None) -> None:
        self._shape = operator.d_model, operator.d_state
        self._weights = dict[str, Tensor](operator.named_parameters())
        if trained is not None:
            fixed = {name: _outside_inference(w.detach()) for name, w in self._weights.items()}
            self._weights = fixed | trained
        self._scan = choose(operator.D.device, operator.kernels).scan

    def parameters(self) -> Iterator[Any]:
        """Yield the weights that are used, so that a layer with trained weights is not taken for a frozen one."""
        return iter(self._weights.values())

    def begin(self, batch: int) -> Tensor:
        return self._weights["D"].new_zeros(batch, *self._shape)

    def forward(self, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._weights
        B, C = (F.linear(x, weights[f"{n}_proj.weight"], weights[f"{n}_proj.bias"]) for n in "BC")
        delta = F.linear(x, weights["dt_proj.weight"])
        A = -torch.exp(weights["A_log"]).expand(self._shape)
        bias = weights["dt_proj.bias"]
        read, state = self._scan(x, delta, A, B, C, weights["D"], carry, bias, input_map="phi")
        # Above the threshold, torch returns x as softplus(x); above 40 the two are equal in float64.
        y = F.softplus(read, threshold=40)
        return y * weights["redshift_scale"].clamp(min=MIN_SCALE), state
