"""Building what a proxy needs from an injector, and refusing what nothing reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from quant_core.errors import QuantError
from quant_core.inject.session import open_session
from quant_core.inject.unused import refuse_unused
from quant_core.inject.words import lookup


def assemble(
    injector: type,
    roots: Mapping[str, bool] | Sequence[str],
    *,
    prefix: str = "",
    where: str | None = None,
    reads: Collection[str] = (),
) -> dict[str, Any]:
    """Build several attributes in one go, so that they share what they have in common, and refuse what nothing reads.

    Args:
        injector: what to build from.
        roots: the attributes to build; ``True`` when required, ``False`` when left out where undefined. Of a sequence,
        all are
            required.
        prefix: what stands before the names of options in messages.
        where: the layer that asks, for messages.
        reads: further names that the caller reads itself.

    Raises:
        MissingDependencyError: when something required is not defined; holds the chain that asked for it.
        UnusedAttributeError: when an attribute has no reader; names the nearest known one.
        InjectionError: when something depends on itself or cannot be wired.
        UnknownNameError: when a shorthand has an unknown word.
        ConfigurationError: when a shorthand contradicts what stands beside it.

    >>> from quant_core.inject import Injector
    >>> class Quantizer(Injector):
    ...     bits = 8
    >>> assemble(Quantizer, {"bits": True, "signed": False})
    {'bits': 8}
    >>> assemble(Quantizer.let(bit=4), ["bits"], prefix="weight_", where="features.0")
    Traceback (most recent call last):
    ...
    quant_core.errors.UnusedAttributeError: unknown option 'weight_bit'
      at features.0
      nothing in Quantizer reads 'weight_bit'
      Did you mean 'weight_bits'?
    """
    required = roots if isinstance(roots, Mapping) else dict.fromkeys(roots, True)
    session = open_session(injector, prefix=prefix)
    try:
        built = {
            name: session.get(name)
            for name, needed in required.items()
            if needed or lookup(injector, name, prefix) is not None
        }
        refuse_unused(injector, session.consumed, reads={*reads, *required}, prefix=prefix)
    except QuantError as error:
        if where is not None:
            error.at(where)
        raise
    return built
