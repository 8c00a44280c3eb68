"""Average pooling in integers: sums of windows, shifted to fewer bits."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.proxies import AccumulatorQuantProxy
from quant_core.quant import RoundTo8bit
from quant_core.tensor import QuantTensor
from quant_core.tensor.grids import constant_along, is_wide
from quant_nn.layer import QuantLayer
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy

Size = int | tuple[int, int]


class TruncPool(QuantLayer):
    """What both layers share: the mean of ``n`` integers is their sum at ``1 / n`` of the scale, of which low bits are dropped.

        q_y = trunc(Σ q_x),    s_y = s_x · 2^k / n

    ``k`` bits are dropped so that ``bit_width`` bits are left.
    """

    trunc_quant: AccumulatorQuantProxy | None

    def _init_trunc(self, trunc_quant: Quantizer, return_quant_tensor: bool, options: dict[str, Any]) -> None:
        found = split_options(type(self), options, {"": trunc_quant})[""]
        self.return_quant_tensor = return_quant_tensor
        proxy = build_proxy(self, trunc_quant, "", found, name="trunc_quant", kind="accumulator")
        assert proxy is None or isinstance(proxy, AccumulatorQuantProxy)
        self.trunc_quant = proxy

    def _truncated(self, x: Tensor | QuantTensor, pooled: Tensor | QuantTensor) -> Tensor | QuantTensor:
        if self.trunc_quant is None or not self.trunc_quant.is_quant_enabled:
            return self._hand_on(pooled)
        if isinstance(x, QuantTensor) and not isinstance(pooled, QuantTensor):
            raise self._no_common_scale(x)
        return self._hand_on(self.trunc_quant(pooled))  # it says what it thinks of plain ones

    def _no_common_scale(self, x: QuantTensor) -> InputError:
        if x.float_format is not None:
            reason, fix = "those of minifloats are not equally far apart", "Use an integer quantizer before this layer."
        elif not is_wide(x.value):
            reason, fix = f"{x.dtype} does not tell the sums apart", "Compute in float32."
        elif not constant_along(x, (-2, -1)):
            reason, fix = "the scale of the input varies in space", "Quantize the input per tensor or per channel."
        else:
            reason = f"an input of shape {tuple(x.shape)} gives windows that hold different numbers of elements"
            fix = "Use an output size that divides the input, no ceil_mode, and padding that is counted."
        return InputError(
            "the windows have no common scale",
            where=self._named(),
            why=f"the mean of n integers has 1 / n of their scale, and {reason}",
            fix=fix,
        )


class TruncAvgPool2d(TruncPool, nn.AvgPool2d):  # forward takes quantized tensors
    """:class:`torch.nn.AvgPool2d` of integers, with fewer bits in its result: by default the 8 most significant ones, rounded.

    Args:
        kernel_size: the size of the window.
        stride: the distance of windows; ``kernel_size`` by default.
        padding: how many zeros are added at the edges.
        ceil_mode: let the last window reach beyond the edge; only without ``trunc_quant``.
        count_include_pad: count the zeros at the edges; not counting them only without ``trunc_quant``.
        divisor_override: divide by this number instead of that of the elements.
        trunc_quant: how bits are dropped, or ``None`` to keep all.
        return_quant_tensor: return a ``QuantTensor`` instead of its value.
        **options: options of ``trunc_quant`` by their name.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        InputError: from ``forward``, for a plain tensor, and for windows without a common scale.

    >>> import quant_nn as qnn, torch
    >>> x = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)(torch.rand(1, 1, 4, 4))
    >>> y = TruncAvgPool2d(2, bit_width=4)(x)
    >>> y.shape, y.bit_width, bool(y.scale == x.scale)
    (torch.Size([1, 1, 2, 2]), tensor(4.), True)
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        trunc_quant: Quantizer = RoundTo8bit,
        return_quant_tensor: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self._init_trunc(trunc_quant, return_quant_tensor, options)

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:  # type: ignore[override]
        """``(N, C, H, W)`` or ``(C, H, W)``, quantized; returns the mean of each window on a coarser grid."""
        return self._truncated(input, nn.AvgPool2d.forward(self, input))  # type: ignore[arg-type]  # by its rule


class TruncAdaptiveAvgPool2d(TruncPool, nn.AdaptiveAvgPool2d):  # forward takes quantized tensors
    """:class:`torch.nn.AdaptiveAvgPool2d` of integers, with fewer bits in its result: by default the 8 most significant ones.

    Args:
        output_size: the size of the output, which divides that of the input.
        trunc_quant: how bits are dropped, or ``None`` to keep all.
        return_quant_tensor: return a ``QuantTensor`` instead of its value.
        **options: options of ``trunc_quant`` by their name.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        InputError: from ``forward``, for a plain tensor, and for an output size that does not divide the input.

    >>> import quant_nn as qnn, torch
    >>> x = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)(torch.rand(1, 1, 7, 7))
    >>> y = TruncAdaptiveAvgPool2d(1, bit_width=4)(x)
    >>> y.shape, y.bit_width
    (torch.Size([1, 1, 1, 1]), tensor(4.))
    """

    def __init__(
        self,
        output_size: Size | tuple[int | None, int | None],
        trunc_quant: Quantizer = RoundTo8bit,
        return_quant_tensor: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(output_size)
        self._init_trunc(trunc_quant, return_quant_tensor, options)

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:  # type: ignore[override]
        """``(N, C, H, W)`` or ``(C, H, W)``, quantized; returns the mean of each window on a coarser grid."""
        return self._truncated(input, F.adaptive_avg_pool2d(input, self.output_size))  # type: ignore[arg-type]
