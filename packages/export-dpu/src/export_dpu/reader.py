"""From a program to the operations of a file, and to all that the target cannot take of it, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import fx

from export_dpu.joining import read_concatenation, read_sum
from export_dpu.moving import read_copy, read_flatten, read_permutation, read_reshape
from export_dpu.operation import Value
from export_dpu.padding import read_pad
from export_dpu.pooling import read_adaptive_pool, read_average_pool, read_max_pool, read_mean
from export_dpu.products import read_product
from export_dpu.reading import BITS, Reading
from export_dpu.rounding import read_quantizer, read_relu
from quant_core.export import Note, Program, Refusal, is_quantizer
from quant_core.export.assertions import ASSERTIONS
from quant_core.export.fixed_shapes import varying_shapes

_aten = torch.ops.aten

_READERS: Final[Mapping[Any, Callable[[Reading, fx.Node], None]]] = {
    _aten.adaptive_avg_pool2d.default: read_adaptive_pool,
    _aten.add.Tensor: read_sum,
    _aten.avg_pool2d.default: read_average_pool,
    _aten.cat.default: read_concatenation,
    _aten.clone.default: read_copy,
    _aten.constant_pad_nd.default: read_pad,
    _aten.contiguous.default: read_copy,
    _aten.conv2d.default: read_product,
    _aten.conv2d.padding: read_product,
    _aten.conv_transpose2d.input: read_product,
    _aten.flatten.using_ints: read_flatten,
    _aten.linear.default: read_product,
    _aten.max_pool2d.default: read_max_pool,
    _aten.mean.dim: read_mean,
    _aten.pad.default: read_pad,
    _aten.permute.default: read_permutation,
    _aten.relu.default: read_relu,
    _aten.reshape.default: read_reshape,
    _aten.squeeze.dim: read_reshape,
    _aten.squeeze.dims: read_reshape,
    _aten.sum.dim_IntList: read_mean,
    _aten.transpose.int: read_permutation,
    _aten.unsqueeze.default: read_reshape,
    _aten.view.default: read_reshape,
}


def read(program: Program, target: str, pads_apart: bool) -> Reading:
    """Read a program.

    Args:
        program: a captured model.
        target: the name of the target, for messages.
        pads_apart: whether padding is written as operations of its own.
    """
    reading = Reading(program, target, pads_apart, foreign=_foreign(program))
    reading.findings.extend(varying_shapes(program, target, "PyXIR"))
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in program.constants:
            reading.values[node] = Value(name=node.name, position=None, real=True)
        elif node.op == "call_function" and node not in reading.values and reading.parameter(node) is None:
            if is_quantizer(node):
                read_quantizer(reading, node)
            elif node.target in _READERS:
                _READERS[node.target](reading, node)
            elif node.target is _aten.mul.Tensor:
                _refuse_product(reading, node)
            else:  # refused for that
                reading.values[node] = Value(name="", position=None)
    _check_outputs(reading)
    return reading


def _foreign(program: Program) -> frozenset[Any]:
    """The operations of a program that a DPU does not know."""
    called = [node for node in program.graph.nodes if node.op == "call_function" and not is_quantizer(node)]
    return frozenset(node.target for node in called) - {*_READERS, *ASSERTIONS, _aten.mul.Tensor}


def _refuse_product(reading: Reading, node: fx.Node) -> None:
    reading.values[node] = Value(name="", position=None)
    reading.refuse(
        node,
        "a product that is not the factor of an average",
        f"{reading.target} multiplies by weights, and by the factor of an average",
        "Put the factor into the weight or the scale of the layer before, or keep the operation out of the exported part.",
    )


def _check_outputs(reading: Reading) -> None:
    for number, output in enumerate(reading.program.outputs):
        known = reading.values.get(output) if isinstance(output, fx.Node) else None
        produced = known is not None and any(known.name == operation.output for operation in reading.operations)
        if known is None or known.real or (known.name and not produced):
            reading.findings.append(
                Refusal(
                    where=f"output {number}",
                    op="output",
                    actual="nothing that an operation of the file computes",
                    constraint=f"{reading.target} gives results of operations on {BITS}-bit integers",
                    fix="Return results of quantized layers; return inputs and constants outside of the exported part.",
                )
            )


def rules_of_dpuv1(program: Program, rounding_mode: str = "DPU") -> Iterable[Refusal | Note]:
    """What DPUv1 cannot take beyond what its capabilities say."""
    return _rules(program, "dpuv1", rounding_mode, pads_apart=False)


def rules_of_dpuv2(program: Program, rounding_mode: str = "DPU") -> Iterable[Refusal | Note]:
    """What DPUv2 cannot take beyond what its capabilities say."""
    return _rules(program, "dpuv2", rounding_mode, pads_apart=True)


def _rules(program: Program, target: str, rounding_mode: str, *, pads_apart: bool) -> Iterator[Refusal | Note]:
    yield from read(program, target, pads_apart).findings
    activations = [quantizer for quantizer in program.quantizers if quantizer.role == "activation"]
    others = [quantizer for quantizer in activations if quantizer.rounding_mode != rounding_mode]
    if others:
        modes = " and ".join(sorted({quantizer.rounding_mode for quantizer in others}))
        yield Note(
            where=str(others[0].where),
            what=f"values halfway between two steps are rounded by {modes} in {len(others)} of {len(activations)} quantizers, "
            f"and by {rounding_mode} on the DPU: they may differ by one step. Set rounding_mode={rounding_mode!r} on these "
            "quantizers to train with what the hardware computes",
        )
