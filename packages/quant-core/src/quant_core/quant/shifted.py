"""Named quantizers with a zero-point: unsigned integers for tensors whose range is not symmetric around 0."""

from __future__ import annotations

from typing import Any

from quant_core.components import (
    MSE,
    AbsMinMax,
    HalfQuadraticOptimizerZeroPoint,
    MSEZeroPoint,
    NegativeMinOrZero,
    NegativePercentileOrZero,
    ParameterFromRuntimeZeroPoint,
    ParameterFromStatsFromParameterZeroPoint,
    PercentileInterval,
    PerGroup,
    PowerOfTwoRestriction,
    StatsFromParameterZeroPoint,
)
from quant_core.components.scaling import ParameterFromStatsFromParameterScaling
from quant_core.inject import this, value
from quant_core.quant.activation import Int8ActPerTensorFloat
from quant_core.quant.weight import Int8WeightPerTensorFloat
from quant_core.shorthand import computed


class ShiftedUint8WeightPerTensorFloat(Int8WeightPerTensorFloat):
    """Unsigned integers from the smallest to the largest weight, 0 included, with an integer zero-point, at each step.

    ``scale = (max(w, 0) − min(w, 0)) / 255``, ``zero_point = round(−min(w, 0) / scale)``.

    Options as :class:`~quant_core.quant.Int8WeightPerTensorFloat`, and ``quantize_zero_point``.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 1)
    >>> layer.weight.data = torch.tensor([[-0.25, 1.0]])
    >>> proxy = ShiftedUint8WeightPerTensorFloat.proxy_class(layer, ShiftedUint8WeightPerTensorFloat)
    >>> proxy.scale().detach(), proxy.zero_point().detach(), proxy(layer.weight).int()
    (tensor(0.0049), tensor(51.), tensor([[  0, 255]], dtype=torch.uint8))
    """

    scaling_stats_impl: Any = AbsMinMax
    zero_point_impl: Any = StatsFromParameterZeroPoint
    zero_point_stats_impl: Any = NegativeMinOrZero
    signed = False
    narrow_range = False
    quantize_zero_point = True


class ShiftedUint8WeightPerChannelFloat(ShiftedUint8WeightPerTensorFloat):
    """As :class:`ShiftedUint8WeightPerTensorFloat`, with a scale and a zero-point for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=ShiftedUint8WeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0069],
            [0.0100]])
    """

    scaling_per_output_channel = True


class ShiftedUint8WeightPerTensorFloatHQO(ShiftedUint8WeightPerTensorFloat):
    """As :class:`ShiftedUint8WeightPerTensorFloat`, with a learned zero-point that starts from half-quadratic optimization.

    The zero-point is not rounded, so that the real number 0 is no level, and targets that store integer zero-points
    refuse it.

    Further options: ``hqo_beta_zp``, ``hqo_kappa_zp``, ``hqo_lp_norm_zp``, ``hqo_iters_zp``.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=ShiftedUint8WeightPerTensorFloatHQO)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.init_tensor_quant()
    >>> layer.weight_quant.scale().detach()
    tensor(0.0149)
    """

    zero_point_impl = ParameterFromStatsFromParameterZeroPoint
    zero_point_stats_impl = HalfQuadraticOptimizerZeroPoint
    quantize_zero_point = False


class ShiftedUint8WeightPerChannelFloatHQO(ShiftedUint8WeightPerTensorFloatHQO):
    """As :class:`ShiftedUint8WeightPerTensorFloatHQO`, with a scale and a zero-point for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=ShiftedUint8WeightPerChannelFloatHQO)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.init_tensor_quant()
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0069],
            [0.0100]])
    """

    scaling_per_output_channel = True


class ShiftedUint8WeightGroupQuantFloat(ShiftedUint8WeightPerTensorFloat):
    """As :class:`ShiftedUint8WeightPerTensorFloat`, with a scale and a zero-point for each ``group_size`` input channels.

    ``group_size`` must be given; it divides the number of input channels.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(4, 1, bias=False, weight_quant=ShiftedUint8WeightGroupQuantFloat, weight_group_size=2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27, 2.54, 0.1]]))
    >>> layer.weight_quant.scale().detach(), layer.weight_quant.zero_point().detach()
    (tensor([[0.0069, 0.0069, 0.0100, 0.0100]]), tensor([[183., 183.,   0.,   0.]]))
    """

    @value
    def granularity(group_size: int, module: Any) -> PerGroup:
        """Per group of input channels."""
        return PerGroup(group_size, 1 - computed.output_channel_dim.function(module))


class ShiftedUint8WeightPerGroupFloatHQO(ShiftedUint8WeightPerTensorFloatHQO):
    """As :class:`ShiftedUint8WeightPerTensorFloatHQO`, with a scale and a zero-point for each 32 input channels (``group_size``).

    >>> import quant_nn as qnn
    >>> layer = qnn.QuantLinear(64, 1, weight_quant=ShiftedUint8WeightPerGroupFloatHQO)
    >>> layer.weight_quant.zero_point().unique().numel()
    2
    """

    group_size = 32


class ShiftedUint8WeightPerTensorFloatMSE(ShiftedUint8WeightPerTensorFloat):
    """As :class:`ShiftedUint8WeightPerTensorFloat`, with a learned scale and zero-point that have the smallest squared error.

    They start from the best of 20 thresholds up to ``max(w, 0) − min(w, 0)``, and then from the best of 20 lowest real numbers
    down to ``min(w, 0)``. A clamped weight gets no gradient; scale and zero-point get it in its place.

    Further options: ``mse_iters``, ``mse_init_op``, ``mse_zero_point_init_op``.

    >>> import torch
    >>> layer = torch.nn.Linear(1000, 1)
    >>> layer.weight.data = torch.cat([torch.linspace(-1, 2, 999), torch.tensor([9.0])]).unsqueeze(0)
    >>> quant = ShiftedUint8WeightPerTensorFloatMSE.let(bit_width=4)
    >>> proxy = quant.proxy_class(layer, quant)
    >>> proxy.scale().detach(), proxy.zero_point().detach()
    (tensor(0.4667), tensor(2.))
    """

    scaling_impl = ParameterFromStatsFromParameterScaling
    scaling_stats_impl = MSE
    mse_init_op = AbsMinMax
    mse_zero_point_init_op = NegativeMinOrZero
    zero_point_impl = ParameterFromStatsFromParameterZeroPoint
    zero_point_stats_impl = MSEZeroPoint
    clamp_gradient: Any = "masked"


class ShiftedUint8WeightPerChannelFloatMSE(ShiftedUint8WeightPerTensorFloatMSE):
    """As :class:`ShiftedUint8WeightPerTensorFloatMSE`, with a scale and a zero-point for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=ShiftedUint8WeightPerChannelFloatMSE)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.init_tensor_quant()
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0069],
            [0.0100]])
    """

    scaling_per_output_channel = True


class ShiftedUint8ActPerTensorFloat(Int8ActPerTensorFloat):
    """Unsigned integers with a learned float scale and a learned integer zero-point.

    Both start from the 0.001th and the 99.999th percentile of the first 300 training steps.

    Options as :class:`~quant_core.quant.Int8ActPerTensorFloat`, and ``low_percentile_q``, ``zero_point_stats_momentum``,
    ``quantize_zero_point``.

    >>> import torch
    >>> proxy = ShiftedUint8ActPerTensorFloat.proxy_class(torch.nn.Identity(), ShiftedUint8ActPerTensorFloat)
    >>> out = proxy(torch.tensor([-1.0, 0.0, 4.1]))
    >>> out.scale, out.zero_point, out.int()
    (tensor(0.0200), tensor(50.), tensor([  0,  50, 255], dtype=torch.uint8))
    """

    scaling_stats_impl: Any = PercentileInterval
    zero_point_impl: Any = ParameterFromRuntimeZeroPoint
    zero_point_stats_impl: Any = NegativePercentileOrZero
    signed = False
    low_percentile_q = 0.001
    zero_point_stats_momentum = 0.1
    zero_point_shape = this.scaling_shape
    quantize_zero_point = True


class ShiftedUint8ActPerTensorFixedPoint(ShiftedUint8ActPerTensorFloat):
    """As :class:`ShiftedUint8ActPerTensorFloat`, with a scale that is a power of two once the statistics are collected.

    While collecting, the threshold is divided by 256 and not restricted.

    >>> import torch
    >>> quant = ShiftedUint8ActPerTensorFixedPoint.let(collect_stats_steps=1)
    >>> proxy = quant.proxy_class(torch.nn.Identity(), quant)
    >>> [proxy(torch.tensor([-1.0, 4.1])).scale.item() for _ in range(2)]
    [0.01992187462747097, 0.03125]
    """

    restrict_scaling_impl = PowerOfTwoRestriction


class ShiftedUint8ActPerTensorFloatHQO(ShiftedUint8ActPerTensorFloat):
    """As :class:`ShiftedUint8ActPerTensorFloat`, with a zero-point that starts from half-quadratic optimization.

    The zero-point is not rounded; see :class:`ShiftedUint8WeightPerTensorFloatHQO`, also for the options.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloatHQO, return_quant_tensor=True)
    >>> act(torch.tensor([-0.55, 2.0])).scale.detach()
    tensor(0.0100)
    """

    zero_point_stats_impl = HalfQuadraticOptimizerZeroPoint
    quantize_zero_point = False


class ShiftedUint8ActPerTensorFloatMSE(ShiftedUint8ActPerTensorFloat):
    """As :class:`ShiftedUint8ActPerTensorFloat`, starting from the scale and the zero-point with the smallest squared error.

    Each step of collecting searches the best of 20 thresholds up to ``max(x, 0) − min(x, 0)``, and then the best of 20 lowest
    real numbers down to ``min(x, 0)``.

    Further options: ``mse_iters``, ``mse_init_op``, ``mse_zero_point_init_op``.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloatMSE, return_quant_tensor=True)
    >>> act(torch.tensor([-0.55, 2.0])).scale.detach()
    tensor(0.0100)
    """

    scaling_stats_impl = MSE
    mse_init_op = AbsMinMax
    mse_restricted = False
    mse_zero_point_init_op = NegativeMinOrZero
    zero_point_stats_impl = MSEZeroPoint


class ShiftedUint8ActPerTensorFixedPointMSE(ShiftedUint8ActPerTensorFloatMSE):
    """As :class:`ShiftedUint8ActPerTensorFloatMSE`, with a scale that is a power of two once the statistics are collected.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFixedPointMSE)
    >>> _ = act(torch.tensor([-0.55, 2.0]))
    >>> act.eval().act_quant.scale().detach()
    tensor(0.0156)
    """

    restrict_scaling_impl = PowerOfTwoRestriction
