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
from export_finn.integers import Integers
from export_finn.ops import AVERAGE_POOL, MULTI_THRESHOLD
from export_finn.pairs import lower_pair
from export_finn.pooling import pooling
from export_finn.sums import added_product, lower_added_product, lower_product
from export_finn.workbench import Workbench
from quant_core.export import Program, Quantizer, grids, is_quantizer
from quant_core.export.products import product
from quant_core.export.ranges import bounds

_aten = torch.ops.aten
_RECTIFIER: Final = _aten.relu.default
_LAYOUTS: Final = {2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}


class Lowering(Workbench):
    """A program in the making, node by node."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.grids = grids(program)

    def exported(self) -> ExportedProgram:
        """The new program."""
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node.name not in self.weights:
                self._lower(node)
        for node in self.program.graph.output_node().all_input_nodes:
            self.value(node)
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
            lower_product(self, found)
        elif (step := added_product(node, self.weights)) is not None:
            lower_added_product(self, *step)
        elif node.target is _aten.embedding.default and getattr(node.args[0], "name", "") in self.weights:
            self._embedding(node)
        elif node.name in self.grids and all(used in self.integers for used in node.all_input_nodes):
            self._move(node)
        elif not lower_pair(self, node) and not self._is_absorbed(node):
            for used in node.all_input_nodes:
                self.value(used)
            self.builder.copy(node)

    def _move(self, node: fx.Node) -> None:
        """An operation that only moves or selects values does so with the integers."""
        first = self.integers[node.all_input_nodes[0]]
        args = fx.map_arg(node.args, lambda used: self.integers[used].node)
        kwargs = fx.map_arg(node.kwargs, lambda used: self.integers[used].node)
        moved = self.builder.call(node.target, args, kwargs, like=node, name=f"{node.name}_integers")
        low, high = min(first.low, 0), max(first.high, 0)
        self.hold(node, Integers(node=moved, scale=first.scale, name=first.name, low=low, high=high))

    def _embedding(self, node: fx.Node) -> None:
        table, indices = node.args[:2]
        assert isinstance(table, fx.Node)
        assert isinstance(indices, fx.Node)
        quantizer = self.quantizers[table.name]
        if quantizer.granularity != "per_tensor":
            self.value(table), self.value(indices)
            self.builder.copy(node)
            return
        assert quantizer.integers is not None
        assert quantizer.scale is not None
        whole = self.whole(table, quantizer.integers)
        args = (whole, self.value(indices), *node.args[2:])
        taken = self.builder.call(node.target, args, node.kwargs, like=node, name=f"{node.name}_integers")
        low, high = bounds(quantizer)
        kind, scale = datatypes.of_quantizer(quantizer), quantizer.scale.detach().reshape(())
        name = f"{self.base(table)}_scale"
        self.hold(node, Integers(node=taken, scale=scale, name=name, low=low, high=high, datatype=kind))

    def _activation(self, node: fx.Node, quantizer: Quantizer) -> None:
        pooled = pooling(self.program, node, quantizer, self.integers)
        if pooled is not None:
            args = (pooled.held.node,)
            new = self.builder.replace(node, AVERAGE_POOL, args, pooled.options | {"name": node.name})
            del self.builder.new[node]
            self._give(node, quantizer, new)
            return
        before: Any = node.args[0]
        if isinstance(before, fx.Node) and before.target is _RECTIFIER and self._absorbs_relu(node):
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
        new = self.builder.call(MULTI_THRESHOLD, (self.value(before), constant), kinds, like=node, name=name)
        self._give(node, quantizer, new)

    def _give(self, node: fx.Node, quantizer: Quantizer, new: fx.Node) -> None:
        """Note the integers that an activation quantizer gives."""
        assert quantizer.scale is not None  # constant, as the check has found
        scale = quantizer.scale.detach().to(torch.float32)
        scale = scale.reshape(()) if scale.numel() == 1 else scale
        low, high = bounds(quantizer)
        kind, name = datatypes.of_quantizer(quantizer), quantizer.where.part("scale")
        self.hold(node, Integers(node=new, scale=scale, name=name, low=low, high=high, datatype=kind))

    def _is_absorbed(self, node: fx.Node) -> bool:
        """Whether a node is a ReLU that nothing needs."""
        return node.target is _RECTIFIER and all(map(self._absorbs_relu, node.users))

    def _absorbs_relu(self, user: fx.Node) -> bool:
        """Whether a ReLU before a quantizer makes no difference: there is no level below zero."""
        quantizer = self.quantizers.get(user.name)
        return quantizer is not None and quantizer.op == "quant::int" and not quantizer.signed
