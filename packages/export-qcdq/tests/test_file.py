"""The file itself: valid, small, deterministic, named after the model, and without a trace of what wrote it."""

from __future__ import annotations

import io
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from quant_core.errors import ArtifactError
from quant_core.export import capture, lower, verify
from quant_core.export.onnx import external_data


def test_the_checker_of_onnx_finds_nothing(lenet: Any) -> None:
    onnx.checker.check_model(lenet.onnx, full_check=True)


def test_nothing_tells_of_the_tools_that_wrote_it(lenet: Any) -> None:
    content = lenet.artifact.content()
    for word in (b"torch", b"aten", b"pkg.", b"onnxscript", b"dynamo", b"quant::", b"qcdq::", b"val_", b".py"):
        assert word not in content, word
    model = lenet.onnx
    assert (model.producer_name, model.producer_version) == ("export-qcdq", version("export-qcdq"))
    assert list(model.functions) == []
    assert all(entry.key.startswith("quant.") for entry in model.metadata_props)
    assert {node.domain for node in model.graph.node} == {""}


def test_only_the_inputs_of_the_model_are_inputs(lenet: Any) -> None:
    assert [value.name for value in lenet.onnx.graph.input] == ["x"]
    assert [value.name for value in lenet.onnx.graph.output] == ["output"]


def test_constants_have_the_names_of_the_model(lenet: Any) -> None:
    layers = ("conv1", "conv2", "fc1", "fc2", "fc3")
    parts = ("weight", "weight_scale", "bias", "bias_scale")
    expected = {f"{layer}.{part}" for layer in layers for part in parts}
    expected |= {f"{name}.scale" for name in ("entry", "relu1", "relu2", "relu3", "relu4")}
    literals = {name for name in lenet.initializers if re.fullmatch(r"u?int8_-?\d+", name)}
    shapes = {name for name in lenet.initializers if name.endswith("/input_1")}
    assert lenet.initializers.keys() == expected | literals | shapes
    assert {name: f"{lenet.initializers[name].dtype}_{lenet.initializers[name]}" for name in literals} == {
        name: name for name in literals
    }


def test_nodes_have_the_names_of_the_modules(lenet: Any) -> None:
    names = [node.name for node in lenet.onnx.graph.node]
    assert len(set(names)) == len(names)
    assert {"conv1/Conv", "conv2/Conv", "conv1.weight/DQ", "fc1/Gemm", "entry/Q", "entry/DQ", "pool/MaxPool"} <= {
        *names
    }


def test_the_same_model_gives_the_same_bytes(lenet: Any, images: Tensor) -> None:
    again = lower(capture(lenet.model, (images,), dynamic_shapes="batch"), "qcdq")
    assert again.content() == lenet.artifact.content()


def test_weights_are_one_byte_each_and_biases_four(lenet: Any) -> None:
    types = {tensor.name: tensor.data_type for tensor in lenet.onnx.graph.initializer}
    assert {types[name] for name in types if name.endswith(".weight")} == {TensorProto.INT8}
    assert {types[name] for name in types if name.endswith(".bias")} == {TensorProto.INT32}
    floats = [name for name in types if types[name] == TensorProto.FLOAT]
    assert all(name.endswith("scale") for name in floats)


def test_the_file_is_a_quarter_of_the_float_one(lenet: Any, images: Tensor) -> None:
    layers = [module for module in lenet.model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    plain = nn.Sequential(
        *(nn.Conv2d(m.in_channels, m.out_channels, m.kernel_size) if isinstance(m, nn.Conv2d)
          else nn.Linear(m.in_features, m.out_features) for m in layers)
    )  # fmt: skip
    weights = io.BytesIO()
    torch.save(plain.state_dict(), weights)
    assert lenet.artifact.size < 0.3 * weights.getbuffer().nbytes


@pytest.fixture(scope="module")
def in_two_files(lenet: Any) -> Any:
    """The same network written as if a file had no more room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_data, "LARGEST", 10_000)
        return lower(lenet.program, "qcdq")


def test_a_model_that_does_not_fit_into_one_file_has_a_second_one(
    lenet: Any, in_two_files: Any, images: Tensor, tmp_path: Path
) -> None:
    artifact = in_two_files
    assert verify(lenet.program, artifact, (images,), reference=lenet.model(images)).equal
    path = artifact.save(tmp_path / "net.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert path.stat().st_size < 20_000 < (tmp_path / "net.onnx.data").stat().st_size
    assert artifact.size == len(artifact.content()) + (tmp_path / "net.onnx.data").stat().st_size
    whole = onnx.load(path)
    assert {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in whole.graph.initializer} == {
        name: array.tobytes() for name, array in lenet.initializers.items()
    }
    (again,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": images.numpy()})
    assert again.shape == (len(images), 10)


def test_neither_file_is_written_where_one_cannot_be(in_two_files: Any, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(ArtifactError) as caught:
        in_two_files.save(tmp_path / "net.onnx")
    assert str(caught.value).splitlines()[2] == "  it is a directory"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
