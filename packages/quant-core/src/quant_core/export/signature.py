"""How a program is called: nested inputs and outputs, and the flat ones that graphs and runtimes know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument
from torch.utils import _pytree as pytree

from quant_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CallSignature:
    """The structure of the inputs and outputs of a program.

    Attributes:
        inputs: the names of the flat inputs, in order.
        tensors: those of them that are tensors.
        constants: those of them that are numbers, words or the like, with the values that the model was captured with: they are
            a part of the program, and cannot be others when it is called.
        in_spec: the structure of ``(args, kwargs)``.
        out_spec: the structure of the outputs.
    """

    inputs: tuple[str, ...]
    tensors: frozenset[str] = frozenset()
    constants: Mapping[str, Any] = field(default_factory=dict)
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec

    def flatten(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> list[Any]:
        """The leaves of the inputs, in the order of :attr:`inputs`; keywords may come in any order.

        Raises:
            InputError: when their structure is not the one that the model was captured with, something stands in the place of a
                tensor, or a constant has another value.
        """
        given = dict(kwargs or {})
        names = self.in_spec.child(1).context or []
        ordered = {name: given[name] for name in names if name in given} | given
        leaves, spec = pytree.tree_flatten((tuple(args), ordered))
        if spec != self.in_spec:
            raise InputError(
                f"the inputs do not have the structure that the model was captured with ({len(leaves)} leaves)",
                why=f"it was captured with {len(self.inputs)}: {', '.join(self.inputs)}",
                fix="Pass the same positional and keyword arguments, nested in the same way, as to capture.",
            )
        for name, leaf in zip(self.inputs, leaves, strict=True):
            self._check(name, leaf)
        return leaves

    def _check(self, name: str, leaf: Any) -> None:
        if name in self.tensors and not isinstance(leaf, Tensor):
            raise InputError(
                f"the input {name!r} is a {type(leaf).__name__}",
                why="the model was captured with a tensor there",
                fix="Pass a tensor; torch.as_tensor makes one of numbers and arrays.",
            )
        if name in self.constants and (isinstance(leaf, Tensor) or leaf != self.constants[name]):
            shown = f"a tensor of shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)
            raise InputError(
                f"the input {name!r} is {shown}",
                why=f"it is a part of the program, which was captured with {name}={self.constants[name]!r}",
                fix="Capture the model with this value, or make it a tensor in the model and in the example inputs.",
            )

    def nest(self, leaves: list[Any]) -> Any:
        """Flat outputs in the structure that the model returns."""
        return pytree.tree_unflatten(leaves, self.out_spec)


def signature_of(exported: ExportedProgram) -> CallSignature:
    """The call signature of an exported program."""
    given = [spec.arg for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    return CallSignature(
        inputs=tuple(arg.name for arg in given),
        tensors=frozenset(arg.name for arg in given if isinstance(arg, TensorArgument)),
        constants={arg.name: arg.value for arg in given if isinstance(arg, ConstantArgument)},
        in_spec=exported.call_spec.in_spec,
        out_spec=exported.call_spec.out_spec,
    )
