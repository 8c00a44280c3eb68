"""What the capabilities of the two targets cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from export_torchq.engines import engine_of
from export_torchq.levels import weight_of
from export_torchq.plugin import PT2E, TORCHQ
from export_torchq.pt2e import check_flavor
from export_torchq.torchq import read
from quant_core.export import Note, Program, Refusal
from quant_core.export.check import changed_in_place, takes
from quant_core.export.out_of_place import is_in_place

DEPARTURE: Final = (
    "the file holds quantized tensors and TorchScript, both of which torch has announced to remove: use it for runtimes "
    "that read it today, and the target pt2e for anything new"
)


def rules_of_torchq(program: Program, engine: str | None = None) -> Iterator[Refusal | Note]:
    """What is changed in place, what is computed in floats, and what will become of the format."""
    chosen = engine_of(engine)
    yield Note(where="the file", what=DEPARTURE)
    refusals = list(changes_in_place(program, "torchq"))
    yield from refusals
    if not refusals and all(takes(quantizer, TORCHQ) for quantizer in program.quantizers):
        yield from read(program, chosen).findings


def rules_of_pt2e(program: Program, flavor: str = "x86") -> Iterator[Refusal | Note]:
    """What is changed in place, and weights whose scales no operator says."""
    check_flavor(flavor)
    yield from changes_in_place(program, "pt2e")
    for quantizer in program.quantizers:
        if quantizer.role == "weight" and takes(quantizer, PT2E) and weight_of(quantizer) is None:
            yield Refusal(
                where=str(quantizer.where),
                op=quantizer.op,
                actual="a scale and a zero-point that vary along different axes",
                constraint="pt2e dequantizes a weight along one axis",
                fix="Give both the same shape, or one of them the shape ().",
            )


def changes_in_place(program: Program, target: str) -> Iterator[Refusal]:
    """A refusal for each operation that changes what another one uses too: the copy in integers would not change with it."""
    return (changed_in_place(program, node, target) for node in program.graph.nodes if is_in_place(node))
