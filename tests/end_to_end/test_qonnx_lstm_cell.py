"""``QuantLSTMCell`` in files for QONNX: its form, what it computes as its description says, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor, nn

import quant_core.quant as q
import quant_rnn as qrnn
from quant_core.errors import ArtifactError, ConfigurationError, UnsupportedError
from quant_core.export import CheckReport, capture, check, export, lower

DOMAIN = "qonnx.custom_op.general"
SLOTS = ["output", "cell_state", "input_acc", "forget_acc", "cell_acc", "output_acc"]
SLOTS += ["input_sigmoid", "forget_sigmoid", "cell_tanh", "output_sigmoid", "hidden_state_tanh"]
KINDS = ("weight", "io", "gate_acc", "sigmoid", "tanh", "cell_state")
EXACT = {f"{kind}_restrict_scaling_type": "power_of_two" for kind in KINDS}
"""Sums of such numbers are exact in any order."""


class Net(nn.Module):
    """One recurrent layer, which has seen some data."""

    def __init__(self, kind: type = qrnn.QuantLSTM, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rnn = kind(3, 4, **options)
        for _ in range(2):
            self(torch.randn(3, 2, 3))
        self.eval()

    def forward(self, x: Tensor, *state: Tensor) -> Any:
        return self.rnn(x, state or None)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape or (3, 2, 3), generator=torch.Generator().manual_seed(2))


def written(net: nn.Module, *args: Tensor) -> onnx.ModelProto:
    return onnx.load_from_string(lower(capture(net, args or (inputs(),)), "qonnx", recurrent="cell").content())


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def cells(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QuantLSTMCell"]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def rounded(x: Tensor, grid: tuple[Tensor, Tensor, Tensor], *, signed: int, narrow: int) -> Tensor:
    scale, zero_point, bits = grid
    low = -(2 ** (float(bits) - 1)) + narrow if signed else 0.0
    high = 2 ** (float(bits) - 1) - 1 if signed else 2 ** float(bits) - 1 - narrow
    return (torch.clamp(torch.round(x / scale + zero_point), low, high) - zero_point) * scale


class Quant(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Any, scale: Any, zero: Any, bits: Any, **_: Any) -> tuple[Any]:
        told = attributes(self.onnx_node)
        grid = (torch.tensor(scale), torch.tensor(zero), torch.tensor(bits))
        return (rounded(torch.tensor(x), grid, signed=told["signed"], narrow=told["narrow"]).numpy(),)


class QuantLSTMCell(OpRun):
    """Computes the operator from its operands and attributes alone."""

    op_domain = DOMAIN

    def _run(self, *given: Any, **_: Any) -> tuple[Any, ...]:
        told, operands = attributes(self.onnx_node), [torch.tensor(one) for one in given]
        x, hidden, cell = operands[:3]
        wi, wh, b = ([*operands[at : at + 4]] for at in (3, 7, 11))
        triples = operands[15:]
        grids = {slot: tuple(triples[3 * at : 3 * at + 3]) for at, slot in enumerate(SLOTS)}

        def quant(value: Tensor, slot: str) -> Tensor:
            narrow = told["output_sigmoid_narrow_range" if slot == "output_sigmoid" else f"{slot}_narrow"]
            return rounded(value, grids[slot], signed=told[f"{slot}_signed"], narrow=narrow)

        outputs = []
        for step in x.flip(0) if told["reverse_input"] else x:
            i, f, c, o = (
                quant(step @ wi[at].T + hidden @ wh[at].T + b[at], f"{name}_acc")
                for at, name in enumerate(("input", "forget", "cell", "output"))
            )
            i = quant(torch.sigmoid(i), "input_sigmoid")
            f = quant(1 - i if told["cifg"] else torch.sigmoid(f), "forget_sigmoid")
            c = quant(torch.tanh(c), "cell_tanh")
            o = quant(torch.sigmoid(o), "output_sigmoid")
            cell = quant(quant(f * cell, "cell_state") + quant(i * c, "cell_state"), "cell_state")
            hidden = quant(o * quant(torch.tanh(cell), "hidden_state_tanh"), "output")
            outputs.append(hidden)
        outputs = outputs[::-1] if told["reverse_input"] else outputs
        return torch.stack(outputs).numpy(), hidden.numpy(), cell.numpy()


VARIANTS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "two layers": {"num_layers": 2, "bidirectional": True},
    "coupled": {"coupled_input_forget_gates": True},
    "no bias": {"bias": False},
    "batch first": {"batch_first": True},
    "per channel": {"weight_scaling_per_output_channel": True},
    "few bits": {"weight_bit_width": 3, "io_bit_width": 5, "tanh_bit_width": 4, "cell_state_bit_width": 6},
}


@cache
def net(variant: str) -> Net:
    return Net(**VARIANTS[variant], **EXACT)


@cache
def file(variant: str) -> onnx.ModelProto:
    return written(net(variant))


@pytest.mark.parametrize("variant", VARIANTS)
def test_computes_what_the_model_computes(variant: str) -> None:
    x = inputs()
    found = ReferenceEvaluator(file(variant), new_ops=[Quant, QuantLSTMCell]).run(None, {"x": x.numpy()})
    outputs, states = net(variant)(x)
    for wanted, given in zip((outputs, *states), found, strict=True):
        assert torch.equal(wanted, torch.tensor(given))


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (2, 3)])
def test_short_sequences_and_given_states(steps: int, batch: int) -> None:
    lstm, x = Net(bidirectional=True, **EXACT), inputs(steps, batch, 3)
    states = (inputs(2, batch, 4), inputs(2, batch, 4) / 2)
    model = written(lstm, x, *states)
    names = [value.name for value in model.graph.input]
    fed = {name: value.numpy() for name, value in zip(names, (x, *states), strict=True)}
    found = ReferenceEvaluator(model, new_ops=[Quant, QuantLSTMCell]).run(None, fed)
    outputs, after = lstm(x, *states)
    for wanted, given in zip((outputs, *after), found, strict=True):
        assert torch.equal(wanted, torch.tensor(given))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_comes_through_its_quantizer(variant: str) -> None:
    model, lstm = file(variant), net(variant).rnn
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "Quant"}
    held = constants(model)
    assert len(cells(model)) == len(lstm.directions)
    for cell, direction in zip(cells(model), lstm.directions, strict=True):
        assert (len(cell.input), len(cell.output)) == (48, 3)
        for at, kind in ((3, "input_weight"), (7, "hidden_weight")):
            for position, gate in enumerate(("input", "forget", "cell", "output")):
                if gate not in direction.gates:
                    gate = "input"
                weight = getattr(direction.gate(gate), kind).quant_weight()
                node = made[cell.input[at + position]]
                stored, scale, zero_point, bits = (held[name] for name in node.input)
                assert torch.equal(torch.tensor(stored), weight)
                assert np.array_equal(np.broadcast_to(scale, (4, 1)), weight.scale.detach().expand(4, 1))
                assert (zero_point.shape, float(zero_point), bits.shape) == ((), 0.0, ())
                assert float(bits) == float(weight.bit_width)
                told = attributes(node)
                assert (told["signed"], told["narrow"]) == (int(weight.signed), int(weight.narrow_range))
        for weights, name in zip(cell.input[3:7], cell.input[11:15], strict=True):
            if lstm.bias:
                _, scale, zero_point, bits = (held[operand] for operand in made[name].input)
                of_products = held[cell.input[15]] * held[made[weights].input[1]].reshape(-1)
                assert np.array_equal(scale, of_products)
                assert (scale.shape, float(bits)) == (zero_point.shape, 32.0)
            else:
                assert (held[name].shape, float(held[name])) == ((), 0.0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_grids_are_those_of_the_model(variant: str) -> None:
    model, lstm = file(variant), net(variant).rnn
    held = constants(model)
    for cell, direction in zip(cells(model), lstm.directions, strict=True):
        told = attributes(cell)
        for at, slot in enumerate(SLOTS):
            if direction.cell.coupled and slot.startswith("forget"):
                slot = slot.replace("forget", "input")
            proxy = direction.io_quant if slot == "output" else getattr(direction.cell, f"{slot}_quant")
            grid = proxy(torch.zeros(())).detach()
            triple = [held[name] for name in cell.input[15 + 3 * at : 18 + 3 * at]]
            assert [one.shape for one in triple] == [(), (), ()]
            assert [float(one) for one in triple] == [float(grid.scale), float(grid.zero_point), float(grid.bit_width)]
            assert told[f"{SLOTS[at]}_signed"] == int(grid.signed)
            assert told[f"{SLOTS[at]}_rounding_mode"] == b"ROUND"


def test_attributes() -> None:
    flags = [
        tuple(attributes(cell)[name] for name in ("reverse_input", "cifg", "batch_first"))
        for variant in ("two layers", "coupled", "batch first")
        for cell in cells(file(variant))
    ]
    assert flags == [(0, 0, 0), (1, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 0)]
    names = {f"{slot}_{part}" for slot in SLOTS for part in ("narrow", "signed", "rounding_mode")}
    names = names - {"output_sigmoid_narrow"} | {"output_sigmoid_narrow_range", "batch_first", "reverse_input", "cifg"}
    (cell,) = cells(file("plain"))
    assert set(attributes(cell)) == names
    assert cell.domain == DOMAIN


def test_batch_first_is_a_transpose_around_the_node() -> None:
    operators = [node.op_type for node in file("batch first").graph.node if node.op_type != "Quant"]
    assert operators == ["Transpose", "QuantLSTMCell", "Transpose", "Unsqueeze", "Unsqueeze"]


def test_layers_and_directions_are_joined() -> None:
    model = file("two layers")
    joins = [attributes(node)["axis"] for node in model.graph.node if node.op_type == "Concat"]
    assert joins == [-1, -1, 0, 0]
    first, second, third, _ = cells(model)
    assert first.input[0] == second.input[0] != third.input[0]


def test_two_calls_of_a_layer_are_two_nodes() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Any:
            return self.rnn(self.rnn(x)[0][..., :3])[0]

    model = written(Twice(**EXACT), inputs(2, 2, 3))
    assert len(cells(model)) == 2
    assert not set(cells(model)[0].input[3:15]) & set(cells(model)[1].input[3:15])


def test_nothing_changes_without_the_option() -> None:
    program = capture(net("plain"), (inputs(2, 2, 3),))
    one, other = lower(program, "qonnx"), lower(program, "qonnx", recurrent="unrolled")
    assert one.content() == other.content()  # type: ignore[attr-defined]
    lower(program, "qonnx", recurrent="cell")
    assert lower(program, "qonnx").content() == one.content()  # type: ignore[attr-defined]


def test_it_cannot_be_verified() -> None:
    x = inputs(1, 2, 3)
    with pytest.raises(ArtifactError) as caught:
        export(net("plain"), (x,), target="qonnx", options={"recurrent": "cell"})
    assert str(caught.value) == (
        "the qonnx artifact cannot be run or verified\n"
        "  it holds QuantLSTMCell, which the format describes and no runtime executes\n"
        "  Export it with verify=False (--no-verify); the file without recurrent='cell' can be run."
    )
    done = export(net("plain"), (x,), target="qonnx", options={"recurrent": "cell"}, verify=False)
    assert done.verification is None


def refused(model: nn.Module, *args: Tensor, **options: Any) -> CheckReport:
    program = capture(model, args or (inputs(1, 2, 3),), **options)
    report = check(program, "qonnx", options={"recurrent": "cell"})
    with pytest.raises(UnsupportedError):
        report.raise_if_refused()
    assert check(program, "qonnx").refusals == tuple(one for one in report.refusals if one.op != "a recurrent layer")
    return report


CELL = "rnn.layers.0.0.cell (quant_rnn.lstm_cell.LSTMCell)"
DIRECTION = "rnn.layers.0.0 (quant_rnn.direction.Direction)"
OTHER = "steps that are not those of an LSTM"
NONE = dict.fromkeys(("io_quant", "gate_acc_quant", "sigmoid_quant", "tanh_quant", "cell_state_quant", "bias_quant"))
SIGMOIDS = "input_sigmoid_quant, forget_sigmoid_quant, output_sigmoid_quant"
TANHS = "cell_tanh_quant, hidden_state_tanh_quant"
REFUSED: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "some": ({"sigmoid_quant": None}, f"quantizers that are off or not of integers ({SIGMOIDS})", CELL),
    "outputs": (
        {"io_quant": None, "bias_quant": None},
        "quantizers that are off or not of integers (output_quant)",
        CELL,
    ),
    "not of integers": (
        {"tanh_quant": q.SignedBinaryActPerTensorConst},
        f"quantizers that are off or not of integers ({TANHS})",
        CELL,
    ),
    "all": (NONE, "nothing but its weights quantized", "rnn (quant_rnn.QuantLSTM)"),
    "weights": ({"weight_quant": None, "bias_quant": None}, "weights that are not integers", DIRECTION),
    "bias": ({"bias_quant": None}, "a bias that is not quantized at the scale of the products", DIRECTION),
    "projection": ({"proj_size": 2}, "a projection of its hidden state", CELL),
    "gru": ({"kind": qrnn.QuantGRU}, OTHER, "rnn.layers.0.0.cell (quant_rnn.gru_cell.GRUCell)"),
    "rnn": ({"kind": qrnn.QuantRNN}, OTHER, "rnn.layers.0.0.cell (quant_rnn.rnn_cell.RNNCell)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    options, actual, where = REFUSED[what]
    (refusal,) = refused(Net(**options)).refusals
    assert str(refusal) == (
        f"a recurrent layer with {actual}\n  at {where}\n"
        "  QuantLSTMCell is an LSTM with all of its quantizers: integers, one scale for each activation\n"
        "  Leave the option recurrent away (or 'unrolled'): the layer is then written in standard operators."
    )


def test_a_varying_length_is_refused() -> None:
    report = refused(Net(), inputs(2, 2, 3), dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}})
    assert ("a loop over time", "a varying number of steps") in [(one.op, one.actual) for one in report.refusals]


def test_a_model_without_recurrent_layers_is_refused() -> None:
    (refusal,) = check(capture(nn.Linear(3, 4), (inputs(),)), "qonnx", options={"recurrent": "cell"}).refusals
    assert str(refusal) == (
        "recurrent='cell' with no recurrent layer\n  at the model (torch.nn.Linear)\n"
        "  the option says how an LSTM is written\n  Leave the option away."
    )


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(capture(nn.Linear(3, 4), (inputs(),)), "qonnx", options={"recurrent": "cells"})
    assert str(caught.value) == (
        "recurrent='cells' is not known\n  at target 'qonnx'\n"
        "  recurrent layers are written as 'unrolled' or as 'cell'\n  Did you mean 'cell'?"
    )
