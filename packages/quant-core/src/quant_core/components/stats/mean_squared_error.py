"""Search for the grid with the smallest squared error of quantization, on a fixed set of candidates."""

from __future__ import annotations

from torch import Tensor, nn

from quant_core.components.bit_width import BitWidth
from quant_core.components.granularity import PerTensor
from quant_core.components.int_scaling import int_scaling_for
from quant_core.components.restriction import SMALLEST_THRESHOLD, FloatRestriction, Restriction
from quant_core.components.stats.extrema import AbsMax, NegativeMinOrZero
from quant_core.components.stats.grid_search import GridSearch, best_between, check_count
from quant_core.components.stats.statistic import Grouping, Statistic


class MSE(GridSearch):
    """The threshold ``t`` of ``i/n · t₀``, ``i = 1 … n``, with the smallest mean of ``(x − Q_t(x))²``.

    ``t₀`` is a statistic such as the largest magnitude, beyond which there is nothing to gain. Where thresholds are restricted,
    to powers of two for example, the error is that of the restricted one. With a zero-point, the lowest integer stands for its
    statistic whatever the threshold. Of equal errors the smallest threshold wins.

    Gradient: none; the threshold is a constant of the backward pass.

    Args:
        bit_width_impl: where the bit width comes from.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        mse_init_op: the statistic ``t₀``; :class:`~quant_core.components.AbsMax` if left out.
        mse_zero_point_init_op: the statistic that the lowest integer stands for; ``None`` for the zero-point 0.
        quantize_zero_point: whether the zero-point is rounded and clamped.
        mse_iters: ``n``, the number of candidates.
        restrict_scaling_impl: which numbers the threshold may be.
        mse_restricted: whether thresholds are tried as they are restricted. A scale that is collected from activations is not
            restricted before it is learned, so that there the thresholds are tried as they are.
        int_scaling_impl: what the threshold is divided by; as for :class:`~quant_core.components.IntQuant`.
        granularity: which elements share a scale.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> import torch
    >>> from quant_core.components import ConstBitWidth
    >>> x = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([4.0])])
    >>> MSE(ConstBitWidth(4), signed=True)(x)
    tensor(1.8000)
    """

    def __init__(
        self,
        bit_width_impl: BitWidth,
        signed: bool,
        narrow_range: bool = False,
        rounding_mode: str = "ROUND",
        mse_init_op: Statistic | None = None,
        mse_zero_point_init_op: Statistic | None = None,
        quantize_zero_point: bool = True,
        mse_iters: int = 20,
        restrict_scaling_impl: Restriction | None = None,
        mse_restricted: bool = True,
        int_scaling_impl: nn.Module | None = None,
        granularity: Grouping = PerTensor(),  # noqa: B008
    ) -> None:
        super().__init__(bit_width_impl, signed, narrow_range, rounding_mode, quantize_zero_point, granularity)
        self.mse_init_op = AbsMax(granularity) if mse_init_op is None else mse_init_op
        self.mse_zero_point_init_op = mse_zero_point_init_op
        self.mse_iters = check_count("mse_iters", mse_iters)
        self.int_scaling_impl = int_scaling_for(int_scaling_impl, restrict_scaling_impl, signed, narrow_range)
        restricted = restrict_scaling_impl if mse_restricted else None
        self.restrict_scaling_impl = FloatRestriction() if restricted is None else restricted

    def of_rows(self, rows: Tensor) -> Tensor:
        """The best threshold of each row."""
        rows = rows.detach()
        largest = self.mse_init_op.of_rows(rows)
        zero = self.mse_zero_point_init_op
        lowest = None if zero is None else zero.of_rows(rows)
        magnitude = self.int_scaling_impl(self.bits())

        def error(threshold: Tensor) -> Tensor:
            # A row of zeros has the threshold 0; any scale will do for it.
            restricted = self.restrict_scaling_impl.of_threshold(threshold.clamp(min=SMALLEST_THRESHOLD))
            return (rows - self.quantized(rows, restricted / magnitude, lowest)).square().mean(dim=1)

        return best_between(largest / self.mse_iters, largest, self.mse_iters, error)

    def extra_repr(self) -> str:
        """The number of candidates."""
        return f"mse_iters={self.mse_iters}"


class MSEZeroPoint(GridSearch):
    """The lowest real number ``v`` of ``i/n · v₀``, ``i = n … 1``, with the smallest mean of ``(x − Q_v(x))²``.

    The scale is given. ``v₀`` is a statistic such as the smallest element. Of equal errors the one closest to it wins.

    Gradient: none.

    Args:
        bit_width_impl: where the bit width comes from.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        mse_zero_point_init_op: the statistic ``v₀``; :class:`~quant_core.components.NegativeMinOrZero` if left out.
        quantize_zero_point: whether the zero-point is rounded and clamped.
        mse_iters: ``n``, the number of candidates.
        granularity: which elements share a zero-point.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> import torch
    >>> from quant_core.components import ConstBitWidth
    >>> x = torch.cat([torch.linspace(0, 1, 999), torch.tensor([-4.0])])
    >>> MSEZeroPoint(ConstBitWidth(4), signed=False).on_grid(x, torch.tensor(1 / 15))
    tensor(-0.2000)
    """

    needs_scale = True

    def __init__(
        self,
        bit_width_impl: BitWidth,
        signed: bool,
        narrow_range: bool = False,
        rounding_mode: str = "ROUND",
        mse_zero_point_init_op: Statistic | None = None,
        quantize_zero_point: bool = True,
        mse_iters: int = 20,
        granularity: Grouping = PerTensor(),  # noqa: B008
    ) -> None:
        super().__init__(bit_width_impl, signed, narrow_range, rounding_mode, quantize_zero_point, granularity)
        own = mse_zero_point_init_op
        self.mse_zero_point_init_op = NegativeMinOrZero(granularity) if own is None else own
        self.mse_iters = check_count("mse_iters", mse_iters)

    def of_rows_on_grid(self, rows: Tensor, scale: Tensor) -> Tensor:
        """The best of each row: ``rows`` ``(R, n)``, ``scale`` one element or ``(R,)``."""
        rows, scale = rows.detach(), scale.detach()
        start = self.mse_zero_point_init_op.of_rows(rows)

        def error(lowest: Tensor) -> Tensor:
            return (rows - self.quantized(rows, scale, lowest)).square().mean(dim=1)

        return best_between(start, start / self.mse_iters, self.mse_iters, error)

    def extra_repr(self) -> str:
        """The number of candidates."""
        return f"mse_iters={self.mse_iters}"
