"""What a lowering to FINN-ONNX works with: the new program, and which of its values are integers so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from export_finn import datatypes
from export_finn.integers import Integers
from export_finn.operands import dequantized
from quant_core.export import Program, ProgramBuilder, constant_inputs


class Workbench:
    """A program in the making, and what its file must tell besides.

    Attributes:
        program: the old program.
        builder: the new one so far.
        names: the qualified name of each constant, by its node.
        quantizers: the quantizers of the old program, by name.
        weights: the names of those that quantize constants.
        integers: the values of old nodes that the new program has as integers.
        constant_datatypes: the datatype of each constant of integers, by its qualified name.
        result_datatypes: the datatype of each result of integers, by the name of its node in the new program.
        floats: the products of the old program whose data are no integers in the new one.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.builder = ProgramBuilder(program.exported)
        self.names = constant_inputs(program.exported)
        self.quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.weights = frozenset(name for name, quantizer in self.quantizers.items() if quantizer.integers is not None)
        self.integers: dict[fx.Node, Integers] = {}
        self.constant_datatypes: dict[str, str] = {}
        self.result_datatypes: dict[str, str] = {}
        self.floats: list[fx.Node] = []

    def value(self, node: fx.Node) -> fx.Node:
        """The node of the new graph that gives the value of an old one."""
        if node not in self.builder.new:
            self.builder.new[node] = self._scaled(node) if node in self.integers else self._constant(node)
        new: fx.Node = self.builder.new[node]
        return new

    def _scaled(self, node: fx.Node) -> fx.Node:
        held = self.integers[node]
        if bool(torch.all(held.scale == 1)):
            return held.node
        scale = self.builder.constant(held.name, held.scale)
        return self.builder.call(torch.ops.aten.mul.Tensor, (held.node, scale), like=node, name=node.name)

    def _constant(self, node: fx.Node) -> fx.Node:
        if node.name in self.weights:  # for an operation that no integers are computed with
            quantizer = self.quantizers[node.name]
            return self.builder.constant(self.base(node), dequantized(quantizer))
        return self.builder.constant(self.names[node.name], self.program.constants[node.name])

    def base(self, node: fx.Node) -> str:
        """The qualified name of the parameter that a node dequantizes."""
        stored: Any = node.args[0]
        return self.names[stored.name]

    def whole(self, node: fx.Node, integers: Tensor) -> fx.Node:
        """A constant of the integers of a quantized parameter."""
        name = self.base(node)
        self.constant_datatypes[name] = datatypes.of_quantizer(self.quantizers[node.name])
        return self.builder.constant(name, integers.to(torch.float32).contiguous())

    def hold(self, node: fx.Node, held: Integers) -> None:
        """Note that the new program has the value of an old node as integers."""
        self.integers[node] = held
        if held.datatype:
            self.result_datatypes[held.node.name] = held.datatype
