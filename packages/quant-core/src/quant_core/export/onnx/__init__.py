"""What targets that write ONNX files share. Needs onnx and onnxscript, which those targets depend on; this package does not."""

from quant_core.export.onnx.artifact import OnnxArtifact
from quant_core.export.onnx.conversion import Translation, mark, to_onnx

__all__ = ["OnnxArtifact", "Translation", "mark", "to_onnx"]
