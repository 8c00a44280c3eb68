"""What becomes of the grid of a :class:`~quant_core.tensor.QuantTensor` in each operation: one table.

============ =====================================================================================================
rule         meaning
============ =====================================================================================================
``moves``    values are moved, repeated or dropped: the grid is kept; a per-channel grid moves along
``selects``  values are selected within a channel: the grid is kept
``pads``     zeros (or values) are added: the grid is kept where 0 is one of its levels, else a plain tensor
``rectifies`` ``max(x, 0)``: the grid is kept where 0 is one of its levels, else a plain tensor
``drops``    dropout: the grid is kept in eval mode, a plain tensor in training
``resizes``  interpolation: the grid is kept for nearest neighbours, else a plain tensor
``casts``    another float dtype or device: the grid is kept; integer dtypes give a plain tensor
``joins``    cat, stack, where, maximum, minimum: the grid is kept where all operands have the same one
``adds``     sum or difference of two on the same grid: scale kept, one bit more
``scales``   product or quotient with a positive number: the scale changes with the value
``multiplies`` product or matrix product of two symmetric per-tensor grids: scales multiply, bits grow
``averages`` sum, mean and average pooling of a symmetric per-tensor grid: scale divided by the count, bits grow
============ =====================================================================================================

Everything else computes with the value and gives a plain tensor. Two grids are *the same* when scale and zero-point are the
same tensors, or, outside of ``torch.compile`` and ``torch.export``, equal in value. In-place operations raise: a quantized
tensor is immutable. A rule never depends on train or eval mode, dropout apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import Tensor
from torch.utils import _pytree as pytree

from quant_core.errors import InputError
from quant_core.tensor import arithmetic, movement
from quant_core.tensor.quant_tensor import QuantTensor

Rule = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``(name, function, args, kwargs)`` → the result, or ``NotImplemented`` for a plain tensor."""

_NAMES: Final[Mapping[Rule, str]] = {
    movement.moves: """__getitem__ broadcast_to channel_shuffle chunk clone contiguous detach diagonal expand expand_as flatten
        flip fliplr flipud gather index_select movedim moveaxis narrow permute pixel_shuffle pixel_unshuffle ravel repeat
        repeat_interleave reshape roll rot90 select split split_with_sizes squeeze swapaxes swapdims t take_along_dim
        tensor_split tile transpose unbind unflatten unfold unsqueeze view view_as reshape_as""",
    movement.selects: """max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax
        amin""",
    movement.pads: "pad",
    movement.rectifies: "relu",
    movement.drops: "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout",
    movement.resizes: "interpolate upsample upsample_nearest",
    movement.casts: "to half float double bfloat16 type cpu cuda type_as",
    arithmetic.joins: "cat concat concatenate stack hstack vstack where maximum minimum max min",
    arithmetic.adds: "add sub subtract __add__ __radd__ __sub__ __rsub__ rsub",
    arithmetic.scales: "mul multiply div divide true_divide __mul__ __rmul__ __truediv__",
    arithmetic.negates: "neg negative __neg__",
    arithmetic.multiplies: "matmul mm bmm __matmul__",
    arithmetic.averages: """sum mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d""",
}

RULES: Final[Mapping[str, Rule]] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
"""The name of each operation that has a rule, as function and as method, → its rule."""


def apply(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute an operation in which a ``QuantTensor`` takes part.

    Raises:
        InputError: for an in-place operation, or one that writes into ``out``.
    """
    if (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE or kwargs.get("inplace") is True:
        raise InputError(
            f"{name} would change a quantized tensor in place",
            why="a QuantTensor is immutable, so that its value and its grid stay in agreement",
            fix=f"Use {name.strip('_').removeprefix('i')} without changing in place, or change its .value on your own account.",
        )
    if kwargs.get("out") is not None:
        raise InputError(
            f"{name} cannot write the result of a quantized operand into out",
            why="out is a plain tensor, which would lose the grid without notice",
            fix="Take the returned tensor instead.",
        )
    rule = RULES.get(name)
    if rule is not None:
        found = rule(name, function, args, kwargs)
        if found is not NotImplemented:
            return found
    return function(*plain(args), **plain(kwargs))


_IN_PLACE: Final = frozenset({"__iadd__", "__isub__", "__imul__", "__itruediv__", "__setitem__", "__imatmul__"})


def plain(nested: Any) -> Any:
    """The same structure with each quantized tensor replaced by its value."""
    return pytree.tree_map(lambda x: x.value if isinstance(x, QuantTensor) else x, nested, is_leaf=_is_quantized)


def _is_quantized(x: Any) -> bool:
    return isinstance(x, QuantTensor)


def table() -> str:
    """The rules as a Markdown table, for the documentation.

    >>> table().splitlines()[0]
    '| rule | operations |'
    """
    rows = ["| rule | operations |", "| --- | --- |"]
    for rule, names in _NAMES.items():
        rows.append(f"| {rule.__name__} | {', '.join(f'`{name}`' for name in sorted(names.split()))} |")
    return "\n".join(rows)


def _operator(name: str) -> Callable[..., Any]:
    """The method of an operator; Python looks operators up on the class, so that each is defined there."""
    function = getattr(Tensor, name)

    def method(self: QuantTensor, *args: Any) -> Any:
        return apply(name, function, (self, *args), {})

    method.__name__ = name
    method.__doc__ = f"``{name}`` of a tensor, by its rule."
    return method


OPERATORS: Final = """__getitem__ __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __matmul__
    __rmatmul__ __pow__ __neg__ __abs__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __iadd__ __isub__ __imul__ __itruediv__
    __setitem__ __invert__ __float__""".split()

for _name in OPERATORS:
    setattr(QuantTensor, _name, _operator(_name))
QuantTensor.dispatch = staticmethod(apply)

pytree.register_pytree_node(
    QuantTensor,
    lambda x: (
        [x.value, x.scale, x.zero_point, x.bit_width],
        (x.signed, x.narrow_range, x.training, x.symmetric, x.zero_on_grid),
    ),
    lambda leaves, context: QuantTensor(*leaves, *context),
    serialized_type_name="quant_core.tensor.QuantTensor",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
)
