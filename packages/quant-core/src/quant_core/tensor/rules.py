"""What becomes of the grid of a :class:`~quant_core.tensor.QuantTensor` in each operation: one table.

An operation that is not in the table gives a plain tensor, computed from the values.
"""

from __future__ import annotations

from typing import Final

from quant_core.tensor import arithmetic, averaging, keeping, moving
from quant_core.tensor.rule import Handler, Result, Rule


def _rule(name: str, result: Result, handler: Handler | None, operations: str, states: str) -> Rule:
    words = " ".join(states.split())
    return Rule(name=name, result=result, handler=handler, operations=tuple(sorted(operations.split())), states=words)


RULES: Final[tuple[Rule, ...]] = (
    _rule(
        "moves",
        "kept",
        moving.moves,
        """__getitem__ broadcast_to channel_shuffle chunk diagonal dsplit expand expand_as flatten flip fliplr flipud
        gather hsplit index_select masked_select movedim moveaxis narrow permute pixel_shuffle pixel_unshuffle ravel
        repeat repeat_interleave reshape reshape_as roll rot90 select split split_with_sizes squeeze swapaxes swapdims
        t take take_along_dim tensor_split tile transpose unbind unflatten Tensor.unfold unsqueeze view view_as
        vsplit""",
        """Elements are moved, repeated or dropped. A scale that varies between elements moves with them: it is
        broadcast to the value, goes through the same operation, and axes along which it is broadcast become 1 again.
        `view(dtype)` gives a plain tensor.""",
    ),
    _rule(
        "copies",
        "kept",
        keeping.copies,
        "__pos__ clone contiguous detach positive",
        "The same values; `detach` detaches the grid as well.",
    ),
    _rule(
        "casts",
        "kept",
        keeping.casts,
        "bfloat16 cpu cuda double float half to type type_as",
        """To a float dtype or a device: the value is rounded to the new dtype; the grid moves to the device and keeps
        its own dtype. Integer dtypes give a plain tensor.""",
    ),
    _rule(
        "rectifies",
        "kept",
        keeping.rectifies,
        "relu",
        "What is below zero becomes the level 0; a signed tensor stays signed. Where 0 is a level (`zero_on_grid`).",
    ),
    _rule(
        "blanks",
        "kept",
        keeping.blanks,
        "masked_fill tril triu",
        "Elements become the level 0. Where 0 is a level, and for `masked_fill` with the number 0.",
    ),
    _rule(
        "pads",
        "kept",
        keeping.pads,
        "constant_pad_nd pad",
        """With zeros where 0 is a level, or by `reflect`, `replicate` and `circular`; along axes where the scale does
        not vary.""",
    ),
    _rule(
        "unfolds",
        "kept",
        keeping.unfolds,
        "functional.unfold",
        "Patches as columns, zeros around the edges. Where 0 is a level and the grid is per tensor.",
    ),
    _rule(
        "drops",
        "changed",
        keeping.drops,
        """alpha_dropout dropout dropout1d dropout2d dropout3d feature_alpha_dropout feature_dropout""",
        """With `training=True` some elements become the level 0 and the scale is divided by `1 − p`, where 0 is a level;
        `alpha_dropout` gives a plain tensor. With `training=False` nothing happens.""",
    ),
    _rule(
        "resizes",
        "kept",
        keeping.resizes,
        "interpolate upsample upsample_nearest",
        """With mode `nearest` or `nearest-exact`, where the scale does not vary in space. Other modes compute new
        values.""",
    ),
    _rule(
        "pools",
        "kept",
        keeping.pools,
        """adaptive_max_pool1d adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices
        adaptive_max_pool3d adaptive_max_pool3d_with_indices max_pool1d max_pool1d_with_indices max_pool2d
        max_pool2d_with_indices max_pool3d max_pool3d_with_indices""",
        "Where the scale does not vary in space. Indices are a plain tensor.",
    ),
    _rule(
        "extremes",
        "kept",
        keeping.extremes,
        "amax amin",
        "Where the scale does not vary along `dim`.",
    ),
    _rule(
        "joins",
        "kept",
        moving.joins,
        "cat column_stack concat concatenate dstack hstack row_stack stack vstack",
        """Of tensors on the same grid; the largest bit width holds. With a plain tensor, or on different grids: a plain
        tensor.""",
    ),
    _rule(
        "chooses",
        "kept",
        moving.chooses,
        "max maximum min minimum Tensor.where torch.where",
        """From two tensors on the same grid; the largest bit width holds. `max` and `min` of one tensor give plain
        tensors (`amax` and `amin` keep the grid).""",
    ),
    _rule(
        "adds",
        "changed",
        arithmetic.adds,
        "__add__ __radd__ __rsub__ __sub__ add rsub sub subtract",
        """Two tensors on the same grid: scale kept; zero-points add or subtract; the bits of the range of the result; a
        difference is signed. In float32 or float64, without `alpha`.""",
    ),
    _rule(
        "negates",
        "changed",
        arithmetic.negates,
        "__neg__ neg negative",
        "Scale kept; zero-point negated; signed; the bits of the mirrored range.",
    ),
    _rule(
        "magnitudes",
        "changed",
        arithmetic.magnitudes,
        "__abs__ abs absolute",
        "Of a symmetric grid: scale kept; unsigned; the bits of the largest magnitude.",
    ),
    _rule(
        "scales",
        "changed",
        arithmetic.scales,
        "__mul__ __rmul__ __truediv__ div divide mul multiply true_divide",
        """By a positive, finite Python number: the scale is multiplied or divided by it. `mul` of two symmetric
        tensors: scales multiply; the bits of the range of the products; in float32 or float64.""",
    ),
    _rule(
        "multiplies",
        "changed",
        arithmetic.multiplies,
        "__matmul__ __rmatmul__ bmm matmul mm",
        """Two symmetric per-tensor tensors: scales multiply; the bits of the range of the sum of products. In float32
        or float64.""",
    ),
    _rule(
        "averages",
        "changed",
        averaging.averages,
        "mean sum",
        """Of `n` elements along axes where the scale does not vary: zero-point times `n`; the bits of `n` times the
        range; scale kept by `sum`, divided by `n` by `mean`. In float32 or float64, without `dtype`.""",
    ),
    _rule(
        "averages windows",
        "changed",
        averaging.average_pools,
        """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d""",
        """As `mean`, where the scale does not vary in space and all windows hold the same number `n` of elements:
        without `ceil_mode` or padding that is not counted; an adaptive size that divides the input. The scale is
        divided by `divisor_override` where it is given.""",
    ),
    _rule(
        "computes",
        "plain",
        None,
        """addbmm addcmul addmm argmax argmin argsort batch_norm bilinear celu clamp clip conv1d conv2d conv3d
        conv_transpose1d conv_transpose2d conv_transpose3d cos cosine_similarity cross_entropy cumprod cumsum einsum
        elu eq exp fill floor_divide ge gelu glu group_norm gt hardsigmoid hardswish hardtanh instance_norm isnan
        layer_norm le leaky_relu linear log log_softmax logsumexp lt median mish mse_loss ne norm normalize ones_like
        pow prelu prod reciprocal relu6 remainder round scaled_dot_product_attention selu sigmoid sign silu sin softmax
        softplus sort sqrt square std tan tanh topk var zeros_like __eq__ __ge__ __gt__ __le__ __lt__ __ne__ __pow__
        __rtruediv__""",
        "New values, computed from the values of the operands; as every operation that is not in this table.",
    ),
)
"""One rule after the other; each operation belongs to one."""


def table() -> str:
    """The rules as a Markdown table, for the documentation.

    >>> table().splitlines()[0]
    '| rule | grid | operations | what happens |'
    """
    rows = ["| rule | grid | operations | what happens |", "| --- | --- | --- | --- |"]
    for rule in RULES:
        names = ", ".join(f"`{name}`" for name in rule.operations)
        rows.append(f"| {rule.name} | {rule.result} | {names} | {rule.states} |")
    return "\n".join(rows)
