"""The file itself: valid, deterministic, of fixed shapes, named after the model, and without a trace of what wrote it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import export_finn
import quant_nn as qnn
from quant_core.export import capture, export, lower
from quant_core.quant import Int8Bias

TARGETS = ("qonnx", "finn")


class Net(nn.Module):
    """Two products at 4 bits."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"weight_bit_width": 4, "bias_quant": Int8Bias}
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(1, 3, 3, **options)
        self.relu = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.fc = qnn.QuantLinear(3 * 3 * 3, 5, **options)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.relu(self.conv(self.entry(image)))), 1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=TARGETS)
def file(request: Any, write: Callable[..., Any], images: Tensor) -> Any:
    torch.manual_seed(0)
    net = Net()
    net(images)
    return write(request.param, net, images)


def test_the_checker_of_onnx_finds_nothing(file: Any) -> None:
    onnx.checker.check_model(file.onnx)
    assert file.onnx.ir_version <= 10


def test_operators_are_of_the_standard_and_of_qonnx(file: Any) -> None:
    versions = [(entry.domain, entry.version) for entry in file.onnx.opset_import]
    assert versions == [("", 18), ("qonnx.custom_op.general", 2)]  # qonnx takes the first one for the standard
    assert "Gemm" not in file.kinds  # qonnx takes it in version 9 only
    assert {node.domain for node in file.onnx.graph.node} == {"", "qonnx.custom_op.general"}


def test_nothing_tells_of_the_tools_that_wrote_it(file: Any) -> None:
    content = file.artifact.content()
    for word in (b"torch", b"aten", b"pkg.", b"onnxscript", b"dynamo", b"quant::", b"qonnx::", b"val_", b".py"):
        assert word not in content, word
    assert (file.onnx.producer_name, file.onnx.producer_version) == ("export-finn", version("export-finn"))


def test_only_the_inputs_of_the_model_are_inputs(file: Any) -> None:
    assert [value.name for value in file.onnx.graph.input] == ["image"]
    assert [value.name for value in file.onnx.graph.output] == ["output"]


def test_every_shape_is_fixed(file: Any) -> None:
    described = {value.name: value for value in (*file.onnx.graph.value_info, *file.onnx.graph.output)}
    for node in file.onnx.graph.node:
        for name in node.output:
            sizes = described[name].type.tensor_type.shape.dim
            assert all(size.WhichOneof("value") == "dim_value" for size in sizes), name


def test_names_are_those_of_the_model(file: Any) -> None:
    names = {node.name for node in file.onnx.graph.node}
    assert len(names) == len(file.onnx.graph.node)
    assert {"conv/Conv", "pool/MaxPool"} <= names
    assert {"conv.weight", "conv.bias", "fc.weight", "fc.bias"} <= file.initializers.keys()
    kind = "Quant" if file.artifact.target == "qonnx" else "MultiThreshold"
    assert {f"entry.act_quant/{kind}", f"relu.act_quant/{kind}"} <= names


def test_the_same_model_gives_the_same_bytes(file: Any, images: Tensor) -> None:
    again = lower(capture(file.model, (images,)), file.artifact.target)
    assert again.content() == file.artifact.content()


@pytest.mark.parametrize("opset", [19, 21])
@pytest.mark.parametrize("target", TARGETS)
def test_each_opset_runs(write: Callable[..., Any], target: str, opset: int) -> None:
    net, x = nn.Sequential(qnn.QuantIdentity(bit_width=4), qnn.QuantLinear(4, 3)), torch.randn(2, 4)
    net(x)
    written = write(target, net, x, opset_version=opset)
    assert ("", opset) in [(entry.domain, entry.version) for entry in written.onnx.opset_import]
    torch.testing.assert_close(written.artifact.run(x), net(x), rtol=1e-5, atol=1e-6)


def test_the_trace_names_each_tensor_by_its_module(file: Any, images: Tensor) -> None:
    trace = file.artifact.trace([images])
    places = [row.where.split(" ")[0] for row in trace.rows]
    assert {"entry.act_quant", "conv", "relu.act_quant", "pool", "fc"} <= set(places)
    assert trace.first_divergence is None
    (entry,) = [row for row in trace.rows if row.name == "entry_act_quant"]
    assert (entry.difference, entry.steps, entry.ties) == (0, 0, 0)


def test_the_trace_finds_what_was_changed_in_the_file(file: Any, images: Tensor) -> None:
    changed = onnx.load_from_string(file.artifact.content())
    (bias,) = [tensor for tensor in changed.graph.initializer if tensor.name == "conv.bias"]
    values = onnx.numpy_helper.to_array(bias).copy()
    values += 3 if file.artifact.target == "finn" else 3 * file.initializers["conv.bias_scale"]
    bias.CopyFrom(onnx.numpy_helper.from_array(values, "conv.bias"))
    artifact = lower(file.program, file.artifact.target)
    artifact._content = changed.SerializeToString()
    trace = artifact.trace([images])
    assert trace.first_divergence is not None
    assert trace.first_divergence.where.startswith("conv")
    marked = [line for line in str(trace).splitlines() if line.startswith("!")]
    assert len(marked) == 1
    assert " conv" in marked[0]


@pytest.mark.parametrize("target", TARGETS)
def test_the_one_call_verifies_and_saves(target: str, images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    net(images)
    done = export(net, (images,), target=target, path=tmp_path / "net.onnx")
    assert done.verification.equal
    assert done.verification.compared == 2
    assert onnx.load(done.path).producer_name == "export-finn"


def test_the_package_says_its_version() -> None:
    assert export_finn.__version__
