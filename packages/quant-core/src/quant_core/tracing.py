"""Whether somebody looks into the operations that run, and functions are spelled in plain ones for that."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether a transformation of torch.func, ``torch.jit.trace``, or a mode that operations are handed to runs the code.

    A compiler does not count; ``torch.compiler.is_compiling()`` tells of it.

    >>> is_traced()
    False
    >>> torch.vmap(lambda x: torch.tensor(is_traced()))(torch.ones(2))
    tensor([True, True])
    """
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active() or torch._C._get_tracing_state() is not None:
        return True
    return torch._C._len_torch_dispatch_stack() > 0


def is_composed() -> bool:
    """Whether functions are spelled in plain operations: for those, and for a compiler, which fuses them.

    >>> is_composed()
    False
    """
    return torch.compiler.is_compiling() or is_traced()
