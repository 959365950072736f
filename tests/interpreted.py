"""Triton's interpreter, made quick: kernels run on the CPU, one numpy call an operation."""

from typing import Any

import pytest


def interpret(patch: pytest.MonkeyPatch) -> None:
    """Run kernels by it, but have it make triton.language ready once, not for every helper.

    Kernels that were declared without TRITON_INTERPRET stay as they are: it is to be set before
    genoscan.ops.triton_gpu is first loaded, too.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    patch.setenv("TRITON_INTERPRET", "1")
    genuine = interpreter._patch_lang

    def once(function: Any) -> Any:
        seen = [
            module for module in function.__globals__.values() if module is tl or module is tl.core
        ]
        ready = all(not isinstance(module.static_range, type) for module in seen)
        return None if ready else genuine(function)

    patch.setattr(interpreter, "_patch_lang", once)
