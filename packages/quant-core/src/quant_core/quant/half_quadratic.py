"""Named quantizers whose scale starts from half-quadratic optimization, which forgives outliers."""

from __future__ import annotations

from typing import Any

from quant_core.components import HalfQuadraticOptimizerScale
from quant_core.components.scaling import ParameterFromStatsFromParameterScaling
from quant_core.quant.weight import Int8WeightPerTensorFloat


class Int8WeightPerTensorFloatHQO(Int8WeightPerTensorFloat):
    """Signed, narrow-range integers with a learned scale that starts from half-quadratic optimization of the weight.

    See :class:`~quant_core.components.HalfQuadraticOptimizerScale`. A clamped weight gets no gradient; the scale gets it in its
    place.

    Options as :class:`~quant_core.quant.Int8WeightPerTensorFloat`, and ``hqo_beta_scale``, ``hqo_kappa_scale``,
    ``hqo_lp_norm_scale``, ``hqo_iters_scale``, and ``hqo_init_op_scale``, the statistic that the search starts from.

    >>> import torch
    >>> layer = torch.nn.Linear(6, 1)
    >>> layer.weight.data = torch.tensor([[-0.9, 0.1, 0.9, 1.0, -0.9, 1.1]])
    >>> quant = Int8WeightPerTensorFloatHQO.let(bit_width=2, hqo_beta_scale=1.0)
    >>> quant.proxy_class(layer, quant).scale().detach()
    tensor(0.9000)
    """

    scaling_impl = ParameterFromStatsFromParameterScaling
    scaling_stats_impl = HalfQuadraticOptimizerScale
    clamp_gradient: Any = "masked"


class Int8WeightPerChannelFloatHQO(Int8WeightPerTensorFloatHQO):
    """As :class:`Int8WeightPerTensorFloatHQO`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int8WeightPerChannelFloatHQO)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.5, -1.27], [2.54, 0.1]])})
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0100],
            [0.0200]])
    """

    scaling_per_output_channel = True
