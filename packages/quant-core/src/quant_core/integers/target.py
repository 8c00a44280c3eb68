"""The target ``integers``: what it refuses, and what it makes of a program."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.export.check_report import Note, Refusal
from quant_core.export.program import Program
from quant_core.integers.artifact import IntegerArtifact, pack
from quant_core.integers.lowering import Lowering


def lower(program: Program, name: str = "model") -> IntegerArtifact:
    """Lower a program to integers.

    Args:
        program: a captured model that the target takes.
        name: what the include guard of the C header is made of.
    """
    plan = Lowering(program).plan
    grids = {
        quantizer.name: (quantizer.scale, quantizer.zero_point)
        for quantizer in program.quantizers
        if quantizer.role == "activation" and quantizer.scale is not None and quantizer.zero_point is not None
    }
    return IntegerArtifact("integers", program.signature, pack(plan, name), grids)


def rules(program: Program) -> Iterable[Refusal | Note]:
    """What cannot be computed in integers, beyond what the capabilities say: it depends on what stands around."""
    yield from Lowering(program).refusals
