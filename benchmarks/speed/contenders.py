"""The contenders by name."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.speed import blocks, files, paper, parity, peers, scans, windows
from benchmarks.speed.settings import Settings
from genoscan.model import Model

Build = Callable[[Model, Settings], Callable[[windows.Codes], Callable[[], Any]]]


@dataclass(frozen=True)
class Contender:
    """One way to compute something.

    build    model, settings -> function of the codes -> function without arguments, which is
             timed and returns a tensor, or counts of its work
    about    description
    side     ours; baseline: torch's own way; peer: other programs
    error    error of the result on the short window; None: not a derivative
    needs    packages that must be installed
    """

    build: Build
    about: str
    side: Literal["ours", "baseline", "peer"] = "ours"
    error: Callable[[Any, parity.Truth], float] | None = None
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Return the packages that are needed and not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


CONTENDERS: dict[str, Contender] = {
    "genoscan": Contender(
        windows.engine, "adjoint engine, tile by tile, as attribute runs it", error=parity.gradient_error
    ),
    "autograd": Contender(
        windows.whole,
        "torch autograd over the whole window, through genoscan's layers and kernels",
        "baseline",
        parity.gradient_error,
    ),
    "checkpoint": Contender(
        windows.checkpointed,
        "the same, each block under torch.utils.checkpoint (use_reentrant=False)",
        "baseline",
        parity.gradient_error,
    ),
    "transformers": Contender(
        peers.transformers(use_mambapy=False),
        "MambaForCausalLM, autograd, eval, frozen, use_cache=False, its default path",
        "peer",
        parity.gradient_error,
        ("transformers",),
    ),
    "transformers-mambapy": Contender(
        peers.transformers(use_mambapy=True),
        "the same with use_mambapy=True: mambapy's scan inside",
        "peer",
        parity.gradient_error,
        ("transformers", "mambapy"),
    ),
    "mambapy": Contender(
        peers.mambapy,
        "mambapy.mamba.Mamba, autograd, eval, frozen, pscan=True",
        "peer",
        parity.gradient_error,
        ("mambapy",),
    ),
    "forward": Contender(windows.forward, "log-likelihood tile by tile, no derivative", error=parity.value_error),
    "tangent-1": Contender(windows.tangents(1), "tangent engine, one direction", error=parity.slopes_error),
    "tangent-8": Contender(
        windows.tangents(8), "tangent engine, eight directions in one sweep", error=parity.slopes_error
    ),
    "scan-forward": Contender(scans.forward, "scan kernel, no derivative, one tile over again"),
    "scan-vjp": Contender(scans.vjp, "scan kernel, its vjp alone, one tile over again"),
    "exp": Contender(scans.exponentials, "torch.exp in pieces of 8,192 elements", "baseline"),
    "exp-rate": Contender(scans.exp_rate, "256 exponentials a number, in registers", "baseline"),
    "copy": Contender(scans.copies, "memory to memory", "baseline"),
    "regions-batched": Contender(files.attribute(cut=True), "FASTA to bigWig, many regions, in batches"),
    "regions-single": Contender(
        files.attribute(cut=True, batched=False), "FASTA to bigWig, many regions, one at a time"
    ),
    "attribute": Contender(files.attribute(cut=False), "FASTA to bigWig, one sequence as one window"),
    "paper-tangent": Contender(
        paper.tile_scan,
        "PGF's tile scan written anew: one direction, tiles of 64, no_grad",
        "peer",
        parity.tile_scan_error,
    ),
    "paper-adjoint": Contender(
        paper.layer_adjoint, "the same layer and weights: every input's derivative", error=parity.layer_adjoint_error
    ),
} | {
    f"{kind}-block": Contender(
        blocks.block_adjoint(kind),
        f"one block with its defaults, {blocks.CHANNELS} channels: every input's derivative; "
        f"{blocks.multiply_adds(kind):,} multiply-adds a base forward",
        error=parity.block_error(kind),
    )
    for kind in ("mamba", "pd_ssm")
}
