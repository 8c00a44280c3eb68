"""Models and arguments that no rule can be applied to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies import QuantProxy
from quant_nn.convert.rule import Rule

_SHOWN = 4


def check_arguments(model: Any, rules: Any) -> tuple[Rule, ...]:
    """The rules, where model and rules are such.

    Raises:
        InputError: when the model is no module.
        ConfigurationError: when the rules are not rules, or there is none.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{type(model).__name__!r} object is not a model",
            why="quantize takes an instance of torch.nn.Module",
            fix="Pass the module itself; call a class to make an instance.",
        )
    if isinstance(rules, Rule):
        rules = (rules,)
    if not isinstance(rules, Iterable) or isinstance(rules, str):
        raise ConfigurationError(
            f"{rules!r} is no list of rules",
            why="rules are instances of quant_nn.Rule",
            fix="Use quant_nn.recipe(name) for a recipe, and quant_nn.read_rules(path) for a file.",
        )
    given = tuple(rules)
    wrong = next((one for one in given if not isinstance(one, Rule)), None)
    if wrong is not None or not given:
        raise ConfigurationError(
            f"{wrong!r} is no rule" if given else "there is no rule",
            why="rules are instances of quant_nn.Rule, and what no rule is for stays as it is",
            fix="Write, for example, Rule(types='Linear', options={'weight_bit_width': 4}).",
        )
    return given


def check_model(model: nn.Module) -> None:
    """Refuse a model that is quantized already, or whose parameters have no values.

    Raises:
        ConfigurationError: says which parts.
    """
    quantizers = [path for path, module in model.named_modules() if isinstance(module, QuantProxy)]
    if quantizers:
        raise ConfigurationError(
            "the model is quantized already",
            where=quantizers[0],
            why=f"it has {_count(quantizers, 'quantizer')}: {_listed(quantizers)}",
            fix="Convert the float model; to quantize it in another way, build it again and load its float checkpoint.",
        )
    tensors = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ConfigurationError(
            f"{_count(lazy, 'parameter')} of the model {'has' if len(lazy) == 1 else 'have'} no shape yet",
            where=lazy[0].rpartition(".")[0] or None,
            why=f"lazy layers get theirs from the first input: {_listed(lazy)}",
            fix="Call the model once before it is converted.",
        )
    meta = [name for name, tensor in tensors if tensor.is_meta]
    if meta:
        raise ConfigurationError(
            f"{_count(meta, 'tensor')} of the model {'is' if len(meta) == 1 else 'are'} on the meta device",
            where=meta[0].rpartition(".")[0] or None,
            why=f"scales start from the values of weights, and there are none: {_listed(meta)}",
            fix="Call model.to_empty(device='cpu') and load a checkpoint, or build the model on a device.",
        )


def _count(names: Sequence[str], noun: str) -> str:
    return f"1 {noun}" if len(names) == 1 else f"{len(names)} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
