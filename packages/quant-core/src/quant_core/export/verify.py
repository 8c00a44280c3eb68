"""Whether an artifact computes what the model computes, and where it first does not.

Two programs that add floats in a different order may round a value that lies on the border between two levels to different
sides. From there on all values differ, though neither is wrong. The comparison therefore walks the program quantizer by
quantizer: each is computed by torch from the values that the *artifact* gave for the ones before it, so that every difference
shows where it arises. A difference of one step whose value lies on the border is a *tie* and is counted; any other one is a
divergence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from quant_core.errors import ArtifactError, InputError, QuantError, VerificationError
from quant_core.export.artifact import Artifact, traced
from quant_core.export.grid import grids
from quant_core.export.program import Program
from quant_core.export.trace import Trace, TraceRow, Walk, largest_difference
from quant_core.export.verification import Divergence, Verification

_FLOAT_RELATIVE = 1e-4
_FLOAT_ABSOLUTE = 1e-6


def verify(
    program: Program,
    artifact: Artifact,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    reference: Any = None,
) -> Verification:
    """Run an artifact and compare it with the program that it was lowered from.

    Args:
        program: the captured model.
        artifact: what a target made of it.
        args: inputs to compare on.
        kwargs: keyword inputs.
        reference: what the model itself gives for these inputs; by default what the program gives.

    Raises:
        ArtifactError: when the artifact cannot be run.
        InputError: when an input is not finite.
        VerificationError: when the program or the artifact does not return as many tensors as the model, or the model draws
            random numbers, and so cannot be compared.
    """
    inputs = [own_copy(leaf) for leaf in program.signature.flatten(args, kwargs)]
    _check_inputs(inputs)
    trace = _run(artifact, inputs)
    walk = Walk(program, trace.values)
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        forced = walk.outputs([own_copy(leaf) for leaf in inputs])
        captured = _leaves_of(program, args, kwargs)
    leaves = captured if reference is None else pytree.tree_leaves(reference)
    if len(leaves) != len(forced):
        raise VerificationError(
            f"the captured program returns {len(forced)} tensors where the model returns {len(leaves)}",
            where=program.modules.types[""],
            why="the model takes another path under torch.export than in eager mode",
            fix="Return plain tensors from the model, or the same structure in both.",
        )
    if len(trace.outputs) != len(forced):
        raise VerificationError(
            f"the {artifact.target} artifact returns {len(trace.outputs)} tensors where the model returns {len(forced)}",
            where=program.modules.types[""],
            why="an artifact returns what the program returns, in the same order",
            fix="This is a defect of the target; report it with the model. Nothing was written.",
        )
    on_grid = grids(program)
    activations = {quantizer.name for quantizer in program.quantizers if quantizer.role == "activation"}
    scales = [on_grid.get(node.name) if isinstance(node, fx.Node) else None for node in program.outputs]
    divergence = _of_capture(captured, leaves) or _of_rows(walk.rows)
    largest, largest_steps = 0.0, None
    for number, (ours, through, theirs, quantizer) in enumerate(
        zip(leaves, forced, trace.outputs, scales, strict=True)
    ):
        difference = largest_difference(ours, theirs)
        largest = max(largest, difference)
        if quantizer is not None and quantizer.scale is not None:
            largest_steps = max(largest_steps or 0.0, difference / float(quantizer.scale.min()))
        if divergence is None and not _close(through, theirs):
            divergence = Divergence(
                where=f"output {number}", difference=largest_difference(through, theirs), steps=None
            )
    if divergence is not None:
        _refuse_random(program, captured, args, kwargs)
    return Verification(
        target=artifact.target,
        max_difference=largest,
        max_steps=largest_steps,
        ties=sum(row.ties for row in walk.rows),
        compared=sum(row.name in activations for row in walk.rows),
        first_divergence=divergence,
    )


def _leaves_of(program: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> list[Any]:
    return pytree.tree_leaves(
        program.run(*pytree.tree_map(own_copy, args), **pytree.tree_map(own_copy, dict(kwargs or {})))
    )


def _refuse_random(program: Program, once: list[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> None:
    """What differs from itself is no defect of the target."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.rand(1)  # other numbers than the first time
        again = _leaves_of(program, args, kwargs)
    for number, (one, other) in enumerate(zip(once, again, strict=True)):
        if not _close(one, other):
            difference = largest_difference(one, other)
            raise VerificationError(
                "the model computes something else each time",
                where=f"{program.modules.types['']}, output {number}",
                why=f"two runs on the same inputs differ by up to {difference:g}, so that it cannot be compared",
                fix="Draw random numbers in training mode only, or export without the comparison: verify=False, --no-verify.",
            )


def _run(artifact: Artifact, inputs: list[Any]) -> Trace:
    """What an artifact gives; what its runtime lets through is told as one error."""
    try:
        with torch.random.fork_rng(devices=()):  # some runtimes are torch itself
            return traced(artifact, inputs)
    except QuantError:
        raise
    except Exception as failure:
        raise ArtifactError(
            f"the {artifact.target} artifact fails when it is run",
            why=f"{type(failure).__name__}: {failure}",
            fix="This is a defect of the target; report it with the cause of this error. Nothing was written.",
        ) from failure


def _of_capture(captured: list[Any], model: list[Any]) -> Divergence | None:
    """Where the captured program computes something else than the model itself."""
    for number, (ours, theirs) in enumerate(zip(captured, model, strict=True)):
        if not _close(theirs, ours):
            return Divergence(
                where=f"capture, output {number}", difference=largest_difference(theirs, ours), steps=None
            )
    return None


def _of_rows(rows: list[TraceRow]) -> Divergence | None:
    """Where the artifact first computes something else than torch does from the same values."""
    first = next((row for row in rows if not row.equal), None)
    return None if first is None else Divergence(where=first.where, difference=first.difference, steps=first.steps)


def _check_inputs(inputs: list[Any]) -> None:
    for number, leaf in enumerate(inputs):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            raise InputError(
                f"example input {number} is not finite",
                why="NaN and infinity compare with nothing, so that a comparison on them would prove nothing",
                fix="Compare on inputs such as the model is trained on.",
            )


def own_copy(leaf: Any) -> Any:
    """A copy of a tensor, for operations that work in place."""
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _close(one: Any, other: Any) -> bool:
    """Whether two outputs are equal up to the order of additions, in each row along the last axis."""
    largest = largest_difference(one, other)
    if largest == 0 or math.isinf(largest) or not one.is_floating_point():
        return largest == 0
    wide, other_wide = (torch.nan_to_num(tensor.detach().cpu().to(torch.float64), 0, 0, 0) for tensor in (one, other))
    size = wide.abs().amax(dim=-1, keepdim=True) if wide.dim() else wide.abs()
    return bool(torch.all((wide - other_wide).abs() <= _FLOAT_RELATIVE * size + _FLOAT_ABSOLUTE))
