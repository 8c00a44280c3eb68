"""What all layers with a weight share: four quantizers around one linear operation.

The layer computes ``output_quant(op(input_quant(x), weight_quant(w)) + bias_quant(b))``. With a quantized input and weight, the
result of the operation lies on the grid ``input scale · weight scale``; that is the scale of a quantized bias, and of the
output when no output quantizer is set and ``return_quant_tensor`` is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError, InputError
from quant_core.inject import Injector
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor, accumulator_bit_width
from quant_nn.options import split_options

Quantizer = type[Injector] | QuantProxy | None
"""What a layer takes as a quantizer: an injector, the proxy of another layer to share, or nothing."""


def build_proxy(layer: nn.Module, quantizer: Quantizer, prefix: str, options: dict[str, Any]) -> QuantProxy | None:
    """The proxy of a layer: built from an injector with options, or shared with the layer that it came from.

    Raises:
        ConfigurationError: when options are given for a shared proxy, or the quantizer is neither.
    """
    if quantizer is None:
        return None
    if isinstance(quantizer, QuantProxy):
        if options:
            names = ", ".join(f"{prefix}{name}" for name in options)
            raise ConfigurationError(
                f"a shared quantizer takes no options, got {names}",
                where=type(layer).__name__,
                why=f"{prefix}quant is the proxy of another layer, which has its options already",
                fix="Set the options on the first layer, or pass the quantizer class to both.",
            )
        wanted = {"weight_": "weight", "bias_": "bias"}.get(prefix, "activation")
        if quantizer.kind not in ("", wanted):
            raise ConfigurationError(
                f"{prefix or 'act_'}quant is the proxy of {quantizer.kind} quantization",
                where=type(layer).__name__,
                why=f"a {quantizer.kind} proxy cannot quantize the {wanted} of a layer",
                fix=f"Share the {prefix or 'act_'}quant of the other layer.",
            )
        quantizer.add_owner(layer)
        return quantizer
    if not (isinstance(quantizer, type) and issubclass(quantizer, Injector)):
        raise ConfigurationError(
            f"{prefix or 'act_'}quant={quantizer!r} is not a quantizer",
            where=type(layer).__name__,
            why="a quantizer is a subclass of quant_core.inject.Injector, or the proxy of another layer",
            fix="Pass a class such as quant_core.quant.Int8WeightPerTensorFloat, without calling it.",
        )
    configured = quantizer.let(**options) if options else quantizer
    proxy: QuantProxy = configured.proxy_class(layer, configured, prefix)
    return proxy


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
        for prefix, quantizer in quantizers.items():
            setattr(self, f"{prefix}quant", build_proxy(self, quantizer, prefix, sorted_options[prefix]))

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

    def _accumulator(
        self,
        out: Tensor,
        x: Tensor | QuantTensor,
        weight: Tensor | QuantTensor,
        bias: Tensor | QuantTensor | None,
        scale: Tensor | None,
    ) -> QuantTensor:
        if scale is None or not (isinstance(x, QuantTensor) and isinstance(weight, QuantTensor)):
            raise InputError(
                "the output cannot be returned as a quantized tensor",
                where=type(self).__name__,
                why="without an output quantizer its scale is input scale · weight scale, and the input or the weight is not "
                "quantized per tensor",
                fix="Set input_quant or output_quant on this layer, or return_quant_tensor=True on the layer before it.",
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
