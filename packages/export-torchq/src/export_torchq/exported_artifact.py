"""A ``.pt2`` file, and running it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from quant_core.errors import ArtifactError
from quant_core.export import Artifact, CallSignature, Trace


class ExportedArtifact(Artifact):
    """A program of ``torch.export`` with pairs of ``quantized_decomposed`` operators.

    Args:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        content: the bytes of the file.
        shown: for quantizers of the program by name, the name of the call that gives their values.

    It runs as the file says, call by call, without a compiler.
    """

    def __init__(self, target: str, signature: CallSignature, content: bytes, shown: Mapping[str, str]) -> None:
        super().__init__(target, signature)
        self._content = content
        self._shown = {made: name for name, made in shown.items()}

    def content(self) -> bytes:
        """The bytes of the ``.pt2`` file."""
        return self._content

    @cached_property
    def exported(self) -> ExportedProgram:
        """The program in the file, for ``torch.compile(artifact.exported.module())`` or a lowering of ExecuTorch."""
        return torch.export.load(io.BytesIO(self._content))

    def trace(self, inputs: list[Any]) -> Trace:
        """Run it on flat inputs.

        Raises:
            ArtifactError: when an operation refuses its operands.
        """
        values: dict[str, Tensor] = {}
        exported = self.exported
        stored = {**exported.state_dict, **exported.constants}
        names = {spec.arg.name: spec.target for spec in exported.graph_signature.input_specs if spec.target}
        given = iter(leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in inputs)
        operands = [
            stored[names[node.name]] if node.name in names else next(given)
            for node in exported.graph.find_nodes(op="placeholder")
        ]
        try:
            with torch.no_grad():
                outputs = _Steps(exported.graph_module, self._shown, values).run(*operands)
        except RuntimeError as failure:
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in inputs if isinstance(leaf, Tensor))
            raise ArtifactError(
                f"torch cannot run the file on inputs of shape {shapes}",
                where="torch.export.load",
                why=str(failure).strip().splitlines()[0],
                fix="Give inputs of the shapes that the model was captured with, or name the axes that change in dynamic_shapes.",
            ) from failure
        return Trace(outputs=list(outputs), values=values, program=self.program, inputs=inputs)


class _Steps(fx.Interpreter):
    """Runs the calls one by one, and notes the values that are asked for."""

    def __init__(self, module: fx.GraphModule, shown: Mapping[str, str], values: dict[str, Tensor]) -> None:
        super().__init__(module)
        self._shown, self._values = shown, values

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self._shown:
            self._values[self._shown[n.name]] = result
        return result
