"""One run of a model under observation: each layer's calls, and what its quantizers made of their tensors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant_core.export.eval_mode import in_eval_mode
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.report.products import CountsProducts, is_counted_by_shape, products_of_call, products_of_layer
from quant_nn.report.watching import Grids


@dataclass
class Quantized:
    """One quantizer in one call.

    Attributes:
        name: its path below the layer.
        proxy: the quantizer.
        before: what it rounded.
        after: what it made of it.
    """

    name: str
    proxy: QuantProxy
    before: Tensor
    after: QuantTensor


@dataclass
class Pass:
    """One call of a layer.

    Attributes:
        inputs: its first input, with its grid where it has one.
        products: how many products it adds up with its weight.
        quantized: what its quantizers did in this call.
    """

    inputs: Any
    products: int = 0
    quantized: list[Quantized] = field(default_factory=list)


@dataclass
class Observed:
    """One layer in one run.

    Attributes:
        layer: the module.
        passes: its calls.
        calls: numbers of products that are none of a weight, with both operands' bits.
        output: the grid of the last result.
    """

    layer: nn.Module
    passes: list[Pass] = field(default_factory=list)
    calls: list[tuple[int, float, float]] = field(default_factory=list)
    output: QuantTensor | None = None

    @property
    def quantized(self) -> list[Quantized]:
        """Its quantizers, call by call."""
        return [one for call in self.passes for one in call.quantized]


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that get a row: with parameters or quantizers of their own, or that count their products themselves.

    >>> list(layers_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
    ['0']
    """
    found: dict[str, nn.Module] = {}
    closed: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(prefix) for prefix in closed):
            continue
        if isinstance(module, QuantProxy):
            closed.append(f"{path}.")
            continue
        whole = isinstance(module, CountsProducts)
        computed = parametrize.is_parametrized(module)
        if whole or computed or module._parameters or any(isinstance(child, QuantProxy) for child in module.children()):
            found[path] = module
        if whole:
            closed.append(f"{path}." if path else "")
        elif computed:  # what its parameters are computed from
            closed.append(f"{path}.parametrizations" if path else "parametrizations")
    return found


def _containers(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The other modules, whose code may multiply activations: those that layers and quantizers consist of are none."""
    closed = [
        path for path, layer in layers.items() if is_counted_by_shape(layer) or parametrize.is_parametrized(layer)
    ]
    closed += [path for path, module in model.named_modules() if isinstance(module, QuantProxy)]
    inner = tuple(f"{path}." if path else "" for path in closed)
    others = {path: module for path, module in model.named_modules() if path not in layers and path not in closed}
    return {path: module for path, module in others.items() if not path.startswith(inner)}


def observe(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Observed]:
    """Run a model once in eval mode, without gradients, and tell what each layer did; layers that are called come first."""
    layers = layers_of(model)
    rows = {path: Observed(layer) for path, layer in (layers | _containers(model, layers)).items()}
    order: dict[str, None] = {}
    running: list[Observed] = []

    def listen(function: Any, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        counted = products_of_call(function, inputs, named, output)
        if counted is not None and running and not is_counted_by_shape(running[-1].layer):
            number, one, other = counted
            running[-1].calls.append((number, bits_of(grids, one), bits_of(grids, other)))

    grids = Grids(listen)
    with ExitStack() as stack:
        for path, row in rows.items():
            stack.enter_context(_watch_layer(path, row, running, order, grids))
            for name, proxy in _quantizers(row.layer):
                stack.enter_context(_watch_quantizer(name, proxy, row, grids))
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(grids)
        model(*args, **kwargs)
    shown = {path: row for path, row in rows.items() if path in layers or row.calls}
    return {path: shown[path] for path in (*order, *(path for path in shown if path not in order)) if path in shown}


def bits_of(grids: Grids, x: Any) -> float:
    """The bits of a tensor: those of its grid, or of its dtype."""
    found = grids.of(x)
    return float(found.bit_width) if found is not None else float(x.element_size() * 8)


@contextmanager
def _watch_layer(
    path: str, row: Observed, running: list[Observed], order: dict[str, None], grids: Grids
) -> Iterator[None]:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        order[path] = None
        running.append(row)
        given = _by_position(module, args, kwargs)
        found = grids.of(given[0]) if given else None
        row.passes.append(Pass(inputs=found if found is not None or not given else given[0]))

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        running.pop()
        first = output[0] if isinstance(output, tuple) else output
        row.output = grids.of(first)
        row.passes[-1].products = products_of_layer(module, _by_position(module, args, kwargs), first) or 0

    handles = [
        row.layer.register_forward_pre_hook(before, with_kwargs=True),
        row.layer.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _by_position(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The inputs of a call in the order of ``forward``."""
    return inspect.signature(module.forward).bind(*args, **kwargs).args if kwargs else args


@contextmanager
def _watch_quantizer(name: str, proxy: QuantProxy, row: Observed, grids: Grids) -> Iterator[None]:
    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, QuantTensor):
            return
        grids.note(output)
        if not row.passes:  # called by other code than the layer's
            return
        x = args[0].value if isinstance(args[0], QuantTensor) else args[0]
        activation: Any = getattr(proxy, "act_impl", None)
        row.passes[-1].quantized.append(Quantized(name, proxy, x if activation is None else activation(x), output))

    handle = proxy.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _quantizers(layer: nn.Module) -> list[tuple[str, QuantProxy]]:
    """Those that belong to a layer: its own, and for a layer that counts its products also those of its parts."""
    if isinstance(layer, CountsProducts):
        return [(name, module) for name, module in layer.named_modules() if isinstance(module, QuantProxy)]
    return [(name, child) for name, child in layer.named_children() if isinstance(child, QuantProxy)]
