"""The files of a small network, node for node as the releases of Brevitas wrote them that could.

Their files of this network were read with onnx; what is compared is their structure, described here: operators, domains, which
attributes each has, positions that belong together, types and shapes of constants. Names are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8WeightPerTensorFixedPoint,
)

WEIGHTS: dict[str, Any] = {
    "weight_quant": Int8WeightPerTensorFixedPoint,
    "bias_quant": Int8BiasPerTensorFixedPointInternalScaling,
    "output_quant": Int8ActPerTensorFixedPoint,
    "return_quant_tensor": True,
}
ALL = [b"vai_quant_in", b"vai_quant_out", b"vai_quant_weights", b"vai_quant_biases"]
BOTH = ALL[:2]
KINDS = {"vai_quant", "vai_quant_in", "vai_quant_out"}
PARAMETERS = KINDS | {"vai_quant_weights", "vai_quant_biases"}

CONV = {"dilations", "group", "kernel_shape", "strides"} | PARAMETERS
POOL = {"ceil_mode", "dilations", "kernel_shape", "strides"} | KINDS
ON_THE_NODE: list[tuple[str, set[str]]] = [
    ("Conv", CONV | {"pads"}),
    ("Relu", KINDS),
    ("MaxPool", POOL | {"pads"}),
    ("Conv", CONV | {"pads"}),
    ("Relu", KINDS),
    ("Reshape", set()),
    ("Gemm", {"transB"} | PARAMETERS),
]
APART: list[tuple[str, set[str]]] = [
    ("Pad", {"pads"} | KINDS),
    ("Conv", CONV | {"auto_pad"}),
    ("Relu", KINDS),
    ("MaxPool", POOL | {"auto_pad"}),
    ("Pad", {"pads"} | KINDS),
    ("Conv", CONV | {"auto_pad"}),
    ("Relu", KINDS),
    ("Reshape", set()),
    ("Gemm", {"transB"} | PARAMETERS),
]
FORMS: dict[str, tuple[str, dict[str, str], str, list[tuple[str, set[str]]], type]] = {
    "dpuv1 of 0.6": ("dpuv1", {}, "pyxir", ON_THE_NODE, np.float32),
    "dpuv2 of 0.6": ("dpuv2", {"form": "0.6"}, "pyxir", APART, np.float32),
    "dpuv2 of 0.7": ("dpuv2", {}, "pyxir.onnx", APART, np.int32),
}


class Reference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1 = qnn.QuantConv2d(1, 6, 5, padding=2, input_quant=Int8ActPerTensorFixedPoint, **WEIGHTS)
        self.r1 = qnn.QuantReLU(Int8ActPerTensorFixedPoint, return_quant_tensor=True)
        self.p = nn.MaxPool2d(2)
        self.c2 = qnn.QuantConv2d(6, 6, 3, padding=1, **WEIGHTS)
        self.r2 = qnn.QuantReLU(Int8ActPerTensorFixedPoint, return_quant_tensor=True)
        self.l = qnn.QuantLinear(6 * 14 * 14, 10, **(WEIGHTS | {"return_quant_tensor": False}))

    def forward(self, inp: Tensor) -> Tensor:
        x = self.r2(self.c2(self.p(self.r1(self.c1(inp)))))
        return self.l(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def net(image: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = Reference()
    model(image)
    return model


@pytest.fixture(scope="module", params=FORMS, ids=FORMS)
def case(request: Any, write: Callable[..., Any], net: nn.Module, image: Tensor) -> Any:
    target, options, *wanted = FORMS[request.param]
    return write(target, net, image, **options), *wanted


def test_operators_domains_and_attributes(case: Any) -> None:
    file, domain, nodes, _ = case
    found = [(node.op_type, {attribute.name for attribute in node.attribute}) for node in file.onnx.graph.node]
    assert found == nodes
    for node in file.onnx.graph.node:
        assert node.domain == ("" if node.op_type == "Reshape" else domain)


def test_values_of_attributes(case: Any) -> None:
    file, _, nodes, _ = case
    convolution, *_, product = [node for node in file.onnx.graph.node if node.op_type in ("Conv", "Gemm")]
    given = file.attributes(convolution)
    assert given["vai_quant"] == ALL
    assert (given["dilations"], given["group"], given["kernel_shape"], given["strides"]) == ([1, 1], 1, [5, 5], [1, 1])
    apart = nodes is APART
    pad = file.attributes(next(node for node in file.onnx.graph.node if node.op_type == "Pad")) if apart else given
    assert pad["pads"] == [2, 2, 2, 2]
    if apart:
        assert given["auto_pad"] == b"VALID"
        assert pad["vai_quant"] == BOTH
        assert pad["vai_quant_in"] == pad["vai_quant_out"] == given["vai_quant_in"]
    pool = file.attributes("MaxPool")
    assert (pool["kernel_shape"], pool["strides"], pool["dilations"], pool["ceil_mode"]) == ([2, 2], [2, 2], [1, 1], 0)
    assert pool.get("pads", [0] * 4) == [0] * 4
    assert pool["vai_quant_in"] == pool["vai_quant_out"]
    assert file.attributes(product)["transB"] == 1


def test_positions_are_those_of_the_quantizers_and_run_from_node_to_node(case: Any) -> None:
    file = case[0]
    scales = {quantizer.name: quantizer.scale for quantizer in file.program.quantizers}
    first, relu, *_ = [node for node in file.onnx.graph.node if node.op_type in ("Conv", "Relu")]
    given = file.attributes(first)
    for kind, name in {
        "in": "c1_input_quant",
        "out": "c1_output_quant",
        "weights": "c1_weight_dequantized",
        "biases": "c1_bias_dequantized",
    }.items():
        bits, position = given[f"vai_quant_{kind}"]
        assert bits == 8
        assert 2.0**-position == float(scales[name])
    assert file.attributes(relu)["vai_quant_in"] == given["vai_quant_out"]  # a QuantReLU behind an output quantizer
    assert 2.0 ** -file.attributes(relu)["vai_quant_out"][1] == float(scales["r1_act_quant"])
    known: dict[str, list[int]] = {}
    for node in file.onnx.graph.node:
        quantization = file.attributes(node)
        before = known.get(node.input[0])
        if before is not None and "vai_quant_in" in quantization:
            assert quantization["vai_quant_in"] == before
        known[node.output[0]] = quantization.get("vai_quant_out", before)


def test_constants_are_integers_in_the_type_of_the_form(case: Any) -> None:
    file, _, _, kind = case
    shapes = {name: value.shape for name, value in file.initializers.items()}
    assert shapes == {
        "c1.weight": (6, 1, 5, 5),
        "c1.bias": (6,),
        "c2.weight": (6, 6, 3, 3),
        "c2.bias": (6,),
        "shape": (2,),
        "l.weight": (10, 1176),
        "l.bias": (10,),
    }
    for name, value in file.initializers.items():
        assert value.dtype == (np.int64 if name == "shape" else kind)
        assert np.array_equal(value, value.round())
    assert file.initializers["shape"].tolist() == [-1, 1176]
    stored = next(quantizer for quantizer in file.program.quantizers if quantizer.name == "c1_weight_dequantized")
    assert np.array_equal(file.initializers["c1.weight"], stored.integers.numpy())


def test_versions_and_what_the_checker_of_onnx_says(case: Any) -> None:
    file, domain, _, _ = case
    onnx.checker.check_model(file.onnx)
    assert file.onnx.ir_version == 6
    assert [(entry.domain, entry.version) for entry in file.onnx.opset_import] == [("", 11), (domain, 1)]


def test_names_are_those_of_the_model(case: Any) -> None:
    file = case[0]
    names = [node.name for node in file.onnx.graph.node]
    assert {"c1/Conv", "r1/Relu", "p/MaxPool", "c2/Conv", "r2/Relu", "l/Gemm", "Reshape"} <= set(names)
    assert len(set(names)) == len(names)
    assert [value.name for value in file.onnx.graph.input] == ["inp"]
    assert [value.name for value in file.onnx.graph.output] == ["output"]
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in file.onnx.graph.value_info
    }
    assert shapes["c1/Conv"] == [1, 6, 28, 28]
    if "c1/Pad" in names:
        assert shapes["c1/Pad"] == [1, 1, 32, 32]


def test_the_same_model_gives_the_same_bytes(case: Any, write: Callable[..., Any], image: Tensor) -> None:
    file, domain, *_ = case
    options = {"form": "0.6"} if file.artifact.target == "dpuv2" and domain == "pyxir" else {}
    assert write(file.artifact.target, file.model, image, **options).artifact.content() == file.artifact.content()


def test_both_dpus_compute_the_same(case: Any, write: Callable[..., Any], image: Tensor) -> None:
    file = case[0]
    assert file.compared(image).equal
    other = write("dpuv1", file.model, image)
    assert torch.equal(file.artifact.run(image), other.artifact.run(image))
