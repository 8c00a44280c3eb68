"""Recurrent layers through the dialect to QONNX, run by qonnx: unrolled, or a standard operator behind quantized weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.util.cleanup import cleanup_model
from torch import Tensor, nn

from quant_core.export import capture, check, lower, verify
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

FLOAT_RNN = dict.fromkeys(("bias_quant", "io_quant", "gate_acc_quant"))
FLOAT_LSTM = {**FLOAT_RNN, **dict.fromkeys(("sigmoid_quant", "tanh_quant", "cell_state_quant"))}
DEEP = {"bidirectional": True, "shared_input_hidden_weights": True, "shared_intra_layer_weight_quant": True}
UNROLLED: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "RNN, 3 bits": (QuantRNN, {"weight_bit_width": 3, "io_bit_width": 5}),
    "GRU, per channel": (QuantGRU, {"weight_scaling_per_output_channel": True}),
    "LSTM, two layers": (QuantLSTM, {"num_layers": 2, "gate_acc_bit_width": 6}),
    "LSTM, two directions, coupled": (QuantLSTM, {**DEEP, "coupled_input_forget_gates": True, "weight_bit_width": 4}),
}


def trained(kind: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    layer = kind(6, 5, **options)
    for _ in range(2):
        layer(torch.randn(2, 2, 6))
    return layer.eval()


def weight_nodes(model: onnx.ModelProto) -> Counter[str]:
    """The constants that are quantized in a file, and by how many nodes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return Counter(node.input[0] for node in model.graph.node if node.op_type == "Quant" and node.input[0] in constants)


def written(layer: nn.Module, steps: int) -> onnx.ModelProto:
    return onnx.load_from_string(lower(capture(layer, (torch.randn(steps, 2, 6),)), "qonnx").content())


@pytest.mark.parametrize("name", UNROLLED)
def test_everything_quantized_is_unrolled_and_equal(name: str) -> None:
    layer, x = trained(*UNROLLED[name]), torch.randn(2, 2, 6)
    program = capture(layer, (x,))
    artifact = lower(program, "qonnx")
    verification = verify(program, artifact, (x,))
    assert verification.equal, str(verification)
    assert verification.compared == sum(quantizer.role == "activation" for quantizer in program.quantizers)
    assert verification.ties == 0
    assert verification.max_difference <= 1e-6
    model = ModelWrapper(onnx.load_from_string(artifact.content()))
    cleaned = cleanup_model(ModelWrapper(onnx.load_from_string(artifact.content())))
    before, after = (
        list(execute_onnx(graph, {graph.graph.input[0].name: x.numpy()}).values()) for graph in (model, cleaned)
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_plain_layer_is_products_of_integers_for_finn_and_sigmoids_are_refused() -> None:
    layer, x = trained(QuantRNN, {"weight_bit_width": 4}), torch.randn(3, 2, 6)
    program = capture(layer, (x,))
    artifact = lower(program, "finn")
    assert verify(program, artifact, (x,)).equal
    model = ModelWrapper(onnx.load_from_string(artifact.content())).transform(InferDataTypes())
    products = model.get_nodes_by_op_type("MatMul")
    types = [[model.get_tensor_datatype(name).name for name in (*node.input, *node.output)] for node in products]
    assert types == [["INT8", "INT4", "INT32"]] * 3  # of all inputs, and of the state in front of the last two steps
    for kind in (QuantGRU, QuantLSTM):
        report = check(capture(trained(kind, {}), (x[:1],)), "finn")
        assert {refusal.actual for refusal in report.refusals} == {"unsigned integers without a ReLU before them"}


def test_a_weight_is_stored_once_however_many_steps_there_are() -> None:
    layer = trained(QuantRNN, {})
    short, long = written(layer, 2), written(layer, 5)
    assert weight_nodes(short).keys() == weight_nodes(long).keys()
    assert set(weight_nodes(short).values()) == set(weight_nodes(long).values()) == {1}
    steps = [sum(node.op_type == "Tanh" for node in model.graph.node) for model in (short, long)]
    assert steps == [2, 5]


class Twice(nn.Module):
    """One recurrent layer for two sequences."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x)[0], self.layer(-x)[0]


def test_each_call_of_a_layer_has_weight_nodes_for_all_of_its_steps() -> None:
    model = written(Twice(trained(QuantRNN, {"bias": False})), 4)
    assert [node.op_type for node in model.graph.node].count("Tanh") == 8
    assert sorted(weight_nodes(model).values()) == [2, 2]


@pytest.mark.parametrize(("kind", "options"), [(QuantLSTM, FLOAT_LSTM), (QuantRNN, FLOAT_RNN)])
def test_quantized_weights_alone_feed_the_standard_operator(kind: type[nn.Module], options: dict[str, Any]) -> None:
    layer, x = trained(kind, {**options, "weight_bit_width": 4}), torch.randn(2, 2, 6)
    program = capture(layer, (x,))
    artifact = lower(program, "qonnx")
    kinds = Counter(node.op_type for node in onnx.load_from_string(artifact.content()).graph.node)
    assert kinds[kind.__name__.removeprefix("Quant")] == 1
    assert kinds["Quant"] > 0
    assert not {"Sigmoid", "Tanh"} & set(kinds)
    assert verify(program, artifact, (x,)).equal


def test_a_time_axis_that_varies_is_refused_with_what_to_do() -> None:
    layer = trained(QuantLSTM, {})
    program = capture(layer, (torch.randn(2, 2, 6),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    report = check(program, "qonnx")
    assert not report.ok
    varying = report.refusals[0] if "varies" in report.refusals[0].actual else report.refusals[-1]
    assert "QONNX needs every shape fixed" in varying.constraint
    assert "Leave dynamic_shapes" in varying.fix
