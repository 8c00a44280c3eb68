"""Whether somebody looks into the operations that run, and functions are spelled in plain ones for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._compile import _disable_dynamo

Function = TypeVar("Function", bound=Callable[..., Any])


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


def constant_in_graphs(function: Function) -> Function:
    """A function that a compiler calls while it captures a graph, and whose result is a constant of the graph.

    As ``torch.compiler.assume_constant_result``, which loads the compiler: a second for everybody who imports a layer.

    >>> constant_in_graphs(lambda: 3)()
    3
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def outside_of_graphs(reason: str) -> Callable[[Function], Function]:
    """What a compiler does not look into, but calls between two graphs. As ``torch.compiler.disable``, which loads the compiler.

    >>> outside_of_graphs("it asks somebody else")(lambda: 3)()
    3
    """

    def marked(function: Function) -> Function:
        found: Any = _disable_dynamo(function)
        found._torchdynamo_disable, found._torchdynamo_disable_msg = True, reason
        return found  # type: ignore[no-any-return]

    return marked


def is_composed() -> bool:
    """Whether functions are spelled in plain operations: for those, and for a compiler, which fuses them.

    >>> is_composed()
    False
    """
    return torch.compiler.is_compiling() or is_traced()
