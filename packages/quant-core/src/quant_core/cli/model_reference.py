"""MODEL on the command line: ``file.py:name`` or ``package.module:name``, a class, a factory or a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from quant_core.cli.errors import ArgumentError
from quant_core.errors import LoadError, did_you_mean, nearest
from quant_core.last_line import last_line

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ModelReference:
    """Where a model is defined.

    Attributes:
        source: a path that ends in ``.py``, or the name of a module.
        name: the name in there, possibly dotted.
    """

    source: str
    name: str

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"

    @property
    def is_file(self) -> bool:
        """Whether the source is a file."""
        return self.source.endswith(".py")


def parse_model(text: str) -> ModelReference:
    """Read ``file.py:name`` or ``package.module:name``. Nothing is imported, but a file must be there.

    Raises:
        ArgumentError: when the text is not of this form.
        LoadError: when there is no such file; names the nearest one.

    >>> parse_model("nets.zoo:LeNet")
    ModelReference(source='nets.zoo', name='LeNet')
    """
    source, _, name = text.rpartition(":")
    is_file = source.endswith(".py")
    valid = is_file or all(part.isidentifier() for part in source.split("."))
    if not source or not valid or not all(part.isidentifier() for part in name.split(".")):
        raise ArgumentError(
            f"{text!r} names no model",
            where="MODEL",
            why="a model is file.py:name or package.module:name",
            fix=f"Write, for example, {_example(text)}, where Net is a class, a function or an instance in there.",
        )
    if is_file and not Path(source).is_file():
        folder = Path(source).parent
        files = [str(path) for path in folder.glob("*.py")] if folder.is_dir() else []
        raise LoadError(
            f"there is no file {source!r}",
            where="MODEL",
            why=f"{folder.absolute()} is no directory" if not folder.is_dir() else "the directory has no such file",
            fix=did_you_mean(source, files) if nearest(source, files) else "Give the path of the file with the model.",
        )
    return ModelReference(source=source, name=name)


def load_model(reference: ModelReference) -> nn.Module:
    """Import the source, and make the model: a class or a factory is called without arguments, an instance is taken.

    Modules beside the file, or under the current directory, can be imported by it, as when Python runs it.

    Raises:
        LoadError: when the source cannot be imported, has no such name, or does not give a ``torch.nn.Module``.
    """
    from torch import nn

    module = _import(reference)
    found: Any = module
    for part in reference.name.split("."):
        if not hasattr(found, part):
            raise LoadError(
                f"{reference.source!r} has no {reference.name!r}",
                where=str(reference),
                why=f"{getattr(found, '__name__', repr(found))} defines no {part!r}",
                fix=did_you_mean(part, _candidates(found)),
            )
        found = getattr(found, part)
    made = found if isinstance(found, nn.Module) else _call(found, reference)
    if not isinstance(made, nn.Module):
        raise LoadError(
            f"{reference.name!r} gives no model",
            where=str(reference),
            why=f"it gives a {type(made).__name__}, not a torch.nn.Module",
            fix="Name a subclass of torch.nn.Module, a function that returns a module, or a module.",
        )
    return made


def _import(reference: ModelReference) -> ModuleType:
    try:
        return _run_file(Path(reference.source)) if reference.is_file else _import_module(reference.source)
    except (Exception, SystemExit) as failure:
        raise LoadError(
            f"{reference.source!r} cannot be imported",
            where=_line_of(failure) or str(reference),
            why=f"{type(failure).__name__}: {failure}",
            fix=_remedy(failure, reference),
        ) from failure


def _remedy(failure: BaseException, reference: ModelReference) -> str:
    if reference.is_file and isinstance(failure, ImportError) and "relative import" in str(failure):
        path = Path(reference.source).absolute()
        return (
            f"The file is a part of the package {path.parent.name!r}: run the command in {path.parent.parent}, and name the "
            f"module, {path.parent.name}.{path.stem}:{reference.name}."
        )
    return "Make `python -c 'import …'` of it work first; the full traceback is the cause of this error."


def _run_file(path: Path) -> ModuleType:
    folder = str(path.parent.absolute())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # A stem that is the name of a loaded module must not replace it: torch.py, or a second net.py.
    name = path.stem if path.stem not in sys.modules else f"_model_{path.stem}_{len(sys.modules)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a path that ends in .py has a spec"
    assert spec.loader is not None, "and a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def _call(found: Any, reference: ModelReference) -> Any:
    if not callable(found):
        return found
    try:
        return found()
    except (Exception, SystemExit) as failure:
        raise LoadError(
            f"calling {reference.name!r} without arguments failed",
            where=_line_of(failure) or str(reference),
            why=f"{type(failure).__name__}: {failure}",
            fix="Name a class or function that needs no arguments, if need be a small function that makes the model.",
        ) from failure


def _candidates(found: Any) -> list[str]:
    """The public names that could give a model: what is defined there rather than imported, if anything is."""
    callables = {name: thing for name, thing in vars(found).items() if not name.startswith("_") and callable(thing)}
    home = getattr(found, "__name__", "")
    return [name for name, thing in callables.items() if getattr(thing, "__module__", None) == home] or [*callables]


def _line_of(failure: BaseException) -> str:
    if isinstance(failure, SyntaxError) and failure.filename:
        return f"{failure.filename}:{failure.lineno}"
    return last_line(failure)


def _example(text: str) -> str:
    source = text.partition(":")[0]
    return f"{source}:Net" if source.endswith(".py") else "net.py:Net"
