"""Exact per-base sensitivities of Mamba DNA models, as genome browser tracks.

    import genoscan

    model = genoscan.load_model("bacteria")
    found = genoscan.attribute("ACGTTGCAAGGCTTAACGATTGC", model)
    found.to_dataframe().nlargest(5, "score")
    found.plot()
    found.to_bigwig("sensitivity.bw")

Each name is imported on first use to keep `import genoscan` fast.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Adjoint": "engine.methods",
    "Attribution": "attribution",
    "Attributions": "attribution",
    "BidirectionalLayer": "layer",
    "DependencyMap": "dependency.dependency_map",
    "FrechetMambaOperator": "pgf",
    "GenoscanError": "errors",
    "InputError": "errors",
    "Layer": "layer",
    "Layerwise": "engine.methods",
    "LogLikelihood": "engine.target",
    "LogitSum": "engine.target",
    "Model": "model",
    "ModelError": "errors",
    "MutationEffects": "effects.mutagenesis_files",
    "NonFiniteError": "errors",
    "OutputError": "errors",
    "Region": "genome.region",
    "VariantScores": "effects.variants",
    "attribute": "api",
    "attribute_regions": "api",
    "import_model": "importer",
    "load_model": "importer",
    "map_dependencies": "api_effects",
    "mutate": "api_effects",
    "open_genome": "genome.genome",
    "parse_region": "genome.region",
    "predict": "api",
    "read_track": "tracks.track_reader",
    "response": "api_effects",
    "score_variants": "api_effects",
    "summarize_regions": "tracks.region_table",
    "verify": "api",
    "wrap": "importer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genoscan' has no attribute '{name}'")
    return getattr(importlib.import_module(f"genoscan.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
