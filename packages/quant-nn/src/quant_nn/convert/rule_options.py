"""Options of rules: code is named by strings, so that rules can be compared, printed and written to a file."""

from __future__ import annotations

import sys
from typing import Any, Final

from torch import nn

from quant_core.errors import ConfigurationError, UnknownNameError, did_you_mean
from quant_core.plugins import Registry, load_attribute, registry
from quant_core.plugins.references import REFERENCE

NOTHING: Final = "none"
"""How a file says that there is no quantizer."""


def is_quantizer_option(key: str) -> bool:
    """Whether an argument of a layer takes a quantizer.

    >>> is_quantizer_option("weight_quant"), is_quantizer_option("weight_quant_type")
    (True, False)
    """
    return key.endswith("_quant") and not key.startswith(("tie_", "shared_"))


def named(key: str, value: Any) -> Any:
    """An option as a rule keeps it: a class by its name, where it can be found under that name again.

    >>> from quant_core.quant import Int8Bias
    >>> named("bias_quant", Int8Bias), named("bias_quant", "none"), named("bias_bit_width", 4)
    ('Int8Bias', None, 4)
    """
    if isinstance(value, str) and value.lower() == NOTHING and is_quantizer_option(key):
        return None
    if isinstance(value, list | tuple):
        return tuple(one if not isinstance(one, list | tuple) else named(key, one) for one in value)
    if not isinstance(value, type):
        return value
    registered = registry().quantizers.get(value.__name__)
    if registered is not None and load_attribute(registered.item.quantizer) is value:
        return value.__name__
    return reference(value)


def reference(code: type) -> str | type:
    """``"package.module:attribute"`` where the class is found there, and the class itself where it is not.

    >>> from fractions import Fraction
    >>> reference(Fraction), reference(type("Made", (), {}))
    ('fractions:Fraction', <class 'quant_nn.convert.rule_options.Made'>)
    """
    name = f"{code.__module__}:{code.__qualname__}"
    found: Any = sys.modules.get(code.__module__)
    for part in code.__qualname__.split("."):
        found = getattr(found, part, None)
    return name if found is code and REFERENCE.fullmatch(name) else code


def resolved(key: str, value: Any, plugins: Registry) -> Any:
    """An option as a layer takes it: quantizers and references are looked up.

    Raises:
        UnknownNameError: for a quantizer that nobody registers; offers the nearest one.
        PluginError: for a reference to code that cannot be imported.
    """
    if not isinstance(value, str):
        return value
    if REFERENCE.fullmatch(value):
        return load_attribute(value)
    if not is_quantizer_option(key):
        return value
    if value not in plugins.quantizers:
        raise UnknownNameError(
            f"unknown quantizer {value!r}",
            why=f"{key} is the name of a registered quantizer, 'package.module:attribute', or 'none'",
            fix=did_you_mean(value, plugins.quantizers),
        )
    return load_attribute(plugins.quantizers[value].item.quantizer)


def layer_named(name: str | type, plugins: Registry) -> Any:
    """The quantized layer that a rule names.

    Raises:
        UnknownNameError: for one that nobody registers; offers the nearest one.
        PluginError: for a reference to code that cannot be imported.
        ConfigurationError: for what is no layer.
    """
    if isinstance(name, type) or REFERENCE.fullmatch(name):
        found = name if isinstance(name, type) else load_attribute(name)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise ConfigurationError(
                f"{found!r} is no layer",
                why="a layer is a class that is derived from torch.nn.Module",
                fix="Name a quantized layer in the rule, such as layer='QuantLinear'.",
            )
        return found
    if name not in plugins.layers:
        raise UnknownNameError(
            f"unknown layer {name!r}",
            why="layer is the name of a registered quantized layer, or 'package.module:Class'",
            fix=did_you_mean(name, plugins.layers),
        )
    return load_attribute(plugins.layers[name].item.quant_type)
