"""Calls of functions and operators, which the replacement of modules cannot reach, found in a capture of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from quant_core.export import Program, capture
from quant_core.plugins import registry
from quant_nn.convert.sites import float_types

_FRAME: Final = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]+\n\s*(?P<code>[^\n]*)')
_MOVING: Final = frozenset(
    {
        "_to_copy", "alias", "arange", "channel_shuffle", "chunk", "clone", "constant_pad_nd", "contiguous", "copy",
        "detach", "dropout", "empty", "expand", "expand_as", "feature_dropout", "flatten", "flip", "full",
        "full_like", "index", "index_select", "lift_fresh_copy", "masked_fill", "masked_select", "movedim", "narrow",
        "new_zeros", "ones", "ones_like", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape",
        "roll", "scalar_tensor", "select", "slice", "split", "split_with_sizes", "squeeze", "swapaxes", "t", "to",
        "transpose", "tril", "triu", "type_as", "unbind", "unflatten", "unfold", "unsafe_split", "unsqueeze", "view",
        "zeros", "zeros_like",
    }
)  # fmt: skip
"""Operations that move values, or drop some; what comes out lies on the grid of what goes in."""

_COUNTERPARTS: Final[Mapping[str, str]] = {
    "relu": "nn.ReLU",
    "sigmoid": "nn.Sigmoid",
    "tanh": "nn.Tanh",
    "relu6": "nn.ReLU6",
    "hardtanh": "nn.Hardtanh",
    "add": "quant_nn.EltwiseAdd",
    "cat": "quant_nn.Cat",
    "avg_pool2d": "nn.AvgPool2d",
    "adaptive_avg_pool2d": "nn.AdaptiveAvgPool2d",
    "mean": "nn.AdaptiveAvgPool2d",
    "linear": "nn.Linear",
    "conv1d": "nn.Conv1d",
    "conv2d": "nn.Conv2d",
    "conv3d": "nn.Conv3d",
    "embedding": "nn.Embedding",
    "batch_norm": "nn.BatchNorm2d",
    "scaled_dot_product_attention": "quant_nn.ScaledDotProductAttention",
    "upsample_nearest2d": "nn.Upsample",
    "upsample_bilinear2d": "nn.Upsample",
    "max_pool1d": "nn.MaxPool1d",
    "max_pool2d": "nn.MaxPool2d",
}
REWRITTEN: Final = frozenset(
    {
        "relu", "relu6", "sigmoid", "tanh", "hardtanh", "add", "cat", "avg_pool2d", "adaptive_avg_pool2d", "mean",
        "scaled_dot_product_attention",
    }
)  # fmt: skip
"""What graph mode makes modules of."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a function or operator in the code of a model.

    Attributes:
        op: what is computed, such as ``"relu"`` or ``"add"``.
        path: the path of the module whose code it is, empty for the model itself.
        source: ``file:line``; empty where the capture does not tell.
        code: that line.
        module: the module that does the same, ``None`` where there is none.
        rewritten: whether graph mode makes a module of it.
    """

    op: str
    path: str
    source: str
    code: str
    module: str | None
    rewritten: bool

    def __str__(self) -> str:
        place = (
            f"{self.source}, in {self.path or 'the model'}: {self.code}"
            if self.source
            else f"in {self.path or 'the model'}"
        )
        if self.rewritten:
            return f"{place}\n     {self.op}: use {self.module}, or quantize with graph=True"
        return f"{place}\n     {self.op}: " + (f"use {self.module}" if self.module else "there is no module for it")


def functional_calls(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> tuple[Call, ...]:
    """The calls of functions that compute new values, outside of the layers of ``torch.nn``.

    Calls that move values, such as ``flatten`` or ``permute``, are not among them, nor those whose result is no float tensor.

    Args:
        model: a float model.
        args: example inputs.
        kwargs: example keyword inputs.

    Raises:
        CaptureError: when ``torch.export`` cannot capture the model.
        InputError: when the inputs do not fit the model.

    >>> class Residual(nn.Module):
    ...     def forward(self, x):
    ...         return torch.relu(x) + x
    >>> [(call.op, call.module) for call in functional_calls(Residual(), (torch.zeros(2, 3),))]
    [('relu', 'nn.ReLU'), ('add', 'quant_nn.EltwiseAdd')]
    """
    program = capture(model, args, dict(kwargs or {}))
    return tuple(_calls(model, program))


def _calls(model: nn.Module, program: Program) -> Iterator[Call]:
    table = float_types(registry())
    from_data: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in program.constants:
            from_data.add(node)
        if node.op != "call_function" or not from_data & set(node.all_input_nodes):
            continue
        from_data.add(node)
        if not str(node.target).startswith("aten."):  # one of several results
            continue
        op = str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
        path = program.where(node).path
        if op in _MOVING or not _is_float(node) or _is_layer(model.get_submodule(path), table):
            continue
        source, code = _source(str(node.meta.get("stack_trace") or ""))
        module = None if _is_of_torch(model.get_submodule(path)) else _counterpart(op, node)
        rewritten = module is not None and op in REWRITTEN
        yield Call(op=op, path=path, source=source, code=code, module=module, rewritten=rewritten)


def _counterpart(op: str, node: fx.Node) -> str | None:
    """The module that computes what a call computes, if there is one."""
    if op == "add" and (len(node.all_input_nodes) != 2 or node.kwargs.get("alpha", 1) != 1):
        return None
    if op == "mean":
        x: Any = node.args[0]
        dim = node.args[1] if len(node.args) > 1 else None
        if x.meta["val"].dim() != 4 or not isinstance(dim, list | tuple) or {one % 4 for one in dim} != {2, 3}:
            return None
    return _COUNTERPARTS.get(op)


def with_places(calls: Sequence[Call], of_model: Sequence[Call]) -> tuple[Call, ...]:
    """The calls of a graph, with the places that they have in the model; graphs have no source lines.

    Args:
        calls: those that graph mode leaves, in their order.
        of_model: those of the model, in their order.
    """
    found = []
    rest = [*(call for call in of_model if not call.rewritten), *(call for call in of_model if call.rewritten)]
    for call in calls:
        same = next((one for one in rest if one.op == call.op), None)
        if same is not None:
            rest.remove(same)
        found.append(replace(call if same is None else same, rewritten=False))
    return tuple(found)


def _is_float(node: fx.Node) -> bool:
    found: Any = node.meta.get("val")
    return isinstance(found, torch.Tensor) and found.is_floating_point()


def _is_of_torch(module: nn.Module) -> bool:
    """Whether its code is torch's, which nobody can write in another way. Containers call what they contain."""
    return type(module).__module__.startswith("torch.nn.")


def _is_layer(module: nn.Module, table: Mapping[type, Any]) -> bool:
    """Whether its code is its own affair: layers of torch, and those that rules replace. Modules made of layers are models."""
    kind = parametrize.type_before_parametrizations(module)
    parts = [name for name, _ in module.named_children() if name != "parametrizations"]
    return kind in table or (kind.__module__.startswith("torch.nn.") and not parts)


def _source(trace: str) -> tuple[str, str]:
    """``file:line`` and the text of the innermost line that is none of torch, or else of the innermost one."""
    frames = list(_FRAME.finditer(trace))
    own = [frame for frame in frames if "/torch/" not in frame["file"].replace("\\", "/")]
    frame = next(reversed(own or frames), None)
    return ("", "") if frame is None else (f"{frame['file']}:{frame['line']}", frame["code"].strip())
