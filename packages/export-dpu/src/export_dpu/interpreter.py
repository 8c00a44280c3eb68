"""Computing what a DPU computes for a file, in integers, from nothing but the file.

Every operator with quantization attributes takes 8-bit integers, adds up what it computes exactly, shifts the sum from its own
position to that of the result, rounds what is dropped, and saturates to 8 bits. Inputs of the file are real numbers, which are
rounded where the first operator takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from export_dpu.arithmetic import saturate, shift, to_integers, to_real
from export_dpu.kernels import KERNELS, MOVES, Sum
from quant_core.errors import ArtifactError, ConfigurationError, did_you_mean

ROUNDING_MODES: Final = ("DPU", "HALF_UP", "ROUND")


@dataclass(frozen=True, kw_only=True)
class Held:
    """A value of the file.

    Attributes:
        tensor: int64, or floats where nothing has rounded them yet.
        position: ``−log2(scale)`` of integers; ``None`` for floats.
    """

    tensor: Tensor
    position: int | None

    def real(self) -> Tensor:
        """The real numbers that it stands for, float32."""
        return self.tensor.to(torch.float32) if self.position is None else to_real(self.tensor, self.position)

    def integers(self, position: int, rounding_mode: str) -> Tensor:
        """Its integers at a position; floats are rounded.

        Raises:
            ArtifactError: when it has integers at another position.
        """
        if self.position is None:
            return to_integers(self.tensor, position, rounding_mode)
        if self.position != position:
            raise ArtifactError(
                "the file contradicts itself",
                why=f"an operator takes integers at position {position}, and the one before it gives them at {self.position}",
                fix="Write the file again; if it was not changed by hand, report this as a defect of what wrote it.",
            )
        return self.tensor


class Interpreter:
    """Runs a file of DPU operators.

    Args:
        content: the bytes of the ONNX file.
        rounding_mode: what becomes of values halfway between two integers, of which the file says nothing: ``"DPU"`` (upwards
            below zero, to even above), ``"HALF_UP"`` (upwards) or ``"ROUND"`` (to even).

    Raises:
        ConfigurationError: for another rounding mode.

    Accumulators are exact: operands have 8 bits, so that float64, in which products are added up, holds every sum of them.

    >>> node = helper.make_node("Relu", ["x"], ["y"], vai_quant_in=[8, 2], vai_quant_out=[8, 1])
    >>> ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy"]
    >>> file = helper.make_model(helper.make_graph([node], "graph", ends[:1], ends[1:])).SerializeToString()
    >>> found = Interpreter(file).run({"x": torch.tensor([-1.0, 0.75, 99.0])})["y"]
    >>> found.tensor, found.real()
    (tensor([ 0,  2, 64]), tensor([ 0.,  1., 32.]))
    """

    def __init__(self, content: bytes, rounding_mode: str = "DPU") -> None:
        if rounding_mode not in ROUNDING_MODES:
            raise ConfigurationError(
                f"rounding_mode={rounding_mode!r} is not one of a DPU",
                why=f"values halfway between two integers are rounded by {', '.join(ROUNDING_MODES)}",
                fix=did_you_mean(str(rounding_mode).upper(), ROUNDING_MODES),
            )
        self.model = onnx.load_from_string(content)
        self.rounding_mode = rounding_mode
        self._constants = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in self.model.graph.initializer
        }

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Held]:
        """Every value of the file, by name.

        Args:
            inputs: real numbers for each input.

        Raises:
            ArtifactError: when an input is missing or has another shape, or the file holds an operator that is no DPU's.
        """
        values: dict[str, Held] = {}
        for described in self.model.graph.input:
            if described.name not in self._constants:
                values[described.name] = Held(tensor=_fed(described, inputs), position=None)
        for node in self.model.graph.node:
            values[node.output[0]] = self._compute(node, values)
        return values

    def _compute(self, node: onnx.NodeProto, values: Mapping[str, Held]) -> Held:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        operands = [values[name] for name in node.input if name in values]
        constants = [self._constants[name] for name in node.input if name in self._constants]
        if node.op_type in MOVES:
            moved = MOVES[node.op_type]([held.tensor for held in operands], constants, attributes)
            return Held(tensor=moved, position=operands[0].position)
        if node.op_type not in KERNELS or "vai_quant_in" not in attributes or "vai_quant_out" not in attributes:
            raise ArtifactError(
                f"no DPU computes {node.op_type} node {node.name!r}",
                why=f"an operator of a DPU is one of {', '.join(sorted(KERNELS))}, with vai_quant_in and vai_quant_out",
                fix="Run files that export-dpu or an exporter of the same form wrote.",
            )
        positions = attributes["vai_quant_in"][1::2]
        taken = [
            held.integers(position, self.rounding_mode) for held, position in zip(operands, positions, strict=True)
        ]
        total = KERNELS[node.op_type](taken, positions, constants, attributes)
        position = attributes["vai_quant_out"][1]
        return Held(tensor=self._rounded(total, position), position=position)

    def _rounded(self, total: Sum, position: int) -> Tensor:
        return saturate(shift(total.tensor, total.position - position, self.rounding_mode))


def _fed(described: onnx.ValueInfoProto, inputs: Mapping[str, Any]) -> Tensor:
    given = inputs.get(described.name)
    wanted = tuple(size.dim_value for size in described.type.tensor_type.shape.dim)
    if not isinstance(given, Tensor) or tuple(given.shape) != wanted:
        found = f"of shape {tuple(given.shape)}" if isinstance(given, Tensor) else "that is missing"
        raise ArtifactError(
            f"the file takes no input {described.name!r} {found}",
            why=f"every shape in the file is fixed, and this one is {wanted}",
            fix="Pass inputs of the shape that the model was captured with, or export it again with this one.",
        )
    return given.detach().cpu()
