"""Errors and speeds, on the GPU, of what is built upon the engine.

These are effects of variants, mutagenesis, dependency maps, attributions along a path, and joined windows.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import genoscan
from benchmarks import regions, variants
from benchmarks.gpu_parity import Errors, worst
from benchmarks.speed.sequence import real_bases, shipped_genome, write_fasta
from genoscan.genome.alphabet import decode
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.model import Model, load_model


def command_errors(path: Path, folder: Path, device: str, length: int) -> Errors:
    """Yield the errors of a model's results on a device, in float64 and float32, against the CPU in float64."""
    fasta = folder / "commands.fa"
    write_fasta(fasta, "chr", real_bases(shipped_genome(), length))
    truth = load_model(path, dtype=torch.float64, kernels="reference", tile=max(2, length // 3))
    for dtype in (torch.float64, torch.float32):
        model = load_model(path, device=device, dtype=dtype, kernels="triton", tile=max(2, length // 3))
        for name, compute in _COMMANDS.items():
            found, exact = (torch.from_numpy(compute(each, fasta, length)) for each in (model, truth))
            known = exact.isfinite()
            if not torch.equal(found.isfinite(), known):
                raise ValueError(f"{name}: the result is finite at other positions than on the CPU")
            yield f"{name}, {str(dtype).removeprefix('torch.')}", worst((found[known],), (exact[known],))


def _variants(model: Model, fasta: Path, length: int) -> np.ndarray:
    letters = decode(real_bases(shipped_genome(), length)).decode()
    asked = [f"chr:{i + 1}:{letters[i]}>{'ACGT'[('ACGT'.index(letters[i]) + 1) % 4]}" for i in range(1, length - 1, 3)]
    # An insertion and a deletion, too.
    asked += [f"chr:2:{letters[1]}>{letters[1]}GC", f"chr:2:{letters[1:3]}>{letters[1]}"]
    found = genoscan.score_variants(fasta, asked, model, context=length, reach=length, first_order=True)
    assert set(found.status) == {"ok"}, found.status
    return np.stack([found.columns[name] for name in ("delta", "own", "first")])


def _mutate(model: Model, fasta: Path, length: int) -> np.ndarray:
    return genoscan.mutate((fasta, f"chr:1-{length}"), model, context=length, reach=length).raw


def _map(model: Model, fasta: Path, length: int) -> np.ndarray:
    return np.nan_to_num(genoscan.map_dependencies((fasta, f"chr:1-{length}"), model).dense())


def _path(model: Model, fasta: Path, length: int) -> np.ndarray:
    found = genoscan.attribute((fasta, f"chr:1-{length}"), model, method="integrated-gradients", steps=4)
    return np.asarray(found.gradient)


def _joined(model: Model, fasta: Path, length: int) -> np.ndarray:
    third = max(1, length // 3)
    asked = [Region("chr", start, start + third) for start in (0, length - third)]
    return regions.columns(open_genome(fasta), model, asked, context=third, reach=third)


_COMMANDS: dict[str, Callable[[Model, Path, int], np.ndarray]] = {
    "variants": _variants,
    "mutagenesis": _mutate,
    "dependency map": _map,
    "integrated gradients": _path,
    "joined windows": _joined,
}


def command_speeds(device: str, model: Path | str, count: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of `benchmarks variants` and `benchmarks regions` that measure speed."""
    loaded, genome = load_model(model, device=device), shipped_genome()
    size = open_genome(genome).sizes
    chrom = next(iter(size))
    with tempfile.TemporaryDirectory(prefix="genoscan-gpu-") as name:
        yield from variants.variants(genome, loaded, count, Path(name))
    regions.columns(open_genome(genome), loaded, [Region(chrom, 0, 20_000)])  # kernels are compiled
    peaks = regions.random_regions(chrom, size[chrom], max(2, count // 2), 400)
    yield from regions.compare(open_genome(genome), loaded, peaks, "both", f"{len(peaks)} of 400 bp", 5)
