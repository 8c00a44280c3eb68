"""Half-quadratic optimization: a zero-point for which few elements have a large error, found without data.

Badri and Shaji, "Half-quadratic quantization of large machine learning models", 2023, equations 3 to 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.components.bit_width import BitWidth
from quant_core.components.granularity import PerTensor
from quant_core.components.stats.extrema import NegativeMinOrZero
from quant_core.components.stats.grid_search import GridSearch, check_count
from quant_core.components.stats.statistic import Grouping, Statistic
from quant_core.errors import ConfigurationError
from quant_core.ops.integer import quantize_levels


class HalfQuadraticOptimizerZeroPoint(GridSearch):
    """The lowest real number that minimises ``Σ |x − Q(x)|^p`` with ``p < 1``, which forgives outliers, at the given scale.

    With integers ``q``, of which ``lo`` is the lowest, it repeats

    - ``e ← shrink(x − Q(x)) = sign(·) · max(|·| − |·|^(p−1)/β, 0)``,
    - ``v ← mean((x − e) − (q − lo)·scale)``,
    - ``β ← κ·β``,

    from the statistic ``v₀`` on, as long as the mean of ``|x − Q(x)|`` over all rows falls, and keeps the best. The zero-point is
    not rounded on the way, so that it serves a quantizer with ``quantize_zero_point=False``.

    Gradient: none.

    Args:
        bit_width_impl: where the bit width comes from.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        hqo_init_op_zp: the statistic ``v₀``; :class:`~quant_core.components.NegativeMinOrZero` if left out.
        hqo_beta_zp: ``β`` of the first step, positive.
        hqo_kappa_zp: ``κ``, at least 1.
        hqo_lp_norm_zp: ``p``, above 0 and at most 1.
        hqo_iters_zp: the largest number of steps.
        granularity: which elements share a zero-point.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> from quant_core.components import ConstBitWidth
    >>> search = HalfQuadraticOptimizerZeroPoint(ConstBitWidth(2), signed=False)
    >>> search.on_grid(torch.tensor([-1.4, -0.2, 0.8, 1.8]), torch.tensor(1.0))
    tensor(-1.2500)
    """

    needs_scale = True

    def __init__(
        self,
        bit_width_impl: BitWidth,
        signed: bool,
        narrow_range: bool = False,
        rounding_mode: str = "ROUND",
        hqo_init_op_zp: Statistic | None = None,
        hqo_beta_zp: float = 1.0,
        hqo_kappa_zp: float = 1.01,
        hqo_lp_norm_zp: float = 0.5,
        hqo_iters_zp: int = 1000,
        granularity: Grouping = PerTensor(),  # noqa: B008
    ) -> None:
        super().__init__(bit_width_impl, signed, narrow_range, rounding_mode, False, granularity)
        self.hqo_init_op_zp = NegativeMinOrZero(granularity) if hqo_init_op_zp is None else hqo_init_op_zp
        self.beta = check_within("hqo_beta_zp", hqo_beta_zp, hqo_beta_zp > 0, "positive")
        self.kappa = check_within("hqo_kappa_zp", hqo_kappa_zp, hqo_kappa_zp >= 1, "at least 1")
        self.lp_norm = check_within("hqo_lp_norm_zp", hqo_lp_norm_zp, 0 < hqo_lp_norm_zp <= 1, "above 0 and at most 1")
        self.hqo_iters_zp = check_count("hqo_iters_zp", hqo_iters_zp)

    def of_rows_on_grid(self, rows: Tensor, scale: Tensor) -> Tensor:
        """The best of each row: ``rows`` ``(R, n)``, ``scale`` one element or ``(R,)``."""
        rows, scale = rows.detach(), scale.detach()
        low, high = (torch.as_tensor(end, dtype=scale.dtype, device=scale.device) for end in self.range())
        found: Tensor = torch.ops.quant_core.half_quadratic(
            rows,
            scale,
            self.hqo_init_op_zp.of_rows(rows),
            low,
            high,
            self.rounding_mode,
            [self.beta, self.kappa, self.lp_norm],
            self.hqo_iters_zp,
        )
        return found

    def extra_repr(self) -> str:
        """The options."""
        return f"beta={self.beta:g}, kappa={self.kappa:g}, lp_norm={self.lp_norm:g}, iters={self.hqo_iters_zp}"


def check_within(name: str, number: float, holds: bool, range_: str) -> float:
    """Return an option when it is in its range, which ``range_`` says in words.

    Raises:
        ConfigurationError: when it is not, or not finite.
    """
    if not holds or number == float("inf"):
        raise ConfigurationError(
            f"{name}={number!r} is out of range",
            why=f"it is {range_}, and finite",
            fix="Leave it out for the default.",
        )
    return number


_library = torch.library.Library("quant_core", "FRAGMENT")
_library.define(
    "half_quadratic(Tensor rows, Tensor scale, Tensor lowest, Tensor low, Tensor high, str rounding_mode, float[] options, "
    "int iters) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


def _half_quadratic(
    rows: Tensor,
    scale: Tensor,
    lowest: Tensor,
    low: Tensor,
    high: Tensor,
    rounding_mode: str,
    options: list[float],
    iters: int,
) -> Tensor:
    """The search itself; an op, because a graph cannot stop a loop when the error rises."""
    beta, kappa, lp_norm = options
    step = scale.unsqueeze(-1)
    best, smallest = lowest, float("inf")
    for _ in range(iters):
        zero_point = lowest.abs().unsqueeze(1) / step + low
        quantized = (quantize_levels(rows, step, zero_point, low, high, rounding_mode) - zero_point) * step
        error = float((quantized - rows).abs().mean())
        if not error < smallest:
            break
        best, smallest = lowest, error
        # The integers are taken from the values, not from the levels: their rounding errors cancel in the difference.
        levels = quantized / step + (zero_point - low)
        kept = shrink(rows - quantized, beta, lp_norm)
        lowest = -(levels * step - (rows - kept)).mean(dim=1)
        beta *= kappa
    return best.clone()


def shrink(residual: Tensor, beta: float, lp_norm: float) -> Tensor:
    """What of an error is taken to be an outlier: ``sign(r) · max(|r| − |r|^(p−1)/β, 0)``; same shape.

    >>> shrink(torch.tensor([-0.25, 4.0]), 1.0, 0.5)
    tensor([-0.0000, 3.5000])
    """
    magnitude = residual.abs()
    return residual.sign() * torch.relu(magnitude - magnitude.pow(lp_norm - 1) / beta)


def _half_quadratic_shape(rows: Tensor, *_: object) -> Tensor:
    return rows.new_empty(rows.shape[:1])


_library.impl("half_quadratic", _half_quadratic, "CompositeExplicitAutograd")
torch.library.register_fake("quant_core::half_quadratic", _half_quadratic_shape, lib=_library)
