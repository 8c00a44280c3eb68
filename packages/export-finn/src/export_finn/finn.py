"""Target ``finn``: FINN-ONNX, in which hardware is built from integers.

- A weight is stored as integers with an annotation of their datatype; its scale is a ``Mul`` after the product.
- An activation quantizer becomes a ``MultiThreshold`` that gives integers. Its scale is a ``Mul`` too, which stands after the
  products, poolings and reshapes that can be computed with the integers, so that accumulators are integers.
- A quantized bias is added to the accumulator as integers.
- An average pool whose sum is truncated becomes ``QuantAvgPool2d``.
"""

from __future__ import annotations

from export_finn.artifact import QonnxArtifact
from export_finn.averaging import restore_average
from export_finn.datatypes import annotate
from export_finn.flattening import restore_flatten
from export_finn.lowering import Lowering
from export_finn.ops import translations
from export_finn.outputs import compute_constant_outputs
from quant_core.export import Program
from quant_core.export.onnx import check_opset, check_precision, to_onnx


def lower(program: Program, opset_version: int = 18) -> QonnxArtifact:
    """Lower a program to FINN-ONNX.

    Args:
        program: a captured model that the target takes.
        opset_version: the version of the standard ONNX operators, 18 to 21.

    Raises:
        ConfigurationError: for another version.
        UnsupportedError: when an operation of the model has no ONNX operator, or a quantizer does not compute in float32.
    """
    check_opset(opset_version)
    check_precision(program, "finn")
    lowering = Lowering(program)
    converted = to_onnx(
        program,
        lowering.exported(),
        target="finn",
        translations=translations(),
        opset=opset_version,
        producer="export-finn",
        steps=(
            restore_flatten,
            restore_average,
            compute_constant_outputs,
            annotate(lowering.constant_datatypes, lowering.result_datatypes),
        ),
    )
    content, names = converted.in_one_file("finn")
    values, scales = lowering.values(names)
    return QonnxArtifact("finn", program.signature, content, values, scales)
