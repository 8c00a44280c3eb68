"""The ``quant::`` dialect: the ops that captured programs contain and that targets lower.

======================= =================================================================================================
op                      meaning
======================= =================================================================================================
``quant::int``          ``(clamp(round(x/scale + zero_point), lo, hi) − zero_point) · scale``
``quant::binary``       ``sign(x) · scale``
``quant::ternary``      ``sign(x) · [|x| > threshold·scale] · scale``
``quant::trunc``        drop accumulator bits, see :mod:`quant_core.ops.truncation`
``quant::float``        ``r(x/scale) · scale``, where ``r`` rounds to a minifloat, see :mod:`quant_core.ops.minifloat`
``quant::dequantize``   ``(integers − zero_point) · scale``: what capture leaves of a quantizer whose input is constant
======================= =================================================================================================

Per tensor, per channel and per group are told by the shape of ``scale``. The body of each op is the forward formula that
training runs; its gradient is the one of the eager spelling. Importing this module registers the ops with torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.ops.binary import fake_binary, fake_ternary, quantize_binary, quantize_ternary
from quant_core.ops.float_format import FloatFormat
from quant_core.ops.integer import fake_quantize, integer_range, quantize_int
from quant_core.ops.minifloat import fake_float, quantize_float
from quant_core.ops.second_order import is_recorded
from quant_core.ops.truncation import fake_trunc, quantize_trunc

NAMESPACE: Final = "quant"

_library = torch.library.Library(NAMESPACE, "DEF")


def _int(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: Tensor,
    *,
    signed: bool,
    narrow_range: bool,
    rounding_mode: str,
) -> Tensor:
    low, high = integer_range(bit_width, signed=signed, narrow_range=narrow_range)
    return fake_quantize(x, scale, zero_point, low, high, rounding_mode)


def _binary(x: Tensor, scale: Tensor) -> Tensor:
    return fake_binary(x, scale).to(x.dtype)


def _ternary(x: Tensor, scale: Tensor, *, threshold: float) -> Tensor:
    return fake_ternary(x, scale, threshold).to(x.dtype)


def _trunc(x: Tensor, *grid: Tensor, **options: Any) -> Tensor:
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return fake_trunc(x.to(wide), *grid, **options).to(x.dtype)


def _ternary_eager(x: Tensor, scale: Tensor, *, threshold: float) -> Tensor:
    return quantize_ternary(x, scale, threshold)


def _float(x: Tensor, scale: Tensor, *, rounding_mode: str, **fields: Any) -> Tensor:
    return fake_float(x, scale, FloatFormat(**fields), rounding_mode)


def _float_eager(x: Tensor, scale: Tensor, *, rounding_mode: str, **fields: Any) -> Tensor:
    return quantize_float(x, scale, FloatFormat(**fields), rounding_mode=rounding_mode)


def _dequantize(
    integers: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    *,
    bit_width: float,
    signed: bool,
    narrow_range: bool,
    dtype: torch.dtype,
) -> Tensor:
    return ((integers.to(scale.dtype) - zero_point) * scale).to(dtype)


def _define(
    schema: str, body: Callable[..., Tensor], eager: Callable[..., Tensor] | None, fake: Callable[..., Tensor]
) -> None:
    name = f"{NAMESPACE}::{schema.split('(')[0]}"
    _library.define(f"{schema} -> Tensor", tags=torch.Tag.pt2_compliant_tag)
    _library.impl(schema.split("(")[0], body, "CompositeExplicitAutograd")
    torch.library.register_fake(name, fake, lib=_library)
    if eager is not None:
        _register_gradient(name, eager)


def _register_gradient(name: str, eager: Callable[..., Tensor]) -> None:
    """The gradient of the op is the gradient of its eager spelling, computed again in the backward pass."""

    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: Tensor, keyword_only_inputs: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        ctx.save_for_backward(*inputs)
        ctx.keywords = keyword_only_inputs

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        recorded = is_recorded()
        with torch.enable_grad():
            inputs = [
                t.view_as(t) if recorded else t.detach().requires_grad_(needed)
                for t, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=True)
            ]
            output = eager(*inputs, **ctx.keywords)
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(output, wanted, grad, allow_unused=True, create_graph=recorded))
        return tuple(next(found) if t.requires_grad else None for t in inputs)

    torch.library.register_autograd(name, backward, setup_context=setup_context, lib=_library)


def _like_x(x: Tensor, *_: Tensor, **__: Any) -> Tensor:
    return torch.empty_like(x)


def _dequantized(integers: Tensor, *_: Tensor, dtype: torch.dtype, **__: Any) -> Tensor:
    return torch.empty_like(integers, dtype=dtype)


_define(
    "int(Tensor x, Tensor scale, Tensor zero_point, Tensor bit_width, *, bool signed, bool narrow_range, str rounding_mode)",
    _int,
    quantize_int,
    _like_x,
)
_define("binary(Tensor x, Tensor scale)", _binary, quantize_binary, _like_x)
_define("ternary(Tensor x, Tensor scale, *, float threshold)", _ternary, _ternary_eager, _like_x)
_define(
    "trunc(Tensor x, Tensor scale, Tensor zero_point, Tensor output_scale, Tensor output_bit_width, *, bool signed, "
    "bool narrow_range, str rounding_mode)",
    _trunc,
    quantize_trunc,
    _like_x,
)
_define(
    "float(Tensor x, Tensor scale, *, int exponent_bit_width, int mantissa_bit_width, int exponent_bias, float max_value, "
    "bool has_inf, bool has_nan, bool has_subnormal, bool saturating, str rounding_mode)",
    _float,
    _float_eager,
    _like_x,
)
_define(
    "dequantize(Tensor integers, Tensor scale, Tensor zero_point, *, float bit_width, bool signed, bool narrow_range, "
    "ScalarType dtype)",
    _dequantize,
    None,
    _dequantized,
)
