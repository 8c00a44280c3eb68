"""Gathering a statistic over training steps, for a parameter that is learned from then on, or for eval mode.

The number of steps is in the ``state_dict``, and a compiled graph goes through the same states as eager code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from quant_core.components.ranks import is_distributed
from quant_core.components.step_counter import StepCounter, recomputing
from quant_core.errors import ConfigurationError, InputError
from quant_core.native import is_plain, kernels


def collect(
    statistic: Tensor,
    average: Tensor,
    collected: StepCounter,
    momentum: float | None,
    learned: Callable[[], Tensor],
    *,
    where: str | None = None,
    settle: Callable[[Tensor], Tensor] | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """One step of collecting: ``statistic``, which ``average`` follows; in a compiled graph what is ``learned`` after the last.

    A forward that activation checkpointing computes again gives the statistic, and collects nothing.

    Args:
        statistic: of the current tensor; the shape is that of ``average``. Its gradient passes.
        average: what follows, see :func:`running_average`; a parameter or a buffer.
        collected: counts the steps.
        momentum: the weight of the current step.
        learned: what takes the place of the statistic when collecting is over.
        where: what the statistic is collected for, for messages.
        settle: what a parameter is made of the average, where the two are not the same.
        into: that parameter.

    Raises:
        InputError: when the statistic holds infinities or NaN, before anything has changed. A compiled graph, where that is
            not known, leaves the step out and does not count it.

    >>> value, steps = nn.Parameter(torch.ones(())), StepCounter(2)
    >>> collect(torch.tensor(4.0), value, steps, 0.1, lambda: value), value.item()
    (tensor(4.), 4.0)
    """
    if recomputing():
        collected.advance()
        return statistic
    parameter = average if into is None else into
    if torch.compiler.is_compiling():
        out = _collect_in_graph(statistic, average, collected, momentum, learned, settle, into)
    else:
        out = statistic
        found = statistic.detach()
        _check_finite(found, where, collected)
        with torch.no_grad():
            _follow(average, found, collected.count, momentum)
            if settle is not None and into is not None:
                into.copy_(settle(average))
        collected.advance()
    if is_distributed() and parameter.requires_grad:
        out = out + 0 * parameter  # which has a gradient then, as all parameters must
    return out


def _collect_in_graph(
    statistic: Tensor,
    average: Tensor,
    collected: StepCounter,
    momentum: float | None,
    learned: Callable[[], Tensor],
    settle: Callable[[Tensor], Tensor] | None,
    into: Tensor | None,
) -> Tensor:
    """The same where no value is known: a compiled graph cannot leave by itself, so that it looks at the count at each step."""
    found = statistic.detach()
    good, finished = torch.isfinite(found).all(), collected.finished()
    out = torch.where(finished, learned(), statistic)
    with torch.no_grad():
        kept = average.detach().to(found.dtype)
        followed = torch.where(good & ~finished, running_average(kept, found, collected.count, momentum), kept)
        average.copy_(followed)
        if settle is not None and into is not None:
            into.copy_(torch.where(finished, into, settle(followed)))
    collected.advance(good.to(torch.int64))
    return out


def _check_finite(statistic: Tensor, where: str | None, collected: StepCounter) -> None:
    if statistic.is_meta:
        return
    if math.isfinite(statistic.item()) if statistic.numel() == 1 else bool(torch.isfinite(statistic).all()):
        return
    raise _not_finite(statistic, where, collected)


def _follow(average: Tensor, statistic: Tensor, count: Tensor, momentum: float | None) -> None:
    """Let an average follow in place."""
    library = kernels()
    dense = average.is_contiguous() and statistic.is_contiguous()
    if library is not None and dense and is_plain(average) and is_plain(statistic):
        library.follow(average, statistic, int(count.item()), momentum)
    else:
        average.copy_(running_average(average.detach().to(statistic.dtype), statistic, count, momentum))


def running_average(average: Tensor, statistic: Tensor, count: Tensor, momentum: float | None) -> Tensor:
    """``(1 − m)·average + m·statistic``, starting from the first statistic; the mean of all of them where ``m`` is ``None``.

    Args:
        average: so far.
        statistic: of this step; same shape.
        count: how many steps there were before, 0-dim.
        momentum: ``m``.

    >>> running_average(torch.tensor(2.0), torch.tensor(5.0), torch.tensor(2), None)
    tensor(3.)
    """
    if momentum is None:
        return average * (count / (count + 1)).to(average.dtype) + statistic / (count + 1)
    return torch.where(count == 0, statistic, average * (1 - momentum) + statistic * momentum)


def owner_names(module: nn.Module | tuple[nn.Module, ...] | None) -> str | None:
    """What messages call the layer, or the layers, that own a quantizer.

    >>> owner_names((nn.ReLU(), nn.Identity()))
    'ReLU and Identity'
    """
    if module is None:
        return None
    return " and ".join(type(layer).__name__ for layer in (module if isinstance(module, tuple) else (module,)))


def check_collecting(collect_stats_steps: int, momentum_name: str, momentum: float | None) -> None:
    """The number of steps is whole and at least 1; the momentum lies above 0 and at most at 1, or is ``None``.

    Raises:
        ConfigurationError: when it does not.
    """
    if isinstance(collect_stats_steps, bool) or not isinstance(collect_stats_steps, int) or collect_stats_steps < 1:
        raise ConfigurationError(
            f"collect_stats_steps={collect_stats_steps!r} is not a number of steps",
            why="what starts from statistics needs at least one step to collect them",
            fix="Use a whole number such as 300.",
        )
    check_momentum(momentum_name, momentum)


def check_momentum(name: str, momentum: float | None) -> None:
    """A momentum lies above 0 and at most at 1, or is ``None``.

    Raises:
        ConfigurationError: when it does not.
    """
    number = isinstance(momentum, int | float) and not isinstance(momentum, bool)
    if momentum is not None and not (number and 0 < momentum <= 1):
        raise ConfigurationError(
            f"{name}={momentum!r} is out of range",
            why="the weight of the current step lies above 0 and at most at 1",
            fix="Use a number such as 0.1, or None for the mean of all steps.",
        )


def _not_finite(statistic: Tensor, where: str | None, collected: StepCounter) -> InputError:
    worst = statistic[~torch.isfinite(statistic)].flatten()[0].item()
    return InputError(
        "a tensor that holds infinities or NaN has no statistic to collect",
        where=where,
        why=f"the statistic of step {int(collected.count) + 1} is {worst}",
        fix="Look for infinities and NaN in what comes in, for example after a step with too large a learning rate.",
    )
