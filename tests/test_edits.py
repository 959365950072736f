"""Edited copies of a window: what their whole-window passes give, for any edits, tiles and carries kept."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from laws import assert_near
from torch import Tensor
from toys import genome, one_hot_table, tiny_stack
from truth import caduceus

from genoscan.engine.edits import Edit, EditedTile, edited_copy, edited_outputs
from genoscan.engine.methods import Layerwise
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import write_model
from genoscan.model import load_model


@pytest.fixture(params=[pytest.param(1, marks=pytest.mark.slow), 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random_edits(length: int, count: int, reach: int, *, begins: bool = False) -> list[Edit]:
    """Return substitutions, insertions and deletions of all sizes, at both ends of the window, too."""
    draw = random.Random(1)
    edits = []
    for i in range(count):
        start = [0, 1, length - 1, length - 2][i] if i < 4 else draw.randrange(length)
        stop = min(length, start + draw.choice([0, 1, 1, 1, 2, 7, 40]))
        new = tuple(draw.randrange(4) for _ in range(draw.choice([0, 1, 1, 1, 3, 40]) if stop > start else 2))
        begin = max(0, start - 50) if begins else 0
        edits.append(Edit(start, stop, new, min(length, stop + reach), begin))
    return edits


def applied(codes: Tensor, edit: Edit) -> Tensor:
    """Return the part of the edited copy that is read."""
    new = torch.tensor(edit.codes, dtype=torch.uint8)
    return torch.cat([codes[edit.begin : edit.start], new, codes[edit.stop : edit.end]])


def gathered(tiles: Sequence[EditedTile], count: int) -> list[dict[str, dict[int, Tensor]]]:
    """Return, for each edit, its outputs by position, the window's by label, and those of its replaced bases."""
    found: list[dict[str, dict[int, Tensor]]] = [{"edited": {}, "window": {}, "replaced": {}} for _ in range(count)]
    for tile in tiles:
        for row, edit in enumerate(tile.edits.tolist()):
            for i, (at, aligned) in enumerate(
                zip(tile.positions[row].tolist(), tile.aligned[row].tolist(), strict=True)
            ):
                if at >= 0:
                    assert at not in found[edit]["edited"]
                    found[edit]["edited"][at] = tile.outputs[row, i]
                if aligned >= 0:
                    assert at >= 0
                    assert aligned not in found[edit]["window"]
                    found[edit]["window"][aligned] = tile.reference[row, i]
            if tile.replaced is not None:
                assert not found[edit]["replaced"]
                found[edit]["replaced"] = dict(enumerate(tile.replaced[row]))
    return found


def check(
    found: dict[str, dict[int, Tensor]], edit: Edit, edited: Tensor, window: Tensor, label_offset: int, first: int
) -> None:
    """Compare with whole-window outputs, given for positions from `edit.begin` on."""
    stop = edit.end + edit.shift
    assert set(found["edited"]) >= set(range(first, stop))
    assert max(found["edited"], default=-1) < stop
    for at, row in found["edited"].items():
        assert_near(row, edited[at - edit.begin], torch.float64)
    # Every label that both have, apart from those before the edit, is there once.
    labels = {at + label_offset for at in found["window"]}
    common = [*range(first + label_offset, edit.start), *range(edit.stop, edit.end + label_offset)]
    assert labels >= {label for label in common if label >= label_offset}
    assert not labels & set(range(edit.start, edit.stop))
    for at, row in found["window"].items():
        assert_near(row, window[at - edit.begin], torch.float64)
    for label in range(edit.start, edit.stop):
        if label - label_offset >= edit.begin:
            assert_near(found["replaced"][label - edit.start], window[label - label_offset - edit.begin], torch.float64)


@pytest.mark.parametrize(("label_offset", "tile"), [(1, 64), (0, 300)])
@pytest.mark.parametrize("reach", [90, pytest.param(700, marks=pytest.mark.slow)])
def test_copies_equal_whole_passes(threads: int, label_offset: int, tile: int, reach: int) -> None:
    stack, table, (codes,) = tiny_stack(), one_hot_table(), genome(700, n_share=0.02)
    edits = random_edits(len(codes), 40, reach)
    tiles = list(edited_outputs(stack, codes, table, edits, tile=tile, label_offset=label_offset))
    window = stack(table[codes.long()][None], stack.begin(1))[0][0]
    for edit, found in zip(edits, gathered(tiles, len(edits)), strict=True):
        copy = applied(codes, edit)
        assert (edited_copy(codes.numpy(), edit, 0, len(copy)) == copy.numpy()).all()
        edited = stack(table[copy.long()][None], stack.begin(1))[0][0] if len(copy) else copy
        check(found, edit, edited, window, label_offset, max(0, edit.start - label_offset))


def test_runs_stop_only_where_carries_are_equal(threads: int) -> None:
    # A convolution over four bases and a state that forgets at once: equal after few bases.
    stack, table, (codes,) = tiny_stack(n_layers=1), one_hot_table(), genome(3_000)
    with torch.no_grad():
        for name, weight in stack.named_parameters():
            if name.endswith("A_log"):
                weight.fill_(8.0)
    edits = [Edit(at, at + 1, (int(3 - codes[at]),), 3_000) for at in (10, 11, 900, 1_500)]
    edits.append(Edit(700, 704, (1,), 3_000))
    run = []
    tiles = list(
        edited_outputs(stack, codes, table, edits, tile=256, label_offset=1, first_check=128, progress=run.append)
    )
    whole = stack(table[codes.long()][None], stack.begin(1))[0][0]
    for edit, found in zip(edits, gathered(tiles, len(edits)), strict=True):
        edited = stack(table[applied(codes, edit).long()][None], stack.begin(1))[0][0]
        last = max(found["edited"])
        # Bits may depend on the alignment of a copy with the tiles of the window, which deletions change.
        assert edit.shift or last < edit.start + 400
        assert torch.equal(edited[last + 1 :], whole[last + 1 - edit.shift :])
    assert sum(run) < 2 * 3_000 + 4 * 500
    kept = tiny_stack(n_layers=1)
    tiles = list(edited_outputs(kept, codes, table, edits, tile=256, label_offset=1, first_check=128))
    assert all(
        max(found["edited"]) == 2_999 + edit.shift for edit, found in zip(edits, gathered(tiles, 5), strict=True)
    )


@pytest.mark.parametrize("kind", [pytest.param("Ph", marks=pytest.mark.slow), "PS fused"])
def test_bidirectional_copies_equal_whole_passes(tmp_path: Path, threads: int, kind: str) -> None:
    config = caduceus.config(**{"Ph": {"rcps": False}, "PS fused": {"fused": True}}[kind])
    caduceus.write(tmp_path / "foreign", config, caduceus.tensors(config))
    native, made = read_foreign(tmp_path / "foreign")
    write_model(tmp_path / "native", native, made, "")
    model = load_model(tmp_path / "native", dtype=torch.float64, tile=16)
    assert isinstance(model.method, Layerwise)
    (codes,) = genome(300, n_share=0.02)
    edits = random_edits(len(codes), 24, 60, begins=True)
    tiles = list(model.method.edited(model.stack, codes, model.table(), edits, label_offset=0))
    for edit, found in zip(edits, gathered(tiles, len(edits)), strict=True):
        copy = applied(codes, edit)
        window = model.whole(model.table()[codes[edit.begin : edit.end].long()][None])[0]
        edited = model.whole(model.table()[copy.long()][None])[0]
        check(found, edit, edited, window, 0, edit.begin)


def test_nothing_to_edit() -> None:
    assert not list(edited_outputs(tiny_stack(), genome(50)[0], one_hot_table(), [], tile=8, label_offset=1))


def test_a_deletion_of_the_whole_window_leaves_nothing_to_run() -> None:
    edits = [Edit(0, 50, (), 50)]
    assert not list(edited_outputs(tiny_stack(), genome(50)[0], one_hot_table(), edits, tile=8, label_offset=1))


def test_copies_past_the_end_are_padded() -> None:
    codes = np.arange(4, dtype=np.uint8)
    assert edited_copy(codes, Edit(1, 3, (0,), 4), 0, 5).tolist() == [0, 0, 3, 4, 4]
    assert edited_copy(codes, Edit(4, 4, (2, 2), 4), 3, 8).tolist() == [3, 2, 2, 4, 4]


def test_omitted_batches_leave_the_others_unchanged() -> None:
    stack, table, (codes,) = tiny_stack(), one_hot_table(), genome(900)
    edits = random_edits(len(codes), 30, 100)
    options = {"tile": 256, "label_offset": 1}
    tiles = list(edited_outputs(stack, codes, table, edits, **options))
    batches = list(dict.fromkeys(tuple(tile.edits.tolist()) for tile in tiles if tile.replaced is not None))
    assert len(batches) > 3
    done = {*batches[0], *batches[2]}
    again = list(edited_outputs(stack, codes, table, edits, done=done, **options))
    expected = [tile for tile in tiles if not done.issuperset(tile.edits.tolist())]
    assert len(again) == len(expected) < len(tiles)
    for a, b in zip(again, expected, strict=True):
        assert torch.equal(a.edits, b.edits)
        assert torch.equal(a.outputs, b.outputs)
        assert torch.equal(a.reference[a.aligned >= 0], b.reference[b.aligned >= 0])
