"""Each operator: what stands in the file for it, and that the file run in integers equals the model in every integer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8Bias,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8WeightPerTensorFixedPoint,
)

TARGETS = ("dpuv1", "dpuv2")


class Act(Int8ActPerTensorFixedPoint):
    """Rounds as the DPU does, and takes its scale from the first batch."""

    rounding_mode = "DPU"
    collect_stats_steps = 1


LAYER: dict[str, Any] = {
    "weight_quant": Int8WeightPerTensorFixedPoint,
    "bias_quant": Int8BiasPerTensorFixedPointInternalScaling,
}


def entry() -> nn.Module:
    return qnn.QuantIdentity(Act)


def ends(*layers: nn.Module, size: tuple[int, ...] = (2, 4, 8, 8)) -> tuple[nn.Module, tuple[int, ...]]:
    """A network between two quantizers, and the shape of its input."""
    return nn.Sequential(entry(), *layers, entry()), size


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """``relu(q(x + conv(x)))``, with operands on grids of their own."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.conv = qnn.QuantConv2d(4, 4, 3, padding=1, output_quant=Act, **LAYER)
        self.relu = qnn.QuantReLU(Act)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.in_place:
            y += x
            return self.relu(y)
        return self.relu(x + y)


class Concatenated(nn.Module):
    """Two convolutions that are rounded to one grid behind their concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (qnn.QuantConv2d(4, 2, 1, **LAYER) for _ in range(2))
        self.relu = qnn.QuantReLU(Act)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(torch.cat([self.one(x), self.other(x)], dim=1))


def conv(*size: int, **options: Any) -> nn.Module:
    return qnn.QuantConv2d(*size, **(LAYER | options))


def as_the_dpu_averages(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 7, divisor_override=1) * (21 / 1024)


NETS: dict[str, tuple[Callable[[], tuple[nn.Module, tuple[int, ...]]], list[str], list[str]]] = {
    "convolution": (lambda: ends(conv(4, 5, 3)), ["Conv"], ["Conv"]),
    "padded": (lambda: ends(conv(4, 5, 3, padding=(1, 2))), ["Conv"], ["Pad", "Conv"]),
    "padded to the same size": (lambda: ends(conv(4, 5, 4, padding="same")), ["Conv"], ["Pad", "Conv"]),
    "padded not at all": (lambda: ends(conv(4, 5, 4, padding="valid")), ["Conv"], ["Conv"]),
    "strided and dilated": (lambda: ends(conv(4, 5, 3, stride=2, dilation=2)), ["Conv"], ["Conv"]),
    "grouped": (lambda: ends(conv(4, 6, 3, groups=2)), ["Conv"], ["Conv"]),
    "depthwise": (lambda: ends(conv(4, 8, 3, groups=4, padding=1)), ["Conv"], ["Pad", "Conv"]),
    "without bias": (lambda: ends(conv(4, 5, 3, bias=False, bias_quant=None)), ["Conv"], ["Conv"]),
    "bias on the accumulator": (
        lambda: (conv(4, 5, 3, input_quant=Act, bias_quant=Int8Bias, output_quant=Act), (2, 4, 8, 8)),
        *2 * [["Conv"]],
    ),
    "weights of 4 bits": (lambda: ends(conv(4, 5, 3, weight_bit_width=4)), ["Conv"], ["Conv"]),
    "transposed": (
        lambda: ends(qnn.QuantConvTranspose2d(4, 4, 3, stride=2, padding=1, **LAYER)),
        ["ConvTranspose"],
        ["ConvTranspose"],
    ),
    "transposed, grouped": (
        lambda: ends(qnn.QuantConvTranspose2d(4, 6, 2, stride=2, groups=2, **LAYER)),
        ["ConvTranspose"],
        ["ConvTranspose"],
    ),
    "linear": (lambda: ends(qnn.QuantLinear(6, 5, **LAYER), size=(3, 6)), ["Gemm"], ["Gemm"]),
    "relu behind": (
        lambda: (nn.Sequential(entry(), conv(4, 5, 3), qnn.QuantReLU(Act)), (2, 4, 8, 8)),
        *2 * [["Conv", "Relu"]],
    ),
    "relu between two quantizers": (
        lambda: (nn.Sequential(entry(), conv(4, 5, 3, output_quant=Act), qnn.QuantReLU(Act)), (2, 4, 8, 8)),
        *2 * [["Conv", "Relu"]],
    ),
    "relu in place": (lambda: ends(conv(4, 5, 3), nn.ReLU(inplace=True)), *2 * [["Conv", "Relu"]]),
    "relu and pool before the rounding": (
        lambda: ends(conv(4, 5, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        ["Conv", "Relu", "MaxPool"],
        ["Conv", "Relu", "Pad", "MaxPool"],
    ),
    "max pool": (lambda: ends(nn.MaxPool2d(2)), *2 * [["MaxPool"]]),
    "max pool to another grid": (
        lambda: ends(
            Function(torch.relu), nn.MaxPool2d(3, 1, 1), Function(lambda x: F.max_pool2d(x, 2, ceil_mode=True))
        ),
        ["Relu", "MaxPool", "MaxPool"],
        ["Relu", "Pad", "MaxPool", "MaxPool"],
    ),
    "average pool": (lambda: ends(nn.AvgPool2d(2)), *2 * [["AveragePool"]]),
    "average pool with padding": (lambda: ends(nn.AvgPool2d(4, 2, 1)), *2 * [["AveragePool"]]),
    "average pool of no power of two": (lambda: ends(Function(as_the_dpu_averages)), *2 * [["AveragePool"]]),
    "the same with a factor": (
        lambda: ends(Function(lambda x: F.avg_pool2d(x, 3) * torch.tensor(9 * 7 / 64))),
        *2 * [["AveragePool"]],
    ),
    "average over everything": (
        lambda: ends(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *2 * [["GlobalAveragePool", "Flatten"]],
    ),
    "average over a quarter": (lambda: ends(nn.AdaptiveAvgPool2d((2, 4))), *2 * [["AveragePool"]]),
    "mean": (lambda: ends(Function(lambda x: x.mean((2, 3)))), *2 * [["GlobalAveragePool", "Flatten"]]),
    "mean that keeps axes": (
        lambda: ends(Function(lambda x: x.mean((-1, -2), keepdim=True))),
        *2 * [["GlobalAveragePool"]],
    ),
    "sum times a factor": (
        lambda: ends(Function(lambda x: x.sum((2, 3)) * (21 / 1024)), size=(2, 4, 7, 7)),
        *2 * [["GlobalAveragePool", "Flatten"]],
    ),
    "residual": (
        lambda: (nn.Sequential(entry(), Residual()), (2, 4, 8, 8)),
        ["Conv", "Add", "Relu"],
        ["Pad", "Conv", "Add", "Relu"],
    ),
    "residual in place": (
        lambda: (nn.Sequential(entry(), Residual(in_place=True)), (2, 4, 8, 8)),
        ["Conv", "Add", "Relu"],
        ["Pad", "Conv", "Add", "Relu"],
    ),
    "zeros around": (lambda: ends(nn.ZeroPad2d((1, 2, 0, 3)), conv(4, 5, 3)), *2 * [["Pad", "Conv"]]),
    "concatenation": (
        lambda: (nn.Sequential(entry(), Concatenated()), (2, 4, 8, 8)),
        *2 * [["Conv", "Conv", "Concat", "Relu"]],
    ),
    "flatten": (lambda: ends(conv(4, 2, 3), nn.Flatten()), *2 * [["Conv", "Flatten"]]),
    "flatten before the rounding of an input": (
        lambda: (nn.Sequential(nn.Flatten(), entry(), qnn.QuantLinear(16, 3, **LAYER), entry()), (2, 4, 2, 2)),
        *2 * [["Flatten", "Gemm"]],
    ),
    "moves": (
        lambda: ends(
            conv(4, 2, 3), Function(lambda x: x.permute(0, 2, 3, 1).transpose(1, 2).contiguous().view(2, 9, 8))
        ),
        *2 * [["Conv", "Transpose", "Transpose", "Reshape"]],
    ),
    "axes of size 1": (
        lambda: ends(conv(4, 2, 8), Function(lambda x: x.squeeze(3).squeeze((2,)).unsqueeze(1).flatten(0, 1))),
        *2 * [["Conv", "Reshape", "Reshape", "Reshape", "Flatten"]],
    ),
    "dropout": (lambda: ends(conv(4, 2, 3), nn.Dropout(0.5)), *2 * [["Conv"]]),
}


def trained(build: Callable[[], tuple[nn.Module, tuple[int, ...]]], seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    net, size = build()
    net(torch.randn(size))
    return net, torch.randn(size)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("name", NETS)
def test_the_file_equals_the_model_in_every_integer(write: Callable[..., Any], name: str) -> None:
    build, *kinds = NETS[name]
    net, x = trained(build)
    files = [write(target, net, x) for target in TARGETS]
    assert [file.kinds for file in files] == kinds
    for fresh in (x, 100 * torch.randn_like(x)):  # the second saturates
        for file in files:
            found = file.compared(fresh)
            assert found.equal, found
            # Nothing was excused as an order of additions: a factor that float32 holds only nearly is the exception.
            assert (found.max_difference, found.ties) == (0, 0) or name == "the same with a factor"


@pytest.mark.parametrize("name", ["padded", "transposed", "linear", "average pool", "residual"])
@pytest.mark.parametrize("mode", ["HALF_UP", "ROUND"])
def test_other_roundings_are_run_as_such(write: Callable[..., Any], name: str, mode: str) -> None:
    net, x = trained(NETS[name][0])
    for module in net.modules():
        if hasattr(module, "rounding_mode"):
            module.rounding_mode = mode
    file = write("dpuv2", net, x, rounding_mode=mode)
    found = file.compared(x)
    assert found.equal
    assert (found.max_difference, found.ties) == (0, 0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_padding_is_written_as_each_dpu_wants_it(write: Callable[..., Any]) -> None:
    net, x = trained(lambda: ends(conv(4, 5, 4, padding="same")))
    assert write("dpuv1", net, x).attributes("Conv")["pads"] == [1, 1, 2, 2]  # torch puts the odd row behind
    file = write("dpuv2", net, x)
    assert file.attributes("Pad")["pads"] == [1, 1, 2, 2]
    assert file.attributes("Conv")["auto_pad"] == b"VALID"
    assert "pads" not in file.attributes("Conv")
    assert file.onnx.graph.value_info[0].name == "1/Pad"
    assert [size.dim_value for size in file.onnx.graph.value_info[0].type.tensor_type.shape.dim] == [2, 4, 11, 11]


def test_average_pools_have_padding_of_their_own_and_no_auto_pad(write: Callable[..., Any]) -> None:
    net, x = trained(NETS["average pool with padding"][0])
    given = write("dpuv2", net, x).attributes("AveragePool")
    assert (given["pads"], given["count_include_pad"], given["kernel_shape"]) == ([1, 1, 1, 1], 1, [4, 4])
    assert "auto_pad" not in given


def test_a_sum_says_the_positions_of_both_operands(write: Callable[..., Any]) -> None:
    net, x = trained(NETS["residual"][0])
    file = write("dpuv2", net, x)
    scales = {quantizer.name: quantizer.scale for quantizer in file.program.quantizers}
    given = file.attributes("Add")
    names = ("_0_act_quant", "_1_conv_output_quant", "_1_relu_act_quant")
    one, other, out = (int(-torch.log2(scales[name])) for name in names)
    assert given["vai_quant_in"] == [8, one, 8, other]
    assert given["vai_quant_out"] == [8, out]
    assert given["vai_quant"] == [b"vai_quant_in", b"vai_quant_out"]


def test_bit_widths_of_weights_are_their_own(write: Callable[..., Any]) -> None:
    net, x = trained(NETS["weights of 4 bits"][0])
    given = write("dpuv2", net, x).attributes("Conv")
    assert given["vai_quant_weights"][0] == 4
    assert given["vai_quant_out"][0] == 8


class Branches(nn.Module):
    """Two inputs, three outputs, one of them twice, and two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = entry(), entry()
        self.conv = conv(4, 4, 1)
        self.out = entry()

    def forward(self, left: Tensor, output: Tensor) -> dict[str, Tensor]:
        one, other = self.out(self.conv(self.left(left))), self.out(self.conv(self.right(output)))
        return {"output": one, "other": other, "again": one}


@pytest.mark.parametrize("target", TARGETS)
def test_several_inputs_and_outputs(write: Callable[..., Any], target: str) -> None:
    torch.manual_seed(0)
    net, given = Branches(), (torch.randn(1, 4, 3, 3), 5 * torch.randn(1, 4, 3, 3))
    net(*given)
    file = write(target, net, *given)
    assert file.compared(*given).equal
    results = file.artifact.run(*given)
    assert list(results) == ["output", "other", "again"]
    assert torch.equal(results["again"], net(*given)["again"])
    assert [value.name for value in file.onnx.graph.input] == ["left", "output"]
    assert [value.name for value in file.onnx.graph.output] == ["output_1", "other", "again"]
    assert [name for name in file.initializers if name.startswith("conv.weight")] == ["conv.weight"]
