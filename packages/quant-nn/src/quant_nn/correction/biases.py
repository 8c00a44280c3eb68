"""Where the biases of a model are, and the means over data that tell how to correct them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant_nn.calibration.batches import Forward, no_data, progressing
from quant_nn.correction.bias_errors import TellsBiasErrors
from quant_nn.layer import value_of
from quant_nn.weight_layer import QuantWeightLayer

Reading = Callable[[tuple[Any, ...], Any], tuple[Tensor, int]]
"""Takes positional arguments and result of a call; returns a sum over its positions, ``(O,)``, and how many there were."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bias:
    """A bias of a model.

    Attributes:
        path: what reports call it.
        layer: the layer that it belongs to.
        name: its name there.
        parameter: the bias, ``(O,)``.
        module: the module whose calls tell.
        read: what they tell: the output, or with ``is_error`` what rounding the weights has added.
        is_error: which of the two.
    """

    path: str
    layer: nn.Module
    name: str
    parameter: nn.Parameter
    module: nn.Module
    read: Reading
    is_error: bool


def biases_of(model: nn.Module) -> dict[str, list[Bias]]:
    """Those of each layer with a quantized weight, by its path; none of a layer without a bias that could be changed.

    >>> import quant_nn as qnn
    >>> net = nn.Sequential(qnn.QuantLinear(2, 2), nn.ReLU(), qnn.QuantLinear(2, 1, bias=False))
    >>> {path: len(biases) for path, biases in biases_of(net).items()}
    {'0': 1, '2': 0}
    """
    kinds = (QuantWeightLayer, TellsBiasErrors)
    return {path: list(_of_layer(path, layer)) for path, layer in model.named_modules() if isinstance(layer, kinds)}


def _of_layer(path: str, layer: Any) -> Iterator[Bias]:
    if isinstance(layer, TellsBiasErrors):
        for error in layer.bias_errors():
            yield Bias(
                path=f"{path}.{error.name}" if path else error.name,
                layer=layer,  # type: ignore[arg-type]  # it is among the modules
                name=error.name,
                parameter=error.bias,
                module=error.module,
                read=error.of_call,
                is_error=True,
            )
    elif isinstance(layer.bias, nn.Parameter):
        yield Bias(
            path=path,
            layer=layer,
            name="bias",
            parameter=layer.bias,
            module=layer,
            read=lambda args, out: _channels(layer, value_of(out)),
            is_error=False,
        )


def _channels(layer: QuantWeightLayer, out: Tensor) -> tuple[Tensor, int]:
    """The sum of each output channel."""
    shape = layer._channel_shape(out)
    axis = next((axis for axis in range(-len(shape), 0) if shape[axis] != 1), None)
    rows = out.reshape(1, -1) if axis is None else out.movedim(axis, 0).flatten(1)  # (O, n)
    return rows.to(torch.float64).sum(1), rows.shape[1]


def means(
    model: nn.Module,
    biases: Iterable[Bias],
    data: Iterable[Any],
    forward: Forward,
    progress: bool | None,
    what: str,
) -> dict[Bias, Tensor]:
    """The mean of what each bias reads, in the order in which their modules have run first; not those that have not run.

    Raises:
        InputError: when there is no data.
    """
    sums: dict[Bias, Tensor] = {}
    positions: dict[Bias, int] = {}

    def add(bias: Bias, args: tuple[Any, ...], out: Any) -> None:
        part, count = bias.read(args, out)
        part = part.detach().to(torch.float64)
        sums[bias] = sums[bias] + part if bias in sums else part
        positions[bias] = positions.get(bias, 0) + count

    with ExitStack() as stack:
        for bias in biases:
            handle = bias.module.register_forward_hook(lambda module, args, out, bias=bias: add(bias, args, out))
            stack.callback(handle.remove)
        count = 0
        for batch in progressing(data, what, progress):
            forward(model, batch)
            count += 1
    if not count:
        raise no_data(type(model).__name__)
    return {bias: total / positions[bias] for bias, total in sums.items()}


def by_module(biases: Iterable[Bias]) -> list[list[Bias]]:
    """Those that the same calls tell about, together."""
    found: dict[nn.Module, list[Bias]] = {}
    for bias in biases:
        found.setdefault(bias.module, []).append(bias)
    return list(found.values())


@contextmanager
def holding(biases: Sequence[Bias], values: Sequence[Tensor]) -> Iterator[None]:
    """Give biases other values for the length of a block."""
    now = [bias.parameter.detach().clone() for bias in biases]
    _copy(biases, values)
    try:
        yield
    finally:
        _copy(biases, now)


@contextmanager
def restored_when_it_fails(biases: Sequence[Bias]) -> Iterator[None]:
    """Give biases the values that they had when the block raises."""
    before = [bias.parameter.detach().clone() for bias in biases]
    try:
        yield
    except BaseException:
        _copy(biases, before)
        raise


def _copy(biases: Sequence[Bias], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for bias, value in zip(biases, values, strict=True):
            bias.parameter.copy_(value)
