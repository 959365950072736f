"""Genes and variants as tracks of a genome browser page, with all features in the configuration of igv.js.

Names are not escaped, because igv.js draws them on a canvas, and page.js creates their popups.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from genoscan.export.scored_variants import ScoredVariant, strongest
from genoscan.genome.feature import Feature, Transcript
from genoscan.genome.region import Region

_MAX_VARIANTS = 20_000
_INCREASE, _DECREASE = "#0072b2", "#d55e00"


def _visibility(visible: Sequence[Region]) -> Callable[[Region], bool]:
    """Return a function that determines whether any base of a region is visible."""
    pieces: dict[str, list[Region]] = defaultdict(list)
    for region in visible:
        pieces[region.chrom].append(region)

    def is_visible(region: Region) -> bool:
        here = pieces[region.chrom]  # sorted and disjoint
        i = bisect_right(here, region.start, key=lambda piece: piece.end)
        return i < len(here) and here[i].start < region.end

    return is_visible


def variant_tracks(
    variants: Sequence[ScoredVariant], visible: Sequence[Region], names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the igv.js track of the variants in the visible regions, or nothing if there are none there.

    Parameters
    ----------
    variants
        Scored variants; the 20,000 with the largest absolute effects are included.
    visible
        Regions that the page shows, sorted and disjoint.
    names
        Names within igv.js of the sequences that are renamed there, by their names in the genome.

    Yields
    ------
    dict
        Configuration of the track.
    """
    is_visible = _visibility(visible)
    features = []
    for variant in strongest([v for v in variants if v.region is not None and is_visible(v.region)], _MAX_VARIANTS):
        at, name = variant.region, f"{variant.alleles} {variant.delta:.4g}"
        assert at is not None
        features.append(
            {
                "chr": names.get(at.chrom, at.chrom),
                "start": at.start,
                "end": at.end,
                "name": name if variant.allele.id == "." else f"{variant.allele.id} {name}",
                "color": _INCREASE if variant.delta > 0 else _DECREASE,
            }
        )
    if features:
        features.sort(key=lambda feature: (feature["chr"], feature["start"]))
        yield {
            "type": "annotation",
            "name": "variants",
            "displayMode": "EXPANDED",
            "features": features,
            "baseline": True,  # for page.js
        }


def gene_tracks(
    annotation: Sequence[Feature], visible: Sequence[Region], names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the igv.js track of the genes in the visible regions, or nothing if there are none there.

    Parameters
    ----------
    annotation
        Genes or other features. Each transcript of a gene is drawn separately.
    visible
        Regions that the page shows, sorted and disjoint.
    names
        Names within igv.js of the sequences that are renamed there, by their names in the genome.

    Yields
    ------
    dict
        Configuration of the track.
    """
    is_visible = _visibility(visible)
    features = [
        {"chr": names.get(g.chrom, g.chrom), "start": g.start, "end": g.end, "name": g.name, "strand": g.strand} | shape
        for g in annotation
        if is_visible(g)
        for shape in map(_exons, g.transcripts or (None,))
    ]
    if features:
        yield {
            "type": "annotation",
            "name": "genes",
            "displayMode": "EXPANDED",
            "autoHeight": True,
            "maxHeight": 300,
            "features": features,
        }


def _exons(transcript: Transcript | None) -> dict[str, Any]:
    """Return the properties with which igv.js draws a transcript, or an empty dict for no transcript.

    Untranslated parts of exons are marked, because igv.js draws them thinner than coding parts.
    """
    if transcript is None:
        return {}
    exons: list[dict[str, int | bool]] = []
    for start, end in transcript.exons:
        exon: dict[str, int | bool] = {"start": start, "end": end}
        if transcript.coding is not None:
            first, last = max(start, transcript.coding[0]), min(end, transcript.coding[1])
            if first >= last:
                exon["utr"] = True
            elif (first, last) != (start, end):
                exon |= {"cdStart": first, "cdEnd": last}
        exons.append(exon)
    return {"start": transcript.start, "end": transcript.end, "exons": exons}
