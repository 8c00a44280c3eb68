"""Norms of the elements that share a scale: the quantizers with weight normalization learn a scale beside them.

Colbert et al., "A2Q: Accumulator-Aware Quantization with Guaranteed Overflow Avoidance", ICCV 2023, section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.components.stats.statistic import Statistic


class L1Norm(Statistic):
    """``Σ |x|``; gradient ``sign(x)``.

    >>> L1Norm()(torch.tensor([3.0, -4.0]))
    tensor(7.)
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The sum of magnitudes of each row."""
        norm: Tensor = torch.linalg.vector_norm(rows, ord=1, dim=1)
        return norm


class L2Norm(Statistic):
    """``√(Σ x²)``; gradient ``x / norm``, 0 where all elements are 0.

    >>> L2Norm()(torch.tensor([3.0, -4.0]))
    tensor(5.)
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The Euclidean norm of each row."""
        norm: Tensor = torch.linalg.vector_norm(rows, ord=2, dim=1)
        return norm
