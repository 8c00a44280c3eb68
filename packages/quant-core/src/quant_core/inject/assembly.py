"""Building what a proxy needs from an injector, and refusing what nothing reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from quant_core.errors import QuantError
from quant_core.inject.attributes import find
from quant_core.inject.session import Session
from quant_core.inject.vocabulary import refuse_unused


def assemble(
    injector: type,
    roots: Mapping[str, bool],
    *,
    prefix: str = "",
    where: str | None = None,
    reads: Collection[str] = (),
) -> dict[str, Any]:
    """Build several attributes in one go, so that they share what they have in common.

    Args:
        injector: what to build from.
        roots: the attributes to build; ``True`` when required, ``False`` when left out where undefined.
        prefix: what stands before the names of options in messages.
        where: the layer that asks, for messages.
        reads: further names that the caller reads itself.

    Raises:
        MissingDependencyError: when something required is not defined.
        UnusedAttributeError: when an attribute has no reader.

    >>> from quant_core.inject import Injector
    >>> class Quantizer(Injector):
    ...     bits = 8
    >>> assemble(Quantizer, {"bits": True, "signed": False})
    {'bits': 8}
    """
    session = Session(injector)
    try:
        built = {
            name: session.get(name) for name, required in roots.items() if required or find(injector, name) is not None
        }
        refuse_unused(injector, session.consumed, reads={*reads, *roots}, prefix=prefix, where=where)
    except QuantError as error:
        if error.where is None:
            error.where = where
        raise
    return built
