"""Looking at what reaches a quantizer, and letting it pass unrounded, without changing any module.

A quantizer whose values pass still tells its grid, so that layers which need one (a quantized bias, an accumulator that drops
bits) work as they do when everything is quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.proxies import QuantProxy


class Observer:
    """Hooks on one quantizer.

    Args:
        collect: what is done with each tensor that reaches it; ``None`` for nothing.
        passes: whether tensors pass unrounded.
    """

    def __init__(self, collect: Callable[[Tensor], None] | None = None, *, passes: bool = True) -> None:
        self.collect = collect
        self.passes = passes

    @contextmanager
    def on(self, proxy: QuantProxy) -> Iterator[None]:
        """Observe a quantizer that is on, for the length of a block."""
        with ExitStack() as stack:
            for handle in self.hook(proxy):
                stack.callback(handle.remove)
            yield

    def hook(self, proxy: QuantProxy) -> list[Any]:
        """Observe a quantizer from now on, before those that do so already; returns the handles that end it."""
        return [
            proxy.tensor_quant.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True),
            proxy.tensor_quant.register_forward_hook(self._after, with_kwargs=True),
            proxy.register_forward_pre_hook(_noticed),
        ]

    def _before(self, quant: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.collect is not None and not torch.compiler.is_exporting():  # a capture changes nothing
            self.collect(args[0])

    def _after(self, quant: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        if not self.passes:
            return out
        value = torch.relu(args[0]) if kwargs.get("rectify") else args[0]
        return (value, *out[1:])


@contextmanager
def passing(proxies: Iterable[QuantProxy]) -> Iterator[None]:
    """Let everything pass these quantizers unrounded, for the length of a block.

    >>> import quant_nn as qnn
    >>> act = qnn.QuantIdentity(bit_width=2).eval()
    >>> with passing([act.act_quant]):
    ...     act(torch.tensor(0.3))
    tensor(0.3000)
    >>> act(torch.tensor(0.3)).detach()
    tensor(0.5000)
    """
    with ExitStack() as stack:
        for proxy in proxies:
            stack.enter_context(Observer().on(proxy))
        yield


def quantizers(model: nn.Module) -> dict[str, QuantProxy]:
    """The quantizers of a model that are on, by their path; one that several layers share by its first.

    >>> import quant_nn as qnn
    >>> list(quantizers(qnn.QuantLinear(3, 2)))
    ['weight_quant']
    """
    found = model.named_modules()
    return {path: module for path, module in found if isinstance(module, QuantProxy) and module.is_quant_enabled}


def _noticed(proxy: nn.Module, args: Any) -> None:
    """A layer that could compute around its quantizers, as recurrent ones do, calls those that have hooks."""
