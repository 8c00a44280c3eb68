"""How a model is called: several inputs, keywords, nested outputs, a module called twice, a quantizer shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias
from quant_core.tensor import QuantTensor


class Nested(nn.Module):
    """Two inputs, one of them a keyword, and outputs in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.left = qnn.QuantIdentity(bit_width=4)
        self.right = qnn.QuantLinear(4, 3, input_quant=Int8ActPerTensorFloat)

    def forward(self, pair: tuple[Tensor, Tensor], *, offset: Tensor) -> dict[str, Any]:
        left, right = self.left(pair[0]), self.right(pair[1])
        return {"sum": left + offset, "both": (left, [right])}


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


def test_nested_and_keyword_inputs_give_nested_outputs(write: Callable[..., Any]) -> None:
    pair, offset = (torch.randn(2, 3), torch.randn(2, 4)), torch.randn(3)
    net = Nested()
    net(pair, offset=offset)
    file = write(net, pair, kwargs={"offset": offset})
    assert [value.name for value in file.onnx.graph.input] == ["pair_0", "pair_1", "offset"]
    assert [value.name for value in file.onnx.graph.output] == ["sum", "both.0", "both.1.0"]
    ours, theirs = net(pair, offset=offset), file.artifact.run(pair, offset=offset)
    assert theirs.keys() == ours.keys()
    close(ours["sum"], theirs["sum"])
    close(ours["both"][0], theirs["both"][0])
    close(ours["both"][1][0], theirs["both"][1][0])


def test_each_axis_that_varies_has_a_name(write: Callable[..., Any]) -> None:
    net = qnn.QuantConv1d(2, 3, 3, padding=1, input_quant=Int8ActPerTensorFloat, bias_quant=Int8Bias)
    x = torch.randn(4, 2, 8)
    net(x)
    varying = torch.export.Dim.DYNAMIC
    file = write(net, x, dynamic_shapes={"input": {0: varying, 2: varying}})
    (given,) = file.onnx.graph.input
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 2, "input_axis_2"]
    longer = torch.randn(2, 2, 21)
    close(net(longer), file.artifact.run(longer))


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(return_quant_tensor=True)
        self.layer = qnn.QuantLinear(4, 4, weight_bit_width=4, bias_quant=Int8Bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.entry(self.layer(self.entry(x))))


def test_a_module_called_twice_is_stored_once(write: Callable[..., Any]) -> None:
    torch.manual_seed(6)
    net, x = Twice(), torch.randn(3, 4)
    net(x)
    file = write(net, x)
    integers = [tensor for tensor in file.initializers.values() if tensor.dtype == np.int8 and tensor.ndim == 2]
    assert len(integers) == 1
    assert len(file.nodes("Gemm")) == 2
    assert len({node.name for node in file.onnx.graph.node}) == len(file.onnx.graph.node)
    close(net(x), file.artifact.run(x))


class Shared(nn.Module):
    """Two layers that share the quantizer of their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one = qnn.QuantLinear(4, 4, weight_bit_width=4)
        self.two = qnn.QuantLinear(4, 4, weight_quant=self.one.weight_quant)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def test_layers_that_share_a_quantizer_share_its_scale(write: Callable[..., Any]) -> None:
    net, x = Shared(), torch.randn(3, 4)
    file = write(net, x)
    for name in ("one", "two"):
        weight = getattr(net, name).quant_weight().int().numpy()
        np.testing.assert_array_equal(file.initializers[f"{name}.weight"], weight)
    scales = {node.input[1] for node in file.nodes("DequantizeLinear")}
    assert len({file.initializers[scale].item() for scale in scales}) == 1
    close(net(x), file.artifact.run(x))


def test_a_quantized_tensor_is_returned_with_its_grid(write: Callable[..., Any]) -> None:
    net, x = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True), torch.randn(3, 4)
    net(x)
    ours, theirs = net(x), write(net, x).artifact.run(x)
    assert isinstance(theirs, QuantTensor)
    assert torch.equal(theirs.int(), ours.int())
    close(ours.scale.detach(), theirs.scale)


class Through(nn.Module):
    """Returns its input beside a quantized one."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized = self.entry(x)
        return quantized, x, quantized


def test_an_input_that_is_returned_keeps_its_name(write: Callable[..., Any]) -> None:
    net, x = Through(), torch.randn(3, 4)
    net(x)
    file = write(net, x)
    assert [value.name for value in file.onnx.graph.input] == ["x"]
    assert [value.name for value in file.onnx.graph.output] == ["output_0", "output_1", "output_2"]
    onnx.checker.check_model(file.onnx, full_check=True)
    for ours, theirs in zip(net(x), file.artifact.run(x), strict=True):
        close(ours, theirs)


class Swapped(nn.Module):
    """Outputs under the names of inputs."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"y": x + 1, "x": y, "x_1": x * y}


def test_outputs_never_have_the_names_of_inputs(write: Callable[..., Any]) -> None:
    net, args = Swapped(), (torch.randn(3, 4), torch.randn(3, 4))
    file = write(net, *args)
    assert [value.name for value in file.onnx.graph.input] == ["x", "y"]
    assert [value.name for value in file.onnx.graph.output] == ["y_1", "x_1", "x_1_1"]
    onnx.checker.check_model(file.onnx, full_check=True)
    ours, theirs = net(*args), file.artifact.run(*args)
    assert list(theirs) == ["y", "x", "x_1"]
    for name, value in ours.items():
        close(value, theirs[name])
