"""Checking what a recurrent layer is given: its input and its initial states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import InputError
from quant_core.tensor import QuantTensor
from quant_nn.layer import value_of
from quant_rnn.parameters import Sizes
from quant_rnn.quantizing import MaybeQuantized


def check_input(x: MaybeQuantized, features: int, where: str, *, batch_first: bool) -> None:
    """A sequence of at least one step, ``(T, B, I)``, ``(B, T, I)`` or ``(T, I)``.

    Raises:
        InputError: when the number of axes or of features is another one, or there is no step.
    """
    if not isinstance(x, (Tensor, QuantTensor)):
        raise InputError(
            f"{type(x).__name__!r} object is no sequence",
            where=where,
            why="the input is a tensor, a QuantTensor or a PackedSequence",
            fix="Stack the steps to one tensor, or pack sequences with torch.nn.utils.rnn.pack_padded_sequence.",
        )
    if x.ndim not in (2, 3):
        raise InputError(
            f"an input of shape {tuple(x.shape)} is no sequence",
            where=where,
            why=f"it has {x.ndim} axes, and a sequence has 3, or 2 without a batch",
            fix="Give it as (batch, time, features)." if batch_first else "Give it as (time, batch, features).",
        )
    check_features(x.shape[-1], features, where)
    axis = 1 if batch_first and x.ndim == 3 else 0
    if x.shape[axis] == 0:
        raise InputError(
            f"an input of shape {tuple(x.shape)} has no step",
            where=where,
            why=f"axis {axis} holds the steps, and there must be at least one",
            fix="Leave empty sequences out.",
        )


def check_features(found: int, wanted: int, where: str) -> None:
    """The last axis has as many features as the layer takes.

    Raises:
        InputError: when it has not.
    """
    if found != wanted:
        raise InputError(
            f"an input with {found} features does not fit this layer",
            where=where,
            why=f"input_size is {wanted}",
            fix=f"Give an input whose last axis has {wanted} elements, or set input_size={found}.",
        )


def check_dtype(x: MaybeQuantized, wanted: torch.dtype, where: str) -> None:
    """The input has the type of the weights, save under autocast, which converts both.

    Raises:
        InputError: when it has not.
    """
    if x.dtype != wanted and not torch.is_autocast_enabled(x.device.type):
        other = f", or the layer: layer.to({x.dtype})" if x.dtype.is_floating_point else ""
        raise InputError(
            f"an input of {x.dtype} does not fit this layer",
            where=where,
            why=f"its weights are of {wanted}",
            fix=f"Convert the input: x.to({wanted}){other}.",
        )


def check_state(state: Tensor | QuantTensor, wanted: Sequence[int], x: MaybeQuantized, name: str, where: str) -> None:
    """A state has one row for each layer, direction and sequence, and the type of the input, save under autocast.

    Raises:
        InputError: when its shape or its type is another one.
    """
    if not isinstance(state, (Tensor, QuantTensor)):
        raise InputError(
            f"the initial {name} is a {type(state).__name__}",
            where=where,
            why="it is a tensor, a QuantTensor, or a list of such of one shape",
            fix="Give the states that the layer returned, or none to start from zeros.",
        )
    if tuple(state.shape) != tuple(wanted):
        raise InputError(
            f"an initial {name} of shape {tuple(state.shape)} does not fit",
            where=where,
            why=f"for this input it is {tuple(wanted)}: layers · directions, batch, features"
            if len(wanted) == 3
            else f"for this input it is {tuple(wanted)}: layers · directions, features",
            fix=f"Give torch.zeros{tuple(wanted)}, or none to start from zeros.",
        )
    if state.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise InputError(
            f"an initial {name} of {state.dtype} does not fit",
            where=where,
            why=f"the input is of {x.dtype}",
            fix=f"Convert the state: state.to({x.dtype}).",
        )


def first_states(
    sizes: Sizes,
    names: Sequence[str],
    x: MaybeQuantized,
    given: Sequence[Any] | None,
    batch: int,
    where: str,
    *,
    single: bool,
) -> list[list[MaybeQuantized]]:
    """The states before the first step: for each kind, one ``(B, …)`` for each layer and direction.

    Args:
        sizes: those of the layer.
        names: what its kinds of states are called.
        x: the input, for type and device.
        given: a state of each kind, as the layer takes and returns them; ``None`` for zeros.
        batch: how many sequences there are.
        where: the layer, for errors.
        single: whether there is one sequence without an axis for it.

    Raises:
        InputError: when the shape or the type of a state is another one.
    """
    features = (sizes.outputs, sizes.hidden)[: len(names)]
    count = sizes.layers * sizes.directions
    if given is None:
        return [[_zeros((batch, size), x) for _ in range(count)] for size in features]
    start: list[list[MaybeQuantized]] = []
    for state, size, name in zip(given, features, names, strict=True):
        if isinstance(state, (list, tuple)) and _are_alike(state):  # as the layer returns states that are not joined
            state = torch.stack([value_of(part) for part in state])
        check_state(state, (count, size) if single else (count, batch, size), x, name, where)
        rows = value_of(state).unbind(0)
        start.append([row.unsqueeze(0) if single else row for row in rows])
    return start


def _are_alike(parts: Sequence[Any]) -> bool:
    """Whether these are tensors of one shape."""
    tensors = all(isinstance(part, (Tensor, QuantTensor)) for part in parts)
    return tensors and len({part.shape for part in parts}) == 1


def _zeros(shape: Sequence[int], like: MaybeQuantized) -> Tensor:
    return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)
