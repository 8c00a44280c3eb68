"""Handing batches of any form to a model, with a progress bar."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from quant_core.errors import InputError
from quant_nn.positional import positional

Forward = Callable[[nn.Module, Any], Any]
"""How a batch is handed to a model."""

Parameters = Mapping[str, inspect.Parameter]

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY_NUMBER: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def run(model: nn.Module, batch: Any) -> Any:
    """Call a model with a batch: a tensor or packed sequences; a tuple or list of arguments; a mapping of keywords.

    Of a tuple that has more elements than the model takes, such as images with their labels, the first ones are handed over.

    Raises:
        InputError: when the model has no argument of a keyword, asks for more than the batch holds, or is on another device.

    >>> run(nn.ReLU(), (torch.tensor([-1.0]), "label"))
    tensor([0.])
    """
    args, kwargs = arguments(model, batch)
    return model(*args, **kwargs)


def arguments(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional arguments and the keywords that a model is called with; see :func:`run`.

    >>> arguments(nn.ReLU(), ("images", "labels"))
    (('images',), {})
    """
    _check_devices(model, batch)
    parameters = inspect.signature(model.forward).parameters
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(batch, Mapping):
        _check_keywords(model, parameters, batch)
        kwargs = dict(batch)
    else:
        args = positional(tuple(batch) if isinstance(batch, list) else batch)[: _most_arguments(parameters)]
    _check_enough(model, parameters, args, kwargs)
    return args, kwargs


def eager(model: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` has wrapped, whose quantizers can be observed; every other one as it is.

    >>> layer = nn.ReLU()
    >>> eager(torch.compile(layer, backend="eager")) is eager(layer) is layer
    True
    """
    found: nn.Module = getattr(model, "_orig_mod", model)
    return found


def progressing(data: Iterable[Any], what: str, progress: bool | None) -> Iterator[Any]:
    """The batches, with a progress bar on standard error.

    Args:
        data: any iterable.
        what: what is being done.
        progress: whether there is a bar; ``None`` for one where standard error is a terminal.

    Raises:
        InputError: when the data is a single batch, or nothing that can be gone through.
    """
    if not isinstance(data, Iterable) or isinstance(data, (Mapping, str, bytes)):
        raise InputError(
            f"a {type(data).__name__} is no data",
            where=what,
            why="data is an iterable of batches: tensors, tuples of arguments, or mappings of keywords",
            fix="Put a single batch into a list: [batch].",
        )
    console = Console(stderr=True)
    shown = console.is_terminal if progress is None else progress
    total = len(data) if isinstance(data, Sized) else None
    yield from track(data, what, total=total, console=console, transient=console.is_terminal, disable=not shown)


def no_data(where: str) -> InputError:
    """The data has no batches."""
    return InputError(
        "there is no data",
        where=where,
        why="the iterable ended before its first batch",
        fix="Give a list or a DataLoader; a generator that was used before is empty.",
    )


def _most_arguments(parameters: Parameters) -> int | None:
    """How many positional arguments a model takes; ``None`` for any number."""
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
        return None
    return sum(parameter.kind in _POSITIONAL for parameter in parameters.values())


def _check_keywords(model: nn.Module, parameters: Parameters, batch: Mapping[str, Any]) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [key for key in batch if key not in parameters]
    if unknown:
        raise InputError(
            f"the model has no argument {unknown[0]!r}",
            where=type(model).__name__,
            why=f"a batch that is a mapping holds keywords, and the model takes {', '.join(parameters)}",
            fix="Take other keys out of the batches, or pass forward=lambda model, batch: …",
        )


def _check_enough(model: nn.Module, parameters: Parameters, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    names = [name for name, parameter in parameters.items() if parameter.kind in _POSITIONAL]
    given = {*names[: len(args)], *kwargs}
    for name, parameter in parameters.items():
        asked = parameter.default is parameter.empty and parameter.kind not in _ANY_NUMBER
        if asked and name not in given:
            raise InputError(
                f"a batch holds no {name!r} for the model",
                where=type(model).__name__,
                why=f"the model takes {', '.join(parameters)}, and got {', '.join(sorted(given)) or 'nothing'}",
                fix="Give tuples of arguments, mappings of keywords, or forward=lambda model, batch: …",
            )


def _check_devices(model: nn.Module, batch: Any) -> None:
    leaves = pytree.tree_leaves(batch, is_leaf=lambda part: isinstance(part, PackedSequence))
    # The lengths of packed sequences are on the CPU wherever these are.
    found = {leaf.data.device for leaf in leaves if isinstance(leaf, Tensor | PackedSequence)}
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    if first is None or found <= {first.device}:
        return  # going through all parameters takes as long as a small model itself
    known = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    stray = found - known
    if stray:
        raise InputError(
            f"a batch on {_listed(stray)} does not fit a model on {_listed(known)}",
            where=type(model).__name__,
            why="a model computes where its parameters are",
            fix="Move one of them: model.to(device), or batch.to(device) for each batch.",
        )


def _listed(devices: set[torch.device]) -> str:
    return " and ".join(sorted(str(device) for device in devices))
