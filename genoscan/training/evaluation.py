"""Evaluation of models during and after training, on samples of the validation data or on whole sequences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from genoscan.engine.inputs import OneHot
from genoscan.engine.target import LogLikelihood, whole_window
from genoscan.errors import NonFiniteError
from genoscan.genome.alphabet import N
from genoscan.layers.bidirectional import BidirectionalStack
from genoscan.layers.config import ModelConfig, base_table
from genoscan.layers.stack import Stack
from genoscan.model import choose_method
from genoscan.training.data import Piece
from genoscan.training.labels import MAX_LABELS, LabelledHead, Labels
from genoscan.training.metrics import average_precision, best_f1
from genoscan.training.objective import mask_bases
from genoscan.training.site_models import site_model

Network: TypeAlias = Stack | BidirectionalStack

PIECE, PIECES = 16_384, 16
"""Number of bases in each sampled piece, and number of pieces to sample."""

_TILE = 2048
_SEED = 1


def sample(pieces: Sequence[Piece], length: int = PIECE, count: int = PIECES) -> Iterator[Piece]:
    """Yield parts of the pieces, at evenly spaced positions in the concatenation of all pieces.

    Parameters
    ----------
    pieces
        Pieces to sample.
    length
        Maximum number of bases per part.
    count
        Number of parts to yield.
    """
    sizes = np.cumsum([len(piece.codes) for piece in pieces])
    for position in np.linspace(0, sizes[-1], count, endpoint=False).astype(int):
        which = int(np.searchsorted(sizes, position, side="right"))
        n = len(pieces[which].codes)
        start = min(int(position - (sizes[which] - n)), max(0, n - length))
        yield pieces[which].cut(start, start + length)


def bits_per_base(stack: Network, config: ModelConfig, pieces: Sequence[Piece], *, masked: bool = False) -> float:
    """Return the number of bits per base, which is the mean of -log2 p(base) over known bases.

    Parameters
    ----------
    stack
        Network with a language-model head.
    config
        Configuration of the network.
    pieces
        Sequences to predict. Each sequence is read in full.
    masked
        Whether to mask randomly chosen bases and predict them.

    Returns
    -------
    float
        Mean in bits. If `masked` is false, it includes every A, C, G and T that an output predicts;
        if `masked` is true, it includes every A, C, G and T that is masked. NaN if there is none.
    """
    table, columns = _table_and_columns(stack, config)
    random = np.random.default_rng(_SEED)
    nats, n_labels = 0.0, 0
    for piece in pieces:
        codes = torch.from_numpy(piece.codes)[None]
        read, target = codes, whole_window(codes, columns, config.label_offset)
        if masked:
            read, hidden = mask_bases(codes, random)
            target = whole_window(torch.where(hidden, codes, torch.tensor(N, dtype=torch.uint8)), columns, 0)
        n_labels += _count(target, len(piece.codes))
        for span, outputs in choose_method(stack, tile=_TILE).forward(stack, OneHot(read, table)):
            nats -= float(target(outputs[..., config.output_columns[""]], span).double().sum())
    _check_finite(math.isfinite(nats))
    return nats / n_labels / math.log(2) if n_labels else math.nan


def label_metrics(stack: Network, config: ModelConfig, pieces: Sequence[Piece]) -> dict[str, float]:
    """Return the metrics of all task heads.

    Parameters
    ----------
    stack
        Network with per-base heads.
    config
        Configuration of the network.
    pieces
        Labelled sequences, each read in full.

    Returns
    -------
    dict
        Metrics by name: "HEAD accuracy" for each softmax head, and "HEAD:LABEL AUPRC" and
        "HEAD:LABEL F1" (at the best threshold) for each label that is present at one base or more.
        Bases at which a label is ignored are omitted.

    Notes
    -----
    Memory: 30 bytes per base, plus 4 bytes per base for each label.
    """
    logits = _predictions(stack, config, pieces)
    metrics: dict[str, float] = {}
    for name, head in config.heads.items():
        outputs = logits[:, config.output_columns[name]]
        labels = np.concatenate([piece.labels[name] for piece in pieces])
        if head.link == "softmax":
            known = labels >> MAX_LABELS == 0
            metrics[f"{name} accuracy"] = float(
                (labels[known] >> outputs.argmax(1)[known].astype(np.uint32) & 1).mean()
            )
            outputs = torch.log_softmax(torch.from_numpy(outputs), -1).numpy()
        for label, scores in zip(head.labels, outputs.T, strict=True):
            truth, counted = masks(labels, head.labels.index(label))
            if truth.any():
                metrics[f"{name}:{label} AUPRC"] = average_precision(scores[counted], truth)
                metrics[f"{name}:{label} F1"] = best_f1(scores[counted], truth)[0]
    return metrics


def masks(labels: Labels, number: int) -> tuple[Bool[np.ndarray, " counted"], Bool[np.ndarray, " bases"]]:
    """Return whether a label is present at each counted base, and a mask of the counted bases.

    `number` is the index of the label. A base is counted unless the label is ignored at that base.
    """
    counted = labels >> np.uint32(number + MAX_LABELS) & 1 == 0
    return (labels[counted] >> np.uint32(number) & 1).astype(bool), counted


def baseline_metrics(
    heads: Mapping[str, LabelledHead], training: Sequence[Piece], pieces: Sequence[Piece]
) -> dict[str, float]:
    """Return the metrics of baselines that are estimated from the training data.

    Parameters
    ----------
    heads
        Task heads by name.
    training
        Labelled training data.
    pieces
        Labelled sequences on which the baselines are evaluated.

    Returns
    -------
    dict
        Metrics, named as in `label_metrics`. For a softmax head, the accuracy is that of always
        predicting the most frequent class of the training data. For a label of a sigmoid head, the
        AUPRC is that of the better of two site models (see site_models.py).
    """
    metrics: dict[str, float] = {}
    for name, head in heads.items():
        labels = np.concatenate([piece.labels[name] for piece in pieces])
        if head.config.link == "softmax":
            counts = [_count_class(training, name, i) for i in range(len(head.config.labels))]
            known = labels >> MAX_LABELS == 0
            metrics[f"{name} accuracy"] = float((labels[known] >> np.uint32(np.argmax(counts)) & 1).mean())
            continue
        for i, label in enumerate(head.config.labels):
            truth, counted = masks(labels, i)
            if truth.any():
                sites = [(p.codes, np.flatnonzero(p.labels[name] >> np.uint32(i) & 1)) for p in training]
                found = []
                for order in (0, 1):
                    model = site_model(sites, order=order, reverse=label.endswith("-"))
                    scores = np.concatenate([model.scores(piece.codes) for piece in pieces])
                    found.append(average_precision(scores[counted], truth))
                metrics[f"{name}:{label} AUPRC"] = max(found)
    return metrics


def _count_class(pieces: Sequence[Piece], name: str, number: int) -> int:
    return sum(int(masks(piece.labels[name], number)[0].sum()) for piece in pieces)


def _predictions(stack: Network, config: ModelConfig, pieces: Sequence[Piece]) -> Float32[np.ndarray, "bases outputs"]:
    """Return the outputs of the network at all bases of the concatenated pieces."""
    table, _ = _table_and_columns(stack, config)
    outputs = []
    for piece in pieces:
        codes = torch.from_numpy(np.ascontiguousarray(piece.codes))[None]
        for _, tile in choose_method(stack, tile=_TILE).forward(stack, OneHot(codes, table)):
            outputs.append(tile[0].float().cpu().numpy())
    found = np.concatenate(outputs)
    _check_finite(bool(np.isfinite(found).all()))
    return found


def _check_finite(finite: bool) -> None:
    if not finite:
        raise NonFiniteError("the model's predictions on held-out sequences are not finite: use a lower learning rate")


def _table_and_columns(stack: Network, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Return the network input and the output column for each base code, as two tables.

    The output column is -1 for N.
    """
    weight = next(stack.parameters())
    table = base_table(config, dtype=weight.dtype, device=weight.device)
    return table, torch.tensor([*config.base_columns, -1])


def _count(target: LogLikelihood, length: int) -> int:
    return int(target.labels(slice(0, length))[1].sum())
