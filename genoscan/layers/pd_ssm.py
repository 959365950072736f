"""The Flash PD-SSM block: a norm, a selective permutation-diagonal mixer and a residual connection.

Notation (Terzić et al., NeurIPS 2025; Flash PD-SSM, arXiv 2605.19150):
    u       (batch, tile, channels)              input, after convolution and activation
    x       (batch, tile, heads, 2, states)      complex states; the axis of size 2 separates real
                                                 and imaginary parts
    M       (heads, maps, states, states)        dictionary of transition maps; each column belongs
                                                 to one state, and the row of the largest entry in the
                                                 column is the destination of this state
    route   (batch, tile, heads)                 index of the selected map: the argmax of the
                                                 router's output, which is a linear map of u
    step    (batch, tile, heads, states)         softplus (coupled blocks, see below) or relu (others) of a
                                                 low-rank function of u
    D       (batch, tile, heads, 2, states)      complex decays with modulus exp(-step), which is at most 1,
                                                 and exactly 1 if the step is 0 up to rounding
    B, C    input and output projections of the state; C, like the phase of D, is a low-rank function of u
    z       (batch, tile, channels)              gate
The number of channels is `expand` x `d_model`. The mixer computes the output projection of
`(W Re(C x) + s u) silu(z)`, where `W` is a matrix and `s` contains one weight for each channel.

In a coupled block, the phase of D is multiplied by the step, and the inflow `B u` by `1 - |D|`, so that each
state decays as fast as it is written to, as in the discretised layers of Mamba. If the step is 0, the states are
only moved, by the selected map. If all selected maps are the identity, the modulus of a state never exceeds
that of its initial value or the largest of its inflow; with other maps, there is no such bound.
"""

import copy
import math
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.layers.linear import Linear
from genoscan.layers.mamba import Depthwise
from genoscan.layers.norm import NormConfig, build_norm
from genoscan.layers.schema import Schema, Size
from genoscan.layers.stack import SequenceModel
from genoscan.layers.surrogate import Surrogate, activated, straight_through
from genoscan.ops.dual import Dual
from genoscan.ops.kernels import Kernels
from genoscan.ops.pd_mix import Estimate, PdMixWeights, by_head, pd_mix_by_operations
from genoscan.ops.pd_scan import argmax_maps

Network = TypeVar("Network", bound=SequenceModel)

_KEPT_MARGIN, _MOVED_MARGIN = 2.0, 0.2
"""Initial margin of the largest entry of a column, in identity maps and in others."""

_SLOW, _FAST = (1e-4, 0.1), (1e-3, 1.0)
_HEADS = (0.5, _SLOW), (1.0, _SLOW), (1.0, _FAST), (1.0, _SLOW)
"""Share of maps that are initialised as the identity and range of the initial steps, of four heads in turn."""

_STEP_GAIN = 4.0
"""Factor of the initial weights of the steps: the derivative of a softplus is small where steps are small."""


class PdSsmConfig(Schema):
    """Configuration of a PD-SSM block: one entry of `layers` in config.json.

    Attributes
    ----------
    kind
        Type of the block, always "pd_ssm".
    heads
        Number of heads. Each head has its own states and maps.
    d_state
        Number of complex states per head.
    n_maps
        Number of transition maps per head.
    d_conv
        Number of taps of the causal convolution.
    expand
        Ratio of the number of inner channels to `d_model`.
    rank
        Rank of the projections that compute the decays and the output projection `C` of the state.
    coupled
        Whether phases and inflow are scaled by the step, which is then a softplus (see above), as in new models.
        It is false in model files that do not contain it.
    """

    kind: Literal["pd_ssm"] = "pd_ssm"
    heads: Size = 2
    d_state: Size = 64
    n_maps: Size = 16
    d_conv: Size = 4
    expand: Size = 2
    rank: Size
    coupled: bool = False


class PdSsm(nn.Module):
    """A PD-SSM block, which computes `x + mixer(norm(x))`.

    Parameters
    ----------
    config
        Settings of the block.
    d_model
        Number of input and output channels.
    norm
        Settings of the norm. If None, the block consists of the mixer alone, without a norm or a residual
        connection. Bidirectional blocks contain such mixers.
    kernels
        Kernel set that computes the operations of the block.

    Attributes
    ----------
    surrogate
        Gradient estimator for the selection of maps and destinations, which `with_surrogate` sets for
        training. If it is None, gradients are those of the deployed function.
    start
        Initial state, of shape (heads, 2, states). The axis of size 2 separates real and imaginary parts.

    Notes
    -----
    Up to rounding, the output does not depend on how the sequence is divided into tiles.

    Unless a surrogate is set, derivatives are those of the deployed function, in which the selected maps
    and destinations are constants. If the substitution of a base causes another map to be selected, the
    output jumps. Derivatives do not capture this jump; `margin` measures how close a selection is to such a
    change.

    Whether a surrogate gradient is used depends only on `surrogate`. It does not depend on the
    `requires_grad` attributes of the weights, or on calls to `train()` or `eval()`.
    """

    decays: ClassVar = {"dictionary": False, "D": False}
    surrogate: Surrogate | None
    start: Tensor

    def __init__(self, config: PdSsmConfig, d_model: int, *, norm: NormConfig | None, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self.surrogate = None
        channels, states = config.expand * d_model, config.heads * config.d_state
        self.norm = None if norm is None else build_norm(norm, d_model, kernels)
        self.in_proj = Linear(d_model, 2 * channels, bias=False, kernels=kernels)
        self.conv = Depthwise(channels, config.d_conv)
        self.B_proj = Linear(channels, 2 * states, bias=False, kernels=kernels)
        self.low = Linear(channels, 3 * config.rank, bias=False, kernels=kernels)
        self.size = Linear(config.rank, states, kernels=kernels)
        self.phase = Linear(config.rank, states, kernels=kernels)
        self.C_proj = Linear(config.rank, 2 * states, kernels=kernels)
        self.router = Linear(channels, config.heads * config.n_maps, bias=False, kernels=kernels)
        self.dictionary = nn.Parameter(torch.empty(config.heads, config.n_maps, config.d_state, config.d_state))
        self.register_buffer("start", torch.empty(config.heads, 2, config.d_state))
        self.state_out = Linear(states, channels, bias=False, kernels=kernels)
        self.D = nn.Parameter(torch.ones(channels))
        self.out_proj = Linear(channels, d_model, bias=False, kernels=kernels)
        if not self.D.is_meta:  # weights to be loaded need no initialisation
            self._initialise()

    def _initialise(self) -> None:
        """Initialise maps, steps and phases for long memory, and an initial state that is 1 in its first entry.

        In three of four heads, all maps are initialised as the identity, so that what is written to their states
        stays in place until the router has learnt to move it. In the others, half of the maps are, and the rest are
        permutations. Steps are log-uniform, as in Mamba, and in every fourth head up to as large as there. Phases are
        zero: at other phases, the mean of a state over many steps vanishes.
        """
        with torch.no_grad():
            for head, steps in enumerate(by_head(self.size.bias, self.config.heads)):
                identity, (lowest, highest) = _HEADS[head % len(_HEADS)]
                fill_with_maps(self.dictionary[head], int(identity * self.config.n_maps))
                steps.uniform_(math.log(lowest), math.log(highest)).exp_()
            self.start.zero_()
            self.start[:, 0, 0] = 1
            if self.config.coupled:
                self.size.bias.expm1_().log_()  # whose softplus are the steps
                self.size.weight *= _STEP_GAIN
            self.phase.weight.zero_()
            self.phase.bias.zero_()

    def begin(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the initial carry for `batch` sequences: zeros for the convolution, and the initial state."""
        tail = self.D.new_zeros(batch, self.config.d_conv - 1, len(self.D))
        return tail, self.start.expand(batch, *self.start.shape).clone()

    def forward(
        self, x: Float[Tensor, "batch tile d_model"], carry: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch tile d_model"], tuple[Tensor, Tensor]]:
        """Return the output over one tile and the carry at the right edge of the tile.

        Parameters
        ----------
        x
            Input over the tile, of shape (batch, tile, d_model).
        carry
            Carry at the left edge of the tile. It consists of the last inputs to the convolution, of shape
            (batch, d_conv - 1, channels), and the state of the scan, of shape (batch, heads, 2, states).

        Returns
        -------
        y
            Output over the tile, of shape (batch, tile, d_model).
        carry
            Carry at the right edge of the tile.
        """
        tail, state = carry
        u, z, tail = self._project_inputs(x, tail)
        weights, maps = self._weights(), argmax_maps(self.dictionary)
        dual = any(isinstance(part, Dual) for part in (x, *carry))
        # Surrogates change only derivatives and are skipped if no graph is recorded.
        estimate = self._estimate(state, maps) if torch.is_grad_enabled() and not dual else None
        # The same operations with and without a graph: other roundings could select other maps.
        plain = self.surrogate is None and not dual
        choices: Any = {"maps": maps, "coupled": self.config.coupled}
        if plain and self.kernels.pd_mix is not None:
            y, state = self.kernels.pd_mix(u, z, state, weights, **choices)
        else:
            y, state = pd_mix_by_operations(self.kernels, u, z, state, weights, **choices, estimate=estimate)
        y = self.out_proj(y)
        return (x + y if self.norm else y), (tail, state)

    @property
    def capturable(self) -> bool:
        """Whether tiles can be replayed as CUDA graphs: surrogates wait for the GPU, and their settings may change."""
        return self.surrogate is None

    def margin(
        self, x: Float[Tensor, "batch tile d_model"], carry: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "batch tile"]:
        """Return the margin of the router's selection at each position.

        Parameters
        ----------
        x
            Input over the tile, of shape (batch, tile, d_model).
        carry
            Carry at the left edge of the tile, as in `forward`.

        Returns
        -------
        Tensor
            Margins between 0 and 1, of shape (batch, tile). For each head, the margin is the probability of
            the most probable map minus that of the second most probable map. The smallest margin over all
            heads is returned. If there is only one map, the margin is 1.
        """
        if self.config.n_maps == 1:
            return x.new_ones(x.shape[:2])
        u, _, _ = self._project_inputs(x, carry[0])
        first, second = torch.softmax(self._scores(u), -1).topk(2, -1).values.unbind(-1)
        return (first - second).amin(-1)

    def _estimate(self, state: Tensor, maps: Tensor) -> Estimate | None:
        """Return the function that sets the surrogate gradient, if there is one."""
        surrogate = self.surrogate
        if surrogate is None:
            return None

        def estimate(decay: Tensor, inflow: Tensor, scores: Tensor, route: Tensor) -> tuple[Tensor, Tensor]:
            chosen = surrogate, scores, self.dictionary, route, maps
            if surrogate.kind == "activated":
                return activated(decay, *chosen), inflow
            return decay, straight_through(inflow, decay, state, *chosen, self.kernels)

        return estimate

    def _weights(self) -> PdMixWeights:
        return PdMixWeights(
            B_proj=self.B_proj.weight,
            low=self.low.weight,
            size=self.size.weight,
            size_bias=self.size.bias,
            phase=self.phase.weight,
            phase_bias=self.phase.bias,
            C_proj=self.C_proj.weight,
            C_bias=self.C_proj.bias,
            router=self.router.weight,
            state_out=self.state_out.weight,
            D=self.D,
        )

    def _project_inputs(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.norm(x) if self.norm else x
        u, z = (self.kernels.linear(normed, half) for half in self.in_proj.weight.chunk(2))
        u, tail = self.kernels.conv_silu(u, self.conv.weight, self.conv.bias, tail)
        return u, z, tail

    def _scores(self, u: Tensor) -> Tensor:
        return self.router(u).unflatten(-1, (self.config.heads, self.config.n_maps))


@torch.no_grad()
def fill_with_maps(maps: Float[Tensor, "maps states states"], n_identity: int) -> None:
    """Fill the maps of one head, in place, with identity maps and permutations, plus normal noise.

    Permutations, because compositions of non-injective maps soon lose all information about the initial state. The
    largest entry in each of their columns exceeds the others by only a small amount, so that training can change them.

    Parameters
    ----------
    maps
        Maps of one head of a dictionary, of shape (maps, states, states).
    n_identity
        Number of maps, from the first on, that become the identity. The others become random permutations, except
        for a few columns in a hundred, in which the noise is larger than the margin.
    """
    n_states = maps.shape[-1]
    maps.normal_(std=0.05)
    maps[:n_identity] += _KEPT_MARGIN * torch.eye(n_states)
    for chosen in maps[n_identity:]:
        chosen[torch.randperm(n_states), torch.arange(n_states)] += _MOVED_MARGIN


def with_surrogate(stack: Network, surrogate: Surrogate) -> Network:
    """Return a network that uses a surrogate gradient for the selection of maps and destinations.

    Parameters
    ----------
    stack
        Causal or bidirectional network. It is not modified, and its derivatives remain those of the deployed
        function.
    surrogate
        Gradient estimator for all PD-SSM blocks of the returned network, and for those inside its bidirectional
        blocks. The blocks read its settings in every forward pass, so the temperature may be changed between
        passes.

    Returns
    -------
    Stack or BidirectionalStack
        Copy of `stack` that shares all parameters and buffers with it. The outputs equal those of `stack` up to
        rounding, unless rounding changes which map a block selects. The derivatives, including those with respect
        to the inputs, are estimates.
    """
    kernels = (part.kernels for part in stack.modules() if hasattr(part, "kernels"))
    shared = {id(one): one for one in (*stack.parameters(), *stack.buffers(), *kernels)}
    made = copy.deepcopy(stack, shared)
    for part in made.modules():
        if isinstance(part, PdSsm):
            part.surrogate = surrogate
    return made
