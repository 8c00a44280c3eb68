"""A file of DPU operators, and running it in integers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from export_dpu.arithmetic import to_real
from export_dpu.interpreter import Interpreter
from quant_core.export import Artifact, CallSignature, Trace


class DpuArtifact(Artifact):
    """An ONNX model with operators of a DPU.

    Args:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        content: the bytes of the file.
        values: for nodes of the program by name, the name of the ONNX value and the position of its integers.
        rounding_mode: how :meth:`run` rounds values halfway between two integers.

    It runs in :class:`~export_dpu.interpreter.Interpreter`, on inputs of the shapes that the model was captured with.
    """

    def __init__(
        self,
        target: str,
        signature: CallSignature,
        content: bytes,
        values: Mapping[str, tuple[str, int]],
        rounding_mode: str = "DPU",
    ) -> None:
        super().__init__(target, signature)
        self._content = content
        self._values = dict(values)
        self.rounding_mode = rounding_mode

    def content(self) -> bytes:
        """The bytes of the ``.onnx`` file."""
        return self._content

    def trace(self, inputs: list[Any]) -> Trace:
        """Run it in integers on flat inputs.

        Raises:
            ArtifactError: when an input has another shape than that of capture.
        """
        held = self._interpreter.run(dict(zip(self.signature.inputs, inputs, strict=True)))
        mode = self._interpreter.rounding_mode
        values = {
            node: to_real(held[name].integers(position, mode), position)
            for node, (name, position) in self._values.items()
        }
        outputs = [held[value.name].real() for value in self._interpreter.model.graph.output]
        return Trace(outputs=outputs, values=values, program=self.program, inputs=inputs)

    @cached_property
    def _interpreter(self) -> Interpreter:
        return Interpreter(self._content, self.rounding_mode)
