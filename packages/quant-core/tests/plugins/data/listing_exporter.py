"""The exporter of listing_plugin.py; with `error` it is not equal to the model, with `weights` it lists those."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from torch.utils import _pytree as pytree

from quant_core.export import Artifact, Note, Program, Trace


class Listing(Artifact):
    def __init__(self, program: Program, error: float, weights: bool) -> None:
        super().__init__("listing", program.signature)
        self.program = program
        self.error = error
        self.weights = weights

    def content(self) -> bytes:
        if self.weights:
            return json.dumps(
                {name: tensor.tolist() for name, tensor in self.program.exported.state_dict.items()}
            ).encode()
        calls = [str(node.target) for node in self.program.graph.nodes if node.op == "call_function"]
        return json.dumps(calls).encode()

    def trace(self, inputs: list[Any]) -> Trace:
        args, kwargs = pytree.tree_unflatten(inputs, self.signature.in_spec)
        outputs = pytree.tree_leaves(self.program.run(*args, **kwargs))
        return Trace(outputs=[output + self.error for output in outputs], values={})


def lower(program: Program, error: float = 0.0, weights: bool = False) -> Listing:
    return Listing(program, error, weights)


def rules(program: Program) -> Iterator[Note]:
    count = sum(node.op == "call_function" for node in program.graph.nodes)
    yield Note(where="the file", what=f"readers of lists count {count} operations")
