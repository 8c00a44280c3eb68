"""The folding pass: everything that depends only on parameters becomes a constant, and quantized constants become integers.

After the pass the graph holds

- ``quant::dequantize(integers, scale, zero_point)`` for each quantized weight or bias, with the integers in the smallest
  type that holds their range; for one of minifloats ``quant::float(values, scale)`` of the values that it is rounded to;
- for each activation quantizer its op, with constant scale, zero-point and bit width;
- constants named after what they belong to: ``conv1.weight``, ``conv1.weight_scale``, ``relu1.act_quant.scale``;
- nodes named after the module that they come from: ``conv1_conv2d``, ``relu1_act_quant``;
- no operations that do nothing in eval mode, such as dropout, or that take a tensor apart and put it together again.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from quant_core.export.builder import ProgramBuilder, constant_inputs, constant_value, identifier
from quant_core.export.moved_constants import move, moved_from
from quant_core.export.provenance import ModuleMap
from quant_core.export.restacked import restacked
from quant_core.ops.integer import integer_range, quantize_levels
from quant_core.tensor.grids import moved

_QUANT = torch.ops.quant
_FOLDABLE = (_QUANT.int.default, _QUANT.binary.default, _QUANT.ternary.default, _QUANT.float.default)
_PARTS = {
    _QUANT.int.default: {1: "scale", 2: "zero_point", 3: "bit_width"},
    _QUANT.binary.default: {1: "scale"},
    _QUANT.ternary.default: {1: "scale"},
    _QUANT.float.default: {1: "scale"},
    _QUANT.trunc.default: {1: "scale", 2: "zero_point", 3: "output_scale", 4: "output_bit_width"},
}
_DROPOUTS = (torch.ops.aten.dropout.default, torch.ops.aten.feature_dropout.default)
HARMLESS: Final = (torch.ops.aten.alias.default, torch.ops.aten.detach.default, torch.ops.aten.detach_.default)
"""Ops that give their operand; ``detach_`` is how torch marks a constant that forward makes."""
_INTEGER_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32)


def fold(exported: ExportedProgram, modules: ModuleMap) -> ExportedProgram:
    """Build a new program in which constants are folded; the given one is left as it is."""
    return _Folding(exported, modules).program()


class _Folding:
    """The values of constant nodes, and the program that is being built from what remains."""

    def __init__(self, exported: ExportedProgram, modules: ModuleMap) -> None:
        self.nodes = list(exported.graph.nodes)
        self.modules = modules
        self.targets = constant_inputs(exported)
        self.exported = exported
        self.values = _evaluate_constants(exported, self.targets)
        self.builder = ProgramBuilder(exported)

    def program(self) -> ExportedProgram:
        body = [node for node in self.nodes if node not in self.values]
        needed = {used: user for user in reversed(body) for used in user.all_input_nodes if used in self.values}
        for node in self.nodes:
            source = moved_from(node, _FOLDABLE) if node in needed else None
            if source is not None and source.target is _QUANT.float.default:
                self._round_off(node, source)
            elif source is not None:
                self._dequantize(node, source)
            elif node in needed and not isinstance(self.values[node], Tensor):
                self.builder.new[node] = self.values[node]  # a number from item() is written into the graph
            elif node in needed:
                self.builder.new[node] = self.builder.constant(
                    self._constant_name(node, needed[node]), self.values[node]
                )
        again = restacked(body)
        for node in body:
            if node in again.unused:
                continue
            if node in again.same:
                self.builder.new[node] = self.builder.new[again.same[node]]
            elif is_identity(node):
                self.builder.drop(node)
            elif node.op not in ("placeholder", "output"):
                self.builder.copy(node, self._node_name(node))
        return self.builder.finish()

    def _dequantize(self, node: fx.Node, source: fx.Node) -> None:
        """Put integers, scale and zero-point in the place of a quantizer whose input is constant, or of a part of its result."""
        scale = self._value(source.args[1])
        if source.target is _QUANT.int.default:
            zero_point, bits = self._value(source.args[2]), float(self._value(source.args[3]))
            signed, narrow = bool(source.kwargs["signed"]), bool(source.kwargs["narrow_range"])
            low, high = integer_range(bits, signed=signed, narrow_range=narrow)
            mode = str(source.kwargs["rounding_mode"])
            levels = quantize_levels(self._value(source.args[0]), scale, zero_point, low, high, mode)
        else:
            narrow = source.target is _QUANT.ternary.default
            zero_point, bits, signed = torch.zeros_like(scale), 2.0 if narrow else 1.0, True
            low, high, levels = -1.0, 1.0, torch.round(self._value(source) / scale)
        integers = levels.to(torch.float64).clamp(low, high).to(_smallest_type(low, high))
        base = self._tensor_name(source)
        operands = (
            self.builder.constant(base, move(node, source, integers).contiguous()),
            self.builder.constant(f"{base}_scale", self._part(scale, node, source)),
            self.builder.constant(f"{base}_zero_point", self._part(zero_point, node, source)),
        )
        kind = self._value(node).dtype
        options = {"bit_width": bits, "signed": signed, "narrow_range": narrow, "dtype": kind}
        name = identifier(f"{base}_dequantized")
        placed = self.builder.replace(node, _QUANT.dequantize.default, operands, options, name)
        placed.meta = {**source.meta, "val": node.meta["val"]}  # its place in the model is that of the quantizer

    def _round_off(self, node: fx.Node, source: fx.Node) -> None:
        """Put numbers and scale in the place of a quantizer to minifloats whose input is constant, or of a part of its result.

        The quantizer stays, and leaves the numbers, which are rounded already, as they are.
        """
        base = self._tensor_name(source)
        operands = (
            self.builder.constant(base, self._value(node).detach().contiguous()),
            self.builder.constant(f"{base}_scale", self._part(self._value(source.args[1]), node, source)),
        )
        options = {**source.kwargs, "rounding_mode": "ROUND"}
        placed = self.builder.replace(node, _QUANT.float.default, operands, options, identifier(f"{base}_dequantized"))
        placed.meta = {**source.meta, "val": node.meta["val"]}

    def _part(self, grid: Tensor, node: fx.Node, source: fx.Node) -> Tensor:
        """Scale or zero-point for the elements of ``source`` that ``node`` holds."""
        if node is source or grid.numel() == 1:
            return grid
        part: Tensor = moved(grid, self._value(source).shape, lambda x: move(node, source, x))
        return part

    def _constant_name(self, node: fx.Node, user: fx.Node) -> str:
        target = self.targets.get(node.name, "")
        if target and ".lifted_tensor_" not in f".{target}":
            return target
        parts = _parts_of(user)
        position = next((index for index, used in enumerate(user.args) if used is node), None)
        path = self.modules.locate(user if position in parts else node).path
        # Without the prefix a constant could have the name of a method of modules, such as "to".
        part = parts[position] if position in parts else f"constant_{_op_name(node)}"
        return f"{path}.{part}" if path else part

    def _tensor_name(self, node: fx.Node) -> str:
        """The name of the parameter that a quantizer quantizes, else one from the quantizer's own."""
        source, path = node.args[0], self.modules.locate(node).path
        if isinstance(source, fx.Node) and source.name in self.targets:
            return self.targets[source.name]
        parameter = path.removesuffix("_quant")  # some quantizers compute with it first
        read = self._read_by(source)
        if parameter in read:
            return parameter
        if not path.endswith("_quant"):  # a layer has put together what its quantizers gave
            columns = tuple(node.meta["val"].shape[1:])
            matrices = [name for name in read if columns and self._shape(name)[1:] == columns]
            if len(matrices) == 1:
                return matrices[0]
        return f"{path}.value" if path else "value"

    def _read_by(self, node: Any) -> set[str]:
        """The names of the constants that a value is computed from."""
        waiting, seen = [node], set()
        while waiting:
            found = waiting.pop()
            if isinstance(found, fx.Node) and found not in seen:
                seen.add(found)
                waiting.extend(found.all_input_nodes)
        return {self.targets[found.name] for found in seen if found.name in self.targets}

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape of a parameter, buffer or constant tensor."""
        return tuple(getattr(constant_value(self.exported, name), "shape", ()))

    def _node_name(self, node: fx.Node) -> str:
        path = self.modules.locate(node).path
        words = [path] if _parts_of(node) else [path, _op_name(node)]
        return identifier("_".join(word for word in words if word))

    def _value(self, argument: Any) -> Tensor:
        value: Tensor = self.values[argument]
        return value


def _evaluate_constants(exported: ExportedProgram, targets: Mapping[str, str]) -> dict[fx.Node, Any]:
    """The value of each node that depends on no input."""
    values: dict[fx.Node, Any] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in targets:
            values[node] = constant_value(exported, targets[node.name])
        elif node.op == "call_function" and _is_constant(node, values):
            args = fx.map_arg(node.args, values.__getitem__)
            kwargs = fx.map_arg(node.kwargs, values.__getitem__)
            with torch.no_grad():
                values[node] = node.target(*args, **kwargs)
    return values


def _is_constant(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    if (node.is_impure() and node.target not in HARMLESS) or torch.Tag.nondeterministic_seeded in getattr(
        node.target, "tags", ()
    ):
        return False
    if not all(used in values for used in node.all_input_nodes):
        return False
    return node.target is operator.getitem or isinstance(node.target, torch._ops.OpOverload)


def is_identity(node: fx.Node) -> bool:
    """Whether an operation gives its operand in eval mode."""
    if node.target in _DROPOUTS:
        return len(node.args) > 2 and node.args[2] is False
    return node.target in HARMLESS


def _smallest_type(low: float, high: float) -> torch.dtype:
    return next(kind for kind in _INTEGER_TYPES if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)


def _parts_of(node: fx.Node) -> dict[int, str]:
    """The operands of an op of the dialect that are parts of its grid, by position."""
    return _PARTS.get(node.target, {}) if isinstance(node.target, torch._ops.OpOverload) else {}


def _op_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target.name()).partition("::")[2].partition(".")[0]
    return str(getattr(node.target, "__name__", node.target))
