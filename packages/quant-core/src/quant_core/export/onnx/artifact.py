"""An ONNX file, and running it in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from quant_core.errors import ArtifactError
from quant_core.export.artifact import Artifact
from quant_core.export.signature import CallSignature
from quant_core.export.trace import Trace


class OnnxArtifact(Artifact):
    """An ONNX model.

    Args:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        content: the bytes of the file.
        values: the name of the ONNX value of each quantizer and other node of the program, by the node's name.

    It runs in onnxruntime without graph optimizations, so that what is compared is what the file says.
    """

    def __init__(self, target: str, signature: CallSignature, content: bytes, values: Mapping[str, str]) -> None:
        super().__init__(target, signature)
        self._content = content
        self._values = dict(values)

    def content(self) -> bytes:
        """The bytes of the ``.onnx`` file."""
        return self._content

    def trace(self, inputs: list[Any]) -> Trace:
        """Run it in onnxruntime on flat inputs.

        Raises:
            ArtifactError: when onnxruntime is not installed, or refuses the file or the inputs.
        """
        names = [value.name for value in self._session.get_inputs()]
        tensors = dict(zip(self.signature.inputs, inputs, strict=True))
        feed = {name: tensors[name].detach().cpu().numpy() for name in names}
        try:
            results = self._session.run(None, feed)
        except Exception as failure:
            raise self._refused("the inputs", failure) from failure
        outputs = [torch.from_numpy(result) if hasattr(result, "shape") else result for result in results]
        count = len(outputs) - len(self._values)
        values = dict(zip(self._values, outputs[count:], strict=True))
        return Trace(outputs=outputs[:count], values=values, program=self.program, inputs=inputs)

    @cached_property
    def _session(self) -> Any:
        """A session that also gives the values in between."""
        try:
            import onnx
            import onnxruntime
        except ImportError as missing:
            raise ArtifactError(
                f"the {self.target} artifact cannot be run",
                why=f"{missing.name} is not installed",
                fix="Install it: pip install onnxruntime",
            ) from missing
        model = onnx.load_from_string(self._content)
        for name in self._values.values():
            model.graph.output.append(onnx.ValueInfoProto(name=name))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as failure:
            raise self._refused("the file", failure) from failure

    def _refused(self, what: str, failure: Exception) -> ArtifactError:
        return ArtifactError(
            f"onnxruntime refuses {what} of the {self.target} artifact",
            why=f"{type(failure).__name__}: {' '.join(str(failure).split())}",
            fix="Pass inputs of the shapes and dtypes that the model was captured with; if they are right, report this as a "
            "defect of the target.",
        )
