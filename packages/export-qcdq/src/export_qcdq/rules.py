"""What standard ONNX cannot hold beyond what the capabilities say: it depends on the version of the operators and on options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from export_qcdq.options import WIDE, QcdqOptions, QopOptions
from export_qcdq.plugin import QCDQ, TENSORRT
from quant_core.export import Note, Program, Quantizer, Refusal
from quant_core.export.check import refusals_of, takes
from quant_core.export.onnx.projections import refuse_projections


def of_qcdq(
    program: Program,
    opset_version: int = 18,
    packed: bool = False,
    exact_ties: bool = False,
    tensorrt: bool = False,
    fill_channels: bool = False,
) -> Iterable[Refusal | Note]:
    """What a file of QCDQ cannot hold, and where it may round halfway values to the other side."""
    QcdqOptions(
        opset_version=opset_version,
        packed=packed,
        exact_ties=exact_ties,
        tensorrt=tensorrt,
        fill_channels=fill_channels,
    )
    taken = [quantizer for quantizer in program.quantizers if takes(quantizer, QCDQ)]
    narrower = [quantizer for quantizer in taken if tensorrt and not takes(quantizer, TENSORRT)]
    for quantizer in narrower:
        yield from refusals_of(quantizer, TENSORRT, "qcdq", mode="tensorrt=True")
    rest = [quantizer for quantizer in taken if quantizer not in narrower]
    yield from refuse_projections(program, "qcdq")
    yield from _too_old(program, rest, "qcdq", opset_version)
    if not exact_ties:
        yield from _ties(rest, "; exact_ties=True rounds it as the model does")


def of_qop(
    program: Program, opset_version: int = 18, unsigned_weights: bool = False, fill_channels: bool = False
) -> Iterable[Refusal | Note]:
    """What a file of integer operators cannot hold, and where it may round halfway values to the other side."""
    QopOptions(opset_version=opset_version, unsigned_weights=unsigned_weights, fill_channels=fill_channels)
    taken = [quantizer for quantizer in program.quantizers if takes(quantizer, QCDQ)]
    yield from refuse_projections(program, "qop")
    yield from _too_old(program, taken, "qop", opset_version)
    yield from _ties(taken, "")


def _too_old(program: Program, quantizers: list[Quantizer], target: str, opset: int) -> Iterator[Refusal]:
    nodes = {node.name: node for node in program.graph.nodes}
    for quantizer in quantizers:
        place, op = str(quantizer.where), quantizer.op
        assert quantizer.bit_width is not None  # constant, as the capabilities ask
        if op == "quant::trunc" and program.constant(nodes[quantizer.name].args[1]) is None:
            yield Refusal(
                where=place,
                op=op,
                actual="an input scale computed at run time",
                constraint=f"{target} writes the scale of the accumulator as a constant",
                fix="Use quantizers with stored scales before it.",
            )
        if opset >= WIDE:
            continue
        if quantizer.role != "bias" and quantizer.bit_width > 8:
            yield Refusal(
                where=place,
                op=op,
                actual=f"bit_width={quantizer.bit_width:g}",
                constraint=f"{target} holds more than 8 bits as integers of 16, which came with opset {WIDE}, got "
                f"opset_version={opset}",
                fix=f"Set opset_version={WIDE}, or a {quantizer.option('bit_width')} of 8 or less on this layer.",
            )
        if quantizer.granularity == "per_group":
            yield Refusal(
                where=place,
                op=op,
                actual="a per_group scale",
                constraint=f"{target} holds groups as blocks of DequantizeLinear, which came with opset {WIDE}, got "
                f"opset_version={opset}",
                fix=f"Set opset_version={WIDE}, or leave weight_group_size out.",
            )


def _ties(quantizers: list[Quantizer], remedy: str) -> Iterator[Note]:
    for quantizer in quantizers:
        if quantizer.role != "activation" or quantizer.op != "quant::int" or quantizer.rounding_mode != "ROUND":
            continue
        if bool(torch.any(quantizer.zero_point != 0)):  # type: ignore[arg-type]
            yield Note(
                where=str(quantizer.where),
                what="QuantizeLinear adds the zero-point after rounding: a value exactly halfway between two levels may go to "
                f"the other one{remedy}",
            )
