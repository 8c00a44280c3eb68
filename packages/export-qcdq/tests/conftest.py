"""Writing a model to a file, reading the file back with onnx, and running it with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import Program, capture, lower
from quant_core.export.onnx import OnnxArtifact
from quant_core.quant import Int8Bias


class File:
    """What was written for a model, as its clients see it."""

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

    def nodes(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.onnx.graph.node if node.op_type == op_type]

    def operand(self, node: onnx.NodeProto, index: int) -> np.ndarray:
        return self.initializers[node.input[index]]

    def values(self, *inputs: Tensor) -> dict[str, np.ndarray]:
        """Everything that onnxruntime computes without optimization, by the names in the file."""
        return dict(zip(self._names, self._session.run(None, self._feed(inputs)), strict=True))

    def results(self, *inputs: Tensor) -> dict[str, np.ndarray]:
        """The first result of each node without optimization, by the name of the node."""
        values = self.values(*inputs)
        return {node.name: values[node.output[0]] for node in self.onnx.graph.node}

    def outputs(self, *inputs: Tensor, optimized: bool = False) -> list[np.ndarray]:
        session = self.optimized if optimized else self._session
        names = [output.name for output in self.onnx.graph.output]
        return session.run(names, self._feed(inputs))

    @cached_property
    def optimized(self) -> onnxruntime.InferenceSession:
        return session(self.onnx, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        everything = onnx.ModelProto()
        everything.CopyFrom(self.onnx)
        known = {output.name for output in everything.graph.output}
        inner = [name for node in everything.graph.node for name in node.output if name not in known]
        everything.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        return session(everything, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)

    @cached_property
    def _names(self) -> list[str]:
        return [output.name for output in self._session.get_outputs()]

    def _feed(self, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
        return {value.name: x.numpy() for value, x in zip(self.onnx.graph.input, inputs, strict=True)}


def session(
    model: onnx.ModelProto, level: onnxruntime.GraphOptimizationLevel, saved: str = ""
) -> onnxruntime.InferenceSession:
    """A session on the CPU in which weights stay behind DequantizeLinear unless integers give the same result."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = saved
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def write_file(
    model: nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    **options: Any,
) -> File:
    """Capture a model in eval mode, and lower it to the target ``qcdq``."""
    program = capture(model.eval(), args, kwargs, dynamic_shapes=dynamic_shapes)
    return File(model, program, lower(program, "qcdq", **options))


@pytest.fixture(scope="session")
def write() -> Callable[..., File]:
    return write_file


@pytest.fixture(scope="session")
def open_session() -> Callable[..., onnxruntime.InferenceSession]:
    return session


class LeNet(nn.Module):
    """Two convolutions and three linear layers at 4 bits, with biases of 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        four: dict[str, Any] = {"weight_bit_width": 4, "bias_quant": Int8Bias}
        relu: dict[str, Any] = {"bit_width": 4, "return_quant_tensor": True}
        self.entry = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(1, 6, 5, padding=2, **four)
        self.relu1 = qnn.QuantReLU(**relu)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, weight_scaling_per_output_channel=True, **four)
        self.relu2 = qnn.QuantReLU(**relu)
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, **four)
        self.relu3 = qnn.QuantReLU(**relu)
        self.fc2 = qnn.QuantLinear(120, 84, **four)
        self.relu4 = qnn.QuantReLU(**relu)
        self.fc3 = qnn.QuantLinear(84, 10, **four)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.conv1(self.entry(x))))
        x = self.pool(self.relu2(self.conv2(x)))
        x = self.relu4(self.fc2(self.relu3(self.fc1(torch.flatten(x, 1)))))
        return self.fc3(x)


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def lenet(images: Tensor) -> File:
    """A LeNet whose scales come from data, written with a batch of any size."""
    torch.manual_seed(0)
    net = LeNet()
    with torch.no_grad():
        for _ in range(3):
            net(images)
    return write_file(net, images, dynamic_shapes="batch")
