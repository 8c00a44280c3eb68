"""From a model to a program: run ``torch.export``, fold constants, check the result against the dialect's specification."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from quant_core.components import QuantDelay, Scaling
from quant_core.errors import CaptureError, ConfigurationError, InputError
from quant_core.export.builder import constant_inputs
from quant_core.export.capture_failure import explained
from quant_core.export.decompose import decompose, registered_decompositions
from quant_core.export.eval_mode import in_eval_mode
from quant_core.export.fold import HARMLESS, fold
from quant_core.export.one_result import with_one_result
from quant_core.export.out_of_place import changed_operands, memory_of, out_of_place
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
        InputError: when the inputs do not fit the model, or a parameter is not finite or has no shape yet.
        SpecError: when a quantizer has a scale, zero-point or bit width that the dialect does not allow.

    >>> net = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    >>> capture(net, (torch.zeros(1, 4),)).signature.inputs
    ('input',)
    """
    _check_arguments(model, args)
    given = dict(kwargs or {})
    _check_call(model, args, given)
    _check_finite(model)
    _refuse_running_delay(model)
    shapes = _shapes(model, args, given, dynamic_shapes)
    with in_eval_mode(model), torch.no_grad():
        try:
            with quiet():
                exported = torch.export.export(model, args, given, dynamic_shapes=shapes, strict=False)
        except Exception as failure:
            raise explained(failure, model, (args, given), varies=shapes is not None) from failure
        modules = map_modules(model)
    _refuse_mutation(exported, model)
    core = decompose(out_of_place(exported), registered_decompositions(plugins or registry()))
    captured = verify_spec(Program(exported=core, modules=modules), after="capture")
    folded = Program(exported=fold(captured.exported, modules), modules=modules, uncalibrated=_uncalibrated(model))
    apart = with_one_result(verify_spec(folded, after="folding"))
    if apart is folded.exported:
        return folded
    return verify_spec(replace(folded, exported=apart), after="taking values apart")


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
    """Parameters must be finite; a buffer may hold infinities, as a mask does, but no NaN."""
    parameters = [("parameter", name, tensor, torch.isfinite) for name, tensor in model.named_parameters()]
    buffers = [("buffer", name, tensor, _is_number) for name, tensor in model.named_buffers()]
    for kind, name, tensor, is_good in [*parameters, *buffers]:
        if nn.parameter.is_lazy(tensor):
            raise InputError(
                f"{kind} {name!r} has no shape yet",
                where=name.rpartition(".")[0] or type(model).__name__,
                why="the layer is lazy: its first input says how large it is, and there was none",
                fix="Call the model once on the example inputs before.",
            )
        if tensor.is_meta or not tensor.is_floating_point():
            continue
        bad = int((~is_good(tensor.detach())).sum())
        if bad:
            raise InputError(
                f"{kind} {name!r} is not finite",
                where=name.rpartition(".")[0] or type(model).__name__,
                why=f"{bad} of its {tensor.numel()} values are NaN or infinite",
                fix="Load a checkpoint from before the values diverged, or train with a smaller learning rate.",
            )


def _is_number(tensor: torch.Tensor) -> torch.Tensor:
    return ~torch.isnan(tensor)


def _shapes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic_shapes: Any) -> Any:
    """``"batch"`` spelt out by the names of the arguments; anything else as it is."""
    if not isinstance(dynamic_shapes, str):
        return dynamic_shapes
    if dynamic_shapes != "batch":
        raise ConfigurationError(
            f"dynamic_shapes={dynamic_shapes!r} is not known",
            why="the only word is 'batch', for axis 0 of every tensor",
            fix="Write 'batch', or the axes as torch.export.export takes them.",
        )
    tensors = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, torch.Tensor)]
    if any(tensor.dim() > 0 and tensor.shape[0] == 1 for tensor in tensors):
        raise InputError(
            "a batch of 1 cannot stand for batches of any size",
            why="torch.export takes an axis of size 1 as fixed",
            fix="Give an example batch of at least 2.",
        )

    def shape_of(leaf: Any) -> Any:
        return {0: torch.export.Dim.DYNAMIC} if isinstance(leaf, torch.Tensor) and leaf.dim() > 0 else None

    signature = inspect.signature(model.forward)
    bound = signature.bind(*args, **kwargs).arguments
    _refuse_collected(signature, bound, type(model).__name__)
    shapes: Any = pytree.tree_map(shape_of, dict(bound))
    return shapes


def _refuse_collected(signature: inspect.Signature, bound: Mapping[str, Any], model: str) -> None:
    """``torch.export`` does not tell the keywords behind ``**kwargs`` from one another when axes vary."""
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and name in bound:
            given = ", ".join(bound[name])
            raise InputError(
                f"the axes of inputs behind **{name} cannot vary",
                where=model,
                why=f"torch.export takes dynamic axes of named arguments only; got the keywords {given} for forward{signature}",
                fix=f"Name them in the signature of forward, in the place of **{name}, or leave dynamic_shapes "
                "(--dynamic-batch) out.",
            )


def _refuse_mutation(exported: ExportedProgram, model: nn.Module) -> None:
    """A forward that changes buffers has no program that computes the same each time."""
    names = constant_inputs(exported)
    stored = [node for node in exported.graph.nodes if node.op == "placeholder" and node.name in names]
    held = {
        memory: names[node.name] for node in stored for memory in memory_of(node)
    }  # a view of it changes it as well
    for node in exported.graph.nodes:
        if node.target in HARMLESS:
            continue
        changed = [held[memory] for used in changed_operands(node) for memory in memory_of(used) if memory in held]
        if changed and ".lifted_tensor_" not in f".{changed[0]}":
            raise CaptureError(
                f"the model changes {changed[0]!r} when it is called",
                where=type(model).__name__,
                why=f"{node.target} writes into it, so that a second call would compute something else",
                fix="Keep the state out of the exported part, or change it in training mode only.",
            )


def _refuse_running_delay(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, QuantDelay) and module.passed is not None and module.passed.running:
            raise InputError(
                "quantization has not started yet",
                where=path.partition(".tensor_quant")[0],
                why=f"{int(module.passed.count)} of {module.passed.steps} steps of quant_delay_steps have passed",
                fix="Train on, or set quant_delay_steps=0.",
            )


def _uncalibrated(model: nn.Module) -> tuple[str, ...]:
    """The paths of activation quantizers that were to collect statistics and have seen no step."""
    return tuple(
        path.partition(".tensor_quant")[0]
        for path, module in model.named_modules()
        if isinstance(module, Scaling) and module.awaits_data
    )
