"""Activation quantizers of FINN-ONNX: the integers that qonnx's executor computes are those of the model, ties included."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling
from quant_core.ops import quantize_ternary, quantize_trunc
from quant_core.quant import SignedBinaryActPerTensorConst
from quant_core.tensor import QuantTensor

CHANNELS = 4
PER_CHANNEL = torch.tensor([[0.3], [1.7], [5.0], [33.0]])


def grids() -> Iterator[tuple[type[qnn.QuantActivation], dict[str, Any]]]:
    """Every grid that the target takes."""
    for bits, narrow, channels in itertools.product(range(2, 9), (True, False), (True, False)):
        options: dict[str, Any] = {"bit_width": bits, "scaling_impl": ConstScaling, "scaling_init": 1.9}
        if channels:
            options |= {"scaling_init": PER_CHANNEL, "per_channel_broadcastable_shape": (CHANNELS, 1)}
            options |= {"scaling_per_output_channel": True}
        yield qnn.QuantIdentity, options | {"narrow_range": narrow}
        if not narrow:
            yield qnn.QuantReLU, options


class Activations(nn.Module):
    """One input through each quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(kind(return_quant_tensor=True, **options) for kind, options in grids())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [result.value for result in self.results(x)]

    def results(self, x: Tensor) -> list[QuantTensor]:
        """What each quantizer gives, in the order of the outputs."""
        return [quantizer(x) for quantizer in self.each]


@pytest.fixture(scope="module")
def activations(write: Callable[..., Any]) -> Any:
    return write("finn", Activations(), torch.zeros(2, CHANNELS, 12))


def test_values_are_those_of_the_model_to_the_bit(activations: Any) -> None:
    # Quarters of two steps, so that many values are halfway between two levels, and random numbers.
    quarters = torch.arange(-48, 48).reshape(2, CHANNELS, 12) / 4
    scales = [result.scale.detach() for result in activations.model.results(quarters)]
    for scale in (scales[0], scales[3], torch.randn(2, CHANNELS, 12, generator=torch.Generator().manual_seed(1))):
        x = quarters * scale
        for result, theirs in zip(activations.model.results(x), activations.artifact.run(x), strict=True):
            np.testing.assert_array_equal(theirs.numpy(), result.value.detach().numpy())


def test_each_becomes_thresholds_that_give_integers_of_its_type(activations: Any) -> None:
    inferred = activations.inferred()
    assert len(activations.nodes("MultiThreshold")) == len(activations.model.each)
    assert "Relu" not in activations.kinds
    for node, quantizer in zip(activations.nodes("MultiThreshold"), activations.program.quantizers, strict=True):
        bits = int(quantizer.bit_width)
        datatype = f"{'INT' if quantizer.signed else 'UINT'}{bits}"
        assert inferred.get_tensor_datatype(node.output[0]).name == datatype
        assert activations.annotations()[node.output[0]] == datatype
        steps = activations.initializers[node.input[1]]
        rows = CHANNELS if quantizer.granularity == "per_channel" else 1
        assert steps.shape == (rows, 2**bits - 1 - quantizer.narrow_range)
        assert (np.diff(steps, axis=1) > 0).all()


def test_scales_are_separate_multiplications(activations: Any) -> None:
    assert activations.kinds.count("Mul") == len(activations.model.each)
    shapes = {activations.initializers[node.input[1]].shape for node in activations.nodes("Mul")}
    assert shapes == {(), (CHANNELS, 1)}


def test_binary_activations_are_bipolar(write: Callable[..., Any]) -> None:
    sign = qnn.QuantIdentity(SignedBinaryActPerTensorConst, scaling_init=1.0)
    x = torch.tensor([[-1.5, -0.0, 0.0, 2.0]])
    file = write("finn", sign, x)
    assert file.kinds == ["MultiThreshold"]
    attributes = file.attributes(file.nodes("MultiThreshold")[0])
    assert (attributes["out_scale"], attributes["out_bias"], attributes["out_dtype"]) == (2, -1, b"BIPOLAR")
    assert file.inferred().get_tensor_datatype(file.onnx.graph.output[0].name).name == "BIPOLAR"
    np.testing.assert_array_equal(file.outputs(x)[0], sign(x).detach().numpy())


class Ternary(nn.Module):
    """−1, 0 and 1 with a scale."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.register_buffer("scale", torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return quantize_ternary(x, self.scale, self.threshold)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_ternary_activations_have_two_thresholds(write: Callable[..., Any], threshold: float) -> None:
    border = torch.tensor(threshold) * torch.tensor(0.7)
    x = torch.cat([torch.linspace(-2, 2, 40), border[None], -border[None]]).reshape(1, 42)
    file = write("finn", Ternary(threshold), x)
    assert file.initializers["thresholds"].shape == (1, 2)
    np.testing.assert_array_equal(file.outputs(x)[0], file.model(x).numpy())


class TruncatedPool(nn.Module):
    """The average of windows, of which the upper bits stay."""

    def __init__(self, kernel: int, stride: int, padding: int, output_bits: int) -> None:
        super().__init__()
        self.entry = qnn.QuantReLU(bit_width=4, scaling_impl=ConstScaling, scaling_init=1.5)
        self.pool = nn.AvgPool2d(kernel, stride, padding)
        dropped = (15 * kernel**2).bit_length() - output_bits
        grid = {"scale": 0.1 / kernel**2, "output_scale": 0.1 / kernel**2 * 2**dropped, "bits": float(output_bits)}
        for name, value in grid.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(self.entry(x))
        return quantize_trunc(pooled, self.scale, torch.zeros(()), self.output_scale, self.bits, signed=False)


@pytest.mark.parametrize(
    ("sizes", "whole"), [((2, 2, 0, 4), True), ((3, 1, 0, 5), True), ((4, 4, 0, 3), True), ((2, 2, 1, 4), False)]
)
def test_a_truncated_average_pool_is_one_operation_on_integers(
    write: Callable[..., Any], sizes: tuple[int, int, int, int], whole: bool
) -> None:
    torch.manual_seed(0)
    net, x = TruncatedPool(*sizes), torch.rand(2, 3, 8, 8) * 1.6
    file = write("finn", net, x)
    pools = file.nodes("QuantAvgPool2d")
    assert len(pools) == (1 if whole else 0)
    np.testing.assert_allclose(file.outputs(x)[0], net(x).detach().numpy(), rtol=1e-6, atol=0)
    if whole:
        assert file.attributes(pools[0]) == {
            "kernel": sizes[0],
            "stride": sizes[1],
            "ibits": 4,
            "obits": sizes[3],
            "signed": 0,
            "data_layout": b"NCHW",
        }
        assert file.inferred().get_tensor_datatype(pools[0].output[0]).name == f"UINT{sizes[3]}"
