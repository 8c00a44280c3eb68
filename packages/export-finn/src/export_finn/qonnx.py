"""Target ``qonnx``: ONNX in which quantization is ``Quant``, ``BipolarQuant``, ``Trunc`` and ``FloatQuant``, of ``qonnx``.

- An activation quantizer becomes one such node.
- A weight or a bias is stored as the values that it is rounded to, behind a node that tells their grid and rounds nothing more.
- A linear layer is ``MatMul`` and ``Add``, with the weight turned as it is multiplied.
- Every shape is fixed, and each node and initializer is named after the module that it comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from export_finn.artifact import QonnxArtifact
from export_finn.averaging import restore_average
from export_finn.flattening import restore_flatten
from export_finn.lstm_node import LSTMNodes, check_form
from export_finn.minifloats import format_flags, format_parts
from export_finn.operands import ROUNDING_MODES, dequantized, input_grid, scale_and_zero_point
from export_finn.ops import BIPOLAR, FLOAT, QUANT, TRUNC, translations
from export_finn.outputs import compute_constant_outputs
from export_finn.weights import split_weights
from quant_core.export import Program, ProgramBuilder, Quantizer, constant_inputs, is_quantizer
from quant_core.export.onnx import check_opset, check_precision, to_onnx
from quant_core.export.products import Product, product


def lower(program: Program, opset_version: int = 18, recurrent: str = "unrolled") -> QonnxArtifact:
    """Lower a program to QONNX.

    Args:
        program: a captured model that the target takes.
        opset_version: the version of the standard ONNX operators, 18 to 21.
        recurrent: ``"unrolled"`` writes recurrent layers in standard operators and ``Quant``, step after step; ``"cell"`` writes
            each layer and direction of an LSTM as one ``QuantLSTMCell``, which nothing executes.

    Raises:
        ConfigurationError: for another version or another word.
        UnsupportedError: when an operation of the model has no ONNX operator, or a quantizer does not compute in float32.
    """
    check_opset(opset_version)
    check_form(recurrent)
    check_precision(program, "qonnx")
    exported = _Rewriting(program, cells=recurrent == "cell").exported()
    converted = to_onnx(
        program,
        exported,
        target="qonnx",
        translations=translations(),
        opset=opset_version,
        producer="export-finn",
        steps=(split_weights(exported), restore_flatten, restore_average, compute_constant_outputs),
    )
    content, values = converted.in_one_file("qonnx")
    return QonnxArtifact("qonnx", program.signature, content, values)


class _Rewriting:
    """A program in the making in which each quantizer is an op of QONNX."""

    def __init__(self, program: Program, *, cells: bool) -> None:
        self.program = program
        self.builder = ProgramBuilder(program.exported)
        self.lstms = LSTMNodes(program, self.builder) if cells else None
        self.names = constant_inputs(program.exported)
        self.quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.weights = frozenset(name for name, quantizer in self.quantizers.items() if quantizer.role != "activation")

    def exported(self) -> ExportedProgram:
        for node in self.program.graph.nodes:
            if node.op != "call_function" or node.name in self.weights:
                continue
            if self.lstms is not None and self.lstms.takes(node):
                self.lstms.write(node, self._value)
            else:
                self._rewrite(node)
        for node in self.program.graph.output_node().all_input_nodes:
            self._value(node)
        return self.builder.finish()

    def _rewrite(self, node: fx.Node) -> None:
        found = product(node, self.weights)
        if is_quantizer(node):
            self._activation(node, self.quantizers[node.name])
        elif found is not None and node.target is torch.ops.aten.linear.default:
            self._linear(found)
        else:
            for used in node.all_input_nodes:
                self._value(used)
            self.builder.copy(node)

    def _value(self, node: fx.Node) -> fx.Node:
        """The new node in the place of an old one; what is constant is made when it is first asked for."""
        if node not in self.builder.new:
            if node.name in self.weights:
                self.builder.new[node] = self._weight(node, node.name)
            else:
                self.builder.new[node] = self.builder.constant(self.names[node.name], self.program.constants[node.name])
        new: fx.Node = self.builder.new[node]
        return new

    def _linear(self, found: Product) -> None:
        """A product with the weight as it is multiplied, because readers do not take ``Gemm`` in all its versions."""
        node, aten = found.node, torch.ops.aten
        weight = self._weight(found.weight, f"{found.weight.name}_turned", turned=True)
        name = node.name if found.bias is None else f"{node.name}_product"
        value = self.builder.call(aten.matmul.default, (self._value(found.x), weight), like=node, name=name)
        if found.bias is not None:
            bias = self._value(found.bias)
            value = self.builder.call(aten.add.Tensor, (value, bias), like=node, name=node.name)
        self.builder.new[node] = value

    def _weight(self, node: fx.Node, name: str, *, turned: bool = False) -> fx.Node:
        """The node of a quantized parameter, which is stored as the values that it was rounded to."""
        quantizer, base = self.quantizers[node.name], self.names[_operand(node).name]
        x, scale, zero_point = dequantized(quantizer), *scale_and_zero_point(quantizer)
        if turned:
            x, scale, zero_point = (tensor.t().contiguous() for tensor in (x, scale, zero_point))
        stored = self.builder.constant(base, x)
        scale_node = self.builder.constant(f"{base}_scale", scale)
        if quantizer.op == "quant::binary":
            return self.builder.call(BIPOLAR, (stored, scale_node), {"name": name}, like=node, name=name)
        if quantizer.float_format is not None:
            numbers = (
                self.builder.constant(f"{base}_{part}", number) for part, number in format_parts(quantizer.float_format)
            )
            options = format_flags(quantizer, "ROUND", name)
            return self.builder.call(FLOAT, (stored, scale_node, *numbers), options, like=node, name=name)
        zero_node = self.builder.constant(f"{base}_zero_point", zero_point)
        bits_node = self.builder.constant(f"{base}_bit_width", _number(quantizer.bit_width))
        options = {"signed": quantizer.signed, "narrow": quantizer.narrow_range, "rounding_mode": "ROUND", "name": name}
        return self.builder.call(QUANT, (stored, scale_node, zero_node, bits_node), options, like=node, name=name)

    def _activation(self, node: fx.Node, quantizer: Quantizer) -> None:
        x = self._value(_operand(node))

        def parameter(name: str, value: Tensor) -> fx.Node:
            return self.builder.constant(quantizer.where.part(name), value)

        scale, zero_point = scale_and_zero_point(quantizer)
        scale_node = parameter("scale", scale)
        if quantizer.op == "quant::binary":
            self.builder.replace(node, BIPOLAR, (x, scale_node), {"name": node.name})
            return
        if quantizer.float_format is not None:
            numbers = (parameter(part, number) for part, number in format_parts(quantizer.float_format))
            options = format_flags(quantizer, ROUNDING_MODES[quantizer.rounding_mode], node.name)
            self.builder.replace(node, FLOAT, (x, scale_node, *numbers), options)
            return
        ternary = quantizer.op == "quant::ternary"
        zero_node = parameter("zero_point", zero_point)
        bits_node = parameter("bit_width", _number(quantizer.bit_width))
        options = {
            "signed": quantizer.signed,
            "narrow": quantizer.narrow_range or ternary,
            "rounding_mode": ROUNDING_MODES[quantizer.rounding_mode],
            "name": node.name,
        }
        if quantizer.op == "quant::trunc":
            input_scale, input_bits = input_grid(self.program, node)
            input_bits_node = parameter("input_bit_width", _number(input_bits))
            before = (parameter("input_scale", input_scale), zero_node, input_bits_node)
            self.builder.replace(node, TRUNC, (x, *before, scale_node, bits_node), options)
            return
        if ternary:
            x = self._at_half(node, quantizer, x)
        self.builder.replace(node, QUANT, (x, scale_node, zero_node, bits_node), options)

    def _at_half(self, node: fx.Node, quantizer: Quantizer, x: fx.Node) -> fx.Node:
        """What a ternary quantizer rounds, so that its threshold is half of a step, as that of integers of 2 bits."""
        factor = 0.5 / float(node.kwargs["threshold"])  # type: ignore[arg-type]
        if factor == 1:
            return x
        constant = self.builder.constant(quantizer.where.part("factor"), _number(factor))
        name = f"{node.name}_at_half"
        return self.builder.call(torch.ops.aten.mul.Tensor, (x, constant), like=node, name=name)


def _number(value: float | None) -> Tensor:
    assert value is not None  # constant, as the check has found
    return torch.tensor(float(value))


def _operand(node: fx.Node) -> fx.Node:
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    return operand
