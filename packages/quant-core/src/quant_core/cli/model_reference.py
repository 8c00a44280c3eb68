"""From MODEL on the command line to a module: ``file.py:name`` or ``package.module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from quant_core.errors import LoadError, did_you_mean

if TYPE_CHECKING:
    from torch import nn


def load_model(reference: str) -> nn.Module:
    """Load a model: a class or a factory, called without arguments, or an instance.

    Raises:
        LoadError: when the file or module cannot be loaded, has no such name, or it does not give a ``torch.nn.Module``.
    """
    from torch import nn

    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise LoadError(
            f"{reference!r} does not name a model",
            why="a model is named as file.py:name or package.module:name",
            fix="Write, for example, net.py:Net.",
        )
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    if not hasattr(module, name):
        raise LoadError(
            f"there is no {name!r} in {place}",
            where=reference,
            why="the name is not defined there",
            fix=did_you_mean(name, [word for word in vars(module) if not word.startswith("_")]),
        )
    found: Any = getattr(module, name)
    if not isinstance(found, nn.Module):
        found = _call(found, reference)
    if not isinstance(found, nn.Module):
        raise LoadError(
            f"{reference} is not a model",
            where=reference,
            why=f"it is, or returns, a {type(found).__name__}; a model is a torch.nn.Module",
            fix="Name a class, a function without arguments that returns a module, or an instance.",
        )
    return found


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(
            f"{path} does not exist",
            where=str(path),
            why="a model named as file.py:name is loaded from that file",
            fix="Check the path; it is relative to the current directory.",
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise _failed(str(path), ImportError("not a Python file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as failure:
        raise _failed(str(path), failure) from failure
    return module


def _import(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except Exception as failure:
        raise _failed(name, failure) from failure


def _call(found: Any, reference: str) -> Any:
    if not callable(found):
        return found
    try:
        return found()
    except Exception as failure:
        raise LoadError(
            f"{reference} cannot be built",
            where=reference,
            why=f"calling it without arguments raised {type(failure).__name__}: {failure}",
            fix="Write a function without arguments that returns the model, and name that.",
        ) from failure


def _failed(place: str, failure: Exception) -> LoadError:
    return LoadError(
        f"{place} cannot be loaded",
        where=place,
        why=f"{type(failure).__name__}: {failure}",
        fix="Check that it imports by itself: python -c 'import ...'.",
    )
