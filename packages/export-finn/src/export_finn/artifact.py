"""A file of QONNX operators, and running it in qonnx's executor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import ArtifactError
from quant_core.export import CallSignature, Trace
from quant_core.export.onnx import Converted, OnnxArtifact


class QonnxArtifact(OnnxArtifact):
    """An ONNX model with operators of ``qonnx.custom_op.general``.

    Args:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        content: the bytes of the file.
        values: the name of the ONNX value of each node of the program that the file computes, by the node's name.
        scales: for those that the file holds as integers, what they are multiplied with.

    It runs in qonnx's executor, node by node, on inputs of the shapes that the model was captured with.
    """

    def __init__(
        self,
        target: str,
        signature: CallSignature,
        content: bytes,
        values: Mapping[str, str],
        scales: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(target, signature, Converted(content=content, names=dict(values), data=b""))
        self._scales = dict(scales or {})

    def trace(self, inputs: list[Any]) -> Trace:
        """Run it in qonnx's executor on flat inputs.

        Raises:
            ArtifactError: when qonnx is not installed, or refuses the inputs; also for a file with ``QuantLSTMCell``.
        """
        model, execute = self._executor
        if any(node.op_type == "QuantLSTMCell" for node in model.graph.node):
            raise ArtifactError(
                f"the {self.target} artifact cannot be run or verified",
                why="it holds QuantLSTMCell, which the format describes and no runtime executes",
                fix="Export it with verify=False (--no-verify); the file without recurrent='cell' can be run.",
            )
        feed = {}
        for value in model.graph.input:
            given = inputs[self.signature.inputs.index(value.name)].detach().cpu().numpy()
            wanted = tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
            if given.shape != wanted:
                raise ArtifactError(
                    f"the {self.target} artifact takes no input {value.name!r} of shape {given.shape}",
                    why=f"every shape in the file is fixed, and this one is {wanted}",
                    fix="Pass inputs of the shape that the model was captured with, or export it again with this one.",
                )
            feed[value.name] = given
        try:
            context = execute(model, feed, return_full_exec_context=True)
        except Exception as failure:
            raise ArtifactError(
                f"qonnx cannot run the {self.target} artifact",
                why=f"{type(failure).__name__}: {' '.join(str(failure).split())}",
                fix="Report this as a defect of the target.",
            ) from failure
        values = {node: self._value(node, context[name]) for node, name in self._values.items() if name in context}
        outputs = [torch.tensor(context[value.name]) for value in model.graph.output]
        return Trace(outputs=outputs, values=values, program=self.program, inputs=inputs)

    def _value(self, node: str, found: Any) -> Tensor:
        value = torch.tensor(found)
        return value * self._scales[node] if node in self._scales else value

    @cached_property
    def _executor(self) -> Any:
        """The model as qonnx holds it, and the function that runs it."""
        try:
            import onnx
            from qonnx.core.modelwrapper import ModelWrapper
            from qonnx.core.onnx_exec import execute_onnx
        except ImportError as missing:
            raise ArtifactError(
                f"the {self.target} artifact cannot be run",
                why=f"{missing.name} is not installed",
                fix="Install it: pip install qonnx",
            ) from missing
        return ModelWrapper(onnx.load_from_string(self.content())), execute_onnx
