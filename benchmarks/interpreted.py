"""Run Triton kernels on the CPU in its interpreter, with less overhead."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

SMALL: dict[str, Any] = {"CHUNK": 4, "CHECKPOINT_INTERVAL": 2, "BASES_IN_REGISTERS": 1, "AHEAD": 2, "WIDTH": 4096}
"""Kernel sizes for windows of a few bases: an interpreted program costs as much as one number."""


@contextmanager
def interpreting(*, small: bool = False) -> Iterator[None]:
    """Run kernels in the interpreter, preparing triton.language once and not for every helper.

    Kernels declared without TRITON_INTERPRET are not affected: set it before
    genoscan.ops.triton_gpu is first imported.  Use one thread, because the interpreter keeps global
    state.  With `small`, chunks are a few bases long.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    from genoscan.ops.triton_gpu import conv, pd_scan, scan

    genuine = interpreter._patch_lang

    def once(function: Any) -> Any:
        seen = [module for module in function.__globals__.values() if module is tl or module is tl.core]
        ready = all(not isinstance(module.static_range, type) for module in seen)
        return None if ready else genuine(function)

    with (
        mock.patch.dict("os.environ", TRITON_INTERPRET="1"),
        mock.patch.object(interpreter, "_patch_lang", once),
        ExitStack() as sizes,
    ):
        if small:
            sizes.enter_context(mock.patch.multiple(scan, **SMALL))
            sizes.enter_context(mock.patch.object(pd_scan, "CHUNK", 4))
            sizes.enter_context(mock.patch.object(conv, "BLOCK_SIZE", 4096))
        yield
