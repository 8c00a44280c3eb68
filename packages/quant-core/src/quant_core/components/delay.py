"""Delayed quantization: the first training steps run in float."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError


class QuantDelay(nn.Module):
    """Passes ``x`` for the first ``quant_delay_steps`` training steps and ``y`` afterwards.

    Steps are counted in training mode only; before the last one, eval mode passes ``x`` as well.

    >>> delay = QuantDelay(1)
    >>> delay(torch.tensor(0.3), torch.tensor(0.5)), delay(torch.tensor(0.3), torch.tensor(0.5))
    (tensor(0.3000), tensor(0.5000))
    """

    def __init__(self, quant_delay_steps: int) -> None:
        super().__init__()
        if isinstance(quant_delay_steps, bool) or not isinstance(quant_delay_steps, int) or quant_delay_steps < 0:
            raise ConfigurationError(
                f"quant_delay_steps={quant_delay_steps!r} is not a number of steps",
                why="quantization starts after a whole number of training steps, at least 0",
                fix="Use 0 to quantize from the first step.",
            )
        self.passed = StepCounter(quant_delay_steps) if quant_delay_steps else None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` while delayed, else ``y``; same shape and dtype."""
        return self.choose((x,), (y,))[0]

    def choose(self, before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The first tensors while delayed, else the second; counts one step."""
        if self.passed is None:
            return after
        self.passed.begin()
        if not self.passed.running:
            return after
        out = before
        if torch.compiler.is_compiling():
            finished = self.passed.finished()
            out = tuple(torch.where(finished, y, x) for x, y in zip(before, after, strict=True))
        if self.training:
            self.passed.advance()
        return out
