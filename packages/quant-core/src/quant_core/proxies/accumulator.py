"""The proxy between an accumulator and its quantizer: what comes in is quantized already, and gets another grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from quant_core.components import AccumulatorQuant
from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies.proxy import QuantProxy
from quant_core.tensor import QuantTensor


class AccumulatorQuantProxy(QuantProxy):
    """Base of the proxies of accumulators.

    ``forward(x)`` takes a :class:`~quant_core.tensor.QuantTensor` with the zero-point 0 and returns one that is signed if ``x``
    is; or ``x`` as it is when nothing is quantized.
    """

    kind = "accumulator"
    roots: Mapping[str, bool] = {"tensor_quant": True}

    def forward(self, x: QuantTensor) -> QuantTensor:
        """The accumulator with fewer bits.

        Raises:
            InputError: when ``x`` is no quantized tensor or one of minifloats, or its zero-point may differ from 0.
        """
        if not self.is_quant_enabled:
            return x
        self._check(x)
        value, scale, zero_point, bit_width = self.tensor_quant(x.value, x.scale, x.bit_width, x.signed)
        return QuantTensor(
            value,
            scale,
            zero_point,
            bit_width,
            signed=x.signed,
            narrow_range=self.narrow_range,
            training=self.training,
            symmetric=True,
            zero_on_grid=True,
        )

    def _read_kind(self, built: Mapping[str, Any]) -> None:
        quant = built["tensor_quant"]
        if quant is None:
            return
        if not isinstance(quant, AccumulatorQuant):
            raise ConfigurationError(
                f"{type(quant).__name__} does not quantize accumulators",
                where=type(self.owners[0]).__name__,
                why="it takes a float tensor, and an accumulator is quantized already",
                fix="Use TruncIntQuant or ClampIntQuant, or derive from quant_core.components.AccumulatorQuant.",
            )
        self.narrow_range = quant.narrow_range

    def _check(self, x: QuantTensor | Tensor) -> None:
        place = type(self.owners[0]).__name__
        if not isinstance(x, QuantTensor):
            raise InputError(
                "a plain tensor has no bits to drop",
                where=place,
                why="the integers of an accumulator are known from its scale, and this tensor has none",
                fix="Set return_quant_tensor=True on the layer before it.",
            )
        if x.float_format is not None:
            raise InputError(
                "minifloats have no bits to drop",
                where=place,
                why=f"they are numbers of {x.float_format} times the scale, and only those of integers can be dropped",
                fix="Leave this layer out, or use integer quantizers before it.",
            )
        if not x.symmetric:
            raise InputError(
                "bits of integers with a zero-point cannot be dropped",
                where=place,
                why="the zero-point of this tensor may differ from 0; with fewer bits the real number 0 would leave the grid",
                fix="Set bias_quant on the layer before it, and use quantizers without a zero-point.",
            )


class TruncQuantProxyFromInjector(AccumulatorQuantProxy):
    """Drops the low bits of an accumulator; see :class:`~quant_core.components.TruncIntQuant`."""


class ClampQuantProxyFromInjector(AccumulatorQuantProxy):
    """Drops the high bits of an accumulator; see :class:`~quant_core.components.ClampIntQuant`."""
