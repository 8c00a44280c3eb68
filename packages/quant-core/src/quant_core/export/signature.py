"""How a program is called: nested inputs and outputs, and the flat ones that graphs and runtimes know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from quant_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CallSignature:
    """The structure of the inputs and outputs of a program.

    Attributes:
        inputs: the names of the flat inputs, in order.
        in_spec: the structure of ``(args, kwargs)``.
        out_spec: the structure of the outputs.
    """

    inputs: tuple[str, ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec

    def flatten(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> list[Any]:
        """The leaves of the inputs, in the order of :attr:`inputs`; keywords may come in any order.

        Raises:
            InputError: when their structure is not the one that the model was captured with.
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
        return leaves

    def nest(self, leaves: list[Any]) -> Any:
        """Flat outputs in the structure that the model returns."""
        return pytree.tree_unflatten(leaves, self.out_spec)


def signature_of(exported: ExportedProgram) -> CallSignature:
    """The call signature of an exported program."""
    names = exported.graph_signature.user_inputs
    return CallSignature(
        inputs=tuple(str(name) for name in names),
        in_spec=exported.call_spec.in_spec,
        out_spec=exported.call_spec.out_spec,
    )
