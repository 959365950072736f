"""Whole jobs, from FASTA to finished bigWig, through the pipeline of `attribute`."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.speed.sequence import write_fasta
from benchmarks.speed.settings import Settings
from benchmarks.speed.windows import Codes
from genoscan import pipeline
from genoscan.engine.methods import Adjoint
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.job import Options, prepare
from genoscan.model import Model

_CHROM = "bench"


def attribute(
    *, cut: bool, batched: bool = True
) -> Callable[[Model, Settings], Callable[[Codes], Callable[[], dict[str, float]]]]:
    """Return a builder of a job: one window, or regions without context or reach."""

    def build(model: Model, settings: Settings) -> Callable[[Codes], Callable[[], dict[str, float]]]:
        def prepare_files(codes: Codes) -> Callable[[], dict[str, float]]:
            folder = Path(tempfile.mkdtemp(prefix="genoscan-bench-"))
            path, track = folder / "bench.fa", folder / "bench.bw"
            write_fasta(path, _CHROM, codes[0].numpy())
            length = codes.shape[1]
            size = settings.region if cut else length
            regions = [Region(_CHROM, start, min(start + size, length)) for start in range(0, length, size)]
            options = Options(context=0, reach=0, batch=settings.batch if batched else 1)
            method = Adjoint(settings.tile, settings.slots_for(size))
            timed = replace(model, method=method)

            def run() -> dict[str, float]:
                job = prepare(open_genome(path), timed, regions, options)
                record = pipeline.run(job, [track])
                return {"scored_bases": record["scored_bases"], "regions": len(regions)}

            weakref.finalize(run, shutil.rmtree, folder)
            return run

        return prepare_files

    return build
