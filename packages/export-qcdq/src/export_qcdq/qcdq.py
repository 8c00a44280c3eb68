"""Target ``qcdq``: standard ONNX in which quantization is QuantizeLinear → Clip → DequantizeLinear.

- An activation quantizer becomes ``QuantizeLinear`` to the smallest integer type, ``Clip`` where its range is smaller than the
  type's, and ``DequantizeLinear``.
- A weight is stored in the smallest integer type behind one ``DequantizeLinear``: a quarter of the size of a float one or less.
- A quantized bias is stored as int32 behind one ``DequantizeLinear`` at the accumulator's scale, with which runtimes compute in
  integers.
"""

from __future__ import annotations

from export_qcdq.channels import missing_channels
from export_qcdq.lowering import Lowering
from export_qcdq.naming import paths, untold_widths
from export_qcdq.ops import translations
from export_qcdq.options import QcdqOptions
from export_qcdq.packing import pack
from quant_core.export import Program
from quant_core.export.onnx import OLDEST_WRITTEN, OnnxArtifact, check_precision, describe, leave_out_defaults, to_onnx


def lower(
    program: Program,
    opset_version: int = 18,
    packed: bool = False,
    exact_ties: bool = False,
    tensorrt: bool = False,
    fill_channels: bool = False,
) -> OnnxArtifact:
    """Lower a program to QCDQ.

    Args:
        program: a captured model that the target takes.
        opset_version: the version of the standard ONNX operators, 13 to 25.
        packed: store weights of up to 4 bits two in a byte, and of up to 2 bits four in a byte from opset 25 on; from opset 21.
        exact_ties: round activations with a zero-point other than 0 as the model does also halfway between two levels, by a
            sequence of operators that runtimes do not fuse.
        fill_channels: give convolutions input channels of zeros up to a multiple of four.
        tensorrt: keep to what TensorRT reads: signed integers of 8 bits without ``Clip``, biases as floats.

    Raises:
        ConfigurationError: for another version, or options that exclude each other.
        UnsupportedError: when operations of the model have no ONNX operator, or a quantizer does not compute in float32.
    """
    options = QcdqOptions(
        opset_version=opset_version,
        packed=packed,
        exact_ties=exact_ties,
        tensorrt=tensorrt,
        fill_channels=fill_channels,
    )
    check_precision(program, "qcdq")
    missing = missing_channels(program) if fill_channels else {}
    lowering = Lowering(
        program,
        opset=opset_version,
        packed=packed,
        exact_ties=exact_ties,
        float_biases=tensorrt,
        missing=missing,
    )
    converted = to_onnx(
        program,
        lowering.exported(),
        target="qcdq",
        translations=translations(max(opset_version, OLDEST_WRITTEN)),
        opset=opset_version,
        producer="export-qcdq",
        steps=(pack, leave_out_defaults),
        metadata=describe("qcdq", "export-qcdq", options.described(), untold_widths(program, float_biases=tensorrt)),
        names=paths(program),
        compact=True,
    )
    names = {name: value for name, value in converted.names.items() if name not in missing}  # these have other shapes
    return OnnxArtifact("qcdq", program.signature, converted._replace(names=names))
