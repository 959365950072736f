"""Period 3 of a finished track, by the genes of an annotation."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.period3.periodogram import (
    CodonMeans,
    Interval,
    Period3,
    Periodograms,
    mean_by_codon_position,
    mean_periodograms,
    period3,
)
from genoscan.errors import InputError
from genoscan.genome.genbank import GenBankFeature, read_features
from genoscan.tracks.score import centred

_GENIC = ("gene", "CDS", "tRNA", "rRNA", "ncRNA", "tmRNA", "misc_RNA")


@dataclass(frozen=True)
class Comparison:
    """Period 3 of the track and, for comparison, of the sequence's own G+C."""

    chrom: str
    results: dict[str, Period3]
    periodograms: Periodograms
    by_codon: CodonMeans


def compare(archive: Path, annotation: Path) -> Comparison:
    """Measure the centred score of a `.npz` track of one whole annotated sequence.

    Parameters
    ----------
    archive
        As `genoscan attribute` writes it.
    annotation
        GenBank file with that sequence.

    Raises
    ------
    InputError
        If the archive is not a track of one whole sequence of the annotation.
    """
    try:
        with np.load(archive, allow_pickle=False) as track:
            gradient, codes, chroms = track["gradient"], track["codes"], track["chrom"]
    except OSError as error:
        raise InputError(f"{archive}: {error.strerror}") from None
    except (ValueError, KeyError, zipfile.BadZipFile):
        raise InputError(f"{archive}: not a .npz track that attribute has written") from None
    features = [f for f in read_features(annotation) if [f.chrom] == chroms.tolist()]
    if not features:
        raise InputError(f"{archive}: holds {', '.join(chroms[:3])}, expected one whole sequence of {annotation}")
    coding = [f for f in features if f.kind == "CDS"]
    whole = [f for f in coding if len(f.parts) == 1 and f.strand in "+-"]
    inside, genic = _intervals(coding), _intervals([f for f in features if f.kind in _GENIC])
    scores = centred(gradient, codes)
    strong = np.isin(codes, (1, 2)).astype(np.float32)
    return Comparison(
        chrom=str(chroms[0]),
        results={"track": period3(scores, inside, genic), "G+C": period3(strong, inside, genic)},
        periodograms=mean_periodograms(scores, inside, genic),
        by_codon=mean_by_codon_position(scores, _intervals(whole), [f.strand for f in whole]),
    )


def _intervals(features: list[GenBankFeature]) -> list[Interval]:
    return [(part.start, part.end) for feature in features for part in feature.parts]
