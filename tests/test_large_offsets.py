"""The GPU's kernels address arrays of more than 2^31 elements.

The arrays of these tests are small. Programs are told that they are far behind the first one, and pointers begin as far
before the data, so that every offset is large. Triton's interpreter computes offsets in the types of the kernels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from laws import assert_same_bits, random_like
from operations import OPERATIONS, directions_for
from torch import Tensor

from benchmarks.interpreted import interpreting
from genoscan.ops.primitive import Tensors

with pytest.MonkeyPatch.context() as patch:
    # Read when triton is loaded and when kernels are declared: nothing may load it before.
    patch.setenv("TRITON_INTERPRET", "1")
    triton = pytest.importorskip("triton", reason="made for Linux on x86-64 and for CUDA devices")
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from genoscan.ops.triton_gpu import pointwise
    from genoscan.ops.triton_gpu.arithmetic import kernel, launch
    from genoscan.ops.triton_gpu.conv import CONV_SILU
    from genoscan.ops.triton_gpu.scan import SCAN

    @kernel
    def _double(x, y, n_columns):  # type: ignore[no-untyped-def]
        at = tl.program_id(0) * n_columns + tl.arange(0, 4)  # a product of 32 bits
        tl.store(y + at, 2 * tl.load(x + at))


pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled, not interpreted")

BATCH = 2
FAR = 1 << 29
"""Number of sequences, or of programs, that would precede the first one."""


@contextmanager
def far_away(axis: int, before: Callable[[Tensor], int], more: int = 0) -> Iterator[None]:
    """Let programs be `FAR` further along an axis of the grid.

    `before` returns the number of elements that precede the data of a tensor. `more` is added to integer arguments. A
    load or store outside all tensors is an error instead of a crash.
    """
    spans: list[tuple[int, int]] = []
    convert, index = interpreter._implicit_cvt, InterpreterBuilder.create_get_program_id
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def shifted(argument: Any) -> Any:
        if isinstance(argument, int):
            return convert(argument + more)
        found = convert(argument)
        if isinstance(argument, Tensor):
            spans.append((argument.data_ptr(), argument.data_ptr() + argument.nbytes))
            offset = before(argument) * argument.element_size()
            found.handle.data = np.array([argument.data_ptr() - offset]).astype(np.uint64)
        return found

    def far_index(builder: Any, which: int) -> TensorHandle:
        found = index(builder, which)
        return TensorHandle(found.data + np.int32(FAR * (which == axis)), found.dtype)

    def check(pointers: Any, mask: Any) -> None:
        for address in np.unique(pointers.data[mask.data.astype(bool)]).tolist():
            assert any(first <= address < last for first, last in spans), "an offset overflows"

    def checked_load(builder: Any, pointers: Any, mask: Any, *more: Any) -> Any:
        check(pointers, mask)
        return load(builder, pointers, mask, *more)

    def checked_store(builder: Any, pointers: Any, value: Any, mask: Any, *more: Any) -> Any:
        check(pointers, mask)
        return store(builder, pointers, value, mask, *more)

    with (
        interpreting(),
        mock.patch.object(interpreter, "_implicit_cvt", shifted),
        mock.patch.multiple(
            InterpreterBuilder,
            create_get_program_id=far_index,
            create_masked_load=checked_load,
            create_masked_store=checked_store,
        ),
    ):
        yield


def before_sequences(tensor: Tensor) -> int:
    """Return the number of elements of the sequences before the first one; weights have no sequences."""
    axes = [i for i, size in enumerate(tensor.shape) if size == BATCH]
    assert len(axes) < 2, tensor.shape
    return FAR * tensor.stride(axes[0]) if axes else 0


@pytest.mark.parametrize("primitive", [SCAN, CONV_SILU], ids=["scan", "conv_silu"])
def test_sequences(primitive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from genoscan.ops.triton_gpu import scan

    for name, value in {
        "CHUNK": 2,
        "CHECKPOINT_INTERVAL": 2,
        "BASES_IN_REGISTERS": 2,
        "AHEAD": 2,
        "WIDTH": 512,
    }.items():
        monkeypatch.setattr(scan, name, value)
    name = "scan" if primitive is SCAN else "conv_silu"
    inputs = OPERATIONS[name].problem(BATCH, 5, 4, 5)
    dots = directions_for(inputs, 1)

    def rules() -> list[Tensors]:
        outputs, saved = primitive.forward(inputs, save=True)
        needs = tuple(tensor.shape[0] == BATCH for tensor in inputs)  # not the weights' sums over blocks of sequences
        bars = primitive.vjp(inputs, saved, random_like(outputs, 2), needs)
        found = outputs, tuple(bar for bar, needed in zip(bars, needs, strict=True) if needed)
        return [*found, *primitive.jvp(inputs, dots)]

    with interpreting():
        near = rules()
    assert FAR * min(tensor.stride(0) for tensor in inputs if tensor.shape[0] == BATCH) > 1 << 31
    with far_away(1, before_sequences):
        far = rules()
    assert_same_bits(far, near)


@pytest.mark.parametrize("name", ["STEP_SIZE", "GATE", "RMS_NORM"])
def test_rows(name: str) -> None:
    primitive, width = getattr(pointwise, name), 64
    x = torch.randn(BATCH, 9, width, generator=torch.Generator().manual_seed(1))
    inputs = (x, x + 1 if name == "GATE" else x[0, 0])
    rows = pointwise.BLOCK_SIZE // width
    options = {"eps": 1e-5} if name == "RMS_NORM" else {}
    # The gate counts elements, the others rows.
    more = FAR * pointwise.BLOCK_SIZE if name == "GATE" else FAR * rows

    def rules() -> list[Tensors]:
        outputs, saved = primitive.forward(inputs, save=True, **options)
        bars = primitive.vjp(inputs, saved, (x - 2,), (True, name == "GATE"), **options)
        return [outputs, tuple(bar for bar in bars if bar is not None)]

    with interpreting():
        near = rules()
    with far_away(0, lambda tensor: FAR * pointwise.BLOCK_SIZE if tensor.dim() == 3 else 0, more):
        far = rules()
    assert_same_bits(far, near)


def test_an_overflow_is_seen() -> None:
    x = torch.ones(4)
    with pytest.raises(Exception, match="overflow"), far_away(0, lambda _tensor: FAR * 64), np.errstate(over="ignore"):
        launch(_double, (1,), x, torch.empty(4), 64)
