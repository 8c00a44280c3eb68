"""Packages whose public names are loaded on first use, so that importing one for its metadata does not import torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Any


def lazy_names(
    package: str, distribution: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package (PEP 562); ``__all__``, for ``import *``, is one of the attributes.

    Args:
        package: the name of the package.
        distribution: the distribution that it comes from, for ``__version__``.
        homes: public name → module that defines it.

    >>> getattr_, dir_ = lazy_names("math", "pluggy", {"pi": "math"})
    >>> getattr_("pi") > 3
    True
    """

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return version(distribution)
        if name == "__all__":
            return sorted(homes)
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, "__version__"})

    return __getattr__, __dir__
