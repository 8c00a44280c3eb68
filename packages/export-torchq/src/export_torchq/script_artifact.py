"""A TorchScript file, and running it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from export_torchq.engines import computing_with
from quant_core.errors import ArtifactError
from quant_core.export import Artifact, CallSignature, Trace


class ScriptArtifact(Artifact):
    """A TorchScript module of torch's quantized operators.

    Args:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        content: the bytes of the file.
        module: the same calls, one by one.
        shown: for quantizers of the program by name, the name of the call that gives their values.
        engine: what computes.

    It runs as the file says: loaded with ``torch.jit.load``, computed by its engine.
    """

    def __init__(
        self,
        target: str,
        signature: CallSignature,
        content: bytes,
        module: fx.GraphModule,
        shown: Mapping[str, str],
        engine: str,
    ) -> None:
        super().__init__(target, signature)
        self._content = content
        self._module = module
        self._shown = dict(shown)
        self.engine = engine

    def content(self) -> bytes:
        """The bytes of the ``.pt`` file."""
        return self._content

    @property
    def calls(self) -> tuple[str, ...]:
        """The operators that are called, in order, such as ``quantized.conv2d_relu``."""
        return tuple(_name(node.target) for node in self._module.graph.nodes if node.op == "call_function")

    def trace(self, inputs: list[Any]) -> Trace:
        """Run it on flat inputs.

        Raises:
            ArtifactError: when an operator refuses its operands.
        """
        given = [leaf.detach().cpu() for leaf in inputs if isinstance(leaf, Tensor)]
        with computing_with(self.engine), torch.no_grad():
            try:
                returned = torch.jit.load(io.BytesIO(self._content))(*(leaf.clone() for leaf in given))
                steps = _Steps(self._module)
                steps.run(*given)
            except RuntimeError as failure:
                raise _refusal(failure, self.engine, given) from failure
            values = {name: steps.values[made].dequantize() for name, made in self._shown.items()}
        outputs = [returned] if isinstance(returned, Tensor) else list(returned)
        return Trace(outputs=outputs, values=values, program=self.program, inputs=inputs)


class _Steps(fx.Interpreter):
    """Runs the calls one by one, and keeps what each gives."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n.name] = result
        return result


def _name(operator: Any) -> str:
    return str(operator) if isinstance(operator, torch._ops.OpOverloadPacket) else operator.__name__


def _refusal(failure: RuntimeError, engine: str, given: list[Tensor]) -> ArtifactError:
    lines = [line for line in str(failure).strip().splitlines() if line.strip()]
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in given)
    return ArtifactError(
        f"torch's engine {engine!r} cannot run the file on inputs of shape {shapes}",
        where="torch.jit.load",
        why=next((line.strip() for line in lines if "Error: " in line), lines[-1].strip() if lines else "no message"),
        fix="Give inputs of the shapes that the model was captured with, or choose another engine; the operator's own report "
        "is the cause of this error.",
    )
