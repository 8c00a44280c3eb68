"""Refusing attributes that nothing reads: silence would be a wrong model.

The nearer an attribute is to what the user wrote last, the stricter. What ``let`` set, and so each option of a layer,
must have been read in this build. So must what stands in the class that was handed over, unless ``let`` replaced a part
of it, by itself or through a shorthand: then what that part read has lost its reader through no fault of the class. What
is inherited must have a name that some component of the injector could read, also one that was overridden.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from quant_core.errors import UnusedAttributeError, nearest
from quant_core.inject.attributes import find, names_of, overrides_of, own_attributes, title, written
from quant_core.inject.value import value
from quant_core.inject.vocabulary import Read, vocabulary
from quant_core.inject.words import known_keywords, set_by, stands_for


def refuse_unused(injector: type, consumed: Collection[str], *, reads: Collection[str], prefix: str) -> None:
    """Raise for the first attribute that has no reader.

    Args:
        injector: what was built.
        consumed: the names that were read in the build.
        reads: further names that have a reader.
        prefix: what stands before the names of options in messages.

    Raises:
        UnusedAttributeError: names the nearest known attribute, or the component that would read this one.
    """
    unread = [name for name in names_of(injector) if name not in consumed and name not in reads]
    if not unread:
        return
    known = vocabulary(injector)
    keywords = set(known_keywords(injector))
    words = {read.name for read in known} | keywords
    options = overrides_of(injector)
    body = own_attributes(written(injector))
    replaced = any(find(written(injector), name) is not None for name in (*options, *set_by(injector, options)))
    for name in sorted(unread, key=lambda name: name not in options):  # what the user set last comes first
        if name not in words:
            raise _unknown(injector, name, known, reads, keywords, prefix, option=name in options)
        if name in options or (name in body and not replaced and not isinstance(body[name], value)):
            raise _idle(injector, name, known, prefix, option=name in options)


def _unknown(
    injector: type,
    name: str,
    known: Sequence[Read],
    reads: Collection[str],
    keywords: Collection[str],
    prefix: str,
    *,
    option: bool,
) -> UnusedAttributeError:
    lead = prefix if option else ""
    readable = {read.name for read in known if read.certain} | set(reads)
    near = nearest(
        name, {*readable, *keywords}, most=1
    )  # compared without the prefix, which would make all names look alike
    names = ", ".join(lead + word for word in sorted(readable)) or "none"
    return UnusedAttributeError(
        f"unknown {'option' if option else 'attribute'} {lead + name!r}",
        why=f"nothing in {title(injector)} reads {lead + name!r}",
        fix=f"Did you mean {lead + near[0]!r}?" if near else f"Known names: {names}.",
    )


def _idle(injector: type, name: str, known: Sequence[Read], prefix: str, *, option: bool) -> UnusedAttributeError:
    lead = prefix if option else ""
    readers = " or ".join(dict.fromkeys(read.reader for read in known if read.name == name))
    shorthand = " and ".join(stands_for(injector, name))
    known_to = f"stands for {shorthand}" if shorthand else f"is known to {readers}"
    return UnusedAttributeError(
        f"{'option' if option else 'attribute'} {lead + name!r} has no effect",
        why=f"{lead + name!r} {known_to}, but nothing reads it as {title(injector)} is configured",
        fix=f"Leave {lead + name} out, or choose components and options that read it.",
    )
