"""The six tasks of mechanistic architecture design, as sequences and labels.

Definitions as in Poli et al., Mechanistic Design and Scaling of Hybrid Architectures (arXiv
2403.17844), and its authors' code, with three differences: models are trained on the scored
positions alone instead of all next tokens, on new sequences at every step, and blanks of selective
copying may follow the last token to copy.  Tokens and labels are counted from 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.learning import UNKNOWN, Labels, Tokens

MOTIF = 3
"""Most tokens of a key or value in fuzzy recall."""

N_NOISE = 16
"""Noise tokens of recall, in addition to those of keys and values."""

_FACTS_SEED = 12_345


@dataclass(frozen=True)
class Size:
    """Size of a task.

    length      tokens of a sequence
    vocabulary  tokens without those of noise
    noise       share of noise, between 0 and 1
    """

    length: int
    vocabulary: int
    noise: float = 0.0


Sample = Callable[[np.random.Generator, int, Size], tuple[Tokens, Labels]]


@dataclass(frozen=True)
class Task:
    """A task, of which the size may be varied.

    size      size in the published baseline, shorter where training would take hours
    sample    (generator, number, size) -> training sequences and their labels
    held_out  the same for validation and test
    answers   size -> tokens of answers, which are equally likely without reading the sequence
    pooled    whether the whole sequence is recovered from the output at its last token
    """

    size: Size
    sample: Sample
    held_out: Sample
    answers: Callable[[Size], range]
    pooled: bool = False

    def chance(self, size: Size) -> float:
        """Return the accuracy of guessing."""
        return 1 / len(self.answers(size))

    def most_frequent(self, tokens: Tokens, size: Size) -> Tokens:
        """Return at each position the token of answers that occurs most often up to it (or at all, if pooled)."""
        answers = self.answers(size)
        counts = (tokens[..., None] == np.array(answers)).cumsum(1)
        return answers[0] + (counts[:, -1:] if self.pooled else counts).argmax(-1)

    def n_tokens(self, size: Size) -> int:
        """Return the number of different tokens, which is that of labels as well."""
        return size.vocabulary + (N_NOISE if self.sample is recall and size.noise else 0)


def recall(random: np.random.Generator, n: int, size: Size) -> tuple[Tokens, Labels]:
    """Draw sequences of in-context recall, with noise between the pairs if there is any.

    Drawn: for each sequence a value for every key; then pairs of a key and its value, keys
    uniform.  The first half of the vocabulary is keys, the second half values.  A pair is replaced
    with probability `noise` by two tokens of a vocabulary of their own, except for one at random
    and the last.  The last pair has a key that occurred before, each equally likely.
    Predicted: at a key, its value.  Scored: keys that occurred before in the sequence.
    """
    n_keys, n_pairs = size.vocabulary // 2, size.length // 2
    values = random.integers(n_keys, size.vocabulary, size=(n, n_keys))
    keys = random.integers(n_keys, size=(n, n_pairs))
    noisy = random.random((n, n_pairs)) < size.noise
    each = np.arange(n)
    noisy[each, random.integers(n_pairs - 1, size=n)] = False
    noisy[:, -1] = False
    occurs = (keys[..., None] == np.arange(n_keys)) & ~noisy[..., None]
    known = occurs[:, :-1].any(1)
    keys[:, -1] = np.where(known, random.random(known.shape), -1).argmax(1)
    occurs[:, -1] = keys[:, -1:] == np.arange(n_keys)
    before = (np.cumsum(occurs, 1) - occurs)[each[:, None], np.arange(n_pairs), keys] > 0
    answers = values[each[:, None], keys]
    noise = random.integers(size.vocabulary, size.vocabulary + N_NOISE, size=(2, n, n_pairs))
    pairs = np.where(noisy, noise, [keys, answers])
    scored = np.where(before & ~noisy, answers, UNKNOWN)
    labels = np.stack([scored, np.full_like(scored, UNKNOWN)], -1)
    return pairs.transpose(1, 2, 0).reshape(n, -1), labels.reshape(n, -1)


def fuzzy_recall(random: np.random.Generator, n: int, size: Size) -> tuple[Tokens, Labels]:
    """Draw sequences of fuzzy in-context recall with keys of one to three tokens, for training.

    Drawn: pairs of a key and a value, each of one to three different tokens, numbers and tokens
    uniform; the value of a key that occurred before is the same as then.  The last pair is a
    repetition of an earlier one.  Sequences are padded on the left, with the vocabulary's last
    token; the first half of the others is for keys, the second half for values.
    Predicted: the next token.  Scored: all tokens of values whose key occurred before.
    """
    return _motifs(random, n, size, shortest=1)


def fuzzy_recall_of_long_keys(random: np.random.Generator, n: int, size: Size) -> tuple[Tokens, Labels]:
    """Draw sequences of fuzzy in-context recall with keys of three tokens, for validation and test."""
    return _motifs(random, n, size, shortest=MOTIF)


def _motifs(random: np.random.Generator, n: int, size: Size, *, shortest: int) -> tuple[Tokens, Labels]:
    pad = size.vocabulary - 1
    n_keys = pad // 2
    # A pair has at least the tokens of the shortest key and one of the value.
    shape = n, size.length // (shortest + 1)
    key_sizes = random.integers(shortest, MOTIF + 1, size=shape)
    value_sizes = random.integers(1, MOTIF + 1, size=shape)
    keys = random.random((*shape, n_keys)).argsort(-1)[..., :MOTIF]
    values = n_keys + random.random((*shape, pad - n_keys)).argsort(-1)[..., :MOTIF]
    tokens = np.full((n, size.length), pad)
    labels = np.full((n, size.length), UNKNOWN)
    for i in range(n):
        pairs: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = []
        value_of: dict[tuple[int, ...], tuple[int, ...]] = {}
        free = size.length
        for drawn_key, drawn_value, k, v in zip(keys[i], values[i], key_sizes[i], value_sizes[i], strict=True):
            key = tuple(drawn_key[:k])
            known = key in value_of
            value = value_of.setdefault(key, tuple(drawn_value[:v]))
            if free - len(key) - len(value) < 2 * MOTIF:  # the space of the last pair
                break
            pairs.append((key, value, known))
            free -= len(key) + len(value)
        key, value, _ = pairs[random.integers(len(pairs))]
        pairs.append((key, value, True))
        at = size.length - sum(len(key) + len(value) for key, value, _ in pairs)
        for key, value, known in pairs:
            tokens[i, at : at + len(key) + len(value)] = key + value
            at += len(key)
            if known:
                labels[i, at - 1 : at - 1 + len(value)] = value
            at += len(value)
    return tokens, labels


def n_copied(size: Size) -> int:
    """Return the number of tokens to copy: as many as leave a share of `noise` blanks in the part that is read."""
    return int((1 - size.noise) * (size.length - 1) / (2 - size.noise))


def selective_copying(random: np.random.Generator, n: int, size: Size) -> tuple[Tokens, Labels]:
    """Draw sequences of selective copying.

    Drawn: tokens to copy, uniform, at positions that are uniform among blanks; then the copy token
    and a blank for each of them.  Blank and copy token are the vocabulary's last two.
    Predicted: at the i-th of these blanks, the i-th of the tokens.  Scored: these blanks.
    """
    blank, copy, copied = size.vocabulary - 2, size.vocabulary - 1, n_copied(size)
    n_read = size.length - 1 - copied
    what = random.integers(blank, size=(n, copied))
    tokens = np.full((n, size.length), blank)
    where = np.sort(random.random((n, n_read)).argsort(1)[:, :copied], 1)
    np.put_along_axis(tokens, where, what, 1)
    tokens[:, n_read] = copy
    labels = np.full(tokens.shape, UNKNOWN)
    labels[:, n_read + 1 :] = what
    return tokens, labels


def compression(random: np.random.Generator, n: int, size: Size) -> tuple[Tokens, Labels]:
    """Draw sequences of compression.

    Drawn: uniform tokens, then the compression token, the vocabulary's last.
    Predicted: from the output at the compression token alone, and a position, the token there.
    Scored: all positions but the compression token's.
    """
    tokens = random.integers(size.vocabulary - 1, size=(n, size.length))
    tokens[:, -1] = size.vocabulary - 1
    labels = tokens.copy()
    labels[:, -1] = UNKNOWN
    return tokens, labels


def memorisation(random: np.random.Generator, n: int, size: Size) -> tuple[Tokens, Labels]:
    """Draw sequences of memorisation.

    Drawn: uniform keys, each followed by the question token, the vocabulary's last.  A fixed
    one-to-one map, the same in all sequences, gives each key its value.
    Predicted: at the question token, the value of the key before it, which no sequence contains.
    Scored: all question tokens.
    """
    values = facts(size)
    keys = random.integers(len(values), size=(n, size.length // 2))
    tokens = np.full((n, size.length), size.vocabulary - 1)
    labels = np.full(tokens.shape, UNKNOWN)
    tokens[:, 0::2], labels[:, 1::2] = keys, values[keys]
    return tokens, labels


def facts(size: Size) -> np.ndarray:
    """Return the value of each key in memorisation."""
    n_keys = (size.vocabulary - 1) // 2
    return n_keys + np.random.default_rng(_FACTS_SEED).permutation(n_keys)


def _second_half(size: Size) -> range:
    return range(size.vocabulary // 2, size.vocabulary)


def _values(size: Size) -> range:
    n_keys = (size.vocabulary - 1) // 2
    return range(n_keys, 2 * n_keys)


TASKS = {
    "in-context-recall": Task(Size(128, 16), recall, recall, _second_half),
    "fuzzy-recall": Task(
        Size(128, 16),
        fuzzy_recall,
        fuzzy_recall_of_long_keys,
        lambda size: range((size.vocabulary - 1) // 2, size.vocabulary - 1),
    ),
    "noisy-recall": Task(Size(128, 16, 0.2), recall, recall, _second_half),
    "selective-copying": Task(
        Size(64, 16, 0.85), selective_copying, selective_copying, lambda size: range(size.vocabulary - 2)
    ),
    "compression": Task(Size(32, 16), compression, compression, lambda size: range(size.vocabulary - 1), pooled=True),
    "memorisation": Task(Size(32, 256), memorisation, memorisation, _values),
}
