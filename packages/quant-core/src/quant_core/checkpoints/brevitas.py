"""Checkpoints of Brevitas 0.13.

What a layer calls its weights and its quantizers is the same there, and what they learn stands for the same numbers. The names
within a quantizer differ:

=========================================================== ==============================
there, after the name of the quantizer                       here
=========================================================== ==============================
``fused_activation_quant_proxy.activation_impl.…``           ``act_impl.…``
``fused_activation_quant_proxy.tensor_quant.…``              ``tensor_quant.…``
``tensor_quant.msb_clamp_bit_width_impl.…``                  ``tensor_quant.bit_width_impl.…``
``….pre_scaling_impl.scaling_impl.…``                        ``….scaling_impl.…``
``….scaling_impl.runtime_stats.running_stats``               ``….scaling_impl.average``
``….scaling_impl.stats_scaling_impl.affine_rescaling.…``     ``….scaling_impl.affine_rescaling.…``
``….scaling_impl.value``, ``….zero_point_impl.value``        the same
=========================================================== ==============================

A checkpoint from there does not tell how many steps of statistics or of a delay have passed. Where it holds what was learned from
statistics, they are taken as collected, as Brevitas itself does; delays are taken as over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from quant_core.components import AccumulatorAwarePreScaling, StepCounter
from quant_core.errors import StateError
from quant_core.proxies import QuantProxy

RENAMED: Final = (
    ("fused_activation_quant_proxy.activation_impl.", "act_impl."),
    ("fused_activation_quant_proxy.tensor_quant.", "tensor_quant."),
    ("tensor_quant.msb_clamp_bit_width_impl.", "tensor_quant.bit_width_impl."),
    ("tensor_quant.pre_scaling_impl.scaling_impl.", "tensor_quant.scaling_impl."),
    ("tensor_quant.scaling_impl.runtime_stats.running_stats", "tensor_quant.scaling_impl.average"),
    ("tensor_quant.scaling_impl.stats_scaling_impl.affine_rescaling.", "tensor_quant.scaling_impl.affine_rescaling."),
)
"""The key map: what stands there, and here. Applied in this order within the keys of a quantizer."""

_SHOWN: Final = 8


def from_brevitas(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The checkpoint of a Brevitas model, as ``model.load_state_dict`` takes it.

    Args:
        state_dict: what ``state_dict()`` of the Brevitas model gave, at any time after its first training step.
        model: the same model of this library: layers and quantizers of the same names and options. It is not changed.

    Returns:
        A complete checkpoint, which loads with ``strict=True``.

    Raises:
        StateError: when the checkpoint holds something that the model has no place for, lacks something that is learned, or a
            shape or a constant bit width differs.

    >>> from_brevitas({"weight": nn.Linear(2, 2).weight, "bias": nn.Linear(2, 2).bias}, nn.Linear(2, 2)).keys()
    dict_keys(['weight', 'bias'])
    """
    proxies = {name: module for name, module in model.named_modules(remove_duplicate=False) if _is_proxy(module)}
    own = model.state_dict()
    within = tuple(f"{name}." for name in proxies)
    constants = dict(_constants(model, own))
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in state_dict.items():
        renamed = _renamed(key, proxies)
        if renamed in own:
            found[renamed] = _fitting(key, tensor, own[renamed], of_quantizer=renamed.startswith(within))
        elif renamed in constants:
            _check_constant(key, tensor, constants[renamed])
        else:
            unknown.append(key)
    if unknown:
        raise _unknown(unknown)
    missing = [key for key in own if key not in found]
    kept = set(_not_stored_there(model, found))
    lacking = [key for key in missing if key not in kept]
    if lacking:
        raise _lacking(lacking)
    counts = {f"{name}.count": module for name, module in _counters(model) if _is_over(name, found)}
    for key in missing:
        found[key] = own[key].clone()
        if key in counts:
            found[key].fill_(counts[key].steps or 1)  # an average without an end counts on from its first step
    return {key: found[key] for key in own}


def _is_proxy(module: nn.Module) -> bool:
    return isinstance(module, QuantProxy)


def _renamed(key: str, proxies: Mapping[str, nn.Module]) -> str:
    """The key in a model of this library; within quantizers the names differ."""
    for name in proxies:
        if key.startswith(f"{name}."):
            within = key.removeprefix(f"{name}.")
            for there, here in RENAMED:
                if within.startswith(there):
                    within = here + within.removeprefix(there)
            return f"{name}.{within}"
    return key


def _fitting(key: str, tensor: Tensor, own: Tensor, *, of_quantizer: bool) -> Tensor:
    """The tensor in the shape that it has here; one number is one number in any shape.

    What a quantizer learns for groups has an axis more there, of size 1.
    """
    sizes = [[size for size in shape if size != 1] for shape in (tensor.shape, own.shape)]
    same = sizes[0] == sizes[1] if of_quantizer else tensor.numel() == own.numel() == 1
    if tensor.shape != own.shape and not same:
        raise StateError(
            f"{key!r} does not fit the model",
            why=f"it has the shape {tuple(tensor.shape)} in the checkpoint and {tuple(own.shape)} in the model",
            fix="Build the model with the sizes and quantizers that the checkpoint was made with.",
        )
    return tensor.detach().reshape(own.shape).clone()


def _constants(model: nn.Module, own: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """What is part of checkpoints there, and only of the model here: bit widths of integers and of accumulators."""
    yield from ((name, buffer) for name, buffer in model.named_buffers(remove_duplicate=False) if name not in own)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, AccumulatorAwarePreScaling):
            yield f"{name}.accumulator_bit_width.bit_width", torch.tensor(float(module.accumulator_bit_width))


def _check_constant(key: str, tensor: Tensor, own: Tensor) -> None:
    """A constant, such as a fixed bit width, is no part of checkpoints here; the model must have the same."""
    if not torch.equal(tensor.detach().reshape(-1).cpu(), own.reshape(-1).cpu()):
        raise StateError(
            f"{key!r} is another constant than that of the model",
            why=f"it is {tensor.tolist()} in the checkpoint and {own.tolist()} in the model",
            fix="Build the model with the bit widths that the checkpoint was made with.",
        )


def _counters(model: nn.Module) -> Iterator[tuple[str, StepCounter]]:
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, StepCounter):
            yield name, module


def _is_over(counter: str, found: Mapping[str, Tensor]) -> bool:
    """Whether steps are taken as passed: those of a delay, and those of statistics whose result is there."""
    owner, _, name = counter.rpartition(".")
    return name != "collected" or f"{owner}.value" in found or f"{owner}.average" in found


def _not_stored_there(model: nn.Module, found: Mapping[str, Tensor]) -> Iterator[str]:
    """What a checkpoint of Brevitas does not hold: constants, counts, and the result of statistics before the first step."""
    learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    in_quantizers = tuple(
        f"{name}." for name, module in model.named_modules(remove_duplicate=False) if _is_proxy(module)
    )
    yield from (key for key in model.state_dict() if key.startswith(in_quantizers) and key not in learned)
    for counter, _ in _counters(model):
        if not _is_over(counter, found):
            yield f"{counter.rpartition('.')[0]}.value"


def _unknown(keys: list[str]) -> StateError:
    return StateError(
        f"the checkpoint holds {_count(keys)} that the model has no place for",
        why=_listed(keys),
        fix="Build the model with the layers and quantizers that the checkpoint was made with. A checkpoint of this library is "
        "loaded as it is.",
    )


def _lacking(keys: list[str]) -> StateError:
    return StateError(
        f"the checkpoint lacks {_count(keys)} that the model learns",
        why=_listed(keys),
        fix="Build the model with the quantizers that the checkpoint was made with, and save the Brevitas model after its first "
        "step: before, it does not store scales that start from weights.",
    )


def _count(keys: list[str]) -> str:
    return "1 key" if len(keys) == 1 else f"{len(keys)} keys"


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
