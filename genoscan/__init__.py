"""Exact per-base sensitivities of Mamba DNA models, as genome browser tracks.

    import genoscan
    from pathlib import Path

    genome = genoscan.open_genome("chr.fa")
    model = genoscan.load_model(genoscan.find_model("bacteria"))
    region = genoscan.parse_region("chr1:10,001-20,000", genome.sizes)
    job = genoscan.prepare(genome, model, [region], genoscan.Options(strand="both"))
    genoscan.write_sensitivities(job, [Path("sensitivity.bw")])

Names are imported when they are first used, so that `import genoscan` is quick.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "GenoscanError": "errors",
    "InputError": "errors",
    "LogLikelihood": "engine.target",
    "LogitAt": "engine.target",
    "ModelError": "errors",
    "OneHot": "engine.inputs",
    "Options": "job",
    "OutputError": "errors",
    "Probe": "response",
    "Region": "genome.region",
    "adjoint": "engine.adjoint",
    "consume": "engine.adjoint",
    "find_model": "layers.catalogue",
    "load_model": "layers.weights",
    "open_genome": "genome.genome",
    "parse_region": "genome.region",
    "prepare": "job",
    "read_bed": "genome.bed",
    "tangent": "engine.tangent",
    "write_response": "response",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genoscan' has no attribute '{name}'")
    return getattr(importlib.import_module(f"genoscan.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
