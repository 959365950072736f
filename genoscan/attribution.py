"""In-memory results of `genoscan.attribute`: derivatives of a target with respect to every base."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import BASES, decode
from genoscan.genome.region import Region
from genoscan.notebook import largest_rows, show_frame
from genoscan.tracks.score import SCORES, blank_unknown
from genoscan.tracks.writer import check_output, open_track

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, repr=False)
class Attribution:
    """Derivatives of a target with respect to every base of a sequence.

    Attributes
    ----------
    region
        Position of the sequence in its genome.
    codes
        Base codes of the sequence: 0 to 3 for A, C, G and T, and 4 for N.
    gradient
        Derivatives of the target with respect to A, C, G and T at each position, of shape (length, 4). For
        methods with a baseline, these are averages over the path, relative to the baseline (see
        averages/path_attribution.py). If both strands were read, the derivatives are means over the strands.
        The values at N and at masked bases are NaN.
    scores
        One score per base, computed from the gradient (see tracks/score.py). The score is NaN where the
        gradient is NaN.
    value
        Value of the target. If both strands were read, it is the mean over the strands.
    target, score, model
        Names of the target, the score and the model.
    size
        Length, in bases, of the chromosome or sequence that contains the region.
    completeness_error
        Relative difference between the sum of the attributions and the difference of the target between
        the sequence and the baseline. It is None for methods without a baseline, and if the target is the
        same for both.
    """

    region: Region
    codes: UInt8[np.ndarray, " length"]
    gradient: Float32[np.ndarray, "length 4"]
    scores: Float32[np.ndarray, " length"]
    value: float
    target: str
    score: str
    model: str
    size: int
    completeness_error: float | None = None

    def __repr__(self) -> str:
        return f"Attribution({self.region}, {len(self):,} bases; {self.target} = {self.value:.6g}; model {self.model})"

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def sequence(self) -> str:
        """Sequence as a string of the letters A, C, G, T and N."""
        return decode(self.codes).decode()

    def score_by(self, score: str) -> Float32[np.ndarray, " length"]:
        """Compute scores from the gradient with another formula.

        Parameters
        ----------
        score
            Name of the score: "centred", "observed", "magnitude" or "substitution".

        Returns
        -------
        ndarray
            One score per base. The score is NaN where the gradient is NaN.

        Raises
        ------
        InputError
            If there is no score with this name.
        """
        if score not in SCORES:
            raise InputError(f"score {score}: expected one of {', '.join(SCORES)}")
        return SCORES[score](self.gradient, self.codes)

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a table with one row per base.

        The columns are chrom, position (1-based), base and score, and the derivatives d_A, d_C, d_G and
        d_T with respect to the four bases.
        """
        import pandas as pd

        first = self.region.start + 1
        columns = {
            "chrom": self.region.chrom,
            "position": np.arange(first, first + len(self)),
            "base": list(self.sequence),
            "score": self.scores,
        }
        derivatives = {f"d_{base}": self.gradient[:, i] for i, base in enumerate(BASES)}
        return pd.DataFrame(columns | derivatives)

    def to_tangermeme(self) -> Float32[np.ndarray, "1 4 length"]:
        """Return the centred gradient as an array of shape (1, 4, length), as tangermeme expects.

        At each position, the mean of the four derivatives is subtracted from each of them. The values at
        N are zero.
        """
        return Attributions([self]).to_tangermeme()

    def to_bigwig(self, path: str | Path) -> Path:
        """Write the scores to a bigWig file; return its path."""
        return Attributions([self]).to_bigwig(path)

    def plot(self) -> "go.Figure":
        """Return a plotly figure of the scores.

        Each base is drawn as a letter that is scaled by the score. The scores of a sequence of more than
        5,000 bases are drawn as a curve instead.
        """
        from genoscan.plot import figure

        return figure(self.sequence, self.scores, self.region, title=repr(self))

    def _repr_html_(self) -> str:
        return show_frame(self, largest_rows(self.to_dataframe(), "score"))


class Attributions(tuple[Attribution, ...]):
    """Tuple of the attributions of several sequences, in the order in which the sequences were given."""

    def __repr__(self) -> str:
        return f"Attributions({len(self)} sequences, {sum(map(len, self)):,} bases)"

    def to_dataframe(self) -> "pd.DataFrame":
        """Return one table for all sequences, with one row per base."""
        import pandas as pd

        return pd.concat([one.to_dataframe() for one in self], ignore_index=True)

    def to_tangermeme(self) -> Float32[np.ndarray, "n 4 length"]:
        """Return the centred gradients of n sequences as an array of shape (n, 4, length).

        The array has the layout that tangermeme expects. At each position, the mean of the four
        derivatives is subtracted from each of them. The values at N are zero.

        Raises
        ------
        InputError
            If the sequences differ in length.
        """
        lengths = sorted({len(one) for one in self})
        if len(lengths) > 1:
            raise InputError(f"sequences of {lengths[0]:,} to {lengths[-1]:,} bases: expected one length")
        centred = (
            blank_unknown(one.gradient - one.gradient.mean(1, keepdims=True), one.codes, fill=0.0) for one in self
        )
        return np.stack([columns.T for columns in centred])

    def to_bigwig(self, path: str | Path) -> Path:
        """Write the scores of all sequences to one bigWig file; return its path.

        Raises
        ------
        InputError
            If two regions overlap.
        OutputError
            If the file cannot be written.
        """
        path = Path(path)
        check_output(path)
        sizes = {one.region.chrom: one.size for one in self}
        order = list(sizes)
        ordered = sorted(self, key=lambda one: (order.index(one.region.chrom), one.region.start))
        with open_track(path, sizes) as track:
            for one in ordered:
                track.write(one.region, one.scores)
        return path

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self)
