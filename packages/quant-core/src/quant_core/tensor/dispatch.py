"""From a function of torch to its rule.

The rules name operations; here each name is resolved, once, to the functions that it stands for, so that
``torch.flatten(x)`` and ``x.flatten()`` meet the same rule, and a function of somebody else that has the same name
meets none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch.utils import _pytree as pytree

from quant_core.errors import InputError
from quant_core.ops import FloatFormat
from quant_core.tensor import moving
from quant_core.tensor.grids import plain
from quant_core.tensor.operators import TensorOperators
from quant_core.tensor.origin import GridOrigin
from quant_core.tensor.quant_tensor import QuantTensor
from quant_core.tensor.rule import NAMESPACES, Handler, Result, spellings
from quant_core.tensor.rules import RULES

_ALIASES: Final = {
    **dict.fromkeys(("__add__", "__radd__"), "add"),
    **dict.fromkeys(("__sub__", "subtract"), "sub"),
    "__rsub__": "rsub",
    **dict.fromkeys(("__mul__", "__rmul__", "multiply"), "mul"),
    **dict.fromkeys(("__truediv__", "divide", "true_divide"), "div"),
}
"""Names that a handler knows by another one."""

HANDLERS: Final[Mapping[Callable[..., Any], tuple[str, Handler, Result]]] = {
    function: (_ALIASES.get(operation, operation), rule.handler, rule.result)
    for rule in RULES
    if rule.handler is not None
    for operation in rule.operations
    for function in spellings(operation)
}
"""Each function of torch that has a rule → the name of the operation, and the handler and the result of its rule."""

_LEADING: Final = ("condition", "input", "self", "tensors", "tensor", "other", "mat2")
_CHECK_THEIR_OPERANDS: Final = (moving.joins, moving.chooses)
"""Handlers whose first argument need not be a quantized tensor."""


def _changes_first(name: str) -> bool:
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("_") and not name.endswith("__"))


IN_PLACE: Final[Mapping[Callable[..., Any], str]] = {
    function: name
    for namespace in NAMESPACES
    for name in dir(namespace)
    if _changes_first(name)
    for function in spellings(name)
}
"""Each function of torch that changes its first argument → its name."""


def dispatch(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute an operation in which a ``QuantTensor`` takes part.

    Args:
        function: a function or method of torch.
        args: its arguments, by position.
        kwargs: its arguments, by name.

    Returns:
        What the rule of the operation says: a ``QuantTensor``, or what ``function`` gives for the values.

    Raises:
        InputError: for an operation that changes a ``QuantTensor`` in place, or one that writes into ``out``.
    """
    for name in _LEADING:
        if name in kwargs:
            args, kwargs = (*args, kwargs[name]), {key: item for key, item in kwargs.items() if key != name}
    if kwargs.get("out") is not None:
        raise _out_error(function)
    if (function in IN_PLACE or kwargs.get("inplace") is True) and isinstance(args[0], QuantTensor):
        raise _in_place_error(function)
    if function in HANDLERS:
        name, handler, gives = HANDLERS[function]
        fits = gives == "kept" or not _holds_minifloats(args)  # a grid is changed as one of integers
        if fits and (isinstance(args[0], QuantTensor) or handler in _CHECK_THEIR_OPERANDS):
            result = handler(name, function, args, kwargs)
            if result is not NotImplemented:
                return result
    return function(*plain(args), **plain(kwargs))


def _holds_minifloats(args: tuple[Any, ...]) -> bool:
    return any(isinstance(arg, QuantTensor) and arg.float_format is not None for arg in args)


def _out_error(function: Callable[..., Any]) -> InputError:
    return InputError(
        f"{function.__name__} cannot write into out= with a QuantTensor among its operands",
        why="out= is a plain tensor, which cannot take the scale of the result",
        fix="Use the returned tensor instead of out=.",
    )


def _in_place_error(function: Callable[..., Any]) -> InputError:
    name = IN_PLACE.get(function)
    if name is None:
        fix = "Set inplace=False."
    elif name == "__setitem__":
        fix = "Use torch.where or masked_fill, or assign to a clone of its .value."
    else:
        fix = f"Use {name.removesuffix('_')} instead, or change a clone of its .value."
    return InputError(
        f"{name or function.__name__} would change a QuantTensor in place",
        why="a QuantTensor is immutable, so that its value and its scale stay in agreement",
        fix=fix,
    )


def _flatten(x: QuantTensor) -> tuple[list[Any], tuple[Any, ...]]:
    return [getattr(x, name) for name in _LEAVES], tuple([getattr(x, name) for name in _CONTEXT])


def _unflatten(leaves: Iterable[Any], context: tuple[Any, ...]) -> QuantTensor:
    return QuantTensor(*leaves, **dict(zip(_CONTEXT, context, strict=True)))


def _dump(context: tuple[Any, ...]) -> list[Any]:
    *flags, float_format = context
    return [*flags, None if float_format is None else float_format.fields]


def _load(dumped: list[Any]) -> tuple[Any, ...]:
    *flags, fields = dumped
    return (*flags, None if fields is None else FloatFormat(**fields))


def _flatten_with_keys(x: QuantTensor) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    leaves, context = _flatten(x)
    return list(zip(map(pytree.GetAttrKey, _LEAVES), leaves, strict=True)), context


_LEAVES: Final = ("value", "scale", "zero_point", "bit_width")
_CONTEXT: Final = ("signed", "narrow_range", "training", "symmetric", "zero_on_grid", "float_format")

TensorOperators.dispatch = staticmethod(dispatch)

# The origin is not part of the context: a program that takes a quantized tensor takes it from any quantizer.
# torch.export.register_dataclass would make leaves of the flags, too, which then are inputs of a compiled graph.
pytree.register_pytree_node(
    QuantTensor,
    _flatten,
    _unflatten,
    serialized_type_name="quant_core.tensor.QuantTensor",
    to_dumpable_context=_dump,
    from_dumpable_context=_load,
    flatten_with_keys_fn=_flatten_with_keys,
)

# A saved program holds its example inputs, a checkpoint may hold quantized tensors: plain data, safe to load as such.
torch.serialization.add_safe_globals([FloatFormat, GridOrigin, QuantTensor])
