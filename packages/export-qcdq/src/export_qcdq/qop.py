"""Target ``qop``: standard ONNX whose operators compute on integers.

- Quantized tensors are uint8 from one quantizer to the next. Signed ones are written with a zero-point that is larger by 128: the
  same levels, and operands for which every runtime has a kernel.
- A convolution or a product of matrices that comes to a quantizer is ``QLinearConv`` or ``QLinearMatMul``. One that does not, or
  has a bias that is not on the grid of the accumulator, is ``ConvInteger`` or ``MatMulInteger`` and ``DequantizeLinear``.
- Operations that move or select values do so with the integers; everything else is computed in floats between
  ``DequantizeLinear`` and ``QuantizeLinear``, as the target ``qcdq`` writes it.
"""

from __future__ import annotations

from export_qcdq.integer_lowering import IntegerLowering
from export_qcdq.integer_ops import integer_translations
from export_qcdq.naming import paths, untold_widths
from export_qcdq.ops import translations
from export_qcdq.options import QopOptions
from quant_core.export import Program
from quant_core.export.onnx import OLDEST_WRITTEN, OnnxArtifact, check_precision, describe, leave_out_defaults, to_onnx


def lower(
    program: Program, opset_version: int = 18, unsigned_weights: bool = False, fill_channels: bool = False
) -> OnnxArtifact:
    """Lower a program to operators on integers.

    Args:
        program: a captured model that the target takes.
        opset_version: the version of the standard ONNX operators, 13 to 25.
        unsigned_weights: write weights as uint8 also where they are signed, with the zero-point moved by 128.
        fill_channels: give convolutions input channels of zeros up to a multiple of four.

    Raises:
        ConfigurationError: for another version, or a value that is no truth value.
        UnsupportedError: when operations of the model have no ONNX operator, or a quantizer does not compute in float32.
    """
    options = QopOptions(opset_version=opset_version, unsigned_weights=unsigned_weights, fill_channels=fill_channels)
    check_precision(program, "qop")
    lowering = IntegerLowering(
        program, opset=opset_version, unsigned_weights=unsigned_weights, fill_channels=fill_channels
    )
    written = max(opset_version, OLDEST_WRITTEN)
    converted = to_onnx(
        program,
        lowering.exported(),
        target="qop",
        translations=translations(written) | integer_translations(written),
        opset=opset_version,
        producer="export-qcdq",
        steps=(leave_out_defaults,),
        metadata=describe("qop", "export-qcdq", options.described(), untold_widths(program)),
        names=paths(program),
        compact=True,
    )
    names, grids = lowering.shown(converted.names)
    return OnnxArtifact("qop", program.signature, converted._replace(names=names), grids)
