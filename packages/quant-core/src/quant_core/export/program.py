"""What a model becomes when it is captured: a graph of ``aten`` and ``quant::`` ops with every quantity a named field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from quant_core.errors import InputError
from quant_core.export.builder import constant_inputs, constant_value
from quant_core.export.loops import LoopInterpreter, holds_loops
from quant_core.export.provenance import ModuleMap, Provenance
from quant_core.export.quantizer import Quantizer, Role
from quant_core.export.signature import CallSignature, signature_of
from quant_core.ops import FloatFormat

_ACTIVATION_OPS: Mapping[Any, str] = {
    torch.ops.quant.int.default: "quant::int",
    torch.ops.quant.binary.default: "quant::binary",
    torch.ops.quant.ternary.default: "quant::ternary",
    torch.ops.quant.trunc.default: "quant::trunc",
    torch.ops.quant.float.default: "quant::float",
}
_CONSTANT_OP = torch.ops.quant.dequantize.default
_FLOAT_OP = torch.ops.quant.float.default
_GUARD = "Guard failed:"
"""How torch begins to say that a shape is not the one that was captured."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Program:
    """A captured model.

    Attributes:
        exported: the graph, with constants folded; its node names are made from module paths.
        modules: where its nodes come from.
        uncalibrated: the activation quantizers whose scale was to come from data and has seen none.

    What depends only on parameters is folded: weights and biases are integers behind ``quant::dequantize`` nodes, scales and
    zero-points are constants named after their quantizer.
    """

    exported: ExportedProgram
    modules: ModuleMap
    uncalibrated: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = Counter(quantizer.role for quantizer in self.quantizers)
        held = f"quantized weights: {counts['weight']}, biases: {counts['bias']}, activations: {counts['activation']}"
        return f"Program({self.modules.types['']}, {held})"

    @property
    def graph(self) -> fx.Graph:
        """The graph; read it, and build a new program to change it."""
        graph: fx.Graph = self.exported.graph
        return graph

    @property
    def outputs(self) -> tuple[Any, ...]:
        """What the graph returns: nodes, and constants that do not depend on the inputs."""
        returned: Any = self.graph.output_node().args[0]
        return tuple(returned)

    @cached_property
    def constants(self) -> Mapping[str, Tensor]:
        """The tensor of each constant, by the name of its placeholder node."""
        return dict(_constants(self.exported))

    @cached_property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """All quantizers, in the order of the graph."""
        return tuple(self._quantizer(node) for node in self.graph.nodes if is_quantizer(node))

    @cached_property
    def signature(self) -> CallSignature:
        """How it is called."""
        return signature_of(self.exported)

    def where(self, node: fx.Node) -> Provenance:
        """The place in the model that a node comes from."""
        return self.modules.locate(node)

    def constant(self, node: Any) -> Tensor | None:
        """The tensor of a constant node; ``None`` for everything else."""
        return self.constants.get(node.name) if isinstance(node, fx.Node) else None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the captured program computes; inputs and outputs as the model takes and returns them.

        Raises:
            InputError: when the inputs have another structure than those of capture, or a shape is another one along an axis that
                was not said to be dynamic.
        """
        leaves = self.signature.flatten(args, kwargs)
        if holds_loops(self.graph):
            return self._run_loops(leaves)
        try:
            return self.exported.module()(*args, **kwargs)
        except AssertionError as error:
            if not str(error).startswith(_GUARD):
                raise
            raise _of_another_shape(str(error), args, kwargs) from error

    def _run_loops(self, leaves: list[Any]) -> Any:
        given = iter(leaves)
        names = [node.name for node in self.graph.find_nodes(op="placeholder")]
        inputs = (self.constants[name] if name in self.constants else next(given) for name in names)
        with torch.no_grad():
            return self.signature.nest(list(LoopInterpreter(self.exported.graph_module).run(*inputs)))

    def _quantizer(self, node: fx.Node) -> Quantizer:
        values = self.constant(node.args[0]) if node.target is _FLOAT_OP else None
        constant = node.target is _CONSTANT_OP or values is not None
        op = _folded_op(node) if node.target is _CONSTANT_OP else _ACTIVATION_OPS[node.target]
        attributes = node.kwargs
        scale, zero_point, bit_width = self._grid(node, op)
        return Quantizer(
            name=node.name,
            op=op,
            role=_role(node) if constant else "activation",
            where=self.where(node),
            scale=scale,
            zero_point=zero_point,
            bit_width=bit_width,
            signed=bool(attributes.get("signed", True)),
            narrow_range=bool(attributes.get("narrow_range", False)),
            rounding_mode=str(attributes.get("rounding_mode", "ROUND")),
            integers=self.constant(node.args[0]) if node.target is _CONSTANT_OP else None,
            shape=tuple(node.meta["val"].shape),
            float_format=_float_format(node),
            values=values,
        )

    def _grid(self, node: fx.Node, op: str) -> tuple[Tensor | None, Tensor | None, float | None]:
        scale, zero = self.constant(node.args[1]), torch.zeros(())
        if node.target is _CONSTANT_OP:
            return scale, self.constant(node.args[2]), float(node.kwargs["bit_width"])  # type: ignore[arg-type]
        if op == "quant::int":
            return scale, self.constant(node.args[2]), _number(self.constant(node.args[3]))
        if op == "quant::trunc":
            return self.constant(node.args[3]), self.constant(node.args[2]), _number(self.constant(node.args[4]))
        found = _float_format(node)
        if found is not None:
            return scale, zero, float(found.bit_width)
        return scale, zero, 1.0 if op == "quant::binary" else 2.0


def _of_another_shape(guard: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> InputError:
    shapes = [tuple(x.shape) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    return InputError(
        f"inputs of shape {', '.join(map(str, shapes))} do not fit the captured program",
        why=f"it was captured for {guard.removeprefix(_GUARD).strip()}; windows of pools, for example, depend on it",
        fix="Capture the model with inputs of these shapes, or name the axes that change in dynamic_shapes.",
    )


def is_quantizer(node: fx.Node) -> bool:
    """Whether a node is one of the ``quant::`` ops."""
    return node.op == "call_function" and (node.target in _ACTIVATION_OPS or node.target is _CONSTANT_OP)


def _constants(exported: ExportedProgram) -> Iterator[tuple[str, Tensor]]:
    for name, target in constant_inputs(exported).items():
        found = constant_value(exported, target)
        if isinstance(found, Tensor):
            yield name, found.detach()


def _number(tensor: Tensor | None) -> float | None:
    return float(tensor) if tensor is not None and tensor.numel() == 1 else None


def _float_format(node: fx.Node) -> FloatFormat | None:
    if node.target is not _FLOAT_OP:
        return None
    fields: dict[str, Any] = {name: value for name, value in node.kwargs.items() if name != "rounding_mode"}
    return FloatFormat(**fields)


def _folded_op(node: fx.Node) -> str:
    return "quant::binary" if node.kwargs["bit_width"] == 1 else "quant::int"


def _role(node: fx.Node) -> Role:
    """A constant that an operation such as a convolution takes as its argument ``bias`` is a bias."""
    return "bias" if any(_is_bias_of(node, user) for user in node.users) else "weight"


def _is_bias_of(node: fx.Node, user: fx.Node) -> bool:
    if not isinstance(user.target, torch._ops.OpOverload):
        return False
    names = [argument.name for argument in user.target._schema.arguments]
    given = dict(zip(names, user.args, strict=False)) | dict(user.kwargs)
    return given.get("bias") is node
