"""What a user does wrong, and what the layer says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from quant_core.errors import ConfigurationError, InputError, QuantError, StateError, UnusedAttributeError
from quant_core.quant import Fp8e4m3ActPerTensorFloat, Fp8e4m3WeightPerTensorFloat
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

CASES: dict[str, tuple[Callable[[], Any], type[QuantError], str]] = {
    "cell states of several quantizers": (
        lambda: QuantLSTM(3, 4, shared_cell_state_quant=False),
        ConfigurationError,
        """cell states of several quantizers cannot be returned as one tensor
  at QuantLSTM
  shared_cell_state_quant is False, so that each layer and direction has a scale of its own, and cat_output_cell_states is True
  Set cat_output_cell_states=False to get a list of cell states, or shared_cell_state_quant=True.""",
    ),
    "no quantizer of cell states": (
        lambda: QuantLSTM(3, 4, cell_state_quant=None, return_quant_tensor=True),
        ConfigurationError,
        """return_quant_tensor=True cannot return the cell state
  at QuantLSTM
  it is quantized by cell_state_quant, which is None
  Pass a quantizer as cell_state_quant, or set return_quant_tensor=False.""",
    ),
    "no quantizer of outputs of an LSTM": (
        lambda: QuantLSTM(3, 4, io_quant=None, bias_quant=None, return_quant_tensor=True),
        ConfigurationError,
        """return_quant_tensor=True cannot return the output
  at QuantLSTM
  it is quantized by io_quant, which is None
  Pass a quantizer as io_quant, or set return_quant_tensor=False.""",
    ),
    "no quantizer of outputs": (
        lambda: QuantGRU(3, 4, io_quant=None, return_quant_tensor=True),
        ConfigurationError,
        """return_quant_tensor=True has nothing to return
  at QuantGRU
  the output is quantized by io_quant, which is None
  Pass a quantizer as io_quant, or set return_quant_tensor=False.""",
    ),
    "a misspelt option": (
        lambda: QuantLSTM(3, 4, weight_bit_widht=4),
        UnusedAttributeError,
        """unknown option 'weight_bit_widht'
  at QuantLSTM
  nothing in Int8WeightPerTensorFloat reads 'weight_bit_widht'
  Did you mean 'weight_bit_width'?""",
    ),
    "an option of no quantizer": (
        lambda: QuantRNN(3, 4, sigmoid_bit_width=4),
        UnusedAttributeError,
        """unknown option 'sigmoid_bit_width'
  at QuantRNN
  it is no argument of the layer, and options of its quantizers start with weight_*, bias_*, io_*, gate_acc_*
  Did you mean 'io_bit_width' or 'weight_bit_width' or 'bias_bit_width'?""",
    ),
    "a misspelt function": (
        lambda: QuantRNN(3, 4, nonlinearity="rellu"),  # type: ignore[arg-type]
        ConfigurationError,
        """nonlinearity='rellu' is not known
  at QuantRNN
  the function of a plain recurrent layer is tanh or relu
  Did you mean 'relu'?""",
    ),
    "no size": (
        lambda: QuantRNN(3, 0),
        ConfigurationError,
        """hidden_size=0 is no size
  at QuantRNN
  it is a whole number, at least 1
  Set hidden_size to a positive integer.""",
    ),
    "dropout without effect": (
        lambda: QuantGRU(3, 4, dropout=0.5),
        ConfigurationError,
        """dropout=0.5 has no effect
  at QuantGRU
  it acts between layers, and num_layers is 1
  Leave dropout out, or set num_layers to 2 or more.""",
    ),
    "dropout out of range": (
        lambda: QuantGRU(3, 4, num_layers=2, dropout=2.0),
        ConfigurationError,
        """dropout=2.0 is no probability
  at QuantGRU
  it is the share of outputs that are set to zero between layers, from 0 to 1
  Use a number such as 0.2.""",
    ),
    "dropout of no number": (
        lambda: QuantGRU(3, 4, num_layers=2, dropout=True),
        ConfigurationError,
        """dropout=True is no probability
  at QuantGRU
  it is the share of outputs that are set to zero between layers, from 0 to 1
  Use a number such as 0.2.""",
    ),
    "a projection to no number of features": (
        lambda: QuantLSTM(3, 4, proj_size=True),
        ConfigurationError,
        """proj_size=True is out of range
  at QuantLSTM
  the output is projected to fewer features than hidden_size=4, or not (0)
  Use a number from 0 to 3.""",
    ),
    "a projection to more features": (
        lambda: QuantLSTM(3, 4, proj_size=4),
        ConfigurationError,
        """proj_size=4 is out of range
  at QuantLSTM
  the output is projected to fewer features than hidden_size=4, or not (0)
  Use a number from 0 to 3.""",
    ),
    "one direction that shares": (
        lambda: QuantRNN(3, 4, shared_input_hidden_weights=True),
        ConfigurationError,
        """shared_input_hidden_weights=True has no effect
  at QuantRNN
  two directions share the weights of their input, and bidirectional is False
  Set bidirectional=True, or leave shared_input_hidden_weights out.""",
    ),
    "a state of another shape": (
        lambda: QuantRNN(3, 4)(torch.zeros(5, 2, 3), torch.zeros(1, 3, 4)),
        InputError,
        """an initial hidden state of shape (1, 3, 4) does not fit
  at QuantRNN(3, 4)
  for this input it is (1, 2, 4): layers · directions, batch, features
  Give torch.zeros(1, 2, 4), or none to start from zeros.""",
    ),
    "a cell state of another shape": (
        lambda: QuantLSTM(3, 4)(torch.zeros(5, 3), (torch.zeros(1, 4), torch.zeros(1, 5))),
        InputError,
        """an initial cell state of shape (1, 5) does not fit
  at QuantLSTM(3, 4)
  for this input it is (1, 4): layers · directions, features
  Give torch.zeros(1, 4), or none to start from zeros.""",
    ),
    "one state for two": (
        lambda: QuantLSTM(3, 4)(torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)),
        InputError,
        """an LSTM starts from two states
  at QuantLSTM(3, 4)
  got one Tensor
  Give the hidden state and the cell state as (h, c), or none to start from zeros.""",
    ),
    "a state that is none": (
        lambda: QuantRNN(3, 4)(torch.zeros(5, 2, 3), 1.0),
        InputError,
        """the initial hidden state is a float
  at QuantRNN(3, 4)
  it is a tensor, a QuantTensor, or a list of such of one shape
  Give the states that the layer returned, or none to start from zeros.""",
    ),
    "states of which there is none": (
        lambda: QuantGRU(3, 4)(torch.zeros(5, 2, 3), (None, None)),
        InputError,
        """the initial hidden state is a tuple
  at QuantGRU(3, 4)
  it is a tensor, a QuantTensor, or a list of such of one shape
  Give the states that the layer returned, or none to start from zeros.""",
    ),
    "states of several shapes": (
        lambda: QuantLSTM(3, 4)(torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), [torch.zeros(2, 4), torch.zeros(3, 4)])),
        InputError,
        """the initial cell state is a list
  at QuantLSTM(3, 4)
  it is a tensor, a QuantTensor, or a list of such of one shape
  Give the states that the layer returned, or none to start from zeros.""",
    ),
    "a state of another type": (
        lambda: QuantLSTM(3, 4)(torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4).double())),
        InputError,
        """an initial cell state of torch.float64 does not fit
  at QuantLSTM(3, 4)
  the input is of torch.float32
  Convert the state: state.to(torch.float32).""",
    ),
    "an input of another type": (
        lambda: QuantRNN(3, 4)(torch.zeros(5, 2, 3).double()),
        InputError,
        """an input of torch.float64 does not fit this layer
  at QuantRNN(3, 4)
  its weights are of torch.float32
  Convert the input: x.to(torch.float32), or the layer: layer.to(torch.float64).""",
    ),
    "packed integers": (
        lambda: QuantGRU(3, 4)(pack_sequence([torch.zeros(2, 3, dtype=torch.int64)])),
        InputError,
        """an input of torch.int64 does not fit this layer
  at QuantGRU(3, 4)
  its weights are of torch.float32
  Convert the input: x.to(torch.float32).""",
    ),
    "packed sequences of another size": (
        lambda: QuantRNN(3, 4, batch_first=True)(pack_sequence([torch.zeros(2, 5)])),
        InputError,
        """an input with 5 features does not fit this layer
  at QuantRNN(3, 4, batch_first=True)
  input_size is 3
  Give an input whose last axis has 3 elements, or set input_size=5.""",
    ),
    "packed sequences as quantized tensors": (
        lambda: QuantRNN(3, 4, return_quant_tensor=True)(pack_sequence([torch.zeros(2, 3)])),
        InputError,
        """a packed sequence cannot be returned as a quantized tensor
  at QuantRNN(3, 4)
  return_quant_tensor is True, and torch packs plain tensors only
  Set return_quant_tensor=False, or pad the sequences instead of packing them.""",
    ),
    "packed sequences for export": (
        lambda: torch.export.export(QuantRNN(3, 4).eval(), (pack_sequence([torch.zeros(2, 3)]),)),
        InputError,
        """packed sequences cannot be captured for export
  at QuantRNN(3, 4)
  how many of them take part in a step is in the values of batch_sizes, and a program knows shapes only
  Export the layer with a padded batch, or with one sequence, of any length (dynamic_shapes).""",
    ),
    "no step": (
        lambda: QuantRNN(3, 4)(torch.zeros(0, 2, 3)),
        InputError,
        """an input of shape (0, 2, 3) has no step
  at QuantRNN(3, 4)
  axis 0 holds the steps, and there must be at least one
  Leave empty sequences out.""",
    ),
    "no step, batch first": (
        lambda: QuantRNN(3, 4, batch_first=True)(torch.zeros(2, 0, 3)),
        InputError,
        """an input of shape (2, 0, 3) has no step
  at QuantRNN(3, 4, batch_first=True)
  axis 1 holds the steps, and there must be at least one
  Leave empty sequences out.""",
    ),
    "too many axes": (
        lambda: QuantRNN(3, 4)(torch.zeros(1, 5, 2, 3)),
        InputError,
        """an input of shape (1, 5, 2, 3) is no sequence
  at QuantRNN(3, 4)
  it has 4 axes, and a sequence has 3, or 2 without a batch
  Give it as (time, batch, features).""",
    ),
    "a list of steps": (
        lambda: QuantRNN(3, 4)([torch.zeros(2, 3)]),  # type: ignore[arg-type]
        InputError,
        """'list' object is no sequence
  at QuantRNN(3, 4)
  the input is a tensor, a QuantTensor or a PackedSequence
  Stack the steps to one tensor, or pack sequences with torch.nn.utils.rnn.pack_padded_sequence.""",
    ),
    "a bias without scale": (
        lambda: QuantRNN(3, 4, io_quant=None)(torch.zeros(5, 2, 3)),
        InputError,
        """the bias cannot be quantized
  at layers.0.0 (QuantRNN(3, 4))
  its scale is input scale · weight scale, and the input or the weight is not quantized
  Set io_quant and weight_quant, or bias_quant=None to keep the bias in float.""",
    ),
    "a bias beside inputs that are minifloats": (
        lambda: QuantRNN(3, 4, io_quant=Fp8e4m3ActPerTensorFloat)(torch.zeros(5, 2, 3)),
        InputError,
        """the bias cannot be quantized
  at layers.0.0 (QuantRNN(3, 4))
  its scale is input scale · weight scale, and minifloats are not equally far apart
  Set bias_quant=None to keep the bias in float, or use integer quantizers as io_quant and weight_quant.""",
    ),
    "a bias beside weights that are minifloats": (
        lambda: QuantGRU(3, 4, weight_quant=Fp8e4m3WeightPerTensorFloat)(torch.zeros(5, 2, 3)),
        InputError,
        """the bias cannot be quantized
  at layers.0.0 (QuantGRU(3, 4))
  its scale is input scale · weight scale, and minifloats are not equally far apart
  Set bias_quant=None to keep the bias in float, or use integer quantizers as io_quant and weight_quant.""",
    ),
    "an option of a bias that is not there": (
        lambda: QuantRNN(3, 4, bias=False, bias_bit_width=16),
        UnusedAttributeError,
        """option 'bias_bit_width' has no quantizer to go to
  at QuantRNN
  this layer has no bias
  Leave bias_bit_width out.""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_it_says(name: str) -> None:
    act, kind, text = CASES[name]
    with pytest.raises(kind) as caught:
        act()
    assert str(caught.value) == text


def lstm(*sizes: int, **options: Any) -> dict[str, Tensor]:
    """A checkpoint of torch's layer."""
    return nn.LSTM(*sizes, **options).state_dict()


def refusal(layer: nn.Module, checkpoint: dict[str, Tensor], **options: Any) -> str:
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    with pytest.raises(StateError) as caught:
        layer.load_state_dict(checkpoint, **options)
    assert isinstance(caught.value, RuntimeError)  # as torch's own error is
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())
    return str(caught.value)


def test_a_checkpoint_of_another_hidden_size() -> None:
    expected = """the checkpoint is that of another recurrent layer
  at QuantLSTM(3, 4)
  weight_ih_l0 has the shape (20, 3) in the checkpoint and (16, 3) in the model
  weight_hh_l0 has the shape (20, 5) in the checkpoint and (16, 4) in the model
  bias_ih_l0 has the shape (20,) in the checkpoint and (16,) in the model
  bias_hh_l0 has the shape (20,) in the checkpoint and (16,) in the model
  Build the layer with hidden_size=5; nothing of this layer was loaded."""
    assert refusal(QuantLSTM(3, 4), lstm(3, 5)) == expected
    assert refusal(QuantLSTM(3, 4), lstm(3, 5), strict=False) == expected


def test_a_checkpoint_of_another_layer_in_a_model() -> None:
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"rnn": QuantRNN(3, 4, bias=False)})})
    checkpoint = {f"encoder.rnn.{key}": tensor for key, tensor in nn.RNN(2, 4, bias=False).state_dict().items()}
    assert (
        refusal(model, checkpoint)
        == """the checkpoint is that of another recurrent layer
  at encoder.rnn (QuantRNN(3, 4, bias=False))
  weight_ih_l0 has the shape (4, 2) in the checkpoint and (4, 3) in the model
  Build the layer with input_size=2; nothing of this layer was loaded."""
    )


REMEDIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]], str, str]] = {
    "more layers": (
        lambda: QuantLSTM(3, 4),
        lambda: lstm(3, 4, 3),
        "weight_hh_l2 (16, 4) has no place in the model",
        "Build the layer with num_layers=3; ",
    ),
    "fewer layers": (
        lambda: QuantLSTM(3, 4, num_layers=2),
        lambda: lstm(3, 4),
        "weight_ih_l1 (16, 4) is missing in the checkpoint",
        "Build the layer with num_layers=1; ",
    ),
    "two directions, more layers": (
        lambda: QuantLSTM(3, 4),
        lambda: lstm(3, 4, 2, bidirectional=True),
        "weight_ih_l1_reverse (16, 8) has no place in the model",
        "Build the layer with num_layers=2, bidirectional=True; ",
    ),
    "one direction": (
        lambda: QuantGRU(3, 4, bidirectional=True),
        lambda: nn.GRU(3, 4).state_dict(),
        "bias_hh_l0_reverse (12,) is missing in the checkpoint",
        "Build the layer with bidirectional=False; ",
    ),
    "no biases": (
        lambda: QuantGRU(3, 4),
        lambda: nn.GRU(3, 4, bias=False).state_dict(),
        "bias_ih_l0 (12,) is missing in the checkpoint",
        "Build the layer with bias=False; ",
    ),
    "a projection": (
        lambda: QuantLSTM(3, 4),
        lambda: lstm(3, 4, proj_size=2),
        "weight_hr_l0 (2, 4) has no place in the model",
        "Build the layer with proj_size=2; ",
    ),
    "shared weights": (
        lambda: QuantLSTM(3, 4, bidirectional=True, shared_input_hidden_weights=True),
        lambda: lstm(3, 4, bidirectional=True),
        "weight_ih_l0_reverse (16, 3) has no place in the model",
        "Build the layer with shared_input_hidden_weights=False; ",
    ),
    "coupled gates": (
        lambda: QuantLSTM(3, 4, coupled_input_forget_gates=True),
        lambda: lstm(3, 4),
        "weight_hh_l0 has the shape (16, 4) in the checkpoint and (12, 4) in the model",
        "Build the kind of layer that the checkpoint was made with, with 4 gates, where this one has 3; ",
    ),
    "nothing that could be told": (
        lambda: QuantLSTM(3, 4),
        lambda: {**lstm(3, 4), "weight_hh_l0": torch.zeros(7, 5)},
        "weight_hh_l0 has the shape (7, 5) in the checkpoint and (16, 4) in the model",
        "Build the layer that the checkpoint was made with; ",
    ),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_what_would_fit_a_checkpoint(name: str) -> None:
    layer, checkpoint, difference, remedy = REMEDIES[name]
    lines = refusal(layer(), checkpoint()).splitlines()
    assert f"  {difference}" in lines[2:-1]
    assert lines[-1] == f"  {remedy}nothing of this layer was loaded."


def test_what_torch_leaves_to_the_caller_stays_so() -> None:
    layer = QuantLSTM(3, 4)
    found = layer.load_state_dict(lstm(3, 4, 2), strict=False)
    assert set(found.unexpected_keys) == {f"{part}_l1" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    with pytest.raises(RuntimeError, match="Missing key"):  # nothing of a recurrent layer is in it
        layer.load_state_dict({"other": torch.zeros(1)})


def test_empty_sequences_cannot_be_packed() -> None:
    with pytest.raises(RuntimeError, match="greater than 0"):
        nn.utils.rnn.pack_padded_sequence(torch.zeros(2, 1, 3), torch.tensor([0]))


@pytest.mark.parametrize("options", [{"bias_quant": None}, {"bias": False}])
def test_minifloats_are_taken_without_a_bias_on_a_grid(options: dict[str, Any]) -> None:
    layer = QuantLSTM(3, 4, io_quant=Fp8e4m3ActPerTensorFloat, weight_quant=Fp8e4m3WeightPerTensorFloat, **options)
    out, _ = layer(torch.randn(5, 2, 3))
    assert out.isfinite().all()
    assert out.any()
