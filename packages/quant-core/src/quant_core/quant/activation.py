"""Named quantizers of activations."""

from __future__ import annotations

from typing import Any

from quant_core.components import (
    AbsPercentile,
    ConstBitWidth,
    Granularity,
    IntQuant,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    ZeroZeroPoint,
    granularity_of,
)
from quant_core.components.granularity import is_per_channel
from quant_core.inject import Injector, this, value
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.shorthand.computed import largest_magnitude


class Int8ActPerTensorFloat(Injector):
    """Signed integers with a learned float scale that starts from the 99.999th percentile of the first 300 training steps.

    Options: ``bit_width``, ``signed``, ``narrow_range``, ``rounding_mode``, ``collect_stats_steps``,
    ``scaling_stats_momentum``, ``high_percentile_q``, ``scaling_min_val``, ``scaling_per_output_channel`` (together with
    ``per_channel_broadcastable_shape``), ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([-1.28, 1.0])).scale.detach()
    tensor(0.0100)
    """

    proxy_class = ActQuantProxyFromInjector
    tensor_quant: Any = IntQuant
    scaling_impl: Any = ParameterFromRuntimeStatsScaling
    scaling_stats_impl: Any = AbsPercentile
    bit_width_impl: Any = ConstBitWidth
    zero_point_impl: Any = ZeroZeroPoint
    bit_width = 8
    signed = True
    narrow_range = False
    rounding_mode = "ROUND"
    clamp_gradient = "masked"
    collect_stats_steps = 300
    scaling_stats_momentum = 0.1
    high_percentile_q = 99.999
    scaling_min_val = 1e-10
    scaling_per_output_channel = False
    quant_delay_steps = 0

    @value
    def scaling_shape(scaling_per_output_channel: bool) -> Any:
        """``()`` per tensor; the given shape, for example ``(1, C, 1, 1)``, per channel."""
        return this.per_channel_broadcastable_shape if is_per_channel(scaling_per_output_channel) else ()

    @value
    def granularity(scaling_shape: tuple[int, ...]) -> Granularity:
        """What the shape of the scale says."""
        return granularity_of(scaling_shape)


class Uint8ActPerTensorFloat(Int8ActPerTensorFloat):
    """As :class:`Int8ActPerTensorFloat`, unsigned: for what follows a ReLU.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([-1.0, 2.55])).scale.detach()
    tensor(0.0100)
    """

    signed = False


class Int8ActPerTensorFloatMinMaxInit(Int8ActPerTensorFloat):
    """Signed integers with a learned float scale that starts from ``max(|min_val|, |max_val|) / 128``; nothing is collected.

    Options: ``min_val`` and ``max_val``, which must be given; ``bit_width``, ``signed``, ``narrow_range``, ``rounding_mode``,
    ``scaling_min_val``, ``scaling_per_output_channel`` (together with ``per_channel_broadcastable_shape``),
    ``quant_delay_steps``, and any component by its name.

    >>> import quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloatMinMaxInit, min_val=-1.28, max_val=1.0)
    >>> act.act_quant.scale()
    tensor(0.0100, grad_fn=<DivBackward0>)
    """

    scaling_impl = ParameterScaling

    @value
    def scaling_init(min_val: float, max_val: float) -> float:
        """The limit of the larger magnitude."""
        return float(largest_magnitude.function(max_val=max_val, min_val=min_val))


class Uint8ActPerTensorFloatMaxInit(Int8ActPerTensorFloat):
    """Unsigned integers with a learned float scale that starts from ``max_val / 255``; nothing is collected.

    Options as :class:`Int8ActPerTensorFloatMinMaxInit`, without ``min_val``.

    >>> import quant_nn as qnn
    >>> act = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloatMaxInit, max_val=2.55)
    >>> act.act_quant.scale()
    tensor(0.0100, grad_fn=<DivBackward0>)
    """

    scaling_impl = ParameterScaling
    signed = False

    @value
    def scaling_init(max_val: float) -> float:
        """The largest value."""
        return float(largest_magnitude.function(max_val=max_val))
