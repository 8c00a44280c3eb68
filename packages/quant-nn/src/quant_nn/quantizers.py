"""From what a user passes as a quantizer to the proxy that a layer holds."""

from __future__ import annotations

from typing import Any

from torch import nn

from quant_core.errors import ConfigurationError
from quant_core.inject import Injector
from quant_core.proxies import QuantProxy

Quantizer = type[Injector] | QuantProxy | None
"""What a layer takes as a quantizer: an injector, the proxy of another layer to share, or nothing."""

_KINDS = {"weight_": "weight", "bias_": "bias"}


def build_proxy(
    layer: nn.Module, quantizer: Quantizer, prefix: str, options: dict[str, Any], *, name: str = "", kind: str = ""
) -> QuantProxy | None:
    """The proxy of a layer: built from an injector with options, or shared with the layer that it came from.

    Args:
        layer: the layer that will hold it.
        quantizer: what the user passed.
        prefix: the prefix of its options, ``""`` for those of an activation.
        options: its options, without the prefix.
        name: the argument of the layer, where it is not the prefix and ``quant``.
        kind: what it quantizes, where the prefix does not tell.

    Raises:
        ConfigurationError: when it is no quantizer, quantizes something else, or is shared and has options.
    """
    if quantizer is None:
        return None
    name = name or f"{prefix or 'act_'}quant"
    kind = kind or next((kind for ending, kind in _KINDS.items() if prefix.endswith(ending)), "activation")
    if isinstance(quantizer, QuantProxy):
        _check_kind(layer, name, kind, quantizer.kind, "the proxy of another layer")
        if options:
            names = ", ".join(f"{prefix}{name}" for name in options)
            raise ConfigurationError(
                f"a shared quantizer takes no options, got {names}",
                where=type(layer).__name__,
                why=f"{name} is the proxy of another layer, which has its options already",
                fix="Set the options on the first layer, or pass the quantizer class to both.",
            )
        quantizer.add_owner(layer)
        return quantizer
    if not (isinstance(quantizer, type) and issubclass(quantizer, Injector)):
        raise ConfigurationError(
            f"{name}={quantizer!r} is not a quantizer",
            where=type(layer).__name__,
            why="a quantizer is a subclass of quant_core.inject.Injector, or the proxy of another layer",
            fix="Pass a class such as quant_core.quant.Int8WeightPerTensorFloat, without calling it.",
        )
    configured: Any = quantizer.let(**options) if options else quantizer
    _check_kind(layer, name, kind, getattr(configured.proxy_class, "kind", ""), quantizer.__name__)
    proxy: QuantProxy = configured.proxy_class(layer, configured, prefix)
    return proxy


def _check_kind(layer: nn.Module, name: str, wanted: str, kind: str, quantizer: str) -> None:
    """A quantizer of weights cannot quantize activations, and so on."""
    if kind not in ("", wanted):
        word = "Act" if wanted == "activation" else wanted.capitalize()
        like = "such as RoundTo8bit" if wanted == "accumulator" else f"whose name says {word}"
        raise ConfigurationError(
            f"{name} is a quantizer of the {kind}",
            where=type(layer).__name__,
            why=f"{quantizer} quantizes {'an' if kind[0] in 'aeiou' else 'a'} {kind}, and this one quantizes the {wanted}"
            if kind != "activation"
            else f"{quantizer} quantizes activations, and this one quantizes the {wanted}",
            fix=f"Pass one {like}, from quant_core.quant.",
        )
