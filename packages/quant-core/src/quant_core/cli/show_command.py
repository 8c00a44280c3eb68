"""``quant show FILE.onnx``: the quantization of a file at a glance."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from quant_core.cli.errors import json_option
from quant_core.cli.onnx_file import ShownTensor, read_onnx
from quant_core.cli.output import print_json, print_table
from quant_core.errors import LoadError


@click.command("show", short_help="Show the quantization of an ONNX file.")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def show_command(file: Path, as_json: bool) -> None:
    """Show the quantization of an ONNX FILE that any target has written: which node computes on what.

    A node computes on integers or floats as the file says it; a runtime may fuse float operators between QuantizeLinear and
    DequantizeLinear into ones on integers.
    """
    if not file.is_file():
        raise LoadError(
            f"cannot read {file.name!r}",
            where=str(file),
            why="it is a directory" if file.is_dir() else "there is no such file",
            fix="Give the path of a .onnx file.",
        )
    tensors = read_onnx(file)
    if as_json:
        print_json({"file": str(file), "tensors": [asdict(tensor) for tensor in tensors]})
        return
    columns = ("node", "operator", "tensor", "type", "bits", "scale", "zero-point", "computes on")
    print_table(columns, [_row(tensor) for tensor in tensors])


def _row(tensor: ShownTensor) -> tuple[str, ...]:
    bits = "" if tensor.bits is None else str(tensor.bits)
    scale, zero_point = _range(tensor.scale), _range(tensor.zero_point)
    words = {"integer": "integers", "float": "floats"}[tensor.arithmetic]
    return (tensor.node, tensor.op, tensor.tensor, tensor.type, bits, scale, zero_point, words)


def _range(numbers: tuple[Any, ...]) -> str:
    """One number, or the smallest and the largest of several.

    >>> _range((0.5,)), _range((0.5, 0.25, 1.0)), _range((0, 0)), _range(())
    ('0.5', '0.25 to 1 (3)', '0 (2)', '')
    """
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    text = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    return text if len(numbers) == 1 else f"{text} ({len(numbers)})"
