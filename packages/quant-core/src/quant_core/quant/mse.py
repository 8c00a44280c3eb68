"""Named quantizers whose scale is the one with the smallest squared error of quantization."""

from __future__ import annotations

from quant_core.components import MSE
from quant_core.quant.activation import Int8ActPerTensorFloat


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


class Uint8ActPerTensorFloatMSE(Int8ActPerTensorFloatMSE):
    """As :class:`Int8ActPerTensorFloatMSE`, unsigned: for what follows a ReLU."""

    signed = False
