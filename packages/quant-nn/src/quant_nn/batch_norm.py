"""What a trained batch normalization becomes: a quantized factor and offset for each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quant_core.errors import ConfigurationError
from quant_core.quant import Int8WeightPerTensorFloat
from quant_nn.quantizers import Quantizer
from quant_nn.scale_bias import QuantScaleBias

_STATISTICS = ("running_mean", "running_var")


class BatchNormToQuantScaleBias(QuantScaleBias):
    """``y = Q_out(Q_in(x) · Q_w(w) + Q_b(b))``, which loads the checkpoint of a batch normalization.

    From its parameters and statistics come ``w = weight / √(running_var + eps)`` and ``b = bias − running_mean · w``: what the
    normalization computes in eval mode. Without ``weight`` and ``bias`` (``affine=False``) they are 1 and 0. A checkpoint of
    this layer itself loads as it is.

    Args:
        num_features: the number ``C`` of channels.
        eps: what the batch normalization adds to the variance.
        weight_quant: quantizer of the ``(C,)`` factors, or the proxy of another layer to share, or ``None``.
        bias_quant: quantizer of the ``(C,)`` offsets.
        input_quant: quantizer of the input.
        output_quant: quantizer of the output.
        return_quant_tensor: return a ``QuantTensor`` (with its scale) instead of a plain tensor.
        device: where the parameters live.
        dtype: their float dtype.
        **options: options of the quantizers, with the prefix ``weight_``, ``bias_``, ``input_`` or ``output_``.
    """

    axes: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = None,
        input_quant: Quantizer = None,
        output_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        quantizers = (weight_quant, bias_quant, input_quant, output_quant)
        shape = self._shape_beside(self.axes[-1])
        super().__init__(num_features, True, *quantizers, shape, return_quant_tensor, device, dtype, **options)
        self.eps = eps

    @staticmethod
    def float_arguments(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> dict[str, Any]:
        """The arguments that make a layer of the same sizes as a float one, whose checkpoint it then loads.

        Raises:
            ConfigurationError: when the float layer has no statistics to compute with.
        """
        if layer.running_mean is None:
            raise ConfigurationError(
                "a batch normalization without running statistics has no factor and offset",
                why="track_running_stats=False: it normalizes by the statistics of each batch",
                fix="Exclude this layer with a rule, or train it with track_running_stats=True.",
            )
        return {"num_features": layer.num_features, "eps": layer.eps}

    def float_repr(self) -> str:
        """The options."""
        return f"{self.num_features}, eps={self.eps}"

    def _shape_beside(self, axes: int) -> tuple[int, ...]:
        """The channels stand at axis 1, however many axes there are."""
        fits = axes if axes in self.axes else self.axes[-1]
        return (1, -1, *[1] * (fits - 2))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Turn the parameters and statistics of a batch normalization into factor and offset."""
        if all(f"{prefix}{name}" in state_dict for name in _STATISTICS):
            mean, variance = (state_dict.pop(f"{prefix}{name}") for name in _STATISTICS)
            state_dict.pop(f"{prefix}num_batches_tracked", None)
            scale = state_dict.get(f"{prefix}weight", torch.ones_like(variance)) / torch.sqrt(variance + self.eps)
            offset = state_dict.get(f"{prefix}bias", torch.zeros_like(mean))
            state_dict[f"{prefix}weight"], state_dict[f"{prefix}bias"] = scale, offset - mean * scale
        super()._load_from_state_dict(state_dict, prefix, *args)


class BatchNorm1dToQuantScaleBias(BatchNormToQuantScaleBias):
    """For :class:`torch.nn.BatchNorm1d`: inputs ``(N, C)`` or ``(N, C, L)``. Arguments as :class:`BatchNormToQuantScaleBias`.

    >>> layer = BatchNorm1dToQuantScaleBias(3)
    >>> layer.load_state_dict(torch.nn.BatchNorm1d(3).state_dict())
    <All keys matched successfully>
    >>> layer(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    axes = (2, 3)


class BatchNorm2dToQuantScaleBias(BatchNormToQuantScaleBias):
    """For :class:`torch.nn.BatchNorm2d`: inputs ``(N, C, H, W)``. Arguments as :class:`BatchNormToQuantScaleBias`.

    >>> layer = BatchNorm2dToQuantScaleBias(3)
    >>> layer.load_state_dict(torch.nn.BatchNorm2d(3).state_dict())
    <All keys matched successfully>
    >>> layer(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    axes = (4,)
