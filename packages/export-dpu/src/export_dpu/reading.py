"""What is known while a program is read node by node: the operations of the file so far, and all that stands in its way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx

from export_dpu.operation import Operation, Value, position_of, shape_of
from quant_core.export import Note, Program, Quantizer, Refusal, constant_inputs, landings

BITS: Final = 8
ACTIVATION: Final = "Int8ActPerTensorFixedPoint"


class Reading:
    """A program as far as it is read.

    Args:
        foreign: the operations of the program that the target does not take at all.

    Attributes:
        program: what is read.
        target: the name of the target, for messages.
        pads_apart: whether padding is written as operations of its own.
        values: the value in the file of each node.
        operations: the nodes of the file, in order.
        constants: its initializers by name, int64.
        findings: what the target cannot take, and what its users should know of.
    """

    def __init__(self, program: Program, target: str, pads_apart: bool, foreign: Collection[Any] = ()) -> None:
        self.program = program
        self._foreign = foreign
        self.target = target
        self.pads_apart = pads_apart
        self.quantizers: Mapping[str, Quantizer] = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.values: dict[fx.Node, Value] = {}
        self.operations: list[Operation] = []
        self.constants: dict[str, Tensor] = {}
        self.findings: list[Refusal | Note] = []
        self._names = constant_inputs(program.exported)
        self._landings = landings(program)
        self._taken: set[str] = set()

    def refuse(self, node: fx.Node, actual: str, constraint: str, fix: str) -> None:
        """Note something of a node that the target cannot take."""
        place, quantizer = str(self.program.where(node)), self.quantizers.get(node.name)
        op = str(node.target) if quantizer is None else quantizer.op
        self.findings.append(Refusal(where=place, op=op, actual=actual, constraint=constraint, fix=fix))

    def note(self, node: fx.Node, what: str) -> None:
        """Note something of a node that users should know of."""
        self.findings.append(Note(where=str(self.program.where(node)), what=what))

    def operand(self, node: fx.Node, used: Any) -> Value:
        """The value that an operation takes, on a grid; refused where it is on none."""
        known = self.values.get(used) if isinstance(used, fx.Node) else None
        if known is None:
            self.refuse(
                node,
                "a constant where it takes a value",
                f"{self.target} computes with values that depend on the inputs",
                "Compute what is constant before the export, or keep the operation out of the exported part.",
            )
        elif known.real:
            landing = self._landings.get(used.name)
            if landing is not None:  # it is rounded later, which gives the same as rounding first
                return Value(name=known.name, position=position_of(landing))
            self.refuse(
                node,
                "a float input",
                f"{self.target} computes with {BITS}-bit integers only",
                f"Set input_quant={ACTIVATION} on this layer, or put QuantIdentity({ACTIVATION}) before it.",
            )
        return known if known is not None and not known.real else Value(name="", position=None)

    def landing(self, node: fx.Node) -> int | None:
        """The position that the result of an operation is rounded to, if there is one."""
        quantizer = self._landings.get(node.name)
        return None if quantizer is None else position_of(quantizer)

    def rounded(self, node: fx.Node) -> int | None:
        """The position that the result of an operation is rounded to; refused where it is not rounded.

        Where it goes to an operation that is refused itself, that is enough.
        """
        if node.name not in self._landings and not any(user.target in self._foreign for user in node.users):
            self.refuse(
                node,
                "a result that is not rounded to one grid",
                f"{self.target} rounds the result of every operation to {BITS} bits",
                f"Set output_quant={ACTIVATION} on this layer, or put one QuantReLU or QuantIdentity({ACTIVATION}) behind it, "
                "before anything else uses the result.",
            )
        return self.landing(node)

    def add(
        self,
        node: fx.Node,
        op_type: str,
        inputs: tuple[Value | str, ...],
        position: int | None,
        attributes: Mapping[str, Any] | None = None,
        quantization: Mapping[str, tuple[int, int | None]] | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        positive: bool = False,
    ) -> Value:
        """Add an operation of the file.

        Args:
            node: the node of the program that it is a part of.
            op_type: its operator.
            inputs: its operands: values, and names of constants.
            position: that of its result, ``None`` for a real one.
            attributes: what it computes.
            quantization: bit width and position of the constants among its operands, by kind; ``None`` for a standard operator.
            shape: the shape of its result, where it is not that of the node.
            positive: whether the result cannot be below zero.
        """
        name = self._free(node, op_type)
        taken = [value for value in inputs if isinstance(value, Value)]
        kinds: dict[str, tuple[int, ...]] = {}
        if quantization is not None:
            kinds["in"] = tuple(part for value in taken for part in (BITS, value.position or 0))
            kinds["out"] = (BITS, position or 0)
            kinds |= {kind: (bits, place or 0) for kind, (bits, place) in quantization.items()}
        self.operations.append(
            Operation(
                op_type=op_type,
                name=name,
                inputs=tuple(value.name if isinstance(value, Value) else value for value in inputs),
                output=name,
                shape=shape_of(node) if shape is None else shape,
                attributes=dict(attributes or {}),
                quantization=kinds,
            )
        )
        real = quantization is None and any(value.real for value in taken)
        return Value(name=name, position=position, real=real, positive=positive)

    def _free(self, node: fx.Node, op_type: str) -> str:
        """A name that is not taken, from the path of the layer: ``conv1/Conv``."""
        path = self.program.where(node).path
        if path in self.program.modules.quantizers:
            path = path.rpartition(".")[0]
        base = f"{path}/{op_type}" if path else op_type
        number, name = 0, base
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    def constant(self, name: str, value: Tensor) -> str:
        """An initializer of integers; equal ones under one name are one."""
        number, candidate = 0, name
        while candidate in self.constants and not torch.equal(self.constants[candidate], value):
            number += 1
            candidate = f"{name}_{number}"
        self.constants[candidate] = value.to(torch.int64)
        return candidate

    def parameter(self, node: fx.Node) -> Quantizer | None:
        """The quantizer of a constant; ``None`` for everything else."""
        quantizer = self.quantizers.get(node.name)
        return quantizer if quantizer is not None and quantizer.integers is not None else None

    def parameter_name(self, node: fx.Node) -> str:
        """The qualified name of the parameter that a node dequantizes."""
        stored: Any = node.args[0]
        return self._names[stored.name]
