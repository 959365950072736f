"""Results in memory: the gradient of a target with respect to every base of a sequence."""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import BASES, decode
from genoscan.genome.region import Region
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
        Base codes: 0 to 3 are A, C, G, T; 4 is N.
    gradient
        Derivative of the target with respect to each base, of shape (length, 4), with columns A, C, G
        and T; averaged over the strands if both were read. NaN at N and at masked bases.
    scores
        One score per base (tracks/score.py); NaN where the gradient is NaN.
    value
        Value of the target; averaged over the strands if both were read.
    target, score, model
        Names of the target, the score and the model.
    size
        Length of the chromosome or sequence that contains the region, in bases.
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

    def __repr__(self) -> str:
        return f"Attribution({self.region}, {len(self):,} bases; {self.target} = {self.value:.6g}; model {self.model})"

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def sequence(self) -> str:
        """Bases of the sequence, as letters."""
        return decode(self.codes).decode()

    def score_by(self, score: str) -> Float32[np.ndarray, " length"]:
        """Return another score of the same gradient.

        Parameters
        ----------
        score
            "centred", "observed", "magnitude" or "substitution".

        Returns
        -------
        ndarray
            One score per base; NaN where the gradient is NaN.

        Raises
        ------
        InputError
            If there is no score with this name.
        """
        if score not in SCORES:
            raise InputError(f"score {score}: expected one of {', '.join(SCORES)}")
        return SCORES[score](self.gradient, self.codes)

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a table with one row per base: chrom, position (1-based), base, score and derivatives."""
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
        """Return the gradient minus its mean over the bases, of shape (1, 4, length), with zeros at N."""
        return Attributions([self]).to_tangermeme()

    def to_bigwig(self, path: str | Path) -> Path:
        """Write the scores to a bigWig file; return its path."""
        return Attributions([self]).to_bigwig(path)

    def plot(self) -> "go.Figure":
        """Return a plotly figure with letters scaled by score or, for long sequences, a curve."""
        from genoscan.plot import figure

        return figure(self.sequence, self.scores, self.region, title=repr(self))

    def _repr_html_(self) -> str:
        strongest = self.to_dataframe().assign(size=np.abs(self.scores)).nlargest(10, "size")
        return f"<p>{html.escape(repr(self))}</p>{strongest.drop(columns='size').to_html(index=False)}"


class Attributions(tuple[Attribution, ...]):
    """Attributions of several sequences, in the given order."""

    def __repr__(self) -> str:
        return f"Attributions({len(self)} sequences, {sum(map(len, self)):,} bases)"

    def to_dataframe(self) -> "pd.DataFrame":
        """Return one table for all sequences, with one row per base."""
        import pandas as pd

        return pd.concat([one.to_dataframe() for one in self], ignore_index=True)

    def to_tangermeme(self) -> Float32[np.ndarray, "n 4 length"]:
        """Return the gradients minus their means over the bases, of shape (n, 4, length), with zeros at N.

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
        """Write all scores to one bigWig file; return its path.

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
