"""From a program to FINN-ONNX: each node to operations on integers where it can be, on scaled values where it cannot.

A value that is an integer times a scale is carried as :class:`~export_finn.integers.Integers`. It is multiplied with the scale
when something needs the value itself, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from export_finn import datatypes, thresholds
from export_finn.integers import Integers, bounds, sum_of_products
from export_finn.operands import dequantized
from export_finn.ops import AVERAGE_POOL, MULTI_THRESHOLD
from export_finn.pooling import pooling
from export_finn.products import Product, product
from quant_core.export import Program, ProgramBuilder, Quantizer, constant_inputs, grids, is_quantizer

_aten = torch.ops.aten
_RECTIFIERS: Final = (_aten.relu.default, _aten.relu_.default)
_LAYOUTS: Final = {2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}


class Lowering:
    """A program in the making, and what its file must tell besides.

    Attributes:
        constant_datatypes: the datatype of each constant of integers, by its qualified name.
        result_datatypes: the datatype of each result of integers, by the name of its node in the new program.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.builder = ProgramBuilder(program.exported)
        self.names = constant_inputs(program.exported)
        self.quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.weights = frozenset(name for name, quantizer in self.quantizers.items() if quantizer.integers is not None)
        self.grids = grids(program)
        self.integers: dict[fx.Node, Integers] = {}
        self.constant_datatypes: dict[str, str] = {}
        self.result_datatypes: dict[str, str] = {}

    def exported(self) -> ExportedProgram:
        """The new program."""
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node.name not in self.weights:
                self._lower(node)
        for node in self.program.graph.output_node().all_input_nodes:
            self._value(node)
        return self.builder.finish()

    def values(self, names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Tensor]]:
        """From the names of ONNX values by the nodes of the new program, to those by the nodes of the old one.

        Returns:
            The name of the ONNX value of each node that has one, and what it is multiplied with where it is one of integers.
        """
        found, scales = {}, {}
        for node in self.program.graph.nodes:
            held = self.integers.get(node)
            if held is not None and held.node.name in names:
                found[node.name], scales[node.name] = names[held.node.name], held.scale
            elif node.name in names:
                found[node.name] = names[node.name]
        return found, scales

    def _lower(self, node: fx.Node) -> None:
        if is_quantizer(node):
            self._activation(node, self.quantizers[node.name])
        elif (found := product(node, self.weights)) is not None:
            self._product(found)
        elif node.target is _aten.embedding.default and getattr(node.args[0], "name", "") in self.weights:
            self._embedding(node)
        elif node.name in self.grids and all(used in self.integers for used in node.all_input_nodes):
            self._move(node)
        elif node.target is _aten.add.Tensor and not node.kwargs and self._on_one_grid(node):
            self._add(node)
        elif node.target not in _RECTIFIERS or not all(map(self._absorbs_relu, node.users)):
            for used in node.all_input_nodes:
                self._value(used)
            self.builder.copy(node)

    def _value(self, node: fx.Node) -> fx.Node:
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
        return self.builder.call(_aten.mul.Tensor, (held.node, scale), like=node, name=node.name)

    def _constant(self, node: fx.Node) -> fx.Node:
        if node.name in self.weights:  # for an operation that no integers are computed with
            quantizer = self.quantizers[node.name]
            return self.builder.constant(self._base(node), dequantized(quantizer))
        return self.builder.constant(self.names[node.name], self.program.constants[node.name])

    def _base(self, node: fx.Node) -> str:
        """The qualified name of the parameter that a node dequantizes."""
        stored: Any = node.args[0]
        return self.names[stored.name]

    def _whole(self, node: fx.Node, integers: Tensor) -> fx.Node:
        """A constant of the integers of a quantized parameter."""
        name = self._base(node)
        self.constant_datatypes[name] = datatypes.of_quantizer(self.quantizers[node.name])
        return self.builder.constant(name, integers.to(torch.float32).contiguous())

    def _hold(self, node: fx.Node, held: Integers) -> None:
        self.integers[node] = held
        if held.datatype:
            self.result_datatypes[held.node.name] = held.datatype

    def _move(self, node: fx.Node) -> None:
        """An operation that only moves or selects values does so with the integers."""
        first = self.integers[node.all_input_nodes[0]]
        args = fx.map_arg(node.args, lambda used: self.integers[used].node)
        kwargs = fx.map_arg(node.kwargs, lambda used: self.integers[used].node)
        moved = self.builder.call(node.target, args, kwargs, like=node, name=f"{node.name}_integers")
        low, high = min(first.low, 0), max(first.high, 0)
        self._hold(node, Integers(node=moved, scale=first.scale, name=first.name, low=low, high=high))

    def _on_one_grid(self, node: fx.Node) -> bool:
        held = [self.integers.get(used) if isinstance(used, fx.Node) else None for used in node.args]
        one, other = held if len(held) == 2 else (None, None)
        return one is not None and other is not None and one.on_the_grid_of(other)

    def _add(self, node: fx.Node) -> None:
        one, other = (self.integers[used] for used in node.args if isinstance(used, fx.Node))
        low, high = one.low + other.low, one.high + other.high
        added = self.builder.call(node.target, (one.node, other.node), like=node, name=f"{node.name}_integers")
        kind = datatypes.of_range(low, high)
        self._hold(node, Integers(node=added, scale=one.scale, name=one.name, low=low, high=high, datatype=kind))

    def _embedding(self, node: fx.Node) -> None:
        table, indices = node.args[:2]
        assert isinstance(table, fx.Node)
        assert isinstance(indices, fx.Node)
        quantizer = self.quantizers[table.name]
        if quantizer.granularity != "per_tensor":
            self._value(table), self._value(indices)
            self.builder.copy(node)
            return
        assert quantizer.integers is not None
        assert quantizer.scale is not None
        whole = self._whole(table, quantizer.integers)
        args = (whole, self._value(indices), *node.args[2:])
        taken = self.builder.call(node.target, args, node.kwargs, like=node, name=f"{node.name}_integers")
        low, high = bounds(quantizer)
        kind, scale = datatypes.of_quantizer(quantizer), quantizer.scale.detach().reshape(())
        name = f"{self._base(table)}_scale"
        self._hold(node, Integers(node=taken, scale=scale, name=name, low=low, high=high, datatype=kind))

    def _product(self, found: Product) -> None:
        node, quantizer = found.node, self.quantizers[found.weight.name]
        assert quantizer.integers is not None
        assert quantizer.scale is not None
        held = self.integers.get(found.x)
        held = held if held is not None and held.per_tensor else None
        x = self._value(found.x) if held is None else held.node
        turned = node.target is _aten.linear.default
        weight = self._whole(found.weight, quantizer.integers.t() if turned else quantizer.integers)
        name = f"{node.name}_integers"
        if found.is_convolution:
            args = (x, weight, None, *node.args[3:])
            kwargs = {word: value for word, value in node.kwargs.items() if word != "bias"}
            total = self.builder.call(node.target, args, kwargs, like=node, name=name)
        else:
            total = self.builder.call(_aten.matmul.default, (x, weight), like=node, name=name)
        scale = self._along_channels(found, quantizer.scale.detach().to(torch.float32))
        part = self.program.where(node).part
        if held is None:
            self._finish(found, total, scale, part("weight_scale"))
            return
        low, high = sum_of_products(held.low, held.high, quantizer.integers, found.output_axis)
        kind = datatypes.of_range(low, high)
        result = Integers(
            node=total, scale=held.scale.reshape(()) * scale, name=part("scale"), low=low, high=high, datatype=kind
        )
        self._accumulate(found, result)

    def _accumulate(self, found: Product, total: Integers) -> None:
        """Add the bias to an accumulator of integers: as integers where it is on the same grid."""
        if found.bias is None:
            self._hold(found.node, total)
            return
        quantizer = self.quantizers.get(found.bias.name)
        scale = None if quantizer is None else self._along_channels(found, quantizer.scale)  # type: ignore[arg-type]
        if quantizer is None or not torch.equal(*torch.broadcast_tensors(scale, total.scale)):
            self.result_datatypes[total.node.name] = total.datatype
            self._finish(found, total.node, total.scale, total.name)
            return
        assert quantizer.integers is not None
        self.result_datatypes[total.node.name] = total.datatype
        bias = self._whole(found.bias, self._along_channels(found, quantizer.integers))
        name = f"{found.node.name}_with_bias"
        added = self.builder.call(_aten.add.Tensor, (total.node, bias), like=found.node, name=name)
        low, high = (
            total.low + min(0, int(quantizer.integers.min())),
            total.high + max(0, int(quantizer.integers.max())),
        )
        kind = datatypes.of_range(low, high)
        held = Integers(node=added, scale=total.scale, name=total.name, low=low, high=high, datatype=kind)
        self._hold(found.node, held)

    def _finish(self, found: Product, total: fx.Node, scale: Tensor, name: str) -> None:
        """Multiply an accumulator with its scale, and add a bias that is on no grid or on another one."""
        node, call = found.node, self.builder.call
        last = node.name if found.bias is None else f"{node.name}_scaled"
        value = call(_aten.mul.Tensor, (total, self.builder.constant(name, scale)), like=node, name=last)
        if found.bias is not None and found.bias.name in self.quantizers:
            quantizer = self.quantizers[found.bias.name]
            assert quantizer.integers is not None
            grid = self.builder.constant(
                f"{self._base(found.bias)}_scale",
                self._along_channels(found, quantizer.scale),  # type: ignore[arg-type]
            )
            bias = self._whole(found.bias, self._along_channels(found, quantizer.integers))
            steps = call(_aten.div.Tensor, (value, grid), like=node, name=f"{node.name}_steps")
            steps = call(_aten.add.Tensor, (steps, bias), like=node, name=f"{node.name}_with_bias")
            value = call(_aten.mul.Tensor, (steps, grid), like=node, name=node.name)
        elif found.bias is not None:
            bias = self.builder.constant(
                self.names[found.bias.name], self._along_channels(found, self.program.constants[found.bias.name])
            )
            value = call(_aten.add.Tensor, (value, bias), like=node, name=node.name)
        self.builder.new[node] = value

    def _along_channels(self, found: Product, tensor: Tensor) -> Tensor:
        """One number for each output channel, in a shape that broadcasts to the result."""
        if tensor.numel() == 1:
            return tensor.detach().reshape(())
        axes = len(found.weight.meta["val"].shape) - 2 if found.is_convolution else 0
        after = tensor.detach().reshape((-1, *[1] * axes))
        rank = len(found.node.meta["val"].shape)
        return after.reshape((1,) * (rank - after.dim()) + tuple(after.shape)) if found.is_convolution else after

    def _activation(self, node: fx.Node, quantizer: Quantizer) -> None:
        pooled = pooling(self.program, node, quantizer, self.integers)
        if pooled is not None:
            args = (pooled.held.node,)
            new = self.builder.replace(node, AVERAGE_POOL, args, pooled.options | {"name": node.name})
            del self.builder.new[node]
            self._give(node, quantizer, new)
            return
        before: Any = node.args[0]
        if before.target in _RECTIFIERS and self._absorbs_relu(node):
            before = before.args[0]
        low, _ = bounds(quantizer)
        options = {"scale": 1.0, "bias": float(low)}
        if quantizer.op == "quant::binary":
            steps, options = torch.zeros(1, 1), {"scale": 2.0, "bias": -1.0}
        elif quantizer.op == "quant::ternary":
            steps = thresholds.of_ternary(quantizer, node)
        elif quantizer.op == "quant::trunc":
            steps = thresholds.of_truncation(self.program, quantizer, node)
        else:
            steps = thresholds.of_integers(quantizer)
        constant = self.builder.constant(quantizer.where.part("thresholds"), steps)
        layout = _LAYOUTS.get(len(quantizer.shape), "")
        kinds = options | {
            "dtype": datatypes.of_quantizer(quantizer),
            "layout": layout,
            "name": f"{node.name}_integers",
        }
        name = f"{node.name}_integers"
        new = self.builder.call(MULTI_THRESHOLD, (self._value(before), constant), kinds, like=node, name=name)
        self._give(node, quantizer, new)

    def _give(self, node: fx.Node, quantizer: Quantizer, new: fx.Node) -> None:
        """Note the integers that an activation quantizer gives."""
        assert quantizer.scale is not None  # constant, as the check has found
        scale = quantizer.scale.detach().to(torch.float32)
        scale = scale.reshape(()) if scale.numel() == 1 else scale
        low, high = bounds(quantizer)
        kind, name = datatypes.of_quantizer(quantizer), quantizer.where.part("scale")
        self._hold(node, Integers(node=new, scale=scale, name=name, low=low, high=high, datatype=kind))

    def _absorbs_relu(self, user: fx.Node) -> bool:
        """Whether a ReLU before a quantizer makes no difference: there is no level below zero."""
        quantizer = self.quantizers.get(user.name)
        return quantizer is not None and quantizer.op == "quant::int" and not quantizer.signed
