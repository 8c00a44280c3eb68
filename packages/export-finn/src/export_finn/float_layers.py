"""Layers that are not quantized: FINN builds hardware of products of integers, and leaves functions of floats to others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from export_finn.sums import added_product, is_zero
from quant_core.export import Note, Program, Refusal, grids
from quant_core.export.products import Product, product

_aten = torch.ops.aten
_LINEAR: Final = frozenset(
    {
        _aten.add.Tensor,
        _aten.adaptive_avg_pool1d.default,
        _aten.adaptive_avg_pool2d.default,
        _aten.avg_pool1d.default,
        _aten.avg_pool2d.default,
        _aten.cat.default,
        _aten.constant_pad_nd.default,
        _aten.mean.dim,
        _aten.upsample_nearest2d.default,
        _aten.upsample_nearest2d.vec,
    }
)
"""Operations that leave sums of quantized values quantized, though on another grid."""
_FIRST: Final = frozenset(
    {
        _aten.embedding.default,
        _aten.flatten.using_ints,
        _aten.reshape.default,
        _aten.squeeze.dims,
        _aten.view.default,
    }
)
"""Operations that move what their first operand holds."""
_OF_VALUES: Final = frozenset({_aten.bmm.default, _aten.matmul.default, _aten.mm.default})
"""Products of two matrices, either of which may be computed."""
_OTHERWISE: Final = frozenset(
    {
        _aten.addbmm.default,
        _aten.addmm.default,
        _aten.addmv.default,
        _aten.baddbmm.default,
        _aten.bilinear.default,
        _aten.dot.default,
        _aten.einsum.default,
        _aten.gru.input,
        _aten.lstm.input,
        _aten.mv.default,
        _aten.rnn_relu.input,
        _aten.rnn_tanh.input,
        _aten.scaled_dot_product_attention.default,
    }
)
"""Operations that multiply inside of them, where no quantizer can stand."""
_FUNCTIONS: Final = frozenset(
    {
        _aten.elu.default,
        _aten.gelu.default,
        _aten.group_norm.default,
        _aten.hardsigmoid.default,
        _aten.hardswish.default,
        _aten.instance_norm.default,
        _aten.layer_norm.default,
        _aten.leaky_relu.default,
        _aten.log_softmax.int,
        _aten.mish.default,
        _aten.prelu.default,
        _aten.rms_norm.default,
        _aten.selu.default,
        _aten.sigmoid.default,
        _aten.silu.default,
        _aten.softmax.int,
        _aten.softplus.default,
        _aten.tanh.default,
        _aten.upsample_bilinear2d.vec,
    }
)
"""Functions of floats that are layers."""


def float_products(program: Program) -> Iterator[Refusal]:
    """Products of what is not quantized."""
    weights = frozenset(quantizer.name for quantizer in program.quantizers if quantizer.integers is not None)
    quantized = _quantized(program)
    for node in program.graph.nodes:
        place, op = str(program.where(node)), str(node.target)
        found = product(node, weights | program.constants.keys())
        step = added_product(node, weights)
        if found is not None or step is not None:
            yield from _of_weight(program, found or step[0], weights, quantized)  # type: ignore[index]
        elif node.target in _OTHERWISE:
            yield Refusal(
                where=place,
                op=op,
                actual="products of floats inside of it",
                constraint="FINN computes with integers, in convolutions, linear layers and products of two matrices",
                fix="Use layers whose products are quantized one by one, or keep this one out of the exported part.",
            )
        elif node.target in _OF_VALUES and any(used.name not in quantized for used in node.all_input_nodes):
            yield _float_input(place, op)


def _of_weight(program: Program, found: Product, weights: frozenset[str], quantized: set[str]) -> Iterator[Refusal]:
    place, op = str(program.where(found.node)), str(found.node.target)
    if found.weight.name not in weights:
        yield Refusal(
            where=place,
            op=op,
            actual="a float weight",
            constraint="FINN computes with integer weights",
            fix="Use the quantized layer of quant_nn (or set weight_quant on this one), or keep it out of the exported part.",
        )
    if found.bias is not None and found.bias.name not in weights | program.constants.keys():
        yield Refusal(
            where=place,
            op=op,
            actual="a bias that is computed at run time",
            constraint="FINN stores biases, as it does weights",
            fix="Give the layer a constant bias, or add the computed one to its result.",
        )
    if found.x.name not in quantized and not is_zero(program, found.x):
        yield _float_input(place, op)


def _float_input(place: str, op: str) -> Refusal:
    return Refusal(
        where=place,
        op=op,
        actual="a float input",
        constraint="FINN computes with integer activations",
        fix="Quantize what comes before: with QuantIdentity or QuantReLU, or input_quant on this layer.",
    )


def _quantized(program: Program) -> set[str]:
    """The nodes whose values are on a grid, or sums and averages of such."""
    found = set(grids(program))
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        data = node.all_input_nodes[:1] if node.target in _FIRST else node.all_input_nodes
        if node.target in _LINEAR | _FIRST and data and all(used.name in found for used in data):
            found.add(node.name)
    return found


def float_functions(program: Program) -> Iterator[Note]:
    """Layers that are functions of floats: the file holds them as they are."""
    for node in program.graph.nodes:
        if node.target in _FUNCTIONS:
            yield Note(
                where=str(program.where(node)),
                what=f"{node.target} is computed in floats: FINN makes thresholds of quantizers and of ReLUs only, and leaves "
                "other functions as they are, in the graph around the hardware",
            )
