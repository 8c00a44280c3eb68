"""Looking at a model as it computes in eval mode, without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode for the length of a block; afterwards each module is in the mode that it was in.

    >>> net = nn.Sequential(nn.Dropout())
    >>> with in_eval_mode(net):
    ...     net.training, net[0].training
    (False, False)
    >>> net.training, net[0].training
    (True, True)
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
