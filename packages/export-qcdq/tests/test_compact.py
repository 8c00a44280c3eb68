"""What a file leaves out because readers know it without, and what it must not leave out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import ShiftedUint8ActPerTensorFloat


def attributes(node: Any) -> set[str]:
    return {attribute.name for attribute in node.attribute}


class Rectified(nn.Module):
    """One ReLU before each of several quantizers, and one whose result is returned as well."""

    def __init__(self) -> None:
        super().__init__()
        self.unsigned = qnn.QuantIdentity(signed=False)
        self.signed = qnn.QuantIdentity()
        self.shifted = qnn.QuantIdentity(ShiftedUint8ActPerTensorFloat)
        self.shared = qnn.QuantIdentity(signed=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        kept = torch.relu(x + 4)
        return (
            self.unsigned(torch.relu(x + 1)),
            self.signed(torch.relu(x + 2)),
            self.shifted(torch.relu(x + 3) - 1),
            self.shared(kept),
            kept,
        )


def test_a_relu_is_left_out_where_its_quantizer_cuts_off_the_same(write: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    net, x = Rectified(), torch.randn(40) * 5
    net(x)
    file = write(net, x)
    producers = {output: node for node in file.onnx.graph.node for output in node.output}
    before = {node.name: producers[node.input[0]].op_type for node in file.nodes("QuantizeLinear")}
    assert before == {"unsigned/Q": "Add", "signed/Q": "Relu", "shifted/Q": "Sub", "shared/Q": "Relu"}
    edges = torch.tensor([*x[:-4].tolist(), -1.0, -0.0, 0.0, float("inf")])
    for given in (x, edges):
        for ours, theirs in zip(net.eval()(given), file.outputs(given), strict=True):
            np.testing.assert_array_equal(theirs, ours.detach().numpy())


def test_zero_points_of_zero_are_said_only_where_they_tell_the_type(write: Callable[..., Any]) -> None:
    net = nn.Sequential(qnn.QuantIdentity(signed=False), nn.Tanh(), qnn.QuantIdentity())
    file = write(net, torch.rand(2, 3))
    operands = {node.name: list(node.input[1:]) for node in file.onnx.graph.node if node.op_type != "Tanh"}
    assert operands == {
        "0/Q": ["0.scale"],
        "0/DQ": ["0.scale"],
        "2/Q": ["2.scale", "int8_0"],
        "2/DQ": ["2.scale", "int8_0"],
    }


WINDOWS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "plain": ({}, set()),
    "strided": ({"stride": 2}, {"strides"}),
    "strided along one axis": ({"stride": (1, 2)}, {"strides"}),
    "dilated and padded": ({"dilation": 2, "padding": (0, 1)}, {"dilations", "pads"}),
    "in groups": ({"groups": 2}, {"group"}),
}


class Windows(nn.Module):
    """A convolution of each kind, and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(qnn.QuantConv2d(4, 4, 3, **options) for options, _ in WINDOWS.values())
        self.pool = nn.MaxPool2d(3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (*(conv(x) for conv in self.convs), self.pool(x))


def test_of_a_window_only_what_is_not_plain_is_said(write: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    net, x = Windows(), torch.randn(1, 4, 9, 9)
    file = write(net, x)
    assert [attributes(node) for node in file.nodes("Conv")] == [said for _, said in WINDOWS.values()]
    assert attributes(file.nodes("MaxPool")[0]) == {"kernel_shape", "strides"}
    for ours, theirs in zip(net(x), file.outputs(x), strict=True):
        np.testing.assert_allclose(theirs, ours.detach().numpy(), rtol=0, atol=1e-5)


def test_values_between_nodes_are_numbered_and_never_as_an_input_is_named(write: Callable[..., Any]) -> None:
    net = nn.Sequential(qnn.QuantIdentity(), nn.Tanh())
    file = write(net, torch.rand(2, 3))
    assert [list(node.output) for node in file.onnx.graph.node] == [["0"], ["1"], ["output"]]
