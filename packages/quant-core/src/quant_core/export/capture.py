"""From a model to a program: run ``torch.export``, fold constants, check the result against the dialect's specification."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from quant_core.errors import CaptureError, InputError, QuantError
from quant_core.export.decompose import decompose, registered_decompositions
from quant_core.export.eval_mode import in_eval_mode
from quant_core.export.fold import fold
from quant_core.export.program import Program
from quant_core.export.provenance import map_modules
from quant_core.export.quiet import quiet
from quant_core.export.spec import verify_spec
from quant_core.plugins import Registry, registry


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    plugins: Registry | None = None,
) -> Program:
    """Capture a model as a :class:`~quant_core.export.program.Program`.

    The model is captured as it computes in eval mode. Nothing of it changes: not its parameters and buffers, not its mode, not
    ``requires_grad``, whether the capture succeeds or fails.

    Args:
        model: any module that ``torch.export`` can capture.
        args: example inputs, tensors or nested structures of them.
        kwargs: example keyword inputs.
        dynamic_shapes: which axes vary, as ``torch.export.export`` takes it; ``"batch"`` for axis 0 of every tensor.
        plugins: the registry whose extensions of the dialect are decomposed; the process-wide one by default.

    Raises:
        CaptureError: when ``torch.export`` cannot capture the model; says in which module and line.
        InputError: when the inputs do not fit the model, or a parameter is not finite.
        SpecError: when a quantizer has a scale, zero-point or bit width that the dialect does not allow.

    >>> net = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    >>> capture(net, (torch.zeros(1, 4),)).signature.inputs
    ('input',)
    """
    _check_arguments(model, args)
    given = dict(kwargs or {})
    _check_call(model, args, given)
    _check_finite(model)
    shapes = _batch_shapes(args, given) if dynamic_shapes == "batch" else dynamic_shapes
    with in_eval_mode(model), torch.no_grad():
        try:
            with quiet():
                exported = torch.export.export(model, args, given, dynamic_shapes=shapes, strict=False)
        except Exception as failure:
            raise _explain(failure, model) from failure
        modules = map_modules(model)
    core = decompose(exported, registered_decompositions(plugins or registry()))
    captured = verify_spec(Program(exported=core, modules=modules), after="capture")
    return verify_spec(Program(exported=fold(captured.exported, modules), modules=modules), after="folding")


def _check_arguments(model: Any, args: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{type(model).__name__!r} object is not a model",
            why="capture takes an instance of torch.nn.Module",
            fix="Pass the module itself; wrap a function in a module, and call a class to make an instance.",
        )
    if not isinstance(args, tuple):
        raise InputError(
            f"the example inputs are a {type(args).__name__}",
            why="capture takes the positional inputs as a tuple, one element for each",
            fix="Write (x,) for one input.",
        )


def _check_call(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as mismatch:
        raise InputError(
            f"the example inputs do not fit {type(model).__name__}.forward{signature}",
            where=type(model).__name__,
            why=f"{mismatch}; got {len(args)} positional inputs and the keywords {', '.join(kwargs) or 'none'}",
            fix="Pass one example for each argument of forward.",
        ) from mismatch


def _check_finite(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point():
            continue
        bad = int((~torch.isfinite(parameter.detach())).sum())
        if bad:
            raise InputError(
                f"parameter {name!r} is not finite",
                where=name.rpartition(".")[0] or type(model).__name__,
                why=f"{bad} of its {parameter.numel()} values are NaN or infinite",
                fix="Load a checkpoint from before the values diverged, or train with a smaller learning rate.",
            )


def _batch_shapes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | tuple[Any, ...]:
    batch = torch.export.Dim.DYNAMIC

    def shape_of(leaf: Any) -> Any:
        return {0: batch} if isinstance(leaf, torch.Tensor) and leaf.dim() > 0 else None

    positional, keyword = torch.utils._pytree.tree_map(shape_of, (args, dict(kwargs)))
    return (*positional, *keyword.values())


def _explain(failure: Exception, model: nn.Module) -> QuantError:
    path, line = _place(failure, model)
    if isinstance(failure, QuantError):
        return failure.at(path) if path else failure
    reason = str(failure).strip().splitlines()
    return CaptureError(
        "torch.export cannot capture the model",
        where=", ".join(part for part in (path, line) if part) or type(model).__name__,
        why=f"{type(failure).__name__}: {reason[0] if reason else 'no message'}",
        fix="Make this line depend on shapes and constants only, not on the values of tensors, and use torch operations; "
        "the full report of torch.export is the cause of this error.",
    )


def _place(failure: Exception, model: nn.Module) -> tuple[str, str]:
    """The deepest module, and the last line of code outside of torch and this package, that the failure passed through."""
    paths = {id(module): path for path, module in reversed(list(model.named_modules(remove_duplicate=False)))}
    path = line = ""
    for frame, number in traceback.walk_tb(failure.__traceback__):
        owner = frame.f_locals.get("self")
        if id(owner) in paths and isinstance(owner, nn.Module):
            path = paths[id(owner)] or path
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("torch", "quant_core") and package not in sys.stdlib_module_names:
            line = f"{frame.f_code.co_filename}:{number}"
    return path, line
