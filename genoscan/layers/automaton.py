"""Finite automata as PD-SSM models: exact, without training.

A map of the dictionary is a symbol's column of the transition table, the router reads the symbol,
decays are 1 and nothing flows in: the state is a one-hot vector that only ever moves (Terzić et
al., NeurIPS 2025, Proposition 2).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.linear import Linear
from genoscan.layers.norm import RMSNorm
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
    """Return a model of one block that runs these automata side by side, one a head.

    transitions[h, q, s] is where automaton h goes from state q on symbol s; `start` has each one's
    first state.  Input is one-hot, (batch, length, symbols), N a symbol like any other.  Outputs,
    (batch, length, heads x states), are largest among a head's at the state that it is in after
    the base: exactly so, at any length.

    Raises
    ------
    ModelError
        If a destination or a start is no state, or there is not a start for every automaton.
    """
    heads, n_states, n_symbols = transitions.shape
    if len(start) != heads:
        raise ModelError(f"start: {len(start)} states, expected one for each of {heads} automata")
    for name, states in (("transitions", transitions), ("start", torch.tensor(start))):
        if not bool(((states >= 0) & (states < n_states)).all()):
            raise ModelError(f"{name}: a state is outside 0 to {n_states - 1}")
    width = n_symbols + heads * n_states
    block = PdSsmConfig(
        heads=heads, d_state=n_states, n_maps=n_symbols, d_conv=1, expand=1, rank=1
    )  # fmt: skip
    shared: dict[str, Any] = {"eps": 1e-5, "kernels": choose(device, kernels)}
    layer = PdSsm(block, width, **shared)
    embed = Linear(n_symbols, width, bias=False, kernels=shared["kernels"])
    head = Linear(width, heads * n_states, bias=False, kernels=shared["kernels"])
    with torch.no_grad():
        for part in (embed, layer, head):
            for name, weight in part.state_dict().items():
                weight.fill_(1 if name == "norm.weight" else 0)
        _write(embed.weight, layer, head.weight, transitions, start)
    stack = Stack(embed, [layer], RMSNorm(width, **shared), head)
    return stack.to(device).requires_grad_(False)


def _write(
    embed: Tensor, layer: PdSsm, head: Tensor, transitions: Tensor, start: Sequence[int]
) -> None:
    """Write what is not zero: symbols lie in the first channels, states in those behind."""
    heads, n_states, n_symbols = transitions.shape
    width, sources = n_symbols + heads * n_states, torch.arange(n_states)
    symbols, channels = torch.arange(n_symbols), torch.arange(n_symbols, width)
    embed[symbols, symbols] = 1
    layer.in_proj.weight[:width] = torch.eye(width)
    layer.in_proj.weight[width:, :n_symbols] = 1  # a gate as wide open for every symbol
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
    """Return the automata of the forward strand's three frames, for A, C, G, T and N.

    Frame f has its first codon at base f.  A state of 8 or more is inside an open reading frame:
    from the last base of an ATG to the second of the stop codon (TAA, TAG, TGA) that ends it.
    A codon with an N starts and ends nothing.
    """
    # What has been read of a codon, as far as it matters; a dot is anything else.
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
    # Frames 1 and 2 begin with the end of a codon that nothing is known of.
    return transitions, [prefixes.index(""), prefixes.index(".."), prefixes.index(".")]
