"""Checkpoints that load as a whole or not at all."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from quant_core.checkpoints.differences import (
    added_prefix,
    listed,
    missing,
    other_shapes,
    without_place,
    without_prefix,
)
from quant_core.errors import InputError, StateError
from quant_core.proxies import QuantProxy


def load_checkpoint(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a checkpoint, float or quantized, where all of it fits the model; otherwise say what does not, and load nothing.

    A float checkpoint holds nothing of quantizers, which start again from the weights.

    Args:
        model: the model, in float or quantized.
        state_dict: the checkpoint.

    Raises:
        StateError: when names or shapes differ; lists them.
        InputError: when it is no checkpoint, but a path, or something that holds one.

    >>> net = nn.Linear(2, 3)
    >>> load_checkpoint(net, nn.Linear(2, 3).state_dict())
    >>> load_checkpoint(net, nn.Linear(4, 3).state_dict())
    Traceback (most recent call last):
    ...
    quant_core.errors.StateError: the checkpoint is that of another architecture
      at Linear
      weight has the shape (3, 4) in the checkpoint and (3, 2) in the model
      Build the model that the checkpoint was made with; nothing was loaded.
    """
    _check_tensors(state_dict)
    tried = copy.deepcopy(model)
    try:
        tried.load_state_dict(dict(state_dict))
    except RuntimeError as failure:
        found = list(_differences(model, state_dict)) or [line.strip() for line in str(failure).splitlines()[1:]]
        prefix = added_prefix(state_dict, model.state_dict())
        raise StateError(
            "the checkpoint is that of another architecture",
            where=type(model).__name__,
            why=listed(found),
            fix=without_prefix(prefix)
            if prefix
            else "Build the model that the checkpoint was made with; nothing was loaded.",
        ) from failure
    model.load_state_dict(dict(state_dict))


def _check_tensors(state_dict: Any) -> None:
    if not isinstance(state_dict, Mapping):
        raise InputError(
            f"a {type(state_dict).__name__} is no checkpoint",
            why="a checkpoint maps names to tensors",
            fix="Load a file first: torch.load(path, weights_only=True).",
        )
    other = next((key for key, value in state_dict.items() if isinstance(value, Mapping)), None)
    if other is not None:
        raise InputError(
            "the checkpoint holds other checkpoints",
            why=f"{other!r} is of the type {type(state_dict[other]).__name__}, and a checkpoint maps names to tensors",
            fix=f"Pass the part that holds the model, such as checkpoint[{other!r}].",
        )


def _differences(model: nn.Module, state_dict: Mapping[str, Tensor]) -> Iterator[str]:
    """Shapes, names that only the model has, and names that only the checkpoint has."""
    own = model.state_dict()
    modules = model.named_modules(remove_duplicate=False)
    quantizers = tuple(f"{path}." if path else "" for path, module in modules if isinstance(module, QuantProxy))
    is_float = not any(key.startswith(quantizers) for key in state_dict)
    needed = {key: tensor for key, tensor in own.items() if not (is_float and key.startswith(quantizers))}
    yield from other_shapes(state_dict, own)
    yield from missing(state_dict, needed)
    yield from without_place(state_dict, own)
