"""From a descriptor to the quantizer that it is a spelling of."""

from __future__ import annotations

from typing import Any

from quant_core.components import (
    Granularity,
    IntScaling,
    ParameterFromStatsFromParameterScaling,
    PerChannel,
    PerTensor,
    StatsFromParameterScaling,
)
from quant_core.errors import ConfigurationError
from quant_core.inject import Injector, value
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat
from quant_nn.toolkit.amax_scaling import AmaxScaling
from quant_nn.toolkit.descriptor import QuantDescriptor


class AmaxActQuant(Int8ActPerTensorFloat):
    """Integers whose largest one stands for ``amax``: given, calibrated, or learned.

    Options: ``bit_width``, ``signed``, ``narrow_range``, ``axis``, ``amax``, ``learn_amax``, ``scale_amax``, ``calib_method``.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=AmaxActQuant, amax=1.27, return_quant_tensor=True)
    >>> act(torch.tensor([1.27, -5.0])).int()
    tensor([ 127, -128], dtype=torch.int8)
    """

    scaling_impl = AmaxScaling
    axis: int | None = None
    amax: Any = None
    learn_amax = False
    scale_amax: float | None = None
    calib_method = "max"

    @value
    def granularity(axis: int | None) -> Granularity:
        """One scale, or one for each index along the axis."""
        return PerTensor() if axis is None else PerChannel(axis)

    @value
    def int_scaling_impl(signed: bool) -> IntScaling:
        """The largest integer stands for ``amax``, whether or not there is a smaller one than its negative."""
        return IntScaling(signed, narrow_range=signed)


class AmaxWeightQuant(Int8WeightPerTensorFloat):
    """Integers whose largest one stands for the largest weight, of each step; or for a given or a learned ``amax``.

    Options: ``bit_width``, ``signed``, ``narrow_range``, ``scaling_per_output_channel``, and as ``scaling_impl``
    :class:`AmaxScaling` with ``amax``.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, weight_quant=AmaxWeightQuant)
    >>> torch.equal(layer.weight_quant.scale(), layer.weight.abs().max() / 127)
    True
    """

    narrow_range = False

    @value
    def int_scaling_impl(signed: bool) -> IntScaling:
        """As in :class:`AmaxActQuant`."""
        return IntScaling(signed, narrow_range=signed)


def activation_quantizer(descriptor: QuantDescriptor) -> type[Injector]:
    """The quantizer of activations, ``AmaxActQuant`` with the options that the descriptor sets.

    Raises:
        ConfigurationError: when it would have to learn as many numbers as only a tensor tells.

    >>> quantizer = activation_quantizer(QuantDescriptor(num_bits=4, unsigned=True))
    >>> quantizer.bit_width, quantizer.signed
    (4, False)
    """
    if descriptor.learn_amax and descriptor.axis is not None and descriptor.amax is None:
        raise ConfigurationError(
            f"learn_amax=True of {descriptor.place} has no amax to start from",
            why="how many numbers there are to learn along the axis is not known before the first tensor",
            fix="Give amax, one number for each index along the axis.",
        )
    quantizer: Any = AmaxActQuant.let(
        bit_width=descriptor.num_bits,
        signed=not descriptor.unsigned,
        narrow_range=descriptor.narrow_range,
        axis=descriptor.axis,
        amax=descriptor.amax,
        learn_amax=descriptor.learn_amax,
        scale_amax=descriptor.scale_amax,
        calib_method=descriptor.calib_method,
    )
    found: type[Injector] = quantizer
    return found


def weight_quantizer(descriptor: QuantDescriptor, output_channel_dim: int, layer: str) -> type[Injector]:
    """The quantizer of the weight of a layer.

    Args:
        descriptor: how it is quantized.
        output_channel_dim: the axis of the weight that holds the output channels.
        layer: the layer, for errors.

    Raises:
        ConfigurationError: when the axis is not that of the output channels, or the descriptor asks for what a weight has not.

    >>> weight_quantizer(QuantDescriptor(axis=0), 0, "QuantLinear").scaling_per_output_channel
    True
    """
    if descriptor.axis not in (None, output_channel_dim):
        raise ConfigurationError(
            f"axis={descriptor.axis} of {descriptor.place} has no scales of its own in a weight",
            where=layer,
            why=f"the output channels of this layer are along axis {output_channel_dim} of its weight",
            fix=f"Set axis={output_channel_dim}, or None for one scale.",
        )
    if descriptor.calib_method != "max":
        raise ConfigurationError(
            f"calib_method={descriptor.calib_method!r} of {descriptor.place} finds nothing in a weight",
            where=layer,
            why="its range is amax where that is given, and else its largest magnitude; weights are not calibrated",
            fix="Leave calib_method out.",
        )
    options: dict[str, Any] = {
        "bit_width": descriptor.num_bits,
        "signed": not descriptor.unsigned,
        "narrow_range": descriptor.narrow_range,
        "scaling_per_output_channel": descriptor.axis is not None,
    }
    if descriptor.amax is not None:
        options.update(
            scaling_impl=AmaxScaling,
            amax=descriptor.amax,
            learn_amax=descriptor.learn_amax,
            scale_amax=descriptor.scale_amax,
        )
    elif descriptor.scale_amax is not None:
        raise ConfigurationError(
            f"scale_amax={descriptor.scale_amax:g} of {descriptor.place} has no amax to scale",
            where=layer,
            why="the largest weight is found anew at each step",
            fix="Give amax as well, or leave scale_amax out.",
        )
    else:
        learned = ParameterFromStatsFromParameterScaling
        options["scaling_impl"] = learned if descriptor.learn_amax else StatsFromParameterScaling
    quantizer: Any = AmaxWeightQuant.let(**options)
    found: type[Injector] = quantizer
    return found


def check_for_layer(descriptor: object, option: str, layer: str) -> QuantDescriptor:
    """Return what a layer was given when it is a descriptor that it can use.

    Raises:
        ConfigurationError: when it is none, or asks for integers.

    >>> check_for_layer(QuantDescriptor(), "quant_desc_input", "QuantLinear").num_bits
    8
    """
    if not isinstance(descriptor, QuantDescriptor):
        raise ConfigurationError(
            f"{option}={descriptor!r} is no descriptor",
            where=layer,
            why="it is a quant_nn.toolkit.QuantDescriptor",
            fix=f"Pass a quantizer as {option.removeprefix('quant_desc_')}_quant, or a descriptor here.",
        )
    if not descriptor.fake_quant:
        raise ConfigurationError(
            f"{option} of a layer has fake_quant=False",
            where=layer,
            why="layers compute with the numbers that integers stand for; return_quant_tensor=True tells both",
            fix="Leave fake_quant out, or use a TensorQuantizer by itself.",
        )
    return descriptor
