"""What a target cannot take, found before lowering: every refusal at once, each with its place, constraint, value and remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import torch

from quant_core.export.assertions import ASSERTIONS
from quant_core.export.check_report import CheckReport, Note, Refusal
from quant_core.export.options import check_options
from quant_core.export.out_of_place import is_in_place
from quant_core.export.program import Program, is_quantizer
from quant_core.export.quantizer import Quantizer
from quant_core.export.target_code import found_by
from quant_core.ops.loop import LOOP_INPUT, LOOP_OPS
from quant_core.ops.recurrent import STANDS_FOR
from quant_core.plugins import Capabilities, QuantSupport, Registry, Target, registry

_REMEDIES: Final = {
    "aten.batch_norm.default": "Fold it into the layer beside it first: quant_nn.fold_batch_norms(model, inputs).",
}
"""What to do about operations that targets of integers do not take, where more is known than that."""

_TO_NEAREST: Final = frozenset({"DPU", "HALF_UP"})
"""Rounding modes that differ from ``ROUND`` halfway between two levels only."""

_PLURALS: Final = {"weight": "weights", "bias": "biases", "activation": "activations"}


def check(
    program: Program, target: str, *, plugins: Registry | None = None, options: Mapping[str, Any] | None = None
) -> CheckReport:
    """Ask what a target cannot take, from what it declares about itself; nothing is lowered.

    Args:
        program: a captured model.
        target: the name of a registered target.
        plugins: the registry to look in; the process-wide one by default.
        options: options of the target, as for lowering; what it takes may depend on them.

    Raises:
        UnknownNameError: when no installed package registers the target; says what to install. Also for an unknown option.
        PluginError: when the rules of the target fail.
    """
    known = plugins or registry()
    registered = known.target(target)
    entry, given = registered.item, dict(options or {})
    if given:
        check_options(entry, given)
    found = found_by(registered, program, given)
    refusals = [
        *_foreign_ops(program, entry),
        *(refusal for q in program.quantizers for refusal in refusals_of(q, entry.capabilities, target, plugins=known)),
        *(one for one in found if isinstance(one, Refusal)),
    ]
    notes = [one for one in found if isinstance(one, Note)]
    return CheckReport(target=target, refusals=tuple(refusals), notes=tuple(notes))


def _foreign_ops(program: Program, target: Target) -> Iterator[Refusal]:
    allowed = target.capabilities.aten
    for node in program.graph.nodes:
        if node.op != "call_function" or is_quantizer(node) or node.target in ASSERTIONS:
            continue
        op = STANDS_FOR.get(node.target, node.target)
        name = str(op) if isinstance(op, torch._ops.OpOverload) else None
        if op is not node.target and not target.capabilities.loops:
            yield _unrolled_loop(str(program.where(node)), target.name)
            continue
        if name is None or (name.startswith("aten.") and (allowed is None or name.removeprefix("aten.") in allowed)):
            continue
        if node.target in LOOP_OPS:
            if not target.capabilities.loops and node.target is LOOP_INPUT:  # once for each loop
                yield _unrolled_loop(str(program.where(node)), target.name)
            continue
        if is_in_place(node):
            yield changed_in_place(program, node, target.name)
            continue
        yield Refusal(
            where=str(program.where(node)),
            op=name,
            actual=f"node {node.name!r}",
            constraint=f"{target.name} takes aten and quant operations"
            + ("" if allowed is None else f", of aten only {', '.join(sorted(allowed))}"),
            fix=_REMEDIES.get(name, "Replace the operation, or keep it out of the exported part of the model."),
        )


def changed_in_place(program: Program, node: torch.fx.Node, target: str) -> Refusal:
    """The refusal of an operation that changes a value for a target that takes none of these.

    Capture makes new values of all others: what is left changes memory that is read elsewhere.
    """
    return Refusal(
        where=str(program.where(node)),
        op=str(node.target),
        actual="a value that is changed in place and used elsewhere",
        constraint=f"{target} takes operations that give new values",
        fix="Use the operation that gives a new value (inplace=False), or a copy of the operand: x.clone().",
    )


def _unrolled_loop(where: str, target: str) -> Refusal:
    return Refusal(
        where=where,
        op="a loop over time",
        actual="a varying number of steps",
        constraint=f"{target} takes sequences of one length",
        fix="Leave the time axis out of dynamic_shapes: the loop is unrolled for the length of the example.",
    )


def refusals_of(
    quantizer: Quantizer, capabilities: Capabilities, target: str, *, mode: str = "", plugins: Registry | None = None
) -> Iterator[Refusal]:
    """What capabilities say against a quantizer.

    Args:
        quantizer: a quantizer of a program.
        capabilities: those of the target, or of one of its modes.
        target: the name of the target, which is none of the remedies.
        mode: the option that narrows what the target takes, for messages.
        plugins: the registry in which targets that take the quantizer are looked for.
    """
    kind = f"{quantizer.op} {quantizer.role}"
    support = capabilities.quant.get(kind)
    place = str(quantizer.where)
    takers = [
        name
        for name, registered in (plugins or registry()).targets.items()
        if name != target and takes(quantizer, registered.item.capabilities)
    ]
    reader = f"{target} with {mode}" if mode else target
    elsewhere = f", or export to a target that takes it ({', '.join(takers)})." if takers else "."
    if support is None:
        yield Refusal(
            where=place,
            op=quantizer.op,
            actual=f"the role {quantizer.role}",
            constraint=f"{reader} takes {', '.join(sorted(capabilities.quant)) or 'no quantizers'}",
            fix=f"Use another quantizer here{elsewhere}",
        )
        return
    for actual, constraint, remedy in _broken(quantizer, support):
        yield Refusal(
            where=place,
            op=quantizer.op,
            actual=actual,
            constraint=f"{reader} supports {constraint} for {_PLURALS[quantizer.role]}",
            fix=f"{remedy}{elsewhere}",
        )


def takes(quantizer: Quantizer, capabilities: Capabilities) -> bool:
    """Whether a target with these capabilities takes a quantizer."""
    support = capabilities.quant.get(f"{quantizer.op} {quantizer.role}")
    return support is not None and not any(True for _ in _broken(quantizer, support))


def _broken(quantizer: Quantizer, support: QuantSupport) -> Iterator[tuple[str, str, str]]:
    """``(actual value, what is supported, remedy)`` for each constraint that a quantizer breaks."""
    if quantizer.scale is None or quantizer.zero_point is None or quantizer.bit_width is None:
        yield "a grid computed at run time", "constant grids", "Use a quantizer with a stored scale"
        return
    if quantizer.bit_width not in support.bit_widths:
        nearest = min(support.bit_widths, key=lambda bits: abs(bits - (quantizer.bit_width or 0)))
        yield (
            f"bit_width={quantizer.bit_width:g}",
            f"bit_width {_numbers(support.bit_widths)}",
            f"Set {quantizer.option('bit_width')}={nearest} on this layer",
        )
    if quantizer.signed not in support.signed:
        yield (
            f"signed={quantizer.signed}",
            f"signed={not quantizer.signed}",
            f"Set {quantizer.option('signed')}={not quantizer.signed}",
        )
    if quantizer.narrow_range not in support.narrow_range:
        yield (
            f"narrow_range={quantizer.narrow_range}",
            f"narrow_range={not quantizer.narrow_range}",
            f"Set {quantizer.option('narrow_range')}={not quantizer.narrow_range} on this layer",
        )
    if support.zero_point == "zero" and bool(torch.any(quantizer.zero_point != 0)):
        kind = "Weight" if quantizer.role == "weight" else "Act"
        yield (
            "a zero_point other than 0",
            "zero_point 0",
            f"Use a symmetric quantizer, such as Int8{kind}PerTensorFloat",
        )
    if quantizer.granularity not in support.granularity:
        words = ", ".join(sorted(support.granularity))
        yield (
            f"a {quantizer.granularity} scale",
            f"{words} scales",
            f"Leave {quantizer.option('group_size')} out"
            if quantizer.granularity == "per_group"
            else f"Set {quantizer.option('scaling_per_output_channel')}={'per_channel' in support.granularity} "
            "on this layer",
        )
    if quantizer.role == "activation" and quantizer.rounding_mode not in support.rounding_modes:
        words = ", ".join(sorted(support.rounding_modes))
        to_nearest = quantizer.rounding_mode in _TO_NEAREST and "ROUND" in support.rounding_modes
        mode = "ROUND" if to_nearest else min(support.rounding_modes)
        yield (
            f"rounding_mode={quantizer.rounding_mode!r}",
            f"rounding_mode {words}",
            f"Set {quantizer.option('rounding_mode')}={mode!r} on this layer",
        )
    if support.scale == "power_of_two" and not _is_power_of_two(quantizer.scale):
        yield (
            f"scale {quantizer.scale.flatten()[0].item():g}",
            "power-of-two scales",
            "Use a bias quantizer of a power-of-two scale (Int8BiasPerTensorFixedPointInternalScaling)"
            if quantizer.role == "bias"
            else f"Set {quantizer.option('restrict_scaling_type')}='power_of_two' on this layer",
        )


def _is_power_of_two(scale: torch.Tensor) -> bool:
    mantissa, _ = torch.frexp(scale)
    return bool(torch.all(mantissa == 0.5))


def _numbers(values: Collection[int]) -> str:
    """``2 to 8`` for a run, else the numbers one by one."""
    ordered = sorted(values)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))
