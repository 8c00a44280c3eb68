"""What all layers with a weight share: four quantizers around one linear operation.

The layer computes ``output_quant(op(input_quant(x), weight_quant(w)) + bias_quant(b))``. With a quantized input and weight, the
result of the operation lies on the grid ``input scale · weight scale``; that is the scale of a quantized bias, and of the
output when no output quantizer is set and ``return_quant_tensor`` is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor, accumulator_bit_width
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy


class QuantWeightLayer(nn.Module):
    """Mixin for layers with a weight and an optional bias; the float layer comes after it among the bases.

    Attributes:
        output_channel_dim: the axis of the weight that holds the output channels.
        return_quant_tensor: whether ``forward`` returns a ``QuantTensor``.
        input_quant, weight_quant, bias_quant, output_quant: the proxies, ``None`` where nothing is quantized.
    """

    weight: Tensor
    output_channel_dim: int = 0
    input_quant: QuantProxy | None
    weight_quant: QuantProxy | None
    bias_quant: QuantProxy | None
    output_quant: QuantProxy | None

    def _init_quant(
        self,
        weight_quant: Quantizer,
        bias_quant: Quantizer,
        input_quant: Quantizer,
        output_quant: Quantizer,
        return_quant_tensor: bool,
        options: dict[str, Any],
    ) -> None:
        if self._parameters["bias"] is None:
            bias_quant = None
        quantizers = {"weight_": weight_quant, "bias_": bias_quant, "input_": input_quant, "output_": output_quant}
        absent = {} if self._parameters["bias"] is not None else {"bias_": "this layer has no bias"}
        sorted_options = split_options(type(self), options, quantizers, absent)
        self.return_quant_tensor = return_quant_tensor
        # Shared proxies come last, so that a layer that cannot be built does not become an owner of one.
        for prefix in sorted(quantizers, key=lambda prefix: isinstance(quantizers[prefix], QuantProxy)):
            setattr(self, f"{prefix}quant", build_proxy(self, quantizers[prefix], prefix, sorted_options[prefix]))

    def quant_weight(self) -> QuantTensor | Tensor:
        """The quantized weight; the float one where weight quantization is off."""
        quantized: QuantTensor | Tensor = self.weight if self.weight_quant is None else self.weight_quant(self.weight)
        return quantized

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """Quantize, compute, quantize.

        Args:
            input: float tensor or ``QuantTensor``, in the shape that the float layer takes.

        Raises:
            InputError: when the input does not fit the layer, or a quantized bias has no scale.
        """
        x = input if self.input_quant is None else self.input_quant(input)
        self._check_input(x.shape)
        weight = self.quant_weight()
        scale = self._accumulator_scale(x, weight)
        bias: Tensor | QuantTensor | None = self._parameters["bias"]
        if bias is not None and self.bias_quant is not None:
            if scale is None and self.bias_quant.is_quant_enabled:
                raise self._no_scale("the bias cannot be quantized", x, weight)
            bias = self.bias_quant(bias, scale)
        out = self._operation(_value(x), _value(weight), None if bias is None else _value(bias))
        if self.output_quant is not None:
            quantized = self.output_quant(out)
            return quantized if self.return_quant_tensor else _value(quantized)
        if not self.return_quant_tensor:
            return out
        return self._accumulator(out, x, weight, bias, scale)

    def _operation(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _operation(x, weight, bias)")

    def _check_input(self, shape: torch.Size) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define _check_input(shape)")

    def _channel_shape(self, out: Tensor) -> tuple[int, ...]:
        """The shape of a tensor with one element for each output channel, broadcastable to ``out``."""
        raise NotImplementedError(f"{type(self).__name__} must define _channel_shape(out)")

    def _terms(self) -> int:
        """How many products are added up for one output element."""
        return self.weight[0].numel()

    def _accumulator_scale(self, x: Tensor | QuantTensor, weight: Tensor | QuantTensor) -> Tensor | None:
        """``input scale · weight scale``: 0-dim, or ``(O,)``; ``None`` where either is not quantized per tensor / channel."""
        if not (isinstance(x, QuantTensor) and isinstance(weight, QuantTensor)) or x.scale.numel() > 1:
            return None
        return x.scale.reshape(()) * weight.scale.reshape(() if weight.scale.numel() == 1 else (-1,))

    def _no_scale(self, what: str, x: Tensor | QuantTensor, weight: Tensor | QuantTensor) -> InputError:
        """Why the accumulator has no scale."""
        if not isinstance(weight, QuantTensor):
            reason, fix = "the weight is not quantized", "Set weight_quant, and do not disable it."
        elif not isinstance(x, QuantTensor):
            reason = "the input is a plain tensor"
            fix = (
                "Set input_quant on this layer, or return_quant_tensor=True on the layer before it; what dropout gives in "
                "training, and a sum of two scales, must be quantized again."
            )
        else:
            reason, fix = "the input has a scale for each channel", "Quantize the input per tensor."
        return InputError(
            what, where=type(self).__name__, why=f"its scale is input scale · weight scale, and {reason}", fix=fix
        )

    def _accumulator(
        self,
        out: Tensor,
        x: Tensor | QuantTensor,
        weight: Tensor | QuantTensor,
        bias: Tensor | QuantTensor | None,
        scale: Tensor | None,
    ) -> QuantTensor:
        if scale is None or not (isinstance(x, QuantTensor) and isinstance(weight, QuantTensor)):
            raise self._no_scale(
                "the output cannot be returned as a quantized tensor without an output quantizer", x, weight
            )
        bit_width = accumulator_bit_width(x, weight, terms=self._terms())
        zero_point = torch.zeros_like(scale)
        symmetric = x.symmetric and weight.symmetric and (bias is None or isinstance(bias, QuantTensor))
        if isinstance(bias, QuantTensor):
            bit_width = torch.maximum(bit_width, bias.bit_width) + 1
        elif bias is not None:
            zero_point = -bias / scale  # a float bias shifts the grid by a fraction of a step
        shape = self._channel_shape(out)
        return QuantTensor(
            out,
            scale.reshape(shape) if scale.dim() else scale,
            zero_point.reshape(shape) if zero_point.dim() else zero_point,
            bit_width,
            signed=x.signed or weight.signed,
            training=self.training,
            symmetric=symmetric,
            zero_on_grid=symmetric,
        )


def _value(x: Tensor | QuantTensor) -> Tensor:
    return x.value if isinstance(x, QuantTensor) else x
