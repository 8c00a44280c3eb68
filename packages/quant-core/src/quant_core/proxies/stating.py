"""What is said about the integers of a quantizer, in two places that must not contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant_core.errors import ConfigurationError
from quant_core.inject import Injector
from quant_core.inject.attributes import overrides_of, own_attributes, written
from quant_core.inject.words import set_by


def stated(name: str, built: Mapping[str, Any], injector: type[Injector], *, prefix: str, where: str) -> Any:
    """What the injector says, or else the tensor quantizer.

    Args:
        name: ``"signed"`` or ``"narrow_range"``.
        built: what was built, the ``tensor_quant`` and this option among it.
        injector: what it was built from.
        prefix: what stands before options, for messages.
        where: the layer, for messages.

    Raises:
        ConfigurationError: when an option was set for a ``tensor_quant`` that insists on another.
    """
    option, own = built.get(name), getattr(built["tensor_quant"], name, None)
    if option is None or own is None or option == own:
        return own if option is None else option
    if not _insists_on(injector, name):
        return own
    kind = type(built["tensor_quant"]).__name__
    raise ConfigurationError(
        f"{prefix}{name}={option!r} has no effect on {kind}",
        where=where,
        why=f"{kind} does not take {name}; it is {own!r} there",
        fix=f"Leave {prefix}{name} out, or choose a tensor_quant that takes it.",
    )


def _insists_on(injector: type[Injector], name: str) -> bool:
    """Whether an option was set for this ``tensor_quant``, and not left over from the one that it replaces."""
    options, body = overrides_of(injector), own_attributes(written(injector))
    replaced = "tensor_quant" in (*options, *set_by(injector, options))
    return name in options or (name in body and not replaced)
