"""What the target ``integers`` takes, as data; imports nothing heavy."""

from __future__ import annotations

from typing import Final

from quant_core.plugins import Capabilities, QuantSupport, Target

_MODES: Final = {"ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP", "DPU"}

MOVES: Final = (
    "clone.default",
    "contiguous.default",
    "expand.default",
    "flatten.using_ints",
    "permute.default",
    "pixel_shuffle.default",
    "pixel_unshuffle.default",
    "reshape.default",
    "select.int",
    "slice.Tensor",
    "squeeze.default",
    "squeeze.dim",
    "squeeze.dims",
    "t.default",
    "transpose.int",
    "unflatten.int",
    "unsqueeze.default",
    "upsample_nearest1d.default",
    "upsample_nearest1d.vec",
    "upsample_nearest2d.default",
    "upsample_nearest2d.vec",
    "upsample_nearest3d.default",
    "upsample_nearest3d.vec",
    "view.default",
)
"""Move or repeat elements."""

CHOICES: Final = (
    "adaptive_max_pool1d.default",
    "adaptive_max_pool2d.default",
    "max_pool1d.default",
    "max_pool2d.default",
    "max_pool3d.default",
)
"""Pick among the elements of a channel."""

BOUNDS: Final = (
    "clamp.default",
    "clamp_max.default",
    "clamp_min.default",
    "hardtanh.default",
    "hardtanh_.default",
    "relu.default",
    "relu6.default",
    "relu_.default",
)
"""Keep values between two bounds."""

FUNCTIONS: Final = (
    "abs.default",
    "elu.default",
    "exp.default",
    "gelu.default",
    "hardsigmoid.default",
    "hardswish.default",
    "leaky_relu.default",
    "mish.default",
    "neg.default",
    "sigmoid.default",
    "silu.default",
    "softplus.default",
    "square.default",
    "tanh.default",
)
"""Functions of one value, which become tables."""

WINDOWS: Final = (
    "adaptive_avg_pool1d.default",
    "adaptive_avg_pool2d.default",
    "avg_pool1d.default",
    "avg_pool2d.default",
)
"""Means of windows."""

TOTALS: Final = (
    "mean.default",
    "mean.dim",
    "sum.default",
    "sum.dim_IntList",
)
"""Means and sums along axes."""

PADS: Final = (
    "constant_pad_nd.default",
    "pad.default",
)
"""Put values around others."""

JOINS: Final = (
    "cat.default",
    "stack.default",
)
"""Put tensors one after the other."""

MATRIX_PRODUCTS: Final = (
    "bmm.default",
    "matmul.default",
    "mm.default",
)
"""Products of two matrices that depend on the inputs."""

ARITHMETIC: Final = (
    "add.Tensor",
    "batch_norm.default",
    "div.Tensor",
    "embedding.default",
    "mul.Tensor",
    "sub.Tensor",
)
"""Each has a rule of its own."""

PRODUCTS: Final = (
    "conv1d.default",
    "conv1d.padding",
    "conv2d.default",
    "conv2d.padding",
    "conv3d.default",
    "conv3d.padding",
    "conv_transpose1d.default",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "linear.default",
)
"""Sums of products with a constant."""

WITHOUT_RESULT: Final = (
    "_assert_tensor_metadata.default",
    "sym_size.int",
)
"""What torch.export leaves in a graph without a use."""

ATEN: Final = frozenset(
    {
        *MOVES,
        *CHOICES,
        *BOUNDS,
        *FUNCTIONS,
        *WINDOWS,
        *TOTALS,
        *PADS,
        *JOINS,
        *MATRIX_PRODUCTS,
        *ARITHMETIC,
        *PRODUCTS,
        *WITHOUT_RESULT,
    }
)
"""Every operation of ``aten`` that integers takes, without the name of the namespace."""

INTEGERS: Final = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 17), zero_point="any"),
        "quant::binary weight": QuantSupport(bit_widths={1}),
        "quant::int activation": QuantSupport(bit_widths=range(2, 17), zero_point="any", rounding_modes=_MODES),
        "quant::binary activation": QuantSupport(bit_widths={1}),
        "quant::ternary activation": QuantSupport(bit_widths={2}),
        "quant::trunc activation": QuantSupport(bit_widths=range(2, 33), zero_point="any", rounding_modes=_MODES),
        "quant::int bias": QuantSupport(bit_widths=range(2, 33)),
    },
    aten=ATEN,
)

TARGET: Final = Target(
    name="integers",
    summary="arrays of integers (.npz) with a description of the graph and a C header",
    exporter="quant_core.integers.target:lower",
    suffix=".npz",
    capabilities=INTEGERS,
    runtime="torch",
    rules="quant_core.integers.target:rules",
)
