"""Named quantizers of activations whose scale follows each batch in training, as batch norm does.

In training mode the scale is that of the batch; in eval mode it is the average of all batches.
"""

from __future__ import annotations

from typing import Any

from quant_core.components import AbsMaxAve, RuntimeStatsScaling
from quant_core.quant.activation import Int8ActPerTensorFloat


class Int8ActPerTensorFloatBatchQuant2d(Int8ActPerTensorFloat):
    """Signed integers at the scale ``mean_c max|x_c| / 128`` of each batch, with channels along axis 1 of ``(N, C, H, W)``.

    Options: ``bit_width``, ``signed``, ``narrow_range``, ``rounding_mode``, ``scaling_stats_momentum`` (a number for an
    exponential average), ``scaling_min_val``, ``scaling_affine_rescaling_init`` and ``scaling_affine_shifting_init`` (where
    learned coefficients of the scale start), ``output_channel_dim``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloatBatchQuant2d, return_quant_tensor=True)
    >>> act(torch.full((2, 3, 4, 4), 1.28)).scale, act(torch.full((2, 3, 4, 4), 3.84)).scale
    (tensor(0.0100), tensor(0.0300))
    >>> act.eval()(torch.ones(2, 3, 4, 4)).scale
    tensor(0.0200)
    """

    scaling_impl: Any = RuntimeStatsScaling
    scaling_stats_impl: Any = AbsMaxAve
    output_channel_dim = 1
    scaling_stats_momentum: Any = None
    scaling_affine_rescaling_init: float | None = None
    scaling_affine_shifting_init: float | None = None


class Uint8ActPerTensorFloatBatchQuant2d(Int8ActPerTensorFloatBatchQuant2d):
    """As :class:`Int8ActPerTensorFloatBatchQuant2d`, unsigned, ``/ 255``: for what follows a ReLU.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloatBatchQuant2d, return_quant_tensor=True)
    >>> act(torch.full((2, 3, 4, 4), 2.55)).scale.detach()
    tensor(0.0100)
    """

    signed = False


class Int8ActPerTensorFloatBatchQuant1d(Int8ActPerTensorFloatBatchQuant2d):
    """As :class:`Int8ActPerTensorFloatBatchQuant2d`, for ``(N, C)`` and ``(N, C, L)``.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloatBatchQuant1d, return_quant_tensor=True)
    >>> act(torch.full((2, 3, 4), 1.28)).scale.detach()
    tensor(0.0100)
    """


class Uint8ActPerTensorFloatBatchQuant1d(Int8ActPerTensorFloatBatchQuant1d):
    """As :class:`Int8ActPerTensorFloatBatchQuant1d`, unsigned, ``/ 255``: for what follows a ReLU.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloatBatchQuant1d, return_quant_tensor=True)
    >>> act(torch.full((2, 3, 4), 2.55)).scale.detach()
    tensor(0.0100)
    """

    signed = False
