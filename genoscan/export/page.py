"""One HTML file: igv.js, the bases, the tracks and the genes; it may not ask any server.

What is too large for one file has a folder beside it, PAGE_files, and has to be served with it.

igv.js is shipped as it is (vendor/); what it is given, and why:
    fastaURL   the bases around the scores alone, as slices that say where they lie
    merged     each track twice, by its highest and its lowest scores: a mean over a pixel of many
               bases would hide a peak of some
    graphType  dynseq: letters as high as the score, from where letters can be read
"""

import base64
import gzip
import html
import json
import shutil
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from genoscan.export.finished import Finished, format_locus, opening, track_names
from genoscan.export.twobit import write_two_bit
from genoscan.genome.alphabet import decode
from genoscan.genome.genome import Genome
from genoscan.genome.plan import merge
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors

_IGV = "igv-3.8.10.min.js"
_FLANK = 1_000
"""Bases shown on either side of what has a score."""

_MOST = 5_000_000
"""Bases of all tracks together, at 7 to 8 bytes each in the page."""

_GENOME = "genome.2bit"

_COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7"

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';
 style-src 'unsafe-inline'; img-src data: blob:; connect-src {asked}; font-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1rem; }} dt {{ font-weight: 600; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }} dd {{ margin: 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<dl>{told}</dl>
<p><label>Regions with scores: <select id="places">{places}</select></label></p>
<main id="browser"></main>
<script>{igv}</script>
<script>
const config = {config};
config.tracks = config.tracks.map(track => track.type !== "wig" ? track : {{
  type: "merged", name: track.name, height: track.height, alpha: 1, autoscale: true,
  tracks: ["max", "min"].map(windowFunction => ({{ ...track, windowFunction }})),
}});
igv.createBrowser(document.getElementById("browser"), config)
  .then(browser => {{
    const places = document.getElementById("places");
    places.addEventListener("change", () => browser.search(places.value));
    document.body.dataset.ready = "yes";
  }})
  .catch(error => {{ document.body.prepend(String(error)); }});
</script>
</body>
</html>
"""


class _Sources(NamedTuple):
    """Where a page gets the bases and each track from; `asked` is all that it may ask."""

    bases: Mapping[str, Any]
    urls: Sequence[str]
    asked: str


def write_page(
    output: Path,
    genome: Genome,
    tracks: Sequence[Finished],
    annotation: Sequence[Region] = (),
    *,
    locus: Region | None = None,
) -> Path | None:
    """Write a page that shows these tracks, opened at `locus` or at the first region.

    Size: 1.5 MB, and per base with a score about 8 bytes a track.  Tracks of more than 5,000,000
    bases lie in a folder beside it, a copy of each, with the genome as .2bit.

    Returns that folder, or None.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    shown = list(_shown(genome, tracks))
    bases = sum(len(region) for track in tracks for region in track.regions)
    if bases <= _MOST:
        bare = {"indexed": False, "fastaURL": _data("application/gzip", _slices(genome, shown))}
        urls = [_data("application/octet-stream", track.path.read_bytes()) for track in tracks]
        folder, sources = None, _Sources(bare, urls, "data:")
    else:
        folder = output.with_name(f"{output.stem}_files")
        urls = [quote(f"{folder.name}/{track.path.name}") for track in tracks]
        sources = _Sources({"twoBitURL": quote(f"{folder.name}/{_GENOME}")}, urls, "'self'")
        _write_files(folder, genome, tracks)
    text = _page(genome, tracks, annotation, shown, locus, sources)
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text, encoding="utf-8")
    return folder


def _write_files(folder: Path, genome: Genome, tracks: Sequence[Finished]) -> None:
    with os_errors(folder):
        folder.mkdir(exist_ok=True)
    write_two_bit(folder / _GENOME, genome)
    for track in tracks:
        with atomic_write(folder / track.path.name) as part, os_errors(folder):
            shutil.copyfile(track.path, part)


def _page(
    genome: Genome,
    tracks: Sequence[Finished],
    annotation: Sequence[Region],
    shown: Sequence[Region],
    locus: Region | None,
    sources: _Sources,
) -> str:
    config = {
        "loadDefaultGenomes": False,
        "reference": {
            "id": genome.path.name,
            "name": genome.path.name,
            "wholeGenomeView": False,
            **sources.bases,
        },
        "locus": opening(tracks, locus),
        "tracks": [
            *(
                _track(track, url, _COLOURS[i % len(_COLOURS)])
                for i, (track, url) in enumerate(zip(tracks, sources.urls, strict=True))
            ),
            *_genes(annotation, shown),
        ],
    }
    regions = merge((r for track in tracks for r in track.regions), genome.sizes, by_strand=False)
    seen = locus or tracks[0].regions[0]
    open_at = next((region for region in regions if _overlap(seen, region)), None)
    places = "".join(
        f"<option{' selected' * (region is open_at)}>{html.escape(format_locus(region))}</option>"
        for region in regions
    )
    told = "".join(
        f"<dt>{html.escape(track.name)}</dt><dd>{html.escape(track.description)}</dd>"
        for track in tracks
    )
    return _PAGE.format(
        asked=sources.asked,
        title=html.escape(track_names(tracks)),
        told=told,
        places=places,
        igv=files("genoscan.export").joinpath("vendor", _IGV).read_text("utf-8"),
        # Whatever a name holds, it cannot end the script.
        config=json.dumps(config).replace("<", "\\u003c"),
    )


def _overlap(a: Region, b: Region) -> bool:
    return a.chrom == b.chrom and a.start < b.end and b.start < a.end


def _shown(genome: Genome, tracks: Sequence[Finished]) -> Iterator[Region]:
    """Yield what the page holds of the genome: where there are scores, and around."""
    around = [
        Region(
            region.chrom,
            max(0, region.start - _FLANK),
            min(genome.sizes[region.chrom], region.end + _FLANK),
        )
        for track in tracks
        for region in track.regions
    ]
    yield from merge(around, genome.sizes, by_strand=False)


def _slices(genome: Genome, shown: Sequence[Region]) -> bytes:
    """Return FASTA whose headers say where each piece lies, and how long its sequence is."""
    pieces = (
        f">{r.chrom}:{r.start + 1}-{r.end} @len={genome.sizes[r.chrom]}\n".encode()
        + decode(genome.fetch(r.chrom, r.start, r.end))
        for r in shown
    )
    return gzip.compress(b"\n".join(pieces), mtime=0)


def _track(track: Finished, url: str, colour: str) -> dict[str, Any]:
    return {
        "type": "wig",
        "format": "bigwig",
        "name": track.name,
        "url": url,
        "graphType": "dynseq",
        "height": 140,
        "color": colour,
        "altColor": colour,
    }


def _genes(annotation: Sequence[Region], shown: Sequence[Region]) -> Iterator[dict[str, Any]]:
    pieces: dict[str, list[Region]] = defaultdict(list)
    for region in shown:
        pieces[region.chrom].append(region)

    def is_shown(gene: Region) -> bool:
        here = pieces[gene.chrom]  # in order, and apart from one another
        i = bisect_right(here, gene.start, key=lambda piece: piece.end)
        return i < len(here) and here[i].start < gene.end

    features = [
        {"chr": g.chrom, "start": g.start, "end": g.end, "name": g.name, "strand": g.strand}
        for g in annotation
        if is_shown(g)
    ]
    if features:
        yield {"type": "annotation", "name": "genes", "displayMode": "EXPANDED",
               "features": features}  # fmt: skip


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
