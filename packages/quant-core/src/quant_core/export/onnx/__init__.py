"""What targets that write ONNX files share. Needs onnx and onnxscript, which those targets depend on; this package does not."""

from quant_core.export.onnx.artifact import OnnxArtifact
from quant_core.export.onnx.conversion import Converted, Step, Translation, mark, to_onnx
from quant_core.export.onnx.custom import custom_op
from quant_core.export.onnx.defaults import leave_out_defaults
from quant_core.export.onnx.metadata import describe
from quant_core.export.onnx.naming import SCOPES, origin
from quant_core.export.onnx.older_opset import OLDEST_WRITTEN
from quant_core.export.onnx.requirements import OPSETS, check_opset, check_precision

__all__ = [
    "OLDEST_WRITTEN",
    "OPSETS",
    "SCOPES",
    "Converted",
    "OnnxArtifact",
    "Step",
    "Translation",
    "check_opset",
    "check_precision",
    "custom_op",
    "describe",
    "leave_out_defaults",
    "mark",
    "origin",
    "to_onnx",
]
