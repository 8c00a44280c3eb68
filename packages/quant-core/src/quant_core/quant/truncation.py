"""Named quantizers of accumulators.

What comes in must be quantized, as the output of a layer with ``return_quant_tensor=True`` is.
"""

from __future__ import annotations

from quant_core.components import (
    AbsPercentile,
    ClampIntQuant,
    ConstBitWidth,
    MsbClampBitWidth,
    ParameterFromRuntimeStatsScaling,
    RemoveBitWidth,
    TruncIntQuant,
    TruncMsbScaling,
    TruncStatsScaling,
)
from quant_core.inject import Injector
from quant_core.proxies import ClampQuantProxyFromInjector, TruncQuantProxyFromInjector


class TruncTo8bit(Injector):
    """Keeps the 8 most significant bits, rounding down: a shift to the right.

    Options: ``bit_width``, ``rounding_mode``, ``narrow_range``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> from quant_core.tensor import QuantTensor
    >>> grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(12.0)
    >>> x = QuantTensor(torch.tensor([100.0, -100.0]), *grid, signed=True, symmetric=True)
    >>> y = qnn.TruncQuantAccumulator(trunc_quant=TruncTo8bit)(x)
    >>> y.int(), y.scale
    (tensor([ 12, -13], dtype=torch.int8), tensor(8.))
    """

    proxy_class = TruncQuantProxyFromInjector
    tensor_quant = TruncIntQuant
    trunc_scaling_impl = TruncMsbScaling
    bit_width_impl = ConstBitWidth
    bit_width = 8
    narrow_range = False
    rounding_mode = "FLOOR"
    quant_delay_steps = 0


class RoundTo8bit(TruncTo8bit):
    """As :class:`TruncTo8bit`, rounding to the nearest, ties to even.

    >>> import torch, quant_nn as qnn
    >>> from quant_core.tensor import QuantTensor
    >>> grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(12.0)
    >>> x = QuantTensor(torch.tensor([100.0, -100.0]), *grid, signed=True, symmetric=True)
    >>> qnn.TruncQuantAccumulator(trunc_quant=RoundTo8bit)(x).scale
    tensor(8.)
    """

    rounding_mode = "ROUND"


class ShiftRoundSaturateTo8bit(Injector):
    """Keeps those 8 bits in which the values lie, rounding to the nearest; what lies beyond is clamped.

    How far it shifts is learned, and starts from the 99.999th percentile of the first 300 training steps.

    Options: ``bit_width``, ``rounding_mode``, ``narrow_range``, ``collect_stats_steps``, ``scaling_stats_momentum``,
    ``high_percentile_q``, ``scaling_min_val``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> from quant_core.tensor import QuantTensor
    >>> grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(12.0)
    >>> x = QuantTensor(torch.tensor([100.0, -100.0]), *grid, signed=True, symmetric=True)
    >>> y = qnn.TruncQuantAccumulator(trunc_quant=ShiftRoundSaturateTo8bit)(x)
    >>> y.int(), y.scale.item()
    (tensor([ 100, -100], dtype=torch.int8), 1.0)
    """

    proxy_class = TruncQuantProxyFromInjector
    tensor_quant = TruncIntQuant
    trunc_scaling_impl = TruncStatsScaling
    scaling_impl = ParameterFromRuntimeStatsScaling
    scaling_stats_impl = AbsPercentile
    bit_width_impl = ConstBitWidth
    bit_width = 8
    narrow_range = False
    rounding_mode = "ROUND"
    collect_stats_steps = 300
    scaling_stats_momentum = 0.1
    high_percentile_q = 99.999
    scaling_min_val = 1e-10
    quant_delay_steps = 0


class ClampTo16bit(Injector):
    """Saturates at the range of 16 bits.

    Options: ``bit_width``, ``narrow_range``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> from quant_core.tensor import QuantTensor
    >>> grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(24.0)
    >>> x = QuantTensor(torch.tensor([100.0, -1e5]), *grid, signed=True, symmetric=True)
    >>> y = qnn.ClampQuantAccumulator(clamp_quant=ClampTo16bit)(x)
    >>> y.int(), y.scale
    (tensor([   200, -32768], dtype=torch.int16), tensor(0.5000))
    """

    proxy_class = ClampQuantProxyFromInjector
    tensor_quant = ClampIntQuant
    bit_width_impl = ConstBitWidth
    bit_width = 16
    narrow_range = False
    quant_delay_steps = 0


class LearnedMsbClamp(Injector):
    """Saturates with fewer bits than come in; how many fewer is learned, and starts at 2.

    Options: ``bit_width_to_remove``, ``min_overall_bit_width``, ``max_overall_bit_width``, ``narrow_range``,
    ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> from quant_core.tensor import QuantTensor
    >>> grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(10.0)
    >>> x = QuantTensor(torch.tensor([100.0, -10.0]), *grid, signed=True, symmetric=True)
    >>> y = qnn.ClampQuantAccumulator(clamp_quant=LearnedMsbClamp)(x)
    >>> y.int(), y.scale.item(), y.bit_width.item()
    (tensor([127, -20], dtype=torch.int8), 0.5, 8.0)
    """

    proxy_class = ClampQuantProxyFromInjector
    tensor_quant = ClampIntQuant
    bit_width_impl = MsbClampBitWidth
    bit_width_to_remove_impl = RemoveBitWidth
    bit_width_to_remove = 2
    min_overall_bit_width = 2
    max_overall_bit_width = 32
    narrow_range = False
    quant_delay_steps = 0
