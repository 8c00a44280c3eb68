"""Named quantizers to minifloats of eight bits.

Every code is a number here. :mod:`quant_core.quant.minifloat_ocp` and :mod:`quant_core.quant.minifloat_fnuz` have the same in the
formats of hardware, in which some codes are infinities or NaN.
"""

from __future__ import annotations

from typing import Any

from quant_core.components import (
    AbsMax,
    ConstScaling,
    FloatQuant,
    Granularity,
    ParameterFromRuntimeStatsScaling,
    StatsFromParameterScaling,
    granularity_of,
)
from quant_core.components.granularity import is_per_channel
from quant_core.inject import Injector, this, value
from quant_core.ops import ClampGradient
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.shorthand import computed


class Fp8e4m3WeightPerTensorFloat(Injector):
    """Weights as numbers of 4 exponent and 3 mantissa bits, up to 480, with one float scale ``max|w| / 480``.

    Options (``weight_`` in front when given to a layer): ``exponent_bit_width``, ``mantissa_bit_width``, ``exponent_bias``,
    ``inf_values``, ``nan_values``, ``has_subnormal``, ``saturating``, ``rounding_mode``, ``scaling_per_output_channel``,
    ``scaling_min_val``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e4m3WeightPerTensorFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[480.0, 17.3]]))
    >>> layer.quant_weight().value.tolist(), layer.weight_quant.scale().item()
    ([[480.0, 18.0]], 1.0)
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant: Any = FloatQuant
    scaling_impl: Any = StatsFromParameterScaling
    scaling_stats_impl: Any = AbsMax
    exponent_bit_width = 4
    mantissa_bit_width = 3
    exponent_bias: int | None = None
    inf_values: tuple[str, ...] | None = None
    nan_values: tuple[str, ...] | None = None
    has_subnormal = True
    saturating = True
    rounding_mode = "ROUND"
    scaling_min_val = 1e-10
    scaling_per_output_channel = False
    output_channel_dim = computed.output_channel_dim
    granularity = computed.weight_granularity
    quant_delay_steps = 0

    @value
    def clamp_gradient(scaling_impl: Any) -> ClampGradient:
        """A clamped weight gets the gradient, so that it can come back; what learns the range gets it in its place."""
        return "masked" if getattr(scaling_impl, "learns", False) else "pass"


class Fp8e4m3ActPerTensorFloat(Injector):
    """Activations as numbers of 4 exponent and 3 mantissa bits, with a learned scale from the largest of 300 training steps.

    Options: as :class:`Fp8e4m3WeightPerTensorFloat`, with ``collect_stats_steps``, ``scaling_stats_momentum`` and, together with
    ``scaling_per_output_channel``, ``per_channel_broadcastable_shape``.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Fp8e4m3ActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([480.0, 17.3])).value.tolist()
    [480.0, 18.0]
    """

    proxy_class = ActQuantProxyFromInjector
    tensor_quant: Any = FloatQuant
    scaling_impl: Any = ParameterFromRuntimeStatsScaling
    scaling_stats_impl: Any = AbsMax
    exponent_bit_width = 4
    mantissa_bit_width = 3
    exponent_bias: int | None = None
    inf_values: tuple[str, ...] | None = None
    nan_values: tuple[str, ...] | None = None
    has_subnormal = True
    saturating = True
    rounding_mode = "ROUND"
    clamp_gradient = "masked"
    collect_stats_steps = 300
    scaling_stats_momentum = 0.1
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


class Fp8e4m3WeightPerChannelFloat(Fp8e4m3WeightPerTensorFloat):
    """As :class:`Fp8e4m3WeightPerTensorFloat`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(1, 2, bias=False, weight_quant=Fp8e4m3WeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[480.0], [960.0]]))
    >>> layer.weight_quant.scale().flatten().tolist()
    [1.0, 2.0]
    """

    scaling_per_output_channel = True


class Fp8e5m2WeightPerTensorFloat(Fp8e4m3WeightPerTensorFloat):
    """As :class:`Fp8e4m3WeightPerTensorFloat`, with 5 exponent and 2 mantissa bits, up to 114688.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e5m2WeightPerTensorFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[114688.0, 17.3]]))
    >>> layer.quant_weight().value.tolist(), layer.weight_quant.scale().item()
    ([[114688.0, 16.0]], 1.0)
    """

    exponent_bit_width = 5
    mantissa_bit_width = 2


class Fp8e5m2WeightPerChannelFloat(Fp8e5m2WeightPerTensorFloat):
    """As :class:`Fp8e5m2WeightPerTensorFloat`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(1, 2, bias=False, weight_quant=Fp8e5m2WeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[114688.0], [229376.0]]))
    >>> layer.weight_quant.scale().flatten().tolist()
    [1.0, 2.0]
    """

    scaling_per_output_channel = True


class Fp8e5m2ActPerTensorFloat(Fp8e4m3ActPerTensorFloat):
    """As :class:`Fp8e4m3ActPerTensorFloat`, with 5 exponent and 2 mantissa bits, up to 114688.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Fp8e5m2ActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([114688.0, 17.3])).value.tolist()
    [114688.0, 16.0]
    """

    exponent_bit_width = 5
    mantissa_bit_width = 2


class Fp8e4m3Weight(Fp8e4m3WeightPerTensorFloat):
    """As :class:`Fp8e4m3WeightPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 480.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e4m3Weight).weight_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 480.0


class Fp8e4m3Act(Fp8e4m3ActPerTensorFloat):
    """As :class:`Fp8e4m3ActPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 480.

    >>> import quant_nn as qnn
    >>> qnn.QuantIdentity(act_quant=Fp8e4m3Act).act_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 480.0


class Fp8e5m2Weight(Fp8e5m2WeightPerTensorFloat):
    """As :class:`Fp8e5m2WeightPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 114688.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e5m2Weight).weight_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 114688.0


class Fp8e5m2Act(Fp8e5m2ActPerTensorFloat):
    """As :class:`Fp8e5m2ActPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 114688.

    >>> import quant_nn as qnn
    >>> qnn.QuantIdentity(act_quant=Fp8e5m2Act).act_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 114688.0
