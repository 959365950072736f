"""Descriptions of tracks: what was computed, in which unit, and what the sign means.

Pages, reports, browser sessions and docs/track-lines.md describe tracks in these words.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from genoscan.genome.files import excerpt

_LIKELIHOOD = "log-likelihood"
_NATS, _LOGITS = "nats", "logits"
_RAISES = "positive: the observed base raises the target"

_LONGEST = 20
"""Number of bases of an allele that are written."""

_WITH_BASELINE = "integrated-gradients", "expected-gradients"
"""Methods whose scores are shares of the difference between a baseline and the sequence."""


class Measure(NamedTuple):
    """Unit of the values of a track, and the meaning of their sign.

    Attributes
    ----------
    unit
        Unit, such as "nats, first order"; empty if it is part of `sign`.
    sign
        Meaning of the sign or of the range, such as "positive: the observed base raises the target".
    limits
        Smallest and largest possible value; None if there are none.
    """

    unit: str
    sign: str
    limits: tuple[float, float] | None = None


class Description(NamedTuple):
    """Description of a track.

    Attributes
    ----------
    model
        Name of the model.
    quantity
        What was computed, such as "target log-likelihood; score centred".
    measure
        Unit and sign of the values.
    """

    model: str
    quantity: str
    measure: Measure

    @property
    def line(self) -> str:
        """Description in one line: model, quantity, unit and sign."""
        return f"model {self.model}; {self.short}; {self.measure.sign}"

    @property
    def short(self) -> str:
        """Quantity and unit."""
        return f"{self.quantity}, in {self.measure.unit}" if self.measure.unit else self.quantity


def target_unit(target: str | None) -> str:
    """Return the unit of a target.

    Parameters
    ----------
    target
        Value of the option `--target`.

    Returns
    -------
    str
        "nats" for log-likelihoods, and "logits" for logits, log-odds and labels of task heads.
    """
    return _NATS if (target or _LIKELIHOOD).partition(":")[0] == _LIKELIHOOD else _LOGITS


def describe(record: Mapping[str, Any]) -> Description:
    """Describe the values of a track.

    Parameters
    ----------
    record
        Provenance record of the track.

    Returns
    -------
    Description
        Model, quantity, unit and sign.
    """
    model = str(record.get("model", ""))
    if prediction := record.get("prediction"):
        return Description(model, f"predicted {prediction}", _prediction(prediction, bool(record.get("logits"))))
    if response := record.get("response"):
        return Description(model, *_response(response))
    if dependency := record.get("dependency"):
        kind = str(dependency["map"])
        measure = Measure(
            _DEPENDENCY.get(kind, ""), "never negative: larger where a substitution changes the other predictions more"
        )
        return Description(model, f"mean dependency ({kind}) of the other bases on each base", measure)
    if record.get("track") == "margin":
        measure = Measure("", "from 0 to 1; small: a small change of the input may select another transition", (0, 1))
        return Description(model, "margin of the selected transitions", measure)
    target = _target(record)
    unit = target_unit(record.get("target"))
    if change := record.get("mutagenesis"):
        return Description(model, f"{target}; {_MUTAGENESIS.get(change, change)}", Measure(unit, _SUBSTITUTIONS))
    attribution = record.get("attribution") or {}
    method = f"; {attribution['name']}" if attribution else ""
    score = str(record.get("score") or "")
    measure = _score(score, unit, with_baseline=attribution.get("name") in _WITH_BASELINE)
    return Description(model, f"{target}{method}" + (f"; score {score}" if score else ""), measure)


_DEPENDENCY = {"log-odds": "log2 odds", "jacobian": _NATS, "derivative": f"{_NATS}, first order"}

_SUBSTITUTIONS = "positive: the substitution raises the target"
_MUTAGENESIS = {
    "mean": "mean effect of the three substitutions of each base",
    "strongest": "effect of the substitution of each base with the largest size",
}


_STRANDS = {"-": "; reverse strand", "both": "; mean of both strands", "bed": "; strand of each region"}


def _target(record: Mapping[str, Any]) -> str:
    contrast = {None: "", "strongest": " less the strongest other label"}.get(
        record.get("contrast"), f" less {record.get('contrast')}"
    )
    allele = ""
    if variant := record.get("variant"):
        ref, alt = (excerpt(variant[key] or "-", _LONGEST) for key in ("ref", "alt"))
        place = f"{variant['chrom']}:{variant['pos']:,} {ref}>{alt}"
        allele = f"; {record.get('allele')} allele of {place}"
    strand = _STRANDS.get(str(record.get("strand")), "")
    return f"target {record.get('target')}{contrast}{strand}{allele}"


def _score(score: str, unit: str, *, with_baseline: bool) -> Measure:
    """Return the unit and the sign of a score of `genoscan.tracks.score`."""
    if with_baseline:
        unit = f"{unit}, as shares of the difference from the baseline"
    else:
        unit = f"{unit}{' per substitution' if score == 'substitution' else ''}, first order"
    return Measure(unit, _SIGNS.get(score, _RAISES))


_SIGNS = {
    "centred": _RAISES,
    "observed": _RAISES,
    "magnitude": "never negative: larger where substitutions change the target more",
    "substitution": "positive: the substitution with the largest effect raises the target",
}


def _prediction(prediction: str, logits: bool) -> Measure:
    if prediction == _LIKELIHOOD:
        return Measure(_NATS, "log p of the observed base, at most 0: lower where the base is less expected")
    if prediction == "entropy":
        return Measure("bits", "from 0 to 2: 0 where one base is certain", (0, 2))
    if logits:
        return Measure(_LOGITS, "larger: more probable")
    return Measure("", "probability, from 0 to 1", (0, 1))


def _response(response: Mapping[str, Any]) -> tuple[str, Measure]:
    at = response["at"]
    place = at if isinstance(at, str) else f"{at['chrom']}:{at['end']:,}"
    new = f" to {response['base']}" if response.get("base") else ", to the base of the largest effect at each position"
    order = "" if response.get("finite") else ", first order"
    kind = response.get("of", "log-p")
    change = f"response to the change of {place}{new}: "
    if kind == "sensitivity":
        quantity = "change of the sensitivity of each base"
        return change + quantity, Measure(f"{_NATS}, first order", "positive: the score of the base increases")
    if kind == "logits":
        return change + f"size of the change of the logits{order}", Measure(_LOGITS, "never negative")
    quantity = f"change of log p of each base{order}"
    return change + quantity, Measure(_NATS, "positive: the observed base becomes more probable")
