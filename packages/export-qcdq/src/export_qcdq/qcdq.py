"""Target ``qcdq``: standard ONNX in which quantization is QuantizeLinear → Clip → DequantizeLinear.

- An activation quantizer becomes ``QuantizeLinear`` to int8 or uint8, ``Clip`` where its range is smaller than the type's, and
  ``DequantizeLinear``.
- A weight is stored as int8 or uint8 behind one ``DequantizeLinear``: a quarter of the size of a float weight.
- A quantized bias is stored as int32 behind one ``DequantizeLinear`` at the accumulator's scale, with which runtimes compute in
  integers.
"""

from __future__ import annotations

import torch
from torch import fx
from torch.export import ExportedProgram

from export_qcdq.grid import grid
from export_qcdq.ops import DEQUANTIZE, QUANTIZE, translations
from quant_core.export import Program, Quantizer, is_quantizer
from quant_core.export.builder import ProgramBuilder, constant_inputs
from quant_core.export.onnx import OnnxArtifact, check_opset, check_precision, to_onnx
from quant_core.ops import integer_range


def lower(program: Program, opset_version: int = 18) -> OnnxArtifact:
    """Lower a program to QCDQ.

    Args:
        program: a captured model that the target takes.
        opset_version: the version of the standard ONNX operators, 18 to 21.

    Raises:
        ConfigurationError: for another version.
        UnsupportedError: when an operation of the model has no ONNX operator, or a quantizer does not compute in float32.
    """
    check_opset(opset_version)
    check_precision(program, "qcdq")
    content, quantizers = to_onnx(
        program,
        rewrite(program),
        target="qcdq",
        translations=translations(opset_version),
        opset=opset_version,
        producer="export-qcdq",
    )
    return OnnxArtifact("qcdq", program.signature, content, quantizers)


def rewrite(program: Program) -> ExportedProgram:
    """The program with each quantizer in the form that ONNX wants."""
    builder = ProgramBuilder(program.exported)
    names = constant_inputs(program.exported)
    quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
    for node in program.graph.nodes:
        if node.name in names:
            # What only quantizers read is written by them in another type, under the same name.
            if not all(is_quantizer(user) for user in node.users):
                builder.new[node] = builder.constant(names[node.name], program.constants[node.name])
        elif not is_quantizer(node):
            if node.op not in ("placeholder", "output"):
                builder.copy(node)
        elif quantizers[node.name].role == "activation":
            _quantize(builder, node, quantizers[node.name])
        else:
            _dequantize(builder, node, quantizers[node.name], names)
    return builder.finish()


def _quantize(builder: ProgramBuilder, node: fx.Node, quantizer: Quantizer) -> None:
    part = quantizer.where.part
    kind = torch.int8 if quantizer.signed else torch.uint8
    assert quantizer.bit_width is not None  # constant, as the check has found
    low, high = integer_range(quantizer.bit_width, signed=quantizer.signed, narrow_range=quantizer.narrow_range)
    limits = torch.iinfo(kind)
    bounds = [] if (low, high) == (limits.min, limits.max) else [("low", low), ("high", high)]
    on = grid(quantizer)
    operands = (
        builder.new[_operand(node)],
        builder.constant(part("scale"), on.scale),
        builder.constant(part("zero_point"), on.zero_point.to(kind)),
        [builder.constant(part(name), torch.tensor(int(bound), dtype=kind)) for name, bound in bounds],
    )
    builder.replace(node, QUANTIZE, operands, {"axis": on.axis, "name": quantizer.name})


def _dequantize(builder: ProgramBuilder, node: fx.Node, quantizer: Quantizer, names: dict[str, str]) -> None:
    assert quantizer.integers is not None  # a weight or a bias
    base = names[_operand(node).name]
    integers = quantizer.integers.to(torch.int32) if quantizer.role == "bias" else quantizer.integers
    on = grid(quantizer)
    zero_point = None
    if bool(torch.any(on.zero_point != 0)):
        zero_point = builder.constant(f"{base}_zero_point", on.zero_point.to(integers.dtype))
    operands = (builder.constant(base, integers), builder.constant(f"{base}_scale", on.scale), zero_point)
    builder.replace(node, DEQUANTIZE, operands, {"axis": on.axis})


def _operand(node: fx.Node) -> fx.Node:
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    return operand
