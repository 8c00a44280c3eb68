"""Half-quadratic optimization of the threshold, see :mod:`quant_core.components.stats.half_quadratic`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.bit_width import BitWidth
from quant_core.components.granularity import PerTensor
from quant_core.components.int_scaling import int_scaling_for
from quant_core.components.restriction import SMALLEST_THRESHOLD
from quant_core.components.stats.extrema import AbsMax
from quant_core.components.stats.grid_search import GridSearch, check_count
from quant_core.components.stats.half_quadratic import check_within, shrink
from quant_core.components.stats.statistic import Grouping, Statistic
from quant_core.ops.integer import quantize_levels


class HalfQuadraticOptimizerScale(GridSearch):
    """The threshold that minimises ``Σ |x − Q(x)|^p`` with ``p < 1``, which forgives outliers; the zero-point is 0.

    With integers ``q`` and scale ``s`` it repeats

    - ``e ← shrink(x − Q(x)) = sign(·) · max(|·| − |·|^(p−1)/β, 0)``,
    - ``s ← median of (x − e)/q`` over the elements whose ``q`` is not 0 (of two in the middle the smaller),
    - ``β ← κ·β``,

    from the statistic ``t₀`` on, as long as the mean of ``|x − Q(x)|`` over all rows falls, and keeps the best.

    Gradient: none.

    Args:
        bit_width_impl: where the bit width comes from.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        hqo_init_op_scale: the statistic ``t₀``; :class:`~quant_core.components.AbsMax` if left out.
        hqo_beta_scale: ``β`` of the first step, positive.
        hqo_kappa_scale: ``κ``, at least 1.
        hqo_lp_norm_scale: ``p``, above 0 and at most 1.
        hqo_iters_scale: the largest number of steps.
        int_scaling_impl: what the threshold is divided by; as for :class:`~quant_core.components.IntQuant`.
        granularity: which elements share a scale.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> from quant_core.components import ConstBitWidth
    >>> search = HalfQuadraticOptimizerScale(ConstBitWidth(2), signed=True, narrow_range=True, hqo_beta_scale=1.0)
    >>> search(torch.tensor([-0.9, 0.1, 0.9, 1.0, -0.9, 1.1]))
    tensor(0.9000)
    """

    def __init__(
        self,
        bit_width_impl: BitWidth,
        signed: bool,
        narrow_range: bool = False,
        rounding_mode: str = "ROUND",
        hqo_init_op_scale: Statistic | None = None,
        hqo_beta_scale: float = 1e5,
        hqo_kappa_scale: float = 1.01,
        hqo_lp_norm_scale: float = 0.7,
        hqo_iters_scale: int = 1000,
        int_scaling_impl: nn.Module | None = None,
        granularity: Grouping = PerTensor(),  # noqa: B008
    ) -> None:
        super().__init__(bit_width_impl, signed, narrow_range, rounding_mode, True, granularity)
        self.hqo_init_op_scale = AbsMax(granularity) if hqo_init_op_scale is None else hqo_init_op_scale
        self.beta = check_within("hqo_beta_scale", hqo_beta_scale, hqo_beta_scale > 0, "positive")
        self.kappa = check_within("hqo_kappa_scale", hqo_kappa_scale, hqo_kappa_scale >= 1, "at least 1")
        positive = 0 < hqo_lp_norm_scale <= 1
        self.lp_norm = check_within("hqo_lp_norm_scale", hqo_lp_norm_scale, positive, "above 0 and at most 1")
        self.hqo_iters_scale = check_count("hqo_iters_scale", hqo_iters_scale)
        self.int_scaling_impl = int_scaling_for(int_scaling_impl, None, signed, narrow_range)

    def of_rows(self, rows: Tensor) -> Tensor:
        """The best threshold of each row."""
        rows = rows.detach()
        start = self.hqo_init_op_scale.of_rows(rows).clamp(min=SMALLEST_THRESHOLD)
        low, high, magnitude = (
            torch.as_tensor(end, dtype=rows.dtype, device=rows.device)
            for end in (*self.range(), self.int_scaling_impl(self.bits()))
        )
        found: Tensor = torch.ops.quant_core.half_quadratic_scale(
            rows,
            start,
            low,
            high,
            magnitude,
            self.rounding_mode,
            [self.beta, self.kappa, self.lp_norm],
            self.hqo_iters_scale,
        )
        return found

    def extra_repr(self) -> str:
        """The options."""
        return f"beta={self.beta:g}, kappa={self.kappa:g}, lp_norm={self.lp_norm:g}, iters={self.hqo_iters_scale}"


_library = torch.library.Library("quant_core", "FRAGMENT")
_library.define(
    "half_quadratic_scale(Tensor rows, Tensor threshold, Tensor low, Tensor high, Tensor magnitude, str rounding_mode, "
    "float[] options, int iters) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


def _half_quadratic_scale(
    rows: Tensor,
    threshold: Tensor,
    low: Tensor,
    high: Tensor,
    magnitude: Tensor,
    rounding_mode: str,
    options: list[float],
    iters: int,
) -> Tensor:
    """The search itself; an op, because a graph cannot stop a loop when the error rises."""
    beta, kappa, lp_norm = options
    best, smallest = threshold, float("inf")
    for _ in range(iters):
        step = (threshold / magnitude).unsqueeze(1)
        levels = quantize_levels(rows, step, 0, low, high, rounding_mode)
        quantized = levels * step
        error = float((quantized - rows).abs().mean())
        if not error < smallest:
            break
        best, smallest = threshold, error
        kept = shrink(rows - quantized, beta, lp_norm)
        steps = torch.where(levels == 0, torch.nan, (rows - kept) / levels).nanmedian(dim=1).values
        # A row of which all is level 0 has no step; it keeps its own.
        threshold = torch.where(steps > 0, steps * magnitude, threshold)
        beta *= kappa
    return best.clone()


def _half_quadratic_scale_shape(rows: Tensor, *_: object) -> Tensor:
    return rows.new_empty(rows.shape[:1])


_library.impl("half_quadratic_scale", _half_quadratic_scale, "CompositeExplicitAutograd")
torch.library.register_fake("quant_core::half_quadratic_scale", _half_quadratic_scale_shape, lib=_library)
