"""Quantized linear layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.quant import Int8WeightPerTensorFloat
from quant_nn.quantizers import Quantizer
from quant_nn.weight_layer import QuantWeightLayer


class QuantLinear(QuantWeightLayer, nn.Linear):  # type: ignore[misc]  # forward takes quantized tensors as well
    """``y = Q_out(Q_in(x) · Q_w(W)ᵀ + Q_b(b))``: :class:`torch.nn.Linear` with quantized operands.

    Args:
        in_features: the size ``I`` of each input row.
        out_features: the size ``O`` of each output row.
        bias: whether there is a bias.
        weight_quant: quantizer of the ``(O, I)`` weight, or the proxy of another layer to share, or ``None``.
        bias_quant: quantizer of the ``(O,)`` bias.
        input_quant: quantizer of the input.
        output_quant: quantizer of the output.
        return_quant_tensor: return a ``QuantTensor`` (``(*, O)``, with its scale) instead of a plain tensor.
        device: where the parameters live.
        dtype: their float dtype.
        **options: options of the quantizers, with the prefix ``weight_``, ``bias_``, ``input_`` or ``output_``.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        InputError: from ``forward``, when the input does not end in ``I`` elements or a quantized bias has no scale.

    The keys of its ``state_dict`` for weight and bias are those of the float layer, whose checkpoints load strictly.

    >>> layer = QuantLinear(16, 4, weight_bit_width=4)
    >>> layer(torch.zeros(2, 16)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = None,
        input_quant: Quantizer = None,
        output_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=bias, device=device, dtype=dtype)
        self._init_quant(weight_quant, bias_quant, input_quant, output_quant, return_quant_tensor, options)

    def _operation(self, x: Tensor, weight: Tensor, bias: Tensor | None, **how: Any) -> Tensor:
        return F.linear(x, weight, bias)

    def _check_input(self, shape: torch.Size) -> None:
        check_features(shape, "in_features", self.in_features, where=self._named())

    def _channel_shape(self, out: Tensor) -> tuple[int, ...]:
        return (*[1] * (out.dim() - 1), self.out_features)


def check_features(shape: torch.Size, name: str, features: int, *, where: str) -> None:
    """The last axis of an input holds the features.

    Raises:
        InputError: when it does not.

    >>> check_features(torch.Size([2, 3]), "in_features", 3, where="QuantLinear")
    """
    if len(shape) == 0 or shape[-1] != features:
        raise InputError(
            f"an input of shape {tuple(shape)} does not fit this layer",
            where=where,
            why=f"the last axis holds the features, and {name}={features}",
            fix=f"Give it a tensor of shape (..., {features}), or flatten what comes before.",
        )
