"""Named quantizers whose scale is the one with the smallest squared error of quantization."""

from __future__ import annotations

from typing import Any

from quant_core.components import MSE, PowerOfTwoRestriction
from quant_core.components.scaling import ParameterFromStatsFromParameterScaling
from quant_core.quant.activation import Int8ActPerTensorFloat
from quant_core.quant.weight import Int8WeightPerTensorFloat


class Int8WeightPerTensorFloatMSE(Int8WeightPerTensorFloat):
    """Signed, narrow-range integers with a learned scale that starts from the smallest squared error of the weight.

    It starts from the best of 20 thresholds, the largest of which is ``max|w|``. A clamped weight gets no gradient; the scale
    gets it in its place.

    Options as :class:`~quant_core.quant.Int8WeightPerTensorFloat`, and ``mse_iters``, the number of thresholds, and
    ``mse_init_op``, the statistic that the largest is.

    >>> import torch
    >>> layer = torch.nn.Linear(1000, 1)
    >>> layer.weight.data = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([4.0])]).unsqueeze(0)
    >>> quant = Int8WeightPerTensorFloatMSE.let(bit_width=4)
    >>> quant.proxy_class(layer, quant).scale().detach()
    tensor(0.2286)
    """

    scaling_impl = ParameterFromStatsFromParameterScaling
    scaling_stats_impl = MSE
    clamp_gradient: Any = "masked"


class Int8WeightPerChannelFloatMSE(Int8WeightPerTensorFloatMSE):
    """As :class:`Int8WeightPerTensorFloatMSE`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int8WeightPerChannelFloatMSE)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.init_tensor_quant()
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0100],
            [0.0200]])
    """

    scaling_per_output_channel = True


class Int8WeightPerTensorFixedPointMSE(Int8WeightPerTensorFloatMSE):
    """As :class:`Int8WeightPerTensorFloatMSE`, with a scale that is a power of two, as are those that are tried.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int8WeightPerTensorFixedPointMSE)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.init_tensor_quant()
    >>> layer.weight_quant.scale().detach()
    tensor(0.0312)
    """

    restrict_scaling_impl = PowerOfTwoRestriction


class Int8WeightPerChannelFixedPointMSE(Int8WeightPerTensorFixedPointMSE):
    """As :class:`Int8WeightPerTensorFixedPointMSE`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int8WeightPerChannelFixedPointMSE)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.init_tensor_quant()
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0156],
            [0.0312]])
    """

    scaling_per_output_channel = True


class Int8ActPerTensorFloatMSE(Int8ActPerTensorFloat):
    """As :class:`~quant_core.quant.Int8ActPerTensorFloat`, with a scale that starts from the smallest squared error.

    While collecting, each step searches the best of 20 thresholds, the largest of which is ``max|x|``.

    Further options: ``mse_iters``, the number of thresholds, and ``mse_init_op``, the statistic that the largest is.

    >>> import torch
    >>> proxy = Int8ActPerTensorFloatMSE.proxy_class(torch.nn.Identity(), Int8ActPerTensorFloatMSE.let(bit_width=4))
    >>> proxy(torch.cat([torch.linspace(-1, 1, 999), torch.tensor([4.0])])).scale
    tensor(0.2250)
    """

    scaling_stats_impl = MSE
    mse_restricted = False


class Uint8ActPerTensorFloatMSE(Int8ActPerTensorFloatMSE):
    """As :class:`Int8ActPerTensorFloatMSE`, unsigned: for what follows a ReLU.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloatMSE, return_quant_tensor=True)
    >>> act(torch.tensor([-1.0, 2.55])).scale.detach()
    tensor(0.0100)
    """

    signed = False


class Int8ActPerTensorFixedPointMSE(Int8ActPerTensorFloatMSE):
    """As :class:`Int8ActPerTensorFloatMSE`, with a scale that is a power of two once the statistics are collected.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPointMSE)
    >>> _ = act(torch.tensor([-1.28, 1.0]))
    >>> act.eval().act_quant.scale().detach()
    tensor(0.0156)
    """

    restrict_scaling_impl = PowerOfTwoRestriction


class Uint8ActPerTensorFixedPointMSE(Int8ActPerTensorFixedPointMSE):
    """As :class:`Int8ActPerTensorFixedPointMSE`, unsigned: for what follows a ReLU.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPointMSE)
    >>> _ = act(torch.tensor([-1.0, 2.55]))
    >>> act.eval().act_quant.scale().detach()
    tensor(0.0156)
    """

    signed = False
