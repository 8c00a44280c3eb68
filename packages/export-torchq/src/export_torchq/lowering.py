"""A program on its way to a script: each value as floats, as quantized tensor, or both where both are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx

from export_torchq.levels import UINT8, unsigned_levels, weight_of
from export_torchq.script import Script
from quant_core.export import Note, Program, Quantizer, Refusal, constant_inputs, grids, landings
from quant_core.export.grid import same_grid

_aten = torch.ops.aten
_IN_OTHER_WORDS: Final = {
    _aten.sym_size.int: _aten.size,
    _aten.view.default: _aten.reshape,  # results of integer convolutions have their channels last in memory
}
"""What a call in a script is called where it is not the operator of the program."""
_LARGEST_WEIGHT: Final = 8


class Lowering:
    """A program as far as it is lowered.

    Attributes:
        program: what is lowered.
        engine: the engine that packs the weights.
        script: what it becomes.
        floats: the float value in the script of each node.
        integers: the quantized tensor in the script of each node that is one there.
        on: the quantizer whose grid that tensor is on.
        rectified: nodes whose quantized tensor has been through the ReLU behind them.
        landings: the quantizer that each value comes to.
        findings: what the target cannot take, and what users should know of.
    """

    def __init__(self, program: Program, engine: str) -> None:
        self.program = program
        self.engine = engine
        self.script = Script()
        self.floats: dict[fx.Node, Any] = {}
        self.integers: dict[fx.Node, fx.Node] = {}
        self.on: dict[fx.Node, Quantizer] = {}
        self.rectified: set[fx.Node] = set()
        self.quantizers: Mapping[str, Quantizer] = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.landings = landings(program)
        self.findings: list[Refusal | Note] = []
        self._grids = grids(program)
        self._names = constant_inputs(program.exported)

    def note(self, node: fx.Node, what: str) -> None:
        """Note something of a node that users should know of."""
        self.findings.append(Note(where=str(self.program.where(node)), what=what))

    def refuse(self, node: fx.Node, actual: str, constraint: str, fix: str) -> None:
        """Note something of a node that the target cannot take."""
        place = str(self.program.where(node))
        self.findings.append(Refusal(where=place, op=str(node.target), actual=actual, constraint=constraint, fix=fix))

    def float_of(self, node: Any) -> Any:
        """The value of a node as floats; of a constant, its attribute; anything that is no node, itself."""
        if not isinstance(node, fx.Node):
            return node
        if node not in self.floats:
            if node in self.integers:
                name = f"{node.name}_dequantized"
                self.floats[node] = self.script.call(_aten.dequantize, self.integers[node], name=name)
            else:
                self.floats[node] = self._constant(node)
        return self.floats[node]

    def integer_of(self, node: Any) -> fx.Node | None:
        """The value of a node as quantized tensor; ``None`` where it is on no grid of 8 bits."""
        if not isinstance(node, fx.Node):
            return None
        quantizer = self._grids.get(node.name)
        if node not in self.integers and quantizer is not None and quantizer.role == "activation":
            self.keep(node, self.quantize(self.float_of(node), quantizer, f"{node.name}_quantized"), quantizer)
        return self.integers.get(node)

    def either_of(self, node: fx.Node) -> Any:
        """The quantized tensor of a node that is one, else its floats."""
        return self.integers[node] if node in self.integers else self.float_of(node)

    def keep(self, node: fx.Node, made: fx.Node, quantizer: Quantizer) -> None:
        """Take a quantized tensor as the value of a node."""
        self.integers[node], self.on[node] = made, quantizer

    def quantize(self, value: fx.Node, quantizer: Quantizer, name: str) -> fx.Node:
        """Floats on the grid of a quantizer."""
        to = unsigned_levels(quantizer)
        made = self.script.call(_aten.quantize_per_tensor, value, to.scale, to.zero_point, torch.quint8, name=name)
        return self.limit(made, quantizer, name)

    def limit(self, made: fx.Node, quantizer: Quantizer, name: str) -> fx.Node:
        """A quantized tensor without what lies outside of the range of its quantizer; the type alone holds all of 8 bits."""
        to = unsigned_levels(quantizer)
        if (to.low, to.high) == UINT8:
            return made
        if (
            self.engine == "qnnpack"
        ):  # whose clamp takes the values of an image with channels last for one with channels first
            made = self.script.call(_aten.contiguous, made, name=f"{name}_contiguous")
        ends = ((end - to.zero_point) * to.scale for end in (to.low, to.high))
        return self.script.call(_aten.clamp, made, *ends, name=f"{name}_clamp")

    def lower_quantizer(self, node: fx.Node) -> None:
        """A value that is on the grid already stays as it is; any other one is rounded."""
        used: Any = node.args[0]
        quantizer = self.quantizers[node.name]
        if used in self.integers and same_grid(quantizer, self.on[used]):
            made = self.integers[used]
            exact = used.name in self._grids
            self.keep(node, made if exact else self.limit(made, quantizer, node.name), quantizer)
        else:
            self.keep(node, self.quantize(self.float_of(used), quantizer, node.name), quantizer)

    def copy(self, node: fx.Node, of: Callable[[Any], Any] | None = None) -> fx.Node:
        """The call of a node in the script, of floats unless something else gives its operands."""
        target: Any = node.target
        operator = getattr(target, "overloadpacket", target)
        args, kwargs = _by_name_after_empty(node)
        new_args, new_kwargs = fx.map_arg((args, kwargs), of or self.float_of)
        called = _IN_OTHER_WORDS.get(target, operator)
        return self.script.call(called, *new_args, name=node.name, **new_kwargs)

    def parameter(self, node: Any) -> Quantizer | None:
        """The quantizer of a stored weight or bias; ``None`` for everything else."""
        found = self.quantizers.get(node.name) if isinstance(node, fx.Node) else None
        return found if found is not None and found.integers is not None else None

    def value_of(self, node: fx.Node) -> Tensor:
        """The number of each element of a constant, in floats."""
        quantizer = self.parameter(node)
        if quantizer is None:
            return self.program.constants[node.name]
        assert quantizer.integers is not None
        assert quantizer.scale is not None
        zero_point = 0 if quantizer.zero_point is None else quantizer.zero_point
        return (quantizer.integers - zero_point) * quantizer.scale

    def name_of(self, node: fx.Node) -> str:
        """The qualified name of the parameter that a constant is."""
        stored: Any = node if node.name in self._names else node.args[0]
        return self._names[stored.name]

    def _constant(self, node: fx.Node) -> fx.Node:
        """An attribute of the script: integers behind a dequantization for a weight, numbers for everything else."""
        quantizer, name = self.parameter(node), self.name_of(node)
        if quantizer is not None and (quantizer.bit_width or 0) <= _LARGEST_WEIGHT and quantizer.role == "weight":
            weight = weight_of(quantizer)
            if weight is not None:
                stored = self.script.attribute(name, weight.quantized())
                return self.script.call(_aten.dequantize, stored, name=f"{node.name}_numbers")
        return self.script.attribute(name, self.value_of(node).detach().clone())


def _by_name_after_empty(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call; those behind an empty list, which a script could not type, by name and without it."""
    kwargs = {name: value for name, value in node.kwargs.items() if name != "device"}
    if not isinstance(node.target, torch._ops.OpOverload) or [] not in node.args:
        return node.args, kwargs
    first = node.args.index([])
    names = [argument.name for argument in node.target._schema.arguments]
    later = zip(names[first:], node.args[first:], strict=False)
    return node.args[:first], {name: value for name, value in later if value != []} | kwargs
