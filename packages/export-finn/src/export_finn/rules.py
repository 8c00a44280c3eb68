"""What QONNX and FINN cannot take beyond what their capabilities say: it depends on what stands around a quantizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch import fx

from export_finn.float_layers import float_functions, float_products
from export_finn.lowering import Lowering
from export_finn.lstm_node import check_form, refusals
from export_finn.plugin import FINN
from quant_core.export import Note, Program, Quantizer, Refusal
from quant_core.export.check import refusals_of, takes
from quant_core.export.fixed_shapes import varying_shapes
from quant_core.export.onnx.projections import refuse_projections
from quant_core.export.products import product

_aten = torch.ops.aten
_RECTIFIER: Final = _aten.relu.default


def of_qonnx(program: Program, recurrent: str = "unrolled") -> Iterable[Refusal | Note]:
    """What QONNX cannot hold; what FINN would refuse of the rest, as notes."""
    check_form(recurrent)
    if recurrent == "cell":
        yield from refusals(program)
    yield from varying_shapes(program, "qonnx", "QONNX")
    yield from refuse_projections(program, "qonnx")
    for quantizer in program.quantizers:
        if quantizer.role == "activation" and quantizer.rounding_mode == "HALF_UP" and quantizer.signed:
            yield Refusal(
                where=str(quantizer.where),
                op=quantizer.op,
                actual="rounding_mode='HALF_UP' of signed integers",
                constraint="QONNX rounds ties away from zero in this mode, and this model upwards",
                fix=f"Set {quantizer.option('rounding_mode')}='ROUND' on this layer, or {quantizer.option('signed')}=False "
                "behind a ReLU.",
            )
        numbers = quantizer.float_format
        if quantizer.role == "activation" and numbers is not None and not numbers.has_subnormal:
            yield Refusal(
                where=str(quantizer.where),
                op=quantizer.op,
                actual="has_subnormal=False",
                constraint="readers of QONNX compute with subnormal numbers, whatever the file says",
                fix=f"Set {quantizer.option('has_subnormal')}=True on this layer.",
            )
    beyond = (refusal for quantizer in program.quantizers for refusal in refusals_of(quantizer, FINN, "finn"))
    for refusal in (*beyond, *_refusals(program)):
        yield Note(where=refusal.where, what=f"FINN refuses {refusal.op} with {refusal.actual}")


def of_finn(program: Program) -> Iterable[Refusal | Note]:
    """What FINN cannot build hardware for; what it leaves to floats, as notes."""
    found = [*varying_shapes(program, "finn", "FINN"), *_refusals(program)]
    yield from found
    yield from float_functions(program)
    if not found and all(takes(quantizer, FINN) for quantizer in program.quantizers):
        yield from _scaled_data(program)


def _refusals(program: Program) -> Iterator[Refusal]:
    nodes = {node.name: node for node in program.graph.nodes}
    for quantizer in program.quantizers:
        if quantizer.scale is None:  # refused for that
            continue
        node = nodes[quantizer.name]
        if quantizer.role == "activation":
            yield from _activation(quantizer, node)
        elif quantizer.role == "weight":
            yield from _weight(quantizer, node)
    yield from float_products(program)


def _scaled_data(program: Program) -> Iterator[Note]:
    """Products whose data the file holds scaled: averages, sums of several grids, scales per channel."""
    lowering = Lowering(program)
    lowering.exported()
    for node in lowering.floats:
        yield Note(
            where=str(program.where(node)),
            what="the data of this product are no integers but averages, sums of values on several grids, or values with a scale "
            "for each channel, so that the product is one of floats. Quantize them per tensor in front of it: with QuantIdentity "
            "or QuantReLU, or TruncAvgPool2d for an average",
        )


def _activation(quantizer: Quantizer, node: fx.Node) -> Iterator[Refusal]:
    place, op = str(quantizer.where), quantizer.op
    before: Any = node.args[0]
    rectified = isinstance(before, fx.Node) and before.target is _RECTIFIER
    if op == "quant::int":
        if not quantizer.signed and not rectified:
            yield Refusal(
                where=place,
                op=op,
                actual="unsigned integers without a ReLU before them",
                constraint="FINN makes unsigned levels of a ReLU only",
                fix=f"Use QuantReLU here, or set {quantizer.option('signed')}=True on this layer.",
            )
        if quantizer.signed and rectified:
            yield Refusal(
                where=place,
                op=op,
                actual="signed integers after a ReLU",
                constraint="FINN takes unsigned integers after a ReLU",
                fix=f"Set {quantizer.option('signed')}=False on this layer.",
            )
        if not quantizer.signed and quantizer.narrow_range:
            yield Refusal(
                where=place,
                op=op,
                actual="narrow_range=True of unsigned integers",
                constraint="FINN takes the full range after a ReLU",
                fix=f"Set {quantizer.option('narrow_range')}=False on this layer.",
            )
    if op == "quant::binary" and bool(torch.any(quantizer.scale != 1)):  # type: ignore[arg-type]
        yield Refusal(
            where=place,
            op=op,
            actual=f"a scale of {_first(quantizer):g}",
            constraint="FINN takes binary activations of the scale 1",
            fix=f"Use a constant scale of 1 here: {quantizer.option('scaling_impl')}=ConstScaling, "
            f"{quantizer.option('scaling_init')}=1.0.",
        )
    if len(quantizer.shape) < 2:
        yield Refusal(
            where=place,
            op=op,
            actual=f"a tensor of {len(quantizer.shape)} axes",
            constraint="FINN finds the channels on axis 1",
            fix="Give the model inputs with an axis for the batch.",
        )
    elif quantizer.axis not in (None, 1):
        yield Refusal(
            where=place,
            op=op,
            actual=f"a scale for each element of axis {quantizer.axis}",
            constraint="FINN takes scales per channel on axis 1",
            fix="Set per_channel_broadcastable_shape to (1, C, 1, 1), or quantize per tensor.",
        )


def _weight(quantizer: Quantizer, node: fx.Node) -> Iterator[Refusal]:
    for user in node.users:
        found = product(user, frozenset({node.name}))
        if found is not None and quantizer.axis not in (None, found.output_axis):
            yield Refusal(
                where=str(quantizer.where),
                op=quantizer.op,
                actual=f"a scale for each element of axis {quantizer.axis}",
                constraint=f"FINN takes weight scales per tensor and per output channel, axis {found.output_axis}",
                fix="Set weight_scaling_per_output_channel=True on this layer.",
            )


def _first(quantizer: Quantizer) -> float:
    assert quantizer.scale is not None
    return float(quantizer.scale.flatten()[0])
