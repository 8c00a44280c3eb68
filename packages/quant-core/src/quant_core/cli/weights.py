"""``--weights FILE``: a state dict, read without running code from the file, and loaded strictly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quant_core.errors import LoadError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHOWN: Final = 5
_NESTED_KEY: Final = "state_dict"


def check_weights_file(path: Path) -> None:
    """Find out before any work whether there is a file.

    Raises:
        LoadError: when there is none.
    """
    if not path.is_file():
        raise LoadError(
            f"there is no weights file {path.name!r}",
            where=str(path),
            why="it is a directory" if path.is_dir() else f"{path.parent.absolute()} has no such file",
            fix="Give a file written by torch.save(model.state_dict(), path).",
        )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into a model: every key must be in both, with the same shape.

    Args:
        model: the model; undefined when this raises.
        path: a file that ``torch.save`` wrote from a state dict, or from a dict that holds one as ``"state_dict"``.

    Raises:
        LoadError: when the file is missing, is not a state dict, or does not fit the model, such as complex numbers.
    """
    state = read_state_dict(path)
    own = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    cut = [
        f"{name!r} holds {tensor.dtype}, the model has {own[name].dtype}"
        for name, tensor in state.items()
        if name in own and tensor.is_complex() and not own[name].is_complex()
    ]
    if cut:
        raise _misfit(path, cut, "Save real numbers: torch would drop the imaginary parts.")
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as failure:
        raise _misfit(path, _wrong_shapes(state, shapes) or [str(failure)]) from failure
    problems = [f"{name!r} is missing{_near(name, unexpected)}" for name in missing]
    problems += [f"{name!r} is not in the model{_near(name, shapes)}" for name in unexpected]
    if problems:
        raise _misfit(path, problems, _of_wrapper(state, shapes))


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict with ``torch.load(weights_only=True)``.

    Raises:
        LoadError: when the file is missing, cannot be read, or holds something else.
    """
    import torch

    check_weights_file(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as failure:
        raise LoadError(
            f"{path.name!r} is not a weights file",
            where=str(path),
            why=f"torch.load(weights_only=True) refuses it: {type(failure).__name__}: {_first_sentence(failure)}",
            fix="Give a file written by torch.save(model.state_dict(), path): tensors only, no pickled objects.",
        ) from failure
    if isinstance(content, Mapping) and isinstance(content.get(_NESTED_KEY), Mapping):
        content = content[_NESTED_KEY]
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise _not_a_state_dict(path, f"it holds a {type(content).__name__}")
    other = {key: value for key, value in content.items() if not isinstance(value, torch.Tensor)}
    if other:
        key, value = next(iter(other.items()))
        raise _not_a_state_dict(path, f"{key!r} is a {type(value).__name__}, not a tensor")
    return content


def _not_a_state_dict(path: Path, why: str) -> LoadError:
    return LoadError(
        f"{path.name!r} holds no state dict",
        where=str(path),
        why=why,
        fix=f"Save model.state_dict(), by itself or as {_NESTED_KEY!r} in a dict.",
    )


def _of_wrapper(state: Mapping[str, Tensor], shapes: Collection[str]) -> str:
    """What to do where the names of the model stand behind those of a wrapper."""
    from quant_core.checkpoints.differences import added_prefix, without_prefix

    prefix = added_prefix(state, shapes)
    return without_prefix(prefix) if prefix else ""


def _misfit(path: Path, problems: list[str], fix: str = "") -> LoadError:
    shown = problems[:_SHOWN]
    if len(problems) > _SHOWN:
        shown.append(f"and {len(problems) - _SHOWN} more")
    return LoadError(
        f"the weights in {path.name!r} do not fit the model",
        where=str(path),
        why="\n".join(shown),
        fix=fix or "Give the weights of this model, or the model of these weights.",
    )


def _wrong_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [
        f"{name!r} has shape {tuple(tensor.shape)}, the model has {shapes[name]}"
        for name, tensor in state.items()
        if name in shapes and tuple(tensor.shape) != shapes[name]
    ]


def _near(name: str, known: Collection[str]) -> str:
    close = nearest(name, known, most=1)
    return f"; the nearest key is {close[0]!r}" if close else ""


def _first_sentence(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return lines[0].partition(". ")[0].rstrip(".") if lines else "no message"
