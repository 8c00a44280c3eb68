"""Rules that are ready to use, by name; each is made for a target, and what it gives passes the target's check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from quant_core.errors import UnknownNameError, did_you_mean
from quant_core.quant import Int8ActPerTensorFixedPoint, Int8ActPerTensorFloat
from quant_nn.convert.rule import Place, Rule

CONVOLUTIONS: Final = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
PRODUCTS: Final = (*CONVOLUTIONS, "Linear")
RECURRENT: Final = ("LSTM", "GRU", "RNN")
_ATTENTION: Final = (
    *("in_proj_input_quant", "in_proj_bias_quant", "attn_output_weights_quant", "q_scaled_quant"),
    *("k_transposed_quant", "v_quant", "out_proj_input_quant", "out_proj_bias_quant"),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Rules with a name.

    Attributes:
        name: the name.
        summary: one line for listings.
        target: the target that takes what it gives.
        rules: the rules. All are optional: a model may have no layer that a rule is for, and later rules override them.
    """

    name: str
    summary: str
    target: str
    rules: tuple[Rule, ...]


def recipe(name: str) -> tuple[Rule, ...]:
    """The rules of a recipe, to be used as they are or with further rules behind them.

    Args:
        name: one of :data:`RECIPES`.

    Raises:
        UnknownNameError: when there is none of that name; offers the nearest one.

    >>> import quant_nn as qnn
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> print(qnn.quantize(net, [*recipe("weight_only"), Rule(names="2", options={"weight_bit_width": 4})]))
    2 layers replaced, 1 left as it is
    +  0  Linear -> QuantLinear  rule 1: weight_quant=Int8WeightPerChannelFloat
    +  2  Linear -> QuantLinear  rule 1, rule 6: weight_quant=Int8WeightPerChannelFloat, weight_bit_width=4
       1  ReLU                   no rule is for it
    """
    if name not in RECIPES:
        raise UnknownNameError(
            f"unknown recipe {name!r}",
            why=f"the recipes are {', '.join(RECIPES)}",
            fix=did_you_mean(name, RECIPES),
        )
    return RECIPES[name].rules


def _for(
    types: tuple[str, ...] | str, place: Place | None = None, behind: tuple[str, ...] | None = None, **options: Any
) -> Rule:
    return Rule(types=types, place=place, behind=behind or (), options=options, optional=True)


def _averages(quantizer: str) -> tuple[Rule, ...]:
    """Average pools whose result is rounded again."""
    return tuple(
        Rule(types=kind, layer=f"quant_nn.averaging:Quant{kind}", options={"output_quant": quantizer}, optional=True)
        for kind in ("AvgPool2d", "AdaptiveAvgPool2d")
    )


def _joined(quantizer: str) -> Rule:
    """Concatenations of tensors that have one scale from where they come from."""
    return Rule(types="Cat", options={"input_quant": quantizer, "output_quant": None}, shared=True, optional=True)


def _without(names: tuple[str, ...]) -> dict[str, None]:
    return dict.fromkeys(names)


_RECURRENT_FLOATS = _without(
    ("io_quant", "bias_quant", "gate_acc_quant", "sigmoid_quant", "tanh_quant", "cell_state_quant")
)


class Int8ActOfDPU(Int8ActPerTensorFixedPoint):
    """Activations with a scale that is a power of two, whose ties are rounded as a DPU rounds them."""

    float_to_int_impl_type = "dpu"


class Int4ActPerTensorFloat(Int8ActPerTensorFloat):
    """Activations of 4 bits that can be below zero."""

    bit_width = 4


_DPU: Final = f"{__name__}:{Int8ActOfDPU.__name__}"
_INT4: Final = f"{__name__}:{Int4ActPerTensorFloat.__name__}"
_ALL: Final = (
    Recipe(
        name="weight_only",
        summary="weights of 8 bits with a scale per output channel, everything else in float",
        target="qcdq",
        rules=(
            _for((*PRODUCTS, "Embedding"), weight_quant="Int8WeightPerChannelFloat"),
            _for("MultiheadAttention", **_without(_ATTENTION)),
            _for("LSTM", **_RECURRENT_FLOATS),
            _for("GRU", **{key: None for key in _RECURRENT_FLOATS if key != "cell_state_quant"}),
            _for("RNN", io_quant=None, bias_quant=None, gate_acc_quant=None),
        ),
    ),
    Recipe(
        name="w8a8_integer_cpu",
        summary="weights of 8 bits per output channel, inputs of layers of 8 bits with a zero-point, biases of 32 bits",
        target="qcdq",
        rules=(
            _for(
                PRODUCTS,
                weight_quant="Int8WeightPerChannelFloat",
                input_quant="ShiftedUint8ActPerTensorFloat",
                bias_quant="Int32Bias",
            ),
            _for(("Embedding", "MultiheadAttention")),
            _for(RECURRENT),
        ),
    ),
    Recipe(
        name="w4a4_finn",
        summary="weights of 4 bits per output channel, activations of 4 bits, the input of 8 bits",
        target="finn",
        rules=(
            _for(PRODUCTS, weight_quant="Int8WeightPerChannelFloat", weight_bit_width=4),
            _for(PRODUCTS, behind=PRODUCTS, input_quant=_INT4),
            _for(PRODUCTS, place="first", input_quant="Int8ActPerTensorFloat"),
            _for("ReLU", bit_width=4),
            Rule(types="ReLU6", layer="QuantReLU", options={"bit_width": 4, "max_val": 6.0}, optional=True),
            _for(("Hardtanh", "Tanh"), bit_width=4),
            _for(("EltwiseAdd", "Cat"), input_bit_width=4, output_quant=None),
        ),
    ),
    Recipe(
        name="fixed_point_dpu",
        summary="everything of 8 bits, scales that are powers of two, one per tensor; ReLU in place of ReLU6",
        target="dpuv2",
        rules=(
            _for(
                PRODUCTS,
                weight_quant="Int8WeightPerTensorFixedPoint",
                bias_quant="Int8BiasPerTensorFixedPointInternalScaling",
                output_quant=_DPU,
            ),
            _for(PRODUCTS, place="first", input_quant=_DPU),
            Rule(types="ReLU6", layer="torch.nn:ReLU", optional=True),
            *_averages(_DPU),
            _for("EltwiseAdd", input_quant=None, output_quant=_DPU),
            _joined(_DPU),
        ),
    ),
    Recipe(
        name="torch_native",
        summary="weights of 8 bits per output channel, inputs and outputs of layers of 8 bits with a zero-point",
        target="torchq",
        rules=(
            _for(
                PRODUCTS,
                weight_quant="Int8WeightPerChannelFloat",
                output_quant="ShiftedUint8ActPerTensorFloat",
            ),
            _for(PRODUCTS, place="first", input_quant="ShiftedUint8ActPerTensorFloat"),
            *_averages("ShiftedUint8ActPerTensorFloat"),
            _for("EltwiseAdd", input_quant=None, output_quant="ShiftedUint8ActPerTensorFloat"),
            _joined("ShiftedUint8ActPerTensorFloat"),
        ),
    ),
)
RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType({one.name: one for one in _ALL})
"""All recipes by name."""
