"""A whole network at 4 bits: equal to the model, quantizer by quantizer, and to the bit where float sums are exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling
from quant_core.export import export, verify
from quant_core.quant import Int8Bias

IMAGES = 64


class Exact(nn.Module):
    """A small LeNet whose scales are powers of two, so that no sum of products rounds."""

    def __init__(self) -> None:
        super().__init__()
        options = {"weight_bit_width": 4, "weight_scaling_impl": ConstScaling, "weight_scaling_init": 7 / 16}
        options |= {"bias_quant": Int8Bias}
        relu = {"bit_width": 4, "scaling_impl": ConstScaling, "scaling_init": 15 / 8, "return_quant_tensor": True}
        entry = {"scaling_impl": ConstScaling, "scaling_init": 127 / 64, "return_quant_tensor": True}
        self.entry = qnn.QuantIdentity(narrow_range=True, **entry)
        self.conv1 = qnn.QuantConv2d(1, 4, 5, **options)
        self.relu1 = qnn.QuantReLU(**relu)
        self.conv2 = qnn.QuantConv2d(4, 6, 3, **options)
        self.relu2 = qnn.QuantReLU(**relu)
        self.fc = qnn.QuantLinear(6 * 5 * 5, 10, **options)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.conv1(self.entry(x))))
        return self.fc(torch.flatten(self.pool(self.relu2(self.conv2(x))), 1))


def test_every_quantizer_gives_what_the_model_gives(lenet: Any, images: Tensor) -> None:
    report = verify(lenet.program, lenet.artifact, (images,), reference=lenet.model(images))
    assert report.equal
    assert report.compared == 5


def test_where_sums_are_exact_the_integers_and_outputs_are_equal_to_the_bit(write: Callable[..., Any]) -> None:
    torch.manual_seed(5)
    net = Exact()
    x = torch.randn(IMAGES, 1, 28, 28)
    file = write(net, x)
    results = file.results(x)
    with torch.no_grad():
        entry = net.entry(x)
        first = net.relu1(net.conv1(entry))
        second = net.relu2(net.conv2(net.pool(first)))
        output = net.fc(torch.flatten(net.pool(second), 1))
    np.testing.assert_array_equal(results["entry/Clip"], entry.int().numpy())
    np.testing.assert_array_equal(results["relu1/Clip"], first.int().numpy())
    np.testing.assert_array_equal(results["relu2/Clip"], second.int().numpy())
    np.testing.assert_array_equal(file.outputs(x)[0], output.numpy())


def test_the_one_call_verifies_and_saves(lenet: Any, images: Tensor, tmp_path: Path) -> None:
    done = export(lenet.model, (images,), target="qcdq", path=tmp_path / "net.onnx", dynamic_shapes="batch")
    assert done.verification.equal
    assert done.path.read_bytes() == lenet.artifact.content()


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_batch_of_any_size_runs(lenet: Any, batch: int) -> None:
    x = torch.rand(batch, 1, 28, 28, generator=torch.Generator().manual_seed(batch))
    assert verify(lenet.program, lenet.artifact, (x,), reference=lenet.model(x)).equal
    assert lenet.outputs(x)[0].shape == (batch, 10)
    (dimension, *_) = lenet.onnx.graph.input[0].type.tensor_type.shape.dim
    assert dimension.dim_param == "batch"
