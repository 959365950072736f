"""Motifs around sites, by TF-MoDISco (Shrikumar et al., arXiv 1811.00416), whose program modisco must be installed."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.genes.profiles import SHOWN, Scores
from genoscan.errors import InputError
from genoscan.genome.alphabet import BASES

_SEQLETS, _CORE, _FLANK = 2_000, 12, 4
_INFORMATIVE = 0.3
"""Positions of a motif are named if their contribution is at least this share of the largest."""


def find_motifs(found: Scores) -> list[dict[str, Any]]:
    """Return the motifs in the attributions around sites, with the most frequent first.

    Parameters
    ----------
    found
        Attributions around sites.

    Returns
    -------
    list of dict
        `sign` of the contributions; `seqlets`, the number of occurrences; `consensus`, in which positions of
        small contribution are ".", `contributions`, the mean contribution of each letter by position, and
        `median_position` of the middle of the occurrences, relative to the site.

    Raises
    ------
    InputError
        If the program or h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise InputError("h5py is not installed: pip install h5py") from None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one_hot = np.eye(4, dtype=np.int8)[np.minimum(found.codes, 3)] * (found.codes < 4)[..., None]
        np.savez(folder / "sequences.npz", one_hot.transpose(0, 2, 1))
        np.savez(folder / "contributions.npz", found.columns.transpose(0, 2, 1))
        sizes = {"-n": _SEQLETS, "-w": 2 * SHOWN, "-z": _CORE, "-f": _FLANK, "-t": _CORE + 2 * _FLANK, "-g": 0}
        files = {"-s": "sequences.npz", "-a": "contributions.npz", "-o": "motifs.h5"}
        command = ["modisco", "motifs", *(str(part) for pair in (files | sizes).items() for part in pair)]
        try:
            subprocess.run(command, check=True, capture_output=True, cwd=folder)
        except FileNotFoundError:
            raise InputError("modisco is not installed: pip install modisco-lite") from None
        motifs = []
        with h5py.File(folder / "motifs.h5") as file:
            for sign in ("pos", "neg"):
                for pattern in file.get(f"{sign}_patterns", {}).values():
                    seqlets = pattern["seqlets"]
                    middles = (seqlets["start"][:] + seqlets["end"][:]) / 2 - SHOWN
                    contributions = pattern["contrib_scores"][:]
                    motifs.append(
                        {
                            "sign": sign,
                            "seqlets": int(seqlets["n_seqlets"][0]),
                            "consensus": _consensus(contributions),
                            "median_position": float(np.median(middles)),
                            "contributions": contributions.round(4).tolist(),
                        }
                    )
    return sorted(motifs, key=lambda motif: -int(motif["seqlets"]))


def _consensus(contributions: np.ndarray) -> str:
    size = np.abs(contributions).sum(1)
    letters = np.array(list(BASES))[np.abs(contributions).argmax(1)]
    return "".join(np.where(size >= _INFORMATIVE * size.max(), letters, ".").tolist()).strip(".")
