"""Files with the effects of all substitutions: archives, tables and tracks."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import BASES, N
from genoscan.genome.region import Region
from genoscan.notebook import largest_rows, show_frame
from genoscan.tracks.atomic import AtomicFiles, os_errors
from genoscan.tracks.columns import write_effects
from genoscan.tracks.outputs import check_distinct, check_file, check_outputs
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.writer import BEDGRAPH, BIGWIG, open_tracks, split_suffix, write_in_pieces

if TYPE_CHECKING:
    import pandas as pd

MEAN, STRONGEST = "mean", "strongest"
ARCHIVES = ".npz", ".h5"
_TABLES = ".tsv", *ARCHIVES


@dataclass(frozen=True, repr=False)
class MutationEffects:
    """Effects of all substitutions of some regions.

    Attributes
    ----------
    regions
        Regions in genome order.
    codes
        Codes of the observed bases of the concatenated regions.
    raw
        Change of the target if a base is replaced by A, C, G or T; 0 for the observed base, and NaN at an N.
    exact
        Whether an effect is exact rather than first-order; None if all are.
    """

    regions: tuple[Region, ...]
    codes: UInt8[np.ndarray, " bases"]
    raw: Float64[np.ndarray, "bases 4"]
    exact: Bool[np.ndarray, "bases 4"] | None = None

    def __repr__(self) -> str:
        places = str(self.regions[0]) if len(self.regions) == 1 else f"{len(self.regions):,} regions"
        known = self.raw[self.codes < N]
        counts = f"{len(self):,} bases, {3 * len(known):,} substitutions"
        return f"MutationEffects({places}, {counts}; largest effect {np.abs(known).max():.3g})"

    def __len__(self) -> int:
        return len(self.codes)

    def by(self, convention: str) -> Float64[np.ndarray, "bases 4"]:
        """Return the effects in a convention: "raw", "centred" or "hypothetical" (see mutagenesis.py)."""
        if convention == "raw":
            return self.raw
        hypothetical = self.raw - self.raw.mean(1, keepdims=True)
        if convention == "hypothetical":
            return hypothetical
        observed = self.codes[:, None] == np.arange(4)
        return np.where(observed | np.isnan(hypothetical), hypothetical, 0.0)

    @property
    def mean(self) -> Float64[np.ndarray, " bases"]:
        """Mean effect of the three substitutions of each base."""
        return self.raw.sum(1) / 3

    @property
    def strongest(self) -> Float64[np.ndarray, " bases"]:
        """Effect of the largest absolute value at each base, with its sign."""
        which = np.abs(np.nan_to_num(self.raw)).argmax(1)
        return self.raw[np.arange(len(self.raw)), which]

    def to_dataframe(self) -> "pd.DataFrame":
        """Convert the effects to a table.

        Returns
        -------
        pandas.DataFrame
            One row for each substitution of an A, C, G or T: `chrom`, `pos` (1-based), `ref`, `alt`, `effect` and, if
            not all effects are exact, `exact`.
        """
        import pandas as pd

        rows, alts = ((self.codes[:, None] != np.arange(4)) & (self.codes[:, None] < N)).nonzero()
        letters = np.array(list(BASES))
        chroms = np.repeat([region.chrom for region in self.regions], [len(region) for region in self.regions])
        places = np.concatenate([np.arange(region.start, region.end) for region in self.regions])
        frame = pd.DataFrame(
            {
                "chrom": chroms[rows],
                "pos": places[rows] + 1,
                "ref": letters[self.codes[rows]],
                "alt": letters[alts],
                "effect": self.raw[rows, alts],
            }
        )
        if self.exact is not None:
            frame["exact"] = self.exact[rows, alts]
        return frame

    def _repr_html_(self) -> str:
        return show_frame(self, largest_rows(self.to_dataframe(), "effect"))


def track_files(output: Path) -> dict[str, Path]:
    """Return the tracks of an output P.bw: P.mean.bw and P.strongest.bw."""
    stem, suffix = split_suffix(output)
    return {name: output.with_name(f"{stem}.{name}{suffix}") for name in (MEAN, STRONGEST)}


def written_files(outputs: Sequence[Path]) -> list[Path]:
    """Return the files that are written for some outputs, without their records."""
    files = ([path] if path.suffix in _TABLES else track_files(path).values() for path in outputs)
    return [path for each in files for path in each]


def check_mutation_outputs(outputs: Sequence[Path], inputs: Sequence[Path | None]) -> None:
    """Check that the files of a saturation mutagenesis can be written.

    Parameters
    ----------
    outputs
        Files, as specified by the user.
    inputs
        Files that the command will read.

    Raises
    ------
    InputError
        If a suffix is unknown, a file is given twice or is an input, or a package is missing.
    OutputError
        If a file cannot be written.
    """
    for output in outputs:
        if output.suffix not in _TABLES and not output.name.lower().endswith((*BIGWIG, *BEDGRAPH)):
            known = ", ".join(_TABLES)
            raise InputError(f'{output}: unknown suffix "{output.suffix}", expected {known}, .bw or .bedgraph')
    check_outputs([path for path in written_files(outputs) if path.suffix not in _TABLES], inputs)
    for output in outputs:
        if output.suffix in _TABLES:
            check_file(output, inputs)
        if output.suffix == ".h5" and importlib.util.find_spec("h5py") is None:
            raise InputError(f"{output}: HDF5 requires h5py: pip install h5py, or write .npz")
    check_distinct(outputs)


def write_mutations(
    outputs: Sequence[Path],
    effects: MutationEffects,
    sizes: Mapping[str, int],
    convention: str,
    record: Mapping[str, Any],
    files: AtomicFiles,
) -> None:
    """Write the effects of substitutions, with provenance records.

    Parameters
    ----------
    outputs
        .npz or .h5 archive, .tsv table (one row per substitution), or tracks such as P.bw, for which two are
        written: P.mean.bw and P.strongest.bw.
    effects
        Effects.
    sizes
        Length of each sequence of the genome.
    convention
        Convention of the archives. Tables and tracks contain raw effects.
    record
        Provenance record.
    files
        Transaction in which the files are written.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    for output in outputs:
        if output.suffix in (".npz", ".h5"):
            write_effects(output, effects.by(convention), effects.exact, effects.codes, effects.regions, files)
            write_provenance(output, record, files)
        elif output.suffix == ".tsv":
            with os_errors(output), files.create(output).open("w", encoding="utf-8") as file:
                file.writelines(_rows(effects))
            write_provenance(output, record, files)
        else:
            for name, path in track_files(output).items():
                values = (effects.mean if name == MEAN else effects.strongest).astype(np.float32)
                with open_tracks([path], sizes, files) as track:
                    for region, rows in _slices(effects.regions):
                        write_in_pieces(track, region, values[rows])
                write_provenance(path, {**record, "mutagenesis": name}, files)


def _slices(regions: Sequence[Region]) -> Iterator[tuple[Region, slice]]:
    start = 0
    for region in regions:
        yield region, slice(start, start + len(region))
        start += len(region)


def _rows(effects: MutationEffects) -> Iterator[str]:
    header = ["chrom", "pos", "ref", "alt", "effect"]
    yield "\t".join([*header, *(["exact"] if effects.exact is not None else [])]) + "\n"
    for region, rows in _slices(effects.regions):
        for row in range(rows.start, rows.stop):
            code = int(effects.codes[row])
            for alt in range(4):
                if code < N and alt != code:
                    place = region.chrom, str(region.start + row - rows.start + 1), BASES[code], BASES[alt]
                    exact = [] if effects.exact is None else [str(int(effects.exact[row, alt]))]
                    yield "\t".join([*place, f"{effects.raw[row, alt] + 0.0:.9g}", *exact]) + "\n"
