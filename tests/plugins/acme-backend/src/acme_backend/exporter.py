"""The target ``acme-json``: a listing of a program, with the integers of its weights."""

from __future__ import annotations

import json
from typing import Any

from quant_core.errors import ArtifactError
from quant_core.export import Artifact, Program, Trace


class JsonListing(Artifact):
    """A JSON file. No runtime knows the format."""

    def __init__(self, program: Program, indent: int | None) -> None:
        super().__init__("acme-json", program.signature)
        listing = {"inputs": list(program.signature.inputs), "operations": operations(program)}
        self._text = json.dumps(listing, indent=indent) + "\n"

    def content(self) -> bytes:
        """The bytes of the file."""
        return self._text.encode()

    def trace(self, inputs: list[Any]) -> Trace:
        """Always refuses."""
        raise ArtifactError("an acme-json file cannot be run", why="it is a listing", fix="Export with --no-verify.")


def operations(program: Program) -> list[dict[str, Any]]:
    """One entry for each operation, in the order of the graph."""
    quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
    listed: list[dict[str, Any]] = []
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        entry: dict[str, Any] = {
            "name": node.name,
            "op": str(node.target),
            "at": program.where(node).path,
            "inputs": [operand.name for operand in node.all_input_nodes],
        }
        if (quantizer := quantizers.get(node.name)) is not None:
            entry |= {
                "role": quantizer.role,
                "bit_width": quantizer.bit_width,
                "signed": quantizer.signed,
                "scale": None if quantizer.scale is None else quantizer.scale.flatten().tolist(),
                "integers": None if quantizer.integers is None else quantizer.integers.tolist(),
            }
        listed.append(entry)
    return listed


def lower(program: Program, indent: int | None = None) -> JsonListing:
    """Lower a program to a listing."""
    return JsonListing(program, indent)
