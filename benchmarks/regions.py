"""Speed and error of many regions whose windows overlap: joined to one window, or read apart.

The error is the relative L2 difference of the centred derivatives from those of a run over the whole sequence, on
the scored bases.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.clock import timed
from benchmarks.run import write_text
from benchmarks.threshold import at_least, at_most, row
from genoscan.genome.genome import Genome, open_genome
from genoscan.genome.region import Region
from genoscan.job import Options, prepare
from genoscan.model import Model, load_model
from genoscan.pipeline import attribute_batch
from genoscan.tracks.store import arrays_in_memory


def random_regions(chrom: str, size: int, count: int, length: int) -> list[Region]:
    """Return random regions of a sequence that do not overlap, in genome order."""
    draw = random.Random(1)
    starts = sorted(draw.sample(range(size - count * length), count))
    return [Region(chrom, start + i * length, start + (i + 1) * length) for i, start in enumerate(starts)]


def tiled_regions(chrom: str, size: int, length: int) -> list[Region]:
    """Return regions of equal length that cover a sequence, except for its end."""
    return [Region(chrom, start, start + length) for start in range(0, size - length + 1, length)]


def columns(genome: Genome, model: Model, regions: list[Region], **options: Any) -> np.ndarray:
    """Return the derivatives at the bases of regions, less their mean over the four columns; NaN at N."""
    job = prepare(genome, model, regions, Options(**options))
    arrays = arrays_in_memory(job.regions)
    for batch in job.batches:
        attribute_batch(job, batch, arrays)
    assert arrays.columns is not None
    return np.asarray(arrays.columns - arrays.columns.mean(1, keepdims=True))


def compare(
    genome: Genome, model: Model, regions: list[Region], strand: str, name: str, bar: float
) -> list[dict[str, Any]]:
    """Measure joined windows against windows apart, in one run."""
    chrom = regions[0].chrom
    options = {"strand": strand}
    joined_seconds, joined = timed(lambda: columns(genome, model, regions, **options), model.device.type)
    apart_seconds, apart = timed(lambda: columns(genome, model, regions, apart=True, **options), model.device.type)
    whole = columns(genome, model, [Region(chrom, 0, genome.sizes[chrom])], **options)
    truth = np.concatenate([whole[region.start : region.end] for region in regions])
    known = np.isfinite(truth).all(1)
    errors = [float(np.linalg.norm((c - truth)[known]) / np.linalg.norm(truth[known])) for c in (joined, apart)]
    seconds = {"joined": joined_seconds, "apart": apart_seconds}
    return [
        row(f"{name}: times as fast as apart", apart_seconds / joined_seconds, "x", at_least(bar), seconds=seconds),
        row(f"{name}: error of joined windows", errors[0], "relative", at_most(errors[1]), apart=errors[1]),
    ]


def measure(
    genome_path: Path, model_name: str, output: Path, *, count: int, length: int, device: str
) -> list[dict[str, Any]]:
    """Measure random regions and a tiling of the first sequence of a genome; write the rows to regions.json.

    Parameters
    ----------
    genome_path, model_name
        Genome and model.
    output
        Folder to write to.
    count, length
        Number and length of the random regions.
    device
        "cpu" or "cuda".
    """
    genome, model = open_genome(genome_path), load_model(model_name, device=device)
    chrom, size = next(iter(genome.sizes.items()))
    columns(genome, model, [Region(chrom, 0, 2_000)])  # kernels are loaded
    rows = compare(genome, model, random_regions(chrom, size, count, length), "both", f"{count} of {length} bp", 5)
    tiles = tiled_regions(chrom, size, 2_114)
    rows += compare(genome, model, tiles, "+", f"{len(tiles):,} tiles of 2,114 bp", 2.5)
    document = {
        **machine.circumstances(device),
        "threads": torch.get_num_threads(),
        "genome": genome_path.name,
        "model": model_name,
        "rows": rows,
    }
    write_text(output / "regions.json", json.dumps(document, indent=1) + "\n")
    return rows
