"""A network in the toolkit's words, calibrated, as a file of the form that TensorRT documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

import quant_nn as qnn
from quant_core.export import export
from quant_nn.toolkit import (
    QUANT_DESC_8BIT_PER_TENSOR,
    QuantDescriptor,
    TensorQuantizer,
    initialize,
)


class Net(nn.Module):
    """Built of the names in torch.nn, with a quantizer put in by hand at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.conv2 = nn.Conv2d(4, 8, 3, stride=2)
        self.linear = nn.Linear(8 * 4, 5)
        self.last = TensorQuantizer(QUANT_DESC_8BIT_PER_TENSOR)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2(self.conv1(x).relu()).relu()
        out: torch.Tensor = self.last(self.linear(x.flatten(1)))
        return out


def images(count: int = 16) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def calibrated(method: str) -> nn.Module:
    torch.manual_seed(0)
    with initialize():
        net = Net()
    qnn.calibrate(net, images().split(4), method)
    return net.eval()


def test_the_file_has_the_form_that_tensorrt_documents(tmp_path: Path) -> None:
    net = calibrated("entropy")
    done = export(net, (images(4),), target="qcdq", path=tmp_path / "net.onnx", options={"tensorrt": True})
    assert done.verification is not None
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model)
    nodes = list(model.graph.node)
    kinds = {node.op_type for node in nodes}
    assert "Clip" not in kinds
    assert kinds >= {"QuantizeLinear", "DequantizeLinear", "Conv"}

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producer = {name: node for node in nodes for name in node.output}
    quantizing = [node for node in nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zero_points = [constants[name] for node in quantizing for name in node.input[2:]]  # left out it is 0
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zero_points)

    activations = [node for node in nodes if node.op_type == "QuantizeLinear" and node.input[0] not in constants]
    assert len(activations) == 4
    for node in activations:
        assert constants[node.input[1]].shape == ()
        (user,) = (other for other in nodes if node.output[0] in other.input)
        assert user.op_type == "DequantizeLinear"
        assert user.input[1] == node.input[1]
        assert len(node.input) == 3  # without a zero-point the integers would be unsigned

    layers = [node for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(layers) == 3
    for node, layer in zip(layers, (net.conv1, net.conv2, net.linear), strict=True):
        assert producer[node.input[0]].op_type == "DequantizeLinear" or node.op_type == "Gemm"
        weight = producer[node.input[1]]
        while weight.op_type != "DequantizeLinear":
            weight = producer[weight.input[0]]
        assert constants[weight.input[0]].dtype == np.int8
        scale = constants[weight.input[1]]
        assert np.array_equal(scale, layer.weight_quant.scale().detach().flatten().numpy())
        if node.op_type != "MatMul":
            assert constants[node.input[2]].dtype == np.float32


def test_onnxruntime_gives_what_the_model_gives(tmp_path: Path) -> None:
    net = calibrated("entropy")
    export(net, (images(4),), target="qcdq", path=tmp_path / "net.onnx", options={"tensorrt": True})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images(4).numpy()})
    with torch.no_grad():
        expected = net(images(4)).numpy()
    step = net.last.quant.scale().item()
    assert np.abs(found - expected).max() <= 1.001 * step  # a sum in another order may fall on the other side of a tie
    assert np.mean(np.abs(found - expected) > 0.5 * step) < 0.1


def test_every_target_that_takes_it_gets_the_same_numbers(tmp_path: Path) -> None:
    net = calibrated("max")
    for target in ("qcdq", "qonnx"):
        done = export(net, (images(4),), target=target, path=tmp_path / f"{target}.onnx")
        assert done.verification is not None
        assert done.program.uncalibrated == ()


def test_a_quantizer_that_has_seen_no_data_is_named(tmp_path: Path) -> None:
    from quant_core.export import capture

    net = nn.Sequential(qnn.QuantLinear(3, 2, quant_desc_input=QuantDescriptor()), TensorQuantizer())
    assert capture(net, (torch.ones(2, 3),)).uncalibrated == ("0.input_quant", "1.quant")


def test_descriptors_take_numbers_of_numpy() -> None:
    found = QuantDescriptor(
        num_bits=np.int64(4), axis=np.int64(1), amax=np.array([1.0, 2.5]), scale_amax=np.float32(0.5)
    )
    assert found == QuantDescriptor(num_bits=4, axis=1, amax=(1.0, 2.5), scale_amax=0.5)
    assert QuantDescriptor.from_yaml(found.to_yaml()) == found
    assert QuantDescriptor(amax=np.float32(2)) == QuantDescriptor(amax=2.0)
