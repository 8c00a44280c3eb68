"""Named quantizers of biases."""

from __future__ import annotations

from quant_core.components import ConstBitWidth, PrescaledIntQuant
from quant_core.inject import Injector
from quant_core.proxies import BiasQuantProxyFromInjector


class Int8Bias(Injector):
    """Signed integers at the scale of the accumulator, ``input scale · weight scale``; the input must be quantized.

    Options (``bias_`` in front when given to a layer): ``bit_width``, ``narrow_range``, ``rounding_mode``,
    ``quant_delay_steps``, and any component by its name.

    >>> Int8Bias.bit_width
    8
    """

    proxy_class = BiasQuantProxyFromInjector
    tensor_quant = PrescaledIntQuant
    bit_width_impl = ConstBitWidth
    bit_width = 8
    signed = True
    narrow_range = False
    rounding_mode = "ROUND"
    clamp_gradient = "masked"
    quant_delay_steps = 0


class Int16Bias(Int8Bias):
    """As :class:`Int8Bias`, with 16 bits."""

    bit_width = 16


class Int32Bias(Int8Bias):
    """As :class:`Int8Bias`, with 32 bits."""

    bit_width = 32
