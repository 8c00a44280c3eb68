"""Convolutions and linear layers: one node with weight, bias and the rounding of the result."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import fx

from export_dpu.kernels import FINEST
from export_dpu.operation import Value, pair, position_of, shape_of
from export_dpu.padding import Pads, pad_before
from export_dpu.reading import Reading
from quant_core.export.arguments import arguments, zeros_around
from quant_core.export.products import Product, product

_aten = torch.ops.aten
BIAS: Final = "Int8BiasPerTensorFixedPointInternalScaling"
WEIGHT: Final = "Int8WeightPerTensorFixedPoint"
_CUT: Final = (0, 16)
"""How many bits Vitis AI's quantizers let the accumulator be shifted by on its way to the result."""


def read_product(reading: Reading, node: fx.Node) -> None:
    """Read a convolution, a transposed convolution or a linear layer."""
    given = arguments(node)
    stored = {name for name, quantizer in reading.quantizers.items() if quantizer.integers is not None}
    found = product(node, frozenset(stored | reading.program.constants.keys()))
    if found is None:
        reading.refuse(
            node,
            "a weight that is computed at run time",
            f"{reading.target} stores weights",
            "Keep the operation out of the exported part, or make its second operand a parameter.",
        )
        return
    x = reading.operand(node, found.x)
    weight = reading.parameter(found.weight)
    if weight is None:
        reading.refuse(
            node,
            "a float weight",
            f"{reading.target} computes with integer weights",
            f"Use the quantized layer of quant_nn with weight_quant={WEIGHT}, or keep this one out of the exported part.",
        )
    bias = None if found.bias is None else reading.parameter(found.bias)
    if found.bias is not None and bias is None:
        reading.refuse(
            node,
            "a float bias",
            f"{reading.target} adds integer biases of at most 8 bits",
            f"Set bias_quant={BIAS} on this layer, or bias=False.",
        )
    if node.target is _aten.linear.default and len(shape_of(found.x)) != 2:
        reading.refuse(
            node,
            f"an input of {len(shape_of(found.x))} axes",
            f"{reading.target} multiplies matrices: a batch of rows",
            "Flatten the input to two axes before this layer.",
        )
    position = reading.rounded(node)
    if weight is None or (found.bias is not None and bias is None):
        reading.values[node] = Value(name="", position=None)
        return
    assert weight.integers is not None
    weights = reading.constant(reading.parameter_name(found.weight), weight.integers)
    inputs: list[Value | str] = [_padded(reading, node, found, x, given), weights]
    kinds = {"weights": (int(weight.bit_width or 0), position_of(weight))}
    if bias is not None and found.bias is not None:
        assert bias.integers is not None
        inputs.append(reading.constant(reading.parameter_name(found.bias), bias.integers))
        kinds["biases"] = (int(bias.bit_width or 0), position_of(bias))
    op_type, attributes = _written(reading, node, found, given)
    reading.values[node] = reading.add(node, op_type, tuple(inputs), position, attributes, kinds)
    _check_shifts(reading, node, x.position, kinds, position)


def _padded(reading: Reading, node: fx.Node, found: Product, x: Value, given: dict[str, Any]) -> Value:
    if found.is_convolution and node.target is not _aten.conv_transpose2d.input and reading.pads_apart:
        return pad_before(reading, node, x, shape_of(found.x), pads_of(found, given))
    return x


def _written(reading: Reading, node: fx.Node, found: Product, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operator and its attributes."""
    if not found.is_convolution:
        return "Gemm", {"transB": 1}
    kernel = pair(shape_of(found.weight)[-2:])
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": pair(given["stride"]),
        "dilations": pair(given["dilation"]),
        "group": int(given["groups"]),
    }
    if node.target is _aten.conv_transpose2d.input:
        if any(given["output_padding"]):
            reading.refuse(
                node,
                f"output_padding={tuple(given['output_padding'])}",
                "PyXIR reads transposed convolutions without output_padding",
                "Choose kernel size, stride and padding so that output_padding is 0.",
            )
        incoming, outgoing = (shape_of(found.weight)[axis] for axis in (0, 1))
        if incoming != outgoing:
            reading.note(
                node,
                f"{incoming} input and {outgoing} output channels of a transposed convolution: the file holds its weight as ONNX "
                "defines it, inputs first; PyXIR's own reader takes outputs first, and stops when the two numbers differ",
            )
        height, width = pair(given["padding"])
        return "ConvTranspose", attributes | {"pads": (height, width, height, width)}
    if reading.pads_apart:
        return "Conv", attributes | {"auto_pad": "VALID"}
    return "Conv", attributes | {"pads": pads_of(found, given)}


def pads_of(found: Product, given: dict[str, Any]) -> Pads:
    """Zeros around the input of a convolution: top, left, bottom, right."""
    (top, bottom), (left, right) = zeros_around(given, shape_of(found.weight)[-2:])
    return (top, left, bottom, right)


def _check_shifts(
    reading: Reading,
    node: fx.Node,
    x: int | None,
    kinds: dict[str, tuple[int, int | None]],
    out: int | None,
) -> None:
    """Note shifts that Vitis AI's quantizers move positions to avoid; refuse those that no accumulator holds."""
    weight = kinds["weights"][1]
    if x is None or weight is None or out is None:
        return
    cut = x + weight - out
    if not _CUT[0] <= cut <= _CUT[1]:
        reading.note(
            node,
            f"the accumulator is shifted by {cut} bits to the result; Vitis AI keeps this within {_CUT[0]} and {_CUT[1]}, "
            "and a DPU compiler may refuse it",
        )
    bias = kinds.get("biases", (0, None))[1]
    if bias is not None:
        moved, least = x + weight - bias, min(0, cut - 16)
        if -moved > FINEST:
            reading.refuse(
                node,
                f"a bias {-moved} bits finer than its accumulator",
                f"no accumulator has more than {FINEST} bits behind those of its products",
                "Set bias=False on this layer if its bias is zero, or give bias_scaling_min_val a larger value.",
            )
        elif not least <= moved <= _CUT[1]:
            reading.note(
                node,
                f"the bias is shifted by {moved} bits to the accumulator; Vitis AI keeps this within {least} and {_CUT[1]}, "
                "and a DPU compiler may refuse it",
            )
