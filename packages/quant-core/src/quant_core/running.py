"""Which layer of the model is running, so that an error can name the one that it came from.

A layer does not know its path in the model, and a quantizer that several layers share does not know which of them called
it. The call stack knows both, and is only asked when something has gone wrong already.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import nn

_PARTS_OF_QUANTIZERS = ("quant_core.components.", "quant_core.proxies.")


def running_layer(named: str | None = None) -> str | None:
    """The path and the name of the innermost layer that is running; only its name where the model itself is that layer.

    The path is that in the outermost module whose forward is running. Quantizers and what they consist of count as their
    layer. A compiler that traces the code has no such stack; nothing is looked up then.

    Args:
        named: what to call the layer; its type by default. Also what is returned when no layer is running.

    >>> class Picky(nn.Module):
    ...     def forward(self, x):
    ...         return running_layer()
    >>> nn.Sequential(nn.ReLU(), nn.Sequential(Picky()))(torch.zeros(1))
    '1.0 (Picky)'
    >>> Picky()(torch.zeros(1))
    'Picky'
    """
    if torch.compiler.is_compiling():
        return named
    running = list(_running())
    layer = next((module for module in running if not _is_part(module)), None)
    if layer is None:
        return named
    named = named or type(layer).__name__
    path = next((path for path, module in running[-1].named_modules() if module is layer), "")
    return f"{path} ({named})" if path else named


def _running() -> Iterator[nn.Module]:
    """The modules that are being called, the innermost first."""
    frame = sys._getframe()
    call = nn.Module._call_impl.__code__
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is call:
            yield frame.f_locals["self"]


def _is_part(module: nn.Module) -> bool:
    """Whether it belongs to a quantizer; so does what others derive from our components."""
    return any(kind.__module__.startswith(_PARTS_OF_QUANTIZERS) for kind in type(module).__mro__)
