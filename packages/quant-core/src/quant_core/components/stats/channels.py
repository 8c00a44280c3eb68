"""Statistics of the channels of a tensor that give one number for the whole tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from quant_core.components.granularity import PerChannel
from quant_core.components.stats.statistic import Statistic


@dataclass(frozen=True, slots=True)
class ChannelsTogether:
    """One row for each channel, and one scale for all of them: ``(N, C, H, W)`` → rows ``(C, N·H·W)``, scale ``()``."""

    axis: int

    def rows(self, x: Tensor) -> Tensor:
        """One row for each channel.

        >>> ChannelsTogether(1).rows(torch.zeros(2, 3, 4)).shape
        torch.Size([3, 8])
        """
        return PerChannel(self.axis).rows(x)

    def scale_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of the scale: ``()``."""
        return ()


class AbsMaxAve(Statistic):
    """``mean_c max |x_c|``: the mean over the channels of the largest magnitude of each.

    Gradient: ``sign(x)/C`` at the largest element of each channel, shared evenly where several are equal.

    Args:
        output_channel_dim: the axis of the channels.

    >>> AbsMaxAve()(torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
    tensor(3.)
    """

    def __init__(self, output_channel_dim: int = 0) -> None:
        super().__init__(ChannelsTogether(output_channel_dim))

    def of_rows(self, rows: Tensor) -> Tensor:
        """One number for all rows: ``(C, n)`` → ``(1,)``."""
        return rows.abs().amax(dim=1).mean(dim=0, keepdim=True)


class AbsMaxL2(Statistic):
    """``√(mean_c max |x_c|²)``: the quadratic mean over the channels of the largest magnitude of each.

    Gradient: ``x/(C · result)`` at the largest element of each channel, 0 where all elements are 0.

    Args:
        output_channel_dim: the axis of the channels.

    >>> AbsMaxL2()(torch.tensor([[1.0, -1.0], [5.0, -7.0]]))
    tensor(5.)
    """

    def __init__(self, output_channel_dim: int = 0) -> None:
        super().__init__(ChannelsTogether(output_channel_dim))

    def of_rows(self, rows: Tensor) -> Tensor:
        """One number for all rows: ``(C, n)`` → ``(1,)``."""
        largest = rows.abs().amax(dim=1)
        norm: Tensor = torch.linalg.vector_norm(largest, ord=2, dim=0, keepdim=True)
        return norm / math.sqrt(rows.shape[0])
