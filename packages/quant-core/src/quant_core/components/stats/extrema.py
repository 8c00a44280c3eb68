"""Statistics of the ends of a distribution.

Equal extremes share the gradient evenly, per tensor and per channel alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.components.ranks import of_all_ranks
from quant_core.components.stats.statistic import Statistic
from quant_core.ops.magnitude import largest_magnitude


class AbsMax(Statistic):
    """``max |x|`` over the elements that share a scale.

    Gradient: ``sign(x)`` at the largest element, shared evenly where several are equal.

    >>> import torch
    >>> AbsMax()(torch.tensor([0.5, -2.0]))
    tensor(2.)
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The largest absolute value of each row."""
        return largest_magnitude(rows)

    def of_rows_of_all_ranks(self, rows: Tensor) -> Tensor:
        """Only the largest value of each process goes around; processes that have the same share the gradient evenly."""
        return self.of_rows(of_all_ranks(self.of_rows(rows).unsqueeze(1)))


class SignedAbsMax(Statistic):
    """``−x`` where ``|x|`` is largest: divided by it, that element falls on ``−1``, for which a signed range has a level.

    Its magnitude is that of :class:`AbsMax`. It is negative where the element is positive; a scale takes the magnitude.

    Gradient: −1 at the first such element.

    >>> import torch
    >>> SignedAbsMax()(torch.tensor([0.5, -2.0])), SignedAbsMax()(torch.tensor([0.5, 2.0]))
    (tensor(2.), tensor(-2.))
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The negative of the element of the largest magnitude of each row."""
        return -rows.gather(1, rows.detach().abs().argmax(dim=1, keepdim=True)).squeeze(1)


class AbsMinMax(Statistic):
    """``max(x, 0) − min(x, 0)``: the length of the shortest interval that holds all elements and the number 0.

    An interval that leaves 0 out would be of no use: the number 0 is a level of every integer quantizer, so that values on
    the far side of the interval would be clamped.

    Gradient: 1 at the largest element if it is positive, −1 at the smallest if it is negative.

    >>> import torch
    >>> AbsMinMax()(torch.tensor([-1.0, 3.0])), AbsMinMax()(torch.tensor([2.0, 3.0]))
    (tensor(4.), tensor(3.))
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The length of the interval of each row."""
        return rows.amax(dim=1).clamp(min=0) - rows.amin(dim=1).clamp(max=0)

    def of_rows_of_all_ranks(self, rows: Tensor) -> Tensor:
        """Only both ends of each process go around."""
        return self.of_rows(of_all_ranks(torch.stack([rows.amax(dim=1), rows.amin(dim=1)], dim=1)))


class NegativeMinOrZero(Statistic):
    """``min(x, 0)``: the real number that the lowest integer stands for, where the zero-point follows the tensor.

    Gradient: 1 at the smallest element if it is negative.

    >>> import torch
    >>> NegativeMinOrZero()(torch.tensor([-1.0, 3.0])), NegativeMinOrZero()(torch.tensor([2.0, 3.0]))
    (tensor(-1.), tensor(0.))
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The smallest element of each row, at most 0."""
        return rows.amin(dim=1).clamp(max=0)

    def of_rows_of_all_ranks(self, rows: Tensor) -> Tensor:
        """Only the smallest element of each process goes around."""
        return self.of_rows(of_all_ranks(rows.amin(dim=1, keepdim=True)))
