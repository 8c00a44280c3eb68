"""What all layers with a weight share: four quantizers around one linear operation.

The layer computes ``output_quant(op(input_quant(x), weight_quant(w)) + bias_quant(b))``. With a quantized input and weight, the
result of the operation lies on the grid ``input scale · weight scale``; that is the scale of a quantized bias, and of the
output when no output quantizer is set and ``return_quant_tensor`` is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.errors import InputError
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor, accumulator_bit_width
from quant_nn.accumulation import Accumulator, accumulator_of, accumulator_scale, no_scale
from quant_nn.layer import QuantLayer, value_of, values_of
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy


class QuantWeightLayer(QuantLayer):
    """Mixin for layers with a weight and an optional bias; the float layer comes after it among the bases.

    Attributes:
        output_channel_dim: the axis of the weight that holds the output channels.
        option_prefix: what stands before its options where a layer around it takes them, for messages.
        return_quant_tensor: whether ``forward`` returns a ``QuantTensor``.
        input_quant, weight_quant, bias_quant, output_quant: the proxies, ``None`` where nothing is quantized.
    """

    weight: Tensor
    output_channel_dim: int = 0
    option_prefix: str = ""
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
        if "quant_desc_input" in options or "quant_desc_weight" in options:
            from quant_nn.toolkit.in_layers import described  # few layers are described so

            weight_quant, input_quant = described(self, options, weight_quant, input_quant)
        biased = self._bias() is not None
        if not biased:
            bias_quant = None
        quantizers = {"weight_": weight_quant, "bias_": bias_quant, "input_": input_quant, "output_": output_quant}
        absent = {} if biased else {"bias_": "this layer has no bias"}
        sorted_options = split_options(type(self), options, quantizers, absent)
        self.return_quant_tensor = return_quant_tensor
        # Shared proxies come last, so that a layer that cannot be built does not become an owner of one.
        for prefix in sorted(quantizers, key=lambda prefix: isinstance(quantizers[prefix], QuantProxy)):
            setattr(self, f"{prefix}quant", build_proxy(self, quantizers[prefix], prefix, sorted_options[prefix]))

    def quant_weight(self, input: QuantTensor | Tensor | None = None) -> QuantTensor | Tensor:
        """The quantized weight; the float one where weight quantization is off.

        Args:
            input: the input that it is meant for, where a quantizer bounds the weight by the bits of the input and the layer has
                no ``input_quant`` that tells them.
        """
        quantizer = self.weight_quant
        return self.weight if quantizer is None else quantizer(self.weight, input)

    def accumulator(self, input: Tensor | QuantTensor) -> Accumulator:
        """What the accumulator must hold: from the integers of the weight and the range of the input, for any input of it.

        Args:
            input: an example of the input; only its grid is read. No statistics are collected from it.

        Raises:
            InputError: when the input or the weight is not quantized, or the input does not fit.

        >>> import torch, quant_nn as qnn
        >>> from quant_core.quant import Int8ActPerTensorFloat
        >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_bit_width=4, input_quant=Int8ActPerTensorFloat)
        >>> _ = torch.nn.init.ones_(layer.weight)
        >>> accumulator = layer.accumulator(torch.ones(1, 2))
        >>> int(accumulator.low), int(accumulator.high), int(accumulator.bit_width)
        (-1792, 1778, 12)
        """
        from quant_core.export.eval_mode import in_eval_mode  # loads what only a look at the model needs

        with torch.no_grad(), in_eval_mode(self):
            x = input if self.input_quant is None else self.input_quant(input)
            self._check_input(x.shape)
            weight, scale, bias = self._quantized_parameters(x)
            if scale is None or not (isinstance(x, QuantTensor) and isinstance(weight, QuantTensor)):
                raise self._no_scale("the accumulator has no scale", x, weight)
            integers = weight.int(float_datatype=True).to(torch.float64) - weight.zero_point
            on_grid = (
                bias.int().to(torch.float64) if isinstance(bias, QuantTensor) and self._bias_is_on_grid() else None
            )
            return accumulator_of(x, self._rows(integers), on_grid, scale, weight_signed=weight.signed)

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """Quantize, compute, quantize.

        Args:
            input: float tensor or ``QuantTensor``, in the shape that the float layer takes.

        Raises:
            InputError: when the input does not fit the layer, or a quantized bias has no scale.
        """
        return self._compute(input)

    def _compute(self, input: Tensor | QuantTensor, **how: Any) -> Tensor | QuantTensor:
        """``forward``, with what the operation takes besides."""
        self._check_is_one(input)
        x = input if self.input_quant is None else self.input_quant(input)
        self._check_input(x.shape)
        tells_grid = self.return_quant_tensor and self.output_quant is None
        if not tells_grid and self.bias_quant is None:
            return self._output(self._operation(value_of(x), self._weight_values(x), self._bias(), **how))
        weight, scale, bias = self._quantized_parameters(x)
        out = self._operation(value_of(x), value_of(weight), None if bias is None else value_of(bias), **how)
        return self._on_its_grid(out, x, weight, bias, scale) if tells_grid else self._output(out)

    def _output(self, out: Tensor) -> Tensor | QuantTensor:
        """What is handed on where the grid is not that of the accumulator."""
        if self.output_quant is None:
            return out
        return self.output_quant(out) if self.return_quant_tensor else values_of(self.output_quant, out)

    def _weight_values(self, x: Tensor | QuantTensor) -> Tensor:
        """The quantized weight where nobody asks for its grid."""
        quantizer = self.weight_quant
        if quantizer is None or type(self).quant_weight is not QuantWeightLayer.quant_weight:
            return value_of(self.quant_weight(x))
        return values_of(quantizer, self.weight, x)

    def _quantized_parameters(
        self, x: Tensor | QuantTensor
    ) -> tuple[Tensor | QuantTensor, Tensor | None, Tensor | QuantTensor | None]:
        """The weight, the scale of its products with ``x``, and the bias."""
        weight = self.quant_weight(x)
        scale = self._accumulator_scale(x, weight)
        return weight, scale, self._quantized_bias(self._bias(), scale, x, weight)

    def _quantized_bias(
        self, bias: Tensor | None, scale: Tensor | None, x: Tensor | QuantTensor, weight: Tensor | QuantTensor
    ) -> Tensor | QuantTensor | None:
        """The bias, or elements of it, at the scale of the products."""
        if bias is None or self.bias_quant is None:
            return bias
        if scale is None and self.bias_quant.is_quant_enabled and self._bias_is_on_grid():
            raise self._no_scale("the bias cannot be quantized", x, weight)
        quantized: Tensor | QuantTensor = self.bias_quant(bias, scale)
        return quantized

    def _bias(self) -> Tensor | None:
        bias: Tensor | None = getattr(self, "bias", None)  # not always a parameter: a parametrization computes it
        return bias

    def _bias_is_on_grid(self) -> bool:
        """Whether a quantized bias takes the scale of the accumulator, and none of its own."""
        return bool(getattr(self.bias_quant, "requires_input_scale", True))

    def _operation(self, x: Tensor, weight: Tensor, bias: Tensor | None, **how: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _operation(x, weight, bias)")

    def _check_input(self, shape: torch.Size) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define _check_input(shape)")

    def _channel_shape(self, out: Tensor) -> tuple[int, ...]:
        """The shape of a tensor with one element for each output channel, broadcastable to ``out``."""
        raise NotImplementedError(f"{type(self).__name__} must define _channel_shape(out)")

    def _rows(self, weight: Tensor) -> Tensor:
        """The weight with one row for each output channel: all factors of one output element."""
        return weight.flatten(1)

    def _terms(self) -> int:
        """How many products are added up for one output element."""
        return self.weight[0].numel()

    def _accumulator_scale(self, x: Tensor | QuantTensor, weight: Tensor | QuantTensor) -> Tensor | None:
        """``input scale · weight scale``: 0-dim, or ``(O,)``; ``None`` where there is none."""
        return accumulator_scale(x, weight)

    def _no_scale(self, what: str, x: Tensor | QuantTensor, weight: Tensor | QuantTensor) -> InputError:
        """Why the accumulator has no scale."""
        return no_scale(what, self._named(), x, weight, prefix=self.option_prefix)

    def _on_its_grid(
        self,
        out: Tensor,
        x: Tensor | QuantTensor,
        weight: Tensor | QuantTensor,
        bias: Tensor | QuantTensor | None,
        scale: Tensor | None,
    ) -> QuantTensor:
        """The accumulator with its grid; a bias that is not on it shifts it by a fraction of a step."""
        if scale is None or not (isinstance(x, QuantTensor) and isinstance(weight, QuantTensor)):
            raise self._no_scale(
                "the output cannot be returned as a quantized tensor without an output quantizer", x, weight
            )
        bit_width = accumulator_bit_width(x, weight, terms=self._terms())
        zero_point = torch.zeros_like(scale)
        shifted = bias is not None and not (isinstance(bias, QuantTensor) and self._bias_is_on_grid())
        if shifted:
            zero_point = -value_of(bias) / scale  # type: ignore[arg-type]  # there is one
        elif isinstance(bias, QuantTensor):
            bit_width = torch.maximum(bit_width, bias.bit_width) + 1
        shape = self._channel_shape(out)
        return QuantTensor(
            out,
            scale.reshape(shape) if scale.dim() else scale,
            zero_point.reshape(shape) if zero_point.dim() else zero_point,
            bit_width,
            signed=x.signed or weight.signed or not (x.symmetric and weight.symmetric),
            training=self.training,
            symmetric=not shifted,
            zero_on_grid=not shifted,
        )
