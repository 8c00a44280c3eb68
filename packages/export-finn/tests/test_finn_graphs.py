"""Whole graphs in FINN-ONNX: what is added, joined, padded, normalized or looked up, with integers wherever they can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine
from qonnx.transformation.extract_conv_bias import ExtractBiasFromConv
from qonnx.transformation.infer_data_layouts import InferDataLayouts
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling, PerChannel
from quant_core.export import verify
from quant_core.ops import quantize_int
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, TruncTo8bit
from quant_core.tensor import QuantTensor

TRAINED_STEPS = 2
FOUR: dict[str, Any] = {"weight_bit_width": 4, "bias_quant": Int8Bias}
RELU: dict[str, Any] = {"bit_width": 4, "return_quant_tensor": True}


class Residual(nn.Module):
    """Two branches on one grid, and a sum of two grids."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.left = qnn.QuantConv2d(2, 2, 3, padding=1, **FOUR)
        self.right = qnn.QuantConv2d(2, 2, 1, weight_scaling_per_output_channel=True, **FOUR)
        self.shared = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.relu = qnn.QuantReLU(**RELU)
        self.last = qnn.QuantConv2d(2, 3, 1, **FOUR)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        summed = self.shared(self.left(x)) + self.shared(self.right(x))
        return self.last(self.relu(summed + x))


class Joined(nn.Module):
    """Channels of two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.left = qnn.QuantConv2d(2, 3, 1, **FOUR)
        self.right = qnn.QuantConv2d(2, 1, 1, **FOUR)
        self.relu = qnn.QuantReLU(**RELU)
        self.last = qnn.QuantConv2d(4, 3, 1, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        return self.last(torch.cat([self.relu(self.left(x)), self.relu(self.right(x))], dim=1))


class Sized(nn.Module):
    """Padding, upsampling and pooling of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(2, 3, 3, **FOUR)
        self.relu = qnn.QuantReLU(**RELU)
        self.up = qnn.QuantConvTranspose2d(3, 2, 2, stride=2, **FOUR)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.pad(self.entry(x), (1, 1, 1, 1)), scale_factor=2.0, mode="nearest")
        return self.up(F.max_pool2d(self.relu(self.conv(x)), 2))


class Normalized(nn.Module):
    """Batch norm between the product and its quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(2, 3, 3, bias=False, weight_bit_width=4)
        self.norm = nn.BatchNorm2d(3)
        self.relu = qnn.QuantReLU(**RELU)
        self.last = qnn.QuantConv2d(3, 3, 1, **FOUR)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.norm(self.conv(self.entry(x)))))


class PerChannelActivations(nn.Module):
    """Activations with a scale per channel, between depthwise and pointwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        grid = {"bit_width": 4, "scaling_impl": ConstScaling, "scaling_per_output_channel": True}
        self.entry = qnn.QuantIdentity(
            scaling_init=torch.tensor([0.7, 2.3]).reshape(1, 2, 1, 1),
            per_channel_broadcastable_shape=(1, 2, 1, 1),
            **grid,
        )
        self.depthwise = qnn.QuantConv2d(2, 2, 3, groups=2, weight_bit_width=4)
        self.relu = qnn.QuantReLU(bit_width=4)
        self.pointwise = qnn.QuantConv2d(2, 3, 1, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.relu(self.depthwise(self.entry(x))))


class Averaged(nn.Module):
    """A truncated average before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(2, 3, 3, **FOUR)
        self.relu = qnn.QuantReLU(**RELU)
        self.trunc = qnn.TruncQuantAccumulator(TruncTo8bit, bit_width=4)
        self.last = qnn.QuantLinear(3, 4, **FOUR)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.relu(self.conv(self.entry(x))), 4)
        return self.last(torch.flatten(self.trunc(x), 1))


NETS = [Residual, Joined, Sized, Normalized, PerChannelActivations, Averaged]


@pytest.fixture(scope="module", params=NETS, ids=lambda kind: kind.__name__)
def files(request: Any, write: Callable[..., Any]) -> Any:
    """A network through both targets."""
    torch.manual_seed(0)
    net = request.param()
    for _ in range(TRAINED_STEPS):
        net(torch.randn(4, 2, 6, 6))
    x = torch.randn(1, 2, 6, 6)
    finn = write("finn", net, x)
    return {"qonnx": write("qonnx", net, program=finn.program), "finn": finn, "x": x}


def test_both_targets_give_what_the_model_gives(files: Any) -> None:
    x = files["x"]
    expected = files["finn"].model(x).detach()
    for target in ("qonnx", "finn"):
        file = files[target]
        torch.testing.assert_close(torch.from_numpy(file.outputs(x)[0]), expected, rtol=1e-5, atol=1e-6)
        assert file.artifact.trace([x]).first_divergence is None
        clean = file.outputs(x, model=file.clean())[0]
        np.testing.assert_allclose(clean, file.outputs(x)[0], rtol=1e-6, atol=1e-6)


def test_what_is_multiplied_are_integers(files: Any) -> None:
    """Data, weights and accumulators of each product, as qonnx infers them; also of a depthwise one of data per channel."""
    file = files["finn"]
    inferred = file.inferred()
    for node in inferred.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul"):
            continue
        data, weight, total = (inferred.get_tensor_datatype(name) for name in (*node.input[:2], node.output[0]))
        assert weight.name == "INT4"
        assert data.name in ("INT4", "UINT4"), node.name
        # qonnx infers 32 bits for what it knows to be a sum of products, and keeps the annotation of a transposed convolution.
        assert total.name == ("INT32" if node.op_type != "ConvTranspose" else file.annotations()[node.output[0]])
        assert total.name.startswith("INT")


@pytest.mark.filterwarnings("ignore:Assuming 4D input is NCHW")
def test_what_is_done_in_front_of_finn_keeps_the_values(files: Any) -> None:
    """Batch norm as a product and a sum, convolutions as matrix products, layouts and datatypes."""
    for target in ("qonnx", "finn"):
        file = files[target]
        wrapped = file.clean()
        for step in (BatchNormToAffine(), ExtractBiasFromConv(), InferDataLayouts(), InferDataTypes()):
            wrapped = wrapped.transform(step)
        if target == "finn":
            wrapped = wrapped.transform(LowerConvsToMatMul()).transform(InferDataTypes())
            assert "Conv" not in {node.op_type for node in wrapped.graph.node}
        np.testing.assert_allclose(
            file.outputs(files["x"], model=wrapped)[0], file.outputs(files["x"])[0], rtol=1e-5, atol=1e-6
        )


def test_annotations_hold_for_every_value_that_is_computed(files: Any) -> None:
    """qonnx's executor rounds what it finds off an annotation and warns: here nothing is off."""
    from qonnx.core.datatype import DataType
    from qonnx.core.onnx_exec import execute_onnx

    file = files["finn"]
    context = execute_onnx(file.wrapped(), {"x": files["x"].numpy()}, return_full_exec_context=True)
    notes = file.annotations()
    assert notes
    for name, datatype in notes.items():
        values = context[name]
        assert (values == np.round(values)).all(), name
        kind = DataType[datatype]
        assert values.min() >= kind.min(), name
        assert values.max() <= kind.max(), name


WHOLE: dict[type[nn.Module], list[str]] = {
    Residual: ["Add"],
    Joined: ["Concat"],
    Sized: ["Resize", "Pad", "MaxPool", "ConvTranspose"],
    Normalized: ["Conv"],
    PerChannelActivations: ["Conv"],
    Averaged: ["QuantAvgPool2d", "Flatten"],
}
"""Operations of each network that one node at least computes with integers throughout."""


def test_what_keeps_values_on_a_grid_is_done_with_integers(files: Any) -> None:
    file = files["finn"]
    inferred, given = file.inferred(), {"", *file.initializers}
    for operation in WHOLE[type(file.model)]:
        types = [
            {inferred.get_tensor_datatype(name).name for name in (*node.input, *node.output) if name not in given}
            for node in file.nodes(operation)
        ]
        assert any("FLOAT32" not in each for each in types), operation
    assert "AveragePool" not in file.kinds
    assert len(file.nodes("QuantAvgPool2d")) == len(files["qonnx"].nodes("Trunc"))


class Attended(nn.Module):
    """Products of two values: of matrices, and of each with each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (qnn.QuantIdentity(bit_width=4) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one, other = self.one(x), self.other(x)
        return one @ other.transpose(1, 2), torch.bmm(other.transpose(1, 2), one), one * other


def test_products_of_two_values_are_of_integers(write: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    net, x = Attended(), torch.randn(2, 3, 5)
    net(x)
    file = write("finn", net, x)
    assert Counter(file.kinds) == {"MultiThreshold": 2, "Transpose": 1, "MatMul": 2, "Mul": 4}
    inferred = file.inferred()
    for node in file.nodes("MatMul"):
        assert [inferred.get_tensor_datatype(name).name for name in (*node.input, *node.output)] == [
            "INT4",
            "INT4",
            "INT32",
        ]
    for ours, theirs in zip(net(x), file.outputs(x), strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours.detach(), rtol=1e-5, atol=1e-6)


class Recurrent(nn.Module):
    """Two steps of a recurrent layer, from zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.state = (qnn.QuantIdentity(bit_width=4) for _ in range(2))
        self.linear = qnn.QuantLinear(4, 3, bias=True, weight_bit_width=4)
        self.hidden = nn.Parameter(torch.randn(3, 3))
        self.register_buffer("scale", torch.tensor(0.2))

    def forward(self, x: Tensor) -> Tensor:
        weight = quantize_int(self.hidden, self.scale, 0, 4, signed=True)
        state = torch.zeros(x.shape[1], 3)
        for part in self.linear(self.entry(x)).unbind():
            state = self.state(torch.addmm(part, state, weight))
        return state


def test_steps_of_recurrent_layers_multiply_integers(write: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    net, x = Recurrent(), torch.randn(2, 3, 4)
    for _ in range(2):
        net(x)
    file = write("finn", net, x)
    assert "Gemm" not in file.kinds
    inferred = file.inferred()
    types = [[inferred.get_tensor_datatype(name).name for name in node.input] for node in file.nodes("MatMul")]
    assert types == [["INT4", "INT4"]] * 2  # of all inputs, and of the state after the first step
    verification = verify(file.program, file.artifact, (x,))
    assert verification.equal, str(verification)
    assert verification.compared == 3


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_averages_over_whole_images_are_pools(write: Callable[..., Any], target: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 6, 6)
    plain = nn.Sequential(qnn.QuantIdentity(bit_width=4), nn.AdaptiveAvgPool2d(1))
    entry = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
    truncated = nn.Sequential(
        entry, qnn.TruncAdaptiveAvgPool2d(1, bit_width=4, rounding_mode="FLOOR", return_quant_tensor=False)
    )
    kinds = {"qonnx": ["AveragePool", "Trunc"], "finn": ["QuantAvgPool2d", "Mul"]}
    for net, wanted in ((plain, ["GlobalAveragePool"]), (truncated, kinds[target])):
        net(x)
        file = write(target, net, x)
        assert file.kinds[-len(wanted) :] == wanted
        assert verify(file.program, file.artifact, (x,)).equal
        np.testing.assert_allclose(file.outputs(x, model=file.clean())[0], file.outputs(x)[0], rtol=1e-6)


class Looked(nn.Module):
    """Words as vectors, and a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = qnn.QuantEmbedding(7, 4, weight_bit_width=4)
        self.entry = qnn.QuantIdentity(bit_width=4)
        self.one = qnn.QuantLinear(4, 3, weight_bit_width=4)
        self.two = qnn.QuantLinear(5, 3, weight_bit_width=4, bias=False)

    def forward(self, words: Tensor, features: Tensor) -> Tensor:
        return self.one(self.table(words)) + self.two(self.entry(features))


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_embeddings_and_several_inputs(write: Callable[..., Any], target: str) -> None:
    torch.manual_seed(0)
    net, args = Looked(), (torch.tensor([[0, 6, 3]]), torch.randn(1, 3, 5))
    net(*args)
    file = write(target, net, *args)
    assert [value.name for value in file.onnx.graph.input] == ["words", "features"]
    torch.testing.assert_close(file.artifact.run(*args), net(*args), rtol=1e-5, atol=1e-6)
    if target == "finn":
        inferred = file.inferred()
        assert [inferred.get_tensor_datatype(node.input[0]).name for node in file.nodes("MatMul")] == ["INT4", "INT4"]


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_a_quantized_tensor_is_returned_with_its_grid(write: Callable[..., Any], target: str) -> None:
    net, x = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True), torch.randn(3, 4)
    net(x)
    file = write(target, net, x)
    ours, theirs = net(x), file.artifact.run(x)
    assert isinstance(theirs, QuantTensor)
    assert torch.equal(theirs.int(), ours.int())
    torch.testing.assert_close(theirs.scale, ours.scale.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_groups_of_a_transposed_convolution_share_the_scales_of_its_channels(
    write: Callable[..., Any], target: str
) -> None:
    torch.manual_seed(0)
    options = {"weight_scaling_per_output_channel": True, "input_quant": Int8ActPerTensorFloat, **FOUR}
    net, x = qnn.QuantConvTranspose2d(4, 6, 3, groups=2, **options), torch.randn(1, 4, 5, 5)
    net(x)
    file = write(target, net, x)
    torch.testing.assert_close(torch.from_numpy(file.outputs(x)[0]), net(x).detach(), rtol=1e-5, atol=1e-6)


class InPlace(nn.Module):
    """A ReLU in place of what is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=4)
        self.linear = qnn.QuantLinear(4, 3)
        self.levels = qnn.QuantIdentity(bit_width=4, signed=False)

    def forward(self, x: Tensor) -> Tensor:
        total = self.linear(self.entry(x))
        return self.levels(F.relu_(total)) + total


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_a_relu_in_place_changes_what_is_used_again(write: Callable[..., Any], target: str) -> None:
    torch.manual_seed(0)
    net, x = InPlace(), torch.randn(3, 4)
    net(x)
    file = write(target, net, x)
    torch.testing.assert_close(torch.from_numpy(file.outputs(x)[0]), net(x).detach(), rtol=1e-5, atol=1e-6)


def test_a_float_bias_is_added_after_the_scale_and_a_quantized_one_before(write: Callable[..., Any]) -> None:
    x = torch.randn(2, 4)
    kinds = {}
    for bias in (None, Int8Bias):
        layer = qnn.QuantLinear(4, 3, input_quant=Int8ActPerTensorFloat, bias_quant=bias)
        layer(x)
        kinds[bias] = write("finn", layer, x).kinds
    assert kinds == {
        None: ["MultiThreshold", "MatMul", "Mul", "Add"],
        Int8Bias: ["MultiThreshold", "MatMul", "Add", "Mul"],
    }


def test_a_bias_on_another_grid_is_divided_and_multiplied(write: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    grid = {"scaling_impl": ConstScaling, "scaling_per_output_channel": True, "granularity": PerChannel(1)}
    entry = qnn.QuantIdentity(
        bit_width=4,
        scaling_init=torch.tensor([[0.5, 0.25]]),
        per_channel_broadcastable_shape=(1, 2),
        **{name: value for name, value in grid.items() if name != "granularity"},
    )
    net, x = nn.Sequential(entry, OwnScale()), torch.randn(3, 2)
    file = write("finn", net, x)
    assert file.kinds == ["MultiThreshold", "Mul", "MatMul", "Mul", "Div", "Add", "Mul"]
    assert file.annotations()["1.bias"] == "INT8"
    torch.testing.assert_close(torch.from_numpy(file.outputs(x)[0]), net(x), rtol=1e-5, atol=1e-6)


class OwnScale(nn.Module):
    """A linear layer whose bias has a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.bias = nn.Parameter(torch.randn(3))
        self.register_buffer("scale", torch.tensor(0.03))

    def forward(self, x: Tensor) -> Tensor:
        options = {"signed": True}
        weight = quantize_int(self.weight, self.scale, 0, 8, **options)
        return F.linear(x, weight, quantize_int(self.bias, self.scale, 0, 8, **options))


@pytest.mark.parametrize("target", ["qonnx", "finn"])
@pytest.mark.parametrize("folded", [True, False])
def test_a_batch_norm_is_folded_before_or_kept(write: Callable[..., Any], target: str, folded: bool) -> None:
    torch.manual_seed(1)
    net = Normalized()
    for _ in range(4):
        net(torch.randn(8, 2, 6, 6) * 3 + 1)
    with torch.no_grad():
        net.norm.weight.copy_(torch.tensor([0.5, -1.5, 2.0]))
        net.norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    x = torch.randn(1, 2, 6, 6)
    net.eval()
    if folded:
        assert [one.norm for one in qnn.fold_batch_norms(net, (x,)).folded] == ["norm"]
    found = write(target, net, x)
    verification = verify(found.program, found.artifact, (x,))
    assert verification.equal, str(verification)
    assert verification.compared == 2
    assert ("BatchNormalization" in found.kinds) is not folded
    np.testing.assert_array_equal(found.outputs(x)[0], found.outputs(x, model=found.clean())[0])
