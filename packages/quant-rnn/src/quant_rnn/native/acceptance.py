"""Which tensors the native steps take."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.native import has_values
from quant_core.tracing import constant_in_graphs
from quant_rnn.native.agreement import agrees


def takes(*tensors: Tensor) -> bool:
    """Whether the native steps run on these: plain float32 tensors on the CPU, and not while a program is captured."""
    if torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu"):
        return False
    if not all(_is_plain(tensor) for tensor in tensors):
        return False
    available: bool = _is_available()
    return available


@constant_in_graphs
def _is_available() -> bool:
    return agrees()


def _is_plain(x: Tensor) -> bool:
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.numel() == 0:
        return False
    if torch.compiler.is_compiling():
        return True
    return has_values(x)
