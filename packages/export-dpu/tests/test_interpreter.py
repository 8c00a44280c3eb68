"""Files run from nothing but the file: also such as other exporters wrote in these forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export_dpu.interpreter import Interpreter
from quant_core.errors import ArtifactError, QuantError

BOTH = ["vai_quant_in", "vai_quant_out"]
ALL = [*BOTH, "vai_quant_weights", "vai_quant_biases"]


def quantized(kind: str, inputs: list[str], output: str, *, kinds: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, domain="pyxir", vai_quant=kinds, **attributes)


def file_of(nodes: list[onnx.NodeProto], constants: dict[str, Any], size: list[int]) -> bytes:
    """A file without an import of its domain, whose constants are inputs too, as old exporters wrote them."""
    described = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in constants.items()
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size), *described],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)]).SerializeToString()


def product(**changed: Any) -> bytes:
    """``Gemm`` of integers at position 3 with weights at 2 and a bias at 6, to position 1."""
    constants = {"w": np.array([[2, -1], [4, 4]], "float32"), "b": np.array([1, -8], "float32")}
    positions = {
        "vai_quant_in": [8, 3],
        "vai_quant_out": [8, 1],
        "vai_quant_weights": [8, 2],
        "vai_quant_biases": [8, 6],
    } | changed
    node = quantized("Gemm", ["x", "w", "b"], "y", kinds=ALL, transB=1, **positions)
    return file_of([node], constants, [1, 2])


def test_a_product_by_hand() -> None:
    found = Interpreter(product()).run({"x": torch.tensor([[1.0, -0.25]])})
    # Integers 8 and -2 at position 3; sums 18 and 24 at position 5, 36 + 1 and 48 - 8 at position 6; 5 bits are dropped.
    assert found["y"].position == 1
    assert found["y"].tensor.tolist() == [[1, 1]]
    assert found["y"].real().tolist() == [[0.5, 0.5]]


def rounded(exact: Fraction, mode: str) -> int:
    """To the nearest integer, saturated; written here from the words of the documentation."""
    below = math.floor(exact)
    half = exact - below == Fraction(1, 2)
    upwards = {"HALF_UP": True, "ROUND": below % 2 == 1, "DPU": exact < 0 or below % 2 == 1}[mode]
    nearest = below + int(upwards) if half else math.floor(exact + Fraction(1, 2))
    return max(-128, min(127, nearest))


@given(
    x=st.lists(st.integers(-128, 127), min_size=3, max_size=3),
    weight=st.lists(st.integers(-127, 127), min_size=3, max_size=3),
    bias=st.integers(-128, 127),
    positions=st.tuples(st.integers(-8, 12), st.integers(-8, 16), st.integers(-8, 14), st.integers(-12, 20)),
    mode=st.sampled_from(["DPU", "HALF_UP", "ROUND"]),
)
def test_products_are_exact_before_they_are_rounded(
    x: list[int], weight: list[int], bias: int, positions: tuple[int, int, int, int], mode: str
) -> None:
    at, weights, fine, out = positions
    given_positions = {
        "vai_quant_in": [8, at],
        "vai_quant_weights": [8, weights],
        "vai_quant_biases": [8, fine],
        "vai_quant_out": [8, out],
    }
    node = quantized("Gemm", ["x", "w", "b"], "y", kinds=ALL, transB=1, **given_positions)
    content = file_of([node], {"w": np.array([weight], "float32"), "b": np.array([bias], "float32")}, [1, 3])
    found = Interpreter(content, mode).run({"x": torch.ldexp(torch.tensor([x]).float(), torch.tensor(-at))})
    two = Fraction(2)
    total = Fraction(sum(a * b for a, b in zip(x, weight, strict=True))) / two ** (at + weights) + bias / two**fine
    assert int(found["y"].tensor) == rounded(total * two**out, mode)


@pytest.mark.parametrize(("mode", "wanted"), [("DPU", [[-1, 2]]), ("HALF_UP", [[-1, 3]]), ("ROUND", [[-2, 2]])])
def test_values_halfway_between_two_integers(mode: str, wanted: list[list[int]]) -> None:
    node = quantized("Relu", ["x"], "y", kinds=BOTH, vai_quant_in=[8, 0], vai_quant_out=[8, 0])
    rounded = Interpreter(file_of([node], {}, [1, 2]), mode).run({"x": torch.tensor([[-1.5, 2.5]])})
    assert rounded["y"].tensor.tolist() == [[max(0, number) for number in wanted[0]]]
    pool = quantized("Pad", ["x"], "y", kinds=BOTH, pads=[0] * 4, vai_quant_in=[8, 1], vai_quant_out=[8, 0])
    shifted = Interpreter(file_of([pool], {}, [1, 2]), mode).run({"x": torch.tensor([[-1.5, 2.5]])})
    assert shifted["y"].tensor.tolist() == wanted


def test_sums_of_operands_at_several_positions() -> None:
    one = quantized("Relu", ["x"], "a", kinds=BOTH, vai_quant_in=[8, 4], vai_quant_out=[8, 4])
    total = quantized("Add", ["a", "x"], "y", kinds=BOTH, vai_quant_in=[8, 4, 8, 2], vai_quant_out=[8, 3])
    found = Interpreter(file_of([one, total], {}, [2])).run({"x": torch.tensor([1.3, -1.3])})
    # 21 at position 4 and 5 at position 2 are 41 at position 4; 0 and -5 are -20.
    assert found["y"].tensor.tolist() == [20, -10]


@pytest.mark.parametrize(
    ("kernel", "factor"), [((2, 2), 1 / 4), ((3, 3), 7 / 64), ((7, 7), 21 / 1024), ((1, 5), 102 / 512)]
)
def test_averages_are_products_with_the_factor_of_the_hardware(kernel: tuple[int, int], factor: float) -> None:
    options = {"kernel_shape": kernel, "strides": [1, 1], "vai_quant_in": [8, 0], "vai_quant_out": [8, 4]}
    node = quantized("AveragePool", ["x"], "y", kinds=BOTH, **options)
    x = torch.randint(-9, 9, (1, 1, 8, 8)).float()
    found = Interpreter(file_of([node], {}, [1, 1, 8, 8]), "HALF_UP").run({"x": x})
    sums = torch.nn.functional.avg_pool2d(x.double(), kernel, 1, divisor_override=1)
    assert torch.equal(found["y"].tensor.double(), torch.floor(sums * factor * 16 + 0.5).clamp(-128, 127))


def message(call: Callable[[], object]) -> str:
    with pytest.raises(QuantError) as caught:
        call()
    assert isinstance(caught.value, ArtifactError)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["Sigmoid", "Relu"])
def test_an_operator_that_is_no_dpus_is_refused(kind: str) -> None:
    content = file_of([helper.make_node(kind, ["x"], ["y"], name="y")], {}, [2])
    assert message(lambda: Interpreter(content).run({"x": torch.zeros(2)})) == (
        f"no DPU computes {kind} node 'y'\n"
        "  an operator of a DPU is one of Add, AveragePool, Conv, ConvTranspose, Gemm, GlobalAveragePool, MaxPool, Pad, "
        "Relu, with vai_quant_in and vai_quant_out\n"
        "  Run files that export-dpu or an exporter of the same form wrote."
    )


def test_a_file_that_contradicts_itself_is_refused() -> None:
    nodes = [
        quantized("Relu", ["x"], "a", kinds=BOTH, vai_quant_in=[8, 4], vai_quant_out=[8, 4]),
        quantized("Relu", ["a"], "y", kinds=BOTH, vai_quant_in=[8, 3], vai_quant_out=[8, 3]),
    ]
    assert message(lambda: Interpreter(file_of(nodes, {}, [2])).run({"x": torch.zeros(2)})) == (
        "the file contradicts itself\n"
        "  an operator takes integers at position 3, and the one before it gives them at 4\n"
        "  Write the file again; if it was not changed by hand, report this as a defect of what wrote it."
    )


def test_a_bias_that_no_accumulator_holds_is_refused() -> None:
    content = product(vai_quant_biases=[8, 40])
    assert message(lambda: Interpreter(content).run({"x": torch.zeros(1, 2)})) == (
        "a bias is 35 bits finer than its accumulator\n"
        "  sums are computed with up to 30 bits more than products have\n"
        "  Set bias=False on the layer if its bias is zero, or give bias_scaling_min_val a larger value."
    )


def test_a_missing_input_is_refused() -> None:
    assert message(lambda: Interpreter(product()).run({})) == (
        "the file takes no input 'x' that is missing\n"
        "  every shape in the file is fixed, and this one is (1, 2)\n"
        "  Pass inputs of the shape that the model was captured with, or export it again with this one."
    )
