"""Writing a model to a file, and reading the file back as PyXIR does: names, domains and attributes of its nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export_dpu.artifact import DpuArtifact
from quant_core.export import Program, Verification, capture, compare, lower


class File:
    """What was written for a model, as its readers see it."""

    def __init__(self, model: nn.Module, program: Program, artifact: DpuArtifact) -> None:
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

    def node(self, op_type: str) -> onnx.NodeProto:
        """The one node of that type."""
        (found,) = [node for node in self.onnx.graph.node if node.op_type == op_type]
        return found

    def attributes(self, node: onnx.NodeProto | str) -> dict[str, Any]:
        """The attributes of a node, or of the one node of a type."""
        found = self.node(node) if isinstance(node, str) else node
        return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in found.attribute}

    def compared(self, *inputs: Tensor) -> Verification:
        """The comparison of the file, run in integers, with the model."""
        return compare(self.model, self.program, self.artifact, inputs)


def write_file(target: str, model: nn.Module, *inputs: Tensor, **options: Any) -> File:
    """Capture a model in eval mode, and lower it."""
    program = capture(model.eval(), inputs)
    artifact = lower(program, target, **options)
    assert isinstance(artifact, DpuArtifact)
    return File(model, program, artifact)


@pytest.fixture(scope="session")
def write() -> Callable[..., File]:
    return write_file


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
