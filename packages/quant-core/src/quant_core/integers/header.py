"""The arrays of a plan as a C99 header: integers in the smallest type that holds them, scales as floats, and their sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from quant_core.integers.plan import Plan

_KEYWORDS: Final = frozenset(
    {
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
    }
)
_TYPES: Final = {
    torch.uint8: "uint8_t",
    torch.int8: "int8_t",
    torch.int16: "int16_t",
    torch.int32: "int32_t",
    torch.int64: "int64_t",
    torch.float32: "float",
    torch.float64: "double",
}
_PER_LINE: Final = 16
_DIVIDE: Final = """\
static inline int64_t quant_{name}(int64_t q, int64_t multiplier, int64_t offset, int64_t divisor)
{{
    int64_t total = q * multiplier + offset;
    int64_t below = total / divisor - (total % divisor < 0);
    int64_t rest = total - below * divisor;
    return below + ({up});
}}
"""
_TO_EVEN: Final = "2 * rest > divisor || (2 * rest == divisor && below % 2 != 0)"
_ROUNDED_UP: Final = {
    "ROUND": _TO_EVEN,
    "HALF_UP": "2 * rest >= divisor",
    "DPU": f"below < 0 ? 2 * rest >= divisor : ({_TO_EVEN})",
    "FLOOR": "rest < 0",
    "CEIL": "rest > 0",
    "TO_ZERO": "below < 0 && rest > 0",
}
"""Of each rounding mode: when the next integer above is the result. A remainder is never negative."""


def c_header(plan: Plan, name: str) -> str:
    """A header with every array of a plan; ``name`` goes into the include guard.

    >>> print("\\n".join(c_header(Plan(arrays={"fc.weight": torch.tensor([[1, -2]])}), "net").splitlines()[-6:-2]))
    /* fc.weight, 1x2 */
    static const int8_t fc_weight[2] = {
        1, -2,
    };
    """
    guard = f"{c_name(name).upper()}_H"
    lines = [f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", ""]
    modes = dict.fromkeys(step.arguments["rounding_mode"] for step in plan.steps if step.op == "rescale")
    for mode in modes:
        lines += ["/* (q * multiplier + offset) / divisor, rounded without an error. */"]
        lines += [_DIVIDE.format(name=mode.lower(), up=_ROUNDED_UP[mode])]
    taken = {guard, *(f"quant_{mode.lower()}" for mode in modes)}
    for qualified, tensor in plan.arrays.items():
        lines += [*_declaration(_free(c_name(qualified), taken), qualified, tensor), ""]
    return "\n".join([*lines, f"#endif /* {guard} */", ""])


def c_name(qualified: str) -> str:
    """A qualified name as a C identifier.

    >>> c_name("features.0.weight"), c_name("0.weight"), c_name("int")
    ('features_0_weight', 'm_0_weight', 'int_')
    """
    word = re.sub(r"[^0-9A-Za-z_]", "_", qualified)
    if not re.match(r"[A-Za-z]", word):
        word = f"m_{word}"
    return f"{word}_" if word in _KEYWORDS else word


def smallest_type(tensor: Tensor) -> torch.dtype:
    """The smallest dtype that holds the integers of a tensor; floats keep theirs.

    >>> smallest_type(torch.tensor([0, 200])), smallest_type(torch.tensor([-200]))
    (torch.uint8, torch.int16)
    """
    if tensor.is_floating_point() or not tensor.numel():
        return tensor.dtype
    low, high = int(tensor.min()), int(tensor.max())
    kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return next(kind for kind in kinds if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)


def _declaration(word: str, qualified: str, tensor: Tensor) -> Iterator[str]:
    if not tensor.numel():
        return
    kind = smallest_type(tensor)
    shape = "x".join(map(str, tensor.shape)) or "one number"
    yield f"/* {_comment(qualified)}, {shape} */"
    literals = [_literal(value, kind) for value in tensor.flatten().tolist()]
    if not tensor.dim():
        yield f"static const {_TYPES[kind]} {word} = {literals[0]};"
        return
    yield f"static const {_TYPES[kind]} {word}[{len(literals)}] = {{"
    for start in range(0, len(literals), _PER_LINE):
        yield "    " + ", ".join(literals[start : start + _PER_LINE]) + ","
    yield "};"


def _literal(value: float, kind: torch.dtype) -> str:
    """A number as it is written in C: floats so that they are read back to the bit, the lowest integer as a difference."""
    if kind == torch.float32:
        return f"{value:.9g}f" if re.search(r"[.e]", f"{value:.9g}") else f"{value:.9g}.0f"
    if kind == torch.float64:
        return f"{value:.17g}" if re.search(r"[.e]", f"{value:.17g}") else f"{value:.17g}.0"
    if kind == torch.int64:
        return f"INT64_C({int(value)})"
    return str(int(value)) if int(value) != torch.iinfo(torch.int32).min else "(-2147483647 - 1)"


def _comment(text: str) -> str:
    """What may stand in a comment."""
    return re.sub(r"[^ -~]|\*/|/\*", "_", text)


def _free(word: str, taken: set[str]) -> str:
    candidate, number = word, 1
    while candidate in taken:
        candidate = f"{word}_{number}"
        number += 1
    taken.add(candidate)
    return candidate
