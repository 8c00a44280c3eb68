"""What torch computes between two calls of the compiled library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quant_rnn.native.memory import Memory
from quant_rnn.native.plan import Instruction
from quant_rnn.native.program import Kind
from quant_rnn.native.tables import FUNCTIONS


class Factor(NamedTuple):
    """What products are formed with.

    Attributes:
        matrix: ``(width, features)``.
        bias: what is added to a product that nothing else is added to, ``(width,)``.
    """

    matrix: Tensor
    bias: Tensor | None = None


def computed_by_torch(one: Instruction, memory: Memory, factors: Sequence[Factor]) -> Callable[[int], object]:
    """What an instruction does at a step."""
    results = memory.tensors(one.result, one.width)
    if one.kind in FUNCTIONS:
        function, operands = FUNCTIONS[Kind(one.kind)], memory.tensors(one.a, one.width)
        return lambda t: function(operands[t], out=results[t])
    matrix, bias = factors[one.which]
    if one.kind == Kind.LINEAR:
        matrix = matrix.t()
    left = memory.tensors(one.a, matrix.shape[0])
    if one.b is not None:
        others = memory.tensors(one.b, one.width)
        return lambda t: torch.addmm(others[t], left[t], matrix, out=results[t])
    if bias is None:
        return lambda t: torch.mm(left[t], matrix, out=results[t])
    return lambda t: torch.addmm(bias, left[t], matrix, out=results[t])
