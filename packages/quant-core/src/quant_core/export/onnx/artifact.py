"""An ONNX file, with a second one where it is too large for one, and running it in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.errors import ArtifactError
from quant_core.export.artifact import Artifact
from quant_core.export.files import write_together
from quant_core.export.onnx.conversion import Converted
from quant_core.export.onnx.external_data import placed, session_with
from quant_core.export.signature import CallSignature
from quant_core.export.trace import Trace

Grid = tuple[Tensor, Tensor]
"""Scale and zero-point of integers, each of which broadcasts to them."""
_NONE: Final[Mapping[str, Grid]] = MappingProxyType({})


class OnnxArtifact(Artifact):
    """An ONNX model.

    Args:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        converted: the file, and the name of the ONNX value of each quantizer and other node of the program.
        grids: the grid of each of these values that is one of integers in the file.

    It runs in onnxruntime without graph optimizations, so that what is compared is what the file says.
    """

    def __init__(
        self, target: str, signature: CallSignature, converted: Converted, grids: Mapping[str, Grid] = _NONE
    ) -> None:
        super().__init__(target, signature)
        self._content = converted.content
        self._data = converted.data
        self._values = dict(converted.names)
        self._grids = dict(grids)

    def content(self) -> bytes:
        """The bytes of the ``.onnx`` file."""
        return self._content

    @property
    def size(self) -> int:
        """The size in bytes of its file, or of both of its files."""
        return len(self._content) + len(self._data)

    def save(self, path: str | Path) -> Path:
        """Write it to ``path`` in one step, and return the path. A model of more than 2 GB has a second file, ``path.data``.

        Raises:
            ArtifactError: when a file cannot be written; what was there before is unchanged.
        """
        place = Path(path)
        if not self._data:
            return super().save(place)
        beside = f"{place.name}.data"
        write_together({place.with_name(beside): self._data, place: placed(self._content, beside)})
        return place

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
        found = dict(zip(self._values, outputs[count:], strict=True))
        values = {name: _dequantized(value, self._grids.get(name)) for name, value in found.items()}
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
            content = session_with(model.SerializeToString(), self._data, options)
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as failure:
            raise self._refused("the file", failure) from failure

    def _refused(self, what: str, failure: Exception) -> ArtifactError:
        return ArtifactError(
            f"onnxruntime refuses {what} of the {self.target} artifact",
            why=f"{type(failure).__name__}: {' '.join(str(failure).split())}",
            fix="Pass inputs of the shapes and dtypes that the model was captured with; if they are right, report this as a "
            "defect of the target.",
        )


def _dequantized(value: Any, grid: Grid | None) -> Any:
    if grid is None:
        return value
    scale, zero_point = grid
    return (value.to(scale.dtype) - zero_point) * scale
