"""Sorting the keyword options of a layer to its quantizers.

A layer takes the options of its quantizers as keywords with a prefix: ``weight_bit_width=4`` sets ``bit_width`` of the weight
quantizer. Nothing is swallowed: an option that belongs to no quantizer, or to one that is switched off, is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from quant_core.errors import UnusedAttributeError, did_you_mean, nearest
from quant_core.inject import Injector


def split_options(
    layer: type,
    options: Mapping[str, Any],
    quantizers: Mapping[str, object | None],
    absent: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Sort ``options`` by the prefixes of ``quantizers``, a mapping from prefix (such as ``"weight_"``) to quantizer or ``None``.

    The empty prefix takes whatever no other one claims. ``absent`` says for a prefix why there can be no quantizer.

    Raises:
        UnusedAttributeError: for an option that no prefix claims, or whose quantizer is ``None``.

    >>> split_options(object, {"weight_bit_width": 4}, {"weight_": object(), "bias_": None})
    {'weight_': {'bit_width': 4}, 'bias_': {}}
    """
    found: dict[str, dict[str, Any]] = {prefix: {} for prefix in quantizers}
    for name, option in options.items():
        prefix = max((p for p in quantizers if name.startswith(p)), key=len, default=None)
        if prefix is None or (not prefix and _is_misspelt_argument(layer, name, quantizers[prefix])):
            raise _unknown(layer, name, quantizers)
        if quantizers[prefix] is None:
            raise UnusedAttributeError(
                f"option {name!r} has no quantizer to go to",
                where=layer.__name__,
                why=absent.get(prefix, f"{prefix or 'act_'}quant is None on this layer"),
                fix=f"Leave {name} out"
                + ("." if prefix in absent else f", or pass a quantizer as {prefix or 'act_'}quant."),
            )
        found[prefix][name.removeprefix(prefix)] = option
    return found


def _is_misspelt_argument(layer: type, name: str, quantizer: object | None) -> bool:
    """Whether an option without prefix is nearer to an argument of the layer than to an option of its quantizer."""
    arguments = [word for word in inspect.signature(layer).parameters if word != "options"]
    known = _names(quantizer)
    return name not in known and nearest(name, [*arguments, *known], most=1)[:1] in [[word] for word in arguments]


def _option_names(quantizers: Mapping[str, object | None]) -> Iterator[str]:
    """The options of all quantizers, with their prefixes."""
    for prefix, quantizer in quantizers.items():
        if isinstance(quantizer, type):
            yield from (f"{prefix}{name}" for name in _names(quantizer))


def _names(quantizer: object | None) -> list[str]:
    """The attributes of a quantizer, without what every injector can do."""
    every = set(dir(Injector))
    return [name for name in dir(quantizer) if name not in every and not name.startswith("_")]


def _unknown(layer: type, name: str, quantizers: Mapping[str, object | None]) -> UnusedAttributeError:
    own = [p for p in inspect.signature(layer).parameters if p not in ("self", "kwargs", "options")]
    prefixes = ", ".join(f"{prefix}*" for prefix in quantizers)
    return UnusedAttributeError(
        f"unknown option {name!r}",
        where=layer.__name__,
        why=f"it is no argument of the layer, and options of its quantizers start with {prefixes}",
        fix=did_you_mean(name, [*own, *_option_names(quantizers)]),
    )
