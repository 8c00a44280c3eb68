"""A parameter that follows a statistic for the first training steps and is learned from then on.

The number of steps is in the ``state_dict``, and a compiled graph goes through the same states as eager code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError


def collect(
    statistic: Tensor,
    value: nn.Parameter,
    collected: StepCounter,
    momentum: float,
    learned: Callable[[], Tensor],
) -> Tensor:
    """One step of collecting: ``statistic``, which ``value`` follows; in a compiled graph what is ``learned`` after the last.

    ``value ← (1 − m)·value + m·statistic``, starting from the first one. What is not finite is left out.

    Args:
        statistic: of the current tensor; the shape is that of ``value``. Its gradient passes.
        value: the parameter.
        collected: counts the steps.
        momentum: ``m``, the weight of the current step.
        learned: what takes the place of the statistic when collecting is over.

    >>> value, steps = nn.Parameter(torch.ones(())), StepCounter(2)
    >>> collect(torch.tensor(4.0), value, steps, 0.1, lambda: value), value.item()
    (tensor(4.), 4.0)
    """
    if not torch.compiler.is_compiling():
        _follow(statistic, value, collected, momentum)
        return statistic
    # A compiled graph cannot leave this branch by itself, so that it looks at the count at each step.
    finished = collected.finished()
    out = torch.where(finished, learned(), statistic)
    _follow(statistic, value, collected, momentum, unless=finished)
    return out


def _follow(
    statistic: Tensor, value: nn.Parameter, collected: StepCounter, momentum: float, unless: Tensor | None = None
) -> None:
    """Let the running average follow the statistic, and count the step."""
    with torch.no_grad():
        average = value * (1 - momentum) + statistic * momentum
        followed = torch.where(collected.count == 0, statistic, average)
        followed = torch.where(torch.isfinite(followed), followed, value)  # one bad batch spoils no scale
        value.copy_(followed if unless is None else torch.where(unless, value, followed))
    collected.advance()


def check_collecting(collect_stats_steps: int, momentum_name: str, momentum: float) -> None:
    """The number of steps is whole and at least 1; the momentum lies above 0 and at most at 1.

    Raises:
        ConfigurationError: when it does not.
    """
    if isinstance(collect_stats_steps, bool) or not isinstance(collect_stats_steps, int) or collect_stats_steps < 1:
        raise ConfigurationError(
            f"collect_stats_steps={collect_stats_steps!r} is not a number of steps",
            why="what starts from statistics needs at least one step to collect them",
            fix="Use a whole number such as 300.",
        )
    if not 0 < momentum <= 1:
        raise ConfigurationError(
            f"{momentum_name}={momentum!r} is out of range",
            why="the weight of the current step lies above 0 and at most at 1",
            fix="Use a number such as 0.1.",
        )
