"""Named quantizers with scales that are powers of two: what multiplies becomes a shift of bits."""

from __future__ import annotations

from quant_core.components import PowerOfTwoRestriction
from quant_core.quant.activation import (
    Int8ActPerTensorFloat,
    Int8ActPerTensorFloatMinMaxInit,
    Uint8ActPerTensorFloatMaxInit,
)
from quant_core.quant.bias import Int8BiasPerTensorFloatInternalScaling
from quant_core.quant.weight import Int8WeightPerTensorFloat


class Int8WeightPerTensorFixedPoint(Int8WeightPerTensorFloat):
    """Signed, narrow-range integers with the scale ``2^⌈log2 max|w|⌉ / 128``, computed from the weight at each step.

    Options as :class:`~quant_core.quant.Int8WeightPerTensorFloat`, and ``restrict_rounding_mode``: ``"CEIL"``, ``"FLOOR"`` or
    ``"ROUND"`` for the exponent.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, weight_quant=Int8WeightPerTensorFixedPoint)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.3, -0.6]]))
    >>> layer.weight_quant.scale().item() == 2.0**-7
    True
    """

    restrict_scaling_impl = PowerOfTwoRestriction
    restrict_rounding_mode = "CEIL"


class Int8WeightPerChannelFixedPoint(Int8WeightPerTensorFixedPoint):
    """As :class:`Int8WeightPerTensorFixedPoint`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int8WeightPerChannelFixedPoint)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0156],
            [0.0312]])
    """

    scaling_per_output_channel = True


class Int8ActPerTensorFixedPoint(Int8ActPerTensorFloat):
    """Signed integers with a learned scale ``2^⌈p⌉ / 128`` that starts from the 99.999th percentile of the first 300 steps.

    While statistics are collected, the scale of training is not restricted yet; that of eval mode is.

    Options as :class:`~quant_core.quant.Int8ActPerTensorFloat`, and ``restrict_rounding_mode``.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, collect_stats_steps=1)
    >>> _ = act(torch.tensor([0.3, -0.6]))
    >>> act.act_quant.scale().item() == 2.0**-7
    True
    """

    restrict_scaling_impl = PowerOfTwoRestriction
    restrict_rounding_mode = "CEIL"


class Uint8ActPerTensorFixedPoint(Int8ActPerTensorFixedPoint):
    """As :class:`Int8ActPerTensorFixedPoint`, unsigned, with the scale ``2^⌈p⌉ / 256``: for what follows a ReLU.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint)
    >>> _ = act(torch.tensor([-1.0, 2.55]))
    >>> act.eval().act_quant.scale().detach()
    tensor(0.0156)
    """

    signed = False


class Int8ActPerTensorFixedPointMinMaxInit(Int8ActPerTensorFloatMinMaxInit):
    """Signed integers with a learned scale ``2^⌈p⌉ / 128`` that starts from ``p = log2(max(|min_val|, |max_val|))``.

    Options as :class:`~quant_core.quant.Int8ActPerTensorFloatMinMaxInit`, and ``restrict_rounding_mode``.

    >>> import quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPointMinMaxInit, min_val=-3.0, max_val=2.0)
    >>> act.act_quant.scale().item() == 2.0**-5
    True
    """

    restrict_scaling_impl = PowerOfTwoRestriction
    restrict_rounding_mode = "CEIL"


class Uint8ActPerTensorFixedPointMaxInit(Uint8ActPerTensorFloatMaxInit):
    """Unsigned integers with a learned scale ``2^⌈p⌉ / 256`` that starts from ``p = log2(max_val)``.

    Options as :class:`~quant_core.quant.Uint8ActPerTensorFloatMaxInit`, and ``restrict_rounding_mode``.

    >>> import quant_nn as qnn
    >>> qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPointMaxInit, max_val=6.0).act_quant.scale().item() == 2.0**-5
    True
    """

    restrict_scaling_impl = PowerOfTwoRestriction
    restrict_rounding_mode = "CEIL"


class Int8BiasPerTensorFixedPointInternalScaling(Int8BiasPerTensorFloatInternalScaling):
    """Signed integers with a scale of their own, ``2^⌈log2 max|b|⌉ / 128``, computed from the bias at each step.

    Options as :class:`~quant_core.quant.Int8BiasPerTensorFloatInternalScaling`, and ``restrict_rounding_mode``.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias_quant=Int8BiasPerTensorFixedPointInternalScaling)
    >>> _ = layer.bias.data.fill_(1.28)
    >>> layer.bias_quant(layer.bias, None).scale.detach()
    tensor(0.0156)
    """

    restrict_scaling_impl = PowerOfTwoRestriction
    restrict_rounding_mode = "CEIL"
