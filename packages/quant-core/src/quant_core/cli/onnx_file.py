"""What an ONNX file of any target says of its quantization: which tensor is held in which integers. Imports no torch.

Four dialects are read: the standard operators (QuantizeLinear, DequantizeLinear and the operators on integers), those of QONNX,
the annotations of FINN, and the attributes of PyXIR.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from quant_core.errors import LoadError

Arithmetic = Literal["integer", "float"]

_BIT_WIDTHS: Final = "quant.bit_widths"
_ON_INTEGERS: Final = frozenset(
    {
        "ConvInteger",
        "MatMulInteger",
        "MultiThreshold",
        "QLinearConv",
        "QLinearMatMul",
        "QuantAvgPool2d",
        "QuantizeLinear",
    }
)
_TO_FLOATS: Final = frozenset({"BipolarQuant", "DequantizeLinear", "Quant", "Trunc"})
_PARTS: Final = {
    "QuantizeLinear": (("output", None, 1, 2),),
    "QLinearConv": (("weight", 3, 4, 5), ("output", None, 6, 7)),
    "QLinearMatMul": (("weight", 3, 4, 5), ("output", None, 6, 7)),
    "ConvInteger": (("weight", 1, None, 3),),
    "MatMulInteger": (("weight", 1, None, 3),),
}
"""Which operands of a standard operator hold the integers, scale and zero-point of a tensor."""


@dataclass(frozen=True, kw_only=True)
class ShownTensor:
    """One tensor of a file.

    Attributes:
        node: the name of the node that gives or reads it, with the path of its module.
        op: the operator.
        tensor: ``"weight"``, ``"bias"``, ``"input"`` or ``"output"``.
        type: how it is held, such as ``int8``; ``float`` where it is not quantized.
        bits: how many bits its levels have; ``None`` where it is not quantized.
        scale: its scale, or one for each channel or block; empty where the file does not tell it.
        zero_point: in the same way.
        arithmetic: whether the node computes on integers as the file says it; runtimes may fuse more.
    """

    node: str
    op: str
    tensor: str
    type: str
    bits: int | None
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    arithmetic: Arithmetic


def read_onnx(path: Path) -> tuple[ShownTensor, ...]:
    """The tensors of a file, in the order of its nodes.

    Raises:
        LoadError: when onnx is not installed, or the file is none that it reads.
    """
    try:
        import onnx
    except ImportError as missing:
        raise LoadError(
            f"cannot read {path.name!r}",
            where=str(path),
            why="onnx is not installed",
            fix="Install it: pip install onnx",
        ) from missing
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as failure:
        raise LoadError(
            f"cannot read {path.name!r}",
            where=str(path),
            why=f"it is not an ONNX file that can be read: {type(failure).__name__}",
            fix="Give the path of a .onnx file.",
        ) from failure
    if not model.graph.node and not model.graph.input:
        raise LoadError(
            f"cannot read {path.name!r}",
            where=str(path),
            why="it holds no graph",
            fix="Give the path of a .onnx file.",
        )
    return tuple(_Reader(model).tensors())


class _Reader:
    """A graph, and what is known of its values."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.widths: dict[str, int] = next(
            (json.loads(entry.value) for entry in model.metadata_props if entry.key == _BIT_WIDTHS), {}
        )
        self.annotated = {
            one.tensor_name: {entry.key: entry.value for entry in one.quant_parameter_tensor_names}
            for one in model.graph.quantization_annotation
        }
        self.integers: set[str] = set()  # the values that nodes give as integers

    def tensors(self) -> Iterator[ShownTensor]:
        for node in self.graph.node:
            yield from self._of(node)

    def _of(self, node: Any) -> Iterator[ShownTensor]:
        held = bool(node.input) and node.input[0] in self.integers
        attributes = {attribute.name: attribute for attribute in node.attribute}
        annotated = [name for name in node.input if "finn_datatype" in self.annotated.get(name, {})]
        on_integers = (held or node.op_type in _ON_INTEGERS or bool(annotated)) and node.op_type not in _TO_FLOATS
        arithmetic: Arithmetic = "integer" if on_integers or "vai_quant" in attributes else "float"
        if on_integers and not annotated and node.op_type != "MultiThreshold":
            self.integers.update(node.output)
        found = [*self._standard(node), *self._qonnx(node, attributes), *self._finn(node, annotated, attributes)]
        found += list(_pyxir(attributes))
        for tensor, kind, bits, scale, zero_point in found or [
            ("output", "integer" if on_integers else "float", None, (), ())
        ]:
            yield ShownTensor(
                node=node.name or node.op_type,
                op=node.op_type,
                tensor=tensor,
                type=kind,
                bits=bits,
                scale=scale,
                zero_point=zero_point,
                arithmetic=arithmetic,
            )

    def _standard(self, node: Any) -> Iterator[_Found]:
        if node.op_type == "DequantizeLinear" and node.input[0] in self.constants:
            role = "bias" if self._type(node.input[0]) == "int32" else "weight"
            yield self._described(node, role, 0, 1, 2)
        for tensor, integers, scale, zero_point in _PARTS.get(node.op_type, ()):
            if integers is None or node.input[integers] in self.constants:
                yield self._described(node, tensor, integers, scale, zero_point)

    def _described(
        self, node: Any, tensor: str, integers: int | None, scale: int | None, zero_point: int | None
    ) -> _Found:
        zero = node.input[zero_point] if zero_point is not None and len(node.input) > zero_point else ""
        name = zero if integers is None else node.input[integers]
        kind = self._type(name) if name else "uint8"
        key = node.name.rpartition("/")[0] if integers is None else name
        bits = self.widths.get(key, _bits(kind))
        numbers = self._numbers(node.input[scale]) if scale is not None else ()
        return tensor, kind, bits, numbers, tuple(map(int, self._numbers(zero))) if zero else (0,)

    def _qonnx(self, node: Any, attributes: dict[str, Any]) -> Iterator[_Found]:
        tensor = "weight" if node.input and node.input[0] in self.constants else "output"
        if node.op_type == "BipolarQuant":
            yield tensor, "bipolar", 1, self._numbers(node.input[1]), ()
        elif node.op_type in ("Quant", "Trunc"):
            scale, bits = (1, 3) if node.op_type == "Quant" else (4, 5)
            if len(node.input) <= bits:  # the older form of Trunc keeps the scale
                scale, bits = 1, 4
            (width,) = self._numbers(node.input[bits]) or (0.0,)
            signed = "signed" not in attributes or bool(attributes["signed"].i)
            zero_point = tuple(map(int, self._numbers(node.input[2])))
            kind = f"{'' if signed else 'u'}int{int(width)}"
            yield tensor, kind, int(width), self._numbers(node.input[scale]), zero_point

    def _finn(self, node: Any, annotated: Sequence[str], attributes: dict[str, Any]) -> Iterator[_Found]:
        for name in annotated:
            if name in self.constants:
                kind = self.annotated[name]["finn_datatype"].lower()
                yield "weight", kind, _bits(kind), (), ()
        if node.op_type == "MultiThreshold" and "out_dtype" in attributes:
            kind = attributes["out_dtype"].s.decode().lower()
            yield "output", kind, _bits(kind), (), ()

    def _type(self, name: str) -> str:
        import onnx

        tensor = self.constants.get(name)
        return "float" if tensor is None else onnx.TensorProto.DataType.Name(tensor.data_type).lower()

    def _numbers(self, name: str) -> tuple[float, ...]:
        """The values of a constant; none where it is no constant, or lies in a second file."""
        from onnx import TensorProto, numpy_helper

        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return ()
        return tuple(float(value) for value in numpy_helper.to_array(tensor).reshape(-1))


_Found = tuple[str, str, int | None, tuple[float, ...], tuple[int, ...]]
"""What is said of a tensor: which one, type, bits, scale and zero-point."""


def _pyxir(attributes: dict[str, Any]) -> Iterator[_Found]:
    """Each kind of tensor has bits and a position: its scale is two to the power of minus that."""
    kinds = {"weights": "weight", "biases": "bias", "in": "input", "out": "output"}
    for kind, tensor in kinds.items():
        numbers = list(attributes[f"vai_quant_{kind}"].ints) if f"vai_quant_{kind}" in attributes else []
        for bits, position in zip(numbers[::2], numbers[1::2], strict=True):
            yield tensor, f"int{bits}", int(bits), (2.0**-position,), (0,)


def _bits(kind: str) -> int | None:
    """``4`` for ``uint4``."""
    found = re.search(r"\d+$", kind)
    return 1 if kind in ("bipolar", "binary") else 2 if kind == "ternary" else int(found.group()) if found else None
