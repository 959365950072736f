"""Changes in one base of the genome, and the windows that the model reads to compute their effects."""

import re
from dataclasses import dataclass
from typing import Literal

from genoscan.errors import InputError, UnsupportedModelError
from genoscan.genome.alphabet import BASES, decode
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Window, as_read, plan, region_read
from genoscan.genome.region import Region, parse_place
from genoscan.genome.variant import QUOTE_VARIANTS
from genoscan.model import Model

_ALLELES = re.compile(r"(?P<place>.+):(?P<old>[^:>]*)>(?P<new>[^:>]*)")
_NO_SUBSTITUTE = re.compile(r":[\d,]+:[A-Za-z]+$")


@dataclass(frozen=True)
class Probe:
    """A change in one base of the genome, and the settings that define the response.

    Attributes
    ----------
    at
        Position of the base, as a region of length 1.
    base
        New base, on the forward strand. If None, the base with the largest effect is chosen separately
        for each position of the region.
    region
        Region in which to compute the response. If None, the region extends from the changed base to
        the limit of the model's reach, downstream for causal models and on both sides for bidirectional
        models and for sensitivities.
    strand
        Strand that the model reads: "+" or "-".
    context
        Number of bases to read upstream of the changed base or, for bidirectional models, on both sides; for
        sensitivities, upstream of the region. If None, the value in the model's configuration is used.
    of
        Measure of the response at a position: "log-p" for the change in the log-probability of the
        observed base, "logits" for the L2 norm of the change in the logits, or "sensitivity" for the change
        in the sensitivity to the base.
    finite
        Whether to compute the finite change instead of the derivative. A change in sensitivity is always
        finite.

    Raises
    ------
    InputError
        If `strand`, `of` or `base` is invalid.
    """

    at: Region
    base: str | None = None
    region: Region | None = None
    strand: str = "+"
    context: int | None = None
    of: Literal["log-p", "logits", "sensitivity"] = "log-p"
    finite: bool = False

    def __post_init__(self) -> None:
        if self.strand not in ("+", "-"):
            raise InputError(f"--strand {self.strand}: expected + or -")
        if self.of not in ("log-p", "logits", "sensitivity"):
            raise InputError(f"--of {self.of}: expected log-p, logits or sensitivity")
        if self.base is not None:
            check_base(self.base, "--base")

    def forward_base(self, code: int) -> str:
        """Return the letter, on the forward strand, of a base code on the strand that the model reads."""
        return BASES[3 - code if self.strand == "-" else code]


def check_base(base: str, option: str) -> None:
    """Check that a text is a single letter among A, C, G and T.

    Raises
    ------
    InputError
        If it is not. `option` is named in the message.
    """
    if len(base) != 1 or base.upper() not in BASES:
        raise InputError(f"{option} {base}: expected A, C, G or T")


def read_change(
    genome: Genome, text: str, base: str | None = None, *, option: str = "--at"
) -> tuple[Region, str | None]:
    """Read a position of the genome that may be followed by the observed and the new base.

    Parameters
    ----------
    genome
        Genome with which the observed base is compared.
    text
        Position such as "chr1:10,500" (1-based) or substitution such as "chr1:10,500:C>T".
    base
        New base that was given separately; it must not contradict the substitution.
    option
        Option to which the text was passed, for error messages.

    Returns
    -------
    tuple of Region and str or None
        Position, and new base; the latter is None if it was not given.

    Raises
    ------
    InputError
        If the text is malformed, the position is outside the genome, the observed base is not that of the
        genome, or the new base differs from `base`.
    """
    alleles = _ALLELES.fullmatch(text.strip())
    if _NO_SUBSTITUTE.search(text.strip()):
        raise InputError(f"{option} {text}: expected a position, or a base and its substitute, C>T; {QUOTE_VARIANTS}")
    place = alleles["place"] if alleles else text
    at = parse_place(place, genome.sizes, option=option)
    if place.rpartition(":")[2].startswith("-"):
        raise InputError(f"{option} {place}: expected a position, counted from 1")
    if len(at) != 1:
        raise InputError(f"{option} {at}: {len(at):,} bases, expected one")
    if alleles is None:
        return at, base
    old, new = alleles["old"], alleles["new"]
    if len(old) != 1 or len(new) != 1:
        raise InputError(f"{option} {text}: expected one base and its substitute, such as C>T")
    for allele in (old, new):
        check_base(allele, f"{option} {text}:")
    found = decode(genome.fetch(at.chrom, at.start, at.end)).decode()
    if old.upper() != found:
        raise InputError(
            f"{option} {text}: the genome has {found} at {at}, expected {old}; is it meant for this genome?"
        )
    if base is not None and base.upper() != new.upper():
        raise InputError(f"--base {base}: contradicts {option} {text}; leave one of them out")
    return at, new


def new_bases(probe: Probe, observed: int) -> list[int]:
    """Return the codes of the new bases, on the strand that the model reads.

    If the probe does not specify a new base, these are the three bases other than the observed base.

    Raises
    ------
    InputError
        If the observed base is N or equals the new base.
    """
    if observed > 3:
        raise InputError(f"--at {probe.at}: the genome has an N there; choose an A, C, G or T")
    if probe.base is None:
        return [code for code in range(4) if code != observed]
    code = BASES.index(probe.base.upper())
    code = 3 - code if probe.strand == "-" else code
    if code == observed:
        raise InputError(f"--base {probe.base}: is the observed base at {probe.at}; choose another")
    return [code]


def response_window(genome: Genome, model: Model, probe: Probe) -> Window:
    """Return the window that the model reads for a response.

    For a causal model, the window extends from the context upstream of the changed base to the end of the
    region. For a bidirectional model, it contains the base, the region, and context on both sides of them.

    Raises
    ------
    InputError
        If the change cannot affect the region, or if `probe.context` is negative.
    UnsupportedModelError
        If the language-model head is not selected in the model.
    """
    at, size, reach = probe.at, genome.sizes[probe.at.chrom], model.config.reach
    context = _check(model, probe)
    span, method = as_read(at, probe.strand, size), model.method
    region = probe.region or region_read(at.chrom, method.affected(span, reach), probe.strand, size)
    written = as_read(region, probe.strand, size)
    # In a causal model, the first prediction that depends on a base is that of the next base.
    if written.stop <= method.affected(span, size).start + model.label_offset:
        raise InputError(
            f"--at {at}: nothing of {region} comes after it as strand {probe.strand} is read; "
            "a causal model responds after the base"
        )
    read = method.extent(span, written, before=context, after=context)
    return Window(region_read(at.chrom, read, probe.strand, size), (region,), probe.strand)


def sensitivity_window(genome: Genome, model: Model, probe: Probe) -> Window:
    """Return the window that the model reads for sensitivities, which is that of `genoscan attribute`.

    Raises
    ------
    InputError
        If the changed base is outside the window, or if `probe.context` is negative.
    UnsupportedModelError
        If the language-model head is not selected in the model.
    """
    at, sizes, reach = probe.at, genome.sizes, model.config.reach
    context = _check(model, probe)
    around = slice(at.start - reach, at.end + reach)
    region = probe.region or region_read(at.chrom, around, "+", sizes[at.chrom])
    (window,) = plan([region], sizes, model.method, context=context, reach=reach, strand=probe.strand)
    if at.start < window.region.start or at.end > window.region.end:
        raise InputError(
            f"--at {at}: lies outside {window.region}, which is read for {region}; give a region nearer to it, "
            "or more --context"
        )
    return window


def _check(model: Model, probe: Probe) -> int:
    """Check the settings of a probe, and return the number of context bases."""
    at, region = probe.at, probe.region
    if len(at) != 1:
        raise InputError(f"--at {at}: {len(at):,} bases, expected one")
    if region is not None and region.chrom != at.chrom:
        raise InputError(f"--at {at}: nothing of {region} is on {at.chrom}")
    if model.head:
        raise UnsupportedModelError(f"{model.name}: has no language model, which a response requires")
    context = model.config.context if probe.context is None else probe.context
    if context < 0:
        raise InputError(f"--context {context}: expected 0 bases or more")
    return context
