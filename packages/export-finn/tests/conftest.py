"""Writing a model to a file, reading the file back as qonnx does, and running it in qonnx's executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.util.cleanup import cleanup_model
from torch import Tensor, nn

from quant_core.export import Program, capture, lower
from quant_core.export.onnx import OnnxArtifact


class File:
    """What was written for a model, as its readers see it."""

    def __init__(self, model: nn.Module, program: Program, artifact: OnnxArtifact) -> None:
        self.model = model
        self.program = program
        self.artifact = artifact

    @cached_property
    def onnx(self) -> onnx.ModelProto:
        return onnx.load_from_string(self.artifact.content())

    @cached_property
    def initializers(self) -> dict[str, np.ndarray]:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.onnx.graph.initializer}

    @property
    def kinds(self) -> list[str]:
        """The types of the nodes, in order."""
        return [node.op_type for node in self.onnx.graph.node]

    def nodes(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.onnx.graph.node if node.op_type == op_type]

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

    def annotations(self) -> dict[str, str]:
        """Datatypes that the file tells, by tensor."""
        return {
            note.tensor_name: part.value
            for note in self.onnx.graph.quantization_annotation
            for part in note.quant_parameter_tensor_names
            if part.key == "finn_datatype"
        }

    def wrapped(self) -> ModelWrapper:
        """The model as qonnx holds it, a new one each time: transformations work on it in place."""
        return ModelWrapper(onnx.load_from_string(self.artifact.content()))

    def clean(self) -> ModelWrapper:
        """What ``cleanup`` makes of the file."""
        return cleanup_model(self.wrapped())

    def inferred(self) -> ModelWrapper:
        """The file with the datatypes that qonnx infers."""
        return self.wrapped().transform(InferDataTypes())

    def outputs(self, *inputs: Tensor, model: ModelWrapper | None = None) -> list[np.ndarray]:
        """What qonnx's executor gives for the file, or for what was made of it."""
        wrapper = model or self.wrapped()
        feed = {value.name: x.numpy() for value, x in zip(wrapper.graph.input, inputs, strict=True)}
        return list(execute_onnx(wrapper, feed).values())


def write_file(
    target: str,
    model: nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    program: Program | None = None,
    **options: Any,
) -> File:
    """Capture a model in eval mode, unless it is captured already, and lower it."""
    captured = program or capture(model.eval(), args, kwargs)
    return File(model, captured, lower(captured, target, **options))


@pytest.fixture(scope="session")
def write() -> Callable[..., File]:
    return write_file


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
