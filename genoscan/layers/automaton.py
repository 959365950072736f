"""PD-SSM models that run finite automata exactly, without training.

Each transition map of the model is the transition function of an automaton for one symbol, and the router
selects the map for the current symbol. All decays are 1, and nothing is added to the state. The state
vector therefore remains one-hot: each map moves the 1 to the entry of the next state of the automaton
(Terzić et al., NeurIPS 2025, Proposition 2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.linear import Linear
from genoscan.layers.norm import NormConfig, build_norm
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig
from genoscan.layers.stack import Stack
from genoscan.ops.dispatch import choose


def from_automaton(
    transitions: Int64[Tensor, "heads states symbols"],
    start: Sequence[int],
    *,
    device: str = "cpu",
    kernels: str = "auto",
) -> Stack:
    """Return a model with one block, in which each head runs one automaton.

    Parameters
    ----------
    transitions
        Integer tensor of shape (heads, states, symbols). `transitions[h, q, s]` is the state that automaton
        `h` enters when it reads symbol `s` in state `q`.
    start
        Initial state of each automaton.
    device
        Device of the model.
    kernels
        Name of the kernel set (see `ops.dispatch.choose`).

    Returns
    -------
    Stack
        Model with frozen weights. Its input is one-hot, of shape (batch, length, symbols); N, like any
        other base, must be one of the symbols. The output has the shape (batch, length, heads x states).
        For each head, the index of the largest output at a base is the state of the automaton after it has
        read this base.

    Raises
    ------
    ModelError
        If a state is out of range, or if `start` does not contain one state per automaton.

    Notes
    -----
    The model reproduces the automata exactly for sequences of any length.
    """
    heads, n_states, n_symbols = transitions.shape
    if len(start) != heads:
        raise ModelError(f"start: {len(start)} states, expected one for each of {heads} automata")
    for name, states in (("transitions", transitions), ("start", torch.tensor(start))):
        if not bool(((states >= 0) & (states < n_states)).all()):
            raise ModelError(f"{name}: state out of range, expected 0 to {n_states - 1}")
    width = n_symbols + heads * n_states
    block = PdSsmConfig(heads=heads, d_state=n_states, n_maps=n_symbols, d_conv=1, expand=1, rank=1)
    norm, shared = NormConfig(), {"kernels": choose(device, kernels)}
    layer = PdSsm(block, width, norm=norm, **shared)
    embed = Linear(n_symbols, width, bias=False, **shared)
    head = Linear(width, heads * n_states, bias=False, **shared)
    with torch.no_grad():
        for part in (embed, layer, head):
            for name, weight in part.state_dict().items():
                weight.fill_(1 if name == "norm.weight" else 0)
        _write(embed.weight, layer, head.weight, transitions, start)
    stack = Stack(embed, [layer], build_norm(norm, width, **shared), head)
    return stack.to(device).requires_grad_(False)


def _write(embed: Tensor, layer: PdSsm, head: Tensor, transitions: Tensor, start: Sequence[int]) -> None:
    """Set the weights of the model that are not zero.

    The first channels represent the symbols. The remaining channels represent the states of all automata.
    """
    heads, n_states, n_symbols = transitions.shape
    width, sources = n_symbols + heads * n_states, torch.arange(n_states)
    symbols, channels = torch.arange(n_symbols), torch.arange(n_symbols, width)
    embed[symbols, symbols] = 1
    layer.in_proj.weight[:width] = torch.eye(width)
    layer.in_proj.weight[width:, :n_symbols] = 1  # the same gate for every symbol
    layer.conv.weight.fill_(1)
    layer.router.weight.view(heads, n_symbols, width)[:, symbols, symbols] = 1
    for i in range(heads):
        layer.start[i, 0, start[i]] = 1
        for symbol in range(n_symbols):
            layer.dictionary[i, symbol, transitions[i, :, symbol], sources] = 1
    layer.C_proj.bias.view(heads, 2, n_states)[:, 0] = 1
    layer.state_out.weight[channels] = torch.eye(heads * n_states)
    layer.out_proj.weight.copy_(torch.eye(width))
    head[:, channels] = torch.eye(heads * n_states)


def open_reading_frames() -> tuple[Int64[Tensor, "frames states symbols"], list[int]]:
    """Return automata that recognise open reading frames in the three forward frames.

    Returns
    -------
    transitions
        Integer tensor of shape (3, 16, 5). The axes are frames, states and symbols. The order of the
        symbols is A, C, G, T, N.
    start
        Initial state of each automaton.

    Notes
    -----
    The first complete codon of frame `f` starts at base `f`, counted from 0. The state of an automaton is
    one of 8 to 15 inside an open reading frame, and one of 0 to 7 elsewhere. An open reading frame extends
    from the last base of an ATG to the second base of the first stop codon (TAA, TAG or TGA) in the same
    frame. A codon that contains an N is neither a start codon nor a stop codon.
    """
    # Distinguishable prefixes of a codon; a dot stands for any other base.
    prefixes = ["", "A", "T", ".", "AT", "TA", "TG", ".."]
    transitions = torch.zeros(3, 16, 5, dtype=torch.long)
    for inside in (False, True):
        for place, prefix in enumerate(prefixes):
            for symbol, base in enumerate("ACGTN"):
                read, now = prefix + base, inside
                if len(read) == 3:
                    now = read not in ("TAA", "TAG", "TGA") if inside else read == "ATG"
                    read = ""
                elif read not in prefixes:
                    read = "." * len(read)
                transitions[:, 8 * inside + place, symbol] = 8 * now + prefixes.index(read)
    # Frames 1 and 2 begin inside a codon whose first bases precede the sequence.
    return transitions, [prefixes.index(""), prefixes.index(".."), prefixes.index(".")]
