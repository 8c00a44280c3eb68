"""Saying how a checkpoint differs from what a model needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from torch import Tensor

_SHOWN: Final = 20


def other_shapes(state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    """What both have in different shapes.

    >>> import torch
    >>> list(other_shapes({"weight": torch.zeros(3, 4)}, {"weight": torch.zeros(3, 2)}))
    ['weight has the shape (3, 4) in the checkpoint and (3, 2) in the model']
    """
    for key, tensor in own.items():
        if key in state_dict and state_dict[key].shape != tensor.shape:
            shapes = f"{tuple(state_dict[key].shape)} in the checkpoint and {tuple(tensor.shape)} in the model"
            yield f"{key} has the shape {shapes}"


def missing(state_dict: Collection[str], own: Mapping[str, Tensor]) -> Iterator[str]:
    """What only the model has.

    >>> import torch
    >>> list(missing({}, {"weight": torch.zeros(3, 2)}))
    ['weight (3, 2) is missing in the checkpoint']
    """
    return (
        f"{key} {tuple(tensor.shape)} is missing in the checkpoint"
        for key, tensor in own.items()
        if key not in state_dict
    )


def without_place(state_dict: Mapping[str, Tensor], own: Collection[str]) -> Iterator[str]:
    """What only the checkpoint has.

    >>> import torch
    >>> list(without_place({"gain": torch.zeros(1)}, {}))
    ['gain (1,) has no place in the model']
    """
    return (
        f"{key} {tuple(tensor.shape)} has no place in the model" for key, tensor in state_dict.items() if key not in own
    )


def added_prefix(state_dict: Collection[str], own: Collection[str]) -> str:
    """What stands before all names of a checkpoint that without it are names of the model; empty where nothing does.

    >>> added_prefix({"module.weight": 0, "module.bias": 0}, {"weight": 0, "bias": 0, "scale": 0})
    'module.'
    """
    words = next(iter(state_dict), "").split(".")[:-1]
    prefixes = (".".join(words[:length]) + "." for length in range(1, len(words) + 1))
    return next(
        (
            prefix
            for prefix in prefixes
            if all(name.startswith(prefix) and name.removeprefix(prefix) in own for name in state_dict)
        ),
        "",
    )


def without_prefix(prefix: str) -> str:
    """What to do about an added prefix."""
    return (
        f"All names start with {prefix!r}, which wrappers of models add: save the state dict of the model inside of "
        f"the wrapper, or load {{name.removeprefix({prefix!r}): tensor for name, tensor in checkpoint.items()}}."
    )


def listed(found: Sequence[str]) -> str:
    """One difference on each line, and how many more there are.

    >>> listed(["a"] * 25).splitlines()[-1]
    'and 5 more'
    """
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "\n".join([*found[:_SHOWN], *more])
