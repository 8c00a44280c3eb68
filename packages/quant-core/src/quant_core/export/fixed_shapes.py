"""Axes of varying size, for targets that need every shape fixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from quant_core.export.check_report import Refusal
from quant_core.export.program import Program

VARYING: Final = "a shape that varies"


def varying_shapes(program: Program, target: str, reader: str) -> Iterator[Refusal]:
    """A refusal for each input with an axis of varying size.

    Args:
        program: a captured model.
        target: the name of the target.
        reader: who needs the shapes fixed, for the message.
    """
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not all(isinstance(size, int) for size in value.shape):
            yield Refusal(
                where=f"input {node.name!r}",
                op="input",
                actual=VARYING,
                constraint=f"{reader} needs every shape fixed, got ({', '.join(map(str, value.shape))})",
                fix=f"Leave dynamic_shapes (--dynamic-batch) out: target {target!r} then takes the shapes of the example "
                "inputs. For another batch, export with an example of that batch.",
            )
