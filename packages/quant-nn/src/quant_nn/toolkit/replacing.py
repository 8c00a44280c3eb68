"""Letting ``torch.nn.Linear`` and the like make quantized layers, for code that builds a float model.

``quantize(model, rules)`` converts a model that is there already, and is the better way. This one is for models whose code
cannot be reached otherwise, and for those who know it from NVIDIA's toolkit. It holds for names that are looked up in
``torch.nn`` while it is on; what was imported from there before (``from torch.nn import Linear``) is not replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final

from torch import nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, StateError, UnknownNameError, did_you_mean
from quant_nn.toolkit.descriptor import QuantDescriptor
from quant_nn.toolkit.injectors import check_for_layer
from quant_nn.toolkit.predefined import QUANT_DESC_8BIT_PER_TENSOR

REPLACED: Final[Mapping[str, str]] = {
    name: f"Quant{name}"
    for name in (
        "Linear",
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
    )
}
"""The layers of ``torch.nn`` that are replaced, and ours that take their place."""

_BEGUN: Final = "_initialize_has_begun"
_active: list[Initialized] = []


class Initialized:
    """That layers are replaced; a context manager that ends it."""

    def __init__(self, replacements: Mapping[str, Any]) -> None:
        self._before = {name: getattr(nn, name) for name in replacements}
        _active.append(self)
        for name, layer in replacements.items():
            setattr(nn, name, layer)

    def end(self) -> None:
        """Put everything back; does nothing when it has been."""
        if self in _active:
            _active.remove(self)
            for name, layer in self._before.items():
                setattr(nn, name, layer)

    def __enter__(self) -> Initialized:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def initialize(
    custom: Mapping[str, Callable[..., nn.Module]] | None = None,
    *,
    only: Iterable[str] | None = None,
    quant_desc_input: QuantDescriptor | None = QUANT_DESC_8BIT_PER_TENSOR,
    quant_desc_weight: QuantDescriptor | None = None,
) -> Initialized:
    """Replace layers of ``torch.nn`` by quantized ones, until :func:`deactivate` or the end of a ``with`` block.

    Args:
        custom: layers of ``torch.nn`` by name, and what is to be called in their place. Where that asks ``torch.nn`` for the same
            layer, it gets the one of torch.
        only: which of ``REPLACED`` to replace; all by default.
        quant_desc_input: how the inputs of layers are quantized; ``None`` leaves them.
        quant_desc_weight: how weights are; by default 8 bits with a scale for each output channel.

    Raises:
        UnknownNameError: when ``torch.nn`` has no such layer.
        ConfigurationError: when something that is given is no descriptor, or cannot be called.
        StateError: when layers are replaced already.

    >>> with initialize():
    ...     net = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    >>> net[0]
    QuantLinear(in_features=4, out_features=2, bias=True, weight: int8 per channel, input: int8 per tensor)
    >>> nn.Linear(4, 2)
    Linear(in_features=4, out_features=2, bias=True)
    """
    if _active:
        raise StateError(
            "layers of torch.nn are replaced already",
            why="initialize() was called before, and not ended",
            fix="Call deactivate() first, or write: with initialize(): …",
        )
    others: Mapping[str, Callable[..., nn.Module]] = custom or {}
    names = [name for name in _checked(only) if name not in others]
    _check_custom(others)
    for option, descriptor in (("quant_desc_input", quant_desc_input), ("quant_desc_weight", quant_desc_weight)):
        if descriptor is not None:
            check_for_layer(descriptor, option, "initialize()")
    for name in dir(qnn):  # our layers are derived from those of torch, and load on first use: that must be now
        getattr(qnn, name)
    layers: dict[str, type] = {name: _replacement(name, quant_desc_input, quant_desc_weight) for name in names}
    return Initialized({**layers, **{name: _stand_in(name, make) for name, make in others.items()}})


def deactivate() -> None:
    """End what :func:`initialize` began: ``torch.nn`` is as before. Does nothing when it was not called.

    >>> _ = initialize()
    >>> deactivate()
    >>> nn.Linear.__module__
    'torch.nn.modules.linear'
    """
    for initialized in list(_active):
        initialized.end()


def _replacement(name: str, quant_desc_input: QuantDescriptor | None, quant_desc_weight: QuantDescriptor | None) -> Any:
    """A class with other defaults, whose instances are those of ours; classes that are derived from it stay what they are."""
    layer: Any = getattr(qnn, REPLACED[name])
    weight = quant_desc_weight or QuantDescriptor(axis=layer.output_channel_dim)

    @functools.wraps(layer.__init__)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if replaced not in type(self).__mro__ or vars(self).get(
            _BEGUN
        ):  # our own layers ask torch.nn for what they are made of
            float_layer.__init__(self, *args, **kwargs)
            return
        for tensor, descriptor in (("input", quant_desc_input), ("weight", weight)):
            if f"{tensor}_quant" not in kwargs:
                kwargs.setdefault(f"quant_desc_{tensor}", descriptor)
        vars(self)[_BEGUN] = True
        layer.__init__(self, *args, **kwargs)
        del vars(self)[_BEGUN]
        if type(self) is replaced:
            self.__class__ = layer  # so that it can be pickled

    float_layer: Any = getattr(nn, name)
    known = _Known(f"Quant{name}", (layer,), {"__init__": __init__, "float_layer": float_layer})
    replaced: type = known
    return replaced


class _Known(type):
    """While it stands for a layer of torch, ``isinstance`` asks for that."""

    float_layer: type

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.float_layer)


def _stand_in(name: str, make: Callable[..., nn.Module]) -> type:
    """A class that is ``make`` to those who call it, and the float layer to ``make`` and to classes that are derived from it."""
    float_layer: Any = getattr(nn, name)
    making: list[bool] = []

    class Called(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is not stand_in:
                return super().__call__(*args, **kwargs)
            if making:
                return float_layer(*args, **kwargs)
            making.append(True)
            try:
                return make(*args, **kwargs)
            finally:
                making.clear()

        def __instancecheck__(cls, instance: object) -> bool:
            known = (float_layer, make) if isinstance(make, type) else float_layer
            return isinstance(instance, known) if cls is stand_in else super().__instancecheck__(instance)

    stand_in = Called(name, (float_layer,), {})
    return stand_in


def _checked(only: Iterable[str] | None) -> list[str]:
    names = list(REPLACED) if only is None else [only] if isinstance(only, str) else list(only)
    unknown = next((name for name in names if name not in REPLACED), None)
    if unknown is not None:
        raise UnknownNameError(
            f"there is no layer {unknown!r} to replace",
            why=f"those are {', '.join(REPLACED)}",
            fix=did_you_mean(unknown, REPLACED),
        )
    return names


def _check_custom(custom: Mapping[str, Callable[..., nn.Module]]) -> None:
    layers = [
        name
        for name, kind in vars(nn).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module
    ]
    for name, make in custom.items():
        if name not in layers:
            raise UnknownNameError(
                f"there is no layer {name!r} to replace",
                why="it is the name of a layer in torch.nn",
                fix=did_you_mean(name, layers),
            )
        if not callable(make):
            raise ConfigurationError(
                f"custom layer {name!r} cannot be called: {make!r}",
                why="it is called with the arguments of the layer of torch.nn",
                fix="Give a class or a function that makes a module.",
            )
