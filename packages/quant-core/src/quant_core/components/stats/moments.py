"""Statistics of the middle of a distribution: means, and means plus a number of standard deviations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant_core.components.granularity import PerTensor
from quant_core.components.stats.statistic import Grouping, Statistic
from quant_core.errors import ConfigurationError


class Mean(Statistic):
    """``mean(x)``; gradient ``1/n``. It may be negative, and so serves to center, not as a scale.

    >>> Mean()(torch.tensor([1.0, -4.0]))
    tensor(-1.5000)
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The mean of each row."""
        return rows.mean(dim=1)


class AbsAve(Statistic):
    """``mean |x|``; gradient ``sign(x)/n``.

    Rastegari et al., "XNOR-Net", ECCV 2016, equation 6: the scale of a binary weight with the smallest squared error.

    >>> AbsAve()(torch.tensor([1.0, -4.0]))
    tensor(2.5000)
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The mean magnitude of each row."""
        return rows.abs().mean(dim=1)


class MeanSigmaStd(Statistic):
    """``mean |x| + sigma · √(var |x| + epsilon)``, with the unbiased variance, 0 for a single element.

    Gradient: that of the formula; ``epsilon`` keeps it finite where all magnitudes are equal.

    Args:
        sigma: how many standard deviations to add; at least 0.
        granularity: which elements share a scale.
        std_dev_epsilon: ``epsilon``, positive.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> MeanSigmaStd(2.0)(torch.tensor([1.0, -1.0, 3.0, -3.0]))
    tensor(4.3094)
    """

    def __init__(
        self,
        sigma: float,
        granularity: Grouping = PerTensor(),  # noqa: B008
        std_dev_epsilon: float = 1e-8,
    ) -> None:
        super().__init__(granularity)
        _check_deviation(sigma, std_dev_epsilon)
        self.sigma = sigma
        self.std_dev_epsilon = std_dev_epsilon

    def of_rows(self, rows: Tensor) -> Tensor:
        """Mean and deviation of the magnitudes of each row."""
        mean, deviation = _mean_and_deviation(rows, self.std_dev_epsilon)
        return mean + self.sigma * deviation

    def extra_repr(self) -> str:
        """The number of deviations."""
        return f"sigma={self.sigma:g}"


class MeanLearnedSigmaStd(Statistic):
    """``mean |x| + sigma · √(var |x| + epsilon)`` with a learned ``sigma``.

    Gradient: that of the formula, to ``x`` and to ``sigma``.

    Args:
        sigma: where learning starts; at least 0.
        granularity: which elements share a scale.
        scaling_shape: the shape of the scale, for a ``sigma`` of its own for each element of it; ``()`` for one in all.
        std_dev_epsilon: ``epsilon``, positive.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> MeanLearnedSigmaStd(2.0)(torch.tensor([1.0, -1.0, 3.0, -3.0]))
    tensor(4.3094, grad_fn=<ViewBackward0>)
    """

    def __init__(
        self,
        sigma: float,
        granularity: Grouping = PerTensor(),  # noqa: B008
        scaling_shape: Sequence[int] = (),
        std_dev_epsilon: float = 1e-8,
    ) -> None:
        super().__init__(granularity)
        _check_deviation(sigma, std_dev_epsilon)
        self.std_dev_epsilon = std_dev_epsilon
        self.value = nn.Parameter(torch.full(tuple(scaling_shape), float(sigma)))

    def of_rows(self, rows: Tensor) -> Tensor:
        """Mean and deviation of the magnitudes of each row."""
        mean, deviation = _mean_and_deviation(rows, self.std_dev_epsilon)
        return mean + self.value.flatten() * deviation


def _mean_and_deviation(rows: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    magnitudes = rows.abs()
    variance = magnitudes.var(dim=1) if rows.shape[1] > 1 else magnitudes.squeeze(1) * 0.0
    return magnitudes.mean(dim=1), (variance + epsilon).sqrt()


def _check_deviation(sigma: float, epsilon: float) -> None:
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 <= sigma < float("inf"):
        raise ConfigurationError(
            f"sigma={sigma!r} is not a number of standard deviations",
            why="the threshold lies that many deviations above the mean magnitude, at least 0",
            fix="Use a number such as 3.0.",
        )
    if not 0 < epsilon < float("inf"):
        raise ConfigurationError(
            f"std_dev_epsilon={epsilon!r} is out of range",
            why="it keeps the gradient of the deviation finite, so that it must be positive",
            fix="Leave it out; 1e-8 is the default.",
        )
