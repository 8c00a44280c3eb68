"""Recurrent layers through the dialect to standard ONNX, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from quant_core.export import capture, check, export
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

DYNAMIC = torch.export.Dim.DYNAMIC
FLOAT_RNN = dict.fromkeys(("bias_quant", "io_quant", "gate_acc_quant"))
FLOAT_GRU = {**FLOAT_RNN, **dict.fromkeys(("sigmoid_quant", "tanh_quant"))}
FLOAT_LSTM = {**FLOAT_GRU, "cell_state_quant": None}
FOUR = {"weight_bit_width": 4}
DEEP = {"num_layers": 2, "bidirectional": True, "batch_first": True, "shared_input_hidden_weights": True}
COUPLED = {"coupled_input_forget_gates": True}

WEIGHTS_ONLY: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "LSTM, per channel, 2 bits": (
        QuantLSTM,
        {**FLOAT_LSTM, "weight_bit_width": 2, "weight_scaling_per_output_channel": True},
    ),
    "GRU, everything": (QuantGRU, {**FLOAT_GRU, **FOUR, **DEEP, "shared_intra_layer_weight_quant": True}),
    "ReLU, no bias": (QuantRNN, {**FLOAT_RNN, **FOUR, "nonlinearity": "relu", "bias": False, "num_layers": 2}),
    "coupled gates, no bias, full range": (
        QuantLSTM,
        {**FLOAT_LSTM, **COUPLED, "bias": False, "weight_narrow_range": False},
    ),
}
"""A few, for one length and with scales from statistics; test_recurrent_operators.py has every combination."""


def exported(layer: nn.Module, path: Path) -> onnx.ModelProto:
    """The file, which onnxruntime has found equal to the model."""
    layer.eval()
    export(layer, (torch.randn(5, 2, 10),), target="qcdq", path=path, verify=True)
    return onnx.load(path)


@pytest.mark.parametrize("name", WEIGHTS_ONLY)
def test_quantized_weights_feed_the_standard_operator(name: str, tmp_path: Path) -> None:
    kind, options = WEIGHTS_ONLY[name]
    torch.manual_seed(0)
    layer: Any = kind(10, 20, **options)
    model = exported(layer, tmp_path / "model.onnx")
    operators = [node.op_type for node in model.graph.node]
    standard = [node for node in model.graph.node if node.op_type == kind.__name__.removeprefix("Quant")]
    assert len(standard) == layer.num_layers
    assert not {"Sigmoid", "Tanh", "Relu"} & set(operators)
    for node in standard:
        forgets = {part.name: part.i for part in node.attribute}.get("input_forget", 0)
        assert forgets == int("coupled" in name)
    if "full range" in name:  # the negative of its smallest integer is none
        return
    assert operators.count("DequantizeLinear") >= 2 * layer.num_layers
    floats = [onnx.numpy_helper.to_array(part) for part in model.graph.initializer]
    floats = [part for part in floats if part.dtype.kind == "f" and part.any()]  # states start from zeros
    assert not any(part.size >= 20 * 10 and part.shape[-1] in (10, 20, 40) for part in floats)  # no matrix


@pytest.mark.parametrize("kind", [QuantRNN, QuantGRU, QuantLSTM])
def test_everything_quantized_is_unrolled(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = kind(10, 20, weight_bit_width=4, gate_acc_bit_width=6)
    for _ in range(2):
        layer(torch.randn(5, 2, 10))
    model = exported(layer, tmp_path / "model.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Gemm") >= 5
    assert operators.count("QuantizeLinear") > 10


SCANNED: dict[str, tuple[type[nn.Module], dict[str, Any], dict[int, Any]]] = {
    "LSTM": (QuantLSTM, {}, {0: DYNAMIC}),
    "two layers, two directions, batch first": (
        QuantLSTM,
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "gate_acc_bit_width": 6},
        {0: DYNAMIC, 1: DYNAMIC},
    ),
    "coupled, projected": (QuantLSTM, {"coupled_input_forget_gates": True, "proj_size": 7}, {0: DYNAMIC}),
    "GRU": (QuantGRU, {"bidirectional": True, "weight_bit_width": 4}, {0: DYNAMIC}),
    "RNN": (QuantRNN, {"io_bit_width": 5}, {0: DYNAMIC}),
    "weights only, projected": (QuantLSTM, {**FLOAT_LSTM, **FOUR, "proj_size": 7}, {0: DYNAMIC}),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", SCANNED)
def test_everything_quantized_is_a_scan_over_any_number_of_steps(name: str, tmp_path: Path) -> None:
    kind, options, axes = SCANNED[name]
    torch.manual_seed(0)
    layer: Any = kind(10, 20, **options)
    for _ in range(2):
        layer(torch.randn(4, 3, 10))
    layer.eval()
    path = tmp_path / "model.onnx"
    export(layer, (torch.randn(4, 3, 10),), target="qcdq", path=path, dynamic_shapes=(axes,))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    assert len(scans) == len(layer.directions)
    for scan in scans:
        body = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
        inside = {"Gemm"} if "weights only" in name else {"QuantizeLinear", "DequantizeLinear", "Gemm"}
        assert inside <= {node.op_type for node in body.node}
    session = onnxruntime.InferenceSession(path)
    for length in (1, 2, 9):
        x = torch.randn(*((3, length) if layer.batch_first else (length, 3)), 10)
        results = session.run(None, {"input": x.numpy()})
        for ours, theirs in zip(pytree.tree_leaves(layer(x)), results, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours.detach(), rtol=0, atol=1e-6)


class Parts(nn.Module):
    """Layers of which one result each is used."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs, self.cells = QuantLSTM(3, 4), QuantLSTM(3, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.outputs(x)[0], self.cells(x)[1][1]


def test_a_scan_hands_on_states_that_nobody_wants_the_last_of(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Parts(), tmp_path / "model.onnx"
    model(torch.randn(4, 3, 3))
    model.eval()
    export(model, (torch.randn(4, 3, 3),), target="qcdq", path=path, dynamic_shapes=({0: DYNAMIC},), verify=True)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    for length in (1, 7):
        x = torch.randn(length, 3, 3)
        for ours, theirs in zip(model(x), session.run(None, {"x": x.numpy()}), strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours.detach(), rtol=0, atol=1e-6)


def test_a_sequence_alone_is_scanned(tmp_path: Path) -> None:
    layer = QuantLSTM(10, 20).eval()
    done = export(layer, (torch.randn(4, 10),), target="qcdq", dynamic_shapes=({0: DYNAMIC},), verify=True)
    assert done.verification is not None
    assert done.verification.equal


@pytest.mark.parametrize("target", ["qonnx", "qop", "qcdq"])
@pytest.mark.parametrize("kind", ["lstm", "loop"])
def test_what_takes_one_length_says_so_of_loops_and_operators(kind: str, target: str) -> None:
    layer = QuantLSTM(10, 20, **(FLOAT_LSTM if kind == "lstm" else {})).eval()
    program = capture(layer, (torch.randn(4, 2, 10),), dynamic_shapes=({0: DYNAMIC},))
    found = [str(refusal) for refusal in check(program, target).refusals if refusal.op == "a loop over time"]
    if target != "qonnx":
        assert found == []
        return
    assert len(found) == 1
    assert found[0].splitlines()[0] == "a loop over time with a varying number of steps"
    assert found[0].splitlines()[2:] == [
        "  qonnx takes sequences of one length",
        "  Leave the time axis out of dynamic_shapes: the loop is unrolled for the length of the example.",
    ]


def test_sequences_and_batches_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, path = QuantGRU(10, 20, bidirectional=True, **FLOAT_GRU, **FOUR).eval(), tmp_path / "model.onnx"
    shapes = ({0: DYNAMIC, 1: DYNAMIC},)
    export(layer, (torch.randn(4, 3, 10),), target="qcdq", path=path, dynamic_shapes=shapes, verify=True)
    assert "GRU" in [node.op_type for node in onnx.load(path).graph.node]
    session = onnxruntime.InferenceSession(path)
    for length, batch in ((1, 1), (2, 5), (9, 2)):
        x = torch.randn(length, batch, 10)
        for ours, theirs in zip(pytree.tree_leaves(layer(x)), session.run(None, {"input": x.numpy()}), strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours.detach(), rtol=0, atol=1e-6)


def test_the_operator_reads_its_stored_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer: Any = QuantLSTM(10, 20, **FLOAT_LSTM, **FOUR)
    model = exported(layer, tmp_path / "model.onnx")
    (lstm,) = [node for node in model.graph.node if node.op_type == "LSTM"]
    made_by = {name: node for node in model.graph.node for name in node.output}
    stored = {part.name: onnx.numpy_helper.to_array(part) for part in model.graph.initializer}
    for operand, name in zip(lstm.input[1:3], ("weight_ih_l0", "weight_hh_l0"), strict=True):
        weight = made_by[operand]
        assert weight.op_type == "DequantizeLinear"
        assert list(weight.input) == [name, f"{name}_scale"]
        gates = [layer.layers[0][0].gate(gate) for gate in ("input", "output", "forget", "cell")]  # as ONNX orders them
        part = "input_weight" if "ih" in name else "hidden_weight"
        expected = torch.cat([getattr(gate, part).quant_weight().int() for gate in gates])
        assert stored[name][0].tolist() == expected.tolist()


@pytest.mark.parametrize(("bits", "opset", "stored"), [(4, 21, "INT4"), (2, 25, "INT2")])
def test_weights_in_the_order_of_the_operator_are_packed(bits: int, opset: int, stored: str, tmp_path: Path) -> None:
    layer, path = QuantGRU(10, 20, **FLOAT_GRU, weight_bit_width=bits).eval(), tmp_path / "model.onnx"
    options = {"opset_version": opset, "packed": True}
    export(layer, (torch.randn(5, 2, 10),), target="qcdq", path=path, options=options, verify=True)
    weights = [
        part for part in onnx.load(path).graph.initializer if part.name.startswith("weight_") and len(part.dims) == 3
    ]
    assert [(part.name, onnx.TensorProto.DataType.Name(part.data_type)) for part in weights] == [
        ("weight_ih_l0", stored),
        ("weight_hh_l0", stored),
    ]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_projected_output_of_quantized_weights_alone_is_unrolled(tmp_path: Path) -> None:
    layer = QuantLSTM(10, 20, proj_size=5, **FLOAT_LSTM)
    model = exported(layer, tmp_path / "model.onnx")
    assert "LSTM" not in [node.op_type for node in model.graph.node]  # which cannot project


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("target", ["qcdq", "qop", "qonnx"])
def test_a_projection_of_torch_is_refused(target: str) -> None:
    model = nn.Sequential(nn.LSTM(10, 20, proj_size=5)).eval()
    report = check(capture(model, (torch.randn(4, 2, 10),)), target)
    assert [str(refusal) for refusal in report.refusals] == [
        "aten.lstm.input with proj_size=5\n"
        "  at 0 (torch.nn.LSTM)\n"
        f"  {target} writes the ONNX operator LSTM, which projects no output\n"
        "  Use quant_rnn.QuantLSTM with the same arguments, which is written step by step, or leave proj_size out."
    ]
