"""Descriptors as arguments of layers, beside ``input_quant`` and ``weight_quant``."""

from __future__ import annotations

import inspect
from typing import Any

from quant_core.errors import ConfigurationError
from quant_nn.quantizers import Quantizer
from quant_nn.toolkit.injectors import activation_quantizer, check_for_layer, weight_quantizer


def described(
    layer: Any, options: dict[str, Any], weight_quant: Quantizer, input_quant: Quantizer
) -> tuple[Quantizer, Quantizer]:
    """The quantizers of weight and input, those that ``quant_desc_weight`` and ``quant_desc_input`` spell where they are given.

    Args:
        layer: the layer that they are for.
        options: its options, from which the descriptors are taken out.
        weight_quant: what it was given for the weight.
        input_quant: what it was given for the input.

    Raises:
        ConfigurationError: when a tensor has a descriptor and a quantizer, or the descriptor does not fit.

    >>> import quant_nn as qnn
    >>> from quant_nn.toolkit import QuantDescriptor
    >>> qnn.QuantLinear(3, 2, quant_desc_input=QuantDescriptor(num_bits=4), quant_desc_weight=QuantDescriptor(axis=0))
    QuantLinear(in_features=3, out_features=2, bias=True, weight: int8 per channel, input: int4 per tensor)
    """
    kind = type(layer).__name__
    weight, input = options.pop("quant_desc_weight", None), options.pop("quant_desc_input", None)
    if weight is not None:
        _check_alone("weight", weight_quant, _default_of(type(layer), "weight_quant"), kind)
        weight = check_for_layer(weight, "quant_desc_weight", kind)
        weight_quant = weight_quantizer(weight, layer.output_channel_dim, kind)
    if input is not None:
        _check_alone("input", input_quant, None, kind)
        input_quant = activation_quantizer(check_for_layer(input, "quant_desc_input", kind))
    return weight_quant, input_quant


def _check_alone(tensor: str, quantizer: Quantizer, default: Any, layer: str) -> None:
    if quantizer is not default:
        raise ConfigurationError(
            f"the {tensor} has a descriptor and a quantizer",
            where=layer,
            why=f"quant_desc_{tensor} is a spelling of {tensor}_quant, and both are given",
            fix="Leave one of them out.",
        )


def _default_of(layer: type, argument: str) -> Any:
    """What an argument is by default, in the nearest of the classes that have it."""
    signatures = (inspect.signature(kind.__dict__["__init__"]) for kind in layer.__mro__ if "__init__" in vars(kind))
    return next(known.parameters[argument].default for known in signatures if argument in known.parameters)
