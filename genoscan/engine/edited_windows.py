"""Outputs of a bidirectional network for many edited copies of windows.

Every output depends on the edit, so that each copy is run as a whole, in batches of copies of equal length.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genoscan.engine.edits import Edit, EditedTile, align, edited_copy
from genoscan.engine.stages import run_in_parallel, shares

Run = Callable[[UInt8[Tensor, "batch length"], int], Float[Tensor, "batch length d_out"]]
"""Function that returns all outputs of the network for windows of equal length; also given how many are run at once."""


def edited_windows(
    run: Run,
    codes: UInt8[Tensor, " length"],
    edits: Sequence[Edit],
    *,
    positions: int,
    label_offset: int,
    device: torch.device,
    done: Set[int] = frozenset(),
) -> Iterator[EditedTile]:
    """Yield the outputs for edited copies, all outputs of a batch of copies at once.

    Parameters
    ----------
    run
        Function that runs the network.
    codes
        Base codes of the window that contains the parts of all edits.
    edits
        Edits in any order. The network reads the bases from `begin` to `end` of each.
    positions
        Maximum number of positions in a batch, unless a single copy is longer.
    label_offset
        Offset of the labels (see `target`).
    device
        Device of the network.
    done
        Indices of edits to omit. All edits of a batch must be omitted, or none.

    Yields
    ------
    EditedTile
        One tile per batch.

    Notes
    -----
    Memory: that of a forward pass for each thread, and the outputs of a batch and of its windows. It does not
    depend on the number of edits.
    """
    window: dict[tuple[int, int], Tensor] = {}
    for group in _batches(edits, positions, torch.get_num_threads() if device.type == "cpu" else 1):
        if set(group) <= done:
            continue
        chosen = [edits[i] for i in group]
        spans = list(dict.fromkeys((edit.begin, edit.end) for edit in chosen))
        missing = [span for span in spans if span not in window]
        rows = [codes.numpy()[begin:end] for begin, end in missing]
        window = {span: window[span] for span in spans if span in window}
        if rows:
            window |= zip(missing, _in_parallel(run, rows, device), strict=True)
        copies = [edited_copy(codes.numpy(), edit, edit.begin, edit.end + edit.shift) for edit in chosen]
        outputs = _in_parallel(run, copies, device)
        at = torch.tensor([edit.begin for edit in chosen])[:, None] + torch.arange(outputs.shape[1])
        at, aligned = align(chosen, at, label_offset)
        reference, replaced = [], []
        widest = max(edit.stop - edit.start for edit in chosen)
        for edit, row in zip(chosen, aligned, strict=True):
            found = window[edit.begin, edit.end]
            reference.append(found[(row - edit.begin).clamp(min=0).to(device)])
            before = torch.arange(widest) + edit.start - label_offset - edit.begin
            replaced.append(found[before.clamp(0, len(found) - 1).to(device)])
        yield EditedTile(torch.tensor(group), at, aligned, outputs, torch.stack(reference), torch.stack(replaced))


def _batches(edits: Sequence[Edit], positions: int, threads: int) -> Iterator[list[int]]:
    """Yield batches of edits whose windows are equally long, and whose copies are, too."""
    growing: dict[tuple[int, int], list[int]] = {}
    for i in sorted(range(len(edits)), key=lambda i: (edits[i].start, i)):
        kind = edits[i].end - edits[i].begin, edits[i].shift
        batch = growing.setdefault(kind, [])
        batch.append(i)
        if len(batch) >= max(threads, positions // max(1, kind[0])):
            yield growing.pop(kind)
    yield from growing.values()


def _in_parallel(
    run: Run, rows: Sequence[UInt8[np.ndarray, " length"]], device: torch.device
) -> Float[Tensor, "batch length d_out"]:
    windows = torch.from_numpy(np.stack(rows))

    def part(rows: slice, _check: Callable[[], None]) -> Tensor:
        return run(windows[rows], len(windows))

    return torch.cat(run_in_parallel([partial(part, rows) for rows in shares(len(windows), device)]))
