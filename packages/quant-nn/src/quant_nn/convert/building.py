"""From a float layer to the quantized one: its arguments, its tensors, its place."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant_core.errors import ConfigurationError
from quant_core.proxies import QuantProxy

_Held = tuple[dict[str, Any], str]
"""A table of parameters or buffers, and a name in it."""
_PLACE: Final = ("device", "dtype")
_WITHOUT_EFFECT: Final = ("inplace",)
"""What changes how a float layer computes, and not what."""


def build(
    layer: nn.Module, kind: type, quant_type: Any, options: Mapping[str, Any], device: torch.device | None
) -> nn.Module:
    """The quantized layer for a float one, with the same parameter and buffer objects. The float layer stays as it is.

    Args:
        layer: the float layer.
        kind: its type, without parametrizations.
        quant_type: the quantized type. Its arguments are the attributes of the float layer of the same name; where they are
            not, it has a static method ``float_arguments(layer)`` that returns them.
        options: further arguments.
        device: where a layer without tensors of its own belongs.

    Raises:
        ConfigurationError: when the quantized type lacks an argument that the float layer was made with, or the other way round.
        QuantError: what the quantized type raises for its options.
    """
    _check_options(layer, quant_type, options)
    own = next((t for t in chain(layer.parameters(), layer.buffers()) if t.is_floating_point()), None)
    taken = arguments_of(quant_type)
    place = {} if own is None else {"device": own.device, "dtype": own.dtype}
    arguments = {**_float_arguments(layer, kind, quant_type), **{name: place[name] for name in place if name in taken}}
    arguments = {name: found for name, found in arguments.items() if name not in options}
    devices = [own.device] if own is not None and own.is_cuda else []
    with torch.random.fork_rng(devices=devices):  # the values that are drawn here are replaced
        built: nn.Module = quant_type(**arguments, **options)
    where = device if own is None else own.device
    if where is not None:
        built.to(where)
    modes = [(module, module.training) for module in layer.modules()]
    for name in layer._non_persistent_buffers_set - {*built._buffers}:
        built.register_buffer(name, layer._buffers[name], persistent=False)
    _adopt(built.eval(), layer)  # in training mode a parametrization may take a step of its own
    built.train(layer.training)
    for module, training in modes:  # parametrizations are parts of both
        module.training = training
    return built


def _check_options(layer: nn.Module, quant_type: Any, options: Mapping[str, Any]) -> None:
    kept = next(
        (name for name in (*_PLACE, "bias") if name in options and (name in _PLACE or hasattr(layer, name))), None
    )
    if kept is not None and kept in arguments_of(quant_type):
        raise ConfigurationError(
            f"{kept}={options[kept]!r} is no option of a rule",
            why=f"a quantized layer has the {kept} of the float layer",
            fix=f"Leave {kept} out, or change the float layer first.",
        )


def _float_arguments(layer: nn.Module, kind: type, quant_type: Any) -> Mapping[str, Any]:
    """The arguments that make a layer of the same sizes."""
    if hasattr(quant_type, "float_arguments"):
        stated: Mapping[str, Any] = quant_type.float_arguments(layer)
        return stated
    taken = arguments_of(quant_type)
    found = {name: _present(layer, name) for name in taken if name not in _PLACE and hasattr(layer, name)}
    lacking = [name for name, parameter in taken.items() if parameter.default is parameter.empty and name not in found]
    if lacking:
        raise ConfigurationError(
            f"nothing tells the argument {lacking[0]!r} of {quant_type.__name__}",
            why=f"{kind.__name__} has no attribute of this name",
            fix=f"Set it in the options of the rule, or give {quant_type.__name__} a static method float_arguments(layer).",
        )
    for name, parameter in arguments_of(kind).items():
        if name in taken or name in (*_PLACE, *_WITHOUT_EFFECT) or not hasattr(layer, name):
            continue
        if _present(layer, name) != parameter.default:
            raise ConfigurationError(
                f"{quant_type.__name__} cannot compute what this layer computes",
                why=f"{kind.__name__} has {name}={_present(layer, name)!r}, and {quant_type.__name__} has no such argument",
                fix="Exclude this layer with a rule.",
            )
    return found


def arguments_of(kind: Any) -> dict[str, inspect.Parameter]:
    """The named arguments of a constructor; those that begin with an underscore are no options of the layer."""
    parameters = inspect.signature(kind).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one for name, one in parameters.items() if one.kind in named and not name.startswith("_")}


def _present(layer: nn.Module, name: str) -> Any:
    """An attribute; of a tensor, such as ``bias``, whether there is one."""
    found = getattr(layer, name)
    return found is not None if isinstance(found, Tensor) or name in layer._parameters else found


def _adopt(built: nn.Module, layer: nn.Module) -> None:
    """Give a quantized layer the tensors of the float one, and let its quantizers start from them."""
    given, own = dict(_tensors(layer)), dict(_tensors(built))
    if given.keys() <= own.keys():
        _check_shapes(given, own, type(built).__name__)
        for path, (tensors, name) in given.items():
            own[path][0][name] = tensors[name]
    else:
        _load(built, layer)
    if parametrize.is_parametrized(layer):
        parametrize.transfer_parametrizations_and_params(layer, built)
    for proxy in built.modules():
        if isinstance(proxy, QuantProxy) and proxy.rebuilds_on_load:
            proxy.init_tensor_quant()


def _check_shapes(given: Mapping[str, _Held], own: Mapping[str, _Held], kind: str) -> None:
    for path in given:
        theirs, ours = (held[path][0][held[path][1]] for held in (given, own))
        if theirs.shape != ours.shape:
            raise ConfigurationError(
                f"{kind} has another shape than this layer",
                why=f"{path} is {tuple(theirs.shape)} here, and with the options of the rule it would be {tuple(ours.shape)}",
                fix="Leave options out that the float layer tells, such as its sizes.",
            )


def _load(built: nn.Module, layer: nn.Module) -> None:
    """The tensors of a layer that are others here, through the checkpoint that the quantized layer takes."""
    try:
        built.load_state_dict(layer.state_dict())
    except RuntimeError as failure:
        raise ConfigurationError(
            f"{type(built).__name__} has other parameters than this layer",
            why=" ".join(str(failure).split()[:60]),
            fix="Remove what computes its parameters, such as torch.nn.utils.prune, or exclude this layer with a rule.",
        ) from failure


def _tensors(layer: nn.Module) -> Iterator[tuple[str, _Held]]:
    """The parameters and buffers that are no part of a parametrization: by path, where each is held and under which name."""
    for path, module in layer.named_modules():
        if path.split(".")[0] == "parametrizations":
            continue
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    yield (f"{path}.{name}" if path else name), (tensors, name)
